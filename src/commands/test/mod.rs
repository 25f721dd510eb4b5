//! `nvactl test`: opens the connections of a spec's tests through a copy of a machine.

mod junit;
mod report;
mod run;
mod suggest;

use super::console::Console;
use super::copy_source::stranger;
use super::error::Result;
use super::exit::Exit;
use super::failure::CommandRefusal;
use super::host::HostAccess;
use super::spec::{examine, read_spec, spec_of};
use super::test_file::load_tests;
use crate::cli::{TestArgs, TestFormat};
use crate::forwards::PacketTest;
use crate::host;
use crate::host::user_namespace::enter_own_namespaces;
use crate::net::printable;
use crate::netfilter::token::shell_word;

pub fn run(args: &TestArgs, on: HostAccess<'_>, console: &mut Console) -> Result<Exit> {
    let source = read_spec(args.spec.spec.as_deref())?;
    if args.suggest {
        return suggest::suggest(&source, console);
    }
    let set = spec_of(&source, examine(&source), console)?;
    let more = match &args.tests {
        Some(path) => load_tests(path, (&source, &set), console)?,
        None => Vec::new(),
    };
    let tests: Vec<&PacketTest> = set.tests.iter().chain(&more).collect();
    if tests.is_empty() {
        let own = args.tests.as_deref().map(printable::path);
        let named = [source.name.clone()].into_iter().chain(own);
        let refusal = CommandRefusal::NoTests {
            files: named.collect(),
            suggest: format!("nvactl test --suggest {}", shell_word(source.argument())),
        };
        return Err(refusal.into());
    }
    let report = if args.live {
        host::require_root("test --live")?;
        run::on_live_machine(&tests)?
    } else {
        enter_own_namespaces()?;
        run::on_made_up_machine(&set, &tests, on.backend)?
    };
    for address in &report.strangers {
        console.note(stranger(&source.name, *address));
    }
    match args.format {
        TestFormat::Text => report.say(&source.name, console),
        TestFormat::Json => console.say_json(&report.json(&source.name))?,
        TestFormat::Junit => {
            let text = junit::text(&report, &source.name);
            console.print_exact(&text.map_err(super::error::Error::Output)?);
        }
        TestFormat::Github => report.say_for_github(&source.name, console),
    }
    Ok(if report.is_passed() {
        Exit::Done
    } else {
        Exit::Differs
    })
}
