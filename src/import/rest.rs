//! The accounts of all rules, those included that no entry came of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::account::{Account, Part, RuleFate};
use super::conditions::RuleConditions;
use super::place::{ImportedPlace, RuleWay};
use super::sides::is_dnat;
use super::walk::Met;
use crate::net::Family;
use crate::netfilter::matches::Match;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::negatable::Negatable::{Is, Not};
use crate::netfilter::programs::owner_of;
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::Target;
use crate::netfilter::tracking::CtState;

/// The chain that Docker makes for rules of the user's.
const DOCKER_USER: &str = "DOCKER-USER";

/// The facts that the entries give about the rules.
pub struct Settled<'a> {
    /// The rules that have a fate already.
    pub fates: BTreeMap<ImportedPlace, RuleFate>,
    /// The ways to the rules of entries.
    pub ways: BTreeSet<RuleWay>,
    /// The rules that forwarded packets meet.
    pub forward: &'a [Met<'a>],
    /// The targets of redirections that cannot be said.
    pub unsaid_targets: &'a BTreeSet<IpAddr>,
}

/// Returns an account for each rule.
pub fn accounts(family: Family, rules: &Ruleset, settled: Settled<'_>) -> Vec<Account> {
    let Settled {
        mut fates,
        ways,
        forward,
        unsaid_targets,
    } = settled;
    let hooks = hooks(rules);
    let mut accounts = Vec::new();
    for (table, name, chain) in rules.chains() {
        let none = BTreeSet::new();
        let hooks = hooks.get(&(table, name)).unwrap_or(&none);
        let meets_others = hooks.iter().any(|hook| is_of_machine(hook));
        for (at, rule) in chain.rules.iter().enumerate() {
            let place = ImportedPlace {
                family,
                table,
                chain: name.clone(),
                at,
            };
            let fate = match fates.remove(&place) {
                Some(RuleFate::Taken { part, .. }) if part != Part::Own && meets_others => {
                    let why = "the machine's own connections meet it, too";
                    RuleFate::LeftAlone(why.to_owned())
                }
                Some(fate) => fate,
                None => fate(&place, rule, hooks, unsaid_targets),
            };
            accounts.push(Account { place, fate });
        }
    }
    settle_jumps(rules, &ways, &mut accounts);
    settle_replies(rules, forward, &mut accounts);
    accounts
}

/// Returns the built-in chains from which packets get to each chain.
fn hooks(rules: &Ruleset) -> BTreeMap<(TableName, &ChainName), BTreeSet<&ChainName>> {
    let mut hooks: BTreeMap<(TableName, &ChainName), BTreeSet<&ChainName>> = BTreeMap::new();
    for (table, name, _) in rules.chains().filter(|(_, name, _)| name.is_builtin()) {
        let mut open = vec![name];
        while let Some(chain) = open.pop() {
            if !hooks.entry((table, chain)).or_default().insert(name) {
                continue;
            }
            let chain = rules.chain(table, chain);
            open.extend(
                chain
                    .into_iter()
                    .flat_map(|chain| &chain.rules)
                    .filter_map(Rule::leads_to),
            );
        }
    }
    hooks
}

/// Returns whether the machine's own connections meet the rules of a built-in chain.
fn is_of_machine(hook: &ChainName) -> bool {
    matches!(hook, ChainName::Input | ChainName::Output)
}

/// Returns what becomes of a rule of which no entry came.
fn fate(
    place: &ImportedPlace,
    rule: &Rule,
    hooks: &BTreeSet<&ChainName>,
    unsaid_targets: &BTreeSet<IpAddr>,
) -> RuleFate {
    let ImportedPlace { table, chain, .. } = place;
    let leads_to = rule.leads_to();
    let is_netmap = rule
        .target
        .as_ref()
        .is_some_and(|target| target.name() == "NETMAP");
    if chain.is_own() || leads_to.is_some_and(ChainName::is_own) {
        return RuleFate::own();
    }
    if chain.as_str() == DOCKER_USER {
        let why = "Docker leads packets to this chain of yours, so it stays with Docker";
        return RuleFate::LeftAlone(why.to_owned());
    }
    if let Some(program) = owner_of(table.as_str(), chain.as_str()) {
        return RuleFate::LeftAlone(format!("{program} writes it"));
    }
    if let Some(program) = leads_to.and_then(|to| owner_of(table.as_str(), to.as_str())) {
        return RuleFate::LeftAlone(format!("it leads to the rules of {program}"));
    }
    if is_netmap && hooks.contains(&ChainName::Prerouting) {
        let why =
            "it redirects each address of a network to another one; a forward has one listener";
        return RuleFate::NotSaid(why.to_owned());
    }
    if is_netmap && hooks.contains(&ChainName::Postrouting) {
        let why =
            "it gives each source of a network its own address; a spec has one address for all";
        return RuleFate::NotSaid(why.to_owned());
    }
    let of_machine = |hook: &&&ChainName| match table {
        TableName::Filter | TableName::Nat => {
            matches!(hook, ChainName::Input | ChainName::Output)
        }
        _ => false,
    };
    let why = if hooks.is_empty() && matches!(table, TableName::Filter | TableName::Nat) {
        "no rule leads to its chain"
    } else if *table == TableName::Nat && hooks.contains(&ChainName::Output) && is_dnat(rule) {
        "it redirects the machine's own connections"
    } else if !hooks.is_empty() && hooks.iter().all(|hook| of_machine(&hook)) {
        "it is about the machine's own connections"
    } else if is_for(rule, unsaid_targets) {
        "it is for connections that the spec cannot redirect"
    } else {
        match (table, chain) {
            (TableName::Nat, _) if hooks.contains(&ChainName::Prerouting) => {
                "it redirects nothing to another host"
            }
            (TableName::Filter | TableName::Nat, _) => {
                "it is for other connections than those of the entries, or for more"
            }
            (table, _) => {
                return RuleFate::LeftAlone(format!("a spec says nothing about the table {table}"));
            }
        }
    };
    RuleFate::LeftAlone(why.to_owned())
}

/// Returns whether a rule names one of some hosts as destination.
fn is_for(rule: &Rule, hosts: &BTreeSet<IpAddr>) -> bool {
    let conditions = RuleConditions::default().and(rule);
    conditions.host().is_some_and(|host| hosts.contains(&host))
}

/// A jump is taken over if each rule that it leads to is taken over by way of it.
fn settle_jumps(rules: &Ruleset, ways: &BTreeSet<RuleWay>, accounts: &mut [Account]) {
    let leads = |(jumps, rule): &'_ RuleWay| {
        let jumps = jumps.clone().into_iter();
        jumps.map({
            let rule = rule.clone();
            move |jump| (jump, rule.clone())
        })
    };
    let leads: BTreeSet<(ImportedPlace, ImportedPlace)> = ways.iter().flat_map(leads).collect();
    loop {
        let taken: BTreeSet<ImportedPlace> = accounts
            .iter()
            .filter(|one| matches!(one.fate, RuleFate::Taken { .. }))
            .map(|one| one.place.clone())
            .collect();
        let mut has_changed = false;
        for account in accounts.iter_mut() {
            let place = &account.place;
            let rule = rules
                .chain(place.table, &place.chain)
                .and_then(|chain| chain.rules.get(place.at));
            let Some(to) = rule.and_then(Rule::leads_to).filter(|to| !to.is_own()) else {
                continue;
            };
            if !matches!(account.fate, RuleFate::LeftAlone(_))
                || owner_of(place.table.as_str(), to.as_str()).is_some()
                || owner_of(place.table.as_str(), place.chain.as_str()).is_some()
            {
                continue;
            }
            let count = rules
                .chain(place.table, to)
                .map_or(0, |chain| chain.rules.len());
            let mut all = (0..count).map(|at| ImportedPlace {
                chain: to.clone(),
                at,
                ..place.clone()
            });
            let goes = |one: &ImportedPlace| {
                let is_jump = rules
                    .chain(one.table, &one.chain)
                    .and_then(|chain| chain.rules.get(one.at)?.leads_to())
                    .is_some();
                taken.contains(one) && (is_jump || leads.contains(&(place.clone(), one.clone())))
            };
            let is_whole = count > 0 && all.all(|one| goes(&one));
            let fate = if is_whole {
                RuleFate::Taken {
                    part: Part::Jump,
                    entries: Vec::new(),
                }
            } else {
                RuleFate::LeftAlone(format!("it leads to rules of {to} that stay"))
            };
            has_changed |= is_whole;
            account.fate = fate;
        }
        if !has_changed {
            return;
        }
    }
}

/// The rules for replies are not needed once no other rule accepts connections.
fn settle_replies(rules: &Ruleset, forward: &[Met<'_>], accounts: &mut [Account]) {
    let stays: BTreeSet<ImportedPlace> = accounts
        .iter()
        .filter(|one| !matches!(one.fate, RuleFate::Taken { .. }))
        .map(|one| one.place.clone())
        .collect();
    // A copy of a rule that goes has no effect.
    let gone = forward.iter().filter(|met| !stays.contains(&met.place));
    let gone: BTreeSet<(&ChainName, &Rule)> =
        gone.map(|met| (&met.place.chain, met.rule)).collect();
    let is_copy = |met: &Met<'_>| gone.contains(&(&met.place.chain, met.rule));
    let others_stay = forward.iter().any(|met| {
        met.rule.target == Some(Target::Accept)
            && !met.conditions.for_replies
            && stays.contains(&met.place)
            && !is_copy(met)
    });
    for account in accounts {
        let place = &account.place;
        let is_of_forward = (place.table, &place.chain) == (TableName::Filter, &ChainName::Forward);
        let rule = rules
            .chain(place.table, &place.chain)
            .and_then(|chain| chain.rules.get(place.at));
        let Some(rule) = rule.filter(|rule| rule.target == Some(Target::Accept)) else {
            continue;
        };
        if !is_of_forward
            || !RuleConditions::default().and(rule).for_replies
            || matches!(account.fate, RuleFate::Taken { .. })
        {
            continue;
        }
        account.fate = if is_for_untracked(rule) {
            RuleFate::LeftAlone("it accepts packets that belong to no connection, too".to_owned())
        } else if others_stay {
            RuleFate::LeftAlone(
                "it accepts the replies of connections that other rules accept".to_owned(),
            )
        } else {
            RuleFate::NotNeeded("nvactl accepts the replies of its own connections".to_owned())
        };
    }
}

/// Returns whether a rule is for packets without a connection.
fn is_for_untracked(rule: &Rule) -> bool {
    rule.matches.iter().any(|condition| {
        let states = match condition {
            Match::Conntrack(conntrack) => conntrack.states,
            Match::State(states) => Some(*states),
            _ => None,
        };
        match states {
            Some(Is(states)) => states.contains(CtState::Untracked),
            Some(Not(states)) => !states.contains(CtState::Untracked),
            None => false,
        }
    })
}
