//! The impure edge: the only part of nvactl that starts programs or touches files, the
//! environment or the kernel's settings. Everything it learns it hands to the core as values.

pub mod child;
pub mod file;
pub mod iptables;
pub mod persistence;
pub mod spec_source;
pub mod sysctl;
pub mod transaction;

use thiserror::Error;

/// A command that only root may give.
#[derive(Debug, Error)]
#[error(
    "`nvactl {command}` needs root: only root may see and change what the kernel filters and forwards"
)]
pub struct NotRoot {
    pub command: &'static str,
}

impl NotRoot {
    #[must_use]
    pub fn hint(&self) -> String {
        "put `sudo` in front of it".to_owned()
    }
}

/// Refuses to go on without root, before anything has been done. `command` is what the user ran.
///
/// # Errors
/// When the process is not root's. A root without the capability learns of it from iptables.
pub fn require_root(command: &'static str) -> Result<(), NotRoot> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err(NotRoot { command })
    }
}

/// Whether standard output is a regular file that is empty: the shell has made it so for `> FILE`
/// before nvactl started.
#[must_use]
pub fn stdout_is_an_emptied_file() -> bool {
    rustix::fs::fstat(std::io::stdout()).is_ok_and(|stat| {
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        kind.is_file() && stat.st_size == 0
    })
}
