//! Tables, chains and policies, in the order of iptables-save.
//!
//! Tables are ordered by name. In a table the built-in chains come first, in the order of their hooks, then
//! user-defined chains bytewise (measured, iptables 1.8.7 to 1.8.13). So equal rulesets print the same text,
//! whether they were planned, read from a file or from the kernel.

use std::collections::BTreeMap;

use super::names::{ChainName, Policy, TableName};
use super::rule::Rule;

/// The most jumps that are followed. The kernel refuses loops, but a file may have one.
pub const DEEPEST: usize = 16;

/// The rules of one family: planned, read from a file, or loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    pub tables: BTreeMap<TableName, Table>,
}

/// The chains of one table.
pub type Table = BTreeMap<ChainName, Chain>;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Only built-in chains have one. `None` for a built-in chain if the text or the plan leaves it open.
    pub policy: Option<Policy>,
    pub rules: Vec<Rule>,
}

impl Ruleset {
    /// Returns a chain, if the ruleset has it.
    #[must_use]
    pub fn chain(&self, table: TableName, name: &ChainName) -> Option<&Chain> {
        self.tables.get(&table)?.get(name)
    }

    /// Returns a chain, and adds an empty one if the ruleset has none.
    pub fn chain_mut(&mut self, table: TableName, name: ChainName) -> &mut Chain {
        self.tables
            .entry(table)
            .or_default()
            .entry(name)
            .or_default()
    }

    /// Returns the policy for forwarded packets. iptables-save does not print a table that is not used yet; the
    /// chains of such a table accept.
    #[must_use]
    pub fn forward_policy(&self) -> Policy {
        self.chain(TableName::Filter, &ChainName::Forward)
            .and_then(|chain| chain.policy)
            .unwrap_or(Policy::Accept)
    }

    /// Returns the ruleset without its FORWARD policy, for rules that leave the policy alone.
    #[must_use]
    pub fn without_forward_policy(mut self) -> Self {
        self.chain_mut(TableName::Filter, ChainName::Forward).policy = None;
        self
    }

    /// Returns whether the ruleset has a chain of nvactl.
    #[must_use]
    pub fn holds_own(&self) -> bool {
        self.chains().any(|(_, name, _)| name.is_own())
    }

    /// Counts the rules, nvactl's and others'.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.chains().map(|(_, _, chain)| chain.rules.len()).sum()
    }

    /// Returns every chain, in the order of the text.
    pub fn chains(&self) -> impl Iterator<Item = (TableName, &ChainName, &Chain)> {
        self.tables
            .iter()
            .flat_map(|(table, chains)| chains.iter().map(|(name, chain)| (*table, name, chain)))
    }

    /// Adds the built-in chains that the kernel has in every table, with ACCEPT if they have no policy.
    ///
    /// A whole file whose table lacks them changes the loaded policy: on nft it resets FORWARD to ACCEPT
    /// (measured).
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
