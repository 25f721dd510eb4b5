//! The rules of a machine once a plan has taken the place of those that became it.

use std::collections::BTreeSet;

use super::account::{Account, RuleFate};
use super::place::ImportedPlace;
use crate::net::Family;
use crate::netfilter::ruleset::Ruleset;

/// Returns the rules without those that were taken over, and with the plan before all others.
#[must_use]
pub fn after(family: Family, rules: &Ruleset, accounts: &[Account], plan: &Ruleset) -> Ruleset {
    let taken = accounts
        .iter()
        .filter(|one| matches!(one.fate, RuleFate::Taken { .. }));
    let taken: BTreeSet<&ImportedPlace> = taken.map(|one| &one.place).collect();
    let mut after = plan.clone();
    for (table, name, chain) in rules.chains() {
        if name.is_own() {
            continue;
        }
        let to = after.chain_mut(table, name.clone());
        to.policy = to.policy.or(chain.policy);
        let left = chain.rules.iter().enumerate().filter(|(at, _)| {
            let place = ImportedPlace {
                family,
                table,
                chain: name.clone(),
                at: *at,
            };
            !taken.contains(&place)
        });
        to.rules.extend(left.map(|(_, rule)| rule.clone()));
    }
    after
}
