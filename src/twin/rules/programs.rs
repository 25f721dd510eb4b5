//! The programs that list and load a packet filter, in the calling thread's namespace.

use std::time::Duration;

use thiserror::Error;

use super::refused::LoadRefusal;
use crate::host::child::{self, ChildError, Output, Running};
use crate::host::complaint::line_named;
use crate::net::Family;
use crate::netfilter::backend::Backend;

/// 100,000 forwards load in a minute or two.
pub const LIMIT: Duration = Duration::from_mins(5);

#[derive(Debug, Error)]
pub enum FilterError {
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error("`{program}` may not read or load rules here: {words}")]
    NotPermitted { program: String, words: String },
    #[error("`{program}` failed: {words}")]
    Failed { program: String, words: String },
}

impl FilterError {
    /// Returns the program that is not installed.
    #[must_use]
    pub fn missing(&self) -> Option<&str> {
        match self {
            FilterError::Child(ChildError::NotFound(program)) => Some(program),
            _ => None,
        }
    }

    /// Returns the error of a program that has failed.
    pub(super) fn failed(program: &str, words: &str) -> Self {
        let (program, words) = (program.to_owned(), words.to_owned());
        if is_not_permitted(&words) {
            FilterError::NotPermitted { program, words }
        } else {
            FilterError::Failed { program, words }
        }
    }
}

fn is_not_permitted(words: &str) -> bool {
    [
        "Permission denied",
        "Operation not permitted",
        "must be root",
    ]
    .iter()
    .any(|said| words.contains(said))
}

/// Starts a program; `None` if it is not installed.
pub fn begin(program: &str, args: &[&str]) -> Result<Option<Running<Vec<u8>>>, FilterError> {
    match child::begin_read(program, args, b"", LIMIT) {
        Ok(running) => Ok(Some(running)),
        Err(ChildError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Starts `nft list …`; `None` without nft.
pub fn begin_nft(args: &[&str]) -> Result<Option<Running<Vec<u8>>>, FilterError> {
    begin("nft", args)
}

/// Waits for a listing of nft's.
pub fn listed(running: Running<Vec<u8>>) -> Result<String, FilterError> {
    let output = running.finish()?;
    if !output.status.success() {
        return Err(FilterError::failed("nft", &output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs iptables.
pub fn iptables(backend: Backend, family: Family, args: &[&str]) -> Result<Output, FilterError> {
    unlocked(&backend.program(family, "iptables"), args, b"")
}

/// The exit status of env(1) if it does not find the program.
const NOT_FOUND: i32 = 127;

/// Runs a program of iptables without the lock of the machine's rules, which says nothing about the twin's.
fn unlocked(program: &str, args: &[&str], input: &[u8]) -> Result<Output, FilterError> {
    let args = [&["XTABLES_LOCKFILE=/dev/null", program, "-w", "5"], args].concat();
    let output = child::read("env", &args, input, LIMIT)?;
    if output.status.code() == Some(NOT_FOUND) {
        return Err(ChildError::NotFound(program.to_owned()).into());
    }
    Ok(output)
}

/// Loads a text with iptables-restore.
pub fn restore(
    backend: Backend,
    family: Family,
    how: &[&str],
    text: &str,
) -> Result<Result<(), LoadRefusal>, FilterError> {
    let program = backend.program(family, "iptables-restore");
    let output = unlocked(&program, how, text.as_bytes())?;
    loaded(&program, &output, |words| {
        line_named(words).and_then(|line| line.checked_sub(1))
    })
}

/// Loads a text with nft.
pub fn load_nft(text: &str) -> Result<Result<(), LoadRefusal>, FilterError> {
    let output = child::read("nft", &["-f", "-"], text.as_bytes(), LIMIT)?;
    loaded("nft", &output, |words| {
        let mut parts = words.split(':').skip(1);
        let line: usize = parts.next()?.trim().parse().ok()?;
        line.checked_sub(1)
    })
}

/// Loads ipsets.
pub fn load_sets(text: &str) -> Result<Result<(), LoadRefusal>, FilterError> {
    let output = child::read("ipset", &["restore", "-exist"], text.as_bytes(), LIMIT)?;
    loaded("ipset", &output, |words| {
        line_named(words).and_then(|line| line.checked_sub(1))
    })
}

/// Reads a refusal, with its line counted from 0. A missing right is an error, since no line causes it.
fn loaded(
    program: &str,
    output: &Output,
    line: impl Fn(&str) -> Option<usize>,
) -> Result<Result<(), LoadRefusal>, FilterError> {
    if output.status.success() {
        return Ok(Ok(()));
    }
    if is_not_permitted(&output.stderr) {
        return Err(FilterError::failed(program, &output.stderr));
    }
    Ok(Err(LoadRefusal {
        at: line(&output.stderr),
        words: first_line(&output.stderr),
    }))
}

/// Returns the line of a program's output that says what is wrong.
fn first_line(words: &str) -> String {
    let mut lines = words.lines().filter(|line| !line.starts_with("# Warning"));
    let line = lines.next().unwrap_or("it said nothing");
    // nft prints `/dev/stdin:1:2-3: Error: …`.
    let line = line.split_once("Error: ").map_or(line, |(_, said)| said);
    let too_long = words.lines().find(|line| line.contains("Message too long"));
    too_long.unwrap_or(line).to_owned()
}
