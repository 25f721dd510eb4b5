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
pub enum ProbeOutcome {
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

impl ProbeOutcome {
    /// Returns the outcome's name in reports. Programs read these names, so they do not change.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            ProbeOutcome::Open(_) => "open",
            ProbeOutcome::Unanswered => "unanswered",
            ProbeOutcome::Refused => "refused",
            ProbeOutcome::TimedOut => "timed_out",
            ProbeOutcome::Unreachable => "unreachable",
            ProbeOutcome::Unexpected(_) => "unexpected",
            ProbeOutcome::Failed(_) => "failed",
        }
    }

    /// Returns whether the attempt found no fault of the endpoint.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self, ProbeOutcome::Open(_) | ProbeOutcome::Unanswered)
    }
}

impl fmt::Display for ProbeOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProbeOutcome::Open(_) => f.write_str("open"),
            ProbeOutcome::Unanswered => f.write_str("neither answered nor refused"),
            ProbeOutcome::Refused => f.write_str("refused"),
            ProbeOutcome::TimedOut => f.write_str("timed out"),
            ProbeOutcome::Unreachable => f.write_str("unreachable"),
            ProbeOutcome::Unexpected(what) => f.write_str(what),
            ProbeOutcome::Failed(why) => write!(f, "not tried: {why}"),
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
