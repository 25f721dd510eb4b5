//! Codes and severities as text, and which codes `silence:` takes.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::entry::Severity;
use super::table::Code;

impl Severity {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

impl Code {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().name
    }

    #[must_use]
    pub fn severity(self) -> Severity {
        self.row().severity
    }

    /// Returns what a spec with the problem has, in half a line.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        self.row().meaning
    }

    /// Returns an example of the problem. Its parts between backquotes are text of a spec.
    #[must_use]
    pub fn example(self) -> &'static str {
        self.row().example
    }

    /// Whether `silence:` may hide it: every warning and note, and the one error that a user may
    /// intend.
    #[must_use]
    pub fn can_be_silenced(self) -> bool {
        self.severity() != Severity::Error || self == Code::TakesSsh
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a code; `nvactl check --list` lists all of them")]
pub struct CodeError(String);

impl FromStr for Code {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        Self::ALL
            .into_iter()
            .find(|code| code.as_str() == text)
            .ok_or_else(|| CodeError(text.to_owned()))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
