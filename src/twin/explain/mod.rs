//! The causes of connections that did not do as the spec says. Each search begins in a twin without changes: a
//! twin that a cure has changed is made again first.

mod let_in;
mod limit;
mod own;
mod share;

pub use own::{KeptIn, kept_in};

use super::Twin;
use super::TwinError;
use super::battery::Ask;
use super::cause::{By, Taken};
use super::cure;
use super::judge::{tried, verdict};
use super::repeat::{conversation, is_through, repeat, strayed, until_bad};
use super::rule_change::RuleChange;
use super::search::CauseSearch;
use super::verdict::{Cure, Death, Examination, Judged, Verdict};
use let_in::let_in;
use limit::agree;
use share::share;

/// The most causes of one connection, each found after the cure of the one before.
const CAUSES: usize = 5;
/// The most connections that are searched, of the living and of the dead; the rest is reported as a number.
const SEARCHED: usize = 24;
/// How often a connection is tried that may die by chance.
const TRIES: usize = 8;

/// Looks for the causes of the connections that did not do as the spec says. An error leaves its connection
/// unexplained.
pub fn explain(search: &mut CauseSearch<'_>, judged: &mut [Judged<'_>]) {
    look_for_causes(search, judged);
    agree(search, judged);
}

fn look_for_causes(search: &mut CauseSearch<'_>, judged: &mut [Judged<'_>]) {
    for pick in [is_unexplained_alive, Verdict::is_unexplained_death] {
        let mut left = SEARCHED;
        for at in 0..judged.len() {
            if !pick(&judged[at].verdict) {
                continue;
            }
            if left == 0 {
                pass_over(&mut judged[at].verdict);
                continue;
            }
            if search.is_over() {
                return;
            }
            if search.twin.is_changed() {
                if !search.has_time() {
                    return;
                }
                if let Err(error) = search.twin.renew() {
                    failed(&mut judged[at].verdict, &error);
                    return;
                }
            }
            left -= 1;
            if let Err(error) = explain_one(search, &mut judged[at]) {
                search.twin.change();
                failed(&mut judged[at].verdict, &error);
                continue;
            }
            if let Verdict::Dead(found) = &judged[at].verdict
                && found.is_cured
            {
                let found = found.clone();
                // The verdicts that were shared before an error stay valid.
                let subject = judged[at].ask.of;
                let _ = share(search, judged, subject, &found);
            }
        }
    }
}

/// Returns whether a connection came through, but not as the spec says, and no rule was looked for.
fn is_unexplained_alive(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::LetIn(blame)
        | Verdict::Source { blame, .. }
        | Verdict::Elsewhere { blame, .. } => !blame.is_examined,
        Verdict::Fickle(by) => by.is_none(),
        _ => false,
    }
}

/// Notes in a death why its causes are not looked for.
fn pass_over(verdict: &mut Verdict) {
    if let Verdict::Dead(death) = verdict {
        let why = format!("{SEARCHED} others that fail were looked into first");
        death.examination = Examination::Failed(why);
    }
}

/// Notes the error that ended a search.
fn failed(verdict: &mut Verdict, error: &TwinError) {
    match verdict {
        Verdict::Dead(death) => {
            let why = format!("the search failed: {}", error.words());
            death.examination = Examination::Failed(why);
        }
        Verdict::LetIn(blame)
        | Verdict::Source { blame, .. }
        | Verdict::Elsewhere { blame, .. } => blame.is_examined = true,
        _ => {}
    }
}

fn explain_one(search: &mut CauseSearch<'_>, judged: &mut Judged<'_>) -> Result<(), TwinError> {
    let Judged { ask, verdict } = judged;
    match verdict {
        Verdict::Dead(_) => dead(search, ask, verdict),
        Verdict::LetIn(_) => let_in(search, ask, verdict),
        Verdict::Source { .. } | Verdict::Elsewhere { .. } => astray(search, ask, verdict),
        Verdict::Fickle(_) => fickle(search, ask, verdict),
        _ => Ok(()),
    }
}

/// Names the rule that takes a connection at one try and not at another.
fn fickle(search: &CauseSearch<'_>, ask: &Ask<'_>, found: &mut Verdict) -> Result<(), TwinError> {
    let twin = &*search.twin;
    for _ in 0..TRIES {
        if search.is_over() {
            break;
        }
        let (outcome, seen, _) = repeat(twin, &ask.question)?;
        twin.enter()?;
        if matches!(verdict(twin, ask, &outcome), Verdict::Dead(_)) {
            let taken = seen.taken(&conversation(twin, ask))?;
            *found = Verdict::Fickle(taken.map(|taken| taken.by));
            return Ok(());
        }
    }
    Ok(())
}

/// Repeats a dead connection under watch, cures its cause, and repeats it again, until the connection comes
/// through or no cure is known.
fn dead(search: &mut CauseSearch<'_>, ask: &Ask<'_>, found: &mut Verdict) -> Result<(), TwinError> {
    let conversation = conversation(search.twin, ask);
    let has_chance = search.twin.has_chance();
    for round in 0..=CAUSES {
        let (outcome, seen, sightings) = until_bad(search.twin, ask)?;
        let now = verdict(search.twin, ask, &outcome);
        let Verdict::Dead(death) = found else {
            return Ok(());
        };
        death.examination = Examination::Done;
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
            // The connection comes through with the cures, and goes astray for another reason.
            Verdict::Behind(interface) => {
                death.behind = Some(interface);
                return Ok(());
            }
            _ => return Ok(()),
        }
        if let Some(interface) = strayed(search.twin, ask, &sightings) {
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
            let why = "the kernel's packet trace lost messages".to_owned();
            death.examination = Examination::Failed(why);
            None
        };
        let Some(taken) = taken else { return Ok(()) };
        if has_chance && death.causes.is_empty() && passes_at_times(search.twin, ask)? {
            *found = Verdict::Fickle(Some(taken.by));
            return Ok(());
        }
        // A rule may stand several times in its chain: after the first is removed, the next one is found.
        let is_gone = matches!(death.cures.last(), Some(Cure::Without(_)));
        let is_again = death
            .causes
            .last()
            .is_some_and(|known| known.is_same(&taken));
        if is_again && !is_gone || round == CAUSES {
            return Ok(());
        }
        death.causes.push(taken.clone());
        if search.is_over() {
            return Ok(());
        }
        match next_cure(search, ask, death, &taken)? {
            Some(cure) => death.cures.push(cure),
            None => return Ok(()),
        }
    }
    Ok(())
}

/// Removes a cause by the change that `nvactl apply` would make, or else by the gentlest cure. Returns `None` if no
/// cure is known.
fn next_cure(
    search: &mut CauseSearch<'_>,
    ask: &Ask<'_>,
    death: &Death,
    taken: &Taken,
) -> Result<Option<Cure>, TwinError> {
    // `nvactl apply` is tried first: it changes no rule of others.
    let is_applied = death.cures.contains(&Cure::Apply);
    if let Some(change) = search.change.filter(|_| !is_applied) {
        let is_cure = applied(search.twin, ask, change, taken)?;
        search.twin.change();
        if is_cure {
            return Ok(Some(Cure::Apply));
        }
        search.twin.renew()?;
        search.twin.change();
        for (taken, cure) in death.causes.iter().zip(&death.cures) {
            cure::again(search, &taken.by, cure)?;
        }
    }
    search.twin.change();
    cure::cure(search, ask, taken)
}

/// Loads the change that `nvactl apply` would make, and returns whether it removes a cause.
fn applied(
    twin: &Twin,
    ask: &Ask<'_>,
    change: &RuleChange,
    taken: &Taken,
) -> Result<bool, TwinError> {
    if !twin.load(change)? {
        return Ok(false);
    }
    if is_through(twin, ask)? {
        return Ok(true);
    }
    let (outcome, seen, _) = until_bad(twin, ask)?;
    if !matches!(verdict(twin, ask, &outcome), Verdict::Dead(_)) {
        return Ok(false);
    }
    let now = seen.taken(&conversation(twin, ask))?;
    Ok(now.is_some_and(|now| !now.is_same(taken)))
}

/// Returns whether a connection that died comes through at one of some more tries.
fn passes_at_times(twin: &Twin, ask: &Ask<'_>) -> Result<bool, TwinError> {
    let mut talker = twin.talker()?;
    let mut tries = (0..TRIES).map(|_| tried(twin, &mut talker, ask));
    let passes = tries.any(|verdict| verdict == Verdict::AsWanted);
    twin.enter()?;
    Ok(passes)
}

/// Names the rule that gives a connection another source or destination, and tries a cure.
fn astray(
    search: &mut CauseSearch<'_>,
    ask: &Ask<'_>,
    found: &mut Verdict,
) -> Result<(), TwinError> {
    let (outcome, seen, _) = until_bad(search.twin, ask)?;
    let mut now = verdict(search.twin, ask, &outcome);
    let (Verdict::Source { blame, .. } | Verdict::Elsewhere { blame, .. }) = &mut now else {
        *found = Verdict::Fickle(None);
        return Ok(());
    };
    blame.is_examined = true;
    let taken = seen.taken(&conversation(search.twin, ask))?;
    blame.by = taken.map(|taken| taken.by);
    if search.has_time()
        && let Some(change) = search.change
    {
        if search.twin.load(change)? && is_through(search.twin, ask)? {
            blame.cure = Some(Cure::Apply);
        } else {
            search.twin.renew()?;
        }
    }
    search.twin.change();
    if let (None, Some(By::Rule(decided))) = (&blame.cure, &blame.by)
        && cure::remove(decided)?
        && is_through(search.twin, ask)?
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
    use crate::twin::cause::{DecidingRule, Direction, Fate, Holder, Stage};

    pub(super) fn rule(place: usize, text: &str) -> By {
        By::Rule(DecidingRule {
            stage: Stage::Forward,
            holder: Holder::Iptables {
                backend: Backend::Legacy,
                family: Family::V4,
                table: TableName::Filter,
                chain: ChainName::Forward,
            },
            handle: None,
            place: Some(place),
            live_place: None,
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
        assert!(one.is_same(&taken(rule(2, "-A FORWARD -j DROP"))));
        assert!(!one.is_same(&taken(rule(1, "-A FORWARD -p tcp -j DROP"))));
        assert!(!one.is_same(&taken(By::NoRule)));
        let reply = Taken {
            direction: Direction::Reply,
            ..one.clone()
        };
        assert!(!one.is_same(&reply));
    }

    #[test]
    fn an_error_keeps_the_causes_that_were_found() {
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
        assert!(!death.is_cured);
        let words = "the search failed: no connection can be opened in the copy: no socket";
        assert_eq!(death.examination, Examination::Failed(words.to_owned()));
    }
}
