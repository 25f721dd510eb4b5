//! A change that waits for its confirmation, as it is recorded in the state folder.

use std::fs;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::iptables::{Iptables, IptablesError};
use super::lock::LockError;
use super::state::{Before, State, StateError, seconds_now};
use super::transaction::TransactionError;
use super::watchdog;
use crate::backend::Backend;
use crate::diff;
use crate::parse::ParseError;
use crate::per_family::{Families, PerFamily};
use crate::ruleset::Ruleset;

/// How long whoever undoes a change waits for another nvactl, each time, in seconds.
pub const LOCK_TIMEOUT: u64 = 60;

/// A change that waits for its confirmation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pending {
    /// Tells this change from the next one, whose watchdog is another.
    pub id: String,
    /// When it is undone, in seconds since the boot: no clock that is set can move it.
    pub deadline: u64,
    /// A reboot ends the waiting: it has brought back what is kept on disk.
    pub boot: String,
    /// By which it was loaded, and will be undone.
    pub backend: Backend,
    /// Whether connections to old targets are to be ended once it is kept.
    pub flush_stale: bool,
    /// Whether it has been made, whole: before that there is nothing to confirm.
    pub made: bool,
    /// What is loaded again when the confirmation does not come.
    pub before: Before,
    /// What nvactl owns once it is made.
    pub want: String,
    /// The same of IPv6, where the change touches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub want_v6: Option<String>,
}

/// What became of a change that waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Confirmed,
    Cancelled,
    /// Nobody confirmed it in time.
    TimedOut,
    /// It was refused, or never made.
    NotMade,
}

#[derive(Debug, Error)]
pub enum PendingError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Iptables(#[from] IptablesError),
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    #[error("the state that was kept is damaged")]
    Damaged(#[from] ParseError),
}

impl Pending {
    /// A change by this process, that is about to be made.
    ///
    /// # Errors
    /// When the kernel does not tell which boot this is.
    pub fn new(
        before: Before,
        want: &PerFamily<Ruleset>,
        backend: Backend,
        seconds: u64,
    ) -> Result<Self, StateError> {
        Ok(Self {
            id: format!("{}-{}", std::process::id(), seconds_now()),
            deadline: uptime() + seconds,
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
        self.deadline.saturating_sub(uptime())
    }

    /// How many seconds ago its time was up.
    #[must_use]
    pub fn overdue(&self) -> u64 {
        uptime().saturating_sub(self.deadline)
    }

    /// The iptables that loaded it.
    #[must_use]
    pub fn iptables(&self) -> Iptables {
        Iptables {
            backend: self.backend,
            lock_wait: LOCK_TIMEOUT,
        }
    }

    /// The rules that were there before the change, as far as they are nvactl's to set back.
    ///
    /// # Errors
    /// When they are damaged.
    pub fn rules(&self) -> Result<PerFamily<Ruleset>, ParseError> {
        self.before.owned().try_map(|_, owned| owned.ruleset())
    }

    /// The families that it touches.
    #[must_use]
    pub fn families(&self) -> Families {
        self.before.owned().families()
    }

    /// What nvactl owns once it is made, as text.
    #[must_use]
    pub fn wanted(&self) -> PerFamily<&str> {
        PerFamily {
            v4: &self.want,
            v6: self.want_v6.as_deref(),
        }
    }
}

/// Seconds since the boot, those in suspension included.
#[must_use]
pub fn uptime() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec.unsigned_abs()
}

fn boot() -> Result<String, StateError> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .map_err(StateError::Namespace)
}

/// The change that waits in this network namespace since this boot, if one does.
///
/// # Errors
/// When what is recorded cannot be read.
pub fn pending(state: &State) -> Result<Option<Pending>, StateError> {
    let Some(pending) = state.pending()? else {
        return Ok(None);
    };
    let here = pending.before.is_here()? && pending.boot == boot()?;
    Ok(here.then_some(pending))
}

/// The same, to be asked under the lock: what was recorded but never made, since the one who was
/// to make it was killed before, waits for nothing, and its record goes.
///
/// # Errors
/// When what is recorded or what is loaded cannot be read.
pub fn pending_in_earnest(state: &State) -> Result<Option<Pending>, PendingError> {
    let Some(pending) = pending(state)? else {
        return Ok(None);
    };
    let live = pending.iptables().read_all(pending.families())?;
    let unmade = |before: PerFamily<Ruleset>| {
        let owned = pending.before.owned();
        let all = live.as_ref().zip(before.as_ref()).zip(owned);
        all.iter().all(|(_, ((live, before), owned))| {
            diff::holds_the_same(&live.ruleset, before, owned.sets_policy)
        })
    };
    if pending.rules().is_ok_and(unmade) {
        settle(state, &pending, Decision::NotMade)?;
        return Ok(None);
    }
    Ok(Some(pending))
}

/// Ends the waiting: the decision is written before the record goes, since a record that is only
/// gone has been decided by nobody.
///
/// # Errors
/// When the folder cannot be written.
pub fn settle(state: &State, pending: &Pending, decision: Decision) -> Result<(), StateError> {
    state.set_decision(&pending.id, decision)?;
    state.clear_pending()?;
    watchdog::end_timer(&pending.id);
    Ok(())
}
