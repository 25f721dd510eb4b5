//! Restores the rules from before a change.

use super::adopt::{PutBack, put_back_all};
use super::commit::commit_and_log;
use super::error::{Error, Failed};
use super::history::{self, ChangeDetails, LastLoaded, last_loaded, next_to_undo};
use super::interrupted::{name_interrupted, resume};
use super::log::ChangeEvent;
use super::look::{read, told, warn_of_unread_v6};
use super::machine::MachineToChange;
use super::outcome::{ChangeOutcome, Difference};
use super::records::{Change, KeptRule, KeptSpec, Owned};
use super::refusal::Refusal;
use super::remark::Remarks;
use super::transaction::{Keeping, Transaction, TrialMode};
use super::{next_boot, warn};
use crate::diff::families::changes;
use crate::host::iptables::Iptables;
use crate::host::survey::survey;
use crate::net::per_family::{Families, PerFamily};
use crate::net::words::counted;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::parse::ParseError;
use crate::plan::MARKED;

#[derive(Debug, Clone, Copy)]
pub struct RollbackRequest {
    /// The number of the change to go back behind; without one, the last change that was not undone.
    pub before: Option<u64>,
    /// Report the changes and make none.
    pub dry_run: bool,
}

#[derive(Debug)]
pub struct RollbackReport {
    pub remarks: Remarks,
    /// The change that was rolled back: its number and its command.
    pub undone: (u64, String),
    pub outcome: ChangeOutcome,
    /// Remarks after the outcome.
    pub after: Remarks,
    /// Whether IPv6 should change and could not, or adopted rules did not come back.
    pub partly: bool,
}

/// Loads nvactl's rules from before a change. This is a change of its own.
///
/// # Errors
/// When there is no such change, or the rollback is refused or fails. nvactl's rules are then as before,
/// unless the error [is uncertain](Error::is_uncertain).
pub fn rollback(
    request: RollbackRequest,
    machine: &MachineToChange,
) -> Result<RollbackReport, Failed> {
    let mut remarks = Remarks::of(&machine.state.notices);
    match run(request, machine, &mut remarks) {
        Ok((undone, outcome, after, partly)) => Ok(RollbackReport {
            remarks,
            undone,
            outcome,
            after,
            partly,
        }),
        Err(error) => Err(Failed::new(error, remarks)),
    }
}

fn run(
    request: RollbackRequest,
    machine: &MachineToChange,
    remarks: &mut Remarks,
) -> Result<((u64, String), ChangeOutcome, Remarks, bool), Error> {
    let MachineToChange {
        state, iptables, ..
    } = machine;
    let lock = machine.begin()?;
    // An interrupted change that was never made leaves the history first: it is no step.
    let all = super::families(None, Some(state));
    let (live, unread) = read(iptables, all, false)?;
    let warned = unread.is_some();
    warn_of_unread_v6(unread, remarks);
    let rules = live.map(|_, live| &live.ruleset);
    if request.dry_run {
        remarks.0.extend(name_interrupted(state, &rules)?);
    } else {
        resume(state, &rules, remarks)?;
    }
    let history = state.changes()?;
    for line in history::unreadable(state, &history)? {
        remarks.warn(line);
    }
    // After a run of the boot unit the newest change is not loaded, but a rollback still undoes it first.
    let by_unit = matches!(last_loaded(state)?, Some(LastLoaded::Saved(_)));
    let number = aim(request, &history, &rules, by_unit)?;
    say_of_damage(request, &history, number, remarks);
    let since = since(&history, number);
    let mut want = wanted(&since)?;
    let (counted, unread) = iptables
        .start_listing(want.families())?
        .finish_readable(false)?;
    let partly = unread.is_some();
    if partly {
        want.v6 = None;
    }
    if !warned {
        warn_of_unread_v6(unread, remarks);
    }
    for (_, (live, want)) in counted.as_ref().zip(want.as_ref()).iter() {
        live.shows(want)?;
    }
    let found = told(counted, iptables, remarks);
    let live = found.map(|_, (live, _)| live);
    let surroundings = survey(iptables, want.families(), MARKED.mask)?;
    let out = history::still_out(&history, number);
    let back = put_back_all(&live, &out);
    let foreign = back.map(|_, back| back.shift.clone());
    let goal = foreign.map(|_, shift| &shift.new);
    let changes = changes(&live, &want).with_foreign(&live, &goal);
    warn::policy(&changes, false, remarks);
    for warning in &surroundings.warnings {
        remarks.warn(warning);
    }
    warn::layout(&live, &want, remarks);
    warn::marks(&live, &want, &surroundings, iptables, remarks);
    let action = since.last().map(|change| change.action.clone());
    let undone = (number, action.unwrap_or_default());
    let mut after = Remarks::default();
    let is_whole = say_of_adopted(request, &back, iptables, &mut after);
    let partly = partly || !is_whole;
    say_of_returned(&history, number, &mut after);
    if changes.is_empty() {
        return Ok((undone, ChangeOutcome::Unchanged, after, partly));
    }
    let difference = Difference::from_rules(&changes, &live, &want).with_fields(&live, &want);
    if request.dry_run {
        return Ok((undone, ChangeOutcome::Would(difference), after, partly));
    }
    let about = ChangeDetails {
        spec: spec_before(&history, number),
        forwards: difference.forwards.clone(),
        back_before: Some(number),
        adopted: Vec::new(),
        returned: back.values().flat_map(|back| back.placed.clone()).collect(),
    };
    let change = Change::new(state, format!("rollback {number}"), &live, &want, about);
    let transaction = Transaction {
        state,
        lock: &lock,
        iptables,
        before: &found,
        want: &want,
        foreign: &foreign,
        change: &change,
        keeping: Keeping::Attempted,
        trial: TrialMode::Nothing,
    };
    let committed = commit_and_log(&transaction, ChangeEvent::Made)?;
    warn::not_kept(committed.not_kept, remarks);
    warn::jumps(&committed.jumps, &want, remarks);
    let outcome = ChangeOutcome::Made {
        difference,
        pending: None,
    };
    drop(lock);
    if let Some(number) = committed.number {
        after.note(format_args!(
            "this is change {number}; to revert it: sudo nvactl rollback {number}"
        ));
    }
    next_boot::say_of_change(state, iptables, &want.as_ref(), &mut after);
    Ok((undone, outcome, after, partly))
}

/// Returns the change to go back behind. A change that left nvactl's rules the same, such as moving its jump
/// to the front, is no step.
fn aim(
    request: RollbackRequest,
    history: &[(u64, Change)],
    live: &PerFamily<&Ruleset>,
    by_unit: bool,
) -> Result<u64, Error> {
    let Some(number) = request.before else {
        let none = if history.is_empty() {
            Refusal::NoChangeYet
        } else {
            Refusal::NothingToUndo
        };
        let first = next_to_undo(history, u64::MAX).ok_or(none)?;
        let mut number = first;
        while !by_unit && is_loaded(history, number, live)? {
            match next_to_undo(history, number) {
                Some(next) => number = next,
                None => return Ok(first),
            }
        }
        return Ok(number);
    };
    let mut kept: Vec<u64> = history.iter().map(|(number, _)| *number).collect();
    kept.reverse();
    if kept.contains(&number) {
        Ok(number)
    } else {
        Err(Refusal::NoSuchChange { number, kept }.into())
    }
}

/// Counts the adopted rules that come back and names those that do not. Returns whether there are none of these.
fn say_of_adopted(
    request: RollbackRequest,
    back: &PerFamily<PutBack>,
    iptables: &Iptables,
    after: &mut Remarks,
) -> bool {
    let placed: usize = back.values().map(|back| back.placed.len()).sum();
    if placed > 0 && !request.dry_run {
        after.line(format_args!("put {} back", counted(placed, "adopted rule")));
    }
    let left = back.values().flat_map(|back| &back.left);
    let left: Vec<String> = left.map(|one| one.words(iptables.backend)).collect();
    after.warn_of_rules(left.iter());
    left.is_empty()
}

/// Names earlier rollbacks since the change that put foreign rules back: these stay.
fn say_of_returned(history: &[(u64, Change)], number: u64, after: &mut Remarks) {
    let since = history
        .iter()
        .filter(|(other, change)| *other >= number && change.undone.is_none());
    let adopted: Vec<&KeptRule> = since
        .clone()
        .flat_map(|(_, change)| &change.adopted)
        .collect();
    for (other, change) in since {
        let is_out = |rule: &&KeptRule| adopted.iter().any(|one| one.is_same_rule(rule));
        if change.returned.iter().any(|rule| !is_out(&rule)) {
            after.note(format_args!(
                "the foreign rules that change {other} put back stay; to take them out again: sudo nvactl apply --adopt"
            ));
        }
    }
}

/// Names the repairs that are no steps, and the damage that a rollback restores.
fn say_of_damage(
    request: RollbackRequest,
    history: &[(u64, Change)],
    number: u64,
    remarks: &mut Remarks,
) {
    for (n, (later, change)) in history.iter().enumerate() {
        if *later < number {
            break;
        }
        let from = &history[n..];
        if *later == number {
            if let Some(damage) = history::damage_before(from) {
                remarks.warn(damage);
            }
        } else if request.before.is_none() && change.undone.is_none() && history::is_repair(from) {
            remarks.note(format_args!(
                "change {later} is skipped, because it only repaired nvactl's rules; to restore the rules from \
                 before it: sudo nvactl rollback {later}"
            ));
        }
    }
}

/// Whether the rules from before a change are loaded now.
fn is_loaded(
    history: &[(u64, Change)],
    number: u64,
    live: &PerFamily<&Ruleset>,
) -> Result<bool, Error> {
    let want = wanted(&since(history, number))?;
    let is_own_loaded = changes(live, &want).is_empty();
    Ok(is_own_loaded && history::still_out(history, number).is_empty())
}

/// Returns the changes from a number on, the newest first.
fn since(history: &[(u64, Change)], number: u64) -> Vec<&Change> {
    let since = history.iter().filter(|(other, _)| *other >= number);
    since.map(|(_, change)| change).collect()
}

/// Returns the spec that was loaded before a change.
fn spec_before(history: &[(u64, Change)], number: u64) -> Option<KeptSpec> {
    let mut before = history
        .iter()
        .filter(|(other, change)| *other < number && change.undone.is_none());
    before.next()?.1.spec.clone()
}

/// Returns the rules from before the oldest of these changes, which are newest first. IPv6 rules are from
/// before the oldest change that has any, since older changes did not touch IPv6. The FORWARD policy is
/// included only if one of the changes set it.
fn wanted(since: &[&Change]) -> Result<PerFamily<Ruleset>, ParseError> {
    let families = Families::with_v6(since.iter().any(|change| change.v6.is_some()));
    PerFamily::try_new(families, |family| {
        let known: Vec<&Owned> = since
            .iter()
            .filter_map(|change| change.owned().get(family).copied())
            .collect();
        let Some(oldest) = known.last() else {
            return Ok(Ruleset::default());
        };
        let sets_policy = known.iter().any(|owned| owned.sets_policy);
        Owned {
            rules: oldest.rules.clone(),
            sets_policy,
        }
        .ruleset()
    })
}
