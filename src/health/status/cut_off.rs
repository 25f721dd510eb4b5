//! Finds the loaded rules that no packet reaches: a rule that leads there is missing, or an earlier rule stops every
//! packet. It evaluates no conditions. A tree's short cut may still accept packets of a forward whose own rules are
//! cut off.

use std::collections::BTreeSet;

use super::jumps::unreached;
use crate::diff::drift::PlacedRule;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::plan::Hook;
use crate::plan::unplan::{ForwardKey, is_outbound, key_of};

/// The loaded rules that no packet reaches.
#[derive(Debug)]
pub struct CutOff<'r> {
    hooks: Vec<Hook>,
    chains: BTreeSet<&'r ChainName>,
    forwards: BTreeSet<ForwardKey<'r>>,
    /// The rules of outbound entries behind a rule that stops every packet.
    stopped: BTreeSet<&'r Rule>,
}

impl<'r> CutOff<'r> {
    /// Reads the live rules. `planned` is the plan of the spec, `replanned` the plan of the loaded forwards, and `gone`
    /// are the rules of `replanned` that are not loaded.
    pub fn new(
        live: &'r Ruleset,
        planned: &Ruleset,
        replanned: &'r Ruleset,
        gone: &[PlacedRule<'r>],
    ) -> Self {
        let (mut forwards, mut stopped) = (BTreeSet::new(), BTreeSet::new());
        let leads = |table, rule: &'r Rule| Some((table, rule.leads_to()?));
        let mut next: Vec<(TableName, &'r ChainName)> = gone
            .iter()
            .filter_map(|place| leads(place.table, place.rule))
            .collect();
        for (table, name, chain) in live
            .chains()
            .filter(|(_, name, _)| Hook::of(name).is_some())
        {
            let is_planned = |rule: &Rule| {
                [planned, replanned]
                    .into_iter()
                    .filter_map(|plan| plan.chain(table, name))
                    .any(|chain| chain.rules.contains(rule))
            };
            let mut rules = chain.rules.iter();
            if rules.any(|rule| rule.stops_every_packet() && !is_planned(rule)) {
                for rule in rules {
                    if is_outbound(name, rule) {
                        stopped.insert(rule);
                    }
                    forwards.extend(key_of(rule));
                    next.extend(leads(table, rule));
                }
            }
        }
        Self {
            hooks: unreached(live, planned),
            chains: reached(replanned, next),
            forwards,
            stopped,
        }
    }

    /// Whether no packet reaches some rule of a forward, whose rules are in these places.
    pub fn has(&self, key: ForwardKey<'_>, places: &[PlacedRule<'_>]) -> bool {
        self.forwards.contains(&key) || self.has_any(places)
    }

    /// Whether no packet reaches one of these rules.
    pub fn has_any(&self, places: &[PlacedRule<'_>]) -> bool {
        let is_cut_off = |place: &PlacedRule<'_>| {
            let hook = Hook::of(place.chain);
            self.chains.contains(place.chain) || hook.is_some_and(|hook| self.hooks.contains(&hook))
        };
        let is_behind = |place: &PlacedRule<'_>| self.stopped.contains(place.rule);
        places
            .iter()
            .any(|place| is_cut_off(place) || is_behind(place))
    }
}

/// Returns the chains of a tree that `next` leads to, directly or by other chains.
fn reached<'p>(
    planned: &'p Ruleset,
    mut next: Vec<(TableName, &'p ChainName)>,
) -> BTreeSet<&'p ChainName> {
    let mut reached = BTreeSet::new();
    while let Some((table, name)) = next.pop() {
        if Hook::of(name).is_some() && reached.insert(name) {
            let chain = planned.chain(table, name).into_iter();
            let rules = chain.flat_map(|chain| &chain.rules);
            next.extend(rules.filter_map(|rule| Some((table, rule.leads_to()?))));
        }
    }
    reached
}
