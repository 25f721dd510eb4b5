//! What is worth a warning or a note in a spec that may well be sound.

use std::net::Ipv4Addr;
use std::ops::Range;

use super::code::Code;
use super::decode::{Placed, WrittenForward, WrittenSpec};
use super::problem::{Problem, ProblemKind, Span};
use super::{ForwardPolicy, Listen, Snat, TargetKind, TargetPorts};
use crate::net::{Port, PortRange, Protocol};

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
    if let (Some(ForwardPolicy::Keep), Some(span)) =
        (spec.forward_policy, &spec.forward_policy_span)
        && !quiet(Code::PolicyKept)
    {
        problems.push(Problem::new(span.clone(), ProblemKind::PolicyKept));
    }
    let own = own_addresses(spec);
    for forward in enabled(spec) {
        let found = of_listener(forward).chain(of_target(forward, &own));
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
    let listen = forward
        .listen
        .as_ref()
        .filter(|listen| !listen.value.ports.is_single());
    listen.into_iter().flat_map(
        |Placed {
             value: listen,
             span,
         }| {
            let ports = listen.ports;
            let service = forward
                .protocol
                .and_then(|protocol| taken_service(protocol, ports));
            let wide = (ports.count() >= WIDE).then(|| ProblemKind::WideRange {
                count: ports.count(),
            });
            [service, wide]
                .into_iter()
                .flatten()
                .map(|kind| Problem::new(span.clone(), kind))
        },
    )
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

fn of_target(forward: &WrittenForward, own: &[(Ipv4Addr, Span)]) -> impl Iterator<Item = Problem> {
    forward.target.iter().flat_map(
        move |Placed {
                  value: target,
                  span,
              }| {
            let address = target.address;
            let own = own
                .binary_search_by_key(&address, |(own, _)| *own)
                .ok()
                .map(|n| ProblemKind::TargetIsFirewall {
                    address,
                    other: own[n].1.clone(),
                });
            let note = match (target.kind, target.ports, &forward.listen) {
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
        },
    )
}

/// The addresses of which the spec itself says that they are the firewall's, each with its first
/// place.
fn own_addresses(spec: &WrittenSpec) -> Vec<(Ipv4Addr, Span)> {
    let snat = spec.snat.as_ref().and_then(|snat| match snat.value {
        Snat::Address(address) => Some((address, snat.span.clone())),
        Snat::Masquerade => None,
    });
    let listeners = enabled(spec).filter_map(|forward| {
        let listen = forward.listen.as_ref()?;
        Some((listen.value.address?, listen.span.clone()))
    });
    let mut own: Vec<(Ipv4Addr, Span)> = snat.into_iter().chain(listeners).collect();
    own.sort_by_key(|(address, span)| (*address, span.start));
    own.dedup_by_key(|(address, _)| *address);
    own
}

/// Listeners for all addresses that lose some ports, on one address, to a listener for that one.
fn beside_all(spec: &WrittenSpec, problems: &mut Vec<Problem>) {
    let listeners = || {
        enabled(spec)
            .filter(|forward| !forward.silence.contains(&Code::AddressBesideAll))
            .filter_map(|forward| Some((forward, forward.protocol?, forward.listen.as_ref()?)))
    };
    for protocol in Protocol::ALL {
        let of = |all: bool| {
            listeners().filter(move |(_, p, listen)| {
                *p == protocol && listen.value.address.is_none() == all
            })
        };
        let mut for_one: Vec<(&WrittenForward, &Placed<Listen>)> = of(false)
            .map(|(forward, _, listen)| (forward, listen))
            .collect();
        for_one.sort_by_key(|(_, listen)| listen.value.ports.first());
        // The one that reaches furthest among the first n.
        let mut furthest: Vec<usize> = Vec::with_capacity(for_one.len());
        for (n, (_, listen)) in for_one.iter().enumerate() {
            let before = furthest.last().copied().unwrap_or(n);
            let last = |n: usize| for_one[n].1.value.ports.last();
            furthest.push(if listen.value.ports.last() > last(before) {
                n
            } else {
                before
            });
        }
        for (_, _, listen) in of(true) {
            let ports = listen.value.ports;
            // Of those that begin in time, the one that ends last meets these ports if any does.
            let begin = for_one.partition_point(|(_, one)| one.value.ports.first() <= ports.last());
            let Some(n) = begin.checked_sub(1).map(|n| furthest[n]) else {
                continue;
            };
            let (one, other) = for_one[n];
            if !other.value.ports.overlaps(ports) {
                continue;
            }
            let name = one
                .name
                .as_ref()
                .map_or("(no name)", |name| name.value.as_str());
            let kind = ProblemKind::AddressBesideAll {
                ports: other.value.to_string(),
                name: name.to_owned(),
                other: other.span.clone(),
            };
            problems.push(Problem::new(listen.span.clone(), kind));
        }
    }
}
