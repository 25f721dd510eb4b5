//! A change to the live rules that is made whole or not at all, over all tables of both families.

use std::path::PathBuf;

use thiserror::Error;
use tracing::debug;

use super::file::FileError;
use super::iptables::{Iptables, IptablesError, TrialError};
use super::lock::Lock;
use super::progress::Progress;
use super::signals::Held;
use super::state::{Before, Owned, State, StateError};
use super::{file, persistence};
use crate::counters::Counters;
use crate::diff::{self, Changes};
use crate::foreign;
use crate::line::says_counts;
use crate::net::Family;
use crate::parse;
use crate::per_family::{PerFamily, changes};
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
        /// For each family that is not as it was.
        mends: Vec<Mend>,
    },
}

/// How the old rules of one family come back by hand.
#[derive(Debug)]
pub struct Mend {
    /// The program that loads the script.
    restore: String,
    /// If it could be written.
    script: Option<PathBuf>,
}

impl TransactionError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            TransactionError::Uncertain { mends, .. } => {
                let back: Option<Vec<String>> = mends.iter().map(Mend::command).collect();
                let looks = mends
                    .iter()
                    .map(|mend| format!("sudo {}", mend.restore.replace("restore", "save")));
                let look = looks.collect::<Vec<_>>().join("; ");
                Some(match back {
                    Some(back) if !back.is_empty() => format!(
                        "to bring the old rules back by hand: {}; to look: {look}",
                        back.join(" && ")
                    ),
                    _ if look.is_empty() => {
                        "to look: sudo iptables-save; to try again: sudo nvactl apply".to_owned()
                    }
                    _ => format!("to look: {look}; to try again: sudo nvactl apply"),
                })
            }
            _ => None,
        }
    }
}

impl Mend {
    fn command(&self) -> Option<String> {
        let script = self.script.as_ref()?.to_string_lossy();
        let (restore, script) = (&self.restore, shell_word(&script));
        Some(format!("sudo {restore} --noflush -w 10 < {script}"))
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
    /// The live rules of the families that are touched, and what they have counted.
    pub before: &'a PerFamily<(Ruleset, Counters)>,
    /// What nvactl is to own; of the same families.
    pub want: &'a PerFamily<Ruleset>,
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
        let before = self.rules();
        let changes = changes(&before, self.want);
        let scripts = self.scripts(&changes);
        if self.trial {
            progress.step("trying…");
            for (family, changes) in changes.iter() {
                if let (Some(before), Some(script)) = (before.get(family), scripts.get(family)) {
                    self.try_out(family, &Trial::new(before, changes, script.clone()))?;
                }
            }
        }
        let remembered = self.remembered()?;
        if self.want.v6.is_some() {
            self.state.set_may_hold_v6(true)?;
        }
        self.state.remember(&remembered)?;
        let done = if held.came() {
            Err(TransactionError::Interrupted)
        } else {
            self.load(&changes, &self.recounted(&changes, scripts), &progress)
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
        let before = self.rules();
        let changes = changes(&before, self.want);
        self.load(&changes, &self.scripts(&changes), &Progress::new())
    }

    /// The live rules as they were read before the change.
    fn rules(&self) -> PerFamily<&Ruleset> {
        self.before.map(|_, (rules, _)| rules)
    }

    fn counters(&self) -> PerFamily<&Counters> {
        self.before.map(|_, (_, counters)| counters)
    }

    /// The change, with the counters of the rules that only go to another place.
    fn scripts(&self, changes: &PerFamily<Changes<'_>>) -> PerFamily<String> {
        changes.scripts(&changes.carried(&self.counters()).as_ref())
    }

    /// The same scripts with what the rules that move have counted by now, since a trial of many may take
    /// seconds.
    fn recounted(
        &self,
        changes: &PerFamily<Changes<'_>>,
        scripts: PerFamily<String>,
    ) -> PerFamily<String> {
        if !self.trial || !scripts.values().any(|script| says_counts(script)) {
            return scripts;
        }
        let Ok(now) = self.iptables.read_all_counted(self.want.families()) else {
            return scripts;
        };
        let both = now.as_ref().zip(self.rules());
        // Counters are of places: they are of no use where rules have come or gone.
        let same = |((now, _), before): &(&(Ruleset, Counters), &Ruleset)| {
            diff::own(now) == diff::own(before)
        };
        if !both.values().all(same) {
            return scripts;
        }
        let counters = now.map(|_, (_, counters)| counters);
        changes.scripts(&changes.carried(&counters).as_ref())
    }

    fn load(
        &self,
        changes: &PerFamily<Changes<'_>>,
        scripts: &PerFamily<String>,
        progress: &Progress,
    ) -> Result<(), TransactionError> {
        progress.step("loading…");
        let loaded = self.load_in_turn(scripts);
        progress.step("verifying…");
        if loaded.is_ok() && self.took(changes) {
            persistence::note_v6(self.state, self.want.v6.as_ref());
            return Ok(());
        }
        // Nothing was wrong with reading a moment ago: it may go the second time.
        let live = self.read().or_else(|_| self.read());
        match (loaded, live) {
            (Ok(()), Ok(live)) => self.verify(&live),
            (Err((family, source)), Ok(live)) => {
                let script = scripts.get(family).map_or("", String::as_str);
                Err(self.refused(script, &live, source))
            }
            (Ok(()), Err(unread)) => {
                let cause = "they were loaded but cannot be read back";
                self.undo(self.want, cause)?;
                Err(TransactionError::Unread(unread))
            }
            (Err((_, source)), Err(unread)) => {
                let loaded = "what is loaded now is not known".to_owned();
                let cause = source.to_string();
                Err(self.uncertain(cause, unread.to_string(), loaded, self.want))
            }
        }
    }

    /// Loads each family's script, until one is refused.
    fn load_in_turn(&self, scripts: &PerFamily<String>) -> Result<(), (Family, IptablesError)> {
        let mut scripts = scripts.iter().filter(|(_, script)| !script.is_empty());
        scripts.try_for_each(|(family, script)| {
            self.iptables
                .load(family, script, self.lock)
                .map_err(|source| (family, source))
        })
    }

    /// Whether the chains that the change touches, and they are few, read back as they should; and
    /// the built-in chains, from which others may have taken nvactl's jumps meanwhile.
    ///
    /// That is enough: nobody but the one who holds the lock writes nvactl's chains, and what the
    /// script does not name it does not change. Whatever is in doubt is left to a look at everything.
    fn took(&self, changes: &PerFamily<Changes<'_>>) -> bool {
        let before = self.rules();
        let all = before.zip(self.want.as_ref()).zip(changes.as_ref());
        all.iter().all(|(family, ((before, want), changes))| {
            let Some(mut touched) = changes
                .touched()
                .filter(|touched| few(touched, before, want))
            else {
                return false;
            };
            let builtin = want.chains().filter(|(_, name, _)| name.is_builtin());
            touched.extend(builtin.map(|(table, name, _)| (table, name)));
            touched.sort_unstable();
            touched.dedup();
            let read = self.iptables.read_chains(family, &touched, want);
            read.is_ok_and(|read| diff::changes(&read, &diff::only(want, &touched)).is_empty())
        })
    }

    /// What is loaded now, of the families that are touched.
    fn read(&self) -> Result<PerFamily<Ruleset>, IptablesError> {
        let live = self.iptables.read_all(self.want.families())?;
        Ok(PerFamily {
            v4: live.v4.ruleset,
            v6: live.v6.map(|live| live.ruleset),
        })
    }

    /// What will be known of the state before the change.
    ///
    /// # Errors
    /// When the kernel does not tell the network namespace.
    pub fn remembered(&self) -> Result<Before, StateError> {
        let both = self.rules().zip(self.want.as_ref());
        let owned = both.map(|_, (before, want)| Owned {
            rules: diff::own(before).to_string(),
            sets_policy: diff::sets_policy(want),
        });
        Before::now(self.action.clone(), owned)
    }

    /// Loads the change where it can do no harm. That this is not possible is no reason to refuse,
    /// nor that a rule which is there already does not load.
    fn try_out(&self, family: Family, trial: &Trial) -> Result<(), TransactionError> {
        if trial.script.is_empty() {
            return Ok(());
        }
        let source = match self.iptables.try_out(family, &trial.text()) {
            Ok(()) => return Ok(()),
            Err(TrialError::Impossible(reason)) => {
                debug!(reason, "no trial");
                return Ok(());
            }
            Err(TrialError::Refused(source)) => source,
        };
        if self.iptables.try_out(family, &trial.base).is_err() {
            debug!(%source, "the trial says nothing: what is loaded does not load there");
            return Ok(());
        }
        let rule = named_rule(&source, |line| trial.line_of_script(line), &trial.script)
            .or_else(|| first_refused(self.iptables, family, trial));
        Err(TransactionError::Rejected {
            forward: rule.as_deref().and_then(parse::comment_of),
            rule,
            source,
        })
    }

    fn verify(&self, after: &PerFamily<Ruleset>) -> Result<(), TransactionError> {
        let live = after.as_ref();
        let left = changes(&live, self.want);
        if left.is_empty() {
            persistence::note_v6(self.state, self.want.v6.as_ref());
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

    fn refused(
        &self,
        script: &str,
        after: &PerFamily<Ruleset>,
        source: IptablesError,
    ) -> TransactionError {
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
    fn old(&self) -> PerFamily<Ruleset> {
        let both = self.rules().zip(self.want.as_ref());
        both.map(|_, (before, want)| {
            let mut old = diff::own(before);
            if !diff::sets_policy(want) {
                old.chain_mut(TableName::Filter, ChainName::Forward).policy = None;
            }
            old
        })
    }

    /// Brings what nvactl owns back from `after`; tells whether there was anything to do.
    fn undo(&self, after: &PerFamily<Ruleset>, cause: &str) -> Result<bool, TransactionError> {
        let old = self.old();
        // A rule that comes back stands where it stood: it counts on from what it had counted there.
        let scripts = changes(&after.as_ref(), &old).scripts(&self.counters());
        if scripts.iter().all(|(_, script)| script.is_empty()) {
            return Ok(false);
        }
        let undone = self.undo_each(&scripts);
        let now = self.read();
        let (failed, loaded) = match (&undone, &now) {
            (_, Ok(live)) => {
                let left = changes(&live.as_ref(), &old).report();
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
        let now = now.unwrap_or_else(|_| after.clone());
        Err(self.uncertain(cause.to_owned(), failed, loaded, &now))
    }

    /// Loads each family's script. What one family refuses is no reason to leave the other as it
    /// is; the first failure is told.
    fn undo_each(&self, scripts: &PerFamily<String>) -> Result<(), IptablesError> {
        let mut undone = Ok(());
        for (family, script) in scripts.iter().filter(|(_, script)| !script.is_empty()) {
            let one = self.iptables.load(family, script, self.lock);
            undone = undone.and(one);
        }
        undone
    }

    fn uncertain(
        &self,
        cause: String,
        undo: String,
        loaded: String,
        now: &PerFamily<Ruleset>,
    ) -> TransactionError {
        let old = self.old();
        let scripts = changes(&now.as_ref(), &old).scripts(&self.counters());
        // Of a family that is as it was there is nothing to bring back.
        let scripts = scripts.iter().filter(|(_, script)| !script.is_empty());
        let mends = scripts.map(|(family, script)| {
            let path = self.state.undo_script(family);
            let written: Result<(), FileError> =
                file::replace(&path, script.as_bytes(), file::RULES_MODE);
            Mend {
                restore: self.iptables.backend.program(family, "iptables-restore"),
                script: written.is_ok().then_some(path),
            }
        });
        TransactionError::Uncertain {
            cause,
            undo,
            loaded,
            mends: mends.collect(),
        }
    }
}

/// At most so many chains are read one by one.
const FEW: usize = 16;

/// Whether to read these chains takes less than to read everything: `iptables -S` takes up to a third
/// longer for the same rules (measured, nft 1.8.9), and each call some milliseconds.
fn few(touched: &[(TableName, &ChainName)], before: &Ruleset, want: &Ruleset) -> bool {
    let length = |ruleset: &Ruleset, (table, name): &(TableName, &ChainName)| {
        ruleset
            .chain(*table, name)
            .map_or(0, |chain| chain.rules.len())
    };
    let rules: usize = touched
        .iter()
        .map(|chain| length(before, chain).max(length(want, chain)))
        .sum();
    touched.len() <= FEW && rules * 4 <= foreign::rule_count(before)
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
fn first_refused(iptables: &Iptables, family: Family, whole: &Trial) -> Option<String> {
    let (mut good, mut bad) = (0, whole.rules());
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        match iptables.try_out(family, &whole.with_rules(middle).text()) {
            Ok(()) => good = middle,
            Err(TrialError::Refused(_)) => bad = middle,
            Err(TrialError::Impossible(_)) => return None,
        }
    }
    trial::nth_rule(&whole.script, bad).map(str::to_owned)
}
