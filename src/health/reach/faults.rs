//! Finds the interfaces, addresses and routes that forwards need and the machine does not have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::facts::{ReachFacts, outside, range_ends, sender, snat_ends};
use crate::forwards::{Forward, ForwardSet, Name, Outbound};
use crate::host::network::{Links, Packet, Route, somebody};
use crate::net::{Family, Interface};
use crate::netfilter::conntrack::Flow;

/// Something that forwards need and the machine does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault<'s> {
    NoInterface {
        name: &'s Interface,
        /// The machine's own.
        there: Vec<String>,
        forwards: Vec<&'s Name>,
    },
    /// Listen addresses that are not the machine's, and that have had no packet yet.
    ForeignListen {
        addresses: BTreeSet<IpAddr>,
        forwards: Vec<&'s Name>,
    },
    /// SNAT addresses that are not the machine's, and that have had no reply yet.
    ForeignSnat {
        addresses: BTreeSet<IpAddr>,
        forwards: Vec<&'s Name>,
    },
    /// An SNAT address of another interface than the forwards' egress, that has had no reply yet.
    SnatElsewhere {
        address: IpAddr,
        owner: String,
        egress: &'s Interface,
        forwards: Vec<&'s Name>,
    },
    /// Targets that are addresses of the machine itself.
    OwnTarget {
        targets: BTreeSet<IpAddr>,
        forwards: Vec<&'s Name>,
    },
    /// Targets whose route leaves by another interface than the forwards' egress.
    OtherEgress {
        targets: BTreeSet<IpAddr>,
        leaves_by: String,
        hop: NextHop,
        egress: &'s Interface,
        /// The key of the egress in the spec.
        key: &'static str,
        forwards: Vec<&'s Name>,
    },
    /// The forwards' egress is down, which removes its routes.
    EgressDown {
        targets: BTreeSet<IpAddr>,
        egress: &'s Interface,
        /// Whether it is up but its network is not connected.
        no_carrier: bool,
        forwards: Vec<&'s Name>,
    },
    NoRoute {
        targets: BTreeSet<IpAddr>,
        egress: &'s Interface,
        /// The kernel's words.
        reason: String,
        forwards: Vec<&'s Name>,
    },
    /// There are too many targets to ask for every route.
    NotAsked { targets: usize },
}

/// The next hop of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NextHop {
    Router,
    /// The target itself, in a network of the machine.
    Target,
}

impl NextHop {
    fn of(route: &Route) -> Self {
        match route.gateway {
            Some(_) => NextHop::Router,
            None => NextHop::Target,
        }
    }
}

/// Returns everything that forwards lack, grouped by kind. `flows` are evidence: the network routes an address to
/// the machine if others have sent packets to it, as with Azure's floating IP, even if no interface has it.
#[must_use]
pub fn faults<'s>(set: &'s ForwardSet, machine: &ReachFacts<'_>, flows: &[Flow]) -> Vec<Fault<'s>> {
    let mut faults = missing_interfaces(set, &machine.links);
    faults.extend(foreign_addresses(set, machine, flows));
    faults.extend(misrouted(set, machine));
    if machine.left_out > 0 {
        faults.push(Fault::NotAsked {
            targets: machine.left_out,
        });
    }
    faults
}

fn missing_interfaces<'s>(set: &'s ForwardSet, links: &Links) -> Vec<Fault<'s>> {
    let missing = set
        .interfaces()
        .into_iter()
        .filter(|one| links.get(one).is_none());
    let faults = missing.map(|name| {
        let needs = |forward: &&Forward| {
            forward.egress == *name || forward.ingress.iter().any(|one| one == name)
        };
        Fault::NoInterface {
            name,
            there: links.0.iter().map(|link| link.name.clone()).collect(),
            forwards: {
                let needs_too = |entry: &&Outbound| {
                    entry.egress == *name || entry.ingress.iter().any(|one| one == name)
                };
                let mut all = names(set.forwards.iter().filter(needs));
                all.extend(entry_names(set.outbound.iter().filter(needs_too)));
                all
            },
        }
    });
    faults.collect()
}

fn foreign_addresses<'s>(
    set: &'s ForwardSet,
    machine: &ReachFacts<'_>,
    flows: &[Flow],
) -> Vec<Fault<'s>> {
    let others = flows
        .iter()
        .filter(|flow| machine.links.owner(flow.source).is_none());
    let sent_to: BTreeSet<IpAddr> = others.map(|flow| flow.destination).collect();
    let answered = flows.iter().filter(|flow| flow.replied);
    let answered_to: BTreeSet<IpAddr> = answered.map(|flow| flow.reply_destination).collect();
    let is_foreign = |address: &IpAddr| {
        // Local routes lead to the loopback interface.
        let local = match machine.routes.get(&Packet {
            to: *address,
            came: None,
        }) {
            Some(Ok(route)) => route.interface == LOOPBACK,
            Some(Err(_)) => false,
            None => true,
        };
        machine.links.owner(*address).is_none() && !local
    };
    let find = |of: fn(&Forward) -> Vec<IpAddr>, seen: &BTreeSet<IpAddr>| {
        let foreign = |forward: &Forward| -> Vec<IpAddr> {
            let unseen = of(forward).into_iter().filter(|one| !seen.contains(one));
            unseen.filter(is_foreign).collect()
        };
        let mut addresses = BTreeSet::new();
        let concerned = set.forwards.iter().filter(|forward| {
            let foreign = foreign(forward);
            addresses.extend(foreign.iter().copied());
            !foreign.is_empty()
        });
        let forwards = names(concerned);
        (addresses, forwards)
    };
    let mut faults = Vec::new();
    let (addresses, forwards) = find(|forward| Vec::from_iter(forward.listen.address), &sent_to);
    if !addresses.is_empty() {
        faults.push(Fault::ForeignListen {
            addresses,
            forwards,
        });
    }
    let (mut addresses, mut forwards) = find(|forward| snat_ends(forward).collect(), &answered_to);
    let entries = set.outbound.iter().filter(|entry| {
        let ends = range_ends(entry.snat).filter(|one| !answered_to.contains(one));
        let foreign: Vec<IpAddr> = ends.filter(is_foreign).collect();
        addresses.extend(foreign.iter().copied());
        !foreign.is_empty()
    });
    forwards.extend(entry_names(entries));
    if !addresses.is_empty() {
        faults.push(Fault::ForeignSnat {
            addresses,
            forwards,
        });
    }
    faults.extend(snat_elsewhere(set, &machine.links, &answered_to));
    faults
}

/// Returns the SNAT addresses that another interface than the egress has. The network may route an address of the
/// loopback interface here, and has routed one to which replies came.
fn snat_elsewhere<'s>(
    set: &'s ForwardSet,
    links: &Links,
    answered_to: &BTreeSet<IpAddr>,
) -> Vec<Fault<'s>> {
    let mut found: BTreeMap<(IpAddr, String, &'s Interface), Vec<&'s Forward>> = BTreeMap::new();
    // Another fault reports a missing interface.
    let there = |forward: &&Forward| links.get(&forward.egress).is_some();
    for forward in set.forwards.iter().filter(there) {
        for address in snat_ends(forward).filter(|address| !answered_to.contains(address)) {
            let owner = links.owner(address).map(|link| link.name.as_str());
            let is_other = |name: &&str| ![LOOPBACK, forward.egress.as_str()].contains(name);
            if let Some(owner) = owner.filter(is_other) {
                let key = (address, owner.to_owned(), &forward.egress);
                found.entry(key).or_default().push(forward);
            }
        }
    }
    let fault = |((address, owner, egress), forwards)| Fault::SnatElsewhere {
        address,
        owner,
        egress,
        forwards: names(forwards),
    };
    found.into_iter().map(fault).collect()
}

pub const LOOPBACK: &str = "lo";
/// iproute2 puts this before the kernel's words.
const OF_NETLINK: &str = "RTNETLINK answers: ";

/// A route to a target by which the forward's rules do not match.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Misrouted<'s> {
    Here,
    By {
        leaves_by: String,
        hop: NextHop,
        egress: &'s Interface,
        key: &'static str,
    },
    Down {
        egress: &'s Interface,
        no_carrier: bool,
    },
    Nowhere {
        egress: &'s Interface,
        reason: String,
    },
}

impl Misrouted<'_> {
    /// Returns whether the target is in the network of the interface by which the packets come in, so they need no
    /// firewall.
    fn is_beside(&self, ingress: &Interface) -> bool {
        match self {
            Misrouted::By {
                leaves_by,
                hop: NextHop::Target,
                ..
            } => leaves_by == ingress.as_str(),
            _ => false,
        }
    }
}

fn misrouted<'s>(set: &'s ForwardSet, machine: &ReachFacts<'_>) -> Vec<Fault<'s>> {
    let mut found: BTreeMap<Misrouted<'s>, (BTreeSet<IpAddr>, Vec<&'s Name>)> = BTreeMap::new();
    for forward in &set.forwards {
        // Another fault reports a missing interface.
        if machine.links.get(&forward.egress).is_none() {
            continue;
        }
        for to in forward.target.destinations.iter().map(|to| to.address) {
            for ingress in &forward.ingress {
                let client = (somebody(Family::of(to)), ingress);
                let by = (&forward.egress, forward.egress_key());
                if let Some(route) = route_of(by, client, to, machine) {
                    let (targets, forwards) = found.entry(route).or_default();
                    targets.insert(to);
                    forwards.push(&forward.name);
                }
            }
        }
    }
    for entry in &set.outbound {
        if machine.links.get(&entry.egress).is_none() {
            continue;
        }
        let to = outside(entry);
        for ingress in &entry.ingress {
            let by = (&entry.egress, entry.egress_key());
            let route = route_of(by, (sender(entry), ingress), to, machine);
            if let Some(route) = route.filter(|route| !route.is_beside(ingress)) {
                let (targets, forwards) = found.entry(route).or_default();
                targets.insert(to);
                forwards.push(&entry.name);
            }
        }
    }
    let faults = found.into_iter().map(|(route, (targets, mut forwards))| {
        // The two protocols of a forward are neighbours.
        forwards.dedup();
        match route {
            Misrouted::Here => Fault::OwnTarget { targets, forwards },
            Misrouted::By {
                leaves_by,
                hop,
                egress,
                key,
            } => Fault::OtherEgress {
                targets,
                leaves_by,
                hop,
                egress,
                key,
                forwards,
            },
            Misrouted::Down { egress, no_carrier } => Fault::EgressDown {
                targets,
                egress,
                no_carrier,
                forwards,
            },
            Misrouted::Nowhere { egress, reason } => Fault::NoRoute {
                targets,
                egress,
                reason,
                forwards,
            },
        }
    });
    faults.collect()
}

/// Returns the route to a target, unless it leaves by this egress, which has this key in the spec. The kernel's route
/// for a client's packet counts, since policy routing can match the ingress. If the kernel has none, as while `ip_forward` is 0, the route of the
/// machine's own packet counts.
fn route_of<'s>(
    (by, key): (&'s Interface, &'static str),
    client: (IpAddr, &Interface),
    to: IpAddr,
    machine: &ReachFacts<'_>,
) -> Option<Misrouted<'s>> {
    let of_client = machine.routes.get(&Packet {
        to,
        came: Some(client),
    });
    let own = machine.routes.get(&Packet { to, came: None });
    let egress = machine.links.get(by);
    let down = egress.filter(|egress| !egress.up);
    match of_client.filter(|answer| answer.is_ok()).or(own)? {
        Ok(route) if route.interface == by.as_str() => None,
        Ok(route) if route.interface == LOOPBACK => Some(Misrouted::Here),
        _ if let Some(link) = down => Some(Misrouted::Down {
            egress: by,
            no_carrier: link.enabled,
        }),
        Ok(route) => Some(Misrouted::By {
            leaves_by: route.interface.clone(),
            hop: NextHop::of(route),
            egress: by,
            key,
        }),
        Err(reason) => Some(Misrouted::Nowhere {
            egress: by,
            reason: reason.trim_start_matches(OF_NETLINK).to_owned(),
        }),
    }
}

/// Returns the names of outbound entries, each once.
fn entry_names<'s>(entries: impl IntoIterator<Item = &'s Outbound>) -> Vec<&'s Name> {
    let mut names: Vec<&Name> = entries.into_iter().map(|entry| &entry.name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Returns the names of forwards, each once.
fn names<'s>(forwards: impl IntoIterator<Item = &'s Forward>) -> Vec<&'s Name> {
    let mut names: Vec<&Name> = forwards.into_iter().map(|forward| &forward.name).collect();
    // The entries of a forward are neighbours.
    names.dedup();
    names
}
