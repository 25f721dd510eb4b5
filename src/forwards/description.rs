//! Words for people about a spec or one of its entries. They never become part of a rule.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::net::printable::is_hidden;

/// A description: one line of 1 to [`Description::MOST_CHARS`] characters, none of them hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description(Box<str>);

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DescriptionError {
    #[error("the description is empty")]
    Empty,
    #[error("the description has {0} characters, but at most {most} are allowed", most = Description::MOST_CHARS)]
    TooLong(usize),
    #[error("the description has the character {0:?}, which cannot be shown")]
    Hidden(char),
}

impl Description {
    pub const MOST_CHARS: usize = 200;

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Description {
    type Err = DescriptionError;

    fn from_str(text: &str) -> Result<Self, DescriptionError> {
        let count = text.chars().count();
        match text.chars().find(|c| is_hidden(*c)) {
            Some(hidden) => Err(DescriptionError::Hidden(hidden)),
            None if text.trim().is_empty() => Err(DescriptionError::Empty),
            None if count > Self::MOST_CHARS => Err(DescriptionError::TooLong(count)),
            None => Ok(Self(text.into())),
        }
    }
}

impl fmt::Display for Description {
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
            ("", DescriptionError::Empty),
            ("  ", DescriptionError::Empty),
            ("a\nb", DescriptionError::Hidden('\n')),
            ("a\u{1b}[2J", DescriptionError::Hidden('\u{1b}')),
            ("a\u{202e}b", DescriptionError::Hidden('\u{202e}')),
            (long.as_str(), DescriptionError::TooLong(201)),
        ] {
            assert_eq!(text.parse::<Description>(), Err(error), "{text:?}");
        }
    }
}
