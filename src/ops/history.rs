//! The history: the record of a change, and the choice of the change that a rollback undoes.

use std::time::{Duration, UNIX_EPOCH};

use super::log::{self, ChangeEvent, LogEntry};
use super::records::{
    Brought, Change, Decision, KeptRule, KeptSpec, Owned, SavedState, Undone, VERSION,
    VERSION_WITH_FOREIGN,
};
use super::state::{State, StateError, seconds_now};
use super::transaction::owned_digest;
use crate::diff;
use crate::diff::drift::ForwardNames;
use crate::host::{namespace, session};
use crate::net::Family;
use crate::net::per_family::PerFamily;
use crate::net::words::counted;
use crate::netfilter::names::Policy;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::parse;
use crate::plan::digest::Digest;

/// The facts about a change in the history, beside the rules from before it.
#[derive(Debug, Default)]
pub struct ChangeDetails {
    /// The spec that the change loads.
    pub spec: Option<KeptSpec>,
    pub forwards: ForwardNames,
    /// For a rollback, the number of the change to go back behind.
    pub back_before: Option<u64>,
    /// The foreign rules that the change takes out.
    pub adopted: Vec<KeptRule>,
    /// The foreign rules that the change puts back.
    pub returned: Vec<KeptRule>,
}

impl ChangeDetails {
    fn version(&self) -> u32 {
        if self.adopted.is_empty() && self.returned.is_empty() {
            VERSION
        } else {
            VERSION_WITH_FOREIGN
        }
    }
}

impl Change {
    /// Returns the record of a change that is about to be made.
    #[must_use]
    pub fn new(
        state: &State,
        action: String,
        live: &PerFamily<&Ruleset>,
        want: &PerFamily<Ruleset>,
        about: ChangeDetails,
    ) -> Self {
        let owned = live.zip(want.as_ref());
        let owned = owned.map(|_, (before, want)| Owned {
            rules: diff::restorable(before, &Ruleset::default()).to_string(),
            sets_policy: diff::sets_policy(want),
        });
        let both = live.zip(want.as_ref());
        let closed = both.map(|_, (live, want)| {
            let policy = if diff::sets_policy(want) { want } else { live };
            policy.forward_policy() == Policy::Drop
        });
        let loaded = want.map(|_, want| owned_digest(want, diff::sets_policy(want)));
        let rule_count = want.map(|_, want| diff::own(want).rule_count());
        Self {
            version: about.version(),
            time: seconds_now(),
            namespace: state.namespace().to_owned(),
            action,
            v4: owned.v4,
            v6: owned.v6,
            spec: about.spec,
            forwards: about.forwards,
            who: Some(session::who()),
            back_before: about.back_before,
            undone: None,
            boot: namespace::boot().ok(),
            closed: closed.v4,
            closed_v6: closed.v6,
            loaded: Some(loaded.v4),
            loaded_v6: loaded.v6,
            rule_count: Some(rule_count.v4),
            rule_count_v6: rule_count.v6,
            adopted: about.adopted,
            returned: about.returned,
        }
    }
}

/// Writes an event of a change to the system log, with the person who decided on it or else made it.
pub fn log(change: &Change, event: ChangeEvent) {
    let maker = match event {
        ChangeEvent::Confirmed | ChangeEvent::Cancelled | ChangeEvent::Discarded => None,
        ChangeEvent::Made
        | ChangeEvent::MadeToConfirm { .. }
        | ChangeEvent::Uncertain
        | ChangeEvent::TimedOut => change.who.clone(),
    };
    log::write(&LogEntry {
        event,
        action: &change.action,
        who: &maker.unwrap_or_else(session::who),
        spec: change.spec.as_ref().map(|spec| spec.digest),
        forwards: &change.forwards,
    });
}

/// Whether a recorded change set the FORWARD policy of IPv6. In doubt it did not.
#[must_use]
pub fn has_set_policy_v6(state: &State) -> bool {
    let numbers = state.numbers().unwrap_or_default();
    numbers.into_iter().rev().any(|number| {
        let change = state.change(number).ok().flatten();
        change.is_some_and(|change| change.v6.is_some_and(|owned| owned.sets_policy))
    })
}

/// Describes when and why a change was undone.
#[must_use]
pub fn undone_words(undone: &Undone) -> String {
    let why = match undone.why {
        Decision::TimedOut => "nobody confirmed it in time",
        _ => "it was cancelled",
    };
    let ended = match undone.ended {
        0 => String::new(),
        ended => format!("; ended {} that only it made", counted(ended, "connection")),
    };
    let left = undone.left.iter().map(|left| format!("; {left}"));
    let left: String = left.collect();
    format!("undone at {}: {why}{ended}{left}", moment(undone.time))
}

/// Formats the time of a record, in seconds since 1970.
#[must_use]
pub fn moment(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

/// Returns the change that a rollback without a number undoes: the newest below a number that has not been
/// undone, or `None` if none is left. A rollback is not such a change: it is skipped together with the
/// changes that it undid. Nor is a repair: before it, the rules were damaged.
#[must_use]
pub fn next_to_undo(changes: &[(u64, Change)], mut below: u64) -> Option<u64> {
    for (n, (number, change)) in changes.iter().enumerate() {
        if *number >= below || change.undone.is_some() {
            continue;
        }
        match change.back_before {
            Some(before) => below = before,
            None if is_repair(&changes[n..]) => {}
            None => return Some(*number),
        }
    }
    None
}

/// Whether the newest of these changes only restored the rules that the change before it had loaded.
#[must_use]
pub fn is_repair(changes: &[(u64, Change)]) -> bool {
    let loaded = |change: &Change| Some((change.loaded?, change.loaded_v6));
    let [(_, change), ..] = changes else {
        return false;
    };
    let before = change_before(changes).and_then(|(_, before)| loaded(before));
    let is_own_alone = change.adopted.is_empty() && change.returned.is_empty();
    change.back_before.is_none() && is_own_alone && before.is_some() && loaded(change) == before
}

/// Returns the foreign rules that were loaded before a change and that it or a later one took out, those of the newest
/// change first. Rules that are put back and taken out again were not loaded before. `changes` are newest first.
#[must_use]
pub fn still_out(changes: &[(u64, Change)], from: u64) -> Vec<KeptRule> {
    let since = changes.iter().filter(|(number, _)| *number >= from);
    let standing = since.filter(|(_, change)| change.undone.is_none());
    let mut out: Vec<&KeptRule> = Vec::new();
    let mut back: Vec<&KeptRule> = Vec::new();
    for (_, change) in standing {
        for rule in &change.adopted {
            if !take(&mut back, rule) {
                out.push(rule);
            }
        }
        for rule in &change.returned {
            if !take(&mut out, rule) {
                back.push(rule);
            }
        }
    }
    out.into_iter().cloned().collect()
}

/// Takes a rule from a list. Returns whether it was there.
fn take(list: &mut Vec<&KeptRule>, rule: &KeptRule) -> bool {
    let at = list.iter().position(|one| one.is_same_rule(rule));
    at.map(|at| list.remove(at)).is_some()
}

/// Returns the newest change such that a rollback of it brings back all foreign rules that were taken out and are still
/// out, and the number of these rules. `changes` are newest first.
#[must_use]
pub fn brings_all_back(changes: &[(u64, Change)]) -> Option<(u64, usize)> {
    let all = still_out(changes, 0).len();
    let mut numbers = changes.iter().map(|(number, _)| *number);
    let number = numbers.find(|number| still_out(changes, *number).len() == all)?;
    (all > 0).then_some((number, all))
}

/// Returns the change that made the rules which the newest of these changes replaced.
fn change_before(changes: &[(u64, Change)]) -> Option<&(u64, Change)> {
    let mut earlier = changes.iter().skip(1);
    earlier.find(|(_, change)| change.undone.is_none())
}

/// Describes the damage to nvactl's rules before the newest of these changes, if others had changed them since
/// the change before it. After a reboot, the difference is no damage: the rules on disk were loaded.
#[must_use]
pub fn damage_before(changes: &[(u64, Change)]) -> Option<String> {
    let (number, change) = changes.first()?;
    let (earlier, before) = change_before(changes)?;
    if change.boot.is_none() || change.boot != before.boot {
        return None;
    }
    let loaded = PerFamily {
        v4: before.loaded?,
        v6: before.loaded_v6,
    };
    let each = change.owned().zip(before.owned()).zip(loaded.as_ref());
    each.iter().find_map(|(family, ((owned, made), loaded))| {
        let rules = parse::parse(&owned.rules).ok()?;
        if owned_digest(&rules, made.sets_policy) == **loaded {
            return None;
        }
        let count = before.rule_count(family);
        let how = match count.saturating_sub(rules.rule_count()) {
            0 => "others had changed them".to_owned(),
            missing => format!("{missing} of {} were missing", counted(count, "rule")),
        };
        Some(format!(
            "before change {number}, nvactl's {family} rules were not as change {earlier} had loaded them: {how}"
        ))
    })
}

/// Names the changes that this version cannot read, a line each.
///
/// # Errors
/// When the folder cannot be read.
pub fn unreadable(state: &State, changes: &[(u64, Change)]) -> Result<Vec<String>, StateError> {
    let mut numbers = state.numbers()?;
    numbers.retain(|number| !changes.iter().any(|(kept, _)| kept == number));
    let each = numbers.iter();
    let lines = each.map(|number| format!("change {number} cannot be read and is skipped"));
    Ok(lines.collect())
}

/// The rules that nvactl loaded last.
#[derive(Debug)]
pub enum LastLoaded {
    Change(Box<Change>),
    /// The boot unit loaded them after the last change.
    Saved(Box<SavedState>),
}

impl LastLoaded {
    /// Returns the spec of the rules, if its text was recorded.
    #[must_use]
    pub fn spec(self) -> Option<KeptSpec> {
        match self {
            LastLoaded::Change(change) => change.spec,
            LastLoaded::Saved(saved) => saved.spec,
        }
    }

    /// Whether the last change removed all rules.
    #[must_use]
    pub fn is_removal(&self) -> bool {
        matches!(self, LastLoaded::Change(change) if change.spec.is_none())
    }

    /// Returns the number of rules of a family.
    #[must_use]
    pub fn rule_count(&self, family: Family) -> usize {
        match self {
            LastLoaded::Change(change) => change.rule_count(family),
            LastLoaded::Saved(saved) => {
                let rules = saved.owned().get(family).map(|owned| owned.ruleset());
                rules
                    .and_then(Result::ok)
                    .map_or(0, |rules| rules.rule_count())
            }
        }
    }

    /// Returns the digest of nvactl's rules of a family, if it is known.
    #[must_use]
    pub fn digest(&self, family: Family) -> Option<Digest> {
        match (self, family) {
            (LastLoaded::Change(change), Family::V4) => change.loaded,
            (LastLoaded::Change(change), Family::V6) => change.loaded_v6,
            (LastLoaded::Saved(saved), _) => {
                let owned = saved.owned();
                let owned = owned.get(family)?;
                let rules = owned.ruleset().ok()?;
                Some(owned_digest(&rules, owned.sets_policy))
            }
        }
    }

    /// Whether the rules set a family's FORWARD policy.
    #[must_use]
    pub fn sets_policy(&self, family: Family) -> bool {
        let owned = match self {
            LastLoaded::Change(change) => change.owned(),
            LastLoaded::Saved(saved) => saved.owned(),
        };
        owned.get(family).is_some_and(|owned| owned.sets_policy)
    }

    /// Whether the rules are a spec's that leaves a family's FORWARD policy alone.
    #[must_use]
    pub fn leaves_policy(&self, family: Family) -> bool {
        let (spec, owned) = match self {
            LastLoaded::Change(change) => (&change.spec, change.owned()),
            LastLoaded::Saved(saved) => (&saved.spec, saved.owned()),
        };
        spec.is_some() && owned.get(family).is_some_and(|owned| !owned.sets_policy)
    }
}

/// Returns the rules that nvactl loaded last, by a change that is not undone or by the boot unit.
///
/// # Errors
/// When the history or the saved state cannot be read.
pub fn last_loaded(state: &State) -> Result<Option<LastLoaded>, StateError> {
    // An unreadable record is from another boot.
    let booted = state.booted().ok().flatten();
    let booted = booted.filter(|booted| namespace::boot().is_ok_and(|boot| boot == booted.boot));
    let saved = match booted.as_ref().map(|booted| booted.brought) {
        Some(Brought::Saved) => state.saved()?,
        Some(Brought::Before) => state.saved_before()?,
        Some(Brought::Left | Brought::Closed) | None => None,
    };
    let after = booted.and_then(|booted| booted.after);
    for number in state.numbers()?.into_iter().rev() {
        if saved.is_some() && Some(number) <= after {
            break;
        }
        if let Some(change) = state
            .change(number)?
            .filter(|change| change.undone.is_none())
        {
            return Ok(Some(LastLoaded::Change(Box::new(change))));
        }
    }
    Ok(saved.map(|saved| LastLoaded::Saved(Box::new(saved))))
}

/// Records another text of the spec of the rules that the last change loaded, for example with another description:
/// its rules are the same.
///
/// # Errors
/// When the history cannot be read or written.
pub fn record_text(state: &State, spec: &KeptSpec) -> Result<(), StateError> {
    let Some(LastLoaded::Change(_)) = last_loaded(state)? else {
        return Ok(());
    };
    let changes = state.changes()?.into_iter();
    let mut standing = changes.filter(|(_, change)| change.undone.is_none());
    if let Some((number, mut change)) = standing.next()
        && let Some(old) = &mut change.spec
        && (old.digest, &old.name) != (spec.digest, &spec.name)
    {
        old.clone_from(spec);
        state.rewrite(number, &change)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Family;
    use crate::netfilter::names::{ChainName, TableName};

    /// Makes changes from a number, the change to go back behind if it is a rollback, and whether it was
    /// undone; the newest first.
    fn changes(all: &[(u64, Option<u64>, bool)]) -> Vec<(u64, Change)> {
        let change = |(number, back_before, undone): &(u64, Option<u64>, bool)| {
            let change = Change {
                version: VERSION,
                time: 0,
                namespace: String::new(),
                action: String::new(),
                v4: Owned {
                    rules: String::new(),
                    sets_policy: true,
                },
                v6: None,
                spec: None,
                forwards: ForwardNames::default(),
                who: None,
                back_before: *back_before,
                undone: undone.then_some(Undone {
                    time: 0,
                    why: Decision::TimedOut,
                    ended: 0,
                    left: Vec::new(),
                }),
                boot: None,
                closed: false,
                closed_v6: None,
                loaded: None,
                loaded_v6: None,
                rule_count: None,
                rule_count_v6: None,
                adopted: Vec::new(),
                returned: Vec::new(),
            };
            (*number, change)
        };
        all.iter().rev().map(change).collect()
    }

    #[test]
    fn a_rule_is_out_if_it_was_in_before() {
        let rule = |number: usize| KeptRule {
            family: Family::V4,
            table: TableName::Filter,
            chain: ChainName::Forward,
            number,
            rule: "-j ACCEPT".to_owned(),
            before: None,
            behind: None,
            with_chain: false,
        };
        // Adopted, rolled back, adopted again at another place, removed, rolled back.
        let mut all = changes(&[
            (1, None, false),
            (2, Some(1), false),
            (3, None, false),
            (4, None, false),
            (5, Some(4), false),
        ]);
        for (number, change) in &mut all {
            match number {
                1 => change.adopted = vec![rule(1)],
                2 => change.returned = vec![rule(1)],
                3 => change.adopted = vec![rule(2)],
                _ => {}
            }
        }
        for (from, out) in [(5, 0), (4, 0), (3, 1), (2, 0), (1, 1)] {
            assert_eq!(still_out(&all, from).len(), out, "from {from}");
        }
        assert_eq!(brings_all_back(&all), Some((3, 1)));
        assert_eq!(brings_all_back(&all[3..]), None);
    }

    #[test]
    fn each_rollback_goes_a_step_further_back() {
        for (history, undoes) in [
            (&[][..], None),
            (&[(1, None, false), (2, None, false)], Some(2)),
            // A change is undone once.
            (&[(1, None, false), (2, None, true)], Some(1)),
            // One rollback, two, and one more than there are changes.
            (
                &[(1, None, false), (2, None, false), (3, Some(2), false)],
                Some(1),
            ),
            (
                &[
                    (1, None, false),
                    (2, None, false),
                    (3, Some(2), false),
                    (4, Some(1), false),
                ],
                None,
            ),
            // A change after a rollback is undone first, then the one before the undone one.
            (
                &[
                    (1, None, false),
                    (2, None, false),
                    (3, Some(2), false),
                    (4, None, false),
                ],
                Some(4),
            ),
            (
                &[
                    (1, None, false),
                    (2, None, false),
                    (3, Some(2), false),
                    (4, None, false),
                    (5, Some(4), false),
                ],
                Some(1),
            ),
            // Two changes at once by number.
            (
                &[
                    (1, None, false),
                    (2, None, false),
                    (3, None, false),
                    (4, Some(2), false),
                ],
                Some(1),
            ),
        ] {
            assert_eq!(
                next_to_undo(&changes(history), u64::MAX),
                undoes,
                "{history:?}"
            );
        }
    }
}
