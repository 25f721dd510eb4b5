//! Actions that a command refuses, and the warning to a user whose command line was invalid.

use std::path::PathBuf;

use thiserror::Error;

use super::console::Console;
use crate::host;
use crate::kubernetes::KubeName;
use crate::net::Family;
use crate::net::words::{counted, quoted};
use crate::netfilter::token::shell_word;

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

/// An action that a command refuses, with the reason.
#[derive(Debug, Error)]
pub enum CommandRefusal {
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
    #[error("`{file}` has no Service `{name}`")]
    NoSuchService {
        file: String,
        name: KubeName,
        near: Vec<KubeName>,
    },
    #[error("`{file}` has JSON, and no rules of iptables")]
    JsonForRules { file: String, named: PathBuf },
    #[error("{} no tests", have(.files))]
    NoTests {
        files: Vec<String>,
        /// The command that prints some.
        suggest: String,
    },
    #[error("the spec and the objects of Kubernetes cannot both come from standard input")]
    TwoInputs,
    #[error("the spec and --against cannot both be standard input")]
    BothStdin,
    #[error("standard input is empty: the command before the pipe printed nothing")]
    EmptyStdin,
    #[error("the text has {named} rules, and --family asks for {family}")]
    OtherFamily { named: Family, family: Family },
    #[error("`{name}` is disabled in the spec (enabled: false)")]
    Disabled { name: String },
    #[error("the plan has no such rule; its rules are numbered 1 to {count}")]
    NoSuchRule { count: usize },
}

/// Names files as the subject of "has" or "have".
fn have(files: &[String]) -> String {
    let verb = if files.len() == 1 { "has" } else { "have" };
    format!("{} {verb}", quoted(files))
}

impl CommandRefusal {
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            CommandRefusal::Spec { .. } | CommandRefusal::NoSuchRule { .. } => None,
            CommandRefusal::ForeignRules { .. } | CommandRefusal::ForeignText { .. } => {
                Some("write to another file, or add --force to replace this one".to_owned())
            }
            CommandRefusal::JsonForRules { named, .. } => Some(format!(
                "for Services of a cluster: nvactl import --kubernetes {}",
                shell_word(&named.to_string_lossy())
            )),
            CommandRefusal::TwoInputs | CommandRefusal::BothStdin => Some("write one of the two to a file".to_owned()),
            CommandRefusal::EmptyStdin => Some(
                "run that command alone to see its error; iptables-save prints nothing either on a machine that has no table"
                    .to_owned(),
            ),
            CommandRefusal::OtherFamily { named, .. } => {
                Some(format!("use --family {}, or leave it out", named.as_str()))
            }
            CommandRefusal::NoTests { suggest, .. } => Some(format!(
                "to print tests that hold what the spec does now: {suggest}"
            )),
            CommandRefusal::Disabled { .. } => {
                Some("remove `enabled: false` from the forward, then apply the spec".to_owned())
            }
            CommandRefusal::NoSuchService { near, .. } if near.is_empty() => None,
            CommandRefusal::NoSuchService { near, .. } => {
                Some(format!("did you mean {}?", quoted(near)))
            }
            CommandRefusal::NoSuchForward { near, .. } => {
                near.as_ref().map(|name| format!("did you mean `{name}`?"))
            }
        }
    }
}
