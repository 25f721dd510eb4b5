//! What a command refuses, and the warning to a user whose command line was invalid.

use thiserror::Error;

use super::console::Console;
use crate::host;
use crate::net::words::counted;

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
    pub(super) fn hint(&self) -> Option<String> {
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
