//! The connections that the old rules name, also those of rules from which no entry came.

use std::collections::BTreeSet;
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
/// The most targets of which a connection may reach one by chance. It is opened often for each.
const MOST_TARGETS: usize = 4;
/// The port of a rule that names none.
const HTTPS: u16 = 443;

/// The rules of one family, and the spec that they became.
#[derive(Clone, Copy)]
pub(super) struct NamingRules<'r> {
    pub(super) family: Family,
    pub(super) rules: &'r Ruleset,
    pub(super) set: &'r ForwardSet,
}

impl NamingRules<'_> {
    /// Returns connections to the destinations of rules that redirect or accept, and from the sources of rules that rewrite
    /// or accept, unless `asked` has them.
    pub(super) fn connections(self, asked: &[PacketTest]) -> Vec<PacketTest> {
        let rules = self.rules.chains().flat_map(|(table, name, chain)| {
            let rules = chain.rules.iter();
            let rules = rules.filter(|rule| !chooses_target(rule));
            rules.filter_map(move |rule| Some((purpose(table, name, rule)?, rule)))
        });
        let reaches = self.reaches();
        let mut tests: Vec<PacketTest> = Vec::new();
        for (purpose, rule) in rules {
            let conditions = Conditions::of(rule);
            let each = match purpose {
                Purpose::Inward => self.inward(&conditions),
                Purpose::Outward | Purpose::Refused => self.outward(&conditions, purpose),
            };
            for test in each {
                let is_like = |other: &PacketTest| match purpose {
                    Purpose::Inward => true,
                    Purpose::Outward => {
                        let net = conditions.source;
                        net.is_some_and(|net| net.contains(&other.from))
                    }
                    Purpose::Refused => other.from == test.from,
                };
                let asks = |other: &&PacketTest| {
                    other.protocol == test.protocol && other.to == test.to && is_like(other)
                };
                let mut again = tests.iter().filter(asks);
                let is_asked = asked.iter().any(|other| asks(&other))
                    || again.any(|other| other.from == test.from);
                if !is_asked {
                    let reaches = reaches.clone();
                    tests.push(PacketTest { reaches, ..test });
                }
            }
            if tests.len() >= MOST {
                break;
            }
        }
        tests
    }

    /// Returns several targets if rules choose one by chance, so that a connection is opened more than once.
    fn reaches(self) -> Reaches {
        let all = self.rules.chains().flat_map(|(_, _, chain)| &chain.rules);
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

    /// Returns the connections that a DNAT rule redirects, or that a rule for one host accepts.
    fn inward(self, conditions: &Conditions) -> Vec<PacketTest> {
        let clients: Vec<IpAddr> = match conditions.source {
            Some(net) => host_of(net).into_iter().collect(),
            None => any_clients(self.family, self.rules),
        };
        let ingress = self.ingress(conditions);
        let clients = clients.into_iter();
        let clients: Vec<IpAddr> = clients
            .filter(|from| !self.is_behind_another(*from, ingress.as_ref()))
            .collect();
        let mut tests = Vec::new();
        for (protocol, port) in conditions.transports() {
            let to = match conditions.destination.map(host_of) {
                None => TestDestination::Machine(port),
                Some(None) => continue,
                Some(Some(address)) => TestDestination::Host(TestHost {
                    address,
                    port: Some(port),
                }),
            };
            let others = clients.iter().filter(|from| to.address() != Some(**from));
            tests.extend(others.map(|from| test(*from, to, protocol, ingress.clone())));
        }
        tests
    }

    /// Returns whether an outbound entry says that an address is behind another interface.
    fn is_behind_another(self, from: IpAddr, ingress: Option<&Interface>) -> bool {
        let mut entries = self.set.outbound.iter();
        ingress.is_some_and(|by| {
            entries.any(|entry| entry.allow_from.contains(from) && !entry.ingress.contains(by))
        })
    }

    /// Returns the sources of a rule, or those of the outbound entries for a rule that names none and refuses.
    fn senders(self, conditions: &Conditions, purpose: Purpose) -> Vec<IpAddr> {
        match (conditions.source, purpose) {
            (Some(net), _) => host_of(net).into_iter().collect(),
            (None, Purpose::Refused) => {
                let entries = self.set.outbound.iter();
                let nets = entries.filter_map(|entry| entry.allow_from.as_slice().first());
                nets.filter_map(|net| host_of(*net)).collect()
            }
            (None, _) => Vec::new(),
        }
    }

    /// Returns connections from the network of a rule that decides about them, or rewrites their source.
    fn outward(self, conditions: &Conditions, purpose: Purpose) -> Vec<PacketTest> {
        let to = match conditions.destination {
            None => Some(server(self.family)),
            Some(net) => host_of(net),
        };
        let Some(address) = to else {
            return Vec::new();
        };
        let senders = self.senders(conditions, purpose);
        let mut tests = Vec::new();
        for protocol in conditions.protocols() {
            let ports = match protocol {
                OutboundProtocol::Ping => vec![None],
                _ => conditions.ports().into_iter().map(Some).collect(),
            };
            for port in ports {
                let to = TestDestination::Host(TestHost { address, port });
                let from = senders.iter().filter(|from| **from != address);
                tests.extend(from.map(|from| test(*from, to, protocol, None)));
            }
        }
        tests
    }

    /// Returns the interface that a rule names, or that of the spec's clients; `None` if the spec has only one.
    fn ingress(self, conditions: &Conditions) -> Option<Interface> {
        let forwards = self.set.forwards.iter();
        let forwards = forwards.flat_map(|one| one.ingress.iter().chain([&one.egress]));
        let entries = self.set.outbound.iter();
        let entries = entries.flat_map(|one| one.ingress.iter().chain([&one.egress]));
        let sides: BTreeSet<&Interface> = forwards.chain(entries).collect();
        let default = self.set.firewall.ingress.first();
        match sides.len() {
            1 => None,
            _ => conditions.ingress.clone().or_else(|| default.cloned()),
        }
    }
}

/// The side to which the connections of a rule go.
#[derive(Clone, Copy)]
enum Purpose {
    Inward,
    Outward,
    /// It refuses connections, perhaps of those that a later rule accepts.
    Refused,
}

/// Returns the side to which the connections of a rule go; `None` if the rule is not for forwarded connections, or does not
/// name them.
fn purpose(table: TableName, chain: &ChainName, rule: &Rule) -> Option<Purpose> {
    let is_local = matches!(chain.as_str(), "INPUT" | "OUTPUT");
    let name = rule.target.as_ref().map(Target::name)?;
    match (table, name) {
        _ if is_local => None,
        (TableName::Nat, "DNAT") => Some(Purpose::Inward),
        (TableName::Nat, "SNAT" | "MASQUERADE") => Some(Purpose::Outward),
        (TableName::Filter, "ACCEPT") => {
            let conditions = Conditions::of(rule);
            if conditions.are_for_one_host() {
                Some(Purpose::Inward)
            } else {
                conditions.source.map(|_| Purpose::Outward)
            }
        }
        (TableName::Filter, "DROP" | "REJECT") => {
            let conditions = Conditions::of(rule);
            if conditions.are_for_one_host() {
                Some(Purpose::Inward)
            } else {
                Some(Purpose::Refused)
            }
        }
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
struct Conditions {
    source: Option<IpNet>,
    destination: Option<IpNet>,
    ingress: Option<Interface>,
    protocol: Option<IpProtocol>,
    ranges: Vec<PortRange>,
}

impl Conditions {
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

fn test(
    from: IpAddr,
    to: TestDestination,
    protocol: OutboundProtocol,
    ingress: Option<Interface>,
) -> PacketTest {
    PacketTest {
        name: None,
        from,
        to,
        protocol,
        ingress,
        reaches: Reaches::Nothing,
        snat: None,
        place: None,
    }
}

/// Returns a server of the Internet. Its address is for documentation, so that nobody has it.
fn server(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(198, 51, 100, 80).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 80).into(),
    }
}
