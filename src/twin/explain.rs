//! The causes of connections that did not go as they should. Each is looked for in a true copy of the
//! machine: a copy in which something was tried is made anew before the next.

use std::collections::BTreeMap;
use std::time::Instant;

use super::battery::Ask;
use super::cause::{
    By, CauseError, Conversation, Decided, Holder, KernelReason, Seen, Stage, Taken, Watch,
    by_legacy,
};
use super::cure::{self, Change, Cure};
use super::judge::{Blame, Death, Judged, Verdict, tried, verdict};
use super::sniff::{Sighting, Sniffer};
use super::talk::{From, Outcome, Question};
use super::{Twin, TwinError, batch};
use crate::forwards::{Forward, Snat};
use crate::net::Family;
use crate::netfilter::names::ChainName;

/// At most so many causes are looked for one behind the other.
const CAUSES: usize = 5;
/// At most so many connections are looked into; the rest is told as a number.
const LOOKED_INTO: usize = 24;
/// At most so many connections that `apply` helps are compared with the one that was looked into.
const ALIKE: usize = 200;
/// How often a connection is tried that may die by chance.
const TRIES: usize = 8;

/// Looks for the causes of those that did not go as they should. An error leaves that one unexplained.
pub fn explain(
    twin: &mut Twin,
    judged: &mut [Judged<'_>],
    change: Option<&Change>,
    deadline: Instant,
) {
    for pick in [is_alive, is_dead] {
        let mut left = LOOKED_INTO;
        for at in 0..judged.len() {
            if left == 0 {
                break;
            }
            if Instant::now() >= deadline {
                return;
            }
            if !pick(&judged[at].verdict) {
                continue;
            }
            if twin.is_changed() {
                if Instant::now() + twin.took() >= deadline {
                    return;
                }
                if let Err(error) = twin.renew() {
                    failed(&mut judged[at].verdict, &error);
                    return;
                }
            }
            left -= 1;
            if let Err(error) = look_into(twin, &mut judged[at], change, deadline) {
                twin.change();
                failed(&mut judged[at].verdict, &error);
                continue;
            }
            if let Verdict::Dead(found) = &judged[at].verdict
                && found.is_cured
            {
                let found = found.clone();
                // What was shared before an error is known.
                let forward = judged[at].ask.forward;
                let _ = share(twin, judged, forward, &found, change, deadline);
            }
        }
    }
}

fn is_alive(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::LetIn(blame)
        | Verdict::Source { blame, .. }
        | Verdict::Elsewhere { blame, .. } => !blame.is_examined,
        Verdict::Fickle(by) => by.is_none(),
        _ => false,
    }
}

fn is_dead(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Dead(death) if !death.is_examined)
}

fn failed(verdict: &mut Verdict, error: &TwinError) {
    match verdict {
        Verdict::Dead(death) => {
            death.is_examined = true;
            death.failure = Some(error.words());
        }
        Verdict::LetIn(blame)
        | Verdict::Source { blame, .. }
        | Verdict::Elsewhere { blame, .. } => blame.is_examined = true,
        _ => {}
    }
}

fn look_into(
    twin: &mut Twin,
    judged: &mut Judged<'_>,
    change: Option<&Change>,
    deadline: Instant,
) -> Result<(), TwinError> {
    let Judged { ask, verdict } = judged;
    match verdict {
        Verdict::Dead(_) => dead(twin, ask, verdict, change, deadline),
        Verdict::LetIn(_) => let_in(twin, ask, verdict, change),
        Verdict::Source { .. } | Verdict::Elsewhere { .. } => astray(twin, ask, verdict, change),
        Verdict::Fickle(_) => fickle(twin, ask, verdict),
        _ => Ok(()),
    }
}

/// Names what takes a connection at times.
fn fickle(twin: &Twin, ask: &Ask<'_>, found: &mut Verdict) -> Result<(), TwinError> {
    for _ in 0..TRIES {
        let (outcome, seen, _) = repeat(twin, &ask.question)?;
        twin.enter()?;
        if matches!(verdict(twin, ask, &outcome), Verdict::Dead(_)) {
            let taken = seen.taken(&conversation(ask))?;
            *found = Verdict::Fickle(taken.map(|taken| taken.by));
            return Ok(());
        }
    }
    Ok(())
}

/// Repeats one connection under watch, again and again behind a cure for what took it.
fn dead(
    twin: &mut Twin,
    ask: &Ask<'_>,
    found: &mut Verdict,
    change: Option<&Change>,
    deadline: Instant,
) -> Result<(), TwinError> {
    let conversation = conversation(ask);
    let has_chance = twin.has_chance();
    let mut is_applied = false;
    for round in 0..=CAUSES {
        let (outcome, seen, sightings) = until_bad(twin, ask)?;
        let now = verdict(twin, ask, &outcome);
        let Verdict::Dead(death) = found else {
            return Ok(());
        };
        death.is_examined = true;
        match now {
            Verdict::AsWanted if death.causes.is_empty() => {
                *found = Verdict::Fickle(None);
                return Ok(());
            }
            Verdict::AsWanted => {
                death.is_cured = true;
                return Ok(());
            }
            Verdict::Dead(_) => {}
            other if death.causes.is_empty() => {
                *found = other;
                return Ok(());
            }
            // It comes through now, and goes astray for another reason.
            Verdict::Behind(interface) => {
                death.behind = Some(interface);
                return Ok(());
            }
            _ => return Ok(()),
        }
        if let Some(interface) = strayed(twin, ask, &sightings) {
            if death.causes.is_empty() {
                *found = Verdict::Strayed(interface);
            } else {
                death.is_cured = true;
            }
            return Ok(());
        }
        let taken = if seen.complete {
            seen.taken(&conversation)?
        } else {
            death.failure = Some("the kernel's packet trace lost messages".to_owned());
            None
        };
        let Some(taken) = taken else { return Ok(()) };
        if has_chance && death.causes.is_empty() && passes_at_times(twin, ask)? {
            *found = Verdict::Fickle(Some(taken.by));
            return Ok(());
        }
        let is_known = |known: &Taken| is_same(known, &taken);
        if death.causes.last().is_some_and(is_known) || round == CAUSES {
            return Ok(());
        }
        death.causes.push(taken.clone());
        if Instant::now() >= deadline {
            return Ok(());
        }
        // What nvactl itself would do comes first: it changes nothing of others'.
        if let Some(change) = change.filter(|_| !is_applied) {
            let is_applied_now = applied(twin, ask, change, &taken)?;
            twin.change();
            if is_applied_now {
                is_applied = true;
                death.cures.push(Cure::Apply);
                continue;
            }
            twin.renew()?;
            twin.change();
            for (taken, cure) in death.causes.iter().zip(&death.cures) {
                cure::again(twin, &taken.by, cure, Some(change))?;
            }
        }
        twin.change();
        match cure::cure(twin, ask, &taken)? {
            Some(cure) => death.cures.push(cure),
            None => return Ok(()),
        }
    }
    Ok(())
}

/// Loads what `nvactl apply` would load, and returns whether a cause is gone by it.
fn applied(twin: &Twin, ask: &Ask<'_>, change: &Change, taken: &Taken) -> Result<bool, TwinError> {
    if !change.load(twin)? {
        return Ok(false);
    }
    if is_through(twin, ask)? {
        return Ok(true);
    }
    let (outcome, seen, _) = until_bad(twin, ask)?;
    if !matches!(verdict(twin, ask, &outcome), Verdict::Dead(_)) {
        return Ok(false);
    }
    let now = seen.taken(&conversation(ask))?;
    Ok(now.is_some_and(|now| !is_same(&now, taken)))
}

/// Whether two causes are the same but for the place of a rule in its chain.
fn is_same(one: &Taken, other: &Taken) -> bool {
    let same = match (&one.by, &other.by) {
        (By::Rule(one), By::Rule(other)) | (By::Policy(one), By::Policy(other)) => {
            one.holder == other.holder && one.text == other.text && one.stage == other.stage
        }
        (one, other) => one == other,
    };
    same && one.direction == other.direction
}

/// Whether a connection that died comes through at one of some more tries.
fn passes_at_times(twin: &Twin, ask: &Ask<'_>) -> Result<bool, TwinError> {
    let mut talker = twin.talker()?;
    let mut tries = (0..TRIES).map(|_| tried(twin, &mut talker, ask));
    let passes = tries.any(|verdict| verdict == Verdict::AsWanted);
    twin.enter()?;
    Ok(passes)
}

/// Tries the other dead connections in a twin without the causes of one. Those that come through had some of
/// the same causes: each without which alone it is dead still.
fn share(
    twin: &mut Twin,
    judged: &mut [Judged<'_>],
    forward: &Forward,
    found: &Death,
    change: Option<&Change>,
    deadline: Instant,
) -> Result<(), TwinError> {
    if !judged.iter().any(|one| is_dead(&one.verdict)) {
        return Ok(());
    }
    let all: Vec<usize> = (0..found.causes.len()).collect();
    // A rule that accepts packets before a chain helps those, too, that another rule of the chain takes.
    let is_broad = |cure: &Cure| matches!(cure, Cure::AcceptInChain { .. });
    if found.cures.iter().any(is_broad) && !is_without(twin, found, &all, change, deadline)? {
        return Ok(());
    }
    // Without the check for the reverse path a reply may still leave by another interface.
    let is_about_route_back = found
        .causes
        .iter()
        .any(|taken| matches!(&taken.by, By::Kernel(KernelReason::ReversePath)));
    let passes = |twin: &Twin, ask: &Ask<'_>| {
        if is_about_route_back {
            is_through(twin, ask)
        } else {
            is_as_wanted(twin, ask)
        }
    };
    let mut passing = Vec::new();
    for (at, one) in judged.iter().enumerate() {
        if Instant::now() >= deadline {
            break;
        }
        if is_dead(&one.verdict) && passes(twin, &one.ask)? {
            passing.push((at, Vec::new()));
        }
    }
    if is_about_route_back && !passing.is_empty() {
        // Replies to some may leave by another interface as the machine is.
        if !is_without(twin, found, &[], change, deadline)? {
            return Ok(());
        }
        let mut still = Vec::new();
        for (at, causes) in passing {
            if !is_through(twin, &judged[at].ask)? {
                still.push((at, causes));
            }
        }
        passing = still;
    }
    for cause in &all {
        // Without a single one they were dead from the beginning.
        let others: Vec<usize> = all.iter().copied().filter(|one| one != cause).collect();
        if !others.is_empty() && !is_without(twin, found, &others, change, deadline)? {
            return Ok(());
        }
        for (at, causes) in &mut passing {
            if Instant::now() >= deadline {
                return Ok(());
            }
            if others.is_empty() || !passes(twin, &judged[*at].ask)? {
                causes.push(*cause);
            }
        }
    }
    // `apply` mends much at once: one that it helps may have died of something else.
    if found.cures.contains(&Cure::Apply) {
        if !is_without(twin, found, &[], change, deadline)? {
            return Ok(());
        }
        let mut alike = Vec::new();
        for (at, causes) in passing.into_iter().take(ALIKE) {
            if Instant::now() >= deadline {
                break;
            }
            if let Some(first) = causes.first()
                && begins_with(twin, &judged[at].ask, &found.causes[*first])?
            {
                alike.push((at, causes));
            }
        }
        passing = alike;
    }
    let mut by_causes: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
    for (at, causes) in passing {
        if !causes.is_empty() {
            by_causes.entry(causes).or_default().push(at);
        }
    }
    for (causes, all_of_them) in by_causes {
        // Some of the causes together may not be enough.
        let is_cured = causes == all
            || (is_without(twin, found, &causes, change, deadline)?
                && passes(twin, &judged[all_of_them[0]].ask)?);
        for at in all_of_them {
            let fits = judged[at].ask.forward == forward || !names_a_port(found, &causes);
            give(&mut judged[at].verdict, found, &causes, is_cured && fits);
        }
    }
    Ok(())
}

/// Whether a cure is a rule that names one forward's port: it helps no other.
fn names_a_port(found: &Death, causes: &[usize]) -> bool {
    let mut cures = causes.iter().map(|one| &found.cures[*one]);
    cures.any(|cure| matches!(cure, Cure::AcceptInChain { rule, .. } if rule.contains("dport")))
}

/// Gives a dead connection some of the causes of another, and their cures if they help.
fn give(verdict: &mut Verdict, found: &Death, causes: &[usize], is_cured: bool) {
    let Verdict::Dead(death) = verdict else {
        return;
    };
    let cures = causes.iter().filter(|_| is_cured);
    *death = Death {
        is_stuck: death.is_stuck,
        causes: causes
            .iter()
            .map(|one| found.causes[*one].clone())
            .collect(),
        cures: cures.map(|one| found.cures[*one].clone()).collect(),
        is_cured,
        behind: None,
        is_examined: true,
        failure: None,
    };
}

/// Whether a connection dies first of this cause, in a true copy.
fn begins_with(twin: &Twin, ask: &Ask<'_>, cause: &Taken) -> Result<bool, TwinError> {
    let (_, seen, _) = until_bad(twin, ask)?;
    let taken = seen.taken(&conversation(ask))?;
    Ok(taken.is_some_and(|taken| is_same(&taken, cause)))
}

/// Makes the twin anew, without some of the causes of a death, and returns whether that could be done in time.
fn is_without(
    twin: &mut Twin,
    found: &Death,
    causes: &[usize],
    change: Option<&Change>,
    deadline: Instant,
) -> Result<bool, TwinError> {
    if Instant::now() + twin.took() >= deadline {
        return Ok(false);
    }
    twin.renew()?;
    twin.change();
    let mut gone: Vec<usize> = Vec::new();
    for at in causes {
        // A rule of legacy stands where it stood when those before it were gone.
        let mut by = found.causes[*at].by.clone();
        let missing = (0..*at).rev().filter(|before| !gone.contains(before));
        for before in missing {
            moved(&mut by, &found.causes[before].by);
        }
        if !cure::take_out(twin, &by, &found.cures[*at], change)? {
            return Ok(false);
        }
        gone.push(*at);
    }
    Ok(true)
}

/// Moves the place of a rule down by one where another stands before it in its chain.
fn moved(by: &mut By, before: &By) {
    if let (By::Rule(rule), By::Rule(before)) = (by, before)
        && rule.holder == before.holder
        && let (Some(place), Some(other)) = (&mut rule.place, before.place)
        && other <= *place
    {
        *place += 1;
    }
}

/// Names the rule that lets a client in: without it alone the client is kept out. Where several do, it is the
/// last that accepts the packets before nvactl's own chains.
fn let_in(
    twin: &mut Twin,
    ask: &Ask<'_>,
    found: &mut Verdict,
    change: Option<&Change>,
) -> Result<(), TwinError> {
    let (outcome, seen, _) = repeat(twin, &ask.question)?;
    twin.enter()?;
    if !matches!(verdict(twin, ask, &outcome), Verdict::LetIn(_)) {
        *found = Verdict::Fickle(None);
        return Ok(());
    }
    let accepts = accepts(&seen, &conversation(ask))?;
    let mut blame = Blame {
        by: accepts.last().cloned().map(By::Rule),
        cure: None,
        is_examined: true,
    };
    twin.change();
    for (n, decided) in accepts.iter().enumerate() {
        if n > 0 {
            twin.renew()?;
            twin.change();
        }
        if cure::remove(decided)? && is_as_wanted(twin, ask)? {
            blame.by = Some(By::Rule(decided.clone()));
            blame.cure = blame.by.clone().map(Cure::Without);
            break;
        }
    }
    if let Some(change) = change {
        twin.renew()?;
        let is_loaded = change.load(twin)?;
        twin.change();
        if is_loaded && is_as_wanted(twin, ask)? {
            blame.cure = Some(Cure::Apply);
        }
    }
    *found = Verdict::LetIn(blame);
    Ok(())
}

/// Returns whether a connection does as it should. The calling thread is in the copy of the machine then.
fn is_as_wanted(twin: &Twin, ask: &Ask<'_>) -> Result<bool, TwinError> {
    let verdict = tried(twin, &mut twin.talker()?, ask);
    twin.enter()?;
    Ok(verdict == Verdict::AsWanted)
}

/// At most so many rules are tried as the one that lets a client in.
const ACCEPTS: usize = 6;

/// Returns the rules of others that accepted a client's packets where they are forwarded, before nvactl's own
/// chains saw them.
fn accepts(seen: &Seen, conversation: &Conversation) -> Result<Vec<Decided>, CauseError> {
    let mut found = Vec::new();
    let traced = seen
        .matched(conversation)
        .filter(|step| step.stage == Stage::Forward && step.accepts());
    for step in traced {
        if let Some(By::Rule(decided)) = seen.traced(step)? {
            if is_own(&decided) {
                break;
            }
            if !found.contains(&decided) {
                found.push(decided);
            }
        }
    }
    let family = Family::of(conversation.client);
    let legacy = seen.legacy.iter().filter(|counted| {
        counted.family == family && counted.stage == Stage::Forward && counted.target == "ACCEPT"
    });
    let legacy = legacy.filter_map(|counted| match by_legacy(counted) {
        By::Rule(decided) => Some(decided),
        _ => None,
    });
    found.extend(legacy.take_while(|decided| !is_own(decided)));
    found.truncate(ACCEPTS);
    Ok(found)
}

fn is_own(decided: &Decided) -> bool {
    match &decided.holder {
        Holder::Iptables { chain, .. } => chain.is_own(),
        Holder::Nft(chain) => ChainName::from(chain.name.as_str()).is_own(),
    }
}

/// Names the rule that gives a connection another source or destination, and tries what takes that back.
fn astray(
    twin: &mut Twin,
    ask: &Ask<'_>,
    found: &mut Verdict,
    change: Option<&Change>,
) -> Result<(), TwinError> {
    let (outcome, seen, _) = until_bad(twin, ask)?;
    let mut now = verdict(twin, ask, &outcome);
    let (Verdict::Source { blame, .. } | Verdict::Elsewhere { blame, .. }) = &mut now else {
        *found = Verdict::Fickle(None);
        return Ok(());
    };
    blame.is_examined = true;
    blame.by = seen.taken(&conversation(ask))?.map(|taken| taken.by);
    if let Some(change) = change {
        if change.load(twin)? && is_through(twin, ask)? {
            blame.cure = Some(Cure::Apply);
        } else {
            twin.renew()?;
        }
    }
    twin.change();
    if let (None, Some(By::Rule(decided))) = (&blame.cure, &blame.by)
        && cure::remove(decided)?
        && is_through(twin, ask)?
    {
        blame.cure = Some(Cure::Without(By::Rule(decided.clone())));
    }
    *found = now;
    Ok(())
}

/// What becomes of a connection of the machine itself to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeptIn {
    /// It does not reach the target in the twin, where every target answers: its own rules keep it in. The
    /// rule, where the kernel names it.
    By(Option<Taken>),
    /// It could not be tried, for this reason.
    Failed(String),
    /// The time was over before.
    NotAsked,
}

/// Opens connections from the copy of the machine itself, and returns the numbers of those of which it is not
/// known that they reach their targets.
pub fn kept_in(twin: &Twin, questions: &[Question], deadline: Instant) -> Vec<(usize, KeptIn)> {
    let mut kept = Vec::new();
    for (number, question) in questions.iter().enumerate() {
        let found = if Instant::now() >= deadline {
            Some(KeptIn::NotAsked)
        } else {
            match keeps(twin, question) {
                Ok(found) => found,
                Err(error) => Some(KeptIn::Failed(error.words())),
            }
        };
        kept.extend(found.map(|found| (number, found)));
    }
    kept
}

fn keeps(twin: &Twin, question: &Question) -> Result<Option<KeptIn>, TwinError> {
    let outcome = twin.talker()?.ask(question).map_err(TwinError::Socket)?;
    if matches!(outcome, Outcome::Answered(_)) {
        return Ok(None);
    }
    Ok(Some(KeptIn::By(taken(twin, question)?)))
}

/// Repeats a connection of no forward under watch, and names what takes it. The calling thread is in the copy
/// of the machine then.
pub(super) fn taken(twin: &Twin, question: &Question) -> Result<Option<Taken>, TwinError> {
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

/// Repeats a connection under watch, one with several targets until it goes wrong. The calling thread is in
/// the copy of the machine then.
fn until_bad(twin: &Twin, ask: &Ask<'_>) -> Result<(Outcome, Seen, Vec<Sighting>), TwinError> {
    let mut repeated = repeat(twin, &ask.question)?;
    for _ in 1..ask.times {
        if verdict(twin, ask, &repeated.0) != Verdict::AsWanted {
            break;
        }
        repeated = repeat(twin, &ask.question)?;
    }
    twin.enter()?;
    Ok(repeated)
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
    let verdict = tried(twin, &mut twin.talker()?, ask);
    twin.enter()?;
    let is_dead = matches!(verdict, Verdict::Dead(_));
    let is_strayed = is_dead && strayed(twin, ask, &sniffer.seen()).is_some();
    Ok(verdict == Verdict::AsWanted || is_strayed)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netfilter::backend::Backend;
    use crate::netfilter::names::TableName;
    use crate::twin::cause::{Direction, Fate};

    fn rule(place: usize, text: &str) -> By {
        By::Rule(Decided {
            stage: Stage::Forward,
            holder: Holder::Iptables {
                backend: Backend::Legacy,
                family: Family::V4,
                table: TableName::Filter,
                chain: ChainName::Forward,
            },
            handle: None,
            place: Some(place),
            text: text.to_owned(),
            owner: None,
        })
    }

    fn taken(by: By) -> Taken {
        Taken {
            by,
            direction: Direction::Request,
            fate: Fate::Dropped,
        }
    }

    /// `nvactl apply` may put a jump before a rule, which takes the packet all the same.
    #[test]
    fn a_rule_is_the_same_at_another_place() {
        let one = taken(rule(1, "-A FORWARD -j DROP"));
        assert!(is_same(&one, &taken(rule(2, "-A FORWARD -j DROP"))));
        assert!(!is_same(&one, &taken(rule(1, "-A FORWARD -p tcp -j DROP"))));
        assert!(!is_same(&one, &taken(By::NoRule)));
        let reply = Taken {
            direction: Direction::Reply,
            ..one.clone()
        };
        assert!(!is_same(&one, &reply));
    }

    #[test]
    fn a_rule_stands_one_place_lower_behind_one_that_is_there_again() {
        for (place, before, now) in [(3, 3, 4), (3, 1, 4), (3, 4, 3)] {
            let mut by = rule(place, "-A FORWARD -j DROP");
            moved(&mut by, &rule(before, "-A FORWARD -p tcp -j DROP"));
            assert_eq!(by, rule(now, "-A FORWARD -j DROP"));
        }
    }

    #[test]
    fn an_error_leaves_a_death_with_what_was_found_and_unexplained() {
        let error = TwinError::Socket(std::io::Error::other("no socket"));
        let mut verdict = Verdict::Dead(Death {
            causes: vec![taken(By::NoRule)],
            ..Death::default()
        });
        failed(&mut verdict, &error);
        let Verdict::Dead(death) = verdict else {
            panic!("it is dead");
        };
        assert_eq!(death.causes.len(), 1);
        assert!(death.is_examined && !death.is_cured);
        let words = "no connection can be opened in the copy: no socket";
        assert_eq!(death.failure.as_deref(), Some(words));
    }
}
