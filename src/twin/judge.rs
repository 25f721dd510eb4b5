//! Opens connections through a twin one after the other and judges each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use super::battery::{Ask, Wanted};
use super::connection_end::{ConnectionEnd, Reached};
use super::talk::Talker;
use super::verdict::{Blame, Death, Judged, Verdict};
use super::{Twin, TwinError};
use crate::forwards::Snat;
use crate::net::Family;

/// The kernel has done any work that it put off after this time.
const LATE: Duration = Duration::from_millis(50);
/// The most dead connections that are tried again before they are judged.
const AGAIN: usize = 24;

/// Opens every connection and judges it, without a search for causes.
///
/// # Errors
/// If no connection can be opened at all. An error at one connection becomes its [`Verdict::Failed`].
pub fn ask<'f>(
    twin: &mut Twin,
    asks: Vec<Ask<'f>>,
    deadline: Instant,
) -> Result<Vec<Judged<'f>>, TwinError> {
    if !twin.watched().is_empty() {
        // Packets of earlier connections do not count.
        let _ = counted(twin);
    }
    let mut judged = ask_all(twin, asks, deadline)?;
    meet_watched(twin, &mut judged, deadline);
    Ok(judged)
}

fn ask_all<'f>(
    twin: &Twin,
    asks: Vec<Ask<'f>>,
    deadline: Instant,
) -> Result<Vec<Judged<'f>>, TwinError> {
    let mut talker = twin.talker()?;
    let mut judged: Vec<Judged<'f>> = Vec::with_capacity(asks.len());
    let mut seen: BTreeMap<*const (), BTreeSet<SocketAddr>> = BTreeMap::new();
    for ask in asks {
        let seen = seen.entry(ask.of.key()).or_default();
        if ask.is_spare && ask.question.listeners.iter().all(|at| seen.contains(at)) {
            continue;
        }
        let verdict = if Instant::now() >= deadline {
            Verdict::NotAsked
        } else {
            tried_seeing(twin, &mut talker, &ask, seen)
        };
        judged.push(Judged { ask, verdict });
    }
    let is_silent = |judged: &&mut Judged<'f>| {
        matches!(judged.verdict, Verdict::Dead(_)) && judged.ask.wanted == Wanted::Through
    };
    if judged.iter_mut().any(|judged| is_silent(&judged)) && Instant::now() < deadline {
        thread::sleep(LATE);
        for judged in judged.iter_mut().filter(is_silent).take(AGAIN) {
            if Instant::now() >= deadline {
                break;
            }
            let again = tried(twin, &mut talker, &judged.ask);
            judged.verdict = second(again, twin.has_chance());
        }
    }
    Ok(judged)
}

/// Returns the verdict about a connection that died at the first try, by the second try. If rules choose by chance,
/// neither try says how the next one ends. Otherwise the kernel was late at the first.
fn second(again: Verdict, has_chance: bool) -> Verdict {
    match again {
        Verdict::Dead(_) | Verdict::Failed(_) => again,
        _ if has_chance => Verdict::Fickle(None),
        _ => again,
    }
}

/// Opens a connection, one with several targets until each was seen. Returns the first verdict that is not as wanted.
pub(super) fn tried(twin: &Twin, talker: &mut Talker<'_>, ask: &Ask<'_>) -> Verdict {
    tried_seeing(twin, talker, ask, &mut BTreeSet::new())
}

/// Adds the targets that were seen to `seen_by_all`.
fn tried_seeing(
    twin: &Twin,
    talker: &mut Talker<'_>,
    ask: &Ask<'_>,
    seen_by_all: &mut BTreeSet<SocketAddr>,
) -> Verdict {
    let mut seen: BTreeSet<SocketAddr> = BTreeSet::new();
    for _ in 0..ask.times {
        let outcome = match talker.ask(&ask.question) {
            Ok(outcome) => outcome,
            Err(error) => return Verdict::Failed(error.to_string()),
        };
        let verdict = verdict(twin, ask, &outcome);
        if verdict != Verdict::AsWanted {
            return verdict;
        }
        if let ConnectionEnd::Delivered(reached) = &outcome {
            seen.insert(reached.target);
            seen_by_all.insert(reached.target);
        }
        if ask.question.listeners.iter().all(|at| seen.contains(at)) {
            break;
        }
    }
    Verdict::AsWanted
}

/// Judges a connection by its outcome alone.
pub(super) fn verdict(twin: &Twin, ask: &Ask<'_>, outcome: &ConnectionEnd) -> Verdict {
    let is_target = |at: &SocketAddr| ask.question.listeners.contains(at);
    match (ask.wanted, outcome) {
        (Wanted::KeptOut, ConnectionEnd::Delivered(reached) | ConnectionEnd::Stuck(reached))
            if is_target(&reached.target) =>
        {
            Verdict::LetIn(Blame::default())
        }
        (Wanted::KeptOut, _) => Verdict::AsWanted,
        (Wanted::Through, ConnectionEnd::Delivered(reached)) => through(twin, ask, reached),
        (Wanted::Through, outcome) => Verdict::Dead(Death {
            is_stuck: matches!(outcome, ConnectionEnd::Stuck(_)),
            ..Death::default()
        }),
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
            blame: Blame::default(),
        };
    }
    if behind != ask.of.egress().as_str() {
        return Verdict::Behind(behind.clone());
    }
    let seen = source.ip();
    let meant = sources_of(twin, ask);
    if meant.iter().any(|addresses| addresses.contains(&seen)) {
        Verdict::AsWanted
    } else {
        Verdict::Source {
            seen,
            blame: Blame::default(),
        }
    }
}

/// Returns the source addresses that the spec gives a connection.
pub(super) fn sources_of(twin: &Twin, ask: &Ask<'_>) -> Vec<RangeInclusive<IpAddr>> {
    let (client, egress) = (ask.client.address, ask.of.egress().as_str());
    sources(twin, ask.of.snat(), client, egress)
}

/// Returns the source addresses that a connection of a client may have behind an egress.
pub(super) fn sources(
    twin: &Twin,
    snat: Snat,
    client: IpAddr,
    egress: &str,
) -> Vec<RangeInclusive<IpAddr>> {
    match snat {
        Snat::Addresses(range) => vec![range.first()..=range.last()],
        Snat::Client => vec![client..=client],
        Snat::Masquerade => {
            let link = twin.machine().link(egress);
            let own = link
                .into_iter()
                .flat_map(|link| link.of(Family::of(client)));
            let own = own.map(|address| address.net.addr());
            own.map(|address| address..=address).collect()
        }
    }
}

/// Finds the connections whose packets met a watched rule, whose effect on the live machine is not known. Most of the
/// time no packet met one, so that one look is enough.
fn meet_watched(twin: &mut Twin, judged: &mut [Judged<'_>], deadline: Instant) {
    if twin.watched().is_empty() {
        return;
    }
    if counted(twin).is_ok_and(|met| met.is_empty()) {
        return;
    }
    for some in judged.chunks_mut(TOGETHER) {
        if some.len() > 1 && Instant::now() < deadline && nothing_meets(twin, some) {
            continue;
        }
        meet_one_by_one(twin, some, deadline);
    }
}

/// How many connections are opened before the counters are read, since a program lists the rules each time.
const TOGETHER: usize = 64;

/// Returns whether none of some connections meets a watched rule.
fn nothing_meets(twin: &mut Twin, some: &[Judged<'_>]) -> bool {
    let Ok(mut talker) = twin.talker() else {
        return false;
    };
    for judged in some {
        let _ = tried(twin, &mut talker, &judged.ask);
    }
    drop(talker);
    counted(twin).is_ok_and(|met| met.is_empty())
}

fn meet_one_by_one(twin: &mut Twin, judged: &mut [Judged<'_>], deadline: Instant) {
    for judged in judged {
        if judged.verdict == Verdict::NotAsked {
            continue;
        }
        if Instant::now() >= deadline {
            judged.verdict = Verdict::NotAsked;
            continue;
        }
        match meets(twin, &judged.ask) {
            Ok(met) if met.is_empty() => {}
            Ok(met) => judged.verdict = Verdict::Unknown(met),
            // Packets of this connection may have met a watched rule.
            Err(error) => judged.verdict = Verdict::Failed(error.words()),
        }
    }
}

fn counted(twin: &mut Twin) -> Result<Vec<usize>, TwinError> {
    twin.enter()?;
    let mut met = twin.counted()?;
    // A copy treats the bytes of these connections as the machine does. Those of clients are not asked.
    met.retain(|number| !twin.watched()[*number].asks_for_bytes());
    Ok(met)
}

fn meets(twin: &mut Twin, ask: &Ask<'_>) -> Result<Vec<usize>, TwinError> {
    let _ = tried(twin, &mut twin.talker()?, ask);
    counted(twin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_died_once_and_passed_once_is_fickle() {
        let dead = Verdict::Dead(Death::default());
        let failed = Verdict::Failed("no socket".to_owned());
        for (again, verdict) in [
            (dead.clone(), dead),
            (failed.clone(), failed),
            (Verdict::AsWanted, Verdict::Fickle(None)),
            (Verdict::Behind("eth0".to_owned()), Verdict::Fickle(None)),
        ] {
            assert_eq!(second(again, true), verdict);
        }
        // If no rule chooses by chance, the kernel was late at the first try.
        assert_eq!(second(Verdict::AsWanted, false), Verdict::AsWanted);
    }
}
