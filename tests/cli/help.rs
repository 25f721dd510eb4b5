//! `--help` and `--version`.

use std::path::Path;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use nvactl::cli::{Against, Cli, Command, MEANT, Sysctl, VERSION};

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
        "completions",
        "man",
    ] {
        let args = command.split(' ').chain(["--help"]);
        let run = said(nvactl(folder().path()).args(args));
        assert!(run.starts_with("exit 0\n--- stdout\n"), "{run}");
        let (_, examples) = run.split_once("\nExample").expect(command);
        assert!(examples.contains(&format!("nvactl {command}")), "{run}");
    }
}

/// The lines of examples in the help of a command and of those below it.
fn examples(command: &clap::Command, found: &mut Vec<String>) {
    let after = command.get_after_help().map(ToString::to_string);
    let after = after.unwrap_or_default();
    let lines = after.lines().filter_map(|line| line.strip_prefix("  "));
    let lines = lines.filter(|line| !line.starts_with("mkdir "));
    found.extend(lines.map(str::to_owned));
    for below in command.get_subcommands() {
        examples(below, found);
    }
}

/// The words of the nvactl command in a line, which a pipe or a redirection ends.
fn words(line: &str) -> Vec<String> {
    let at = line.find("nvactl ").expect(line);
    let line = line[at..].split(['|', '>', '<']).next().expect(line);
    // Every second part stands between quotes.
    let mut words = Vec::new();
    for (n, part) in line.split('\'').enumerate() {
        if n % 2 == 0 {
            words.extend(part.split_ascii_whitespace().map(str::to_owned));
        } else {
            words.push(part.to_owned());
        }
    }
    words
}

/// Whether only root can run a command; `None` if it does more as root.
fn needs_root(command: &Command) -> Option<bool> {
    Some(match command {
        Command::Apply(_)
        | Command::Boot { .. }
        | Command::Confirm(_)
        | Command::Doctor(_)
        | Command::History
        | Command::Persist(_)
        | Command::Remove(_)
        | Command::Rollback(_)
        | Command::Status(_)
        | Command::Watchdog { .. } => true,
        Command::Sysctl { action } => !matches!(action, Sysctl::Status(_)),
        Command::Render(args) => args
            .output
            .as_ref()
            .is_some_and(|path| path.starts_with("/etc")),
        Command::Diff(args) => args.against == Against::Live,
        Command::Import(args) => args.kubernetes.is_none() && args.rules == Path::new("live"),
        Command::Test(args) => args.live,
        Command::Trace(args) => args.subject.as_deref() == Some(Path::new("live")),
        Command::Init(_) => return None,
        Command::Check(_)
        | Command::Complete(_)
        | Command::Completions(_)
        | Command::Explain(_)
        | Command::Man
        | Command::Probe(_)
        | Command::Schema => false,
    })
}

/// An example can be pasted by an ordinary user. The shell opens the file of a `>` before `sudo` starts.
#[test]
fn every_example_is_a_command_line_for_an_ordinary_user() {
    let mut cli = Cli::command();
    cli.build();
    let mut lines = Vec::new();
    examples(&cli, &mut lines);
    assert!(lines.len() > 40, "{lines:?}");
    for line in &lines {
        let parsed = Cli::try_parse_from(words(line));
        let parsed = parsed.unwrap_or_else(|error| panic!("{line}: {error}"));
        let by_root = line.contains("sudo nvactl");
        if let Some(needed) = needs_root(&parsed.command) {
            assert_eq!(by_root, needed, "{line}");
        }
        assert!(
            !(by_root && line.contains('>')),
            "the user opens the file: {line}"
        );
        // Files of the system belong to root.
        let touches_etc = line.contains("/etc/");
        assert!(by_root || !touches_etc, "{line}");
    }
}

#[test]
fn the_version_is_the_package_s() {
    let run = said(nvactl(folder().path()).arg("--version"));
    assert_eq!(run, format!("exit 0\n--- stdout\nnvactl {VERSION}\n"));
    let (version, commit) = VERSION.split_once(' ').unwrap_or((VERSION, "(x)"));
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    assert!(
        commit.starts_with('(') && commit.ends_with(')'),
        "{VERSION}"
    );
}

/// The words of other programs: one line says what was meant, and nothing is done.
#[test]
fn a_word_of_another_program_is_answered_in_a_line() {
    let run = said(nvactl(folder().path()).arg("version"));
    let error = "error: nvactl has no command `version`\nhint: nvactl --version\n";
    assert_eq!(run, format!("exit 2\n--- stderr\n{error}"));
    // A slip is clap's to answer.
    let run = said(nvactl(folder().path()).arg("aply"));
    assert!(run.contains("tip: ") && run.contains("'apply'"), "{run}");
}

/// The hint for such a word can be pasted by an ordinary user.
#[test]
fn the_command_that_a_word_stands_for_has_sudo_if_it_needs_root() {
    for (_, line) in MEANT {
        let by_root = line.starts_with("sudo ");
        match Cli::try_parse_from(words(line)) {
            Ok(cli) => assert_eq!(Some(by_root), needs_root(&cli.command), "{line}"),
            Err(shown) => {
                assert_eq!(shown.kind(), ErrorKind::DisplayVersion, "{line}: {shown}");
                assert!(!by_root, "{line}");
            }
        }
    }
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
