//! The changes of both families as one.

use std::fmt::Write as _;

use super::Changes;
use crate::diff;
use crate::net::Family;
use crate::net::per_family::PerFamily;
use crate::netfilter::counters::Counters;
use crate::netfilter::ruleset::Ruleset;

/// What leads from `have` to `want`, which says only what nvactl owns.
#[must_use]
pub fn changes<'r>(
    have: &PerFamily<&'r Ruleset>,
    want: &'r PerFamily<Ruleset>,
) -> PerFamily<Changes<'r>> {
    let both = have.as_ref().zip(want.as_ref());
    both.map(|_, (have, want)| diff::changes(have, want))
}

impl PerFamily<Changes<'_>> {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().all(|(_, changes)| changes.is_empty())
    }

    /// How many rules come, and how many go.
    #[must_use]
    pub fn rule_counts(&self) -> (usize, usize) {
        let counts = self.iter().map(|(_, changes)| changes.rule_counts());
        counts.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }

    /// The lines that go and come, as [`Changes::report`]; those of IPv6 under a line that says so.
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

    /// What the rules that come begin with, as [`Changes::carried`].
    #[must_use]
    pub fn carried(&self, counters: &PerFamily<&Counters>) -> PerFamily<Counters> {
        let both = self.as_ref().zip(counters.as_ref());
        both.map(|_, (changes, counters)| changes.carried(counters))
    }

    /// Each as a script for that family's iptables-restore; empty where nothing changes.
    #[must_use]
    pub fn scripts(&self, counts: &PerFamily<&Counters>) -> PerFamily<String> {
        let both = self.as_ref().zip(counts.as_ref());
        both.map(|_, (changes, counts)| changes.script(counts))
    }
}
