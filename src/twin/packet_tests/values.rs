//! The results of tests, as values.

use std::fmt;
use std::net::IpAddr;

use crate::forwards::{PacketTest, TestHost};
use crate::twin::connection::Connection;

/// A test and its outcome.
#[derive(Debug, Clone)]
pub struct TestedPacket<'t> {
    pub test: &'t PacketTest,
    /// The connection of the test, or the reason why there is none.
    pub connection: Result<Connection, String>,
    /// How many hosts the rules of the spec lead the connection to.
    pub targets: usize,
    pub outcome: TestOutcome,
}

impl TestedPacket<'_> {
    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.outcome == TestOutcome::Passed
    }

    /// Returns how many hosts the connection may reach, by the test or by the rules of the spec.
    pub(super) fn hosts(&self) -> usize {
        self.targets.max(self.test.reaches.hosts().len())
    }
}

/// The outcome of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TestOutcome {
    Passed,
    Failed(Mismatch),
    /// Packets met rules whose state is not copied. The numbers are those of the twin's watched rules.
    Unknown(Vec<usize>),
    /// The twin lacks something that may give the connection another end.
    InDoubt(String),
    /// The connection could not be opened, for this reason.
    NotOpened(String),
}

impl TestOutcome {
    /// Returns the end that the connection had instead, in words; `None` if the test passed. `watched` are the twin's
    /// watched rules, in words.
    #[must_use]
    pub fn found(&self, watched: &[String]) -> Option<String> {
        match self {
            TestOutcome::Passed => None,
            TestOutcome::Failed(mismatch) => Some(mismatch.to_string()),
            TestOutcome::InDoubt(doubt) => Some(format!(
                "a copy cannot show how its packets meet this: {doubt}"
            )),
            TestOutcome::NotOpened(why) => Some(format!("it was not opened: {why}")),
            TestOutcome::Unknown(met) => {
                let rules = met.iter().filter_map(|number| watched.get(*number));
                let rules: Vec<&str> = rules.map(String::as_str).collect();
                let rules = rules.join("; ");
                Some(format!(
                    "its packets met a rule whose effect a copy cannot show: {rules}"
                ))
            }
        }
    }
}

/// The end of a connection that is not the one that its test wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// No host was reached.
    NotReached,
    /// A host was reached, and the test wants none.
    Reached {
        host: TestHost,
        behind: String,
        source: IpAddr,
    },
    /// A host was reached that is none of the test's.
    Elsewhere { host: TestHost, behind: String },
    /// The host saw another source.
    Source(IpAddr),
    /// The host was reached, but its answer did not come back.
    NoAnswer(TestHost),
}

impl Mismatch {
    /// Returns the host that was reached and is none of the test's.
    #[must_use]
    pub fn host(&self) -> Option<TestHost> {
        match self {
            Mismatch::Reached { host, .. } | Mismatch::Elsewhere { host, .. } => Some(*host),
            Mismatch::NotReached | Mismatch::Source(_) | Mismatch::NoAnswer(_) => None,
        }
    }
}

/// Prints the end for a line of its own.
impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::NotReached => f.write_str("it reached nothing"),
            Mismatch::Reached {
                host,
                behind,
                source,
            } => write!(
                f,
                "it reached {host} behind {behind}, with the source {source}"
            ),
            Mismatch::Elsewhere { host, behind } => write!(f, "it reached {host} behind {behind}"),
            Mismatch::Source(seen) => write!(f, "the host saw the source {seen}"),
            Mismatch::NoAnswer(host) => {
                write!(f, "it reached {host}, but the answer did not come back")
            }
        }
    }
}
