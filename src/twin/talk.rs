//! One connection through a twin, driven from both ends by one thread.
//!
//! On veth pairs the kernel carries a packet all its way within the call that sends it. An answer that is missing
//! after the call comes only if the kernel has put work off, and [`Talker::flush`] waits for that work. So no verdict
//! rests on a timeout.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use socket2::{Domain, Protocol as Transport, Socket, Type};

use super::connection_end::{ConnectionEnd, Reached};
use super::netns::Netns;
use super::world::World;
use crate::net::Protocol;

/// A connection to be opened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    pub protocol: Protocol,
    pub client: IpAddr,
    /// The place of the client.
    pub from: From,
    /// The address and port that the client connects to.
    pub to: SocketAddr,
    /// The addresses at which a listener waits in every world.
    pub listeners: Vec<SocketAddr>,
    /// How many bytes the client sends, and how many the target answers.
    pub request: usize,
    pub answer: usize,
}

/// A place in a twin from which a connection is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum From {
    /// A world, by its number.
    World(usize),
    /// The twin's machine namespace.
    Machine,
}

/// The most hops of a packet and its answer. The kernel may put work off once at each.
const HOPS: usize = 12;
/// The longest time for which the kernel may put work off.
const PATIENCE: Duration = Duration::from_secs(2);

/// Opens connections between the worlds of a twin.
#[derive(Debug)]
pub struct Talker<'w> {
    machine: &'w Netns,
    worlds: &'w [World],
    /// A socket that sends datagrams to itself within one world.
    loopback: UdpSocket,
    /// The TCP listeners that are open, and their ports.
    listening: Listening,
    /// The processors on which the thread may run otherwise.
    allowed: Option<CpuSet>,
}

#[derive(Debug, Default)]
struct Listening {
    ports: BTreeSet<u16>,
    is_v6: bool,
    /// The world's number and the socket.
    sockets: Vec<(usize, Socket)>,
}

impl<'w> Talker<'w> {
    /// Returns a talker. The calling thread may be in any of the twin's namespaces, and is in one of them afterwards.
    ///
    /// # Errors
    /// If a socket cannot be opened.
    pub fn new(machine: &'w Netns, worlds: &'w [World]) -> io::Result<Self> {
        let first = worlds.first().ok_or(io::ErrorKind::NotFound)?;
        first.netns.enter()?;
        let loopback = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        loopback.connect(loopback.local_addr()?)?;
        loopback.set_read_timeout(Some(PATIENCE))?;
        // The kernel keeps one queue of packets for each processor, and empties it in order.
        let allowed = sched_getaffinity(None).ok();
        let mut one = CpuSet::new();
        one.set(sched_getcpu());
        sched_setaffinity(None, &one)?;
        Ok(Self {
            machine,
            worlds,
            loopback,
            listening: Listening::default(),
            allowed,
        })
    }

    /// Opens one connection.
    ///
    /// # Errors
    /// If a socket cannot be opened, which says nothing about the connection.
    pub fn ask(&mut self, question: &Question) -> io::Result<ConnectionEnd> {
        match question.protocol {
            Protocol::Tcp => self.ask_tcp(question),
            Protocol::Udp => self.ask_udp(question),
        }
    }

    /// Moves the calling thread to a place.
    pub(super) fn go(&self, to: From) -> io::Result<()> {
        match to {
            From::World(number) => self.worlds[number].netns.enter(),
            From::Machine => self.machine.enter(),
        }
    }

    /// Waits until the kernel has done all work that it put off.
    fn flush(&self) -> io::Result<()> {
        for _ in 0..HOPS {
            self.loopback.send(b"?")?;
            self.loopback.recv(&mut [0; 1])?;
        }
        Ok(())
    }

    /// Looks for something at once, and again after the kernel has done the work that it put off.
    pub(super) fn look<T>(
        &self,
        mut find: impl FnMut() -> io::Result<Option<T>>,
    ) -> io::Result<Option<T>> {
        if let Some(found) = find()? {
            return Ok(Some(found));
        }
        self.flush()?;
        find()
    }

    fn ask_tcp(&mut self, question: &Question) -> io::Result<ConnectionEnd> {
        self.listen(question)?;
        self.go(question.from)?;
        let mut client = socket(question.to, Type::STREAM, Transport::TCP)?;
        client.set_linger(Some(Duration::ZERO))?;
        client.bind(&SocketAddr::new(question.client, 0).into())?;
        if let Err(error) = client.connect(&question.to.into())
            && !is_under_way(&error)
        {
            return Ok(ConnectionEnd::Refused(error.kind()));
        }
        let listening = &self.listening;
        let came = self.look(|| {
            for (world, listener) in &listening.sockets {
                match listener.accept() {
                    Ok((socket, source)) => return Ok(Some(Ok((*world, socket, source)))),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(client.take_error()?.map(Err))
        })?;
        let (world, mut target, source) = match came {
            None => return Ok(ConnectionEnd::Silent),
            Some(Err(error)) => return Ok(ConnectionEnd::Refused(error.kind())),
            Some(Ok(taken)) => taken,
        };
        let address = |address: socket2::SockAddr| address.as_socket();
        let source = address(source).ok_or(io::ErrorKind::InvalidData)?;
        let own = address(target.local_addr()?).ok_or(io::ErrorKind::InvalidData)?;
        target.set_nonblocking(true)?;
        target.set_linger(Some(Duration::ZERO))?;
        let reached = Reached {
            world,
            source,
            target: own,
        };
        let there = self.carry(&mut client, &mut target, question.request)?;
        let back = there && self.carry(&mut target, &mut client, question.answer)?;
        Ok(if back {
            ConnectionEnd::Delivered(reached)
        } else {
            ConnectionEnd::Stuck(reached)
        })
    }

    /// Sends some bytes, and returns whether all of them arrived.
    pub(super) fn carry(
        &self,
        from: &mut Socket,
        to: &mut Socket,
        bytes: usize,
    ) -> io::Result<bool> {
        let data = payload(bytes);
        let (mut sent, mut got) = (0, 0);
        let mut buffer = vec![0; 1 << 16];
        while got < bytes {
            let moved = self.look(|| {
                let mut moved = 0;
                match from.write(&data[sent..]) {
                    Ok(count) => {
                        sent += count;
                        moved += count;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return Ok(Some(0)),
                }
                match to.read(&mut buffer) {
                    Ok(0) => return Ok(Some(0)),
                    Ok(count) => {
                        got += count;
                        moved += count;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return Ok(Some(0)),
                }
                Ok((moved > 0).then_some(moved))
            })?;
            if matches!(moved, None | Some(0)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Opens the listeners of a question in every world, unless they are open already.
    fn listen(&mut self, question: &Question) -> io::Result<()> {
        let ports: BTreeSet<u16> = question.listeners.iter().map(SocketAddr::port).collect();
        let is_v6 = question.to.is_ipv6();
        if self.listening.ports == ports && self.listening.is_v6 == is_v6 {
            return Ok(());
        }
        self.listening = Listening::default();
        let any: IpAddr = if is_v6 {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        for (number, world) in self.worlds.iter().enumerate() {
            world.netns.enter()?;
            for port in &ports {
                let at = SocketAddr::new(any, *port);
                let listener = socket(at, Type::STREAM, Transport::TCP)?;
                listener.set_reuse_address(true)?;
                listener.bind(&at.into())?;
                listener.listen(16)?;
                self.listening.sockets.push((number, listener));
            }
        }
        self.listening.ports = ports;
        self.listening.is_v6 = is_v6;
        Ok(())
    }

    fn ask_udp(&mut self, question: &Question) -> io::Result<ConnectionEnd> {
        let mut targets = Vec::new();
        for (number, world) in self.worlds.iter().enumerate() {
            world.netns.enter()?;
            for at in &question.listeners {
                let target = socket(*at, Type::DGRAM, Transport::UDP)?;
                target.set_reuse_address(true)?;
                target.bind(&(*at).into())?;
                targets.push((number, *at, UdpSocket::from(target)));
            }
        }
        self.go(question.from)?;
        let client = socket(question.to, Type::DGRAM, Transport::UDP)?;
        client.bind(&SocketAddr::new(question.client, 0).into())?;
        // A route of the type blackhole or unreachable lets no datagram be sent at all.
        if let Err(error) = client.connect(&question.to.into()) {
            return Ok(ConnectionEnd::Refused(error.kind()));
        }
        let client = UdpSocket::from(client);
        if let Err(error) = client.send(&payload(question.request)) {
            return Ok(ConnectionEnd::Refused(error.kind()));
        }
        let mut buffer = vec![0; 1 << 16];
        let came = self.look(|| {
            for (world, at, target) in &targets {
                match target.recv_from(&mut buffer) {
                    Ok((_, source)) => return Ok(Some(Ok((*world, *at, target, source)))),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(client.take_error()?.map(Err))
        })?;
        let (world, at, target, source) = match came {
            None => return Ok(ConnectionEnd::Silent),
            Some(Err(error)) => return Ok(ConnectionEnd::Refused(error.kind())),
            Some(Ok(taken)) => taken,
        };
        let reached = Reached {
            world,
            source,
            target: at,
        };
        if target.send_to(&payload(question.answer), source).is_err() {
            return Ok(ConnectionEnd::Stuck(reached));
        }
        let back = self.look(|| match client.recv(&mut buffer) {
            Ok(count) => Ok(Some(count == question.answer)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(_) => Ok(Some(false)),
        })?;
        Ok(if back == Some(true) {
            ConnectionEnd::Delivered(reached)
        } else {
            ConnectionEnd::Stuck(reached)
        })
    }
}

impl Drop for Talker<'_> {
    fn drop(&mut self) {
        if let Some(allowed) = &self.allowed {
            // If this fails, programs that the thread starts later are only slower.
            let _ = sched_setaffinity(None, allowed);
        }
    }
}

/// Returns bytes that no rule searches for: they do not repeat themselves and are no text.
pub(super) fn payload(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        // The highest bits are the least regular.
        (state >> 56).to_le_bytes()[0]
    };
    (0..bytes).map(next).collect()
}

/// Opens a socket that may bind any address, in the calling thread's namespace.
pub(super) fn socket(at: SocketAddr, kind: Type, transport: Transport) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), kind, Some(transport))?;
    socket.set_nonblocking(true)?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_ip_transparent_v6(true)?;
    } else {
        socket.set_ip_transparent_v4(true)?;
    }
    Ok(socket)
}

/// Returns whether a connection is being opened.
pub(super) fn is_under_way(error: &io::Error) -> bool {
    // The kernel answers EINPROGRESS while a connection is being opened.
    error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
}
