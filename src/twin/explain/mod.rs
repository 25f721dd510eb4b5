//! The causes of connections that did not go as they should. Each is looked for in a true copy of the
//! machine: a copy in which something was tried is made anew before the next.

mod let_in;
mod own;
mod repeat;
mod share;

use std::time::Instant;

pub use own::{KeptIn, kept_in};
pub(super) use repeat::{conversation, is_through, repeat, taken};

use super::battery::Ask;
use super::cause::{By, Taken};
use super::cure::{self, Change, Cure};
use super::judge::{Judged, Verdict, tried, verdict};
use super::{Twin, TwinError};
use let_in::let_in;
use repeat::{strayed, until_bad};
use share::share;

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
            if !pick(&judged[at].verdict) {
                continue;
            }
            if left == 0 {
                pass_over(&mut judged[at].verdict);
                continue;
            }
            if Instant::now() >= deadline {
                return;
            }
            if twin.is_changed() {
                if !has_time(twin, deadline) {
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

/// Says of a dead connection why its cause is not looked for.
fn pass_over(verdict: &mut Verdict) {
    if let Verdict::Dead(death) = verdict {
        death.is_examined = true;
        death.failure = Some(format!(
            "{LOOKED_INTO} others that fail were looked into first"
        ));
    }
}

fn failed(verdict: &mut Verdict, error: &TwinError) {
    match verdict {
        Verdict::Dead(death) => {
            death.is_examined = true;
            death.failure = Some(format!("the search failed: {}", error.words()));
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
        Verdict::LetIn(_) => let_in(twin, ask, verdict, change, deadline),
        Verdict::Source { .. } | Verdict::Elsewhere { .. } => {
            astray(twin, ask, verdict, change, deadline)
        }
        Verdict::Fickle(_) => fickle(twin, ask, verdict, deadline),
        _ => Ok(()),
    }
}

/// Names what takes a connection at times.
fn fickle(
    twin: &Twin,
    ask: &Ask<'_>,
    found: &mut Verdict,
    deadline: Instant,
) -> Result<(), TwinError> {
    for _ in 0..TRIES {
        if Instant::now() >= deadline {
            break;
        }
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
        // The same rule may stand there several times.
        let is_gone = matches!(death.cures.last(), Some(Cure::Without(_)));
        let is_again = death.causes.last().is_some_and(is_known);
        if is_again && !is_gone || round == CAUSES {
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

/// Whether the time suffices for a copy that is made anew.
fn has_time(twin: &Twin, deadline: Instant) -> bool {
    Instant::now() + twin.took() < deadline
}

/// Whether two causes are the same but for the place of a rule in its chain.
fn is_same(one: &Taken, other: &Taken) -> bool {
    one.by.is_same(&other.by) && one.direction == other.direction
}

/// Whether a connection that died comes through at one of some more tries.
fn passes_at_times(twin: &Twin, ask: &Ask<'_>) -> Result<bool, TwinError> {
    let mut talker = twin.talker()?;
    let mut tries = (0..TRIES).map(|_| tried(twin, &mut talker, ask));
    let passes = tries.any(|verdict| verdict == Verdict::AsWanted);
    twin.enter()?;
    Ok(passes)
}

/// Names the rule that gives a connection another source or destination, and tries what takes that back.
fn astray(
    twin: &mut Twin,
    ask: &Ask<'_>,
    found: &mut Verdict,
    change: Option<&Change>,
    deadline: Instant,
) -> Result<(), TwinError> {
    let (outcome, seen, _) = until_bad(twin, ask)?;
    let mut now = verdict(twin, ask, &outcome);
    let (Verdict::Source { blame, .. } | Verdict::Elsewhere { blame, .. }) = &mut now else {
        *found = Verdict::Fickle(None);
        return Ok(());
    };
    blame.is_examined = true;
    blame.by = seen.taken(&conversation(ask))?.map(|taken| taken.by);
    if has_time(twin, deadline)
        && let Some(change) = change
    {
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::net::Family;
    use crate::netfilter::backend::Backend;
    use crate::netfilter::names::{ChainName, TableName};
    use crate::twin::cause::{Decided, Direction, Fate, Holder, Stage};
    use crate::twin::judge::Death;

    pub(super) fn rule(place: usize, text: &str) -> By {
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
        let words = "the search failed: no connection can be opened in the copy: no socket";
        assert_eq!(death.failure.as_deref(), Some(words));
    }
}
