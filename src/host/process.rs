//! One process among all that ever had its number.

use std::fs;

use serde::{Deserialize, Serialize};

/// A number is given anew, a number and a start are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    id: u32,
    /// In clock ticks since the boot (field 22 of /proc/PID/stat, proc(5)).
    started: u64,
}

impl Process {
    /// This one. One that cannot be told is no other's either.
    #[must_use]
    pub fn own() -> Self {
        let id = std::process::id();
        let started = stat(id).map_or(0, |(_, started)| started);
        Self { id, started }
    }

    /// Kills it if it has been stopped, by Ctrl-Z or SIGSTOP: what it holds, it would hold for ever.
    pub fn end_if_stopped(self) {
        let stopped = |(state, started)| matches!(state, 'T' | 't') && started == self.started;
        let id = rustix::process::Pid::from_raw(self.id.cast_signed());
        if let (Some(id), true) = (id, stat(self.id).is_some_and(stopped)) {
            // It may have ended in between, which is as good.
            let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL);
        }
    }
}

/// The state and the start of a process that runs.
fn stat(id: u32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_number_and_its_start() {
        let own = Process::own();
        assert!(own.started > 0);
        assert_eq!(own, Process::own());
        assert_eq!(stat(own.id).map(|(_, started)| started), Some(own.started));
    }
}
