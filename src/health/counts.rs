//! What the counters of nvactl's rules say of its forwards.

use std::collections::BTreeMap;

use crate::netfilter::counters::{Count, Counters};
use crate::netfilter::matches::Match;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::Target;
use crate::plan::unplan::{Key, key_of};
use crate::plan::{ADMIT, Hook};

/// What the rules of one forward have seen.
#[derive(Default)]
struct Passage {
    /// Where it has lists: what came to the first.
    came: Option<Count>,
    limited: Count,
    /// What was accepted, or left to the rules behind nvactl's.
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

/// The first packets that each forward's DNAT rule has translated, since that rule was loaded:
/// the nat table sees no other packets of a connection.
#[must_use]
pub fn new_connections<'r>(counters: &Counters, ruleset: &'r Ruleset) -> BTreeMap<Key<'r>, Count> {
    let mut by_key: BTreeMap<Key<'_>, Count> = BTreeMap::new();
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

/// The first packets that each forward has turned away since its lists and limits were loaded; a
/// client that hears nothing sends several. Whom a list turns away is counted in a chain that
/// others may share, so it is what came to the list less what passed it: all rules of the chain that
/// tells it were loaded at once.
#[must_use]
pub fn refused<'r>(counters: &Counters, ruleset: &'r Ruleset) -> BTreeMap<Key<'r>, Count> {
    let mut by_key: BTreeMap<Key<'_>, Passage> = BTreeMap::new();
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

/// What went through the rule for known connections, of all forwards together.
#[must_use]
pub fn established(counters: &Counters) -> Count {
    let own = ChainName::from(Hook::Passing.own());
    let first = counters.of(Hook::Passing.table(), &own).first();
    first.copied().unwrap_or_default()
}
