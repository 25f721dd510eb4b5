//! What an operation must know of the machine, asked all at once: to read the rules takes longest of what
//! comes before a change, and nothing of the rest needs to know them.

use std::panic::resume_unwind;
use std::thread::{self, ScopedJoinHandle};

use super::error::{Error, describe};
use super::records::Begun;
use super::remark::{Remark, Remarks};
use super::state::State;
use super::step::{Interrupted, interrupted};
use super::transaction::owned_digest;
use super::{flows, waiting};
use crate::forwards::ForwardSet;
use crate::health::reach;
use crate::host::conntrack::ConntrackError;
use crate::host::iptables::{Iptables, IptablesError, Listing, Live};
use crate::host::lock::{self, Lock};
use crate::host::persistence;
use crate::host::survey::{Surroundings, SurveyError, has_legacy_v6, has_nft_v6, survey};
use crate::net::Family;
use crate::net::per_family::{Families, PerFamily};
use crate::netfilter::conntrack::Flow;
use crate::netfilter::counters::Counters;
use crate::netfilter::ruleset::Ruleset;
use crate::plan::MARKED;
use crate::plan::planned;

/// Returns the families that a command touches: IPv6 only if the spec has it, or rules of nvactl's may
/// be there from a time when it had.
#[must_use]
pub fn families(set: Option<&ForwardSet>, state: Option<&State>) -> Families {
    let wanted = set.is_some_and(|set| set.has(Family::V6));
    let recorded = || state.is_some_and(State::may_hold_v6);
    // What could not be recorded, on a full disk or before a change of kernels, the machine itself may
    // know.
    let found = || has_nft_v6() || (state.is_none_or(State::is_new) && has_legacy_v6());
    let kept = || persistence::mentions_own(Family::V6);
    Families::with_v6(wanted || recorded() || kept() || found())
}

/// The lock, and the rules as they are being read.
#[derive(Debug)]
pub struct Ahead(pub(super) Lock, pub(super) Listing);

impl Ahead {
    /// Takes the lock and begins to read the rules before the spec is known, if for that nothing has to
    /// be made and nobody to be waited for.
    #[must_use]
    pub fn start(state: &State, iptables: &Iptables) -> Option<Self> {
        // The lock is needed for that first.
        if state.is_to_be_taken_over() {
            return None;
        }
        let lock = lock::take_if_free(&state.lock_file())?;
        // Whoever undoes a change is not to wait for what will be refused.
        waiting::refuse_while_pending(state).ok()?;
        let listing = iptables.start_listing(families(None, Some(state))).ok()?;
        Some(Self(lock, listing))
    }
}

/// The rules of the families that could be read, and why IPv6's could not.
pub type Readable<T> = (PerFamily<T>, Option<IptablesError>);

/// Reads the rules of these families. IPv6 is left out where it cannot be read and `needs_v6` does not
/// say that it must be: a machine whose IPv6 has been switched off still forwards IPv4.
///
/// # Errors
/// When IPv4, or IPv6 that is needed, cannot be read.
pub fn read(
    iptables: &Iptables,
    families: Families,
    needs_v6: bool,
) -> Result<Readable<Live>, IptablesError> {
    iptables.start_reading(families)?.finish_readable(needs_v6)
}

/// Says that IPv6 was left out.
pub fn warn_of_unread_v6(unread: Option<IptablesError>, remarks: &mut Remarks) {
    if let Some(error) = unread {
        remarks.warn(format_args!(
            "IPv6 rules cannot be read and stay as they are; only IPv4 is handled: {}",
            describe(&error.into())
        ));
    }
}

/// Names the rules and tables that cannot be read, and returns the rest without its text.
pub fn told(
    live: PerFamily<Live>,
    iptables: &Iptables,
    remarks: &mut Remarks,
) -> PerFamily<(Ruleset, Counters)> {
    for (_, live) in live.iter() {
        remarks.warn_of_rules(live.warnings(iptables).iter());
    }
    let counted = |live: Live| (live.ruleset, live.counters);
    PerFamily {
        v4: counted(live.v4),
        v6: live.v6.map(counted),
    }
}

/// What is here and what is wanted.
pub struct Found<'s> {
    pub before: PerFamily<(Ruleset, Counters)>,
    pub want: PerFamily<Ruleset>,
    pub surroundings: Surroundings,
    pub flows: Vec<Flow>,
    /// What forwards need of the machine; none without `ip`.
    pub reach: Option<reach::Facts<'s>>,
}

type Around<'s> = (
    Result<Surroundings, SurveyError>,
    Result<Vec<Flow>, ConntrackError>,
    Option<reach::Facts<'s>>,
);

/// Plans and looks around while the rules are being read.
///
/// # Errors
/// When something cannot be read that is needed, or the backend can only be guessed.
pub fn look<'s>(
    listing: Listing,
    iptables: &Iptables,
    set: &'s ForwardSet,
    flush_stale: bool,
    remarks: &mut Remarks,
) -> Result<Found<'s>, Error> {
    let families = listing.families();
    let plan = || planned(set, families);
    let around = || -> Around<'s> {
        let surroundings = survey(iptables, families, MARKED.mask);
        let flows = flows::read(families, flush_stale);
        (surroundings, flows, reach::look(set))
    };
    thread::scope(|scope| {
        // Where there is no thread to be had, it is done afterwards.
        let planning = thread::Builder::new().spawn_scoped(scope, plan).ok();
        let looking = thread::Builder::new().spawn_scoped(scope, around).ok();
        let before = listing.finish_readable(set.has(Family::V6));
        let (surroundings, flows, reach) = looking.map_or_else(around, joined);
        let mut want = planning.map_or_else(plan, joined);
        let (before, unread_v6) = before?;
        let mut surroundings = surroundings;
        if before.v6.is_none() && want.v6.take().is_some() {
            surroundings = survey(iptables, Families::V4, MARKED.mask);
        }
        warn_of_unread_v6(unread_v6, remarks);
        Ok(Found {
            before: told(before, iptables, remarks),
            want,
            surroundings: surroundings?,
            flows: flows?,
            reach,
        })
    })
}

/// What a thread has brought; a panic goes on here.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// What is known of a change whose maker was killed.
struct Killed {
    begun: Begun,
    what: Interrupted,
}

/// Finds out what became of a change that was begun and not ended.
fn killed(state: &State, live: &PerFamily<&Ruleset>) -> Result<Option<Killed>, Error> {
    let Some(begun) = state.begun()? else {
        return Ok(None);
    };
    if begun.want_v6.is_some() && live.v6.is_none() {
        // What became of it shows once IPv6 can be read again.
        return Ok(None);
    }
    let Some(change) = state.change(begun.number)? else {
        let what = if state.numbers()?.contains(&begun.number) {
            Interrupted::Unknown
        } else {
            Interrupted::NeverMade
        };
        return Ok(Some(Killed { begun, what }));
    };
    let each: Vec<(bool, bool)> = live
        .zip(begun.wanted())
        .zip(change.owned())
        .values()
        .map(|((live, want), before)| {
            let now = owned_digest(live, before.sets_policy);
            let old = before
                .ruleset()
                .map(|old| owned_digest(&old, before.sets_policy));
            (old.is_ok_and(|old| old == now), **want == now)
        })
        .collect();
    let what = interrupted(&each);
    Ok(Some(Killed { begun, what }))
}

/// Names a change whose maker was killed half-way, for whoever reads the rules.
///
/// # Errors
/// When its records cannot be read.
pub fn name_interrupted(
    state: &State,
    live: &PerFamily<&Ruleset>,
) -> Result<Option<Remark>, Error> {
    let killed = match killed(state, live) {
        Err(Error::State(error)) if error.is_unreadable_record() => {
            let text = format!(
                "an earlier change did not finish, and its record cannot be read, so its rules may be only partly \
                 loaded: {}",
                describe(&error.into())
            );
            return Ok(Some(Remark::Warning(text)));
        }
        killed => killed?,
    };
    Ok(killed.and_then(|killed| {
        let action = &killed.begun.action;
        let text = match killed.what {
            Interrupted::Half => format!(
                "{action} was killed after it loaded one address family: IPv4 and IPv6 hold rules of different \
                 specs; the next apply, rollback or remove fixes that"
            ),
            Interrupted::Unknown => format!(
                "{action} was killed before it verified its rules: the loaded rules are neither the old ones nor \
                 the new ones; the next apply, rollback or remove replaces them"
            ),
            Interrupted::NeverMade | Interrupted::Made => return None,
        };
        Some(Remark::Warning(text))
    }))
}

/// Clears up behind a change whose maker was killed: one that was never made goes from the history. To be
/// called under the lock.
///
/// # Errors
/// When its records cannot be read or removed.
pub fn resume(
    state: &State,
    live: &PerFamily<&Ruleset>,
    remarks: &mut Remarks,
) -> Result<(), Error> {
    let found = match killed(state, live) {
        Err(Error::State(error)) if error.is_unreadable_record() => {
            remarks.0.extend(name_interrupted(state, live)?);
            state.clear_begun()?;
            return Ok(());
        }
        found => found?,
    };
    let Some(Killed { begun, what }) = found else {
        return Ok(());
    };
    match what {
        Interrupted::NeverMade => {
            state.forget(begun.number)?;
            state.clear_begun()?;
        }
        Interrupted::Made => state.clear_begun()?,
        // The next change that is made whole ends it.
        Interrupted::Half | Interrupted::Unknown => {
            remarks.0.extend(name_interrupted(state, live)?);
        }
    }
    Ok(())
}
