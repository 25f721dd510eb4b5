//! `--help` and `--version`.

use crate::{folder, nvactl, said};

#[test]
fn every_subcommand_s_help_has_an_example() {
    for command in [
        "check",
        "render",
        "apply",
        "remove",
        "sysctl",
        "persist",
        "diff",
        "explain",
        "confirm",
        "history",
        "rollback",
        "status",
        "doctor",
        "probe",
        "sysctl status",
        "sysctl enable",
        "sysctl disable",
    ] {
        let args = command.split(' ').chain(["--help"]);
        let run = said(nvactl(folder().path()).args(args));
        assert!(run.starts_with("exit 0\n--- stdout\n"), "{run}");
        let (_, examples) = run.split_once("\nExample").expect(command);
        assert!(examples.contains(&format!("nvactl {command}")), "{run}");
    }
}

#[test]
fn the_version_is_the_package_s() {
    let run = said(nvactl(folder().path()).arg("--version"));
    assert_eq!(
        run,
        format!("exit 0\n--- stdout\nnvactl {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_command_line_that_makes_no_sense_is_exit_2() {
    for args in [
        &["aply"][..],
        &["render", "--force", "x"],
        &["probe", "--timeout", "0"],
        &["probe", "--jobs", "0"],
        &["probe", "--expect", "https"],
        &["doctor", "--timeout", "nan"],
        &["remove", "--forward-policy", "drop"],
    ] {
        let run = said(nvactl(folder().path()).args(args));
        assert!(run.starts_with("exit 2\n--- stderr\n"), "{run}");
    }
}
