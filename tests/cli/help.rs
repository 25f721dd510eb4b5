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
        "import",
        "init",
        "schema",
        "confirm",
        "history",
        "rollback",
        "status",
        "doctor",
        "probe",
        "trace",
        "test",
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
        &["trace", "--from", "198.51.100.7"],
        &["trace", "--from", "198.51.100.7", "--to", "0"],
        &["trace", "--from", "443", "--to", "443"],
        &[
            "trace",
            "--from",
            "198.51.100.7",
            "--to",
            "443",
            "--size",
            "65508",
        ],
        &["doctor", "--timeout", "nan"],
        &["remove", "--forward-policy", "drop"],
    ] {
        let run = said(nvactl(folder().path()).args(args));
        assert!(run.starts_with("exit 2\n--- stderr\n"), "{run}");
    }
}

#[test]
fn a_time_to_confirm_in_that_makes_no_sense_is_named() {
    for time in ["0", "5x", "25h", "5 m"] {
        let run = said(nvactl(folder().path()).args(["apply", "--confirm", time]));
        let error = format!(
            "exit 2\n--- stderr\nerror: invalid value '{time}' for '--confirm <TIME>': \
             not a time from 1s to 24h, such as 60, 90s, 5m or 1h\n"
        );
        assert!(run.starts_with(&error), "{run}");
    }
}

#[test]
fn whoever_undoes_a_change_or_asks_for_it_proves_nothing() {
    for option in ["--cancel", "--status"] {
        let run = said(nvactl(folder().path()).args(["confirm", "--new-session", option]));
        let error = format!("the argument '--new-session' cannot be used with '{option}'");
        assert!(run.contains(&error), "{run}");
    }
}
