//! The interfaces, addresses and routes of the machine that a spec's forwards need: the questions, and the machine's
//! answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::forwards::{Forward, ForwardSet, Outbound, Snat};
use crate::host::network::{self, Links, Packet, Route, somebody};
use crate::net::Family;

/// The machine's interfaces, addresses and routes.
#[derive(Debug)]
pub struct ReachFacts<'s> {
    pub links: Links,
    /// The kernel's answers to [`questions`].
    pub routes: BTreeMap<Packet<'s>, Result<Route, String>>,
    /// The number of targets without a question.
    pub left_out: usize,
}

/// The routes to ask the kernel for.
#[derive(Debug)]
pub struct Questions<'s> {
    pub packets: BTreeSet<Packet<'s>>,
    pub left_out: usize,
}

/// The number of targets whose route is asked for, since each costs some ten microseconds.
pub const MOST_TARGETS: usize = 1_000;

/// Reads the interfaces, addresses and routes that the forwards of a spec need; `None` if `ip` lists no interface.
/// It runs two programs at most, however many forwards there are.
#[must_use]
pub fn look(set: &ForwardSet) -> Option<ReachFacts<'_>> {
    let links = network::links();
    if links.0.is_empty() {
        return None;
    }
    let Questions { packets, left_out } = questions(set, &links);
    Some(ReachFacts {
        routes: network::plain_routes(&packets),
        links,
        left_out,
    })
}

/// Returns the routes to ask for: from a client and from the machine itself to each target, and to each address of
/// the spec that no interface has, since a local route can make that address the machine's.
#[must_use]
pub fn questions<'s>(set: &'s ForwardSet, links: &Links) -> Questions<'s> {
    let mut packets = BTreeSet::new();
    let (mut targets, mut left_out) = (BTreeSet::new(), BTreeSet::new());
    for forward in &set.forwards {
        let client = somebody(forward.family());
        for to in forward.target.destinations.iter().map(|to| to.address) {
            if targets.len() >= MOST_TARGETS && !targets.contains(&to) {
                left_out.insert(to);
                continue;
            }
            targets.insert(to);
            packets.insert(Packet { to, came: None });
            let there = forward
                .ingress
                .iter()
                .filter(|one| links.get(one).is_some());
            packets.extend(there.map(|ingress| Packet {
                to,
                came: Some((client, ingress)),
            }));
        }
    }
    for (entry, to) in set.outbound.iter().map(|entry| (entry, outside(entry))) {
        packets.insert(Packet { to, came: None });
        let there = entry.ingress.iter();
        let there = there.filter(|one| links.get(one).is_some());
        packets.extend(there.map(|ingress| Packet {
            to,
            came: Some((sender(entry), ingress)),
        }));
    }
    let snats = set.outbound.iter().flat_map(|entry| range_ends(entry.snat));
    let own = set.forwards.iter().flat_map(own_addresses).chain(snats);
    let unknown: BTreeSet<IpAddr> = own.filter(|one| links.owner(*one).is_none()).collect();
    let unknown = unknown.into_iter().take(MOST_TARGETS);
    packets.extend(unknown.map(|to| Packet { to, came: None }));
    Questions {
        packets,
        left_out: left_out.len(),
    }
}

/// Returns the addresses of a forward that must be the machine's.
fn own_addresses(forward: &Forward) -> impl Iterator<Item = IpAddr> {
    forward.listen.address.into_iter().chain(snat_ends(forward))
}

/// Returns the ends of a forward's SNAT range.
pub fn snat_ends(forward: &Forward) -> impl Iterator<Item = IpAddr> {
    range_ends(forward.snat)
}

/// Returns an address that an outbound entry reaches: one on the Internet, or the first that it names.
#[must_use]
pub fn outside(entry: &Outbound) -> IpAddr {
    let internet = internet(entry.family);
    let first = entry.allow_to.nets.as_slice().first();
    match first {
        Some(net) if !entry.allow_to.contains(internet) => host_of(net),
        _ => internet,
    }
}

/// Returns the address that stands for the Internet when a route is asked for. It is in a documentation block
/// (RFC 5737, RFC 3849), to which no route of its own leads.
#[must_use]
pub fn internet(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([203, 0, 113, 1]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xffff]),
    }
}

/// Returns a source of an outbound entry's connections.
pub fn sender(entry: &Outbound) -> IpAddr {
    let mut nets = entry.allow_from.as_slice().iter();
    let first = nets.find(|net| net.prefix_len() > 0);
    first.map_or_else(|| somebody(entry.family), host_of)
}

/// Returns an address of a network that a host may have: the lowest is a broadcast address (Linux before 5.14) or, with
/// IPv6, every router's (RFC 4291, 2.6.1).
fn host_of(net: &IpNet) -> IpAddr {
    let mut hosts = net.hosts();
    let host = match net {
        IpNet::V4(_) => hosts.next(),
        IpNet::V6(_) => hosts.nth(1),
    };
    host.unwrap_or(net.addr())
}

/// Returns the ends of a SNAT range.
pub fn range_ends(snat: Snat) -> impl Iterator<Item = IpAddr> {
    let range = match snat {
        Snat::Addresses(range) => Some(range),
        Snat::Masquerade | Snat::Client => None,
    };
    let ends = range.map(|range| BTreeSet::from([range.first(), range.last()]));
    ends.into_iter().flatten()
}
