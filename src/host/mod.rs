//! The impure edge: with `twin`, the only part of nvactl that starts programs or uses files, the environment or
//! the kernel's settings. It passes everything that it reads to the core as values.
//!
//! Values are defined beside their readers. The functions that parse a text run no program.
//!
//! The room must not know forwards, plans or verdicts: its functions take addresses, ports and files.
//!
//! Start here:
//! - another program to run: `child`, then a module named after the program;
//! - another query to `ip`: [`network`]; another setting of the kernel: [`sysctl`];
//! - the rights to make namespaces without root: [`user_namespace`];
//! - another loader of rules at boot: [`persistence`] and [`managers`].

pub mod answer;
pub mod azure;
pub mod boot_text;
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
pub mod network_file;
pub mod nft_mark;
pub mod persistence;
mod pipes;
mod place;
pub mod probe;
pub mod process;
pub mod progress;
pub mod rehearsal;
pub mod rules_text;
pub mod session;
pub mod signals;
pub mod spec_source;
pub mod ssh_connection;
pub mod survey;
pub mod sysctl;
pub mod syslog;
pub mod units;
pub mod user_namespace;

use thiserror::Error;

use crate::net::printable::is_hidden;

/// The error for a command that only root may run.
#[derive(Debug, Error)]
#[error(
    "`nvactl {command}` needs root: only root can read and change the kernel's firewall rules and settings"
)]
pub struct NotRoot {
    pub command: &'static str,
}

impl NotRoot {
    #[must_use]
    pub fn hint(&self) -> String {
        match self.command {
            "diff" => "run it with `sudo`, or compare with a file: --against FILE",
            _ => "run it with `sudo`",
        }
        .to_owned()
    }
}

/// Checks that the process runs as root, before anything else is done. `command` is the user's command.
///
/// # Errors
/// If the process does not run as root. A root without the needed capability gets its error from iptables.
pub fn require_root(command: &'static str) -> Result<(), NotRoot> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err(NotRoot { command })
    }
}

/// Returns whether the command line has the word `render`, even if the command line is not valid.
#[must_use]
pub fn asked_to_render() -> bool {
    std::env::args_os().any(|word| word == "render")
}

/// Returns whether the command line has no character that would have to be escaped on a terminal.
#[must_use]
pub fn arguments_are_printable() -> bool {
    std::env::args_os().all(|word| !word.to_string_lossy().contains(is_hidden))
}

/// Returns the length in bytes of the file that is standard output, if it is a regular file. With `> FILE`, the
/// shell has emptied the file before nvactl started.
#[must_use]
pub fn stdout_file_length() -> Option<u64> {
    let stat = rustix::fs::fstat(std::io::stdout()).ok()?;
    let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
    kind.is_file().then_some(stat.st_size.unsigned_abs())
}
