//! Three hosts for each cell, client, firewall and target, of which the client is the same for all;
//! and what is sent through them.
//!
//! ```text
//! client 10.3.N.1 ── 10.3.N.4 firewall N 10.4.0.4 ── 10.4.0.1 target N
//! ```
//!
//! Over veth the whole way of a datagram, as far as the target, is walked before `sendto` returns, by
//! the processor that sends. So the time of a burst is what its way costs, with a `sendto` for each.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Point;
use crate::layouts::{Backend, FIRST, Layout, SNAT, TARGET};
use crate::namespace::Host;
use crate::spread::Spread;

/// How many packets are sent at once, where they cost little.
pub const BURST: u16 = 2_000;
/// The same where each meets ten thousand rules.
pub const SHORT_BURST: u16 = 100;
/// Into how many parts a burst is divided.
const SLICES: u16 = 10;
/// How many connections the packets of established ones belong to.
const FLOWS: u16 = 64;
/// A connection's first question and its answer; and what is measured, which the target tells from
/// that by its length and drops unseen.
const QUESTION: &[u8] = b"who?";
const MEASURED: &[u8] = &[0; 16];
const MEASURED_LENGTH: usize = 20 + 8 + MEASURED.len();
/// How long a datagram is waited for that should be there at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who sends: from as many sockets as a burst has packets, so that each begins a connection whatever
/// its port is.
pub struct Client {
    host: Host,
    sockets: Vec<UdpSocket>,
}

impl Client {
    pub fn new() -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: limit.maximum,
            ..limit
        };
        setrlimit(Resource::Nofile, raised).expect("it is within the maximum");
        let host = Host::new();
        let sockets = host.enter(|| {
            (0..FLOWS + BURST)
                .map(|n| bound(Ipv4Addr::UNSPECIFIED, 20_000 + n))
                .collect()
        });
        Self { host, sockets }
    }

    fn send(&self, source: u16, what: &[u8], to: (Ipv4Addr, u16)) {
        let sent = self.sockets[usize::from(source)].send_to(what, to);
        assert_eq!(sent.expect("the way is open"), what.len());
    }
}

fn bound(address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((address, port)).expect("the port is free");
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("it is not zero");
    socket
}

/// One backend with one set of rules.
pub struct Cell {
    pub point: Point,
    pub rules: String,
    /// How many connections begin at once, and how many packets are sent on those that are open.
    packets: [u16; 2],
    firewall: Host,
    /// Where the client finds the firewall.
    address: Ipv4Addr,
    flows: Vec<Flow>,
    /// The firewall's count of connections.
    tracked: File,
    /// The target's counters of packets.
    arrived: File,
    _target: Host,
}

/// A connection that the target answers.
struct Flow {
    source: u16,
    port: u16,
    target: Rc<UdpSocket>,
}

impl Cell {
    pub fn new(client: &Client, n: usize, point: Point, rules: String) -> Self {
        let Point {
            backend,
            layout,
            forwards,
        } = point;
        let many = forwards == 10_000;
        let packets = match layout {
            Layout::Article if many => [SHORT_BURST, SHORT_BURST],
            Layout::Flat if many => [SHORT_BURST, BURST],
            _ => [BURST, BURST],
        };
        let (firewall, target) = (Host::new(), Host::new());
        let third = u8::try_from(n).expect("cells are few");
        let address = Ipv4Addr::new(10, 3, third, 4);
        let (here, there) = (client.host.pid(), target.pid());
        firewall.shell(&format!(
            "echo 1 > /proc/sys/net/ipv4/ip_forward
             ip link add eth0 type veth peer name fw{n} netns {here}
             ip link add eth1 type veth peer name eth0 netns {there}
             ip address add {address}/24 dev eth0
             ip address add {SNAT}/24 dev eth1
             ip link set eth0 up
             ip link set eth1 up"
        ));
        client.host.shell(&format!(
            "ip address add 10.3.{n}.1/24 dev fw{n}
             ip link set fw{n} up"
        ));
        target.shell(&format!(
            "ip address add {TARGET}/24 dev eth0
             ip link set eth0 up
             {} iptables -t raw -A PREROUTING -p udp -m length --length {MEASURED_LENGTH} -j DROP",
            Backend::Legacy.program()
        ));
        load(&firewall, backend, &rules);
        let tracked = firewall.enter(|| File::open("/proc/sys/net/netfilter/nf_conntrack_count"));
        let cell = Self {
            point,
            rules,
            packets,
            flows: flows(&target, forwards),
            tracked: tracked.expect("the rules track connections"),
            arrived: File::open(format!("/proc/{there}/net/snmp")).expect("the holder is alive"),
            firewall,
            address,
            _target: target,
        };
        cell.forget();
        cell.open(client);
        cell
    }

    /// Makes the firewall forget all connections.
    pub fn forget(&self) {
        self.firewall.run("conntrack -F");
    }

    /// Opens the flows, each with an answer, and sees who is asked and who answers: that it is the
    /// forward through which packets go.
    pub fn open(&self, client: &Client) {
        let snat: Ipv4Addr = SNAT.parse().expect("it is an address");
        let mut buffer = [0; 64];
        for flow in &self.flows {
            let to = (self.address, flow.port);
            client.send(flow.source, QUESTION, to);
            let (length, peer) = flow
                .target
                .recv_from(&mut buffer)
                .expect("the target is reached");
            assert_eq!(
                (&buffer[..length], peer.ip()),
                (QUESTION, snat.into()),
                "{:?}",
                self.point
            );
            flow.target
                .send_to(QUESTION, peer)
                .expect("the way back is open");
            let (_, peer) = client.sockets[usize::from(flow.source)]
                .recv_from(&mut buffer)
                .expect("the answer comes back");
            assert_eq!(peer, to.into());
        }
    }

    /// Begins connections to forwards drawn by chance; nanoseconds for each.
    pub fn begin(&self, client: &Client, draws: &[u16]) -> f64 {
        let [packets, _] = self.packets;
        let cost = self.timed(packets, |n| {
            let share = u32::from(draws[usize::from(n)]) * u32::from(self.point.forwards);
            let nth = u16::try_from(share >> 16).expect("it is less than the forwards are");
            client.send(FLOWS + n, MEASURED, (self.address, FIRST + nth));
        });
        // What is dropped in FORWARD is never in there.
        assert_eq!(
            self.tracked(),
            u64::from(FLOWS + packets),
            "{:?}",
            self.point
        );
        cost
    }

    /// Sends on the flows that are open; nanoseconds a packet.
    pub fn go_on(&self, client: &Client) -> f64 {
        let [begun, packets] = self.packets;
        let cost = self.timed(packets, |n| {
            let flow = &self.flows[usize::from(n % FLOWS)];
            client.send(flow.source, MEASURED, (self.address, flow.port));
        });
        assert_eq!(self.tracked(), u64::from(FLOWS + begun), "{:?}", self.point);
        cost
    }

    /// The median of the slices of a burst: other programs on the machine disturb some of them.
    fn timed(&self, packets: u16, send: impl Fn(u16)) -> f64 {
        let slice = packets / SLICES;
        let each = (0..SLICES).map(|n| {
            let all = self.arrived() + u64::from(slice);
            let start = Instant::now();
            for packet in n * slice..(n + 1) * slice {
                send(packet);
            }
            let mut elapsed = start.elapsed();
            // The clock stops when the last one is at the target.
            while self.arrived() < all {
                elapsed = start.elapsed();
                assert!(elapsed < PATIENCE, "{:?} loses packets", self.point);
            }
            elapsed.as_secs_f64() * 1e9 / f64::from(slice)
        });
        Spread::of(each).median
    }

    fn tracked(&self) -> u64 {
        let text = text_of(&self.tracked);
        text.trim().parse().expect("it is a number")
    }

    /// How many IPv4 packets the target has seen.
    fn arrived(&self) -> u64 {
        let text = text_of(&self.arrived);
        let mut words = text
            .lines()
            .filter(|line| line.starts_with("Ip: "))
            .map(str::split_ascii_whitespace);
        let (names, numbers) = (words.next(), words.next());
        names
            .into_iter()
            .flatten()
            .zip(numbers.into_iter().flatten())
            .find_map(|(name, number)| (name == "InReceives").then(|| number.parse().ok())?)
            .expect("the kernel counts them")
    }
}

/// What a file of the kernel says now.
fn text_of(file: &File) -> String {
    let mut buffer = [0; 4096];
    let length = file.read_at(&mut buffer, 0).expect("the kernel knows it");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

fn load(firewall: &Host, backend: Backend, rules: &str) {
    let output = if rules.starts_with("table ") {
        firewall.feed("nft", &["-f", "-"], rules)
    } else {
        firewall.feed(backend.program(), &["iptables-restore"], rules)
    };
    assert!(output.status.success(), "{output:?}");
}

/// Connections to forwards that lie evenly among all.
fn flows(target: &Host, forwards: u16) -> Vec<Flow> {
    let port = move |n: u16| {
        let place = u32::from(n) * u32::from(forwards) / u32::from(FLOWS);
        FIRST + u16::try_from(place).expect("it is one of the forwards")
    };
    let address: Ipv4Addr = TARGET.parse().expect("it is an address");
    let sockets: BTreeMap<u16, UdpSocket> = target.enter(move || {
        let ports = (0..FLOWS).map(port);
        let mut sockets = BTreeMap::new();
        for port in ports {
            sockets.entry(port).or_insert_with(|| bound(address, port));
        }
        sockets
    });
    let sockets: BTreeMap<u16, Rc<UdpSocket>> = sockets
        .into_iter()
        .map(|(port, socket)| (port, Rc::new(socket)))
        .collect();
    (0..FLOWS)
        .map(|source| {
            let port = port(source);
            let target = Rc::clone(&sockets[&port]);
            Flow {
                source,
                port,
                target,
            }
        })
        .collect()
}
