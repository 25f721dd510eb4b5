//! One entry of `outbound`, from its entries of both families.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_yaml::Value;

use super::nets::list;
use super::values::{interfaces, limits, log, mapping, one_or_list, ports, snats, text};
use crate::forwards::{
    Destinations, Firewall, GUARDED, INTERNET, Log, Nets, Outbound, OutboundProtocol, Snat,
    internet_v6,
};
use crate::net::Family;

/// Returns an outbound entry. `families` are those of its name, at least one; they differ in networks and addresses
/// alone.
pub fn value(families: &[Outbound], firewall: &Firewall) -> Value {
    let first = &families[0];
    let Outbound {
        name,
        description,
        family: _,
        ingress,
        egress,
        allow_from: _,
        allow_to: _,
        deny_from: _,
        deny_to: _,
        protocols,
        ports: only,
        snat: _,
        limits: limited,
        log: _,
    } = first;
    let nets = |of: fn(&Outbound) -> &Nets| {
        let all = families.iter().flat_map(|one| of(one).as_slice());
        let all: Vec<IpNet> = all.copied().collect();
        (!all.is_empty()).then(|| list(&all))
    };
    let usual = ingress.as_slice() == [firewall.egress.clone()]
        && firewall.ingress.as_slice() == [egress.clone()];
    let protocol = (protocols.as_slice() != OutboundProtocol::ALL)
        .then(|| one_or_list(protocols.iter().map(text)));
    let of = |family| {
        let mut one = families.iter().filter(move |one| one.family == family);
        one.next().map(|one| one.snat)
    };
    let (v4, v6) = (of(Family::V4), of(Family::V6));
    let is_usual = |snat: Option<Snat>| snat.is_none_or(|snat| snat == Snat::Masquerade);
    let snat = match (v4, v6) {
        _ if is_usual(v4) && is_usual(v6) => None,
        // A word stands for both families.
        (Some(Snat::Client), None) | (None, Some(Snat::Client)) => Some(text(&Snat::Client)),
        _ => snats(v4, v6),
    };
    let only = only.iter().map(|range| ports(*range));
    let only: Vec<Value> = only.collect();
    mapping([
        ("name", Some(text(name))),
        (
            "description",
            description.as_ref().map(|words| text(words.as_str())),
        ),
        ("allow_from", nets(|one| &one.allow_from)),
        ("allow_to", destinations(families)),
        ("deny_from", nets(|one| &one.deny_from)),
        ("deny_to", nets(|one| &one.deny_to)),
        ("protocol", protocol),
        ("ports", (!only.is_empty()).then_some(Value::Sequence(only))),
        ("interface", (!usual).then(|| interfaces(ingress, egress))),
        ("snat", snat),
        ("limits", limited.as_ref().map(limits)),
        ("log", logged(families).map(|one| log(one, name))),
    ])
}

/// Returns the log of an entry. A family that refuses nothing logs accepted connections alone, or none, whatever the entry
/// says.
fn logged(families: &[Outbound]) -> Option<&Log> {
    let all = || families.iter().filter_map(|one| one.log.as_ref());
    let mut refused = all().filter(|one| one.connections.refused());
    refused.next().or_else(|| all().next())
}

/// Returns `allow_to`; `None` for the Internet alone, which is the default.
fn destinations(families: &[Outbound]) -> Option<Value> {
    let internet = families.iter().all(reaches_internet);
    let word = internet.then(|| text(INTERNET));
    let nets = families.iter().flat_map(|one| {
        let exact = exact(&one.allow_to).map(IpNet::from);
        let nets = one.allow_to.nets.as_slice().iter().copied();
        let further = exact.filter(|net| !one.allow_to.nets.as_slice().contains(net));
        nets.chain(further.collect::<Vec<_>>())
    });
    // The word has the network of IPv6 as well.
    let nets = nets.filter(|net| !(internet && *net == internet_v6()));
    let nets: Vec<IpNet> = nets.collect();
    if internet && nets.is_empty() {
        return None;
    }
    let Value::Sequence(nets) = list(&nets) else {
        return None;
    };
    Some(Value::Sequence(word.into_iter().chain(nets).collect()))
}

fn reaches_internet(entry: &Outbound) -> bool {
    match entry.family {
        Family::V4 => entry.allow_to.internet,
        // A wider network of the list takes it in.
        Family::V6 => {
            let mut nets = entry.allow_to.nets.as_slice().iter();
            nets.any(|net| net.contains(&internet_v6()))
        }
    }
}

/// Returns the guarded addresses that a spec must name exactly, since the entry accepts them.
fn exact(to: &Destinations) -> impl Iterator<Item = IpAddr> {
    let guards = GUARDED.into_iter();
    guards.filter(|one| to.nets.contains(*one) && !to.guarded.contains(one))
}
