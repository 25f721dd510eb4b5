//! Causes that one dead connection has in common with others.

use std::collections::BTreeMap;
use std::time::Instant;

use super::repeat::{conversation, is_as_wanted, is_through, until_bad};
use super::{ALIKE, has_time, is_dead, is_same};
use crate::forwards::Forward;
use crate::twin::battery::Ask;
use crate::twin::cause::{By, KernelReason, Taken};
use crate::twin::cure::{self, Change, Cure};
use crate::twin::judge::{Death, Judged, Verdict};
use crate::twin::{Twin, TwinError};

/// Tries the other dead connections in a twin without the causes of one. Those that come through had some of
/// the same causes: each without which alone it is dead still.
pub fn share(
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
    if !has_time(twin, deadline) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::explain::tests::rule;

    #[test]
    fn a_rule_stands_one_place_lower_behind_one_that_is_there_again() {
        for (place, before, now) in [(3, 3, 4), (3, 1, 4), (3, 4, 3)] {
            let mut by = rule(place, "-A FORWARD -j DROP");
            moved(&mut by, &rule(before, "-A FORWARD -p tcp -j DROP"));
            assert_eq!(by, rule(now, "-A FORWARD -j DROP"));
        }
    }
}
