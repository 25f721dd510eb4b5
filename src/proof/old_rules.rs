//! The old rules that a connection may meet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::forwards::{Forward, Name, Outbound, OutboundProtocol, Snat, TestHost};
use crate::import::{Draft, ImportedPlace, Part, Remarked, RuleFate};
use crate::net::{Family, Interface, Port, PortRange, Protocol};
use crate::netfilter::matches::{Match, PortsOf};
use crate::netfilter::names::TableName;
use crate::netfilter::negatable::Negatable::{self, Is, Not};
use crate::netfilter::protocol::IpProtocol;
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::Target;

/// One difference in 16,000 is left with even chances on both sides.
const MOST_TRIES_BY_CHANCE: u32 = 14;

/// The old rules, and their part in a draft.
pub(super) struct OldRules<'r> {
    rules: &'r [(Family, Ruleset)],
    /// The entries of the draft. Each difference is compared with all of them.
    pub(super) entries: BTreeMap<&'r Name, OldEntry<'r>>,
    /// The addresses of listeners and targets.
    of_forwards: BTreeSet<IpAddr>,
    /// The DNAT rules that stay where they are.
    staying: Vec<&'r Rule>,
}

/// An entry, and the rules that became it.
#[derive(Default)]
pub(super) struct OldEntry<'r> {
    pub(super) forwards: Vec<&'r Forward>,
    pub(super) outbound: Vec<&'r Outbound>,
    pub(super) remarks: Vec<&'r Remarked>,
    parts: Vec<(Part, &'r Rule)>,
}

/// The first packet of a connection.
pub(super) struct FirstPacket<'p> {
    pub(super) protocol: OutboundProtocol,
    pub(super) from: IpAddr,
    /// `None`: an address of the machine.
    pub(super) to: Option<IpAddr>,
    pub(super) port: Option<Port>,
    pub(super) arrival: Option<&'p Interface>,
}

impl FirstPacket<'_> {
    /// Returns the packet on its way to a host.
    pub(super) fn to(self, host: TestHost) -> Self {
        Self {
            to: Some(host.address),
            port: host.port,
            ..self
        }
    }
}

impl<'r> OldRules<'r> {
    pub(super) fn new(draft: &'r Draft, rules: &'r [(Family, Ruleset)]) -> Self {
        let mut old = Self {
            rules,
            entries: BTreeMap::new(),
            of_forwards: BTreeSet::new(),
            staying: Vec::new(),
        };
        for forward in &draft.set.forwards {
            old.of_forwards.extend(forward.listen.address);
            let targets = forward.target.destinations.iter();
            old.of_forwards.extend(targets.map(|to| to.address));
            old.entry(&forward.name).forwards.push(forward);
        }
        for entry in &draft.set.outbound {
            old.entry(&entry.name).outbound.push(entry);
        }
        for one in &draft.remarks {
            old.entry(&one.entry).remarks.push(one);
        }
        for account in &draft.accounts {
            let Some(rule) = old.rule(&account.place) else {
                continue;
            };
            match &account.fate {
                RuleFate::Taken { part, entries } => {
                    for entry in entries {
                        old.entry(entry).parts.push((*part, rule));
                    }
                }
                RuleFate::LeftAlone(_) | RuleFate::NotSaid(_)
                    if matches!(rule.target, Some(Target::Dnat { .. })) =>
                {
                    old.staying.push(rule);
                }
                _ => {}
            }
        }
        old
    }

    fn entry(&mut self, name: &'r Name) -> &mut OldEntry<'r> {
        self.entries.entry(name).or_default()
    }

    fn rule(&self, place: &ImportedPlace) -> Option<&'r Rule> {
        let mut rules = self.rules.iter();
        let (_, rules) = rules.find(|(family, _)| *family == place.family)?;
        place.rule_in(rules)
    }

    /// Returns how often a difference without a reason is looked for again. A rule that decides by chance makes some, and so
    /// does a limit, which counts the connections before.
    pub(super) fn most_tries(&self) -> u32 {
        let chains = self.rules.iter().flat_map(|(_, rules)| rules.chains());
        let mut matches = chains
            .flat_map(|(_, _, chain)| &chain.rules)
            .flat_map(|rule| &rule.matches);
        if matches.any(|one| one.name() == "statistic") {
            MOST_TRIES_BY_CHANCE
        } else {
            1
        }
    }

    /// Returns whether an address is a listener or a target of a forward.
    pub(super) fn is_of_forward(&self, address: IpAddr) -> bool {
        self.of_forwards.contains(&address)
    }

    /// Returns whether a packet may meet the rule at a place.
    pub(super) fn may_meet(&self, place: &ImportedPlace, packet: &FirstPacket<'_>) -> bool {
        self.rule(place).is_some_and(|rule| may_meet(rule, packet))
    }

    /// Returns whether a rule that stays where it is redirects a packet to an address.
    pub(super) fn redirects_otherwise(&self, packet: &FirstPacket<'_>, to: IpAddr) -> bool {
        self.staying.iter().any(|rule| match rule.target {
            Some(Target::Dnat { address, .. }) => address == to && may_meet(rule, packet),
            _ => false,
        })
    }

    /// Returns whether a rule and the draft both choose a source from one range that has all these addresses. The kernel
    /// chooses by a hash that differs between copies.
    pub(super) fn choose_from_one_range(&self, sources: &BTreeSet<IpAddr>) -> bool {
        let entries = || self.entries.values();
        let forwards = entries().flat_map(|one| one.forwards.iter().map(|one| one.snat));
        let outbound = entries().flat_map(|one| one.outbound.iter().map(|one| one.snat));
        let mut new = forwards.chain(outbound);
        new.any(|snat| match snat {
            Snat::Addresses(range) if range.single().is_none() => {
                let is_same = |rule: &Rule| match rule.target {
                    Some(Target::Snat { addresses, .. }) => addresses == range,
                    _ => false,
                };
                sources.iter().all(|one| range.contains(*one)) && self.nat().any(is_same)
            }
            _ => false,
        })
    }

    fn nat(&self) -> impl Iterator<Item = &'r Rule> {
        let chains = self.rules.iter().flat_map(|(_, rules)| rules.chains());
        let nat = chains.filter(|(table, _, _)| *table == TableName::Nat);
        nat.flat_map(|(_, _, chain)| &chain.rules)
    }

    /// Returns whether a rule of the table `nat` names a network of two addresses as its source.
    pub(super) fn name_network_of(&self, one: IpAddr, other: IpAddr) -> bool {
        let mut matches = self.nat().flat_map(|rule| &rule.matches);
        matches.any(|condition| match condition {
            Match::Source(Is(net) | Not(net)) => net.contains(&one) && net.contains(&other),
            _ => false,
        })
    }
}

impl OldEntry<'_> {
    /// Returns whether a rule that became a part of the entry may be for a packet.
    pub(super) fn may_meet(&self, part: Part, packet: &FirstPacket<'_>) -> bool {
        let mut parts = self.parts.iter();
        parts.any(|(is, rule)| *is == part && may_meet(rule, packet))
    }

    /// Returns whether a redirection of the entry may lead to an address. The addresses of some rules are not read.
    pub(super) fn may_lead_to(&self, to: IpAddr) -> bool {
        let mut parts = self.parts.iter();
        parts.any(|(is, rule)| {
            *is == Part::Redirect
                && match &rule.target {
                    Some(Target::Dnat { address, .. }) => *address == to,
                    _ => true,
                }
        })
    }
}

/// Returns whether a packet may meet the conditions of a rule. Conditions other than addresses, interfaces, protocols and
/// ports are taken as met.
fn may_meet(rule: &Rule, packet: &FirstPacket<'_>) -> bool {
    let transport = packet.protocol.transport();
    rule.matches.iter().all(|condition| match condition {
        Match::Source(net) => net.holds(|net| net.contains(&packet.from)),
        Match::Destination(net) => packet
            .to
            .is_none_or(|to| net.holds(|net| net.contains(&to))),
        Match::Ingress(pattern) => packet
            .arrival
            .is_none_or(|by| pattern.holds(|pattern| pattern.covers(by))),
        Match::Protocol(protocol) => protocol.holds(|one| is_of(one, packet.protocol)),
        Match::Tcp { destination, .. } => {
            transport == Some(Protocol::Tcp) && has_port(destination.as_ref(), packet.port)
        }
        Match::Udp { destination, .. } => {
            transport == Some(Protocol::Udp) && has_port(destination.as_ref(), packet.port)
        }
        Match::Multiport {
            of: PortsOf::Destination,
            ports,
        } => packet.port.is_some_and(|port| {
            ports.holds(|ports| ports.iter().any(|range| range.contains(port)))
        }),
        _ => true,
    })
}

fn is_of(named: &IpProtocol, protocol: OutboundProtocol) -> bool {
    match protocol.transport() {
        Some(protocol) => named.transport() == Some(protocol),
        None => matches!(named, IpProtocol::Icmp | IpProtocol::Icmp6),
    }
}

fn has_port(named: Option<&Negatable<PortRange>>, port: Option<Port>) -> bool {
    named.is_none_or(|named| port.is_some_and(|port| named.holds(|range| range.contains(port))))
}
