//! The accounts of all rules, those included that no entry came of.

use std::collections::BTreeMap;

use super::account::{Account, Part, RuleFate};
use super::conditions::RuleConditions;
use super::place::ImportedPlace;
use super::sides::is_dnat;
use crate::net::Family;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::programs::owner_of;
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::Target;

/// Returns an account for each rule. `known` are those that have one already.
pub fn accounts(
    family: Family,
    rules: &Ruleset,
    mut known: BTreeMap<ImportedPlace, RuleFate>,
) -> Vec<Account> {
    let mut accounts = Vec::new();
    for (table, name, chain) in rules.chains() {
        for (at, rule) in chain.rules.iter().enumerate() {
            let place = ImportedPlace {
                family,
                table,
                chain: name.clone(),
                at,
            };
            let fate = known
                .remove(&place)
                .unwrap_or_else(|| fate(table, name, rule));
            accounts.push(Account { place, fate });
        }
    }
    settle_jumps(rules, &mut accounts);
    accounts
}

/// Returns what becomes of a rule of which no entry came.
fn fate(table: TableName, chain: &ChainName, rule: &Rule) -> RuleFate {
    if chain.is_own() {
        return RuleFate::own();
    }
    if rule.leads_to().is_some_and(ChainName::is_own) {
        return RuleFate::own();
    }
    if let Some(program) = owner_of(table.as_str(), chain.as_str()) {
        return RuleFate::LeftAlone(format!("{program} writes it"));
    }
    let target = rule
        .leads_to()
        .map(|to| owner_of(table.as_str(), to.as_str()));
    if let Some(Some(program)) = target {
        return RuleFate::LeftAlone(format!("it leads to the rules of {program}"));
    }
    let replies = RuleConditions::default().and(rule).for_replies;
    match (table, chain) {
        (TableName::Filter, ChainName::Forward)
            if replies && rule.target == Some(Target::Accept) =>
        {
            RuleFate::NotNeeded("nvactl accepts the replies of its own connections".to_owned())
        }
        (TableName::Filter, ChainName::Input | ChainName::Output)
        | (TableName::Nat, ChainName::Input) => {
            RuleFate::LeftAlone("it is about the machine's own connections".to_owned())
        }
        (TableName::Nat, ChainName::Output) if is_dnat(rule) => {
            RuleFate::LeftAlone("it redirects the machine's own connections".to_owned())
        }
        (TableName::Filter, _) | (TableName::Nat, ChainName::Postrouting) => {
            RuleFate::LeftAlone("it is not for the connections of a forward alone".to_owned())
        }
        (TableName::Nat, _) => {
            RuleFate::LeftAlone("it redirects nothing to another host".to_owned())
        }
        (table, _) => RuleFate::LeftAlone(format!("a spec says nothing about the table {table}")),
    }
}

/// A jump is taken over with all rules that it leads to.
fn settle_jumps(rules: &Ruleset, accounts: &mut [Account]) {
    let is_gone = |fate: &RuleFate| matches!(fate, RuleFate::Taken { .. });
    let mut whole: BTreeMap<(TableName, ChainName), bool> = BTreeMap::new();
    for Account { place, fate } in accounts.iter() {
        let all = whole
            .entry((place.table, place.chain.clone()))
            .or_insert(true);
        *all &= is_gone(fate);
    }
    for account in accounts {
        let place = &account.place;
        let rule = rules
            .chain(place.table, &place.chain)
            .and_then(|chain| chain.rules.get(place.at));
        let Some(to) = rule.and_then(Rule::leads_to).filter(|to| !to.is_own()) else {
            continue;
        };
        if !matches!(account.fate, RuleFate::LeftAlone(_))
            || owner_of(place.table.as_str(), to.as_str()).is_some()
        {
            continue;
        }
        account.fate = match whole.get(&(place.table, to.clone())) {
            Some(true) => RuleFate::Taken {
                part: Part::Jump,
                entries: Vec::new(),
            },
            _ => RuleFate::LeftAlone(format!("it leads to rules of {to} that stay")),
        };
    }
}
