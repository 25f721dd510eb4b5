//! Forwards measured on real packets: a request and the whole of a long answer, both ways.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use crate::lab::Lab;
use crate::namespace::Host;
use crate::traffic;

/// The answer of a TCP target, and the larger of the two requests that it gets.
const LONG: usize = 20_000;
const SHORT: usize = 64;
/// The answer of a UDP target, which no interface cuts.
const DATAGRAM: usize = 512;

/// A forward as its client asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service<'s> {
    pub name: &'s str,
    pub is_tcp: bool,
    pub address: &'s str,
    pub port: u16,
}

/// Serves long answers to TCP until the test process ends.
pub fn serve_tcp(host: &Host, port: u16) {
    host.enter(move || {
        let listener = TcpListener::bind(("::", port)).expect("the port is free");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away in between is the client's affair.
                thread::spawn(move || reply(stream));
            }
        });
    });
}

/// A request is its length and so many bytes.
fn reply(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).expect("it is short");
    stream.read_exact(&mut vec![0; length])?;
    stream.write_all(&vec![b'.'; LONG])
}

/// Answers datagrams until the test process ends.
pub fn serve_udp(host: &Host, port: u16) {
    host.enter(move || {
        let socket = UdpSocket::bind(("::", port)).expect("the port is free");
        thread::spawn(move || {
            while let Ok((_, peer)) = socket.recv_from(&mut [0; DATAGRAM]) {
                let _ = socket.send_to(&[b'.'; DATAGRAM], peer);
            }
        });
    });
}

/// Lets every host on the way forget which neighbours answered, and how long packets may be.
pub fn forget(lab: &Lab) {
    for host in [&lab.client, &lab.firewall, &lab.vnet, &lab.pod, &lab.other] {
        host.shell(
            "ip neigh flush all; ip -6 neigh flush all; ip route flush cache; ip -6 route flush cache",
        );
    }
}

/// Returns the names of the services that are dead for the lab's client. All are asked at once; silence
/// counts after `patience`.
pub fn dead<'s>(lab: &Lab, services: &[Service<'s>], patience: Duration) -> Vec<&'s str> {
    dead_for(&lab.client, services, patience)
}

/// Returns the names of the services that are dead for a host.
pub fn dead_for<'s>(host: &Host, services: &[Service<'s>], patience: Duration) -> Vec<&'s str> {
    let asked: Vec<(bool, String)> = services
        .iter()
        .map(|one| (one.is_tcp, traffic::socket(one.address, one.port)))
        .collect();
    let alive = host.enter(move || {
        let ask = |(is_tcp, to): (bool, String)| {
            thread::spawn(move || {
                if is_tcp {
                    let ask = |request| ask_tcp(&to, request, patience).is_ok();
                    ask(SHORT) && ask(LONG)
                } else {
                    ask_udp(&to, patience).is_ok()
                }
            })
        };
        let threads: Vec<_> = asked.into_iter().map(ask).collect();
        let joined = threads.into_iter().map(thread::JoinHandle::join);
        joined.collect::<Result<Vec<bool>, _>>()
    });
    let alive = alive.expect("a client does not panic");
    let each = services.iter().zip(alive);
    each.filter(|(_, alive)| !alive)
        .map(|(one, _)| one.name)
        .collect()
}

fn ask_tcp(to: &str, request: usize, patience: Duration) -> io::Result<()> {
    let to = to.parse().expect("an address and a port");
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let length = u32::try_from(request).expect("it is short");
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&vec![b'.'; request])?;
    stream.read_exact(&mut vec![0; LONG])
}

fn ask_udp(to: &str, patience: Duration) -> io::Result<()> {
    let any = if to.starts_with('[') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(patience))?;
    socket.connect(to)?;
    socket.send(&[b'.'; SHORT])?;
    let length = socket.recv(&mut [0; DATAGRAM])?;
    if length == DATAGRAM {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
