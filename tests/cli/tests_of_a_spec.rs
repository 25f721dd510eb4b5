//! `nvactl test` without a kernel: what it refuses, and the tests that it suggests.

use std::fs;

use crate::{folder, nvactl, said};

const SPEC: &str = "firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 443, target: {ilb: 10.224.0.222}}
";

#[test]
fn a_spec_without_tests_is_an_error_that_says_how_to_get_some() {
    let folder = folder();
    fs::write(folder.path().join("forward.yaml"), SPEC).expect("it can be written");
    let run = said(nvactl(folder.path()).args(["test", "forward.yaml"]));
    assert_eq!(
        run,
        "exit 2\n--- stderr\nerror: `forward.yaml` has no tests\n\
         hint: to print tests that hold what the spec does now: nvactl test --suggest forward.yaml\n"
    );
}

#[test]
fn suggested_tests_are_valid_in_the_spec() {
    let folder = folder();
    fs::write(folder.path().join("forward.yaml"), SPEC).expect("it can be written");
    let run = said(nvactl(folder.path()).args(["test", "--suggest", "forward.yaml"]));
    let tests = run.strip_prefix("exit 0\n--- stdout\n").expect(&run);
    assert!(tests.starts_with("tests:\n  - {name: "), "{run}");
    fs::write(folder.path().join("forward.yaml"), format!("{SPEC}{tests}"))
        .expect("it can be written");
    let run = said(nvactl(folder.path()).args(["check", "forward.yaml"]));
    assert_eq!(run, "exit 0\n");
}

/// Appends the suggested tests to a spec. Returns the note, and what `check` says then.
fn appended(spec: &str) -> (String, String) {
    let folder = folder();
    let path = folder.path().join("forward.yaml");
    fs::write(&path, spec).expect("it can be written");
    let run = said(nvactl(folder.path()).args(["test", "--suggest", "forward.yaml"]));
    let printed = run.strip_prefix("exit 0\n").expect(&run);
    let (stdout, stderr) = printed.split_once("--- stderr\n").expect(&run);
    let lines = stdout.strip_prefix("--- stdout\n").unwrap_or_default();
    fs::write(&path, format!("{spec}{lines}")).expect("it can be written");
    (
        stderr.to_owned(),
        said(nvactl(folder.path()).args(["check", "forward.yaml"])),
    )
}

#[test]
fn suggested_tests_continue_the_list_that_a_spec_has() {
    let all = "`forward.yaml:4` has every test that would be suggested";
    for (entry, note) in [
        ("  - {from: 192.0.2.7, to: 22, reaches: nothing}\n", "lacks"),
        ("- from: 192.0.2.7\n  to: 22\n  reaches: nothing\n", "lacks"),
    ] {
        let spec = format!("{SPEC}tests:\n{entry}");
        let (stderr, checked) = appended(&spec);
        assert!(
            stderr.starts_with("note: `forward.yaml:4` has `tests` already"),
            "{stderr}"
        );
        assert!(stderr.contains(note), "{stderr}");
        assert_eq!(checked, "exit 0\n");
    }
    // A second time there is nothing to add.
    let folder = folder();
    fs::write(folder.path().join("forward.yaml"), SPEC).expect("it can be written");
    let run = said(nvactl(folder.path()).args(["test", "--suggest", "forward.yaml"]));
    let tests = run.strip_prefix("exit 0\n--- stdout\n").expect(&run);
    let (stderr, _) = appended(&format!("{SPEC}{tests}"));
    assert_eq!(stderr, format!("note: {all}\n"));
}

#[test]
fn suggested_tests_for_a_list_in_brackets_go_to_a_file_of_their_own() {
    for list in ["[]", "[{from: 192.0.2.7, to: 22, reaches: nothing}]"] {
        let folder = folder();
        let spec = format!("{SPEC}tests: {list}\n");
        fs::write(folder.path().join("forward.yaml"), spec).expect("it can be written");
        let run = said(nvactl(folder.path()).args(["test", "--suggest", "forward.yaml"]));
        assert!(run.contains("--- stdout\ntests:\n  - {name: "), "{run}");
        let note = "note: `forward.yaml:4` has `tests` already, in brackets or empty: write these tests to a file of their own
  hint: to write it: nvactl test --suggest forward.yaml > tests.yaml
  hint: to run all: nvactl test forward.yaml --tests tests.yaml\n";
        assert!(run.ends_with(note), "{run}");
    }
}

#[test]
fn an_error_in_a_file_of_tests_is_shown_at_its_place() {
    let folder = folder();
    fs::write(folder.path().join("forward.yaml"), SPEC).expect("it can be written");
    let tests = "tests: [{from: 198.51.100.7, to: 443, reaches: 10.224.0.222}]\n";
    fs::write(folder.path().join("tests.yaml"), tests).expect("it can be written");
    let run = said(nvactl(folder.path()).args(["test", "forward.yaml", "--tests", "tests.yaml"]));
    assert!(run.starts_with("exit 2\n"), "{run}");
    assert!(run.contains("--> tests.yaml:1:"), "{run}");
}
