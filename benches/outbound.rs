//! The cost of outbound entries in the kernel: the first packet of a connection and one of an established connection, with
//! no entry, with one and with 1,000, on both backends. Those of a forward must cost at most 1.05 times as much with
//! 1,000 entries as with none, since a forward's rules come before all entries. Connections of entries are reported.
//!
//! `cargo bench --bench outbound`, as root; ends with 1 if a forward costs more, and with 2 where it cannot run.
//!
//! ```text
//! client 10.3.0.1, 198.51.100.1 ── 10.3.0.4 firewall 10.4.0.4 ── 10.4.0.1, 10.224.0.0/16 pods
//! ```

#[path = "datapath/layouts.rs"]
#[expect(dead_code, reason = "the rules here have outbound entries")]
mod layouts;
#[path = "datapath/machine.rs"]
#[expect(dead_code, reason = "its facts are for a page")]
mod machine;
#[path = "../tests/lab/namespace.rs"]
#[expect(dead_code, reason = "the lab of the tests asks more of a host")]
mod namespace;
#[path = "../tests/required/mod.rs"]
mod required;
#[path = "datapath/spread.rs"]
mod spread;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use layouts::Backend;
use namespace::Host;
use nvactl::net::Family;
use nvactl::plan::plan;
use nvactl::yaml;
use spread::{Spread, times};

const FORWARDS: u16 = 100;
const ENTRIES: [u16; 3] = [0, 1, 1_000];
/// The most that a forward may cost with all entries, in terms of what it costs without one.
const MOST: f64 = 1.05;
const ROUNDS: usize = 41;
/// How many connections are begun at once, and how many packets are sent on those that are open.
const BURST: u16 = 500;
/// How many connections the packets of established ones belong to.
const FLOWS: u16 = 16;
/// The first question of a connection and its answer. The receiver tells the measured packets from them by their
/// length, and drops those unseen.
const QUESTION: &[u8] = b"who?";
const MEASURED: &[u8] = &[0; 16];
const MEASURED_LENGTH: usize = 20 + 8 + MEASURED.len();
const PATIENCE: Duration = Duration::from_secs(5);

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const FIREWALL: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 4);
const TARGET: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 1);
const LISTEN: u16 = 10_000;
const DNS: u16 = 53;

fn main() -> ExitCode {
    let missing = machine::missing();
    if !missing.is_empty() {
        for what in missing {
            eprintln!("error: {what}");
        }
        return ExitCode::from(2);
    }
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).expect("it is within the maximum");
    let mut cells: Vec<Cell> = Vec::new();
    for backend in Backend::ALL {
        cells.extend(ENTRIES.map(|entries| Cell::new(backend, entries)));
    }
    machine::pin();
    for _ in 0..ROUNDS {
        for cell in &mut cells {
            cell.measure();
        }
    }
    let mut code = ExitCode::SUCCESS;
    println!("nanoseconds a packet, the median between its quartiles\n");
    println!("| backend | entries | connection | first packet | established |");
    println!("|---|--:|---|--:|--:|");
    for of_backend in cells.chunks(ENTRIES.len()) {
        for cell in of_backend {
            cell.print();
        }
        let (none, all) = (&of_backend[0], &of_backend[ENTRIES.len() - 1]);
        for (what, pick) in [("first", 0), ("established", 1)] {
            let ratio = times(&all.ways[0].costs[pick], &none.ways[0].costs[pick]);
            let words = format!(
                "{}, a forward's {what} packet, {} entries / none: {ratio}, at most {MOST}",
                none.backend, all.entries
            );
            if ratio.median > MOST {
                eprintln!("missed: {words}");
                code = ExitCode::FAILURE;
            }
            println!("\n{words}");
        }
        println!();
    }
    code
}

/// A firewall with so many outbound entries, and what is sent through it.
struct Cell {
    backend: Backend,
    entries: u16,
    firewall: Host,
    /// First the way of a forward, then those of the first and the last entry.
    ways: Vec<Way>,
    _ends: [Host; 2],
}

impl Cell {
    fn new(backend: Backend, entries: u16) -> Self {
        let (client, firewall, pods) = (Host::new(), Host::new(), Host::new());
        let (before, behind) = (client.pid(), pods.pid());
        firewall.shell(&format!(
            "echo 1 > /proc/sys/net/ipv4/ip_forward
             ip link add eth0 type veth peer name eth0 netns {before}
             ip link add eth1 type veth peer name eth0 netns {behind}
             ip address add {FIREWALL}/24 dev eth0
             ip address add 10.4.0.4/24 dev eth1
             ip link set eth0 up
             ip link set eth1 up"
        ));
        let drop = format!(
            "{} iptables -t raw -A PREROUTING -p udp -m length --length {MEASURED_LENGTH} -j DROP",
            Backend::Legacy.program()
        );
        client.shell(&format!(
            "ip address add {CLIENT}/24 dev eth0
             ip address add {SERVER}/32 dev eth0
             ip link set eth0 up
             {drop}"
        ));
        let senders = [0, entries.saturating_sub(1)].map(sender);
        let mut script = format!(
            "ip address add {TARGET}/24 dev eth0
             ip link set eth0 up
             ip route add default via 10.4.0.4
             {drop}\n"
        );
        for address in senders {
            let _ = writeln!(script, "ip address replace {address}/32 dev eth0");
        }
        pods.shell(&script);
        firewall.shell(&format!(
            "ip route add default via {CLIENT}; ip route add 10.224.0.0/16 via {TARGET}"
        ));
        let program = backend.program();
        let loaded = firewall.feed(program, &["iptables-restore"], &rules(entries));
        assert!(loaded.status.success(), "{loaded:?}");
        let last = LISTEN + FORWARDS - 1;
        let mut ways = vec![Way::new(
            "a forward",
            (&client, CLIENT),
            SocketAddrV4::new(FIREWALL, last),
            (&pods, SocketAddrV4::new(TARGET, last)),
            0,
        )];
        let named = ["the first entry", "the last entry"]
            .into_iter()
            .zip(senders);
        for (n, (name, from)) in (0_u16..).zip(named).take(usize::from(entries.min(2))) {
            let to = SocketAddrV4::new(SERVER, DNS + n);
            ways.push(Way::new(name, (&pods, from), to, (&client, to), n));
        }
        Self {
            backend,
            entries,
            firewall,
            ways,
            _ends: [client, pods],
        }
    }

    fn measure(&mut self) {
        self.firewall.run("conntrack -F");
        for way in &mut self.ways {
            way.open();
            let costs = [way.begin(), way.go_on()];
            for (all, cost) in way.costs.iter_mut().zip(costs) {
                all.push(cost);
            }
        }
        // A packet that is dropped in FORWARD is never in there.
        let count = self
            .firewall
            .run("cat /proc/sys/net/netfilter/nf_conntrack_count");
        let ways = u64::try_from(self.ways.len()).expect("they are few");
        let meant = ways * u64::from(FLOWS + BURST);
        assert_eq!(count.trim().parse(), Ok(meant), "{} entries", self.entries);
    }

    fn print(&self) {
        for way in &self.ways {
            let [first, established] = way.costs.each_ref().map(|all| Spread::of(all.clone()));
            println!(
                "| {} | {} | {} | {first} | {established} |",
                self.backend, self.entries, way.name
            );
        }
    }
}

/// Connections from some sockets to one address.
struct Way {
    name: &'static str,
    sockets: Vec<UdpSocket>,
    to: SocketAddrV4,
    receiver: UdpSocket,
    /// Nanoseconds of the first packets and of those of established connections, one of each round.
    costs: [Vec<f64>; 2],
}

impl Way {
    fn new(
        name: &'static str,
        (sender, from): (&Host, Ipv4Addr),
        to: SocketAddrV4,
        (receiver, there): (&Host, SocketAddrV4),
        n: u16,
    ) -> Self {
        let first = 20_000 + n * 2_000;
        let sockets = sender.enter(move || {
            let ports = first..first + FLOWS + BURST;
            ports
                .map(|port| bound(SocketAddrV4::new(from, port)))
                .collect()
        });
        Self {
            name,
            sockets,
            to,
            receiver: receiver.enter(move || bound(there)),
            costs: [Vec::new(), Vec::new()],
        }
    }

    fn send(&self, n: u16, what: &[u8]) {
        let sent = self.sockets[usize::from(n)].send_to(what, self.to);
        assert_eq!(sent.expect("the way is open"), what.len());
    }

    /// Opens the flows, each with an answer.
    fn open(&self) {
        let mut buffer = [0; 64];
        for n in 0..FLOWS {
            self.send(n, QUESTION);
            let question = self.receiver.recv_from(&mut buffer);
            let (_, peer) = question.expect("the receiver is reached");
            let sent = self.receiver.send_to(QUESTION, peer);
            sent.expect("the way back is open");
            let answer = self.sockets[usize::from(n)].recv_from(&mut buffer);
            answer.expect("the answer comes back");
        }
    }

    /// Begins connections.
    fn begin(&self) -> f64 {
        timed(|n| self.send(FLOWS + n, MEASURED))
    }

    /// Sends on the flows that are open.
    fn go_on(&self) -> f64 {
        timed(|n| self.send(n % FLOWS, MEASURED))
    }
}

/// Returns the nanoseconds of one packet of a burst.
fn timed(send: impl Fn(u16)) -> f64 {
    let start = Instant::now();
    for n in 0..BURST {
        send(n);
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(BURST)
}

fn bound(at: SocketAddrV4) -> UdpSocket {
    let socket = UdpSocket::bind(at).expect("the port is free");
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("it is not zero");
    socket
}

/// Returns the source of the `n`th entry.
fn sender(n: u16) -> Ipv4Addr {
    let [high, low] = n.to_be_bytes();
    Ipv4Addr::new(10, 224, high, low)
}

fn rules(entries: u16) -> String {
    let mut text =
        "firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4, layout: flat}\n\
                    defaults: {protocol: udp}\nforwards:\n"
            .to_owned();
    for port in LISTEN..LISTEN + FORWARDS {
        let _ = writeln!(
            text,
            "  - {{name: forward-{port}, listen: {port}, target: {{pod: {TARGET}:{port}}}}}"
        );
    }
    text += if entries > 0 { "outbound:\n" } else { "" };
    for n in 0..entries {
        let _ = writeln!(
            text,
            "  - {{name: out-{n}, allow_from: [{}/32]}}",
            sender(n)
        );
    }
    let set = yaml::read(text.as_bytes()).unwrap_or_else(|problems| panic!("{problems:?}"));
    plan(&set, Family::V4).with_builtin_chains().to_string()
}
