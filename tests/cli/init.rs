//! `nvactl init`, on whatever machine the test runs. The lab has machines of every kind.

use std::fs;
use std::os::unix::fs::symlink;

use crate::{folder, nvactl, said};

#[test]
fn check_accepts_what_is_written() {
    let folder = folder();
    let run = said(nvactl(folder.path()).args(["init", "-o", "forward.yaml"]));
    assert!(
        run.starts_with("exit 0\n--- stderr\nnote: forward.yaml has no forward yet"),
        "{run}"
    );
    assert_eq!(
        said(nvactl(folder.path()).args(["check", "forward.yaml"])),
        "exit 0\n"
    );
}

#[test]
fn no_file_is_overwritten() {
    let folder = folder();
    fs::write(folder.path().join("forward.yaml"), "mine").unwrap();
    let run = said(nvactl(folder.path()).args(["init", "-o", "forward.yaml"]));
    insta::assert_snapshot!(run);
    let text = fs::read_to_string(folder.path().join("forward.yaml")).unwrap();
    assert_eq!(text, "mine");
}

#[test]
fn a_folder_that_does_not_exist_is_an_error_that_names_the_command() {
    let folder = folder();
    let run = said(nvactl(folder.path()).args(["init", "-o", "etc/my specs/forward.yaml"]));
    insta::assert_snapshot!(run);
    assert!(!folder.path().join("etc").exists());
}

#[test]
fn a_link_that_leads_nowhere_is_a_file_that_exists() {
    let folder = folder();
    symlink("elsewhere.yaml", folder.path().join("forward.yaml")).unwrap();
    let run = said(nvactl(folder.path()).args(["init", "-o", "forward.yaml"]));
    assert!(
        run.starts_with("exit 2\n--- stderr\nerror: `forward.yaml` exists already"),
        "{run}"
    );
    assert!(!folder.path().join("elsewhere.yaml").exists());
}

#[test]
fn a_dash_is_standard_output() {
    let folder = folder();
    let run = |output: &[&str]| said(nvactl(folder.path()).arg("init").args(output));
    let printed = run(&["-o", "-"]);
    assert!(printed.contains("\nfirewall:\n"), "{printed}");
    assert_eq!(printed, run(&[]));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
