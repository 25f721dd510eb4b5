//! A checked spec to forwards: one for each protocol and listener, with the defaults of the firewall.

use super::fields::Placed;
use super::nets::ByFamily;
use super::options::{Options, named};
use super::outbound;
use super::problem::{Code, Problem, ProblemKind, Span};
use super::written::{WrittenForward, WrittenSpec, WrittenTarget};
use crate::forwards::{
    Balance, Firewall, Forward, ForwardSet, ForwardTarget, Listen, Nets, Snats, Sources,
    need_ingress_match,
};
use crate::net::{Family, Protocol};

/// Returns the forwards of a spec, or `None` if a value is missing or invalid. They are valid only if the
/// spec has no error.
pub fn resolve(written: WrittenSpec, problems: &mut Vec<Problem>) -> Option<ForwardSet> {
    let interfaces = written.interfaces.clone()?;
    let firewall = Firewall {
        ingress: interfaces.ingress?,
        egress: interfaces.egress?,
        // A spec without forwards needs none.
        snat: written
            .snat
            .as_ref()
            .map_or(Snats::default(), |snat| snat.value),
        mss: written.mss,
        forward_policy: written.forward_policy?,
        layout: written.layout,
    };
    let outbound = outbound::resolve(&written, &firewall, problems)?;
    let mut forwards = Vec::with_capacity(written.forwards.len());
    let mut listeners = Vec::with_capacity(written.forwards.len());
    for forward in written.forwards {
        if forward.enabled? {
            let quiet = forward.silence.contains(&Code::NeedsLinux55);
            for (forward, listener) in resolved(forward, &firewall)? {
                forwards.push(forward);
                listeners.push(Some(listener).filter(|_| !quiet));
            }
        }
    }
    if !written.silence.contains(&Code::NeedsLinux55) {
        note_entrances(&forwards, listeners, problems);
    }
    Some(ForwardSet {
        description: written.description,
        firewall,
        forwards,
        outbound,
        tests: written.tests.into_iter().map(|test| test.value).collect(),
    })
}

/// Notes the listeners whose packets only the interface of arrival can tell apart. A forward that silences
/// the note has `None` as its listener.
fn note_entrances(forwards: &[Forward], listeners: Vec<Option<Span>>, problems: &mut Vec<Problem>) {
    let forwards: Vec<&Forward> = forwards.iter().collect();
    for (told, listener) in need_ingress_match(&forwards).into_iter().zip(listeners) {
        if let (true, Some(span)) = (told, listener) {
            problems.push(Problem::new(span, ProblemKind::NeedsLinux55));
        }
    }
}

/// Returns one forward for each protocol and listener, with the place of the listener. It takes missing options
/// from the firewall.
fn resolved(
    forward: WrittenForward,
    firewall: &Firewall,
) -> Option<impl Iterator<Item = (Forward, Span)>> {
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
    let target = ForwardTarget {
        kind,
        destinations: destinations.into_iter().map(|to| to.value).collect(),
        // A single target takes all connections: two specs that differ only in this have the same rules.
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
    let mut places = places(protocols?, forward.listen?.pieces);
    let (protocol, listen, span) = places.pop()?;
    let last = Forward {
        listen,
        protocol,
        target,
        ingress,
        egress,
        snat: own_snat.or(firewall.snat.of(family))?,
        sources,
        limits,
        log: log.and_then(|log| named(log, &name, refuses)),
        hairpin,
        description: forward.description,
        name,
    };
    let others = places.into_iter().map(|(protocol, listen, span)| {
        let forward = Forward {
            listen,
            protocol,
            ..last.clone()
        };
        (forward, span)
    });
    let others: Vec<(Forward, Span)> = others.collect();
    Some(others.into_iter().chain([(last, span)]))
}

/// Returns each pair of a protocol and a listener. The order of a list has no meaning, so that two specs that
/// differ only in it have the same rules.
fn places(
    protocols: &[Protocol],
    mut pieces: Vec<Placed<Listen>>,
) -> Vec<(Protocol, Listen, Span)> {
    pieces.sort_by_key(|piece| piece.value);
    let of = |protocol: &Protocol| {
        let protocol = *protocol;
        let pieces = pieces.iter();
        pieces.map(move |piece| (protocol, piece.value, piece.span.clone()))
    };
    protocols.iter().flat_map(of).collect()
}

fn sources(
    allow: Option<&Placed<ByFamily>>,
    deny: Option<&Placed<ByFamily>>,
    family: Family,
) -> Sources {
    let of_family = |list: &Placed<ByFamily>| list.value.of(family).clone();
    Sources {
        // A list of all addresses admits everybody, as no list does.
        allow: allow.map(of_family).filter(|nets| !nets.are_all()),
        deny: deny.map_or_else(Nets::default, of_family),
    }
}
