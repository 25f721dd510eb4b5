//! Foreign rules that one change takes out or puts back: the rules that some chains should have, and the edits by
//! place that lead there from any state.
//!
//! All other foreign rules stay as they are, those included that others add in between.

use std::collections::{BTreeMap, BTreeSet};

use super::edit::edits;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::{Chain, Ruleset};

/// The foreign rules of some chains as they should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForeignGoal(BTreeMap<(TableName, ChainName), GoalChain>);

/// The foreign rules of one chain as they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoalChain {
    /// In their order. `None`: the chain should not be there.
    pub rules: Option<Vec<Rule>>,
    /// The rules that should not be there. Any other rule that somebody adds may stay.
    pub absent: Vec<Rule>,
}

/// The foreign rules before and after a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForeignShift {
    pub old: ForeignGoal,
    pub new: ForeignGoal,
}

/// The changes of foreign rules, by table.
pub type ForeignChanges = BTreeMap<TableName, Vec<ForeignChange>>;

/// The changes of the foreign rules of one chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignChange {
    pub chain: ChainName,
    pub life: ChainLife,
    /// The rules that go, each with its index in the present chain, rising from 0.
    pub removed: Vec<(usize, Rule)>,
    /// The rules that come, each with its index in the new chain, rising from 0.
    pub inserted: Vec<(usize, Rule)>,
}

/// Whether a foreign chain itself comes or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainLife {
    Stays,
    Made,
    Deleted,
}

/// Returns whether a rule is nvactl's own jump.
fn is_own(rule: &Rule) -> bool {
    rule.leads_to().is_some_and(ChainName::is_own)
}

/// Returns the rules of a chain that are not nvactl's.
pub fn foreign_rules(chain: &Chain) -> impl Iterator<Item = &Rule> {
    chain.rules.iter().filter(|rule| !is_own(rule))
}

impl ForeignGoal {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets the goal of a chain. A built-in chain is always there.
    pub fn set(&mut self, table: TableName, chain: ChainName, goal: GoalChain) {
        self.0.insert((table, chain), goal);
    }

    /// Iterates over the chains that the goal is about.
    pub fn chains(&self) -> impl Iterator<Item = (TableName, &ChainName)> {
        self.0.keys().map(|(table, chain)| (*table, chain))
    }

    /// Returns the changes that lead from the loaded rules to the goal. Rules that iptables-restore cannot read are
    /// never added.
    #[must_use]
    pub fn changes(&self, live: &Ruleset) -> ForeignChanges {
        let mut all = ForeignChanges::new();
        for ((table, name), goal) in &self.0 {
            if let Some(change) = goal.change(name, live.chain(*table, name)) {
                all.entry(*table).or_default().push(change);
            }
        }
        all
    }

    /// Returns the rules as they are once the goal is reached.
    #[must_use]
    pub fn reached(&self, live: &Ruleset) -> Ruleset {
        let mut after = live.clone();
        for (table, changes) in self.changes(live) {
            for change in changes {
                if change.life == ChainLife::Deleted {
                    after.tables.entry(table).or_default().remove(&change.chain);
                    continue;
                }
                let chain = after.chain_mut(table, change.chain);
                for (at, _) in change.removed.iter().rev() {
                    chain.rules.remove(*at);
                }
                for (at, rule) in change.inserted {
                    chain.rules.insert(at.min(chain.rules.len()), rule);
                }
            }
        }
        after
    }
}

impl GoalChain {
    fn change(&self, name: &ChainName, live: Option<&Chain>) -> Option<ForeignChange> {
        let absent: BTreeSet<&Rule> = self.absent.iter().collect();
        let is_absent = |rule: &Rule| absent.contains(rule);
        let Some(wanted) = &self.rules else {
            let live = live?;
            let is_whole = live.rules.iter().all(is_absent);
            let goes = live.rules.iter().cloned().enumerate();
            let removed: Vec<(usize, Rule)> = goes.filter(|(_, rule)| is_absent(rule)).collect();
            // A chain to which somebody has added a rule stays.
            return (is_whole || !removed.is_empty()).then(|| ForeignChange {
                chain: name.clone(),
                life: if is_whole {
                    ChainLife::Deleted
                } else {
                    ChainLife::Stays
                },
                removed,
                inserted: Vec::new(),
            });
        };
        let none = Chain::default();
        let present = live.unwrap_or(&none);
        let (places, rules): (Vec<usize>, Vec<Rule>) = {
            let all = present.rules.iter().enumerate();
            let foreign = all.filter(|(_, rule)| !is_own(rule));
            foreign.map(|(at, rule)| (at, rule.clone())).unzip()
        };
        let mut removed = Vec::new();
        // The rules to add, by the index of the foreign rule that they come before.
        let mut before: BTreeMap<usize, &[Rule]> = BTreeMap::new();
        let all = edits(&rules, wanted);
        for edit in &all {
            for (n, rule) in edit.removed.iter().enumerate() {
                if is_absent(rule) {
                    removed.push((places[edit.at + n], rule.clone()));
                }
            }
            before.insert(edit.at + edit.removed.len(), edit.inserted);
        }
        let mut inserted = Vec::new();
        let mut next = 0;
        let mut add = |foreign: usize, next: &mut usize| {
            let come = before.get(&foreign).copied().unwrap_or_default();
            for rule in come.iter().filter(|rule| rule.is_loadable()) {
                inserted.push((*next, rule.clone()));
                *next += 1;
            }
        };
        let mut foreign = 0;
        let mut gone = removed.iter().map(|(place, _)| *place).peekable();
        for at in 0..present.rules.len() {
            if places.get(foreign) == Some(&at) {
                add(foreign, &mut next);
                foreign += 1;
            }
            let goes = gone.next_if_eq(&at).is_some();
            next += usize::from(!goes);
        }
        add(foreign, &mut next);
        // A table that is not used yet has its built-in chains, which iptables-save does not list.
        let is_made = live.is_none() && !name.is_builtin();
        (is_made || !removed.is_empty() || !inserted.is_empty()).then(|| ForeignChange {
            chain: name.clone(),
            life: if is_made {
                ChainLife::Made
            } else {
                ChainLife::Stays
            },
            removed,
            inserted,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diff::Changes;
    use crate::netfilter::counters::Counters;
    use crate::netfilter::text::parse::parse;

    fn filter(lines: &str) -> Ruleset {
        parse(&format!("*filter\n{lines}\nCOMMIT\n")).expect("it is a ruleset")
    }

    fn rules(lines: &[&str]) -> Vec<Rule> {
        let text: String = lines
            .iter()
            .map(|line| format!("-A FORWARD {line}\n"))
            .collect();
        let read = filter(&text);
        let chain = read.chain(TableName::Filter, &ChainName::Forward);
        chain.map_or(Vec::new(), |chain| chain.rules.clone())
    }

    fn goal(wanted: &[&str], absent: &[&str]) -> ForeignGoal {
        let mut goal = ForeignGoal::default();
        let chain = GoalChain {
            rules: Some(rules(wanted)),
            absent: rules(absent),
        };
        goal.set(TableName::Filter, ChainName::Forward, chain);
        goal
    }

    fn script(goal: &ForeignGoal, live: &Ruleset) -> String {
        let changes = Changes::default().with_foreign(goal.changes(live));
        changes.script(&Counters::default())
    }

    const A: &str = "-s 192.0.2.1/32 -j ACCEPT";
    const B: &str = "-s 192.0.2.2/32 -j ACCEPT";
    const C: &str = "-s 192.0.2.3/32 -j ACCEPT";
    const D: &str = "-s 192.0.2.4/32 -j ACCEPT";

    fn live(lines: &[&str]) -> Ruleset {
        let text: String = lines
            .iter()
            .map(|line| format!("-A FORWARD {line}\n"))
            .collect();
        filter(&format!(":NVACTL-FORWARD - [0:0]\n{text}"))
    }

    #[test]
    fn rules_go_by_their_places_the_last_first() {
        let live = live(&["-j NVACTL-FORWARD", A, B, C, A]);
        let goal = goal(&[B], &[A, C]);
        assert_eq!(
            script(&goal, &live),
            "*filter\n-D FORWARD 5\n-D FORWARD 4\n-D FORWARD 2\nCOMMIT\n"
        );
        assert!(goal.changes(&goal.reached(&live)).is_empty());
    }

    #[test]
    fn rules_come_back_between_their_neighbours() {
        let goal = goal(&[A, B, C, D], &[]);
        for (now, lines) in [
            (
                &["-j NVACTL-FORWARD", B, D][..],
                "-I FORWARD 2 {A}\n-I FORWARD 4 {C}\n",
            ),
            // Rules that others have added stay.
            (
                &[D, "-j LOG"],
                "-I FORWARD 1 {A}\n-I FORWARD 2 {B}\n-I FORWARD 3 {C}\n",
            ),
            (
                &["-j NVACTL-FORWARD"],
                "-I FORWARD 2 {A}\n-I FORWARD 3 {B}\n-I FORWARD 4 {C}\n-I FORWARD 5 {D}\n",
            ),
        ] {
            let live = live(now);
            let lines = [("{A}", A), ("{B}", B), ("{C}", C), ("{D}", D)]
                .iter()
                .fold(lines.to_owned(), |lines, (word, rule)| {
                    lines.replace(word, rule)
                });
            assert_eq!(script(&goal, &live), format!("*filter\n{lines}COMMIT\n"));
            assert!(goal.changes(&goal.reached(&live)).is_empty());
        }
    }

    #[test]
    fn a_table_that_is_not_used_yet_has_its_chains() {
        let goal = goal(&[A], &[]);
        assert_eq!(
            script(&goal, &Ruleset::default()),
            format!("*filter\n-I FORWARD 1 {A}\nCOMMIT\n")
        );
    }

    #[test]
    fn a_rule_that_was_removed_by_mistake_is_missing() {
        // Somebody has put a rule in front, so that the place of `B` had `A`.
        let goal = goal(&[A, C], &[B]);
        let now = live(&[D, B, C]);
        assert_eq!(
            script(&goal, &now),
            format!("*filter\n-D FORWARD 2\n-I FORWARD 2 {A}\nCOMMIT\n")
        );
        assert!(goal.changes(&live(&[D, A, C])).is_empty());
    }

    #[test]
    fn a_chain_goes_with_all_its_rules_and_comes_back() {
        let with = filter(&format!(
            ":MINE - [0:0]\n-A FORWARD -j MINE\n-A FORWARD {B}\n-A MINE {A}\n-A MINE {C}"
        ));
        let chain = |rules: Option<&[Rule]>, absent: &[Rule]| GoalChain {
            rules: rules.map(<[Rule]>::to_vec),
            absent: absent.to_vec(),
        };
        let of = |name: &str| {
            let chain = with.chain(TableName::Filter, &ChainName::from(name));
            chain.expect("it is there").rules.clone()
        };
        let (forward, mine) = (of("FORWARD"), of("MINE"));
        let (mut without, mut back) = (ForeignGoal::default(), ForeignGoal::default());
        let table = TableName::Filter;
        without.set(
            table,
            ChainName::Forward,
            chain(Some(&forward[1..]), &forward[..1]),
        );
        without.set(table, ChainName::from("MINE"), chain(None, &mine));
        back.set(table, ChainName::Forward, chain(Some(&forward), &[]));
        back.set(table, ChainName::from("MINE"), chain(Some(&mine), &[]));
        assert_eq!(
            script(&without, &with),
            "*filter\n-D FORWARD 1\n-F MINE\n-X MINE\nCOMMIT\n"
        );
        let gone = without.reached(&with);
        assert!(gone.chain(table, &ChainName::from("MINE")).is_none());
        assert_eq!(
            script(&back, &gone),
            format!(
                "*filter\n:MINE - [0:0]\n-I FORWARD 1 -j MINE\n-I MINE 1 {A}\n-I MINE 2 {C}\nCOMMIT\n"
            )
        );
        assert_eq!(back.reached(&gone), with);
        // A chain with another rule stays.
        let mut more = with.clone();
        more.chain_mut(table, ChainName::from("MINE"))
            .rules
            .extend(rules(&[D]));
        assert_eq!(
            script(&without, &more),
            "*filter\n-D FORWARD 1\n-D MINE 2\n-D MINE 1\nCOMMIT\n"
        );
    }
}
