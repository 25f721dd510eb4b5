//! The kinds of values. The value name of an argument, which the help shows, names them: `live|FILE` is the word `live` or
//! a file.

use clap::Arg;
use clap::builder::StyledStr;

use super::answer::{Completion, PathKind, SpecNames};
use super::line::CommandLine;
use crate::yaml::{Code, Severity};

/// A value that is being typed.
#[derive(Debug, Clone, Copy)]
pub struct TypedValue<'a> {
    argument: &'a Arg,
    before: &'a str,
    typed: &'a str,
}

impl<'a> TypedValue<'a> {
    /// Returns the value `typed` of an argument. `before` is the part of the word in front of it: `--format=`, or nothing.
    pub fn new(argument: &'a Arg, before: &'a str, typed: &'a str) -> Self {
        Self {
            argument,
            before,
            typed,
        }
    }

    /// Adds the values that begin with the typed text. The line names the spec.
    pub fn add(&self, line: &CommandLine<'_>, found: &mut Completion) {
        let mut add = |word: &str, meaning: Option<&StyledStr>| {
            if word.starts_with(self.typed) {
                found.add(&format!("{}{word}", self.before), meaning, self.before);
            }
        };
        for value in self.argument.get_possible_values() {
            add(value.get_name(), value.get_help());
        }
        for kind in self.kinds() {
            match kind {
                // A pipe is a value only after `-`: an empty word would keep a shell from completing the only file.
                "-" | "SPEC" if self.typed == "-" => add("-", Some(&"Standard input".into())),
                "WARNING" => {
                    let codes = Code::ALL.into_iter();
                    for code in codes.filter(|code| code.severity() == Severity::Warning) {
                        add(&code.to_string(), Some(&code.meaning().into()));
                    }
                }
                word if is_literal(word) => add(word, self.argument.get_help()),
                _ => {}
            }
        }
        found.paths = self.kinds().filter_map(path_kind).max();
        if self.kinds().any(|kind| kind == "NAME") {
            found.names = Some(self.names(line));
        }
    }

    fn kinds(&self) -> impl Iterator<Item = &str> {
        let names = self.argument.get_value_names().unwrap_or_default();
        names.iter().flat_map(|name| name.split('|'))
    }

    fn names(&self, line: &CommandLine<'_>) -> SpecNames {
        SpecNames {
            command: line.command.get_name().to_owned(),
            spec: line.path("spec"),
            state_dir: line.path("state_dir"),
            typed: self.typed.to_owned(),
            option: self.before.to_owned(),
        }
    }
}

fn path_kind(kind: &str) -> Option<PathKind> {
    match kind {
        "FILE" => Some(PathKind::File),
        "SPEC" => Some(PathKind::Spec),
        "FOLDER" => Some(PathKind::Folder),
        _ => None,
    }
}

/// Returns whether a part of a value name is the value itself.
fn is_literal(kind: &str) -> bool {
    !kind.is_empty()
        && kind
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}
