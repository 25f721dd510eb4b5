//! An ICMP echo request and its answer, whichever target it reaches.
//!
//! The kernel of a world answers by IPv6. By IPv4 it answers only from an address that an interface has
//! (`ip_route_output_key_hash` in net/ipv4/route.c), so a socket answers.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol as Transport, Socket, Type};

use super::ends::Ends;
use super::values::Connection;
use crate::net::{Family, Port};
use crate::twin::connection_end::{ConnectionEnd, Reached};
use crate::twin::sniff::{PacketKind, Sighting};
use crate::twin::talk::{From, payload};

/// The types of messages (RFC 792, RFC 4443): the request, and the answer.
const V4: (u8, u8) = (8, 0);
const V6: (u8, u8) = (128, 129);
/// The length of an echo message without its data.
const HEADER: usize = 8;

/// Sends an echo request with an identifier of its own, by which the kernel knows the connection.
pub fn open(ends: &mut Ends<'_>, connection: &Connection) -> io::Result<ConnectionEnd> {
    ends.begin();
    let family = Family::of(connection.to);
    let mut targets = Vec::new();
    for world in ends.twin().worlds() {
        world.netns.enter()?;
        targets.push(raw(family)?);
    }
    ends.talker.go(connection.from)?;
    let to = SocketAddr::new(connection.to, 0);
    let client = raw(family)?;
    client.bind(&SocketAddr::new(connection.client, 0).into())?;
    if let Err(error) = client.connect(&to.into()) {
        return Ok(ConnectionEnd::Refused(error.kind()));
    }
    let identifier = connection.client_port.unwrap_or_else(|| ends.port());
    if let Err(error) = client.send(&request(family, identifier, connection.bytes)) {
        return Ok(ConnectionEnd::Refused(error.kind()));
    }
    let Some(came) = ends.request(PacketKind::EchoRequest)? else {
        return ends.without_target(&client);
    };
    let reached = Reached::from(&came);
    if family == Family::V4 && !answer(ends, &targets[came.world], &came)? {
        return Ok(ConnectionEnd::Stuck(reached));
    }
    let back = ends.talker.look(|| answered(&client, family, identifier))?;
    Ok(if back == Some(connection.bytes) {
        ConnectionEnd::Delivered(reached)
    } else {
        ConnectionEnd::Stuck(reached)
    })
}

/// Opens a socket for messages of ICMP that may use any address, in the calling thread's namespace.
fn raw(family: Family) -> io::Result<Socket> {
    let (domain, transport) = match family {
        Family::V4 => (Domain::IPV4, Transport::ICMPV4),
        Family::V6 => (Domain::IPV6, Transport::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(transport))?;
    socket.set_nonblocking(true)?;
    match family {
        Family::V4 => socket.set_ip_transparent_v4(true)?,
        Family::V6 => socket.set_ip_transparent_v6(true)?,
    }
    Ok(socket)
}

/// Answers a request by IPv4 from the address that it reached. Returns whether all of it came.
fn answer(ends: &Ends<'_>, mut target: &Socket, came: &Sighting) -> io::Result<bool> {
    let mut buffer = vec![0; 1 << 16];
    let message = ends.talker.look(|| {
        loop {
            match target.read(&mut buffer) {
                Ok(count) => {
                    if let Some(message) = request_from(&buffer[..count], came) {
                        return Ok(Some(message.to_vec()));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    })?;
    let Some(mut message) = message else {
        return Ok(false);
    };
    message[0] = V4.1;
    message[2..4].fill(0);
    let [high, low] = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&[high, low]);
    ends.talker.go(From::World(came.world))?;
    let sender = raw(Family::V4)?;
    sender.bind(&came.destination.into())?;
    Ok(sender.send_to(&message, &came.source.into()).is_ok())
}

/// Returns the message of an IPv4 packet if it is an echo request between the addresses that were seen.
fn request_from<'p>(packet: &'p [u8], came: &Sighting) -> Option<&'p [u8]> {
    let address = |at: usize| {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(IpAddr::from(octets))
    };
    let is_ours = address(12)? == came.source.ip() && address(16)? == came.destination.ip();
    let message = packet.get(usize::from(packet.first()? & 0xf) * 4..)?;
    (is_ours && message.len() >= HEADER && message[0] == V4.0).then_some(message)
}

/// Returns an echo request.
fn request(family: Family, identifier: Port, bytes: usize) -> Vec<u8> {
    let (kind, _) = types(family);
    let [high, low] = identifier.number().to_be_bytes();
    let mut message = vec![kind, 0, 0, 0, high, low, 0, 1];
    message.extend(payload(bytes));
    // The kernel itself adds the checksum of ICMPv6 (RFC 3542, 3.1).
    if family == Family::V4 {
        let [high, low] = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&[high, low]);
    }
    message
}

fn types(family: Family) -> (u8, u8) {
    match family {
        Family::V4 => V4,
        Family::V6 => V6,
    }
}

/// Returns the checksum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u32 = bytes.chunks(2).map(word).fold(0, u32::wrapping_add);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// Returns how many bytes of data came back with an identifier; `None` if no answer has come.
fn answered(mut client: &Socket, family: Family, identifier: Port) -> io::Result<Option<usize>> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match client.read(&mut buffer) {
            Ok(count) => {
                if let Some(bytes) = data_of_answer(&buffer[..count], family, identifier) {
                    return Ok(Some(bytes));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            // A message of ICMP that something was not reached, which the kernel reports once. The answer may come yet.
            Err(_) => {}
        }
    }
}

/// Returns how many bytes of data an answer holds. The kernel shows the IP header of IPv4 alone (raw(7)).
fn data_of_answer(packet: &[u8], family: Family, identifier: Port) -> Option<usize> {
    let message = match family {
        Family::V4 => packet.get(usize::from(packet.first()? & 0xf) * 4..)?,
        Family::V6 => packet,
    };
    let (_, kind) = types(family);
    let is_ours = *message.first()? == kind
        && message.get(4..6)? == identifier.number().to_be_bytes().as_slice();
    is_ours.then(|| message.len().saturating_sub(HEADER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identifier(number: u16) -> Port {
        Port::new(number).expect("it is not 0")
    }

    /// The numbers are those of a request that Linux answered.
    #[test]
    fn a_request_has_the_checksum_of_the_internet() {
        let message = request(Family::V4, identifier(0x0102), 0);
        assert_eq!(message, [8, 0, 0xf6, 0xfc, 1, 2, 0, 1]);
        // An odd byte counts as the higher one.
        assert_eq!(checksum(&[1, 2, 3]), !0x0402);
        assert_eq!(checksum(&[0xff, 0xff, 0, 1]), !1);
    }

    #[test]
    fn an_answer_is_known_by_its_type_and_identifier() {
        let v6 = [129, 0, 0, 0, 1, 2, 0, 1, 7, 7];
        let v4 = [&[0x46; 24][..], &[0, 0, 0, 0, 1, 2, 0, 1, 7]].concat();
        let at = |packet: &[u8], family, number| data_of_answer(packet, family, identifier(number));
        assert_eq!(at(&v6, Family::V6, 0x0102), Some(2));
        assert_eq!(at(&v6, Family::V6, 0x0103), None);
        assert_eq!(at(&v4, Family::V4, 0x0102), Some(1));
        let request = request(Family::V6, identifier(0x0102), 2);
        assert_eq!(at(&request, Family::V6, 0x0102), None);
        assert_eq!(at(&[], Family::V4, 0x0102), None);
    }
}
