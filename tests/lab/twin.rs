//! The twin: what the kernel does in a copy of the machine is what it does on the machine.

use std::net::{IpAddr, SocketAddr};

use nvactl::net::Protocol;
use nvactl::twin::machine::Machine;
use nvactl::twin::netns;
use nvactl::twin::talk::{From, Outcome, Question, Reached, Talker};
use nvactl::twin::wiring::wire;

use crate::lab::{Backend, Lab};

const SPEC: &str = "
firewall: {interface: {ingress: eth0, egress: eth1}, snat: {v4: 10.4.0.4, v6: \"fd00:4::4\"}}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
  - {name: dns, listen: 53, protocol: udp, target: {pod: 10.224.0.118:5353}}
  - {name: web6, listen: 49182, target: {pod: \"[fd00:224::118]:80\"}}
  - {name: dns6, listen: 53, protocol: udp, target: {pod: \"[fd00:224::118]:5353\"}}
";

fn question(protocol: Protocol, client: &str, to: &str, listener: &str) -> Question {
    Question {
        protocol,
        client: client.parse().expect("an address"),
        from: From::World(0),
        to: to.parse().expect("an address and a port"),
        listeners: vec![listener.parse().expect("an address and a port")],
        request: 100,
        answer: if protocol == Protocol::Tcp {
            20_000
        } else {
            1000
        },
    }
}

/// Connections of each protocol and family come out where they should, and one that nothing accepts does not.
pub fn a_copy_does_with_packets_as_the_machine(backend: Backend) {
    let lab = Lab::dual_stack_two_nics(backend);
    lab.apply(SPEC);
    let mut rules = String::new();
    for program in ["iptables", "ip6tables"] {
        rules += &lab.firewall.run(&format!("{program}-save"));
        rules += "|";
    }
    let name = backend.name();
    let outcomes = lab.firewall.enter(move || {
        netns::aside(move || {
            let machine = Machine::read().expect("it is listed");
            let wired = wire(&machine).expect("namespaces can be made");
            assert_eq!(wired.left_out, [], "{machine:#?}");
            for (program, text) in ["iptables", "ip6tables"].into_iter().zip(rules.split('|')) {
                let file = tempfile::NamedTempFile::new().expect("a file");
                std::fs::write(file.path(), text).expect("it is written");
                let loaded = std::process::Command::new(format!("{program}-{name}-restore"))
                    .arg(file.path())
                    .env("XTABLES_LOCKFILE", "/dev/null")
                    .output()
                    .expect("it starts");
                assert!(loaded.status.success(), "{loaded:?}");
            }
            let mut talker =
                Talker::new(&wired.machine, &wired.worlds).expect("sockets can be opened");
            let worlds: Vec<String> = wired
                .worlds
                .iter()
                .map(|world| world.interface.clone())
                .collect();
            let mut ask = |question: Question| {
                let outcome = talker.ask(&question).expect("it can be asked");
                match outcome {
                    Outcome::Answered(Reached {
                        world,
                        source,
                        target,
                    }) => Some((worlds[world].clone(), source.ip(), target)),
                    _ => None,
                }
            };
            [
                ask(question(
                    Protocol::Tcp,
                    "198.51.100.7",
                    "10.3.0.4:49182",
                    "10.224.0.118:80",
                )),
                ask(question(
                    Protocol::Udp,
                    "198.51.100.7",
                    "10.3.0.4:53",
                    "10.224.0.118:5353",
                )),
                ask(question(
                    Protocol::Tcp,
                    "2001:db8:51::7",
                    "[fd00:3::4]:49182",
                    "[fd00:224::118]:80",
                )),
                ask(question(
                    Protocol::Udp,
                    "2001:db8:51::7",
                    "[fd00:3::4]:53",
                    "[fd00:224::118]:5353",
                )),
                ask(question(
                    Protocol::Tcp,
                    "198.51.100.7",
                    "10.3.0.4:49183",
                    "10.224.0.118:80",
                )),
                ask(question(
                    Protocol::Tcp,
                    "198.51.100.7",
                    "10.224.0.118:80",
                    "10.224.0.118:80",
                )),
            ]
        })
        .expect("a thread")
    });
    let came = |source: &str, target: &str| {
        let source: IpAddr = source.parse().expect("an address");
        let target: SocketAddr = target.parse().expect("an address and a port");
        Some(("eth1".to_owned(), source, target))
    };
    assert_eq!(
        outcomes,
        [
            came("10.4.0.4", "10.224.0.118:80"),
            came("10.4.0.4", "10.224.0.118:5353"),
            came("fd00:4::4", "[fd00:224::118]:80"),
            came("fd00:4::4", "[fd00:224::118]:5353"),
            None,
            None,
        ]
    );
}
