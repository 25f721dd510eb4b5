//! The change that waits for its confirmation: whether there is one, and how the waiting ends.

use super::error::{Error, describe};
use super::records::{Change, Decided, Decision, Pending, Undone, VERSION};
use super::refusal::Refusal;
use super::state::{State, StateError, seconds_now};
use crate::diff;
use crate::host::file::FileError;
use crate::host::iptables::Iptables;
use crate::host::namespace::{boot, uptime_secs};
use crate::host::ssh_connection::SshConnection;
use crate::host::{detached, process};
use crate::net::per_family::PerFamily;
use crate::netfilter::backend::Backend;
use crate::netfilter::ruleset::Ruleset;

/// Seconds that an undo waits for another nvactl, each try.
pub const LOCK_WAIT_SECS: u64 = 60;

impl Pending {
    /// A change by this process, that is about to be made.
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
            version: VERSION,
            id: format!("{}-{}", process::own_id(), seconds_now()),
            deadline: uptime_secs() + seconds,
            boot: boot()?,
            backend,
            flush_stale: false,
            made: false,
            before,
            want: want.v4.to_string(),
            want_v6: want.v6.as_ref().map(ToString::to_string),
        })
    }

    /// How many seconds are left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.deadline.saturating_sub(uptime_secs())
    }

    /// How many seconds ago its time was up.
    #[must_use]
    pub fn overdue(&self) -> u64 {
        uptime_secs().saturating_sub(self.deadline)
    }

    /// The iptables that loaded it.
    #[must_use]
    pub fn iptables(&self) -> Iptables {
        Iptables {
            backend: self.backend,
            lock_wait: LOCK_WAIT_SECS,
        }
    }

    /// The SSH connection over which it was applied, where that is known.
    #[must_use]
    pub fn ssh_connection(&self) -> Option<&SshConnection> {
        self.before.who.as_ref()?.ssh_connection.as_ref()
    }

    /// The name of the timer that watches it where systemd runs.
    #[must_use]
    pub fn timer(&self) -> String {
        format!("nvactl-confirm-{}", self.id)
    }
}

/// Returns the change that waits in this network namespace since this boot, if one does. One that has
/// been decided on waits no more, whether its record is gone or not.
///
/// # Errors
/// When what is recorded cannot be read.
pub fn pending(state: &State) -> Result<Option<Pending>, StateError> {
    let Some(pending) = state.pending()? else {
        return Ok(None);
    };
    let here = state.is_of_here(&pending.before) && pending.boot == boot()?;
    let waits = here && state.decision(&pending.id).is_none();
    Ok(waits.then_some(pending))
}

/// Returns what [`pending`] does, to be asked under the lock. What has been decided on is finished
/// first; and what was recorded but never made, since the one who was to make it was killed before,
/// waits for nothing.
///
/// # Errors
/// When what is recorded or what is loaded cannot be read.
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
    // One that was made may have been changed since; it waits all the same.
    if pending.made {
        return Ok(Some(pending));
    }
    let listing = pending.iptables().start_listing(pending.families())?;
    let (live, unread) = listing.finish_readable(false)?;
    let unmade = |before: PerFamily<Ruleset>| {
        let owned = pending.before.owned();
        let all = live.as_ref().zip(before.as_ref()).zip(owned);
        all.iter().all(|(_, ((live, before), owned))| {
            diff::holds_the_same(&live.ruleset, before, owned.sets_policy)
        })
    };
    // IPv6 that cannot be read may have been made.
    if unread.is_none() && pending.rules().is_ok_and(unmade) {
        settle(state, &pending, Decision::NotMade)?;
        return Ok(None);
    }
    Ok(Some(pending))
}

/// Ends the waiting: the decision is written before the record goes, since a record that is only
/// gone has been decided by nobody. Returns what keeps new files from being written, as a full disk does.
///
/// # Errors
/// When the folder cannot be written.
pub fn settle(
    state: &State,
    pending: &Pending,
    decision: Decision,
) -> Result<Option<FileError>, StateError> {
    let in_place = state.set_decision(&Decided(pending.id.clone(), decision))?;
    let lost = finish(state, pending, decision)?;
    Ok(in_place.or(lost))
}

/// Does what is left to do once a decision is written: the history says what became of the change, and
/// its record goes.
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

/// Notes in the history that a change was undone. Where there is no room for that, the change goes, so
/// that nobody rolls back to before it, and the reason is returned.
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
    });
    match state.rewrite(number, &change) {
        Err(StateError::File(error)) => state.forget(number).map(|()| Some(error)),
        noted => noted.map(|()| None),
    }
}

/// Describes a change that waits in one line, without a command.
#[must_use]
pub fn told(pending: &Pending) -> String {
    let action = &pending.before.action;
    if pending.left() == 0 {
        return format!("{action} was not confirmed in time and is not undone yet");
    }
    format!(
        "{action} waits for its confirmation and is undone in {} s",
        pending.left()
    )
}

/// Returns the commands that decide on a change that waits, each with its purpose, the best one first.
#[must_use]
pub fn choices(pending: &Pending) -> Vec<&'static str> {
    let keep = (pending.left() > 0).then_some("to keep it: sudo nvactl confirm");
    keep.into_iter()
        .chain(["to undo it now: sudo nvactl confirm --cancel"])
        .collect()
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
            overdue: pending.left() == 0,
            told: told(&pending),
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
