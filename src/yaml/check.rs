//! The values of a spec against one another, and addresses that a forward must not use.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::fields::Placed;
use super::options::check_snat;
use super::outbound;
use super::problem::{Code, Problem, ProblemKind, Span};
use super::written::{Listener, WrittenForward, WrittenSpec, listeners};
use crate::forwards::{Listen, Name, Snat, Snats, TargetPorts};
use crate::net::{self, Family, Port, PortRange, Protocol};
use crate::netfilter::matches::Cluster;

/// Adds the errors of values that do not fit together. A forward that is switched off is checked too, but
/// takes no port.
pub fn check(written: &WrittenSpec, problems: &mut Vec<Problem>) {
    if let Some(snat) = &written.snat {
        check_snat(snat, problems);
    }
    let firewall_snat = written.snat.as_ref().map(|snat| snat.value);
    for forward in &written.forwards {
        check_listen(forward, problems);
        check_target(forward, problems);
        check_options(forward, firewall_snat, problems);
    }
    check_names(&written.forwards, problems);
    check_overlaps(written.enabled(), problems);
    outbound::check(written, problems);
}

/// Compares the options of a forward with its target.
fn check_options(forward: &WrittenForward, firewall: Option<Snats>, problems: &mut Vec<Problem>) {
    let options = &forward.options;
    if let Some(snat) = &options.snat {
        check_snat(snat, problems);
    }
    let first = forward
        .target
        .as_ref()
        .and_then(|target| target.destinations.first());
    let Some(first) = first else { return };
    let family = Family::of(first.value.address);
    let own = options
        .snat
        .as_ref()
        .and_then(|snat| Some((snat.value.of(family)?, snat.span.clone())));
    let snat = own
        .as_ref()
        .map(|(snat, _)| *snat)
        .or(firewall.and_then(|snats| snats.of(family)));
    // A firewall without a valid `snat` has been reported.
    if snat.is_none() && firewall.is_some() {
        let kind = ProblemKind::NoSnat { family };
        problems.push(Problem::new(first.span.clone(), kind));
    }
    // A default is for forwards of both families.
    if let (true, None, Some(snat)) = (forward.own_snat, &own, &options.snat) {
        let kind = ProblemKind::NoSnat { family };
        problems.push(Problem::new(snat.span.clone(), kind));
    }
    if let (Some(Snat::Client), Some(hairpin)) = (snat, &options.hairpin)
        && hairpin.value
    {
        let snat = own.map_or_else(|| first.span.clone(), |(_, span)| span);
        let kind = ProblemKind::HairpinKeepsClients { snat };
        problems.push(Problem::new(hairpin.span.clone(), kind));
    }
    if let Some(allow) = &options.allow
        && allow.value.of(family).is_empty()
    {
        let kind = ProblemKind::AllowsNobody { family };
        problems.push(Problem::new(allow.span.clone(), kind));
    }
    if let (Some(allow), Some(deny)) = (&options.allow, &options.deny)
        && let (allowed, denied) = (allow.value.of(family), deny.value.of(family))
        && !allowed.is_empty()
        && !denied.are_all()
        && denied.hold(allowed)
    {
        let kind = ProblemKind::DeniesAllowed {
            family,
            allow: allow.span.clone(),
        };
        problems.push(Problem::new(deny.span.clone(), kind));
    }
    if let Some(deny) = &options.deny
        && deny.value.of(family).are_all()
    {
        let kind = ProblemKind::DeniesEverybody { family };
        problems.push(Problem::new(deny.span.clone(), kind));
    }
}

fn check_listen(forward: &WrittenForward, problems: &mut Vec<Problem>) {
    let protocols = forward.options.protocols;
    let is_tcp = protocols.is_some_and(|protocols| protocols.contains(&Protocol::Tcp));
    for Placed { value, span } in forward.pieces() {
        if let Some(address) = value.address
            && let Some(reason) = net::not_a_host(address)
        {
            let kind = ProblemKind::UnusableAddress {
                key: "listen",
                address,
                reason,
            };
            problems.push(Problem::new(span.clone(), kind));
        }
        let takes_ssh = is_tcp && value.ports.contains(Port::SSH);
        if takes_ssh && !forward.silence.contains(&Code::TakesSsh) {
            problems.push(Problem::new(span.clone(), ProblemKind::TakesSsh));
        }
    }
    check_pieces(forward, problems);
}

/// Reports pieces of one list that share a port. A piece for one address may not share a port with a piece for
/// all addresses either: both lead to the same target.
fn check_pieces(forward: &WrittenForward, problems: &mut Vec<Problem>) {
    let mut pieces: Vec<&Placed<Listen>> = forward.pieces().iter().collect();
    pieces.sort_by_key(|piece| (piece.value.address, piece.value.ports.first()));
    let mut furthest: Option<&Placed<Listen>> = None;
    for this in &pieces {
        match furthest {
            Some(before)
                if before.value.address == this.value.address
                    && before.value.ports.last() >= this.value.ports.first() =>
            {
                problems.push(shared(before, this));
                if before.value.ports.last() < this.value.ports.last() {
                    furthest = Some(this);
                }
            }
            _ => furthest = Some(this),
        }
    }
    let open = pieces.partition_point(|piece| piece.value.address.is_none());
    let (open, addressed) = pieces.split_at(open);
    for this in addressed {
        let ports = this.value.ports;
        let begun = open.partition_point(|piece| piece.value.ports.first() <= ports.last());
        let before = begun.checked_sub(1).map(|n| open[n]);
        let before = before.filter(|piece| piece.value.ports.overlaps(ports));
        problems.extend(before.map(|before| shared(before, this)));
    }
}

/// Reports two pieces of a list that share a port, at the piece that is later in the file.
fn shared(a: &Placed<Listen>, b: &Placed<Listen>) -> Problem {
    let (first, second) = if a.span.start < b.span.start {
        (a, b)
    } else {
        (b, a)
    };
    let kind = if first.value == second.value {
        ProblemKind::Twice {
            text: second.value.to_string(),
        }
    } else {
        ProblemKind::OverlappingPieces {
            piece: second.value.to_string(),
            other: first.span.clone(),
        }
    };
    Problem::new(second.span.clone(), kind)
}

fn check_target(forward: &WrittenForward, problems: &mut Vec<Problem>) {
    let Some(target) = &forward.target else {
        return;
    };
    let (first, count) = (&target.destinations[0], target.destinations.len());
    if count > Cluster::MOST as usize {
        let most = Cluster::MOST;
        let kind = ProblemKind::TooManyPods { count, most };
        problems.push(Problem::new(first.span.clone(), kind));
        return;
    }
    for Placed { value, span } in forward.pieces() {
        if let Some(address) = value.address
            && Family::of(address) != Family::of(first.value.address)
        {
            let kind = ProblemKind::OtherFamily {
                key: "listen",
                family: Family::of(address),
                target: first.span.clone(),
            };
            problems.push(Problem::new(span.clone(), kind));
        }
    }
    for (n, Placed { value: to, span }) in target.destinations.iter().enumerate() {
        let address = to.address;
        let kind = match (danger(address), net::not_a_host(address)) {
            (Some(reason), _) => Some(ProblemKind::DangerousTarget { address, reason }),
            (None, Some(reason)) => Some(ProblemKind::UnusableAddress {
                key: "target",
                address,
                reason,
            }),
            (None, None) if Family::of(address) != Family::of(first.value.address) => {
                Some(ProblemKind::OtherFamily {
                    key: "pod",
                    family: Family::of(address),
                    target: first.span.clone(),
                })
            }
            (None, None) if target.destinations[..n].iter().any(|one| one.value == *to) => {
                let text = to.to_string();
                Some(ProblemKind::Twice { text })
            }
            (None, None) => None,
        };
        problems.extend(kind.map(|kind| Problem::new(span.clone(), kind)));

        if let TargetPorts::Range(ports) = to.ports
            && !ports.is_single()
        {
            let kind = range_problem(forward, ports);
            problems.extend(kind.map(|kind| Problem::new(span.clone(), kind)));
        }
    }
}

/// Returns why a target's range does not fit the listener, if it does not.
fn range_problem(forward: &WrittenForward, ports: PortRange) -> Option<ProblemKind> {
    match forward.pieces() {
        [] => None,
        [one] => {
            let listen = one.value.ports.count();
            (ports.count() != listen).then(|| ProblemKind::RangeLength {
                target: ports.count(),
                listen,
                listen_span: one.span.clone(),
            })
        }
        _ => {
            let listen = forward.listen.as_ref()?;
            Some(ProblemKind::RangeForList {
                listen_span: listen.span.clone(),
            })
        }
    }
}

/// Returns why a forward must not lead to an address. Its target sees the VM's address as the source, so
/// it would take a client for the VM.
fn danger(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address == net::AZURE_HOST => {
            Some("it is Azure's host agent, which would take a client for this VM")
        }
        IpAddr::V4(v4) if v4.is_link_local() => Some(
            "169.254.0.0/16 has the metadata service, which would give clients this VM's identity",
        ),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            Some("fe80::/10 is the VM's own network segment, whose services are for the VM itself")
        }
        _ if address.is_loopback() => Some(match Family::of(address) {
            Family::V4 => "127.0.0.0/8 is the firewall itself",
            Family::V6 => "`::1` is the firewall itself",
        }),
        _ if address.is_multicast() => Some(match Family::of(address) {
            Family::V4 => "224.0.0.0/4 has multicast groups, not hosts",
            Family::V6 => "ff00::/8 has multicast groups, not hosts",
        }),
        _ => None,
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

/// Reports listeners of one family, protocol and address that share a port. A listener for one address may
/// share a port with one for all addresses: the plan puts it first.
fn check_overlaps<'w>(
    forwards: impl Iterator<Item = &'w WrittenForward>,
    problems: &mut Vec<Problem>,
) {
    let mut listeners: Vec<Listener<'_>> = forwards.flat_map(listeners).collect();
    listeners.sort_by_key(|one| (one.place(), one.listen.value.ports.first()));
    // The listener so far whose range ends last. In this order, a listener that overlaps any listener before
    // it overlaps this one.
    let mut furthest: Option<Listener<'_>> = None;
    for this in listeners {
        let Some(before) = furthest else {
            furthest = Some(this);
            continue;
        };
        let (had, wanted) = (before.listen.value.ports, this.listen.value.ports);
        if before.place() == this.place() && had.overlaps(wanted) {
            // `check_pieces` reports two pieces of one list.
            if !std::ptr::eq(before.forward, this.forward) {
                problems.push(overlap(before, this));
            }
            if had.last() >= wanted.last() {
                continue;
            }
        }
        furthest = Some(this);
    }
}

/// Reports an overlap at the listener that is later in the file.
fn overlap(a: Listener<'_>, b: Listener<'_>) -> Problem {
    let (first, second) = if a.listen.span.start < b.listen.span.start {
        (a, b)
    } else {
        (b, a)
    };
    Problem::new(
        second.listen.span.clone(),
        ProblemKind::OverlappingListen {
            ports: format!("{}/{}", second.protocol, second.listen.value),
            name: first.name().to_owned(),
            other: first.listen.span.clone(),
        },
    )
}
