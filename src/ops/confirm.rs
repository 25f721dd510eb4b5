//! Decides on a change that waits for its confirmation.

use super::ending::Ended;
use super::error::{Error, describe};
use super::flows;
use super::history::{self, undone_words};
use super::log::{self, ChangeEvent, LogEntry};
use super::records::{Decision, LastDecision, Pending};
use super::refusal::Refusal;
use super::remark::Remarks;
use super::state::State;
use super::waiting::{CANCEL, choices, pending, pending_in_earnest, settle, told};
use super::watchdog::Undoing;
use super::{next_boot, watchdog};
use crate::diff;
use crate::diff::drift::ForwardNames;
use crate::health::doctor::{Choice, PendingChange};
use crate::host::iptables::Live;
use crate::host::lock;
use crate::host::session;
use crate::host::ssh_connection::judge;
use crate::net::per_family::PerFamily;
use crate::netfilter::text::parse;

/// The state of the confirmation.
#[derive(Debug)]
pub enum Standing {
    Waits(Box<Pending>),
    /// This version of nvactl cannot read the record.
    Unreadable(String),
    Nothing {
        /// How the last change ended, if it was undone.
        last: Option<String>,
    },
}

/// Returns the state of the confirmation.
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

/// Describes the undo of the last change, if it was undone.
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

/// Returns the refusal for a decision when no change waits.
fn nothing_pending(state: &State) -> Error {
    let last = last_undone(state).unwrap_or_default();
    Refusal::NothingPending { last }.into()
}

/// Describes the change that waits here in one line, with the best command for it. There is none without a
/// state folder.
///
/// # Errors
/// When the state folder cannot be read.
pub fn told_of(state: Option<&State>) -> Result<Option<String>, Error> {
    let Some(state) = state else { return Ok(None) };
    Ok(match standing(state)? {
        Standing::Waits(pending) => {
            let choice = choices(&pending)[0];
            Some(format!("{}; {choice}", told(state, &pending)))
        }
        Standing::Unreadable(why) => {
            let refusal = Refusal::UnreadablePending { why };
            let fix = refusal.hint().unwrap_or_default();
            Some(format!("{refusal}; {fix}"))
        }
        Standing::Nothing { .. } => None,
    })
}

/// Returns the change that waits here with the commands that decide on it.
///
/// # Errors
/// When the state folder cannot be read.
pub fn pending_of(state: Option<&State>) -> Result<Option<PendingChange>, Error> {
    let Some(state) = state else { return Ok(None) };
    Ok(match standing(state)? {
        Standing::Waits(pending) => Some(PendingChange {
            told: told(state, &pending),
            choices: choices(&pending),
        }),
        Standing::Unreadable(why) => {
            let discard = Choice {
                purpose: "to discard the record and leave the change's rules loaded",
                command: CANCEL,
            };
            Some(PendingChange {
                told: Refusal::UnreadablePending { why }.to_string(),
                choices: vec![discard],
            })
        }
        Standing::Nothing { .. } => None,
    })
}

/// The result of a decision.
#[derive(Debug)]
pub enum ConfirmReport {
    /// The change stays.
    Kept {
        action: String,
        ended: Vec<Ended>,
        /// Whether nvactl's rules were changed after the change.
        changed_since: bool,
        /// Why no new file can be written in the state folder.
        full: Option<String>,
        /// Whether the new SSH connection comes from this machine.
        from_itself: bool,
        /// Remarks about the next boot.
        after: Remarks,
    },
    /// The change is undone.
    Undone {
        action: String,
        undone: Box<watchdog::UndoReport>,
    },
    /// The record is discarded, and the rules stay, since the record cannot be read.
    Discarded { why: String },
}

/// Confirms the change that waits; with `new_session`, only if this session came over another SSH connection
/// than the one that applied it.
///
/// # Errors
/// When none waits, the change was not fully applied, the connection is not a new one, or the decision cannot
/// be recorded.
pub fn keep(state: &State, new_session: bool, lock_wait_secs: u64) -> Result<ConfirmReport, Error> {
    // If no change waits, do not wait for the lock.
    let known = waiting(state)?;
    let lock = lock::take(&state.lock_file(), lock_wait_secs)?;
    // The watchdog may have taken the lock first.
    let now = pending_in_earnest(state)?.filter(|now| now.id == known.id);
    let now = now.ok_or_else(|| nothing_pending(state))?;
    if !now.made {
        return Err(Refusal::NotMade.into());
    }
    let connection = new_session.then(session::connection).flatten();
    if new_session {
        judge(now.ssh_connection(), connection.as_ref()).map_err(|why| Error::NotNew {
            why,
            left_secs: now.left(),
        })?;
    }
    let live = loaded(&now);
    let changed_since = live.as_ref().is_some_and(|live| !is_as_made(&now, live));
    let full = settle(state, &now, Decision::Confirmed)?;
    drop(lock);
    history::log(&now.before, ChangeEvent::Confirmed);
    // The change is confirmed, even if connections cannot be ended.
    let ended = flows::end_stale(state, &known).unwrap_or_else(|error| vec![Ended::failed(&error)]);
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
    Ok(ConfirmReport::Kept {
        action: known.before.action,
        ended,
        changed_since,
        full: full.map(|error| describe(&error.into())),
        from_itself: connection.is_some_and(|connection| connection.is_local()),
        after,
    })
}

/// Reads the rules of the families that a change touches, if they can be read.
fn loaded(pending: &Pending) -> Option<PerFamily<Live>> {
    let listing = pending.iptables().start_listing(pending.families());
    let (live, _) = listing.ok()?.finish_readable(false).ok()?;
    Some(live)
}

/// Whether nvactl's rules are still those of the change: a killed watchdog may have undone a part of it.
fn is_as_made(pending: &Pending, live: &PerFamily<Live>) -> bool {
    let owned = pending.before.owned();
    let each = live.as_ref().zip(pending.wanted()).zip(owned);
    each.values().all(|((live, wanted), owned)| {
        let wanted = parse::parse(wanted);
        wanted.is_ok_and(|wanted| diff::holds_the_same(&live.ruleset, &wanted, owned.sets_policy))
    })
}

/// Undoes the change that waits at once, or discards it if its record cannot be read.
///
/// # Errors
/// When none waits, or the undo fails.
pub fn cancel(state: &State, lock_wait_secs: u64) -> Result<ConfirmReport, Error> {
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
        Undoing::Undone(undone) => Ok(ConfirmReport::Undone {
            action: known.before.action,
            undone,
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

/// Discards an unreadable record. The decision names the change, so that its watchdog leaves the rules alone.
fn discard(state: &State, why: String, lock_wait_secs: u64) -> Result<ConfirmReport, Error> {
    let _lock = lock::take(&state.lock_file(), lock_wait_secs)?;
    // Another process may have decided while this one waited for the lock.
    match state.pending() {
        Err(error) if error.is_unreadable_record() => {}
        Ok(Some(pending)) if pending.rules().is_err() => {}
        _ => return Err(nothing_pending(state)),
    }
    if let Some(LastDecision(id, Decision::Waiting)) = state.decided() {
        state.set_decision(&LastDecision(id, Decision::Cancelled))?;
    }
    state.clear_begun()?;
    state.clear_pending()?;
    log::write(&LogEntry {
        event: ChangeEvent::Discarded,
        action: "unknown",
        who: &session::who(),
        spec: None,
        forwards: &ForwardNames::default(),
    });
    Ok(ConfirmReport::Discarded { why })
}
