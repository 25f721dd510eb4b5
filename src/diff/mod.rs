//! Compares the part of two rulesets that nvactl owns: as a report for people, and as the shortest
//! iptables-restore script that turns one into the other.
//!
//! nvactl owns the chains named `NVACTL-…`, the jumps to them from its hooks, and the FORWARD policy if the
//! spec sets it. All other rules are foreign: they are neither compared nor written, unless a change takes some out
//! that the spec says now, or puts them back: [`foreign`].
//!
//! The room must not know the machine or YAML: it compares values.
//!
//! Start here:
//! - the lines of a script and their order: `script`; counters that a rule keeps: `carry`;
//! - a new option of a forward in a comparison: `drift::fields`;
//! - another kind of drift: [`drift`]; rules that are gone altogether: [`flushed`].

mod carry;
pub mod drift;
mod edit;
pub mod families;
pub mod flushed;
pub mod foreign;
mod script;

use std::collections::BTreeSet;
use std::fmt::Write as _;

pub use edit::ChainEdit;
use edit::edits;
use foreign::{ChainLife, ForeignChange, ForeignChanges};
pub use script::refill;

use crate::net::printable;
use crate::netfilter::names::{ChainName, Policy, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::{Chain, Ruleset, Table};
use crate::netfilter::text::line::Line;
use crate::plan::jumps_from;

/// The changes of a ruleset, table by table. Tables without a change are left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes<'r> {
    pub tables: Vec<TableChanges<'r>>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct TableChanges<'r> {
    pub table: TableName,
    /// Built-in chains, each with its present and its new policy. iptables-save does not list a table that
    /// nobody has used yet; the policy of its chains is ACCEPT.
    pub policies: Vec<(&'r ChainName, Policy, Policy)>,
    /// Built-in chains, each with the jumps that are removed and those that are inserted first.
    pub jumps: Vec<JumpChange<'r>>,
    pub chains: Vec<ChainChange<'r>>,
    /// Foreign rules that go or come back.
    pub foreign: Vec<ForeignChange>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct JumpChange<'r> {
    pub chain: &'r ChainName,
    pub removed: Vec<&'r Rule>,
    pub inserted: &'r [Rule],
}

/// A change to one of nvactl's own chains.
#[derive(Debug, PartialEq, Eq)]
pub enum ChainChange<'r> {
    Create(&'r ChainName, &'r [Rule]),
    Edit {
        name: &'r ChainName,
        want: &'r [Rule],
        /// In the order of the chain.
        edits: Vec<ChainEdit<'r>>,
    },
    Delete(&'r ChainName, &'r [Rule]),
}

/// Returns the part of a ruleset that nvactl owns, the FORWARD policy included.
#[must_use]
pub fn own(ruleset: &Ruleset) -> Ruleset {
    let mut own = Ruleset::default();
    for (table, name, chain) in ruleset.chains() {
        if name.is_own() {
            own.chain_mut(table, name.clone())
                .rules
                .clone_from(&chain.rules);
        } else if jumps_from(table, name) && own_jumps(chain).next().is_some() {
            own.chain_mut(table, name.clone()).rules = own_jumps(chain).cloned().collect();
        }
    }
    own.chain_mut(TableName::Filter, ChainName::Forward).policy = Some(ruleset.forward_policy());
    own
}

/// Returns whether a plan sets the FORWARD policy.
#[must_use]
pub fn sets_policy(plan: &Ruleset) -> bool {
    plan.chain(TableName::Filter, &ChainName::Forward)
        .is_some_and(|chain| chain.policy.is_some())
}

/// Returns the jumps to nvactl's chains. A jump that iptables-restore cannot read does not count: no script
/// could delete it by its text.
pub(crate) fn own_jumps(chain: &Chain) -> impl Iterator<Item = &Rule> {
    let leads_to_own = |rule: &&Rule| rule.leads_to().is_some_and(ChainName::is_own);
    chain
        .rules
        .iter()
        .filter(move |rule| leads_to_own(rule) && rule.is_loadable())
}

/// Returns the part of `before` that nvactl owns, for a change from `now` back to it. Rules that somebody has
/// added and that iptables-restore cannot read are left out, unless their chain has not changed.
#[must_use]
pub fn restorable(before: &Ruleset, now: &Ruleset) -> Ruleset {
    let mut own = own(before);
    for (table, chains) in &mut own.tables {
        for (name, chain) in chains {
            let stays = now
                .chain(*table, name)
                .is_some_and(|now| now.rules == chain.rules);
            if !stays {
                chain.rules.retain(Rule::is_loadable);
            }
        }
    }
    own
}

/// Returns the changes from `have`, a whole ruleset, to `want`, which holds only rules that nvactl owns.
#[must_use]
pub fn changes<'r>(have: &'r Ruleset, want: &'r Ruleset) -> Changes<'r> {
    static NOTHING: Table = Table::new();
    let tables: BTreeSet<TableName> = have
        .tables
        .keys()
        .chain(want.tables.keys())
        .copied()
        .collect();
    let tables = tables.into_iter().map(|table| {
        let have = have.tables.get(&table).unwrap_or(&NOTHING);
        let want = want.tables.get(&table).unwrap_or(&NOTHING);
        table_changes(table, have, want)
    });
    Changes {
        tables: tables.filter(|changes| !changes.is_empty()).collect(),
    }
}

fn table_changes<'r>(table: TableName, have: &'r Table, want: &'r Table) -> TableChanges<'r> {
    static NO_CHAIN: Chain = Chain {
        policy: None,
        rules: Vec::new(),
    };
    let mut changes = TableChanges::none(table);
    let names: BTreeSet<&ChainName> = have.keys().chain(want.keys()).collect();
    for name in names {
        let (have, want) = (have.get(name), want.get(name));
        if name.is_builtin() {
            let (have, want) = (have.unwrap_or(&NO_CHAIN), want.unwrap_or(&NO_CHAIN));
            let policy = have.policy.unwrap_or(Policy::Accept);
            if let Some(wanted) = want.policy.filter(|wanted| *wanted != policy) {
                changes.policies.push((name, policy, wanted));
            }
            if jumps_from(table, name) {
                changes.jumps.extend(jump_change(name, have, want));
            }
        } else if name.is_own() {
            changes.chains.extend(match (have, want) {
                (None, Some(want)) => Some(ChainChange::Create(name, &want.rules)),
                (Some(have), None) => Some(ChainChange::Delete(name, &have.rules)),
                (Some(have), Some(want)) if have.rules != want.rules => Some(ChainChange::Edit {
                    name,
                    want: &want.rules,
                    edits: edits(&have.rules, &want.rules),
                }),
                _ => None,
            });
        }
    }
    changes
}

/// Compares the jumps of a built-in chain. They must be the chain's first rules, and the only jumps to
/// nvactl's chains.
fn jump_change<'r>(
    chain: &'r ChainName,
    have: &'r Chain,
    want: &'r Chain,
) -> Option<JumpChange<'r>> {
    let removed: Vec<&Rule> = own_jumps(have).collect();
    if have.rules.starts_with(&want.rules) && removed.len() == want.rules.len() {
        return None;
    }
    Some(JumpChange {
        chain,
        removed,
        inserted: &want.rules,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Added,
    Removed,
}

impl TableChanges<'_> {
    fn none(table: TableName) -> Self {
        Self {
            table,
            policies: Vec::new(),
            jumps: Vec::new(),
            chains: Vec::new(),
            foreign: Vec::new(),
        }
    }

    /// Returns the chains in which the script addresses rules by number.
    #[must_use]
    pub fn in_place(&self) -> BTreeSet<&ChainName> {
        let edited = |chain: &&ChainChange<'_>| {
            matches!(chain, ChainChange::Edit { .. }) && chain.refilled().is_none()
        };
        let own = self.chains.iter().filter(edited).map(ChainChange::name);
        own.chain(self.foreign.iter().map(|change| &change.chain))
            .collect()
    }

    fn is_empty(&self) -> bool {
        self.policies.is_empty()
            && self.jumps.is_empty()
            && self.chains.is_empty()
            && self.foreign.is_empty()
    }

    /// Returns the lines of iptables-save that are added and removed.
    fn lines(&self) -> Vec<(Sign, Line<'_>)> {
        use Sign::{Added, Removed};
        let mut lines = Vec::new();
        for (chain, from, to) in &self.policies {
            lines.push((Removed, Line::Chain(chain, Some(*from))));
            lines.push((Added, Line::Chain(chain, Some(*to))));
        }
        for change in &self.foreign {
            let chain = &change.chain;
            let declared = match change.life {
                ChainLife::Stays => None,
                ChainLife::Made => Some(Added),
                ChainLife::Deleted => Some(Removed),
            };
            lines.extend(declared.map(|sign| (sign, Line::Chain(chain, None))));
            let removed = change.removed.iter();
            lines.extend(removed.map(|(_, rule)| (Removed, Line::Append(chain, rule))));
            let inserted = change.inserted.iter();
            lines.extend(inserted.map(|(at, rule)| (Added, Line::Insert(chain, at + 1, rule))));
        }
        for jump in &self.jumps {
            let removed = jump.removed.iter();
            lines.extend(removed.map(|rule| (Removed, Line::Append(jump.chain, rule))));
            let inserted = (1..).zip(jump.inserted);
            lines.extend(inserted.map(|(n, rule)| (Added, Line::Insert(jump.chain, n, rule))));
        }
        for chain in &self.chains {
            let name = chain.name();
            let rule = |sign| move |rule| (sign, Line::Append(name, rule));
            match chain {
                ChainChange::Create(_, rules) => {
                    lines.push((Added, Line::Chain(name, None)));
                    lines.extend(rules.iter().map(rule(Added)));
                }
                ChainChange::Delete(_, rules) => {
                    lines.push((Removed, Line::Chain(name, None)));
                    lines.extend(rules.iter().map(rule(Removed)));
                }
                ChainChange::Edit { edits, .. } => {
                    for edit in edits {
                        lines.extend(edit.removed.iter().map(rule(Removed)));
                        lines.extend(edit.inserted.iter().map(rule(Added)));
                    }
                }
            }
        }
        lines
    }
}

impl Changes<'_> {
    /// Adds changes of foreign rules, which come before nvactl's own in each table.
    #[must_use]
    pub fn with_foreign(mut self, foreign: ForeignChanges) -> Self {
        for (table, changes) in foreign {
            let at = self.tables.partition_point(|one| one.table < table);
            if self.tables.get(at).is_none_or(|one| one.table != table) {
                self.tables.insert(at, TableChanges::none(table));
            }
            self.tables[at].foreign.extend(changes);
        }
        self
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Returns the present and the new FORWARD policy, if it changes.
    #[must_use]
    pub fn forward_policy(&self) -> Option<(Policy, Policy)> {
        self.tables
            .iter()
            .flat_map(|table| &table.policies)
            .find(|(chain, ..)| **chain == ChainName::Forward)
            .map(|(_, from, to)| (*from, *to))
    }

    /// Returns the number of added rules and of removed rules.
    #[must_use]
    pub fn rule_counts(&self) -> (usize, usize) {
        let sum = |runs: Vec<(usize, &[Rule])>| -> usize {
            runs.iter().map(|(_, rules)| rules.len()).sum()
        };
        let (mut added, mut removed) = (0, 0);
        for table in &self.tables {
            for change in &table.foreign {
                added += change.inserted.len();
                removed += change.removed.len();
            }
            for jump in &table.jumps {
                added += jump.inserted.len();
                removed += jump.removed.len();
            }
            for chain in &table.chains {
                added += sum(chain.inserted());
                removed += sum(chain.removed());
            }
        }
        (added, removed)
    }

    /// Returns the chains that the script changes, or `None` if it deletes a chain or changes foreign rules.
    #[must_use]
    pub fn touched(&self) -> Option<Vec<(TableName, &ChainName)>> {
        let mut touched = BTreeSet::new();
        for table in &self.tables {
            let policies = table.policies.iter().map(|(chain, ..)| *chain);
            let jumps = table.jumps.iter().map(|jump| jump.chain);
            if !table.foreign.is_empty() {
                return None;
            }
            let chains = table.chains.iter().map(ChainChange::name);
            touched.extend(
                policies
                    .chain(jumps)
                    .chain(chains)
                    .map(|chain| (table.table, chain)),
            );
            let deletes = |chain: &ChainChange<'_>| matches!(chain, ChainChange::Delete(..));
            if table.chains.iter().any(deletes) {
                return None;
            }
        }
        Some(touched.into_iter().collect())
    }

    /// Lists the removed and added rules under the name of their table, each as `-` or `+` and the line that
    /// iptables-save prints for it.
    #[must_use]
    pub fn report(&self) -> String {
        let mut out = String::new();
        for table in &self.tables {
            let _ = writeln!(out, "  {}", Line::Table(table.table));
            for (sign, line) in table.lines() {
                let sign = match sign {
                    Sign::Added => '+',
                    Sign::Removed => '-',
                };
                let _ = writeln!(out, "{sign} {}", printable::line(line));
            }
        }
        out
    }
}

/// Returns a copy of a ruleset that holds only these chains.
#[must_use]
pub fn only(ruleset: &Ruleset, chains: &[(TableName, &ChainName)]) -> Ruleset {
    let mut only = Ruleset::default();
    for (table, name) in chains {
        if let Some(chain) = ruleset.chain(*table, name) {
            *only.chain_mut(*table, (*name).clone()) = chain.clone();
        }
    }
    only
}

/// Returns whether nvactl's part of two rulesets is equal. The position of a jump among foreign rules does not
/// count, and the FORWARD policy counts only if `with_policy` is set.
#[must_use]
pub fn holds_the_same(one: &Ruleset, other: &Ruleset, with_policy: bool) -> bool {
    let mine = |ruleset: &Ruleset| {
        let mine = own(ruleset);
        if with_policy {
            mine
        } else {
            mine.without_forward_policy()
        }
    };
    mine(one) == mine(other)
}

impl<'r> ChainChange<'r> {
    fn name(&self) -> &'r ChainName {
        match self {
            ChainChange::Create(name, _)
            | ChainChange::Delete(name, _)
            | ChainChange::Edit { name, .. } => name,
        }
    }

    /// Returns the rules of a chain that the script fills from empty: a new chain, or one that keeps no rule. A
    /// chain that keeps a rule is not emptied, since the rule would lose its counters.
    fn refilled(&self) -> Option<(&'r ChainName, &'r [Rule])> {
        match self {
            ChainChange::Create(name, rules) => Some((name, rules)),
            ChainChange::Edit { name, want, edits } => {
                let inserted: usize = edits.iter().map(|edit| edit.inserted.len()).sum();
                (inserted == want.len()).then_some((*name, *want))
            }
            ChainChange::Delete(..) => None,
        }
    }

    /// Returns the removed rules in runs, each with the index of its first rule in the present chain.
    fn removed(&self) -> Vec<(usize, &'r [Rule])> {
        match self {
            ChainChange::Create(..) => Vec::new(),
            ChainChange::Delete(_, rules) => vec![(0, rules)],
            ChainChange::Edit { edits, .. } => {
                edits.iter().map(|edit| (edit.at, edit.removed)).collect()
            }
        }
    }

    /// Returns the added rules in runs, each with the index of its first rule in the new chain.
    fn inserted(&self) -> Vec<(usize, &'r [Rule])> {
        match self {
            ChainChange::Create(_, rules) => vec![(0, rules)],
            ChainChange::Delete(..) => Vec::new(),
            ChainChange::Edit { edits, .. } => {
                edits.iter().map(|edit| (edit.to, edit.inserted)).collect()
            }
        }
    }
}
