//! `ip -batch`: many commands by one program.

use std::time::Duration;

use thiserror::Error;

use crate::host::child::{self, ChildError};
use crate::net::Family;

/// 100,000 routes take seconds.
const LIMIT: Duration = Duration::from_mins(1);

#[derive(Debug, Error)]
pub enum MachineError {
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error("`ip {command}` failed: {words}")]
    Failed { command: String, words: String },
    #[error("`ip {command}` printed no list")]
    Unreadable { command: String },
}

/// A command that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The family of `ip -4` or `ip -6`, or of what was read from it.
    pub family: Option<Family>,
    pub command: String,
    /// iproute2's words.
    pub why: String,
}

/// Runs commands in the calling thread's namespace, and returns those that the kernel refused: the
/// others are carried out all the same.
///
/// # Errors
/// When `ip` is missing or does not end.
pub fn run(options: &[&str], commands: &str) -> Result<Vec<Refused>, MachineError> {
    let family = match options {
        ["-4", ..] => Some(Family::V4),
        ["-6", ..] => Some(Family::V6),
        _ => None,
    };
    let args = [options, &["-force", "-batch", "-"]].concat();
    let output = child::run("ip", &args, commands.as_bytes(), LIMIT)?;
    if output.status.success() {
        return Ok(Vec::new());
    }
    let lines: Vec<&str> = commands.lines().collect();
    let (mut refused, mut why) = (Vec::new(), String::new());
    for line in output.stderr.lines() {
        match line.strip_prefix("Command failed -:") {
            Some(number) => {
                let number: Option<usize> = number.trim().parse().ok();
                let command = number.and_then(|number| lines.get(number.checked_sub(1)?));
                refused.push(Refused {
                    family,
                    command: command.copied().unwrap_or_default().to_owned(),
                    why: std::mem::take(&mut why),
                });
            }
            None => line.clone_into(&mut why),
        }
    }
    Ok(refused)
}
