//! The error of the crate: every reason why a command ends without its result. Each room keeps its own
//! error types; this one collects them, with their hints and exit codes, and prints them.
//!
//! It lives in the last room, which may import every other. `lib.rs` passes it on as `nvactl::Error`.

use std::io;

use thiserror::Error;

use super::console::Console;
use super::exit::{ERROR, UNCERTAIN};
use super::failure::CommandRefusal;
use super::trace::TraceError;
use crate::host::NotRoot;
use crate::host::file::FileError;
use crate::host::iptables::IptablesError;
use crate::host::probe::ResolveError;
use crate::host::rehearsal::RefusedLine;
use crate::host::rules_text::RulesTextError;
use crate::host::spec_source::SpecSourceError;
use crate::host::survey::SurveyError;
use crate::host::sysctl::SysctlError;
use crate::host::user_namespace::UserNamespaceError;
use crate::kubernetes::KubeError;
use crate::net::words::with_causes;
use crate::netfilter::text::parse::ParseError;
use crate::netfilter::text::typed::TypedError;
use crate::ops;
use crate::ops::state::StateError;
use crate::proof::ProofError;
use crate::twin::TwinError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, Error)]
pub enum Error {
    #[error(transparent)]
    Refusal(#[from] CommandRefusal),
    #[error(transparent)]
    Operation(#[from] Box<ops::Error>),
    /// An operation that had warnings before it failed.
    #[error(transparent)]
    Failed(#[from] ops::Failed),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    NotRoot(#[from] NotRoot),
    #[error(transparent)]
    Source(#[from] SpecSourceError),
    #[error(transparent)]
    RulesText(#[from] RulesTextError),
    /// No spec was named, and there is none at the default places.
    #[error("{none}")]
    NoSpec { none: String, command: &'static str },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Iptables(#[from] IptablesError),
    #[error(transparent)]
    Survey(#[from] SurveyError),
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    #[error(transparent)]
    RefusedLine(#[from] RefusedLine),
    #[error(transparent)]
    Rules(#[from] ParseError),
    #[error(transparent)]
    Typed(#[from] TypedError),
    #[error("cannot read the rules in `{file}`")]
    RulesFile { file: String, source: Box<Error> },
    #[error("cannot read the objects in `{file}`")]
    Objects { file: String, source: KubeError },
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error("cannot resolve `{name}`")]
    Resolve { name: String, source: ResolveError },
    #[error(transparent)]
    UserNamespace(#[from] UserNamespaceError),
    #[error("no connection can be tried in a copy of the machine")]
    Twin(#[from] TwinError),
    #[error("no thread could be started")]
    Thread(#[source] io::Error),
    #[error("cannot print the report as JSON")]
    Json(#[from] serde_json::Error),
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

impl From<ops::Error> for Error {
    fn from(error: ops::Error) -> Self {
        Error::Operation(Box::new(error))
    }
}

impl From<ProofError> for Error {
    fn from(error: ProofError) -> Self {
        match error {
            ProofError::Twin(error) => Error::Twin(error),
            ProofError::Thread(error) => Error::Thread(error),
        }
    }
}

impl Error {
    /// Returns what the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Refusal(error) => error.hint(),
            Error::Operation(error) => error.hint(),
            Error::Failed(failed) => failed.error.hint(),
            Error::State(error) => error.hint(),
            Error::NotRoot(error) => Some(error.hint()),
            Error::Source(error) => error.hint(),
            Error::NoSpec { command, .. } => {
                Some(format!("name it: nvactl {command} my-forwards.yaml"))
            }
            Error::File(error) => error.hint(),
            Error::Iptables(error) => error.hint(),
            Error::Survey(error) => Some(error.hint()),
            Error::Sysctl(error) => error.hint(),
            Error::RulesFile { source, .. } => source.hint(),
            Error::Objects { source, .. } => Some(source.hint().to_owned()),
            Error::UserNamespace(error) => Some(error.hint()),
            Error::Trace(error) => Some(error.hint()),
            Error::Twin(error) => error.hint(),
            Error::RulesText(_) => {
                Some("for the rules of this machine: sudo nvactl import live".to_owned())
            }
            Error::RefusedLine(_)
            | Error::Thread(_)
            | Error::Rules(_)
            | Error::Typed(_)
            | Error::Resolve { .. }
            | Error::Json(_)
            | Error::Output(_) => None,
        }
    }

    /// Adds the command's name to an error whose hint shows it.
    pub(super) fn of_command(self, command: &'static str) -> Self {
        match self {
            Error::Source(none @ SpecSourceError::None) => Error::NoSpec {
                none: none.to_string(),
                command,
            },
            other => other,
        }
    }

    /// Returns the exit code of a command that fails with it.
    pub(super) fn exit_code(&self) -> u8 {
        let uncertain = match self {
            Error::Operation(error) => error.is_uncertain(),
            Error::Failed(failed) => failed.error.is_uncertain(),
            Error::Sysctl(error) => matches!(error, SysctlError::Part { .. }),
            _ => false,
        };
        if uncertain { UNCERTAIN } else { ERROR }
    }
}

/// Prints an error with its hint, and returns the exit code.
pub fn fail(error: &Error, console: &mut Console) -> u8 {
    if let Error::Failed(failed) = error {
        // The announced change did not happen.
        for warning in failed.remarks.warnings() {
            console.warn(warning);
        }
    }
    console.error(with_causes(error));
    if let Some(hint) = error.hint() {
        console.tell(format_args!("hint: {hint}\n"));
    }
    error.exit_code()
}
