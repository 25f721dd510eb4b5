//! What the values of a spec must not say together, and what none of them may say alone.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::code::Code;
use super::decode::{Placed, WrittenForward, WrittenSpec};
use super::problem::{Problem, ProblemKind, Span};
use super::{Firewall, Forward, ForwardSet, Listen, Name, Snat, TargetPorts};
use crate::net::{self, Port, Protocol};

/// Checks what was read. `None` where something could not be read; sound only if `problems` stays
/// empty.
pub fn check(written: WrittenSpec, problems: &mut Vec<Problem>) -> Option<ForwardSet> {
    if let Some(Placed {
        value: Snat::Address(address),
        span,
    }) = &written.snat
        && let Some(reason) = net::not_a_host(*address)
    {
        problems.push(Problem::new(
            span.clone(),
            ProblemKind::UnusableAddress {
                key: "snat",
                address: *address,
                reason,
            },
        ));
    }
    for forward in &written.forwards {
        check_listen(forward, problems);
        check_target(forward, problems);
    }
    check_names(&written.forwards, problems);
    let enabled = written
        .forwards
        .iter()
        .filter(|forward| forward.enabled != Some(false));
    check_overlaps(enabled, problems);

    Some(ForwardSet {
        firewall: Firewall {
            ingress: written.ingress?,
            egress: written.egress?,
            snat: written.snat?.value,
            forward_policy: written.forward_policy?,
        },
        forwards: written
            .forwards
            .into_iter()
            // One that is switched off is checked like the others, but for what it would take.
            .filter(|forward| forward.enabled != Some(false))
            .map(|forward| {
                forward.enabled?;
                Some(Forward {
                    name: forward.name?.value,
                    listen: forward.listen?.value,
                    protocol: forward.protocol?,
                    target: forward.target?.value,
                })
            })
            .collect::<Option<_>>()?,
    })
}

fn check_listen(forward: &WrittenForward, problems: &mut Vec<Problem>) {
    let Some(Placed {
        value: listen,
        span,
    }) = &forward.listen
    else {
        return;
    };
    if let Some(address) = listen.address
        && let Some(reason) = net::not_a_host(address)
    {
        let kind = ProblemKind::UnusableAddress {
            key: "listen",
            address,
            reason,
        };
        problems.push(Problem::new(span.clone(), kind));
    }
    let takes_ssh = forward.protocol == Some(Protocol::Tcp) && listen.ports.contains(Port::SSH);
    if takes_ssh && !forward.silence.contains(&Code::TakesSsh) {
        problems.push(Problem::new(span.clone(), ProblemKind::TakesSsh));
    }
}

fn check_target(forward: &WrittenForward, problems: &mut Vec<Problem>) {
    let Some(Placed {
        value: target,
        span,
    }) = &forward.target
    else {
        return;
    };
    let address = target.address;
    let kind = match (danger(address), net::not_a_host(address)) {
        (Some(reason), _) => Some(ProblemKind::DangerousTarget { address, reason }),
        (None, Some(reason)) => Some(ProblemKind::UnusableAddress {
            key: "target",
            address,
            reason,
        }),
        (None, None) => None,
    };
    problems.extend(kind.map(|kind| Problem::new(span.clone(), kind)));

    if let (TargetPorts::Range(ports), Some(listen)) = (target.ports, &forward.listen)
        && !ports.is_single()
        && ports.count() != listen.value.ports.count()
    {
        problems.push(Problem::new(
            span.clone(),
            ProblemKind::RangeLength {
                target: ports.count(),
                listen: listen.value.ports.count(),
                listen_span: listen.span.clone(),
            },
        ));
    }
}

/// Why a target would hand out something of the firewall's own. The source is rewritten to the
/// VM's address, so the target would take the client for the VM.
fn danger(address: Ipv4Addr) -> Option<&'static str> {
    if address == net::AZURE_HOST {
        Some("it is Azure's host agent, which would take clients for this VM")
    } else if address.is_link_local() {
        Some("169.254.0.0/16 holds the metadata service, which gives out this VM's identity")
    } else if address.is_loopback() {
        Some("127.0.0.0/8 is the firewall itself")
    } else if address.is_multicast() {
        Some("224.0.0.0/4 are multicast groups, not hosts")
    } else {
        None
    }
}

fn check_names(forwards: &[WrittenForward], problems: &mut Vec<Problem>) {
    let mut first: BTreeMap<&Name, &Span> = BTreeMap::new();
    for Placed { value: name, span } in forwards.iter().filter_map(|f| f.name.as_ref()) {
        if let Some(known) = first.get(name) {
            let kind = ProblemKind::DuplicateName {
                name: name.to_string(),
                first: (*known).clone(),
            };
            problems.push(Problem::new(span.clone(), kind));
        } else {
            first.insert(name, span);
        }
    }
}

/// Listeners of one protocol and address must not share a port. A listener for one address beside
/// one for all is no conflict: the plan puts it first.
fn check_overlaps<'w>(
    forwards: impl Iterator<Item = &'w WrittenForward>,
    problems: &mut Vec<Problem>,
) {
    let mut listeners: Vec<(&WrittenForward, Protocol, &Placed<Listen>)> = forwards
        .filter_map(|f| Some((f, f.protocol?, f.listen.as_ref()?)))
        .collect();
    listeners.sort_by_key(|(_, protocol, listen)| {
        (*protocol, listen.value.address, listen.value.ports.first())
    });
    // Of the listeners seen, the one that reaches furthest: in this order, who overlaps any of
    // them overlaps that one.
    let mut furthest: Option<(&WrittenForward, Protocol, &Placed<Listen>)> = None;
    for this in listeners {
        let Some(before) = furthest else {
            furthest = Some(this);
            continue;
        };
        let same_place = before.1 == this.1 && before.2.value.address == this.2.value.address;
        if same_place && before.2.value.ports.overlaps(this.2.value.ports) {
            problems.push(overlap(before, this));
            if before.2.value.ports.last() >= this.2.value.ports.last() {
                continue;
            }
        }
        furthest = Some(this);
    }
}

/// Reported at the listener that stands later in the file.
fn overlap(
    a: (&WrittenForward, Protocol, &Placed<Listen>),
    b: (&WrittenForward, Protocol, &Placed<Listen>),
) -> Problem {
    let (first, second) = if a.2.span.start < b.2.span.start {
        (a, b)
    } else {
        (b, a)
    };
    let name = match &first.0.name {
        Some(name) => name.value.to_string(),
        None => "(no name)".to_owned(),
    };
    Problem::new(
        second.2.span.clone(),
        ProblemKind::OverlappingListen {
            ports: format!("{}/{}", second.1, second.2.value),
            name,
            other: first.2.span.clone(),
        },
    )
}
