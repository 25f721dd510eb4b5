//! The results of tests, as values.

use std::collections::BTreeSet;
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
    /// The hosts that its connections reached.
    pub seen: BTreeSet<TestHost>,
    pub outcome: TestOutcome,
}

impl<'t> TestedPacket<'t> {
    /// Returns a test that is not opened in time.
    #[must_use]
    pub fn late(test: &'t PacketTest) -> Self {
        Self {
            test,
            connection: Err(LATE.to_owned()),
            targets: 0,
            seen: BTreeSet::new(),
            outcome: TestOutcome::late(),
        }
    }

    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.outcome == TestOutcome::Passed
    }

    /// Returns whether a connection has reached each host that it may reach.
    pub(super) fn has_seen_all(&self) -> bool {
        self.seen.len() >= self.hosts()
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
    /// The connection may end otherwise on the machine, for this reason.
    Unknown(String),
    /// The connection could not be opened, for this reason.
    NotOpened(String),
}

/// The reason for which a test is not opened in time.
const LATE: &str = "the time limit was reached first";

impl TestOutcome {
    /// Returns the outcome of a test that is not opened in time.
    #[must_use]
    pub(super) fn late() -> Self {
        Self::NotOpened(LATE.to_owned())
    }

    /// Returns the end that the connection had instead, in words; `None` if the test passed.
    #[must_use]
    pub fn found(&self) -> Option<String> {
        match self {
            TestOutcome::Passed => None,
            TestOutcome::Failed(mismatch) => Some(mismatch.to_string()),
            TestOutcome::Unknown(why) => Some(why.clone()),
            TestOutcome::NotOpened(why) => Some(format!("it was not opened: {why}")),
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
