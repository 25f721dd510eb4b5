//! The attempts to connect to a port, and their outcomes.

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
    /// The address to connect from. `None`: the kernel chooses it.
    pub from: Option<IpAddr>,
}

/// The answer that a port must give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// A connection.
    Tcp,
    /// A connection that the other side does not end at once.
    Kept,
    /// An answer to `GET /` with this status, or with any status below 400.
    Http(Option<u16>),
}

#[derive(Debug, Error)]
#[error("`{0}` is not one of `tcp`, `http`, `http 200`")]
pub struct ExpectError(String);

impl FromStr for Expect {
    type Err = ExpectError;

    /// Reads `tcp`, `http`, or `http` followed by a space or a colon and a status.
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

/// The outcome of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Connected or answered, after this time.
    Open(Duration),
    /// A datagram was neither answered nor refused. A UDP server need not answer.
    Unanswered,
    Refused,
    TimedOut,
    /// A router on the path reports that the host or network is unreachable.
    Unreachable,
    /// Connected, but the answer was not as expected.
    Unexpected(String),
    /// The attempt could not be made.
    Failed(String),
}

impl Outcome {
    /// Returns the outcome's name in reports. Programs read these names, so they do not change.
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

    /// Returns whether the attempt found no fault of the endpoint.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self, Outcome::Open(_) | Outcome::Unanswered)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Open(_) => f.write_str("open"),
            Outcome::Unanswered => f.write_str("neither answered nor refused"),
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
    fn an_expected_answer_is_tcp_or_http_with_an_optional_status() {
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
