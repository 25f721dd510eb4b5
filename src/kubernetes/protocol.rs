//! The protocol of a port.

use std::fmt;

use serde::Deserialize;

use crate::net::Protocol;

/// The protocol of a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum KubeProtocol {
    #[default]
    Tcp,
    Udp,
    /// A forward has no such packets.
    Sctp,
}

impl KubeProtocol {
    /// Returns the protocol of a forward; `None` if no forward has it.
    #[must_use]
    pub fn of_forward(self) -> Option<Protocol> {
        match self {
            KubeProtocol::Tcp => Some(Protocol::Tcp),
            KubeProtocol::Udp => Some(Protocol::Udp),
            KubeProtocol::Sctp => None,
        }
    }
}

impl From<Protocol> for KubeProtocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => KubeProtocol::Tcp,
            Protocol::Udp => KubeProtocol::Udp,
        }
    }
}

impl fmt::Display for KubeProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KubeProtocol::Tcp => "tcp",
            KubeProtocol::Udp => "udp",
            KubeProtocol::Sctp => "sctp",
        })
    }
}
