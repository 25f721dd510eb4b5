//! What separates two rulesets in the part that nvactl owns: for people, and as the shortest
//! iptables-restore script that leads from the one to the other.
//!
//! nvactl owns the chains named `NVACTL-…`, the jumps to them from where it jumps, and the FORWARD
//! policy where the spec sets it. Everything else is foreign, not looked at and not written.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::hash::Hash;

use similar::DiffOp;
use similar::algorithms::{Capture, Compact, Replace, myers};

use crate::line::Line;
use crate::plan::jumps_from;
use crate::rule::Rule;
use crate::ruleset::{Chain, ChainName, Policy, Ruleset, Table, TableName};

/// What must change in a ruleset, table by table. Tables without a change are left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes<'r> {
    pub tables: Vec<TableChanges<'r>>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct TableChanges<'r> {
    pub table: TableName,
    /// Built-in chains, the policy each has and the one it gets. A table that nobody has used yet
    /// is not listed by iptables-save; its chains accept.
    pub policies: Vec<(&'r ChainName, Policy, Policy)>,
    /// Built-in chains, the jumps that go and those that come to stand first.
    pub jumps: Vec<JumpChange<'r>>,
    pub chains: Vec<ChainChange<'r>>,
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
        edits: Vec<Edit<'r>>,
    },
    Delete(&'r ChainName, &'r [Rule]),
}

/// Rules of one place exchanged for others; either side may be empty.
#[derive(Debug, PartialEq, Eq)]
pub struct Edit<'r> {
    /// The place of the first rule concerned in the chain as it is, counted from 0.
    pub at: usize,
    pub removed: &'r [Rule],
    pub inserted: &'r [Rule],
}

/// The part of a ruleset that nvactl owns, the FORWARD policy included.
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

/// Whether a plan sets the FORWARD policy, rather than leave it alone.
#[must_use]
pub fn sets_policy(plan: &Ruleset) -> bool {
    plan.chain(TableName::Filter, &ChainName::Forward)
        .is_some_and(|chain| chain.policy.is_some())
}

fn own_jumps(chain: &Chain) -> impl Iterator<Item = &Rule> {
    chain
        .rules
        .iter()
        .filter(|rule| rule.leads_to().is_some_and(ChainName::is_own))
}

/// What leads from `have`, a whole ruleset, to `want`, which says only what nvactl owns.
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
    let mut changes = TableChanges {
        table,
        policies: Vec::new(),
        jumps: Vec::new(),
        chains: Vec::new(),
    };
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

/// The jumps must be the chain's first rules, and there must be no others.
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

fn edits<'r>(have: &'r [Rule], want: &'r [Rule]) -> Vec<Edit<'r>> {
    operations(have, want)
        .into_iter()
        .filter(|op| !matches!(op, DiffOp::Equal { .. }))
        .map(|op| Edit {
            at: op.old_range().start,
            removed: &have[op.old_range()],
            inserted: &want[op.new_range()],
        })
        .collect()
}

/// What leads from the one list to the other, and what stays, in the order of both.
///
/// By name, since a choice of algorithms would bring all of them, for each type that is compared.
#[must_use]
pub fn operations<T: Eq + Hash>(have: &[T], want: &[T]) -> Vec<DiffOp> {
    let mut operations = Compact::new(Replace::new(Capture::new()), have, want);
    let Ok(()) = myers::diff(&mut operations, have, 0..have.len(), want, 0..want.len());
    operations.into_inner().into_inner().into_ops()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Added,
    Removed,
}

impl TableChanges<'_> {
    fn is_empty(&self) -> bool {
        self.policies.is_empty() && self.jumps.is_empty() && self.chains.is_empty()
    }

    /// The lines of iptables-save that come and go.
    fn lines(&self) -> Vec<(Sign, Line<'_>)> {
        use Sign::{Added, Removed};
        let mut lines = Vec::new();
        for (chain, from, to) in &self.policies {
            lines.push((Removed, Line::Chain(chain, Some(*from))));
            lines.push((Added, Line::Chain(chain, Some(*to))));
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
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The FORWARD policy as it is and as it will be, if it changes.
    #[must_use]
    pub fn forward_policy(&self) -> Option<(Policy, Policy)> {
        self.tables
            .iter()
            .flat_map(|table| &table.policies)
            .find(|(chain, ..)| **chain == ChainName::Forward)
            .map(|(_, from, to)| (*from, *to))
    }

    /// How many rules come, and how many go.
    #[must_use]
    pub fn rule_counts(&self) -> (usize, usize) {
        let lines = || self.tables.iter().flat_map(TableChanges::lines);
        let rules = |wanted: Sign| {
            lines()
                .filter(|(sign, line)| *sign == wanted && line.is_rule())
                .count()
        };
        (rules(Sign::Added), rules(Sign::Removed))
    }

    /// The rules that go and come, each as `-`/`+` and the line that iptables-save has for it,
    /// under the name of its table.
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
                let _ = writeln!(out, "{sign} {line}");
            }
        }
        out
    }

    /// The same as a script for `iptables-restore --noflush`. Each table is one transaction.
    #[must_use]
    pub fn script(&self) -> String {
        let mut out = String::new();
        for table in &self.tables {
            let mut line = |line: Line<'_>| {
                let _ = writeln!(out, "{line}");
            };
            line(Line::Table(table.table));
            for (chain, _, policy) in &table.policies {
                line(Line::Chain(chain, Some(*policy)));
            }
            // Every new chain before the first rule: rules of one may lead to another.
            for chain in &table.chains {
                if let Some((name, _)) = chain.refilled() {
                    line(Line::Chain(name, None));
                }
            }
            // The jumps before the rules: the kernel refuses a rule in a chain that a hook leads to
            // by itself, not by the jump, so that the error is about that rule.
            for jump in &table.jumps {
                for rule in &jump.removed {
                    line(Line::Delete(jump.chain, rule));
                }
                for (n, rule) in jump.inserted.iter().enumerate() {
                    line(Line::Insert(jump.chain, n + 1, rule));
                }
            }
            for chain in &table.chains {
                match chain {
                    ChainChange::Edit { name, edits, .. } if chain.refilled().is_none() => {
                        // From the end, so that the places of the edits before stay what they are.
                        for edit in edits.iter().rev() {
                            for n in (0..edit.removed.len()).rev() {
                                line(Line::DeleteAt(name, edit.at + n + 1));
                            }
                            for (n, rule) in edit.inserted.iter().enumerate() {
                                line(Line::Insert(name, edit.at + n + 1, rule));
                            }
                        }
                    }
                    _ => {
                        let (name, rules) = chain.refilled().unwrap_or((chain.name(), &[]));
                        for rule in rules {
                            line(Line::Append(name, rule));
                        }
                    }
                }
            }
            // All emptied before the first goes: rules of one may lead to another.
            let deleted = || {
                table.chains.iter().filter_map(|chain| match chain {
                    ChainChange::Delete(name, _) => Some(*name),
                    _ => None,
                })
            };
            for name in deleted() {
                line(Line::Flush(name));
            }
            for name in deleted() {
                line(Line::DeleteChain(name));
            }
            line(Line::Commit);
        }
        out
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
            for rule in rules {
                let _ = writeln!(out, "{}", Line::Append(name, rule));
            }
        }
        let _ = writeln!(out, "{}", Line::Commit);
    }
    out
}

/// Whether two rulesets hold the same of nvactl's, wherever its jumps stand among others; the
/// FORWARD policy only if `with_policy` sets it.
#[must_use]
pub fn holds_the_same(one: &Ruleset, other: &Ruleset, with_policy: bool) -> bool {
    let mine = |ruleset: &Ruleset| {
        let mut mine = own(ruleset);
        if !with_policy {
            mine.chain_mut(TableName::Filter, ChainName::Forward).policy = None;
        }
        mine
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

    /// The rules of a chain that is filled from nothing: a new one, or one of which no rule stays.
    /// Where a rule stays it must keep its counters, which emptying the chain would lose.
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
}
