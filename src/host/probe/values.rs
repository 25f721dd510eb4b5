//! What a port is asked, and what came of it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::net::Protocol;

/// A port to connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Try {
    pub protocol: Protocol,
    pub to: SocketAddr,
    /// The address to connect from, where it is not for the kernel to choose.
    pub from: Option<IpAddr>,
}

/// What an answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// A connection.
    Tcp,
    /// A connection that is not ended at once.
    Kept,
    /// An answer to `GET /`: of this status, or of any below 400.
    Http(Option<u16>),
}

#[derive(Debug, Error)]
#[error("`{0}` is not one of `tcp`, `http`, `http 200`")]
pub struct ExpectError(String);

impl FromStr for Expect {
    type Err = ExpectError;

    /// `tcp`, `http`, or `http` with a status, behind a space or a colon.
    fn from_str(text: &str) -> Result<Self, ExpectError> {
        let wrong = || ExpectError(text.to_owned());
        match text.split_once([' ', ':']) {
            None if text == "tcp" => Ok(Expect::Tcp),
            None if text == "http" => Ok(Expect::Http(None)),
            Some(("http", status)) => match status.parse() {
                Ok(status @ 100..=599) => Ok(Expect::Http(Some(status))),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

/// What one try came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Connected, or answered; after so long.
    Open(Duration),
    /// Datagrams need no answer: none came, and nobody refused.
    Unanswered,
    Refused,
    TimedOut,
    /// A router on the way says so.
    Unreachable,
    /// Connected, but it is not what was expected.
    Unexpected(String),
    /// It could not even be tried.
    Failed(String),
}

impl Outcome {
    /// Its name in reports, which stays.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::Open(_) => "open",
            Outcome::Unanswered => "unanswered",
            Outcome::Refused => "refused",
            Outcome::TimedOut => "timed_out",
            Outcome::Unreachable => "unreachable",
            Outcome::Unexpected(_) => "unexpected",
            Outcome::Failed(_) => "failed",
        }
    }

    /// Whether nothing speaks against the endpoint.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self, Outcome::Open(_) | Outcome::Unanswered)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Open(_) => f.write_str("open"),
            Outcome::Unanswered => f.write_str("no answer, nor a refusal"),
            Outcome::Refused => f.write_str("refused"),
            Outcome::TimedOut => f.write_str("timed out"),
            Outcome::Unreachable => f.write_str("unreachable"),
            Outcome::Unexpected(what) => f.write_str(what),
            Outcome::Failed(why) => write!(f, "not tried: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_a_connection_or_a_status() {
        for (text, expect) in [
            ("tcp", Some(Expect::Tcp)),
            ("http", Some(Expect::Http(None))),
            ("http 200", Some(Expect::Http(Some(200)))),
            ("http:404", Some(Expect::Http(Some(404)))),
            ("http 20", None),
            ("http x", None),
            ("https", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), expect, "{text}");
        }
    }
}
