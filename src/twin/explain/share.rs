//! Causes that one dead connection shares with others.

use std::collections::BTreeMap;

use crate::twin::battery::{Ask, Subject};
use crate::twin::cause::{By, KernelReason, Taken};
use crate::twin::cure;
use crate::twin::repeat::{conversation, is_as_wanted, is_through, until_bad};
use crate::twin::search::CauseSearch;
use crate::twin::verdict::{Cure, Death, Examination, Judged, Verdict};
use crate::twin::{Twin, TwinError};

/// The most connections that `apply` helps and that are compared with the one that was searched.
const ALIKE: usize = 200;

/// A dead connection that comes through without the causes of another, with its share of these causes.
type Sharing = (usize, Vec<usize>);

/// Repeats the other dead connections in a twin without the causes of one. Those that come through shared some
/// of its causes: a connection has a cause if it is still dead when only that cause is left.
pub fn share(
    search: &mut CauseSearch<'_>,
    judged: &mut [Judged<'_>],
    subject: Subject<'_>,
    found: &Death,
) -> Result<(), TwinError> {
    let is_dead = |one: &Judged<'_>| one.verdict.is_unexplained_death();
    if !judged.iter().any(is_dead) {
        return Ok(());
    }
    let all: Vec<usize> = (0..found.causes.len()).collect();
    // A rule that accepts packets in front of a chain also helps packets that another rule of the chain takes.
    let is_broad = |cure: &Cure| matches!(cure, Cure::AcceptInChain { .. });
    if found.cures.iter().any(is_broad) && !is_without(search, found, &all)? {
        return Ok(());
    }
    let is_about_route_back = found
        .causes
        .iter()
        .any(|taken| matches!(&taken.by, By::Kernel(KernelReason::ReversePath)));
    let passes = |twin: &Twin, ask: &Ask<'_>| {
        // If the reverse path check is off, a reply may still leave by another interface.
        if is_about_route_back {
            is_through(twin, ask)
        } else {
            is_as_wanted(twin, ask)
        }
    };
    // Packets that leave by one interface are requests to outbound entries and replies to forwards, so the same cause has
    // other words there.
    let is_entry = |of: Subject<'_>| matches!(of, Subject::Outbound(_));
    let is_alike = |one: &Judged<'_>| is_entry(one.ask.of) == is_entry(subject);
    let mut sharing: Vec<Sharing> = Vec::new();
    for (at, one) in judged.iter().enumerate() {
        if search.is_over() {
            break;
        }
        if is_dead(one) && is_alike(one) && passes(search.twin, &one.ask)? {
            sharing.push((at, Vec::new()));
        }
    }
    if is_about_route_back && !sharing.is_empty() {
        // Replies to some clients leave by another interface with the cause in place: they are not dead of it.
        if !is_without(search, found, &[])? {
            return Ok(());
        }
        let mut still = Vec::new();
        for (at, causes) in sharing {
            if !is_through(search.twin, &judged[at].ask)? {
                still.push((at, causes));
            }
        }
        sharing = still;
    }
    for cause in &all {
        // A single cause is the state in which they were dead from the beginning.
        let others: Vec<usize> = all.iter().copied().filter(|one| one != cause).collect();
        if !others.is_empty() && !is_without(search, found, &others)? {
            return Ok(());
        }
        for (at, causes) in &mut sharing {
            if search.is_over() {
                return Ok(());
            }
            if others.is_empty() || !passes(search.twin, &judged[*at].ask)? {
                causes.push(*cause);
            }
        }
    }
    if found.cures.contains(&Cure::Apply) {
        let Some(alike) = beginning_alike(search, judged, found, sharing)? else {
            return Ok(());
        };
        sharing = alike;
    }
    let mut by_causes: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
    for (at, causes) in sharing {
        if !causes.is_empty() {
            by_causes.entry(causes).or_default().push(at);
        }
    }
    for (causes, all_of_them) in by_causes {
        // The cures of some of the causes may not be enough together.
        let is_cured = causes == all
            || (is_without(search, found, &causes)?
                && passes(search.twin, &judged[all_of_them[0]].ask)?);
        for at in all_of_them {
            let fits = judged[at].ask.of == subject || !is_of_one(found, &causes);
            give(&mut judged[at].verdict, found, &causes, is_cured && fits);
        }
    }
    Ok(())
}

/// Keeps the connections that die first of the cause that is theirs: `apply` repairs much at once, so a
/// connection that it helps may have died of something else. Returns `None` if the time is over.
fn beginning_alike(
    search: &mut CauseSearch<'_>,
    judged: &[Judged<'_>],
    found: &Death,
    sharing: Vec<Sharing>,
) -> Result<Option<Vec<Sharing>>, TwinError> {
    if !is_without(search, found, &[])? {
        return Ok(None);
    }
    let mut alike = Vec::new();
    for (at, causes) in sharing.into_iter().take(ALIKE) {
        if search.is_over() {
            break;
        }
        if let Some(first) = causes.first()
            && begins_with(search.twin, &judged[at].ask, &found.causes[*first])?
        {
            alike.push((at, causes));
        }
    }
    Ok(Some(alike))
}

/// Returns whether a cure is a rule that names a port or sources, which may help no other forward or entry.
fn is_of_one(found: &Death, causes: &[usize]) -> bool {
    let mut cures = causes.iter().map(|one| &found.cures[*one]);
    let names = |rule: &str| rule.contains("dport") || rule.contains("saddr");
    cures.any(|cure| matches!(cure, Cure::AcceptInChain { rule, .. } if names(rule)))
}

/// Gives a dead connection some of the causes of another, with their cures if these help.
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
        examination: Examination::Done,
    };
}

/// Returns whether a connection dies first of this cause, in a twin without changes.
fn begins_with(twin: &Twin, ask: &Ask<'_>, cause: &Taken) -> Result<bool, TwinError> {
    let (_, seen, _) = until_bad(twin, ask)?;
    let taken = seen.taken(&conversation(twin, ask))?;
    Ok(taken.is_some_and(|taken| taken.is_same(cause)))
}

/// Makes the twin again, without some of the causes of a death. Returns whether that could be done in time.
pub fn is_without(
    search: &mut CauseSearch<'_>,
    found: &Death,
    causes: &[usize],
) -> Result<bool, TwinError> {
    if !search.has_time() {
        return Ok(false);
    }
    search.twin.renew()?;
    search.twin.change();
    let mut gone: Vec<usize> = Vec::new();
    for at in causes {
        // The place of a rule of iptables-legacy was noted after the rules of earlier causes were removed.
        let mut by = found.causes[*at].by.clone();
        let missing = (0..*at).rev().filter(|before| !gone.contains(before));
        for before in missing {
            moved(&mut by, &found.causes[before].by);
        }
        if !cure::remove_cause(search, &by, &found.cures[*at])? {
            return Ok(false);
        }
        gone.push(*at);
    }
    Ok(true)
}

/// Moves the place of a rule down by one if another rule stands before it in its chain.
fn moved(by: &mut By, before: &By) {
    if let (By::Rule(rule), By::Rule(before)) = (by, before)
        && rule.holder == before.holder
        && let (Some(place), Some(other)) = (&mut rule.place, before.place)
        && other <= *place
    {
        *place += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::explain::tests::rule;

    #[test]
    fn a_rule_moves_down_behind_a_rule_that_is_back() {
        for (place, before, now) in [(3, 3, 4), (3, 1, 4), (3, 4, 3)] {
            let mut by = rule(place, "-A FORWARD -j DROP");
            moved(&mut by, &rule(before, "-A FORWARD -p tcp -j DROP"));
            assert_eq!(by, rule(now, "-A FORWARD -j DROP"));
        }
    }
}
