//! The program `ip`: lists that it prints, and `ip -batch`, one program that runs many commands.

use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use crate::host::child::{self, ChildError};
use crate::net::Family;

/// 100,000 routes take seconds.
const LIMIT: Duration = Duration::from_mins(1);
/// A list takes less.
const LIST_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Error)]
pub enum IpError {
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error("`ip {command}` failed: {words}")]
    Failed { command: String, words: String },
    #[error("`ip {command}` printed no list")]
    Unreadable { command: String },
}

impl IpError {
    /// Returns the fix, if the program is missing.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            IpError::Child(ChildError::NotFound(_)) => {
                Some("to install it: sudo apt-get install iproute2".to_owned())
            }
            _ => None,
        }
    }
}

/// Returns the list that `ip -json` prints.
pub(super) fn list(args: &[&str]) -> Result<Vec<Value>, IpError> {
    let command = || args.join(" ");
    let all = [&["-json"], args].concat();
    let output = child::read("ip", &all, b"", LIST_LIMIT)?;
    if !output.status.success() {
        return Err(IpError::Failed {
            command: command(),
            words: output.stderr,
        });
    }
    // Older versions print nothing for an empty list.
    if output.stdout.iter().all(u8::is_ascii_whitespace) {
        return Ok(Vec::new());
    }
    let listed: Result<Vec<Value>, _> = serde_json::from_slice(&output.stdout);
    listed.map_err(|_| IpError::Unreadable { command: command() })
}

/// A command that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedCommand {
    /// The family of `ip -4` or `ip -6`, or of the list that the command was made from.
    pub family: Option<Family>,
    pub command: String,
    /// The message of iproute2.
    pub why: String,
}

/// Runs commands in the calling thread's namespace, and returns those that failed. All others are carried out.
///
/// # Errors
/// If `ip` is missing or does not end.
pub fn run(options: &[&str], commands: &str) -> Result<Vec<RefusedCommand>, IpError> {
    let family = match options {
        ["-4", ..] => Some(Family::V4),
        ["-6", ..] => Some(Family::V6),
        _ => None,
    };
    let args = [options, &["-force", "-batch", "-"]].concat();
    let output = child::read("ip", &args, commands.as_bytes(), LIMIT)?;
    if output.status.success() {
        return Ok(Vec::new());
    }
    Ok(refused(family, commands, &output.stderr))
}

/// Stands for the commands after a refusal at which iproute2 stopped: it names no line.
pub const STOPPED: &str = "the rest of the commands";

/// Reads the messages of iproute2 about commands that failed.
fn refused(family: Option<Family>, commands: &str, said: &str) -> Vec<RefusedCommand> {
    let lines: Vec<&str> = commands.lines().collect();
    let (mut refused, mut why) = (Vec::new(), String::new());
    for line in said.lines() {
        match line.strip_prefix("Command failed -:") {
            Some(number) => {
                let number: Option<usize> = number.trim().parse().ok();
                let command = number.and_then(|number| lines.get(number.checked_sub(1)?));
                refused.push(RefusedCommand {
                    family,
                    command: command.copied().unwrap_or_default().to_owned(),
                    why: std::mem::take(&mut why),
                });
            }
            None => line.clone_into(&mut why),
        }
    }
    // iproute2 stops at a word that it cannot read: `Error: inet address is expected rather than "x".`
    if !why.is_empty() || refused.is_empty() {
        refused.push(RefusedCommand {
            family,
            command: STOPPED.to_owned(),
            why,
        });
    }
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages are from iproute2 6.1.
    #[test]
    fn a_word_at_which_the_program_stops_is_a_refusal() {
        let failed = "Cannot find device \"a\"\nCommand failed -:2\n";
        let stopped = "Error: inet address is expected rather than \"bogus\".\n";
        for (said, commands) in [
            (failed.to_owned(), &["two"][..]),
            (stopped.to_owned(), &[STOPPED]),
            (format!("{failed}{stopped}"), &["two", STOPPED]),
            (String::new(), &[STOPPED]),
        ] {
            let found = refused(None, "one\ntwo\nthree\n", &said);
            let found: Vec<&str> = found.iter().map(|one| one.command.as_str()).collect();
            assert_eq!(found, commands, "{said}");
        }
    }
}
