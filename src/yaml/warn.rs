//! What is worth a warning or a note in a spec that may well be sound.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;

use super::code::Code;
use super::decode::{Listener, Placed, WrittenForward, WrittenSpec, listeners};
use super::options::ByFamily;
use super::problem::{Problem, ProblemKind, Span};
use crate::forwards::{ForwardPolicy, Snat, Snats, TargetKind, TargetPorts};
use crate::net::{AZURE_HOST, Family, Port, PortRange, Protocol};

/// From here on a range is more than what one application needs.
const WIDE: u32 = 1000;

/// Services of a machine itself, which a range takes by the way more easily than on purpose.
const LOCAL_SERVICES: [(Protocol, Range<u16>, &str); 4] = [
    (Protocol::Tcp, 53..54, "DNS"),
    (Protocol::Udp, 53..54, "DNS"),
    (Protocol::Udp, 67..69, "DHCP"),
    (Protocol::Tcp, 5985..5987, "WinRM"),
];

/// Adds the warnings and notes that the spec does not silence.
pub fn warn(spec: &WrittenSpec, problems: &mut Vec<Problem>) {
    let quiet = |code: Code| spec.silence.contains(&code);
    if let (Some(policy), Some(span)) = (spec.forward_policy, &spec.forward_policy_span) {
        let kind = match policy {
            ForwardPolicy::Keep => ProblemKind::PolicyKept,
            ForwardPolicy::Drop => ProblemKind::CutsTransit,
        };
        if !quiet(kind.code()) {
            problems.push(Problem::new(span.clone(), kind));
        }
    }
    let own = own_addresses(spec);
    for forward in enabled(spec) {
        let found = of_listener(forward)
            .chain(of_target(forward, &own))
            .chain(of_sources(forward))
            .chain(of_snat(forward, spec.snat.as_ref()));
        problems.extend(found.filter(|problem| {
            let code = problem.kind.code();
            !quiet(code) && !forward.silence.contains(&code)
        }));
    }
    if !quiet(Code::AddressBesideAll) {
        beside_all(spec, problems);
    }
}

/// The forwards that become part of the plan.
fn enabled(spec: &WrittenSpec) -> impl Iterator<Item = &WrittenForward> {
    let forwards = spec.forwards.iter();
    forwards.filter(|forward| forward.enabled != Some(false))
}

fn of_listener(forward: &WrittenForward) -> impl Iterator<Item = Problem> {
    let several = |one: &Listener<'_>| !one.listen.value.ports.is_single();
    let services = listeners(forward).filter(several).filter_map(|one| {
        let kind = taken_service(one.protocol, one.listen.value.ports)?;
        Some(Problem::new(one.listen.span.clone(), kind))
    });
    let wide = forward.listen.iter().filter_map(|listen| {
        let count = listen.value.ports.count();
        let kind = (count >= WIDE).then_some(ProblemKind::WideRange { count })?;
        Some(Problem::new(listen.span.clone(), kind))
    });
    services.chain(wide)
}

fn taken_service(protocol: Protocol, ports: PortRange) -> Option<ProblemKind> {
    LOCAL_SERVICES
        .into_iter()
        .filter(|(of, ..)| *of == protocol)
        .flat_map(|(_, numbers, service)| numbers.map(move |number| (number, service)))
        .filter_map(|(number, service)| Some((Port::new(number)?, service)))
        .find(|(port, _)| ports.contains(*port))
        .map(|(port, service)| ProblemKind::TakesLocalService {
            service,
            protocol,
            port,
        })
}

fn of_target(forward: &WrittenForward, own: &[(IpAddr, Span)]) -> impl Iterator<Item = Problem> {
    let target = forward.target.iter();
    let each = target.flat_map(|target| target.destinations.iter().map(|to| (target.kind, to)));
    each.flat_map(move |(kind, Placed { value: to, span })| {
        let address = to.address;
        let own = own
            .binary_search_by_key(&address, |(own, _)| *own)
            .ok()
            .map(|n| ProblemKind::TargetIsFirewall {
                address,
                other: own[n].1.clone(),
            });
        let note = match (kind, to.ports, &forward.listen) {
            (TargetKind::Ilb, TargetPorts::Kept, Some(listen)) => Some(ProblemKind::PortKept {
                ports: listen.value.ports,
            }),
            (TargetKind::Pod, ..) => Some(ProblemKind::PodAddress { address }),
            _ => None,
        };
        [own, note]
            .into_iter()
            .flatten()
            .map(|kind| Problem::new(span.clone(), kind))
    })
}

/// Lists that keep out who probes whether the forward is alive: then no connection comes at all.
fn of_sources(forward: &WrittenForward) -> impl Iterator<Item = Problem> {
    // Over IPv6 it probes from a link-local address, which no forward takes anywhere.
    let mut families = listeners(forward).map(|one| one.family);
    let v4 = families.next().filter(|family| *family == Family::V4);
    v4.into_iter().flat_map(|family| {
        let address = AZURE_HOST;
        let (allow, deny) = (&forward.options.allow, &forward.options.deny);
        let allow = allow.iter().filter(move |list| {
            let nets = list.value.of(family);
            !nets.is_empty() && !nets.contains(address)
        });
        let denies = move |list: &&Placed<ByFamily>| list.value.of(family).contains(address);
        let allow = allow.map(|list| (list, true));
        let deny = deny.iter().filter(denies).map(|list| (list, false));
        allow.chain(deny).map(move |(list, allows)| {
            let kind = ProblemKind::KeepsProbesOut { address, allows };
            Problem::new(list.span.clone(), kind)
        })
    })
}

/// A forward that hides no client.
fn of_snat(forward: &WrittenForward, firewall: Option<&Placed<Snats>>) -> Option<Problem> {
    let family = listeners(forward).next()?.family;
    let said = |snat: &Placed<Snats>| Some((snat.value.of(family)?, snat.span.clone()));
    let own = forward.options.snat.as_ref().and_then(said);
    let (snat, span) = own.or_else(|| said(firewall?))?;
    (snat == Snat::Client).then(|| Problem::new(span, ProblemKind::ClientKept))
}

/// The addresses of which the spec itself says that they are the firewall's, each with its first
/// place.
fn own_addresses(spec: &WrittenSpec) -> Vec<(IpAddr, Span)> {
    let snats = enabled(spec).filter_map(|forward| forward.options.snat.as_ref());
    let snats = spec.snat.iter().chain(snats).flat_map(|snat| {
        let each = Family::ALL
            .into_iter()
            .filter_map(|family| snat.value.of(family));
        each.filter_map(|one| match one {
            Snat::Addresses(range) => Some((range.single()?, snat.span.clone())),
            Snat::Masquerade | Snat::Client => None,
        })
    });
    let listeners = enabled(spec).filter_map(|forward| {
        let listen = forward.listen.as_ref()?;
        Some((listen.value.address?, listen.span.clone()))
    });
    let mut own: Vec<(IpAddr, Span)> = snats.chain(listeners).collect();
    own.sort_by_key(|(address, span)| (*address, span.start));
    own.dedup_by_key(|(address, _)| *address);
    own
}

/// Listeners for all addresses that lose some ports, on one address, to a listener for that one.
fn beside_all(spec: &WrittenSpec, problems: &mut Vec<Problem>) {
    let loud = |forward: &&WrittenForward| !forward.silence.contains(&Code::AddressBesideAll);
    let mut by_place: BTreeMap<(Family, Protocol), Vec<Listener<'_>>> = BTreeMap::new();
    for one in enabled(spec).filter(loud).flat_map(listeners) {
        let place = by_place.entry((one.family, one.protocol));
        place.or_default().push(one);
    }
    for listeners in by_place.into_values() {
        let (all, mut for_one): (Vec<_>, Vec<_>) = listeners
            .into_iter()
            .partition(|one| one.listen.value.address.is_none());
        for_one.sort_by_key(|one| one.listen.value.ports.first());
        // The one that reaches furthest among the first n.
        let mut furthest: Vec<usize> = Vec::with_capacity(for_one.len());
        for (n, one) in for_one.iter().enumerate() {
            let before = furthest.last().copied().unwrap_or(n);
            let last = |n: usize| for_one[n].listen.value.ports.last();
            furthest.push(if one.listen.value.ports.last() > last(before) {
                n
            } else {
                before
            });
        }
        for this in all {
            let ports = this.listen.value.ports;
            // Of those that begin in time, the one that ends last meets these ports if any does.
            let begin =
                for_one.partition_point(|one| one.listen.value.ports.first() <= ports.last());
            let Some(n) = begin.checked_sub(1).map(|n| furthest[n]) else {
                continue;
            };
            let other = for_one[n];
            if !other.listen.value.ports.overlaps(ports) {
                continue;
            }
            let kind = ProblemKind::AddressBesideAll {
                ports: other.listen.value.to_string(),
                name: other.name().to_owned(),
                other: other.listen.span.clone(),
            };
            problems.push(Problem::new(this.listen.span.clone(), kind));
        }
    }
}
