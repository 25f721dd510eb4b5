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
