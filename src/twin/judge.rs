//! Verdicts: the connections of a battery, opened through a twin one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use super::battery::{Ask, Wanted};
use super::cause::{By, Taken};
use super::cure::{Change, Cure};
use super::explain::explain;
use super::talk::{Outcome, Reached, Talker};
use super::{Twin, TwinError};
use crate::forwards::{Forward, Snat};
use crate::net::Family;

/// A kernel that puts off its work has done it by then.
const LATE: Duration = Duration::from_millis(50);
/// At most so many dead connections are tried again before they are judged.
const AGAIN: usize = 24;

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
        blame: Blame,
    },
    /// The target was reached by another interface than the spec says.
    Behind(String),
    /// Another host took it.
    Elsewhere {
        at: SocketAddr,
        blame: Blame,
    },
    /// It did not come through, or the answer did not come back.
    Dead(Death),
    /// Replies leave by another interface than the one by which the client comes in.
    Strayed(String),
    /// A client that should be kept out came through.
    LetIn(Blame),
    /// It came through one time and not another; the rule that took it, where the kernel names one.
    Fickle(Option<By>),
    /// Its packets met a rule whose state is not copied: the numbers are those of the twin's watched
    /// rules.
    Unknown(Vec<usize>),
    /// It could not be opened, for this reason.
    Failed(String),
    /// The time was over before.
    NotAsked,
}

/// What does something to a connection that comes through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blame {
    /// None where the kernel names no rule.
    pub by: Option<By>,
    /// A cure with which it goes as it should, tried in the twin.
    pub cure: Option<Cure>,
    /// Whether the rule was looked for.
    pub is_examined: bool,
}

/// How a connection died.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Death {
    /// The target was reached: the answer, or the rest of the request, did not come through.
    pub is_stuck: bool,
    /// One behind the other: each took the connection once the one before was gone.
    pub causes: Vec<Taken>,
    /// The cure of each cause, as far as there is one.
    pub cures: Vec<Cure>,
    /// Whether the cures, all together, let it through.
    pub is_cured: bool,
    /// With the cures it comes out behind this interface, which is not the spec's.
    pub behind: Option<String>,
    /// Whether its causes were looked for.
    pub is_examined: bool,
    /// An error for which the search ended.
    pub failure: Option<String>,
}

/// Opens every connection and judges it; then looks for the causes of the dead. What the time does not
/// suffice for is [`Verdict::NotAsked`], or a [`Death`] that is not examined. `change` is what `nvactl apply`
/// would load: the first cure that is tried. The twin is changed by cures.
///
/// # Errors
/// When no connection can be opened at all.
pub fn judge<'f>(
    twin: &mut Twin,
    asks: Vec<Ask<'f>>,
    change: Option<&Change>,
    deadline: Instant,
) -> Result<Vec<Judged<'f>>, TwinError> {
    let mut judged = ask(twin, asks, deadline)?;
    explain(twin, &mut judged, change, deadline);
    Ok(judged)
}

/// Opens every connection and judges it, without a look at causes.
///
/// # Errors
/// When no connection can be opened at all. An error at one connection is its [`Verdict::Failed`].
pub fn ask<'f>(
    twin: &mut Twin,
    asks: Vec<Ask<'f>>,
    deadline: Instant,
) -> Result<Vec<Judged<'f>>, TwinError> {
    if !twin.watched().is_empty() {
        // What was opened before concerns none of these.
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
    let mut seen: BTreeMap<*const Forward, BTreeSet<SocketAddr>> = BTreeMap::new();
    for ask in asks {
        let seen = seen.entry(std::ptr::from_ref(ask.forward)).or_default();
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

/// Returns the verdict about a connection that died at first, by a second try. Where rules choose by chance
/// neither of the two tells what becomes of the next; elsewhere the kernel was late with the first.
fn second(again: Verdict, has_chance: bool) -> Verdict {
    match again {
        Verdict::Dead(_) | Verdict::Failed(_) => again,
        _ if has_chance => Verdict::Fickle(None),
        _ => again,
    }
}

/// Opens a connection, for several targets until each was seen, and judges it by the first that does not go
/// as it should.
pub(super) fn tried(twin: &Twin, talker: &mut Talker<'_>, ask: &Ask<'_>) -> Verdict {
    tried_seeing(twin, talker, ask, &mut BTreeSet::new())
}

/// Notes the targets that are seen beside those that were seen before.
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
        if let Outcome::Answered(reached) = &outcome {
            seen.insert(reached.target);
            seen_by_all.insert(reached.target);
        }
        if ask.question.listeners.iter().all(|at| seen.contains(at)) {
            break;
        }
    }
    Verdict::AsWanted
}

/// Judges by the outcome alone.
pub(super) fn verdict(twin: &Twin, ask: &Ask<'_>, outcome: &Outcome) -> Verdict {
    let is_target = |at: &SocketAddr| ask.question.listeners.contains(at);
    match (ask.wanted, outcome) {
        (Wanted::KeptOut, Outcome::Answered(reached) | Outcome::Stuck(reached))
            if is_target(&reached.target) =>
        {
            Verdict::LetIn(Blame::default())
        }
        (Wanted::KeptOut, _) => Verdict::AsWanted,
        (Wanted::Through, Outcome::Answered(reached)) => through(twin, ask, reached),
        (Wanted::Through, outcome) => Verdict::Dead(Death {
            is_stuck: matches!(outcome, Outcome::Stuck(_)),
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
        Verdict::Source {
            seen,
            blame: Blame::default(),
        }
    }
}

/// Finds the connections whose packets met a watched rule: what such a rule does on the live machine is not
/// known here. A rule that nothing met concerns nobody, so most of the time one look is enough.
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

/// So many connections are asked about at once, since a program lists the rules each time.
const TOGETHER: usize = 64;

/// Whether none of some connections meets a watched rule.
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
            // Its packets may have met a watched rule.
            Err(error) => judged.verdict = Verdict::Failed(error.words()),
        }
    }
}

fn counted(twin: &mut Twin) -> Result<Vec<usize>, TwinError> {
    twin.enter()?;
    twin.counted()
}

fn meets(twin: &mut Twin, ask: &Ask<'_>) -> Result<Vec<usize>, TwinError> {
    let _ = tried(twin, &mut twin.talker()?, ask);
    counted(twin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_died_once_and_passed_once_is_not_known() {
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
        // Without such a rule the kernel was late.
        assert_eq!(second(Verdict::AsWanted, false), Verdict::AsWanted);
    }
}
