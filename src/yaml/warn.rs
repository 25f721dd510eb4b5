//! Warnings and notes: settings that a spec may have, but that are often a mistake.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;

use super::fields::Placed;
use super::nets::ByFamily;
use super::packet_tests::warn_of_interfaces;
use super::problem::{Code, Problem, ProblemKind, Span};
use super::written::{Listener, WrittenForward, WrittenSpec, listeners};
use crate::forwards::{ForwardPolicy, Snat, Snats, TargetKind, TargetPorts};
use crate::net::{AZURE_HOST, Family, Port, PortRange, Protocol};

/// A range of this many ports is more than one application needs.
const WIDE: u32 = 1000;

/// Services of the machine itself, whose ports a range may contain by accident.
const LOCAL_SERVICES: [(Protocol, Range<u16>, &str); 4] = [
    (Protocol::Tcp, 53..54, "DNS"),
    (Protocol::Udp, 53..54, "DNS"),
    (Protocol::Udp, 67..69, "DHCP"),
    (Protocol::Tcp, 5985..5987, "WinRM"),
];

/// Adds the warnings and notes that the spec does not silence.
pub fn warn(spec: &WrittenSpec, problems: &mut Vec<Problem>) {
    let silenced = |code: Code| spec.silence.contains(&code);
    if let (Some(policy), Some(span)) = (spec.forward_policy, &spec.forward_policy_span) {
        let kind = match policy {
            ForwardPolicy::Keep => ProblemKind::PolicyKept,
            ForwardPolicy::Drop if spec.outbound.is_empty() => ProblemKind::CutsTransit,
            ForwardPolicy::Drop => ProblemKind::CutsOtherTransit,
        };
        if !silenced(kind.code()) {
            problems.push(Problem::new(span.clone(), kind));
        }
    }
    let own = own_addresses(spec);
    for forward in spec.enabled() {
        let found = of_listener(forward)
            .chain(of_target(forward, &own))
            .chain(of_sources(forward))
            .chain(of_snat(forward, spec.snat.as_ref()));
        problems.extend(found.filter(|problem| {
            let code = problem.kind.code();
            !silenced(code) && !forward.silence.contains(&code)
        }));
    }
    if !silenced(Code::UnusedNetwork) {
        let unused = spec.unused_networks.iter().cloned();
        problems.extend(
            unused.map(|(name, span)| Problem::new(span, ProblemKind::UnusedNetwork { name })),
        );
    }
    if !silenced(Code::UnknownInterface) {
        warn_of_interfaces(&spec.tests, &spec.interfaces(), problems);
    }
    if !silenced(Code::AddressBesideAll) {
        beside_all(spec, problems);
    }
}

fn of_listener(forward: &WrittenForward) -> impl Iterator<Item = Problem> {
    let several = |one: &Listener<'_>| !one.listen.value.ports.is_single();
    let services = listeners(forward).filter(several).filter_map(|one| {
        let kind = taken_service(one.protocol, one.listen.value.ports)?;
        Some(Problem::new(one.listen.span.clone(), kind))
    });
    let wide = forward.pieces().iter().filter_map(|listen| {
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
        let note = match (kind, to.ports, forward.pieces()) {
            (TargetKind::Ilb, TargetPorts::Kept, pieces @ [_, ..]) => {
                let ports = pieces.iter().map(|piece| piece.value.ports.to_string());
                let ports = ports.collect::<Vec<_>>().join(",");
                Some(ProblemKind::PortKept { ports })
            }
            (TargetKind::Pod, ..) => Some(ProblemKind::PodAddress { address }),
            _ => None,
        };
        [own, note]
            .into_iter()
            .flatten()
            .map(|kind| Problem::new(span.clone(), kind))
    })
}

/// Warns of lists that keep out the probes of Azure's load balancer: it then sends no connections.
fn of_sources(forward: &WrittenForward) -> impl Iterator<Item = Problem> {
    // Over IPv6 it probes from a link-local address, which no forward can pass on.
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
        let allow = allow.map(|list| (list, "allow_from"));
        let deny = deny.iter().filter(denies).map(|list| (list, "deny_from"));
        allow.chain(deny).map(move |(nets, list)| {
            let kind = ProblemKind::KeepsProbesOut { address, list };
            Problem::new(nets.span.clone(), kind)
        })
    })
}

/// Warns of a forward that keeps the client's address.
fn of_snat(forward: &WrittenForward, firewall: Option<&Placed<Snats>>) -> Option<Problem> {
    let family = listeners(forward).next()?.family;
    let of_family = |snat: &Placed<Snats>| Some((snat.value.of(family)?, snat.span.clone()));
    let own = forward.options.snat.as_ref().and_then(of_family);
    let (snat, span) = own.or_else(|| of_family(firewall?))?;
    (snat == Snat::Client).then(|| Problem::new(span, ProblemKind::ClientKept))
}

/// Returns the addresses that are the firewall's according to the spec, each with its first place.
fn own_addresses(spec: &WrittenSpec) -> Vec<(IpAddr, Span)> {
    let snats = spec
        .enabled()
        .filter_map(|forward| forward.options.snat.as_ref());
    let snats = spec.snat.iter().chain(snats).flat_map(|snat| {
        let each = Family::ALL
            .into_iter()
            .filter_map(|family| snat.value.of(family));
        each.filter_map(|one| match one {
            Snat::Addresses(range) => Some((range.single()?, snat.span.clone())),
            Snat::Masquerade | Snat::Client => None,
        })
    });
    let pieces = spec.enabled().flat_map(WrittenForward::pieces);
    let listeners = pieces.filter_map(|piece| Some((piece.value.address?, piece.span.clone())));
    let mut own: Vec<(IpAddr, Span)> = snats.chain(listeners).collect();
    own.sort_by_key(|(address, span)| (*address, span.start));
    own.dedup_by_key(|(address, _)| *address);
    own
}

/// Warns of listeners for all addresses that share a port with a listener for one address.
fn beside_all(spec: &WrittenSpec, problems: &mut Vec<Problem>) {
    let unsilenced = |forward: &&WrittenForward| !forward.silence.contains(&Code::AddressBesideAll);
    let mut by_place: BTreeMap<(Family, Protocol), Vec<Listener<'_>>> = BTreeMap::new();
    for one in spec.enabled().filter(unsilenced).flat_map(listeners) {
        let place = by_place.entry((one.family, one.protocol));
        place.or_default().push(one);
    }
    for listeners in by_place.into_values() {
        let (all, mut for_one): (Vec<_>, Vec<_>) = listeners
            .into_iter()
            .partition(|one| one.listen.value.address.is_none());
        for_one.sort_by_key(|one| one.listen.value.ports.first());
        // For each n, the listener among the first n whose range ends last.
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
            // Among the listeners that begin at or before the end of these ports, the one that ends last
            // overlaps them if any does.
            let begin =
                for_one.partition_point(|one| one.listen.value.ports.first() <= ports.last());
            let Some(n) = begin.checked_sub(1).map(|n| furthest[n]) else {
                continue;
            };
            let other = for_one[n];
            // Two pieces of one list that share a port are an error.
            if std::ptr::eq(this.forward, other.forward) {
                continue;
            }
            let taken = other.listen.value.ports;
            let first = taken.first().max(ports.first());
            let last = taken.last().min(ports.last());
            let (Ok(ports), Some(address)) =
                (PortRange::new(first, last), other.listen.value.address)
            else {
                continue;
            };
            let kind = ProblemKind::AddressBesideAll {
                this: this.name().to_owned(),
                ports,
                address,
                name: other.name().to_owned(),
                other: other.listen.span.clone(),
            };
            problems.push(Problem::new(this.listen.span.clone(), kind));
        }
    }
}
