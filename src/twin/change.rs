//! A change of nvactl's rules, tried in a twin of the machine: connections before it and after it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use super::battery::{Ask, Wanted, battery, plain, reached};
use super::cause::{By, Conversation, Decided, Holder, Taken};
use super::clients::Clients;
use super::cure::Change;
use super::explain::{conversation, repeat};
use super::judge::{Judged, Verdict, judge};
use super::machine::Machine;
use super::rules::Filter;
use super::talk::{From, Outcome, Question, Talker};
use super::{Twin, TwinError, switches};
use crate::flow::Flow;
use crate::net::{Family, Port};
use crate::network::{Packet, Route};
use crate::rule::{DnatPorts, Target};
use crate::ruleset::{Ruleset, TableName};
use crate::spec::{Forward, ForwardSet};

/// At most so many connections are opened before the change, to find those that rules of others refuse.
const BEFORE: usize = 2000;
/// At most so many of them are looked into.
const LOOKED_INTO: usize = 64;
/// At most so many connections that are not of forwards are opened anew.
const FLOWS: usize = 200;

/// What is to be tried.
#[derive(Debug)]
pub struct Trying<'f> {
    /// The forwards of each family, as the change would have them.
    pub sets: &'f [(Family, ForwardSet)],
    /// The forwards that are loaded.
    pub loaded: &'f [ForwardSet],
    /// The rules that are loaded, of each family.
    pub live: Vec<&'f Ruleset>,
    /// The live connections of no forward, loaded or to be loaded, that this machine passes on.
    pub others: Vec<&'f Flow>,
    /// The live connections, as examples of clients.
    pub flows: &'f [Flow],
    pub change: Change,
    /// Whether rules of others stand before nvactl's in FORWARD, which this change puts first.
    pub goes_first: bool,
    pub deadline: Instant,
}

/// What became of the connections.
#[derive(Debug, Default)]
pub struct Tried<'f> {
    /// Reached a target before the change, and do not reach the forward's own after it.
    pub lost: Vec<Judged<'f>>,
    /// The same after the change, and nothing was reached before it.
    pub dead: Vec<Judged<'f>>,
    /// Refused by rules of others before it, and let through after it.
    pub opened: Vec<Opened<'f>>,
    /// Of no forward.
    pub others: Others<'f>,
    /// How many connections there was no time for.
    pub not_asked: usize,
}

/// A connection that a rule refused.
#[derive(Debug)]
pub struct Opened<'f> {
    pub ask: Ask<'f>,
    pub rule: Decided,
}

/// What becomes of connections of no forward when they are opened anew.
#[derive(Debug, Default)]
pub struct Others<'f> {
    /// Passed before the change, and do not pass after it, with what takes them.
    pub cut: Vec<(&'f Flow, Option<Taken>)>,
    /// The other way round.
    pub opened: Vec<&'f Flow>,
    /// Passed neither before nor after, by a rule or policy that is known.
    pub dead: Vec<(&'f Flow, Taken)>,
    /// How many were not opened.
    pub left_out: usize,
}

/// Tries a change, or says in iptables-restore's words that it cannot be loaded. Call it within
/// [`super::netns::aside`]. `routes` asks the live machine for the ways of packets.
///
/// # Errors
/// When there can be no twin.
pub fn try_change<'f>(
    trying: &'f Trying<'f>,
    routes: impl Fn(&BTreeSet<Packet<'f>>) -> BTreeMap<Packet<'f>, Result<Route, String>>,
) -> Result<Option<Tried<'f>>, TwinError> {
    let machine = Machine::read()?;
    let families = trying.change.scripts.families();
    let filter = Filter::read_of(families)?;
    let named = filter.sources().into_iter().chain(machine.sources());
    let named = named.collect();
    let back = |asked: &BTreeSet<Packet<'f>>| {
        let known = routes(asked).into_iter();
        let known = known.filter_map(|(packet, route)| Some((packet, route.ok()?.interface)));
        known.collect::<BTreeMap<_, _>>()
    };
    let clients: Vec<Clients> = trying
        .sets
        .iter()
        .map(|(family, set)| Clients::of(set, *family, &machine, trying.flows, &named, back))
        .collect();
    let mut twin = forwarding(&machine, &filter)?;
    let asks = asks(trying, &clients, &twin);
    twin.answer_for(&addresses(&asks))?;
    let (others, left_out) = questions(trying, &twin, &back);
    let (passed, mut tried) = before(trying, &clients, &twin, &others)?;
    tried.others.left_out = left_out;
    twin.enter()?;
    if !twin.keep_change(&trying.change)? {
        return Ok(None);
    }
    after(&twin, &others, &passed, &mut tried)?;
    let judged = judge(&mut twin, asks, None, trying.deadline)?;
    drop(twin);
    sort(trying, judged, &machine, &filter, &mut tried)?;
    Ok(Some(tried))
}

/// Makes a twin that forwards, as the machine will once that is turned on.
fn forwarding(machine: &Machine, filter: &Filter) -> Result<Twin, TwinError> {
    let mut twin = Twin::make(machine.clone(), filter)?;
    twin.enter()?;
    for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        // Set anew, it would turn it on for interfaces for which it is off.
        if switches::one(name).is_some_and(|value| value.trim() == "0") {
            twin.keep_switch(name, "1");
        }
    }
    Ok(twin)
}

/// The connections that the change is to let through.
fn asks<'f>(trying: &'f Trying<'f>, clients: &[Clients], twin: &Twin) -> Vec<Ask<'f>> {
    let each = trying.sets.iter().zip(clients);
    let each = each.flat_map(|((_, set), clients)| {
        let forwards: Vec<&Forward> = set.forwards.iter().collect();
        battery(&forwards, clients, twin.machine(), twin.worlds())
    });
    each.filter(|ask| ask.wanted == Wanted::Through).collect()
}

fn addresses(asks: &[Ask<'_>]) -> BTreeSet<std::net::IpAddr> {
    let each = asks.iter().flat_map(|ask| {
        let targets = ask.question.listeners.iter().map(SocketAddr::ip);
        targets.chain([ask.client.address])
    });
    each.collect()
}

/// Live connections as they would be opened anew, each once, and how many are too many.
fn questions<'f>(
    trying: &Trying<'f>,
    twin: &Twin,
    back: &impl Fn(&BTreeSet<Packet<'f>>) -> BTreeMap<Packet<'f>, String>,
) -> (Vec<(&'f Flow, Question)>, usize) {
    let mut seen = BTreeSet::new();
    let key = |flow: &Flow| {
        let Flow {
            protocol, source, ..
        } = flow;
        (*protocol, *source, flow.destination, flow.destination_port)
    };
    let distinct = trying.others.iter().filter(|flow| seen.insert(key(flow)));
    let mut distinct: Vec<&'f Flow> = distinct.copied().collect();
    let left_out = distinct.len().saturating_sub(FLOWS);
    distinct.truncate(FLOWS);
    let way = |flow: &Flow| Packet {
        to: flow.source,
        came: None,
    };
    let ways = back(&distinct.iter().map(|flow| way(flow)).collect());
    let each = distinct.into_iter().filter_map(|flow| {
        let interface = ways.get(&way(flow))?;
        let mut worlds = twin.worlds().iter();
        let world = worlds.position(|world| world.interface == *interface)?;
        let question = Question {
            protocol: flow.protocol,
            client: flow.source,
            from: From::World(world),
            to: SocketAddr::new(flow.destination, flow.destination_port.number()),
            listeners: vec![SocketAddr::new(flow.reply_source, flow.reply_port.number())],
            request: 1,
            answer: 1,
        };
        Some((flow, question))
    });
    (each.collect(), left_out)
}

/// Opens the connections before the change. Returns for each of `others` whether it passed.
fn before<'f>(
    trying: &'f Trying<'f>,
    clients: &[Clients],
    twin: &Twin,
    others: &[(&'f Flow, Question)],
) -> Result<(Vec<bool>, Tried<'f>), TwinError> {
    let mut talker = twin.talker()?;
    let mut passed = Vec::new();
    for (_, question) in others {
        passed.push(is_answered(&ask(&mut talker, question)?));
    }
    let mut tried = Tried::default();
    if !trying.goes_first {
        return Ok((passed, tried));
    }
    let each = trying.sets.iter().zip(clients);
    let asks = each.flat_map(|((_, set), clients)| {
        let forwards: Vec<&Forward> = set.forwards.iter().collect();
        plain(&forwards, clients, twin.machine(), twin.worlds())
            .take(BEFORE)
            .collect::<Vec<_>>()
    });
    let mut refused = Vec::new();
    for one in asks.take(BEFORE) {
        if refused.len() == LOOKED_INTO || Instant::now() >= trying.deadline {
            break;
        }
        if is_answered(&ask(&mut talker, &one.question)?) {
            continue;
        }
        // A forward that is not loaded leads nowhere yet: rules of others see its packets as those to the
        // target.
        let question = if is_loaded(trying, &one) {
            one.question.clone()
        } else {
            let target = one.question.listeners.first();
            Question {
                to: *target.unwrap_or(&one.question.to),
                ..one.question.clone()
            }
        };
        if !is_answered(&ask(&mut talker, &question)?) {
            refused.push((one, question));
        }
    }
    drop(talker);
    for (ask, question) in refused {
        if let Some(rule) = refusing(twin, &ask, &question)? {
            tried.opened.push(Opened { ask, rule });
        }
    }
    Ok((passed, tried))
}

fn is_loaded(trying: &Trying<'_>, ask: &Ask<'_>) -> bool {
    led(trying, ask).next().is_some()
}

/// The loaded forwards that take what is sent where a connection is opened.
fn led<'f>(trying: &Trying<'f>, ask: &Ask<'_>) -> impl Iterator<Item = (&'f Forward, Port)> {
    let to = ask.question.to;
    let protocol = ask.question.protocol;
    let forwards = trying.loaded.iter().flat_map(|set| &set.forwards);
    forwards.filter_map(move |forward| {
        let port = Port::new(to.port())?;
        let takes = forward.protocol == protocol
            && forward.family() == Family::of(to.ip())
            && forward.listen.ports.contains(port)
            && forward
                .listen
                .address
                .is_none_or(|address| address == to.ip());
        takes.then_some((forward, port))
    })
}

/// The rule of another's in FORWARD that refuses a connection.
fn refusing(twin: &Twin, ask: &Ask<'_>, question: &Question) -> Result<Option<Decided>, TwinError> {
    let (_, seen, _) = repeat(twin, question)?;
    twin.enter()?;
    let conversation = Conversation {
        listen: question.to.ip(),
        port: question.to.port(),
        ..conversation(ask)
    };
    let taken = seen.taken(&conversation)?;
    Ok(taken.and_then(|taken| match taken.by {
        By::Rule(decided) => is_in_front(&decided).then_some(decided),
        _ => None,
    }))
}

/// Whether a rule is one of another's in the table filter.
fn is_in_front(decided: &Decided) -> bool {
    matches!(
        &decided.holder,
        Holder::Iptables { table: TableName::Filter, chain, .. } if !chain.is_own()
    )
}

/// Opens the connections of no forward after the change, and those again that rules refused before it.
fn after<'f>(
    twin: &Twin,
    others: &[(&'f Flow, Question)],
    passed: &[bool],
    tried: &mut Tried<'f>,
) -> Result<(), TwinError> {
    let mut talker = twin.talker()?;
    let mut shut = Vec::new();
    for ((flow, question), passed) in others.iter().zip(passed) {
        let is_open = is_answered(&ask(&mut talker, question)?);
        match (passed, is_open) {
            (true, true) => {}
            (false, true) => tried.others.opened.push(flow),
            (passed, false) => shut.push((*flow, question, *passed)),
        }
    }
    // Only what passes now was opened by the change.
    for opened in std::mem::take(&mut tried.opened) {
        if is_reached(&ask(&mut talker, &opened.ask.question)?, &opened.ask) {
            tried.opened.push(opened);
        }
    }
    drop(talker);
    let mut looked_into = 0;
    for (flow, question, passed) in shut {
        looked_into += 1;
        let taken = match looked_into {
            ..=LOOKED_INTO => taken(twin, question)?,
            _ => None,
        };
        let is_known = |taken: &Taken| matches!(taken.by, By::Rule(_) | By::Policy(_));
        match (passed, taken) {
            (true, taken) => tried.others.cut.push((flow, taken)),
            (false, Some(taken)) if is_known(&taken) => tried.others.dead.push((flow, taken)),
            (false, _) => {}
        }
    }
    Ok(())
}

fn taken(twin: &Twin, question: &Question) -> Result<Option<Taken>, TwinError> {
    let (_, seen, _) = repeat(twin, question)?;
    twin.enter()?;
    Ok(seen.taken(&Conversation {
        protocol: question.protocol,
        client: question.client,
        listen: question.to.ip(),
        port: question.to.port(),
        target: None,
        source: None,
    })?)
}

/// Tells the connections that the change takes from those that were dead before it.
fn sort<'f>(
    trying: &Trying<'f>,
    judged: Vec<Judged<'f>>,
    machine: &Machine,
    filter: &Filter,
    tried: &mut Tried<'f>,
) -> Result<(), TwinError> {
    tried.not_asked = judged
        .iter()
        .filter(|one| one.verdict == Verdict::NotAsked)
        .count();
    for one in &judged {
        if let Verdict::Failed(words) = &one.verdict {
            return Err(TwinError::Socket(std::io::Error::other(words.clone())));
        }
    }
    // By another interface or with another source it reaches its target all the same.
    let is_bad =
        |verdict: &Verdict| matches!(verdict, Verdict::Dead(_) | Verdict::Elsewhere { .. });
    let bad: Vec<Judged<'f>> = judged
        .into_iter()
        .filter(|one| is_bad(&one.verdict))
        .collect();
    if bad.is_empty() {
        return Ok(());
    }
    let twin = forwarding(machine, filter)?;
    let others = foreign_targets(trying);
    let mut talker = twin.talker()?;
    for one in bad {
        let own = led(trying, &one.ask).flat_map(|(forward, port)| {
            let destinations = forward.target.destinations.iter();
            destinations.map(move |at| reached(forward, at, port))
        });
        let mut listeners = one.ask.question.listeners.clone();
        listeners.extend(own.chain(others.iter().copied()));
        listeners.push(one.ask.question.to);
        listeners.retain(|at| at.is_ipv4() == one.ask.question.to.is_ipv4());
        listeners.sort_unstable();
        listeners.dedup();
        let question = Question {
            listeners,
            ..one.ask.question.clone()
        };
        if is_answered(&ask(&mut talker, &question)?) {
            tried.lost.push(one);
        } else {
            tried.dead.push(one);
        }
    }
    Ok(())
}

/// How many targets of others' rules are listened for.
const FOREIGN_TARGETS: usize = 64;

/// The targets to which rules of others send packets.
fn foreign_targets(trying: &Trying<'_>) -> Vec<SocketAddr> {
    let chains = trying.live.iter().flat_map(|live| live.chains());
    let foreign = chains.filter(|(table, name, _)| *table == TableName::Nat && !name.is_own());
    let rules = foreign.flat_map(|(_, _, chain)| &chain.rules);
    let targets = rules.filter_map(|rule| match &rule.target {
        Some(Target::Dnat {
            address,
            ports: DnatPorts::One(port),
        }) => Some(SocketAddr::new(*address, port.number())),
        _ => None,
    });
    targets.take(FOREIGN_TARGETS).collect()
}

fn ask(talker: &mut Talker<'_>, question: &Question) -> Result<Outcome, TwinError> {
    talker.ask(question).map_err(TwinError::Socket)
}

fn is_answered(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Answered(_))
}

fn is_reached(outcome: &Outcome, ask: &Ask<'_>) -> bool {
    match outcome {
        Outcome::Answered(reached) => ask.question.listeners.contains(&reached.target),
        _ => false,
    }
}
