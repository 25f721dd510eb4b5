//! Packets in the worlds of a twin: where the twin's machine sent them, and with which addresses.

use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use super::world::World;

/// All protocols (`ETH_P_ALL` in `linux/if_ether.h`), for packet(7).
const ALL: u16 = 0x0003;
/// The longest header that is read: the fixed part of an IPv6 header with ports, or an IPv4 header with options.
const LONGEST: usize = 128;

/// A packet that a world sent or received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The world's number.
    pub world: usize,
    /// The protocol's number in linux/in.h: 1, 6, 17, 58.
    pub protocol: u8,
    /// The TTL of IPv4, the hop limit of IPv6.
    pub hops: u8,
    /// The ports are 0 if the protocol has none.
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// Sockets that see every packet of the worlds, one for each.
#[derive(Debug)]
pub struct Sniffer(Vec<Socket>);

impl Sniffer {
    /// Opens a socket in each world. The calling thread is in the last world afterwards.
    ///
    /// # Errors
    /// As socket(2).
    pub fn open(worlds: &[World]) -> io::Result<Self> {
        let open = |world: &World| {
            world.netns.enter()?;
            let protocol = Protocol::from(i32::from(ALL.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        worlds.iter().map(open).collect::<io::Result<_>>().map(Self)
    }

    /// Returns the packets since the last call, world by world.
    #[must_use]
    pub fn seen(&self) -> Vec<Sighting> {
        let mut seen = Vec::new();
        for (world, mut socket) in self.0.iter().enumerate() {
            let mut buffer = [0; LONGEST];
            while let Ok(count) = socket.read(&mut buffer) {
                seen.extend(packet(world, &buffer[..count]));
            }
        }
        seen
    }
}

/// Reads the addresses and ports of an IP packet; `None` for other packets and for a later fragment.
fn packet(world: usize, bytes: &[u8]) -> Option<Sighting> {
    let number = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let (protocol, hops, source, destination, end) = match bytes.first()? >> 4 {
        4 => {
            // The offset of a fragment (RFC 791, 3.1).
            if number(6)? & 0x1fff != 0 {
                return None;
            }
            let v4 = |at: usize| {
                let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
                Some(IpAddr::V4(Ipv4Addr::from(octets)))
            };
            let end = usize::from(bytes[0] & 0xf) * 4;
            (*bytes.get(9)?, *bytes.get(8)?, v4(12)?, v4(16)?, end)
        }
        6 => {
            let v6 = |at: usize| {
                let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
                Some(IpAddr::V6(Ipv6Addr::from(octets)))
            };
            (*bytes.get(6)?, *bytes.get(7)?, v6(8)?, v6(24)?, 40)
        }
        _ => return None,
    };
    let has_ports = matches!(protocol, 6 | 17);
    let port = |at: usize| if has_ports { number(at) } else { Some(0) };
    Some(Sighting {
        world,
        protocol,
        hops,
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
        v4.extend([0x9c, 0x40, 0, 80]);
        let sighting = packet(1, &v4).expect("it is a packet");
        assert_eq!((sighting.protocol, sighting.hops), (6, 64));
        assert_eq!(sighting.source.to_string(), "198.51.100.7:40000");
        assert_eq!(sighting.destination.to_string(), "10.3.0.4:80");
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
}
