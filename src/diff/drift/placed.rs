//! The rules of nvactl's chains by the forward or outbound entry that they name, or whose rules lead to them.

use std::collections::{BTreeMap, BTreeSet};

use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::plan::Hook;
use crate::plan::unplan::{ForwardKey, is_outbound, key_of, name_of};

/// A rule and its chain. All chains of one hook's tree count as equal, since one more forward may move a rule
/// to another of them.
#[derive(Debug, Clone, Copy)]
pub struct PlacedRule<'r> {
    pub table: TableName,
    pub chain: &'r ChainName,
    pub rule: &'r Rule,
}

impl PartialEq for PlacedRule<'_> {
    fn eq(&self, other: &Self) -> bool {
        let hooks = (Hook::of(self.chain), Hook::of(other.chain));
        let together = self.chain == other.chain || (hooks.0.is_some() && hooks.0 == hooks.1);
        together && self.table == other.table && self.rule == other.rule
    }
}

/// Returns the rules of nvactl's chains, grouped by the forward that they name.
#[must_use]
pub fn rules_by_key(ruleset: &Ruleset) -> BTreeMap<ForwardKey<'_>, Vec<PlacedRule<'_>>> {
    let mut by_key: BTreeMap<ForwardKey<'_>, Vec<_>> = BTreeMap::new();
    for (table, chain, body) in ruleset.chains().filter(|(_, name, _)| name.is_own()) {
        for rule in &body.rules {
            if let Some(key) = key_of(rule).filter(|_| !is_outbound(chain, rule)) {
                let place = PlacedRule { table, chain, rule };
                by_key.entry(key).or_default().push(place);
            }
        }
    }
    by_key
}

/// Returns the rules that name an outbound entry, grouped by that name.
#[must_use]
pub fn outbound_rules(ruleset: &Ruleset) -> BTreeMap<&str, Vec<PlacedRule<'_>>> {
    let mut by_name: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for (table, chain, body) in ruleset.chains().filter(|(_, name, _)| name.is_own()) {
        for rule in body.rules.iter().filter(|rule| is_outbound(chain, rule)) {
            if let Some(name) = name_of(rule) {
                let place = PlacedRule { table, chain, rule };
                by_name.entry(name).or_default().push(place);
            }
        }
    }
    by_name
}

/// Returns the rules of hooks in `planned` that belong to no forward and that are missing in `live`. `planned` is
/// [`replanned`](crate::plan::unplan::replanned) from the live rules. [`missing_lines`] returns those of lists: a list is
/// read back without the lines that are missing, so only the spec has them.
#[must_use]
pub fn gone<'p>(live: &Ruleset, planned: &'p Ruleset) -> Vec<PlacedRule<'p>> {
    let mut gone = Vec::new();
    let own = planned.chains();
    for (table, name, chain) in own.filter(|(_, name, _)| Hook::of(name).is_some()) {
        let rules = live
            .chain(table, name)
            .map_or(&[][..], |chain| &chain.rules);
        let rules: BTreeSet<&Rule> = rules.iter().collect();
        let rules_there = chain.rules.iter();
        let common = rules_there.filter(|rule| key_of(rule).is_none() && !is_outbound(name, rule));
        let missing = common.filter(|rule| !rules.contains(rule));
        let chain = name;
        gone.extend(missing.map(|rule| PlacedRule { table, chain, rule }));
    }
    gone
}

/// Returns the rules of `planned` that name no forward or outbound entry, and that are missing in a loaded chain of a
/// list, a log or limits. `planned` is the plan of the spec.
#[must_use]
pub fn missing_lines<'p>(live: &Ruleset, planned: &'p Ruleset) -> Vec<PlacedRule<'p>> {
    let mut missing = Vec::new();
    let own = planned.chains().filter(|(_, name, _)| name.is_own());
    for (table, name, chain) in own.filter(|(_, name, _)| Hook::of(name).is_none()) {
        let Some(loaded) = live.chain(table, name).filter(|loaded| *loaded != chain) else {
            continue;
        };
        let loaded: BTreeSet<&Rule> = loaded.rules.iter().collect();
        let names_owner = |rule: &Rule| match is_outbound(name, rule) {
            true => name_of(rule).is_some(),
            false => key_of(rule).is_some(),
        };
        let rules = chain.rules.iter().filter(|rule| !names_owner(rule));
        let rules = rules.filter(|rule| !loaded.contains(rule));
        missing.extend(rules.map(|rule| PlacedRule {
            table,
            chain: name,
            rule,
        }));
    }
    missing
}

/// The forwards and outbound entries whose rules lead to a chain.
#[derive(Debug)]
pub struct ChainOwners<'r> {
    /// For each chain beside those of hooks, the chains with a rule that leads to it, and the name in that rule.
    before: BTreeMap<(TableName, &'r ChainName), Vec<(&'r ChainName, Option<&'r str>)>>,
}

impl<'r> ChainOwners<'r> {
    /// Reads which chains lead to which.
    #[must_use]
    pub fn of(ruleset: &'r Ruleset) -> Self {
        let mut before: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (table, name, chain) in ruleset.chains().filter(|(_, name, _)| name.is_own()) {
            for rule in &chain.rules {
                let next = rule.leads_to().filter(|next| Hook::of(next).is_none());
                if let Some(next) = next {
                    let to_next = before.entry((table, next)).or_default();
                    to_next.push((name, name_of(rule)));
                }
            }
        }
        Self { before }
    }

    /// Returns the names in the rules that lead to a chain, directly or by other chains.
    #[must_use]
    pub fn owners(&self, table: TableName, chain: &ChainName) -> BTreeSet<&'r str> {
        let mut owners = BTreeSet::new();
        let (mut next, mut seen) = (vec![chain], BTreeSet::new());
        while let Some(chain) = next.pop() {
            for (from, name) in self.before.get(&(table, chain)).into_iter().flatten() {
                match name {
                    Some(name) => _ = owners.insert(*name),
                    None if seen.insert(*from) => next.push(from),
                    None => {}
                }
            }
        }
        owners
    }
}
