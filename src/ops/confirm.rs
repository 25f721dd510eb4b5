//! The decision on a change that waits for its confirmation.

use super::error::{Error, describe};
use super::flows::{self, Ended};
use super::history::{self, undone_words};
use super::log::{self, Entry, Event};
use super::records::{Decided, Decision, Pending};
use super::refusal::Refusal;
use super::remark::Remarks;
use super::state::State;
use super::waiting::{choices, pending, pending_in_earnest, settle, told};
use super::watchdog::Undoing;
use super::{next_boot, watchdog};
use crate::diff;
use crate::diff::drift::ForwardNames;
use crate::host::iptables::Live;
use crate::host::lock;
use crate::host::session;
use crate::host::ssh_connection::judge;
use crate::net::per_family::PerFamily;
use crate::netfilter::text::parse;

/// What there is to know of the change that waits, or of the last one that did.
#[derive(Debug)]
pub enum Standing {
    Waits(Box<Pending>),
    /// Its record says nothing to this nvactl.
    Unreadable(String),
    Nothing {
        /// What became of the last change, if it was undone.
        last: Option<String>,
    },
}

/// Returns how the confirmation stands.
///
/// # Errors
/// When the state folder cannot be read.
pub fn standing(state: &State) -> Result<Standing, Error> {
    match pending(state) {
        Ok(Some(pending)) => Ok(Standing::Waits(Box::new(pending))),
        Err(error) if error.is_unreadable_record() => {
            Ok(Standing::Unreadable(describe(&error.into())))
        }
        Err(error) => Err(error.into()),
        Ok(None) => Ok(Standing::Nothing {
            last: last_undone(state)?,
        }),
    }
}

/// Says what became of the last change, if it was undone.
fn last_undone(state: &State) -> Result<Option<String>, Error> {
    let Some(number) = state.numbers()?.pop() else {
        return Ok(None);
    };
    let change = state.change(number)?;
    Ok(change.and_then(|change| {
        let undone = undone_words(change.undone.as_ref()?);
        Some(format!(
            "the last change ({number}: {}) was {undone}",
            change.action
        ))
    }))
}

/// Refuses to decide where nothing waits.
fn nothing_pending(state: &State) -> Error {
    let last = last_undone(state).unwrap_or_default();
    Refusal::NothingPending { last }.into()
}

/// Describes the change that waits here in one line, with the command that ends the waiting. Without a state
/// folder there is none.
///
/// # Errors
/// When the state folder cannot be read.
pub fn told_of(state: Option<&State>) -> Result<Option<String>, Error> {
    let Some(state) = state else { return Ok(None) };
    Ok(match standing(state)? {
        Standing::Waits(pending) => {
            let choice = choices(&pending)[0];
            Some(format!("{}; {choice}", told(&pending)))
        }
        Standing::Unreadable(why) => {
            let refusal = Refusal::UnreadablePending { why };
            let fix = refusal.hint().unwrap_or_default();
            Some(format!("{refusal}; {fix}"))
        }
        Standing::Nothing { .. } => None,
    })
}

/// Describes the change that waits here in one line, and returns the command that ends the waiting.
///
/// # Errors
/// When the state folder cannot be read.
pub fn pending_of(state: Option<&State>) -> Result<Option<(String, &'static str)>, Error> {
    let Some(state) = state else { return Ok(None) };
    Ok(match standing(state)? {
        Standing::Waits(pending) if pending.left() > 0 => {
            Some((told(&pending), "sudo nvactl confirm"))
        }
        Standing::Waits(pending) => Some((told(&pending), "sudo nvactl confirm --cancel")),
        Standing::Unreadable(why) => {
            let refusal = Refusal::UnreadablePending { why };
            Some((refusal.to_string(), "sudo nvactl confirm --cancel"))
        }
        Standing::Nothing { .. } => None,
    })
}

/// What became of a change on which somebody decided.
#[derive(Debug)]
pub enum Report {
    /// It stays.
    Kept {
        action: String,
        ended: Ended,
        /// Whether nvactl's rules are not those that the change made any more.
        changed_since: bool,
        /// What keeps the state folder from taking new files.
        full: Option<String>,
        /// Whether the connection that was to be a new one comes from this machine.
        from_itself: bool,
        /// What there is to say of the next boot.
        after: Remarks,
    },
    /// It is undone.
    Undone {
        action: String,
        undone: watchdog::Undone,
    },
    /// Its record is discarded, and what it changed stays, since nobody knows what that was.
    Discarded { why: String },
}

/// Keeps the change that waits; with `new_session`, only if this session came over another SSH
/// connection than the one that applied it.
///
/// # Errors
/// When none waits, or it was not made whole, or the connection is not a new one, or the decision cannot
/// be recorded.
pub fn keep(state: &State, new_session: bool, lock_wait_secs: u64) -> Result<Report, Error> {
    // Nobody waits for the lock of a change that there is not.
    let known = waiting(state)?;
    let lock = lock::take(&state.lock_file(), lock_wait_secs)?;
    // The watchdog may have been faster to the lock.
    let now = pending_in_earnest(state)?.filter(|now| now.id == known.id);
    let now = now.ok_or_else(|| nothing_pending(state))?;
    if !now.made {
        return Err(Refusal::NotMade.into());
    }
    let connection = new_session.then(session::connection).flatten();
    if new_session {
        judge(now.ssh_connection(), connection.as_ref())?;
    }
    let live = loaded(&now);
    let changed_since = live.as_ref().is_some_and(|live| !is_as_made(&now, live));
    let full = settle(state, &now, Decision::Confirmed)?;
    drop(lock);
    history::log(&now.before, Event::Confirmed);
    // It is kept, whatever becomes of connections.
    let ended = flows::end_stale(state, &known).unwrap_or_else(|error| Ended::failed(&error));
    let mut after = Remarks::default();
    if let Some(live) = &live {
        let iptables = now.iptables();
        next_boot::say_of_change(
            state,
            &iptables,
            &live.map(|_, live| &live.ruleset),
            &mut after,
        );
    }
    Ok(Report::Kept {
        action: known.before.action,
        ended,
        changed_since,
        full: full.map(|error| describe(&error.into())),
        from_itself: connection.is_some_and(|connection| connection.is_local()),
        after,
    })
}

/// Reads the rules of the families that a change touches, as far as they can be read.
fn loaded(pending: &Pending) -> Option<PerFamily<Live>> {
    let listing = pending.iptables().start_listing(pending.families());
    let (live, _) = listing.ok()?.finish_readable(false).ok()?;
    Some(live)
}

/// Whether nvactl's rules are those that a change made: a watchdog that was killed may have undone a part of
/// it.
fn is_as_made(pending: &Pending, live: &PerFamily<Live>) -> bool {
    let owned = pending.before.owned();
    let each = live.as_ref().zip(pending.wanted()).zip(owned);
    each.values().all(|((live, wanted), owned)| {
        let wanted = parse::parse(wanted);
        wanted.is_ok_and(|wanted| diff::holds_the_same(&live.ruleset, &wanted, owned.sets_policy))
    })
}

/// Undoes the change that waits, at once. One whose record says nothing is discarded.
///
/// # Errors
/// When none waits, or it cannot be undone.
pub fn cancel(state: &State, lock_wait_secs: u64) -> Result<Report, Error> {
    let known = match waiting(state) {
        Err(Error::Refusal(Refusal::UnreadablePending { why })) => {
            return discard(state, why, lock_wait_secs);
        }
        known => known?,
    };
    if let Err(error) = known.rules() {
        return discard(state, error.to_string(), lock_wait_secs);
    }
    match watchdog::undo(state, &known, lock_wait_secs)? {
        Undoing::NotDue => Err(nothing_pending(state)),
        Undoing::Undone(undone) => Ok(Report::Undone {
            action: known.before.action,
            undone: *undone,
        }),
    }
}

fn waiting(state: &State) -> Result<Pending, Error> {
    match pending(state) {
        Ok(Some(pending)) => Ok(pending),
        Ok(None) => Err(nothing_pending(state)),
        Err(error) if error.is_unreadable_record() => Err(Refusal::UnreadablePending {
            why: describe(&error.into()),
        }
        .into()),
        Err(error) => Err(error.into()),
    }
}

/// Discards a record that says nothing. The decision names its change, so that a watchdog which still
/// knows it leaves the rules to whoever decides now.
fn discard(state: &State, why: String, lock_wait_secs: u64) -> Result<Report, Error> {
    let _lock = lock::take(&state.lock_file(), lock_wait_secs)?;
    // Another may have decided while the lock was waited for.
    match state.pending() {
        Err(error) if error.is_unreadable_record() => {}
        Ok(Some(pending)) if pending.rules().is_err() => {}
        _ => return Err(nothing_pending(state)),
    }
    if let Some(Decided(id, Decision::Waiting)) = state.decided() {
        state.set_decision(&Decided(id, Decision::Cancelled))?;
    }
    state.clear_begun()?;
    state.clear_pending()?;
    log::write(&Entry {
        event: Event::Discarded,
        action: "unknown",
        who: &session::who(),
        spec: None,
        forwards: &ForwardNames::default(),
    });
    Ok(Report::Discarded { why })
}
