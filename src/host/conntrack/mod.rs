//! Reads and deletes the kernel's conntrack entries with the `conntrack` program.

mod counts;
pub mod deletion;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::host::child::{self, ChildError};
use crate::host::conntrack::deletion::{Deletion, EntryFields, SharedFields, deletions};
use crate::net::Family;
use crate::netfilter::conntrack::Flow;
pub use counts::{ConntrackCounts, counts};

/// A table of a million entries takes some seconds.
const LIMIT: Duration = Duration::from_mins(2);
/// The limit for ending all connections of a change.
const ALL_LIMIT: Duration = Duration::from_mins(1);

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
    listed(family, LIMIT)
}

fn listed(family: Family, limit: Duration) -> Result<Vec<Flow>, ConntrackError> {
    let output = list(&["-L", "-f", name(family)], limit)?;
    Ok(output.lines().filter_map(Flow::parse).collect())
}

/// The connections that were to be ended and are still there.
#[derive(Debug, Default)]
pub struct Left<'f> {
    pub flows: Vec<&'f Flow>,
    /// Why they are still there. `None` if the time was up.
    pub error: Option<ConntrackError>,
}

/// Returns the time until which connections that begin to be ended now must be: a pass over a table of 200,000 entries
/// takes about half a second.
#[must_use]
pub fn deadline() -> Instant {
    Instant::now() + ALL_LIMIT
}

/// Deletes the entries of these connections and no others, until the time is up. Reads the table again, so that entries
/// that differ only in one field stay.
#[must_use]
pub fn delete<'f>(flows: impl Iterator<Item = &'f Flow>, until: Instant) -> Left<'f> {
    let doomed: Vec<&Flow> = flows.collect();
    let mut left = Left::default();
    for family in Family::ALL {
        let doomed = doomed.iter().copied();
        let doomed: Vec<&Flow> = doomed
            .filter(|flow| Family::of(flow.destination) == family)
            .collect();
        if doomed.is_empty() {
            continue;
        }
        let (there, error) = delete_of(family, &doomed, until);
        left.flows.extend(there);
        left.error = left.error.or(error);
    }
    left
}

/// Deletes the entries of connections of one family. Returns those that are still there, and the error.
fn delete_of<'f>(
    family: Family,
    doomed: &[&'f Flow],
    until: Instant,
) -> (Vec<&'f Flow>, Option<ConntrackError>) {
    let all = match until_due(until, |limit| listed(family, limit)) {
        Some(Ok(all)) => all,
        Some(Err(error)) => return (doomed.to_vec(), Some(error)),
        None => return (doomed.to_vec(), None),
    };
    let mut deletions = deletions(doomed.iter().copied(), &all);
    // If the time is too short, most of the connections are ended.
    deletions.sort_by_key(|deletion| Reverse(deletion.entries.len()));
    let mut ended: BTreeSet<EntryFields> = BTreeSet::new();
    let mut error = None;
    for deletion in deletions {
        let args = arguments(family, &deletion);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        match until_due(until, |limit| run(&args, limit)) {
            Some(Ok(_)) => ended.extend(deletion.entries),
            Some(Err(failed)) => {
                error = Some(failed);
                break;
            }
            None => break,
        }
    }
    let left = doomed.iter().copied();
    let left = left.filter(|flow| !ended.contains(&EntryFields::from(*flow)));
    (left.collect(), error)
}

/// Does the work in the time that is left, if there is any.
fn until_due<T>(until: Instant, work: impl FnOnce(Duration) -> T) -> Option<T> {
    let left = until.saturating_duration_since(Instant::now());
    (!left.is_zero()).then(|| work(left.min(LIMIT)))
}

/// Returns the arguments of `conntrack -D`.
fn arguments(family: Family, deletion: &Deletion) -> Vec<String> {
    let SharedFields {
        protocol,
        port,
        reply_address,
        reply_port,
        new_source,
    } = deletion.shared;
    let conditions = [
        ("-p", Some(protocol.as_str().to_owned())),
        ("--orig-src", Some(deletion.sources.to_string())),
        ("--orig-dst", Some(deletion.destinations.to_string())),
        ("--orig-port-dst", port.map(|port| port.to_string())),
        ("--reply-src", reply_address.map(|one| one.to_string())),
        ("--reply-port-src", reply_port.map(|port| port.to_string())),
        ("--reply-dst", new_source.map(|one| one.to_string())),
    ];
    let mut args = vec!["-D".to_owned(), "-f".to_owned(), name(family).to_owned()];
    for (option, value) in conditions {
        if let Some(value) = value {
            args.extend([option.to_owned(), value]);
        }
    }
    args
}

/// Returns the name of a family for conntrack's `-f`.
fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// Runs conntrack to change entries.
fn run(args: &[&str], limit: Duration) -> Result<String, ConntrackError> {
    printed(args, child::run("conntrack", args, b"", limit)?)
}

/// Runs conntrack to list entries.
fn list(args: &[&str], limit: Duration) -> Result<String, ConntrackError> {
    printed(args, child::read("conntrack", args, b"", limit)?)
}

/// Returns the output of conntrack. Its exit code 1 means that no entry matched, which is no error: the connection may
/// have ended by itself.
fn printed(args: &[&str], output: child::Output) -> Result<String, ConntrackError> {
    match output.status.code() {
        Some(0 | 1) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        _ => Err(ConntrackError::Failed {
            command: args.join(" "),
            words: output.stderr,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_program_is_run_when_the_time_is_up() {
        let line = |family: &str| match family {
            "v4" => {
                "udp 17 9 src=10.0.0.1 dst=8.8.8.8 sport=5 dport=53 src=8.8.8.8 dst=10.0.0.1 sport=53 dport=5"
            }
            _ => {
                "udp 17 9 src=fd00::1 dst=fd00::2 sport=5 dport=53 src=fd00::2 dst=fd00::1 sport=53 dport=5"
            }
        };
        let flows = ["v4", "v6"].map(|family| Flow::parse(line(family)).expect("it is a flow"));
        let left = delete(flows.iter(), Instant::now());
        assert_eq!(left.flows, flows.iter().collect::<Vec<_>>());
        assert!(left.error.is_none(), "{:?}", left.error);
    }
}
