//! The answer for the word at the cursor.

use std::path::PathBuf;

use clap::builder::StyledStr;

/// The words, paths and names that fit.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// The words that begin with the typed text.
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
    /// The beginning of the name.
    pub typed: String,
    /// The text of the word before the name: `--forward=`, or nothing.
    pub option: String,
}

impl Completion {
    /// Adds a word if it begins with the typed text.
    pub(super) fn add(&mut self, word: &str, meaning: Option<&StyledStr>, typed: &str) {
        if word.starts_with(typed) {
            let meaning = meaning.map(ToString::to_string).unwrap_or_default();
            self.words.push(OfferedWord {
                word: word.to_owned(),
                meaning: meaning.split_whitespace().collect::<Vec<_>>().join(" "),
            });
        }
    }
}
