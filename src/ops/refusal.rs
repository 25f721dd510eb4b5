//! What an operation will not do, and why.

use thiserror::Error;

use crate::host::iptables::OWN_ALONE;
use crate::host::rehearsal::RefusedLine;
use crate::net::Family;
use crate::ruleset::TableName;
use crate::token::shell_word;
use crate::unread::Misprinted;

/// What an operation refuses to do.
#[derive(Debug, Error)]
pub enum Refusal {
    #[error("a foreign rule leads to one of nvactl's chains, which therefore cannot go: {line}")]
    StillReferenced { line: String, removal: String },
    #[error("the live rules are not what `{name}` says:\n{changes}")]
    NotInSync {
        name: String,
        /// The spec as a command line names it.
        argument: String,
        changes: String,
    },
    #[error("the change {number} is not kept; {}", those_kept(.kept))]
    NoSuchChange { number: u64, kept: Vec<u64> },
    #[error("no change is left to roll back")]
    NothingToUndo,
    #[error("nothing is waiting for a confirmation{}", last.as_ref().map(|last| format!(": {last}")).unwrap_or_default())]
    NothingPending {
        /// What became of the last change, if it was undone.
        last: Option<String>,
    },
    #[error("the pending change was not fully applied and cannot be confirmed")]
    NotMade,
    #[error("{told}")]
    Pending { told: String, overdue: bool },
    #[error(
        "a change waits for its confirmation, and its record cannot be read by this version of nvactl: {why}"
    )]
    UnreadablePending { why: String },
    #[error(
        "no {family} rules are loaded, and a file without any would let everything through at boot"
    )]
    NothingToKeep { family: Family },
    #[error("there are rules of both families to be kept, and one file takes those of one")]
    OneFileForTwo,
    #[error("nothing of nvactl's {family} rules is loaded or kept")]
    NothingOf { family: Family },
    #[error("`{file}` would not load at boot: {refused}")]
    WouldNotLoad { file: String, refused: RefusedLine },
    #[error(
        "`{file}` would not bring a rule back at boot: {} {} has `{}`, which iptables-save prints as another, {}",
        table, rule.chain, rule.live,
        rule.loaded.as_ref().map_or("or leaves out".to_owned(), |loaded| format!("`{loaded}`"))
    )]
    Misprinted {
        file: String,
        table: TableName,
        rule: Misprinted,
    },
    #[error("another program changed the rules while nvactl was reading them")]
    Changing,
}

/// The numbers of the changes that are kept, in words.
fn those_kept(numbers: &[u64]) -> String {
    match numbers {
        [] => "none is".to_owned(),
        [one] => format!("only {one} is"),
        [first, .., last] => format!("{first} to {last} are"),
    }
}

impl Refusal {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Refusal::Pending { overdue: false, .. } => Some("sudo nvactl confirm".to_owned()),
            Refusal::NotMade | Refusal::Pending { .. } | Refusal::UnreadablePending { .. } => {
                Some("sudo nvactl confirm --cancel".to_owned())
            }
            Refusal::NothingPending { .. }
            | Refusal::NoSuchChange { .. }
            | Refusal::NothingToUndo => Some("sudo nvactl history".to_owned()),
            Refusal::Changing => Some("run the command again".to_owned()),
            Refusal::WouldNotLoad { .. } | Refusal::Misprinted { .. } => Some(OWN_ALONE.to_owned()),
            Refusal::StillReferenced { removal, .. } => Some(removal.clone()),
            Refusal::NotInSync { argument, .. } => {
                Some(format!("sudo nvactl apply {}", shell_word(argument)))
            }
            Refusal::NothingToKeep { .. } | Refusal::NothingOf { .. } => {
                Some("sudo nvactl apply forward.yaml".to_owned())
            }
            Refusal::OneFileForTwo => Some("name one: --family v4, or --family v6".to_owned()),
        }
    }
}
