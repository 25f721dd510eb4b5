//! A change to the live rules of all tables and both families, made completely or not at all.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;
use tracing::debug;

use super::records::{Begun, Change};
use super::state::{State, StateError};
use super::step::{self, LoadedRules, Step, StepEnding, StepOutcome, UndoReason};
use crate::diff::families::changes;
use crate::diff::foreign::{ForeignGoal, ForeignShift};
use crate::diff::{self, Changes};
use crate::host::complaint::line_named;
use crate::host::file::{self, FileError};
use crate::host::iptables::{Iptables, IptablesError, LoadTrialError};
use crate::host::lock::Lock;
use crate::host::progress::Progress;
use crate::host::signals::Held;
use crate::net::Family;
use crate::net::per_family::PerFamily;
use crate::netfilter::counters::Counters;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::line::says_counts;
use crate::netfilter::text::parse;
use crate::netfilter::token::shell_word;
use crate::ops::load_trial::{self, LoadTrial};
use crate::plan::digest::Digest;

#[derive(Debug, Error)]
pub enum TransactionError {
    #[error("the kernel refuses {}; nothing has changed", blamed(.forward.as_ref(), .rule.as_ref()))]
    Rejected {
        forward: Option<String>,
        rule: Option<String>,
        source: IptablesError,
    },
    #[error("the rules from before the change cannot be recorded, so nothing has changed")]
    NotKept(#[from] StateError),
    #[error(
        "another program changed the chain {chain} in {table} while nvactl prepared to take out or put back rules there; nothing has changed"
    )]
    ForeignMoved { table: TableName, chain: ChainName },
    #[error("the foreign rules could not be read again before the change, so nothing has changed")]
    NotReadAgain(#[source] IptablesError),
    #[error("interrupted before the change: nothing has changed")]
    Interrupted,
    #[error("signals cannot be blocked, so nothing has changed")]
    Signals(#[source] std::io::Error),
    #[error("{} was not loaded, and none of nvactl's rules have changed", blamed(.forward.as_ref(), .rule.as_ref()))]
    Refused {
        forward: Option<String>,
        rule: Option<String>,
        source: IptablesError,
    },
    #[error("{} was not loaded, and the rest of the change was undone", blamed(.forward.as_ref(), .rule.as_ref()))]
    Undone {
        forward: Option<String>,
        rule: Option<String>,
        source: IptablesError,
    },
    #[error(
        "iptables-restore reported success, but the rules that the kernel returns are not the new ones; the old \
         rules are loaded:\n{difference}"
    )]
    NotAsWanted { difference: String },
    #[error("the new rules were loaded but could not be read back, so they were undone")]
    Unread(#[source] IptablesError),
    #[error(
        "nvactl's rules may be neither the old ones nor the new ones: {cause}; {undo}\n{loaded}"
    )]
    Uncertain {
        cause: String,
        /// The failure of the undo, or why none was tried.
        undo: String,
        /// The rules that are loaded now, if they are known.
        loaded: String,
        /// A script for each family whose rules are not the old ones.
        scripts_back: Vec<RestoreScript>,
    },
}

/// The command that restores one family's old rules by hand.
#[derive(Debug)]
pub struct RestoreScript {
    /// The program that loads the script.
    restore: String,
    /// The script, if it could be written.
    script: Option<PathBuf>,
}

impl TransactionError {
    /// Returns the fix: commands that can be pasted.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            TransactionError::Uncertain { scripts_back, .. } => {
                let back: Option<Vec<String>> =
                    scripts_back.iter().map(RestoreScript::command).collect();
                let looks = scripts_back
                    .iter()
                    .map(|script| format!("sudo {}", script.restore.replace("restore", "save")));
                let look = looks.collect::<Vec<_>>().join("; ");
                let look = if look.is_empty() {
                    "sudo iptables-save"
                } else {
                    &look
                };
                let fix = match back {
                    Some(back) if !back.is_empty() => {
                        format!("to restore the old rules: {}", back.join(" && "))
                    }
                    _ => "to try again: sudo nvactl apply".to_owned(),
                };
                Some(format!("to see the loaded rules: {look}\nhint: {fix}"))
            }
            TransactionError::Rejected { source, .. }
            | TransactionError::Refused { source, .. }
            | TransactionError::Undone { source, .. }
            | TransactionError::NotReadAgain(source)
            | TransactionError::Unread(source) => source.hint(),
            TransactionError::NotKept(error) => error.hint(),
            TransactionError::ForeignMoved { .. } => Some("run the command again".to_owned()),
            TransactionError::Interrupted
            | TransactionError::Signals(_)
            | TransactionError::NotAsWanted { .. } => None,
        }
    }
}

impl RestoreScript {
    fn command(&self) -> Option<String> {
        let script = self.script.as_ref()?.to_string_lossy();
        let (restore, script) = (&self.restore, shell_word(&script));
        Some(format!("sudo {restore} --noflush -w 10 {script}"))
    }
}

/// Names a rule and the forward or outbound entry in its comment.
fn blamed(name: Option<&String>, rule: Option<&String>) -> String {
    match (name, rule) {
        (Some(name), Some(rule)) => format!("a rule of `{name}` (`{rule}`)"),
        (_, Some(rule)) => format!("the rule `{rule}`"),
        _ => "the change".to_owned(),
    }
}

/// A change and everything that it needs.
#[derive(Debug)]
pub struct Transaction<'a> {
    pub state: &'a State,
    pub lock: &'a Lock,
    pub iptables: &'a Iptables,
    /// The live rules and counters of the touched families.
    pub before: &'a PerFamily<(Ruleset, Counters)>,
    /// The wanted rules of the same families.
    pub want: &'a PerFamily<Ruleset>,
    /// The foreign rules that the change takes out or puts back. A family without an entry keeps all of them.
    pub foreign: &'a PerFamily<ForeignShift>,
    /// The record for the history.
    pub change: &'a Change,
    pub keeping: Keeping,
    pub trial: TrialMode,
}

/// How a change is tried before it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrialMode {
    /// Try nothing.
    Nothing,
    /// Try all rules alone, in an empty network namespace.
    Rules,
    /// Try one rule of each shape, in an empty network namespace.
    Shapes,
    /// The change was already tried in a copy of the machine.
    Past,
}

/// Whether the rules from before a change are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// Make no change without a record.
    Required,
    /// Make the change even if there is no room for a record.
    Attempted,
    /// The rules are already recorded: the change undoes another.
    Done,
}

/// The findings after a change.
#[derive(Debug, Default)]
pub struct Committed {
    /// The change's number in the history.
    pub number: Option<u64>,
    pub jumps: Jumps,
    /// Why the rules from before the change are not recorded.
    pub not_kept: Option<StateError>,
}

/// The position of nvactl's jumps after a change.
#[derive(Debug, Default)]
pub enum Jumps {
    #[default]
    First,
    /// Another program keeps putting rules before the jumps; these are the loaded rules.
    Behind(PerFamily<Ruleset>),
    /// The rules could not be read again.
    Unknown,
}

impl Transaction<'_> {
    /// Tries the change, records the rules from before, loads the change, and reads it back.
    ///
    /// # Errors
    /// When the change is refused or fails. nvactl's rules are then as before, except with
    /// [`TransactionError::Uncertain`].
    pub fn commit(&self) -> Result<Committed, TransactionError> {
        let held = Held::hold().map_err(TransactionError::Signals)?;
        let before = self.rules();
        let changes = self.to_new(&before);
        let scripts = self.scripts(&changes);
        let mut course = Course {
            change: self,
            held: &held,
            changes: &changes,
            scripts,
            progress: Progress::new(),
            found: StepResults::default(),
        };
        let mut step = step::first(self.trial != TrialMode::Nothing);
        loop {
            if let Step::End(end) = step {
                return course.end(end);
            }
            let outcome = course.take(step);
            debug!(?step, ?outcome, "took a step");
            step = step::next(step, outcome, self.want.families());
        }
    }

    /// Returns the changes from these rules to the new ones.
    fn to_new<'r>(&'r self, from: &PerFamily<&'r Ruleset>) -> PerFamily<Changes<'r>> {
        let goal = self.foreign.map(|_, shift| &shift.new);
        changes(from, self.want).with_foreign(from, &goal)
    }

    /// Returns the changes from these rules back to the old ones, of which `old` are nvactl's.
    fn to_old<'r>(
        &self,
        from: &PerFamily<&'r Ruleset>,
        old: &'r PerFamily<Ruleset>,
    ) -> PerFamily<Changes<'r>> {
        let goal = self.foreign.map(|_, shift| &shift.old);
        changes(from, old).with_foreign(from, &goal)
    }

    /// Whether the foreign rules of a family are as a goal says.
    fn meets(
        &self,
        family: Family,
        live: &Ruleset,
        goal: impl Fn(&ForeignShift) -> &ForeignGoal,
    ) -> bool {
        let shift = self.foreign.get(family);
        shift.is_none_or(|shift| goal(shift).changes(live).is_empty())
    }

    /// Reads the chains again whose foreign rules the script addresses by number. Since they were first read, another
    /// program may have moved them.
    fn foreign_stays(&self) -> Result<(), TransactionError> {
        if self.foreign.values().all(|shift| shift.new.is_empty()) {
            return Ok(());
        }
        let now = self.read().map_err(TransactionError::NotReadAgain)?;
        for (family, (now, before)) in now.as_ref().zip(self.rules()).iter() {
            let shift = self.foreign.get(family);
            for (table, chain) in shift.into_iter().flat_map(|shift| shift.new.chains()) {
                let rules =
                    |rules: &Ruleset| rules.chain(table, chain).map(|one| one.rules.clone());
                if rules(now) != rules(before) {
                    return Err(TransactionError::ForeignMoved {
                        table,
                        chain: chain.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Returns the live rules from before the change.
    fn rules(&self) -> PerFamily<&Ruleset> {
        self.before.map(|_, (rules, _)| rules)
    }

    fn counters(&self) -> PerFamily<&Counters> {
        self.before.map(|_, (_, counters)| counters)
    }

    /// Returns the change as scripts, with the counters of rules that only move.
    fn scripts(&self, changes: &PerFamily<Changes<'_>>) -> PerFamily<String> {
        changes.scripts(&changes.carried(&self.counters()).as_ref())
    }

    /// Reads the loaded rules of the touched families.
    fn read(&self) -> Result<PerFamily<Ruleset>, IptablesError> {
        let live = self.iptables.read_all(self.want.families())?;
        Ok(PerFamily {
            v4: live.v4.ruleset,
            v6: live.v6.map(|live| live.ruleset),
        })
    }

    /// Returns nvactl's old rules, to be restored from `now`. The policy is included only if the change sets
    /// it.
    fn old(&self, now: &PerFamily<Ruleset>) -> PerFamily<Ruleset> {
        let all = self.rules().zip(self.want.as_ref()).zip(now.as_ref());
        all.map(|_, ((before, want), now)| {
            let old = diff::restorable(before, now);
            if diff::sets_policy(want) {
                old
            } else {
                old.without_forward_policy()
            }
        })
    }

    /// Compares the loaded rules with the old and the new ones.
    fn compared(&self, live: &PerFamily<Ruleset>) -> LoadedRules {
        let all = live.as_ref().zip(self.want.as_ref()).zip(self.rules());
        let foreign = |goal: fn(&ForeignShift) -> &ForeignGoal| {
            let mut each = live.iter();
            each.all(|(family, live)| self.meets(family, live, goal))
        };
        let every = |holds: fn(&Ruleset, &Ruleset, &Ruleset) -> bool| {
            let mut each = all.values();
            each.all(|((live, want), before)| holds(live, want, before))
        };
        let are_new = foreign(|shift| &shift.new);
        if are_new && every(|live, want, _| diff::changes(live, want).is_empty()) {
            LoadedRules::New
        } else if are_new
            && every(|live, want, _| diff::holds_the_same(live, want, diff::sets_policy(want)))
        {
            LoadedRules::NewBehind
        } else if foreign(|shift| &shift.old)
            && every(|live, want, before| {
                let old = diff::restorable(before, live);
                diff::holds_the_same(live, &old, diff::sets_policy(want))
            })
        {
            LoadedRules::Old
        } else {
            LoadedRules::Neither
        }
    }

    /// Whether the touched chains, if they are few, read back as wanted; and the built-in chains, from which
    /// another program may have removed nvactl's jumps.
    ///
    /// This is enough: only the holder of the lock writes nvactl's chains, and a script changes only the
    /// chains that it names. In doubt, everything is read.
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

    /// Records the change with the rules from before it, and that it starts.
    fn keep(&self) -> Result<u64, StateError> {
        if self.want.v6.is_some() {
            self.state.set_may_hold_v6(true)?;
        }
        let number = self.state.next_number()?;
        // The change has the digests, unless an earlier version recorded it.
        let digest = |want| owned_digest(want, diff::sets_policy(want));
        let Change {
            loaded, loaded_v6, ..
        } = self.change;
        // First, so that a change in the history without this record is known to be finished.
        self.state.set_begun(&Begun {
            version: super::records::VERSION,
            action: self.change.action.clone(),
            number,
            want: loaded.unwrap_or_else(|| digest(&self.want.v4)),
            want_v6: loaded_v6.or_else(|| self.want.v6.as_ref().map(digest)),
        })?;
        let kept = self.state.remember(number, self.change);
        if let Err(error) = kept {
            let _ = self.state.clear_begun();
            return Err(error);
        }
        Ok(number)
    }

    /// Removes a change that was never made from the history. If this fails, the history has one too many.
    fn forget(&self, number: u64) {
        if let Err(error) = self.state.forget(number) {
            debug!(%error, "a change that was never made stays in the history");
        }
    }

    /// Loads the change in a network namespace. If no namespace can be made, or a rule that is loaded now
    /// does not load there, the change is not refused.
    fn try_out(&self, family: Family, trial: &LoadTrial) -> Result<(), TransactionError> {
        if trial.script.is_empty() {
            return Ok(());
        }
        let source = match self.iptables.try_out(family, &trial.text()) {
            Ok(()) => return Ok(()),
            Err(LoadTrialError::Impossible(reason)) => {
                debug!(reason, "no trial");
                return Ok(());
            }
            Err(LoadTrialError::Refused(source)) => source,
        };
        if self.iptables.try_out(family, &trial.base).is_err() {
            debug!(%source, "the trial is inconclusive: the loaded rules do not load there");
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
}

/// Returns the digest of nvactl's rules; with the FORWARD policy only if nvactl sets it.
#[must_use]
pub fn owned_digest(ruleset: &Ruleset, sets_policy: bool) -> Digest {
    let mut own = diff::own(ruleset);
    if !sets_policy {
        own = own.without_forward_policy();
    }
    Digest::of([own.to_string()])
}

/// A change in progress.
struct Course<'c> {
    change: &'c Transaction<'c>,
    held: &'c Held,
    changes: &'c PerFamily<Changes<'c>>,
    scripts: PerFamily<String>,
    progress: Progress,
    found: StepResults,
}

/// The results of the steps so far.
#[derive(Default)]
struct StepResults {
    /// The change's number in the history.
    number: Option<u64>,
    /// Why the change was not recorded, or its trial failed.
    stopped: Option<TransactionError>,
    not_kept: Option<StateError>,
    refused: Option<(Family, IptablesError)>,
    live: Option<PerFamily<Ruleset>>,
    unread: Option<IptablesError>,
    /// The lines that differed when the rules were read back.
    difference: String,
    /// The result of the undo, if there was one.
    undo: Option<Result<(), IptablesError>>,
}

impl Course<'_> {
    fn take(&mut self, step: Step) -> StepOutcome {
        match step {
            Step::Try => self.try_out(),
            Step::Record => self.record(),
            Step::Load(family) => self.load(family),
            Step::Verify => {
                self.progress.step("verifying…");
                if self.change.took(self.changes) {
                    return StepOutcome::Found(LoadedRules::New);
                }
                self.look()
            }
            Step::VerifyFirst | Step::SeeRefused | Step::VerifyUndo(_) => self.look(),
            Step::PutFirst => self.put_first(),
            Step::Undo(_) => self.undo(),
            Step::End(_) => StepOutcome::Done,
        }
    }

    fn try_out(&mut self) -> StepOutcome {
        self.progress.step("trying…");
        let all = self.changes.iter();
        let mode = self.change.trial;
        let untried = all.filter(|_| matches!(mode, TrialMode::Rules | TrialMode::Shapes));
        for (family, changes) in untried {
            let before = self.change.before.get(family);
            let Some(((before, _), script)) = before.zip(self.scripts.get(family)) else {
                continue;
            };
            let mut trial = LoadTrial::new(before, changes, script.clone());
            if mode == TrialMode::Shapes {
                trial = trial.of_shapes(changes);
            }
            if let Err(error) = self.change.try_out(family, &trial) {
                self.found.stopped = Some(error);
                return StepOutcome::Refused;
            }
        }
        self.scripts = self.recounted();
        StepOutcome::Done
    }

    /// Returns the scripts with the current counters of rules that move, since a trial of many rules takes
    /// seconds.
    fn recounted(&mut self) -> PerFamily<String> {
        let scripts = std::mem::take(&mut self.scripts);
        if !scripts.values().any(|script| says_counts(script)) {
            return scripts;
        }
        let families = self.change.want.families();
        let Ok(now) = self.change.iptables.read_all_counted(families) else {
            return scripts;
        };
        let both = now.as_ref().zip(self.change.rules());
        // Counters belong to positions: they are useless if rules have been added or removed.
        let same = |((now, _), before): &(&(Ruleset, Counters), &Ruleset)| {
            diff::own(now) == diff::own(before)
        };
        if !both.values().all(same) {
            return scripts;
        }
        let counters = now.map(|_, (_, counters)| counters);
        self.changes
            .scripts(&self.changes.carried(&counters).as_ref())
    }

    fn record(&mut self) -> StepOutcome {
        if self.change.keeping != Keeping::Done {
            match (self.change.keep(), self.change.keeping) {
                (Ok(number), _) => self.found.number = Some(number),
                (Err(error), Keeping::Required) => {
                    self.found.stopped = Some(error.into());
                    return StepOutcome::Refused;
                }
                (Err(error), _) => self.found.not_kept = Some(error),
            }
        }
        if let Err(error) = self.change.foreign_stays() {
            self.found.stopped = Some(error);
            return StepOutcome::Refused;
        }
        if self.change.keeping != Keeping::Done && self.held.came() {
            return StepOutcome::Interrupted;
        }
        self.progress.step("loading…");
        StepOutcome::Done
    }

    fn load(&mut self, family: Family) -> StepOutcome {
        let script = self.scripts.get(family).map_or("", String::as_str);
        match self.restore(family, script) {
            Ok(()) => StepOutcome::Done,
            Err(error) => {
                self.found.refused = Some((family, error));
                StepOutcome::Refused
            }
        }
    }

    fn restore(&self, family: Family, script: &str) -> Result<(), IptablesError> {
        if script.is_empty() {
            return Ok(());
        }
        self.change.iptables.load(family, script, self.change.lock)
    }

    fn look(&mut self) -> StepOutcome {
        // Reading worked a moment ago, so try a second time.
        match self.change.read().or_else(|_| self.change.read()) {
            Ok(live) => {
                let found = self.change.compared(&live);
                self.found.live = Some(live);
                StepOutcome::Found(found)
            }
            Err(error) => {
                self.found.unread = Some(error);
                StepOutcome::Unreadable
            }
        }
    }

    fn put_first(&mut self) -> StepOutcome {
        let Some(live) = self.found.live.take() else {
            return StepOutcome::Refused;
        };
        let none = live.map(|_, _| Counters::default());
        let scripts = self.change.to_new(&live.as_ref()).scripts(&none.as_ref());
        let mut outcome = StepOutcome::Done;
        for (family, script) in scripts.iter() {
            if let Err(error) = self.restore(family, script) {
                debug!(%error, "the jumps were not moved to the front");
                outcome = StepOutcome::Refused;
            }
        }
        outcome
    }

    /// Loads each family's script. A failure of one family does not stop the other; the first failure is
    /// reported.
    fn undo(&mut self) -> StepOutcome {
        let from = self.found.live.as_ref().unwrap_or(self.change.want);
        let old = self.change.old(from);
        self.found.difference = self.change.to_new(&from.as_ref()).report();
        // A restored rule has its old position, so it continues from its old counters.
        let back = self.change.to_old(&from.as_ref(), &old);
        let scripts = back.scripts(&self.change.counters());
        let mut undone = Ok(());
        for (family, script) in scripts.iter() {
            undone = undone.and(self.restore(family, script));
        }
        self.found.live = None;
        let outcome = match undone {
            Ok(()) => StepOutcome::Done,
            Err(_) => StepOutcome::Refused,
        };
        self.found.undo = Some(undone);
        outcome
    }

    fn end(mut self, end: StepEnding) -> Result<Committed, TransactionError> {
        let kept = matches!(
            end,
            StepEnding::Done | StepEnding::DoneBehind | StepEnding::Uncertain(_)
        );
        if let Some(number) = self.found.number {
            // A change that was never made is no step for a rollback.
            if !kept {
                self.change.forget(number);
            }
        }
        if self.found.number.is_some() || matches!(end, StepEnding::Done | StepEnding::DoneBehind) {
            let cleared = self.change.state.clear_begun();
            if let Err(error) = cleared {
                debug!(%error, "the record of the started change was not removed");
            }
        }
        match end {
            StepEnding::Done | StepEnding::DoneBehind => {
                super::note_v6::note_v6(self.change.state, self.change.want.v6.as_ref());
                Ok(Committed {
                    number: self.found.number,
                    jumps: match (end, self.found.live) {
                        (StepEnding::DoneBehind, Some(live)) => Jumps::Behind(live),
                        (StepEnding::DoneBehind, None) => Jumps::Unknown,
                        _ => Jumps::First,
                    },
                    not_kept: self.found.not_kept,
                })
            }
            StepEnding::Interrupted => Err(TransactionError::Interrupted),
            StepEnding::Rejected | StepEnding::NotKept => {
                let stopped = self.found.stopped.take();
                Err(stopped.unwrap_or(TransactionError::Interrupted))
            }
            StepEnding::Refused | StepEnding::Undone(_) => Err(self.undone(end)),
            StepEnding::Uncertain(why) => Err(self.uncertain(why)),
        }
    }

    fn undone(self, end: StepEnding) -> TransactionError {
        match (end, self.found.refused, self.found.unread) {
            (StepEnding::Undone(UndoReason::Unread), _, Some(source)) => {
                TransactionError::Unread(source)
            }
            (
                StepEnding::Refused | StepEnding::Undone(UndoReason::Refused),
                Some((family, source)),
                _,
            ) => {
                let script = self.scripts.get(family).map_or("", String::as_str);
                let rule = named_rule(&source, Some, script);
                let forward = rule.as_deref().and_then(parse::comment_of);
                if end == StepEnding::Refused {
                    TransactionError::Refused {
                        forward,
                        rule,
                        source,
                    }
                } else {
                    TransactionError::Undone {
                        forward,
                        rule,
                        source,
                    }
                }
            }
            _ => TransactionError::NotAsWanted {
                difference: self.found.difference,
            },
        }
    }

    fn uncertain(self, why: UndoReason) -> TransactionError {
        const UNKNOWN: &str = "the rules that are loaded now could not be read";
        let StepResults {
            refused,
            live,
            unread,
            difference,
            undo,
            ..
        } = self.found;
        let cause = match (why, refused) {
            (UndoReason::Refused, Some((_, source))) => source.to_string(),
            (UndoReason::Unread, _) => {
                "the new rules were loaded but cannot be read back".to_owned()
            }
            _ => format!(
                "iptables-restore reported success, but the rules that the kernel returns are not the new ones:\n\
                 {difference}"
            ),
        };
        let now = live.as_ref().unwrap_or(self.change.want);
        let old = self.change.old(now);
        let failed = |why: &dyn fmt::Display| format!("undoing the change failed: {why}");
        let (undo, loaded) = match (&live, undo, unread) {
            (Some(live), undo, _) => {
                let left = self.change.to_old(&live.as_ref(), &old).report();
                let undo = match undo.and_then(Result::err) {
                    Some(refused) => failed(&refused),
                    None => failed(&"the old rules did not come back"),
                };
                let lines = format!(
                    "these lines differ from the old rules (+ missing, - surplus):\n{left}"
                );
                (undo, lines)
            }
            (None, Some(Err(refused)), _) => (failed(&refused), UNKNOWN.to_owned()),
            (None, Some(Ok(())), Some(unread)) => {
                let why = format!("the old rules were loaded but cannot be read back: {unread}");
                (failed(&why), UNKNOWN.to_owned())
            }
            (None, _, unread) => {
                let why = unread.map_or(String::new(), |unread| format!(": {unread}"));
                let undo = format!("the change was not undone{why}");
                (undo, UNKNOWN.to_owned())
            }
        };
        let back = self.change.to_old(&now.as_ref(), &old);
        let scripts = back.scripts(&self.change.counters());
        // A family with its old rules needs no script.
        let scripts = scripts.iter().filter(|(_, script)| !script.is_empty());
        let scripts_back = scripts.map(|(family, script)| {
            let path = self.change.state.undo_script(family);
            let written: Result<(), FileError> =
                file::replace(&path, script.as_bytes(), file::RULES_MODE);
            RestoreScript {
                restore: self
                    .change
                    .iptables
                    .backend
                    .program(family, "iptables-restore"),
                script: written.is_ok().then_some(path),
            }
        });
        TransactionError::Uncertain {
            cause,
            undo,
            loaded,
            scripts_back: scripts_back.collect(),
        }
    }
}

/// The most chains that are read one by one.
const FEW: usize = 16;

/// Whether reading these chains is faster than reading everything: `iptables -S` takes up to a third longer
/// for the same rules (once measured, nft 1.8.9), and each call takes some milliseconds.
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
    touched.len() <= FEW && rules * 4 <= before.rule_count()
}

/// Returns the rule on the line that iptables-restore complains of.
fn named_rule(
    error: &IptablesError,
    line_of_script: impl Fn(usize) -> Option<usize>,
    script: &str,
) -> Option<String> {
    let IptablesError::Failed { words, .. } = error else {
        return None;
    };
    let line = line_of_script(line_named(words)?)?;
    load_trial::rule_at(script, line).map(str::to_owned)
}

/// Returns the first refused rule, found by trying parts of the change: legacy names only COMMIT if the
/// kernel refuses.
fn first_refused(iptables: &Iptables, family: Family, whole: &LoadTrial) -> Option<String> {
    let (mut good, mut bad) = (0, whole.rules());
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        match iptables.try_out(family, &whole.with_rules(middle).text()) {
            Ok(()) => good = middle,
            Err(LoadTrialError::Refused(_)) => bad = middle,
            Err(LoadTrialError::Impossible(_)) => return None,
        }
    }
    load_trial::nth_rule(&whole.script, bad).map(str::to_owned)
}
