//! What a spec tells about the machine's addresses and routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::numbered::shifted;
use crate::forwards::forward::Snat;
use crate::forwards::outbound::{Outbound, internet_v6, not_internet_v4};
use crate::forwards::set::ForwardSet;
use crate::net::{AddressRange, Family, Interface};

/// The longest range of which each address is looked at.
const MOST: usize = 256;

/// The addresses of a spec, and the interfaces behind which they are.
#[derive(Debug)]
pub struct Routes<'s> {
    set: &'s ForwardSet,
    pub interfaces: Vec<&'s Interface>,
    /// The machine's own addresses: each `snat`, with its interface.
    own: BTreeMap<IpAddr, &'s Interface>,
    /// The addresses of listeners, which need not be the machine's.
    listeners: BTreeSet<IpAddr>,
    /// The targets of forwards, each with the interfaces by which forwards reach it.
    targets: BTreeMap<IpAddr, Vec<&'s Interface>>,
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
        let own = own.collect();
        let mut targets: BTreeMap<IpAddr, Vec<&Interface>> = BTreeMap::new();
        for forward in &set.forwards {
            for to in &forward.target.destinations {
                let by = targets.entry(to.address).or_default();
                if !by.contains(&&forward.egress) {
                    by.push(&forward.egress);
                }
            }
        }
        let listeners = set.forwards.iter();
        let listeners = listeners.filter_map(|one| one.listen.address).collect();
        Self {
            set,
            interfaces: set.interfaces(),
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

    /// Returns the interface by which packets to an address leave, if the spec tells. More specific networks come
    /// first: a target, then a network of an outbound entry or around an own address, then the Internet.
    pub fn egress(&self, to: IpAddr) -> Option<&'s Interface> {
        if let [only] = self.interfaces.as_slice() {
            return Some(only);
        }
        if let Some(by) = self.targets.get(&to) {
            return only(by.iter().copied());
        }
        let entries = self.set.outbound.iter();
        let nets = entries.flat_map(|entry| around(entry, to));
        let own = self.own.iter();
        let on_link = own.filter_map(|(own, by)| {
            let net = on_link(*own);
            net.contains(&to).then_some((net.prefix_len(), Some(*by)))
        });
        let nets: Vec<(u8, Option<&Interface>)> = nets.chain(on_link).collect();
        match nets.iter().map(|(length, _)| *length).max() {
            Some(longest) => {
                let longest = nets.iter().filter(|(length, _)| *length == longest);
                let by: Option<Vec<&Interface>> = longest.map(|(_, by)| *by).collect();
                only(by?.into_iter())
            }
            None => self.outside(to),
        }
    }

    /// Returns the interface to an address that is in no network of the spec.
    fn outside(&self, to: IpAddr) -> Option<&'s Interface> {
        let is_private = to.is_ipv4() && not_internet_v4().contains(to);
        let family = Family::of(to);
        // The clients are on the outer side. Without forwards, the servers are.
        let first = self.set.forwards.first();
        let of_family = self.set.forwards.iter().find(|one| one.family() == family);
        let forwards = first.into_iter().chain(of_family);
        let forwards = forwards.filter_map(|forward| forward.ingress.first());
        let entries = self.set.outbound_of(family).map(|entry| &entry.egress);
        let by = if of_family.is_some() {
            only(forwards)
        } else {
            only(forwards.chain(entries))
        };
        by.filter(|_| !is_private)
    }
}

/// Returns the networks of an entry that hold an address: the length of the prefix, and the interface if it is one.
fn around<'s>(
    entry: &'s Outbound,
    to: IpAddr,
) -> impl Iterator<Item = (u8, Option<&'s Interface>)> {
    let host = IpNet::from(to);
    let meant = entry.allow_to.nets.holding(host);
    // The Internet is no network of its own.
    let meant = meant.filter(|net| *net != internet_v6());
    let meant = meant.map(|net| (net.prefix_len(), Some(&entry.egress)));
    let source = entry.allow_from.holding(host);
    let source = source.map(|net| (net.prefix_len(), only(entry.ingress.iter())));
    meant.into_iter().chain(source)
}

/// Returns the interface if all are the same.
fn only<'s>(mut all: impl Iterator<Item = &'s Interface>) -> Option<&'s Interface> {
    let first = all.next()?;
    all.all(|one| one == first).then_some(first)
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
