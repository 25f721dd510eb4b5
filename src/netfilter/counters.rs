//! The counters of rules. They are kept apart from the rules, so that rulesets are equal whatever their
//! counters are.

use std::collections::BTreeMap;

use super::names::{ChainName, TableName};

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

    /// Returns the counts of a chain's rules, as far as they are known.
    #[must_use]
    pub fn of(&self, table: TableName, chain: &ChainName) -> &[Count] {
        let counts = self.0.get(&table).and_then(|chains| chains.get(chain));
        counts.map_or(&[], Vec::as_slice)
    }
}
