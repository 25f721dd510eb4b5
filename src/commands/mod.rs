//! The subcommands: each reads what it needs from the edge, asks the core, and reports.
//!
//! Reports go to standard output; warnings, notes and errors to standard error.

mod apply;
mod check;
mod persist;
mod remove;
mod render;
mod sysctl;

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context as _, Result};
use thiserror::Error;

use crate::cli::Command;
use crate::host::NotRoot;
use crate::host::iptables::IptablesError;
use crate::host::spec_source::{self, Source, SourceError};
use crate::host::transaction::TransactionError;
use crate::spec::{self, ForwardSet, page};

/// How a command ended when it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or in sync.
    Done,
    /// Something differs, or would change.
    Differs,
}

impl Exit {
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Differs => 1,
        }
    }
}

/// An error of the command line, a spec or a host that refused: nothing was changed.
const ERROR: u8 = 2;
/// The host may not be as it was.
const UNCERTAIN: u8 = 3;

/// Where a command writes.
#[expect(missing_debug_implementations, reason = "it holds two writers")]
pub struct Console {
    pub out: Box<dyn Write>,
    pub err: Box<dyn Write>,
}

impl Console {
    fn warn(&mut self, text: impl std::fmt::Display) -> io::Result<()> {
        writeln!(self.err, "warning: {text}")
    }

    fn note(&mut self, text: impl std::fmt::Display) -> io::Result<()> {
        writeln!(self.err, "note: {text}")
    }

    /// Prints an error with its hint, and gives the exit code it deserves. A reader of our output
    /// who has gone is no error.
    pub fn fail(&mut self, error: &anyhow::Error) -> u8 {
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        {
            return 0;
        }
        // Nobody is left to tell when standard error is closed.
        let _ = writeln!(self.err, "error: {error:#}");
        if let Some(hint) = hint(error) {
            let _ = writeln!(self.err, "hint: {hint}");
        }
        match error.downcast_ref::<TransactionError>() {
            Some(TransactionError::Uncertain { .. }) => UNCERTAIN,
            _ => ERROR,
        }
    }
}

fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        cause
            .downcast_ref::<IptablesError>()
            .and_then(IptablesError::hint)
            .or_else(|| {
                cause
                    .downcast_ref::<SourceError>()
                    .and_then(SourceError::hint)
            })
            .or_else(|| cause.downcast_ref::<NotRoot>().map(NotRoot::hint))
            .or_else(|| cause.downcast_ref::<Refusal>().and_then(Refusal::hint))
    })
}

/// Runs one command.
///
/// # Errors
/// Whatever kept it from being done; [`Console::fail`] prints it.
pub fn run(command: Command, console: &mut Console) -> Result<Exit> {
    let exit = match command {
        Command::Check(args) => check::run(&args, console),
        Command::Render(args) => render::run(&args, console),
        Command::Apply(args) => apply::run(&args, console),
        Command::Remove(args) => remove::run(&args, console),
        Command::Sysctl { action } => sysctl::run(&action, console),
        Command::Persist(args) => persist::run(&args, console),
    }?;
    console.out.flush()?;
    Ok(exit)
}

/// What a command will not do, and why.
#[derive(Debug, Error)]
pub enum Refusal {
    #[error("`{file}` has {count} {}", if *.count == 1 { "problem" } else { "problems" })]
    Spec { file: String, count: usize },
    #[error("`{file}` holds a rule that is not nvactl's, which would be lost: {line}")]
    ForeignRules { file: String, line: String },
    #[error("`{file}` holds something else than iptables-save text, which would be lost: {reason}")]
    ForeignText { file: String, reason: String },
    #[error("`{file}` cannot be edited: {reason}")]
    Uneditable { file: String, reason: String },
    #[error("a foreign rule leads to one of nvactl's chains, which therefore cannot go: {line}")]
    StillReferenced { line: String, removal: String },
    #[error("the live rules are not what `{spec}` says:\n{changes}")]
    NotInSync { spec: String, changes: String },
}

impl Refusal {
    fn hint(&self) -> Option<String> {
        match self {
            Refusal::Spec { .. } => None,
            Refusal::ForeignRules { .. } | Refusal::ForeignText { .. } => Some(
                "`nvactl persist --own` keeps them; `--force` replaces the whole file".to_owned(),
            ),
            Refusal::Uneditable { file, .. } => Some(format!(
                "mend it, or write the live rules whole: sudo nvactl persist --output {file}"
            )),
            Refusal::StillReferenced { removal, .. } => Some(removal.clone()),
            Refusal::NotInSync { spec, .. } => Some(format!("sudo nvactl apply {spec}")),
        }
    }
}

/// Reads and checks a spec; its problems are shown before the error is returned.
fn load_spec(named: Option<&Path>, console: &mut Console) -> Result<(Source, ForwardSet)> {
    let source = spec_source::read(named)?;
    match spec::read(&source.text) {
        Ok(set) => Ok((source, set)),
        Err(problems) => {
            // Escapes are for the stream to keep or strip.
            let pages = page::pages(&source.name, &source.text, &problems, &page::renderer(true));
            write!(console.err, "{pages}").context("cannot show the problems")?;
            Err(Refusal::Spec {
                file: source.name,
                count: problems.len(),
            }
            .into())
        }
    }
}

/// `1 rule`, `2 rules`.
fn counted(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}
