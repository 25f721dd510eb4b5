//! Verdicts: the connections of a battery, opened through a twin one after the other, and the causes of
//! those that did not go as they should.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use super::battery::{Ask, Wanted};
use super::cause::{
    By, CauseError, Conversation, KernelReason, Seen, Stage, Taken, Watch, by_legacy,
};
use super::cure::{self, Cure};
use super::sniff::{Sighting, Sniffer};
use super::talk::{From, Outcome, Question, Reached};
use super::{Twin, TwinError, batch};
use crate::net::Family;
use crate::spec::{Balance, Forward, Snat};

/// A kernel that puts off its work has done it by then.
const LATE: Duration = Duration::from_millis(50);
/// At most so many causes are looked for one behind the other.
const CAUSES: usize = 5;
/// At most so many dead connections are looked into; the rest is told as a number.
const LOOKED_INTO: usize = 24;

/// A connection and what became of it.
#[derive(Debug)]
pub struct Judged<'f> {
    pub ask: Ask<'f>,
    pub verdict: Verdict,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    AsWanted,
    /// The target sees another source than the spec says.
    Source {
        seen: IpAddr,
        by: Option<By>,
    },
    /// The target was reached by another interface than the spec says.
    Behind(String),
    /// Another host took it.
    Elsewhere {
        at: SocketAddr,
        by: Option<By>,
    },
    /// It did not come through, or the answer did not come back.
    Dead(Death),
    /// Replies leave by another interface than the one by which the client comes in.
    Strayed(String),
    /// A client that should be kept out came through.
    LetIn(Option<By>),
    /// Its packets met a rule whose state is not copied: the numbers are those of the twin's watched
    /// rules.
    Unknown(Vec<usize>),
    /// The time was over before.
    NotAsked,
}

/// How a connection died.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Death {
    /// The target was reached: the answer, or the rest of the request, did not come through.
    pub is_stuck: bool,
    /// One behind the other: each took the connection once the one before was gone.
    pub causes: Vec<Taken>,
    /// A cure with which it came through, tried in the twin.
    pub cures: Vec<Cure>,
    /// Whether the cures, all together, let it through.
    pub is_cured: bool,
    /// Whether its causes were looked for.
    pub is_examined: bool,
}

impl Death {
    fn of(outcome: &Outcome) -> Self {
        Self {
            is_stuck: matches!(outcome, Outcome::Stuck(_)),
            ..Self::default()
        }
    }
}

/// Opens every connection and judges it; then looks for the causes of the dead. What the time does not
/// suffice for is [`Verdict::NotAsked`]. `change` is a script of iptables-restore for each family that
/// `nvactl apply` would load: the first cure that is tried. The twin is changed by cures.
///
/// # Errors
/// When sockets cannot be opened.
pub fn judge<'f>(
    twin: &mut Twin,
    asks: Vec<Ask<'f>>,
    change: Option<&cure::Change>,
    deadline: Instant,
) -> Result<Vec<Judged<'f>>, TwinError> {
    let mut judged = ask_all(twin, asks, deadline)?;
    unknown(twin, &mut judged, deadline)?;
    explain(twin, &mut judged, change, deadline)?;
    Ok(judged)
}

fn ask_all<'f>(
    twin: &Twin,
    asks: Vec<Ask<'f>>,
    deadline: Instant,
) -> Result<Vec<Judged<'f>>, TwinError> {
    let mut talker = twin.talker()?;
    let mut judged: Vec<Judged<'f>> = Vec::with_capacity(asks.len());
    // The targets that were seen by the connections of one forward so far.
    let mut seen: BTreeSet<SocketAddr> = BTreeSet::new();
    for ask in asks {
        if ask.again == 0 {
            seen.clear();
        } else if ask.question.listeners.iter().all(|at| seen.contains(at))
            || ask.forward.target.balance == Balance::Client
        {
            continue;
        }
        let verdict = if Instant::now() >= deadline {
            Verdict::NotAsked
        } else {
            let outcome = talker.ask(&ask.question).map_err(TwinError::Socket)?;
            if let Outcome::Answered(reached) = &outcome {
                seen.insert(reached.target);
            }
            verdict(twin, &ask, &outcome)
        };
        judged.push(Judged { ask, verdict });
    }
    let is_silent = |judged: &&mut Judged<'f>| {
        matches!(judged.verdict, Verdict::Dead(_)) && judged.ask.wanted == Wanted::Through
    };
    if judged.iter_mut().any(|judged| is_silent(&judged)) && Instant::now() < deadline {
        thread::sleep(LATE);
        for judged in judged.iter_mut().filter(is_silent).take(LOOKED_INTO) {
            let outcome = talker
                .ask(&judged.ask.question)
                .map_err(TwinError::Socket)?;
            judged.verdict = verdict(twin, &judged.ask, &outcome);
        }
    }
    Ok(judged)
}

/// Judges by the outcome alone.
fn verdict(twin: &Twin, ask: &Ask<'_>, outcome: &Outcome) -> Verdict {
    let is_target = |at: &SocketAddr| ask.question.listeners.contains(at);
    match (ask.wanted, outcome) {
        (Wanted::KeptOut, Outcome::Answered(reached) | Outcome::Stuck(reached))
            if is_target(&reached.target) =>
        {
            Verdict::LetIn(None)
        }
        (Wanted::KeptOut, _) => Verdict::AsWanted,
        (Wanted::Through, Outcome::Answered(reached)) => through(twin, ask, reached),
        (Wanted::Through, outcome) => Verdict::Dead(Death::of(outcome)),
    }
}

fn through(twin: &Twin, ask: &Ask<'_>, reached: &Reached) -> Verdict {
    let Reached {
        world,
        source,
        target,
    } = reached;
    let behind = &twin.worlds()[*world].interface;
    if !ask.question.listeners.contains(target) {
        return Verdict::Elsewhere {
            at: *target,
            by: None,
        };
    }
    if behind != ask.forward.egress.as_str() {
        return Verdict::Behind(behind.clone());
    }
    let seen = source.ip();
    let is_meant = match ask.forward.snat {
        Snat::Addresses(range) => range.first() <= seen && seen <= range.last(),
        Snat::Client => seen == ask.client.address,
        Snat::Masquerade => {
            let link = twin.machine().link(ask.forward.egress.as_str());
            let mut own = link.into_iter().flat_map(|link| link.of(Family::of(seen)));
            own.any(|address| address.net.addr() == seen)
        }
    };
    if is_meant {
        Verdict::AsWanted
    } else {
        Verdict::Source { seen, by: None }
    }
}

/// Finds the connections whose packets met a watched rule: what such a rule does on the live machine is not
/// known here. A rule that nothing met concerns nobody, so most of the time one look is enough.
fn unknown(twin: &mut Twin, judged: &mut [Judged<'_>], deadline: Instant) -> Result<(), TwinError> {
    twin.enter()?;
    if twin.counted()?.is_empty() {
        return Ok(());
    }
    for judged in judged {
        if judged.verdict == Verdict::NotAsked {
            continue;
        }
        if Instant::now() >= deadline {
            judged.verdict = Verdict::NotAsked;
            continue;
        }
        let asked = twin.talker()?.ask(&judged.ask.question);
        asked.map_err(TwinError::Socket)?;
        twin.enter()?;
        let met = twin.counted()?;
        if !met.is_empty() {
            judged.verdict = Verdict::Unknown(met);
        }
    }
    Ok(())
}

fn explain(
    twin: &mut Twin,
    judged: &mut [Judged<'_>],
    change: Option<&cure::Change>,
    deadline: Instant,
) -> Result<(), TwinError> {
    let mut looked_into = 0;
    let mut change = change;
    // Cures change the twin for those that come after, so others are looked at before the dead.
    let is_alive = |judged: &Judged<'_>| match &judged.verdict {
        Verdict::LetIn(by) | Verdict::Source { by, .. } | Verdict::Elsewhere { by, .. } => {
            by.is_none()
        }
        _ => false,
    };
    let is_dead = |judged: &Judged<'_>| match &judged.verdict {
        Verdict::Dead(death) => !death.is_examined,
        _ => false,
    };
    let mut firsts = None;
    while looked_into < LOOKED_INTO && Instant::now() < deadline {
        let alive = judged.iter().position(is_alive);
        let Some(at) = alive.or_else(|| judged.iter().position(is_dead)) else {
            return Ok(());
        };
        if alive.is_none() && firsts.is_none() {
            firsts = Some(first_causes(twin, judged, deadline)?);
        }
        looked_into += 1;
        look_into(twin, &mut judged[at], &mut change, deadline)?;
        let of_forward = |(forward, _): &&(&Forward, Taken)| *forward == judged[at].ask.forward;
        let first = firsts.iter().flatten().find(of_forward).cloned();
        if let (Verdict::AsWanted, Some((_, taken))) = (&judged[at].verdict, first) {
            judged[at].verdict = Verdict::Dead(Death {
                causes: vec![taken],
                is_examined: true,
                ..Death::default()
            });
        }
        match judged[at].verdict.clone() {
            Verdict::Dead(found) if found.is_cured => share(twin, judged, &found)?,
            // The twin is no true copy any more for a forward whose death was not understood.
            found => inherit(judged, at, &found),
        }
    }
    Ok(())
}

/// Gives the other dead connections of a forward the verdict of the one that was looked into.
fn inherit(judged: &mut [Judged<'_>], at: usize, found: &Verdict) {
    if *found == Verdict::AsWanted || matches!(found, Verdict::Strayed(_)) {
        return;
    }
    let forward = judged[at].ask.forward;
    for other in judged {
        if other.ask.forward == forward
            && matches!(&other.verdict, Verdict::Dead(death) if !death.is_examined)
        {
            other.verdict = found.clone();
        }
    }
}

/// Finds the first cause of one dead connection of each forward, before cures change the twin: a cure of
/// another may let it through. A single forward needs none.
fn first_causes<'f>(
    twin: &Twin,
    judged: &[Judged<'f>],
    deadline: Instant,
) -> Result<Vec<(&'f Forward, Taken)>, TwinError> {
    let mut dead: Vec<&Judged<'f>> = Vec::new();
    for one in judged {
        let is_known = |known: &&Judged<'f>| known.ask.forward == one.ask.forward;
        if matches!(one.verdict, Verdict::Dead(_)) && !dead.iter().any(is_known) {
            dead.push(one);
        }
        if dead.len() == LOOKED_INTO {
            break;
        }
    }
    let mut firsts = Vec::new();
    if dead.len() < 2 {
        return Ok(firsts);
    }
    for one in dead {
        if Instant::now() >= deadline {
            break;
        }
        let (outcome, seen, _) = repeat(twin, &one.ask.question)?;
        twin.enter()?;
        if matches!(verdict(twin, &one.ask, &outcome), Verdict::Dead(_))
            && let Some(taken) = seen.taken(&conversation(&one.ask))?
        {
            firsts.push((one.ask.forward, taken));
        }
    }
    Ok(firsts)
}

/// Tries the other dead connections again, behind the cures of one: those that come through now had the
/// same causes.
fn share(twin: &Twin, judged: &mut [Judged<'_>], found: &Death) -> Result<(), TwinError> {
    // Without the check for the reverse path a reply may still leave by another interface.
    let is_about_route_back = found
        .causes
        .iter()
        .any(|taken| matches!(&taken.by, By::Kernel(KernelReason::ReversePath)));
    for judged in judged {
        let Verdict::Dead(death) = &mut judged.verdict else {
            continue;
        };
        if death.is_examined {
            continue;
        }
        let is_through = if is_about_route_back {
            is_through(twin, &judged.ask)?
        } else {
            let asked = twin.talker()?.ask(&judged.ask.question);
            matches!(asked.map_err(TwinError::Socket)?, Outcome::Answered(_))
        };
        if is_through {
            *death = Death {
                is_stuck: death.is_stuck,
                ..found.clone()
            };
        }
    }
    Ok(())
}

/// Repeats one connection under watch, again and again behind a cure for what took it.
fn look_into(
    twin: &mut Twin,
    judged: &mut Judged<'_>,
    change: &mut Option<&cure::Change>,
    deadline: Instant,
) -> Result<(), TwinError> {
    let conversation = conversation(&judged.ask);
    let mut death = match &judged.verdict {
        Verdict::Dead(death) => death.clone(),
        _ => Death::default(),
    };
    death.is_examined = true;
    for _ in 0..CAUSES {
        let (outcome, seen, sightings) = repeat(twin, &judged.ask.question)?;
        twin.enter()?;
        match verdict(twin, &judged.ask, &outcome) {
            Verdict::AsWanted if death.causes.is_empty() => {
                judged.verdict = Verdict::AsWanted;
                return Ok(());
            }
            Verdict::AsWanted => {
                death.is_cured = true;
                break;
            }
            Verdict::LetIn(_) => {
                let by = admitted(&seen, &conversation)?;
                judged.verdict = Verdict::LetIn(by.or(Some(By::NoRule)));
                return Ok(());
            }
            Verdict::Source { seen: source, .. } => {
                let by = seen.taken(&conversation)?.map(|taken| taken.by);
                judged.verdict = Verdict::Source {
                    seen: source,
                    by: by.or(Some(By::NoRule)),
                };
                return Ok(());
            }
            Verdict::Elsewhere { at, .. } => {
                let by = seen.taken(&conversation)?.map(|taken| taken.by);
                judged.verdict = Verdict::Elsewhere {
                    at,
                    by: by.or(Some(By::NoRule)),
                };
                return Ok(());
            }
            other @ (Verdict::Behind(_) | Verdict::Unknown(_)) => {
                judged.verdict = other;
                return Ok(());
            }
            _ => {}
        }
        if let Some(interface) = strayed(twin, &judged.ask, &sightings) {
            if !death.causes.is_empty() {
                death.is_cured = true;
                break;
            }
            judged.verdict = Verdict::Strayed(interface);
            return Ok(());
        }
        let Some(taken) = seen.taken(&conversation)? else {
            break;
        };
        if death.causes.last() == Some(&taken) || Instant::now() >= deadline {
            break;
        }
        death.causes.push(taken.clone());
        // What nvactl itself would do comes first: it changes nothing of others'.
        if let Some(change) = change.take() {
            change.load(twin)?;
            if is_through(twin, &judged.ask)? {
                death.cures = vec![Cure::Apply];
                death.is_cured = true;
                break;
            }
        }
        match cure::cure(twin, &judged.ask, &taken)? {
            Some(cure) => death.cures.push(cure),
            None => break,
        }
    }
    judged.verdict = Verdict::Dead(death);
    Ok(())
}

/// Opens connections from the copy of the machine itself, and returns the numbers of those that its own rules
/// keep from their targets, with the rule where the kernel names it. Targets in the copy always answer.
///
/// # Errors
/// As [`judge`].
pub fn kept_in(
    twin: &Twin,
    questions: &[Question],
) -> Result<Vec<(usize, Option<Taken>)>, TwinError> {
    let mut kept = Vec::new();
    for (number, question) in questions.iter().enumerate() {
        let outcome = twin.talker()?.ask(question).map_err(TwinError::Socket)?;
        if matches!(outcome, Outcome::Answered(_)) {
            continue;
        }
        let (_, seen, _) = repeat(twin, question)?;
        let conversation = Conversation {
            protocol: question.protocol,
            client: question.client,
            listen: question.to.ip(),
            port: question.to.port(),
            target: None,
            source: None,
        };
        kept.push((number, seen.taken(&conversation)?));
    }
    twin.enter()?;
    Ok(kept)
}

/// Repeats a connection while the kernel's trace is on.
pub(super) fn repeat(
    twin: &Twin,
    question: &Question,
) -> Result<(Outcome, Seen, Vec<Sighting>), TwinError> {
    let sniffer = Sniffer::open(twin.worlds()).map_err(TwinError::Socket)?;
    let mut talker = twin.talker()?;
    // An address that is being resolved is not asked for again at once: the watch is to see how it is.
    if question.to.is_ipv6() {
        for world in twin.worlds() {
            world.netns.enter().map_err(TwinError::Socket)?;
            forget_neighbours()?;
        }
        twin.enter()?;
        forget_neighbours()?;
    }
    twin.enter()?;
    let names: Vec<&str> = twin
        .worlds()
        .iter()
        .map(|world| world.interface.as_str())
        .collect();
    let watch = Watch::begin(&names)?;
    let _ = sniffer.seen();
    let outcome = talker.ask(question).map_err(TwinError::Socket);
    twin.enter()?;
    let seen = watch.end()?;
    Ok((outcome?, seen, sniffer.seen()))
}

/// Lets the calling thread's namespace resolve each address anew.
fn forget_neighbours() -> Result<(), TwinError> {
    batch::run(&["-6"], "neigh flush all\n")?;
    Ok(())
}

/// Returns whether a connection comes through, or at least its answer leaves, if by another interface.
pub(super) fn is_through(twin: &Twin, ask: &Ask<'_>) -> Result<bool, TwinError> {
    let sniffer = Sniffer::open(twin.worlds()).map_err(TwinError::Socket)?;
    let outcome = twin
        .talker()?
        .ask(&ask.question)
        .map_err(TwinError::Socket)?;
    twin.enter()?;
    let is_fine = verdict(twin, ask, &outcome) == Verdict::AsWanted;
    Ok(is_fine || strayed(twin, ask, &sniffer.seen()).is_some())
}

/// Returns the interface by which a reply left, if it is another than the client's.
fn strayed(twin: &Twin, ask: &Ask<'_>, sightings: &[Sighting]) -> Option<String> {
    let from = ask.question.from;
    // A world sees the packets that it sends, too: those of the target have its own address still.
    let is_reply = |one: &&Sighting| {
        one.source == ask.question.to
            && one.destination.ip() == ask.client.address
            && From::World(one.world) != from
    };
    let strayed = sightings.iter().find(is_reply)?;
    Some(twin.worlds()[strayed.world].interface.clone())
}

/// Returns the rule that let a client in: the first of another's that accepted it where it is forwarded.
fn admitted(seen: &Seen, conversation: &Conversation) -> Result<Option<By>, CauseError> {
    let traced = seen.matched(conversation);
    let mut accepts = traced.filter(|step| step.stage == Stage::Forward && step.accepts());
    if let Some(step) = accepts.next() {
        return seen.traced(step);
    }
    let mut legacy = seen.legacy.iter();
    let family = Family::of(conversation.client);
    let accepts = legacy.find(|counted| {
        counted.family == family && counted.stage == Stage::Forward && counted.target == "ACCEPT"
    });
    Ok(accepts.map(by_legacy))
}

pub(super) fn conversation(ask: &Ask<'_>) -> Conversation {
    let [target] = ask.question.listeners[..] else {
        return Conversation {
            target: None,
            ..plain(ask)
        };
    };
    Conversation {
        target: Some((target.ip(), target.port())),
        ..plain(ask)
    }
}

fn plain(ask: &Ask<'_>) -> Conversation {
    Conversation {
        protocol: ask.question.protocol,
        client: ask.client.address,
        listen: ask.question.to.ip(),
        port: ask.question.to.port(),
        target: None,
        source: match ask.forward.snat {
            Snat::Addresses(range) => range.single(),
            Snat::Client => Some(ask.client.address),
            Snat::Masquerade => None,
        },
    }
}
