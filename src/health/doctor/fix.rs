//! A fix as a value: when it is the right one, and the command or the edit.

use std::borrow::Cow;
use std::fmt;

use serde::{Serialize, Serializer};

use crate::net::{Interface, printable};

/// A command or an edit that can be pasted. The text ends with the command, so that nothing stands behind it
/// on its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    when: When,
    /// The meaning of a word in capitals in the command.
    placeholder: Option<String>,
    text: String,
    /// A second fix, between which and this one a person decides.
    other: Option<Box<Fix>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum When {
    Always,
    /// Under a condition that only a person can decide, such as `if the rule should not …`.
    If(&'static str),
    /// For a purpose that only a person can choose, such as `to keep the change`.
    For(&'static str),
    /// The command changes nothing. It shows where the cause is. `at` is the place to look at, if it is not this
    /// machine.
    ToLook {
        at: Option<Cow<'static, str>>,
    },
}

impl Fix {
    #[must_use]
    pub fn only_if(condition: &'static str, text: impl Into<String>) -> Self {
        Self::new(When::If(condition), text)
    }

    #[must_use]
    pub fn with_purpose(purpose: &'static str, command: impl Into<String>) -> Self {
        Self::new(When::For(purpose), command)
    }

    #[must_use]
    pub fn to_look(command: impl Into<String>) -> Self {
        Self::new(When::ToLook { at: None }, command)
    }

    #[must_use]
    pub fn to_look_at(place: impl Into<Cow<'static, str>>, command: impl Into<String>) -> Self {
        let at = Some(place.into());
        Self::new(When::ToLook { at }, command)
    }

    fn new(when: When, text: impl Into<String>) -> Self {
        Self {
            when,
            placeholder: None,
            text: text.into(),
            other: None,
        }
    }

    /// Explains `ROUTER` in the command.
    #[must_use]
    pub fn with_router_on(self, interface: &Interface) -> Self {
        Self {
            placeholder: Some(format!("ROUTER: the next hop on {interface}")),
            ..self
        }
    }

    /// Adds a second fix. A person decides between the two.
    #[must_use]
    pub fn or(self, other: Fix) -> Self {
        Self {
            other: Some(Box::new(other)),
            ..self
        }
    }

    /// Whether the fix is this command, without a condition.
    #[must_use]
    pub fn is(&self, command: &str) -> bool {
        self.when == When::Always && self.other.is_none() && self.text == command
    }

    /// Returns the fix as `doctor` and `apply` print it, with the condition before the command.
    #[must_use]
    pub fn line(&self, is_tried: bool) -> String {
        let tried = if is_tried { " (tried: works)" } else { "" };
        let text = printable::line(&self.text);
        let placeholder = self.placeholder_words();
        match &self.when {
            When::Always => format!("fix{placeholder}{tried}: {text}"),
            When::If(condition) => format!("fix, {condition}{placeholder}{tried}: {text}"),
            When::For(purpose) => format!("{purpose}{placeholder}: {text}"),
            When::ToLook { at: None } => format!("to look: {text}"),
            When::ToLook { at: Some(place) } => format!("to look, {place}: {text}"),
        }
    }

    /// Returns the lines of this fix and the second one.
    #[must_use]
    pub fn lines(&self, is_tried: bool) -> Vec<String> {
        let other = self.other.iter().flat_map(|other| other.lines(false));
        [self.line(is_tried)].into_iter().chain(other).collect()
    }

    fn placeholder_words(&self) -> String {
        let words = self.placeholder.as_ref();
        words.map_or(String::new(), |words| format!(" ({words})"))
    }
}

impl From<String> for Fix {
    fn from(text: String) -> Self {
        Self::new(When::Always, text)
    }
}

impl From<&str> for Fix {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { when, text, .. } = self;
        let placeholder = self.placeholder_words();
        match when {
            When::Always if placeholder.is_empty() => write!(f, "{text}"),
            When::Always => write!(f, "{}: {text}", placeholder.trim_start()),
            When::If(words) | When::For(words) => write!(f, "{words}{placeholder}: {text}"),
            When::ToLook { at: None } => write!(f, "to look: {text}"),
            When::ToLook { at: Some(place) } => write!(f, "to look, {place}: {text}"),
        }?;
        match &self.other {
            Some(other) => write!(f, "; {other}"),
            None => Ok(()),
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
                Fix::to_look_at("on the target", "ss -ltn"),
                false,
                "to look, on the target: ss -ltn",
            ),
            (
                Fix::only_if("if the rule is a mistake", apply),
                true,
                "fix, if the rule is a mistake (tried: works): sudo nvactl apply",
            ),
        ] {
            assert_eq!(fix.line(is_tried), line);
        }
    }

    #[test]
    fn each_of_two_fixes_has_its_own_line() {
        let egress = "eth1".parse().expect("a name");
        let route = "sudo ip route replace 10.9.0.1 via ROUTER dev eth1";
        let edit = Fix::only_if("if the spec is wrong", "correct `egress` in the spec");
        let fix = Fix::from(route).with_router_on(&egress).or(edit);
        assert_eq!(
            fix.lines(false),
            [
                "fix (ROUTER: the next hop on eth1): sudo ip route replace 10.9.0.1 via ROUTER dev eth1",
                "fix, if the spec is wrong: correct `egress` in the spec",
            ]
        );
        assert!(!fix.is(route));
        let keep = Fix::with_purpose("to keep the change", "sudo nvactl confirm");
        let undo = Fix::with_purpose("to undo it now", "sudo nvactl confirm --cancel");
        assert_eq!(
            keep.or(undo).to_string(),
            "to keep the change: sudo nvactl confirm; to undo it now: sudo nvactl confirm --cancel"
        );
    }
}
