//! One limit on segments for all connections that die of long packets, because a spec has one `mss`.

use super::share::is_without;
use crate::net::{Family, Protocol};
use crate::netfilter::target::Mss;
use crate::twin::battery::{Ask, Wanted};
use crate::twin::repeat::{is_as_wanted, is_through};
use crate::twin::search::CauseSearch;
use crate::twin::verdict::{Cure, Death, Judged, Verdict};
use crate::twin::{TwinError, mss};

/// Gives all deaths that a limit cures the same limit: the smallest, if all these connections come through with it, and
/// also those that need the spec's `clamp` now. If no limit was tried for all, these deaths have no cure.
pub fn agree(search: &mut CauseSearch<'_>, judged: &mut [Judged<'_>]) {
    let limits: Vec<Mss> = judged.iter().filter_map(limit_of).collect();
    let numbers = limits.iter().filter_map(|limit| match limit {
        Mss::Bytes(bytes) => Some(*bytes),
        Mss::Clamp => None,
    });
    let Some(least) = numbers.min() else { return };
    let is_same = limits.iter().all(|limit| *limit == Mss::Bytes(least));
    // A number takes the place of a larger one without harm, but `clamp` may be lower on another path.
    if is_same && search.limit != Some(Mss::Clamp) {
        return;
    }
    let common = for_all(search, judged, least).unwrap_or_default();
    search.twin.change();
    for one in judged.iter_mut().filter(|one| limit_of(one).is_some()) {
        let Verdict::Dead(death) = &mut one.verdict else {
            continue;
        };
        match common {
            Some(bytes) => limited(death, Mss::Bytes(bytes)),
            None => death.is_cured = false,
        }
    }
}

/// Returns the limit that cures a death.
fn limit_of(judged: &Judged<'_>) -> Option<Mss> {
    let Verdict::Dead(death) = &judged.verdict else {
        return None;
    };
    let mut cures = death.cures.iter().filter(|_| death.is_cured);
    cures.find_map(|cure| match cure {
        Cure::SegmentLimit(limit, _) => Some(*limit),
        _ => None,
    })
}

/// Puts another limit into the cures of a death.
fn limited(death: &mut Death, limit: Mss) {
    for cure in &mut death.cures {
        if let Cure::SegmentLimit(old, _) = cure {
            *old = limit;
        }
    }
}

/// Returns the largest number, beginning with this one, with which all connections come through. `None` if there is none
/// or the time is over.
fn for_all(
    search: &mut CauseSearch<'_>,
    judged: &[Judged<'_>],
    mut bytes: u16,
) -> Result<Option<u16>, TwinError> {
    loop {
        let mut found = failing_of_dead(search, judged, bytes)?;
        if matches!(found, LimitOutcome::AllPass) && search.limit == Some(Mss::Clamp) {
            found = failing_of_clamped(search, judged, bytes)?;
        }
        match found {
            LimitOutcome::AllPass => return Ok(Some(bytes)),
            LimitOutcome::Late => return Ok(None),
            LimitOutcome::Failing(ask) => match mss::number(search.twin, ask, bytes)? {
                Some(lower) => bytes = lower,
                None => return Ok(None),
            },
        }
    }
}

/// The result of one limit for many connections.
enum LimitOutcome<'a, 'f> {
    AllPass,
    /// The first connection that does not come through.
    Failing(&'a Ask<'f>),
    /// The time is over.
    Late,
}

/// Tries a limit for the dead connections that had another one.
fn failing_of_dead<'a, 'f>(
    search: &mut CauseSearch<'_>,
    judged: &'a [Judged<'f>],
    bytes: u16,
) -> Result<LimitOutcome<'a, 'f>, TwinError> {
    // The death whose cures are in the twin.
    let mut cured: Option<Death> = None;
    for one in judged {
        let (Some(limit), Verdict::Dead(death)) = (limit_of(one), &one.verdict) else {
            continue;
        };
        if limit == Mss::Bytes(bytes) {
            continue;
        }
        let mut death = death.clone();
        limited(&mut death, Mss::Bytes(bytes));
        let is_ready = cured
            .as_ref()
            .is_some_and(|known| (&known.causes, &known.cures) == (&death.causes, &death.cures));
        let all: Vec<usize> = (0..death.causes.len()).collect();
        if search.is_over() || !is_ready && !is_without(search, &death, &all)? {
            return Ok(LimitOutcome::Late);
        }
        if !is_through(search.twin, &one.ask)? {
            return Ok(LimitOutcome::Failing(&one.ask));
        }
        cured = Some(death);
    }
    Ok(LimitOutcome::AllPass)
}

/// Tries a limit in place of the spec's `clamp` for the TCP connections that come through now.
fn failing_of_clamped<'a, 'f>(
    search: &mut CauseSearch<'_>,
    judged: &'a [Judged<'f>],
    bytes: u16,
) -> Result<LimitOutcome<'a, 'f>, TwinError> {
    if !search.has_time() {
        return Ok(LimitOutcome::Late);
    }
    search.twin.renew()?;
    search.twin.change();
    for family in Family::ALL {
        let passing = |one: &&Judged<'_>| {
            one.verdict == Verdict::AsWanted
                && one.ask.wanted == Wanted::Through
                && one.ask.question.protocol == Protocol::Tcp
                && one.ask.of.family() == family
        };
        let mut asks = judged.iter().filter(passing).map(|one| &one.ask).peekable();
        if asks.peek().is_some() && !mss::instead(family, Mss::Bytes(bytes))? {
            return Ok(LimitOutcome::Late);
        }
        for ask in asks {
            if search.is_over() {
                return Ok(LimitOutcome::Late);
            }
            if !is_as_wanted(search.twin, ask)? {
                return Ok(LimitOutcome::Failing(ask));
            }
        }
    }
    Ok(LimitOutcome::AllPass)
}
