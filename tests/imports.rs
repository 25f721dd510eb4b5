//! Rules that become a spec: each folder of tests/imports has `rules`, the `spec.yaml` that they become, and the
//! `report` with the account of each rule.
//!
//! `NVACTL_BLESS=1` writes the files anew.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;

fn folders() -> Vec<PathBuf> {
    let all = fs::read_dir("tests/imports").expect("the folder is there");
    let mut all: Vec<PathBuf> = all
        .map(|entry| entry.expect("it is readable").path())
        .collect();
    all.sort();
    all
}

fn nvactl(folder: &Path, args: &[&str]) -> (String, String, Option<i32>) {
    let output = Command::cargo_bin("nvactl")
        .expect("it is built")
        .current_dir(folder)
        .args(args)
        .output()
        .expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
    (
        text(output.stdout),
        text(output.stderr),
        output.status.code(),
    )
}

fn compare(path: &Path, text: &str, wrong: &mut Vec<String>) {
    if std::env::var_os("NVACTL_BLESS").is_some() {
        fs::write(path, text).expect("it can be written");
        return;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    if expected != text {
        wrong.push(format!("{}:\n{text}", path.display()));
    }
}

#[test]
fn rules_become_a_spec_and_each_is_accounted_for() {
    let mut wrong = Vec::new();
    for folder in folders() {
        let (spec, report, code) = nvactl(&folder, &["import", "rules"]);
        assert_eq!(code, Some(0), "{}: {report}", folder.display());
        compare(&folder.join("spec.yaml"), &spec, &mut wrong);
        compare(&folder.join("report"), &report, &mut wrong);
        let (_, pages, code) = nvactl(&folder, &["check", "spec.yaml"]);
        assert_eq!(code, Some(0), "{}: {pages}", folder.display());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
