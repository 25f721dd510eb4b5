//! Checks the path behind the rules: the SNAT address, the route to the target, and the next hop's neighbour entry.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::facts::arriving;
use super::{Case, Check, Fix, Hop, answers};
use crate::forwards::{Forward, Snat, rows};
use crate::host::network::{Packet, Route};
use crate::net::words::quoted;
use crate::net::{Family, Interface};

pub fn check(case: &Case<'_>, astray: &Astray, checks: &mut Vec<Check>) {
    snat_addresses(case, astray, checks);
    let mut seen: BTreeSet<(&Interface, IpAddr, &Interface)> = BTreeSet::new();
    for forward in rows(&case.asked).map(|row| row[0]) {
        let mut of_forward = Vec::new();
        for (ingress, to) in paths(forward) {
            // A forward that is astray has no other check, so each such forward is reported.
            if seen.insert((ingress, to, &forward.egress)) || astray.has(forward) {
                path(case, astray, (forward, ingress, to), &mut of_forward);
            }
        }
        // Several ingress interfaces may lead to the same finding.
        of_forward.dedup();
        checks.append(&mut of_forward);
    }
    checks.extend(silent_hops(case));
}

/// Returns iproute2's `ip` for a family. Without an address, plain `ip` shows the routes and policy rules of IPv4.
pub fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip -6",
    }
}

/// Reports each next hop that does not answer, once for all forwards whose packets go there.
fn silent_hops(case: &Case<'_>) -> Vec<Check> {
    let mut found: BTreeMap<(IpAddr, &str), (IpAddr, &Route, Vec<&Forward>)> = BTreeMap::new();
    for forward in &case.asked {
        for (ingress, to) in paths(forward) {
            let Some(route) = silent_route(case, forward, ingress, to) else {
                continue;
            };
            let key = (route.gateway.unwrap_or(to), route.interface.as_str());
            let (_, _, forwards) = found.entry(key).or_insert((to, route, Vec::new()));
            // The entries of a forward are neighbours.
            if forwards.last().is_none_or(|last| last.name != forward.name) {
                forwards.push(forward);
            }
        }
    }
    let found = found.into_iter();
    let checks = found.map(|((hop, out), (to, route, forwards))| {
        let subject = match forwards.as_slice() {
            [_] => hop.to_string(),
            many => {
                let names = quoted(many.iter().map(|forward| &forward.name));
                format!("{hop}, to which the packets of {names} go,")
            }
        };
        let link = case.facts.links.get(&forwards[0].egress);
        let check = if link.is_some_and(|link| link.enabled && !link.up) {
            Hop::Neighbour
                .fail(format!("{subject} cannot be reached: {out} has no carrier"))
                .fix(Fix::to_look(format!("ip -details link show {out}")))
        } else {
            Hop::Neighbour
                .fail(format!(
                    "{subject} does not answer on {out}: no machine there has that address"
                ))
                .fix(Fix::to_look_at(
                    match route.gateway {
                        Some(_) => format!("whether {hop} is the right router and is up"),
                        None => format!("whether {hop} is up and on the network of {out}"),
                    },
                    format!("ip route get {to}"),
                ))
        };
        match forwards.as_slice() {
            [forward] => check.of(forward),
            _ => check,
        }
    });
    checks.collect()
}

/// Returns whether a next hop on the path to a target does not answer, which [`check`] reports.
pub fn has_silent_hop(case: &Case<'_>, forward: &Forward) -> bool {
    paths(forward).any(|(ingress, to)| silent_route(case, forward, ingress, to).is_some())
}

/// Returns the route to a target, if its next hop does not answer.
fn silent_route<'c>(
    case: &'c Case<'_>,
    forward: &'c Forward,
    ingress: &'c Interface,
    to: IpAddr,
) -> Option<&'c Route> {
    let route = route(case, ingress, to)?.as_ref().ok()?;
    let is_silent = matches!(route.neighbour.as_deref(), Some("FAILED" | "INCOMPLETE"));
    (is_silent && route.interface == forward.egress.as_str()).then_some(route)
}

/// Checks each source address that targets see, once.
fn snat_addresses(case: &Case<'_>, astray: &Astray, checks: &mut Vec<Check>) {
    let seen: BTreeSet<(Snat, &Interface)> = case
        .asked
        .iter()
        .filter(|forward| !astray.has(forward))
        .map(|forward| (forward.snat, &forward.egress))
        .collect();
    for (snat, egress) in seen {
        match snat {
            Snat::Masquerade => {
                let words = format!("targets see an address of {egress} (`masquerade`)");
                checks.push(Hop::SnatAddress.ok(words));
            }
            Snat::Client => {
                let words = "targets see the client's own address: their routes to clients must lead back through \
                             this machine (on Azure, by a route table of the targets' subnet with this machine as \
                             the next hop)";
                let look = Fix::to_look_at("on a target", "ip route get CLIENT");
                checks.push(Hop::SnatAddress.unknown(words).fix(look));
            }
            Snat::Addresses(range) => {
                checks.push(snat_address(case, range.first(), egress));
                if range.single().is_none() {
                    checks.push(snat_address(case, range.last(), egress));
                }
            }
        }
    }
}

fn snat_address(case: &Case<'_>, address: IpAddr, egress: &Interface) -> Check {
    let fix = || {
        format!(
            "set `snat` in the spec to an address of {egress} or to `masquerade`, then: {}",
            case.apply
        )
    };
    match case.facts.links.owner(address) {
        _ if case.facts.links.0.is_empty() => {
            Hop::SnatAddress.unknown("cannot list this machine's addresses")
        }
        Some(link) if link.name == egress.as_str() => {
            Hop::SnatAddress.ok(format!("{address} is an address of {egress}"))
        }
        // The network may route an address of the loopback interface here.
        Some(link) if link.name == "lo" => Hop::SnatAddress.warn(format!(
            "{address} is an address of lo: replies of targets arrive only if the network routes it here"
        )),
        Some(link) => Hop::SnatAddress
            .fail(format!(
                "{address} is an address of {}, while targets are reached by {egress}: replies of targets do not \
                 come back by {egress}",
                link.name
            ))
            .fix(fix()),
        None => Hop::SnatAddress
            .fail(format!(
                "{address} is not an address of this machine: replies of targets do not come back"
            ))
            .fix(fix()),
    }
}

/// Returns each ingress interface of a forward with each target.
fn paths(forward: &Forward) -> impl Iterator<Item = (&Interface, IpAddr)> {
    let targets = &forward.target.destinations;
    let ingresses = forward.ingress.iter();
    ingresses.flat_map(move |ingress| targets.iter().map(move |to| (ingress, to.address)))
}

/// The forwards with a target whose live route leaves by another interface than the spec's egress. Then nvactl's
/// rules cannot match, and all other findings about such a forward follow from that.
#[derive(Debug, Default)]
pub struct Astray(BTreeSet<*const Forward>);

impl Astray {
    /// Finds these forwards. A forward is none of them if every connection passes, because a mark leads its packets
    /// to the egress.
    #[must_use]
    pub fn of(case: &Case<'_>) -> Self {
        let strays = |forward: &Forward| {
            paths(forward).any(|(ingress, to)| {
                let route = route(case, ingress, to).and_then(|route| route.as_ref().ok());
                route.is_some_and(|route| route.interface != forward.egress.as_str())
            })
        };
        let found: Vec<&[&Forward]> = rows(&case.asked).filter(|row| strays(row[0])).collect();
        if found.is_empty() {
            return Self::default();
        }
        let passing = answers::passing(case.facts.answers);
        let passes = |forward: &&Forward| passing.contains(&std::ptr::from_ref(*forward));
        let found = found.into_iter().filter(|row| !row.iter().all(passes));
        let found = found.flatten().map(|forward| std::ptr::from_ref(*forward));
        Self(found.collect())
    }

    #[must_use]
    pub fn has(&self, forward: &Forward) -> bool {
        self.0.contains(&std::ptr::from_ref(forward))
    }
}

/// Returns the kernel's route for a client's packet, or else for the machine's own packet.
fn route<'c>(
    case: &'c Case<'_>,
    ingress: &'c Interface,
    to: IpAddr,
) -> Option<&'c Result<Route, String>> {
    let facts = case.facts;
    let of = |came| facts.routes.get(&Packet { to, came });
    // The kernel has no route for a client's packet while forwarding is off or rp_filter drops the packet.
    let own_address = facts.links.addresses(ingress).first();
    let arrives = own_address.is_some_and(|address| {
        let packet = arriving(*address, facts.client, ingress);
        matches!(facts.routes.get(&packet), Some(Ok(_)))
    });
    let forwards = facts.ip_forward && facts.forwards_from.get(ingress) != Some(&false);
    let of_client = of(Some((facts.client.address, ingress)));
    of_client.filter(|_| arrives && forwards).or(of(None))
}

/// Returns whether an interface is down. The kernel removes its routes then, and another check reports it.
pub fn is_down(case: &Case<'_>, interface: &Interface) -> bool {
    let link = case.facts.links.get(interface);
    link.is_some_and(|link| !link.up)
}

/// Checks the route to one target, and its next hop.
fn path(
    case: &Case<'_>,
    astray: &Astray,
    (forward, ingress, to): (&Forward, &Interface, IpAddr),
    checks: &mut Vec<Check>,
) {
    let egress = &forward.egress;
    let route = match route(case, ingress, to) {
        None => return,
        Some(Ok(route)) => route,
        Some(Err(_)) if is_down(case, egress) => return,
        Some(Err(words)) => {
            let fail = Hop::Route.fail(format!("this machine has no route to {to}: {words}"));
            let fix = format!("sudo ip route replace {to} via ROUTER dev {egress}");
            let fix = Fix::from(fix).with_router_on(egress);
            checks.push(fail.fix(fix).of(forward));
            return;
        }
    };
    let out = &route.interface;
    if out != egress.as_str() {
        if !astray.has(forward) || is_down(case, egress) {
            return;
        }
        let reason = format!(
            "the route to {to} leaves through {out}, while the spec's egress is {egress}: \
             nvactl's rules do not match the packets"
        );
        let route = format!("sudo ip route replace {to} via ROUTER dev {egress}");
        let edit = format!(
            "correct `{}` in the spec, then: {}",
            forward.egress_key(),
            case.apply
        );
        let fix = Fix::only_if("if the route is wrong or missing", route)
            .with_router_on(egress)
            .or(Fix::only_if("if the spec is wrong", edit));
        checks.push(Hop::Route.fail(reason).fix(fix).of(forward));
        return;
    }
    let via = route
        .gateway
        .map_or(String::new(), |gateway| format!(" via {gateway}"));
    checks.push(
        Hop::Route
            .ok(format!("the route to {to} leaves through {out}{via}"))
            .of(forward),
    );
    let hop = route.gateway.unwrap_or(to);
    checks.push(match route.neighbour.as_deref() {
        // [`silent_hops`] reports it.
        Some("FAILED" | "INCOMPLETE") => return,
        Some(state) => Hop::Neighbour
            .ok(format!("the neighbour {hop} on {out} is {state}"))
            .of(forward),
        None => Hop::Neighbour
            .ok(format!("{hop} needs no hardware address on {out}"))
            .of(forward),
    });
}
