//! Checks the live connections: whether targets reply, and whether any connection still follows older rules.

use std::collections::{BTreeMap, BTreeSet};
use std::ptr;

use super::{Case, Check, Fix, Hop, Status, target};
use crate::diff::drift::rules_by_key;
use crate::forwards::{Forward, ForwardSet, Listeners, rows};
use crate::health::connections::{FlowFacts, astray, stale};
use crate::health::outbound_sender;
use crate::health::probe::Probed;
use crate::health::sender::senders;
use crate::health::suspects::{StaleCause, Suspect, proven};
use crate::net::Protocol;
use crate::net::words::counted;
use crate::netfilter::conntrack::Flow;
use crate::plan::unplan::{ForwardKey, unplan};

pub fn check(case: &Case<'_>, checks: &mut Vec<Check>) {
    replies(case, checks);
    stale_connections(case, checks);
}

/// Checks whether the targets reply to the connections that went through.
fn replies(case: &Case<'_>, checks: &mut Vec<Check>) {
    let Some(flows) = &case.facts.flows else {
        let unknown = Hop::Reply.unknown("cannot list conntrack entries");
        checks.push(unknown.fix("sudo apt-get install conntrack"));
        return;
    };
    let listeners = Listeners::new(case.set);
    let mut led: BTreeMap<ForwardKey<'_>, (Vec<&Flow>, Vec<&Flow>)> = BTreeMap::new();
    for flow in flows {
        if let Some(leader) = listeners.leader(flow) {
            let key = (leader.name.as_str(), leader.protocol);
            let (replied, silent) = led.entry(key).or_default();
            if flow.replied { replied } else { silent }.push(flow);
        }
    }
    let loaded = rules_by_key(case.facts.live);
    for forward in rows(&case.asked).map(|row| row[0]) {
        let key = (forward.name.as_str(), forward.protocol);
        // Connections live on without the rules that began them, and show nothing about new ones.
        let Some((replied, silent)) = led.get(&key).filter(|_| loaded.contains_key(&key)) else {
            continue;
        };
        let check = match (replied.len(), silent.first(), forward.protocol) {
            (0, Some(flow), Protocol::Tcp) => Hop::Reply
                .found(
                    unanswered(case, forward),
                    match silent.len() {
                        1 => format!(
                            "the only connection attempt, from {}, got no reply",
                            flow.source
                        ),
                        all => format!(
                            "none of the {all} connection attempts got a reply, for example that of {}",
                            flow.source
                        ),
                    },
                )
                .fix(Fix::to_look_at(
                    "on the target, at its firewall and its route back",
                    target::route_back(case, forward),
                )),
            // Some UDP protocols have no replies.
            (0, Some(_), Protocol::Udp) => Hop::Reply.ok(format!(
                "{}, and no reply yet",
                counted(silent.len(), "sender")
            )),
            (1, ..) => Hop::Reply.ok("1 connection has replies"),
            (some, ..) => Hop::Reply.ok(format!("{some} connections have replies")),
        };
        checks.push(check.of(forward));
    }
}

/// Returns the status of a forward without replies. A target that answers this machine may have been fixed just
/// now.
fn unanswered(case: &Case<'_>, forward: &Forward) -> Status {
    let mut probed = case.facts.probed.iter();
    let key = |forward: &Forward| (forward.name.clone(), forward.protocol);
    let good =
        |probed: &Probed<'_>| key(probed.endpoint.forward) == key(forward) && probed.is_good();
    if probed.any(good) {
        Status::Warn
    } else {
        Status::Fail
    }
}

/// Returns the connections to which the loaded rules would give another source. A spec that is not loaded does not
/// change the source of new connections.
fn with_wrong_source(
    case: &Case<'_>,
    flows: &[Flow],
    facts: &FlowFacts<'_>,
) -> BTreeSet<*const Flow> {
    let loaded = unplan(case.facts.live);
    let all = loaded.iter().flat_map(|set| astray(flows, set, facts));
    let wrong = all.filter(|suspect| suspect.cause == StaleCause::Source);
    wrong.map(|suspect| ptr::from_ref(suspect.flow)).collect()
}

/// Returns the connections that may not follow the spec, UDP senders from before a forward aside.
#[must_use]
pub fn suspects<'f, 's>(
    flows: &'f [Flow],
    once: &[ForwardSet],
    set: &'s ForwardSet,
    facts: &FlowFacts<'_>,
) -> Vec<Suspect<'f, 's>> {
    let mut suspects = stale(flows, once, set, facts);
    suspects.extend(outbound_sender::suspects(flows, set, facts));
    suspects
}

fn stale_connections(case: &Case<'_>, checks: &mut Vec<Check>) {
    let Some(flows) = &case.facts.flows else {
        return;
    };
    let listeners = Listeners::new(case.set);
    let asked = case.asked.iter();
    let asked: BTreeSet<ForwardKey<'_>> = asked
        .map(|forward| (forward.name.as_str(), forward.protocol))
        .collect();
    let taker =
        |flow: &Flow| listeners.taker(flow.protocol, flow.destination, flow.destination_port);
    let is_asked = |flow: &Flow| match taker(flow) {
        Some(forward) => asked.contains(&(forward.name.as_str(), forward.protocol)),
        // A connection to a port without a forward counts only if the user asked about all forwards.
        None => asked.len() == rows(&case.set.forwards).count(),
    };
    let facts = case.facts;
    let of_flows = FlowFacts::new(&facts.links, [(case.family, facts.live)]);
    let suspects = suspects(flows, &facts.once, case.set, &of_flows);
    let old = proven(suspects, &facts.routes);
    let senders = senders(flows, case.set, &facts.links, &facts.answer_routes);
    let unexamined = old.unexamined + senders.unexamined;
    let old = old.found.iter().map(|one| (one.flow, one.cause));
    let senders = senders.found.iter();
    let senders = senders.map(|sender| (sender.flow, StaleCause::Unmade));
    let all = old.chain(senders);
    let mut found: Vec<(&Flow, StaleCause)> = all.filter(|(flow, _)| is_asked(flow)).collect();
    if found.iter().any(|(_, why)| *why == StaleCause::Source) {
        let wrong = with_wrong_source(case, flows, &of_flows);
        found.retain(|(flow, why)| {
            *why == StaleCause::Unmade || wrong.contains(&ptr::from_ref(*flow))
        });
    }
    // An old TCP connection ends by itself. A UDP sender never opens a new one.
    let mut each = found.iter();
    let steady = each.find(|(flow, _)| flow.protocol == Protocol::Udp);
    let Some((flow, why)) = steady.or(found.first()) else {
        let words = match unexamined {
            0 => "every connection follows the loaded rules".to_owned(),
            some => format!(
                "every examined connection follows the loaded rules; {} not examined",
                match some {
                    1 => "1 more was".to_owned(),
                    some => format!("{some} more were"),
                }
            ),
        };
        checks.push(Hop::StaleConnection.ok(words));
        return;
    };
    let status = if steady.is_some() {
        Status::Fail
    } else {
        Status::Warn
    };
    let source = match why {
        StaleCause::Unmade => String::new(),
        StaleCause::Source => format!(" with source {}", flow.reply_destination),
    };
    let reason = format!(
        "{} {} not follow the loaded rules, for example {} {} → {}:{} → {}:{}{source}",
        counted(found.len(), "connection"),
        if found.len() == 1 { "does" } else { "do" },
        flow.protocol,
        flow.source,
        flow.destination,
        flow.destination_port,
        flow.reply_source,
        flow.reply_port
    );
    let fix = format!("{} --flush-stale", case.apply);
    checks.push(Hop::StaleConnection.found(status, reason).fix(fix));
}
