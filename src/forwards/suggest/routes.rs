//! The machine's addresses and routes, as far as a spec tells them.
//!
//! The routes are those of a machine on which the whole spec works: packets that an entry or a forward needs leave by
//! its egress. If two parts of the spec need different interfaces for one packet, nothing is known.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::claims::Claims;
use super::numbered::shifted;
use crate::forwards::forward::{Destination, Forward, Snat};
use crate::forwards::outbound::Outbound;
use crate::forwards::set::ForwardSet;
use crate::forwards::sources::Nets;
use crate::net::{AddressRange, Family, Interface};

/// How many addresses of a range are looked at.
const MOST: usize = 256;

/// The addresses of a spec, and the interfaces behind which they are.
#[derive(Debug)]
pub struct Routes<'s> {
    pub interfaces: Vec<&'s Interface>,
    /// The machine's own addresses: each `snat`, with its interface.
    own: BTreeMap<IpAddr, &'s Interface>,
    /// The addresses of listeners, which need not be the machine's.
    listeners: BTreeSet<IpAddr>,
    /// The forwards to each target.
    targets: BTreeMap<IpAddr, Vec<&'s Forward>>,
    /// The networks that all parts of the spec assign to interfaces.
    all: Claims<'s>,
    /// The networks to which outbound entries lead packets, by the interface on which these come in.
    by_ingress: BTreeMap<&'s Interface, Claims<'s>>,
}

impl<'s> Routes<'s> {
    pub fn of(set: &'s ForwardSet) -> Self {
        let of_forwards = set.forwards.iter().map(|one| (one.snat, &one.egress));
        let of_entries = set.outbound.iter().map(|one| (one.snat, &one.egress));
        let own = of_forwards.chain(of_entries).flat_map(|(snat, egress)| {
            let range = match snat {
                Snat::Addresses(range) => Some(range),
                Snat::Masquerade | Snat::Client => None,
            };
            let each = range.into_iter().flat_map(addresses);
            each.map(move |address| (address, egress))
        });
        let own: BTreeMap<IpAddr, &Interface> = own.collect();
        let listeners = set.forwards.iter();
        let listeners = listeners.filter_map(|one| one.listen.address).collect();
        let mut targets: BTreeMap<IpAddr, Vec<&Forward>> = BTreeMap::new();
        for forward in &set.forwards {
            for to in &forward.target.destinations {
                targets.entry(to.address).or_default().push(forward);
            }
        }
        Self {
            interfaces: set.interfaces(),
            all: claims(set, &own),
            by_ingress: by_ingress(set),
            own,
            listeners,
            targets,
        }
    }

    /// Returns whether the address is a source that targets see, so that the machine has it.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains_key(&address)
    }

    pub fn is_listener(&self, address: IpAddr) -> bool {
        self.listeners.contains(&address)
    }

    pub fn is_target(&self, address: IpAddr) -> bool {
        self.targets.contains_key(&address)
    }

    /// Returns the machine's own addresses of a family.
    pub fn own(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        let all = self.own.keys().copied();
        all.filter(move |address| Family::of(*address) == family)
    }

    /// Returns the interface by which a packet leaves that no forward redirects, if the spec tells.
    pub fn egress(&self, ingress: &Interface, to: IpAddr) -> Option<&'s Interface> {
        if let [only] = self.interfaces.as_slice() {
            return Some(only);
        }
        let entries = self.by_ingress.get(ingress);
        let Some((length, by)) = entries.and_then(|claims| claims.narrowest(to)) else {
            return only(self.all.narrowest(to)?.1);
        };
        let by = only(by)?;
        let mut narrower = self.all.around(to);
        let mut narrower = narrower
            .by_ref()
            .take_while(|(narrower, _)| *narrower > length);
        let agree = narrower.all(|(_, others)| others.iter().all(|other| *other == by));
        agree.then_some(by)
    }

    /// Returns whether a redirected packet leaves by the forward's egress: no other forward, and no outbound entry,
    /// needs another interface for it.
    pub fn lead_out(&self, forward: &Forward, ingress: &Interface, to: &Destination) -> bool {
        if self.interfaces.len() == 1 {
            return true;
        }
        let ports = forward.ports_at(to);
        let others = self.targets.get(&to.address).into_iter().flatten();
        let mut others = others.filter(|other| other.egress != forward.egress);
        let clash = others.any(|other| {
            let mut there = other.target.destinations.iter();
            other.protocol == forward.protocol
                && other.entrances().any(|one| one == ingress)
                && there.any(|one| one.address == to.address && other.ports_at(one).overlaps(ports))
        });
        let entries = self.by_ingress.get(ingress);
        let narrowest = entries.and_then(|claims| claims.narrowest(to.address));
        let host = IpNet::from(to.address).prefix_len();
        let claimed = narrowest.filter(|(length, _)| *length == host);
        let elsewhere = claimed.is_some_and(|(_, by)| by.iter().any(|by| **by != forward.egress));
        !clash && !elsewhere
    }
}

/// Returns the networks that all parts of a spec assign to interfaces.
fn claims<'s>(set: &'s ForwardSet, own: &BTreeMap<IpAddr, &'s Interface>) -> Claims<'s> {
    let mut claims = Claims::default();
    for family in Family::ALL {
        let mut forwards = set.forwards.iter().filter(|one| one.family() == family);
        let first = forwards.next();
        let clients = first.and_then(|forward| forward.ingress.first());
        let servers = set.outbound_of(family).next().map(|entry| &entry.egress);
        if let Some(by) = clients.or(servers) {
            claims.add(family.everything(), by);
        }
    }
    // Thousands of forwards may share one list.
    let mut seen = BTreeSet::new();
    for forward in &set.forwards {
        for to in &forward.target.destinations {
            claims.add(IpNet::from(to.address), &forward.egress);
        }
        let listener = forward.listen.address.zip(forward.ingress.first());
        if let Some((address, by)) = listener {
            claims.add(on_link(address), by);
        }
        let nets = forward.sources.allow.iter();
        let nets = nets.filter(|nets| seen.insert((nets.as_slice().as_ptr(), &forward.ingress)));
        for net in nets.flat_map(Nets::as_slice) {
            for by in &forward.ingress {
                claims.add(*net, by);
            }
        }
    }
    for entry in &set.outbound {
        for net in entry.allow_from.as_slice() {
            for by in &entry.ingress {
                claims.add(*net, by);
            }
        }
        for net in destinations(entry) {
            claims.add(net, &entry.egress);
        }
    }
    for (address, by) in own {
        claims.add(on_link(*address), by);
    }
    claims
}

fn by_ingress(set: &ForwardSet) -> BTreeMap<&Interface, Claims<'_>> {
    let mut found: BTreeMap<&Interface, Claims<'_>> = BTreeMap::new();
    for entry in &set.outbound {
        for ingress in &entry.ingress {
            let claims = found.entry(ingress).or_default();
            for net in destinations(entry) {
                claims.add(net, &entry.egress);
            }
        }
        // Replies.
        let claims = found.entry(&entry.egress).or_default();
        for net in entry.allow_from.as_slice() {
            for ingress in &entry.ingress {
                claims.add(*net, ingress);
            }
        }
    }
    found
}

/// Returns the networks to which an entry leads. The IPv4 Internet is everything that no narrower network holds.
fn destinations(entry: &Outbound) -> impl Iterator<Item = IpNet> {
    let internet = entry.allow_to.internet.then(|| entry.family.everything());
    let nets = entry.allow_to.nets.as_slice().iter().copied();
    internet.into_iter().chain(nets)
}

/// Returns the interface if it is only one.
fn only<'s>(all: &[&'s Interface]) -> Option<&'s Interface> {
    match all {
        [only] => Some(only),
        _ => None,
    }
}

/// Returns a network that an own address may share with other hosts.
fn on_link(own: IpAddr) -> IpNet {
    let length = match own {
        IpAddr::V4(_) => 24,
        IpAddr::V6(_) => 64,
    };
    IpNet::new(own, length).map_or(IpNet::from(own), |net| net.trunc())
}

fn addresses(range: AddressRange) -> impl Iterator<Item = IpAddr> {
    let next = |address: &IpAddr| shifted(*address, 1);
    let all = std::iter::successors(Some(range.first()), next);
    all.take_while(move |address| *address <= range.last())
        .take(MOST)
}
