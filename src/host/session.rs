//! Finds out which user and which SSH connection the session of nvactl belongs to.

use std::fmt;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::file;
use super::ssh_connection::SshConnection;
use crate::net::printable::cut;

/// The user who made or confirmed a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The account that nvactl ran as, or its number if `/etc/passwd` has no name for it.
    pub user: String,
    /// The account that called sudo, from `SUDO_USER`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo_user: Option<String>,
    /// `None` if it is not known: see [`connection`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_connection: Option<SshConnection>,
}

/// Prints `alice as root from 198.51.100.10`, safe for a terminal.
impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = cut(&self.user, MOST_SHOWN);
        match &self.sudo_user {
            Some(sudo) if *sudo != self.user => {
                write!(f, "{} as {user}", cut(sudo, MOST_SHOWN))?;
            }
            _ => f.write_str(&user)?,
        }
        match &self.ssh_connection {
            Some(connection) => write!(f, " from {}", connection.client.address),
            None => Ok(()),
        }
    }
}

/// The most bytes of an account name that are shown.
const MOST_SHOWN: usize = 64;

/// Reads from the process, its environment and its ancestors who runs nvactl.
#[must_use]
pub fn who() -> Who {
    let user = rustix::process::getuid().as_raw();
    let accounts = file::read_limited(Path::new("/etc/passwd"), MOST_READ).unwrap_or_default();
    let name = account_name(&String::from_utf8_lossy(&accounts), user);
    let sudo_user = std::env::var_os("SUDO_USER").filter(|name| !name.is_empty());
    Who {
        user: name.unwrap_or_else(|| user.to_string()),
        sudo_user: sudo_user.map(|name| name.to_string_lossy().into_owned()),
        ssh_connection: connection(),
    }
}

/// Returns the name for a user number in the text of passwd(5).
fn account_name(accounts: &str, user: u32) -> Option<String> {
    let number = user.to_string();
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    })
}

/// Reads the SSH connection of this session, if it is certain.
///
/// It is the `SSH_CONNECTION` of this process, else of its nearest ancestor that has one, since sudo removes
/// it from the environment. An sshd must be among the ancestors: a tmux server, a timer or a systemd unit
/// keeps the variable of a connection that may have ended long ago.
#[must_use]
pub fn connection() -> Option<SshConnection> {
    let own = Ancestor {
        is_sshd: false,
        ssh_connection: std::env::var_os("SSH_CONNECTION")
            .map(|value| value.to_string_lossy().into_owned()),
    };
    session_of(std::iter::once(own).chain(ancestors().map(process)))
}

/// nvactl's process or one of its ancestors, with the signs of an SSH session.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ancestor {
    /// Whether it belongs to root and runs the program of an sshd. The process name is no proof: a user can
    /// choose it freely.
    is_sshd: bool,
    ssh_connection: Option<String>,
}

/// Returns the SSH connection of a process and its ancestors, the nearest first.
fn session_of(processes: impl IntoIterator<Item = Ancestor>) -> Option<SshConnection> {
    let mut nearest: Option<String> = None;
    for process in processes {
        if process.is_sshd {
            // The environment of sshd and of its ancestors belongs to another session.
            return nearest?.parse().ok();
        }
        nearest = nearest.or(process.ssh_connection);
    }
    None
}

/// The most ancestors that are read. If processes end meanwhile, the chain of parents could be a circle.
const MOST_ANCESTORS: usize = 256;
/// The most bytes of an environment that are read. The kernel allows at most 3/4 of 8 MiB (execve(2)).
const MOST_READ: usize = 8 << 20;

/// Reads the numbers of this process's ancestors, the nearest first.
fn ancestors() -> impl Iterator<Item = u32> {
    let parent = |status: ProcStatus| Some(status.parent).filter(|id| *id != 0);
    let first = status(std::process::id()).and_then(parent);
    std::iter::successors(first, move |id| status(*id).and_then(parent)).take(MOST_ANCESTORS)
}

fn process(id: u32) -> Ancestor {
    let program = fs::read_link(format!("/proc/{id}/exe"));
    let runs_sshd = program.is_ok_and(|program| is_sshd(&program));
    let of_root = status(id).is_some_and(|status| status.is_root);
    let environment = (!runs_sshd)
        .then(|| format!("/proc/{id}/environ"))
        .and_then(|path| file::read_limited(Path::new(&path), MOST_READ).ok());
    Ancestor {
        is_sshd: runs_sshd && of_root,
        ssh_connection: environment.as_deref().and_then(ssh_connection_in),
    }
}

/// Returns whether a program is the part of OpenSSH that holds a session: `sshd-session` since 9.8, `sshd` before.
/// The kernel appends ` (deleted)` to the path of a program that an update has replaced.
fn is_sshd(program: &Path) -> bool {
    let name = program.file_name().and_then(|name| name.to_str());
    let name = name.map(|name| name.strip_suffix(" (deleted)").unwrap_or(name));
    matches!(name, Some("sshd" | "sshd-session"))
}

/// Returns the value of `SSH_CONNECTION` in an environment in the form of proc(5).
fn ssh_connection_in(environment: &[u8]) -> Option<String> {
    environment
        .split(|byte| *byte == 0)
        .find_map(|variable| variable.strip_prefix(b"SSH_CONNECTION="))
        .map(|value| String::from_utf8_lossy(value).into_owned())
}

/// The needed fields of `/proc/PID/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ProcStatus {
    /// 0 if the process has no parent, or the parent is outside of this PID namespace.
    parent: u32,
    /// Whether all its user numbers are root's, so that no other user controls it.
    is_root: bool,
}

fn status(id: u32) -> Option<ProcStatus> {
    parse_status(&fs::read_to_string(format!("/proc/{id}/status")).ok()?)
}

fn parse_status(text: &str) -> Option<ProcStatus> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    Some(ProcStatus {
        parent: field("PPid:")?.trim().parse().ok()?,
        is_root: field("Uid:")?.split_whitespace().all(|user| user == "0"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "198.51.100.10 50022 10.3.0.4 22";
    const OLD: &str = "198.51.100.10 40000 10.3.0.4 22";

    fn with(value: &str) -> Ancestor {
        Ancestor {
            is_sshd: false,
            ssh_connection: Some(value.to_owned()),
        }
    }

    const WITHOUT: Ancestor = Ancestor {
        is_sshd: false,
        ssh_connection: None,
    };
    const SSHD: Ancestor = Ancestor {
        is_sshd: true,
        ssh_connection: None,
    };

    #[test]
    fn a_connection_is_known_only_below_an_sshd() {
        let known = |processes: &[Ancestor]| {
            session_of(processes.iter().cloned()).map(|connection| connection.to_string())
        };
        let now = Some(NOW.to_owned());
        // The processes are nvactl, the shell of the session, sshd and the first process.
        assert_eq!(known(&[with(NOW), with(NOW), SSHD, WITHOUT]), now);
        // sudo has removed the variable from its own environment and that of nvactl.
        assert_eq!(known(&[WITHOUT, WITHOUT, with(NOW), SSHD]), now);
        // The nearest value below the sshd counts. This sshd was started by hand in another session.
        assert_eq!(known(&[with(NOW), with(OLD), SSHD, with(OLD), SSHD]), now);
        assert_eq!(known(&[WITHOUT, SSHD, with(OLD), SSHD]), None);
        // A shell of a tmux server has no sshd among its ancestors.
        assert_eq!(known(&[with(OLD), with(OLD), WITHOUT]), None);
        // Without ssh there is no value. A value without addresses does not count.
        assert_eq!(known(&[WITHOUT, WITHOUT]), None);
        let nothing = "UNKNOWN 65535 UNKNOWN 65535";
        assert_eq!(known(&[with(nothing), with(NOW), SSHD]), None);
    }

    #[test]
    fn an_sshd_is_recognised_by_its_program() {
        for (program, sshd) in [
            ("/usr/sbin/sshd", true),
            ("/usr/lib/openssh/sshd-session", true),
            ("/usr/sbin/sshd (deleted)", true),
            ("/usr/bin/sshd-like", false),
            ("/usr/sbin/sshd/bash", false),
            ("/usr/bin/bash", false),
        ] {
            assert_eq!(is_sshd(Path::new(program)), sshd, "{program}");
        }
    }

    #[test]
    fn a_variable_is_found_by_its_full_name() {
        let environment = b"A=1\0OLD_SSH_CONNECTION=x\0SSH_CONNECTION=1 2 3 4\0B=2\0";
        assert_eq!(ssh_connection_in(environment).as_deref(), Some("1 2 3 4"));
        assert_eq!(ssh_connection_in(b"OLD_SSH_CONNECTION=x\0"), None);
        assert_eq!(ssh_connection_in(b""), None);
    }

    #[test]
    fn a_process_belongs_to_root_only_if_all_its_user_numbers_do() {
        let text = |users: &str| format!("Name:\tsshd\nPid:\t9\nPPid:\t7\nUid:\t{users}\n");
        for (users, is_root) in [
            ("0\t0\t0\t0", true),
            ("4000\t0\t0\t0", false),
            ("0\t4000\t0\t4000", false),
        ] {
            let status = parse_status(&text(users));
            assert_eq!(status, Some(ProcStatus { parent: 7, is_root }), "{users}");
        }
        assert_eq!(parse_status("Name:\tsshd\n"), None);
    }

    #[test]
    fn ancestors_are_listed_from_the_parent_to_the_first_process() {
        let own = status(std::process::id()).expect("it runs");
        let parent = rustix::process::getppid().expect("it has one");
        assert_eq!(own.parent, parent.as_raw_nonzero().get().unsigned_abs());
        let ancestors: Vec<u32> = ancestors().collect();
        assert_eq!(ancestors.first(), Some(&own.parent));
        let last = ancestors.last().and_then(|id| status(*id));
        assert_eq!(last.map(|last| last.parent), Some(0));
    }

    #[test]
    fn an_account_name_is_found_by_its_number() {
        let accounts =
            "root:x:0:0:root:/root:/bin/bash\n\n:x:5:\nop:x:4000:4000::/:/bin/sh\nat:x:40";
        assert_eq!(account_name(accounts, 4000).as_deref(), Some("op"));
        assert_eq!(account_name(accounts, 0).as_deref(), Some("root"));
        assert_eq!(account_name(accounts, 5), None);
        assert_eq!(account_name(accounts, 400), None);
    }

    #[test]
    fn a_user_is_shown_with_the_user_who_called_sudo() {
        let mut who = Who {
            user: "root".to_owned(),
            sudo_user: None,
            ssh_connection: None,
        };
        assert_eq!(who.to_string(), "root");
        who.sudo_user = Some("alice\u{1b}[2J".to_owned());
        who.ssh_connection = NOW.parse().ok();
        assert_eq!(
            who.to_string(),
            r"alice\u{1b}[2J as root from 198.51.100.10"
        );
        let json = serde_json::to_string(&who).expect("it can be written");
        assert_eq!(serde_json::from_str::<Who>(&json).ok(), Some(who));
    }
}
