//! The kernel's IPv4 rules, read by iptables-save and written by iptables-restore.
//!
//! The plain names on PATH decide on the backend, as they do for the user's own commands.

use std::time::Duration;

use thiserror::Error;

use super::child::{self, ChildError, Output};
use crate::parse::{self, ParseError};
use crate::ruleset::Ruleset;

/// How long to wait for another program that holds the xtables lock, in seconds. Without `-w`
/// iptables 1.8.9 legacy waits for ever (measured).
const LOCK_WAIT: &str = "10";

/// 100,000 forwards load in a minute or two where one chain holds them.
const LIMIT: Duration = Duration::from_mins(5);

#[derive(Debug, Error)]
pub enum IptablesError {
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error("`{program}` failed: {}", said(.words, *.code))]
    Failed {
        program: String,
        code: Option<i32>,
        words: String,
    },
    #[error("what iptables-save printed cannot be read: {0}")]
    Unreadable(#[from] ParseError),
}

impl IptablesError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            IptablesError::Child(ChildError::NotFound(_)) => {
                Some("sudo apt-get install iptables".to_owned())
            }
            IptablesError::Failed { words, .. } if words.contains("Stopped waiting") => Some(
                "another program holds the xtables lock: `fuser -v /run/xtables.lock` shows which"
                    .to_owned(),
            ),
            IptablesError::Failed { words, .. } if words.contains("Message too long") => Some(
                "iptables-nft in a user namespace takes about 200 forwards at once: run as real root"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

fn said(words: &str, code: Option<i32>) -> String {
    match (words, code) {
        ("", Some(code)) => format!("it ended with {code} and said nothing"),
        ("", None) => "it was killed".to_owned(),
        (words, _) => words.to_owned(),
    }
}

/// The live rules.
#[derive(Debug)]
pub struct Live {
    /// As iptables-save printed them.
    pub text: String,
    pub ruleset: Ruleset,
    /// What it said beside: nft warns of legacy tables.
    pub warning: String,
}

/// Reads the live rules of every table.
///
/// # Errors
/// Without iptables, without the right to read them, or when its output makes no sense.
pub fn read() -> Result<Live, IptablesError> {
    let output = run("iptables-save", &[], b"")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(Live {
        ruleset: parse::parse(&text)?,
        text,
        warning: output.stderr,
    })
}

/// Loads a script beside what is there; only what it names changes. Atomic for each table, not
/// across tables (iptables-restore(8); measured).
///
/// # Errors
/// When iptables-restore refuses it; tables that it had committed before stay changed.
pub fn load(script: &str) -> Result<(), IptablesError> {
    let args = ["--noflush", "-w", LOCK_WAIT];
    run("iptables-restore", &args, script.as_bytes()).map(drop)
}

/// Has iptables-restore read a whole file's text, without loading it.
///
/// # Errors
/// When it would not load.
pub fn test(text: &str) -> Result<(), IptablesError> {
    let args = ["--test", "-w", LOCK_WAIT];
    run("iptables-restore", &args, text.as_bytes()).map(drop)
}

fn run(program: &str, args: &[&str], stdin: &[u8]) -> Result<Output, IptablesError> {
    let output = child::run(program, args, stdin, LIMIT)?;
    if output.status.success() {
        return Ok(output);
    }
    Err(IptablesError::Failed {
        program: [&[program], args].concat().join(" "),
        code: output.status.code(),
        words: output.stderr,
    })
}
