//! The watchdog of a change that must be confirmed: a process, or a timer of systemd's, that undoes
//! it in time.
//!
//! It is started before the change and shares nothing with the process that makes it: no
//! terminal, no session, no pipe. Whoever ends, the change is confirmed or undone.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use thiserror::Error;
use tracing::debug;

use super::child::{self, ChildError};
use super::conntrack;
use super::file;
use super::lock::{self, Lock};
use super::pending::{Decision, LOCK_TIMEOUT, Pending, PendingError, pending, settle};
use super::state::{State, StateError};
use super::transaction::Transaction;
use crate::diff;
use crate::flow::stale;
use crate::parse;
use crate::per_family::changes;
use crate::spec::ForwardSet;
use crate::unplan::unplan;

/// How often the watchdog looks whether the confirmation has come.
const TICK: Duration = Duration::from_millis(100);
/// How long it waits at most before it tries to undo again.
const PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug, Error)]
pub enum GuardError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the watchdog could not be started, so nothing was changed")]
    Watchdog(#[source] io::Error),
    #[error("the watchdog could not be started by systemd, so nothing was changed")]
    Systemd(#[from] ChildError),
    #[error("the watchdog could not be started by systemd, so nothing was changed: {0}")]
    SystemdRefused(String),
}

/// Records the change and starts its watchdog; returns when that is on its guard: a detached process,
/// and where systemd runs a timer of its own as well.
///
/// # Errors
/// When it does not get that far: then the change must not be made.
pub fn guard(state: &State, pending: &Pending, seconds: u64) -> Result<(), GuardError> {
    state.forget_decision()?;
    state.set_pending(pending)?;
    // The process knows what to undo whatever becomes of the folder; the timer comes even if the
    // process is ended with its session. Whoever is first leaves nothing to the other.
    let started = start_detached(state, &pending.id)
        .map_err(GuardError::Watchdog)
        .and_then(|()| {
            if runs_under_systemd() {
                start_by_systemd(state, &pending.id, seconds)
            } else {
                Ok(())
            }
        });
    if started.is_err() {
        settle(state, pending, Decision::NotMade)?;
    }
    started
}

/// Whether systemd runs here and would start the watchdog in this process's own namespaces.
fn runs_under_systemd() -> bool {
    let own = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).ok();
    let first = |name: &str| fs::read_link(format!("/proc/1/ns/{name}")).ok();
    Path::new("/run/systemd/system").exists()
        && ["net", "mnt"]
            .iter()
            .all(|name| own(name).is_some() && own(name) == first(name))
}

fn start_by_systemd(state: &State, id: &str, seconds: u64) -> Result<(), GuardError> {
    let program = std::env::current_exe().map_err(GuardError::Watchdog)?;
    let (unit, after) = (
        format!("--unit=nvactl-confirm-{id}"),
        format!("--on-active={seconds}"),
    );
    let (program, folder) = (program.to_string_lossy(), state.folder().to_string_lossy());
    let path = format!(
        "--setenv=PATH={}",
        std::env::var("PATH").unwrap_or_default()
    );
    let args = [
        "--collect",
        &unit,
        &after,
        "--timer-property=AccuracySec=100ms",
        // iptables is where the user's own PATH has it.
        &path,
        "--",
        &program,
        "--state-dir",
        &folder,
        "watchdog",
        id,
    ];
    let output = child::run("systemd-run", &args, b"", Duration::from_secs(30))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(GuardError::SystemdRefused(output.stderr))
    }
}

fn start_detached(state: &State, id: &str) -> io::Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--state-dir")
        .arg(state.folder())
        .args(["watchdog", id])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut said = String::new();
    if let Some(mut pipe) = child.stdout.take() {
        // It says one word, when it has a session of its own and knows what to undo, and closes
        // the pipe.
        let mut word = [0; READY.len()];
        pipe.read_exact(&mut word)?;
        said = String::from_utf8_lossy(&word).into_owned();
    }
    if said == READY {
        Ok(())
    } else {
        Err(io::Error::other(format!("it said {said:?}")))
    }
}

const READY: &str = "ready\n";

/// What the watchdog does: waits until the change is decided on or due, and undoes it in the last
/// case, however often it takes.
///
/// # Errors
/// When what is to be undone cannot be read at the start.
pub fn watch(state: &State, id: &str) -> Result<(), PendingError> {
    // A session of its own: the terminal that hangs up takes only its own with it. systemd has made
    // one already.
    let _ = rustix::process::setsid();
    let Some(mut known) = pending(state)?.filter(|pending| pending.id == id) else {
        return Ok(());
    };
    let mut stdout = io::stdout();
    // Whoever started it may be gone by now.
    let _ = stdout
        .write_all(READY.as_bytes())
        .and_then(|()| stdout.flush());
    let mut pause = TICK;
    let mut version = None;
    loop {
        // Decided, or so long ago that another change has been since.
        if state.last_decision().is_some() {
            return Ok(());
        }
        let now = state.pending_version();
        if now != version {
            version = now;
            match pending(state) {
                Ok(Some(now)) if now.id == id => known = now,
                Ok(Some(_)) => return Ok(()),
                // A record that is gone or damaged has not been decided on: what was known is
                // enough.
                _ => {}
            }
        }
        if known.left() == 0 {
            let due = |now: &Pending| now.left() == 0;
            match undo_if(state, &known, Decision::TimedOut, LOCK_TIMEOUT, due) {
                Ok(true) => return Ok(()),
                // Confirmed, or given more time, while the lock was waited for.
                Ok(false) => {}
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    let words = format!("{id} is not undone yet: {error:#}\n");
                    // The folder may be what is wrong.
                    let _ = file::replace(&state.log_file(), words.as_bytes(), 0o600);
                    pause = (pause * 2).min(PAUSE);
                }
            }
        }
        thread::sleep(pause);
    }
}

/// Undoes the change, if it still waits; tells whether it did.
///
/// # Errors
/// When it cannot be undone: it waits on.
pub fn undo(state: &State, known: &Pending, lock_timeout: u64) -> Result<bool, PendingError> {
    undo_if(state, known, Decision::Cancelled, lock_timeout, |_| true)
}

/// The same only if `still` holds of the record under the lock. A record that is gone or cannot be
/// read is taken to say what was known.
fn undo_if(
    state: &State,
    known: &Pending,
    decision: Decision,
    lock_timeout: u64,
    still: impl Fn(&Pending) -> bool,
) -> Result<bool, PendingError> {
    // Should it have gone; opening the lock tells whether that matters.
    let _ = state.make();
    let lock = lock::take_to_undo(&state.lock_file(), lock_timeout)?;
    if state.decision(&known.id).is_some() {
        return Ok(false);
    }
    let pending = match pending(state) {
        Ok(Some(now)) if now.id == known.id => now,
        _ => known.clone(),
    };
    if !still(&pending) {
        return Ok(false);
    }
    restore(state, &lock, &pending)?;
    end_connections(&pending);
    state.forget(&pending.before);
    // It is undone, whether that can be written or not.
    if let Err(error) = settle(state, &pending, decision) {
        debug!(%error, "the decision is not recorded");
    }
    Ok(true)
}

/// Loads what was there before the change.
fn restore(state: &State, lock: &Lock, pending: &Pending) -> Result<(), PendingError> {
    let (iptables, want) = (pending.iptables(), pending.rules()?);
    let undone = match iptables.read_all_counted(pending.families()) {
        Ok(before) => {
            let live = before.map(|_, (live, _)| live);
            if changes(&live, &want).is_empty() {
                return Ok(());
            }
            let transaction = Transaction {
                state,
                lock,
                iptables: &iptables,
                before: &before,
                want: &want,
                action: format!("undo {}", pending.before.action),
                trial: false,
            };
            transaction
                .commit_unremembered()
                .map_err(PendingError::from)
        }
        Err(error) => Err(error.into()),
    };
    let Err(error) = undone else {
        return Ok(());
    };
    // Somebody has put in what iptables cannot show, or rules that lead to a chain that should go.
    // What the change made is known, and can be emptied all the same.
    debug!(%error, "undone without a look");
    let made = pending.wanted().try_map(|_, text| parse::parse(text))?;
    let mut loaded = Ok(());
    // What one family refuses is no reason to leave the other.
    for (family, (made, want)) in made.as_ref().zip(want.as_ref()).iter() {
        let script = diff::refill(made, want);
        let one = iptables.load(family, &script, lock);
        loaded = loaded.and(one);
    }
    loaded.map_err(|_| error)
}

/// Ends the connections that only the undone change led anywhere: one who comes in through this
/// machine by a port that the change took would stay cut off for as long as it keeps sending.
fn end_connections(pending: &Pending) {
    let forwards = |text: &str| parse::parse(text).ok().as_ref().and_then(unplan);
    let before = pending.before.owned();
    for (family, (want, before)) in pending.wanted().zip(before).iter() {
        let Some(undone) = forwards(want) else {
            continue;
        };
        let now = forwards(&before.rules).unwrap_or_else(|| ForwardSet {
            forwards: Vec::new(),
            ..undone.clone()
        });
        // Without the program for it nothing is known of them.
        let flows = conntrack::flows(family).unwrap_or_default();
        let once = [undone];
        if let Err(error) = conntrack::delete(stale(&flows, &once, &now)) {
            debug!(%error, "connections of what was undone go on");
        }
    }
}

/// Ends a systemd timer that has nothing to do any more; the watchdog itself sees that by itself.
pub fn end_timer(id: &str) {
    if runs_under_systemd() {
        let unit = format!("nvactl-confirm-{id}.timer");
        // A timer that fires in vain does no harm.
        let _ = child::run("systemctl", &["stop", &unit], b"", Duration::from_secs(10));
    }
}
