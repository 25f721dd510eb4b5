//! The text of a first spec.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::machine::{FoundMachine, FoundRules};
use super::sides::{ChosenSides, address, candidates, choose, passed_over};
use crate::forwards::{
    Balance, Destination, Firewall, Forward, ForwardPolicy, ForwardSet, ForwardTarget, Listen,
    Name, Snat, Sources, TargetKind, TargetPorts,
};
use crate::host::network::Link;
use crate::net::words::few;
use crate::net::{Family, Port, PortRange, Protocol};
use crate::yaml::{CommentedOut, Comments, spec_text};

/// The ports that an example listens on, the best first.
const PORTS: [u16; 4] = [8080, 8443, 8000, 9000];
/// Further ports, up to those that the kernel gives to connections of the machine itself (`ip_local_port_range`).
const FURTHER: std::ops::Range<u16> = 10_000..32_768;
/// The most ports that the comment lists.
const MOST_PORTS: usize = 20;
/// The most interfaces that a comment lists.
const MOST_INTERFACES: usize = 20;
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
            forward_policy: policy(found),
            layout: None,
        },
        forwards: Vec::new(),
        outbound: Vec::new(),
        tests: Vec::new(),
    };
    let comments = Comments {
        head: head(found),
        firewall: sides
            .reasons
            .iter()
            .cloned()
            .chain(policy_reason(found))
            .collect(),
        commented_out: examples(found, &sides),
        ..Comments::default()
    };
    spec_text(&set, &comments)
}

/// Returns the FORWARD policy of the spec: `drop`, unless rules forward already that would end with it.
fn policy(found: &FoundMachine) -> ForwardPolicy {
    match &found.rules {
        FoundRules::Read {
            numbers, policy, ..
        } if numbers.all() > 0 => *policy,
        _ => ForwardPolicy::Drop,
    }
}

/// Returns the reason for a policy that is kept.
fn policy_reason(found: &FoundMachine) -> Option<String> {
    (policy(found) == ForwardPolicy::Keep).then(|| {
        "The rules that forward already need the FORWARD policy, which accepts, so `forward_policy: keep` leaves it alone. \
         Once this spec has all that they forward, remove the line: the policy is DROP then."
            .to_owned()
    })
}

/// Returns the notes for the user: what was not looked at, and rules that forward already.
pub(super) fn notes(found: &FoundMachine) -> Vec<String> {
    /// The policy of a spec that does not say `keep`.
    const DROPS: &str =
        "If some do and the FORWARD policy accepts, applying this spec drops their packets.";
    let mut notes = Vec::new();
    if found.links.0.is_empty() {
        notes.push("the interfaces could not be listed: is iproute2 installed?".to_owned());
    }
    match &found.rules {
        FoundRules::NotRoot => notes.push(format!(
            "rules that forward already were not looked for, which needs root. {DROPS} To look: sudo nvactl init"
        )),
        FoundRules::Unread(why) => {
            notes.push(format!(
                "rules that forward already were not looked for: {why}. {DROPS}"
            ));
        }
        FoundRules::Read { .. } => notes.extend(forwards_already(found)),
    }
    notes
}

/// Returns the sentences about rules that forward already; `None` if there are none, or they are not known.
fn forwards_already(found: &FoundMachine) -> Option<String> {
    let FoundRules::Read {
        numbers,
        with_own,
        policy,
        ..
    } = &found.rules
    else {
        return None;
    };
    let applying = match (with_own, policy) {
        (true, _) => "Applying this spec removes those that are nvactl's.",
        (false, ForwardPolicy::Keep) => {
            "Applying this spec leaves them alone, since it keeps the FORWARD policy."
        }
        (false, ForwardPolicy::Drop) => "Applying this spec leaves them alone.",
    };
    (numbers.all() > 0).then(|| {
        format!(
            "rules of this machine forward already: {}. {applying} To write a spec from them: sudo nvactl import live -o imported.yaml",
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
    let listed = |links: Vec<&Link>| {
        let each = links.into_iter().map(|link| {
            let addresses: Vec<String> = link.addresses.iter().map(ToString::to_string).collect();
            format!("{} {}", link.name, addresses.join(" "))
        });
        few(each, MOST_INTERFACES)
    };
    let interfaces: Vec<&Link> = candidates(found).map(|(_, link)| link).collect();
    if !interfaces.is_empty() {
        lines.push(format!("Interfaces: {}", listed(interfaces)));
    }
    let others: Vec<&Link> = passed_over(found).collect();
    if !others.is_empty() {
        lines.push(format!(
            "Passed over, since other programs give their interfaces such names: {}",
            listed(others)
        ));
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
        Some(forward(
            name.parse().ok()?,
            (listen, destination, kind),
            sides,
            snat,
        ))
    };
    let through = example("web", None, TargetKind::Ilb).map(|piece| {
        let words = "to an internal load balancer; the port of the target is the one that the Service exposes";
        (words, piece)
    });
    let straight = own
        .and_then(|own| example("api", Some(own), TargetKind::Pod))
        .map(|piece| {
            (
                "to a pod, for clients of one address of this machine",
                piece,
            )
        });
    let examples = through.into_iter().chain(straight);
    let examples = examples.map(|(words, piece)| CommentedOut {
        lines: vec![format!("Example: {words}.")],
        pieces: vec![piece],
    });
    examples.collect()
}

/// Returns addresses for targets of examples: those of the article's cluster.
fn targets(family: Family) -> impl Iterator<Item = IpAddr> {
    (200..u8::MAX).rev().map(move |last| match family {
        Family::V4 => Ipv4Addr::new(10, 224, 0, last).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x224, 0, 0, 0, 0, 0, last.into()).into(),
    })
}

fn forward(
    name: Name,
    (listen, destination, kind): (Listen, Destination, TargetKind),
    sides: &ChosenSides,
    snat: Snat,
) -> Forward {
    Forward {
        name,
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::forwards::Numbers;
    use crate::host::listening::ListeningSocket;
    use crate::host::network::Links;
    use crate::yaml::{self, Code};

    fn link(name: &str, addresses: &[&str]) -> Link {
        let addresses = addresses
            .iter()
            .map(|text| text.parse().expect("an address"));
        Link {
            name: name.to_owned(),
            up: true,
            enabled: true,
            addresses: addresses.collect(),
            ..Link::default()
        }
    }

    /// A machine with these interfaces beside the loopback, and default routes by the first of them.
    fn machine(links: &[Link]) -> FoundMachine {
        let default = links.iter().take(1).flat_map(|link| {
            let families = Family::ALL.into_iter();
            let has = |family: &Family| address(link, *family).is_some();
            let families = families.filter(has);
            families.map(|family| (family, link.name.clone()))
        });
        FoundMachine {
            default: default.collect(),
            links: Links([&[link("lo", &["127.0.0.1", "::1"])], links].concat()),
            listening: Vec::new(),
            is_azure: false,
            rules: FoundRules::NotRoot,
        }
    }

    fn socket(protocol: Protocol, address: &str, port: u16) -> ListeningSocket {
        ListeningSocket {
            protocol,
            port: Port::new(port).expect("a port"),
            address: address.parse().expect("an address"),
        }
    }

    /// Checks a spec, as it is and without the `#` of its examples, and returns the forwards of the second.
    fn examples_of(text: &str) -> Vec<Forward> {
        let accepted = |text: &str| {
            let reading = yaml::examine(text.as_bytes());
            let problems = reading.problems.iter();
            let problems = problems.filter(|one| one.severity() != yaml::Severity::Note);
            // A policy that is kept is warned of, as in every spec.
            let problems = problems.filter(|one| one.kind.code() != Code::PolicyKept);
            let problems: Vec<_> = problems.map(|one| one.words().text).collect();
            assert_eq!(problems, [""; 0], "{text}");
            reading.set.expect("it has no error")
        };
        assert_eq!(accepted(text).forwards, [], "{text}");
        let lines = text.lines().map(|line| {
            let is_spec = line.starts_with("#  ") || line == "#forwards:";
            let line = if is_spec { &line[1..] } else { line };
            format!("{line}\n")
        });
        accepted(&lines.collect::<String>()).forwards
    }

    #[test]
    fn one_nic_is_both_sides() {
        let text = spec(&machine(&[link("eth0", &["10.3.0.4"])]));
        examples_of(&text);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_machine_with_all_that_can_be_said() {
        let mut found = machine(&[
            link("eth0", &["10.3.0.4", "fd00:3::4"]),
            link("eth1", &["10.4.0.4"]),
        ]);
        found.is_azure = true;
        found.listening = vec![
            socket(Protocol::Tcp, "0.0.0.0", 22),
            socket(Protocol::Tcp, "::", 22),
            socket(Protocol::Tcp, "127.0.0.53", 53),
            socket(Protocol::Tcp, "127.0.0.1", 8080),
            socket(Protocol::Udp, "10.3.0.4", 68),
        ];
        found.rules = FoundRules::Read {
            numbers: Numbers {
                forwards: 2,
                entries: 0,
            },
            with_own: false,
            policy: ForwardPolicy::Drop,
            listeners: vec!["8400-8500".parse().expect("ports")],
        };
        let text = spec(&found);
        let ports: Vec<String> = examples_of(&text)
            .iter()
            .map(|one| one.listen.to_string())
            .collect();
        assert_eq!(ports, ["8000", "10.3.0.4:9000"]);
        insta::assert_snapshot!(text);
        insta::assert_snapshot!(notes(&found).join("\n"));
    }

    /// The interfaces, the source and the examples of each machine. `check` accepts each.
    #[test]
    fn the_sides_are_those_of_the_machine() {
        let no_route = |links: &[Link]| FoundMachine {
            default: BTreeMap::new(),
            ..machine(links)
        };
        let eth0 = || link("eth0", &["10.3.0.4"]);
        let eth1 = || link("eth1", &["10.4.0.4"]);
        let down = Link {
            enabled: false,
            ..eth1()
        };
        let port_of_bridge = Link {
            bridge: Some("br0".to_owned()),
            ..eth1()
        };
        let second = Link {
            secondary: vec!["10.4.0.9".parse().expect("an address")],
            ..link("eth1", &["10.4.0.9", "10.4.0.4"])
        };
        let unnumbered = FoundMachine {
            default: [(Family::V4, "ppp0".to_owned())].into(),
            ..machine(&[link("ppp0", &[])])
        };
        let machines = [
            machine(&[eth0()]),
            machine(&[eth0(), eth1()]),
            machine(&[eth0(), second]),
            machine(&[eth0(), eth1(), link("eth2", &["10.5.0.4"])]),
            machine(&[eth0(), down]),
            machine(&[eth0(), port_of_bridge]),
            machine(&[
                eth0(),
                link("docker0", &["172.17.0.1"]),
                link("wg0", &["10.9.0.1"]),
            ]),
            // iptables has no such name.
            machine(&[eth0(), link("eth+", &["10.4.0.4"])]),
            machine(&[link("eth0", &["fd00:3::4"])]),
            machine(&[link("eth0", &["10.3.0.4", "fd00:3::4"]), eth1()]),
            machine(&[eth0(), link("eth1", &["fd00:4::4"])]),
            // The target of the first example is an address of the machine.
            machine(&[link("eth0", &["10.224.0.254"])]),
            no_route(&[eth0(), eth1()]),
            no_route(&[]),
            no_route(&[link("docker0", &["172.17.0.1"])]),
            unnumbered,
        ];
        let mut text = String::new();
        for found in machines {
            let sides = choose(&found);
            let (v4, v6) = (sides.snat.v4, sides.snat.v6);
            let shown = |snat: Option<Snat>| snat.map_or("-".to_owned(), |snat| snat.to_string());
            text += &format!(
                "{} > {}, snat {} {}\n",
                sides.ingress,
                sides.egress,
                shown(v4),
                shown(v6)
            );
            for reason in &sides.reasons {
                text += &format!("    {reason}\n");
            }
            for one in examples_of(&spec(&found)) {
                text += &format!("    {} {} -> {}\n", one.name, one.listen, one.reaches());
            }
        }
        insta::assert_snapshot!(text);
    }

    /// A name that only begins like one of another program is the machine's own.
    #[test]
    fn interfaces_of_other_programs_are_known_by_their_names() {
        let chosen = |name: &str| {
            let found = machine(&[link("eth0", &["10.3.0.4"]), link(name, &["10.4.0.4"])]);
            let text = spec(&found);
            let words = format!(
                "# Passed over, since other programs give their interfaces such names: {name} 10.4.0.4\n"
            );
            (choose(&found).egress.to_string(), text.contains(&words))
        };
        for name in [
            "local0",
            "tunnel0",
            "br-lan",
            "br-0123456789ag",
            "tapir",
            "eth1",
        ] {
            assert_eq!(chosen(name), (name.to_owned(), false));
        }
        for name in [
            "br-0123456789ab",
            "tun0",
            "tap12",
            "docker0",
            "virbr0",
            "wg0",
            "veth1a2b",
        ] {
            assert_eq!(chosen(name), ("eth0".to_owned(), true), "{name}");
        }
    }

    #[test]
    fn a_policy_that_rules_need_is_kept() {
        let mut found = machine(&[link("eth0", &["10.3.0.4"])]);
        let rules = |forwards, policy, with_own| FoundRules::Read {
            numbers: Numbers {
                forwards,
                entries: 0,
            },
            with_own,
            policy,
            listeners: Vec::new(),
        };
        for (forwards, policy, with_own, keeps, note) in [
            (
                1,
                ForwardPolicy::Keep,
                false,
                true,
                " Applying this spec leaves them alone, since it keeps the FORWARD policy. ",
            ),
            (
                1,
                ForwardPolicy::Drop,
                false,
                false,
                " Applying this spec leaves them alone. ",
            ),
            (
                2,
                ForwardPolicy::Drop,
                true,
                false,
                " Applying this spec removes those that are nvactl's. ",
            ),
            (0, ForwardPolicy::Keep, false, false, ""),
        ] {
            found.rules = rules(forwards, policy, with_own);
            let text = spec(&found);
            examples_of(&text);
            let is_kept = text.contains("\n  forward_policy: keep\n");
            let is_said =
                text.contains("\n# The rules that forward already need the FORWARD policy");
            assert_eq!((is_kept, is_said), (keeps, keeps), "{text}");
            let said = notes(&found).join("\n");
            assert!(said.contains(note), "{said}");
            assert_eq!(said.is_empty(), forwards == 0, "{said}");
        }
    }

    #[test]
    fn no_port_is_proposed_that_is_taken() {
        let mut found = machine(&[link("eth0", &["10.3.0.4"])]);
        for port in 1..20_000 {
            if port != 12_345 {
                let address = if port % 2 == 0 { "127.0.0.1" } else { "::" };
                found.listening.push(socket(Protocol::Tcp, address, port));
            }
        }
        let ports = |found: &FoundMachine| -> Vec<u16> {
            let all = examples_of(&spec(found));
            all.iter()
                .map(|one| one.listen.ports.first().number())
                .collect()
        };
        assert_eq!(ports(&found), [12_345, 20_000]);
        found.rules = FoundRules::Read {
            numbers: Numbers {
                forwards: 1,
                entries: 0,
            },
            with_own: false,
            policy: ForwardPolicy::Drop,
            listeners: vec!["12000-20100".parse().expect("ports")],
        };
        assert_eq!(ports(&found), [20_101, 20_102]);
        // There is no example if no port is free.
        found.rules = FoundRules::Read {
            numbers: Numbers {
                forwards: 1,
                entries: 0,
            },
            with_own: false,
            policy: ForwardPolicy::Drop,
            listeners: vec![PortRange::ALL],
        };
        assert_eq!(ports(&found), [0_u16; 0]);
    }
}
