//! Another process of nvactl's.

use std::fs;

/// Returns this process's number.
#[must_use]
pub fn own_id() -> u32 {
    std::process::id()
}

/// Ends a process if it is an nvactl that has been stopped, by Ctrl-Z or SIGSTOP: what it holds, it
/// would hold for ever.
pub fn end_if_stopped(id: u32) {
    let program = |process: &str| fs::read_link(format!("/proc/{process}/exe")).ok();
    let own = program("self");
    let stopped = matches!(state(id), Some('T' | 't'));
    let pid = rustix::process::Pid::from_raw(id.cast_signed());
    if let (Some(pid), true) = (
        pid,
        stopped && own.is_some() && program(&id.to_string()) == own,
    ) {
        // It may have ended in between, which is as good.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// What a process does: `R`, `S`, `T`, … (proc(5)); `None` if there is none.
fn state(id: u32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    rest.trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_does_is_behind_its_name() {
        assert!(matches!(state(std::process::id()), Some('R' | 'S')));
        assert_eq!(state(u32::MAX), None);
    }
}
