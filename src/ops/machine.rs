//! The machine that an operation changes.

use tracing::debug;

use super::error::{Error, describe};
use super::state::State;
use super::waiting::refuse_while_pending;
use crate::host::iptables::Iptables;
use crate::host::lock::{self, Lock};

/// The machine that an operation changes.
#[derive(Debug)]
pub struct MachineToChange {
    pub state: State,
    pub iptables: Iptables,
    /// How long to wait for another nvactl, in seconds.
    pub lock_wait_secs: u64,
}

impl MachineToChange {
    /// Takes the lock for a change, and removes files that a killed nvactl has left half written.
    pub(super) fn begin(&self) -> Result<Lock, Error> {
        let lock = lock::take(&self.state.lock_file(), self.lock_wait_secs)?;
        refuse_while_pending(&self.state)?;
        self.clear_leftovers();
        Ok(lock)
    }

    pub(super) fn clear_leftovers(&self) {
        if let Err(error) = self.state.clear_leftovers() {
            debug!(
                error = describe(&error.into()),
                "half-written files were not removed"
            );
        }
    }
}
