//! The places in a packet's way where nvactl has rules, and the chains that hold them.

use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;

/// One such place, with a chain of nvactl's and one jump to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// What arrives from elsewhere is sent on.
    Arriving,
    /// What the machine itself sends is sent on.
    Sent,
    /// What is sent on passes.
    Passing,
    /// What has passed leaves with another source.
    Leaving,
}

impl Hook {
    /// In the order of a packet's way.
    pub const ALL: [Hook; 4] = [Hook::Arriving, Hook::Sent, Hook::Passing, Hook::Leaving];

    #[must_use]
    pub fn table(self) -> TableName {
        match self {
            Hook::Passing => TableName::Filter,
            _ => TableName::Nat,
        }
    }

    /// The built-in chain that jumps to nvactl's.
    #[must_use]
    pub fn builtin(self) -> ChainName {
        match self {
            Hook::Arriving => ChainName::Prerouting,
            Hook::Sent => ChainName::Output,
            Hook::Passing => ChainName::Forward,
            Hook::Leaving => ChainName::Postrouting,
        }
    }

    /// The name of nvactl's.
    #[must_use]
    pub fn own(self) -> &'static str {
        match self {
            Hook::Arriving => "NVACTL-PREROUTING",
            Hook::Sent => "NVACTL-OUTPUT",
            Hook::Passing => "NVACTL-FORWARD",
            Hook::Leaving => "NVACTL-POSTROUTING",
        }
    }

    /// What the names of the chains begin with that it leads to in a tree.
    #[must_use]
    pub fn stem(self) -> &'static str {
        match self {
            Hook::Arriving => "NVACTL-DNAT-",
            Hook::Sent => "NVACTL-OUT-",
            Hook::Passing => "NVACTL-FWD-",
            Hook::Leaving => "NVACTL-SNAT-",
        }
    }

    /// The hook whose rules a chain holds: its own chain, or one of its tree's.
    #[must_use]
    pub fn of(chain: &ChainName) -> Option<Hook> {
        let name = chain.as_str();
        let mut all = Self::ALL.into_iter();
        all.find(|hook| name == hook.own() || name.starts_with(hook.stem()))
    }

    /// Its rules, each with the chain that it stands in.
    pub fn rules(self, ruleset: &Ruleset) -> impl Iterator<Item = (&ChainName, &Rule)> {
        let chains = ruleset.tables.get(&self.table()).into_iter().flatten();
        let mine = chains.filter(move |(name, _)| Self::of(name) == Some(self));
        mine.flat_map(|(name, chain)| chain.rules.iter().map(move |rule| (name, rule)))
    }
}

/// Whether nvactl's jumps stand in this chain, so that every jump from there to a chain of its own
/// is one that it has made, or that stands in its place.
#[must_use]
pub fn jumps_from(table: TableName, chain: &ChainName) -> bool {
    let mut hooks = Hook::ALL.into_iter();
    hooks.any(|hook| hook.table() == table && hook.builtin() == *chain)
}
