//! The kernel's table of connections, by the `conntrack` program.

use std::collections::BTreeSet;
use std::time::Duration;

use thiserror::Error;

use super::child::{self, ChildError};
use crate::flow::Flow;
use crate::net::Family;

/// A table of a million entries takes some seconds.
const LIMIT: Duration = Duration::from_mins(2);

#[derive(Debug, Error)]
pub enum ConntrackError {
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error("`conntrack {command}` failed: {words}")]
    Failed { command: String, words: String },
}

impl ConntrackError {
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            ConntrackError::Child(ChildError::NotFound(_)) => {
                Some("sudo apt-get install conntrack".to_owned())
            }
            _ => None,
        }
    }
}

/// Every connection of a family with ports.
///
/// # Errors
/// Without the program, or the right to read the table.
pub fn flows(family: Family) -> Result<Vec<Flow>, ConntrackError> {
    let output = run(&["-L", "-f", name(family)])?;
    Ok(output.lines().filter_map(Flow::parse).collect())
}

/// Deletes the entries of these connections, and no others that lead elsewhere: those of one
/// protocol, destination and old target go together. Gives how many groups there were.
///
/// # Errors
/// When the kernel refuses.
pub fn delete<'f>(flows: impl Iterator<Item = &'f Flow>) -> Result<(), ConntrackError> {
    let groups: BTreeSet<_> = flows
        .map(|flow| {
            let port = flow.destination_port;
            let reply = (flow.reply_source, flow.reply_port);
            (flow.protocol.as_str(), flow.destination, port, reply)
        })
        .collect();
    for (protocol, destination, port, (reply_source, reply_port)) in groups {
        let words = [
            destination.to_string(),
            port.to_string(),
            reply_source.to_string(),
            reply_port.to_string(),
        ];
        let args = [
            "-D",
            "-f",
            name(Family::of(destination)),
            "-p",
            protocol,
            "--orig-dst",
            &words[0],
            "--orig-port-dst",
            &words[1],
            "--reply-src",
            &words[2],
            "--reply-port-src",
            &words[3],
        ];
        run(&args)?;
    }
    Ok(())
}

/// As `-f` names it.
fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// Exit code 1 says that no entry was meant: it may have ended by itself.
fn run(args: &[&str]) -> Result<String, ConntrackError> {
    let output = child::run("conntrack", args, b"", LIMIT)?;
    match output.status.code() {
        Some(0 | 1) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        _ => Err(ConntrackError::Failed {
            command: args.join(" "),
            words: output.stderr,
        }),
    }
}
