//! The results of tests, as values.

use std::fmt;
use std::net::IpAddr;

use crate::forwards::{PacketTest, Reaches, TestHost};
use crate::net::Port;
use crate::twin::connection::Connection;

/// A test and its outcome.
#[derive(Debug, Clone)]
pub struct TestedPacket<'t> {
    pub test: &'t PacketTest,
    /// The connection of the test, or the reason why there is none.
    pub connection: Result<Connection, String>,
    pub outcome: TestOutcome,
}

impl<'t> TestedPacket<'t> {
    /// Returns a test that was not opened yet.
    pub(super) fn new(test: &'t PacketTest, connection: Result<Connection, String>) -> Self {
        Self {
            test,
            connection,
            outcome: TestOutcome::NotOpened("nobody opened it".to_owned()),
        }
    }

    /// Returns the hosts that the connection may reach.
    #[must_use]
    pub fn hosts(&self) -> &'t [TestHost] {
        match &self.test.reaches {
            Reaches::Nothing => &[],
            Reaches::OneOf(hosts) => hosts,
        }
    }

    /// Returns the ports of these hosts.
    #[must_use]
    pub fn ports(&self) -> Vec<Port> {
        self.hosts().iter().filter_map(|host| host.port).collect()
    }

    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.outcome == TestOutcome::Passed
    }
}

/// The outcome of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TestOutcome {
    Passed,
    Failed(Mismatch),
    /// Packets met rules whose state is not copied. The numbers are those of the twin's watched rules.
    Unknown(Vec<usize>),
    /// The connection could not be opened, for this reason.
    NotOpened(String),
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

/// Says what happened instead, in words for a line of its own.
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
