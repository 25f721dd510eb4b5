//! The hosts that outbound entries let out, and the destinations of their connections.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::internet::server;
use super::networks::{NamedInRules, host_of, of_interfaces};
use super::sample::{ClientKind, MOST, SampleClient};
use crate::forwards::{ForwardSet, METADATA, Nets, Outbound, internet_v6};
use crate::host::network::Packet;
use crate::net::{Family, Interface};
use crate::netfilter::conntrack::is_of_host;
use crate::twin::machine::Machine;

/// The ends of an outbound entry's connections.
#[derive(Debug, Default)]
pub struct OfEntry<'f> {
    /// A host of each network of `allow_from`, with the interface by which it comes in.
    pub senders: Vec<(SampleClient, &'f Interface)>,
    /// An address of each network of `allow_to`.
    pub destinations: Vec<IpAddr>,
    /// An address of each other network in `allow_to` that rules of others name.
    pub named_destinations: Vec<(IpNet, IpAddr)>,
    /// Hosts outside `allow_from`, and hosts in `deny_from`.
    pub denied_senders: Vec<(SampleClient, &'f Interface)>,
    /// Addresses outside `allow_to`, and addresses in `deny_to`.
    pub denied_destinations: Vec<IpAddr>,
}

/// The facts about the machine from which the ends of the connections are chosen.
#[derive(Debug)]
pub struct Outward {
    /// The networks of the family behind each interface.
    behind: BTreeMap<String, BTreeSet<IpNet>>,
    /// The machine's own addresses, and those that do not answer.
    unusable: BTreeSet<IpAddr>,
    /// The networks that rules of others name.
    named: BTreeSet<IpNet>,
    /// The networks that rules of others name as destinations of packets.
    named_destinations: BTreeSet<IpNet>,
    /// The interface by which packets to an address leave. They come in by another interface, or the machine itself
    /// sends them: then its name is empty.
    ways: BTreeMap<(IpAddr, String), String>,
}

impl Outward {
    /// Gathers the facts. `back` returns the interface by which each packet leaves the machine.
    pub fn of<'s>(
        set: &'s ForwardSet,
        family: Family,
        machine: &Machine,
        unusable: BTreeSet<IpAddr>,
        named: &NamedInRules,
        back: impl Fn(&BTreeSet<Packet<'s>>) -> BTreeMap<Packet<'s>, String>,
    ) -> Self {
        let entries = set.outbound_of(family);
        let interfaces = entries.flat_map(|one| one.ingress.iter().chain([&one.egress]));
        let interfaces: BTreeSet<&str> = interfaces.map(Interface::as_str).collect();
        let behind = interfaces.into_iter().map(|interface| {
            let mut nets = of_interfaces(machine, &BTreeSet::from([interface]));
            nets.retain(|net| Family::of(net.addr()) == family);
            (interface.to_owned(), nets)
        });
        let of_family = |net: &IpNet| Family::of(net.addr()) == family;
        let nets = named.networks.union(&named.destinations).copied();
        let nets = nets.filter(of_family);
        let destinations = named.destinations.iter().copied().filter(of_family);
        let mut outward = Self {
            behind: behind.collect(),
            unusable,
            named: nets.collect(),
            named_destinations: destinations.collect(),
            ways: BTreeMap::new(),
        };
        let entries = set.outbound_of(family);
        let packets = entries.flat_map(|entry| outward.packets(entry)).collect();
        let ways = back(&packets).into_iter().map(|(packet, interface)| {
            let came = packet.came.map(|(_, came)| came.to_string());
            ((packet.to, came.unwrap_or_default()), interface)
        });
        outward.ways = ways.collect();
        outward
    }

    /// Returns the ends of an entry's connections. The first ones are the plainest.
    pub fn of_entry<'f>(&self, entry: &'f Outbound) -> OfEntry<'f> {
        let senders = self.senders(entry).into_iter();
        let mut senders: Vec<_> = senders
            .filter_map(|some| self.sender(entry, &some))
            .collect();
        // A sender whose replies leave by another interface is no plain example.
        senders.sort_by_key(|(client, by)| {
            let leaves_as_it_came = self.way(client.address, &entry.egress) == Some(by.as_str());
            (
                !leaves_as_it_came,
                matches!(client.kind, ClientKind::Named(_)),
            )
        });
        let leaves = |to: &IpAddr| {
            let mut ways = entry.ingress.iter().filter_map(|by| self.way(*to, by));
            ways.any(|interface| interface == entry.egress.as_str())
        };
        let destinations = self.destinations(entry).into_iter();
        let mut destinations: Vec<IpAddr> = destinations
            .filter_map(|some| {
                let mut there = some.iter().copied();
                there.find(leaves).or(some.last().copied())
            })
            .collect();
        destinations.sort_by_key(|to| !leaves(to));
        // A network that is not behind the egress is none of the entry's.
        let is_elsewhere = |to: IpAddr| {
            let mut ways = entry.ingress.iter().filter_map(|by| self.way(to, by));
            ways.any(|interface| interface != entry.egress.as_str())
        };
        let mut named_destinations = self.named_destinations(entry);
        named_destinations.retain(|(_, to)| !is_elsewhere(*to) && !destinations.contains(to));
        OfEntry {
            named_destinations,
            denied_senders: self.denied_senders(entry),
            denied_destinations: self.denied_destinations(entry),
            senders,
            destinations,
        }
    }

    /// Returns the first host to which replies leave by an ingress interface, else the last of all.
    fn sender<'f>(
        &self,
        entry: &'f Outbound,
        some: &[SampleClient],
    ) -> Option<(SampleClient, &'f Interface)> {
        let natural = some.iter().find_map(|client| {
            let way = self.way(client.address, &entry.egress);
            let mut ingresses = entry.ingress.iter();
            let by = ingresses.find(|one| Some(one.as_str()) == way)?;
            Some((client.clone(), by))
        });
        natural.or_else(|| Some((some.last()?.clone(), entry.ingress.first()?)))
    }

    fn denied_senders<'f>(&self, entry: &'f Outbound) -> Vec<(SampleClient, &'f Interface)> {
        let is_outside = |address| !entry.allow_from.contains(address) && self.is_host(address);
        let outside = entry.ingress.iter().filter_map(|by| {
            let mut near = self.near(std::slice::from_ref(by));
            near.find_map(|net| {
                let address = host_of(net, is_outside)?;
                let kind = ClientKind::Near(net);
                Some((SampleClient { address, kind }, by))
            })
        });
        let denied = self.denied_hosts(entry);
        let denied = denied.filter_map(|(net, address)| {
            let kind = ClientKind::Listed(net);
            self.sender(entry, &[SampleClient { address, kind }])
        });
        outside.chain(denied).collect()
    }

    /// Returns hosts in `deny_from` whose packets the entry would accept otherwise.
    fn denied_hosts(&self, entry: &Outbound) -> impl Iterator<Item = (IpNet, IpAddr)> {
        of_each(&entry.deny_from, |address| {
            entry.allow_from.contains(address) && self.is_host(address)
        })
    }

    fn denied_destinations(&self, entry: &Outbound) -> Vec<IpAddr> {
        let metadata = Some(METADATA).filter(|_| entry.family == Family::V4);
        let denied = of_each(&entry.deny_to, |address| {
            entry.allow_to.contains(address) && self.is_destination(address)
        });
        // The machine's own subnet trusts the machine's address.
        let mut subnets = self.near(std::slice::from_ref(&entry.egress));
        let is_outside = |address| !entry.allow_to.contains(address) && self.is_host(address);
        let beside = subnets.find_map(|net| host_of(net, is_outside));
        let denied = denied.map(|(_, address)| address);
        metadata.into_iter().chain(denied).chain(beside).collect()
    }

    /// Returns hosts of `allow_from` for each of its networks: some behind the ingress interfaces, then any. Behind these
    /// comes a host of each network in `allow_from` that rules of others name.
    fn senders(&self, entry: &Outbound) -> Vec<Vec<SampleClient>> {
        let near: BTreeSet<IpNet> = self.near(&entry.ingress).collect();
        let is_sender = |address: IpAddr| {
            entry.allow_from.contains(address)
                && !entry.deny_from.contains(address)
                && self.is_host(address)
        };
        let client = |kind: fn(IpNet) -> ClientKind| {
            move |(net, address)| SampleClient {
                address,
                kind: kind(net),
            }
        };
        let nets = entry.allow_from.as_slice().iter().take(MOST);
        let listed = nets.map(|net| {
            let samples = self.samples(*net, &near, is_sender).into_iter();
            samples.map(client(ClientKind::Listed)).collect()
        });
        let is_part = |net: &&IpNet| {
            let of = entry.allow_from.holding(**net);
            of.is_some_and(|of| of != **net)
        };
        let named = self.named.iter().filter(is_part).take(MOST);
        let named = named.filter_map(|net| Some((*net, host_of(*net, is_sender)?)));
        let named = named.map(|sample| vec![client(ClientKind::Named)(sample)]);
        listed.chain(named).collect()
    }

    /// Returns addresses of `allow_to` for each of its networks: some behind the egress interface, then any.
    fn destinations(&self, entry: &Outbound) -> Vec<Vec<IpAddr>> {
        let near: BTreeSet<IpNet> = self.near(std::slice::from_ref(&entry.egress)).collect();
        let is_meant = |address: IpAddr| {
            entry.allow_to.contains(address)
                && !entry.deny_to.contains(address)
                && self.is_destination(address)
        };
        let nets = entry.allow_to.nets.as_slice().iter().copied();
        let (everything, nets): (Vec<IpNet>, Vec<IpNet>) =
            nets.partition(|net| *net == internet_v6());
        let has_internet = entry.allow_to.internet || !everything.is_empty();
        let internet = has_internet.then(|| server(entry.family, is_meant));
        let internet = internet.flatten().map(|address| vec![address]);
        let nets = nets.into_iter().take(MOST).map(|net| {
            let samples = self.samples(net, &near, is_meant).into_iter();
            samples.map(|(_, address)| address).collect()
        });
        internet.into_iter().chain(nets).collect()
    }

    /// Returns an address of each network in `allow_to` that rules of others name, those of destinations first, since
    /// other rules may take the packets of a reply.
    fn named_destinations(&self, entry: &Outbound) -> Vec<(IpNet, IpAddr)> {
        let is_meant = |address: IpAddr| {
            entry.allow_to.contains(address)
                && !entry.deny_to.contains(address)
                && !entry.allow_from.contains(address)
                && self.is_host(address)
        };
        let listed = entry.allow_to.nets.as_slice();
        let others = self.named.difference(&self.named_destinations);
        let nets = self.named_destinations.iter().chain(others);
        let nets = nets.filter(|net| !listed.contains(net));
        let found = nets.filter_map(|net| Some((*net, host_of(*net, is_meant)?)));
        found.take(MOST).collect()
    }

    /// Returns hosts of a network: one of each part of it that is near, then any.
    fn samples(
        &self,
        net: IpNet,
        near: &BTreeSet<IpNet>,
        holds: impl Fn(IpAddr) -> bool,
    ) -> Vec<(IpNet, IpAddr)> {
        let parts = near.iter().filter_map(|near| {
            if net.contains(near) {
                Some(*near)
            } else {
                near.contains(&net).then_some(net)
            }
        });
        let found = parts.chain([net]).filter_map(|part| {
            // Rules of others may treat a narrower network otherwise.
            let narrower = self.named.iter();
            let narrower = narrower.filter(|named| **named != part && part.contains(*named));
            let narrower: Vec<&IpNet> = narrower.collect();
            let is_plain = |address: IpAddr| !narrower.iter().any(|net| net.contains(&address));
            let plain = host_of(part, |address| holds(address) && is_plain(address));
            Some((part, plain.or_else(|| host_of(part, &holds))?))
        });
        let mut found: Vec<(IpNet, IpAddr)> = found.take(MOST).collect();
        found.dedup();
        found
    }

    /// Returns the networks behind some interfaces.
    fn near(&self, interfaces: &[Interface]) -> impl Iterator<Item = IpNet> {
        let each = interfaces.iter();
        let each = each.filter_map(|interface| self.behind.get(interface.as_str()));
        each.flatten().copied()
    }

    fn is_host(&self, address: IpAddr) -> bool {
        is_of_host(address) && !self.unusable.contains(&address)
    }

    fn is_destination(&self, address: IpAddr) -> bool {
        self.is_host(address) || address == METADATA
    }

    /// Returns the interface by which packets to an address leave that come in by another interface.
    fn way(&self, to: IpAddr, came: &Interface) -> Option<&str> {
        // A machine that does not forward gets an answer for packets of its own alone.
        let own = || self.ways.get(&(to, String::new()));
        let way = self.ways.get(&(to, came.to_string())).or_else(own);
        way.map(String::as_str)
    }

    /// Returns the packets whose routes decide which ends are chosen.
    fn packets<'s>(&self, entry: &'s Outbound) -> BTreeSet<Packet<'s>> {
        let (senders, destinations) = (self.senders(entry), self.destinations(entry));
        let sender = senders.iter().flatten().next().map(|one| one.address);
        let destination = destinations.iter().flatten().next().copied();
        let own = |to| Packet { to, came: None };
        let mut packets = BTreeSet::new();
        for to in senders.into_iter().flatten().map(|one| one.address) {
            let came = destination.map(|from| (from, &entry.egress));
            packets.extend([own(to), Packet { to, came }]);
        }
        packets.extend(self.denied_hosts(entry).map(|(_, address)| own(address)));
        let named = self.named_destinations(entry).into_iter();
        let named = named.map(|(_, address)| address);
        for to in destinations.into_iter().flatten().chain(named) {
            packets.insert(own(to));
            packets.extend(entry.ingress.iter().map(|ingress| Packet {
                to,
                came: sender.map(|from| (from, ingress)),
            }));
        }
        packets
    }
}

/// Returns an address of each of the first networks of a list.
fn of_each(nets: &Nets, holds: impl Fn(IpAddr) -> bool) -> impl Iterator<Item = (IpNet, IpAddr)> {
    let nets = nets.as_slice().iter().take(MOST);
    nets.filter_map(move |net| Some((*net, host_of(*net, &holds)?)))
}
