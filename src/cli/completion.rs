//! Finds the words that may stand at a place of a command line, from the types of the command line. Shells ask for them.
//!
//! The value name of an argument, which the help shows, says what its values are: `live|FILE` is the word `live` or a
//! file. It reads no file: paths are the shell's own to complete, and names of a spec are the caller's.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::StyledStr;
use clap::{Arg, Command, Id};

use crate::yaml::{Code, Severity};

/// The answers for the word at the cursor.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// The words that begin with what is typed.
    pub words: Vec<OfferedWord>,
    /// The paths that a shell should add.
    pub paths: Option<PathKind>,
    /// The spec whose names fit as well.
    pub names: Option<SpecNames>,
}

/// A word, and its meaning in a line.
#[derive(Debug, PartialEq, Eq)]
pub struct OfferedWord {
    pub word: String,
    pub meaning: String,
}

/// The paths that a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathKind {
    Folder,
    /// A YAML file, or a folder.
    Spec,
    /// Any file.
    File,
}

/// A value that is a name of a spec.
#[derive(Debug, PartialEq, Eq)]
pub struct SpecNames {
    /// The command that reads the spec.
    pub command: String,
    /// The spec, if it is on the command line.
    pub spec: Option<PathBuf>,
    /// The folder of the history, if it is on the command line.
    pub state_dir: Option<PathBuf>,
    /// The begin of the name.
    pub typed: String,
    /// The text of the word before the name: `--forward=`, or nothing.
    pub option: String,
}

/// Returns the words that may stand at a place of a command line.
///
/// `words` begins with the program's name. The word at `at` is the one at the cursor, and may be missing. Arguments that
/// make no sense give no words.
#[must_use]
pub fn complete(root: &Command, words: &[OsString], at: usize) -> Completion {
    let mut root = root.clone();
    root.build();
    let mut line = Typing::new(&root);
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
        Some(typed) => line.offers(typed, &whole.given),
        None => Completion::default(),
    }
}

/// A command line as far as it is read.
#[derive(Debug, Clone)]
struct Typing<'c> {
    command: &'c Command,
    /// The option whose value is the next word.
    awaits: Option<&'c Arg>,
    /// The options and arguments so far.
    given: GivenArguments<'c>,
    /// How many words were arguments of the command.
    positionals: usize,
    /// `--` was read: no option follows.
    no_options: bool,
    /// A word was read that fits nowhere.
    is_lost: bool,
}

/// The options and arguments of a command line, with their values.
type GivenArguments<'c> = HashMap<&'c Id, Option<OsString>>;

impl<'c> Typing<'c> {
    fn new(command: &'c Command) -> Self {
        Self {
            command,
            awaits: None,
            given: HashMap::new(),
            positionals: 0,
            no_options: false,
            is_lost: false,
        }
    }

    fn read(&mut self, word: &OsStr) {
        if let Some(option) = self.awaits.take() {
            self.given.insert(option.get_id(), Some(word.to_owned()));
            return;
        }
        let text = word.to_str().unwrap_or_default();
        if !self.no_options && text == "--" {
            self.no_options = true;
        } else if let Some(long) = text.strip_prefix("--").filter(|_| !self.no_options) {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.into())),
                None => (long, None),
            };
            if let Some(option) = self.long(name) {
                self.take(option, value);
            }
        } else if let Some(short) = text
            .strip_prefix('-')
            .filter(|_| !self.no_options && text != "-")
        {
            self.read_short(short);
        } else if let Some(command) = self.subcommand(text) {
            self.command = command;
        } else if let Some(argument) = self.positional() {
            self.positionals += 1;
            self.given.insert(argument.get_id(), Some(word.to_owned()));
        } else {
            self.is_lost = true;
        }
    }

    /// Reads short options, of which the last may have its value behind it: `-vo FILE`, `-voFILE`.
    fn read_short(&mut self, short: &str) {
        for (at, letter) in short.char_indices() {
            let mut options = self.command.get_arguments();
            let Some(option) = options.find(|option| option.get_short() == Some(letter)) else {
                return;
            };
            let rest = &short[at + letter.len_utf8()..];
            self.take(option, (!rest.is_empty()).then(|| rest.into()));
            if takes_value(option) {
                return;
            }
        }
    }

    fn take(&mut self, option: &'c Arg, value: Option<OsString>) {
        if takes_value(option) && value.is_none() {
            self.awaits = Some(option);
        }
        self.given.insert(option.get_id(), value);
    }

    fn long(&self, name: &str) -> Option<&'c Arg> {
        let mut options = self.command.get_arguments();
        options.find(|option| option.get_long() == Some(name))
    }

    fn subcommand(&self, name: &str) -> Option<&'c Command> {
        let command = self.command.find_subcommand(name)?;
        (self.positionals == 0 && !self.no_options).then_some(command)
    }

    fn positional(&self) -> Option<&'c Arg> {
        self.command.get_positionals().nth(self.positionals)
    }

    /// Returns the words that may follow, of those that begin with `typed`.
    fn offers(&self, typed: &str, whole: &GivenArguments<'_>) -> Completion {
        let mut found = Completion::default();
        if self.is_lost {
            return found;
        }
        if let Some(option) = self.awaits {
            self.values(option, "", typed, whole, &mut found);
        } else if let Some((name, value)) = self.attached(typed) {
            if let Some(option) = self.long(name).filter(|option| takes_value(option)) {
                self.values(option, &format!("--{name}="), value, whole, &mut found);
            }
        } else {
            if let Some(argument) = self.positional() {
                self.values(argument, "", typed, whole, &mut found);
            }
            let commands = self.command.get_subcommands();
            let shown = commands.filter(|command| !self.no_options && !command.is_hide_set());
            for command in shown {
                found.add(command.get_name(), command.get_about(), typed);
            }
            // An empty word asks for arguments, if there are any.
            let has_others = !found.words.is_empty() || found.paths.is_some();
            if !self.no_options && (typed.starts_with('-') || !has_others) {
                self.options(typed, &mut found);
            }
        }
        found
    }

    /// Splits `--name=value`.
    fn attached<'t>(&self, typed: &'t str) -> Option<(&'t str, &'t str)> {
        let long = typed.strip_prefix("--").filter(|_| !self.no_options)?;
        long.split_once('=')
    }

    /// Adds the options that are not given yet.
    fn options(&self, typed: &str, found: &mut Completion) {
        for option in self.command.get_arguments() {
            let is_repeated = matches!(option.get_action(), clap::ArgAction::Append);
            let is_given = self.given.contains_key(option.get_id()) && !is_repeated;
            if option.is_positional() || option.is_hide_set() || is_given {
                continue;
            }
            if let Some(long) = option.get_long() {
                found.add(&format!("--{long}"), option.get_help(), typed);
            }
            if let Some(short) = option.get_short().filter(|_| typed == "-") {
                found.add(&format!("-{short}"), option.get_help(), typed);
            }
        }
    }

    /// Adds the values of an argument. `before` is the part of the word in front of the value.
    fn values(
        &self,
        argument: &Arg,
        before: &str,
        typed: &str,
        whole: &GivenArguments<'_>,
        found: &mut Completion,
    ) {
        let mut add = |word: &str, meaning: Option<&StyledStr>| {
            if word.starts_with(typed) {
                found.add(&format!("{before}{word}"), meaning, before);
            }
        };
        for value in argument.get_possible_values() {
            add(value.get_name(), value.get_help());
        }
        let names = argument.get_value_names().unwrap_or_default();
        for kind in names.iter().flat_map(|name| name.split('|')) {
            match kind {
                // A pipe is an answer only if somebody asks: it would keep a shell from completing the only file.
                "-" | "SPEC" if typed == "-" => add("-", Some(&"Standard input".into())),
                "WARNING" => {
                    let codes = Code::ALL.into_iter();
                    for code in codes.filter(|code| code.severity() == Severity::Warning) {
                        add(&code.to_string(), Some(&code.meaning().into()));
                    }
                }
                word if is_literal(word) => add(word, argument.get_help()),
                _ => {}
            }
        }
        let kinds = names.iter().flat_map(|name| name.split('|'));
        found.paths = kinds.clone().filter_map(path_kind).max();
        if kinds.into_iter().any(|kind| kind == "NAME") {
            let path = |id: &str| {
                let mut all = whole.iter();
                let (_, value) = all.find(|(given, _)| given.as_str() == id)?;
                value.clone().map(PathBuf::from)
            };
            found.names = Some(SpecNames {
                command: self.command.get_name().to_owned(),
                spec: path("spec"),
                state_dir: path("state_dir"),
                typed: typed.to_owned(),
                option: before.to_owned(),
            });
        }
    }
}

impl Completion {
    /// Adds a word if it begins with what is typed.
    fn add(&mut self, word: &str, meaning: Option<&StyledStr>, typed: &str) {
        if word.starts_with(typed) {
            let meaning = meaning.map(ToString::to_string).unwrap_or_default();
            self.words.push(OfferedWord {
                word: word.to_owned(),
                meaning: meaning.split_whitespace().collect::<Vec<_>>().join(" "),
            });
        }
    }
}

fn takes_value(option: &Arg) -> bool {
    option.get_action().takes_values()
}

fn path_kind(kind: &str) -> Option<PathKind> {
    match kind {
        "FILE" => Some(PathKind::File),
        "SPEC" => Some(PathKind::Spec),
        "FOLDER" => Some(PathKind::Folder),
        _ => None,
    }
}

/// Whether a part of a value name is the value itself.
fn is_literal(kind: &str) -> bool {
    !kind.is_empty()
        && kind
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
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
