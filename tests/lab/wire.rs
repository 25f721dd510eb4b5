//! Single packets, as they are put on the wire and as they come off it: nobody answers them, and
//! nothing is sent again unless a test does.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::namespace::Host;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Syn,
    /// Of TCP, of a connection that nobody knows.
    Ack,
    Datagram,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sent {
    pub kind: Kind,
    pub from: SocketAddrV4,
    pub to: SocketAddrV4,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// Sends packets from a host, in their order.
pub fn send(host: &Host, packets: Vec<Sent>) {
    host.enter(move || {
        let raw = raw();
        for packet in packets {
            put(&raw, &packet.bytes(), packet.to);
        }
    });
}

/// A socket that takes whole packets: the kernel sets their length and checksum alone (raw(7)).
pub fn raw() -> Socket {
    // IPPROTO_RAW.
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)));
    raw.expect("root may send what it likes")
}

fn put(raw: &Socket, bytes: &[u8], to: SocketAddrV4) {
    let to = SockAddr::from(SocketAddrV4::new(*to.ip(), 0));
    let sent = raw.send_to(bytes, &to).expect("there is a way");
    assert_eq!(sent, bytes.len());
}

/// A socket that sees the IP packets that come in, without what is in front of them (packet(7)).
fn listening() -> Socket {
    let ip = Protocol::from(i32::from(0x0800_u16.to_be()));
    Socket::new(Domain::PACKET, Type::DGRAM, Some(ip)).expect("root may")
}

/// A socket that sees the packets that come to a host, for some seconds.
pub fn listen(host: &Host) -> Socket {
    let wire = host.enter(listening);
    let patience = Some(Duration::from_secs(10));
    wire.set_read_timeout(patience).expect("it is no zero");
    wire
}

impl Sent {
    fn bytes(self) -> Vec<u8> {
        let flags = match self.kind {
            Kind::Datagram => return packet(self.from, self.to, UDP, vec![0, 8, 0, 0]),
            Kind::Syn => SYN,
            Kind::Ack => ACK,
        };
        let Sent { from, to, .. } = self;
        let (seq, ack) = (0, 0);
        let segment = Segment {
            from,
            to,
            seq,
            ack,
            flags,
        };
        segment.bytes(&[])
    }
}

/// A packet of a TCP connection, whatever that connection is at.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    pub from: SocketAddrV4,
    pub to: SocketAddrV4,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
}

impl Segment {
    /// The packet with this payload, of an even number of bytes.
    fn bytes(self, payload: &[u8]) -> Vec<u8> {
        let mut rest = [self.seq, self.ack].map(u32::to_be_bytes).concat();
        rest.extend([5 << 4, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        rest.extend(payload);
        packet(self.from, self.to, TCP, rest)
    }

    /// Sends it by a socket of [`raw`].
    pub fn send_by(self, raw: &Socket, payload: &[u8]) {
        put(raw, &self.bytes(payload), self.to);
    }

    /// The next packet of TCP that comes to a socket of [`listen`].
    pub fn next(mut wire: &Socket) -> Self {
        let mut buffer = [0; 2048];
        loop {
            let length = wire.read(&mut buffer).expect("a packet comes in time");
            let bytes = &buffer[..length];
            let Some(sent) = read(bytes).filter(|sent| sent.kind != Kind::Datagram) else {
                continue;
            };
            let tcp = &bytes[usize::from(bytes[0] & 15) * 4..];
            let number =
                |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().expect("there are four"));
            return Self {
                from: sent.from,
                to: sent.to,
                seq: number(4),
                ack: number(8),
                flags: tcp[13],
            };
        }
    }
}

/// A packet of IPv4, from what stands behind its ports.
fn packet(from: SocketAddrV4, to: SocketAddrV4, protocol: u8, mut transport: Vec<u8>) -> Vec<u8> {
    let ports = [from.port(), to.port()].map(u16::to_be_bytes);
    transport.splice(0..0, ports.concat());
    let length = u8::try_from(transport.len()).expect("it is short");
    let ends = [from.ip().octets(), to.ip().octets()].concat();
    let pseudo = [ends.as_slice(), &[0, protocol, 0, length]].concat();
    // Without a right one connection tracking calls it INVALID.
    let sum = checksum(&[pseudo, transport.clone()].concat()).to_be_bytes();
    let place = if protocol == UDP { 6 } else { 16 };
    transport[place..place + 2].copy_from_slice(&sum);
    let header = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
    [header.as_slice(), &ends, &transport].concat()
}

/// RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("it has been folded")
}

/// What comes to a host, before its own rules see it.
pub struct Arrivals<'a> {
    host: &'a Host,
    seen: Arc<Mutex<Vec<Sent>>>,
}

/// Holds all packets of a test while a busy machine does not let the reader read. The kernel counts
/// some hundred bytes for each.
const RECEIVE_BUFFER: usize = 64 << 20;

impl<'a> Arrivals<'a> {
    /// Listens until the test ends. The host itself answers nothing from now on.
    pub fn at(host: &'a Host) -> Self {
        Self::with_buffer(host, RECEIVE_BUFFER)
    }

    fn with_buffer(host: &'a Host, bytes: usize) -> Self {
        host.run("/usr/sbin/xtables-legacy-multi iptables -t raw -A PREROUTING -j DROP");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mine = Arc::clone(&seen);
        host.enter(move || {
            let mut wire = listening();
            // Past net.core.rmem_max, which is too little for a test (socket(7)).
            set_socket_recv_buffer_size_force(&wire, bytes).expect("root may");
            thread::spawn(move || {
                let mut buffer = [0; 2048];
                while let Ok(length) = wire.read(&mut buffer) {
                    let packet = read(&buffer[..length]);
                    seen_by(&mine).extend(packet);
                }
            });
        });
        Self { host, seen }
    }

    /// What has come since the last look, in no order. A packet that came and found no room would
    /// look like one that a rule has dropped, so there must be none.
    pub fn take(&self) -> Vec<Sent> {
        assert_eq!(self.lost(), 0, "packets came that were not read");
        let mut all = std::mem::take(&mut *seen_by(&self.seen));
        all.sort_unstable();
        all
    }

    pub fn have(&self, matches: impl Fn(&Sent) -> bool) -> bool {
        seen_by(&self.seen).iter().any(matches)
    }

    /// Returns how many packets found no room in the buffer: `d` of `skmem` (ss(8)), which grows
    /// with `tp_drops` of `PACKET_STATISTICS` (packet(7)).
    fn lost(&self) -> u64 {
        let sockets = self.host.run("ss --packet --all --memory --numeric");
        let (_, drops) = sockets.rsplit_once(",d").expect("it shows the memory");
        let (drops, _) = drops.split_once(')').expect("it closes the bracket");
        drops.parse().expect("it is a number")
    }
}

#[test]
fn packets_that_found_no_room_are_counted() {
    if !crate::namespace::possible() {
        return;
    }
    let host = Host::new();
    let own = "127.0.0.1:9".parse().expect("it is an address");
    let packet = Sent {
        kind: Kind::Datagram,
        from: own,
        to: own,
    };
    let small = Arrivals::with_buffer(&host, 1);
    // The reader cannot take the lock, and so leaves the packets where they are.
    let reader = seen_by(&small.seen);
    send(&host, vec![packet; 500]);
    assert!(small.lost() > 0);
    drop(reader);
}

fn seen_by(seen: &Mutex<Vec<Sent>>) -> std::sync::MutexGuard<'_, Vec<Sent>> {
    seen.lock().expect("nobody has panicked with it")
}

/// An IPv4 packet of TCP or UDP.
fn read(bytes: &[u8]) -> Option<Sent> {
    let header = usize::from(bytes.first()? & 15) * 4;
    let address = |at: usize| {
        Some(Ipv4Addr::from(
            <[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?,
        ))
    };
    let port = |at: usize| {
        let at = header + at;
        Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
    };
    let kind = match *bytes.get(9)? {
        UDP => Kind::Datagram,
        TCP if bytes.get(header + 13)? & SYN != 0 => Kind::Syn,
        TCP => Kind::Ack,
        _ => return None,
    };
    Some(Sent {
        kind,
        from: SocketAddrV4::new(address(12)?, port(0)?),
        to: SocketAddrV4::new(address(16)?, port(2)?),
    })
}
