//! Finds the words that may stand at a place of a command line, from the types of the command line. Shells ask for them.
//!
//! It reads no file: paths are the shell's own to complete, and names of a spec are the caller's.
//!
//! `line` reads the words before the cursor. `offers` finds the words that may follow, and `values` those of one value.
//! `answer` has the types of the result.

mod answer;
mod line;
mod offers;
mod values;

use std::ffi::{OsStr, OsString};

use clap::Command;

pub use answer::{Completion, OfferedWord, PathKind, SpecNames};
use line::CommandLine;
use offers::offers;

/// Returns the words that may stand at a place of a command line.
///
/// `words` begins with the program's name. The word at `at` is the one at the cursor, and may be missing. Arguments that
/// make no sense give no words.
#[must_use]
pub fn complete(root: &Command, words: &[OsString], at: usize) -> Completion {
    let mut root = root.clone();
    root.build();
    let mut line = CommandLine::new(&root);
    let before = words.get(1..at.max(1)).unwrap_or_default();
    before.iter().for_each(|word| line.read(word));
    // A spec may stand behind the cursor.
    let mut whole = line.clone();
    let behind = words.get(at.saturating_add(1)..).unwrap_or_default();
    if line.awaits.is_some() {
        whole.read(OsStr::new(""));
    }
    behind.iter().for_each(|word| whole.read(word));
    match words.get(at).map_or(Some(""), |word| word.to_str()) {
        Some(typed) => offers(&line, &whole, typed),
        None => Completion::default(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    /// Completes the last word of a line.
    fn completed(line: &str) -> Completion {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        complete(&Cli::command(), &words, words.len() - 1)
    }

    fn words(line: &str) -> Vec<String> {
        let offered = completed(line).words.into_iter();
        offered.map(|one| one.word).collect()
    }

    #[test]
    fn a_line_is_completed_by_the_types_of_the_command_line() {
        for (line, wanted) in [
            ("nvactl exp", &["explain"][..]),
            ("nvactl -v --backend nft exp", &["explain"]),
            ("nvactl --state-dir=x -- exp", &[]),
            (
                "nvactl boot ",
                &["enable", "disable", "status", "test", "help"],
            ),
            ("nvactl help boot e", &["enable"]),
            ("nvactl check --form", &["--format"]),
            ("nvactl check --format ", &["text", "json", "github"]),
            ("nvactl check --format=j", &["--format=json"]),
            ("nvactl check --nonsense x --format j", &["json"]),
            ("nvactl check --notes --no", &[]),
            ("nvactl check -- --no", &[]),
            ("nvactl --backend ", &["nft", "legacy", "auto"]),
            ("nvactl render --family ", &["v4", "v6"]),
            ("nvactl probe --expect ", &["tcp", "http"]),
            ("nvactl trace l", &["live"]),
            ("nvactl completions ", &["bash", "zsh", "fish"]),
            ("nvactl boot lo", &[]),
            ("nvactl watch", &[]),
            ("nvactl sysctl enable --l", &["--liberal"]),
            ("nvactl remove --forward-policy ", &["accept"]),
            ("nvactl probe --count ", &[]),
            ("nvactl nonsense ", &[]),
            ("nvactl history x --", &[]),
        ] {
            assert_eq!(words(line), wanted, "{line}");
        }
        for (line, wanted) in [
            ("nvactl check -", "-"),
            ("nvactl import -", "-"),
            ("nvactl render -", "-o"),
            ("nvactl check --deny x --", "--deny"),
            ("nvactl check --deny ", "all"),
            ("nvactl check --deny unu", "unused-network"),
        ] {
            assert!(words(line).contains(&wanted.to_owned()), "{line}");
        }
        // Only a warning can be denied.
        assert_eq!(words("nvactl check --deny synt"), [""; 0]);
        let all = words("nvactl ");
        assert!(
            all.len() > 15 && !all.contains(&"watchdog".to_owned()),
            "{all:?}"
        );
    }

    #[test]
    fn the_shell_is_told_which_paths_fit() {
        for (line, wanted) in [
            ("nvactl check ", Some(PathKind::Spec)),
            ("nvactl check x ", None),
            ("nvactl trace ", Some(PathKind::File)),
            ("nvactl import ", Some(PathKind::File)),
            ("nvactl diff --against ", Some(PathKind::File)),
            ("nvactl render --output=", Some(PathKind::File)),
            ("nvactl render -o ", Some(PathKind::File)),
            ("nvactl render -vo ", Some(PathKind::File)),
            ("nvactl render -ox ", Some(PathKind::Spec)),
            ("nvactl --state-dir ", Some(PathKind::Folder)),
            ("nvactl history ", None),
        ] {
            assert_eq!(completed(line).paths, wanted, "{line}");
        }
    }

    #[test]
    fn a_name_is_one_of_the_spec_that_the_command_reads() {
        let names = |command: &str, spec: Option<&str>, typed: &str, option: &str| SpecNames {
            command: command.to_owned(),
            spec: spec.map(PathBuf::from),
            state_dir: None,
            typed: typed.to_owned(),
            option: option.to_owned(),
        };
        for (line, wanted) in [
            ("nvactl explain --forward ", names("explain", None, "", "")),
            (
                "nvactl explain x.yaml --forward=w",
                names("explain", Some("x.yaml"), "w", "--forward="),
            ),
            (
                "nvactl doctor -v -- --forward --forward ",
                names("doctor", None, "", ""),
            ),
            (
                "nvactl doctor - --forward w",
                names("doctor", Some("-"), "w", ""),
            ),
        ] {
            let found = completed(line).names;
            // Behind `--` stands a spec of that name.
            let is_option = !line.contains("-- ");
            assert_eq!(found, is_option.then_some(wanted), "{line}");
        }
        let words = [
            "nvactl",
            "explain",
            "--forward",
            "w",
            "x.yaml",
            "--format",
            "text",
        ];
        let found = complete(&Cli::command(), &words.map(OsString::from), 3).names;
        assert_eq!(found, Some(names("explain", Some("x.yaml"), "w", "")));
        let words = ["nvactl", "explain", "--forward"];
        let found = complete(&Cli::command(), &words.map(OsString::from), 3).names;
        assert_eq!(
            found,
            Some(names("explain", None, "", "")),
            "the word at the cursor is missing"
        );
    }

    /// The words come from a shell, and may be anything. The first of `at` are in the line, the last far behind it.
    #[test]
    fn nonsense_has_no_words() {
        for words in [&[][..], &["nvactl", "-é", "--="]] {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            for at in [0, 2, 9, usize::MAX] {
                let found = complete(&Cli::command(), &words, at);
                assert_eq!(found.names, None, "{words:?} {at}");
            }
        }
    }
}
