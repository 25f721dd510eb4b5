//! Both ends of connections through a twin: the client's socket, and the packets that come out of the machine.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::Socket;

use super::values::Connection;
use crate::net::Port;
use crate::twin::batch;
use crate::twin::connection_end::ConnectionEnd;
use crate::twin::sniff::{PacketKind, Sighting, Sniffer};
use crate::twin::talk::Talker;
use crate::twin::{Twin, TwinError};

/// The ports of clients, as Linux chooses them (`ip_local_port_range`), from the first round number on.
const FIRST_PORT: u16 = 40_000;
const LAST_PORT: u16 = 60_999;

/// The sockets and notes that all connections of a twin share.
#[derive(Debug)]
pub struct Ends<'t> {
    twin: &'t Twin,
    pub talker: Talker<'t>,
    arrivals: Sniffer,
    /// A connection that has the ports of an earlier one may be taken for the earlier one.
    next_port: u16,
    /// Whether the machine told the client that the destination is not reached.
    is_refused: bool,
    /// The IPv6 addresses that the machine asked for, and those for which the worlds answer by now.
    solicited: BTreeSet<IpAddr>,
    answered: BTreeSet<IpAddr>,
}

impl<'t> Ends<'t> {
    pub fn of(twin: &'t Twin) -> Result<Self, TwinError> {
        let arrivals = Sniffer::of_arrivals(twin.worlds()).map_err(TwinError::Socket)?;
        Ok(Self {
            twin,
            talker: twin.talker()?,
            arrivals,
            next_port: FIRST_PORT,
            is_refused: false,
            solicited: BTreeSet::new(),
            answered: BTreeSet::new(),
        })
    }

    pub fn twin(&self) -> &'t Twin {
        self.twin
    }

    /// Binds a client's socket to its address and port.
    pub fn bind(&mut self, client: &Socket, connection: &Connection) -> io::Result<()> {
        client.set_reuse_address(true)?;
        let at = |port: u16| SocketAddr::new(connection.client, port);
        if let Some(port) = connection.client_port {
            return client.bind(&at(port.number()).into());
        }
        for _ in FIRST_PORT..=LAST_PORT {
            let bound = client.bind(&at(self.port().number()).into());
            match bound {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                bound => return bound,
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    /// Returns the next port of a client.
    pub fn port(&mut self) -> Port {
        let port = self.next_port;
        self.next_port = if port == LAST_PORT {
            FIRST_PORT
        } else {
            port + 1
        };
        Port::new(port).unwrap_or(Port::MIN)
    }

    /// Forgets the packets of earlier connections.
    pub fn begin(&mut self) {
        let _ = self.arrivals.seen();
        self.is_refused = false;
    }

    /// Returns the first packet of a kind that came out of the machine since [`Ends::begin`].
    pub fn request(&mut self, kind: PacketKind) -> io::Result<Option<Sighting>> {
        let Self {
            talker,
            arrivals,
            is_refused,
            solicited,
            ..
        } = self;
        talker.look(|| {
            let mut found = None;
            // The talker sends datagrams to itself.
            let seen = arrivals.seen().into_iter();
            for sighting in seen.filter(|one| !one.source.ip().is_loopback()) {
                match sighting.kind {
                    PacketKind::Solicitation(address) => {
                        solicited.insert(address.into());
                    }
                    PacketKind::Unreachable => *is_refused = true,
                    of if of == kind => found = found.or(Some(sighting)),
                    _ => {}
                }
            }
            Ok(found)
        })
    }

    /// Returns the end of a connection that came out of the machine nowhere.
    pub fn without_target(&self, client: &Socket) -> io::Result<ConnectionEnd> {
        Ok(match client.take_error()? {
            Some(error) => ConnectionEnd::Refused(error.kind()),
            // The kernel keeps such a message from a socket that may still be answered (`icmp_err_convert`).
            None if self.is_refused => ConnectionEnd::Refused(io::ErrorKind::HostUnreachable),
            None => ConnectionEnd::Silent,
        })
    }

    /// Lets the worlds answer for an IPv6 address on the link of a client.
    pub fn answer_for_client(&mut self, client: IpAddr) -> Result<(), TwinError> {
        if client.is_ipv6() && !self.answered.contains(&client) {
            self.answer_for(BTreeSet::from([client]))?;
        }
        Ok(())
    }

    /// Lets the worlds answer for the IPv6 addresses that the machine asked for in vain. Returns whether there are any.
    pub fn answer_solicited(&mut self) -> Result<bool, TwinError> {
        let mut asked = std::mem::take(&mut self.solicited);
        asked.retain(|address| !self.answered.contains(address));
        asked.retain(|address| !self.twin.machine().is_dead(*address));
        if asked.is_empty() {
            return Ok(false);
        }
        self.answer_for(asked)?;
        Ok(true)
    }

    fn answer_for(&mut self, mut addresses: BTreeSet<IpAddr>) -> Result<(), TwinError> {
        let own = self.twin.machine().addresses();
        let mut left = addresses.clone();
        left.retain(|address| !own.contains(address));
        let is_on_link = |world: &crate::twin::world::World| {
            left.iter().any(|address| world.is_on_link(*address))
        };
        for world in self.twin.worlds().iter().filter(|world| is_on_link(world)) {
            world.netns.enter().map_err(TwinError::Socket)?;
            world.answer_for(&left)?;
        }
        self.answered.append(&mut addresses);
        // The kernel does not ask again for a second.
        self.twin.enter()?;
        batch::run(
            &["-6"],
            "neigh flush all nud incomplete\nneigh flush all nud failed\n",
        )?;
        Ok(())
    }
}
