//! A change as text for `iptables-restore --noflush`.

use std::fmt::Write as _;

use super::{ChainChange, Changes, Edit, TableChanges, own, sets_policy};
use crate::counters::{Count, Counters};
use crate::line::{Counted, Line};
use crate::rule::Rule;
use crate::ruleset::Ruleset;

impl Changes<'_> {
    /// The same as a script for `iptables-restore --noflush`. Each table is one transaction.
    ///
    /// A rule that comes begins with what `counts` says of its place in the chain as it will be, if
    /// `--counters` is given, too. No other rule's counters change; of a built-in chain the policy's
    /// begin anew where the policy changes, with `--counters` or without (measured, nft and legacy
    /// 1.8.9).
    #[must_use]
    pub fn script(&self, counts: &Counters) -> String {
        let mut out = String::new();
        for table in &self.tables {
            table.write(counts, &mut out);
        }
        out
    }
}

/// One line, with what its rule begins with.
fn put(out: &mut String, count: Count, line: Line<'_>) {
    let _ = writeln!(out, "{}", Counted(count, line));
}

impl TableChanges<'_> {
    fn write(&self, counts: &Counters, out: &mut String) {
        let mut line = |line| put(out, Count::default(), line);
        line(Line::Table(self.table));
        for (chain, _, policy) in &self.policies {
            line(Line::Chain(chain, Some(*policy)));
        }
        // Every new chain before the first rule: rules of one may lead to another.
        for chain in &self.chains {
            if let Some((name, _)) = chain.refilled() {
                line(Line::Chain(name, None));
            }
        }
        // The jumps before the rules: the kernel refuses a rule in a chain that a hook leads to
        // by itself, not by the jump, so that the error is about that rule.
        for jump in &self.jumps {
            for rule in &jump.removed {
                line(Line::Delete(jump.chain, rule));
            }
            for (n, rule) in jump.inserted.iter().enumerate() {
                line(Line::Insert(jump.chain, n + 1, rule));
            }
        }
        for chain in &self.chains {
            chain.write(counts.of(self.table, chain.name()), out);
        }
        self.write_deletions(out);
        put(out, Count::default(), Line::Commit);
    }

    /// All emptied before the first goes: rules of one may lead to another.
    fn write_deletions(&self, out: &mut String) {
        let deleted = || {
            self.chains.iter().filter_map(|chain| match chain {
                ChainChange::Delete(name, _) => Some(*name),
                _ => None,
            })
        };
        for name in deleted() {
            put(out, Count::default(), Line::Flush(name));
        }
        for name in deleted() {
            put(out, Count::default(), Line::DeleteChain(name));
        }
    }
}

impl ChainChange<'_> {
    fn write(&self, counts: &[Count], out: &mut String) {
        let count = |to: usize| counts.get(to).copied().unwrap_or_default();
        if let Some((name, rules)) = self.refilled() {
            for (to, rule) in rules.iter().enumerate() {
                put(out, count(to), Line::Append(name, rule));
            }
        } else if let ChainChange::Edit { name, want, edits } = self {
            let growth = |edit: &Edit<'_>| (edit.inserted.len(), edit.removed.len());
            let sums = edits.iter().map(growth);
            let (come, go) = sums.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
            let end = want.len() + go - come;
            // From the end, so that the places of the edits before stay what they are.
            for edit in edits.iter().rev() {
                for n in (0..edit.removed.len()).rev() {
                    put(out, Count::default(), Line::DeleteAt(name, edit.at + n + 1));
                }
                for (n, rule) in edit.inserted.iter().enumerate() {
                    let line = if edit.at + edit.removed.len() == end {
                        // For a place, iptables-nft reads the whole chain: ten times the time
                        // (measured, 10,000 rules).
                        Line::Append(name, rule)
                    } else {
                        Line::Insert(name, edit.at + n + 1, rule)
                    };
                    put(out, count(edit.to + n), line);
                }
            }
        }
    }
}

/// A script that brings nvactl's rules to those of `to` from whatever `from` may have left of its
/// own: it names no rule that might not be there, so it loads any number of times. Chains that
/// are not in `to` are left, empty, where foreign rules may lead to them.
#[must_use]
pub fn refill(from: &Ruleset, to: &Ruleset) -> String {
    let mut chains = own(from);
    for (table, name, chain) in to.chains() {
        let mine = chains.chain_mut(table, name.clone());
        mine.policy = chain.policy;
        mine.rules.clone_from(&chain.rules);
        mine.rules.retain(Rule::is_loadable);
    }
    let mut out = String::new();
    for (table, names) in &chains.tables {
        let _ = writeln!(out, "{}", Line::Table(*table));
        for (name, chain) in names {
            match chain.policy {
                Some(policy) if name.is_builtin() && sets_policy(to) => {
                    let _ = writeln!(out, "{}", Line::Chain(name, Some(policy)));
                }
                None if name.is_own() => {
                    let _ = writeln!(out, "{}", Line::Chain(name, None));
                }
                _ => {}
            }
        }
        for name in names.keys().filter(|name| name.is_own()) {
            let rules = to.chain(*table, name).map_or(&[][..], |chain| &chain.rules);
            for rule in rules.iter().filter(|rule| rule.is_loadable()) {
                let _ = writeln!(out, "{}", Line::Append(name, rule));
            }
        }
        let _ = writeln!(out, "{}", Line::Commit);
    }
    out
}
