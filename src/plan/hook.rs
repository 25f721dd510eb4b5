//! The hooks where nvactl has rules, and the chains that hold those rules.

use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;

/// A point in a packet's path where nvactl has a chain and one jump to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// A packet arrives from another machine: it is redirected.
    Arriving,
    /// The machine itself sends a packet: it is redirected.
    Sent,
    /// A packet that is forwarded announces the size of TCP segments: the size is limited.
    Sizing,
    /// A redirected packet is forwarded: it is accepted or refused.
    Passing,
    /// A redirected packet leaves: its source is rewritten.
    Leaving,
}

impl Hook {
    /// All hooks, in the order in which a packet traverses them.
    pub const ALL: [Hook; 5] = [
        Hook::Arriving,
        Hook::Sent,
        Hook::Sizing,
        Hook::Passing,
        Hook::Leaving,
    ];

    #[must_use]
    pub fn table(self) -> TableName {
        match self {
            Hook::Passing => TableName::Filter,
            Hook::Sizing => TableName::Mangle,
            _ => TableName::Nat,
        }
    }

    /// Returns the built-in chain that jumps to nvactl's chain.
    #[must_use]
    pub fn builtin(self) -> ChainName {
        match self {
            Hook::Arriving => ChainName::Prerouting,
            Hook::Sent => ChainName::Output,
            Hook::Sizing | Hook::Passing => ChainName::Forward,
            Hook::Leaving => ChainName::Postrouting,
        }
    }

    /// Returns the name of nvactl's chain.
    #[must_use]
    pub fn own(self) -> &'static str {
        match self {
            Hook::Arriving => "NVACTL-PREROUTING",
            Hook::Sent => "NVACTL-OUTPUT",
            Hook::Sizing => "NVACTL-MSS",
            Hook::Passing => "NVACTL-FORWARD",
            Hook::Leaving => "NVACTL-POSTROUTING",
        }
    }

    /// Returns the prefix of the names of the hook's other chains in a tree.
    #[must_use]
    pub fn stem(self) -> &'static str {
        match self {
            Hook::Arriving => "NVACTL-DNAT-",
            Hook::Sent => "NVACTL-OUT-",
            Hook::Sizing => "NVACTL-MSS-",
            Hook::Passing => "NVACTL-FWD-",
            Hook::Leaving => "NVACTL-SNAT-",
        }
    }

    /// Returns the hook that a chain belongs to: as its own chain, or as one of its tree.
    #[must_use]
    pub fn of(chain: &ChainName) -> Option<Hook> {
        let name = chain.as_str();
        let mut all = Self::ALL.into_iter();
        all.find(|hook| name == hook.own() || name.starts_with(hook.stem()))
    }

    /// Iterates over the hook's rules, each with its chain.
    pub fn rules(self, ruleset: &Ruleset) -> impl Iterator<Item = (&ChainName, &Rule)> {
        let chains = ruleset.tables.get(&self.table()).into_iter().flatten();
        let mine = chains.filter(move |(name, _)| Self::of(name) == Some(self));
        mine.flat_map(|(name, chain)| chain.rules.iter().map(move |rule| (name, rule)))
    }
}

/// Returns whether nvactl may add a jump to this chain. Every jump from here to a chain of nvactl counts as
/// nvactl's own, whoever added it.
#[must_use]
pub fn jumps_from(table: TableName, chain: &ChainName) -> bool {
    let mut hooks = Hook::ALL.into_iter();
    hooks.any(|hook| hook.table() == table && hook.builtin() == *chain)
}
