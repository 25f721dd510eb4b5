//! One nvactl at a time: two that read, change and read back at once would each undo the other.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

const FOLDER: &str = "/var/lib/nvactl";

/// Longer than iptables-restore takes for ten thousand forwards.
const PATIENCE: Duration = Duration::from_secs(30);

/// Held until it is dropped, or the process ends in whatever way.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

#[derive(Debug, Error)]
pub enum LockError {
    #[error("cannot lock `{}`", .path.display())]
    Failed { path: PathBuf, source: io::Error },
    #[error("another nvactl ({holder}) is changing the rules, and was not done within {} seconds", PATIENCE.as_secs())]
    Held { holder: String },
}

/// Takes nvactl's own lock, waiting for whoever holds it.
///
/// # Errors
/// When it is held too long, or its file cannot be made.
pub fn take() -> Result<Lock, LockError> {
    let path = Path::new(FOLDER).join("lock");
    let failed = |source| LockError::Failed {
        path: path.clone(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(FOLDER)
        .map_err(failed)?;
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                return Err(LockError::Held {
                    holder: holder.trim().to_owned(),
                });
            }
        }
    }
    // For whoever waits in vain; the lock holds without it.
    let _ = file
        .set_len(0)
        .and_then(|()| writeln!(file, "process {}", std::process::id()));
    Ok(Lock { _file: file })
}
