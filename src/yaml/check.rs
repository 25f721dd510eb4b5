//! What the values of a spec must not say together, and what none of them may say alone.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::code::Code;
use super::decode::{Listener, Placed, WrittenForward, WrittenSpec, WrittenTarget, listeners};
use super::options::{ByFamily, Options, WrittenLog};
use super::problem::{Problem, ProblemKind, Span};
use crate::forwards::{
    Balance, Firewall, Forward, ForwardSet, Log, Logged, Name, Nets, Snat, Snats, Sources, Target,
    TargetPorts, need_ingress_match,
};
use crate::net::{self, Family, Port, Protocol};
use crate::netfilter::matches::Cluster;

/// Checks what was read. `None` where something could not be read; sound only if `problems` stays
/// empty.
pub fn check(written: WrittenSpec, problems: &mut Vec<Problem>) -> Option<ForwardSet> {
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
    let enabled = written
        .forwards
        .iter()
        .filter(|forward| forward.enabled != Some(false));
    check_overlaps(enabled, problems);

    let interfaces = written.interfaces?;
    let firewall = Firewall {
        ingress: interfaces.ingress?,
        egress: interfaces.egress?,
        snat: written.snat?.value,
        forward_policy: written.forward_policy?,
        layout: written.layout,
    };
    let mut forwards = Vec::with_capacity(written.forwards.len());
    let mut listeners = Vec::with_capacity(written.forwards.len());
    for forward in written.forwards {
        // One that is switched off is checked like the others, but for what it would take.
        if forward.enabled? {
            let quiet = forward.silence.contains(&Code::NeedsLinux55);
            let listener = forward.listen.as_ref().map(|listen| listen.span.clone());
            forwards.extend(resolved(forward, &firewall)?);
            listeners.resize(forwards.len(), listener.filter(|_| !quiet));
        }
    }
    if !written.silence.contains(&Code::NeedsLinux55) {
        note_entrances(&forwards, listeners, problems);
    }
    Some(ForwardSet { firewall, forwards })
}

/// Notes at each listener what the kernel must be able to tell of its packets. A forward that keeps that
/// quiet has no listener here.
fn note_entrances(forwards: &[Forward], listeners: Vec<Option<Span>>, problems: &mut Vec<Problem>) {
    let forwards: Vec<&Forward> = forwards.iter().collect();
    for (told, listener) in need_ingress_match(&forwards).into_iter().zip(listeners) {
        if let (true, Some(span)) = (told, listener) {
            problems.push(Problem::new(span, ProblemKind::NeedsLinux55));
        }
    }
}

/// The forward as it is planned, once for each protocol, with what the firewall says where it says
/// nothing itself.
fn resolved(forward: WrittenForward, firewall: &Firewall) -> Option<impl Iterator<Item = Forward>> {
    let Options {
        protocols,
        balance,
        interfaces,
        snat,
        allow,
        deny,
        limits,
        log,
        hairpin,
    } = forward.options;
    let WrittenTarget { kind, destinations } = forward.target?;
    let several = destinations.len() > 1;
    let target = Target {
        kind,
        destinations: destinations.into_iter().map(|to| to.value).collect(),
        // One takes all, however they would be shared.
        balance: balance.filter(|_| several).unwrap_or(Balance::Random),
    };
    let name = forward.name?.value;
    let family = target.family();
    let interfaces = interfaces.unwrap_or_default();
    let egress = interfaces.egress.unwrap_or_else(|| firewall.egress.clone());
    let hairpin = hairpin.is_some_and(|hairpin| hairpin.value);
    let mut ingress = interfaces
        .ingress
        .unwrap_or_else(|| firewall.ingress.clone());
    if hairpin && ingress.len() > 1 {
        ingress.retain(|interface| *interface != egress);
    }
    let own_snat = snat.and_then(|snat| snat.value.of(family));
    let (sources, limits) = (sources(allow.as_ref(), deny.as_ref(), family), limits);
    let refuses = sources != Sources::default() || limits.is_some();
    let (protocol, others) = protocols?.split_last()?;
    let last = Forward {
        listen: forward.listen?.value,
        protocol: *protocol,
        target,
        ingress,
        egress,
        snat: own_snat.or(firewall.snat.of(family))?,
        sources,
        limits,
        log: log.and_then(|log| named(log, &name, refuses)),
        hairpin,
        name,
    };
    let others = others.iter().map(|protocol| Forward {
        protocol: *protocol,
        ..last.clone()
    });
    let others: Vec<Forward> = others.collect();
    Some(others.into_iter().chain([last]))
}

fn sources(
    allow: Option<&Placed<ByFamily>>,
    deny: Option<&Placed<ByFamily>>,
    family: Family,
) -> Sources {
    let of_family = |list: &Placed<ByFamily>| list.value.of(family).clone();
    Sources {
        // A list of all addresses keeps nobody out.
        allow: allow.map(of_family).filter(|nets| !nets.are_all()),
        deny: deny.map_or_else(Nets::default, of_family),
    }
}

/// What is logged of a forward that refuses something, or nothing.
fn named(log: WrittenLog, name: &Name, refuses: bool) -> Option<Log> {
    let connections = match log.connections {
        Logged::Refused if !refuses => return None,
        Logged::All if !refuses => Logged::Accepted,
        connections => connections,
    };
    let name = name.as_str();
    let own = || name[..name.len().min(Log::LONGEST_PREFIX)].into();
    Some(Log {
        prefix: log.prefix.unwrap_or_else(own),
        level: log.level,
        per_minute: log.per_minute,
        connections,
    })
}

fn check_snat(snat: &Placed<Snats>, problems: &mut Vec<Problem>) {
    for family in Family::ALL {
        let Some(Snat::Addresses(range)) = snat.value.of(family) else {
            continue;
        };
        for address in [range.first(), range.last()] {
            if let Some(reason) = net::not_a_host(address) {
                let kind = ProblemKind::UnusableAddress {
                    key: "snat",
                    address,
                    reason,
                };
                problems.push(Problem::new(snat.span.clone(), kind));
                break;
            }
        }
    }
}

/// What the forward's own options and its target must not say together.
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
    // Where the firewall has none that can be read, that has been said.
    if snat.is_none() && firewall.is_some() {
        let kind = ProblemKind::NoSnat { family };
        problems.push(Problem::new(first.span.clone(), kind));
    }
    // What the defaults say is for forwards of both families.
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
    if let Some(deny) = &options.deny
        && deny.value.of(family).are_all()
    {
        let kind = ProblemKind::DeniesEverybody { family };
        problems.push(Problem::new(deny.span.clone(), kind));
    }
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
    let protocols = forward.options.protocols;
    let takes_ssh = protocols.is_some_and(|protocols| protocols.contains(&Protocol::Tcp))
        && listen.ports.contains(Port::SSH);
    if takes_ssh && !forward.silence.contains(&Code::TakesSsh) {
        problems.push(Problem::new(span.clone(), ProblemKind::TakesSsh));
    }
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
    if let Some(listen) = &forward.listen
        && let Some(address) = listen.value.address
        && Family::of(address) != Family::of(first.value.address)
    {
        let kind = ProblemKind::OtherFamily {
            key: "listen",
            family: Family::of(address),
            target: first.span.clone(),
        };
        problems.push(Problem::new(listen.span.clone(), kind));
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

        if let (TargetPorts::Range(ports), Some(listen)) = (to.ports, &forward.listen)
            && !ports.is_single()
            && ports.count() != listen.value.ports.count()
        {
            let kind = ProblemKind::RangeLength {
                target: ports.count(),
                listen: listen.value.ports.count(),
                listen_span: listen.span.clone(),
            };
            problems.push(Problem::new(span.clone(), kind));
        }
    }
}

/// Why a target would hand out something of the firewall's own. The source is rewritten to the
/// VM's address, so the target would take the client for the VM.
fn danger(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address == net::AZURE_HOST => {
            Some("it is Azure's host agent, which would take clients for this VM")
        }
        IpAddr::V4(v4) if v4.is_link_local() => {
            Some("169.254.0.0/16 holds the metadata service, which gives out this VM's identity")
        }
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            Some("fe80::/10 is one wire only, and holds what is the VM's own there")
        }
        _ if address.is_loopback() => Some(match Family::of(address) {
            Family::V4 => "127.0.0.0/8 is the firewall itself",
            Family::V6 => "`::1` is the firewall itself",
        }),
        _ if address.is_multicast() => Some(match Family::of(address) {
            Family::V4 => "224.0.0.0/4 are multicast groups, not hosts",
            Family::V6 => "ff00::/8 are multicast groups, not hosts",
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

/// Listeners of one family, protocol and address must not share a port. A listener for one address
/// beside one for all is no conflict: the plan puts it first.
fn check_overlaps<'w>(
    forwards: impl Iterator<Item = &'w WrittenForward>,
    problems: &mut Vec<Problem>,
) {
    let mut listeners: Vec<Listener<'_>> = forwards.flat_map(listeners).collect();
    listeners.sort_by_key(|one| (one.place(), one.listen.value.ports.first()));
    // Of the listeners seen, the one that reaches furthest: in this order, who overlaps any of
    // them overlaps that one.
    let mut furthest: Option<Listener<'_>> = None;
    for this in listeners {
        let Some(before) = furthest else {
            furthest = Some(this);
            continue;
        };
        let (had, wanted) = (before.listen.value.ports, this.listen.value.ports);
        if before.place() == this.place() && had.overlaps(wanted) {
            problems.push(overlap(before, this));
            if had.last() >= wanted.last() {
                continue;
            }
        }
        furthest = Some(this);
    }
}

/// Reported at the listener that stands later in the file.
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
