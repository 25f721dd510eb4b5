//! The clients that ask because rules name sources.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::forwards::{Forward, ForwardSet};
use crate::net::Family;
use crate::netfilter::conntrack::is_of_host;
use crate::netfilter::matches::Match;
use crate::netfilter::negatable::Negatable::{Is, Not};
use crate::netfilter::ruleset::Ruleset;

/// The most clients that ask for the destination of a rule without a source.
const MOST_OF_RULE: usize = 4;

/// Returns clients for rules that name sources: one that no rule names, a host of each network, and a host beside each.
/// Networks of targets are left out.
pub(super) fn named_clients(family: Family, rules: &Ruleset, forwards: &[&Forward]) -> Vec<IpAddr> {
    let is_inside = |net: &IpNet| {
        let mut targets = forwards.iter().flat_map(|one| &one.target.destinations);
        targets.any(|to| net.contains(&to.address))
    };
    let mut nets = named_nets(rules);
    nets.retain(|net| !is_inside(net));
    let is_named = |address: &IpAddr| nets.iter().any(|net| net.contains(address));
    let stranger = stranger(family, rules).filter(|_| !nets.is_empty());
    let hosts = nets.iter().filter_map(|net| host_of(*net));
    let beside = nets.iter().filter_map(|net| next(net.broadcast()));
    let beside = beside.filter(|address| !is_named(address));
    let mut seen = BTreeSet::new();
    let each = stranger.into_iter().chain(hosts).chain(beside);
    each.filter(|host| is_of_host(*host) && seen.insert(*host))
        .collect()
}

/// Returns clients for a rule that names no source: one that no rule names, and some that others name.
pub(super) fn any_clients(family: Family, rules: &Ruleset, set: &ForwardSet) -> Vec<IpAddr> {
    let forwards = set.forwards.iter();
    let forwards: Vec<&Forward> = forwards.filter(|one| one.family() == family).collect();
    let mut clients = named_clients(family, rules, &forwards);
    if clients.is_empty() {
        clients.extend(stranger(family, rules));
    }
    clients.truncate(MOST_OF_RULE);
    clients
}

/// Returns a client that no rule names.
fn stranger(family: Family, rules: &Ruleset) -> Option<IpAddr> {
    let nets = named_nets(rules);
    let mut strangers = strangers(family).into_iter();
    strangers.find(|one| !nets.iter().any(|net| net.contains(one)))
}

/// Returns a host of a network, the only one if it has no other. A packet from a link-local address is not forwarded, and its
/// socket needs an interface.
pub(super) fn host_of(net: IpNet) -> Option<IpAddr> {
    let host = net.hosts().nth(6).or_else(|| net.hosts().next())?;
    is_of_host(host).then_some(host)
}

/// Returns the networks that rules name as sources, or rule out.
fn named_nets(rules: &Ruleset) -> BTreeSet<IpNet> {
    let all = rules.chains().flat_map(|(_, _, chain)| &chain.rules);
    let sources = all
        .flat_map(|rule| &rule.matches)
        .filter_map(|one| match one {
            Match::Source(Is(net) | Not(net)) => Some(net.trunc()),
            _ => None,
        });
    sources.filter(|net| net.prefix_len() > 0).collect()
}

/// Returns addresses of the Internet, first those for documentation, which nobody has.
fn strangers(family: Family) -> Vec<IpAddr> {
    match family {
        Family::V4 => [[198, 51, 100], [203, 0, 113], [192, 0, 2], [20, 2, 69]]
            .map(|[a, b, c]| Ipv4Addr::new(a, b, c, 9).into())
            .to_vec(),
        Family::V6 => [0x2001_0db8, 0x2a00_cf40_u32]
            .map(|first| Ipv6Addr::from_bits(u128::from(first) << 96 | 9).into())
            .to_vec(),
    }
}

/// Returns the address behind another one.
fn next(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits().checked_add(1)?).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits().checked_add(1)?).into(),
    })
}
