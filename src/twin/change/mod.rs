//! A change of nvactl's rules, tried in a twin: connections are opened before it and after it.

mod compare;
mod kept;
mod others;
mod trial;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

pub use trial::{Opened, Others, Tried, Trying};

use super::battery::{Ask, InDoubt, Wanted, battery, plain, plain_outward};
use super::cause::{By, Conversation, DecidingRule, Holder, Taken};
use super::clients::ClientKind;
use super::connection_end::ConnectionEnd;
use super::explain::explain;
use super::judge;
use super::machine::Machine;
use super::packet_tests::{MOST_TRACED, run_tests, trace_failed};
use super::repeat::{conversation, repeat, taken};
use super::rules::PacketFilter;
use super::search::CauseSearch;
use super::talk::Question;
use super::verdict::{Judged, Verdict};
use super::{Twin, TwinError};
use crate::forwards::{Forward, ForwardSet, Outbound, PacketTest};
use crate::netfilter::conntrack::Flow;
use crate::netfilter::names::TableName;
use crate::netfilter::target::Target;
use compare::compare;
use kept::{in_question, is_cut, kept};
use others::{distinct, questions};
use trial::{PreparedTrial, is_answered, prepared, takers};

/// The most connections that are opened before the change to find those that rules of others refuse.
const BEFORE: usize = 2000;
/// The most of the refused ones whose rule is looked for.
const SEARCHED: usize = 64;
/// The most connections outside the forwards and outbound entries whose rule is looked for: so many that passed before the change, and so
/// many that did not.
const SHUT: usize = 5;
/// The time for the tests of a spec. The change is refused if one is not opened, so the other connections, which may
/// use up their own time, do not count.
const TESTS_LIMIT: Duration = Duration::from_mins(2);

/// Tries a change. If nothing changes, only the tests of the spec are tried. Returns `None` if iptables-restore refuses the change in the twin. Call it within
/// [`super::netns::aside`].
///
/// # Errors
/// If no twin can be made.
pub fn try_change<'f>(trying: &'f Trying<'f>) -> Result<Option<Tried<'f>>, TwinError> {
    let mut machine = Machine::read()?;
    // A neighbour that did not answer once may answer by now. The checks of the live machine report those that do
    // not.
    for neighbour in &mut machine.neighbours {
        neighbour.failed = false;
    }
    let filter = PacketFilter::read_of(trying.change.scripts.families())?;
    if trying.change.is_empty() {
        let mut twin = forwarding(&machine, &filter, Some(trying.deadline))?;
        let mut tried = Tried::default();
        run_spec_tests(trying, &mut twin, &mut tried)?;
        return Ok(Some(tried));
    }
    let trial = prepared(trying, &machine, &filter);
    let (flows, distinct) = distinct(trying);
    let mut twin = forwarding(&machine, &filter, Some(trying.deadline))?;
    let asks = asks(&trial, &twin);
    let kept = kept(&trial, &twin);
    let others = questions(flows, &twin);
    let all_asks = asks.iter().chain(kept.iter().map(|one| &one.ask));
    let addresses = addresses(trying, all_asks, &others);
    twin.answer_for(&addresses)?;
    let (passed, mut tried) = before(&trial, &twin, &others)?;
    tried.others.left_out = distinct - others.len();
    tried.untried_networks = trial.clients.iter().map(|clients| clients.left_out).sum();
    twin.enter()?;
    if !twin.keep_change(&trying.change)? {
        return Ok(None);
    }
    after(trying, &twin, &others, &passed, &mut tried)?;
    if trial.puts_jump_first {
        // Limits have counted the connections that were opened so far.
        twin.renew()?;
    }
    let judged = judge::ask(&mut twin, asks, trying.deadline)?;
    let in_question = in_question(&trial, kept, &judged);
    tried.in_front = in_question.in_front;
    let mut kept = judge::ask(&mut twin, in_question.asks, trying.deadline)?;
    kept.retain(is_cut);
    run_spec_tests(trying, &mut twin, &mut tried)?;
    let bad = sort_out(judged, &mut tried);
    if bad.is_empty() && kept.is_empty() {
        return Ok(Some(tried));
    }
    // This twin has no deadline: the connections that were judged are reported even if it has passed.
    let mut old = forwarding(&machine, &filter, None)?;
    old.answer_for(&addresses)?;
    let (mut lost, mut dead) = compare(&trial, bad, &old, &twin, &mut tried)?;
    let (mut taken, _) = compare(&trial, kept, &old, &twin, &mut tried)?;
    drop(old);
    twin.enter()?;
    let mut search = CauseSearch {
        twin: &mut twin,
        change: None,
        limit: trying.sets.first().and_then(|(_, set)| set.firewall.mss),
        deadline: trying.deadline,
    };
    explain(&mut search, &mut lost);
    explain(&mut search, &mut taken);
    explain(&mut search, &mut dead);
    // A search may find that a connection is neither lost nor dead.
    tried.lost = sort_out(lost, &mut tried);
    taken.retain(is_cut);
    tried.lost.extend(taken);
    tried.dead = sort_out(dead, &mut tried);
    Ok(Some(tried))
}

/// Runs the tests of the spec in the twin with the change. Enters those that do not pass in the results.
fn run_spec_tests<'f>(
    trying: &Trying<'f>,
    twin: &mut Twin,
    tried: &mut Tried<'f>,
) -> Result<(), TwinError> {
    if trying.tests.is_empty() {
        return Ok(());
    }
    let deadline = Instant::now() + TESTS_LIMIT;
    // Limits have counted the connections that were opened so far.
    twin.renew()?;
    let tests: Vec<&PacketTest> = trying.tests.iter().collect();
    let sets: Vec<&ForwardSet> = trying.sets.iter().map(|(_, set)| set).collect();
    tried.failed_tests = run_tests(twin, &tests, &sets, deadline)?;
    tried.failed_tests.retain(|one| !one.is_passed());
    if !tried.failed_tests.is_empty() {
        tried.traces = trace_failed(twin, &tried.failed_tests, MOST_TRACED, deadline);
    }
    Ok(())
}

/// Makes a twin that forwards, as the machine does once forwarding is turned on.
fn forwarding(
    machine: &Machine,
    filter: &PacketFilter,
    deadline: Option<Instant>,
) -> Result<Twin, TwinError> {
    let mut twin = Twin::make(machine.clone(), filter, deadline)?;
    twin.turn_forwarding_on()?;
    Ok(twin)
}

/// Returns the connections that come through after the change, by the spec.
fn asks<'f>(trial: &PreparedTrial<'f>, twin: &Twin) -> Vec<Ask<'f>> {
    let each = trial.trying.sets.iter().zip(&trial.clients);
    let each = each.flat_map(|((_, set), clients)| {
        let forwards: Vec<&Forward> = set.forwards.iter().collect();
        let entries: Vec<&Outbound> = set.outbound.iter().collect();
        let (machine, worlds) = (twin.machine(), twin.worlds());
        let in_doubt = InDoubt::default();
        battery(&forwards, &entries, clients, machine, worlds, &in_doubt)
    });
    // A network that only a rule of others names may be banned, which is no reason to refuse a change.
    let is_banned = |ask: &Ask<'_>| matches!(ask.client.kind, ClientKind::Named(_));
    each.filter(|ask| ask.wanted == Wanted::Through && !is_banned(ask))
        .collect()
}

/// Returns every address for which a world may have to answer.
fn addresses<'a>(
    trying: &Trying<'_>,
    asks: impl Iterator<Item = &'a Ask<'a>>,
    others: &[(&Flow, Question)],
) -> BTreeSet<IpAddr> {
    let questions = asks
        .map(|ask| &ask.question)
        .chain(others.iter().map(|(_, question)| question));
    let ends = questions.flat_map(|question| {
        let targets = question.listeners.iter().map(SocketAddr::ip);
        targets.chain([question.client])
    });
    let loaded = trying.loaded.iter().flat_map(|set| &set.forwards);
    let loaded = loaded.flat_map(|forward| &forward.target.destinations);
    ends.chain(loaded.map(|to| to.address))
        .chain(foreign_targets(trying))
        .collect()
}

/// Returns the IPv6 addresses to which rules of others send packets. A world answers for every IPv4 address by
/// itself, but the kernel answers neighbour discovery only for single addresses.
fn foreign_targets(trying: &Trying<'_>) -> impl Iterator<Item = IpAddr> {
    let chains = trying.live.iter().flat_map(|live| live.chains());
    let foreign = chains.filter(|(table, name, _)| *table == TableName::Nat && !name.is_own());
    let rules = foreign.flat_map(|(_, _, chain)| &chain.rules);
    let targets = rules.filter_map(|rule| match rule.target {
        Some(Target::Dnat { address, .. }) => Some(address),
        _ => None,
    });
    targets.filter(IpAddr::is_ipv6)
}

/// Opens the connections outside the forwards and outbound entries before the change, and looks for clients that rules of others refuse.
/// Returns for each of `others` whether it passed.
fn before<'f>(
    trial: &PreparedTrial<'f>,
    twin: &Twin,
    others: &[(&'f Flow, Question)],
) -> Result<(Vec<bool>, Tried<'f>), TwinError> {
    let deadline = trial.trying.deadline;
    let mut talker = twin.talker()?;
    let mut passed = Vec::new();
    for (_, question) in others {
        passed.push(is_answered(&mut talker, question));
    }
    let mut tried = Tried::default();
    if !trial.puts_jump_first {
        return Ok((passed, tried));
    }
    let each = trial.trying.sets.iter().zip(&trial.clients);
    let asks = each.flat_map(|((_, set), clients)| {
        let forwards: Vec<&Forward> = set.forwards.iter().collect();
        let entries: Vec<&Outbound> = set.outbound.iter().collect();
        let outward = plain_outward(&entries, clients, twin.worlds());
        let inward = plain(&forwards, clients, twin.machine(), twin.worlds()).take(BEFORE);
        [inward.collect(), outward]
    });
    let mut refused = Vec::new();
    for one in others::in_turn(asks.collect()).take(BEFORE) {
        if refused.len() == SEARCHED || Instant::now() >= deadline {
            break;
        }
        if is_answered(&mut talker, &one.question) {
            continue;
        }
        // Rules of others see a forward's packets as packets to the target. Those of a forward that is not loaded
        // are sent to the target.
        let question = if is_loaded(trial, &one) {
            one.question.clone()
        } else {
            let target = one.question.listeners.first();
            Question {
                to: *target.unwrap_or(&one.question.to),
                ..one.question.clone()
            }
        };
        if !is_answered(&mut talker, &question) {
            refused.push((one, question));
        }
    }
    drop(talker);
    for (ask, question) in refused {
        if Instant::now() >= deadline {
            break;
        }
        if let Some(rule) = refusing(twin, &ask, &question)? {
            tried.opened.push(Opened { ask, rule });
        }
    }
    Ok((passed, tried))
}

fn is_loaded(trial: &PreparedTrial<'_>, ask: &Ask<'_>) -> bool {
    takers(trial, &ask.question).next().is_some()
}

/// Returns the rule of others that refuses a connection, if nvactl's jump comes before it.
fn refusing(
    twin: &Twin,
    ask: &Ask<'_>,
    question: &Question,
) -> Result<Option<DecidingRule>, TwinError> {
    let (_, seen, _) = repeat(twin, question)?;
    twin.enter()?;
    // The loaded rules may lead to another target than the spec.
    let conversation = Conversation {
        listen: question.to.ip(),
        port: question.to.port(),
        targets: Vec::new(),
        sources: Vec::new(),
        ..conversation(twin, ask)
    };
    let taken = seen.taken(&conversation)?;
    Ok(taken.and_then(|taken| match taken.by {
        By::Rule(decided) => is_passed_over(&decided).then_some(decided),
        _ => None,
    }))
}

/// Returns whether a rule of others is in a table in which nvactl's jumps come first.
fn is_passed_over(decided: &DecidingRule) -> bool {
    matches!(
        &decided.holder,
        Holder::Iptables { table: TableName::Filter | TableName::Nat, chain, .. } if !chain.is_own()
    )
}

/// Opens the connections outside the forwards and outbound entries after the change, and again those that rules refused before it.
fn after<'f>(
    trying: &Trying<'f>,
    twin: &Twin,
    others: &[(&'f Flow, Question)],
    passed: &[bool],
    tried: &mut Tried<'f>,
) -> Result<(), TwinError> {
    let mut talker = twin.talker()?;
    let mut shut = Vec::new();
    for ((flow, question), passed) in others.iter().zip(passed) {
        match (*passed, is_answered(&mut talker, question)) {
            (true, true) => {}
            (false, true) => tried.others.opened.push(flow),
            (passed, false) => shut.push((*flow, question, passed)),
        }
    }
    // The change opens only the connections that pass now.
    tried.opened.retain(|opened| {
        let outcome = talker.ask(&opened.ask.question);
        let listeners = &opened.ask.question.listeners;
        matches!(outcome, Ok(ConnectionEnd::Delivered(reached)) if listeners.contains(&reached.target))
    });
    drop(talker);
    let mut left = [SHUT; 2];
    for (flow, question, passed) in shut {
        let left = &mut left[usize::from(passed)];
        let taken = if *left > 0 && Instant::now() < trying.deadline {
            taken(twin, question)?
        } else {
            None
        };
        *left = left.saturating_sub(1);
        let is_known = |taken: &Taken| matches!(taken.by, By::Rule(_) | By::Policy(_));
        match (passed, taken) {
            (true, taken) => tried.others.cut.push((flow, taken)),
            (false, Some(taken)) if is_known(&taken) => tried.others.dead.push((flow, taken)),
            (false, _) => {}
        }
    }
    Ok(())
}

/// Enters each verdict in the results. Returns the connections that do not reach their target.
fn sort_out<'f>(judged: Vec<Judged<'f>>, tried: &mut Tried<'f>) -> Vec<Judged<'f>> {
    let mut bad = Vec::new();
    for one in judged {
        match one.verdict {
            Verdict::Dead(_) | Verdict::Elsewhere { .. } => bad.push(one),
            Verdict::Strayed(_) => tried.strayed.push(one),
            Verdict::Unknown(_) | Verdict::Fickle(_) => tried.unsure.push(one.ask.of),
            Verdict::NotAsked => tried.not_asked += 1,
            Verdict::Failed(why) => tried.failed.push(why),
            // The connection reaches its target, if by another interface or with another source.
            Verdict::AsWanted | Verdict::Source { .. } | Verdict::Behind(_) | Verdict::LetIn(_) => {
            }
        }
    }
    bad
}
