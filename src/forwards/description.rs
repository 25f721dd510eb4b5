//! Words for people about a spec or one of its parts. They never become part of a rule.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::net::printable::is_hidden;

/// A description: one line of 1 to [`Description::MOST_CHARS`] characters, none of them hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description(Box<str>);

/// The name of a test: one line of 1 to [`TestName::MOST_CHARS`] characters, none of them hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestName(Box<str>);

/// The reason why a text is not one line of words. The message continues a noun, such as "the description".
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LineError {
    #[error("is empty")]
    Empty,
    #[error("has {count} characters, but at most {most} are allowed")]
    TooLong { count: usize, most: usize },
    #[error("has the character {0:?}, which cannot be shown")]
    Hidden(char),
}

impl Description {
    pub const MOST_CHARS: usize = 200;

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TestName {
    /// A forward's name and some words fit.
    pub const MOST_CHARS: usize = 140;

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads one line of at most `most` characters.
fn line(text: &str, most: usize) -> Result<Box<str>, LineError> {
    let count = text.chars().count();
    match text.chars().find(|c| is_hidden(*c)) {
        Some(hidden) => Err(LineError::Hidden(hidden)),
        None if text.trim().is_empty() => Err(LineError::Empty),
        None if count > most => Err(LineError::TooLong { count, most }),
        None => Ok(text.into()),
    }
}

impl FromStr for Description {
    type Err = LineError;

    fn from_str(text: &str) -> Result<Self, LineError> {
        line(text, Self::MOST_CHARS).map(Self)
    }
}

impl FromStr for TestName {
    type Err = LineError;

    fn from_str(text: &str) -> Result<Self, LineError> {
        line(text, Self::MOST_CHARS).map(Self)
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_one_line_of_shown_characters() {
        let longest = "ä".repeat(Description::MOST_CHARS);
        for text in ["storefront, NET-12", "a # b | c → ✏️", longest.as_str()] {
            let read: Description = text.parse().expect("it is valid");
            assert_eq!(read.to_string(), text);
        }
        let long = longest.clone() + "x";
        for (text, error) in [
            ("", LineError::Empty),
            ("  ", LineError::Empty),
            ("a\nb", LineError::Hidden('\n')),
            ("a\u{1b}[2J", LineError::Hidden('\u{1b}')),
            ("a\u{202e}b", LineError::Hidden('\u{202e}')),
            (
                long.as_str(),
                LineError::TooLong {
                    count: 201,
                    most: 200,
                },
            ),
        ] {
            assert_eq!(text.parse::<Description>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn the_name_of_a_test_is_shorter() {
        let longest = "ä".repeat(TestName::MOST_CHARS);
        let read: TestName = longest.parse().expect("it is valid");
        assert_eq!(read.to_string(), longest);
        let long = longest + "x";
        let error = LineError::TooLong {
            count: 141,
            most: 140,
        };
        assert_eq!(long.parse::<TestName>(), Err(error));
    }
}
