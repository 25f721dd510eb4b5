//! `nvactl check`.

use std::fs;

use crate::{BROKEN, SOUND, folder, nvactl, said};

#[test]
fn a_valid_spec_prints_nothing() {
    let folder = folder();
    let run = said(
        nvactl(folder.path())
            .args(["check", "-"])
            .write_stdin(SOUND),
    );
    assert_eq!(run, "exit 0\n");
}

#[test]
fn a_problem_shows_its_line_and_hint() {
    let folder = folder();
    fs::write(folder.path().join("fw.yaml"), BROKEN).unwrap();
    insta::assert_snapshot!(said(nvactl(folder.path()).args(["check", "fw.yaml"])));
}

#[test]
fn every_problem_of_a_file_is_reported_in_one_run() {
    let folder = folder();
    let spec = "\
version: 3
firewall:
  interface: eth+
  snat: masqerade
  forward_policy: reject
forwards:
  - name: no good
    listen: 0x50
    target: {pod: 10.224.0.118}
  - name: web
    listen: 49181
    protocol: icmp
    target: {ilb: 169.254.169.254:80}
  - name: web
    lisen: 49180-49190
    target: {ilb: 10.0.0.1:80}
";
    let run = said(nvactl(folder.path()).args(["check", "-"]).write_stdin(spec));
    let places: Vec<&str> = run
        .lines()
        .filter_map(|line| line.trim().strip_prefix("--> "))
        .collect();
    assert_eq!(
        places,
        [
            "<stdin>:1:10",
            "<stdin>:3:14",
            "<stdin>:4:9",
            "<stdin>:5:19",
            "<stdin>:7:11",
            "<stdin>:8:13",
            "<stdin>:9:19",
            "<stdin>:12:15",
            "<stdin>:13:19",
            "<stdin>:14:11",
            "<stdin>:15:5",
        ]
    );
    assert!(run.starts_with("exit 2\n"), "{run}");
    assert!(run.ends_with("error: `<stdin>` has 11 errors\n"), "{run}");
}

const NOISY: &str = "\
firewall: {interface: eth0, snat: 10.3.0.4, forward_policy: keep}
forwards:
  - {name: games, listen: 20000-30000, target: {ilb: 10.224.0.222}}
  - {name: web, listen: 70000, target: {pod: 10.224.0.118:80}}
  - {name: web, listen: 20000, target: {pod: 10.224.0.118:80}}
";

fn check(options: &[&str], spec: &str) -> String {
    let folder = folder();
    fs::write(folder.path().join("fw.yaml"), spec).unwrap();
    said(
        nvactl(folder.path())
            .args(["check", "fw.yaml"])
            .args(options),
    )
}

#[test]
fn a_warning_fails_the_check_only_if_it_is_denied() {
    let valid = "\
firewall: {interface: eth0, snat: 10.3.0.4, forward_policy: keep}
forwards: [{name: games, listen: 20000-30000, target: {ilb: 10.224.0.222}}]
";
    insta::assert_snapshot!(check(&[], valid));
    for (deny, code) in [
        (&["--deny", "all"][..], 1),
        (&["--deny", "wide-range"], 1),
        (&["--deny", "target-is-firewall"], 0),
        (
            &["--deny", "target-is-firewall", "--deny", "policy-kept"],
            1,
        ),
        (&["--deny", "takes-ssh"], 2),
        (&["--deny", "wide-rnge"], 2),
    ] {
        let run = check(deny, valid);
        assert!(
            run.starts_with(&format!("exit {code}\n")),
            "{deny:?}: {run}"
        );
    }
    let quiet = format!("silence: [policy-kept, wide-range]\n{valid}");
    assert_eq!(check(&["--deny", "all"], &quiet), "exit 0\n");
    // The other commands show warnings too.
    let folder = folder();
    let run = said(
        nvactl(folder.path())
            .args(["render", "-"])
            .write_stdin(valid),
    );
    assert!(
        run.starts_with("exit 0\n") && run.contains("warning[wide-range]"),
        "{run}"
    );
}

#[test]
fn notes_are_shown_on_request() {
    assert_eq!(check(&[], SOUND), "exit 0\n");
    insta::assert_snapshot!(check(&["--notes"], SOUND));
}

#[test]
fn the_note_on_the_policy_names_outbound_entries() {
    let spec = "firewall: {interface: eth0}
outbound: [{name: out, allow_from: [10.224.0.0/16], silence: [spoofed-source]}]
";
    insta::assert_snapshot!(check(&["--notes"], spec));
}

#[test]
fn json_has_every_problem() {
    insta::assert_snapshot!(check(&["--format", "json", "--notes"], NOISY));
    insta::assert_snapshot!(check(&["--format", "json"], SOUND));
}

#[test]
fn github_gets_an_annotation_for_each_problem() {
    insta::assert_snapshot!(check(&["--format", "github"], NOISY));
    // No text of a spec ends the command or begins another.
    let hostile = "\"a\\n::error::%25,:\": 1\n";
    let run = check(&["--format", "github"], hostile);
    let commands: Vec<&str> = run.lines().filter(|line| line.starts_with("::")).collect();
    assert_eq!(commands.len(), 3, "{run}");
}

#[test]
fn every_code_is_listed() {
    insta::assert_snapshot!(check(&["--list"], SOUND));
}

#[test]
fn a_report_is_coloured_only_for_a_terminal() {
    let folder = folder();
    let run = said(
        nvactl(folder.path())
            .args(["check", "-"])
            .env_remove("NO_COLOR")
            .env("CLICOLOR_FORCE", "1")
            .write_stdin(BROKEN),
    );
    assert!(run.contains("\u{1b}["), "{run}");
    let run = said(
        nvactl(folder.path())
            .args(["check", "-"])
            .env("NO_COLOR", "1")
            .write_stdin(BROKEN),
    );
    assert!(!run.contains('\u{1b}'), "{run}");
    let run = said(
        nvactl(folder.path())
            .args(["check", "-"])
            .env_remove("NO_COLOR")
            .write_stdin(BROKEN),
    );
    assert!(!run.contains('\u{1b}'), "{run}");
}

/// The most severe problems are shown first, and all warnings count.
#[test]
fn a_warning_is_not_lost_among_many_notes() {
    let mut spec = "firewall: {interface: eth0, snat: 10.3.0.4}\nforwards:\n".to_owned();
    for n in 0..12_000 {
        spec += &format!(
            "  - {{name: f{n}, listen: {}, target: {{pod: 10.224.0.1:80}}}}\n",
            1000 + n
        );
    }
    spec += "  - {name: wide, listen: 20000-30000, target: {pod: 10.224.0.1:80}}\n";
    let run = check(&["--deny", "wide-range", "--notes"], &spec);
    assert!(run.starts_with("exit 1\n"), "{}", &run[..200]);
    assert!(
        run.contains("warning[wide-range]"),
        "warnings are shown before notes"
    );
}

#[test]
fn lines_and_columns_are_those_of_an_editor() {
    for (spec, place) in [
        ("firewall:\n\tinterface: eth0\n", "fw.yaml:2:1"),
        ("\u{feff}firewal: {}\n", "fw.yaml:1:1"),
        ("forwards: []\nsnat: \"ä\", x: 1\n", "fw.yaml:2:10"),
        ("forwards: []\r\nfirewal: {}\r\n", "fw.yaml:2:1"),
        ("forwards: []\rfirewal: {}\r", "fw.yaml:1:13"),
        ("forwards: *b\n", "fw.yaml:1:11"),
        ("a: 1\n---\nb: 1\n", "fw.yaml:2:1"),
    ] {
        let run = check(&[], spec);
        assert!(run.contains(&format!("--> {place}\n")), "{spec:?}: {run}");
    }
    // The span of a block ends with its text.
    let run = check(
        &["--format", "json"],
        "firewall: {interface: eth0, snat: 10.3.0.4}\nforwards: |\n  a\nversion: 1\n",
    );
    assert!(run.contains("\"end_line\": 3"), "{run}");
}

/// A misspelled key does not hide the problems of its value.
#[test]
fn the_value_of_a_misspelled_key_is_checked() {
    let run = check(
        &[],
        "firewall: {interface: eth0, snat: 10.3.0.4}\nforwards: [{name: web, listn: 0x50, target: {pod: 10.0.0.1:80}}]\n---\n",
    );
    for code in ["unknown-key", "invalid-port", "several-documents"] {
        assert!(run.contains(&format!("error[{code}]")), "{run}");
    }
    assert!(!run.contains("missing-key"), "{run}");
}

/// Such a line could be a workflow command in the log of a runner.
#[test]
fn a_name_with_a_line_end_begins_no_line_of_a_report() {
    let folder = folder();
    let name = "a,b:c%\n::error::x.yaml";
    fs::write(folder.path().join(name), "\"a\\n::error::pwn\": 1\n").unwrap();
    for format in ["text", "github", "json"] {
        let run = said(nvactl(folder.path()).args(["check", name, "--format", format]));
        let foreign = run
            .lines()
            .filter(|line| line.trim_start().starts_with("::error::"));
        assert_eq!(foreign.count(), 0, "{run}");
    }
}
