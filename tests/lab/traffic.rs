//! Servers that answer with their name and the peer they see, and clients that ask them.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::Host;

/// How long a client waits before it takes the silence for an answer. The lab's own ways take
/// microseconds; a first SYN that was lost would be sent again after one second.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// `NAME PEER`: who answered, and whom it saw.
    Answer(String),
    Refused,
    Silence,
}

pub fn answer(name: &str, peer: &str) -> Outcome {
    Outcome::Answer(format!("{name} {peer}"))
}

/// Serves HTTP until the test process ends.
pub fn serve_tcp(host: &Host, name: impl Into<String>, port: u16) {
    let name = name.into();
    host.enter(move || {
        let listener = TcpListener::bind(("::", port)).expect("the port is free");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away in between is the client's affair.
                let _ = reply(stream, &name);
            }
        });
    });
}

fn reply(mut stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let peer = stream.peer_addr()?.ip().to_canonical();
    let mut request = BufReader::new(stream.try_clone()?).lines();
    while request
        .next()
        .transpose()?
        .is_some_and(|line| !line.is_empty())
    {}
    let body = format!("{name} {peer}");
    write!(
        stream,
        "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Answers datagrams until the test process ends.
pub fn serve_udp(host: &Host, name: impl Into<String>, port: u16) {
    serve_udp_at(host, name, "::", port);
}

/// Answers datagrams at one address of a host, and from that address.
pub fn serve_udp_at(host: &Host, name: impl Into<String>, address: &str, port: u16) {
    let (name, at) = (name.into(), socket(address, port));
    host.enter(move || {
        let socket = UdpSocket::bind(at).expect("the port is free");
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(
                    format!("{name} {}", peer.ip().to_canonical()).as_bytes(),
                    peer,
                );
            }
        });
    });
}

/// An address and a port, as the clients here take them.
pub fn socket(address: &str, port: u16) -> String {
    let address: IpAddr = address.parse().expect("it is an address");
    SocketAddr::new(address, port).to_string()
}

/// Asks by TCP; to be run on a thread of the host that asks.
pub fn ask_tcp(to: &str) -> Outcome {
    outcome(body_by_tcp(to))
}

/// Returns the words of an answer by TCP; to be run on a thread of the host that asks.
pub fn body_by_tcp(to: &str) -> io::Result<String> {
    let to: SocketAddr = to.parse().expect("an address and a port");
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (_, body) = text.split_once("\r\n\r\n").unwrap_or(("", &text));
    Ok(body.to_owned())
}

/// Asks by UDP; to be run on a thread of the host that asks.
pub fn ask_udp(to: &str) -> Outcome {
    let any = if to.starts_with('[') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let body = UdpSocket::bind(any).and_then(|socket| {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(to)?;
        socket.send(b"?")?;
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    });
    outcome(body)
}

fn outcome(body: io::Result<String>) -> Outcome {
    match body {
        Ok(body) => Outcome::Answer(body),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => Outcome::Refused,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Outcome::Silence,
            _ => panic!("a client failed in a way no test expects: {error}"),
        },
    }
}

/// The identifiers of echo requests: each one is a connection of its own.
static PING_IDS: AtomicU16 = AtomicU16::new(1);

/// Sends an echo request; an answer has no words. To be run on a thread of the host that asks, as root.
pub fn ask_ping(to: &str) -> Outcome {
    let to: IpAddr = to.parse().expect("it is an address");
    let (domain, protocol, request, reply, header) = match to {
        // IPv4 hands out its header as well.
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0, 20),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129, 0),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol)).expect("the test runs as root");
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("it can wait");
    let id = PING_IDS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let mut packet = [request, 0, 0, 0, id[0], id[1], 0, 1];
    // The kernel fills in the checksum of ICMPv6.
    let sum: u32 = packet
        .chunks(2)
        .map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])))
        .sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("it fits");
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    socket
        .send_to(&packet, &SocketAddr::new(to, 0).into())
        .expect("it is sent");
    let mut socket = socket;
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; 128];
    while Instant::now() < deadline {
        let Ok(length) = socket.read(&mut buffer) else {
            break;
        };
        if length > header && buffer[header] == reply {
            return Outcome::Answer(String::new());
        }
    }
    Outcome::Silence
}
