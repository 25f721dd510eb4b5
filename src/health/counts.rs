//! Counts of each forward and outbound entry, from the counters of nvactl's rules.

use std::collections::BTreeMap;

use crate::netfilter::counters::{Count, Counters};
use crate::netfilter::matches::Match;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::Target;
use crate::plan::unplan::{ForwardKey, key_of, name_of};
use crate::plan::{ADMIT, EXIT, Hook};

/// The packets that the rules of one forward have counted.
#[derive(Default)]
struct Passage {
    /// The packets that came to the first list; none if the forward has no list.
    came: Option<Count>,
    limited: Count,
    /// The packets that were accepted, or left to the rules after nvactl's.
    passed: Count,
}

impl Passage {
    fn refused(self) -> Count {
        match self.came {
            Some(came) => Count {
                packets: came.packets.saturating_sub(self.passed.packets),
                bytes: came.bytes.saturating_sub(self.passed.bytes),
            },
            None => self.limited,
        }
    }
}

/// Returns how many first packets each forward's DNAT rule has translated since that rule was loaded. The nat table
/// sees no other packets of a connection.
#[must_use]
pub fn new_connections<'r>(
    counters: &Counters,
    ruleset: &'r Ruleset,
) -> BTreeMap<ForwardKey<'r>, Count> {
    let mut by_key: BTreeMap<ForwardKey<'_>, Count> = BTreeMap::new();
    let holding = |name: &ChainName| Hook::of(name) == Some(Hook::Arriving);
    let chains = ruleset.tables.get(&TableName::Nat).into_iter().flatten();
    for (name, chain) in chains.filter(|(name, _)| holding(name)) {
        for (rule, count) in chain.rules.iter().zip(counters.of(TableName::Nat, name)) {
            if let (Some(key), Some(Target::Dnat { .. })) = (key_of(rule), &rule.target) {
                by_key.entry(key).or_default().add(*count);
            }
        }
    }
    by_key
}

/// Returns how many first packets each forward has refused since its lists and limits were loaded. A client without
/// an answer sends several. Forwards may share the chain that counts a list's refusals, so the count is the packets
/// that came to the list less the packets that passed it. All rules of the counting chain were loaded at once.
#[must_use]
pub fn refused<'r>(counters: &Counters, ruleset: &'r Ruleset) -> BTreeMap<ForwardKey<'r>, Count> {
    let mut by_key: BTreeMap<ForwardKey<'_>, Passage> = BTreeMap::new();
    let admitting = |name: &ChainName| name.as_str().starts_with(ADMIT);
    for (table, name, chain) in ruleset.chains().filter(|(_, name, _)| admitting(name)) {
        for (rule, count) in chain.rules.iter().zip(counters.of(table, name)) {
            let Some(key) = key_of(rule) else { continue };
            let passage = by_key.entry(key).or_default();
            let limits = |one: &Match| matches!(one, Match::HashLimit(_) | Match::ConnLimit(_));
            match &rule.target {
                Some(Target::Jump(_)) => {
                    passage.came.get_or_insert(*count);
                }
                Some(Target::Accept | Target::Return) => passage.passed.add(*count),
                _ if rule.matches.iter().any(limits) => passage.limited.add(*count),
                _ => {}
            }
        }
    }
    let refused = by_key.into_iter();
    refused
        .map(|(key, passage)| (key, passage.refused()))
        .collect()
}

/// The packets that the rules of one outbound entry have counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutboundCount {
    /// First packets of connections that have left, since the entry's rules were loaded.
    pub new: Count,
    /// First packets that the entry's drops and limits have refused since then, repeated ones included.
    pub refused: Count,
}

/// Returns the counts of each outbound entry. The nat table sees only the first packet of a connection. Refused are the
/// packets that the entry has selected less those that it accepted.
#[must_use]
pub fn outbound<'r>(counters: &Counters, ruleset: &'r Ruleset) -> BTreeMap<&'r str, OutboundCount> {
    let mut new: BTreeMap<&str, Count> = BTreeMap::new();
    let mut selected: BTreeMap<&str, Count> = BTreeMap::new();
    let mut accepted: BTreeMap<&str, Count> = BTreeMap::new();
    let exits = |name: &ChainName| name.as_str().starts_with(EXIT);
    for (table, chain, body) in ruleset.chains().filter(|(_, name, _)| exits(name)) {
        for (rule, count) in body.rules.iter().zip(counters.of(table, chain)) {
            let Some(name) = name_of(rule) else { continue };
            let sum = match (table, &rule.target) {
                (TableName::Nat, _) => &mut new,
                (_, Some(Target::Goto(next))) if exits(next) => &mut selected,
                (_, Some(Target::Accept)) => &mut accepted,
                _ => continue,
            };
            sum.entry(name).or_default().add(*count);
        }
    }
    let of = |name: &str| {
        let accepted = accepted.get(name).copied().unwrap_or_default();
        let refused = selected.get(name).map(|all| Count {
            packets: all.packets.saturating_sub(accepted.packets),
            bytes: all.bytes.saturating_sub(accepted.bytes),
        });
        OutboundCount {
            new: new.get(name).copied().unwrap_or_default(),
            refused: refused.unwrap_or_default(),
        }
    };
    let names = new.keys().chain(selected.keys());
    names.map(|name| (*name, of(name))).collect()
}

/// Returns the packets of the rule for known connections: of all that the machine forwards, those of others included.
#[must_use]
pub fn established(counters: &Counters) -> Count {
    let own = ChainName::from(Hook::Passing.own());
    let first = counters.of(Hook::Passing.table(), &own).first();
    first.copied().unwrap_or_default()
}
