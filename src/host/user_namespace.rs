//! Gives a process without root the right to make network namespaces: it moves into a user namespace of its own, in
//! which it is root (`user_namespaces(7)`).
//!
//! The process calls unshare(2) itself, so that it needs no program of util-linux and keeps its standard input. The
//! kernel refuses that once the process has a second thread.

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use rustix::thread::{CapabilitySet, UnshareFlags, capabilities};
use thiserror::Error;

/// The switch of the kernel's `AppArmor` (`security/apparmor/lsm.c`, Ubuntu 23.10 and later).
const APPARMOR: &str = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";

/// The switch of Debian's kernels.
const DEBIAN: &str = "/proc/sys/kernel/unprivileged_userns_clone";

/// The reason why the process has no namespaces of its own.
#[derive(Debug, Error)]
pub enum UserNamespaceError {
    #[error("no {0} namespace can be made: as many as `user.{1}` allows are in use")]
    UsedUp(&'static str, &'static str),
    #[error("no user namespace can be made: `kernel.unprivileged_userns_clone` is 0")]
    SwitchedOff,
    #[error("no user namespace can be used: AppArmor lets nobody but root use one")]
    AppArmor,
    #[error("no user namespace can be made: this container or sandbox forbids it")]
    Forbidden,
    #[error("no user namespace can be made: this kernel was built without them")]
    Unknown,
    #[error("no {of} namespace can be made")]
    Other { of: &'static str, source: io::Error },
}

impl UserNamespaceError {
    /// Returns the fix.
    #[must_use]
    pub fn hint(&self) -> String {
        let setting = |setting: &str| {
            format!("run it with `sudo`, or let every program have more: sudo sysctl -w {setting}")
        };
        let switch = |switch: &str| {
            format!("run it with `sudo`, or let every program use them: sudo sysctl -w {switch}")
        };
        match self {
            // The number of threads that the kernel takes by default is about as large.
            Self::UsedUp(_, limit) => setting(&format!("user.{limit}=15000")),
            Self::SwitchedOff => switch("kernel.unprivileged_userns_clone=1"),
            Self::AppArmor => switch("kernel.apparmor_restrict_unprivileged_userns=0"),
            Self::Forbidden => "run it as root with CAP_SYS_ADMIN and CAP_NET_ADMIN; with Docker: \
                 docker run --privileged"
                .to_owned(),
            Self::Unknown | Self::Other { .. } => "run it with `sudo`".to_owned(),
        }
    }
}

/// Moves the process into a user namespace and a network namespace of its own, unless it has the rights to make network
/// namespaces already. Its files keep their owners. Call it before any thread exists.
///
/// # Errors
/// The reason for which the kernel refuses it, with its fix.
pub fn enter_own_namespaces() -> Result<(), UserNamespaceError> {
    if has_rights() {
        return Ok(());
    }
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    let failed = |step: EntryStep| {
        move |error: io::Error| failure(step, error, DistributionSwitches::read())
    };
    unshare(UnshareFlags::NEWUSER).map_err(failed(EntryStep::User))?;
    for (file, text) in [
        // Only a privileged process may map groups otherwise.
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {user} 1")),
        ("gid_map", format!("0 {group} 1")),
    ] {
        fs::write(format!("/proc/self/{file}"), text).map_err(failed(EntryStep::Map))?;
    }
    unshare(UnshareFlags::NEWNET).map_err(failed(EntryStep::Network))?;
    if has_rights() {
        Ok(())
    } else {
        let error = io::ErrorKind::PermissionDenied.into();
        Err(failure(
            EntryStep::Network,
            error,
            DistributionSwitches::read(),
        ))
    }
}

/// Returns whether the process may make network namespaces and change their settings.
fn has_rights() -> bool {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
    capabilities(None).is_ok_and(|own| own.effective.contains(needed))
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    #[expect(
        deprecated,
        reason = "the function in its place is `unsafe`, for flags that are not used here"
    )]
    rustix::thread::unshare(flags)?;
    Ok(())
}

/// A step on the way into the namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryStep {
    User,
    /// Makes the process root in the user namespace.
    Map,
    Network,
}

/// Whether the switches of distributions forbid user namespaces.
#[derive(Debug, Clone, Copy, Default)]
struct DistributionSwitches {
    apparmor: bool,
    debian: bool,
}

impl DistributionSwitches {
    fn read() -> Self {
        let is = |path: &str, value: &str| {
            fs::read_to_string(path).is_ok_and(|text| text.trim() == value)
        };
        Self {
            apparmor: is(APPARMOR, "1"),
            debian: is(DEBIAN, "0"),
        }
    }
}

/// Tells the reasons of a refusal apart.
fn failure(
    step: EntryStep,
    error: io::Error,
    switches: DistributionSwitches,
) -> UserNamespaceError {
    use io::ErrorKind::{InvalidInput, PermissionDenied, StorageFull};
    let of = match step {
        EntryStep::User | EntryStep::Map => "user",
        EntryStep::Network => "network",
    };
    match (step, error.kind()) {
        (EntryStep::User, StorageFull) => UserNamespaceError::UsedUp(of, "max_user_namespaces"),
        (EntryStep::Network, StorageFull) => UserNamespaceError::UsedUp(of, "max_net_namespaces"),
        // AppArmor refuses the namespace itself if it has no profile for such processes. Others refuse it with EPERM.
        (EntryStep::User, PermissionDenied) if switches.apparmor && is_access(&error) => {
            UserNamespaceError::AppArmor
        }
        (EntryStep::User, PermissionDenied) if switches.debian => UserNamespaceError::SwitchedOff,
        // AppArmor lets the process into the user namespace and takes the rights there.
        (EntryStep::Map | EntryStep::Network, PermissionDenied) if switches.apparmor => {
            UserNamespaceError::AppArmor
        }
        (_, PermissionDenied) => UserNamespaceError::Forbidden,
        (EntryStep::User, InvalidInput) if !is_known() => UserNamespaceError::Unknown,
        _ => UserNamespaceError::Other { of, source: error },
    }
}

/// Whether an error is EACCES, with which a security module refuses what it mediates.
fn is_access(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ACCESS.raw_os_error())
}

fn is_known() -> bool {
    fs::exists("/proc/self/ns/user").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_reason_and_its_fix() {
        let none = DistributionSwitches::default();
        let ubuntu = DistributionSwitches {
            apparmor: true,
            ..none
        };
        let debian = DistributionSwitches {
            debian: true,
            ..none
        };
        for (step, error, switches, words, fix) in [
            (
                EntryStep::User,
                Errno::NOSPC,
                none,
                "no user namespace can be made: as many as `user.max_user_namespaces` allows are in use",
                "sudo sysctl -w user.max_user_namespaces=15000",
            ),
            (
                EntryStep::Network,
                Errno::NOSPC,
                ubuntu,
                "no network namespace can be made: as many as `user.max_net_namespaces` allows are in use",
                "sudo sysctl -w user.max_net_namespaces=15000",
            ),
            (
                EntryStep::User,
                Errno::PERM,
                ubuntu,
                "no user namespace can be made: this container or sandbox forbids it",
                "docker run --privileged",
            ),
            (
                EntryStep::User,
                Errno::PERM,
                debian,
                "no user namespace can be made: `kernel.unprivileged_userns_clone` is 0",
                "sudo sysctl -w kernel.unprivileged_userns_clone=1",
            ),
            (
                EntryStep::User,
                Errno::ACCESS,
                ubuntu,
                "no user namespace can be used: AppArmor lets nobody but root use one",
                "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            (
                EntryStep::Map,
                Errno::PERM,
                ubuntu,
                "no user namespace can be used: AppArmor lets nobody but root use one",
                "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            (
                EntryStep::Network,
                Errno::PERM,
                ubuntu,
                "no user namespace can be used: AppArmor lets nobody but root use one",
                "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            (
                EntryStep::Network,
                Errno::NOMEM,
                none,
                "no network namespace can be made",
                "run it with `sudo`",
            ),
        ] {
            let found = failure(step, error.into(), switches);
            assert_eq!(found.to_string(), words);
            assert!(found.hint().ends_with(fix), "{}", found.hint());
        }
    }

    /// The test's process has many threads.
    #[test]
    fn a_process_with_threads_stays_where_it_is() {
        if has_rights() {
            assert!(enter_own_namespaces().is_ok());
        } else {
            assert!(enter_own_namespaces().is_err());
        }
    }
}
