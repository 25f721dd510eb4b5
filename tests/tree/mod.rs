//! Tests that a packet matches the same rules in a tree as in one chain, and how many rules it traverses there.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;
use nvactl::forwards::{Forward, ForwardSet, Layout};
use nvactl::net::{Family, Interface, Port, Protocol};
use nvactl::netfilter::names::{ChainName, TableName};
use nvactl::netfilter::rule::Rule;
use nvactl::netfilter::ruleset::Ruleset;
use nvactl::netfilter::target::{DnatPorts, Target};
use nvactl::plan::unplan::name_of;
use nvactl::plan::{Hook, plan_in};
use nvactl::yaml;

use crate::matcher::{Packet, deciders};

/// The plans of one spec in both layouts.
struct Plans {
    flat: Ruleset,
    tree: Ruleset,
}

impl Plans {
    fn of(set: &ForwardSet, family: Family) -> Self {
        let [flat, tree] = [Layout::Flat, Layout::Tree].map(|layout| plan_in(layout, set, family));
        Self { flat, tree }
    }

    /// Follows the first packet of a connection through the hooks, and asserts that the same rules match in both
    /// plans. Returns whether a forward takes the packet.
    fn assert_same_rules_match(&self, spec: &ForwardSet, packet: &Packet<'_>) -> bool {
        if self
            .flat
            .chain(Hook::Sent.table(), &Hook::Sent.own().into())
            .is_some()
        {
            let sent = Packet {
                ingress: None,
                ..packet.clone()
            };
            self.at(Hook::Sent, &sent);
        }
        let (rules, is_marked) = self.at(Hook::Arriving, packet);
        for rule in &rules {
            let (destination, port) = translated(packet, rule);
            let takes = |forward: &&Forward| {
                name_of(rule) == Some(forward.name.as_str()) && forward.protocol == packet.protocol
            };
            let forward = spec.forwards.iter().find(takes).expect("a forward");
            self.assert_both_are_limited(packet, rule, forward);
            // A repeated first packet does not traverse the nat table, and has no mark.
            for is_marked in [false, is_marked] {
                let passing = Packet {
                    destination,
                    port,
                    sent_to: Some((packet.destination, packet.port)),
                    egress: Some(&forward.egress),
                    is_marked,
                    ..packet.clone()
                };
                self.at(Hook::Passing, &passing);
                // A packet that leaves still has the interface by which it came in (Linux 5.5).
                let (_, stays_marked) = self.at(Hook::Leaving, &passing);
                assert!(!stays_marked, "{passing:?}");
            }
        }
        !rules.is_empty()
    }

    /// Asserts that the packet that opens a forward's connection and the answer to it meet a limit on segment sizes, if
    /// the spec has one.
    fn assert_both_are_limited(&self, packet: &Packet<'_>, dnat: &Rule, forward: &Forward) {
        let own = ChainName::from(Hook::Sizing.own());
        let is_planned = self.flat.chain(Hook::Sizing.table(), &own).is_some();
        if !is_planned || packet.protocol != Protocol::Tcp {
            return;
        }
        let (destination, port) = translated(packet, dnat);
        let opening = Packet {
            destination,
            port,
            sent_to: Some((packet.destination, packet.port)),
            egress: Some(&forward.egress),
            ..packet.clone()
        };
        let answer = Packet {
            source: Some(destination),
            reply_from: Some(port),
            destination: packet.source.unwrap_or(packet.destination),
            ingress: Some(&forward.egress),
            egress: packet.ingress,
            ..opening.clone()
        };
        for packet in [opening, answer] {
            let (rules, _) = self.at(Hook::Sizing, &packet);
            let is_limit = |rule: &&Rule| matches!(rule.target, Some(Target::TcpMss(_)));
            let names = rules.iter().copied().filter(is_limit).map(name_of);
            assert!(
                names
                    .collect::<Vec<_>>()
                    .contains(&Some(forward.name.as_str())),
                "{packet:?}"
            );
        }
    }

    /// Returns the rules that may decide on a packet at a hook, and whether it has the mark there in a tree.
    fn at(&self, hook: Hook, packet: &Packet<'_>) -> (Vec<&Rule>, bool) {
        let own = ChainName::from(hook.own());
        let (mut in_flat, mut in_tree) = (packet.clone(), packet.clone());
        let flat = deciders(&self.flat, hook.table(), &own, &mut in_flat);
        let tree = deciders(&self.tree, hook.table(), &own, &mut in_tree);
        if packet.is_marked {
            // The short-cut rules name no forward, so only the targets can be compared.
            let targets = |rules: &[&Rule]| -> Vec<_> {
                rules.iter().map(|rule| rule.target.clone()).collect()
            };
            assert_eq!(targets(&tree), targets(&flat), "{packet:?}");
        } else {
            assert_eq!(tree, flat, "{packet:?}");
        }
        (flat, in_tree.is_marked)
    }
}

/// Returns the destination that a DNAT rule gives a packet.
fn translated(packet: &Packet<'_>, rule: &Rule) -> (IpAddr, Port) {
    let Some(Target::Dnat { address, ports }) = &rule.target else {
        panic!("{rule} does not translate");
    };
    let port = match ports {
        DnatPorts::Kept => packet.port,
        DnatPorts::One(port) => *port,
        DnatPorts::Shifted { to, base } => {
            let number = to.first().number() + packet.port.number() - base.number();
            Port::new(number).expect("a port")
        }
    };
    (*address, port)
}

/// Asserts that first packets to each listener of a spec match the same rules in both layouts.
pub fn assert_same_rules_match(set: &ForwardSet, family: Family) {
    let plans = Plans::of(set, family);
    for forward in set.forwards.iter().filter(|one| one.family() == family) {
        let anywhere = match family {
            Family::V4 => IpAddr::from([10, 99, 0, 1]),
            Family::V6 => IpAddr::from([0xfd99, 0, 0, 0, 0, 0, 0, 1]),
        };
        let lists = forward.sources.allow.iter().chain([&forward.sources.deny]);
        let sources = lists.flat_map(|nets| nets.as_slice().iter().take(2).map(IpNet::addr));
        let sources: Vec<IpAddr> = sources.chain([anywhere]).collect();
        let ports = forward.listen.ports;
        for ingress in set.interfaces() {
            for port in [ports.first(), ports.last()] {
                for source in &sources {
                    let packet = Packet {
                        protocol: forward.protocol,
                        source: Some(*source),
                        destination: forward.listen.address.unwrap_or(anywhere),
                        port,
                        sent_to: None,
                        ingress: Some(ingress),
                        egress: None,
                        is_marked: false,
                        reply_from: None,
                    };
                    plans.assert_same_rules_match(set, &packet);
                }
            }
        }
    }
}

/// Returns forwards for both protocols, on all addresses and on some hundred addresses, with consecutive ports,
/// scattered ports and ranges.
fn many() -> ForwardSet {
    let mut text =
        "firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.3.0.4, mss: 1360}\nforwards:\n"
            .to_owned();
    let mut forward = |n: usize, listen: String, protocol: &str| {
        let (third, fourth) = (n / 250, n % 250 + 1);
        let _ = writeln!(
            text,
            "- {{name: f-{n}, listen: '{listen}', protocol: {protocol}, target: {{ilb: 10.224.{third}.{fourth}}}}}"
        );
    };
    for n in 0..300 {
        forward(n, format!("{}", 4000 + n), "tcp");
        forward(1000 + n, format!("{}", 1000 + 211 * n), "udp");
        let address = format!("10.3.{}.{}", n / 100, n % 100);
        forward(2000 + n, format!("{address}:{}", 4000 + n), "tcp");
    }
    for n in 0..20 {
        // The ranges lie within a block, or cross the boundary of a small or a large block.
        let first = 16_000 + 400 * n;
        forward(3000 + n, format!("{first}-{}", first + 390), "tcp");
        forward(
            4000 + n,
            format!("10.3.9.9:{}-{}", 50 * n + 51, 50 * n + 90),
            "tcp",
        );
    }
    for n in 0..200 {
        forward(5000 + n, format!("10.3.9.9:{}", 2001 + n), "udp");
    }
    yaml::read(text.as_bytes()).unwrap_or_else(|problems| panic!("{problems:?}"))
}

#[test]
fn a_packet_matches_the_same_rules_in_a_tree_and_in_one_chain() {
    let set = many();
    let plans = Plans::of(&set, Family::V4);
    let ingress: Interface = "eth0".parse().expect("a name");
    let mut ports: BTreeSet<u16> = [1, 1000, 65535].into();
    let mut addresses: BTreeSet<IpAddr> = ["10.3.0.4", "10.9.9.9"]
        .map(|address| address.parse().expect("an address"))
        .into();
    for forward in &set.forwards {
        let range = forward.listen.ports;
        let ends = [range.first().number(), range.last().number()];
        ports.extend(
            ends.iter()
                .flat_map(|end| [end - 1, *end, end.saturating_add(1)]),
        );
        addresses.extend(forward.listen.address);
    }
    ports.remove(&0);
    let mut found = 0;
    for (n, port) in ports.iter().enumerate() {
        // Each port is tried with two addresses in turn, and with the addresses of its own listeners.
        let few = addresses.iter().cycle().skip(n).take(2);
        let own = set.forwards.iter().filter_map(|forward| {
            let on = Port::new(*port).is_some_and(|port| forward.listen.ports.contains(port));
            forward.listen.address.filter(|_| on)
        });
        for address in few.copied().chain(own) {
            for protocol in Protocol::ALL {
                let packet = Packet {
                    protocol,
                    source: None,
                    destination: address,
                    port: Port::new(*port).expect("a port"),
                    sent_to: None,
                    ingress: Some(&ingress),
                    egress: None,
                    is_marked: false,
                    reply_from: None,
                };
                found += usize::from(plans.assert_same_rules_match(&set, &packet));
            }
        }
    }
    assert!(found > 1000, "only {found} packets found a forward");
}

fn set_with(option: &str, listens: impl Iterator<Item = String>) -> ForwardSet {
    let mut text =
        "firewall: {interface: eth0, snat: {v4: 10.3.0.4, v6: 'fd00::4'}, mss: clamp}\nforwards:\n"
            .to_owned();
    for (n, listen) in listens.enumerate() {
        let pod = if listen.starts_with('[') {
            "[fd00:9::9]"
        } else {
            "10.224.0.9"
        };
        let _ = writeln!(
            text,
            "- {{name: f-{n}, listen: '{listen}', target: {{pod: '{pod}:80'}}{option}}}"
        );
    }
    yaml::read(text.as_bytes()).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// Counts the rules that a packet traverses in a chain and those that it leads to, up to the first match of a
/// forward's rule. Returns whether there is such a match.
fn count_to_match(
    tree: &Ruleset,
    (table, chain): (TableName, &ChainName),
    packet: &Packet<'_>,
    forward: &str,
    rules: &mut usize,
) -> bool {
    for rule in &tree.chain(table, chain).expect("it is there").rules {
        *rules += 1;
        if packet.meets(rule) == Some(false) {
            continue;
        }
        if name_of(rule) == Some(forward) {
            return true;
        }
        match rule.target.as_ref().expect("every rule has one") {
            Target::Jump(next) if count_to_match(tree, (table, next), packet, forward, rules) => {
                return true;
            }
            Target::Goto(next) => {
                return count_to_match(tree, (table, next), packet, forward, rules);
            }
            _ => {}
        }
    }
    false
}

fn tree_of(set: &ForwardSet) -> Ruleset {
    plan_in(Layout::Tree, set, set.forwards[0].family())
}

/// Returns the most rules that a first packet traverses in a hook of a tree up to its forward's rule.
fn most_traversed(set: &ForwardSet, tree: &Ruleset, hook: Hook) -> usize {
    let family = set.forwards[0].family();
    let own = ChainName::from(hook.own());
    let longest = tree.chains().map(|(_, name, _)| name.as_str().len()).max();
    assert!(longest <= Some(28), "iptables refuses a longer name");
    let address = |address: &str| -> IpAddr { address.parse().expect("an address") };
    let target = address(match family {
        Family::V4 => "10.224.0.9",
        Family::V6 => "fd00:9::9",
    });
    let eth0: Interface = "eth0".parse().expect("a name");
    let each = set.forwards.iter().step_by(29).map(|forward| {
        let arriving = Packet {
            protocol: forward.protocol,
            source: None,
            destination: forward.listen.address.unwrap_or(address("10.99.0.1")),
            port: forward.listen.ports.first(),
            sent_to: None,
            ingress: Some(&eth0),
            egress: None,
            is_marked: false,
            reply_from: None,
        };
        let packet = match hook {
            Hook::Arriving | Hook::Sent => arriving,
            Hook::Sizing | Hook::Passing | Hook::Leaving => Packet {
                destination: target,
                port: Port::new(80).expect("a port"),
                sent_to: Some((arriving.destination, arriving.port)),
                egress: Some(&eth0),
                ..arriving
            },
        };
        let mut rules = 0;
        let place = (hook.table(), &own);
        let name = forward.name.as_str();
        assert!(
            count_to_match(tree, place, &packet, name, &mut rules),
            "{forward:?}"
        );
        rules
    });
    each.max().expect("there are forwards")
}

#[test]
fn a_packet_traverses_some_dozens_of_the_rules_of_ten_thousand_listeners() {
    let ports = |each: fn(u32) -> String| (0..10_000).map(each).collect();
    // Returns scattered numbers.
    let mixed = |n: u32| n.wrapping_mul(2_654_435_761);
    let addresses = |address: fn(u32, u32) -> String| -> Vec<String> {
        (0..5000).map(|n| address(n, mixed(n))).collect()
    };
    let cases: [(&str, Vec<String>); 8] = [
        ("side by side", ports(|n| (10_000 + n).to_string())),
        ("far apart", ports(|n| (1 + 6 * n).to_string())),
        (
            "on many addresses",
            ports(|n| format!("10.3.{}.{}:{}", n / 40 / 200, n / 40 % 200, 8000 + n % 40)),
        ),
        (
            "the same port of each address, and one far away",
            ports(|n| match n {
                0 => "192.0.2.9:443".to_owned(),
                n => format!("10.{}.{}.{}:443", n / 65_536, n / 256 % 256, n % 256),
            }),
        ),
        (
            "one of each /24",
            addresses(|n, _| format!("10.{}.{}.1:443", n / 256, n % 256)),
        ),
        (
            "anywhere",
            addresses(|_, mixed| {
                let [a, b, c, d] = mixed.to_be_bytes();
                format!("{}.{b}.{c}.{d}:443", 20 + a % 6)
            }),
        ),
        (
            "anywhere in a /64",
            addresses(|n, mixed| {
                format!("[fd00::{:x}:{:x}:{n:x}:1]:443", mixed >> 16, mixed & 0xffff)
            }),
        ),
        (
            "one of each /64",
            addresses(|n, _| format!("[fd00:0:0:{n:x}::1]:443")),
        ),
    ];
    for (what, listens) in cases {
        let set = set_with("", listens.iter().cloned());
        let most = most_traversed(&set, &tree_of(&set), Hook::Arriving);
        assert!(most <= 110, "{what}: {most} rules");
        // Forwards with options of their own do not use the short-cut rules.
        let set = set_with(
            if listens[0].starts_with('[') {
                ", allow_from: ['fd02::/64'], snat: 'fd00::5'"
            } else {
                ", allow_from: [192.0.2.0/24], snat: 10.3.0.5"
            },
            listens.into_iter(),
        );
        let tree = tree_of(&set);
        for hook in [Hook::Arriving, Hook::Sizing, Hook::Passing, Hook::Leaving] {
            let most = most_traversed(&set, &tree, hook);
            assert!(most <= 110, "{what}: {most} rules in {}", hook.own());
        }
    }
}

/// Two listeners share a port and a target, and a hairpin beside them needs the ingress in POSTROUTING.
#[test]
fn a_listener_beside_a_hairpin_matches_the_same_rules_in_a_tree() {
    let spec = "\
firewall: {interface: eth0, snat: \"fd00:3::3\", layout: tree}
forwards:
  - {name: near, listen: 1010, target: {ilb: \"[64:db8::]\"}, snat: masquerade, hairpin: true}
  - {name: one, listen: \"[fd00:3::6]:1010\", target: {ilb: \"[64:db8::]\"}}";
    let set = yaml::read(spec.as_bytes()).expect("it is valid");
    assert_same_rules_match(&set, Family::V6);
}
