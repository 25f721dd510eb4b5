//! A connection, as a value.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::forwards::OutboundProtocol;
use crate::net::Port;
use crate::twin::talk::From;

/// A connection whose end is not known before it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    pub protocol: OutboundProtocol,
    pub client: IpAddr,
    /// `None` for a port that no other connection of the same [`super::Opener`] has.
    pub client_port: Option<Port>,
    /// The place of the client.
    pub from: From,
    pub to: IpAddr,
    /// `None` for a ping.
    pub port: Option<Port>,
    /// How many bytes the client sends, and how many the target answers.
    pub bytes: usize,
}

impl Connection {
    /// Returns the address and port that the client connects to. A ping has port 0.
    #[must_use]
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.to, self.port.map_or(0, Port::number))
    }
}

/// Prints protocol, client and destination: `tcp 198.51.100.7:40000 -> 10.3.0.4:443`.
impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |f: &mut fmt::Formatter<'_>, address: IpAddr, port: Option<Port>| match port {
            Some(port) => write!(f, "{}", SocketAddr::new(address, port.number())),
            None => write!(f, "{address}"),
        };
        write!(f, "{} ", self.protocol)?;
        end(f, self.client, self.client_port)?;
        f.write_str(" -> ")?;
        end(f, self.to, self.port)
    }
}
