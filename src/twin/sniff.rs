//! Packets in the worlds of a twin: where the twin's machine sent them, and with which addresses.

use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use super::connection_end::Reached;
use super::world::World;

/// Protocols in `linux/if_ether.h`, for packet(7): `ETH_P_ALL`, `ETH_P_IP`, `ETH_P_IPV6`.
const ALL: u16 = 0x0003;
const V4: u16 = 0x0800;
const V6: u16 = 0x86dd;
/// The longest header that is read: an IPv4 header with options and a TCP header, or an IPv6 header and a solicitation.
const LONGEST: usize = 128;

/// Numbers of protocols (linux/in.h).
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// The fragment header of IPv6 (RFC 8200, 4.5).
const FRAGMENT: u8 = 44;

/// A packet that a world sent or received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The world's number.
    pub world: usize,
    /// The protocol's number in linux/in.h: 1, 6, 17, 58.
    pub protocol: u8,
    /// The TTL of IPv4, the hop limit of IPv6.
    pub hops: u8,
    pub kind: PacketKind,
    /// Whether it is the first of several fragments.
    pub is_part: bool,
    /// The ports are 0 if the protocol has none.
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// The place where the first packet of a connection came out of the machine.
impl From<&Sighting> for Reached {
    fn from(came: &Sighting) -> Self {
        Self {
            world: came.world,
            source: came.source,
            target: came.destination,
        }
    }
}

/// A kind of packet that tells how a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketKind {
    /// The first packet of a TCP connection.
    Syn,
    Datagram,
    EchoRequest,
    /// ICMP's message that a destination is not reached.
    Unreachable,
    /// The question for the hardware address of an IPv6 address.
    Solicitation(Ipv6Addr),
    Other,
}

/// Sockets that see the packets of the worlds, each with its world's number.
#[derive(Debug)]
pub struct Sniffer(Vec<(usize, Socket)>);

impl Sniffer {
    /// Opens a socket in each world, which sees every packet. The calling thread is in the last world afterwards.
    ///
    /// # Errors
    /// As socket(2).
    pub fn open(worlds: &[World]) -> io::Result<Self> {
        Self::of(worlds, &[ALL])
    }

    /// Opens sockets in each world, which see only the packets that come from the machine: the kernel shows packets
    /// that are sent to sockets of all protocols alone (`ptype_all` in net/core/dev.c). The calling thread is in the
    /// last world afterwards.
    ///
    /// # Errors
    /// As socket(2).
    pub fn of_arrivals(worlds: &[World]) -> io::Result<Self> {
        Self::of(worlds, &[V4, V6])
    }

    fn of(worlds: &[World], protocols: &[u16]) -> io::Result<Self> {
        let mut sockets = Vec::new();
        for (number, world) in worlds.iter().enumerate() {
            world.netns.enter()?;
            for protocol in protocols {
                let protocol = Protocol::from(i32::from(protocol.to_be()));
                let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))?;
                socket.set_nonblocking(true)?;
                sockets.push((number, socket));
            }
        }
        Ok(Self(sockets))
    }

    /// Returns the packets since the last call, world by world.
    #[must_use]
    pub fn seen(&self) -> Vec<Sighting> {
        let mut seen = Vec::new();
        for (world, socket) in &self.0 {
            let mut socket = socket;
            let mut buffer = [0; LONGEST];
            while let Ok(count) = socket.read(&mut buffer) {
                seen.extend(packet(*world, &buffer[..count]));
            }
        }
        seen
    }
}

/// Reads the addresses and ports of an IP packet; `None` for other packets and for a later fragment.
fn packet(world: usize, bytes: &[u8]) -> Option<Sighting> {
    let number = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let v6 = |at: usize| {
        let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(octets))
    };
    let is_part;
    let (protocol, hops, source, destination, end) = match bytes.first()? >> 4 {
        4 => {
            // The offset of a fragment, and the bit for more fragments (RFC 791, 3.1).
            let fragment = number(6)?;
            if fragment & 0x1fff != 0 {
                return None;
            }
            is_part = fragment & 0x2000 != 0;
            let v4 = |at: usize| {
                let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
                Some(IpAddr::V4(Ipv4Addr::from(octets)))
            };
            let end = usize::from(bytes[0] & 0xf) * 4;
            (*bytes.get(9)?, *bytes.get(8)?, v4(12)?, v4(16)?, end)
        }
        6 => {
            let (source, destination) = (IpAddr::V6(v6(8)?), IpAddr::V6(v6(24)?));
            is_part = bytes[6] == FRAGMENT;
            let (protocol, end) = if is_part {
                if number(42)? & 0xfff8 != 0 {
                    return None;
                }
                (*bytes.get(40)?, 48)
            } else {
                (bytes[6], 40)
            };
            (protocol, bytes[7], source, destination, end)
        }
        _ => return None,
    };
    let kind = match (protocol, bytes.get(end)) {
        // The flags SYN and ACK (RFC 9293, 3.1).
        (TCP, _)
            if bytes
                .get(end + 13)
                .is_some_and(|flags| flags & 0x12 == 0x02) =>
        {
            PacketKind::Syn
        }
        (UDP, _) => PacketKind::Datagram,
        // The types of ICMP (RFC 792, RFC 4443, RFC 4861).
        (ICMP, Some(8)) | (ICMPV6, Some(128)) => PacketKind::EchoRequest,
        (ICMP, Some(3)) | (ICMPV6, Some(1)) => PacketKind::Unreachable,
        (ICMPV6, Some(135)) => PacketKind::Solicitation(v6(end + 8)?),
        _ => PacketKind::Other,
    };
    let has_ports = matches!(protocol, TCP | UDP);
    let port = |at: usize| if has_ports { number(at) } else { Some(0) };
    Some(Sighting {
        world,
        protocol,
        hops,
        kind,
        is_part,
        source: SocketAddr::new(source, port(end)?),
        destination: SocketAddr::new(destination, port(end + 2)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_ports_are_read_from_either_family() {
        let mut v4 = vec![0x46, 0, 0, 44, 0, 0, 0x40, 0, 64, 6, 0, 0];
        v4.extend([198, 51, 100, 7, 10, 3, 0, 4]);
        v4.extend([1, 1, 1, 1]);
        v4.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02]);
        let sighting = packet(1, &v4).expect("it is a packet");
        assert_eq!((sighting.protocol, sighting.hops), (6, 64));
        assert_eq!(sighting.source.to_string(), "198.51.100.7:40000");
        assert_eq!(sighting.destination.to_string(), "10.3.0.4:80");
        assert_eq!(sighting.kind, PacketKind::Syn);
        // The answer has the flag ACK as well.
        v4[37] = 0x12;
        let answer = packet(1, &v4).expect("it is a packet");
        assert_eq!((answer.kind, answer.is_part), (PacketKind::Other, false));
        let mut v6 = vec![0x60, 0, 0, 0, 0, 8, 17, 63];
        v6.extend("fd00::1".parse::<Ipv6Addr>().expect("an address").octets());
        v6.extend("fd00::2".parse::<Ipv6Addr>().expect("an address").octets());
        v6.extend([0, 53, 0, 54]);
        let sighting = packet(0, &v6).expect("it is a packet");
        assert_eq!(sighting.hops, 63);
        assert_eq!(sighting.source.to_string(), "[fd00::1]:53");
        assert_eq!(sighting.destination.to_string(), "[fd00::2]:54");
        for cut in [&v4[..20], &v6[..42], &[][..], &[0x10][..]] {
            assert_eq!(packet(0, cut), None);
        }
    }

    #[test]
    fn the_first_fragment_has_ports_and_a_later_one_is_not_seen() {
        let mut v4 = vec![0x45, 0, 0, 28, 0, 1, 0x20, 0, 63, 17, 0, 0];
        v4.extend([198, 51, 100, 7, 10, 3, 0, 4, 0x9c, 0x40, 0, 53]);
        let first = packet(0, &v4).expect("it is a packet");
        assert_eq!((first.kind, first.is_part), (PacketKind::Datagram, true));
        assert_eq!(first.destination.port(), 53);
        v4[7] = 185;
        assert_eq!(packet(0, &v4), None);

        let mut v6 = vec![0x60, 0, 0, 0, 0, 8, FRAGMENT, 63];
        v6.extend("fd00::1".parse::<Ipv6Addr>().expect("an address").octets());
        v6.extend("fd00::2".parse::<Ipv6Addr>().expect("an address").octets());
        v6.extend([17, 0, 0, 1, 0, 0, 0, 1, 0x9c, 0x40, 0, 53]);
        let first = packet(0, &v6).expect("it is a packet");
        assert_eq!((first.kind, first.is_part), (PacketKind::Datagram, true));
        assert_eq!(first.destination.port(), 53);
        v6[42] = 5;
        assert_eq!(packet(0, &v6), None);
    }

    #[test]
    fn messages_of_icmp_are_told_apart() {
        let v4 = |kind: u8| {
            let mut v4 = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, ICMP, 0, 0];
            v4.extend([198, 51, 100, 7, 10, 3, 0, 4, kind, 0, 0, 0]);
            packet(0, &v4).expect("it is a packet").kind
        };
        assert_eq!(v4(8), PacketKind::EchoRequest);
        assert_eq!(v4(0), PacketKind::Other);
        assert_eq!(v4(3), PacketKind::Unreachable);
        let asked: Ipv6Addr = "fd00::2".parse().expect("an address");
        let v6 = |kind: u8| {
            let mut v6 = vec![0x60, 0, 0, 0, 0, 24, ICMPV6, 255];
            v6.extend("fd00::1".parse::<Ipv6Addr>().expect("an address").octets());
            v6.extend("ff02::1:ff00:2".parse::<Ipv6Addr>().expect("it").octets());
            v6.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
            v6.extend(asked.octets());
            packet(0, &v6).expect("it is a packet").kind
        };
        assert_eq!(v6(128), PacketKind::EchoRequest);
        assert_eq!(v6(1), PacketKind::Unreachable);
        assert_eq!(v6(135), PacketKind::Solicitation(asked));
    }
}
