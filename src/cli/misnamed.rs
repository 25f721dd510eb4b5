//! Words that users of other programs try as a command, each with the command of nvactl that they look for.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Words, and the command lines that do what they promise, as an ordinary user pastes them.
pub const MEANT: [(&[&str], &str); 16] = [
    (&["version"], "nvactl --version"),
    (
        &["list", "ls", "show", "info", "ps", "watch"],
        "sudo nvactl status",
    ),
    (
        &["start", "up", "load", "reload", "restart", "install", "add"],
        "sudo nvactl apply",
    ),
    (
        &[
            "stop",
            "down",
            "delete",
            "del",
            "rm",
            "flush",
            "clear",
            "reset",
            "uninstall",
        ],
        "sudo nvactl remove",
    ),
    (&["save", "store"], "sudo nvactl persist"),
    (&["undo", "revert", "restore"], "sudo nvactl rollback"),
    (&["cancel", "abort"], "sudo nvactl confirm --cancel"),
    (&["validate", "verify", "lint", "syntax"], "nvactl check"),
    (
        &["plan", "dry-run", "dryrun", "preview"],
        "sudo nvactl apply --dry-run",
    ),
    (
        &[
            "print", "rules", "generate", "compile", "build", "export", "dump",
        ],
        "nvactl render",
    ),
    (
        &["debug", "diagnose", "troubleshoot", "why"],
        "sudo nvactl doctor",
    ),
    (&["ping", "connect"], "nvactl probe"),
    (&["log", "logs", "changes"], "sudo nvactl history"),
    (&["completion"], "nvactl completions bash"),
    (&["enable"], "sudo nvactl boot enable"),
    (&["disable"], "sudo nvactl boot disable"),
];

/// Returns an error with a hint for a command line whose first word is no command; `None` for any other error, or if
/// the table does not have the word.
#[must_use]
pub fn meant(error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::StyledStr(text)) => Some(text.to_string()),
        _ => None,
    };
    // A word behind a command, such as `list` in `nvactl boot list`, is another mistake.
    let usage = text(ContextKind::Usage)?;
    if !usage.contains("nvactl [") {
        return None;
    }
    let word = text(ContextKind::InvalidSubcommand)?;
    let command = meant_by(&word)?;
    Some(format!(
        "error: nvactl has no command `{word}`\nhint: {command}\n"
    ))
}

/// Returns the command line that a word stands for.
fn meant_by(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    let mut all = MEANT.iter();
    let found = all.find(|(words, _)| words.contains(&word.as_str()));
    found.map(|(_, command)| *command)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::cli::Cli;

    fn hint(words: &[&str]) -> Option<String> {
        let error = Cli::try_parse_from([&["nvactl"], words].concat()).expect_err("it is wrong");
        meant(&error)
    }

    #[test]
    fn a_word_of_another_program_gets_the_command_that_does_it() {
        for (word, command) in [
            ("version", "nvactl --version"),
            ("Version", "nvactl --version"),
            ("export", "nvactl render"),
            ("list", "sudo nvactl status"),
            ("reload", "sudo nvactl apply"),
            ("stop", "sudo nvactl remove"),
            ("save", "sudo nvactl persist"),
            ("undo", "sudo nvactl rollback"),
            ("validate", "nvactl check"),
            ("dry-run", "sudo nvactl apply --dry-run"),
        ] {
            let said = format!("error: nvactl has no command `{word}`\nhint: {command}\n");
            assert_eq!(hint(&[word]).as_ref(), Some(&said));
            assert_eq!(hint(&["-v", word, "x.yaml"]), Some(said));
        }
        // clap knows these better: a word below a command, a slip, and an option.
        for words in [&["boot", "list"][..], &["aply"], &["status", "--list"]] {
            assert_eq!(hint(words), None, "{words:?}");
        }
    }

    /// No word of the table is a command, and each command line of the table is one.
    #[test]
    fn the_table_fits_the_commands() {
        let cli = Cli::command();
        let mut seen = std::collections::HashSet::new();
        for (words, line) in MEANT {
            for word in words {
                assert!(cli.find_subcommand(word).is_none(), "{word}");
                assert!(seen.insert(word), "{word} is there twice");
            }
            let mut words = line.split(' ').skip_while(|word| *word != "nvactl");
            let named = words.nth(1).expect(line);
            assert!(
                named == "--version" || cli.find_subcommand(named).is_some(),
                "{line}"
            );
        }
    }
}
