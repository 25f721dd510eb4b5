//! A change to the live rules that is made whole or not at all, over all tables.

use std::path::PathBuf;

use thiserror::Error;
use tracing::debug;

use super::file::{self, FileError};
use super::iptables::{Iptables, IptablesError, TrialError};
use super::lock::Lock;
use super::progress::Progress;
use super::signals::Held;
use super::state::{Before, State, StateError};
use crate::diff;
use crate::parse;
use crate::ruleset::{ChainName, Ruleset, TableName};
use crate::token::shell_word;
use crate::trial::{self, Trial};

#[derive(Debug, Error)]
pub enum TransactionError {
    #[error("the kernel refuses {}; nothing has changed", blamed(.forward.as_ref(), .rule.as_ref()))]
    Rejected {
        forward: Option<String>,
        rule: Option<String>,
        source: IptablesError,
    },
    #[error("the state before the change cannot be kept, so nothing was changed")]
    NotKept(#[from] StateError),
    #[error("interrupted before the change: nothing has changed")]
    Interrupted,
    #[error("signals cannot be held back, so nothing was changed")]
    Signals(#[source] std::io::Error),
    #[error("{} was not loaded, and nothing that nvactl owns has changed", blamed(.forward.as_ref(), .rule.as_ref()))]
    Refused {
        forward: Option<String>,
        rule: Option<String>,
        source: IptablesError,
    },
    #[error("{} was not loaded, and what was loaded before it has been undone", blamed(.forward.as_ref(), .rule.as_ref()))]
    Undone {
        forward: Option<String>,
        rule: Option<String>,
        source: IptablesError,
    },
    #[error("the rules were loaded, but read back they differ, so they were undone:\n{difference}")]
    NotAsWanted { difference: String },
    #[error("the rules were loaded, but cannot be read back, so they were undone")]
    Unread(#[source] IptablesError),
    #[error(
        "the rules are neither the old ones nor the new ones: {cause}; and undoing it failed: {undo}\n{loaded}"
    )]
    Uncertain {
        cause: String,
        undo: String,
        /// What is loaded now, as far as it is known.
        loaded: String,
        /// The program that loads a script, and the one that brings the old rules back if it could
        /// be written.
        restore: String,
        script: Option<PathBuf>,
    },
}

impl TransactionError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            TransactionError::Uncertain {
                script: Some(script),
                restore,
                ..
            } => Some(format!(
                "to bring the old rules back by hand: sudo {restore} --noflush -w 10 < {}; \
                 to look: sudo {}",
                shell_word(&script.to_string_lossy()),
                restore.replace("restore", "save")
            )),
            TransactionError::Uncertain { .. } => {
                Some("to look: sudo iptables-save; to try again: sudo nvactl apply".to_owned())
            }
            _ => None,
        }
    }
}

fn blamed(forward: Option<&String>, rule: Option<&String>) -> String {
    match (forward, rule) {
        (Some(forward), Some(rule)) => format!("a rule of the forward `{forward}` (`{rule}`)"),
        (_, Some(rule)) => format!("the rule `{rule}`"),
        _ => "the change".to_owned(),
    }
}

/// A change and all that it needs.
#[derive(Debug)]
pub struct Transaction<'a> {
    pub state: &'a State,
    pub lock: &'a Lock,
    pub iptables: &'a Iptables,
    /// The live rules.
    pub before: &'a Ruleset,
    /// What nvactl is to own.
    pub want: &'a Ruleset,
    /// What the user asked for, as history will call it.
    pub action: String,
    /// Whether to try it in an empty network namespace first.
    pub trial: bool,
}

impl Transaction<'_> {
    /// Tries the change, keeps the state before it, loads it, and reads it back.
    ///
    /// # Errors
    /// When the change was refused or did not take; what nvactl owns is then as it was before, but
    /// for [`TransactionError::Uncertain`].
    pub fn commit(&self) -> Result<(), TransactionError> {
        let held = Held::hold().map_err(TransactionError::Signals)?;
        let progress = Progress::new();
        let script = diff::changes(self.before, self.want).script();
        if self.trial {
            progress.step("trying…");
            self.try_out(&script)?;
        }
        let remembered = self.remembered()?;
        self.state.remember(&remembered)?;
        let done = if held.came() {
            Err(TransactionError::Interrupted)
        } else {
            self.load(&script, &progress)
        };
        // What came to nothing is nothing to go back behind.
        if !matches!(done, Ok(()) | Err(TransactionError::Uncertain { .. })) {
            self.state.forget(&remembered);
        }
        done
    }

    /// The same without a trial, and without keeping the state before: for undoing a change whose
    /// own state before is kept.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub fn commit_unremembered(&self) -> Result<(), TransactionError> {
        let _held = Held::hold().map_err(TransactionError::Signals)?;
        let script = diff::changes(self.before, self.want).script();
        self.load(&script, &Progress::new())
    }

    fn load(&self, script: &str, progress: &Progress) -> Result<(), TransactionError> {
        progress.step("loading…");
        let loaded = self
            .lock
            .shared_with_children(|| self.iptables.load(script));
        progress.step("verifying…");
        // Nothing was wrong with reading a moment ago: it may go the second time.
        let live = self.iptables.read().or_else(|_| self.iptables.read());
        match (loaded, live) {
            (Ok(()), Ok(live)) => self.verify(&live.ruleset),
            (Err(source), Ok(live)) => Err(self.refused(script, &live.ruleset, source)),
            (Ok(()), Err(unread)) => {
                let cause = "they were loaded but cannot be read back";
                self.undo(self.want, cause)?;
                Err(TransactionError::Unread(unread))
            }
            (Err(source), Err(unread)) => {
                let loaded = "what is loaded now is not known".to_owned();
                let cause = source.to_string();
                Err(self.uncertain(cause, unread.to_string(), loaded, self.want))
            }
        }
    }

    /// What will be known of the state before the change.
    ///
    /// # Errors
    /// When the kernel does not tell the network namespace.
    pub fn remembered(&self) -> Result<Before, StateError> {
        let rules = diff::own(self.before).to_string();
        Before::now(self.action.clone(), rules, diff::sets_policy(self.want))
    }

    /// Loads the change where it can do no harm. That this is not possible is no reason to refuse,
    /// nor that a rule which is there already does not load.
    fn try_out(&self, script: &str) -> Result<(), TransactionError> {
        let trial = Trial::new(self.before, script.to_owned());
        let source = match self.iptables.try_out(&trial.text()) {
            Ok(()) => return Ok(()),
            Err(TrialError::Impossible(reason)) => {
                debug!(reason, "no trial");
                return Ok(());
            }
            Err(TrialError::Refused(source)) => source,
        };
        if self.iptables.try_out(&trial.base).is_err() {
            debug!(%source, "the trial says nothing: what is loaded does not load there");
            return Ok(());
        }
        let rule = named_rule(&source, |line| trial.line_of_script(line), script)
            .or_else(|| first_refused(self.iptables, &trial));
        Err(TransactionError::Rejected {
            forward: rule.as_deref().and_then(parse::comment_of),
            rule,
            source,
        })
    }

    fn verify(&self, after: &Ruleset) -> Result<(), TransactionError> {
        let left = diff::changes(after, self.want);
        if left.is_empty() {
            return Ok(());
        }
        let difference = left.report();
        let cause = format!("read back, the new ones differ:\n{difference}");
        if self.undo(after, &cause)? {
            return Err(TransactionError::NotAsWanted { difference });
        }
        let undo = "nothing of them is seen".to_owned();
        Err(self.uncertain(cause, undo, String::new(), after))
    }

    fn refused(&self, script: &str, after: &Ruleset, source: IptablesError) -> TransactionError {
        let rule = named_rule(&source, Some, script);
        let forward = rule.as_deref().and_then(parse::comment_of);
        match self.undo(after, &source.to_string()) {
            Ok(true) => TransactionError::Undone {
                forward,
                rule,
                source,
            },
            Ok(false) => TransactionError::Refused {
                forward,
                rule,
                source,
            },
            Err(error) => error,
        }
    }

    /// What nvactl owned before, without a policy that the change does not set: that is not
    /// nvactl's to set back.
    fn old(&self) -> Ruleset {
        let mut old = diff::own(self.before);
        if !diff::sets_policy(self.want) {
            old.chain_mut(TableName::Filter, ChainName::Forward).policy = None;
        }
        old
    }

    /// Brings what nvactl owns back from `after`; tells whether there was anything to do.
    fn undo(&self, after: &Ruleset, cause: &str) -> Result<bool, TransactionError> {
        let old = self.old();
        let changes = diff::changes(after, &old);
        if changes.is_empty() {
            return Ok(false);
        }
        let script = changes.script();
        let undone = self
            .lock
            .shared_with_children(|| self.iptables.load(&script));
        let now = self.iptables.read();
        let (failed, loaded) = match (&undone, &now) {
            (_, Ok(live)) => {
                let left = diff::changes(&live.ruleset, &old).report();
                if left.is_empty() {
                    return Ok(true);
                }
                let failed = undone.as_ref().err();
                let failed =
                    failed.map_or_else(|| "it did not take".to_owned(), ToString::to_string);
                (
                    failed,
                    format!("to be as before, these lines would have to come and go:\n{left}"),
                )
            }
            (Ok(()), Err(error)) => (
                format!("it was loaded, but that cannot be read back: {error}"),
                "what is loaded now is not known".to_owned(),
            ),
            (Err(error), Err(_)) => (
                error.to_string(),
                "what is loaded now is not known".to_owned(),
            ),
        };
        let now = now.map_or_else(|_| after.clone(), |live| live.ruleset);
        Err(self.uncertain(cause.to_owned(), failed, loaded, &now))
    }

    fn uncertain(
        &self,
        cause: String,
        undo: String,
        loaded: String,
        now: &Ruleset,
    ) -> TransactionError {
        let script = diff::changes(now, &self.old()).script();
        let path = self.state.undo_script();
        let written: Result<(), FileError> =
            file::replace(&path, script.as_bytes(), file::RULES_MODE);
        TransactionError::Uncertain {
            cause,
            undo,
            loaded,
            restore: self.iptables.backend.program("iptables-restore"),
            script: written.is_ok().then_some(path),
        }
    }
}

/// The rule on the line that iptables-restore complains of.
fn named_rule(
    error: &IptablesError,
    line_of_script: impl Fn(usize) -> Option<usize>,
    script: &str,
) -> Option<String> {
    let IptablesError::Failed { words, .. } = error else {
        return None;
    };
    let line = line_of_script(trial::line_named(words)?)?;
    trial::rule_at(script, line).map(str::to_owned)
}

/// The first rule without which the change would load: legacy names only COMMIT for what the
/// kernel refuses, so halves of the change are tried.
fn first_refused(iptables: &Iptables, whole: &Trial) -> Option<String> {
    let (mut good, mut bad) = (0, whole.rules());
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        match iptables.try_out(&whole.with_rules(middle).text()) {
            Ok(()) => good = middle,
            Err(TrialError::Refused(_)) => bad = middle,
            Err(TrialError::Impossible(_)) => return None,
        }
    }
    trial::nth_rule(&whole.script, bad).map(str::to_owned)
}
