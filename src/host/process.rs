//! Looks at and ends other processes: another nvactl, or a program that nvactl has started.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A process. The start time distinguishes it from a later process with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub id: u32,
    /// The start time in clock ticks since the boot, from `/proc/PID/stat`.
    pub started: u64,
}

/// Returns the number of this process.
#[must_use]
pub fn own_id() -> u32 {
    std::process::id()
}

/// How long a program may take to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(2);

impl Process {
    /// Returns the process that has the number now, if there is one.
    #[must_use]
    pub fn of(id: u32) -> Option<Self> {
        let Stat { started, .. } = stat(id)?;
        Some(Self { id, started })
    }

    /// Returns whether the process runs or is stopped. A zombie does not count, since it holds no files or locks.
    #[must_use]
    pub fn is_alive(self) -> bool {
        self.stat()
            .is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
    }

    /// Ends an nvactl that Ctrl-Z or SIGSTOP has stopped: it would hold its locks for ever.
    pub fn end_if_stopped(self) {
        // The kernel appends ` (deleted)` to the path of a program that an update has replaced (proc(5)).
        let program = |process: &str| {
            let link = fs::read_link(format!("/proc/{process}/exe")).ok()?;
            let link = link.to_string_lossy().into_owned();
            Some(link.trim_end_matches(" (deleted)").to_owned())
        };
        let own = program("self");
        let stopped = self
            .stat()
            .is_some_and(|stat| matches!(stat.state, 'T' | 't'));
        if let (Some(pid), true) = (
            self.pid(),
            stopped && own.is_some() && program(&self.id.to_string()) == own,
        ) {
            // If it has ended meanwhile, there is nothing left to do.
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Ends a program that [`super::child`] has started, with its process group: by SIGTERM, and by SIGKILL if it
    /// has not ended after two seconds. Does nothing to a later process with the same number.
    pub fn end(self) {
        let Some(group) = self.pid().filter(|_| self.is_alive()) else {
            return;
        };
        let _ = kill_process_group(group, Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while self.is_alive() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        // Other processes of the group may still run. The kernel does not reuse a number while a group has it,
        // and uses all other numbers first.
        let _ = kill_process_group(group, Signal::KILL);
    }

    fn stat(self) -> Option<Stat> {
        stat(self.id).filter(|stat| stat.started == self.started)
    }

    fn pid(self) -> Option<Pid> {
        Pid::from_raw(self.id.cast_signed())
    }
}

/// The needed fields of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// `R`, `S`, `T`, … (proc(5)).
    state: char,
    started: u64,
}

fn stat(id: u32) -> Option<Stat> {
    read(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
}

fn read(text: &str) -> Option<Stat> {
    // The name, in brackets, may contain any characters.
    let (_, rest) = text.rsplit_once(')')?;
    let mut words = rest.split_ascii_whitespace();
    Some(Stat {
        state: words.next()?.chars().next()?,
        // Fields 3 and 22.
        started: words.nth(18)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command};

    use super::*;

    #[test]
    fn a_process_name_may_contain_brackets() {
        let text = "7 (a) T (b) S 1 7 7 0 -1 4194560 120 0 0 0 0 0 0 0 20 0 1 0 4711 2383872 208\n";
        let stat = Stat {
            state: 'S',
            started: 4711,
        };
        assert_eq!(read(text), Some(stat));
        assert_eq!(read("7 (a"), None);
    }

    #[test]
    fn a_process_differs_from_a_later_one_with_its_number() {
        let own = Process::of(std::process::id()).expect("it runs");
        assert!(own.is_alive());
        let earlier = Process {
            started: own.started - 1,
            ..own
        };
        assert!(!earlier.is_alive());
        assert_eq!(Process::of(u32::MAX), None);
    }

    fn start(script: &str) -> (Child, Process) {
        let mut command = Command::new("sh");
        command.args(["-c", script]).process_group(0);
        let child = command.spawn().expect("it starts");
        let process = Process::of(child.id()).expect("it runs");
        (child, process)
    }

    #[test]
    fn a_hanging_program_is_ended_with_its_group() {
        for script in [
            "sleep 60; true",
            "trap '' TERM; sleep 60; sleep 60",
            "kill -STOP $$",
        ] {
            let (mut child, process) = start(script);
            process.end();
            let deadline = Instant::now() + Duration::from_secs(10);
            while process.is_alive() {
                assert!(Instant::now() < deadline, "{script}");
                thread::sleep(Duration::from_millis(1));
            }
            child.wait().expect("it has ended");
        }
    }

    #[test]
    fn a_later_process_with_the_same_number_is_left_alone() {
        let (mut child, process) = start("exec sleep 60");
        let earlier = Process {
            started: process.started - 1,
            ..process
        };
        earlier.end();
        assert!(process.is_alive());
        process.end();
        child.wait().expect("it has ended");
    }
}
