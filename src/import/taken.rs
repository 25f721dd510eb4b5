//! The rules that entries take over, and those of them that stay in place all the same.

use std::collections::{BTreeMap, BTreeSet};

use super::account::{Part, RuleFate};
use super::conditions::RuleConditions;
use super::others::OtherRedirect;
use super::place::{ImportedPlace, RuleWay};
use super::verdict::{RuleVerdict, verdict};
use super::walk::Met;
use crate::forwards::Name;
use crate::net::Family;
use crate::netfilter::names::Policy;
use crate::netfilter::target::Target;

/// The rules that entries take over.
#[derive(Debug, Default)]
pub struct TakenRules {
    rules: BTreeMap<ImportedPlace, TakenRule>,
    ways: BTreeSet<RuleWay>,
}

#[derive(Debug, Default)]
struct TakenRule {
    parts: BTreeSet<Part>,
    entries: Vec<Name>,
}

/// The rules of one family that packets meet, and what decides about those rules.
pub struct RulesMet<'a, 'r> {
    pub family: Family,
    pub prerouting: &'a [Met<'r>],
    pub forward: &'a [Met<'r>],
    pub postrouting: &'a [Met<'r>],
    pub policy: Policy,
    /// The redirections that stay.
    pub others: &'a [OtherRedirect],
}

impl TakenRules {
    /// Takes a rule over as a part of an entry.
    pub fn take(&mut self, place: &ImportedPlace, part: Part, entry: &Name) {
        let rule = self.rules.entry(place.clone()).or_default();
        rule.parts.insert(part);
        if !rule.entries.contains(entry) {
            rule.entries.push(entry.clone());
        }
    }

    /// Adds ways by which packets of the entries come to the rules.
    pub fn add_ways(&mut self, ways: impl IntoIterator<Item = RuleWay>) {
        self.ways.extend(ways);
    }

    /// Returns the rules that are taken over so far.
    pub fn places(&self) -> BTreeSet<ImportedPlace> {
        self.rules.keys().cloned().collect()
    }

    /// Returns the fates of all rules, taken over or left in place for other packets, and the ways to them. `outbound` are
    /// the names of outbound entries.
    pub fn settle(mut self, met: &RulesMet<'_, '_>, outbound: &BTreeSet<&Name>) -> SettledRules {
        let mut left = LeftRules::default();
        let chains = [met.prerouting, met.forward, met.postrouting];
        for rule in chains.into_iter().flatten() {
            if !self.ways.contains(&rule.way()) {
                left.take_from(&mut self.rules, &rule.place, "other rules lead to it, too");
            }
        }
        for rule in met.forward.iter().chain(met.postrouting) {
            if self.lets_pass(rule) && met.others.iter().any(|one| one.meets(rule)) {
                let why = "connections that other rules redirect need it, too";
                left.take_from(&mut self.rules, &rule.place, why);
            }
        }
        for place in self.sources_of(&left.accepting, outbound) {
            let why = "it rewrites the source of connections that other rules accept, too";
            left.take_from(&mut self.rules, &place, why);
        }
        for place in self.needed_refusals(met) {
            let why = "it also refuses connections that are not redirected";
            left.take_from(&mut self.rules, &place, why);
        }
        let mut fates = left.fates;
        for (place, TakenRule { parts, entries }) in self.rules {
            let part = parts.into_iter().next().unwrap_or(Part::Accept);
            fates.insert(place, RuleFate::Taken { part, entries });
        }
        SettledRules {
            fates,
            ways: self.ways,
        }
    }

    /// Returns whether connections may need a rule that is taken over.
    fn lets_pass(&self, met: &Met<'_>) -> bool {
        let rule = self.rules.get(&met.place);
        rule.is_some_and(|rule| !rule.parts.contains(&Part::Refuse)) && !refuses(met)
    }

    /// Returns the source rules of outbound entries whose accepts stay.
    fn sources_of(
        &self,
        accepting: &BTreeSet<Name>,
        outbound: &BTreeSet<&Name>,
    ) -> Vec<ImportedPlace> {
        let sources = self.rules.iter().filter(|(_, rule)| {
            let mut entries = rule.entries.iter();
            rule.parts.contains(&Part::Source)
                && entries.any(|one| outbound.contains(one) && accepting.contains(one))
        });
        sources.map(|(place, _)| place.clone()).collect()
    }

    /// Returns the refusals without which other packets would get through, or more of them.
    fn needed_refusals(&self, met: &RulesMet<'_, '_>) -> Vec<ImportedPlace> {
        let stays = |rule: &Met<'_>| !self.rules.contains_key(&rule.place);
        let accepts: Vec<(usize, &RuleConditions<'_>)> = met
            .forward
            .iter()
            .enumerate()
            .filter(|(_, rule)| rule.rule.target == Some(Target::Accept))
            .filter(|(_, rule)| !rule.conditions.for_replies && stays(rule))
            .map(|(at, rule)| (at, &rule.conditions))
            .collect();
        let refusals = met.forward.iter().enumerate();
        let refusals = refusals.filter(|(_, rule)| !stays(rule) && refuses(rule));
        let needed = refusals.filter(|(at, rule)| {
            let conditions = &rule.conditions;
            let mut behind = accepts.iter().filter(|(other, _)| other > at);
            let lets_through = met.policy == Policy::Accept
                || behind.any(|(_, accept)| accept.meet_some_of(conditions, met.family));
            lets_through && conditions.redirected != Some(true)
        });
        needed.map(|(_, rule)| rule.place.clone()).collect()
    }
}

/// The fates of rules, and the ways by which packets of entries come to them.
pub struct SettledRules {
    pub fates: BTreeMap<ImportedPlace, RuleFate>,
    pub ways: BTreeSet<RuleWay>,
}

/// Rules that are not taken over after all.
#[derive(Default)]
struct LeftRules {
    fates: BTreeMap<ImportedPlace, RuleFate>,
    /// The entries that have an accept among them.
    accepting: BTreeSet<Name>,
}

impl LeftRules {
    /// Moves a rule here, if it is there.
    fn take_from(
        &mut self,
        rules: &mut BTreeMap<ImportedPlace, TakenRule>,
        place: &ImportedPlace,
        why: &str,
    ) {
        let Some(rule) = rules.remove(place) else {
            return;
        };
        if rule.parts.contains(&Part::Accept) {
            self.accepting.extend(rule.entries);
        }
        self.fates
            .insert(place.clone(), RuleFate::LeftAlone(why.to_owned()));
    }
}

fn refuses(met: &Met<'_>) -> bool {
    verdict(met.rule) == RuleVerdict::Refuse
}
