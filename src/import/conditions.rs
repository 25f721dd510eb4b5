//! The conditions on the way to a rule, as far as a spec can say them.

use std::net::IpAddr;
use std::slice;

use ipnet::IpNet;

use super::addresses::Addresses;
use super::exceptions::Exceptions;
use super::lookup::RedirectedLookup;
use crate::net::{Family, Interface, PortRange};
use crate::netfilter::interface::InterfacePattern;
use crate::netfilter::limit::{ConnLimit, HashLimit, Limit};
use crate::netfilter::matches::{AddressType, Match, PortsOf, Probability, Side};
use crate::netfilter::negatable::Negatable::{self, Is, Not};
use crate::netfilter::protocol::IpProtocol;
use crate::netfilter::rule::Rule;
use crate::netfilter::text::parse::{EveryNth, UpTo, comes_from_port_0, every_nth, up_to};
use crate::netfilter::tracking::{CtState, CtStates};

/// The conditions of a rule, and of the jumps that lead to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleConditions<'r> {
    pub source: Vec<Negatable<IpNet>>,
    pub destination: Vec<Negatable<IpNet>>,
    pub ingress: Vec<&'r Negatable<InterfacePattern>>,
    pub egress: Vec<&'r Negatable<InterfacePattern>>,
    pub protocol: Option<&'r Negatable<IpProtocol>>,
    /// The destination ports; `None`: every port.
    pub ports: Option<Vec<PortRange>>,
    pub original_destination: Option<IpNet>,
    pub original_ports: Option<PortRange>,
    /// Whether no packet that opens a connection meets the rule.
    pub for_replies: bool,
    /// Whether the connection must have been redirected (`Some(true)`), or must not (`Some(false)`).
    pub redirected: Option<bool>,
    /// Whether the destination must be one of the machine's own addresses (`Some(true)`), or must not (`Some(false)`).
    pub to_machine: Option<bool>,
    pub share: Option<Share>,
    pub limit: Option<&'r Limit>,
    pub hash_limit: Option<&'r HashLimit>,
    pub connections: Option<&'r ConnLimit>,
    /// The rate or number of connections up to which packets meet the rule.
    pub up_to: Option<UpTo>,
    /// Whether only packets that open a connection meet the rule.
    pub for_opening: bool,
    pub comment: Option<&'r str>,
    /// The conditions that a spec cannot say.
    pub beyond: Vec<&'r Match>,
    /// The packets that left the way to the rule before it, by `RETURN` or `-g`.
    pub exceptions: Exceptions<RuleConditions<'r>>,
}

/// The part of the packets that a rule takes by chance or in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    Probability(Probability),
    Nth(EveryNth),
}

impl<'r> RuleConditions<'r> {
    /// Returns these conditions and those of a rule that they lead to.
    pub fn and(&self, rule: &'r Rule) -> Self {
        let mut all = self.clone();
        for condition in &rule.matches {
            all.add(condition);
        }
        all
    }

    fn add(&mut self, condition: &'r Match) {
        match condition {
            Match::Source(net) => self.source.push(*net),
            Match::Destination(net) => self.destination.push(*net),
            Match::Ingress(interface) => self.ingress.push(interface),
            Match::Egress(interface) => self.egress.push(interface),
            Match::Protocol(protocol) if self.protocol.is_none() => {
                self.protocol = Some(protocol);
            }
            Match::Protocol(protocol) if self.protocol == Some(protocol) => {}
            Match::Tcp {
                flags: Some(flags), ..
            } if !flags.holds(|flags| flags.hold_for_opening()) => self.for_replies = true,
            Match::Tcp {
                source: None,
                destination,
                flags,
            } => {
                self.for_opening |= matches!(flags, Some(Is(_)));
                self.add_ports(destination.as_ref(), condition);
            }
            Match::Udp {
                source: None,
                destination,
            } => self.add_ports(destination.as_ref(), condition),
            Match::Multiport {
                of: PortsOf::Destination,
                ports: Is(ports),
            } if self.ports.is_none() => self.ports = Some(ports.clone()),
            Match::Conntrack(conntrack) => {
                if let Some(states) = &conntrack.states {
                    self.add_states(*states);
                }
                match (
                    conntrack.original_destination,
                    conntrack.original_destination_port,
                ) {
                    (Some(Not(_)), _) | (_, Some(Not(_))) => self.beyond.push(condition),
                    (address, ports) => {
                        let address = address.and_then(|one| one.wanted().copied());
                        let ports = ports.and_then(|one| one.wanted().copied());
                        self.original_destination = self.original_destination.or(address);
                        self.original_ports = self.original_ports.or(ports);
                    }
                }
                if conntrack.status.is_some() || conntrack.direction.is_some() {
                    self.beyond.push(condition);
                }
            }
            Match::State(states) => self.add_states(*states),
            Match::AddressType {
                of: Side::Destination,
                kind: Is(AddressType::Local),
            } => self.to_machine = Some(true),
            Match::AddressType {
                of: Side::Destination,
                kind: Not(AddressType::Local),
            } => self.to_machine = Some(false),
            // No host is at such an address.
            Match::AddressType {
                kind: Is(AddressType::Broadcast | AddressType::Anycast | AddressType::Multicast),
                ..
            } => self.for_replies = true,
            Match::Other(words) if comes_from_port_0(words) => self.for_replies = true,
            Match::Probability(Is(share)) if self.share.is_none() => {
                self.share = Some(Share::Probability(*share));
            }
            Match::HashLimit(limit) if self.hash_limit.is_none() => self.hash_limit = Some(limit),
            Match::ConnLimit(limit) if self.connections.is_none() => self.connections = Some(limit),
            Match::Limit(limit) if self.limit.is_none() => self.limit = Some(limit),
            Match::Comment(text) => self.comment = Some(text),
            Match::Other(words) => match (every_nth(words), up_to(words)) {
                (Some(nth), _) if self.share.is_none() => self.share = Some(Share::Nth(nth)),
                (_, Some(limit)) if self.up_to.is_none() => self.up_to = Some(limit),
                _ => self.beyond.push(condition),
            },
            _ => self.beyond.push(condition),
        }
    }

    fn add_ports(&mut self, ports: Option<&Negatable<PortRange>>, condition: &'r Match) {
        match ports {
            None => {}
            Some(Is(ports)) if self.ports.is_none() => self.ports = Some(vec![*ports]),
            Some(_) => self.beyond.push(condition),
        }
    }

    /// A packet that opens a connection is NEW, and DNAT as well if it has been redirected.
    fn add_states(&mut self, states: Negatable<CtStates>) {
        let (has_new, has_dnat) = match states {
            Is(states) | Not(states) => (
                states.contains(CtState::New),
                states.contains(CtState::Dnat),
            ),
        };
        if let Is(states) = states {
            self.for_opening |= states == CtStates::from(CtState::New);
        }
        match states {
            Is(_) if has_new => {}
            Is(_) if has_dnat => self.redirected = Some(true),
            Not(_) if has_new => self.for_replies = true,
            Not(_) if has_dnat => self.redirected = Some(false),
            Is(_) => self.for_replies = true,
            Not(_) => {}
        }
    }

    /// Returns the sources that meet the conditions.
    pub fn sources(&self, family: Family) -> Addresses {
        addresses(family, &self.source)
    }

    /// Returns the destinations that meet the conditions.
    pub fn destinations(&self, family: Family) -> Addresses {
        addresses(family, &self.destination)
    }

    /// Returns the narrowest network that a source must be in.
    pub fn source_net(&self) -> Option<IpNet> {
        narrowest(&self.source)
    }

    /// Returns the narrowest network that a destination must be in.
    pub fn destination_net(&self) -> Option<IpNet> {
        narrowest(&self.destination)
    }

    /// Adds the number of a rule with these conditions to those for redirected connections, if it may be for some.
    pub fn add_to(&self, lookup: &mut RedirectedLookup, number: usize) {
        if self.for_replies || self.to_machine == Some(true) || self.redirected == Some(false) {
            return;
        }
        let net = self.destination_net();
        match &self.original_ports {
            Some(ports) => (lookup.by_listener).add(number, net, Some(slice::from_ref(ports))),
            None => lookup.by_target.add(number, net, self.ports.as_deref()),
        }
    }

    /// Returns whether packets that arrive on an interface meet the conditions.
    pub fn arrive_on(&self, interface: &Interface) -> bool {
        covers(&self.ingress, interface)
    }

    /// Returns whether packets that leave by an interface meet the conditions.
    pub fn leave_by(&self, interface: &Interface) -> bool {
        covers(&self.egress, interface)
    }

    /// Returns whether the conditions name certain connections, rather than all that pass.
    pub fn names_connections(&self) -> bool {
        self.host().is_some()
            || self.ports.is_some()
            || self.original_ports.is_some()
            || self.original_destination.is_some()
    }

    /// Returns whether a spec can say all conditions, but for what left the way before.
    pub fn is_plain(&self) -> bool {
        self.beyond.is_empty() && self.share.is_none() && !self.has_limit()
    }

    /// Returns whether a rate or a number of connections decides about packets.
    pub fn has_limit(&self) -> bool {
        self.limit.is_some() || !self.counts_nothing_but_packets()
    }

    /// Returns whether there is no limit but `-m limit`, which counts all packets together.
    pub fn counts_nothing_but_packets(&self) -> bool {
        self.hash_limit.is_none() && self.connections.is_none() && self.up_to.is_none()
    }

    /// Returns whether some packet may meet both these conditions and others, as far as addresses, protocols and ports say
    /// it.
    pub fn meet_some_of(&self, other: &Self, family: Family) -> bool {
        let has_source = || self.sources(family).meet(&other.sources(family));
        let has_destination = || {
            let own = self.destinations(family);
            own.meet(&other.destinations(family))
        };
        let has_protocol = match (self.protocol, other.protocol) {
            (Some(Is(one)), Some(Is(other))) => one == other,
            _ => true,
        };
        let has_port = match (&self.ports, &other.ports) {
            (Some(ones), Some(others)) => {
                let mut ones = ones.iter();
                ones.any(|one| others.iter().any(|other| one.overlaps(*other)))
            }
            _ => true,
        };
        has_protocol && has_port && has_source() && has_destination()
    }

    /// Returns the destination host that the conditions name.
    pub fn host(&self) -> Option<IpAddr> {
        self.destination.iter().find_map(|net| match net {
            Is(net) if net.prefix_len() == net.max_prefix_len() => Some(net.addr()),
            _ => None,
        })
    }

    /// Names the conditions that a spec cannot say, shares and limits included: `-m mark, -m string`.
    pub fn beyond_words(&self) -> String {
        let has_rate = matches!(self.up_to, Some(UpTo::Rate(_)));
        let has_number = matches!(self.up_to, Some(UpTo::Connections(_)));
        let limits = [
            (self.share.is_some(), "`-m statistic`"),
            (self.limit.is_some(), "`-m limit`"),
            (self.hash_limit.is_some() || has_rate, "`-m hashlimit`"),
            (self.connections.is_some() || has_number, "`-m connlimit`"),
        ];
        let limits = limits.into_iter().filter(|(is_there, _)| *is_there);
        let mut names: Vec<String> = limits.map(|(_, name)| name.to_owned()).collect();
        for condition in &self.beyond {
            let name = match condition {
                Match::Tcp { source, .. } | Match::Udp { source, .. } if source.is_some() => {
                    "`--sport`".to_owned()
                }
                Match::Tcp { .. } | Match::Udp { .. } => "`--dport` with `!`".to_owned(),
                Match::Multiport { of, ports } => multiport_words(*of, ports).to_owned(),
                other if other.name().starts_with('-') => format!("`{}`", other.name()),
                other => format!("`-m {}`", other.name()),
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.join(", ")
    }
}

fn multiport_words(of: PortsOf, ports: &Negatable<Vec<PortRange>>) -> &'static str {
    match (of, ports) {
        (PortsOf::Source, Is(_)) => "`--sports`",
        (PortsOf::Source, Not(_)) => "`--sports` with `!`",
        (PortsOf::Destination, Is(_)) => "`--dports`",
        (PortsOf::Destination, Not(_)) => "`--dports` with `!`",
        (PortsOf::Either, Is(_)) => "`--ports`",
        (PortsOf::Either, Not(_)) => "`--ports` with `!`",
    }
}

fn addresses(family: Family, nets: &[Negatable<IpNet>]) -> Addresses {
    let all = Addresses::all(family);
    nets.iter().fold(all, |left, net| match net {
        Is(net) => left.common(&Addresses::of(*net)),
        Not(net) => left.without(&Addresses::of(*net)),
    })
}

fn narrowest(nets: &[Negatable<IpNet>]) -> Option<IpNet> {
    let nets = nets.iter().filter_map(Negatable::wanted);
    nets.max_by_key(|net| net.prefix_len()).copied()
}

fn covers(patterns: &[&Negatable<InterfacePattern>], interface: &Interface) -> bool {
    let mut patterns = patterns.iter();
    patterns.all(|pattern| pattern.holds(|pattern| pattern.covers(interface)))
}
