//! Text of others on the terminal and in markdown: nothing in it steers what is shown.

use std::fs;

use crate::{BROKEN, SOUND, folder, nvactl, said};

/// A comment that clears the screen, by C1 and without, turns its line round, and means something to
/// markdown and HTML.
const COMMENT: &str = "a\u{1b}[2Jb\u{9b}2Jc\u{202e}d|`e`<img>";

#[track_caller]
fn assert_fit_for_a_terminal(text: &str) {
    let hidden = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
    assert!(!text.contains(hidden), "{text:?}");
}

/// The file's own rules with one of another author between them.
fn tampered() -> String {
    let folder = folder();
    let rules = nvactl(folder.path())
        .args(["render", "-"])
        .write_stdin(SOUND)
        .output()
        .unwrap();
    let rules = String::from_utf8(rules.stdout).unwrap();
    let theirs = format!("-A NVACTL-FORWARD -m comment --comment \"{COMMENT}\" -j DROP\n");
    rules.replacen(
        "-A NVACTL-FORWARD ",
        &format!("{theirs}-A NVACTL-FORWARD "),
        1,
    )
}

#[test]
fn rules_of_others_are_made_visible_in_every_format() {
    let folder = folder();
    fs::write(folder.path().join("rules"), tampered()).unwrap();
    let diff = |format: &str| {
        let args = [
            "diff",
            "-",
            "--against",
            "rules",
            "--rules",
            "--format",
            format,
        ];
        let run = nvactl(folder.path())
            .args(args)
            .write_stdin(SOUND)
            .output()
            .unwrap();
        assert_eq!(run.status.code(), Some(1), "{run:?}");
        let text = String::from_utf8(run.stdout).unwrap();
        assert_fit_for_a_terminal(&text);
        text
    };
    let visible = r"a\u{1b}[2Jb\u{9b}2Jc\u{202e}d";
    // The drift, by its comment and as a rule, and the rule that goes.
    assert_eq!(diff("text").matches(visible).count(), 3);

    let markdown = diff("markdown");
    let row = markdown
        .lines()
        .find(|line| line.contains("added by others"))
        .expect("it is named");
    assert_eq!(row.matches('|').count(), 4, "{row}");
    assert!(!row.contains(['`']) && !row.contains("<img>"), "{row}");

    // JSON holds what is there, byte by byte.
    let value: serde_json::Value = serde_json::from_str(&diff("json")).unwrap();
    let line = value["drift"][0]["line"].as_str().unwrap();
    assert!(line.contains(COMMENT), "{line}");
}

#[test]
fn what_a_refusal_quotes_is_made_visible() {
    let folder = folder();
    fs::write(
        folder.path().join("rules"),
        format!("*filter\n-A INPUT -m comment --comment \"{COMMENT}\" -j DROP\nCOMMIT\n"),
    )
    .unwrap();
    let run = said(
        nvactl(folder.path())
            .args(["render", "-", "-o", "rules"])
            .write_stdin(SOUND),
    );
    assert!(run.starts_with("exit 2\n"), "{run}");
    assert!(run.contains(r"a\u{1b}[2Jb"), "{run}");
    assert_fit_for_a_terminal(&run);
}

/// A file's name begins no line, and an argument that makes no sense is shown as it is.
#[test]
fn names_and_arguments_are_made_visible() {
    let folder = folder();
    let name = "a\u{1b}[2J\nerror: \u{202e}.yaml";
    let spec = BROKEN.replace("name: web", "name: web # \u{202e} \u{2028}");
    fs::write(
        folder.path().join(name),
        spec.replace("70000", "7 \u{200f}"),
    )
    .unwrap();
    for format in ["text", "json", "github"] {
        let run = said(nvactl(folder.path()).args(["check", "--format", format, name]));
        assert!(run.starts_with("exit 2\n"), "{run}");
        assert!(!run.contains("\nerror: \\u{202e}"), "{run}");
        assert!(!run.contains(['\u{200f}', '\u{2028}']), "{run}");
        assert_fit_for_a_terminal(&run);
    }
    let run = said(nvactl(folder.path()).args(["check", "--\u{1b}[2J\u{9b}"]));
    assert!(run.starts_with("exit 2\n"), "{run}");
    assert!(run.contains("Usage"), "{run}");
    assert_fit_for_a_terminal(&run);
}

#[test]
fn a_log_s_prefix_stays_in_its_cell() {
    let folder = folder();
    let spec = SOUND.replace(
        "    listen: 49182",
        "    listen: 49182\n    log: {prefix: \"a|b`<i>\"}",
    );
    let run = nvactl(folder.path())
        .args(["explain", "-", "--format", "markdown"])
        .write_stdin(spec)
        .output()
        .unwrap();
    let text = String::from_utf8(run.stdout).unwrap();
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).collect();
    assert!(rows.iter().any(|row| row.contains("LOG")), "{text}");
    for row in rows {
        assert_eq!(row.matches('|').count(), 4, "{row}");
        assert!(!row.contains("<i>"), "{row}");
    }
}
