//! The rules of one outbound entry.
//!
//! A new connection meets the entries behind known connections and all forwards, in the order of the spec. One rule
//! for each ingress interface sends the connections that are not translated to the entry's chains: its sources, its
//! destinations, its protocols and ports. A connection that one of them does not hold returns and meets the next
//! entry. So only connections that the entry selects meet its drops, limits and log, which come right before its
//! accepting rule.
//!
//! Packets to the metadata service and to Azure's host agent reach the drops of an entry to the Internet, although
//! these addresses are not part of it: the policy may accept them, and they would give a pod the VM's identity.
//!
//! `! --ctstate DNAT` keeps out connections that a forward or another program has redirected: a client that a forward
//! with `hairpin` refuses would otherwise pass here.
//!
//! NVACTL-POSTROUTING selects the same connections, apart from packets that open no TCP connection, which
//! NVACTL-FORWARD leaves to the policy: if the policy accepts them, they belong to connections from before a reboot,
//! and need the source that those had.
//!
//! The firewall's own packets keep their source. They came in by no interface, so a rule with `-i` does not match
//! them. If all entries have one and the same interface, the rules ask for the source instead, which every kernel
//! knows. Beside an entry with another ingress, such a rule would take that entry's connections too.

use std::net::IpAddr;

use ipnet::IpNet;

use super::chains::{Chains, EXIT, log_line};
use super::forward::{limit_matches, opens, source, transport};
use crate::forwards::{Nets, Outbound, OutboundProtocol, share_one_nic};
use crate::net::{Family, Interface, PortRange, Protocol};
use crate::netfilter::matches::{AddressType, Match, PortsOf, Side};
use crate::netfilter::names::ChainName;
use crate::netfilter::negatable::Negatable::{Is, Not};
use crate::netfilter::protocol::{IcmpType, IpProtocol};
use crate::netfilter::rule::Rule;
use crate::netfilter::target::{RejectWith, Target};
use crate::netfilter::tracking::{Conntrack, CtDirection, CtState};

/// The slots of one multiport match (`XT_MULTI_PORTS` in `linux/netfilter/xt_multiport.h`). A range takes two.
const SLOTS: usize = 15;

/// Returns the entry's rules of `NVACTL-FORWARD`, and adds the chains that they lead to.
pub fn admit(entry: &Outbound, chains: &mut Chains) -> Vec<Rule> {
    let target = if entry.admits_all() {
        Target::Accept
    } else {
        let rules = verdict(entry, chains);
        Target::Goto(chains.add(EXIT, rules))
    };
    let exit = chains.add(EXIT, exit(entry, true, &target));
    let dropped = &entry.allow_to.guarded;
    let (addresses, first) = lead(entry, CtDirection::Original, dropped, exit, chains);
    let rule = |by: &Interface| {
        let new = Conntrack::states(CtState::New.into());
        let matches = addresses.iter().cloned().chain(path(entry, Some(by)));
        let matches = matches.chain([Match::Conntrack(new), untranslated(), comment(entry)]);
        Rule::new(matches, Target::Jump(first.clone()))
    };
    entry.ingress.iter().map(rule).collect()
}

/// Returns the rules of all entries of a family in `NVACTL-POSTROUTING`, and adds the chains that they lead to.
pub fn leave(entries: &[&Outbound], chains: &mut Chains) -> Vec<Rule> {
    let one_nic = share_one_nic(entries.iter().copied());
    let each = entries.iter().flat_map(|entry| {
        let by: Vec<Option<&Interface>> = if one_nic {
            vec![None]
        } else {
            entry.ingress.iter().map(Some).collect()
        };
        leave_by(entry, by, chains)
    });
    each.collect()
}

/// Returns an entry's rule for each interface by which its packets came in; `None` stands for any.
fn leave_by(entry: &Outbound, by: Vec<Option<&Interface>>, chains: &mut Chains) -> Vec<Rule> {
    let exit = chains.add(EXIT, exit(entry, false, &source(entry.snat)));
    let (addresses, first) = lead(entry, CtDirection::Original, &[], exit, chains);
    let rule = |by: Option<&Interface>| {
        let matches = addresses.iter().cloned().chain(path(entry, by));
        let foreign = by.is_none().then_some(Match::AddressType {
            of: Side::Source,
            kind: Not(AddressType::Local),
        });
        let matches = matches
            .chain(foreign)
            .chain([untranslated(), comment(entry)]);
        Rule::new(matches, Target::Jump(first.clone()))
    };
    by.into_iter().map(rule).collect()
}

/// Returns the conditions and the first chain for packets of connections between the entry's sources and destinations.
/// A list of one network is a condition, a longer one a chain before `exit`. Packets to the addresses `dropped` beside
/// the Internet reach `exit` as well.
pub(super) fn lead(
    entry: &Outbound,
    way: CtDirection,
    dropped: &[IpAddr],
    exit: ChainName,
    chains: &mut Chains,
) -> (Vec<Match>, ChainName) {
    let Outbound {
        allow_from: from,
        allow_to: to,
        ..
    } = entry;
    let (one_from, one_to) = (single(from), single(&to.nets).filter(|_| !to.internet));
    let mut first = exit;
    if one_to.is_none() {
        first = chains.destinations(way, to, dropped, first);
    }
    if from.as_slice().len() > 1 {
        first = chains.sources(way, from, first);
    }
    let (source, destination) = match way {
        CtDirection::Original => (one_from, one_to),
        CtDirection::Reply => (one_to, one_from),
    };
    let source = source.map(|net| Match::Source(Is(net)));
    let destination = destination.map(|net| Match::Destination(Is(net)));
    (source.into_iter().chain(destination).collect(), first)
}

/// Returns the only network of a list. iptables-save does not print a network of all addresses.
fn single(nets: &Nets) -> Option<IpNet> {
    match nets.as_slice() {
        [net] if net.prefix_len() > 0 => Some(*net),
        _ => None,
    }
}

fn path(entry: &Outbound, by: Option<&Interface>) -> impl Iterator<Item = Match> {
    let by = by.map(|by| Match::Ingress(Is(by.clone().into())));
    by.into_iter()
        .chain([Match::Egress(Is(entry.egress.clone().into()))])
}

/// Returns the rules that select the entry's protocols and ports.
fn exit(entry: &Outbound, syn: bool, target: &Target) -> Vec<Rule> {
    let mut rules = Vec::new();
    for protocol in &entry.protocols {
        let Some(transport) = protocol.transport() else {
            rules.push(rule(entry, ping(entry.family), target));
            continue;
        };
        for ports in slotted(&entry.ports) {
            rules.push(rule(entry, to_ports(transport, ports, syn), target));
        }
    }
    rules
}

fn rule(entry: &Outbound, matches: Vec<Match>, target: &Target) -> Rule {
    let matches = matches.into_iter().chain([comment(entry)]);
    Rule::new(matches, target.clone())
}

/// Returns the conditions of echo requests.
fn ping(family: Family) -> Vec<Match> {
    // RFC 792 and RFC 4443.
    match family {
        Family::V4 => vec![
            Match::Protocol(Is(IpProtocol::Icmp)),
            Match::Icmp(Is(IcmpType::Type(8))),
        ],
        Family::V6 => vec![
            Match::Protocol(Is(IpProtocol::Icmp6)),
            Match::Icmp6(Is(IcmpType::Type(128))),
        ],
    }
}

/// Returns the conditions of packets to some ports, all that one rule can hold.
fn to_ports(protocol: Protocol, ports: &[PortRange], syn: bool) -> Vec<Match> {
    if let [ports] = ports {
        return transport(protocol, *ports, syn).into();
    }
    let several = (!ports.is_empty()).then(|| Match::Multiport {
        of: PortsOf::Destination,
        ports: Is(ports.to_vec()),
    });
    let mut matches = vec![Match::Protocol(Is(protocol.into()))];
    matches.extend(opens(protocol).filter(|_| syn));
    matches.extend(several);
    matches
}

/// Divides ports into parts that one multiport match can hold. No ports are one part.
pub(super) fn slotted(ports: &[PortRange]) -> Vec<&[PortRange]> {
    let mut found = Vec::new();
    let (mut start, mut used) = (0, 0);
    for (n, range) in ports.iter().enumerate() {
        let slots = if range.is_single() { 1 } else { 2 };
        if used + slots > SLOTS {
            found.push(&ports[start..n]);
            (start, used) = (n, 0);
        }
        used += slots;
    }
    found.push(&ports[start..]);
    found
}

/// Returns the rules for the connections that the entry selects: its drops, its limits, its log, and the rule that
/// accepts the others.
fn verdict(entry: &Outbound, chains: &mut Chains) -> Vec<Rule> {
    let log = entry.log.as_ref();
    let mut rules = Vec::new();
    let mut add = |matches: Vec<Match>, target: Target| rules.push(rule(entry, matches, &target));
    if !entry.deny_from.is_empty() {
        let refused = chains.refuse(Target::Drop, log);
        let denied = chains.denied(&entry.deny_from, &refused);
        add(Vec::new(), Target::Jump(denied));
    }
    if !entry.deny_to.is_empty() {
        let refused = chains.refuse(Target::Drop, log);
        let denied = chains.denied_destinations(&entry.deny_to, &refused);
        add(Vec::new(), Target::Jump(denied));
    }
    for address in &entry.allow_to.guarded {
        let refused = chains.refuse(Target::Drop, log);
        add(vec![Match::Destination(Is(IpNet::from(*address)))], refused);
    }
    let logged = log.filter(|log| log.connections.accepted());
    // Every packet of a connection is NEW until a reply comes. Only the first packet is counted.
    if entry.limits.is_some() || logged.is_some() {
        let later = Match::Conntrack(Conntrack::CONFIRMED);
        add(vec![later], Target::Accept);
    }
    if let Some(limits) = &entry.limits {
        for protocol in &entry.protocols {
            let target = if limits.reject {
                rejection(*protocol, entry.family)
            } else {
                Target::Drop
            };
            let refused = chains.refuse(target, log);
            let of = protocol.as_str();
            for limit in limit_matches(&entry.name, of, entry.family, limits) {
                let protocol = ip_protocol(*protocol, entry.family);
                add(vec![Match::Protocol(Is(protocol)), limit], refused.clone());
            }
        }
    }
    if let Some(log) = logged {
        let (limit, line) = log_line(log, "accepted");
        add(vec![limit], line);
    }
    add(Vec::new(), Target::Accept);
    rules
}

fn rejection(protocol: OutboundProtocol, family: Family) -> Target {
    Target::Reject(match (protocol, family) {
        (OutboundProtocol::Tcp, _) => RejectWith::TcpReset,
        (_, Family::V4) => RejectWith::IcmpPortUnreachable,
        (_, Family::V6) => RejectWith::Icmp6PortUnreachable,
    })
}

fn ip_protocol(protocol: OutboundProtocol, family: Family) -> IpProtocol {
    match (protocol.transport(), family) {
        (Some(protocol), _) => protocol.into(),
        (None, Family::V4) => IpProtocol::Icmp,
        (None, Family::V6) => IpProtocol::Icmp6,
    }
}

/// Returns the condition that no rule has redirected the connection.
pub(super) fn untranslated() -> Match {
    Match::Conntrack(Conntrack {
        states: Some(Not(CtState::Dnat.into())),
        ..Conntrack::default()
    })
}

pub(super) fn comment(entry: &Outbound) -> Match {
    Match::Comment(entry.name.as_str().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_has_as_many_ports_as_multiport_has_slots() {
        let read = |text: &str| -> Vec<PortRange> {
            let each = text.split(' ').filter(|one| !one.is_empty());
            each.map(|one| one.parse().expect("they are ports"))
                .collect()
        };
        let single = |n: u16| format!("{n} ");
        for (ports, parts) in [
            (String::new(), vec![0]),
            ("443".to_owned(), vec![1]),
            ((1..=15).map(|n| single(n * 2)).collect(), vec![15]),
            ((1..=16).map(|n| single(n * 2)).collect(), vec![15, 1]),
            (
                (1..=8).map(|n| format!("{n}00-{n}09 ")).collect(),
                vec![7, 1],
            ),
            (
                (1..=14).map(|n| single(n * 2)).collect::<String>() + "100-110 200",
                vec![14, 2],
            ),
        ] {
            let ports = read(&ports);
            let found = slotted(&ports);
            let lengths: Vec<usize> = found.iter().map(|part| part.len()).collect();
            assert_eq!(lengths, parts, "{ports:?}");
            assert_eq!(found.concat(), ports);
        }
    }
}
