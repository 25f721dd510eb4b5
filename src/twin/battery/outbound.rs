//! The connections of one outbound entry.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::ask::{Ask, NamedEnd, Subject, Wanted};
use super::questions::{LONG, PORTS, REQUEST, plain_answer};
use crate::forwards::{Destinations, Limits, METADATA, Nets, Outbound, OutboundProtocol, Snat};
use crate::net::{Family, Interface, Port, Protocol};
use crate::twin::clients::{OfEntry, SampleClient};
use crate::twin::talk::{From, Question};
use crate::twin::world::World;

/// The port of a connection if the entry names none.
const HTTPS: u16 = 443;
/// The port at which Azure's metadata service answers.
const HTTP: u16 = 80;

/// An outbound entry with everything that its connections depend on.
pub struct OutboundQuestions<'b, 'f> {
    pub entry: &'f Outbound,
    /// All entries of the family, in the order in which packets meet them.
    pub entries: &'b [&'f Outbound],
    pub hosts: &'b OfEntry<'f>,
    /// Whether the spec lets no connection pass that no entry accepts.
    pub is_closed: bool,
    pub worlds: &'b [World],
}

/// A connection without its end.
struct Way<'b, 'f> {
    from: &'b (SampleClient, &'f Interface),
    to: IpAddr,
    protocol: Protocol,
    port: Port,
}

impl<'b, 'f> OutboundQuestions<'b, 'f> {
    /// Adds a plain connection, and one that the entry does not let out.
    pub fn brief(&self, asks: &mut Vec<Ask<'f>>) {
        let passing = self.passing().next();
        let passing = passing.and_then(|way| self.ask(&way, Wanted::Through));
        let kept = self.kept().find_map(|way| self.ask(&way, Wanted::KeptOut));
        asks.extend(passing.into_iter().chain(kept).map(|ask| Ask {
            is_brief: true,
            ..ask
        }));
    }

    /// Returns a plain connection of every source.
    pub fn plain(&self) -> Vec<Ask<'f>> {
        let Some(first) = self.passing().next() else {
            return Vec::new();
        };
        let alike = self.passing().filter(|way| {
            (way.to, way.protocol, way.port) == (first.to, first.protocol, first.port)
        });
        alike
            .filter_map(|way| self.ask(&way, Wanted::Through))
            .collect()
    }

    /// Adds all other connections: a large request, the other protocol, the last port, each source, each destination,
    /// and all others that the entry does not let out.
    pub fn rest(&self, asks: &mut Vec<Ask<'f>>) {
        let Some(first) = self.passing().next() else {
            return;
        };
        if first.protocol == Protocol::Tcp {
            asks.extend(self.ask(&first, Wanted::Through).map(|mut ask| {
                ask.question.request = LONG;
                ask
            }));
        }
        let is_beside = |way: &Way<'_, '_>| {
            // The ways that differ from the first in one thing alone.
            let same = [
                way.protocol == first.protocol,
                way.port == first.port,
                std::ptr::eq(way.from, first.from),
                way.to == first.to,
            ];
            same.into_iter().filter(|same| !same).count() == 1
        };
        // Whether an earlier entry decides is asked last, because that looks at all entries.
        let others = self.ways().filter(is_beside);
        let others = others.filter(|way| self.passes(way));
        asks.extend(others.filter_map(|way| self.ask(&way, Wanted::Through)));
        let kept = self
            .kept()
            .filter_map(|way| self.ask(&way, Wanted::KeptOut));
        // The first is among the few that every entry gets.
        asks.extend(kept.skip(1));
    }

    /// Adds a connection for each destination and each port that rules of others name and the entry accepts.
    pub fn named(&self, ports: &BTreeSet<u16>, asks: &mut Vec<Ask<'f>>) {
        let Some(first) = self.passing().next() else {
            return;
        };
        let of_each = |named: NamedEnd, to: IpAddr, port: Port| {
            protocols(self.entry).map(move |protocol| {
                let named = match named {
                    NamedEnd::Port(..) => NamedEnd::Port(protocol, port),
                    destination @ NamedEnd::Destination(_) => destination,
                };
                let from = first.from;
                let way = Way {
                    from,
                    to,
                    protocol,
                    port,
                };
                (way, named)
            })
        };
        let destinations = self.hosts.named_destinations.iter();
        let destinations = destinations
            .flat_map(|(net, to)| of_each(NamedEnd::Destination(*net), *to, first.port));
        let is_meant = |port: &Port| {
            let mut of_entry = self.entry.ports.iter();
            self.entry.ports.is_empty() || of_entry.any(|range| range.contains(*port))
        };
        let known: BTreeSet<u16> = self::ports(self.entry).map(Port::number).collect();
        let ports = ports.difference(&known).copied().filter_map(Port::new);
        let ports = ports.filter(is_meant).take(PORTS);
        let ports =
            ports.flat_map(|port| of_each(NamedEnd::Port(first.protocol, port), first.to, port));
        let named = destinations.chain(ports);
        let named = named.filter(|(way, _)| self.passes(way));
        asks.extend(named.filter_map(|(way, named)| {
            // The spec names the ports of an entry that has some: no ban of such a port is meant.
            let is_in_spec = matches!(named, NamedEnd::Port(..)) && !self.entry.ports.is_empty();
            Some(Ask {
                named: (!is_in_spec).then_some(named),
                ..self.ask(&way, Wanted::Through)?
            })
        }));
    }

    /// Returns the connections that the entry accepts. Earlier entries decide on none of them.
    fn passing(&self) -> impl Iterator<Item = Way<'b, 'f>> {
        self.ways().filter(|way| self.passes(way))
    }

    /// Returns the connections of each sender, destination, protocol and port of the entry.
    fn ways(&self) -> impl Iterator<Item = Way<'b, 'f>> {
        self.hosts.destinations.iter().flat_map(move |to| {
            let of = |protocol| ports(self.entry).map(move |port| (protocol, port));
            let each = protocols(self.entry).flat_map(of);
            each.flat_map(move |(protocol, port)| {
                let senders = self.hosts.senders.iter();
                senders.map(move |from| Way {
                    from,
                    to: *to,
                    protocol,
                    port,
                })
            })
        })
    }

    /// Returns whether this entry is the first that decides on a connection, and accepts it.
    fn passes(&self, way: &Way<'_, '_>) -> bool {
        if self.is_direct(way) {
            return false;
        }
        let (from, by) = (way.from.0.address, way.from.1);
        let decides = |one: &&&Outbound| {
            one.egress == self.entry.egress
                && one.ingress.contains(by)
                && one.selects(way.protocol, from, way.to, way.port)
        };
        let first = self.entries.iter().find(decides);
        first.is_some_and(|first| std::ptr::eq(*first, self.entry))
            && self.entry.accepts(way.protocol, from, way.to, way.port)
    }

    /// Returns the connections that neither this entry nor another accepts, the plainest first: of a source outside,
    /// to a destination outside, and those that the entry drops.
    fn kept(&self) -> impl Iterator<Item = Way<'b, 'f>> {
        let sender = self.hosts.senders.first();
        let to = self.hosts.destinations.first();
        let from = self.hosts.denied_senders.iter();
        let from = from.filter_map(move |from| Some((from, *to?)));
        let beyond = self.hosts.denied_destinations.iter();
        let beyond = beyond.filter_map(move |to| Some((sender?, *to)));
        let protocol = protocols(self.entry).next();
        let all = from.chain(beyond).filter_map(move |(from, to)| {
            Some(Way {
                from,
                to,
                protocol: protocol?,
                port: self.port_at(to)?,
            })
        });
        all.filter(|way| self.keeps(way))
    }

    fn keeps(&self, way: &Way<'_, '_>) -> bool {
        let from = way.from.0.address;
        let mut all = self.entries.iter();
        let is_let_out = all.any(|one| one.accepts(way.protocol, from, way.to, way.port));
        let is_dropped = self.entry.selects(way.protocol, from, way.to, way.port);
        from != way.to && !self.is_direct(way) && !is_let_out && (self.is_closed || is_dropped)
    }

    /// Returns a port of the entry for a destination: the one at which Azure's metadata service answers, if it can be.
    fn port_at(&self, to: IpAddr) -> Option<Port> {
        let http = Port::new(HTTP).filter(|_| to == METADATA);
        let of_entry = |port: &Port| {
            let mut ranges = self.entry.ports.iter();
            self.entry.ports.is_empty() || ranges.any(|ports| ports.contains(*port))
        };
        http.filter(of_entry).or_else(|| ports(self.entry).next())
    }

    /// Returns whether the hosts behind an interface reach a server on their link without the machine, so that a twin
    /// cannot show what the machine does with their packets.
    fn is_direct(&self, way: &Way<'_, 'f>) -> bool {
        let (_, by) = way.from;
        let mut worlds = self.worlds.iter();
        let world = worlds.find(|world| world.interface == by.as_str());
        **by == self.entry.egress && world.is_some_and(|world| world.is_on_link(way.to))
    }

    /// Returns the question; `None` if the interface has no world.
    fn ask(&self, way: &Way<'_, 'f>, wanted: Wanted) -> Option<Ask<'f>> {
        let (client, by) = way.from;
        let mut worlds = self.worlds.iter();
        let from = worlds.position(|world| world.interface == by.as_str())?;
        let to = SocketAddr::new(way.to, way.port.number());
        Some(Ask {
            of: Subject::Outbound(self.entry),
            client: client.clone(),
            by,
            wanted,
            question: Question {
                protocol: way.protocol,
                client: client.address,
                from: From::World(from),
                to,
                listeners: vec![to],
                request: REQUEST,
                answer: plain_answer(way.protocol),
            },
            times: 1,
            is_brief: false,
            is_spare: false,
            named: None,
        })
    }
}

/// Returns the protocols of the entry that a connection can have. A ping is none.
fn protocols(entry: &Outbound) -> impl Iterator<Item = Protocol> {
    let protocols = entry.protocols.iter();
    protocols.filter_map(|one| one.transport())
}

/// Returns the first and the last port of the entry.
fn ports(entry: &Outbound) -> impl Iterator<Item = Port> {
    let first = match entry.ports.first() {
        Some(ports) => Some(ports.first()),
        None => Port::new(HTTPS),
    };
    let last = entry.ports.last().map(|ports| ports.last());
    first
        .into_iter()
        .chain(last.filter(|last| Some(*last) != first))
}

/// Everything about an outbound entry but its ports.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutboundShape<'f> {
    family: Family,
    ingress: &'f [Interface],
    egress: &'f Interface,
    allow_from: &'f Nets,
    allow_to: &'f Destinations,
    deny_from: &'f Nets,
    deny_to: &'f Nets,
    protocols: &'f [OutboundProtocol],
    snat: Snat,
    limits: Option<Limits>,
}

impl<'f> OutboundShape<'f> {
    pub fn of(entry: &'f Outbound) -> Self {
        // Without `..`, a new option does not compile until somebody has decided about it.
        let Outbound {
            name: _,
            description: _,
            family,
            ingress,
            egress,
            allow_from,
            allow_to,
            deny_from,
            deny_to,
            protocols,
            ports: _,
            snat,
            limits,
            // A line in the log changes no packet.
            log: _,
        } = entry;
        Self {
            family: *family,
            ingress,
            egress,
            allow_from,
            allow_to,
            deny_from,
            deny_to,
            protocols,
            snat: *snat,
            limits: *limits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwards::{Forward, ForwardSet};
    use crate::twin::battery::{InDoubt, battery};
    use crate::twin::clients::{Clients, NamedInRules};
    use crate::twin::machine::{Machine, MachineLink};
    use crate::yaml;

    /// Returns the connections of a machine that has the Internet behind eth0, and 10.224.0.0/16 behind eth1.
    fn asked(firewall: &str, entries: &str) -> Vec<String> {
        asked_with(&NamedInRules::default(), firewall, entries)
    }

    /// As [`asked`], on a machine whose rules name networks and ports.
    fn asked_with(named: &NamedInRules, firewall: &str, entries: &str) -> Vec<String> {
        let text = format!(
            "firewall: {{interface: {{ingress: eth0, egress: eth1}}{firewall}}}\n\
             silence: [outbound-overlap, metadata-open, policy-kept]\noutbound: [{entries}]"
        );
        let set = yaml::read(text.as_bytes()).expect("the spec is valid");
        let route = serde_json::json!({
            "dst": "10.224.0.0/16", "gateway": "10.4.0.1", "dev": "eth1", "table": "main"
        });
        let machine = Machine {
            links: vec![
                MachineLink::with("eth0", &["10.3.0.4/24"]),
                MachineLink::with("eth1", &["10.4.0.4/24"]),
            ],
            routes: vec![(Family::V4, route)],
            ..Machine::default()
        };
        let worlds: Vec<World> = machine.links.iter().map(World::of).collect();
        let behind = ["10.224.0.0/16", "10.4.0.0/24"].map(|net| net.parse().expect("a network"));
        let by = |to: IpAddr| {
            let is_behind = behind.iter().any(|net: &ipnet::IpNet| net.contains(&to));
            if is_behind { "eth1" } else { "eth0" }
        };
        let clients = Clients::of(&set, Family::V4, &machine, &[], named, |asked| {
            let each = asked.iter();
            each.map(|one| (*one, by(one.to).to_owned())).collect()
        });
        let described = |ask: &Ask<'_>| {
            let Question { protocol, to, .. } = &ask.question;
            let brief = if ask.is_brief { "" } else { "+ " };
            let named = ask.named.map(|end| format!(" ({end})"));
            format!(
                "{brief}{} {protocol} {} by {} to {to} {:?}{}",
                ask.of.name(),
                ask.client.address,
                ask.by,
                ask.wanted,
                named.unwrap_or_default()
            )
        };
        let (forwards, entries) = parts(&set);
        let none = InDoubt::default();
        let asks = battery(&forwards, &entries, &clients, &machine, &worlds, &none);
        asks.iter().map(described).collect()
    }

    fn parts(set: &ForwardSet) -> (Vec<&Forward>, Vec<&Outbound>) {
        (set.forwards.iter().collect(), set.outbound.iter().collect())
    }

    #[test]
    fn an_entry_is_asked_for_each_source_destination_protocol_and_port() {
        assert_eq!(
            asked(
                "",
                "{name: a, allow_from: [10.224.0.0/16, 10.4.0.0/28], allow_to: [internet, 10.50.0.0/16], \
                 protocol: [tcp, udp], ports: [80, 8000-8010]}"
            ),
            [
                "a tcp 10.4.0.7 by eth1 to 81.2.69.142:80 Through",
                "a tcp 10.4.0.16 by eth1 to 81.2.69.142:80 KeptOut",
                "+ a tcp 10.4.0.7 by eth1 to 81.2.69.142:80 Through",
                "+ a tcp 10.224.0.7 by eth1 to 81.2.69.142:80 Through",
                "+ a tcp 10.4.0.7 by eth1 to 81.2.69.142:8010 Through",
                "+ a udp 10.4.0.7 by eth1 to 81.2.69.142:80 Through",
                "+ a tcp 10.4.0.7 by eth1 to 10.50.0.7:80 Through",
                "+ a tcp 10.4.0.7 by eth1 to 169.254.169.254:80 KeptOut",
                "+ a tcp 10.4.0.7 by eth1 to 10.3.0.7:80 KeptOut",
            ]
        );
    }

    /// A rule may ban a destination or a port that no other connection of the entry has.
    #[test]
    fn destinations_and_ports_that_rules_name_are_tried() {
        let net = |text: &str| text.parse().expect("a network");
        let named = NamedInRules {
            // One outside `allow_to`, one that the spec names itself, and one that is not behind the egress.
            destinations: ["8.8.8.8/32", "10.60.0.0/16", "10.50.0.0/16", "10.4.0.0/24"]
                .map(net)
                .into(),
            networks: [net("10.50.3.0/24")].into(),
            ports: [25, 443, 8005].into(),
        };
        let asked = |options: &str| {
            let entry = format!(
                "{{name: a, allow_from: [10.224.0.0/16], allow_to: [internet, 10.50.0.0/16, 10.4.0.0/16]{options}}}"
            );
            let mut asked = asked_with(&named, "", &entry);
            asked.retain(|words| words.contains('(') || words.contains(":8005"));
            asked
        };
        assert_eq!(
            asked(", protocol: tcp"),
            [
                "+ a tcp 10.224.0.7 by eth1 to 8.8.8.8:443 Through (connections to 8.8.8.8/32)",
                "+ a tcp 10.224.0.7 by eth1 to 10.50.3.7:443 Through (connections to 10.50.3.0/24)",
                "+ a tcp 10.224.0.7 by eth1 to 81.2.69.142:25 Through (connections to tcp port 25)",
                "+ a tcp 10.224.0.7 by eth1 to 81.2.69.142:8005 Through (connections to tcp port 8005)",
            ]
        );
        let ports = asked(", protocol: tcp, ports: [80, 8000-8010]");
        // The spec names these ports itself.
        assert_eq!(
            ports.last().map(String::as_str),
            Some("+ a tcp 10.224.0.7 by eth1 to 81.2.69.142:8005 Through")
        );
        assert_eq!(asked("").len(), 8, "by tcp and by udp");
    }

    /// `forward_policy: keep` may let the others pass, whatever the entry says.
    #[test]
    fn only_the_entry_s_own_drops_are_asked_for_if_the_policy_is_kept() {
        let entry = "{name: a, allow_from: [10.224.0.0/16], allow_to: [internet, 169.254.0.0/16], \
                     deny_from: [10.224.9.0/24], deny_to: [192.0.2.0/24], ports: [443], protocol: tcp}";
        let kept = |firewall: &str| -> Vec<String> {
            let mut asked = asked(firewall, entry);
            asked.retain(|words| words.ends_with("KeptOut"));
            asked
        };
        assert_eq!(
            kept(", forward_policy: keep"),
            [
                "a tcp 10.224.9.7 by eth1 to 81.2.69.142:443 KeptOut",
                "+ a tcp 10.224.0.7 by eth1 to 169.254.169.254:443 KeptOut",
                "+ a tcp 10.224.0.7 by eth1 to 192.0.2.7:443 KeptOut",
            ]
        );
        assert_eq!(
            kept(""),
            [
                "a tcp 10.4.0.7 by eth1 to 81.2.69.142:443 KeptOut",
                "+ a tcp 10.224.9.7 by eth1 to 81.2.69.142:443 KeptOut",
                "+ a tcp 10.224.0.7 by eth1 to 169.254.169.254:443 KeptOut",
                "+ a tcp 10.224.0.7 by eth1 to 192.0.2.7:443 KeptOut",
                "+ a tcp 10.224.0.7 by eth1 to 10.3.0.7:443 KeptOut",
            ]
        );
    }

    #[test]
    fn a_connection_on_which_an_earlier_entry_decides_is_not_asked_for() {
        let found = asked(
            "",
            "{name: a, allow_from: [10.224.0.0/17], protocol: tcp, ports: [443]}, \
             {name: b, allow_from: [10.224.0.0/16]}, \
             {name: c, allow_from: [10.224.0.0/24]}",
        );
        let through = found.iter().filter(|words| words.ends_with("Through"));
        let brief: Vec<&str> = through
            .map(String::as_str)
            .filter(|words| !words.starts_with('+'))
            .collect();
        assert_eq!(
            brief,
            [
                "a tcp 10.224.0.7 by eth1 to 81.2.69.142:443 Through",
                "b udp 10.224.0.7 by eth1 to 81.2.69.142:443 Through",
            ]
        );
    }

    /// The source of an entry for a wide network is a host that the machine reaches by the entry's ingress.
    #[test]
    fn a_source_is_behind_the_ingress() {
        let found = asked("", "{name: a, allow_from: [10.0.0.0/8]}");
        assert_eq!(
            found[0],
            "a tcp 10.4.0.7 by eth1 to 81.2.69.142:443 Through"
        );
        let found = asked("", "{name: a, allow_from: [192.168.0.0/16]}");
        assert_eq!(
            found[0],
            "a tcp 192.168.0.7 by eth1 to 81.2.69.142:443 Through"
        );
    }

    #[test]
    fn a_metadata_service_that_is_named_is_not_expected_to_be_kept() {
        let found = asked(
            "",
            "{name: a, allow_from: [10.224.0.0/16], allow_to: [169.254.169.254]}",
        );
        assert_eq!(
            found[0],
            "a tcp 10.224.0.7 by eth1 to 169.254.169.254:443 Through"
        );
        let of_sender = found.iter().filter(|words| words.contains("10.224.0.7"));
        let mut of_sender = of_sender.filter(|words| words.ends_with("KeptOut"));
        assert!(!of_sender.any(|words| words.contains("169.254.169.254")));
    }
}
