//! The impure edge: the only part of nvactl that starts programs or touches files, the
//! environment or the kernel's settings. Everything it learns it hands to the core as values.

pub mod child;
pub mod file;
pub mod iptables;
pub mod persistence;
pub mod spec_source;
pub mod sysctl;
pub mod transaction;

/// Whether the process may change the kernel's rules and settings, as far as its user goes.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
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
