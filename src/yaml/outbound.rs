//! The entries of `outbound`: read, compared with one another, and made the model's.

use std::collections::BTreeMap;

use super::bounds::MAX_PROBLEMS;
use super::description::decode_description;
use super::fields::{Fields, Placed, distinct, one_of_words, unknown, yes_or_no};
use super::load::Node;
use super::nets::ByFamily;
use super::networks::NetworkNames;
use super::options::{self, WrittenDestinations, check_snat, named};
use super::problem::{Code, Problem, ProblemKind, Span};
use super::silence::{Silencing, decode_silence};
use super::written::{WrittenOutbound, WrittenSpec};
use crate::forwards::{
    Destinations, Firewall, METADATA, Name, Nets, Outbound, OutboundProtocol, Snat, Snats, joined,
    share_one_nic,
};
use crate::net::{Family, Interface};

/// The keys of an entry.
pub const KEYS: &[&str] = &[
    "name",
    "description",
    "enabled",
    "allow_from",
    "allow_to",
    "deny_from",
    "deny_to",
    "protocol",
    "ports",
    "interface",
    "snat",
    "limits",
    "log",
    "silence",
];

pub fn decode(
    node: &Node<'_>,
    networks: &mut NetworkNames<'_>,
    problems: &mut Vec<Problem>,
) -> WrittenOutbound {
    let mut entry = WrittenOutbound::default();
    let Some(fields) = Fields::of(node, "entry", "this outbound entry", KEYS, problems) else {
        return entry;
    };
    if fields.required("name", problems).is_some() {
        entry.name = fields.parsed("name", "a name", problems, |text| {
            text.parse()
                .map_err(|error| ProblemKind::InvalidName { error })
        });
    }
    entry.description = fields
        .get("description")
        .and_then(|node| decode_description(node, problems));
    entry.enabled = fields.get("enabled").map_or(Some(true), |node| {
        yes_or_no(node, "enabled", problems).map(|enabled| enabled.value)
    });
    if let Some(node) = fields.required("allow_from", problems) {
        entry.allow_from = options::nets(node, "allow_from", networks, problems);
    }
    let mut lists = |key: &'static str, problems: &mut Vec<Problem>| {
        options::nets(fields.get(key)?, key, networks, problems)
    };
    entry.deny_from = lists("deny_from", problems);
    entry.deny_to = lists("deny_to", problems);
    entry.allow_to = match fields.get("allow_to") {
        Some(node) => options::destinations(node, "allow_to", networks, problems),
        None => Some(Placed {
            value: WrittenDestinations::internet(),
            span: node.span.clone(),
        }),
    };
    decode_protocols(&fields, &mut entry, problems);
    if let Some(node) = fields.get("interface") {
        entry.interfaces = options::interfaces(node, false, problems);
        // An invalid value has been reported.
        let read = entry.interfaces.as_ref();
        entry.own_egress = read.is_none_or(|sides| sides.egress.is_some());
    }
    entry.snat = match fields.get("snat") {
        Some(node) => options::snats(node, problems),
        None => Some(Placed {
            value: Snats {
                v4: Some(Snat::Masquerade),
                v6: Some(Snat::Masquerade),
            },
            span: node.span.clone(),
        }),
    };
    entry.limits = fields
        .get("limits")
        .and_then(|node| options::limits(node, problems));
    entry.log = fields
        .get("log")
        .and_then(|node| options::log(node, problems));
    entry.silence = decode_silence(&fields, Silencing::Spec, problems);
    entry
}

fn decode_protocols(fields: &Fields<'_>, entry: &mut WrittenOutbound, problems: &mut Vec<Problem>) {
    let known = &["tcp", "udp", "ping"];
    entry.own_protocol = fields.get("protocol").is_some();
    entry.protocols = match fields.get("protocol") {
        None => Some(OutboundProtocol::ALL.to_vec()),
        Some(node) => {
            let expected = "`tcp`, `udp` or `ping`, or a list of those";
            let found = distinct(node, "protocol", expected, problems, |text| {
                let word = one_of_words(text, known)?;
                word.parse::<OutboundProtocol>()
                    .map_err(|_| unknown(text, known))
            });
            found.map(|mut found| {
                // Their order has no meaning.
                found.sort_unstable();
                found
            })
        }
    };
    let Some(node) = fields.get("ports") else {
        return;
    };
    let expected = "a list of ports as `[443, 8000-8010]`";
    let ports = distinct(node, "ports", expected, problems, |text| {
        text.parse()
            .map_err(|error| ProblemKind::InvalidPort { error })
    });
    entry.ports = ports.map(|ports| Placed {
        value: joined(ports),
        span: node.span.clone(),
    });
}

/// Adds the errors of values that do not fit together. An entry that is switched off is checked too.
pub fn check(written: &WrittenSpec, problems: &mut Vec<Problem>) {
    for entry in &written.outbound {
        if let (Some(protocols), Some(ports)) = (&entry.protocols, &entry.ports)
            && protocols.contains(&OutboundProtocol::Ping)
        {
            let kind = if entry.own_protocol {
                ProblemKind::PortsOfPing
            } else {
                ProblemKind::PortsWithoutProtocol
            };
            problems.push(Problem::new(ports.span.clone(), kind));
        }
        check_lists(entry, problems);
        check_source(entry, problems);
        check_egress(written, entry, problems);
    }
    check_names(written, problems);
}

fn check_lists(entry: &WrittenOutbound, problems: &mut Vec<Problem>) {
    let (Some(from), Some(to)) = (&entry.allow_from, &entry.allow_to) else {
        return;
    };
    if from.value.is_empty() {
        let kind = ProblemKind::EmptyList { key: "allow_from" };
        problems.push(Problem::new(from.span.clone(), kind));
        return;
    }
    if to.value.is_empty() {
        let kind = ProblemKind::EmptyList { key: "allow_to" };
        problems.push(Problem::new(to.span.clone(), kind));
        return;
    }
    for family in Family::ALL {
        if from.value.of(family).are_all() {
            let kind = ProblemKind::AllowsEverySource { family };
            problems.push(Problem::new(from.span.clone(), kind));
        }
        if to.value.nets.of(family).are_all() {
            let kind = ProblemKind::AllowsEverything { family };
            problems.push(Problem::new(to.span.clone(), kind));
        }
        let sources = ("allow_from", from.value.of(family), &from.span);
        let deny = entry.deny_from.as_ref();
        problems.extend(denied(deny, "deny_from", family, Some(sources)));
        let destinations = ("allow_to", to.value.nets.of(family), &to.span);
        let destinations = (!to.value.internet).then_some(destinations);
        let deny = entry.deny_to.as_ref();
        problems.extend(denied(deny, "deny_to", family, destinations));
    }
    if families(entry).next().is_none() {
        let from = from.span.clone();
        let kind = ProblemKind::NoCommonFamily { from };
        problems.push(Problem::new(to.span.clone(), kind));
    }
}

/// Returns the problem of a list that denies every address of a family, or all the networks that the entry allows.
fn denied(
    deny: Option<&Placed<ByFamily>>,
    key: &'static str,
    family: Family,
    allowed: Option<(&'static str, &Nets, &Span)>,
) -> Option<Problem> {
    let deny = deny?;
    let nets = deny.value.of(family);
    let kind = if nets.are_all() {
        ProblemKind::DeniesEverything { key, family }
    } else {
        let (allow, allowed, span) = allowed.filter(|(_, allowed, _)| !allowed.is_empty())?;
        if !nets.hold(allowed) {
            return None;
        }
        ProblemKind::DeniesAllowedPart {
            deny: key,
            allow,
            family,
            allowed: span.clone(),
        }
    };
    Some(Problem::new(deny.span.clone(), kind))
}

/// Returns the families in which an entry has both sources and destinations.
fn families(entry: &WrittenOutbound) -> impl Iterator<Item = Family> {
    Family::ALL.into_iter().filter(|family| {
        let from = entry.allow_from.as_ref();
        let to = entry.allow_to.as_ref();
        from.is_some_and(|from| !from.value.of(*family).is_empty())
            && to.is_some_and(|to| to.value.has(*family))
    })
}

fn check_source(entry: &WrittenOutbound, problems: &mut Vec<Problem>) {
    let Some(snat) = &entry.snat else { return };
    check_snat(snat, problems);
    for family in families(entry).filter(|family| snat.value.of(*family).is_none()) {
        let kind = ProblemKind::NoOutboundSnat { family };
        problems.push(Problem::new(snat.span.clone(), kind));
    }
}

/// Reports an entry that does not say by which of several interfaces its packets leave.
fn check_egress(written: &WrittenSpec, entry: &WrittenOutbound, problems: &mut Vec<Problem>) {
    let firewall = written.interfaces.as_ref();
    let ingress = firewall.and_then(|sides| sides.ingress.as_ref());
    let several = ingress.is_some_and(|ingress| ingress.len() > 1);
    if let (true, false, Some(name)) = (several, entry.own_egress, &entry.name) {
        let ingress = ingress.into_iter().flatten().map(Interface::to_string);
        let kind = ProblemKind::NoOutboundEgress {
            ingress: ingress.collect(),
        };
        problems.push(Problem::new(name.span.clone(), kind));
    }
}

/// Reports names that a forward or another entry has as well.
fn check_names(written: &WrittenSpec, problems: &mut Vec<Problem>) {
    let mut first: BTreeMap<&Name, &Span> = BTreeMap::new();
    for name in written.forwards.iter().filter_map(|one| one.name.as_ref()) {
        first.entry(&name.value).or_insert(&name.span);
    }
    for Placed { value: name, span } in written.outbound.iter().filter_map(|one| one.name.as_ref())
    {
        if let Some(known) = first.get(name) {
            let kind = ProblemKind::NameInUse {
                name: name.to_string(),
                first: (*known).clone(),
            };
            problems.push(Problem::new(span.clone(), kind));
        } else {
            first.insert(name, span);
        }
    }
}

/// The resolved entries, and where advice about each of them is shown.
struct Resolved<'w> {
    entry: Outbound,
    name: &'w Span,
    allow_from: &'w Span,
    silence: &'w [Code],
}

/// Returns the entries that are part of the plan, or `None` if a value is missing or invalid. Adds warnings and notes
/// that the spec does not silence.
pub fn resolve(
    written: &WrittenSpec,
    firewall: &Firewall,
    problems: &mut Vec<Problem>,
) -> Option<Vec<Outbound>> {
    let mut all: Vec<Resolved<'_>> = Vec::new();
    for entry in &written.outbound {
        if !entry.enabled? {
            continue;
        }
        let mut found = Vec::new();
        for family in families(entry) {
            found.push(Resolved {
                entry: resolved(entry, family, firewall)?,
                name: &entry.name.as_ref()?.span,
                allow_from: &entry.allow_from.as_ref()?.span,
                silence: &entry.silence,
            });
        }
        if found.is_empty() {
            return None;
        }
        let opened = opened(entry);
        all.extend(found);
        let silenced = |problem: &Problem| entry.silence.contains(&problem.kind.code());
        add(
            written,
            opened.into_iter().filter(|one| !silenced(one)),
            problems,
        );
    }
    let advice = overlaps(&all).chain(notes(&all));
    add(written, advice, problems);
    Some(all.into_iter().map(|one| one.entry).collect())
}

/// Adds problems whose code is not silenced for the whole spec.
fn add(written: &WrittenSpec, found: impl Iterator<Item = Problem>, problems: &mut Vec<Problem>) {
    let found = found.filter(|problem| !written.silence.contains(&problem.kind.code()));
    problems.extend(found.take(MAX_PROBLEMS));
}

fn resolved(entry: &WrittenOutbound, family: Family, firewall: &Firewall) -> Option<Outbound> {
    let name = entry.name.as_ref()?.value.clone();
    let sides = entry.interfaces.clone().unwrap_or_default();
    let list = |list: &Option<Placed<ByFamily>>| {
        let list = list.as_ref().map(|list| list.value.of(family).clone());
        list.unwrap_or_default()
    };
    let to = &entry.allow_to.as_ref()?.value;
    let nets: Nets = to.nets.of(family).clone();
    let mut outbound = Outbound {
        family,
        description: entry.description.clone(),
        // The spec's sides exchanged: a forward's targets are behind the interface to which its packets leave.
        ingress: sides
            .ingress
            .unwrap_or_else(|| vec![firewall.egress.clone()]),
        egress: sides.egress.or_else(|| firewall.ingress.first().cloned())?,
        allow_from: entry.allow_from.as_ref()?.value.of(family).clone(),
        allow_to: Destinations::new(family, to.internet, nets, to.named()),
        deny_from: list(&entry.deny_from),
        deny_to: list(&entry.deny_to),
        protocols: entry.protocols.clone()?,
        ports: entry
            .ports
            .as_ref()
            .map(|ports| ports.value.clone())
            .unwrap_or_default(),
        snat: entry.snat.as_ref()?.value.of(family)?,
        limits: entry.limits,
        log: None,
        name,
    };
    let refuses = outbound.drops_some() || outbound.limits.is_some();
    let log = entry.log.clone();
    outbound.log = log.and_then(|log| named(log, &outbound.name, refuses));
    Some(outbound)
}

/// Warns of an entry that reaches an address of the platform.
fn opened(entry: &WrittenOutbound) -> Vec<Problem> {
    let to = entry.allow_to.iter();
    let each = to.flat_map(|to| {
        to.value
            .named()
            .iter()
            .map(move |address| (address, &to.span))
    });
    each.map(|(address, span)| {
        let (address, is_metadata) = (*address, *address == METADATA);
        let kind = if is_metadata {
            ProblemKind::MetadataOpen { address }
        } else {
            ProblemKind::HostAgentOpen { address }
        };
        Problem::new(span.clone(), kind)
    })
    .collect()
}

/// More entries than this are not compared with one another, since that costs the square of their number.
const MOST_COMPARED: usize = 2_000;

/// Warns of entries that take some packets of a later one, or all of them.
fn overlaps<'r>(all: &'r [Resolved<'_>]) -> impl Iterator<Item = Problem> + 'r {
    let compared = &all[..if all.len() > MOST_COMPARED {
        0
    } else {
        all.len()
    }];
    let quiet = |one: &Resolved<'_>| one.silence.contains(&Code::OutboundOverlap);
    let found = compared.iter().enumerate();
    found.filter_map(move |(n, later)| {
        let takes_some = |one: &&Resolved<'_>| {
            one.entry.name != later.entry.name
                && one.entry.overlaps(&later.entry)
                && !quiet(one)
                && !quiet(later)
        };
        let mut before = compared[..n].iter().filter(takes_some);
        let first = before.next()?;
        let mut before = [first].into_iter().chain(before);
        let all = before.find(|one| one.entry.takes_all_of(&later.entry));
        let this = later.entry.name.to_string();
        let name = all.unwrap_or(first).entry.name.to_string();
        let other = all.unwrap_or(first).name.clone();
        let kind = if all.is_some() {
            let family = later.entry.family;
            ProblemKind::OutboundHidden {
                this,
                name,
                family,
                other,
            }
        } else {
            ProblemKind::OutboundOverlap { this, name, other }
        };
        Some(Problem::new(later.name.clone(), kind))
    })
}

/// Notes what an entry's rules cannot tell.
fn notes<'r>(all: &'r [Resolved<'_>]) -> impl Iterator<Item = Problem> + 'r {
    let of_family = |family| {
        let entries = all.iter().map(|one| &one.entry);
        entries.filter(move |entry| entry.family == family)
    };
    let one_nic = Family::ALL.map(|family| (family, share_one_nic(of_family(family))));
    let notes = move |one: &'r Resolved<'_>| {
        let interface = one.entry.egress.to_string();
        let spoofed = (one.allow_from, ProblemKind::SpoofedSource { interface });
        let by_ingress = (one.name, ProblemKind::OutboundNeedsLinux55);
        let both = [
            one.entry.has_one_nic().then_some(spoofed),
            one_nic
                .contains(&(one.entry.family, false))
                .then_some(by_ingress),
        ];
        let loud = |(_, kind): &(&Span, ProblemKind)| !one.silence.contains(&kind.code());
        let both = both.into_iter().flatten().filter(loud);
        both.map(|(span, kind)| Problem::new(span.clone(), kind))
            .collect::<Vec<_>>()
    };
    all.iter().flat_map(notes)
}
