//! Reports a failure: the error, its hint and the exit code.

use thiserror::Error;

use super::console::Console;
use super::exit::{ERROR, UNCERTAIN};
use crate::host;
use crate::host::NotRoot;
use crate::host::conntrack::ConntrackError;
use crate::host::file::FileError;
use crate::host::iptables::IptablesError;
use crate::host::spec_source::SourceError;
use crate::host::survey::SurveyError;
use crate::host::sysctl::SysctlError;
use crate::net::words::counted;
use crate::ops;
use crate::ops::state::StateError;

/// Prints an error with its hint, and returns the exit code.
pub fn fail(error: &anyhow::Error, console: &mut Console) -> u8 {
    let operation = error
        .downcast_ref::<ops::Failed>()
        .map(|failed| {
            // Only the warnings: the lines announce a change that was not made.
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

/// Warns after a usage error that the shell's `>` has emptied the output file.
pub fn warn_of_emptied_output(console: &mut Console) {
    if host::stdout_file_length() == Some(0) {
        console.warn(
            "standard output is a file, and the shell emptied the file before nvactl started: \
             do not load it, since an empty file lets everything through. \
             `-o FILE` instead of `>` keeps the old file until the new one is complete",
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

/// An action that a command refuses, with the reason.
#[derive(Debug, Error)]
pub enum Refusal {
    #[error("`{file}` has {}", counted(*.count, "error"))]
    Spec { file: String, count: usize },
    #[error("`{file}` was not replaced, because a rule that is not nvactl's would be lost: {line}")]
    ForeignRules { file: String, line: String },
    #[error("`{file}` was not replaced, because it is not iptables-save text: {reason}")]
    ForeignText { file: String, reason: String },
    #[error("`{file}` has no forward `{name}`")]
    NoSuchForward {
        file: String,
        name: String,
        near: Option<String>,
    },
    #[error("the plan has no such rule; its rules are numbered 1 to {count}")]
    NoSuchRule { count: usize },
}

impl Refusal {
    fn hint(&self) -> Option<String> {
        match self {
            Refusal::Spec { .. } | Refusal::NoSuchRule { .. } => None,
            Refusal::ForeignRules { .. } | Refusal::ForeignText { .. } => {
                Some("write to another file, or add --force to replace this one".to_owned())
            }
            Refusal::NoSuchForward { near, .. } => {
                near.as_ref().map(|name| format!("did you mean `{name}`?"))
            }
        }
    }
}
