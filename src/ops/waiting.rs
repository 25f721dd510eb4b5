//! The change that waits for its confirmation: whether there is one, and how its waiting ends.

use tracing::debug;

use super::adopt::{are_there, of_family};
use super::error::{Error, describe};
use super::records::{Change, Decision, LastDecision, Pending, Undone};
use super::refusal::Refusal;
use super::state::{State, StateError, seconds_now};
use crate::diff;
use crate::health::doctor::Choice;
use crate::host::file::FileError;
use crate::host::iptables::Iptables;
use crate::host::namespace::{boot, uptime_secs};
use crate::host::ssh_connection::SshConnection;
use crate::host::{detached, lock, process};
use crate::net::per_family::PerFamily;
use crate::netfilter::backend::Backend;
use crate::netfilter::ruleset::Ruleset;

/// How many seconds each try of an undo waits for another nvactl.
pub const LOCK_WAIT_SECS: u64 = 60;

impl Pending {
    /// Returns the record of a change that this process is about to make.
    ///
    /// # Errors
    /// When the kernel does not tell which boot this is.
    pub fn new(
        before: Change,
        want: &PerFamily<Ruleset>,
        backend: Backend,
        seconds: u64,
    ) -> Result<Self, StateError> {
        Ok(Self {
            version: before.version,
            id: format!("{}-{}", process::own_id(), seconds_now()),
            deadline: uptime_secs() + seconds,
            boot: boot()?,
            backend,
            flush_stale: false,
            made: false,
            before,
            want: want.v4.to_string(),
            want_v6: want.v6.as_ref().map(ToString::to_string),
            older: Vec::new(),
        })
    }

    /// Returns the seconds that are left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.deadline.saturating_sub(uptime_secs())
    }

    /// Whether the change can still be confirmed: it is fully applied, and its time is not up.
    #[must_use]
    pub fn can_be_kept(&self) -> bool {
        self.made && self.left() > 0
    }

    /// Returns the seconds since the time was up.
    #[must_use]
    pub fn overdue(&self) -> u64 {
        uptime_secs().saturating_sub(self.deadline)
    }

    /// Returns the iptables that loaded the change.
    #[must_use]
    pub fn iptables(&self) -> Iptables {
        Iptables {
            backend: self.backend,
            lock_wait: LOCK_WAIT_SECS,
        }
    }

    /// Returns the SSH connection over which the change was applied, if it is known.
    #[must_use]
    pub fn ssh_connection(&self) -> Option<&SshConnection> {
        self.before.who.as_ref()?.ssh_connection.as_ref()
    }

    /// Returns the name of the systemd timer that watches the change.
    #[must_use]
    pub fn timer(&self) -> String {
        format!("nvactl-confirm-{}", self.id)
    }
}

/// Returns the change that waits in this network namespace and this boot. A change with a decision no longer
/// waits, even if its record is still there.
///
/// # Errors
/// When a record cannot be read.
pub fn pending(state: &State) -> Result<Option<Pending>, StateError> {
    let Some(pending) = state.pending()? else {
        return Ok(None);
    };
    let here = state.is_of_here(&pending.before) && pending.boot == boot()?;
    let waits = here && state.decision(&pending.id).is_none();
    Ok(waits.then_some(pending))
}

/// Returns the change that waits; the caller holds the lock. Finishes a change with a decision first, and
/// drops a change that was recorded but never made because nvactl was killed.
///
/// # Errors
/// When a record or the loaded rules cannot be read.
pub fn pending_in_earnest(state: &State) -> Result<Option<Pending>, Error> {
    if let Some(recorded) = state.pending()?
        && let Some(decision) = state.decision(&recorded.id)
    {
        finish(state, &recorded, decision)?;
        return Ok(None);
    }
    let Some(pending) = pending(state)? else {
        return Ok(None);
    };
    // Other rules may have been loaded since, but a complete change still waits.
    if pending.made {
        return Ok(Some(pending));
    }
    let listing = pending.iptables().start_listing(pending.families())?;
    let (live, unread) = listing.finish_readable(false)?;
    let unmade = |before: PerFamily<Ruleset>| {
        let owned = pending.before.owned();
        let all = live.as_ref().zip(before.as_ref()).zip(owned);
        all.iter().all(|(family, ((live, before), owned))| {
            diff::holds_the_same(&live.ruleset, before, owned.sets_policy)
                && are_there(&live.ruleset, &of_family(&pending.before.adopted, family))
        })
    };
    // Unreadable IPv6 may hold the new rules.
    if unread.is_none() && pending.rules().is_ok_and(unmade) {
        settle(state, &pending, Decision::NotMade)?;
        return Ok(None);
    }
    Ok(Some(pending))
}

/// Ends the waiting. The decision is written before the record is removed, since a removed record alone is no
/// decision. Returns the error that keeps new files from being written, such as a full disk.
///
/// # Errors
/// When the folder cannot be written.
pub fn settle(
    state: &State,
    pending: &Pending,
    decision: Decision,
) -> Result<Option<FileError>, StateError> {
    let in_place = state.set_decision(&LastDecision(pending.id.clone(), decision))?;
    let lost = finish(state, pending, decision)?;
    Ok(in_place.or(lost))
}

/// Finishes a change whose decision is written: updates the history, and removes the record.
fn finish(
    state: &State,
    pending: &Pending,
    decision: Decision,
) -> Result<Option<FileError>, StateError> {
    let mut lost = None;
    match decision {
        Decision::Waiting | Decision::Confirmed => {}
        Decision::Cancelled | Decision::TimedOut => lost = note_undone(state, pending, decision)?,
        Decision::NotMade => {
            if let Some((number, _)) = state.newest_like(&pending.before)? {
                state.forget(number)?;
            }
        }
    }
    state.clear_begun()?;
    state.clear_pending()?;
    detached::end_timer(&pending.timer());
    Ok(lost)
}

/// Marks a change in the history as undone. If there is no room for that, removes the change from the
/// history, so that nobody rolls back to before it, and returns the error.
fn note_undone(
    state: &State,
    pending: &Pending,
    why: Decision,
) -> Result<Option<FileError>, StateError> {
    let Some((number, mut change)) = state.newest_like(&pending.before)? else {
        return Ok(None);
    };
    change.undone = Some(Undone {
        time: seconds_now(),
        why,
        ended: 0,
        left: Vec::new(),
    });
    match state.rewrite(number, &change) {
        Err(StateError::File(error)) => state.forget(number).map(|()| Some(error)),
        noted => noted.map(|()| None),
    }
}

/// How many seconds an undo that is done waits to add the ended connections to the history.
const NOTE_WAIT_SECS: u64 = 5;

/// Adds to the history how many connections an undo ended. The history lacks the number if another change was made
/// meanwhile, or if the record cannot be written.
pub fn note_ended(state: &State, pending: &Pending, ended: usize) {
    let Ok(_lock) = lock::take(&state.lock_file(), NOTE_WAIT_SECS) else {
        return;
    };
    let Ok(Some((number, mut change))) = state.newest_like(&pending.before) else {
        return;
    };
    if let Some(undone) = &mut change.undone {
        undone.ended = ended;
        if let Err(error) = state.rewrite(number, &change) {
            debug!(%error, "the history does not show the ended connections");
        }
    }
}

/// Adds to the history the adopted rules that an undo did not put back, in words. The caller holds the lock.
pub fn note_left(state: &State, pending: &Pending, left: &[String]) {
    let Ok(Some((number, mut change))) = state.newest_like(&pending.before) else {
        return;
    };
    if let Some(undone) = &mut change.undone {
        undone.left = left.to_vec();
        if let Err(error) = state.rewrite(number, &change) {
            debug!(%error, "the history does not show the adopted rules that did not come back");
        }
    }
}

/// Describes a change that waits in one line, without a command.
#[must_use]
pub fn told(state: &State, pending: &Pending) -> String {
    let action = &pending.before.action;
    let change = match state.newest_like(&pending.before) {
        Ok(Some((number, _))) => format!("change {number} ({action})"),
        _ => format!("the change `{action}`"),
    };
    match pending.left() {
        0 => format!("{change} was not confirmed in time and is not undone yet"),
        _ if !is_guarded(pending) => format!(
            "{change} waits for its confirmation, but its watchdog is gone: nothing undoes the change in time"
        ),
        left if pending.made => {
            format!("{change} is loaded, and is undone in {left} s unless you confirm it")
        }
        left => format!("{change} cannot be confirmed, and is undone in {left} s"),
    }
}

/// Whether a process or a timer will undo a change. A process of another PID namespace is not seen.
fn is_guarded(pending: &Pending) -> bool {
    detached::runs_with(&["watchdog", &pending.id]) || detached::has_timer(&pending.timer())
}

/// Undoes a change, or discards its record.
pub const CANCEL: &str = "sudo nvactl confirm --cancel";

/// Returns the commands that decide on a change that waits, the best one first.
#[must_use]
pub fn choices(pending: &Pending) -> Vec<Choice> {
    let keep = Choice {
        purpose: "to keep the change",
        command: "sudo nvactl confirm",
    };
    let undo = Choice {
        purpose: "to undo it now",
        command: CANCEL,
    };
    let keep = pending.can_be_kept().then_some(keep);
    keep.into_iter().chain([undo]).collect()
}

/// Refuses a further change, since an undo could then not tell what to restore. The caller holds the lock.
///
/// # Errors
/// When a change waits, or a record cannot be read.
pub fn refuse_while_pending(state: &State) -> Result<(), Error> {
    refuse(state, pending_in_earnest(state))
}

/// Refuses a change of other settings, since an undo would not restore them.
///
/// # Errors
/// When a change waits, or a record cannot be read.
pub fn refuse_beside_a_change(state: &State) -> Result<(), Error> {
    refuse(state, pending(state).map_err(Error::from))
}

fn refuse(state: &State, waiting: Result<Option<Pending>, Error>) -> Result<(), Error> {
    match waiting {
        Ok(None) => Ok(()),
        Ok(Some(pending)) => Err(Refusal::Pending {
            can_be_kept: pending.can_be_kept(),
            told: told(state, &pending),
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
