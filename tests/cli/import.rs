//! `nvactl import` of files that it cannot read, and of those that must stay.

use std::fs;

use crate::{folder, nvactl, said};

const RULES: &str = "*nat\n-A PREROUTING -i eth0 -p tcp --dport 80 -j DNAT --to 10.0.0.2\nCOMMIT\n";

#[test]
fn rules_that_cannot_be_read_are_an_error_that_calls_them_rules() {
    let folder = folder();
    fs::write(folder.path().join("script"), "set -e\niptables -F\n").unwrap();
    for (name, file) in [("missing", "none"), ("folder", "."), ("script", "script")] {
        let mut import = nvactl(folder.path());
        insta::assert_snapshot!(
            format!("rules_that_cannot_be_read_{name}"),
            said(import.args(["import", file]))
        );
    }
}

#[test]
fn a_file_that_exists_is_not_replaced() {
    let folder = folder();
    let spec = folder.path().join("forward.yaml");
    fs::write(&spec, "mine").unwrap();
    let mut import = nvactl(folder.path());
    let args = ["import", "-", "--no-proof", "-o", "forward.yaml"];
    let run = said(import.args(args).write_stdin(RULES));
    insta::assert_snapshot!(run);
    assert_eq!(fs::read_to_string(&spec).unwrap(), "mine");
    fs::remove_file(&spec).unwrap();
    let mut import = nvactl(folder.path());
    let run = said(import.args(args).write_stdin(RULES));
    assert!(run.starts_with("exit 0\n"), "{run}");
    let spec = fs::read_to_string(&spec).unwrap();
    assert!(
        spec.starts_with("# Imported by nvactl from the rules of <stdin>.\n"),
        "{spec}"
    );
}
