//! Describes missing interfaces, addresses and routes, with the fix.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::facts::internet;
use super::faults::{Fault, NextHop};
use crate::forwards::Name;
use crate::net::words::{names, quoted};
use crate::net::{Family, Interface};

/// The note if `ip` lists no interface.
pub const UNCHECKED: &str = "interfaces, addresses and routes are not checked: `ip` lists no interface\n\
                             hint: to install it: sudo apt-get install iproute2";

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
                let there = names(there);
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
                "{address} is an address of {owner}, while {egress} leads to the targets of {}: replies come back \
                 through {egress} only if the network routes them there\n\
                 hint: in the spec, set `snat` to an address of {egress} or to `masquerade`",
                quoted(forwards)
            ),
            Fault::OwnTarget { targets, forwards } => format!(
                "the target of {} is this machine itself, which cannot forward to itself: {}\n\
                 hint: correct `target` in the spec",
                quoted(forwards),
                listed(targets)
            ),
            Fault::OtherEgress {
                targets,
                leaves_by,
                hop,
                egress,
                key,
                forwards,
            } => format!(
                "packets to {} leave through {leaves_by}, while the spec's egress is {egress}: the \
                 rules of {} do not match them\n{}",
                listed(targets),
                quoted(forwards),
                other_egress_hints(targets, *hop, (egress, key))
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
                listed(targets),
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
        listed(targets)
    )
}

fn not_own(addresses: &BTreeSet<IpAddr>) -> String {
    let listed = names(addresses);
    match addresses.len() {
        1 => format!("{listed} is not an address of this machine"),
        _ => format!("{listed} are not addresses of this machine"),
    }
}

/// Returns the first address as `ip route` names its destination.
fn first(addresses: &BTreeSet<IpAddr>) -> String {
    addresses.first().map_or(String::new(), |address| {
        match (is_internet(address), address) {
            (true, IpAddr::V4(_)) => "0.0.0.0/0".to_owned(),
            (true, IpAddr::V6(_)) => "::/0".to_owned(),
            (false, address) => address.to_string(),
        }
    })
}

/// Returns the hints for packets that leave by another interface than the spec's egress.
fn other_egress_hints(
    targets: &BTreeSet<IpAddr>,
    hop: NextHop,
    (egress, key): (&Interface, &str),
) -> String {
    // Such a route is right: another would cut the machine off from its neighbour.
    if hop == NextHop::Target {
        return format!("hint: correct `{key}` in the spec");
    }
    let mut hints = [
        format!(
            "hint: if the route is wrong or missing (ROUTER: the next hop on {egress}): sudo ip route replace {} \
             via ROUTER dev {egress}",
            first(targets)
        ),
        format!("hint: if the spec is wrong: correct `{key}` in it"),
    ];
    // Another default route may cut off the session of the one who types the command.
    if targets.iter().any(is_internet) {
        hints.reverse();
    }
    hints.join("\n")
}

/// Returns whether an address stands for the Internet.
fn is_internet(address: &IpAddr) -> bool {
    *address == internet(Family::of(*address))
}

/// Lists targets. The addresses that stand for the Internet are not shown.
fn listed(targets: &BTreeSet<IpAddr>) -> String {
    let named = targets.iter().filter(|address| !is_internet(address));
    let outside = targets.iter().any(is_internet);
    let outside = outside.then(|| "the Internet".to_owned());
    names(outside.into_iter().chain(named.map(IpAddr::to_string)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_internet_of_both_families_is_listed_once() {
        let both = Family::ALL.map(internet);
        let host: IpAddr = [10, 50, 0, 7].into();
        for (targets, words) in [
            (BTreeSet::from(both), "the Internet"),
            (BTreeSet::from([both[1], host]), "the Internet, 10.50.0.7"),
            (BTreeSet::from([host]), "10.50.0.7"),
        ] {
            assert_eq!(listed(&targets), words);
        }
    }
}
