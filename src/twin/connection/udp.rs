//! A datagram and its answer, whichever target it reaches.

use std::io;
use std::net::UdpSocket;

use socket2::{Protocol as Transport, Type};

use super::ends::Ends;
use super::values::Connection;
use crate::twin::connection_end::{ConnectionEnd, Reached};
use crate::twin::sniff::PacketKind;
use crate::twin::talk::{From, payload, socket};

/// Sends a datagram, and answers from where it came out of the machine. A target needs no listener: it answers with the
/// addresses that were seen.
pub fn open(ends: &mut Ends<'_>, connection: &Connection) -> io::Result<ConnectionEnd> {
    ends.begin();
    ends.talker.go(connection.from)?;
    let (to, data) = (connection.destination(), payload(connection.bytes));
    let client = socket(to, Type::DGRAM, Transport::UDP)?;
    ends.bind(&client, connection)?;
    // A route of the type blackhole or unreachable lets no datagram be sent at all.
    if let Err(error) = client.connect(&to.into()) {
        return Ok(ConnectionEnd::Refused(error.kind()));
    }
    if let Err(error) = client.send(&data) {
        return Ok(ConnectionEnd::Refused(error.kind()));
    }
    let Some(came) = ends.request(PacketKind::Datagram)? else {
        return ends.without_target(&client);
    };
    let reached = Reached::from(&came);
    ends.talker.go(From::World(came.world))?;
    let target = socket(came.destination, Type::DGRAM, Transport::UDP)?;
    target.set_reuse_address(true)?;
    target.bind(&came.destination.into())?;
    let (client, target) = (UdpSocket::from(client), UdpSocket::from(target));
    let mut buffer = vec![0; 1 << 16];
    // The target's kernel has told the client that nobody listened.
    client.take_error()?;
    if came.is_part {
        // Whether all fragments come through shows at a socket alone. The kernel takes the second datagram for one of the same
        // connection, and sends it to the same target.
        if client.send(&data).is_err() {
            return Ok(ConnectionEnd::Stuck(reached));
        }
        let there = ends.talker.look(|| received(target.recv(&mut buffer)))?;
        if there != Some(data.len()) {
            return Ok(ConnectionEnd::Stuck(reached));
        }
    }
    if target.send_to(&data, came.source).is_err() {
        return Ok(ConnectionEnd::Stuck(reached));
    }
    let back = ends.talker.look(|| received(client.recv(&mut buffer)))?;
    Ok(if back == Some(data.len()) {
        ConnectionEnd::Delivered(reached)
    } else {
        ConnectionEnd::Stuck(reached)
    })
}

/// Returns the length of a datagram; `None` if none has come. A refusal may come before it.
fn received(answer: io::Result<usize>) -> io::Result<Option<usize>> {
    match answer {
        Ok(count) => Ok(Some(count)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable => Ok(None),
            _ => Err(error),
        },
    }
}
