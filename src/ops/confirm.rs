//! The decision on a change that waits for its confirmation.

use super::flows::{self, Ended};
use super::history::log;
use super::records::{Decided, Decision, Pending, Undone};
use super::refusal::Refusal;
use super::state::State;
use super::waiting::{pending, pending_in_earnest, settle};
use super::watchdog::Undoing;
use super::{Error, describe, watchdog};
use crate::host::lock;
use crate::host::log::Event;
use crate::host::session;
use crate::host::ssh_connection::judge;

/// What there is to know of the change that waits, or of the last one that did.
#[derive(Debug)]
pub enum Standing {
    Waits(Box<Pending>),
    /// Its record says nothing to this nvactl.
    Unreadable(String),
    Nothing {
        /// The last change, if it was undone: its number, what it was, and when and why.
        undone: Option<(u64, String, Undone)>,
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
        Ok(None) => {
            let newest = state.numbers()?.pop();
            let change = newest.map(|number| Ok::<_, Error>((number, state.change(number)?)));
            let undone = change.transpose()?.and_then(|(number, change)| {
                let change = change?;
                Some((number, change.action, change.undone?))
            });
            Ok(Standing::Nothing { undone })
        }
    }
}

/// Returns the change that waits here, in a line; nothing is known of any where there is no state folder.
///
/// # Errors
/// When the state folder cannot be read.
pub fn told_of(state: Option<&State>) -> Result<Option<String>, Error> {
    let Some(state) = state else { return Ok(None) };
    Ok(match standing(state)? {
        Standing::Waits(pending) => Some(told(&pending)),
        Standing::Unreadable(why) => Some(format!(
            "a change waits for its confirmation, and its record says nothing to this nvactl: {why}; \
             `nvactl confirm --cancel` discards it"
        )),
        Standing::Nothing { .. } => None,
    })
}

/// Tells a change that waits, in a line.
#[must_use]
pub fn told(pending: &Pending) -> String {
    let action = &pending.before.action;
    if pending.left() == 0 {
        return format!(
            "{action} was not confirmed in time and is not undone yet; \
             `nvactl confirm --cancel` undoes it now"
        );
    }
    format!(
        "{action} waits for its confirmation: undone in {} s unless `nvactl confirm` comes; \
         `nvactl confirm --cancel` undoes it at once",
        pending.left()
    )
}

/// Refuses a further change, which would leave nobody knowing what to undo. To be asked under the lock.
///
/// # Errors
/// When a change waits, or what is recorded cannot be read.
pub fn refuse_while_pending(state: &State) -> Result<(), Error> {
    refuse(pending_in_earnest(state))
}

/// Refuses what is changed beside the rules, since it would not be undone with them.
///
/// # Errors
/// When a change waits, or what is recorded cannot be read.
pub fn refuse_beside_a_change(state: &State) -> Result<(), Error> {
    refuse(pending(state).map_err(Error::from))
}

fn refuse(waiting: Result<Option<Pending>, Error>) -> Result<(), Error> {
    match waiting {
        Ok(None) => Ok(()),
        Ok(Some(pending)) => Err(Refusal::Pending {
            told: told(&pending),
            overdue: pending.left() == 0,
        }
        .into()),
        Err(Error::State(error)) if error.is_unreadable_record() => {
            Err(Refusal::UnreadablePending {
                why: describe(&error.into()),
            }
            .into())
        }
        Err(error) => Err(error),
    }
}

/// What became of a change on which somebody decided.
#[derive(Debug)]
pub enum Report {
    /// It stays.
    Kept {
        action: String,
        ended: Ended,
        /// What keeps the state folder from taking new files.
        full: Option<String>,
        /// Whether the connection that was to be a new one comes from this machine.
        from_itself: bool,
    },
    /// It is undone.
    Undone {
        action: String,
        /// Why IPv6 is left as the change made it.
        left_v6: Option<String>,
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
    let now = now.ok_or(Refusal::NothingPending)?;
    if !now.made {
        return Err(Refusal::NotMade.into());
    }
    let connection = new_session.then(session::connection).flatten();
    if new_session {
        judge(now.ssh_connection(), connection.as_ref())?;
    }
    let full = settle(state, &now, Decision::Confirmed)?;
    drop(lock);
    log(&now.before, Event::Confirmed);
    // It is kept, whatever becomes of connections.
    let ended = flows::end_stale(state, &known).unwrap_or_else(|error| Ended::failed(&error));
    Ok(Report::Kept {
        action: known.before.action,
        ended,
        full: full.map(|error| describe(&error.into())),
        from_itself: connection.is_some_and(|connection| connection.is_local()),
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
    match watchdog::undo(state, &known, lock_wait_secs)? {
        Undoing::NotDue => Err(Refusal::NothingPending.into()),
        Undoing::Undone { left_v6 } => Ok(Report::Undone {
            action: known.before.action,
            left_v6: left_v6.map(|error| describe(&error)),
        }),
    }
}

fn waiting(state: &State) -> Result<Pending, Error> {
    match pending(state) {
        Ok(Some(pending)) => Ok(pending),
        Ok(None) => Err(Refusal::NothingPending.into()),
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
    if let Some(Decided(id, Decision::Waiting)) = state.decided() {
        state.set_decision(&Decided(id, Decision::Cancelled))?;
    }
    state.clear_begun()?;
    state.clear_pending()?;
    Ok(Report::Discarded { why })
}
