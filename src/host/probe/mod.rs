//! Connects to many endpoints at once.

mod values;

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol as Transport, Socket, Type};
use thiserror::Error;

pub use values::{Expect, ExpectError, ProbeOutcome, Try};

use crate::host::child::{self, ChildError};
use crate::host::progress::Progress;
use crate::host::signals::Held;
use crate::net::Protocol;

/// How endpoints are tried.
#[derive(Debug, Clone, Copy)]
pub struct Probing {
    /// How many at once, at least one.
    pub jobs: usize,
    /// How long each try may take.
    pub timeout: Duration,
    /// How often each is tried.
    pub count: u32,
    pub expect: Expect,
    /// A port is not tried if its try may not end by then, apart from the first ones.
    pub until: Option<Instant>,
}

/// The reason why a name has no address.
#[derive(Debug, Error)]
pub enum ResolveError {
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error("no address is known for it")]
    Unknown,
}

/// The time limit for a name. A resolver that tries two servers twice gives up after this time
/// (resolv.conf(5)).
const RESOLVE_LIMIT: Duration = Duration::from_secs(30);

/// Returns an address of a name, IPv4 before IPv6.
///
/// `getent` asks all sources that this machine is configured for. In a static binary, getaddrinfo(3) would load
/// libraries of the glibc version that the binary was built with, and the machine may have another.
///
/// # Errors
/// If the name cannot be resolved.
pub fn resolve(name: &str) -> Result<IpAddr, ResolveError> {
    if let Ok(address) = name.parse() {
        return Ok(address);
    }
    let output = child::run("getent", &["ahosts", "--", name], b"", RESOLVE_LIMIT)?;
    let lines = String::from_utf8_lossy(&output.stdout);
    let address = |line: &str| line.split_ascii_whitespace().next()?.parse().ok();
    let found: Vec<IpAddr> = lines.lines().filter_map(address).collect();
    let best = found.iter().find(|address| address.is_ipv4());
    best.or(found.first()).copied().ok_or(ResolveError::Unknown)
}

/// Tries all ports, and returns the outcomes of each in the order of the ports. After a Ctrl-C it tries no
/// further ports, and returns the outcomes so far.
#[must_use]
pub fn probe(ports: &[Try], how: Probing) -> Vec<Option<Vec<ProbeOutcome>>> {
    let progress = Progress::new();
    let held = Held::hold().ok();
    let interrupted = || held.as_ref().is_some_and(Held::came);
    let next = AtomicUsize::new(0);
    let (send, results) = mpsc::channel();
    let mut tried: Vec<Option<Vec<ProbeOutcome>>> = Vec::new();
    tried.resize_with(ports.len(), || None);
    let work = |send: Sender<_>| {
        // The first port of a worker may end late, so that a short time limit does not prevent all of them.
        let mut longest = Duration::ZERO;
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(port) = ports.get(n).filter(|_| !interrupted()) else {
                return;
            };
            let is_late = || {
                how.until
                    .is_some_and(|until| Instant::now() + longest >= until)
            };
            let once = |_| match port.protocol {
                _ if is_late() => {
                    ProbeOutcome::Failed("the time limit was reached first".to_owned())
                }
                Protocol::Tcp => by_tcp(port.to, port.from, how),
                Protocol::Udp => by_udp(port.to, port.from, how.timeout),
            };
            let outcomes: Vec<ProbeOutcome> = (0..how.count.max(1)).map(once).collect();
            longest = how.timeout;
            // The send can fail only while the whole run ends.
            let _ = send.send((n, outcomes));
        }
    };
    let work = &work;
    thread::scope(|scope| {
        let jobs = how.jobs.clamp(1, ports.len().max(1));
        let started = (0..jobs).take_while(|_| {
            let send = send.clone();
            let worker = thread::Builder::new().stack_size(128 << 10);
            worker.spawn_scoped(scope, move || work(send)).is_ok()
        });
        // With fewer workers, all ports are still tried, only more slowly. Without any, this thread tries them.
        if started.count() == 0 {
            work(send);
        } else {
            drop(send);
        }
        let total = ports.len();
        for (done, (n, outcomes)) in results.into_iter().enumerate() {
            tried[n] = Some(outcomes);
            progress.step(&bar(done + 1, total));
        }
    });
    tried
}

/// Draws a progress bar of 20 characters with the numbers.
fn bar(done: usize, total: usize) -> String {
    let full = done * 20 / total.max(1);
    format!("[{:<20}] {done} of {total}", "#".repeat(full))
}

fn by_tcp(to: SocketAddr, from: Option<IpAddr>, how: Probing) -> ProbeOutcome {
    let begin = Instant::now();
    let socket = match socket(to, from, Type::STREAM, Transport::TCP) {
        Ok(socket) => socket,
        Err(error) => return ProbeOutcome::Failed(error.to_string()),
    };
    if let Err(error) = socket.connect_timeout(&to.into(), how.timeout) {
        return failure(&error);
    }
    let connected = begin.elapsed();
    match how.expect {
        Expect::Tcp => ProbeOutcome::Open(connected),
        Expect::Kept => match ended(&socket) {
            Ok(Some(how)) => {
                ProbeOutcome::Unexpected(format!("accepts connections and {how} them at once"))
            }
            Ok(None) => ProbeOutcome::Open(connected),
            Err(error) => ProbeOutcome::Failed(error.to_string()),
        },
        Expect::Http(status) => match ask(socket, to, begin + how.timeout) {
            Ok(got) if status.map_or(got < 400, |status| status == got) => {
                ProbeOutcome::Open(begin.elapsed())
            }
            Ok(got) => ProbeOutcome::Unexpected(format!("HTTP status {got}")),
            Err(error) => match failure(&error) {
                ProbeOutcome::TimedOut => ProbeOutcome::TimedOut,
                _ => ProbeOutcome::Unexpected(format!("connected, but no HTTP answer: {error}")),
            },
        },
    }
}

/// A proxy without a server ends a connection within a few round trips.
const AT_ONCE: Duration = Duration::from_millis(30);

/// Returns how the other side ends a connection before it sends anything, if it does.
fn ended(socket: &Socket) -> io::Result<Option<&'static str>> {
    socket.set_read_timeout(Some(AT_ONCE))?;
    let mut socket = socket;
    Ok(match socket.read(&mut [0; 1]) {
        Ok(0) => Some("closes"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Some("resets"),
        _ => None,
    })
}

/// Sends `GET /`, and returns the status of the answer, if it comes in time.
fn ask(socket: Socket, to: SocketAddr, deadline: Instant) -> io::Result<u16> {
    let mut stream = std::net::TcpStream::from(socket);
    let request = format!("GET / HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut line = Vec::new();
    // A status line is short. A server that sends a longer line is not a web server.
    while !line.contains(&b'\n') && line.len() < 1024 {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let mut some = [0; 256];
        match stream.read(&mut some)? {
            0 => break,
            count => line.extend_from_slice(&some[..count]),
        }
    }
    let line = String::from_utf8_lossy(&line);
    let mut words = line.split_ascii_whitespace();
    let version = words.next().filter(|word| word.starts_with("HTTP/"));
    let status = version.and_then(|_| words.next()?.parse().ok());
    status.ok_or_else(|| io::Error::other("the answer is not HTTP"))
}

/// Sends a datagram, and waits for an answer or a refusal.
fn by_udp(to: SocketAddr, from: Option<IpAddr>, timeout: Duration) -> ProbeOutcome {
    let begin = Instant::now();
    let tried = socket(to, from, Type::DGRAM, Transport::UDP).and_then(|socket| {
        socket.connect(&to.into())?;
        socket.set_read_timeout(Some(timeout))?;
        Ok(std::net::UdpSocket::from(socket))
    });
    let socket = match tried {
        Ok(socket) => socket,
        Err(error) => return ProbeOutcome::Failed(error.to_string()),
    };
    let answered = socket.send(b"\n").and_then(|_| socket.recv(&mut [0; 1]));
    match answered.map_err(|error| failure(&error)) {
        Ok(_) => ProbeOutcome::Open(begin.elapsed()),
        Err(ProbeOutcome::TimedOut) => ProbeOutcome::Unanswered,
        Err(outcome) => outcome,
    }
}

fn socket(
    to: SocketAddr,
    from: Option<IpAddr>,
    kind: Type,
    transport: Transport,
) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), kind, Some(transport))?;
    if let Some(from) = from {
        socket.bind(&SocketAddr::from((from, 0)).into())?;
    }
    Ok(socket)
}

fn failure(error: &io::Error) -> ProbeOutcome {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ProbeOutcome::Refused,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ProbeOutcome::TimedOut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            ProbeOutcome::Unreachable
        }
        _ => ProbeOutcome::Failed(error.to_string()),
    }
}
