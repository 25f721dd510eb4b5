//! Reads the path of one packet in a watch's report.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::values::{PathPart, PathRoute, PathRule, RouteTo, RuleEffect, SpecPart, TracedPath};
use crate::net::{Port, PortRange};
use crate::netfilter::matches::Match;
use crate::netfilter::negatable::Negatable;
use crate::netfilter::text::parse::appended;
use crate::netfilter::tracking::CtState;
use crate::plan::unplan::{is_outbound, name_of};
use crate::twin::cause::{
    By, CauseError, CountedRule, DecidingRule, Direction, Header, Holder, NftVerdict, PacketPath,
    Stage, TraceStep, TraceStepKind, WatchReport, by_legacy,
};

/// The hooks in the order of a packet's path.
const STAGES: [Stage; 7] = [
    Stage::Ingress,
    Stage::Prerouting,
    Stage::Input,
    Stage::Forward,
    Stage::Output,
    Stage::Postrouting,
    Stage::Egress,
];

/// Reads the path of a request. The calling thread is in the machine's namespace, and its rules are those that were
/// watched.
///
/// # Errors
/// If a rule cannot be listed.
pub fn request(report: &WatchReport, packet: &PacketPath) -> Result<TracedPath, CauseError> {
    let counted = |stage| counted(report, packet, stage, Some(packet), Direction::Request);
    path(report, packet, counted)
}

/// Reads the path of a reply to a request, as [`request`] does.
///
/// # Errors
/// As [`request`].
pub fn reply(
    report: &WatchReport,
    packet: &PacketPath,
    request: Option<&PacketPath>,
) -> Result<TracedPath, CauseError> {
    let counted = |stage| counted(report, packet, stage, request, Direction::Reply);
    path(report, packet, counted)
}

/// Reads a packet's path. `counted` returns the rules of iptables-legacy that it met at a stage.
fn path<'s>(
    report: &'s WatchReport,
    packet: &'s PacketPath,
    counted: impl Fn(Stage) -> Vec<&'s CountedRule>,
) -> Result<TracedPath, CauseError> {
    let mut parts = Vec::new();
    for stage in STAGES {
        let steps: Vec<&TraceStep> = packet
            .steps
            .iter()
            .filter(|one| one.stage == stage)
            .collect();
        let counted = counted(stage);
        let translation = Translation::at(&steps, stage);
        let native = translation.as_ref().and_then(|one| one.step(&steps));
        let is_by_legacy = counted.iter().any(|one| one.translates());
        for step in &steps {
            let is_translator = !is_by_legacy && native.is_some_and(|one| std::ptr::eq(one, *step));
            let translated = translation.as_ref().filter(|_| is_translator);
            parts.extend(of_step(report, step, translated)?.map(PathPart::Rule));
        }
        let of_counted = |one: &&CountedRule| of_counted(one, translation.as_ref());
        parts.extend(counted.iter().filter_map(of_counted).map(PathPart::Rule));
        let is_last = |one: &&&TraceStep| one.kind == TraceStepKind::Leaves;
        if stage == Stage::Prerouting
            && let Some(last) = steps.iter().rev().find(is_last)
        {
            parts.extend(route(packet, last).map(PathPart::Route));
        }
        if stage == Stage::Output
            && let Some(last) = steps.iter().rev().find(is_last)
        {
            parts.extend(route_out(last).map(PathPart::Route));
        }
    }
    let ends = |header: Header| {
        let (from, to) = header.ports?;
        let source = SocketAddr::new(header.source, from);
        Some((source, SocketAddr::new(header.destination, to)))
    };
    let last = packet.end();
    let is_out = |step: &&TraceStep| step.stage == Stage::Postrouting;
    Ok(TracedPath {
        parts,
        came: packet.first().and_then(ends),
        left: last.and_then(|step| step.header).and_then(ends),
        egress: last.filter(is_out).and_then(|step| step.interfaces().1),
    })
}

/// Reads the rules that counted, for a connection whose packets no program traced.
#[must_use]
pub fn untraced(report: &WatchReport) -> TracedPath {
    let counted = report.legacy.iter();
    let counted = counted.filter(|one| direction_of(one, None) == Direction::Request);
    let parts = counted.filter_map(|one| of_counted(one, None));
    TracedPath {
        parts: parts.map(PathPart::Rule).collect(),
        ..TracedPath::default()
    }
}

/// Another source or destination that a packet got within a stage.
struct Translation {
    before: Header,
    effect: RuleEffect,
}

impl Translation {
    fn at(steps: &[&TraceStep], stage: Stage) -> Option<Self> {
        // A packet that comes in fragments has no ports at first.
        let whole = |step: &&&TraceStep| step.header.filter(|header| header.ports.is_some());
        let before = steps.iter().find_map(|step| whole(&step))?;
        let after = steps.iter().rev().find_map(|step| whole(&step))?;
        let ((before_from, before_to), (from, to)) = (before.ports?, after.ports?);
        let source = SocketAddr::new(after.source, from);
        let destination = SocketAddr::new(after.destination, to);
        let is_redirected = (before.destination, before_to) != (after.destination, to);
        let is_hidden = (before.source, before_from) != (after.source, from);
        let effect = match stage {
            Stage::Prerouting | Stage::Output if is_redirected => {
                RuleEffect::Destination(destination)
            }
            Stage::Postrouting | Stage::Input if is_hidden => RuleEffect::Source(source),
            _ => return None,
        };
        Some(Self { before, effect })
    }

    /// Returns the step whose rule translated: the last one that accepted the packet before it changed.
    fn step<'s>(&self, steps: &[&'s TraceStep]) -> Option<&'s TraceStep> {
        let mut unchanged = steps.iter().rev();
        unchanged
            .find(|step| step.accepts() && step.header == Some(self.before))
            .copied()
    }
}

fn of_step(
    report: &WatchReport,
    step: &TraceStep,
    translated: Option<&Translation>,
) -> Result<Option<PathRule>, CauseError> {
    let is_of_filter = matches!(step.stage, Stage::Input | Stage::Forward);
    let may_matter = match (&step.kind, &step.verdict) {
        (TraceStepKind::Policy(chain), NftVerdict::Accept) => {
            is_of_filter && chain.table == "filter"
        }
        (TraceStepKind::Rule { .. } | TraceStepKind::Policy(_), verdict) => !matches!(
            verdict,
            NftVerdict::Jump(_) | NftVerdict::Goto(_) | NftVerdict::Return
        ),
        _ => false,
    };
    if !may_matter {
        return Ok(None);
    }
    let Some(By::Rule(rule) | By::Policy(rule)) = report.traced(step)? else {
        return Ok(None);
    };
    let effect = match (&step.verdict, translated) {
        (_, Some(translation)) => translation.effect.clone(),
        (NftVerdict::Accept, None) => RuleEffect::Accepts,
        (NftVerdict::Drop, None) if rule.rejects() => RuleEffect::Rejects,
        (NftVerdict::Drop, None) => RuleEffect::Drops,
        (NftVerdict::Stolen | NftVerdict::Queue, None) => RuleEffect::Diverts,
        _ if changes(&rule) => RuleEffect::Changes,
        _ => return Ok(None),
    };
    Ok(Some(with_part(rule, effect)))
}

/// Returns the rules of iptables-legacy that counted at a stage in packets of one direction.
fn counted<'s>(
    report: &'s WatchReport,
    packet: &PacketPath,
    stage: Stage,
    request: Option<&PacketPath>,
    direction: Direction,
) -> Vec<&'s CountedRule> {
    let of_family = report.legacy_of(packet).filter(|one| one.stage == stage);
    of_family
        .filter(|one| direction_of(one, request) == direction)
        .collect()
}

/// Returns the direction of the packets that a rule counted, as far as its text shows it: a rule for known connections
/// sees the replies, and so does a rule for other addresses or ports than those of the request.
fn direction_of(counted: &CountedRule, request: Option<&PacketPath>) -> Direction {
    let is_known = appended(&counted.text, &BTreeSet::new()).is_some_and(|(_, rule)| {
        let mut states = rule.matches.iter().filter_map(|one| match one {
            Match::Conntrack(conntrack) => conntrack.states,
            _ => None,
        });
        states.any(|states| match states {
            Negatable::Is(states) => states
                .iter()
                .all(|state| matches!(state, CtState::Related | CtState::Established)),
            Negatable::Not(states) => states.contains(CtState::New),
        })
    });
    if is_known || request.is_some_and(|packet| !fits(counted, packet)) {
        Direction::Reply
    } else {
        Direction::Request
    }
}

/// Returns whether a packet may have met a rule, by its addresses and ports at the rule's stage.
fn fits(counted: &CountedRule, packet: &PacketPath) -> bool {
    let Some((_, rule)) = appended(&counted.text, &BTreeSet::new()) else {
        return true;
    };
    let here = packet
        .steps
        .iter()
        .filter(|step| step.stage == counted.stage);
    let mut headers = here.filter_map(|step| step.header).peekable();
    let holds = |header: Header| rule.matches.iter().all(|one| holds(one, header));
    headers.peek().is_none() || headers.any(holds)
}

/// Returns whether a packet meets a condition on addresses or ports. Other conditions are not known.
fn holds(condition: &Match, header: Header) -> bool {
    let port = |wanted: Option<&Negatable<PortRange>>, has: u16| match (wanted, Port::new(has)) {
        (Some(wanted), Some(port)) => wanted.holds(|ports| ports.contains(port)),
        _ => true,
    };
    match (condition, header.ports) {
        (Match::Source(net), _) => net.holds(|net| net.contains(&header.source)),
        (Match::Destination(net), _) => net.holds(|net| net.contains(&header.destination)),
        (
            Match::Tcp {
                source,
                destination,
                ..
            }
            | Match::Udp {
                source,
                destination,
            },
            Some((from, to)),
        ) => port(source.as_ref(), from) && port(destination.as_ref(), to),
        _ => true,
    }
}

fn of_counted(counted: &CountedRule, translation: Option<&Translation>) -> Option<PathRule> {
    let (By::Rule(rule) | By::Policy(rule)) = by_legacy(counted) else {
        return None;
    };
    let effect = match counted.target.as_str() {
        _ if counted.translates() => translation?.effect.clone(),
        "ACCEPT" => RuleEffect::Accepts,
        "DROP" => RuleEffect::Drops,
        "REJECT" => RuleEffect::Rejects,
        _ if counted.takes() => RuleEffect::Diverts,
        _ if changes(&rule) => RuleEffect::Changes,
        _ => return None,
    };
    Some(with_part(rule, effect))
}

/// The targets that let a packet continue and change it or its tracking.
const CHANGING: [&str; 11] = [
    "MARK", "CONNMARK", "CT", "NOTRACK", "TCPMSS", "TTL", "HL", "DSCP", "TOS", "CLASSIFY", "ECN",
];

/// Returns whether a rule that lets a packet continue changes it or its tracking.
fn changes(decided: &DecidingRule) -> bool {
    match &decided.holder {
        Holder::Iptables { .. } => {
            let rule = appended(&decided.text, &BTreeSet::new());
            let target = rule.and_then(|(_, rule)| rule.target);
            target.is_some_and(|target| CHANGING.contains(&target.name()))
        }
        Holder::Nft(_) => {
            let mut words = decided.text.split(' ');
            words.any(|word| matches!(word, "set" | "notrack"))
        }
    }
}

fn with_part(rule: DecidingRule, effect: RuleEffect) -> PathRule {
    let part = part(&rule);
    PathRule { rule, effect, part }
}

/// Returns the forward or outbound entry that a rule of nvactl names.
fn part(decided: &DecidingRule) -> Option<SpecPart> {
    let Holder::Iptables { chain, .. } = &decided.holder else {
        return None;
    };
    if !chain.is_own() {
        return None;
    }
    let (_, rule) = appended(&decided.text, &BTreeSet::new())?;
    let name = name_of(&rule)?.to_owned();
    Some(if is_outbound(chain, &rule) {
        SpecPart::Outbound(name)
    } else {
        SpecPart::Forward(name)
    })
}

/// Returns the routing decision about a packet that passed the first hook.
fn route(packet: &PacketPath, last: &TraceStep) -> Option<PathRoute> {
    let destination = last.header?.destination;
    let came_to = |stage: Stage| packet.steps.iter().find(|step| step.stage == stage);
    if came_to(Stage::Input).is_some() {
        let to = RouteTo::Machine;
        return Some(PathRoute {
            destination,
            next_hops: None,
            to,
        });
    }
    let name = came_to(Stage::Forward)?.interfaces().1?;
    Some(route_by(destination, last, name))
}

/// Returns the routing decision about a packet that the machine itself sends.
fn route_out(last: &TraceStep) -> Option<PathRoute> {
    let name = last.interfaces().1?;
    Some(route_by(last.header?.destination, last, name))
}

fn route_by(destination: IpAddr, last: &TraceStep, name: String) -> PathRoute {
    let route = last.route().and_then(Result::ok);
    let route = route.filter(|route| route.interface == name);
    let gateway = route.and_then(|route| route.gateway);
    let to = RouteTo::Interface { name, gateway };
    PathRoute {
        destination,
        next_hops: None,
        to,
    }
}
