//! Prints the tests that hold what a spec does now.

use std::collections::BTreeSet;

use crate::commands::console::Console;
use crate::commands::error::Result;
use crate::commands::exit::Exit;
use crate::commands::spec::{examine, places, spec_of};
use crate::forwards::{PacketTest, suggested};
use crate::host::spec_source::SpecSource;
use crate::netfilter::token::shell_word;
use crate::yaml;

/// Prints the suggested tests. For a spec that has tests, prints those that it lacks, as lines for its list.
pub fn suggest(source: &SpecSource, console: &mut Console) -> Result<Exit> {
    let reading = examine(source);
    let list = reading.test_list(&places(source));
    let set = spec_of(source, reading, console)?;
    let mut tests = suggested(&set);
    if tests.is_empty() {
        console.note(format_args!(
            "`{}` has no forward and no outbound entry that is enabled, so there are no tests to suggest",
            source.name
        ));
        return Ok(Exit::Done);
    }
    let Some(list) = list else {
        console.print(&yaml::tests_text(&tests));
        return Ok(Exit::Done);
    };
    let known: BTreeSet<String> = set.tests.iter().map(without_name).collect();
    tests.retain(|test| !known.contains(&without_name(test)));
    let place = &list.place;
    match list.indent {
        _ if tests.is_empty() => {
            console.note(format_args!(
                "`{place}` has every test that would be suggested"
            ));
        }
        Some(indent) => {
            console.print(&yaml::test_lines(&tests, indent));
            console.note(format_args!(
                "`{place}` has `tests` already: these are the tests that it lacks; add the lines at the end of that list"
            ));
        }
        None => {
            console.print(&yaml::tests_text(&tests));
            let spec = shell_word(source.argument());
            console.note(format_args!(
                "`{place}` has `tests` already, in brackets or empty: write these tests to a file of their own\n\
                 hint: to write it: nvactl test --suggest {spec} > tests.yaml\n\
                 hint: to run all: nvactl test {spec} --tests tests.yaml"
            ));
        }
    }
    Ok(Exit::Done)
}

/// Describes the connection of a test and its end.
fn without_name(test: &PacketTest) -> String {
    let nameless = PacketTest {
        name: None,
        ..test.clone()
    };
    nameless.to_string()
}
