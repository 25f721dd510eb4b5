//! The connections that the old rules name, also those of rules from which no entry came.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::clients::{any_clients, host_of};
use crate::forwards::{
    ForwardSet, OutboundProtocol, PacketTest, Reaches, TestDestination, TestHost,
};
use crate::net::{Family, Interface, Port, PortRange};
use crate::netfilter::matches::{Match, PortsOf};
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::negatable::Negatable::Is;
use crate::netfilter::protocol::IpProtocol;
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::Target;

/// The most connections of one family. Rules may be thousands, and most of them became forwards, which are asked anyway.
const MOST: usize = 200;
/// The most further addresses of the machine that are asked for one rule, and the most sources of outbound entries that
/// ask.
const MOST_OTHERS: usize = 2;
/// The most targets of which a connection may reach one by chance. It is opened often for each.
const MOST_TARGETS: usize = 4;
/// The port of a rule that names none.
const HTTPS: u16 = 443;

/// Returns connections to the destinations of rules that redirect or accept, and from the sources of rules that rewrite or
/// accept, unless `asked` has them. `set` is the spec that the rules became.
pub(super) fn named_connections(
    family: Family,
    rules: &Ruleset,
    set: &ForwardSet,
    asked: &[PacketTest],
) -> Vec<PacketTest> {
    let named = rules.chains().flat_map(|(table, name, chain)| {
        let rules = chain.rules.iter();
        let rules = rules.filter(|rule| !chooses_target(rule));
        rules.filter_map(move |rule| Some((purpose(table, name, rule)?, rule)))
    });
    let asking = Asking::of(family, rules, set);
    let asked = asked.iter().map(|test| (AskedFor::of(test), test.from));
    let mut asked_before: BTreeMap<AskedFor, Vec<IpAddr>> = BTreeMap::new();
    for (what, from) in asked {
        asked_before.entry(what).or_default().push(from);
    }
    let mut seen = BTreeSet::new();
    let mut tests = Vec::new();
    for (purpose, rule) in named {
        let conditions = NamedConditions::of(rule);
        let each = match purpose {
            Purpose::Redirected | Purpose::Accepted => asking.inward(&conditions, purpose),
            Purpose::Outward | Purpose::Passing | Purpose::Refused => {
                asking.outward(&conditions, purpose)
            }
        };
        tests.extend(each.into_iter().filter(|test| {
            let what = AskedFor::of(test);
            let mut before = asked_before.get(&what).into_iter().flatten();
            let is_asked = match (purpose, conditions.source) {
                (Purpose::Outward, Some(net)) => before.any(|from| net.contains(from)),
                (Purpose::Passing | Purpose::Refused, _) => before.any(|from| *from == test.from),
                _ => before.next().is_some(),
            };
            !is_asked && seen.insert((what, test.from))
        }));
        if tests.len() >= MOST {
            break;
        }
    }
    tests
}

/// The destination of a connection, whoever asks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct AskedFor(OutboundProtocol, Option<IpAddr>, Option<Port>);

impl AskedFor {
    fn of(test: &PacketTest) -> Self {
        Self(test.protocol, test.to.address(), test.to.port())
    }
}

/// The parts that connections by all rules share.
struct Asking {
    family: Family,
    clients: Vec<IpAddr>,
    /// A source of each outbound entry.
    senders: Vec<IpAddr>,
    /// The addresses that SNAT rules give packets: they are the machine's.
    own: BTreeSet<IpAddr>,
    /// The interface of clients of rules that name none; `None` if the spec has only one.
    ingress: Option<Interface>,
    reaches: Reaches,
}

impl Asking {
    fn of(family: Family, rules: &Ruleset, set: &ForwardSet) -> Self {
        let all = rules.chains().flat_map(|(_, _, chain)| &chain.rules);
        let own = all.filter_map(|rule| match rule.target {
            Some(Target::Snat { addresses, .. }) => Some(addresses.first()),
            _ => None,
        });
        Self {
            family,
            clients: any_clients(family, rules, set),
            senders: senders(family, set),
            own: own.collect(),
            ingress: default_ingress(set),
            reaches: reaches(rules),
        }
    }

    /// Returns the connections that a DNAT rule redirects, or that a rule for one host accepts.
    fn inward(&self, conditions: &NamedConditions, purpose: Purpose) -> Vec<PacketTest> {
        let clients = match conditions.source {
            Some(net) => host_of(net).into_iter().collect(),
            None => self.clients.clone(),
        };
        let ingress = self.ingress.clone();
        let ingress = ingress.map(|default| conditions.ingress.clone().unwrap_or(default));
        let mut tests = Vec::new();
        let destinations = self.destinations(conditions, purpose);
        for (protocol, port) in conditions.transports() {
            for destination in &destinations {
                let to = match destination {
                    None => TestDestination::Machine(port),
                    Some(address) => TestDestination::Host(TestHost {
                        address: *address,
                        port: Some(port),
                    }),
                };
                let others = clients.iter().filter(|from| to.address() != Some(**from));
                tests.extend(others.map(|from| PacketTest {
                    ingress: ingress.clone(),
                    ..self.test(*from, to, protocol)
                }));
            }
        }
        tests
    }

    /// Returns the addresses for which a rule asks, and further ones of the machine if it redirects one of them; `None`
    /// stands for the machine's address on the side of the client.
    fn destinations(&self, conditions: &NamedConditions, purpose: Purpose) -> Vec<Option<IpAddr>> {
        let Some(net) = conditions.destination else {
            return vec![None];
        };
        let named = host_of(net);
        let mut all: Vec<Option<IpAddr>> = named.map(Some).into_iter().collect();
        if purpose == Purpose::Redirected {
            let others = self.own.iter().copied();
            let others = others.filter(|own| !net.contains(own)).map(Some);
            all.extend([None].into_iter().chain(others).take(MOST_OTHERS));
        }
        all
    }

    /// Returns connections from the network of a rule that decides about them, or rewrites their source. A filter
    /// rule that names none may be for the sources of outbound entries.
    fn outward(&self, conditions: &NamedConditions, purpose: Purpose) -> Vec<PacketTest> {
        let to = match conditions.destination {
            None => Some(server(self.family)),
            Some(net) => host_of(net),
        };
        let senders: Vec<IpAddr> = match (conditions.source, purpose) {
            (Some(net), _) => host_of(net).into_iter().collect(),
            (None, Purpose::Passing | Purpose::Refused) => self.senders.clone(),
            (None, _) => Vec::new(),
        };
        let Some(address) = to else {
            return Vec::new();
        };
        let mut tests = Vec::new();
        for protocol in conditions.protocols() {
            let ports = match protocol {
                OutboundProtocol::Ping => vec![None],
                _ => conditions.ports().into_iter().map(Some).collect(),
            };
            for port in ports {
                let to = TestDestination::Host(TestHost { address, port });
                let from = senders.iter().filter(|from| **from != address);
                tests.extend(from.map(|from| self.test(*from, to, protocol)));
            }
        }
        tests
    }

    fn test(&self, from: IpAddr, to: TestDestination, protocol: OutboundProtocol) -> PacketTest {
        PacketTest {
            name: None,
            from,
            to,
            protocol,
            ingress: None,
            reaches: self.reaches.clone(),
            snat: None,
            place: None,
        }
    }
}

/// Returns a source of each outbound entry, the first ones only.
fn senders(family: Family, set: &ForwardSet) -> Vec<IpAddr> {
    let entries = set.outbound.iter().filter(|entry| entry.family == family);
    let nets = entries.filter_map(|entry| entry.allow_from.as_slice().first());
    nets.filter_map(|net| host_of(*net))
        .take(MOST_OTHERS)
        .collect()
}

/// Returns the interface of the spec's clients; `None` if the spec has only one.
fn default_ingress(set: &ForwardSet) -> Option<Interface> {
    let forwards = set.forwards.iter();
    let forwards = forwards.flat_map(|one| one.ingress.iter().chain([&one.egress]));
    let entries = set.outbound.iter();
    let entries = entries.flat_map(|one| one.ingress.iter().chain([&one.egress]));
    let sides: BTreeSet<&Interface> = forwards.chain(entries).collect();
    let first = set.firewall.ingress.first().cloned();
    first.filter(|_| sides.len() != 1)
}

/// Returns several targets if rules choose one by chance, so that a connection is opened more than once.
fn reaches(rules: &Ruleset) -> Reaches {
    let all = rules.chains().flat_map(|(_, _, chain)| &chain.rules);
    let all: Vec<&Rule> = all.collect();
    let is_chance = |condition: &Match| matches!(condition.name(), "statistic" | "cluster");
    let mut matches = all.iter().flat_map(|rule| &rule.matches);
    if !matches.any(is_chance) {
        return Reaches::Nothing;
    }
    let targets = all.iter().filter_map(|rule| match rule.target {
        Some(Target::Dnat { address, .. }) => Some(TestHost {
            address,
            port: None,
        }),
        _ => None,
    });
    let targets: BTreeSet<TestHost> = targets.collect();
    Reaches::OneOf(targets.into_iter().take(MOST_TARGETS).collect())
}

/// The effect of a rule on the connections that it names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// It redirects them.
    Redirected,
    /// It accepts them, and they go to one host.
    Accepted,
    /// It accepts them, or rewrites their source, and they come from a network.
    Outward,
    /// It accepts them, whoever sends them.
    Passing,
    /// It refuses them, perhaps before a rule that accepts more.
    Refused,
}

/// Returns the purpose of a rule; `None` if the rule is not for forwarded connections, or does not
/// name them.
fn purpose(table: TableName, chain: &ChainName, rule: &Rule) -> Option<Purpose> {
    let is_local = matches!(chain.as_str(), "INPUT" | "OUTPUT");
    let name = rule.target.as_ref().map(Target::name)?;
    match (table, name) {
        _ if is_local => None,
        (TableName::Nat, "DNAT") => Some(Purpose::Redirected),
        (TableName::Nat, "SNAT" | "MASQUERADE") => Some(Purpose::Outward),
        (TableName::Filter, "ACCEPT") => {
            let conditions = NamedConditions::of(rule);
            if conditions.are_for_one_host() {
                Some(Purpose::Accepted)
            } else {
                Some(match conditions.source {
                    Some(_) => Purpose::Outward,
                    None => Purpose::Passing,
                })
            }
        }
        (TableName::Filter, "DROP" | "REJECT") => Some(Purpose::Refused),
        _ => None,
    }
}

/// Returns whether a rule leads to several targets, of which the kernel chooses one by a hash that differs between copies.
/// A forward that stands for it has several targets, and is asked more than once.
fn chooses_target(rule: &Rule) -> bool {
    matches!(rule.target, Some(Target::Other(_)))
}

/// The conditions of a rule that say which connections it is for.
#[derive(Default)]
struct NamedConditions {
    source: Option<IpNet>,
    destination: Option<IpNet>,
    ingress: Option<Interface>,
    protocol: Option<IpProtocol>,
    ranges: Vec<PortRange>,
}

impl NamedConditions {
    fn of(rule: &Rule) -> Self {
        let mut found = Self::default();
        for condition in &rule.matches {
            match condition {
                Match::Source(Is(net)) if net.prefix_len() > 0 => found.source = Some(*net),
                Match::Destination(Is(net)) => found.destination = Some(*net),
                Match::Ingress(Is(pattern)) => found.ingress = pattern.exact().cloned(),
                Match::Protocol(Is(protocol)) => found.protocol = Some(protocol.clone()),
                Match::Tcp {
                    destination: Some(Is(range)),
                    ..
                }
                | Match::Udp {
                    destination: Some(Is(range)),
                    ..
                } => found.ranges.push(*range),
                Match::Multiport {
                    of: PortsOf::Destination,
                    ports: Is(ranges),
                } => found.ranges.extend(ranges),
                _ => {}
            }
        }
        found
    }

    fn are_for_one_host(&self) -> bool {
        let is_host = |net: IpNet| net.prefix_len() == net.max_prefix_len();
        self.destination.is_some_and(is_host) && !self.ranges.is_empty()
    }

    /// Returns the protocols that a test can have; one of those that a rule without `-p` takes is enough beside pings.
    fn protocols(&self) -> Vec<OutboundProtocol> {
        match &self.protocol {
            None => vec![OutboundProtocol::Tcp, OutboundProtocol::Ping],
            Some(IpProtocol::Icmp | IpProtocol::Icmp6) => vec![OutboundProtocol::Ping],
            Some(protocol) => {
                let protocol = protocol.transport().map(OutboundProtocol::from);
                protocol.into_iter().collect()
            }
        }
    }

    /// Returns the protocols that have ports, each with each port.
    fn transports(&self) -> Vec<(OutboundProtocol, Port)> {
        let protocols = self.protocols().into_iter();
        let protocols = protocols.filter(|one| *one != OutboundProtocol::Ping);
        let each = protocols.flat_map(|one| self.ports().into_iter().map(move |port| (one, port)));
        each.collect()
    }

    /// Returns both ends of each range of ports.
    fn ports(&self) -> Vec<Port> {
        let ranges = self.ranges.iter();
        let mut ports: Vec<Port> = ranges
            .flat_map(|range| [range.first(), range.last()])
            .collect();
        ports.extend(Port::new(HTTPS).filter(|_| self.ranges.is_empty()));
        ports.dedup();
        ports
    }
}

/// Returns a server of the Internet. Its address is for documentation, so that nobody has it.
fn server(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(198, 51, 100, 80).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 80).into(),
    }
}
