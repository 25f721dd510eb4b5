//! The watchdog of a change that must be confirmed: a process, or a timer of systemd's, that undoes
//! it in time.
//!
//! It is started before the change and shares nothing with the process that makes it: no
//! terminal, no session, no pipe. Whoever ends, the change is confirmed or undone.

use std::thread;
use std::time::Duration;

use tracing::debug;

use super::error::{Error, describe};
use super::flows::forwards_of;
use super::history::log;
use super::log::Event;
use super::records::{Change, Decided, Decision, Pending};
use super::state::{State, StateError};
use super::transaction::{Keeping, Transaction, TrialOf};
use super::waiting::{LOCK_WAIT_SECS, pending, settle};
use crate::diff;
use crate::diff::families::changes;
use crate::forwards::ForwardSet;
use crate::health::connections::stale;
use crate::host::detached::{self, DetachedError};
use crate::host::file::FileError;
use crate::host::lock::{self, Lock};
use crate::host::{conntrack, file};
use crate::net::Family;
use crate::net::per_family::PerFamily;
use crate::netfilter::counters::Counters;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::parse;

/// How often the watchdog looks whether the confirmation has come.
const TICK: Duration = Duration::from_millis(100);
/// How long it waits at most before it tries to undo again.
const PAUSE: Duration = Duration::from_secs(10);

/// Records the change and starts its watchdog; returns when that is on its guard: a detached process,
/// and where systemd runs a timer of its own as well.
///
/// # Errors
/// When it does not get that far: then the change must not be made.
pub fn guard(state: &State, pending: &Pending, seconds: u64) -> Result<(), Error> {
    // First, so that whoever still watches the change before knows that it has been decided on.
    state.set_decision(&Decided(pending.id.clone(), Decision::Waiting))?;
    state.set_pending(pending)?;
    let started = start(state, pending, seconds);
    if started.is_err() {
        let settled = settle(state, pending, Decision::NotMade);
        if let Err(error) = settled {
            debug!(%error, "the record of what was not made stays");
        }
    }
    Ok(started?)
}

/// The process knows what to undo whatever becomes of the folder; the timer comes even if the process is
/// ended with its session. Whoever is first leaves nothing to the other.
fn start(state: &State, pending: &Pending, seconds: u64) -> Result<(), DetachedError> {
    let folder = state.folder().to_string_lossy();
    let args = ["--state-dir", &folder, "watchdog", &pending.id];
    detached::start(&args)?;
    if detached::runs_under_systemd() {
        detached::start_timer(&pending.timer(), seconds, &args)?;
    }
    Ok(())
}

/// Waits until the change is decided on or due, and undoes it in the last case, however often it takes.
///
/// # Errors
/// When what is to be undone cannot be read at the start.
pub fn watch(state: &State, id: &str) -> Result<(), Error> {
    let Some(mut known) = pending(state)?.filter(|pending| pending.id == id) else {
        detached::settle_in();
        return Ok(());
    };
    detached::settle_in();
    let mut pause = TICK;
    let mut version = None;
    loop {
        if is_decided(state, id) {
            return Ok(());
        }
        let now = state.pending_version();
        if now != version {
            version = now;
            // A record that is gone or damaged has not been decided on: what was known is enough.
            if let Ok(Some(now)) = state.pending()
                && now.id == id
            {
                known = now;
            }
        }
        if known.left() == 0 {
            let due = |now: &Pending| now.left() == 0;
            match undo_if(state, &known, Decision::TimedOut, LOCK_WAIT_SECS, due) {
                Ok(Undoing::Undone(undone)) => {
                    if let Some(error) = &undone.left_v6 {
                        let why = describe(error);
                        let words = format!("{id} is undone, except for IPv6: {why}\n");
                        let _ = file::replace(&state.log_file(), words.as_bytes(), 0o600);
                    }
                    return Ok(());
                }
                // Confirmed, or given more time, while the lock was waited for.
                Ok(Undoing::NotDue) => {}
                Err(error) => {
                    let words = format!("{id} is not undone yet: {}\n", describe(&error));
                    // The folder may be what is wrong.
                    let _ = file::replace(&state.log_file(), words.as_bytes(), 0o600);
                    pause = (pause * 2).min(PAUSE);
                }
            }
        }
        thread::sleep(pause);
    }
}

/// Whether a change has been decided on: something was decided, or another change was begun since,
/// which takes a decision on this one. Where nothing can be read nothing has been decided.
fn is_decided(state: &State, id: &str) -> bool {
    state
        .decided()
        .is_some_and(|Decided(of, decision)| of != id || decision != Decision::Waiting)
}

/// What became of a change that was to be undone.
#[derive(Debug)]
pub enum Undoing {
    /// It waits no more, or not yet.
    NotDue,
    Undone(Box<Undone>),
}

/// How far a change was undone.
#[derive(Debug, Default)]
pub struct Undone {
    /// Whether the rules were written without a look at them, and not read back.
    pub unverified: bool,
    /// Why IPv6 is left as the change made it.
    pub left_v6: Option<Error>,
    /// What keeps the state folder from taking new files.
    pub full: Option<FileError>,
    /// Why the decision is not recorded.
    pub unrecorded: Option<StateError>,
}

/// Undoes the change, if it still waits.
///
/// # Errors
/// When it cannot be undone: it waits on.
pub fn undo(state: &State, known: &Pending, lock_wait_secs: u64) -> Result<Undoing, Error> {
    undo_if(state, known, Decision::Cancelled, lock_wait_secs, |_| true)
}

/// Undoes the change only if `still` holds of its record under the lock. A record that is gone or cannot
/// be read is taken to say what was known.
fn undo_if(
    state: &State,
    known: &Pending,
    decision: Decision,
    lock_wait_secs: u64,
    still: impl Fn(&Pending) -> bool,
) -> Result<Undoing, Error> {
    // Gone under the change, for one; opening the lock tells whether it matters.
    let _ = state.make();
    let lock = lock::take_to_undo(&state.lock_file(), lock_wait_secs)?;
    if is_decided(state, &known.id) {
        return Ok(Undoing::NotDue);
    }
    let pending = match state.pending() {
        Ok(Some(now)) if now.id == known.id => now,
        _ => known.clone(),
    };
    if !still(&pending) {
        return Ok(Undoing::NotDue);
    }
    let mut undone = restore(state, &lock, &pending)?;
    end_connections(&pending);
    let event = match decision {
        Decision::TimedOut => Event::TimedOut,
        _ => Event::Cancelled,
    };
    log(&pending.before, event);
    // It is undone, whether that can be written or not.
    match settle(state, &pending, decision) {
        Ok(full) => undone.full = full,
        Err(error) => undone.unrecorded = Some(error),
    }
    Ok(Undoing::Undone(Box::new(undone)))
}

/// Loads what was there before the change. IPv6 that can be neither read nor written any more is no reason
/// to leave IPv4.
fn restore(state: &State, lock: &Lock, pending: &Pending) -> Result<Undone, Error> {
    let (iptables, mut want) = (pending.iptables(), pending.rules()?);
    let listing = iptables.start_listing(pending.families());
    let read = listing.and_then(|listing| listing.finish_readable(false));
    let (undone, unread) = match read {
        Ok((live, unread)) => {
            let before = PerFamily {
                v4: (live.v4.ruleset, live.v4.counters),
                v6: live.v6.map(|live| (live.ruleset, live.counters)),
            };
            if before.v6.is_none() {
                want.v6 = None;
            }
            let undone = load(state, lock, pending, &before, &want);
            (undone, unread.map(Error::from))
        }
        Err(error) => (Err(error.into()), None),
    };
    let (families, error) = match (undone, unread) {
        (Ok(()), None) => return Ok(Undone::default()),
        // Nobody can look, but what is there may still be written.
        (Ok(()), Some(unread)) => (&[Family::V6][..], unread),
        // Somebody has put in what iptables cannot show, or rules that lead to a chain that should go.
        (Err(error), _) => (pending.families().as_slice(), error),
    };
    // What the change made is known, and can be emptied all the same.
    debug!(error = describe(&error), "undone without a look");
    let refused = refill(lock, pending, families)?;
    let left = |family| refused.contains(&family);
    if left(Family::V4) {
        return Err(error);
    }
    // A program that said that it has loaded them may have loaded nothing.
    let listing = iptables.start_listing(pending.families())?;
    let unverified = match listing.finish_readable(false) {
        Ok((live, unread)) => {
            let both = live.as_ref().zip(want.as_ref());
            let mut each = both.iter().filter(|(family, _)| !left(*family));
            if !each.all(|(_, (live, want))| holds_rules_of(&live.ruleset, want)) {
                return Err(error);
            }
            unread.is_some() && !left(Family::V6)
        }
        Err(_) => true,
    };
    Ok(Undone {
        unverified,
        left_v6: left(Family::V6).then_some(error),
        ..Undone::default()
    })
}

fn load(
    state: &State,
    lock: &Lock,
    pending: &Pending,
    before: &PerFamily<(Ruleset, Counters)>,
    want: &PerFamily<Ruleset>,
) -> Result<(), Error> {
    let live = before.map(|_, (live, _)| live);
    if changes(&live, want).is_empty() {
        return Ok(());
    }
    let transaction = Transaction {
        state,
        lock,
        iptables: &pending.iptables(),
        before,
        want,
        change: &Change {
            action: format!("undo {}", pending.before.action),
            ..pending.before.clone()
        },
        keeping: Keeping::Done,
        trial: TrialOf::Nothing,
    };
    transaction.commit().map(drop).map_err(Error::from)
}

/// Whether nvactl's chains hold the rules that are wanted, and no others. Empty ones, and jumps to them,
/// stay where foreign rules lead to them.
fn holds_rules_of(live: &Ruleset, want: &Ruleset) -> bool {
    let rules = |ruleset: &Ruleset| -> Vec<(TableName, ChainName, Vec<Rule>)> {
        let own = ruleset.chains().filter(|(_, name, _)| name.is_own());
        let filled = own.filter(|(_, _, chain)| !chain.rules.is_empty());
        filled
            .map(|(table, name, chain)| (table, name.clone(), chain.rules.clone()))
            .collect()
    };
    rules(live) == rules(want)
}

/// Empties what the change made, and fills it with what was there before, without a look at what is there.
/// Returns the families that refuse it: one is no reason to leave the other.
fn refill(lock: &Lock, pending: &Pending, families: &[Family]) -> Result<Vec<Family>, Error> {
    let (iptables, want) = (pending.iptables(), pending.rules()?);
    let made = pending.wanted().try_map(|_, text| parse::parse(text))?;
    let both = made.as_ref().zip(want.as_ref());
    let meant = both.iter().filter(|(family, _)| families.contains(family));
    let mut refused = Vec::new();
    for (family, (made, want)) in meant {
        if let Err(error) = iptables.load(family, &diff::refill(made, want), lock) {
            debug!(%error, "not loaded");
            refused.push(family);
        }
    }
    Ok(refused)
}

/// Ends the connections that only the undone change led anywhere: one who comes in through this
/// machine by a port that the change took would stay cut off for as long as it keeps sending.
fn end_connections(pending: &Pending) {
    let before = pending.before.owned();
    for (family, (want, before)) in pending.wanted().zip(before).iter() {
        let Some(undone) = forwards_of(want) else {
            continue;
        };
        let now = forwards_of(&before.rules).unwrap_or_else(|| ForwardSet {
            forwards: Vec::new(),
            ..undone.clone()
        });
        // conntrack may be missing: then no connection is ended.
        let flows = conntrack::flows(family).unwrap_or_default();
        let once = [undone];
        if let Err(error) = conntrack::delete(stale(&flows, &once, &now)) {
            debug!(%error, "connections of what was undone go on");
        }
    }
}
