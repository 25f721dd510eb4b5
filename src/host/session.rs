//! The session that runs nvactl: whose it is, and over which SSH connection it came.

use std::fmt;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::file;
use super::ssh_connection::SshConnection;
use crate::net::printable::cut;

/// Who made or decided on a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The account that nvactl ran as, or its number where `/etc/passwd` has no name for it.
    pub user: String,
    /// The account that called sudo, as sudo says in `SUDO_USER`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo_user: Option<String>,
    /// `None` where it is not known: see [`connection`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_connection: Option<SshConnection>,
}

/// `alice as root from 198.51.100.10`, fit for a terminal.
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

/// How many bytes of an account's name are shown.
const MOST_SHOWN: usize = 64;

/// Reads who runs nvactl from the process, its environment and its ancestors.
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

/// Returns the name of a user's number in the text of passwd(5).
fn account_name(accounts: &str, user: u32) -> Option<String> {
    let number = user.to_string();
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    })
}

/// Reads over which SSH connection this session came, if that is certain.
///
/// It is the `SSH_CONNECTION` of this process, else of its nearest ancestor that has one, since sudo
/// takes it out of the environment. An sshd must be among the ancestors: a tmux server, a timer or a
/// unit of systemd's keeps the variable of a connection that may be long gone.
#[must_use]
pub fn connection() -> Option<SshConnection> {
    let own = Process {
        is_sshd: false,
        ssh_connection: std::env::var_os("SSH_CONNECTION")
            .map(|value| value.to_string_lossy().into_owned()),
    };
    session_of(std::iter::once(own).chain(ancestors().map(process)))
}

/// A process between nvactl and the first one, as far as it tells of an SSH session.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    /// Whether it is root's and runs the program of an sshd: a user can give any process its name.
    is_sshd: bool,
    ssh_connection: Option<String>,
}

/// Decides by a process and its ancestors, the nearest first.
fn session_of(processes: impl IntoIterator<Item = Process>) -> Option<SshConnection> {
    let mut nearest: Option<String> = None;
    for process in processes {
        if process.is_sshd {
            // The environment of sshd itself, and of whoever started it, is of another session.
            return nearest?.parse().ok();
        }
        nearest = nearest.or(process.ssh_connection);
    }
    None
}

/// How many ancestors are looked at: processes that end meanwhile must not lead in a circle.
const MOST_ANCESTORS: usize = 256;
/// More than the kernel lets an environment have: 3/4 of 8 MiB (execve(2)).
const MOST_READ: usize = 8 << 20;

/// Reads the numbers of this process's ancestors, the nearest first.
fn ancestors() -> impl Iterator<Item = u32> {
    let parent = |status: Status| Some(status.parent).filter(|id| *id != 0);
    let first = status(std::process::id()).and_then(parent);
    std::iter::successors(first, move |id| status(*id).and_then(parent)).take(MOST_ANCESTORS)
}

fn process(id: u32) -> Process {
    let program = fs::read_link(format!("/proc/{id}/exe"));
    let runs_sshd = program.is_ok_and(|program| is_sshd(&program));
    let of_root = status(id).is_some_and(|status| status.is_root);
    let environment = (!runs_sshd)
        .then(|| format!("/proc/{id}/environ"))
        .and_then(|path| file::read_limited(Path::new(&path), MOST_READ).ok());
    Process {
        is_sshd: runs_sshd && of_root,
        ssh_connection: environment.as_deref().and_then(ssh_connection_in),
    }
}

/// Whether a program is the part of OpenSSH that holds a session: since 9.8 that is `sshd-session`.
/// The kernel writes ` (deleted)` behind one that an update has replaced.
fn is_sshd(program: &Path) -> bool {
    let name = program.file_name().and_then(|name| name.to_str());
    let name = name.map(|name| name.strip_suffix(" (deleted)").unwrap_or(name));
    matches!(name, Some("sshd" | "sshd-session"))
}

/// Returns the value of `SSH_CONNECTION` in an environment as proc(5) shows it.
fn ssh_connection_in(environment: &[u8]) -> Option<String> {
    environment
        .split(|byte| *byte == 0)
        .find_map(|variable| variable.strip_prefix(b"SSH_CONNECTION="))
        .map(|value| String::from_utf8_lossy(value).into_owned())
}

/// What is needed of `/proc/PID/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Status {
    /// 0 where the process has none, or it is outside of this PID namespace.
    parent: u32,
    /// Whether all its user numbers are root's, so that no user can have started it as he likes.
    is_root: bool,
}

fn status(id: u32) -> Option<Status> {
    parse_status(&fs::read_to_string(format!("/proc/{id}/status")).ok()?)
}

fn parse_status(text: &str) -> Option<Status> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    Some(Status {
        parent: field("PPid:")?.trim().parse().ok()?,
        is_root: field("Uid:")?.split_whitespace().all(|user| user == "0"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "198.51.100.10 50022 10.3.0.4 22";
    const OLD: &str = "198.51.100.10 40000 10.3.0.4 22";

    fn with(value: &str) -> Process {
        Process {
            is_sshd: false,
            ssh_connection: Some(value.to_owned()),
        }
    }

    const WITHOUT: Process = Process {
        is_sshd: false,
        ssh_connection: None,
    };
    const SSHD: Process = Process {
        is_sshd: true,
        ssh_connection: None,
    };

    #[test]
    fn a_connection_is_known_below_an_sshd_only() {
        let known = |processes: &[Process]| {
            session_of(processes.iter().cloned()).map(|connection| connection.to_string())
        };
        let now = Some(NOW.to_owned());
        // nvactl, the shell of the session, sshd, the first process.
        assert_eq!(known(&[with(NOW), with(NOW), SSHD, WITHOUT]), now);
        // sudo has taken it out of the environment of nvactl and of itself.
        assert_eq!(known(&[WITHOUT, WITHOUT, with(NOW), SSHD]), now);
        // The nearest counts, and no further than to the sshd, which was started by hand here.
        assert_eq!(known(&[with(NOW), with(OLD), SSHD, with(OLD), SSHD]), now);
        assert_eq!(known(&[WITHOUT, SSHD, with(OLD), SSHD]), None);
        // The shell of a tmux server.
        assert_eq!(known(&[with(OLD), with(OLD), WITHOUT]), None);
        // No ssh at all, and a value that says nothing.
        assert_eq!(known(&[WITHOUT, WITHOUT]), None);
        let nothing = "UNKNOWN 65535 UNKNOWN 65535";
        assert_eq!(known(&[with(nothing), with(NOW), SSHD]), None);
    }

    #[test]
    fn an_sshd_is_told_by_its_program() {
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
    fn a_variable_is_found_by_its_whole_name() {
        let environment = b"A=1\0OLD_SSH_CONNECTION=x\0SSH_CONNECTION=1 2 3 4\0B=2\0";
        assert_eq!(ssh_connection_in(environment).as_deref(), Some("1 2 3 4"));
        assert_eq!(ssh_connection_in(b"OLD_SSH_CONNECTION=x\0"), None);
        assert_eq!(ssh_connection_in(b""), None);
    }

    #[test]
    fn a_process_is_root_s_only_with_all_its_numbers() {
        let text = |users: &str| format!("Name:\tsshd\nPid:\t9\nPPid:\t7\nUid:\t{users}\n");
        for (users, is_root) in [
            ("0\t0\t0\t0", true),
            ("4000\t0\t0\t0", false),
            ("0\t4000\t0\t4000", false),
        ] {
            let status = parse_status(&text(users));
            assert_eq!(status, Some(Status { parent: 7, is_root }), "{users}");
        }
        assert_eq!(parse_status("Name:\tsshd\n"), None);
    }

    #[test]
    fn the_ancestors_go_from_the_parent_to_the_first_process() {
        let own = status(std::process::id()).expect("it runs");
        let parent = rustix::process::getppid().expect("it has one");
        assert_eq!(own.parent, parent.as_raw_nonzero().get().unsigned_abs());
        let ancestors: Vec<u32> = ancestors().collect();
        assert_eq!(ancestors.first(), Some(&own.parent));
        let last = ancestors.last().and_then(|id| status(*id));
        assert_eq!(last.map(|last| last.parent), Some(0));
    }

    #[test]
    fn an_account_is_named_by_its_number() {
        let accounts =
            "root:x:0:0:root:/root:/bin/bash\n\n:x:5:\nop:x:4000:4000::/:/bin/sh\nat:x:40";
        assert_eq!(account_name(accounts, 4000).as_deref(), Some("op"));
        assert_eq!(account_name(accounts, 0).as_deref(), Some("root"));
        assert_eq!(account_name(accounts, 5), None);
        assert_eq!(account_name(accounts, 400), None);
    }

    #[test]
    fn a_name_is_shown_with_the_one_behind_sudo() {
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
