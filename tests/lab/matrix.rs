//! Every way to forward a packet, each tried with real ones: whom the target answers, and who
//! stands next to a range.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use nvactl::net::Family;

use crate::lab::{
    Backend, CLIENT, CLIENT_V6, FIREWALL, FIREWALL_EGRESS, FIREWALL_EGRESS_V6, FIREWALL_V6, ILB,
    ILB_V6, Lab, OTHER, OTHER_V6, POD, POD_V6,
};
use crate::traffic::{Outcome, answer, ask_tcp, ask_udp, serve_tcp, serve_udp, socket};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Protocol {
    Tcp,
    Udp,
}

/// What a listener has, and what becomes of it at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ports {
    One,
    Range,
    ShiftedRange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Ilb,
    Pod,
    SeveralPods,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Snat {
    Address,
    Masquerade,
    None,
}

/// One way to forward, with ten ports to itself.
#[derive(Debug, Clone, Copy)]
struct Cell {
    protocol: Protocol,
    family: Family,
    ports: Ports,
    target: Target,
    snat: Snat,
    listen: u16,
}

/// The first of ten ports for each cell.
const FIRST: u16 = 10_000;
const CELLS: usize = 2 * 2 * 3 * 3 * 3;
/// How many ports a range has.
const WIDTH: u16 = 4;
const ONE: u16 = 8000;
const SHIFTED: u16 = 7000;
/// The firewall's second address where it reaches targets, which masquerading would not choose.
const SNAT: &str = "10.4.0.5";
const SNAT_V6: &str = "fd00:4::5";

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for family in Family::ALL {
            for ports in [Ports::One, Ports::Range, Ports::ShiftedRange] {
                for target in [Target::Ilb, Target::Pod, Target::SeveralPods] {
                    for snat in [Snat::Address, Snat::Masquerade, Snat::None] {
                        let n = u16::try_from(cells.len()).expect("they are few");
                        cells.push(Cell {
                            protocol,
                            family,
                            ports,
                            target,
                            snat,
                            // In the middle of its ten.
                            listen: FIRST + n * 10 + 3,
                        });
                    }
                }
            }
        }
    }
    cells
}

impl fmt::Display for Cell {
    /// As a forward is called.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cell {
            protocol,
            family,
            ports,
            target,
            snat,
            ..
        } = self;
        write!(
            f,
            "{protocol:?}-{}-{ports:?}-{target:?}-{snat:?}",
            family.as_str()
        )
    }
}

impl Cell {
    fn last(self) -> u16 {
        match self.ports {
            Ports::One => self.listen,
            Ports::Range | Ports::ShiftedRange => self.listen + WIDTH - 1,
        }
    }

    /// Where what is sent to a port of the listener arrives; or would, if the range went further.
    fn arrives(self, port: u16) -> u16 {
        match self.ports {
            Ports::One => ONE,
            Ports::Range => port,
            Ports::ShiftedRange => SHIFTED + port - self.listen,
        }
    }

    /// One of the two families' words.
    fn of<'w>(self, v4: &'w str, v6: &'w str) -> &'w str {
        match self.family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    fn forward(self) -> String {
        let listen = match self.ports {
            Ports::One => self.listen.to_string(),
            _ => format!("{}-{}", self.listen, self.last()),
        };
        let (first, last) = (self.arrives(self.listen), self.arrives(self.last()));
        let to = |v4: &str, v6: &str| {
            let address = self.of(v4, v6);
            let port = if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            };
            match self.family {
                Family::V4 => format!("\"{address}:{port}\""),
                Family::V6 => format!("\"[{address}]:{port}\""),
            }
        };
        let pods = || (to(POD, POD_V6), to(OTHER, OTHER_V6));
        let target = match self.target {
            Target::Ilb => format!("ilb: {}", to(ILB, ILB_V6)),
            Target::Pod => format!("pod: {}", pods().0),
            Target::SeveralPods => format!("pod: [{}, {}]", pods().0, pods().1),
        };
        let protocol = format!("{:?}", self.protocol).to_lowercase();
        // The firewall's own where a forward says nothing.
        let snat = match self.snat {
            Snat::Address => "",
            Snat::Masquerade => ", snat: masquerade",
            Snat::None => ", snat: none",
        };
        format!(
            "  - {{name: {self}, listen: {listen}, protocol: {protocol}, target: {{{target}}}{snat}}}\n"
        )
    }

    /// Who is to answer a port of the listener.
    fn answers(self, port: u16) -> Vec<Outcome> {
        let seen = match self.snat {
            Snat::Address => self.of(SNAT, SNAT_V6),
            Snat::Masquerade => self.of(FIREWALL_EGRESS, FIREWALL_EGRESS_V6),
            Snat::None => self.of(CLIENT, CLIENT_V6),
        };
        let hosts: &[&str] = match self.target {
            Target::Ilb => &["ilb"],
            Target::Pod => &["pod"],
            Target::SeveralPods => &["pod", "other"],
        };
        let port = self.arrives(port);
        let each = hosts
            .iter()
            .map(|host| answer(&format!("{host}:{port}"), seen));
        each.collect()
    }

    /// What is said at a port of the firewall; to be run on the client.
    fn ask(self, port: u16) -> Outcome {
        let to = socket(self.of(FIREWALL, FIREWALL_V6), port);
        match self.protocol {
            Protocol::Tcp => ask_tcp(&to),
            Protocol::Udp => ask_udp(&to),
        }
    }

    /// What is not as it should be; to be run on the client.
    fn faults(self) -> Vec<String> {
        let mut faults = Vec::new();
        for port in BTreeSet::from([self.listen, self.last()]) {
            let expected = self.answers(port);
            let mut missing = expected.clone();
            // Of two pods, one is left out by chance once in 2^63 times.
            for _ in 0..64 {
                let answer = self.ask(port);
                if !expected.contains(&answer) {
                    faults.push(format!("{self} at {port}: {answer:?}, not {expected:?}"));
                    return faults;
                }
                missing.retain(|one| *one != answer);
                if missing.is_empty() {
                    break;
                }
            }
            faults.extend(
                missing
                    .iter()
                    .map(|one| format!("{self} at {port}: never {one:?}")),
            );
        }
        // There are servers behind these: it is the firewall's own answer.
        for port in [self.listen - 1, self.last() + 1] {
            let answer = self.ask(port);
            if answer != Outcome::Refused {
                faults.push(format!("{self}, next to it at {port}: {answer:?}"));
            }
        }
        faults
    }
}

/// Each target answers with its name and the port at which it was reached.
fn serve(lab: &Lab, cells: &[Cell]) {
    let mut places = BTreeSet::new();
    for cell in cells {
        let hosts: &[&str] = match cell.target {
            Target::Ilb => &["ilb"],
            Target::Pod => &["pod"],
            Target::SeveralPods => &["pod", "other"],
        };
        let (first, last) = (cell.listen, cell.last());
        for port in [first - 1, first, last, last + 1] {
            for host in hosts {
                places.insert((*host, cell.protocol, cell.arrives(port)));
            }
        }
    }
    for (name, protocol, port) in places {
        let host = match name {
            "ilb" => &lab.ilb,
            "pod" => &lab.pod,
            _ => &lab.other,
        };
        let name = format!("{name}:{port}");
        match protocol {
            Protocol::Tcp => serve_tcp(host, name, port),
            Protocol::Udp => serve_udp(host, name, port),
        }
    }
}

/// Targets' own way back to the client leads through the firewall, as `snat: none` asks for.
fn route_back(lab: &Lab) {
    for (ip, client, firewall) in [
        ("ip -4", CLIENT, FIREWALL_EGRESS),
        ("ip -6", CLIENT_V6, FIREWALL_EGRESS_V6),
    ] {
        lab.vnet
            .run(&format!("{ip} route add default via {firewall} table 101"));
        for link in ["ilb", "pod", "other"] {
            lab.vnet
                .run(&format!("{ip} rule add iif {link} to {client} lookup 101"));
        }
    }
    // The router sees clients come from the firewall as well.
    lab.vnet
        .shell("for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $file; done");
}

lab_test!(each_kind_of_forward_works);
fn each_kind_of_forward_works(backend: Backend) {
    let lab = Lab::dual_stack_two_nics(backend);
    route_back(&lab);
    // Of several IPv6 addresses masquerading takes the last; one that is going out of use is not
    // taken (RFC 6724, rule 3).
    for address in [
        format!("{SNAT}/24"),
        format!("{SNAT_V6}/64 preferred_lft 0"),
    ] {
        let add = format!("ip address add {address} dev eth1");
        lab.firewall.run(&add);
    }
    // The kernel spares words where many closed ports are tried at once: here each is told of.
    lab.firewall.shell(
        "echo 0 > /proc/sys/net/ipv4/icmp_ratemask; echo 0 > /proc/sys/net/ipv6/icmp/ratemask",
    );
    let cells = cells();
    serve(&lab, &cells);
    let forwards: String = cells.iter().copied().map(Cell::forward).collect();
    lab.apply(&format!(
        "firewall:\n  interface: {{ingress: eth0, egress: eth1}}\n  snat: {{v4: {SNAT}, v6: \"{SNAT_V6}\"}}\n\
         forwards:\n{forwards}"
    ));
    let tried: BTreeMap<String, Vec<String>> = lab.client.enter(move || {
        let each = cells.iter().map(|cell| (cell.to_string(), cell.faults()));
        each.collect()
    });
    assert_eq!(tried.len(), CELLS);
    let faults: Vec<String> = tried.into_values().flatten().collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
