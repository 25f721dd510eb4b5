//! The rules of nvactl's chains by the forward or outbound entry that they name.

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

/// Returns the rules of `planned` that belong to no forward and that are missing in `live`. `planned` is
/// [`replanned`](crate::plan::unplan::replanned) from the live rules.
#[must_use]
pub fn gone<'p>(live: &Ruleset, planned: &'p Ruleset) -> Vec<PlacedRule<'p>> {
    let mut gone = Vec::new();
    for (table, name, chain) in planned.chains().filter(|(_, name, _)| name.is_own()) {
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
