//! The changes of both families as one change.

use std::fmt::Write as _;

use super::Changes;
use super::foreign::ForeignGoal;
use crate::diff;
use crate::net::Family;
use crate::net::per_family::PerFamily;
use crate::netfilter::counters::Counters;
use crate::netfilter::ruleset::Ruleset;

/// Returns the changes from `have` to `want`, which holds only rules that nvactl owns.
#[must_use]
pub fn changes<'r>(
    have: &PerFamily<&'r Ruleset>,
    want: &'r PerFamily<Ruleset>,
) -> PerFamily<Changes<'r>> {
    let both = have.as_ref().zip(want.as_ref());
    both.map(|_, (have, want)| diff::changes(have, want))
}

impl<'r> PerFamily<Changes<'r>> {
    /// Adds the changes of foreign rules that lead from the loaded rules to a goal. A family without a goal has none.
    #[must_use]
    pub fn with_foreign(
        self,
        live: &PerFamily<&Ruleset>,
        goal: &PerFamily<&ForeignGoal>,
    ) -> PerFamily<Changes<'r>> {
        let add = |family, changes: Changes<'r>| match (live.get(family), goal.get(family)) {
            (Some(live), Some(goal)) => changes.with_foreign(goal.changes(live)),
            _ => changes,
        };
        PerFamily {
            v4: add(Family::V4, self.v4),
            v6: self.v6.map(|changes| add(Family::V6, changes)),
        }
    }
}

impl PerFamily<Changes<'_>> {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().all(|(_, changes)| changes.is_empty())
    }

    /// Returns the number of added rules and of removed rules.
    #[must_use]
    pub fn rule_counts(&self) -> (usize, usize) {
        let counts = self.iter().map(|(_, changes)| changes.rule_counts());
        counts.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }

    /// Lists the removed and added lines, as [`Changes::report`] does. A heading precedes those of IPv6.
    #[must_use]
    pub fn report(&self) -> String {
        let mut out = String::new();
        for (family, changes) in self.iter() {
            if family == Family::V6 && !changes.is_empty() {
                let _ = writeln!(out, "  {family}");
            }
            out.push_str(&changes.report());
        }
        out
    }

    /// Returns the initial counts of the added rules, as [`Changes::carried`] does.
    #[must_use]
    pub fn carried(&self, counters: &PerFamily<&Counters>) -> PerFamily<Counters> {
        let both = self.as_ref().zip(counters.as_ref());
        both.map(|_, (changes, counters)| changes.carried(counters))
    }

    /// Returns a script for each family's iptables-restore. It is empty if nothing changes.
    #[must_use]
    pub fn scripts(&self, counts: &PerFamily<&Counters>) -> PerFamily<String> {
        let both = self.as_ref().zip(counts.as_ref());
        both.map(|_, (changes, counts)| changes.script(counts))
    }
}
