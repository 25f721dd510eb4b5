//! Connections through a twin whose end nobody named before.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::IpAddr;

use nvactl::forwards::OutboundProtocol;
use nvactl::net::Port;
use nvactl::twin::connection::{Connection, Opener};
use nvactl::twin::connection_end::ConnectionEnd;
use nvactl::twin::machine::Machine;
use nvactl::twin::rules::PacketFilter;
use nvactl::twin::talk::From;
use nvactl::twin::{Twin, netns};

use crate::lab::{Backend, Lab};
use crate::namespace::Host;

/// Opens connections through a copy of the lab's firewall.
fn with_opener<T: Send + 'static>(
    lab: &Lab,
    work: impl FnOnce(&Twin, &mut Opener<'_>) -> T + Send + 'static,
) -> T {
    with_opener_of(&lab.firewall, work)
}

/// Opens connections through a copy of a host.
pub fn with_opener_of<T: Send + 'static>(
    host: &Host,
    work: impl FnOnce(&Twin, &mut Opener<'_>) -> T + Send + 'static,
) -> T {
    host.enter(move || {
        let done = netns::aside(move || {
            let machine = Machine::read().expect("it is listed");
            let filter = PacketFilter::read().expect("it is listed");
            let twin = Twin::make(machine, &filter, None).expect("namespaces can be made");
            let mut opener = Opener::of(&twin).expect("sockets can be opened");
            work(&twin, &mut opener)
        });
        done.expect("a thread")
    })
}

fn connection(protocol: OutboundProtocol, client: &str, to: &str, port: u16) -> Connection {
    Connection {
        protocol,
        client: client.parse().expect("an address"),
        client_port: None,
        from: From::World(0),
        to: to.parse().expect("an address"),
        port: Port::new(port),
        bytes: 100,
    }
}

/// Describes the end of a connection.
fn words(twin: &Twin, end: &ConnectionEnd) -> String {
    let at = |word: &str| {
        let reached = end.reached().expect("it has a target");
        let world = &twin.worlds()[reached.world].interface;
        let (source, target) = (reached.source.ip(), reached.target);
        format!("{word} {target} behind {world} from {source}")
    };
    match end {
        ConnectionEnd::Delivered(_) => at("delivered"),
        ConnectionEnd::Stuck(_) => at("stuck"),
        ConnectionEnd::Refused(kind) => format!("refused: {kind:?}"),
        ConnectionEnd::Silent => "silent".to_owned(),
    }
}

const CLIENT: &str = "198.51.100.7";
const CLIENT_V6: &str = "2001:db8:51::7";
const FIREWALL: &str = "10.3.0.4";
const FIREWALL_V6: &str = "fd00:3::4";

fn lab(backend: Backend) -> Lab {
    let lab = Lab::dual_stack_two_nics(backend);
    lab.firewall.shell(
        "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
    );
    for (iptables, pod, near) in [
        ("iptables", "10.224.0.118", "10.4.0.99"),
        ("ip6tables", "[fd00:224::118]", "[fd00:4::99]"),
    ] {
        for (protocol, port, to) in [
            ("tcp", 443, format!("{pod}:8123")),
            ("udp", 53, format!("{pod}:5353")),
            ("tcp", 444, format!("{near}:444")),
            ("udp", 444, format!("{near}:445")),
        ] {
            let nat = format!("{iptables} -t nat -A PREROUTING -p {protocol} --dport {port}");
            lab.firewall
                .run(&format!("{nat} -j DNAT --to-destination {to}"));
        }
        lab.firewall.run(&format!(
            "{iptables} -t nat -A POSTROUTING -o eth1 -j MASQUERADE"
        ));
    }
    lab
}

lab_test!(a_connection_is_answered_wherever_it_comes_out);
fn a_connection_is_answered_wherever_it_comes_out(backend: Backend) {
    use OutboundProtocol::{Ping, Tcp, Udp};
    let lab = lab(backend);
    let ends = with_opener(&lab, |twin, opener| {
        let mut ask = |connection: &Connection| {
            let end = opener.open(connection, &[]).expect("it can be opened");
            words(twin, &end)
        };
        let mut ends = Vec::new();
        for (client, own, direct) in [
            (CLIENT, FIREWALL, "10.224.0.99"),
            (CLIENT_V6, FIREWALL_V6, "fd00:224::99"),
        ] {
            for (protocol, to, port) in [
                (Tcp, own, 443),
                (Udp, own, 53),
                (Tcp, own, 444),
                (Udp, own, 444),
                (Tcp, direct, 7777),
                (Udp, direct, 7777),
                (Ping, direct, 0),
                (Tcp, own, 22),
            ] {
                for bytes in [0, 100, 20_000] {
                    let end = ask(&Connection {
                        bytes,
                        ..connection(protocol, client, to, port)
                    });
                    ends.push(format!("{protocol} {to} {port} {bytes}: {end}"));
                }
            }
        }
        ends
    });
    let mut wanted = Vec::new();
    for (own, pod, near, direct, source) in [
        (
            FIREWALL,
            "10.224.0.118",
            "10.4.0.99",
            "10.224.0.99",
            "10.4.0.4",
        ),
        (
            FIREWALL_V6,
            "[fd00:224::118]",
            "[fd00:4::99]",
            "fd00:224::99",
            "fd00:4::4",
        ),
    ] {
        let direct_at = match direct.parse().expect("an address") {
            IpAddr::V4(_) => direct.to_owned(),
            IpAddr::V6(_) => format!("[{direct}]"),
        };
        for (question, target) in [
            (format!("tcp {own} 443"), format!("{pod}:8123")),
            (format!("udp {own} 53"), format!("{pod}:5353")),
            (format!("tcp {own} 444"), format!("{near}:444")),
            (format!("udp {own} 444"), format!("{near}:445")),
            (format!("tcp {direct} 7777"), format!("{direct_at}:7777")),
            (format!("udp {direct} 7777"), format!("{direct_at}:7777")),
            (format!("ping {direct} 0"), format!("{direct_at}:0")),
        ] {
            for bytes in [0, 100, 20_000] {
                wanted.push(format!(
                    "{question} {bytes}: delivered {target} behind eth1 from {source}"
                ));
            }
        }
        for bytes in [0, 100, 20_000] {
            wanted.push(format!("tcp {own} 22 {bytes}: refused: ConnectionRefused"));
        }
    }
    assert_eq!(ends, wanted);
}

lab_test!(a_connection_that_a_rule_ends_has_no_target_or_no_answer);
fn a_connection_that_a_rule_ends_has_no_target_or_no_answer(backend: Backend) {
    use OutboundProtocol::{Ping, Tcp, Udp};
    let lab = lab(backend);
    for rule in [
        "FORWARD -d 10.224.0.1 -j DROP",
        "FORWARD -d 10.224.0.2 -j REJECT",
        "FORWARD -d 10.224.0.3 -p tcp -j REJECT --reject-with tcp-reset",
        "FORWARD -d 10.224.0.4 -j REJECT --reject-with icmp-host-unreachable",
        "FORWARD -s 10.224.0.5 -j DROP",
        // Only the first packet of each client passes.
        "FORWARD -s 10.224.0.6 -m conntrack --ctstate ESTABLISHED -m length --length 500: -j DROP",
        "INPUT -p udp -j DROP",
    ] {
        lab.firewall.run(&format!("iptables -A {rule}"));
    }
    let ends = with_opener(&lab, |twin, opener| {
        let mut ends = Vec::new();
        for (protocol, to, bytes) in [
            (Tcp, "10.224.0.1", 100),
            (Udp, "10.224.0.1", 100),
            (Ping, "10.224.0.1", 100),
            (Tcp, "10.224.0.2", 100),
            (Udp, "10.224.0.2", 100),
            (Ping, "10.224.0.2", 100),
            (Tcp, "10.224.0.3", 100),
            (Tcp, "10.224.0.4", 100),
            (Udp, "10.224.0.4", 100),
            (Ping, "10.224.0.4", 100),
            (Tcp, "10.224.0.5", 100),
            (Udp, "10.224.0.5", 100),
            (Ping, "10.224.0.5", 100),
            (Tcp, "10.224.0.6", 100),
            (Tcp, "10.224.0.6", 1000),
            (Udp, "10.224.0.6", 1000),
            (Udp, FIREWALL, 100),
        ] {
            let of = Connection {
                bytes,
                ..connection(protocol, CLIENT, to, 80)
            };
            let end = opener.open(&of, &[]).expect("it can be opened");
            ends.push(format!("{protocol} {to} {bytes}: {}", words(twin, &end)));
        }
        ends
    });
    assert_eq!(
        ends,
        [
            "tcp 10.224.0.1 100: silent",
            "udp 10.224.0.1 100: silent",
            "ping 10.224.0.1 100: silent",
            "tcp 10.224.0.2 100: refused: ConnectionRefused",
            "udp 10.224.0.2 100: refused: ConnectionRefused",
            "ping 10.224.0.2 100: refused: ConnectionRefused",
            "tcp 10.224.0.3 100: refused: ConnectionRefused",
            "tcp 10.224.0.4 100: refused: HostUnreachable",
            "udp 10.224.0.4 100: refused: HostUnreachable",
            "ping 10.224.0.4 100: refused: HostUnreachable",
            "tcp 10.224.0.5 100: stuck 10.224.0.5:80 behind eth1 from 10.4.0.4",
            "udp 10.224.0.5 100: stuck 10.224.0.5:80 behind eth1 from 10.4.0.4",
            "ping 10.224.0.5 100: stuck 10.224.0.5:0 behind eth1 from 10.4.0.4",
            "tcp 10.224.0.6 100: delivered 10.224.0.6:80 behind eth1 from 10.4.0.4",
            "tcp 10.224.0.6 1000: stuck 10.224.0.6:80 behind eth1 from 10.4.0.4",
            "udp 10.224.0.6 1000: stuck 10.224.0.6:80 behind eth1 from 10.4.0.4",
            "udp 10.3.0.4 100: silent",
        ]
    );
}

lab_test!(targets_that_rules_choose_by_chance_are_all_found);
fn targets_that_rules_choose_by_chance_are_all_found(backend: Backend) {
    let lab = lab(backend);
    let nat = "iptables -t nat -A PREROUTING -p tcp --dport 500";
    for port in 9001..9004 {
        let chance = "-m statistic --mode random --probability 0.3";
        let to = format!("-j DNAT --to-destination 10.224.0.118:{port}");
        lab.firewall.run(&format!("{nat} {chance} {to}"));
    }
    lab.firewall
        .run(&format!("{nat} -j DNAT --to-destination 10.224.0.118:9004"));
    let targets = with_opener(&lab, |_, opener| {
        let of = connection(OutboundProtocol::Tcp, CLIENT, FIREWALL, 500);
        let mut targets = BTreeSet::new();
        // Each target is missed 200 times with a probability below 1e-19.
        for _ in 0..200 {
            match opener.open(&of, &[]).expect("it can be opened") {
                ConnectionEnd::Delivered(reached) => targets.insert(reached.target.port()),
                other => panic!("{other:?}"),
            };
        }
        targets
    });
    assert_eq!(targets, BTreeSet::from([9001, 9002, 9003, 9004]));
}

lab_test!(either a_limit_of_one_connection_does_not_hide_a_target);
/// A connection to a port without a listener is opened twice, and the second one does not come through.
fn a_limit_of_one_connection_does_not_hide_a_target(backend: Backend) {
    let lab = lab(backend);
    lab.firewall.run(
        "iptables -A FORWARD -p tcp -d 10.224.0.118 -m conntrack --ctstate NEW -m hashlimit \
         --hashlimit-name one --hashlimit-mode srcip --hashlimit-above 1/hour --hashlimit-burst 1 -j DROP",
    );
    let ends = with_opener(&lab, |_, opener| {
        let of = |client: &str| connection(OutboundProtocol::Tcp, client, FIREWALL, 443);
        let likely = [Port::new(8123).expect("a port")];
        let mut open = |client: &str, likely: &[Port]| {
            opener.open(&of(client), likely).expect("it can be opened")
        };
        [
            matches!(open("198.51.100.20", &[]), ConnectionEnd::Stuck(_)),
            open("198.51.100.20", &[]) == ConnectionEnd::Silent,
            open("198.51.100.21", &likely).is_delivered(),
            open("198.51.100.21", &likely) == ConnectionEnd::Silent,
        ]
    });
    assert_eq!(ends, [true; 4]);
}

/// How many connections are opened to measure.
const MANY: u16 = 1000;

lab_test!(either one_opener_finds_the_ends_of_a_thousand_connections);
fn one_opener_finds_the_ends_of_a_thousand_connections(backend: Backend) {
    let lab = lab(backend);
    lab.firewall.run(
        "iptables -t nat -A PREROUTING -p tcp --dport 10000:20000 -j DNAT --to-destination 10.224.0.118",
    );
    with_opener(&lab, |_, opener| {
        for number in 0..MANY {
            let of = connection(OutboundProtocol::Tcp, CLIENT, FIREWALL, 10_000 + number);
            let end = opener.open(&of, &[]).expect("it can be opened");
            assert!(end.is_delivered(), "{of}: {end:?}");
            let kept = connection(OutboundProtocol::Udp, CLIENT, FIREWALL, 10_000 + number);
            let end = opener.open(&kept, &[]).expect("it can be opened");
            // The machine's kernel limits its refusals (`icmp_ratelimit`).
            let is_refused = end == ConnectionEnd::Refused(ErrorKind::ConnectionRefused);
            assert!(is_refused || end == ConnectionEnd::Silent, "{end:?}");
        }
    });
}
