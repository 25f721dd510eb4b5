//! The facts about the machine that an operation needs, gathered in parallel: reading the rules takes the
//! longest, and the other facts do not depend on it.

use std::panic::resume_unwind;
use std::thread::{self, ScopedJoinHandle};

use super::error::{Error, describe};
use super::remark::Remarks;
use super::state::State;
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

/// Returns the families that a command touches. IPv6 is one of them only if the spec has IPv6 forwards or
/// outbound entries with IPv6 sources and destinations, or if nvactl may have IPv6 rules from an earlier spec.
#[must_use]
pub fn families(set: Option<&ForwardSet>, state: Option<&State>) -> Families {
    let wanted = set.is_some_and(|set| set.has(Family::V6));
    let recorded = || state.is_some_and(State::may_hold_v6);
    // The machine itself may have IPv6 rules that no record shows, after a full disk or another kernel.
    let found = || has_nft_v6() || (state.is_none_or(State::is_new) && has_legacy_v6());
    let kept = || persistence::mentions_own(Family::V6);
    Families::with_v6(wanted || recorded() || kept() || found())
}

/// The lock, and the listing of the rules in progress.
#[derive(Debug)]
pub struct Ahead(pub(super) Lock, pub(super) Listing);

impl Ahead {
    /// Takes the lock and starts to read the rules before the spec is checked, unless a folder must be made
    /// or the lock is taken.
    #[must_use]
    pub fn start(state: &State, iptables: &Iptables) -> Option<Self> {
        // Taking over records needs the lock first.
        if state.is_to_be_taken_over() {
            return None;
        }
        let lock = lock::take_if_free(&state.lock_file())?;
        // A change that will be refused must not delay an undo.
        waiting::refuse_while_pending(state).ok()?;
        let listing = iptables.start_listing(families(None, Some(state))).ok()?;
        Some(Self(lock, listing))
    }
}

/// The rules of the readable families, and the error if IPv6 is not one of them.
pub type Readable<T> = (PerFamily<T>, Option<IptablesError>);

/// Reads the rules of these families. Leaves out unreadable IPv6 unless `needs_v6` is set: a machine with
/// IPv6 switched off still forwards IPv4.
///
/// # Errors
/// When IPv4 or needed IPv6 cannot be read.
pub fn read(
    iptables: &Iptables,
    families: Families,
    needs_v6: bool,
) -> Result<Readable<Live>, IptablesError> {
    iptables.start_reading(families)?.finish_readable(needs_v6)
}

/// Warns that IPv6 was left out.
pub fn warn_of_unread_v6(unread: Option<IptablesError>, remarks: &mut Remarks) {
    if let Some(error) = unread {
        remarks.warn(format_args!(
            "IPv6 rules cannot be read and stay as they are; only IPv4 is handled: {}",
            describe(&error.into())
        ));
    }
}

/// Warns of unreadable rules and tables, and returns the readable ones.
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

/// The current rules, the wanted rules, and the machine around them.
pub struct Situation<'s> {
    pub before: PerFamily<(Ruleset, Counters)>,
    pub want: PerFamily<Ruleset>,
    pub surroundings: Surroundings,
    pub flows: Vec<Flow>,
    /// The facts that forwards depend on; none without `ip`.
    pub reach: Option<reach::ReachFacts<'s>>,
}

type Around<'s> = (
    Result<Surroundings, SurveyError>,
    Result<Vec<Flow>, ConntrackError>,
    Option<reach::ReachFacts<'s>>,
);

/// Plans, and reads other facts, while the rules are being read.
///
/// # Errors
/// When a needed fact cannot be read, or the backend is ambiguous.
pub fn look<'s>(
    listing: Listing,
    iptables: &Iptables,
    set: &'s ForwardSet,
    flush_stale: bool,
    remarks: &mut Remarks,
) -> Result<Situation<'s>, Error> {
    let families = listing.families();
    let plan = || planned(set, families);
    let around = || -> Around<'s> {
        let surroundings = survey(iptables, families, MARKED.mask);
        let flows = flows::read(families, flush_stale);
        (surroundings, flows, reach::look(set))
    };
    thread::scope(|scope| {
        // Without a thread, this runs afterwards.
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
        for (_, (live, want)) in before.as_ref().zip(want.as_ref()).iter() {
            live.shows(want)?;
        }
        Ok(Situation {
            before: told(before, iptables, remarks),
            want,
            surroundings: surroundings?,
            flows: flows?,
            reach,
        })
    })
}

/// Returns the result of a thread, and passes a panic on.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}
