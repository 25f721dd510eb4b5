//! The outline of a machine that a spec needs.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::outline::{Demand, End, Outline, Service};
use crate::forwards::{Destination, Forward, ForwardSet, Nets, Outbound, Snat};
use crate::net::{AddressRange, Family, Interface, PortRange};

/// The most addresses of a `snat` range that the machine gets. Replies to the others come back nevertheless, since the
/// worlds send them to the machine.
pub(super) const MOST_OF_RANGE: usize = 16;

/// Returns the outline of a machine for a spec.
#[must_use]
pub fn outline(set: &ForwardSet) -> Outline<'_> {
    let mut outline = Outline::default();
    for interface in set.interfaces() {
        outline.add_interface(interface);
    }
    outline.families = families(set);
    let defaults = Defaults::of(set);
    let families = outline.families.iter();
    outline.default = families
        .map(|family| (*family, defaults.of_family(*family).clone()))
        .collect();
    outline.addresses = addresses(set);
    outline.further = further(set, &outline.addresses);
    outline.alone = alone(set);
    for forward in &set.forwards {
        forward_demands(forward, &defaults, &mut outline.demands);
    }
    for entry in &set.outbound {
        outbound_demands(entry, &mut outline.demands);
    }
    outline.behind = behind(set, &defaults);
    let contested = contested(set, &defaults, &outline.behind);
    outline.demands.extend(contested);
    outline
}

/// Returns the families of the spec, IPv4 for a spec without any.
fn families(set: &ForwardSet) -> Vec<Family> {
    let used = Family::ALL.into_iter().filter(|family| set.has(*family));
    let used: Vec<Family> = used.collect();
    if used.is_empty() {
        vec![Family::V4]
    } else {
        used
    }
}

/// Returns the interface by which clients come in: the first ingress of the first forward that admits everybody, else of
/// the first one. With outbound entries alone, the egress of the first one leads to the Internet.
fn default_side(set: &ForwardSet, family: Family) -> &Interface {
    let forwards = set.forwards.iter();
    let mut forwards = forwards.filter(|forward| forward.family() == family);
    let first = forwards.clone().next();
    let forward = forwards.find(|forward| admits_everybody(forward)).or(first);
    let forward = forward.and_then(|forward| forward.ingress.first());
    let entry = set.outbound_of(family).next().map(|entry| &entry.egress);
    let firewall = set.firewall.ingress.first();
    forward
        .or(entry)
        .or(firewall)
        .unwrap_or(&set.firewall.egress)
}

/// The interfaces of the default routes.
struct Defaults<'s> {
    v4: &'s Interface,
    v6: &'s Interface,
}

impl<'s> Defaults<'s> {
    fn of(set: &'s ForwardSet) -> Self {
        Self {
            v4: default_side(set, Family::V4),
            v6: default_side(set, Family::V6),
        }
    }

    fn of_family(&self, family: Family) -> &'s Interface {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    /// Returns the interface by which a forward's clients come in: that of the default route, if it is an ingress.
    fn entrance(&self, forward: &'s Forward) -> Option<&'s Interface> {
        let default = self.of_family(forward.family());
        if forward.ingress.contains(default) {
            Some(default)
        } else {
            forward.ingress.first()
        }
    }
}

fn admits_everybody(forward: &Forward) -> bool {
    forward.sources.allow.as_ref().is_none_or(Nets::are_all)
}

/// Returns the ingress interfaces whose addresses belong to the listeners of single addresses, although a forward listens
/// on all addresses there: its clients need an address that no other forward takes.
fn further(set: &ForwardSet, addresses: &[(Interface, IpAddr)]) -> Vec<(Family, Interface)> {
    let single = set.forwards.iter().filter_map(|forward| {
        let address = forward.listen.address?;
        Some(((address, forward.protocol), forward.listen.ports))
    });
    let mut taken: BTreeMap<_, Vec<PortRange>> = BTreeMap::new();
    for (key, ports) in single {
        taken.entry(key).or_default().push(ports);
    }
    let mut found: Vec<(Family, Interface)> = Vec::new();
    if taken.is_empty() {
        return found;
    }
    let mut own: BTreeMap<(Family, &Interface), Vec<IpAddr>> = BTreeMap::new();
    for (interface, address) in addresses {
        let key = (Family::of(*address), interface);
        own.entry(key).or_default().push(*address);
    }
    let open = set
        .forwards
        .iter()
        .filter(|one| one.listen.address.is_none());
    for forward in open {
        let is_taken = |address: IpAddr| {
            let ports = taken.get(&(address, forward.protocol));
            let mut ports = ports.into_iter().flatten();
            ports.any(|ports| ports.overlaps(forward.listen.ports))
        };
        for ingress in &forward.ingress {
            let key = (forward.family(), ingress);
            let is_crowded = own
                .get(&key)
                .is_some_and(|own| own.iter().all(|address| is_taken(*address)));
            let key = (forward.family(), ingress.clone());
            if is_crowded && !found.contains(&key) {
                found.push(key);
            }
        }
    }
    found
}

/// Returns the interfaces by which packets come in and leave with the client's own address. A reply to a host of the
/// same link would not pass the machine.
fn alone(set: &ForwardSet) -> Vec<(Family, Interface)> {
    let forwards = set.forwards.iter().filter(|one| one.snat == Snat::Client);
    let forwards = forwards.filter(|one| one.entrances().any(|came| *came == one.egress));
    let forwards = forwards.map(|one| (one.family(), one.egress.clone()));
    let entries = set.outbound.iter().filter(|one| one.snat == Snat::Client);
    let entries = entries.filter(|one| one.ingress.contains(&one.egress));
    let entries = entries.map(|one| (one.family, one.egress.clone()));
    let all: BTreeSet<(Family, Interface)> = forwards.chain(entries).collect();
    all.into_iter().collect()
}

/// Returns the addresses that the spec gives the machine: `snat` addresses, then listeners.
fn addresses(set: &ForwardSet) -> Vec<(Interface, IpAddr)> {
    let forwards = set.forwards.iter().map(|one| (&one.egress, one.snat));
    let entries = set.outbound.iter().map(|one| (&one.egress, one.snat));
    let mut seen = BTreeSet::new();
    let sources = forwards.chain(entries).filter(|one| seen.insert(*one));
    let snat = sources.flat_map(|(egress, snat)| {
        let range = match snat {
            Snat::Addresses(range) => Some(range),
            Snat::Masquerade | Snat::Client => None,
        };
        let some = range.into_iter().flat_map(AddressRange::addresses);
        let some = some.take(MOST_OF_RANGE);
        some.map(|address| (egress.clone(), address))
    });
    let listeners = set.forwards.iter().filter_map(|forward| {
        let ingress = forward.ingress.first()?;
        Some((ingress.clone(), forward.listen.address?))
    });
    snat.chain(listeners).collect()
}

/// Adds the packets of a forward: those of its clients, and the targets' replies.
fn forward_demands<'s>(
    forward: &'s Forward,
    defaults: &Defaults<'s>,
    demands: &mut Vec<Demand<'s>>,
) {
    for to in &forward.target.destinations {
        demands.extend(forward.entrances().map(|came| Demand {
            came,
            from: Cow::Borrowed(&[]),
            to: IpNet::from(to.address),
            service: Some(service(forward, to, End::Destination)),
            by: &forward.egress,
        }));
    }
    // Clients of a list are among the networks that are contested, or have a route.
    let clients = forward.family().everything();
    let by = defaults.entrance(forward);
    let by = by.filter(|_| admits_everybody(forward));
    demands.extend(by.into_iter().flat_map(|by| replies(forward, clients, by)));
}

/// Adds the packets of an outbound entry, and their replies.
fn outbound_demands<'s>(entry: &'s Outbound, demands: &mut Vec<Demand<'s>>) {
    let senders = entry.allow_from.as_slice();
    let to = destinations(entry);
    for net in &to {
        demands.extend(entry.ingress.iter().map(|came| Demand {
            came,
            from: Cow::Borrowed(senders),
            to: *net,
            service: None,
            by: &entry.egress,
        }));
    }
    let from: &[IpNet] = if to.iter().any(|net| net.prefix_len() == 0) {
        &[]
    } else {
        entry.allow_to.nets.as_slice()
    };
    if let Some(by) = entry.ingress.first() {
        demands.extend(senders.iter().map(|net| Demand {
            came: &entry.egress,
            from: Cow::Borrowed(from),
            to: *net,
            service: None,
            by,
        }));
    }
}

/// Returns the networks that an entry leads to. The Internet is everything that no other network claims.
fn destinations(entry: &Outbound) -> Vec<IpNet> {
    let internet = entry.allow_to.internet.then(|| entry.family.everything());
    let nets = entry.allow_to.nets.as_slice().iter().copied();
    internet.into_iter().chain(nets).collect()
}

/// Returns the networks behind the interfaces: targets, senders, destinations, then clients that forwards list.
fn behind(set: &ForwardSet, defaults: &Defaults<'_>) -> Vec<(IpNet, Interface)> {
    let mut behind = Vec::new();
    for forward in &set.forwards {
        let targets = forward.target.destinations.iter();
        behind.extend(targets.map(|to| (IpNet::from(to.address), forward.egress.clone())));
    }
    for entry in &set.outbound {
        let senders = entry.allow_from.as_slice().iter();
        let ingress = entry.ingress.first();
        behind.extend(senders.filter_map(|net| Some((*net, ingress?.clone()))));
    }
    for entry in &set.outbound {
        let nets = destinations(entry).into_iter();
        behind.extend(nets.map(|net| (net, entry.egress.clone())));
    }
    for (nets, ingress) in lists(set, defaults) {
        let nets = nets.as_slice().iter();
        behind.extend(nets.map(|net| (*net, ingress.clone())));
    }
    behind
}

/// Returns the lists of clients that forwards admit, each once for an ingress.
fn lists<'s>(set: &'s ForwardSet, defaults: &Defaults<'s>) -> Vec<(&'s Nets, &'s Interface)> {
    let mut seen = BTreeSet::new();
    let forwards = set.forwards.iter();
    let each = forwards.filter_map(|forward| list_of(forward, defaults));
    each.filter(|(nets, ingress)| seen.insert(key(nets, ingress)))
        .collect()
}

/// Returns the list of clients that a forward admits, and the interface by which they come in.
fn list_of<'s>(forward: &'s Forward, defaults: &Defaults<'s>) -> Option<(&'s Nets, &'s Interface)> {
    let nets = forward.sources.allow.as_ref()?;
    Some((nets, defaults.entrance(forward)?))
}

/// Returns a key that is the same for one list and ingress. Thousands of forwards may share one list.
fn key<'s>(nets: &Nets, ingress: &'s Interface) -> (*const IpNet, usize, &'s Interface) {
    (nets.as_slice().as_ptr(), nets.as_slice().len(), ingress)
}

/// Returns the replies to clients whose network is behind another interface than the forward's first ingress.
fn contested<'s>(
    set: &'s ForwardSet,
    defaults: &Defaults<'s>,
    behind: &[(IpNet, Interface)],
) -> Vec<Demand<'s>> {
    let mut first = BTreeMap::new();
    for (net, interface) in behind {
        first.entry(*net).or_insert(interface);
    }
    let elsewhere = lists(set, defaults).into_iter().map(|(nets, by)| {
        let each = nets.as_slice().iter().copied();
        let is_elsewhere = |net: &IpNet| first.get(net).is_some_and(|one| *one != by);
        (key(nets, by), each.filter(is_elsewhere).collect())
    });
    let elsewhere: BTreeMap<_, Vec<IpNet>> = elsewhere.collect();
    let mut demands = Vec::new();
    for forward in &set.forwards {
        let Some((nets, by)) = list_of(forward, defaults) else {
            continue;
        };
        for net in elsewhere.get(&key(nets, by)).into_iter().flatten() {
            demands.extend(replies(forward, *net, by));
        }
    }
    demands
}

/// Returns the replies of a forward's targets to clients of a network.
fn replies<'s>(
    forward: &'s Forward,
    to: IpNet,
    by: &'s Interface,
) -> impl Iterator<Item = Demand<'s>> {
    let targets = forward.target.destinations.iter();
    targets.map(move |target| Demand {
        came: &forward.egress,
        from: Cow::Owned(vec![IpNet::from(target.address)]),
        to,
        service: Some(service(forward, target, End::Source)),
        by,
    })
}

fn service(forward: &Forward, to: &Destination, end: End) -> Service {
    Service {
        protocol: forward.protocol,
        ports: forward.ports_at(to),
        end,
    }
}
