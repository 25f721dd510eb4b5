//! A fix as a value: when it is the right one, and the command or the edit.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::net::printable;

/// A command or an edit that can be pasted. The text ends with the command, so that nothing stands behind it
/// on its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    when: When,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    /// Under a condition that only a person can decide, such as `if the rule should not …`.
    If(&'static str),
    /// The command changes nothing. It shows where the cause is.
    ToLook,
}

impl Fix {
    #[must_use]
    pub fn only_if(condition: &'static str, text: impl Into<String>) -> Self {
        Self {
            when: When::If(condition),
            text: text.into(),
        }
    }

    #[must_use]
    pub fn to_look(command: impl Into<String>) -> Self {
        Self {
            when: When::ToLook,
            text: command.into(),
        }
    }

    /// Whether the fix is this command, without a condition.
    #[must_use]
    pub fn is(&self, command: &str) -> bool {
        self.when == When::Always && self.text == command
    }

    /// Returns the fix as `doctor` and `apply` print it, with the condition before the command.
    #[must_use]
    pub fn line(&self, is_tried: bool) -> String {
        let tried = if is_tried { " (tried: works)" } else { "" };
        let text = printable::line(&self.text);
        match self.when {
            When::Always => format!("fix{tried}: {text}"),
            When::If(condition) => format!("fix, {condition}{tried}: {text}"),
            When::ToLook => format!("to look: {text}"),
        }
    }
}

impl From<String> for Fix {
    fn from(text: String) -> Self {
        Self {
            when: When::Always,
            text,
        }
    }
}

impl From<&str> for Fix {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.when {
            When::Always => write!(f, "{}", self.text),
            When::If(condition) => write!(f, "{condition}: {}", self.text),
            When::ToLook => write!(f, "to look: {}", self.text),
        }
    }
}

impl Serialize for Fix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_stands_before_the_command() {
        let apply = "sudo nvactl apply";
        for (fix, is_tried, line) in [
            (
                Fix::from(apply),
                true,
                "fix (tried: works): sudo nvactl apply",
            ),
            (Fix::to_look("ip rule"), false, "to look: ip rule"),
            (
                Fix::only_if("if the rule is a mistake", apply),
                true,
                "fix, if the rule is a mistake (tried: works): sudo nvactl apply",
            ),
        ] {
            assert_eq!(fix.line(is_tried), line);
        }
    }
}
