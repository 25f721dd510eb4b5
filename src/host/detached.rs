//! Starts nvactl again as a detached process, which continues after this process and its session have ended.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use thiserror::Error;

use super::child::{self, ChildError};

/// The line that the new process prints when it is ready.
const READY: &str = "ready\n";

/// The time limit for systemd to start or end a timer, and for the new process to be ready.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Error)]
pub enum DetachedError {
    #[error("the watchdog could not be started, so nothing was changed")]
    Start(#[source] io::Error),
    #[error("the watchdog could not be started by systemd, so nothing was changed")]
    Systemd(#[from] ChildError),
    #[error("the watchdog could not be started by systemd, so nothing was changed: {0}")]
    Refused(String),
}

/// Starts nvactl with these arguments, and returns once the new process is ready.
///
/// # Errors
/// If it does not become ready.
pub fn start(args: &[&str]) -> Result<(), DetachedError> {
    let started = || {
        let mut child = Command::new(std::env::current_exe()?)
            .args(args)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let Some(mut pipe) = child.stdout.take() else {
            return Err(io::Error::other("the new process has no standard output"));
        };
        let mut fds = [PollFd::new(&pipe, PollFlags::IN)];
        let limit = Timespec::try_from(LIMIT).ok();
        if poll(&mut fds, limit.as_ref())? == 0 {
            let _ = child.kill();
            let _ = child.wait();
            return Err(io::Error::other(format!(
                "the new process printed nothing within {} seconds",
                LIMIT.as_secs()
            )));
        }
        let mut word = [0; READY.len()];
        pipe.read_exact(&mut word)?;
        if word == READY.as_bytes() {
            Ok(())
        } else {
            let said = String::from_utf8_lossy(&word).into_owned();
            Err(io::Error::other(format!(
                "the new process printed {said:?}"
            )))
        }
    };
    started().map_err(DetachedError::Start)
}

/// Leaves the terminal's session, because a terminal that hangs up ends the processes of its session. Then
/// prints that this process is ready. Under systemd the process already has its own session.
pub fn settle_in() {
    let _ = rustix::process::setsid();
    let mut stdout = io::stdout();
    // The process that started this one may have ended already.
    let _ = stdout
        .write_all(READY.as_bytes())
        .and_then(|()| stdout.flush());
}

/// Returns whether systemd runs here and starts processes in the namespaces of this process.
#[must_use]
pub fn runs_under_systemd() -> bool {
    let own = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).ok();
    let first = |name: &str| fs::read_link(format!("/proc/1/ns/{name}")).ok();
    Path::new("/run/systemd/system").exists()
        && ["net", "mnt"]
            .iter()
            .all(|name| own(name).is_some() && own(name) == first(name))
}

/// Creates a systemd timer that starts nvactl with these arguments.
///
/// # Errors
/// If systemd refuses it.
pub fn start_timer(unit: &str, seconds: u64, args: &[&str]) -> Result<(), DetachedError> {
    let program = std::env::current_exe().map_err(DetachedError::Start)?;
    let program = program.to_string_lossy();
    let (unit, after) = (format!("--unit={unit}"), format!("--on-active={seconds}"));
    // The timer must find the same iptables as the user, so it gets the user's PATH.
    let path = format!(
        "--setenv=PATH={}",
        std::env::var("PATH").unwrap_or_default()
    );
    let precise = "--timer-property=AccuracySec=100ms";
    let own = ["--collect", &unit, &after, precise, &path, "--", &program];
    let words = [&own[..], args].concat();
    let output = child::run("systemd-run", &words, b"", LIMIT)?;
    if output.status.success() {
        Ok(())
    } else {
        Err(DetachedError::Refused(output.stderr))
    }
}

/// Returns whether a process runs whose last arguments are these.
#[must_use]
pub fn runs_with(last: &[&str]) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut commands =
        processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    commands.any(|command| {
        let words = command.strip_suffix(b"\0").unwrap_or(&command);
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
        let last: Vec<&[u8]> = last.iter().map(|word| word.as_bytes()).collect();
        words.ends_with(&last)
    })
}

/// Returns whether systemd has a timer that has not fired yet.
#[must_use]
pub fn has_timer(unit: &str) -> bool {
    let unit = format!("{unit}.timer");
    let asked = || child::run("systemctl", &["is-active", "--quiet", &unit], b"", LIMIT);
    runs_under_systemd() && asked().is_ok_and(|output| output.status.success())
}

/// Ends a timer that is no longer needed. If it still fires, it does no harm.
pub fn end_timer(unit: &str) {
    if runs_under_systemd() {
        let unit = format!("{unit}.timer");
        let _ = child::run("systemctl", &["stop", "--no-block", &unit], b"", LIMIT);
    }
}
