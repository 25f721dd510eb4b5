//! A change of nvactl's rules, tried in a twin of the machine: connections before it and after it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::battery::{Ask, Wanted, battery, plain, reached};
use super::cause::{By, Conversation, Decided, Holder, Taken};
use super::clients::{ClientKind, Clients, Named};
use super::cure::Change;
use super::explain::{conversation, explain, repeat, taken};
use super::judge::{self, Judged, Verdict};
use super::machine::Machine;
use super::rules::Filter;
use super::sniff::{Sighting, Sniffer};
use super::talk::{From, Outcome, Question, Talker};
use super::{Twin, TwinError, switches};
use crate::forwards::Listeners;
use crate::forwards::{Forward, ForwardSet};
use crate::host::network;
use crate::host::network::Packet;
use crate::net::{Family, Port};
use crate::netfilter::conntrack::Flow;
use crate::netfilter::names::TableName;
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::Target;

/// At most so many connections are opened before the change, to find those that rules of others refuse.
const BEFORE: usize = 2000;
/// At most so many of them are looked into.
const LOOKED_INTO: usize = 64;
/// Of connections of no forward that do not pass, so many are looked into, of those that passed before and of
/// those that did not.
const SHUT: usize = 5;
/// At most so many connections that are not of forwards are opened anew.
const FLOWS: usize = 200;

/// What is to be tried.
#[derive(Debug)]
pub struct Trying<'f> {
    /// The forwards of each family, as the change would have them.
    pub sets: &'f [(Family, ForwardSet)],
    /// The forwards that are loaded.
    pub loaded: &'f [ForwardSet],
    pub listeners: Vec<Listeners<'f>>,
    /// The rules that are loaded, of each family.
    pub live: Vec<&'f Ruleset>,
    /// The live connections of no forward, loaded or to be loaded, that this machine passes on.
    pub others: Vec<&'f Flow>,
    /// The live connections, as examples of clients.
    pub flows: &'f [Flow],
    pub change: Change,
    /// Whether rules of others stand before one of nvactl's jumps, which this change puts first.
    pub puts_jump_first: bool,
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
    /// Of these nobody can tell: they meet a rule whose effect the copy cannot know.
    pub unsure: Vec<&'f Forward>,
    /// Their replies leave by another interface than the one by which the client comes in.
    pub strayed: Vec<Judged<'f>>,
    /// Why connections could not be opened, for each of them.
    pub failed: Vec<String>,
    /// How many connections were not opened in time.
    pub not_asked: usize,
    /// How many networks of clients, which rules name or routes lead to, were left out.
    pub untried_networks: usize,
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

/// Tries a change; none where iptables-restore does not take it in the copy. Call it within
/// [`super::netns::aside`].
///
/// # Errors
/// When there can be no twin.
pub fn try_change<'f>(trying: &'f Trying<'f>) -> Result<Option<Tried<'f>>, TwinError> {
    let mut machine = Machine::read()?;
    // One that did not answer once may by now; what does not is told by those who look at the machine.
    for neighbour in &mut machine.neighbours {
        neighbour.failed = false;
    }
    let families = trying.change.scripts.families();
    let filter = Filter::read_of(families)?;
    let named = Named::by(&filter, &machine);
    let interfaces = network::interfaces;
    let clients: Vec<Clients> = trying
        .sets
        .iter()
        .map(|(family, set)| Clients::of(set, *family, &machine, trying.flows, &named, interfaces))
        .collect();
    let (flows, distinct) = distinct(trying);
    let mut twin = forwarding(&machine, &filter)?;
    let asks = asks(trying, &clients, &twin);
    let others = questions(flows, &twin);
    let addresses = addresses(trying, &asks, &others);
    twin.answer_for(&addresses)?;
    let (passed, mut tried) = before(trying, &clients, &twin, &others)?;
    tried.others.left_out = distinct - others.len();
    tried.untried_networks = clients.iter().map(|clients| clients.left_out).sum();
    twin.enter()?;
    if !twin.keep_change(&trying.change)? {
        return Ok(None);
    }
    after(trying, &twin, &others, &passed, &mut tried)?;
    if trying.puts_jump_first {
        // What was opened so far counts for limits.
        twin.renew()?;
    }
    let judged = judge::ask(&mut twin, asks, trying.deadline)?;
    let bad = sort_out(judged, &mut tried);
    if bad.is_empty() {
        return Ok(Some(tried));
    }
    let mut old = forwarding(&machine, &filter)?;
    old.answer_for(&addresses)?;
    compare(trying, bad, &old, &mut tried)?;
    drop(old);
    twin.enter()?;
    explain(&mut twin, &mut tried.lost, None, trying.deadline);
    explain(&mut twin, &mut tried.dead, None, trying.deadline);
    settle(&mut tried);
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
        let (machine, worlds) = (twin.machine(), twin.worlds());
        battery(&forwards, clients, machine, worlds, &BTreeSet::new())
    });
    // A client that only a rule of others names is banned, maybe, and no reason to refuse a change.
    let is_banned = |ask: &Ask<'_>| matches!(ask.client.kind, ClientKind::Named(_));
    each.filter(|ask| ask.wanted == Wanted::Through && !is_banned(ask))
        .collect()
}

/// Every address for which a world may have to answer.
fn addresses(
    trying: &Trying<'_>,
    asks: &[Ask<'_>],
    others: &[(&Flow, Question)],
) -> BTreeSet<IpAddr> {
    let questions = asks
        .iter()
        .map(|ask| &ask.question)
        .chain(others.iter().map(|(_, question)| question));
    let ends = questions.flat_map(|question| {
        let targets = question.listeners.iter().map(SocketAddr::ip);
        targets.chain([question.client])
    });
    let loaded = trying.loaded.iter().flat_map(|set| &set.forwards);
    let loaded = loaded.flat_map(|forward| &forward.target.destinations);
    let foreign = foreign(trying).filter_map(|rule| match rule.target {
        Some(Target::Dnat { address, .. }) => Some(address),
        _ => None,
    });
    ends.chain(loaded.map(|to| to.address))
        .chain(foreign)
        .collect()
}

/// Returns some of the live connections that lead elsewhere, each once with the interface by which its client
/// comes in, and how many there are.
fn distinct<'f>(trying: &Trying<'f>) -> (Vec<(&'f Flow, String)>, usize) {
    let mut seen = BTreeSet::new();
    let key = |flow: &Flow| {
        let Flow {
            protocol, source, ..
        } = flow;
        (*protocol, *source, flow.destination, flow.destination_port)
    };
    let distinct = trying.others.iter().filter(|flow| seen.insert(key(flow)));
    let distinct: Vec<&'f Flow> = distinct.copied().collect();
    let way = |flow: &Flow| Packet {
        to: flow.source,
        came: None,
    };
    let some = &distinct[..distinct.len().min(FLOWS)];
    let ways = network::interfaces(&some.iter().map(|flow| way(flow)).collect());
    let some = some
        .iter()
        .filter_map(|flow| Some((*flow, ways.get(&way(flow))?.clone())));
    let some: Vec<_> = some.collect();
    (some, distinct.len())
}

/// Live connections as they would be opened anew.
fn questions<'f>(flows: Vec<(&'f Flow, String)>, twin: &Twin) -> Vec<(&'f Flow, Question)> {
    let each = flows.into_iter().filter_map(|(flow, interface)| {
        let mut worlds = twin.worlds().iter();
        let world = worlds.position(|world| world.interface == interface)?;
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
    each.collect()
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
        passed.push(is_answered(&mut talker, question));
    }
    let mut tried = Tried::default();
    if !trying.puts_jump_first {
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
        if is_answered(&mut talker, &one.question) {
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
        if !is_answered(&mut talker, &question) {
            refused.push((one, question));
        }
    }
    drop(talker);
    for (ask, question) in refused {
        if Instant::now() >= trying.deadline {
            break;
        }
        if let Some(rule) = refusing(twin, &ask, &question)? {
            tried.opened.push(Opened { ask, rule });
        }
    }
    Ok((passed, tried))
}

fn is_loaded(trying: &Trying<'_>, ask: &Ask<'_>) -> bool {
    led(trying, &ask.question).next().is_some()
}

/// The loaded forwards that take what a connection sends, and the port that it asks for.
fn led<'f>(trying: &Trying<'f>, question: &Question) -> impl Iterator<Item = (&'f Forward, Port)> {
    let (to, protocol) = (question.to, question.protocol);
    trying.listeners.iter().filter_map(move |listeners| {
        let port = Port::new(to.port())?;
        let forward = listeners.taker(protocol, to.ip(), port)?;
        Some((forward, port))
    })
}

/// The rule of another's in FORWARD that refuses a connection.
fn refusing(twin: &Twin, ask: &Ask<'_>, question: &Question) -> Result<Option<Decided>, TwinError> {
    let (_, seen, _) = repeat(twin, question)?;
    twin.enter()?;
    // The loaded rules may lead to another target than the spec.
    let conversation = Conversation {
        listen: question.to.ip(),
        port: question.to.port(),
        target: None,
        source: None,
        ..conversation(ask)
    };
    let taken = seen.taken(&conversation)?;
    Ok(taken.and_then(|taken| match taken.by {
        By::Rule(decided) => is_in_front(&decided).then_some(decided),
        _ => None,
    }))
}

/// Whether a rule is one of another's in a table in which nvactl's jumps go first.
fn is_in_front(decided: &Decided) -> bool {
    matches!(
        &decided.holder,
        Holder::Iptables { table: TableName::Filter | TableName::Nat, chain, .. } if !chain.is_own()
    )
}

/// Opens the connections of no forward after the change, and those again that rules refused before it.
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
    // Only what passes now was opened by the change.
    tried.opened.retain(|opened| {
        let outcome = talker.ask(&opened.ask.question);
        let listeners = &opened.ask.question.listeners;
        matches!(outcome, Ok(Outcome::Answered(reached)) if listeners.contains(&reached.target))
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

/// Returns the connections that do not reach their target after the change.
fn sort_out<'f>(judged: Vec<Judged<'f>>, tried: &mut Tried<'f>) -> Vec<Judged<'f>> {
    let mut bad = Vec::new();
    for one in judged {
        match one.verdict {
            Verdict::Dead(_) | Verdict::Elsewhere { .. } => bad.push(one),
            Verdict::Unknown(_) | Verdict::Fickle(_) => tried.unsure.push(one.ask.forward),
            Verdict::NotAsked => tried.not_asked += 1,
            Verdict::Failed(why) => tried.failed.push(why),
            // By another interface or with another source it reaches its target all the same.
            Verdict::AsWanted
            | Verdict::Source { .. }
            | Verdict::Behind(_)
            | Verdict::Strayed(_)
            | Verdict::LetIn(_) => {}
        }
    }
    bad
}

/// Takes those out of the lost and the dead that a closer look found to be neither.
fn settle(tried: &mut Tried<'_>) {
    let lost = std::mem::take(&mut tried.lost);
    let dead = std::mem::take(&mut tried.dead);
    let lost = lost.into_iter().map(|one| (one, true));
    for (one, is_lost) in lost.chain(dead.into_iter().map(|one| (one, false))) {
        match one.verdict {
            Verdict::Dead(_) | Verdict::Elsewhere { .. } if is_lost => tried.lost.push(one),
            Verdict::Dead(_) | Verdict::Elsewhere { .. } => tried.dead.push(one),
            Verdict::Strayed(_) => tried.strayed.push(one),
            Verdict::Unknown(_) | Verdict::Fickle(_) => tried.unsure.push(one.ask.forward),
            Verdict::NotAsked => tried.not_asked += 1,
            Verdict::Failed(why) => tried.failed.push(why),
            Verdict::AsWanted | Verdict::Source { .. } | Verdict::Behind(_) | Verdict::LetIn(_) => {
            }
        }
    }
}

/// Tells the connections that the change takes from those that are dead in a twin without it.
fn compare<'f>(
    trying: &Trying<'f>,
    bad: Vec<Judged<'f>>,
    old: &Twin,
    tried: &mut Tried<'f>,
) -> Result<(), TwinError> {
    let mut talker = old.talker()?;
    let sniffer = Sniffer::open(old.worlds()).map_err(TwinError::Socket)?;
    for one in bad {
        if Instant::now() >= trying.deadline {
            tried.not_asked += 1;
            continue;
        }
        let question = &one.ask.question;
        let own = led(trying, question).flat_map(|(forward, port)| {
            let destinations = forward.target.destinations.iter();
            destinations.map(move |at| reached(forward, at, port))
        });
        let mut listeners: BTreeSet<SocketAddr> = question.listeners.iter().copied().collect();
        listeners.extend(own.chain([question.to]));
        let mut question = listening(question, &listeners);
        let _ = sniffer.seen();
        if !is_answered(&mut talker, &question) {
            let elsewhere = sent_to(old, &question, &sniffer.seen());
            question = listening(&question, &elsewhere);
        }
        // Where chance leads to one target of several, one try that died says so of a part of the clients. The
        // change takes those alone if all of them have passed before it.
        let targets = one.ask.question.listeners.len();
        let is_chance = targets > 1 || old.has_chance();
        let times = match one.ask.forward.limits {
            // The old copy counts as well.
            Some(_) => one.ask.times,
            None if is_chance => targets * CHANCES,
            None => 1,
        };
        if (0..times).all(|_| is_answered(&mut talker, &question)) {
            tried.lost.push(one);
        } else {
            tried.dead.push(one);
        }
    }
    Ok(())
}

/// So often a connection is tried for each target where chance leads to one of them.
const CHANCES: usize = 8;

/// The same connection with listeners at other addresses.
fn listening(question: &Question, listeners: &BTreeSet<SocketAddr>) -> Question {
    let is_v4 = question.to.is_ipv4();
    let listeners = listeners.iter().filter(|at| at.is_ipv4() == is_v4);
    Question {
        listeners: listeners.copied().collect(),
        ..question.clone()
    }
}

/// Returns the addresses to which rules of others, of whichever program, sent a client's packets.
fn sent_to(twin: &Twin, question: &Question, sightings: &[Sighting]) -> BTreeSet<SocketAddr> {
    let links = twin.machine().links.iter();
    let own: BTreeSet<IpAddr> = links
        .flat_map(|link| &link.addresses)
        .map(|address| address.net.addr())
        .collect();
    let is_end = |at: &SocketAddr| at.ip() == question.client || own.contains(&at.ip());
    let ends = sightings.iter().map(|one| one.destination);
    ends.filter(|at| at.port() != 0 && !is_end(at)).collect()
}

/// The rules of others that send packets to another address.
fn foreign<'f>(trying: &Trying<'f>) -> impl Iterator<Item = &'f Rule> {
    let chains = trying.live.iter().flat_map(|live| live.chains());
    let foreign = chains.filter(|(table, name, _)| *table == TableName::Nat && !name.is_own());
    let rules = foreign.flat_map(|(_, _, chain)| &chain.rules);
    rules.filter(|rule| matches!(rule.target, Some(Target::Dnat { .. })))
}

/// Whether a connection is answered. One that cannot even be opened is not.
fn is_answered(talker: &mut Talker<'_>, question: &Question) -> bool {
    matches!(talker.ask(question), Ok(Outcome::Answered(_)))
}
