//! Tables, chains and policies: what iptables-save prints, as one ordered model.
//!
//! The order of the maps is the order of the text: tables by name, and in a table the built-in
//! chains in the order of their hooks, then user-defined chains bytewise (measured, iptables
//! 1.8.7 to 1.8.13). So two
//! rulesets that mean the same print the same, wherever they came from.

use std::collections::BTreeMap;

use super::names::{ChainName, Policy, TableName};
use super::rule::Rule;

/// The kernel refuses loops, so this only bounds what a hand-written file could say.
pub const DEEPEST: usize = 16;

/// Everything that was planned, or parsed, or found loaded, of one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    pub tables: BTreeMap<TableName, Table>,
}

/// The chains of one table.
pub type Table = BTreeMap<ChainName, Chain>;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Only built-in chains have one. `None` on a built-in chain: nothing is said about it.
    pub policy: Option<Policy>,
    pub rules: Vec<Rule>,
}

impl Ruleset {
    /// The chain, if the ruleset has it.
    #[must_use]
    pub fn chain(&self, table: TableName, name: &ChainName) -> Option<&Chain> {
        self.tables.get(&table)?.get(name)
    }

    /// The chain, made empty where the ruleset has none.
    pub fn chain_mut(&mut self, table: TableName, name: ChainName) -> &mut Chain {
        self.tables
            .entry(table)
            .or_default()
            .entry(name)
            .or_default()
    }

    /// What becomes of a forwarded packet that no rule decides on. A table that nobody has used
    /// yet is not listed by iptables-save; its chains accept.
    #[must_use]
    pub fn forward_policy(&self) -> Policy {
        self.chain(TableName::Filter, &ChainName::Forward)
            .and_then(|chain| chain.policy)
            .unwrap_or(Policy::Accept)
    }

    /// Whether there are chains of nvactl's.
    #[must_use]
    pub fn holds_own(&self) -> bool {
        self.chains().any(|(_, name, _)| name.is_own())
    }

    /// How many rules a ruleset holds, nvactl's and others'.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.chains().map(|(_, _, chain)| chain.rules.len()).sum()
    }

    /// Every chain, in the order of the text.
    pub fn chains(&self) -> impl Iterator<Item = (TableName, &ChainName, &Chain)> {
        self.tables
            .iter()
            .flat_map(|(table, chains)| chains.iter().map(|(name, chain)| (*table, name, chain)))
    }

    /// Adds what the kernel has in every table anyway: its built-in chains, ACCEPT where no policy
    /// is given.
    ///
    /// Loaded as a whole file, a table without them would lose the policy it had: on nft such a
    /// file resets FORWARD to ACCEPT (measured).
    #[must_use]
    pub fn with_builtin_chains(mut self) -> Self {
        for (table, chains) in &mut self.tables {
            for name in table.builtin_chains() {
                let chain = chains.entry(name.clone()).or_default();
                chain.policy.get_or_insert(Policy::Accept);
            }
        }
        self
    }
}
