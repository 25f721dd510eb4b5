//! Reads and deletes the kernel's conntrack entries with the `conntrack` program.

mod counts;
pub mod deletion;

use std::time::Duration;

use thiserror::Error;

use crate::host::child::{self, ChildError};
use crate::host::conntrack::deletion::{Deletion, deletions};
use crate::net::Family;
use crate::netfilter::conntrack::Flow;
pub use counts::{ConntrackCounts, counts};

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
                Some("to install it: sudo apt-get install conntrack".to_owned())
            }
            _ => None,
        }
    }
}

/// Returns every conntrack entry of a family that has ports.
///
/// # Errors
/// If the program is missing, or the user may not read the table.
pub fn flows(family: Family) -> Result<Vec<Flow>, ConntrackError> {
    let output = run(&["-L", "-f", name(family)])?;
    Ok(output.lines().filter_map(Flow::parse).collect())
}

/// Deletes the entries of these connections and no others. Reads the table again, so that entries that differ
/// only in their source stay.
///
/// # Errors
/// If the table cannot be read, or the kernel refuses.
pub fn delete<'f>(flows: impl Iterator<Item = &'f Flow>) -> Result<(), ConntrackError> {
    let doomed: Vec<&Flow> = flows.collect();
    for family in Family::ALL {
        let doomed = doomed.iter().copied();
        let mut doomed = doomed
            .filter(|flow| Family::of(flow.destination) == family)
            .peekable();
        if doomed.peek().is_none() {
            continue;
        }
        let all = self::flows(family)?;
        for Deletion { sources, to } in deletions(doomed, &all) {
            let sources = sources.to_string();
            let address = to.address.to_string();
            let port = to.port.to_string();
            let reply_address = to.reply_address.to_string();
            let reply_port = to.reply_port.to_string();
            let new_source = to.new_source.map(|source| source.to_string());
            let mut args = vec![
                "-D",
                "-f",
                name(family),
                "-p",
                to.protocol.as_str(),
                "--orig-src",
                &sources,
                "--orig-dst",
                &address,
                "--orig-port-dst",
                &port,
                "--reply-src",
                &reply_address,
                "--reply-port-src",
                &reply_port,
            ];
            if let Some(source) = &new_source {
                args.extend(["--reply-dst", source]);
            }
            run(&args)?;
        }
    }
    Ok(())
}

/// Returns the name of a family for conntrack's `-f`.
fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// Runs conntrack. Its exit code 1 means that no entry matched, which is no error: the connection may have
/// ended by itself.
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
