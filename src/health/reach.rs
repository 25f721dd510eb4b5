//! The interfaces, addresses and routes that a spec's forwards need and that the machine does not have. The rules
//! load without them, but no packet comes through.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::forwards::{Forward, ForwardSet, Name, Snat};
use crate::host::network::{self, Links, Packet, Route, somebody};
use crate::net::words::few;
use crate::net::{Family, Interface};
use crate::netfilter::conntrack::Flow;

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
const MOST_TARGETS: usize = 1_000;
/// The number of addresses, interfaces and forwards that a warning names.
const MOST_NAMED: usize = 3;

/// The note if `ip` lists no interface.
pub const UNCHECKED: &str = "interfaces, addresses and routes are not checked: `ip` lists no interface\n\
                             hint: to install it: sudo apt-get install iproute2";

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
    let own = set.forwards.iter().flat_map(own_addresses);
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
fn snat_ends(forward: &Forward) -> impl Iterator<Item = IpAddr> {
    let range = match forward.snat {
        Snat::Addresses(range) => Some(range),
        Snat::Masquerade | Snat::Client => None,
    };
    let ends = range.map(|range| BTreeSet::from([range.first(), range.last()]));
    ends.into_iter().flatten()
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
            forwards: names(set.forwards.iter().filter(needs)),
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
    let (addresses, forwards) = find(|forward| snat_ends(forward).collect(), &answered_to);
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
            if let Some(owner) =
                owner.filter(|name| ![LOOPBACK, forward.egress.as_str()].contains(name))
            {
                let key = (address, owner.to_owned(), &forward.egress);
                found.entry(key).or_default().push(forward);
            }
        }
    }
    let faults =
        found.into_iter().map(
            |((address, owner, egress), forwards)| Fault::SnatElsewhere {
                address,
                owner,
                egress,
                forwards: names(forwards),
            },
        );
    faults.collect()
}

const LOOPBACK: &str = "lo";
/// iproute2 puts this before the kernel's words.
const OF_NETLINK: &str = "RTNETLINK answers: ";

/// A route to a target by which the forward's rules do not match.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Misrouted<'s> {
    Here,
    By {
        leaves_by: String,
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

fn misrouted<'s>(set: &'s ForwardSet, machine: &ReachFacts<'_>) -> Vec<Fault<'s>> {
    let mut found: BTreeMap<Misrouted<'s>, (BTreeSet<IpAddr>, Vec<&'s Forward>)> = BTreeMap::new();
    for forward in &set.forwards {
        // Another fault reports a missing interface.
        if machine.links.get(&forward.egress).is_none() {
            continue;
        }
        for to in forward.target.destinations.iter().map(|to| to.address) {
            for ingress in &forward.ingress {
                if let Some(route) = route_of(forward, ingress, to, machine) {
                    let (targets, forwards) = found.entry(route).or_default();
                    targets.insert(to);
                    forwards.push(forward);
                }
            }
        }
    }
    let faults = found.into_iter().map(|(route, (targets, forwards))| {
        let forwards = names(forwards);
        match route {
            Misrouted::Here => Fault::OwnTarget { targets, forwards },
            Misrouted::By {
                leaves_by,
                egress,
                key,
            } => Fault::OtherEgress {
                targets,
                leaves_by,
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

/// Returns the route to a target, unless it leaves by the forward's egress. The kernel's route for a client's packet
/// counts, since policy routing can match the ingress. If the kernel has none, as while `ip_forward` is 0, the route
/// of the machine's own packet counts.
fn route_of<'s>(
    forward: &'s Forward,
    ingress: &Interface,
    to: IpAddr,
    machine: &ReachFacts<'_>,
) -> Option<Misrouted<'s>> {
    let client = (somebody(Family::of(to)), ingress);
    let of_client = machine.routes.get(&Packet {
        to,
        came: Some(client),
    });
    let own = machine.routes.get(&Packet { to, came: None });
    let egress = machine.links.get(&forward.egress);
    let down = egress.filter(|egress| !egress.up);
    match of_client.filter(|answer| answer.is_ok()).or(own)? {
        Ok(route) if route.interface == forward.egress.as_str() => None,
        Ok(route) if route.interface == LOOPBACK => Some(Misrouted::Here),
        _ if let Some(link) = down => Some(Misrouted::Down {
            egress: &forward.egress,
            no_carrier: link.enabled,
        }),
        Ok(route) => Some(Misrouted::By {
            leaves_by: route.interface.clone(),
            egress: &forward.egress,
            key: forward.egress_key(),
        }),
        Err(reason) => Some(Misrouted::Nowhere {
            egress: &forward.egress,
            reason: reason.trim_start_matches(OF_NETLINK).to_owned(),
        }),
    }
}

/// Returns the names of forwards, each once.
fn names<'s>(forwards: impl IntoIterator<Item = &'s Forward>) -> Vec<&'s Name> {
    let mut names: Vec<&Name> = forwards.into_iter().map(|forward| &forward.name).collect();
    // The two protocols of a forward are neighbours.
    names.dedup();
    names
}

impl Fault<'_> {
    /// Whether the fault only says that something is not known, which is no reason for a warning.
    #[must_use]
    pub fn is_note(&self) -> bool {
        matches!(self, Fault::NotAsked { .. })
    }

    /// Returns the text of a warning, with the fix on a line of its own.
    #[must_use]
    pub fn told(&self) -> String {
        match self {
            Fault::NoInterface {
                name,
                there,
                forwards,
            } => {
                let there = few(there, MOST_NAMED);
                let dead = match forwards.as_slice() {
                    [] => String::new(),
                    some => format!(", so no packet comes through {}", quoted(some)),
                };
                format!(
                    "this machine has no interface {name}{dead}; it has {there}\n\
                     hint: correct `interface` in the spec"
                )
            }
            Fault::ForeignListen {
                addresses,
                forwards,
            } => format!(
                "{}: packets reach {} only if the network routes them here, as with Azure's \
                 floating IP\n\
                 hint: correct `listen` in the spec, or: sudo ip address add {} dev INTERFACE",
                not_own(addresses),
                quoted(forwards),
                first(addresses)
            ),
            Fault::ForeignSnat {
                addresses,
                forwards,
            } => format!(
                "{}: replies to {} arrive only if the network routes them here\n\
                 hint: correct `snat` in the spec, or: sudo ip address add {} dev INTERFACE",
                not_own(addresses),
                quoted(forwards),
                first(addresses)
            ),
            Fault::SnatElsewhere {
                address,
                owner,
                egress,
                forwards,
            } => format!(
                "{address} is an address of {owner}, while {egress} leads to the targets of {}: replies of the targets \
                 do not come back by {egress}\n\
                 hint: in the spec, set `snat` to an address of {egress} or to `masquerade`",
                quoted(forwards)
            ),
            Fault::OwnTarget { targets, forwards } => format!(
                "the target of {} is this machine itself, which cannot forward to itself: {}\n\
                 hint: correct `target` in the spec",
                quoted(forwards),
                few(targets, MOST_NAMED)
            ),
            Fault::OtherEgress {
                targets,
                leaves_by,
                egress,
                key,
                forwards,
            } => format!(
                "packets to {} leave by {leaves_by}, while the spec's egress is {egress}: the \
                 rules of {} do not match them\n\
                 hint: if the route is wrong or missing (ROUTER: the next hop on {egress}): sudo ip route replace {} \
                 via ROUTER dev {egress}\n\
                 hint: if the spec is wrong: correct `{key}` in it",
                few(targets, MOST_NAMED),
                quoted(forwards),
                first(targets)
            ),
            Fault::EgressDown {
                targets,
                egress,
                no_carrier,
                forwards,
            } => egress_down(targets, egress, *no_carrier, forwards),
            Fault::NoRoute {
                targets,
                egress,
                reason,
                forwards,
            } => format!(
                "this machine has no route to {}, the target of {}: {reason}\n\
                 hint: to add it (ROUTER: the next hop on {egress}): sudo ip route add {} via ROUTER dev {egress}",
                few(targets, MOST_NAMED),
                quoted(forwards),
                first(targets)
            ),
            Fault::NotAsked { targets } => format!(
                "the routes to {targets} more targets were not checked\n\
                 hint: to check one: sudo nvactl doctor --forward NAME"
            ),
        }
    }
}

fn egress_down(
    targets: &BTreeSet<IpAddr>,
    egress: &Interface,
    no_carrier: bool,
    forwards: &[&Name],
) -> String {
    let (is, fix) = if no_carrier {
        (
            "has no carrier",
            format!("to look: ip -details link show {egress}"),
        )
    } else {
        (
            "is down",
            format!("to fix it: sudo ip link set {egress} up"),
        )
    };
    format!(
        "{egress}, the egress of {}, {is}: no packet reaches {} through it\nhint: {fix}",
        quoted(forwards),
        few(targets, MOST_NAMED)
    )
}

fn not_own(addresses: &BTreeSet<IpAddr>) -> String {
    let listed = few(addresses, MOST_NAMED);
    match addresses.len() {
        1 => format!("{listed} is not an address of this machine"),
        _ => format!("{listed} are not addresses of this machine"),
    }
}

fn first(addresses: &BTreeSet<IpAddr>) -> String {
    addresses.first().map_or(String::new(), ToString::to_string)
}

fn quoted(names: &[&Name]) -> String {
    few(names.iter().map(|name| format!("`{name}`")), MOST_NAMED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::network::Link;
    use crate::yaml;

    fn set(firewall: &str, forwards: &str) -> ForwardSet {
        let text = format!("firewall: {{{firewall}}}\nforwards: [{forwards}]");
        yaml::read(text.as_bytes()).expect("it is valid")
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// eth0 has clients, eth1 the targets; 203.0.113.0/24 is routed here.
    fn surroundings<'s>(
        set: &'s ForwardSet,
        client: Option<&str>,
        own: Result<&str, &str>,
    ) -> ReachFacts<'s> {
        let link = |name: &str, addresses: &[&str]| Link {
            name: name.to_owned(),
            up: true,
            addresses: addresses.iter().map(|text| address(text)).collect(),
            ..Link::default()
        };
        let links = Links(vec![
            link("lo", &["127.0.0.1", "10.9.9.9"]),
            link("eth0", &["10.3.0.4"]),
            link("eth1", &["10.4.0.4", "10.4.0.5"]),
        ]);
        let Questions { packets, left_out } = questions(set, &links);
        let by = |interface: &str| Route {
            interface: interface.to_owned(),
            gateway: None,
            neighbour: None,
        };
        let answer = |packet: &Packet<'_>| match packet {
            Packet { to, .. } if to.to_string().starts_with("203.0.113.") => Ok(by(LOOPBACK)),
            Packet { came: Some(_), .. } => client.map(by).ok_or("Invalid argument".to_owned()),
            Packet { to, .. } if links.owner(*to).is_some() => Ok(by(LOOPBACK)),
            _ => own.map(by).map_err(ToOwned::to_owned),
        };
        let routes = packets
            .iter()
            .map(|packet| (*packet, answer(packet)))
            .collect();
        ReachFacts {
            links,
            routes,
            left_out,
        }
    }

    const TWO: &str = "interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4";
    const WEB: &str = "{name: web, listen: 49182, target: {pod: 10.224.0.118:80}}";

    /// The first lines of the warnings.
    fn told(
        firewall: &str,
        forwards: &str,
        client: Option<&str>,
        own: Result<&str, &str>,
    ) -> Vec<String> {
        let set = set(firewall, forwards);
        let machine = surroundings(&set, client, own);
        let faults = faults(&set, &machine, &[]);
        let first = |fault: &Fault<'_>| fault.told().lines().next().map(ToOwned::to_owned);
        faults.iter().filter_map(first).collect()
    }

    #[test]
    fn a_machine_that_has_everything_is_not_warned_of() {
        for (firewall, forwards) in [
            (TWO, WEB),
            (
                TWO,
                "{name: web, listen: 10.3.0.4:49182, target: {pod: 10.224.0.118:80}}",
            ),
            // An address of another interface, and one that a route makes the machine's.
            (
                TWO,
                "{name: web, listen: 10.4.0.5:49182, target: {pod: 10.224.0.118:80}}",
            ),
            (
                TWO,
                "{name: web, listen: 203.0.113.9:49182, target: {pod: 10.224.0.118:80}}",
            ),
            (
                "interface: {ingress: eth0, egress: eth1}, snat: 10.9.9.9",
                WEB,
            ),
            (
                "interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4-10.4.0.5",
                WEB,
            ),
            (
                "interface: {ingress: eth0, egress: eth1}, snat: masquerade",
                WEB,
            ),
            (
                TWO,
                "{name: web, listen: 49182, target: {pod: 10.224.0.118:80}, snat: none, silence: [client-kept]}",
            ),
            (
                "interface: {ingress: [eth0, eth1], egress: eth1}, snat: 10.4.0.4",
                WEB,
            ),
            (
                TWO,
                "{name: web, listen: 49182, target: {pod: 10.224.0.118:80}, hairpin: true}",
            ),
            (TWO, ""),
        ] {
            let none: [&str; 0] = [];
            assert_eq!(
                told(firewall, forwards, Some("eth1"), Ok("eth1")),
                none,
                "{firewall} {forwards}"
            );
        }
    }

    #[test]
    fn a_missing_interface_address_or_route_is_named_with_its_forwards() {
        for (firewall, forwards, warning) in [
            (
                "interface: {ingress: eth9, egress: eth1}, snat: 10.4.0.4",
                WEB,
                "this machine has no interface eth9, so no packet comes through `web`; it has lo, eth0, eth1",
            ),
            (
                "interface: {ingress: eth0, egress: eth9}, snat: 10.4.0.4",
                "",
                "this machine has no interface eth9; it has lo, eth0, eth1",
            ),
            (
                "interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.9",
                WEB,
                "10.4.0.9 is not an address of this machine: replies to `web` arrive only if the network routes them here",
            ),
            (
                "interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4-10.4.0.7",
                WEB,
                "10.4.0.7 is not an address of this machine: replies to `web` arrive only if the network routes them here",
            ),
            (
                "interface: {ingress: eth0, egress: eth1}, snat: 10.3.0.4",
                WEB,
                "10.3.0.4 is an address of eth0, while eth1 leads to the targets of `web`: replies of the targets do not come back by eth1",
            ),
            (
                TWO,
                "{name: web, listen: 192.0.2.77:443, protocol: [tcp, udp], target: {pod: 10.224.0.118:80}}",
                "192.0.2.77 is not an address of this machine: packets reach `web` only if the network routes them here, as with Azure's floating IP",
            ),
            (
                TWO,
                "{name: web, listen: 49182, target: {pod: 10.3.0.4:80}}",
                "the target of `web` is this machine itself, which cannot forward to itself: 10.3.0.4",
            ),
        ] {
            assert_eq!(told(firewall, forwards, None, Ok("eth1")), [warning]);
        }
    }

    #[test]
    fn the_kernel_s_answer_for_clients_decides_where_there_is_one() {
        let elsewhere = "packets to 10.224.0.118 leave by eth0, while the spec's egress is eth1: the rules of `web` do not match them";
        let nowhere = "this machine has no route to 10.224.0.118, the target of `web`: Network is unreachable";
        let unreachable = Err("RTNETLINK answers: Network is unreachable");
        for (client, own, warning) in [
            (Some("eth0"), Ok("eth1"), Some(elsewhere)),
            // Policy routing matches the interface by which a packet came.
            (Some("eth1"), Ok("eth0"), None),
            (Some("eth1"), unreachable, None),
            // Without ip_forward the kernel has no answer.
            (None, Ok("eth0"), Some(elsewhere)),
            (None, Ok("eth1"), None),
            (None, unreachable, Some(nowhere)),
        ] {
            let said = told(TWO, WEB, client, own);
            assert_eq!(said, Vec::from_iter(warning), "{client:?} {own:?}");
        }
    }

    #[test]
    fn an_egress_that_is_down_is_the_cause_of_the_missing_route() {
        let set = set(TWO, WEB);
        for (own, enabled, words) in [
            (
                Ok("eth0"),
                false,
                "eth1, the egress of `web`, is down: no packet reaches 10.224.0.118 through it\nhint: to fix it: sudo ip link set eth1 up",
            ),
            (
                Err("Network is unreachable"),
                true,
                "eth1, the egress of `web`, has no carrier: no packet reaches 10.224.0.118 through it\nhint: to look: ip -details link show eth1",
            ),
        ] {
            let mut machine = surroundings(&set, None, own);
            let egress = machine.links.0.iter_mut().find(|link| link.name == "eth1");
            let egress = egress.expect("it is there");
            (egress.up, egress.enabled) = (false, enabled);
            let said: Vec<String> = faults(&set, &machine, &[])
                .iter()
                .map(Fault::told)
                .collect();
            assert_eq!(said, [words]);
        }
    }

    #[test]
    fn a_wrong_route_is_corrected_before_the_spec() {
        let set = set(TWO, WEB);
        let machine = surroundings(&set, None, Ok("eth0"));
        let said = faults(&set, &machine, &[])[0].told();
        let (_, hints) = said.split_once('\n').expect("it has hints");
        assert_eq!(
            hints,
            "hint: if the route is wrong or missing (ROUTER: the next hop on eth1): sudo ip route replace 10.224.0.118 via ROUTER dev eth1\nhint: if the spec is wrong: correct `interface: {egress: …}` in it"
        );
    }

    /// Azure's fabric delivers addresses that no interface has.
    #[test]
    fn an_address_that_packets_have_come_to_is_routed_here() {
        let set = set(
            "interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.9",
            "{name: web, listen: 192.0.2.77:443, target: {pod: 10.224.0.118:80}}",
        );
        let machine = surroundings(&set, None, Ok("eth1"));
        let entry = "tcp 6 9 ESTABLISHED src=198.51.100.10 dst=192.0.2.77 sport=5000 dport=443 src=10.224.0.118 dst=10.4.0.9 sport=80 dport=5000";
        let unanswered = entry.replace("src=10.224", "[UNREPLIED] src=10.224");
        let own = entry.replace("198.51.100.10", "10.3.0.4");
        for (lines, kinds) in [
            (&[][..], 2),
            (&[entry], 0),
            (&[&unanswered], 1),
            // The machine's own connection to a front end does not show that packets arrive here.
            (&[&own], 1),
        ] {
            let flows: Vec<Flow> = lines.iter().filter_map(|line| Flow::parse(line)).collect();
            assert_eq!(flows.len(), lines.len());
            assert_eq!(faults(&set, &machine, &flows).len(), kinds, "{lines:?}");
        }
    }

    #[test]
    fn many_forwards_are_few_questions_and_few_warnings() {
        let forwards = (1..=3000).map(|n| {
            let (high, low) = (n / 250, n % 250 + 1);
            format!(
                "{{name: f{n}, listen: {}, target: {{pod: 10.9.{high}.{low}:80}}}}",
                1000 + n
            )
        });
        let forwards = forwards.collect::<Vec<_>>().join(",");
        let set = set(TWO, &forwards);
        let machine = surroundings(&set, Some("eth0"), Ok("eth0"));
        assert_eq!(machine.routes.len(), 2 * MOST_TARGETS);
        assert_eq!(machine.left_out, 3000 - MOST_TARGETS);
        let faults = faults(&set, &machine, &[]);
        let said: Vec<String> = faults.iter().map(Fault::told).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(!faults[0].is_note() && faults[1].is_note());
        assert!(
            said[0]
                .starts_with("packets to 10.9.0.2, 10.9.0.3, 10.9.0.4 and 997 more leave by eth0"),
            "{said:?}"
        );
        assert!(
            said[1].starts_with("the routes to 2000 more targets were not checked"),
            "{said:?}"
        );
    }

    #[test]
    fn one_target_of_many_forwards_is_asked_for_once() {
        let forwards = (1..=50).map(|n| {
            format!(
                "{{name: f{n}, listen: {}, target: {{pod: 10.224.0.118:80}}}}",
                1000 + n
            )
        });
        let forwards = forwards.collect::<Vec<_>>().join(",");
        let set = set(TWO, &forwards);
        let links = surroundings(&set, None, Ok("eth1")).links;
        assert_eq!(questions(&set, &links).packets.len(), 2);
    }
}
