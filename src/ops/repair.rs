//! Loads the saved rules again after another program has taken nvactl's rules away, such as a restart of nftables or
//! `iptables -F`.
//!
//! Drift inside nvactl's chains is reported by `status`, and not repaired. Two programs that flush and load the rules by
//! turns would never end, so the number of repairs in an hour is limited.

use std::fmt;

use tracing::debug;

use super::commit::commit_and_log;
use super::error::{Error, Failed};
use super::history::{ChangeDetails, LastLoaded, last_loaded, moment};
use super::interrupted::resume;
use super::log::ChangeEvent;
use super::look::families;
use super::machine::MachineToChange;
use super::records::{Change, Repairs, SavedState};
use super::refusal::Refusal;
use super::remark::Remarks;
use super::state::{State, seconds_now};
use super::transaction::{Keeping, Transaction, TrialMode, owned_digest};
use super::waiting::refuse_while_pending;
use crate::diff;
use crate::diff::families::changes;
use crate::diff::flushed::{flushed, only_fills, reaches_any};
use crate::host::iptables::{Iptables, Live};
use crate::host::lock::{self, Lock, LockError};
use crate::host::survey;
use crate::net::Family;
use crate::net::per_family::{Families, PerFamily};
use crate::net::words::{names, with_causes};
use crate::netfilter::backend::Backend;
use crate::netfilter::counters::Counters;
use crate::netfilter::ruleset::Ruleset;
use crate::plan::Hook;

/// The most repairs within [`WINDOW_SECS`].
pub const MOST_REPAIRS: usize = 3;
const WINDOW_SECS: u64 = 60 * 60;

/// The outcome of a repair.
#[derive(Debug)]
pub enum RepairOutcome {
    /// No rules of nvactl are gone.
    NotNeeded,
    /// Nothing was done, and why: another nvactl is working, or a change waits for its confirmation.
    Postponed(String),
    /// Rules are gone, and the saved state has no rules of their family, or others than those that were loaded last.
    NothingSaved { gone: String },
    /// Rules are gone, and others were changed by hand, which a repair would undo.
    Changed { gone: String },
    /// The saved rules are for another backend than the one in use, or that one has rules of nvactl as well.
    OtherBackend { saved: Backend, other: Backend },
    /// Rules are gone, and were repaired [`MOST_REPAIRS`] times within an hour.
    Braked { gone: String, wait_secs: u64 },
    /// The saved rules are loaded.
    Done {
        gone: String,
        /// When they were saved.
        saved: String,
        /// Rules that are gone and not saved, if there are any.
        left: Option<String>,
    },
}

/// The outcome of a repair, with its remarks.
#[derive(Debug)]
pub struct RepairReport {
    pub remarks: Remarks,
    pub outcome: RepairOutcome,
}

/// Loads the saved rules of each family whose rules are gone, and leaves the other family as it is.
///
/// # Errors
/// When the rules or the records cannot be read, the repair cannot be recorded, or the saved rules do not load.
pub fn repair(machine: &MachineToChange) -> Result<RepairReport, Failed> {
    let mut remarks = Remarks::of(&machine.state.notices);
    match run(machine, &mut remarks) {
        Ok(outcome) => Ok(RepairReport { remarks, outcome }),
        Err(error) => Err(Failed::new(error, remarks)),
    }
}

fn run(machine: &MachineToChange, remarks: &mut Remarks) -> Result<RepairOutcome, Error> {
    let state = &machine.state;
    let lock = match lock::take(&state.lock_file(), machine.lock_wait_secs) {
        Ok(lock) => lock,
        Err(LockError::Held { holder, .. }) => {
            return Ok(RepairOutcome::Postponed(holder.to_string()));
        }
        Err(error) => return Err(error.into()),
    };
    match refuse_while_pending(state) {
        Ok(()) => machine.clear_leftovers(),
        Err(Error::Refusal(Refusal::Pending { told, .. })) => {
            return Ok(RepairOutcome::Postponed(told));
        }
        Err(error) => return Err(error),
    }
    let saved = state.saved().map_err(|error| Refusal::UnreadableSaved {
        why: with_causes(&error),
    })?;
    let backend = saved.as_ref().map(|saved| saved.backend);
    let iptables = Iptables {
        backend: backend.unwrap_or(machine.iptables.backend),
        ..machine.iptables
    };
    // IPv6 that cannot be read is not known to be gone.
    let listing = iptables.start_listing(families(None, Some(state)))?;
    let (live, _) = listing.finish_readable(false)?;
    resume(state, &live.map(|_, live| &live.ruleset), remarks)?;
    let Some(last) = last_loaded(state)? else {
        return Ok(RepairOutcome::NotNeeded);
    };
    let kept = saved.as_ref().map(SavedState::rules).transpose()?;
    let each = live.iter().map(|(family, live)| {
        let kept = kept.as_ref().and_then(|kept| kept.get(family));
        // A table that iptables cannot show is not known to be empty.
        kept.map_or(Ok(()), |kept| live.shows(kept))?;
        Ok(Lost::find(family, &last, kept, &live.ruleset))
    });
    let each: Vec<Option<Lost>> = each.collect::<Result<_, Error>>()?;
    let all_lost: Vec<Lost> = each.into_iter().flatten().collect();
    if all_lost.is_empty() {
        release(state);
        return Ok(RepairOutcome::NotNeeded);
    }
    // Older rules could open what was closed since.
    let (back, left): (Vec<&Lost>, Vec<&Lost>) = all_lost.iter().partition(|one| one.is_last);
    let (Some(saved), Some(kept), [_, ..]) = (saved, kept, back.as_slice()) else {
        return Ok(RepairOutcome::NothingSaved {
            gone: names(&all_lost),
        });
    };
    if let Some(other) = other_backend(machine, &iptables, &back) {
        return Ok(RepairOutcome::OtherBackend {
            saved: saved.backend,
            other,
        });
    }
    let gone = names(&back);
    let is_back = |family| back.iter().any(|one| one.family == family);
    let (before, want) = wanted(live, kept, is_back);
    let rules = before.map(|_, (rules, _)| rules);
    if !changes(&rules, &want).values().all(only_fills) {
        return Ok(RepairOutcome::Changed { gone });
    }
    let load = || load(machine, (&lock, &iptables), (&before, &want), &saved);
    match within_limit(state, load) {
        Ok(None) => Ok(RepairOutcome::Done {
            gone,
            saved: moment(saved.time),
            left: (!left.is_empty()).then(|| names(&left)),
        }),
        Ok(Some(wait_secs)) => Ok(RepairOutcome::Braked { gone, wait_secs }),
        Err(error) => {
            remarks.warn(format_args!(
                "nvactl's rules are gone ({gone}), and were not loaded again"
            ));
            Err(error)
        }
    }
}

/// Returns the backend that is in use or has rules of nvactl, if it is not that of the saved rules.
fn other_backend(machine: &MachineToChange, saved: &Iptables, back: &[&Lost]) -> Option<Backend> {
    let families = Families::with_v6(back.iter().any(|one| one.family == Family::V6));
    let used = survey::resolved(&machine.iptables, families);
    if used != saved.backend && used != Backend::Auto && saved.backend != Backend::Auto {
        return Some(used);
    }
    let mut families = back.iter().map(|one| one.family);
    families.find_map(|family| survey::own_beside(saved, family))
}

/// Loads rules and counts that, unless there were too many repairs. Then returns how long the next one must wait.
fn within_limit(
    state: &State,
    load: impl FnOnce() -> Result<(), Error>,
) -> Result<Option<u64>, Error> {
    let repairs = state.repairs();
    let mut repairs = repairs.map_err(|error| Refusal::UnreadableRepairs {
        why: with_causes(&error),
        file: state.repairs_file().display().to_string(),
    })?;
    if let Some(wait_secs) = repairs.wait_secs(seconds_now()) {
        repairs.braked = true;
        state.set_repairs(&repairs)?;
        return Ok(Some(wait_secs));
    }
    // Before the rules are loaded, so that a repair that fails or is killed counts too.
    repairs.begin(seconds_now());
    state.set_repairs(&repairs)?;
    load()?;
    repairs.total = repairs.total.saturating_add(1);
    if let Err(error) = state.set_repairs(&repairs) {
        debug!(%error, "the number of repairs was not recorded");
    }
    Ok(None)
}

/// A family whose rules are gone.
#[derive(Debug)]
struct Lost {
    family: Family,
    /// The hooks without rules; none if they are not known.
    hooks: Vec<Hook>,
    /// Whether there are saved rules, and they are those that nvactl loaded last.
    is_last: bool,
}

impl Lost {
    /// Compares the live rules of a family with the rules that nvactl loaded last. The saved rules show their hooks, if
    /// they are the same. If they are others, only rules that are all gone count.
    fn find(
        family: Family,
        last: &LastLoaded,
        kept: Option<&Ruleset>,
        live: &Ruleset,
    ) -> Option<Self> {
        if last.rule_count(family) == 0 {
            return None;
        }
        let kept = kept.filter(|kept| reaches_any(kept));
        let is_last = kept.is_some_and(|kept| {
            let digest = owned_digest(kept, diff::sets_policy(kept));
            last.digest(family) == Some(digest)
        });
        let hooks = kept.map_or(Vec::new(), |kept| flushed(kept, live));
        let is_gone = if is_last {
            !hooks.is_empty()
        } else {
            !reaches_any(live)
        };
        is_gone.then_some(Self {
            family,
            hooks,
            is_last,
        })
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.family)?;
        let hooks = self.hooks.iter();
        let mut hooks = hooks.map(|hook| format!("{} {}", hook.table(), hook.builtin()));
        if let Some(first) = hooks.next() {
            write!(f, " {first}")?;
        }
        hooks.try_for_each(|hook| write!(f, ", {hook}"))
    }
}

/// The live rules of each family, with their counters.
type CountedRules = PerFamily<(Ruleset, Counters)>;

/// Returns the live rules, and the rules to load: the saved ones of the families that are `back`, and no change for
/// IPv4 if it is not one of them.
fn wanted(
    live: PerFamily<Live>,
    kept: PerFamily<Ruleset>,
    is_back: impl Fn(Family) -> bool,
) -> (CountedRules, PerFamily<Ruleset>) {
    let counted = |live: Live| (live.ruleset, live.counters);
    let before = PerFamily {
        v4: counted(live.v4),
        v6: live.v6.filter(|_| is_back(Family::V6)).map(counted),
    };
    let v4 = if is_back(Family::V4) {
        kept.v4
    } else {
        diff::own(&before.v4.0).without_forward_policy()
    };
    let v6 = kept.v6.filter(|_| is_back(Family::V6));
    (before, PerFamily { v4, v6 })
}

fn load(
    machine: &MachineToChange,
    (lock, iptables): (&Lock, &Iptables),
    (before, want): (&CountedRules, &PerFamily<Ruleset>),
    saved: &SavedState,
) -> Result<(), Error> {
    let live = before.map(|_, (live, _)| live);
    let about = ChangeDetails {
        spec: saved.spec.clone(),
        ..ChangeDetails::default()
    };
    let action = "status --repair".to_owned();
    let change = Change::new(&machine.state, action, &live, want, about);
    let transaction = Transaction {
        state: &machine.state,
        lock,
        iptables,
        before,
        want,
        foreign: &PerFamily::default(),
        change: &change,
        // A repair is no step for a rollback.
        keeping: Keeping::Done,
        trial: TrialMode::Nothing,
    };
    commit_and_log(&transaction, ChangeEvent::Made)?;
    Ok(())
}

/// Records that no rules are gone any longer. An unreadable record is reported by the next repair.
fn release(state: &State) {
    let released = match state.repairs() {
        Ok(repairs) if repairs.braked => state.set_repairs(&Repairs {
            braked: false,
            ..repairs
        }),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = released {
        debug!(%error, "the record of repairs stays");
    }
}

impl Repairs {
    /// Returns how long a further repair must wait; `None` if it need not.
    fn wait_secs(&self, now: u64) -> Option<u64> {
        let mut recent: Vec<u64> = self.recent(now).collect();
        recent.sort_unstable();
        let blocks = recent.len().checked_sub(MOST_REPAIRS)?;
        // A clock that was set back makes a time later than now.
        Some(
            (recent[blocks].saturating_add(WINDOW_SECS))
                .saturating_sub(now)
                .max(1),
        )
    }

    /// Adds a repair, and forgets those that no longer count.
    fn begin(&mut self, now: u64) {
        self.tries = self.recent(now).chain([now]).collect();
        self.braked = false;
    }

    /// Returns the times of the last hour, and of the next one if the clock was set back. Times farther ahead are of a
    /// wrong clock, and would count for ever.
    fn recent(&self, now: u64) -> impl Iterator<Item = u64> {
        let tries = self.tries.iter().copied();
        tries.filter(move |time| time.abs_diff(now) < WINDOW_SECS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_repairs_within_an_hour_are_the_most() {
        let mut repairs = Repairs::default();
        for time in [1_000_000, 1_000_060, 1_000_120] {
            assert_eq!(repairs.wait_secs(time), None);
            repairs.begin(time);
        }
        assert_eq!(repairs.wait_secs(1_000_180), Some(3420));
        assert_eq!(repairs.wait_secs(1_003_599), Some(1));
        assert_eq!(repairs.wait_secs(1_003_600), None);
        repairs.begin(1_003_600);
        assert_eq!(repairs.tries, [1_000_060, 1_000_120, 1_003_600]);
        assert_eq!(repairs.wait_secs(1_003_601), Some(59));
    }

    #[test]
    fn a_clock_that_jumps_blocks_no_repair_for_ever() {
        let repairs = Repairs {
            tries: vec![1_000_000; MOST_REPAIRS],
            ..Repairs::default()
        };
        // A small step back still counts.
        assert_eq!(repairs.wait_secs(999_000), Some(4600));
        for now in [0, 900_000, 1_900_000, u64::MAX] {
            assert_eq!(repairs.wait_secs(now), None, "{now}");
        }
        let hostile = Repairs {
            tries: vec![u64::MAX; 5],
            ..Repairs::default()
        };
        assert_eq!(hostile.wait_secs(1_000_000), None);
    }
}
