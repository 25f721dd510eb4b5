//! One nvactl at a time: two that read, change and read back at once would each undo the other.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::FdFlags;
use thiserror::Error;

/// Held until it is dropped, or the process ends in whatever way.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Runs `work` so that the programs it starts hold the lock too: if nvactl is killed, nobody
    /// else changes the rules before they have ended.
    pub fn shared_with_children<T>(&self, work: impl FnOnce() -> T) -> T {
        // Should the kernel refuse, the lock is nvactl's alone, as it is the rest of the time.
        let _ = rustix::io::fcntl_setfd(&self.file, FdFlags::empty());
        let done = work();
        let _ = rustix::io::fcntl_setfd(&self.file, FdFlags::CLOEXEC);
        done
    }
}

#[derive(Debug, Error)]
pub enum LockError {
    #[error("cannot lock `{}`", .path.display())]
    Failed { path: PathBuf, source: io::Error },
    #[error(
        "another nvactl ({holder}) is changing the rules, and was not done within {seconds} seconds"
    )]
    Held { holder: String, seconds: u64 },
}

impl LockError {
    /// The process that holds it, if that is what is wrong.
    #[must_use]
    pub fn holder(&self) -> Option<u32> {
        let LockError::Held { holder, .. } = self else {
            return None;
        };
        let (id, _) = holder.strip_prefix(HOLDER)?.split_once(',')?;
        id.parse().ok()
    }
}

/// How the lock's file begins.
const HOLDER: &str = "process ";

/// Takes nvactl's own lock if it is there for the taking: makes nothing, and waits for nobody.
#[must_use]
pub fn take_if_free(path: &Path) -> Option<Lock> {
    let file = OpenOptions::new().write(true).open(path).ok()?;
    file.try_lock().ok()?;
    Some(signed(file))
}

/// Takes nvactl's own lock, waiting so many seconds for whoever holds it.
///
/// # Errors
/// When it is held longer, or its file cannot be made.
pub fn take(path: &Path, seconds: u64) -> Result<Lock, LockError> {
    let failed = |source| LockError::Failed {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        // A folder that has become read-only must not keep a change from being undone.
        .or_else(|error| File::open(path).map_err(|_| error))
        .map_err(failed)?;
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(signed(file)),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(path).unwrap_or_default();
                return Err(LockError::Held {
                    holder: holder.trim().to_owned(),
                    seconds,
                });
            }
        }
    }
}

/// Says who holds the lock, for whoever waits in vain; it holds without that.
fn signed(mut file: File) -> Lock {
    let words = std::env::args_os().skip(1);
    let words: Vec<String> = words
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let command = format!("nvactl {}", words.join(" "));
    let _ = file
        .set_len(0)
        .and_then(|()| writeln!(file, "{HOLDER}{}, {command}", std::process::id()));
    Lock { file }
}
