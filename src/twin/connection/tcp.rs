//! A TCP connection, which any world accepts at any port.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::time::Duration;

use socket2::{Protocol as Transport, Socket, Type};

use super::ends::Ends;
use super::values::Connection;
use crate::net::{Family, Port};
use crate::twin::connection_end::{ConnectionEnd, Reached};
use crate::twin::sniff::{PacketKind, Sighting};
use crate::twin::talk::{is_under_way, socket};
use crate::twin::world::World;

/// The most listeners that are open at once: a process may have 1,024 open files (setrlimit(2)).
const MOST_LISTENERS: usize = 256;
/// How often a connection is opened at most until a listener waits at the port that it reaches. Rules that translate
/// without connection tracking may send each to another port.
const TRIES: usize = 32;
/// The connections that may wait at a listener.
const BACKLOG: i32 = 64;

/// The open listeners by the world's number, family and port.
#[derive(Debug, Default)]
pub struct TcpListeners(BTreeMap<(usize, Family, u16), Socket>);

impl TcpListeners {
    /// Opens listeners at some ports of all worlds, unless they are open.
    pub fn prepare(&mut self, worlds: &[World], family: Family, ports: &[Port]) -> io::Result<()> {
        let most = MOST_LISTENERS / worlds.len().max(1);
        for port in ports.iter().take(most) {
            for (number, world) in worlds.iter().enumerate() {
                self.open(number, world, family, port.number())?;
            }
        }
        Ok(())
    }

    fn open(&mut self, number: usize, world: &World, family: Family, port: u16) -> io::Result<()> {
        let key = (number, family, port);
        if self.0.contains_key(&key) {
            return Ok(());
        }
        if self.0.len() >= MOST_LISTENERS {
            self.0.clear();
        }
        world.netns.enter()?;
        let any: IpAddr = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        let at = SocketAddr::new(any, port);
        let listener = socket(at, Type::STREAM, Transport::TCP)?;
        listener.set_reuse_address(true)?;
        listener.bind(&at.into())?;
        listener.listen(BACKLOG)?;
        self.0.insert(key, listener);
        Ok(())
    }
}

/// Opens a connection, again and again until a listener waits where it comes out of the machine.
pub fn open(
    ends: &mut Ends<'_>,
    listeners: &mut TcpListeners,
    connection: &Connection,
) -> io::Result<ConnectionEnd> {
    let mut earlier = None;
    let mut connection = connection.clone();
    for _ in 0..TRIES {
        ends.begin();
        ends.talker.go(connection.from)?;
        let to = connection.destination();
        let client = socket(to, Type::STREAM, Transport::TCP)?;
        client.set_linger(Some(Duration::ZERO))?;
        ends.bind(&client, &connection)?;
        // The kernel sends the packets of one connection to one target, also if rules choose a target by chance.
        connection.client_port = client_port(&client)?;
        if let Err(error) = client.connect(&to.into())
            && !is_under_way(&error)
        {
            return Ok(ConnectionEnd::Refused(error.kind()));
        }
        let Some(came) = ends.request(PacketKind::Syn)? else {
            // A rule that limits connections may let the first one pass alone.
            return match earlier {
                Some(end) => Ok(end),
                None => ends.without_target(&client),
            };
        };
        let key = (came.world, Family::of(to.ip()), came.destination.port());
        if let Some(listener) = listeners.0.get(&key) {
            let end = exchange(ends, listener, client, &came, connection.bytes)?;
            if matches!(end, ConnectionEnd::Stuck(_)) {
                // A listener keeps a connection that it did not accept for a minute, and sends its answer again.
                listeners.0.remove(&key);
            }
            return Ok(end);
        }
        // The kernel refuses a connection only from an address that an interface has, so no answer has come.
        earlier = Some(ConnectionEnd::Stuck(Reached::from(&came)));
        // A program that another thread starts at this moment may hold the socket open, and with it the port.
        let _ = client.shutdown(Shutdown::Both);
        drop(client);
        let world = &ends.twin().worlds()[came.world];
        listeners.open(key.0, world, key.1, key.2)?;
    }
    earlier.ok_or_else(|| io::ErrorKind::Other.into())
}

fn client_port(client: &Socket) -> io::Result<Option<Port>> {
    let bound = client.local_addr()?.as_socket();
    Ok(bound.and_then(|at| Port::new(at.port())))
}

/// Accepts a connection and carries the bytes there and back.
fn exchange(
    ends: &Ends<'_>,
    listener: &Socket,
    mut client: Socket,
    came: &Sighting,
    bytes: usize,
) -> io::Result<ConnectionEnd> {
    let reached = Reached::from(came);
    let accepted = ends.talker.look(|| {
        loop {
            match listener.accept() {
                // An earlier connection may have been given up before it was accepted.
                Ok((_, source)) if source.as_socket() != Some(came.source) => {}
                Ok((target, _)) => return Ok(Some(target)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    })?;
    let Some(mut target) = accepted else {
        return Ok(ConnectionEnd::Stuck(reached));
    };
    target.set_nonblocking(true)?;
    target.set_linger(Some(Duration::ZERO))?;
    let there = ends.talker.carry(&mut client, &mut target, bytes)?;
    let back = there && ends.talker.carry(&mut target, &mut client, bytes)?;
    Ok(if back {
        ConnectionEnd::Delivered(reached)
    } else {
        ConnectionEnd::Stuck(reached)
    })
}
