//! An SSH connection in the form of `SSH_CONNECTION`, and the check that a change is confirmed over a new one.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::net::{Interface, Port};

/// Both ends of an SSH connection: `198.51.100.10 50022 10.3.0.4 22`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SshConnection {
    pub client: SshEnd,
    pub server: SshEnd,
}

/// One end: an address, and the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshEnd {
    pub address: IpAddr,
    /// The interface of a link-local IPv6 address, which getnameinfo(3) writes after a `%`.
    pub zone: Option<Interface>,
    pub port: Port,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` is not an SSH connection: the client's address and port, the server's address and port"
)]
pub struct SshConnectionError(String);

impl SshConnection {
    /// Returns whether the client is this machine itself. Such a connection crosses no network.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.client.address == self.server.address || self.client.address.is_loopback()
    }
}

impl FromStr for SshConnection {
    type Err = SshConnectionError;

    fn from_str(text: &str) -> Result<Self, SshConnectionError> {
        let words: Vec<&str> = text.split(' ').collect();
        let ends = match words[..] {
            [client, client_port, server, server_port] => {
                endpoint(client, client_port).zip(endpoint(server, server_port))
            }
            _ => None,
        };
        ends.map(|(client, server)| Self { client, server })
            .ok_or_else(|| SshConnectionError(text.to_owned()))
    }
}

/// Reads one end. Returns `None` for `UNKNOWN 65535`, which sshd writes if it was not started on a socket.
fn endpoint(address: &str, port: &str) -> Option<SshEnd> {
    let (address, zone) = match address.split_once('%') {
        Some((address, zone)) => (address, Some(zone.parse().ok()?)),
        None => (address, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let port = port.parse().ok()?;
    (zone.is_none() || address.is_ipv6()).then_some(SshEnd {
        address,
        zone,
        port,
    })
}

impl fmt::Display for SshConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (end, space) in [(&self.client, " "), (&self.server, "")] {
            write!(f, "{}", end.address)?;
            if let Some(zone) = &end.zone {
                write!(f, "%{zone}")?;
            }
            write!(f, " {}{space}", end.port)?;
        }
        Ok(())
    }
}

impl TryFrom<String> for SshConnection {
    type Error = SshConnectionError;

    fn try_from(text: String) -> Result<Self, SshConnectionError> {
        text.parse()
    }
}

impl From<SshConnection> for String {
    fn from(connection: SshConnection) -> Self {
        connection.to_string()
    }
}

/// The reason why a confirmation does not prove that a new SSH connection is possible. The change keeps waiting.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotNew {
    #[error(
        "this session uses the SSH connection that applied the change, `{0}`, and an open connection \
         works even if new ones are blocked"
    )]
    Same(SshConnection),
    #[error(
        "no sshd started this session (tmux or the console), so its SSH connection is not known"
    )]
    ConfirmingUnknown,
    #[error(
        "no sshd started the session that applied the change, so nvactl cannot tell whether this \
         SSH connection is new"
    )]
    AppliedUnknown,
    #[error(
        "no sshd started this session, nor the one that applied the change (tmux or the console), so neither \
         SSH connection is known"
    )]
    BothUnknown,
}

impl NotNew {
    /// Returns a command that confirms.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            NotNew::Same(_) | NotNew::ConfirmingUnknown => CHECKED,
            // The check would refuse every session.
            NotNew::AppliedUnknown | NotNew::BothUnknown => WITHOUT_CHECK,
        }
    }
}

/// The command that confirms over a new connection. `-S none` keeps ssh from sharing an open one (ssh(1)).
const CHECKED: &str = "on your own machine: ssh -t -S none HOST sudo nvactl confirm --new-session";
/// The command if nvactl cannot tell whether the connection is new.
const UNCHECKED: &str = "on your own machine: ssh -t -S none HOST sudo nvactl confirm";

const WITHOUT_CHECK: &str =
    "to confirm without this check, on your own machine: ssh -t -S none HOST sudo nvactl confirm";

/// Returns the advice while a change waits: why only a new connection counts, and the command that confirms over
/// one.
#[must_use]
pub fn advice(applied: Option<&SshConnection>) -> String {
    let command = if applied.is_some() {
        CHECKED
    } else {
        UNCHECKED
    };
    format!(
        "open connections keep working after the change, so only a new connection proves that you can \
         still log in; {command}"
    )
}

/// Checks that a change that was applied over one SSH connection is confirmed over another.
///
/// # Errors
/// If one of them is not known, or both are the same.
pub fn judge(
    applied: Option<&SshConnection>,
    confirming: Option<&SshConnection>,
) -> Result<(), NotNew> {
    match (applied, confirming) {
        (None, None) => Err(NotNew::BothUnknown),
        (None, Some(_)) => Err(NotNew::AppliedUnknown),
        (Some(_), None) => Err(NotNew::ConfirmingUnknown),
        (Some(applied), Some(confirming)) if applied == confirming => {
            Err(NotNew::Same(confirming.clone()))
        }
        (Some(_), Some(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "198.51.100.10 50022 10.3.0.4 22";

    fn connection(text: &str) -> SshConnection {
        text.parse().expect(text)
    }

    #[test]
    fn a_connection_prints_as_it_reads() {
        for text in [
            ONE,
            "2001:db8:51::10 50022 fd00:3::4 2222",
            "fe80::1%eth0 50022 fe80::2%eth0.100 22",
        ] {
            let read = connection(text);
            assert_eq!(read.to_string(), text);
            let json = serde_json::to_string(&read).expect("it can be written");
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(
                serde_json::from_str::<SshConnection>(&json).ok(),
                Some(read)
            );
        }
    }

    #[test]
    fn a_text_without_two_valid_ends_is_refused() {
        for text in [
            "",
            "UNKNOWN 65535 UNKNOWN 65535",
            "198.51.100.10 50022 10.3.0.4",
            "198.51.100.10 50022 10.3.0.4 22 ",
            "198.51.100.10  50022 10.3.0.4 22",
            "198.51.100.10 50022 10.3.0.4 22\n",
            "198.51.100.10 0 10.3.0.4 22",
            "198.51.100.10 50022 10.3.0.4 65536",
            "198.51.100.10%eth0 50022 10.3.0.4 22",
            "fe80::1% 50022 fe80::2%eth0 22",
            "fe80::1%eth0;x 50022 fe80::2%eth0 22",
            "client 50022 10.3.0.4 22",
        ] {
            let refused = text.parse::<SshConnection>();
            assert_eq!(refused, Err(SshConnectionError(text.to_owned())));
        }
    }

    #[test]
    fn only_a_known_and_different_connection_is_new() {
        let one = connection(ONE);
        let same_client = connection("198.51.100.10 50023 10.3.0.4 22");
        let other_address = connection("198.51.100.10 50022 10.4.0.4 22");
        let other_zone = connection("fe80::1%eth0 50022 fe80::2%eth0 22");
        let one_zone = connection("fe80::1%eth1 50022 fe80::2%eth1 22");
        assert_eq!(judge(Some(&one), Some(&same_client)), Ok(()));
        assert_eq!(judge(Some(&one), Some(&other_address)), Ok(()));
        assert_eq!(judge(Some(&one_zone), Some(&other_zone)), Ok(()));
        let same = Err(NotNew::Same(one.clone()));
        assert_eq!(judge(Some(&one), Some(&one.clone())), same);
        assert_eq!(judge(Some(&one), None), Err(NotNew::ConfirmingUnknown));
        assert_eq!(judge(None, Some(&one)), Err(NotNew::AppliedUnknown));
        assert_eq!(judge(None, None), Err(NotNew::BothUnknown));
    }

    #[test]
    fn a_refusal_names_the_unknown_connection() {
        for (error, named) in [
            (NotNew::Same(connection(ONE)), ONE),
            (NotNew::ConfirmingUnknown, "no sshd started this session"),
            (
                NotNew::AppliedUnknown,
                "no sshd started the session that applied the change",
            ),
            (
                NotNew::BothUnknown,
                "no sshd started this session, nor the one that applied the change",
            ),
        ] {
            let words = error.to_string();
            assert!(words.contains(named), "{words}");
        }
    }

    #[test]
    fn the_advice_has_a_command_that_confirms() {
        let one = connection(ONE);
        let known = advice(Some(&one));
        assert!(known.contains("only a new connection proves"), "{known}");
        assert!(
            known.ends_with(" sudo nvactl confirm --new-session"),
            "{known}"
        );
        // With an unknown connection, nvactl would refuse `--new-session`.
        let unknown = advice(None);
        assert!(
            unknown.contains("only a new connection proves"),
            "{unknown}"
        );
        assert!(unknown.ends_with(" sudo nvactl confirm"), "{unknown}");
    }

    #[test]
    fn a_connection_from_the_machine_itself_is_local() {
        for (text, local) in [
            (ONE, false),
            ("10.3.0.4 50022 10.3.0.4 22", true),
            ("127.0.0.1 50022 127.0.0.1 22", true),
            ("127.0.0.1 50022 127.0.0.2 22", true),
            ("::1 50022 ::1 22", true),
        ] {
            assert_eq!(connection(text).is_local(), local, "{text}");
        }
    }
}
