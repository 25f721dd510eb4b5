//! Servers that answer with their name and the peer they see, and clients that ask them.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

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
    let name = name.into();
    host.enter(move || {
        let socket = UdpSocket::bind(("::", port)).expect("the port is free");
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
    let to: SocketAddr = to.parse().expect("an address and a port");
    let body = TcpStream::connect_timeout(&to, PATIENCE).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    });
    outcome(body.map(|text| {
        let (_, body) = text.split_once("\r\n\r\n").unwrap_or(("", &text));
        body.to_owned()
    }))
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
