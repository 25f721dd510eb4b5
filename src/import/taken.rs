//! The rules that entries take over, and those of them that stay in place all the same.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ptr;

use super::account::{Part, RuleFate};
use super::conditions::RuleConditions;
use super::lookup::NetLookup;
use super::met_rules::MetRules;
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
    pub forward: &'a MetRules<'r>,
    pub postrouting: &'a MetRules<'r>,
    pub policy: Policy,
    /// The redirections that stay.
    pub others: &'a [OtherRedirect],
}

impl TakenRules {
    /// Takes a rule over as a part of an entry.
    pub fn take(&mut self, place: &ImportedPlace, part: Part, entry: &Name) {
        let rule = self.rules.entry(place.clone()).or_default();
        rule.parts.insert(part);
        // Entries take their rules one after the other.
        if rule.entries.last() != Some(entry) {
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
        let chains = [met.prerouting, met.forward.all, met.postrouting.all];
        for rule in chains.into_iter().flatten() {
            if !self.ways.contains(&rule.way()) {
                left.take_from(&mut self.rules, &rule.place, "other rules lead to it, too");
            }
        }
        let needed = self.needed_by_others(met);
        for rule in met.forward.all.iter().chain(met.postrouting.all) {
            if self.lets_pass(rule) && needed.contains(&ptr::from_ref(rule)) {
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

    /// Returns the rules that connections of the other redirections may need.
    fn needed_by_others<'r>(&self, met: &RulesMet<'_, 'r>) -> HashSet<*const Met<'r>> {
        let mut needed = HashSet::new();
        for one in met.others {
            let rules = [met.forward, met.postrouting].into_iter();
            for rule in rules.flat_map(|rules| one.may_meet(rules)) {
                let place = ptr::from_ref(rule);
                if !needed.contains(&place) && self.lets_pass(rule) && one.meets(rule) {
                    needed.insert(place);
                }
            }
        }
        needed
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
        let forward = met.forward.all;
        let mut accepts = NetsOfRules::default();
        for (at, rule) in forward.iter().enumerate() {
            let is_accept = rule.rule.target == Some(Target::Accept);
            if is_accept && !rule.conditions.for_replies && stays(rule) {
                accepts.add(at, &rule.conditions);
            }
        }
        let refusals = forward.iter().enumerate();
        let refusals = refusals.filter(|(_, rule)| !stays(rule) && refuses(rule));
        let needed = refusals.filter(|(at, rule)| {
            let conditions = &rule.conditions;
            let lets_through = || {
                let mut behind = accepts.near(conditions).into_iter();
                behind.any(|other| {
                    let accept = &forward[other].conditions;
                    other > *at && accept.meet_some_of(conditions, met.family)
                })
            };
            conditions.redirected != Some(true) && (met.policy == Policy::Accept || lets_through())
        });
        needed.map(|(_, rule)| rule.place.clone()).collect()
    }
}

/// Numbers of rules by their sources and destinations.
#[derive(Default)]
struct NetsOfRules {
    sources: NetLookup,
    destinations: NetLookup,
}

impl NetsOfRules {
    fn add(&mut self, number: usize, conditions: &RuleConditions<'_>) {
        self.sources.add(number, conditions.source_net());
        let destination = conditions.destination_net();
        self.destinations.add(number, destination);
    }

    /// Returns the numbers of the rules that may be for packets that meet conditions. Others are among them.
    fn near(&self, conditions: &RuleConditions<'_>) -> Vec<usize> {
        let from = self.sources.find(conditions.source_net());
        let to = self.destinations.find(conditions.destination_net());
        if from.len() < to.len() { from } else { to }
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
