//! The text of a first spec.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::machine::{FoundMachine, FoundRules};
use super::sides::{ChosenSides, address, candidates, choose};
use crate::forwards::{
    Balance, Destination, Firewall, Forward, ForwardPolicy, ForwardSet, ForwardTarget, Listen, Snat,
    Sources, TargetKind, TargetPorts,
};
use crate::net::words::few;
use crate::net::{Family, Port, PortRange, Protocol};
use crate::yaml::{CommentedOut, Comments, spec_text};

/// The ports that an example listens on, the best first.
const PORTS: [u16; 5] = [8080, 8443, 8000, 9000, 49181];
/// Further ports, up to those that the kernel gives to connections of the machine itself (`ip_local_port_range`).
const FURTHER: std::ops::Range<u16> = 10_000..32_768;
/// The most ports that the comment lists.
const MOST_PORTS: usize = 20;
/// The port of the targets of the examples.
const HTTP: u16 = 80;

/// Returns the text of a first spec. `check` accepts it, also without the `#` of its examples.
pub(super) fn spec(found: &FoundMachine) -> String {
    let sides = choose(found);
    let set = ForwardSet {
        description: None,
        firewall: Firewall {
            ingress: vec![sides.ingress.clone()],
            egress: sides.egress.clone(),
            snat: sides.snat,
            mss: None,
            forward_policy: ForwardPolicy::Drop,
            layout: None,
        },
        forwards: Vec::new(),
        outbound: Vec::new(),
        tests: Vec::new(),
    };
    let comments = Comments {
        head: head(found),
        firewall: sides.reasons.clone(),
        commented_out: examples(found, &sides),
        ..Comments::default()
    };
    spec_text(&set, &comments)
}

/// Returns the notes for the user: what was not looked at, and rules that forward already.
pub(super) fn notes(found: &FoundMachine) -> Vec<String> {
    let mut notes = Vec::new();
    if found.links.0.is_empty() {
        notes.push("the interfaces could not be listed: is iproute2 installed?".to_owned());
    }
    match &found.rules {
        FoundRules::NotRoot => notes.push(
            "rules that forward already were not looked for, which needs root: sudo nvactl init"
                .to_owned(),
        ),
        FoundRules::Unread(why) => {
            notes.push(format!("rules that forward already were not looked for: {why}"));
        }
        FoundRules::Read { .. } => notes.extend(forwards_already(found)),
    }
    notes
}

/// Returns the sentence about rules that forward already; `None` if there are none, or they are not known.
fn forwards_already(found: &FoundMachine) -> Option<String> {
    let FoundRules::Read { numbers, .. } = &found.rules else {
        return None;
    };
    (numbers.forwards + numbers.entries > 0).then(|| {
        format!(
            "rules of this machine forward already: {}. To write a spec from them: sudo nvactl import live -o imported.yaml",
            numbers.words()
        )
    })
}

fn head(found: &FoundMachine) -> Vec<String> {
    let mut lines = vec![
        "Written by nvactl init for this machine. It has no forward yet: remove the `#` at the beginning of the lines of \
         an example, and write your own port and target."
            .to_owned(),
    ];
    let interfaces = candidates(found).map(|(name, link)| {
        let addresses: Vec<String> = link.addresses.iter().map(ToString::to_string).collect();
        format!("{name} {}", addresses.join(" "))
    });
    let interfaces: Vec<String> = interfaces.collect();
    if !interfaces.is_empty() {
        lines.push(format!("Interfaces: {}", interfaces.join(", ")));
    }
    if let Some(ports) = taken_ports(found) {
        lines.push(format!(
            "Ports of this machine's own programs, which a forward on them would take: {ports}"
        ));
    }
    if found.is_azure {
        lines.push(
            "This is a virtual machine of Azure: its network security group must let clients reach the listen ports."
                .to_owned(),
        );
    }
    lines.extend(forwards_already(found).map(|words| format!("Note: {words}")));
    lines
}

/// Returns the ports on which programs listen for others than the machine itself.
fn taken_ports(found: &FoundMachine) -> Option<String> {
    let others = found
        .listening
        .iter()
        .filter(|socket| !socket.address.is_loopback());
    let others = others.map(|socket| (socket.protocol, socket.port));
    let mut ports: Vec<(Protocol, Port)> = others.collect();
    ports.sort_unstable();
    ports.dedup();
    let ports = ports
        .iter()
        .map(|(protocol, port)| format!("{protocol}/{port}"));
    let ports: Vec<String> = ports.collect();
    (!ports.is_empty()).then(|| few(ports, MOST_PORTS))
}

/// Returns the examples: a forward to a load balancer, and one to a pod that listens on one address.
fn examples(found: &FoundMachine, sides: &ChosenSides) -> Vec<CommentedOut> {
    let family = match (sides.snat.v4, sides.snat.v6) {
        (None, Some(_)) => Family::V6,
        _ => Family::V4,
    };
    let Some(snat) = sides.snat.of(family) else {
        return Vec::new();
    };
    let own = found.links.get(&sides.ingress);
    let own = own.and_then(|link| address(link, family));
    let mut ports = PORTS
        .into_iter()
        .chain(FURTHER)
        .filter_map(Port::new)
        .filter(|port| found.is_free(*port));
    let mut targets = targets(family).filter(|address| found.links.owner(*address).is_none());
    let mut example = |name: &str, address: Option<IpAddr>, kind| {
        let listen = Listen {
            address,
            ports: PortRange::from(ports.next()?),
        };
        let destination = Destination {
            address: targets.next()?,
            ports: TargetPorts::Range(PortRange::from(Port::new(HTTP)?)),
        };
        Some(forward(name, (listen, destination, kind), sides, snat))
    };
    let through = example("web", None, TargetKind::Ilb).map(|piece| {
        let words = "to an internal load balancer; the port of the target is the one that the Service exposes";
        (words, piece)
    });
    let straight = own
        .and_then(|own| example("api", Some(own), TargetKind::Pod))
        .map(|piece| ("to a pod, for clients of one address of this machine", piece));
    let examples = through.into_iter().chain(straight);
    let examples = examples.map(|(words, piece)| CommentedOut {
        lines: vec![format!("Example: {words}.")],
        pieces: vec![piece],
    });
    examples.collect()
}

/// Returns addresses for targets of examples: those of the article's cluster.
fn targets(family: Family) -> impl Iterator<Item = IpAddr> {
    (200..=u8::MAX - 1).rev().map(move |last| match family {
        Family::V4 => Ipv4Addr::new(10, 224, 0, last).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x224, 0, 0, 0, 0, 0, last.into()).into(),
    })
}

fn forward(
    name: &str,
    (listen, destination, kind): (Listen, Destination, TargetKind),
    sides: &ChosenSides,
    snat: Snat,
) -> Forward {
    Forward {
        name: name.parse().expect("it is a name"),
        description: None,
        listen,
        protocol: Protocol::Tcp,
        target: ForwardTarget {
            kind,
            destinations: vec![destination],
            balance: Balance::Random,
        },
        ingress: vec![sides.ingress.clone()],
        egress: sides.egress.clone(),
        snat,
        sources: Sources::default(),
        limits: None,
        log: None,
        hairpin: false,
    }
}
