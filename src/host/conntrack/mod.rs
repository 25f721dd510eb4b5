//! Reads and deletes the kernel's conntrack entries with the `conntrack` program.

pub mod deletion;

use std::fs;
use std::time::Duration;

use thiserror::Error;

use crate::host::child::{self, ChildError};
use crate::host::conntrack::deletion::{Deletion, deletions};
use crate::net::Family;
use crate::netfilter::conntrack::Flow;

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

/// Counts the packets of this namespace that conntrack called INVALID. They include packets outside of their
/// connection's window (`nf_conntrack_in` in `net/netfilter/nf_conntrack_core.c`). Returns `None` if conntrack
/// tracks nothing yet, or the count cannot be read.
#[must_use]
pub fn invalid() -> Option<u64> {
    // Kernels without CONFIG_NF_CONNTRACK_PROCFS have no such file.
    match fs::read_to_string("/proc/net/stat/nf_conntrack") {
        Ok(text) => of_file(&text),
        Err(_) => of_program(&run(&["-S"]).ok()?),
    }
}

/// Reads a line of column names, then a line of hexadecimal numbers for each CPU.
fn of_file(text: &str) -> Option<u64> {
    let mut lines = text.lines();
    let mut names = lines.next()?.split_ascii_whitespace();
    let column = names.position(|name| name == "invalid")?;
    let of_cpu = |line: &str| {
        let number = line.split_ascii_whitespace().nth(column)?;
        u64::from_str_radix(number, 16).ok()
    };
    lines.map(of_cpu).sum()
}

/// Reads `name=number` words, one line for each CPU.
fn of_program(text: &str) -> Option<u64> {
    let words = text.split_ascii_whitespace();
    let numbers = words.filter_map(|word| word.strip_prefix("invalid="));
    let mut numbers = numbers.map(|number| number.parse::<u64>().ok()).peekable();
    numbers.peek()?;
    numbers.sum()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts are from Linux 6.18 and conntrack 1.4.7.
    #[test]
    fn invalid_packets_of_all_cpus_are_added() {
        let text = "entries  clashres found new invalid ignore\n\
                    00000002  00000000 00000000 00000000 0000000b 00000000\n\
                    00000002  00000000 00000000 00000000 00000010 00000000\n";
        assert_eq!(of_file(text), Some(27));
        assert_eq!(of_file("entries found\n00000002 00000000\n"), None);
        assert_eq!(of_file(""), None);
        let text = "cpu=0   \tfound=0 invalid=11 insert=0\ncpu=1   \tfound=3 invalid=16 insert=0\n";
        assert_eq!(of_program(text), Some(27));
        assert_eq!(of_program(""), None);
    }
}
