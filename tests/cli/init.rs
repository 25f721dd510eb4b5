//! `nvactl init`, on whatever machine the test runs. The lab has machines of every kind.

use std::fs;

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
