//! The state machine of a transaction: the next step after the outcome of a step. It decides only, and
//! changes nothing.
//!
//! ```text
//! Try ─▶ Record ─▶ Load v4 ─▶ Load v6 ─▶ Verify ─┬─▶ Done
//!                     │           │              ├─▶ PutFirst ─▶ VerifyFirst ─▶ Done
//!                     └─ refused ─┴▶ SeeRefused ─┴─▶ Undo ─▶ VerifyUndo ─▶ Undone, Uncertain
//! ```

use crate::net::Family;
use crate::net::per_family::Families;

/// A step of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Try the change in a network namespace.
    Try,
    /// Record the rules from before the change, and see that the foreign rules that it moves are still in their places.
    Record,
    /// Load one family's script.
    Load(Family),
    /// Read the loaded rules back.
    Verify,
    /// Move nvactl's jumps to the front again.
    PutFirst,
    /// Read the loaded rules back again.
    VerifyFirst,
    /// One family's script was refused: read the loaded rules.
    SeeRefused,
    /// Load nvactl's rules from before the change.
    Undo(UndoReason),
    /// Read the loaded rules back again.
    VerifyUndo(UndoReason),
    End(StepEnding),
}

/// Why a change is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UndoReason {
    /// A script was refused.
    Refused,
    /// The rules read back differently.
    NotAsWanted,
    /// The rules cannot be read back.
    Unread,
}

/// The outcome of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepOutcome {
    /// Success. A step that reads returns [`StepOutcome::Found`] instead.
    Done,
    /// The step was refused, or its program was killed or took too long.
    Refused,
    /// A signal came before anything had changed.
    Interrupted,
    /// The rules that a step read.
    Found(LoadedRules),
    /// Reading failed twice.
    Unreadable,
}

/// The loaded rules of all families that a change touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadedRules {
    /// The new rules.
    New,
    /// The new rules, but foreign rules stand before nvactl's jumps.
    NewBehind,
    /// The old rules.
    Old,
    /// Other rules, or a part of each.
    Neither,
}

/// How a change ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepEnding {
    Done,
    /// The change is done, but another program keeps putting rules before nvactl's jumps.
    DoneBehind,
    /// The trial refused it: nothing has changed.
    Rejected,
    /// The rules from before cannot be recorded, or are no longer as they were read, so nothing has changed.
    NotKept,
    /// A signal came first: nothing has changed.
    Interrupted,
    /// The change was refused, and none of nvactl's rules have changed.
    Refused,
    /// The change was undone.
    Undone(UndoReason),
    /// nvactl's rules may be the old or the new ones.
    Uncertain(UndoReason),
}

/// Returns the first step of a change: the trial, if there is one.
#[must_use]
pub fn first(trial: bool) -> Step {
    if trial { Step::Try } else { Step::Record }
}

/// Returns the next step after the outcome of a step.
#[must_use]
pub fn next(step: Step, outcome: StepOutcome, families: Families) -> Step {
    use LoadedRules::{Neither, New, NewBehind, Old};
    match (step, outcome) {
        (Step::Try, StepOutcome::Done) => Step::Record,
        (Step::Try, _) => Step::End(StepEnding::Rejected),

        (Step::Record, StepOutcome::Done) => Step::Load(Family::V4),
        (Step::Record, StepOutcome::Interrupted) => Step::End(StepEnding::Interrupted),
        (Step::Record, _) => Step::End(StepEnding::NotKept),

        (Step::Load(Family::V4), StepOutcome::Done) if families == Families::Both => {
            Step::Load(Family::V6)
        }
        (Step::Load(_), StepOutcome::Done) => Step::Verify,
        (Step::Load(_), _) => Step::SeeRefused,

        (Step::Verify | Step::VerifyFirst, StepOutcome::Found(New)) => Step::End(StepEnding::Done),
        (Step::Verify | Step::VerifyFirst, StepOutcome::Found(Old | Neither)) => {
            Step::Undo(UndoReason::NotAsWanted)
        }
        (Step::Verify, StepOutcome::Found(NewBehind)) => Step::PutFirst,
        (Step::Verify, _) => Step::Undo(UndoReason::Unread),

        // The next reading shows whether the jump is first; the new rules are loaded in any case.
        (Step::PutFirst, _) => Step::VerifyFirst,
        // The rules were read back a moment ago.
        (Step::VerifyFirst, _) => Step::End(StepEnding::DoneBehind),

        (Step::SeeRefused, StepOutcome::Found(Old)) => Step::End(StepEnding::Refused),
        (Step::SeeRefused, StepOutcome::Found(_)) => Step::Undo(UndoReason::Refused),
        // An undo needs a reading to start from.
        (Step::SeeRefused, _) => Step::End(StepEnding::Uncertain(UndoReason::Refused)),

        // The next reading shows the result: a killed program may have finished.
        (Step::Undo(why), _) => Step::VerifyUndo(why),
        (Step::VerifyUndo(why), StepOutcome::Found(Old)) => Step::End(StepEnding::Undone(why)),
        (Step::VerifyUndo(why), _) => Step::End(StepEnding::Uncertain(why)),

        (Step::End(end), _) => Step::End(end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a change with these outcomes of its steps; the other steps succeed, and read the new rules.
    fn run(
        families: Families,
        trial: bool,
        outcomes: &[(Step, StepOutcome)],
    ) -> (Vec<Step>, StepEnding) {
        let mut step = first(trial);
        let mut steps = Vec::new();
        let mut left = outcomes.to_vec();
        loop {
            if let Step::End(end) = step {
                assert_eq!(left, [], "after {steps:?}");
                return (steps, end);
            }
            let said = left.first().filter(|(at, _)| *at == step).copied();
            if said.is_some() {
                left.remove(0);
            }
            let reads = matches!(
                step,
                Step::Verify | Step::VerifyFirst | Step::SeeRefused | Step::VerifyUndo(_)
            );
            let well = if reads {
                StepOutcome::Found(LoadedRules::New)
            } else {
                StepOutcome::Done
            };
            steps.push(step);
            step = next(step, said.map_or(well, |(_, outcome)| outcome), families);
            assert!(steps.len() < 20, "{steps:?}");
        }
    }

    const V4: Step = Step::Load(Family::V4);
    const V6: Step = Step::Load(Family::V6);

    #[test]
    fn a_change_that_goes_well_loads_each_family_once() {
        let (steps, end) = run(Families::Both, true, &[]);
        assert_eq!(steps, [Step::Try, Step::Record, V4, V6, Step::Verify]);
        assert_eq!(end, StepEnding::Done);
        let (steps, end) = run(Families::V4, false, &[]);
        assert_eq!(
            (steps, end),
            (vec![Step::Record, V4, Step::Verify], StepEnding::Done)
        );
    }

    #[test]
    fn a_failure_before_the_first_load_loads_nothing() {
        for (step, outcome, end) in [
            (Step::Try, StepOutcome::Refused, StepEnding::Rejected),
            (Step::Record, StepOutcome::Refused, StepEnding::NotKept),
            (
                Step::Record,
                StepOutcome::Interrupted,
                StepEnding::Interrupted,
            ),
        ] {
            let (steps, ended) = run(Families::Both, true, &[(step, outcome)]);
            assert_eq!(ended, end);
            assert!(!steps.contains(&V4), "{steps:?}");
        }
    }

    /// The first table or a later one is refused, of the first family or the second.
    #[test]
    fn a_refused_change_is_undone() {
        use UndoReason::Refused;
        let undone = (
            Step::VerifyUndo(Refused),
            StepOutcome::Found(LoadedRules::Old),
        );
        for at in [V4, V6] {
            let refused = (at, StepOutcome::Refused);
            // In its first table: nothing is loaded.
            let saw = (Step::SeeRefused, StepOutcome::Found(LoadedRules::Old));
            let (steps, end) = run(Families::Both, false, &[refused, saw]);
            assert_eq!(end, StepEnding::Refused);
            assert_eq!(steps.contains(&V6), at == V6);
            // In a later table, or in the second family: a part is loaded. If the program was killed at its
            // end, all.
            for found in [
                LoadedRules::Neither,
                LoadedRules::New,
                LoadedRules::NewBehind,
            ] {
                let saw = (Step::SeeRefused, StepOutcome::Found(found));
                let (steps, end) = run(Families::Both, false, &[refused, saw, undone]);
                assert_eq!(end, StepEnding::Undone(Refused), "{found:?}");
                assert_eq!(steps[steps.len() - 2], Step::Undo(Refused));
            }
            let saw = (Step::SeeRefused, StepOutcome::Unreadable);
            let (steps, end) = run(Families::Both, false, &[refused, saw]);
            assert_eq!(end, StepEnding::Uncertain(Refused));
            assert!(!steps.contains(&Step::Undo(Refused)));
        }
    }

    #[test]
    fn a_change_that_reads_back_differently_is_undone() {
        for (outcome, why) in [
            (
                StepOutcome::Found(LoadedRules::Neither),
                UndoReason::NotAsWanted,
            ),
            (
                StepOutcome::Found(LoadedRules::Old),
                UndoReason::NotAsWanted,
            ),
            (StepOutcome::Unreadable, UndoReason::Unread),
        ] {
            let verified = (Step::Verify, outcome);
            let undone = (Step::VerifyUndo(why), StepOutcome::Found(LoadedRules::Old));
            let (_, end) = run(Families::Both, false, &[verified, undone]);
            assert_eq!(end, StepEnding::Undone(why));
        }
    }

    #[test]
    fn an_undo_counts_only_when_the_old_rules_are_seen() {
        let why = UndoReason::NotAsWanted;
        let verified = (Step::Verify, StepOutcome::Found(LoadedRules::Neither));
        for undo in [StepOutcome::Done, StepOutcome::Refused] {
            for (seen, ends) in [
                (
                    StepOutcome::Found(LoadedRules::Old),
                    StepEnding::Undone(why),
                ),
                (
                    StepOutcome::Found(LoadedRules::Neither),
                    StepEnding::Uncertain(why),
                ),
                (
                    StepOutcome::Found(LoadedRules::New),
                    StepEnding::Uncertain(why),
                ),
                (StepOutcome::Unreadable, StepEnding::Uncertain(why)),
            ] {
                let course = [
                    verified,
                    (Step::Undo(why), undo),
                    (Step::VerifyUndo(why), seen),
                ];
                assert_eq!(
                    run(Families::V4, false, &course).1,
                    ends,
                    "{undo:?} {seen:?}"
                );
            }
        }
    }

    #[test]
    fn a_rule_that_came_before_the_jump_is_no_reason_to_undo() {
        let behind = (Step::Verify, StepOutcome::Found(LoadedRules::NewBehind));
        let (steps, end) = run(Families::V4, false, &[behind]);
        assert_eq!(end, StepEnding::Done);
        assert_eq!(
            steps[2..],
            [Step::Verify, Step::PutFirst, Step::VerifyFirst]
        );
        for (then, ends) in [
            (
                StepOutcome::Found(LoadedRules::NewBehind),
                StepEnding::DoneBehind,
            ),
            (StepOutcome::Unreadable, StepEnding::DoneBehind),
        ] {
            let course = [
                behind,
                (Step::PutFirst, StepOutcome::Refused),
                (Step::VerifyFirst, then),
            ];
            assert_eq!(run(Families::V4, false, &course).1, ends);
        }
        let why = UndoReason::NotAsWanted;
        let course = [
            behind,
            (Step::VerifyFirst, StepOutcome::Found(LoadedRules::Neither)),
            (Step::VerifyUndo(why), StepOutcome::Found(LoadedRules::Old)),
        ];
        assert_eq!(run(Families::V4, false, &course).1, StepEnding::Undone(why));
    }
}
