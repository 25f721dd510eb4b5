//! Every block of commands that a reader can paste runs in a test, or says why not. A block names itself by a marker, and the
//! test that runs it names the marker.

#[expect(dead_code, reason = "the blocks are run elsewhere")]
mod pages;

use std::fs;
use std::path::Path;
use std::process::Command;

use pages::{blocks, pages, root};

/// Why a block is not run.
const REASONS: [&str; 5] = [
    "it builds for minutes",
    "it measures for minutes",
    "it needs a cluster",
    "it needs a subscription of Azure",
    "it runs every test",
];

/// Returns the text of every test but this one.
fn tests() -> String {
    fn read(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).expect("it can be listed") {
            let path = entry.expect("it can be listed").path();
            let is_source = path.extension().is_none_or(|end| end == "rs");
            if path.is_dir() {
                read(&path, text);
            } else if is_source && path != root().join(file!()) {
                *text += &fs::read_to_string(&path).expect("it is text");
            }
        }
    }
    let mut text = String::new();
    read(&root().join("tests"), &mut text);
    text
}

#[test]
fn every_block_of_commands_runs_in_a_test_or_says_why_not() {
    let tests = tests();
    let (mut run, mut not_run) = (0, 0);
    for (path, text) in pages() {
        for block in blocks(&text) {
            let at = format!("{}:{}", path.display(), block.line);
            match block.language {
                // No commands. `tests/readme.rs` and the lab read many of them.
                "yaml" | "rust" | "text" => continue,
                "console" => {
                    let is_tried = path == Path::new("README.md") || path.starts_with("docs");
                    let tried = "case(\"README.md\").case(\"docs/*.md\")";
                    assert!(
                        is_tried && tests.contains(tried),
                        "{at}: trycmd does not run this page"
                    );
                    run += 1;
                    continue;
                }
                "sh" => {}
                other => panic!("{at}: `{other}` is not one of sh, console, yaml, text and rust"),
            }
            let marker = block.marker.unwrap_or_else(|| {
                panic!("{at}: no marker above the block names the test that runs it, or `not run: REASON`")
            });
            if let Some(reason) = marker.strip_prefix("not run: ") {
                assert!(
                    REASONS.contains(&reason),
                    "{at}: `{reason}` is not one of {REASONS:?}"
                );
                not_run += 1;
            } else {
                let named = format!("\"{marker}\"");
                assert!(tests.contains(&named), "{at}: no test names {named}");
                run += 1;
            }
        }
    }
    assert!(run > 30 && not_run < run / 2, "{run} run, {not_run} do not");
}

/// The commands in comments of the examples.
const IN_COMMENTS: [(&str, &str); 4] = [
    // The block `fleet: ansible` of docs/fleet.md has the same two.
    (
        "ansible/firewalls.yml",
        "ansible-playbook firewalls.yml --check",
    ),
    ("ansible/firewalls.yml", "ansible-playbook firewalls.yml"),
    (
        "forward.d/00-firewall.yaml",
        "nvactl check examples/forward.d",
    ),
    // Not run: a test of `src/health/status/prometheus` reads the rules, and the program is large.
    (
        "prometheus/nvactl.rules.yml",
        "promtool check rules nvactl.rules.yml",
    ),
];

#[test]
fn the_commands_in_comments_of_the_examples_are_known() {
    const PROGRAMS: [&str; 7] = [
        "sudo ",
        "nvactl ",
        "ansible-playbook ",
        "promtool ",
        "kubectl ",
        "az ",
        "curl ",
    ];
    fn read(folder: &Path, found: &mut Vec<(String, String)>) {
        let mut paths: Vec<_> = fs::read_dir(folder)
            .expect("it can be listed")
            .map(|entry| entry.expect("it can be listed").path())
            .collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                read(&path, found);
                continue;
            }
            let name = path
                .strip_prefix(root().join("examples"))
                .expect("it is there")
                .display()
                .to_string();
            let text = fs::read_to_string(&path).expect("it is text");
            for (_, comment) in text.lines().filter_map(|line| line.split_once('#')) {
                let comment = comment.trim();
                let behind_colon = comment.split_once(": ").map_or("", |(_, rest)| rest);
                let is_command =
                    |words: &&str| PROGRAMS.iter().any(|program| words.starts_with(program));
                if let Some(command) = [comment, behind_colon].into_iter().find(is_command) {
                    let command = command.split('#').next().unwrap_or_default().trim();
                    found.push((name.clone(), command.to_owned()));
                }
            }
        }
    }
    let mut found = Vec::new();
    read(&root().join("examples"), &mut found);
    let known = IN_COMMENTS.map(|(file, command)| (file.to_owned(), command.to_owned()));
    assert_eq!(found, known);
}

#[test]
fn the_folder_of_the_examples_is_checked_as_its_comment_says() {
    let (_, command) = IN_COMMENTS[2];
    let words = command.strip_prefix("nvactl ").expect("it is nvactl's");
    let output = Command::new(env!("CARGO_BIN_EXE_nvactl"))
        .args(words.split(' '))
        .current_dir(root())
        .output()
        .expect("it starts");
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}
