//! The machine of a command, from the global options.

use std::path::Path;

use crate::host;
use crate::host::iptables::Iptables;
use crate::host::spec_source::SpecSource;
use crate::netfilter::backend::Backend;
use crate::netfilter::token::shell_word;
use crate::ops::MachineToChange;
use crate::ops::history::{LastLoaded, last_loaded};
use crate::ops::state::{State, StateError};

/// The global options about the host.
#[derive(Debug, Clone, Copy)]
pub(super) struct HostAccess<'a> {
    pub(super) state_dir: Option<&'a Path>,
    pub(super) backend: Backend,
}

impl HostAccess<'_> {
    pub(super) fn state(&self) -> Result<State, StateError> {
        State::open(self.state_dir)
    }

    /// Opens the state for a command that only reads, and makes no folder.
    pub(super) fn known_state(&self) -> Result<Option<State>, StateError> {
        State::look(self.state_dir)
    }

    /// Returns a command line with the same spec and the same backend.
    pub(super) fn command(&self, what: &str, source: &SpecSource) -> String {
        let argument = source.argument();
        let mut command = format!("sudo nvactl {what} {}", shell_word(argument));
        if self.backend != Backend::Auto {
            command.push_str(&format!(" --backend {}", self.backend));
        }
        command.push_str(&self.folder());
        if argument == "-" {
            command.push_str(" < YOUR-SPEC");
        }
        command
    }

    /// Returns the option for the state folder; empty if it was not given.
    pub(super) fn folder(&self) -> String {
        self.state_dir.map_or(String::new(), |folder| {
            format!(" --state-dir {}", shell_word(&folder.to_string_lossy()))
        })
    }

    /// Returns the rules that were loaded last. Only root may read the state folder.
    pub(super) fn last_loaded(&self) -> Result<Option<LastLoaded>, StateError> {
        if host::require_root("status").is_err() {
            return Ok(None);
        }
        let state = self.known_state()?;
        state.as_ref().map_or(Ok(None), last_loaded)
    }

    /// Returns the machine, for a command that changes it.
    pub(super) fn machine(&self, lock_wait_secs: u64) -> Result<MachineToChange, StateError> {
        Ok(self.machine_with(self.state()?, lock_wait_secs))
    }

    /// Returns the machine, for a command that may be a dry run: a dry run does not rename the records of an
    /// earlier kernel.
    pub(super) fn machine_unless_dry(
        &self,
        dry_run: bool,
        lock_wait_secs: u64,
    ) -> Result<MachineToChange, StateError> {
        match self.known_state()? {
            Some(state) if dry_run => Ok(self.machine_with(state, lock_wait_secs)),
            _ => self.machine(lock_wait_secs),
        }
    }

    pub(super) fn machine_with(&self, state: State, lock_wait_secs: u64) -> MachineToChange {
        MachineToChange {
            state,
            iptables: self.iptables(lock_wait_secs),
            lock_wait_secs,
        }
    }

    pub(super) fn iptables(&self, lock_wait: u64) -> Iptables {
        Iptables {
            backend: self.backend,
            lock_wait,
        }
    }
}

/// The seconds that a reading command waits for the xtables lock.
pub(super) const READ_WAIT: u64 = 10;
