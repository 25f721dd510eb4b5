//! How often rules have matched, beside the rules themselves: two rulesets are the same whatever
//! their counters.

use std::collections::BTreeMap;

use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::rule::{Match, Target};
use crate::netfilter::ruleset::Ruleset;
use crate::plan::{ADMIT, Hook};
use crate::unplan::{Key, key_of};

/// Packets, and their bytes with all headers of the IP layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
}

impl Count {
    pub fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

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

/// The counts of a ruleset's rules, by chain and in the order of its rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<TableName, BTreeMap<ChainName, Vec<Count>>>);

impl Counters {
    /// Adds the count of the next rule of a chain.
    pub fn push(&mut self, table: TableName, chain: &ChainName, count: Count) {
        let chains = self.0.entry(table).or_default();
        match chains.get_mut(chain) {
            Some(counts) => counts.push(count),
            None => {
                chains.insert(chain.clone(), vec![count]);
            }
        }
    }

    /// Adds to the count of the rule at a place of a chain, counted from 0.
    pub fn add_at(&mut self, table: TableName, chain: &ChainName, at: usize, count: Count) {
        let chains = self.0.entry(table).or_default();
        let counts = chains.entry(chain.clone()).or_default();
        if counts.len() <= at {
            counts.resize(at + 1, Count::default());
        }
        counts[at].add(count);
    }

    /// The counts of a chain's rules, as far as they are known.
    #[must_use]
    pub fn of(&self, table: TableName, chain: &ChainName) -> &[Count] {
        let counts = self.0.get(&table).and_then(|chains| chains.get(chain));
        counts.map_or(&[], Vec::as_slice)
    }

    /// The first packets that each forward's DNAT rule has translated, since that rule was loaded:
    /// the nat table sees no other packets of a connection.
    #[must_use]
    pub fn new_connections<'r>(&self, ruleset: &'r Ruleset) -> BTreeMap<Key<'r>, Count> {
        let mut by_key: BTreeMap<Key<'_>, Count> = BTreeMap::new();
        let holding = |name: &ChainName| Hook::of(name) == Some(Hook::Arriving);
        let chains = ruleset.tables.get(&TableName::Nat).into_iter().flatten();
        for (name, chain) in chains.filter(|(name, _)| holding(name)) {
            for (rule, count) in chain.rules.iter().zip(self.of(TableName::Nat, name)) {
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
    pub fn refused<'r>(&self, ruleset: &'r Ruleset) -> BTreeMap<Key<'r>, Count> {
        let mut by_key: BTreeMap<Key<'_>, Passage> = BTreeMap::new();
        let admitting = |name: &ChainName| name.as_str().starts_with(ADMIT);
        for (table, name, chain) in ruleset.chains().filter(|(_, name, _)| admitting(name)) {
            for (rule, count) in chain.rules.iter().zip(self.of(table, name)) {
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
    pub fn established(&self) -> Count {
        let own = ChainName::from(Hook::Passing.own());
        let first = self.of(Hook::Passing.table(), &own).first();
        first.copied().unwrap_or_default()
    }
}
