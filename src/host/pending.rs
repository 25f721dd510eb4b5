//! A change that is undone unless it is confirmed in time, and the watchdog that undoes it.
//!
//! The watchdog is started before the change and shares nothing with the process that makes it: no
//! terminal, no session, no pipe. All it knows is in the state folder, so whoever ends, the change
//! is confirmed or undone.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::debug;

use super::child::{self, ChildError};
use super::iptables::{Iptables, IptablesError};
use super::lock::{self, LockError};
use super::state::{Before, State, StateError, seconds_now};
use super::transaction::{Transaction, TransactionError};
use crate::backend::Backend;
use crate::diff;
use crate::parse::{self, ParseError};
use crate::ruleset::{ChainName, Ruleset, TableName};

/// How often the watchdog looks whether the confirmation has come.
const TICK: Duration = Duration::from_millis(100);
/// How often it tries to undo, a second apart, before it gives up.
const TRIES: u32 = 60;
/// How long it waits for another nvactl that is changing the rules, each time, in seconds.
const LOCK_TIMEOUT: u64 = 60;

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
    /// What is loaded again when the confirmation does not come.
    pub before: Before,
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
    #[error("the watchdog could not be started, so nothing was changed")]
    Watchdog(#[source] io::Error),
    #[error("the watchdog could not be started by systemd, so nothing was changed")]
    Systemd(#[from] ChildError),
    #[error("the watchdog could not be started by systemd, so nothing was changed: {0}")]
    SystemdRefused(String),
}

impl Pending {
    /// # Errors
    /// When the kernel does not tell which boot this is.
    pub fn new(
        before: Before,
        backend: Backend,
        seconds: u64,
        flush_stale: bool,
    ) -> Result<Self, StateError> {
        Ok(Self {
            id: format!("{}-{}", std::process::id(), seconds_now()),
            deadline: uptime() + seconds,
            boot: boot()?,
            backend,
            flush_stale,
            before,
        })
    }

    /// How many seconds are left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.deadline.saturating_sub(uptime())
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
    fn rules(&self) -> Result<Ruleset, ParseError> {
        let mut rules = parse::parse(&self.before.rules)?;
        if !self.before.sets_policy {
            rules
                .chain_mut(TableName::Filter, ChainName::Forward)
                .policy = None;
        }
        Ok(rules)
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
    let live = pending.iptables().read()?.ruleset;
    let made = |before| !diff::changes(&live, &before).is_empty();
    if pending.rules().is_ok_and(|before| !made(before)) {
        state.clear_pending()?;
        end_timer(&pending.id);
        return Ok(None);
    }
    Ok(Some(pending))
}

/// Records the change and starts its watchdog; returns when that is on its guard.
///
/// # Errors
/// When it does not get that far: then the change must not be made.
pub fn guard(state: &State, pending: &Pending, seconds: u64) -> Result<(), PendingError> {
    state.set_pending(pending)?;
    let started = if runs_under_systemd() {
        start_by_systemd(state, &pending.id, seconds)
    } else {
        start_detached(state, &pending.id).map_err(PendingError::Watchdog)
    };
    if started.is_err() {
        state.clear_pending()?;
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

fn start_by_systemd(state: &State, id: &str, seconds: u64) -> Result<(), PendingError> {
    let program = std::env::current_exe().map_err(PendingError::Watchdog)?;
    let (unit, after) = (
        format!("--unit=nvactl-confirm-{id}"),
        format!("--on-active={seconds}"),
    );
    let (program, folder) = (program.to_string_lossy(), state.folder().to_string_lossy());
    let args = [
        "--collect",
        &unit,
        &after,
        "--timer-property=AccuracySec=100ms",
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
        Err(PendingError::SystemdRefused(output.stderr))
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
        // It says one word, when it has a session of its own, and closes the pipe.
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

/// What the watchdog does: waits until the change is confirmed, cancelled or due, and undoes it in
/// the last case.
///
/// # Errors
/// When it could not be undone in many tries.
pub fn watch(state: &State, id: &str) -> Result<(), PendingError> {
    // A session of its own: the terminal that hangs up takes only its own with it. systemd has made
    // one already.
    let _ = rustix::process::setsid();
    let mut stdout = io::stdout();
    // Whoever started it may be gone by now.
    let _ = stdout
        .write_all(READY.as_bytes())
        .and_then(|()| stdout.flush());
    let Some(mut known) = pending(state)?.filter(|pending| pending.id == id) else {
        return Ok(());
    };
    let mut tries = 0;
    loop {
        match pending(state) {
            Ok(Some(now)) if now.id == id => known = now,
            Ok(_) => return Ok(()),
            // What was known of it is enough to undo it.
            Err(error) => debug!(%error, "the record of the change cannot be read"),
        }
        if known.left() == 0 {
            match undo_if(state, &known, |now| now.left() == 0) {
                Ok(true) => return Ok(()),
                // Confirmed, or given more time, while the lock was waited for.
                Ok(false) => {}
                Err(error) if tries >= TRIES => return Err(error),
                Err(error) => {
                    debug!(%error, "not undone yet");
                    tries += 1;
                    thread::sleep(Duration::from_secs(1));
                }
            }
        }
        thread::sleep(TICK);
    }
}

/// Undoes the change, if it still waits; tells whether it did.
///
/// # Errors
/// When it cannot be undone: it waits on.
pub fn undo(state: &State, known: &Pending) -> Result<bool, PendingError> {
    undo_if(state, known, |_| true)
}

/// The same only if `still` holds of the record under the lock. A record that cannot be read is
/// taken to say what was known.
fn undo_if(
    state: &State,
    known: &Pending,
    still: impl Fn(&Pending) -> bool,
) -> Result<bool, PendingError> {
    let lock = lock::take(state, LOCK_TIMEOUT)?;
    let pending = match pending(state) {
        Ok(Some(now)) if now.id == known.id => now,
        Ok(_) => return Ok(false),
        Err(_) => known.clone(),
    };
    if !still(&pending) {
        return Ok(false);
    }
    let iptables = pending.iptables();
    let (want, live) = (pending.rules()?, iptables.read()?);
    if !diff::changes(&live.ruleset, &want).is_empty() {
        Transaction {
            state,
            lock: &lock,
            iptables: &iptables,
            before: &live.ruleset,
            want: &want,
            action: format!("undo {}", pending.before.action),
            trial: false,
        }
        .commit_regardless()?;
    }
    state.clear_pending()?;
    Ok(true)
}

/// Ends a systemd timer that has nothing to do any more; the watchdog itself sees that by itself.
pub fn end_timer(id: &str) {
    if runs_under_systemd() {
        let unit = format!("nvactl-confirm-{id}.timer");
        // A timer that fires in vain does no harm.
        let _ = child::run("systemctl", &["stop", &unit], b"", Duration::from_secs(10));
    }
}

/// Where the watchdog's last words go.
#[must_use]
pub fn log_file(state: &State) -> PathBuf {
    state.folder().join("watchdog.log")
}
