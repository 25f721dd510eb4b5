//! The impure edge: the only part of nvactl that starts programs or touches files, the
//! environment or the kernel's settings. Everything it learns it hands to the core as values.
//!
//! Values stand beside their readers, and a text is parsed by a function that runs nothing.
//!
//! The room must not know forwards, plans or verdicts: it is asked for addresses, ports and files.
//!
//! Start here:
//! - another program to run: `child`, then a module named after the program;
//! - another question to `ip`: [`network`]; another setting of the kernel: [`sysctl`];
//! - another loader of rules at boot: [`persistence`] and [`managers`].

pub mod answer;
pub mod azure;
pub mod boot_unit;
pub mod child;
pub mod complaint;
pub mod conntrack;
pub mod detached;
pub mod file;
pub mod folder;
pub mod iptables;
pub mod kernel;
pub mod lock;
pub mod managers;
pub mod namespace;
pub mod network;
pub mod nft_mark;
pub mod persistence;
mod pipes;
mod place;
pub mod probe;
pub mod process;
pub mod progress;
pub mod rehearsal;
pub mod session;
pub mod signals;
pub mod spec_source;
pub mod ssh_connection;
pub mod survey;
pub mod sysctl;
pub mod syslog;
pub mod units;

use thiserror::Error;

use crate::net::printable::is_hidden;

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
        match self.command {
            "diff" => "put `sudo` in front of it, or compare with a file: --against FILE",
            _ => "put `sudo` in front of it",
        }
        .to_owned()
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

/// Whether the command line has the word `render`, sound or not.
#[must_use]
pub fn asked_to_render() -> bool {
    std::env::args_os().any(|word| word == "render")
}

/// Whether the words of the command line have no character that a terminal must not get.
#[must_use]
pub fn arguments_are_printable() -> bool {
    std::env::args_os().all(|word| !word.to_string_lossy().contains(is_hidden))
}

/// The length of the regular file that is standard output, in bytes, if it is one: behind `> FILE`
/// the shell has emptied it before nvactl started.
#[must_use]
pub fn stdout_file_length() -> Option<u64> {
    let stat = rustix::fs::fstat(std::io::stdout()).ok()?;
    let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
    kind.is_file().then_some(stat.st_size.unsigned_abs())
}
