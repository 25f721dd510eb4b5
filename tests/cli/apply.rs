//! `nvactl apply` and its kin, where they cannot work: one clear error.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::{SOUND, folder, said};

/// The binary where any user may start it, and started as one that is not root.
fn as_nobody(args: &[&str]) -> String {
    let folder = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = folder.path().join("nvactl");
    // By a process of its own: what this one has open for writing, a child of another test may still
    // hold, and then the kernel does not start it (ETXTBSY).
    let mut copy = assert_cmd::Command::new("cp");
    copy.arg(env!("CARGO_BIN_EXE_nvactl")).arg(&binary);
    copy.assert().success();
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = assert_cmd::Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&binary);
        command
    } else {
        assert_cmd::Command::new(&binary)
    };
    said(
        command
            .args(args)
            .current_dir(folder.path())
            .write_stdin(SOUND),
    )
}

#[test]
fn without_root_it_says_so() {
    for (args, command) in [
        ("apply -", "apply"),
        ("apply - --dry-run", "apply"),
        ("remove", "remove"),
        ("persist", "persist"),
        ("sysctl enable", "sysctl enable"),
        ("sysctl disable --persist", "sysctl disable"),
    ] {
        let args: Vec<&str> = args.split(' ').collect();
        assert_eq!(
            as_nobody(&args),
            format!(
                "exit 2\n--- stderr\n\
                 error: `nvactl {command}` needs root: only root can read and change the kernel's firewall rules and settings\n\
                 hint: run it with `sudo`\n"
            )
        );
    }
}

#[test]
fn check_and_render_need_no_root() {
    assert_eq!(as_nobody(&["check", "-"]), "exit 0\n");
    assert!(as_nobody(&["render", "-"]).contains("\n-A FORWARD -j NVACTL-FORWARD\n"));
}

#[test]
fn a_diff_without_root_says_how_to_do_without() {
    insta::assert_snapshot!(as_nobody(&["diff", "-"]));
}
