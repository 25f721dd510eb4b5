//! Reads a file of tests for a spec, as `--tests FILE` names it.

use std::path::Path;

use super::console::Console;
use super::error::Result;
use super::failure::CommandRefusal;
use super::spec::{named_bytes, network_files, show_problems, texts, with_networks};
use crate::forwards::{ForwardSet, PacketTest};
use crate::host::file;
use crate::host::network_file::MAX_BYTES;
use crate::host::spec_source::SpecSource;
use crate::yaml::places::Places;
use crate::yaml::{Severity, TestFile, examine_tests};

/// Reads and checks a file of tests for a valid spec; prints its errors. A test may name the networks of the spec.
///
/// # Errors
/// If the file cannot be read, or has errors.
pub(super) fn load_tests(
    path: &Path,
    (spec, set): (&SpecSource, &ForwardSet),
    console: &mut Console,
) -> Result<Vec<PacketTest>> {
    let text = file::read_limited(path, MAX_BYTES)?;
    let source = with_networks(SpecSource::of_text(path, text));
    let mut reading = examine_tests(&TestFile {
        text: &texts(&source).concat(),
        networks: &network_files(&source),
        spec: &texts(spec),
        spec_networks: &network_files(spec),
        interfaces: &set.interfaces(),
    });
    let places = Places::new(named_bytes(&source).chain(named_bytes(spec)));
    reading.locate_tests(&places);
    let errors = reading.problems.iter();
    let errors = errors.filter(|problem| problem.severity() == Severity::Error);
    let refusal = CommandRefusal::Spec {
        file: source.name.clone(),
        count: errors.count(),
    };
    if !reading.problems.is_empty() {
        show_problems(&places, &reading.problems, console);
    }
    reading.tests.ok_or_else(|| refusal.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;

    use super::*;
    use crate::commands::spec::{examine, read_spec};

    /// Returns the tests in words with their lines, or the error and its report.
    fn loaded(spec: &str, tests: &str) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().expect("there is a place for it");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("tests")).expect("it can be made");
        for (name, text) in [
            ("spec.yaml", spec),
            ("bots.txt", "192.0.2.66\n"),
            ("tests/all.yaml", tests),
            // The file of the same path that the tests name.
            ("tests/bots.txt", "# one\n192.0.2.99\n"),
        ] {
            fs::write(at(name), text).expect("it can be written");
        }
        let report = at("report");
        let file = fs::File::create(&report).expect("it can be made");
        let plain = anstream::StripStream::new(file);
        let mut console = Console::new(Box::new(io::sink()), Box::new(plain), false);
        let spec = read_spec(Some(&at("spec.yaml"))).expect("it is there");
        let set = examine(&spec).set.expect("it is valid");
        let tests = load_tests(&at("tests/all.yaml"), (&spec, &set), &mut console);
        drop(console);
        let root = format!("{}/", folder.path().display());
        let plain = |text: String| text.replace(&root, "");
        let report = fs::read_to_string(&report).expect("it is text");
        let place = |test: &PacketTest| test.place.as_ref().map(ToString::to_string);
        tests
            .map(|tests| {
                let warnings = plain(report.clone());
                let words = tests
                    .iter()
                    .map(|test| plain(format!("{} {test}", place(test).expect("it has one"))));
                let words = Some(warnings)
                    .filter(|words| !words.is_empty())
                    .into_iter()
                    .chain(words);
                words.collect()
            })
            .map_err(|error| plain(format!("{report}{error}")))
    }

    const SPEC: &str = "firewall: {interface: eth0, snat: 10.3.0.4}
networks: {office: [198.51.100.0/24], scanners: {file: bots.txt}}
forwards: []
";

    #[test]
    fn a_file_of_tests_has_the_names_of_the_spec_and_its_own() {
        let tests = "networks:
  bots: {file: bots.txt}
tests:
  - {from: office, to: 22, reaches: nothing}
  - {from: bots, to: 22, reaches: nothing}

  - {from: scanners, to: 22, reaches: nothing}
";
        let words = [
            "tests/all.yaml:4 tcp from 198.51.100.1 to port 22 reaches nothing",
            "tests/all.yaml:5 tcp from 192.0.2.99 to port 22 reaches nothing",
            "tests/all.yaml:7 tcp from 192.0.2.66 to port 22 reaches nothing",
        ];
        assert_eq!(loaded(SPEC, tests), Ok(words.map(str::to_owned).to_vec()));
    }

    #[test]
    fn a_test_in_by_an_interface_that_the_spec_does_not_name_is_a_warning() {
        let tests = "tests: [{from: office, in: eth7, to: 22, reaches: nothing}]\n";
        let test = "tests/all.yaml:1 tcp from 198.51.100.1 in by eth7 to port 22 reaches nothing";
        let warning = "warning[unknown-interface]: the spec names no interface `eth7`, so `nvactl test` makes one up
 --> tests/all.yaml:1:28
  |
1 | tests: [{from: office, in: eth7, to: 22, reaches: nothing}]
  |                            ^^^^
  |
  = hint: did you mean `eth0`? If the machine has the interface `eth7`, add `silence: [unknown-interface]` at the top of the spec

";
        let words = [warning, test].map(str::to_owned).to_vec();
        assert_eq!(loaded(SPEC, tests), Ok(words));
        let silent = format!("{SPEC}silence: [unknown-interface]\n");
        assert_eq!(loaded(&silent, tests), Ok(vec![test.to_owned()]));
    }

    #[test]
    fn problems_of_a_file_of_tests_are_shown_where_they_are() {
        for (tests, report) in [
            (
                "networks: {office: [192.0.2.0/24]}\ntests: [{from: offce, to: 22, reaches: nothing}]\n",
                "error[duplicate-name]: `networks` already has the name `office`
 --> tests/all.yaml:1:12
  |
1 | networks: {office: [192.0.2.0/24]}
  |            ^^^^^^
  |
 ::: spec.yaml:2:12
  |
2 | networks: {office: [198.51.100.0/24], scanners: {file: bots.txt}}
  |            ------ the first one
  |
  = hint: give one of the two another name, or join both lists

error[unknown-network]: `networks` has no name `offce`
 --> tests/all.yaml:2:16
  |
2 | tests: [{from: offce, to: 22, reaches: nothing}]
  |                ^^^^^
  |
  = hint: did you mean `office`?

`tests/all.yaml` has 2 errors",
            ),
            (
                SPEC,
                "error[missing-key]: a file of tests has no `tests`
 --> tests/all.yaml:1:1
  |
1 | firewall: {interface: eth0, snat: 10.3.0.4}
  | ^^^^^^^^
  |
  = hint: add, for example, `tests: [{from: 198.51.100.7, to: 22, reaches: nothing}]`
",
            ),
            (
                "# none\n",
                "error[empty]: the file has no keys
 --> tests/all.yaml:1:1
  |
1 | # none
  | ^
  |
  = hint: begin with, for example, `tests: [{from: 198.51.100.7, to: 22, reaches: nothing}]`

`tests/all.yaml` has 1 error",
            ),
        ] {
            let found = loaded(SPEC, tests).expect_err("it has problems");
            assert!(found.contains(report), "{found}");
        }
    }
}
