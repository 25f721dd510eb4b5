//! A firewall with any interfaces, and behind each of them a host of clients and a host of servers.
//!
//! ```text
//! clients ──┐
//!           router ── an interface of the firewall
//! servers ──┘
//! ```
//!
//! The router sends all packets of both hosts to the firewall, as a user-defined route does. The firewall's packets go
//! to a client that has the address, else to the servers. These answer at every address and port, since rules of their
//! own host lead all packets to one listener. Sockets that see packets before these rules tell where each one went.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nvactl::forwards::OutboundProtocol;
use nvactl::net::Family;
use nvactl::twin::connection::Connection;
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{Backend, bare_host_with};
use crate::namespace::{Host, wait_for};

/// The port to which the servers' own rules lead everything.
const LISTENER: u16 = 9;
/// The source port of the first connection.
const FIRST_PORT: u16 = 20_000;
/// `ETH_P_IP` and `ETH_P_IPV6` of packet(7).
const ETHERTYPES: [u16; 2] = [0x0800, 0x86dd];

const REDIRECT: &str = "*nat
-A PREROUTING -i eth0 -p tcp -j REDIRECT --to-ports 9
-A PREROUTING -i eth0 -p udp -j REDIRECT --to-ports 9
";
const REDIRECT_PING: &str = "-A PREROUTING -i eth0 -p icmp -j REDIRECT\nCOMMIT\n";
const REDIRECT_PING_V6: &str =
    "-A PREROUTING -i eth0 -p icmpv6 --icmpv6-type echo-request -j REDIRECT\nCOMMIT\n";

/// The network behind one interface of the firewall.
struct Side {
    router: Host,
    clients: Host,
    servers: Host,
}

pub struct Sides {
    pub firewall: Host,
    behind: Vec<Side>,
    /// Those of each side. They stay open: a program that another test starts holds every socket until its exec.
    servers: Mutex<Vec<Servers>>,
    /// The source port of the next connection. No rule of the firewall changes it, so it tells connections apart.
    next_port: AtomicU16,
}

/// The first packet of a connection at the servers, and whether the client has the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The number of the interface behind which the servers are.
    pub side: usize,
    pub source: SocketAddr,
    pub target: SocketAddr,
    pub is_answered: bool,
}

/// Returns the firewall's addresses on the link of an interface: `172.20.N.4` and `fd00:20:N::4`.
pub fn link_address(family: Family, side: usize) -> IpAddr {
    let side = u8::try_from(side).expect("there are few");
    match family {
        Family::V4 => Ipv4Addr::new(172, 20, side, 4).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x20, side.into(), 0, 0, 0, 0, 4).into(),
    }
}

/// Returns the router's address on the link of an interface.
pub fn router_address(family: Family, side: usize) -> IpAddr {
    match link_address(family, side) {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() - 3).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() - 3).into(),
    }
}

impl Sides {
    /// Makes the firewall and a side for each interface.
    pub fn new(backend: Backend, interfaces: &[String]) -> Self {
        let firewall = bare_host_with(backend);
        firewall.shell(
            "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
        );
        let sides = interfaces.iter().enumerate();
        let sides = sides.map(|(number, name)| Side::new(number, name, &firewall));
        let behind: Vec<Side> = sides.collect();
        let servers = behind.iter().map(|side| side.servers.enter(Servers::new));
        let sides = Self {
            servers: Mutex::new(servers.collect()),
            behind,
            firewall,
            next_port: AtomicU16::new(FIRST_PORT),
        };
        for (number, side) in sides.behind.iter().enumerate() {
            let reaches = |host: &Host, address: &str| {
                let args = ["-6", "-c", "1", "-W", "1", address];
                wait_for(address, || host.feed("ping", &args, "").status.success());
            };
            reaches(&sides.firewall, &format!("fd00:20:{number:x}::1"));
            reaches(&side.clients, &format!("fd00:21:{number:x}::1"));
            reaches(&side.servers, &format!("fd00:22:{number:x}::1"));
        }
        sides
    }

    /// Gives a side its clients.
    pub fn add_clients(&self, side: usize, addresses: &[IpAddr]) {
        let Side {
            router, clients, ..
        } = &self.behind[side];
        for (family, option) in [(Family::V4, "-4"), (Family::V6, "-6")] {
            let (mut here, mut there) = (String::new(), String::new());
            for address in addresses.iter().filter(|one| Family::of(**one) == family) {
                let _ = writeln!(here, "address add {address} dev eth0");
                let _ = writeln!(there, "route add {address} dev clients table 100");
            }
            if !here.is_empty() {
                clients.ip(option, &here);
                router.ip(option, &there);
            }
        }
    }

    /// Opens connections all at once. The place of each is the number of a side. Silence counts after nothing has
    /// happened for `patience`.
    pub fn open(&self, connections: &[Connection], patience: Duration) -> Vec<Option<Arrival>> {
        let mut servers = self.servers.lock().expect("nobody panicked");
        let count = u16::try_from(connections.len()).expect("there are few");
        let first = self.next_port.fetch_add(count, Ordering::Relaxed);
        let mut clients: Vec<Option<Client>> = connections.iter().map(|_| None).collect();
        for (number, side) in self.behind.iter().enumerate() {
            let here = connections.iter().enumerate();
            let here = here.filter(|(_, one)| place(one) == number);
            let here: Vec<(usize, Connection)> = here.map(|(n, one)| (n, one.clone())).collect();
            let opened = side.clients.enter(move || {
                let each = here.into_iter();
                let port = |n: usize| first + u16::try_from(n).expect("there are few");
                let each = each.map(|(n, one)| (n, Client::new(port(n), &one)));
                each.collect::<Vec<_>>()
            });
            for (n, client) in opened {
                clients[n] = Some(client);
            }
        }
        let mut clients: Vec<Client> = clients
            .into_iter()
            .map(|one| one.expect("each is on a side"))
            .collect();
        let mut arrivals: Vec<Option<Arrival>> = connections.iter().map(|_| None).collect();
        let mut quiet = Instant::now();
        while quiet.elapsed() < patience && !clients.iter().all(|one| one.is_over) {
            let mut has_moved = false;
            for client in &mut clients {
                has_moved |= client.step();
            }
            for (side, servers) in servers.iter_mut().enumerate() {
                has_moved |= servers.step(|port, source, target| {
                    let n = port.checked_sub(first).map(usize::from);
                    if let Some(arrival) = n.and_then(|n| arrivals.get_mut(n)) {
                        arrival.get_or_insert(Arrival {
                            side,
                            source,
                            target,
                            is_answered: false,
                        });
                    }
                });
            }
            if has_moved {
                quiet = Instant::now();
            } else {
                thread::sleep(Duration::from_millis(1));
            }
        }
        for servers in servers.iter_mut() {
            servers.streams.clear();
        }
        for (client, arrival) in clients.iter().zip(&mut arrivals) {
            if let Some(arrival) = arrival {
                arrival.is_answered = client.is_answered;
            }
        }
        arrivals
    }
}

/// Returns the side of a connection's client.
fn place(connection: &Connection) -> usize {
    match connection.from {
        nvactl::twin::talk::From::World(side) => side,
        nvactl::twin::talk::From::Machine => panic!("clients are on sides"),
    }
}

impl Side {
    fn new(number: usize, interface: &str, firewall: &Host) -> Self {
        let host = || Host::without_files("");
        let (router, clients, servers) = (host(), host(), host());
        router.shell(
            "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
             echo 0 > /proc/sys/net/ipv4/conf/all/send_redirects",
        );
        clients.shell("echo 0 0 > /proc/sys/net/ipv4/ping_group_range");
        servers.shell("echo 0 > /proc/sys/net/ipv4/icmp_ratelimit");
        let mut links = String::new();
        for (name, peer, host) in [
            ("firewall", interface, firewall),
            ("clients", "eth0", &clients),
            ("servers", "eth0", &servers),
        ] {
            let pid = host.pid();
            let _ = writeln!(
                links,
                "link add name {name} type veth peer name {peer} netns {pid}\nlink set {name} up"
            );
        }
        router.ip("-4", &links);
        for (option, net, of_link, own) in [
            ("-4", format!("172.2X.{number}."), "24", "32"),
            ("-6", format!("fd00:2X:{number:x}::"), "64", "128"),
        ] {
            let [link, to_clients, to_servers] = ["0", "1", "2"].map(|n| net.replace('X', n));
            router.ip(
                option,
                &format!(
                    "address add {link}1/{of_link} dev firewall
                     address add {to_clients}1/{own} dev clients
                     address add {to_servers}1/{own} dev servers
                     route add default via {link}4 dev firewall
                     route add {to_clients}2 dev clients
                     route add {to_servers}2 dev servers
                     route add default via {to_servers}2 dev servers table 100
                     rule add iif firewall lookup 100 priority 10"
                ),
            );
            let up = |name: &str| format!("link set {name} up\n");
            firewall.ip(
                option,
                &format!(
                    "{}address add {link}4/{of_link} dev {interface}",
                    up(interface)
                ),
            );
            for (host, net) in [(&clients, to_clients), (&servers, to_servers)] {
                host.ip(
                    option,
                    &format!(
                        "{}address add {net}2/{own} dev eth0
                         route add default via {net}1 dev eth0 onlink",
                        up("eth0")
                    ),
                );
            }
        }
        for (program, ping) in [
            ("iptables-restore", REDIRECT_PING),
            ("ip6tables-restore", REDIRECT_PING_V6),
        ] {
            let loaded = servers.feed(program, &[], &format!("{REDIRECT}{ping}"));
            assert!(loaded.status.success(), "{loaded:?}");
        }
        Self {
            router,
            clients,
            servers,
        }
    }
}

/// The sockets of a side's servers.
struct Servers {
    packets: Vec<Socket>,
    listener: TcpListener,
    datagrams: UdpSocket,
    streams: Vec<TcpStream>,
}

impl Servers {
    /// Opens the sockets on the calling thread's host.
    fn new() -> Self {
        let packets = ETHERTYPES.map(|protocol| {
            let protocol = Protocol::from(i32::from(protocol.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol));
            let socket = socket.expect("the lab may see packets");
            socket.set_nonblocking(true).expect("it can be set");
            socket
        });
        let any = (Ipv6Addr::UNSPECIFIED, LISTENER);
        let listener = TcpListener::bind(any).expect("the port is free");
        let datagrams = UdpSocket::bind(any).expect("the port is free");
        listener.set_nonblocking(true).expect("it can be set");
        datagrams.set_nonblocking(true).expect("it can be set");
        Self {
            packets: packets.into(),
            listener,
            datagrams,
            streams: Vec::new(),
        }
    }

    /// Answers everything that has come. Tells `note` the client's port of each connection, the source and the target.
    /// Returns whether anything has come.
    fn step(&mut self, mut note: impl FnMut(u16, SocketAddr, SocketAddr)) -> bool {
        let mut has_moved = false;
        let mut buffer = vec![0; 1 << 16];
        for mut socket in &self.packets {
            while let Ok(count) = socket.read(&mut buffer) {
                if let Some((port, source, target)) = first_packet(&buffer[..count]) {
                    note(port, source, target);
                }
                has_moved = true;
            }
        }
        while let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true).expect("it can be set");
            self.streams.push(stream);
            has_moved = true;
        }
        for stream in &mut self.streams {
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                // A client that is gone is counted as one without an answer.
                let _ = stream.write_all(&buffer[..count]);
                has_moved = true;
            }
        }
        while let Ok((count, peer)) = self.datagrams.recv_from(&mut buffer) {
            if buffer[0] == REQUEST {
                buffer[0] = ANSWER;
                let _ = self.datagrams.send_to(&buffer[..count], peer);
            }
            has_moved = true;
        }
        has_moved
    }
}

/// The first bytes of datagrams, so that an answer that strayed to servers is not taken for a request.
const REQUEST: u8 = b'q';
const ANSWER: u8 = b'a';

/// Returns the client's port of a connection whose first packet this is, the source and the target. A ping has an
/// identifier in place of the port.
fn first_packet(packet: &[u8]) -> Option<(u16, SocketAddr, SocketAddr)> {
    let (protocol, source, target, rest) = match packet.first()? >> 4 {
        4 => {
            let v4 = |at: usize| {
                let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
                Some(IpAddr::from(octets))
            };
            let rest = packet.get(usize::from(packet[0] & 0xf) * 4..)?;
            (*packet.get(9)?, v4(12)?, v4(16)?, rest)
        }
        _ => {
            let v6 = |at: usize| {
                let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
                Some(IpAddr::from(octets))
            };
            (*packet.get(6)?, v6(8)?, v6(24)?, packet.get(40..)?)
        }
    };
    let word = |at: usize| Some(u16::from_be_bytes(rest.get(at..at + 2)?.try_into().ok()?));
    let (number, ports) = match protocol {
        // A SYN without ACK (RFC 9293, 3.1).
        6 if rest.get(13)? & 0x12 == 0x02 => (word(0)?, (word(0)?, word(2)?)),
        17 if *rest.get(8)? == REQUEST => (word(0)?, (word(0)?, word(2)?)),
        // An echo request and its identifier (RFC 792, RFC 4443).
        1 if *rest.first()? == 8 => (word(4)?, (0, 0)),
        58 if *rest.first()? == 128 => (word(4)?, (0, 0)),
        _ => return None,
    };
    let (from, to) = ports;
    Some((
        number,
        SocketAddr::new(source, from),
        SocketAddr::new(target, to),
    ))
}

/// The client of a connection.
struct Client {
    socket: Socket,
    request: Vec<u8>,
    is_sent: bool,
    received: usize,
    is_answered: bool,
    is_over: bool,
}

impl Client {
    /// Begins a connection on the calling thread's host.
    fn new(port: u16, connection: &Connection) -> Self {
        let domain = Domain::for_address(connection.destination());
        let (kind, protocol) = match (connection.protocol, Family::of(connection.to)) {
            (OutboundProtocol::Tcp, _) => (Type::STREAM, Protocol::TCP),
            (OutboundProtocol::Udp, _) => (Type::DGRAM, Protocol::UDP),
            // The kernel takes the port of such a socket for the identifier.
            (OutboundProtocol::Ping, Family::V4) => (Type::DGRAM, Protocol::ICMPV4),
            (OutboundProtocol::Ping, Family::V6) => (Type::DGRAM, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, kind, Some(protocol)).expect("it can be opened");
        socket.set_nonblocking(true).expect("it can be set");
        if connection.protocol == OutboundProtocol::Tcp {
            let reset = socket.set_linger(Some(Duration::ZERO));
            reset.expect("it can be set");
        }
        let own = SocketAddr::new(connection.client, port);
        socket
            .bind(&own.into())
            .expect("the client has the address");
        let mut request = vec![b'.'; connection.bytes.max(1)];
        request[0] = REQUEST;
        if connection.protocol == OutboundProtocol::Ping {
            let kind = if connection.to.is_ipv4() { 8 } else { 128 };
            request.splice(..0, [kind, 0, 0, 0, 0, 0, 0, 1]);
        }
        let is_refused = match socket.connect(&connection.destination().into()) {
            Ok(()) => false,
            Err(error) => {
                error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error())
            }
        };
        Self {
            socket,
            request,
            is_sent: false,
            received: 0,
            is_answered: false,
            is_over: is_refused,
        }
    }

    /// Sends the request if that can be done, and reads the answer. Returns whether anything was moved.
    fn step(&mut self) -> bool {
        if self.is_over {
            return false;
        }
        let is_later = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        if !self.is_sent {
            match self.socket.send(&self.request) {
                Ok(_) => self.is_sent = true,
                Err(error) if is_later(&error) => return false,
                Err(_) => self.is_over = true,
            }
            return true;
        }
        let mut buffer = [0; 1 << 13];
        match (&self.socket).read(&mut buffer) {
            Ok(count @ 1..) => {
                self.received += count;
                self.is_answered = self.received >= self.request.len();
                self.is_over = self.is_answered;
                true
            }
            Err(error) if is_later(&error) => false,
            Ok(0) | Err(_) => {
                self.is_over = true;
                true
            }
        }
    }
}
