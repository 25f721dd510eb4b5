//! The place of a rule.

use std::fmt;

use crate::net::Family;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;

/// The place of a rule in the rules that are imported.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImportedPlace {
    pub family: Family,
    pub table: TableName,
    pub chain: ChainName,
    /// The rules before it in its chain.
    pub at: usize,
}

impl ImportedPlace {
    /// Returns the rule, if there is one. `rules` are those of the family.
    #[must_use]
    pub fn rule_in<'r>(&self, rules: &'r Ruleset) -> Option<&'r Rule> {
        rules.chain(self.table, &self.chain)?.rules.get(self.at)
    }

    /// Returns its number in the chain as iptables counts it, from 1.
    #[must_use]
    pub fn number(&self) -> usize {
        self.at + 1
    }
}

/// Prints the place as people say it: `nat PREROUTING rule 2`.
impl fmt::Display for ImportedPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, chain, .. } = self;
        write!(f, "{table} {} rule {}", chain.as_str(), self.number())
    }
}

/// The jumps that lead to a rule from the built-in chain on, and the rule.
pub type RuleWay = (Vec<ImportedPlace>, ImportedPlace);
