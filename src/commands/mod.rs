//! The subcommands: each reads what it needs from the edge, asks the core, and reports.
//!
//! Reports go to standard output; warnings, notes and errors to standard error.

mod apply;
mod boot;
mod check;
mod confirm;
mod console;
mod diff;
mod doctor;
mod explain;
mod history;
mod markdown;
mod persist;
mod probe;
mod remove;
mod render;
mod status;
mod sysctl;
mod table;

use std::path::Path;

use anyhow::{Context as _, Result};
pub use console::Console;
use table::table;
use thiserror::Error;

use crate::cli::{Cli, Command};
use crate::forwards::{Forward, ForwardSet};
use crate::host::conntrack::ConntrackError;
use crate::host::file::FileError;
use crate::host::iptables::{Iptables, IptablesError};
use crate::host::spec_source::{self, Source, SourceError};
use crate::host::survey::SurveyError;
use crate::host::sysctl::SysctlError;
use crate::host::{self, NotRoot};
use crate::net::Family;
use crate::net::words::counted;
use crate::netfilter::backend::Backend;
use crate::netfilter::token::shell_word;
use crate::ops::history::{LastLoaded, last_loaded, moment};
use crate::ops::records::{KeptFile, KeptSpec};
use crate::ops::state::{State, StateError};
use crate::ops::{self, Machine};
use crate::yaml::places::Places;
use crate::yaml::{self, Problem, Reading, Severity, page};

/// How a command ended when it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or in sync.
    Done,
    /// Something differs, or would change.
    Differs,
    /// The rules are as they should be, but something else is not.
    Uncertain,
}

impl Exit {
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Differs => 1,
            Exit::Uncertain => UNCERTAIN,
        }
    }
}

/// An error of the command line, a spec or a host that refused: nothing was changed.
const ERROR: u8 = 2;
/// The host may not be as it was.
const UNCERTAIN: u8 = 3;

/// Prints an error with its hint, and gives the exit code it deserves.
pub fn fail(error: &anyhow::Error, console: &mut Console) -> u8 {
    let operation = error
        .downcast_ref::<ops::Failed>()
        .map(|failed| {
            // The announced change did not happen.
            for warning in failed.remarks.warnings() {
                console.warn(warning);
            }
            failed.error.as_ref()
        })
        .or_else(|| error.downcast_ref::<ops::Error>());
    console.error(format_args!("{error:#}"));
    let hint = operation.map_or_else(|| hint(error), ops::Error::hint);
    if let Some(hint) = hint {
        console.tell(format_args!("hint: {hint}\n"));
    }
    let uncertain = operation.is_some_and(ops::Error::is_uncertain);
    let part = matches!(error.downcast_ref(), Some(SysctlError::Part { .. }));
    if uncertain || part { UNCERTAIN } else { ERROR }
}

/// Tells a user whose command line made no sense what the shell's `>` did before nvactl began.
pub fn warn_of_emptied_output(console: &mut Console) {
    if host::stdout_file_length() == Some(0) {
        console.warn(
            "standard output is a file, which the shell emptied before nvactl began: \
             it is empty now, and loading it would let everything through. \
             `-o FILE` keeps the old file until the new one is sound",
        );
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
            .or_else(|| {
                cause
                    .downcast_ref::<ConntrackError>()
                    .and_then(ConntrackError::hint)
            })
            .or_else(|| cause.downcast_ref::<SurveyError>().map(SurveyError::hint))
            .or_else(|| cause.downcast_ref::<FileError>().and_then(FileError::hint))
            .or_else(|| {
                cause
                    .downcast_ref::<SysctlError>()
                    .and_then(SysctlError::hint)
            })
            .or_else(|| {
                cause
                    .downcast_ref::<StateError>()
                    .and_then(StateError::hint)
            })
            .or_else(|| cause.downcast_ref::<Refusal>().and_then(Refusal::hint))
    })
}

/// What the options for all commands say about the host.
#[derive(Debug, Clone, Copy)]
struct Host<'a> {
    state_dir: Option<&'a Path>,
    backend: Backend,
}

impl Host<'_> {
    fn state(&self) -> Result<State, StateError> {
        State::open(self.state_dir)
    }

    /// The state, for a command that only looks: it makes no folder.
    fn known_state(&self) -> Result<Option<State>, StateError> {
        State::look(self.state_dir)
    }

    /// The command line that does something with the same spec, by the same backend.
    fn command(&self, what: &str, source: &Source) -> String {
        let argument = source.argument();
        let mut command = format!("sudo nvactl {what} {}", shell_word(argument));
        if self.backend != Backend::Auto {
            command.push_str(&format!(" --backend {}", self.backend));
        }
        command.push_str(&self.folder());
        if argument == "-" {
            command.push_str(" < YOUR-SPEC");
        }
        command
    }

    /// The option that names the state folder, for any command; empty where it was not given.
    fn folder(&self) -> String {
        self.state_dir.map_or(String::new(), |folder| {
            format!(" --state-dir {}", shell_word(&folder.to_string_lossy()))
        })
    }

    /// Returns the rules that were loaded last, for root, who alone may look into the state folder.
    fn last_loaded(&self) -> Result<Option<LastLoaded>, StateError> {
        if host::require_root("status").is_err() {
            return Ok(None);
        }
        let state = self.known_state()?;
        state.as_ref().map_or(Ok(None), last_loaded)
    }

    /// The machine, for a command that changes it.
    fn machine(&self, lock_wait_secs: u64) -> Result<Machine, StateError> {
        Ok(self.machine_with(self.state()?, lock_wait_secs))
    }

    /// The machine, for a command that may be a dry run: then records of an earlier kernel stay where
    /// they are.
    fn machine_unless_dry(
        &self,
        dry_run: bool,
        lock_wait_secs: u64,
    ) -> Result<Machine, StateError> {
        match self.known_state()? {
            Some(state) if dry_run => Ok(self.machine_with(state, lock_wait_secs)),
            _ => self.machine(lock_wait_secs),
        }
    }

    fn machine_with(&self, state: State, lock_wait_secs: u64) -> Machine {
        Machine {
            state,
            iptables: self.iptables(lock_wait_secs),
            lock_wait_secs,
        }
    }

    fn iptables(&self, lock_wait: u64) -> Iptables {
        Iptables {
            backend: self.backend,
            lock_wait,
        }
    }
}

/// How long commands that only read wait for the xtables lock, in seconds.
const READ_WAIT: u64 = 10;

/// Runs one command.
///
/// # Errors
/// Whatever kept it from being done; [`fail`] prints it.
pub fn run(cli: Cli, console: &mut Console) -> Result<Exit> {
    let Cli {
        state_dir,
        backend,
        command,
        ..
    } = cli;
    let host = Host {
        state_dir: state_dir.as_deref(),
        backend,
    };
    let reports = matches!(
        command,
        Command::Check(_)
            | Command::Render(_)
            | Command::Diff(_)
            | Command::Explain(_)
            | Command::History
            | Command::Status(_)
            | Command::Probe(_)
            | Command::Doctor(_)
    );
    let exit = match command {
        Command::Check(args) => check::run(&args, console),
        Command::Render(args) => render::run(&args, console),
        Command::Apply(args) => apply::run(&args, host, console),
        Command::Diff(args) => diff::run(&args, host, console),
        Command::Explain(args) => explain::run(&args, console),
        Command::Remove(args) => remove::run(&args, host, console),
        Command::Confirm(args) => confirm::run(&args, host, console),
        Command::Watchdog { id } => confirm::watch(&host.state()?, &id),
        Command::History => {
            host::require_root("history")?;
            history::list(host.known_state()?.as_ref(), console)
        }
        Command::Rollback(args) => history::run(&args, host, console),
        Command::Sysctl { action } => sysctl::run(&action, host, console),
        Command::Status(args) => status::run(&args, host, console),
        Command::Doctor(args) => doctor::run(&args, host, console),
        Command::Probe(args) => probe::run(&args, console),
        Command::Boot { action } => boot::run(&action, host, console),
        Command::Persist(args) => persist::run(&args, host, console),
    }?;
    match console.finish() {
        Err(error) if reports => Err(error).context("cannot write to standard output"),
        Err(error) => {
            // What the command was for has been done; its exit code says so.
            console.warn(format_args!("the report could not be written: {error}"));
            Ok(exit)
        }
        Ok(()) => Ok(exit),
    }
}

/// What a command will not do, and why.
#[derive(Debug, Error)]
pub enum Refusal {
    #[error("`{file}` has {}", counted(*.count, "error"))]
    Spec { file: String, count: usize },
    #[error("`{file}` holds a rule that is not nvactl's, which would be lost: {line}")]
    ForeignRules { file: String, line: String },
    #[error("`{file}` holds something else than iptables-save text, which would be lost: {reason}")]
    ForeignText { file: String, reason: String },
    #[error("`{file}` has no forward `{name}`")]
    NoSuchForward {
        file: String,
        name: String,
        near: Option<String>,
    },
    #[error("the plan has {count} lines, numbered from 1")]
    NoSuchRule { count: usize },
}

impl Refusal {
    fn hint(&self) -> Option<String> {
        match self {
            Refusal::Spec { .. } | Refusal::NoSuchRule { .. } => None,
            Refusal::ForeignRules { .. } | Refusal::ForeignText { .. } => {
                Some("write to another file; `--force` replaces this one".to_owned())
            }
            Refusal::NoSuchForward { near, .. } => {
                near.as_ref().map(|name| format!("did you mean `{name}`?"))
            }
        }
    }
}

/// Reads and checks a spec; its errors and warnings are shown.
fn load_spec(named: Option<&Path>, console: &mut Console) -> Result<(Source, ForwardSet)> {
    let source = spec_source::read(named)?;
    let set = spec_of(&source, source.examine(), console)?;
    Ok((source, set))
}

/// Reads and checks the spec named, or the one whose plan was loaded last, or one that is found.
fn load_applied_spec(
    named: Option<&Path>,
    on: Host<'_>,
    console: &mut Console,
) -> Result<(Source, ForwardSet)> {
    if spec_source::named(named).is_none()
        && let Some(last) = on.last_loaded()?
        && let since = match &last {
            LastLoaded::Change(_) => "as it was applied last".to_owned(),
            LastLoaded::Saved(saved) => format!(
                "as it was saved at {}: nvactl.service has loaded that, and no later change",
                moment(saved.time)
            ),
        }
        && let Some(kept) = last.spec()
    {
        let files = kept.files.into_iter().map(|file| (file.name, file.text));
        let source = Source::kept(kept.name, files);
        console.note(format_args!("the spec is {} {since}", source.name));
        let set = spec_of(&source, source.examine(), console)?;
        return Ok((source, set));
    }
    load_spec(named, console)
}

/// A spec as the history keeps it.
fn kept(source: &Source) -> KeptSpec {
    let texts = source.texts();
    let files: Vec<KeptFile> = texts
        .map(|(name, text)| KeptFile {
            name: name.to_owned(),
            text: String::from_utf8_lossy(text).into_owned(),
        })
        .collect();
    KeptSpec {
        name: source.absolute(),
        digest: source.digest(),
        files,
    }
}

/// Returns the forwards of a spec; its errors and warnings are shown.
fn spec_of(source: &Source, reading: Reading, console: &mut Console) -> Result<ForwardSet> {
    let errors = reading.problems.iter();
    let errors = errors.filter(|problem| problem.severity() == Severity::Error);
    let refusal = Refusal::Spec {
        file: source.name.clone(),
        count: errors.count(),
    };
    tell_problems(source, reading.problems, console);
    reading.set.ok_or_else(|| refusal.into())
}

/// Shows the errors and warnings of a spec.
fn tell_problems(source: &Source, mut problems: Vec<Problem>, console: &mut Console) {
    problems.retain(|problem| problem.severity() != Severity::Note);
    if !problems.is_empty() {
        show_problems(&source.places(), &problems, console);
    }
}

fn show_problems(places: &Places<'_>, problems: &[Problem], console: &mut Console) {
    // Escapes are for the stream to keep or strip.
    let renderer = page::renderer(true);
    console.tell_pages(&page::pages(places, problems, &renderer));
}

/// What stands before the table of an IPv6 rule; the others are iptables' by themselves.
fn prefix(family: Family) -> &'static str {
    match family {
        Family::V4 => "",
        Family::V6 => "ip6tables ",
    }
}

/// The forwards of a name, one for each protocol, or a refusal with the nearest name.
fn find_forwards<'s>(set: &'s ForwardSet, name: &str, file: &str) -> Result<Vec<&'s Forward>> {
    let of_name = |forward: &&Forward| forward.name.as_str() == name;
    let found: Vec<&Forward> = set.forwards.iter().filter(of_name).collect();
    let found = (!found.is_empty()).then_some(found);
    found.ok_or_else(|| {
        let names: Vec<&str> = set
            .forwards
            .iter()
            .map(|forward| forward.name.as_str())
            .collect();
        let refusal = Refusal::NoSuchForward {
            file: file.to_owned(),
            name: name.to_owned(),
            near: yaml::nearest(name, &names).map(str::to_owned),
        };
        refusal.into()
    })
}

/// Says that IPv6 is left out of a report.
fn warn_of_unread_v6(error: IptablesError, console: &mut Console) {
    let error = anyhow::Error::from(error);
    console.warn(format_args!(
        "IPv6 rules cannot be read, so nothing is said of them: {error:#}"
    ));
}
