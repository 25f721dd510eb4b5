//! The words of a command line, read as clap reads them. A line that is being typed may end anywhere, so no word is an
//! error.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{Arg, Command, Id};

/// A command line as far as it is read.
#[derive(Debug, Clone)]
pub struct CommandLine<'c> {
    pub command: &'c Command,
    /// The option whose value is the next word.
    pub awaits: Option<&'c Arg>,
    /// `--` was read: no option follows.
    pub no_options: bool,
    /// A word was read that fits nowhere.
    pub is_lost: bool,
    /// The options and arguments so far, with their values.
    given: HashMap<&'c Id, Option<OsString>>,
    /// The number of words that were arguments of the command.
    positionals: usize,
}

impl<'c> CommandLine<'c> {
    /// Returns the line of the program's name alone.
    pub fn new(command: &'c Command) -> Self {
        Self {
            command,
            awaits: None,
            no_options: false,
            is_lost: false,
            given: HashMap::new(),
            positionals: 0,
        }
    }

    /// Reads the next word.
    pub fn read(&mut self, word: &OsStr) {
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

    /// Returns the option with a long name.
    pub fn long(&self, name: &str) -> Option<&'c Arg> {
        let mut options = self.command.get_arguments();
        options.find(|option| option.get_long() == Some(name))
    }

    fn subcommand(&self, name: &str) -> Option<&'c Command> {
        let command = self.command.find_subcommand(name)?;
        (self.positionals == 0 && !self.no_options).then_some(command)
    }

    /// Returns the argument that the next word is, if it is no option.
    pub fn positional(&self) -> Option<&'c Arg> {
        self.command.get_positionals().nth(self.positionals)
    }

    /// Returns whether an option or argument is on the line.
    pub fn has(&self, argument: &Arg) -> bool {
        self.given.contains_key(argument.get_id())
    }

    /// Returns the value of an option or argument as a path.
    pub fn path(&self, id: &str) -> Option<PathBuf> {
        let mut all = self.given.iter();
        let (_, value) = all.find(|(given, _)| given.as_str() == id)?;
        value.clone().map(PathBuf::from)
    }
}

/// Returns whether a value follows an option.
pub fn takes_value(option: &Arg) -> bool {
    option.get_action().takes_values()
}
