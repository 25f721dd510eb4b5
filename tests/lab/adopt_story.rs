//! From typed rules to a spec and back: `import`, `apply --adopt` and `rollback` in a row, among other programs and under
//! new connections all the while.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::adopt::{chain, foreign, rollback, typed};
use crate::lab::{Backend, FIREWALL, Lab, save};
use crate::namespace::wait_for;
use crate::traffic::{Outcome, answer, serve_tcp};

/// The article's scenarios beside each other, the first with the port that the Service exposes, and one more forward
/// between rules of others.
const TYPED: &str = "
iptables -A FORWARD -s 192.0.2.1 -p icmp -j DROP
iptables -A FORWARD -p tcp --syn --dport 49180 -m conntrack --ctstate NEW -j ACCEPT
iptables -A FORWARD -p tcp --syn --dport 80 -m conntrack --ctstate NEW -j ACCEPT
iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
iptables -A FORWARD -s 192.0.2.2 -p icmp -j DROP
iptables -A FORWARD -d 10.224.0.99 -p tcp --dport 8080 -m conntrack --ctstate NEW -j ACCEPT
iptables -A FORWARD -s 192.0.2.3 -p icmp -j DROP
iptables -P FORWARD DROP
iptables -t nat -A PREROUTING -s 192.0.2.4 -p icmp -j RETURN
iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 49180 -j DNAT --to-destination 10.224.0.222
iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 49181 -j DNAT --to-destination 10.224.0.118:80
iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 49183 -j DNAT --to-destination 10.224.0.99:8080
iptables -t nat -A POSTROUTING -o eth0 -p tcp --dport 49180 -d 10.224.0.222 -j SNAT --to-source 10.3.0.4
iptables -t nat -A POSTROUTING -o eth0 -p tcp --dport 80 -d 10.224.0.118 -j SNAT --to-source 10.3.0.4
iptables -t nat -A POSTROUTING -o eth0 -p tcp --dport 8080 -d 10.224.0.99 -j SNAT --to-source 10.3.0.4
";

const DNATS: [&str; 3] = [
    "-A PREROUTING -i eth0 -p tcp -m tcp --dport 49180 -j DNAT --to-destination 10.224.0.222",
    "-A PREROUTING -i eth0 -p tcp -m tcp --dport 49181 -j DNAT --to-destination 10.224.0.118:80",
    "-A PREROUTING -i eth0 -p tcp -m tcp --dport 49183 -j DNAT --to-destination 10.224.0.99:8080",
];
const SNATS: [&str; 3] = [
    "-A POSTROUTING -d 10.224.0.222/32 -o eth0 -p tcp -m tcp --dport 49180 -j SNAT --to-source 10.3.0.4",
    "-A POSTROUTING -d 10.224.0.118/32 -o eth0 -p tcp -m tcp --dport 80 -j SNAT --to-source 10.3.0.4",
    "-A POSTROUTING -d 10.224.0.99/32 -o eth0 -p tcp -m tcp --dport 8080 -j SNAT --to-source 10.3.0.4",
];

/// A loss shows before the kernel sends a lost packet again: that takes a second for the first one.
const PATIENCE: Duration = Duration::from_millis(900);

/// New connections from the client to a port of the firewall, one after the other.
struct Flood {
    over: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Flood {
    fn to(lab: &Lab, port: u16) -> Self {
        let to: SocketAddr = format!("{FIREWALL}:{port}").parse().expect("an address");
        let over = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        let (is_over, counted) = (Arc::clone(&over), Arc::clone(&count));
        let thread = lab.client.enter(move || {
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let begin = Instant::now();
                    if let Err(error) = TcpStream::connect_timeout(&to, PATIENCE) {
                        panic!("{to}: lost after {:?}: {error}", begin.elapsed());
                    }
                    counted.fetch_add(1, Ordering::Relaxed);
                    // Each takes one of the 64,000 ports of the SNAT address for two minutes.
                    thread::sleep(Duration::from_millis(2));
                }
            })
        });
        Self {
            over,
            count,
            thread,
        }
    }

    /// Waits until some more connections have been made.
    fn goes_on(&self) {
        let before = self.count.load(Ordering::Relaxed);
        wait_for("connections go on", || {
            self.thread.is_finished() || self.count.load(Ordering::Relaxed) >= before + 20
        });
        assert!(!self.thread.is_finished(), "a connection was lost");
    }

    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("no connection was lost");
    }
}

lab_test!(sampled typed_rules_go_and_come_back_while_everything_goes_on);
fn typed_rules_go_and_come_back_while_everything_goes_on(backend: Backend) {
    let lab = Lab::one_nic(backend);
    let host = &lab.firewall;
    serve_tcp(&lab.ilb, "ilb", 49180);
    serve_tcp(&lab.pod, "pod", 80);
    serve_tcp(&lab.other, "other", 8080);
    host.run("sysctl -qw net.ipv4.ip_forward=1");
    typed(host, TYPED);
    let ask = || [49180, 49181, 49183].map(|port| lab.tcp(FIREWALL, port));
    let works = ["ilb", "pod", "other"].map(|name| answer(name, FIREWALL));
    assert_eq!(ask(), works);

    // The proof: each connection that ends differently has a remark that explains it.
    let said = lab.nvactl(&["import", "live", "--strict", "-o", "/run/forward.yaml"]);
    assert_eq!(said.code, 0, "{said:?}");
    let differs = "tcp-49181: 10.224.0.118:80 asked directly: ";
    let (_, table) = said.stdout.split_once(differs).expect("it differs");
    assert!(
        table.contains("  before: reaches 10.224.0.118:80")
            && table.contains("  reason: accepts-more"),
        "{said:?}"
    );

    let floods = [49180, 49181].map(|port| Flood::to(&lab, port));
    let go_on = || floods.iter().for_each(Flood::goes_on);
    go_on();
    let said = lab.nvactl(&["apply", "/run/forward.yaml", "--adopt"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains("adopting 9 rules"), "{said:?}");
    go_on();
    let left = [
        "-s 192.0.2.1/32 -p icmp -j DROP",
        // Rules of others stay, so the one for replies does.
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-s 192.0.2.2/32 -p icmp -j DROP",
        "-s 192.0.2.3/32 -p icmp -j DROP",
    ];
    assert_eq!(chain(host, "FORWARD"), left);
    assert_eq!(foreign(host).len(), 5);
    assert_eq!(ask(), works);

    // Other programs go on as well: rules before, between and behind, and two less.
    host.shell(
        "set -e
         iptables -I FORWARD 1 -s 192.0.2.11 -p icmp -j DROP
         iptables -I FORWARD 4 -s 192.0.2.12 -p icmp -j DROP
         iptables -D FORWARD -s 192.0.2.2 -p icmp -j DROP
         iptables -D FORWARD -s 192.0.2.3 -p icmp -j DROP
         iptables -A FORWARD -s 192.0.2.13 -p icmp -j DROP
         iptables -t nat -A PREROUTING -s 192.0.2.14 -p icmp -j RETURN
         iptables -t nat -I POSTROUTING 1 -s 192.0.2.15 -p icmp -j RETURN",
    );
    let said = rollback(host);
    assert_eq!(said.code, 3, "{said:?}");
    go_on();
    let lines = [
        "-A PREROUTING -s 192.0.2.4/32 -p icmp -j RETURN",
        DNATS[0],
        DNATS[1],
        DNATS[2],
        "-A PREROUTING -s 192.0.2.14/32 -p icmp -j RETURN",
        "-A POSTROUTING -s 192.0.2.15/32 -p icmp -j RETURN",
        SNATS[0],
        SNATS[1],
        SNATS[2],
    ];
    let nat = ["PREROUTING", "POSTROUTING"].map(|name| of_chain(&save(host), name));
    assert_eq!(nat.concat(), lines);
    let mut forward = [
        "-A FORWARD -s 192.0.2.11/32 -p icmp -j DROP",
        "-A FORWARD -s 192.0.2.1/32 -p icmp -j DROP",
        "-A FORWARD -p tcp -m tcp --dport 49180 --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -j ACCEPT",
        "-A FORWARD -p tcp -m tcp --dport 80 --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -j ACCEPT",
        "-A FORWARD -s 192.0.2.12/32 -p icmp -j DROP",
        "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A FORWARD -s 192.0.2.13/32 -p icmp -j DROP",
    ]
    .to_vec();
    assert_eq!(of_chain(&save(host), "FORWARD"), forward);
    assert!(!save(host).contains("NVACTL"));

    // Both neighbours of one rule are gone. Its command is all that was missing.
    assert_eq!(lab.tcp(FIREWALL, 49183), Outcome::Silence);
    let mut commands = said.stderr.split("; to add it: sudo ").skip(1);
    let command = commands.next().expect("it is printed");
    assert_eq!(commands.next(), None, "{said:?}");
    host.run(command.lines().next().expect("it has a line"));
    forward.insert(
        5,
        "-A FORWARD -d 10.224.0.99/32 -p tcp -m tcp --dport 8080 -m conntrack --ctstate NEW -j ACCEPT",
    );
    assert_eq!(of_chain(&save(host), "FORWARD"), forward);
    assert_eq!(ask(), works);
    for flood in floods {
        flood.end();
    }
}

/// Returns the rules of a chain, nvactl's included.
fn of_chain(saved: &str, name: &str) -> Vec<String> {
    let start = format!("-A {name} ");
    let rules = saved.lines().filter(|line| line.starts_with(&start));
    rules.map(str::to_owned).collect()
}
