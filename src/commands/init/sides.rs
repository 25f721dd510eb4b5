//! The interfaces of a first spec, and the address that targets see.

use std::net::IpAddr;

use super::machine::FoundMachine;
use super::others::is_others;
use crate::forwards::{Snat, Snats};
use crate::host::network::Link;
use crate::net::{AddressRange, Family, Interface, not_a_host};

const LOOPBACK: &str = "lo";

/// The interfaces of both sides, and the source address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ChosenSides {
    pub(super) ingress: Interface,
    pub(super) egress: Interface,
    pub(super) snat: Snats,
    /// Why these, in sentences.
    pub(super) reasons: Vec<String>,
}

/// Chooses the interfaces: clients come in by that of the default route. If exactly one other has an address, targets
/// are behind that one.
pub(super) fn choose(found: &FoundMachine) -> ChosenSides {
    let candidates: Vec<(Interface, &Link)> = candidates(found).collect();
    let default = found.default.values().next();
    let default = default.and_then(|name| name.parse::<Interface>().ok());
    let first = candidates.first().map(|(name, _)| name.clone());
    let has_default = default.is_some();
    let Some(ingress) = default.or(first) else {
        return assumed();
    };
    let others = candidates.iter().filter(|(name, _)| *name != ingress);
    let others: Vec<&Interface> = others.map(|(name, _)| name).collect();
    let mut reasons = vec![if has_default {
        format!("Clients come in by {ingress}, which has the default route.")
    } else {
        format!(
            "This machine has no default route. {ingress} is its first interface with an address: check that clients come \
             in by it."
        )
    }];
    let egress = match others[..] {
        [] => ingress.clone(),
        [one] => {
            reasons.push(format!(
                "Targets are reached by {one}, the only other interface with an address. If they are not, write \
                 `interface: {ingress}` and an address of {ingress} as `snat`."
            ));
            one.clone()
        }
        [..] => {
            let names: Vec<&str> = others.iter().map(|one| one.as_str()).collect();
            reasons.push(format!(
                "Other interfaces with addresses: {}. If targets are reached by one of them, write it as `egress` and its \
                 address as `snat`.",
                names.join(", ")
            ));
            ingress.clone()
        }
    };
    let own = found.links.get(&egress);
    let snat = |family| {
        let address = own.and_then(|link| address(link, family))?;
        Some(Snat::Addresses(AddressRange::from(address)))
    };
    let mut snat = Snats {
        v4: snat(Family::V4),
        v6: snat(Family::V6),
    };
    if snat == Snats::default() {
        reasons.push(format!(
            "{egress} has no address that stays, so targets see the one that it has then."
        ));
        snat = masquerade();
    }
    ChosenSides {
        ingress,
        egress,
        snat,
        reasons,
    }
}

/// Returns the sides of a machine on which no interface has an address.
fn assumed() -> ChosenSides {
    ChosenSides {
        ingress: Interface::ETH0,
        egress: Interface::ETH0,
        snat: masquerade(),
        reasons: vec![format!(
            "No interface with an address was found, so {} is assumed: write those of the firewall.",
            Interface::ETH0
        )],
    }
}

fn masquerade() -> Snats {
    Snats {
        v4: Some(Snat::Masquerade),
        v6: Some(Snat::Masquerade),
    }
}

/// Returns the interfaces that a firewall may have clients or targets behind.
pub(super) fn candidates(found: &FoundMachine) -> impl Iterator<Item = (Interface, &Link)> {
    let links = usable(found).filter(|link| !is_others(&link.name));
    links.filter_map(|link| Some((link.name.parse().ok()?, link)))
}

/// Returns the interfaces that are passed over, since their names are those of other programs' interfaces.
pub(super) fn passed_over(found: &FoundMachine) -> impl Iterator<Item = &Link> {
    usable(found).filter(|link| is_others(&link.name))
}

/// Returns the interfaces with an address, without the loopback.
fn usable(found: &FoundMachine) -> impl Iterator<Item = &Link> {
    found.links.0.iter().filter(|link| {
        let has_address = Family::ALL
            .into_iter()
            .any(|family| address(link, family).is_some());
        link.name != LOOPBACK && link.enabled && link.bridge.is_none() && has_address
    })
}

/// Returns the first address of an interface that a host can have.
pub(super) fn address(link: &Link, family: Family) -> Option<IpAddr> {
    let all = link.addresses.iter().copied();
    let usable = all.filter(|one| Family::of(*one) == family && not_a_host(*one).is_none());
    let is_first = |one: &IpAddr| !link.secondary.contains(one);
    usable
        .clone()
        .find(is_first)
        .or_else(|| usable.clone().next())
}
