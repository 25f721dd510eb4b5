//! How a connection through a twin ended, and at which target.

use std::io;
use std::net::SocketAddr;

/// The end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// A target was reached, and the client has the whole answer.
    Delivered(Reached),
    /// A target was reached, but the rest of the request or the answer did not come through.
    Stuck(Reached),
    /// The client was told that nobody answers.
    Refused(io::ErrorKind),
    Silent,
}

impl ConnectionEnd {
    /// Returns the target that was reached, if any.
    #[must_use]
    pub fn reached(&self) -> Option<&Reached> {
        match self {
            ConnectionEnd::Delivered(reached) | ConnectionEnd::Stuck(reached) => Some(reached),
            ConnectionEnd::Refused(_) | ConnectionEnd::Silent => None,
        }
    }

    #[must_use]
    pub fn is_delivered(&self) -> bool {
        matches!(self, ConnectionEnd::Delivered(_))
    }
}

/// The target that a connection reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// The number of the world in which the connection was accepted.
    pub world: usize,
    /// The source that the target saw.
    pub source: SocketAddr,
    pub target: SocketAddr,
}
