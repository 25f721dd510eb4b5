//! Checks of outbound entries: their rules, their source, and their route.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Case, Check, Fix, Hop, route};
use crate::diff::drift::outbound_rules;
use crate::forwards::{ForwardSet, Outbound, Snat};
use crate::health::counts;
use crate::health::reach::{internet, outside, range_ends, sender};
use crate::host::network::Packet;
use crate::net::words::counted;
use crate::netfilter::ruleset::Ruleset;

/// Returns the routes to ask the kernel for: of each entry's packets, and of the machine's own.
#[must_use]
pub fn questions(set: &ForwardSet) -> BTreeSet<Packet<'_>> {
    let mut questions = BTreeSet::new();
    for entry in &set.outbound {
        let to = outside(entry);
        questions.insert(Packet { to, came: None });
        questions.extend(entry.ingress.iter().map(|ingress| Packet {
            to,
            came: Some((sender(entry), ingress)),
        }));
    }
    questions
}

/// Checks the source and the route of each entry.
pub fn check(case: &Case<'_>, checks: &mut Vec<Check>) {
    for entry in case.entries {
        let found = source(case, entry).into_iter().chain(way(case, entry));
        checks.extend(found.map(|check| of(check, entry)));
    }
}

/// Checks whether the rules of each entry are loaded, and says how many connections have left.
pub fn loaded(case: &Case<'_>, planned: &Ruleset, checks: &mut Vec<Check>) {
    let (want, have) = (outbound_rules(planned), outbound_rules(case.facts.live));
    let counts = counts::outbound(case.facts.counters, case.facts.live);
    for entry in case.entries {
        let name = entry.name.as_str();
        let loaded = have.get(name).map_or(&[][..], Vec::as_slice);
        let wanted = want.get(name).map_or(&[][..], Vec::as_slice);
        let gone = wanted
            .iter()
            .filter(|place| !loaded.contains(place))
            .count();
        let count = counts.get(name).copied().unwrap_or_default();
        let number = |packets: u64| usize::try_from(packets).unwrap_or(usize::MAX);
        let check = match gone {
            0 => Hop::ForwardRule.ok(format!(
                "all {} rules are loaded; since then {} left, and drops and limits refused {}",
                wanted.len(),
                counted(number(count.new.packets), "connection"),
                counted(number(count.refused.packets), "packet"),
            )),
            gone => Hop::ForwardRule
                .fail(format!(
                    "{gone} of its {} rules are not loaded",
                    wanted.len()
                ))
                .fix(case.apply.as_str()),
        };
        checks.push(of(check, entry));
    }
}

fn of(check: Check, entry: &Outbound) -> Check {
    Check {
        forward: Some(entry.name.to_string()),
        ..check
    }
}

/// Checks the addresses that servers see.
fn source(case: &Case<'_>, entry: &Outbound) -> Vec<Check> {
    let egress = &entry.egress;
    match entry.snat {
        Snat::Masquerade => Vec::new(),
        Snat::Client => vec![
            Hop::SnatAddress
                .unknown(
                    "servers see the sources themselves (`snat: none`): their routes must lead back through this machine",
                )
                .fix(Fix::to_look_at("on a server", "ip route get SOURCE")),
        ],
        Snat::Addresses(_) => {
            let ends = range_ends(entry.snat).map(|address| match case.facts.links.owner(address) {
                _ if case.facts.links.0.is_empty() => {
                    Hop::SnatAddress.unknown("cannot list this machine's addresses")
                }
                Some(link) if link.name == egress.as_str() => {
                    Hop::SnatAddress.ok(format!("{address} is an address of {egress}"))
                }
                Some(link) => Hop::SnatAddress.warn(format!(
                    "{address} is an address of {}, while packets leave by {egress}: replies arrive only if the \
                     network routes them here",
                    link.name
                )),
                None => Hop::SnatAddress
                    .fail(format!(
                        "{address} is not an address of this machine: replies do not come back"
                    ))
                    .fix(format!(
                        "set `snat` of `{}` in the spec to an address of {egress} or to `masquerade`, then: {}",
                        entry.name, case.apply
                    )),
            });
            ends.collect()
        }
    }
}

/// Checks whether the kernel sends the entry's packets by the spec's egress.
fn way(case: &Case<'_>, entry: &Outbound) -> Option<Check> {
    let (to, egress) = (outside(entry), &entry.egress);
    let asked = |came| case.facts.routes.get(&Packet { to, came });
    let mut of_sender = entry
        .ingress
        .iter()
        .filter_map(|ingress| asked(Some((sender(entry), ingress))));
    // The kernel has no route for a packet that arrives while forwarding is off.
    let answer = of_sender.find(|answer| answer.is_ok()).or(asked(None))?;
    let there = named(entry, to);
    match answer {
        Ok(route) if route.interface == egress.as_str() => {
            Some(Hop::Route.ok(format!("packets to {there} leave by {egress}")))
        }
        Ok(route) => Some(
            Hop::Route
                .fail(format!(
                    "packets to {there} leave by {}, while the spec's egress is {egress}: the entry's rules do not \
                     match them",
                    route.interface
                ))
                .fix(format!(
                    "correct `interface` of `{}` in the spec, then: {}",
                    entry.name, case.apply
                )),
        ),
        Err(_) if route::is_down(case, egress) => None,
        Err(words) => Some(
            Hop::Route
                .fail(format!("this machine has no route to {there}: {words}"))
                .fix(Fix::to_look("ip route show".to_owned())),
        ),
    }
}

fn named(entry: &Outbound, to: IpAddr) -> String {
    if to == internet(entry.family) {
        "the Internet".to_owned()
    } else {
        to.to_string()
    }
}
