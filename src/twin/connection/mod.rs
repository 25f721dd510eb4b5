//! Connections through a twin of which nobody knows the end: a target answers wherever the packets come out of the
//! machine, at any address and port.
//!
//! Sockets see each packet that comes from the machine, so that the first one shows where the connection leads. A
//! datagram is answered from there. A TCP connection that meets no listener there is opened again, with a listener at
//! that port. A ping is answered by the kernel.

mod ends;
mod ping;
mod place;
mod tcp;
mod udp;
mod values;

use crate::forwards::OutboundProtocol;
use crate::net::{Family, Port};
use crate::twin::connection_end::ConnectionEnd;
use crate::twin::{Twin, TwinError};

pub use place::{ClientSides, PlaceError, own_address};
pub use values::Connection;

use ends::Ends;
use tcp::TcpListeners;

/// How often a connection is opened at most while the machine asks for new IPv6 neighbours: the target, and a client
/// that is behind another interface.
const ROUNDS: usize = 3;

/// Opens connections through a twin, many with the same sockets.
#[derive(Debug)]
pub struct Opener<'t> {
    ends: Ends<'t>,
    listeners: TcpListeners,
}

impl<'t> Opener<'t> {
    /// Returns an opener of connections. The calling thread is in one of the twin's namespaces afterwards.
    ///
    /// # Errors
    /// If a socket cannot be opened.
    pub fn of(twin: &'t Twin) -> Result<Self, TwinError> {
        Ok(Self {
            ends: Ends::of(twin)?,
            listeners: TcpListeners::default(),
        })
    }

    /// Opens a connection and finds its end. The calling thread is in one of the twin's namespaces afterwards.
    ///
    /// `likely`: the ports that the connection may reach. A TCP connection is opened twice if it reaches another one. If a
    /// rule lets only the first one pass, the end is [`ConnectionEnd::Stuck`].
    ///
    /// # Errors
    /// If a socket cannot be opened, which says nothing about the connection.
    pub fn open(
        &mut self,
        connection: &Connection,
        likely: &[Port],
    ) -> Result<ConnectionEnd, TwinError> {
        self.ends.answer_for_client(connection.client)?;
        let mut end = self.once(connection, likely)?;
        for _ in 1..ROUNDS {
            if end.is_delivered() || !self.ends.answer_solicited()? {
                break;
            }
            end = self.once(connection, likely)?;
        }
        Ok(end)
    }

    fn once(
        &mut self,
        connection: &Connection,
        likely: &[Port],
    ) -> Result<ConnectionEnd, TwinError> {
        let Self { ends, listeners } = self;
        let end = match connection.protocol {
            OutboundProtocol::Tcp => {
                let family = Family::of(connection.to);
                let worlds = ends.twin().worlds();
                listeners
                    .prepare(worlds, family, likely)
                    .and_then(|()| tcp::open(ends, listeners, connection))
            }
            OutboundProtocol::Udp => udp::open(ends, connection),
            OutboundProtocol::Ping => ping::open(ends, connection),
        };
        end.map_err(TwinError::Socket)
    }
}
