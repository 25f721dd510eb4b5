//! The change of live rules that an import stands for: the plan comes, and the rules that were taken over go.

use std::collections::BTreeSet;

use crate::diff::foreign::{ForeignGoal, GoalChain};
use crate::host::iptables::Iptables;
use crate::import::{Draft, ImportedPlace, RuleFate};
use crate::net::Family;
use crate::net::per_family::PerFamily;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::plan::plan;
use crate::twin::rule_change::RuleChange;

/// Returns the change from live rules to those of a draft, for a copy of the machine.
pub(super) fn change(live: &PerFamily<&Ruleset>, draft: &Draft, iptables: Iptables) -> RuleChange {
    let taken = draft.accounts.iter();
    let taken = taken.filter(|one| matches!(one.fate, RuleFate::Taken { .. }));
    let taken: BTreeSet<&ImportedPlace> = taken.map(|one| &one.place).collect();
    let want = live.map(|family, _| plan(&draft.set, family));
    let foreign = live.map(|family, live| goal(family, live, &taken));
    RuleChange::from_live(iptables, live, want, foreign)
}

/// Returns the foreign rules of one family without those that were taken over.
fn goal(family: Family, live: &Ruleset, taken: &BTreeSet<&ImportedPlace>) -> ForeignGoal {
    let mut goal = ForeignGoal::default();
    let is_taken = |table: TableName, chain: &ChainName, at: usize| {
        taken.contains(&ImportedPlace {
            family,
            table,
            chain: chain.clone(),
            at,
        })
    };
    let is_foreign = |rule: &Rule| !rule.leads_to().is_some_and(ChainName::is_own);
    for (table, name, chain) in live.chains().filter(|(_, name, _)| !name.is_own()) {
        let rules = chain.rules.iter().enumerate();
        let foreign = rules.filter(|(_, rule)| is_foreign(rule));
        let (gone, left): (Vec<_>, Vec<_>) =
            foreign.partition(|(at, _)| is_taken(table, name, *at));
        if gone.is_empty() {
            continue;
        }
        let rules =
            |some: Vec<(usize, &Rule)>| some.into_iter().map(|(_, rule)| rule.clone()).collect();
        let chain = GoalChain {
            rules: Some(rules(left)),
            absent: rules(gone),
        };
        goal.set(table, name.clone(), chain);
    }
    goal
}
