//! Where the spec comes from.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::{BROKEN, SOUND, folder, nvactl, said};

#[test]
fn a_named_spec_goes_before_the_variable_and_that_before_the_folder() {
    let folder = folder();
    fs::write(folder.path().join("forward.yaml"), SOUND).unwrap();
    fs::write(folder.path().join("broken.yaml"), BROKEN).unwrap();
    let check = || {
        let mut command = nvactl(folder.path());
        command.arg("check");
        command
    };
    assert_eq!(said(&mut check()), "exit 0\n");
    let run = said(check().env("NVACTL_SPEC", "broken.yaml"));
    assert!(run.contains("broken.yaml:6:13"), "{run}");
    assert_eq!(
        said(
            check()
                .env("NVACTL_SPEC", "broken.yaml")
                .arg("forward.yaml")
        ),
        "exit 0\n"
    );
    assert_eq!(said(check().env("NVACTL_SPEC", "")), "exit 0\n");
}

#[test]
fn no_spec_at_all_is_an_error_that_says_where_it_was_looked_for() {
    let folder = folder();
    insta::assert_snapshot!(said(nvactl(folder.path()).arg("check")));
    let run = said(nvactl(folder.path()).arg("probe"));
    let hint = "hint: name it: nvactl probe my-forwards.yaml";
    assert!(run.contains(hint), "{run}");
    let run = said(nvactl(folder.path()).args(["check", "none.yaml"]));
    insta::assert_snapshot!(run);
}

/// A spec that was not named but found decides about the machine only if no other user can write it.
#[test]
fn apply_refuses_a_found_spec_that_others_may_write() {
    let folder = folder();
    let spec = folder.path().join("forward.yaml");
    fs::write(&spec, SOUND).unwrap();
    let apply = || {
        said(
            nvactl(folder.path())
                .args(["apply", "--dry-run"])
                .env("PATH", "/nowhere"),
        )
    };
    for (file, within, refused) in [
        (
            0o664,
            0o755,
            "users other than the owner can write to `forward.yaml`",
        ),
        (
            0o646,
            0o755,
            "users other than the owner can write to `forward.yaml`",
        ),
        (0o644, 0o777, "users other than the owner can write to `.`"),
        (0o644, 0o775, "users other than the owner can write to `.`"),
    ] {
        fs::set_permissions(&spec, fs::Permissions::from_mode(file)).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(within)).unwrap();
        let run = apply();
        assert!(run.starts_with("exit 2\n"), "{run}");
        assert!(run.contains(refused), "{run}");
        // One that is named is the user's own choice.
        let named = said(
            nvactl(folder.path())
                .args(["apply", "--dry-run", "forward.yaml"])
                .env("PATH", "/nowhere"),
        );
        assert!(!named.contains(refused), "{named}");
    }
    fs::set_permissions(&spec, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let run = apply();
    assert!(!run.contains("may write"), "{run}");
}

#[test]
fn apply_refuses_a_found_spec_that_somebody_else_owns() {
    if !rustix::process::geteuid().is_root() {
        return; // only root can give a file away
    }
    let folder = folder();
    let spec = folder.path().join("forward.yaml");
    fs::write(&spec, SOUND).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let apply = |sudo: &str| {
        let mut command = nvactl(folder.path());
        said(
            command
                .args(["apply", "--dry-run"])
                .env("PATH", "/nowhere")
                .env("SUDO_UID", sudo),
        )
    };
    std::os::unix::fs::chown(&spec, Some(1234), None).unwrap();
    let run = apply("1000");
    assert!(run.contains("another user owns `forward.yaml`"), "{run}");
    let run = apply("1234");
    assert!(!run.contains("another user owns"), "{run}");
}

/// A shell's `<(…)` is a pipe, and named; a pipe in a folder is only found there.
#[test]
fn a_pipe_is_read_only_where_it_is_named() {
    let folder = folder();
    fs::write(folder.path().join("sound"), SOUND).unwrap();
    let run = std::process::Command::new("bash")
        .args(["-c", "timeout 20 \"$0\" check <(cat sound)"])
        .arg(env!("CARGO_BIN_EXE_nvactl"))
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(0), "{run:?}");

    let made = std::process::Command::new("mkfifo")
        .arg(folder.path().join("pipe.yaml"))
        .status();
    assert!(made.unwrap().success());
    let run = std::process::Command::new("timeout")
        .args(["20", env!("CARGO_BIN_EXE_nvactl"), "check", "."])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(2), "{run:?}");
    let told = String::from_utf8(run.stderr).unwrap();
    assert!(
        told.contains("`./pipe.yaml` is not a regular file"),
        "{told}"
    );
}

#[test]
fn a_link_to_nothing_is_not_passed_over() {
    let folder = folder();
    std::os::unix::fs::symlink("gone.yaml", folder.path().join("forward.yaml")).unwrap();
    let run = said(nvactl(folder.path()).arg("check"));
    assert!(run.contains("cannot read the spec `forward.yaml`"), "{run}");
}
