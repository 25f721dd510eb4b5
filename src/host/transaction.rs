//! A change to the live rules that is made whole or not at all, over all tables.

use thiserror::Error;

use super::iptables::{self, IptablesError};
use crate::diff::{self, Changes};
use crate::ruleset::{ChainName, Ruleset, TableName};

#[derive(Debug, Error)]
pub enum TransactionError {
    #[error("the rules were not loaded, and nothing that nvactl owns has changed")]
    Refused(#[source] IptablesError),
    #[error("not every table was loaded, and what was has been undone")]
    Undone(#[source] IptablesError),
    #[error("the rules were loaded, but read back they differ, so they were undone:\n{difference}")]
    NotAsWanted { difference: String },
    #[error(
        "the rules are neither the old ones nor the new ones: {cause}; undoing failed too: {undo}\n\
         these commands show what is loaded now: iptables-save -t filter; iptables-save -t nat"
    )]
    Uncertain { cause: String, undo: String },
}

/// Brings what nvactl owns from `before`, the live rules, to `want`, and reads it back.
///
/// # Errors
/// When the change was refused or did not take; what nvactl owns is then as it was before, but for
/// [`TransactionError::Uncertain`].
pub fn commit(before: &Ruleset, want: &Ruleset) -> Result<(), TransactionError> {
    let loaded = iptables::load(&diff::changes(before, want).script());
    let after = match iptables::read() {
        Ok(live) => live.ruleset,
        Err(error) => {
            let cause = loaded.err().map_or_else(
                || "they were loaded but cannot be read back".to_owned(),
                |error| error.to_string(),
            );
            return Err(TransactionError::Uncertain {
                cause,
                undo: error.to_string(),
            });
        }
    };
    let left = diff::changes(&after, want);
    let Err(error) = loaded else {
        if left.is_empty() {
            return Ok(());
        }
        let difference = left.report();
        let cause = format!("read back, the new ones differ:\n{difference}");
        return Err(if undo(before, &after, want, &cause)? {
            TransactionError::NotAsWanted { difference }
        } else {
            TransactionError::Uncertain {
                cause,
                undo: "nothing of them is seen".to_owned(),
            }
        });
    };
    if undo(before, &after, want, &error.to_string())? {
        Err(TransactionError::Undone(error))
    } else {
        Err(TransactionError::Refused(error))
    }
}

/// Brings what nvactl owns back from `after` to `before`; tells whether there was anything to do.
fn undo(
    before: &Ruleset,
    after: &Ruleset,
    want: &Ruleset,
    cause: &str,
) -> Result<bool, TransactionError> {
    let mut old = diff::own(before);
    // A policy that the change did not set is not nvactl's to set back.
    if !diff::sets_policy(want) {
        old.chain_mut(TableName::Filter, ChainName::Forward).policy = None;
    }
    let changes: Changes<'_> = diff::changes(after, &old);
    if changes.is_empty() {
        return Ok(false);
    }
    let undone = iptables::load(&changes.script())
        .and_then(|()| iptables::read())
        .map(|live| diff::changes(&live.ruleset, &old).report());
    match undone {
        Ok(left) if left.is_empty() => Ok(true),
        Ok(left) => Err(TransactionError::Uncertain {
            cause: cause.to_owned(),
            undo: format!("these differ:\n{left}"),
        }),
        Err(error) => Err(TransactionError::Uncertain {
            cause: cause.to_owned(),
            undo: error.to_string(),
        }),
    }
}
