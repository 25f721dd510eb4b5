//! The connections that are opened through a twin for the forwards and outbound entries of a spec.

mod ask;
mod budget;
mod outbound;
mod questions;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub(super) use ask::reached;
pub use ask::{Ask, NamedEnd, Subject, Wanted};

use super::clients::Clients;
use super::machine::Machine;
use super::world::World;
use crate::forwards::{Forward, Limits, Outbound, Snat, Sources, rows};
use crate::net::{Family, Interface, Protocol};
use crate::plan::unplan::ForwardKey;
use budget::Budget;
use outbound::{OutboundQuestions, OutboundShape};
use questions::ForwardQuestions;

/// Forwards and outbound entries whose rules may not be as the spec says, so that only their own connections show their
/// effect.
#[derive(Debug, Default)]
pub struct InDoubt<'n> {
    pub forwards: BTreeSet<ForwardKey<'n>>,
    /// Entries by name.
    pub entries: BTreeSet<&'n str>,
}

/// Returns the connections for each forward and outbound entry: first a plain one and one that must not come through.
/// After these of all come all others, for one of each shape and for each that is in doubt.
#[must_use]
pub fn battery<'f>(
    forwards: &[&'f Forward],
    entries: &[&'f Outbound],
    clients: &Clients,
    machine: &Machine,
    worlds: &[World],
    in_doubt: &InDoubt<'_>,
) -> Vec<Ask<'f>> {
    let mut shapes: BTreeSet<Shape<'f>> = BTreeSet::new();
    let (mut asks, mut rest) = (Vec::new(), Vec::new());
    // Each forward has its own client of the Internet: a rule may ban a client for what it asked of another forward.
    let mut numbers = forwards.len()..;
    // The listeners of one forward share its limits.
    let mut budgets: BTreeMap<ForwardKey<'_>, Budget> = BTreeMap::new();
    for (number, forward) in forwards.iter().enumerate() {
        let of_forward = clients.of_forward(forward, number);
        let questions = ForwardQuestions {
            forward,
            machine,
            clients,
            worlds,
        };
        let (mut brief, mut more) = (Vec::new(), Vec::new());
        questions.brief(&of_forward, &mut brief);
        questions.shares(&of_forward, &mut numbers, &mut more);
        questions.named_ports(&of_forward, &clients.ports, &mut more);
        let key = (forward.name.as_str(), forward.protocol);
        if shapes.insert(Shape::of(forward)) || in_doubt.forwards.contains(&key) {
            questions.rest(&of_forward, &mut more);
        }
        let budget = budgets.entry(key);
        let budget = budget.or_insert_with(|| Budget::of(forward.limits, 1));
        brief.retain_mut(|ask| budget.takes(ask));
        more.retain_mut(|ask| budget.takes(ask));
        asks.append(&mut brief);
        rest.append(&mut more);
    }
    let mut shapes = BTreeSet::new();
    for entry in entries {
        let questions = OutboundQuestions {
            entry,
            entries,
            hosts: &clients.of_entry(entry),
            is_closed: clients.is_closed,
            worlds,
        };
        let (mut brief, mut more) = (Vec::new(), Vec::new());
        questions.brief(&mut brief);
        let is_in_doubt = in_doubt.entries.contains(entry.name.as_str());
        if shapes.insert(OutboundShape::of(entry)) || is_in_doubt {
            questions.rest(&mut more);
        }
        questions.named(&clients.ports, &mut more);
        let mut budget = Budget::of(entry.limits, 1);
        brief.retain_mut(|ask| budget.takes(ask));
        more.retain_mut(|ask| budget.takes(ask));
        asks.append(&mut brief);
        rest.append(&mut more);
    }
    asks.append(&mut rest);
    asks
}

/// Returns, for each forward, a plain connection of every client that it admits.
pub fn plain<'a, 'f: 'a>(
    forwards: &'a [&'f Forward],
    clients: &'a Clients,
    machine: &'a Machine,
    worlds: &'a [World],
) -> impl Iterator<Item = Ask<'f>> + 'a {
    let rows = rows(forwards).scan(0, |next, row| {
        let first = *next;
        *next += row.len();
        Some((first, row))
    });
    rows.flat_map(move |(first, row)| {
        let asks = row.iter().zip(first..).flat_map(move |(forward, number)| {
            let questions = ForwardQuestions {
                forward,
                machine,
                clients,
                worlds,
            };
            let port = forward.listen.ports.first();
            let admitted = clients.of_forward(forward, number).allowed.into_iter();
            admitted
                .filter_map(move |(client, by)| questions.ask(&client, by, port, Wanted::Through))
        });
        // Each connection may be opened twice. The listeners of one forward share its limits.
        let mut budget = Budget::of(row[0].limits, 2);
        asks.filter_map(move |mut ask| budget.takes(&mut ask).then_some(ask))
    })
}

/// Returns, for each outbound entry, a plain connection of every source.
#[must_use]
pub fn plain_outward<'f>(
    entries: &[&'f Outbound],
    clients: &Clients,
    worlds: &[World],
) -> Vec<Ask<'f>> {
    let each = entries.iter().flat_map(|entry| {
        let questions = OutboundQuestions {
            entry,
            entries,
            hosts: &clients.of_entry(entry),
            is_closed: clients.is_closed,
            worlds,
        };
        // Each connection may be opened twice.
        let mut budget = Budget::of(entry.limits, 2);
        let mut asks = questions.plain();
        asks.retain_mut(|ask| budget.takes(ask));
        asks
    });
    each.collect()
}

/// Everything about a forward but its ports and targets.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shape<'f> {
    protocol: Protocol,
    family: Family,
    address: Option<IpAddr>,
    ingress: &'f [Interface],
    egress: &'f Interface,
    snat: Snat,
    sources: &'f Sources,
    limits: Option<Limits>,
    hairpin: bool,
    targets: usize,
}

impl<'f> Shape<'f> {
    fn of(forward: &'f Forward) -> Self {
        // Without `..`, a new option does not compile until somebody has decided about it.
        let Forward {
            name: _,
            description: _,
            listen,
            protocol,
            target,
            ingress,
            egress,
            snat,
            sources,
            limits,
            // A line in the log changes no packet.
            log: _,
            hairpin,
        } = forward;
        Self {
            protocol: *protocol,
            family: forward.family(),
            address: listen.address,
            ingress,
            egress,
            snat: *snat,
            sources,
            limits: *limits,
            hairpin: *hairpin,
            targets: target.destinations.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;
    use crate::forwards::ForwardSet;
    use crate::twin::clients::{ClientKind, NamedInRules};
    use crate::twin::machine::MachineLink;
    use crate::yaml;

    fn set(forwards: &str) -> ForwardSet {
        let text = format!(
            "firewall: {{interface: {{ingress: eth0, egress: eth1}}, snat: 10.4.0.4}}\n\
             silence: [keeps-probes-out]\nforwards: [{forwards}]"
        );
        yaml::read(text.as_bytes()).expect("the spec is valid")
    }

    fn asking(set: &ForwardSet) -> (Machine, Vec<World>, Clients) {
        let machine = Machine {
            links: vec![
                MachineLink::with("eth0", &["10.3.0.4/24"]),
                MachineLink::with("eth1", &["10.4.0.4/24"]),
            ],
            ..Machine::default()
        };
        let worlds: Vec<World> = machine.links.iter().map(World::of).collect();
        let none = NamedInRules::default();
        let clients = Clients::of(set, Family::V4, &machine, &[], &none, |asked| {
            asked.iter().map(|one| (*one, "eth0".to_owned())).collect()
        });
        (machine, worlds, clients)
    }

    fn asked(set: &ForwardSet) -> Vec<Ask<'_>> {
        let (machine, worlds, clients) = asking(set);
        let forwards: Vec<&Forward> = set.forwards.iter().collect();
        battery(
            &forwards,
            &[],
            &clients,
            &machine,
            &worlds,
            &InDoubt::default(),
        )
    }

    /// Only the forward's own connections show whether a rule that is not loaded is missed.
    #[test]
    fn a_forward_in_doubt_gets_all_connections() {
        let set = set(
            "{name: a, listen: 80-81, target: {pod: 10.224.0.8:80-81}}, \
             {name: b, listen: 82-83, target: {pod: 10.224.0.9:82-83}}",
        );
        let (machine, worlds, clients) = asking(&set);
        let forwards: Vec<&Forward> = set.forwards.iter().collect();
        for in_doubt in [None, Some(("b", Protocol::Tcp))] {
            let in_doubt = InDoubt {
                forwards: in_doubt.into_iter().collect(),
                ..InDoubt::default()
            };
            let asks = battery(&forwards, &[], &clients, &machine, &worlds, &in_doubt);
            let last = |ask: &Ask<'_>| ask.question.to.port() == 83;
            assert_eq!(asks.iter().any(last), !in_doubt.forwards.is_empty());
        }
    }

    #[test]
    fn an_address_of_a_load_balancer_on_the_loopback_interface_is_asked() {
        let set = set("{name: a, listen: 80, target: {pod: 10.224.0.8:80}}");
        let (mut machine, worlds, clients) = asking(&set);
        machine
            .links
            .push(MachineLink::with("lo", &["20.10.5.6/32"]));
        let forwards: Vec<&Forward> = set.forwards.iter().collect();
        let asks = battery(
            &forwards,
            &[],
            &clients,
            &machine,
            &worlds,
            &InDoubt::default(),
        );
        let floating = |ask: &Ask<'_>| ask.question.to.to_string() == "20.10.5.6:80";
        assert!(asks.iter().any(floating));
    }

    /// The connection would go to the other forward.
    #[test]
    fn an_address_that_another_forward_listens_on_is_not_asked() {
        let set = set("{name: a, listen: 80, target: {pod: 10.224.0.8:80}}, \
             {name: b, listen: '10.3.0.4:80', target: {pod: 10.224.0.9:80}}");
        let (mut machine, worlds, clients) = asking(&set);
        machine.links[0] = MachineLink::with("eth0", &["10.3.0.4/24", "10.3.0.5/24"]);
        let forwards: Vec<&Forward> = set.forwards.iter().collect();
        let none = InDoubt::default();
        let asks = battery(&forwards, &[], &clients, &machine, &worlds, &none);
        let of_all = asks.iter().filter(|ask| ask.of.name().as_str() == "a");
        let to: BTreeSet<String> = of_all.map(|ask| ask.question.to.to_string()).collect();
        assert_eq!(to.into_iter().collect::<Vec<_>>(), ["10.3.0.5:80"]);
    }

    /// If the time limit is reached, all forwards have been tried in brief.
    #[test]
    fn every_forward_has_its_first_connections_before_one_has_the_rest() {
        let list = "allow_from: [198.51.100.0/24]";
        let set = set(&format!(
            "{{name: a, listen: 80-81, target: {{pod: 10.224.0.8:80-81}}, {list}}}, \
             {{name: b, listen: 82, target: {{pod: 10.224.0.9:80}}, {list}}}"
        ));
        let asks = asked(&set);
        let words = |ask: &Ask<'_>| format!("{} {} {:?}", ask.of.name(), ask.is_brief, ask.wanted);
        let brief: Vec<String> = asks.iter().take(4).map(words).collect();
        assert_eq!(
            brief,
            [
                "a true Through",
                "a true KeptOut",
                "b true Through",
                "b true KeptOut"
            ]
        );
        // Both have one shape, so only the first has the rest.
        let rest = &asks[4..];
        assert!(!rest.is_empty());
        assert!(
            rest.iter()
                .all(|ask| !ask.is_brief && ask.of.name().as_str() == "a")
        );
    }

    #[test]
    fn a_forward_with_several_targets_has_one_connection_that_is_tried_several_times() {
        let pods = "target: {pod: [10.224.0.8:80, 10.224.0.9:80]}";
        for (more, times) in [
            ("", 16),
            (", balance: client", 1),
            (", limits: {max_connections: 3}", 3),
        ] {
            let set = set(&format!("{{name: a, listen: 80, {pods}{more}}}"));
            let asks = asked(&set);
            assert_eq!((asks[0].times, asks[0].is_brief), (times, true), "{more}");
            assert!(asks[1..].iter().all(|ask| !ask.is_brief));
        }
    }

    /// The kernel counts each connection towards the forward's own limit.
    #[test]
    fn no_more_connections_are_opened_than_limits_admit() {
        let list = "198.51.100.0/24, 203.0.113.0/24, 192.0.2.0/24, 81.0.0.0/8, 10.3.0.0/24";
        for (limits, least, most) in [
            ("{new_per_second: 1, burst: 1}", 1, 1),
            ("{new_per_second: 1, burst: 3}", 3, 3),
            ("{new_per_second: 50}", 7, 50),
            ("{new_per_second: 1, burst: 1, per: client}", 5, 7),
        ] {
            let set = set(&format!(
                "{{name: a, listen: 80-81, target: {{pod: 10.224.0.8:80-81}}, \
                 allow_from: [{list}], limits: {limits}}}"
            ));
            let asks = asked(&set);
            let through = asks.iter().filter(|ask| ask.wanted == Wanted::Through);
            let times: usize = through.map(|ask| ask.times).sum();
            assert!(least <= times && times <= most, "{limits}: {times}");
        }
    }

    #[test]
    fn the_listeners_of_a_forward_share_its_limits() {
        let set = set(
            "{name: a, listen: [80, 81, 82], target: {pod: 10.224.0.8}, limits: {new_per_second: 1, burst: 2}}, \
             {name: b, listen: [83, 84], target: {pod: 10.224.0.8}, limits: {max_connections: 9}}",
        );
        let (machine, worlds, clients) = asking(&set);
        let forwards: Vec<&Forward> = set.forwards.iter().collect();
        let of = |asks: &[Ask<'_>], name: &str| -> usize {
            let of_name = asks.iter().filter(|ask| ask.of.name().as_str() == name);
            of_name.map(|ask| ask.times).sum()
        };
        let asks = asked(&set);
        assert_eq!(of(&asks, "a"), 2);
        assert!(of(&asks, "b") <= 8);
        // Each may be opened twice.
        let asks: Vec<Ask<'_>> = plain(&forwards, &clients, &machine, &worlds).collect();
        assert_eq!(of(&asks, "a"), 1);
    }

    #[test]
    fn a_forward_that_chooses_targets_by_client_is_tried_with_many_addresses() {
        let pods = "target: {pod: [10.224.0.8:80, 10.224.0.9:80]}, balance: client";
        for (list, net) in [
            ("", "81.2.0.0/16"),
            (", allow_from: [192.0.2.0/24]", "192.0.2.0/24"),
        ] {
            let set = set(&format!("{{name: a, listen: 80, {pods}{list}}}"));
            let asks = asked(&set);
            let spare = asks.iter().filter(|ask| ask.is_spare);
            let addresses: BTreeSet<IpAddr> = spare.map(|ask| ask.client.address).collect();
            assert_eq!(addresses.len(), 16);
            let net: IpNet = net.parse().expect("a network");
            assert!(addresses.iter().all(|address| net.contains(address)));
        }
    }

    /// A rule may ban a client for what it asked of another forward.
    #[test]
    fn each_forward_has_a_client_of_its_own() {
        let forwards = (80..84)
            .map(|n| format!("{{name: f{n}, listen: {n}, target: {{pod: 10.224.0.8:80}}}}"));
        let set = set(&forwards.collect::<Vec<_>>().join(", "));
        let asks = asked(&set);
        let somebody = |ask: &&Ask<'_>| ask.client.kind == ClientKind::Somebody && ask.is_brief;
        let addresses = asks.iter().filter(somebody).map(|ask| ask.client.address);
        assert_eq!(addresses.collect::<BTreeSet<_>>().len(), 4);
    }

    #[test]
    fn an_address_that_stands_alone_on_another_interface_is_asked() {
        let set = set("{name: a, listen: 80, target: {pod: 10.224.0.8:80}}");
        let (mut machine, worlds, clients) = asking(&set);
        machine.links[1] = MachineLink::with("eth1", &["10.4.0.4/24", "20.1.1.1/32"]);
        let forwards: Vec<&Forward> = set.forwards.iter().collect();
        let asks = battery(
            &forwards,
            &[],
            &clients,
            &machine,
            &worlds,
            &InDoubt::default(),
        );
        let to: BTreeSet<String> = asks.iter().map(|ask| ask.question.to.to_string()).collect();
        assert_eq!(
            to.into_iter().collect::<Vec<_>>(),
            ["10.3.0.4:80", "20.1.1.1:80"]
        );
    }

    /// A comparison of each shape with each other would take minutes.
    #[test]
    fn ten_thousand_shapes_are_told_apart_within_a_second() {
        let one = |n: u16| {
            format!(
                "{{name: f{n}, listen: {}, target: {{pod: 10.224.0.8:80}}, allow_from: [10.{}.{}.0/24]}}",
                n + 1000,
                n >> 8,
                n & 0xff
            )
        };
        let forwards: Vec<String> = (0..10_000).map(one).collect();
        let set = set(&forwards.join(", "));
        let asks = asked(&set);
        assert!(asks[..20_000].iter().all(|ask| ask.is_brief));
    }
}
