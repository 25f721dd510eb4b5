//! Tables, chains and policies: what iptables-save prints, as one ordered model.
//!
//! The order of the maps is the order of the text: tables by name, and in a table the built-in
//! chains in the order of their hooks, then user-defined chains bytewise (measured, iptables
//! 1.8.7 to 1.8.13). So two
//! rulesets that mean the same print the same, wherever they came from.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::netfilter::rule::Rule;
use crate::netfilter::text::line::Line;

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

impl fmt::Display for Ruleset {
    /// As iptables-save prints it, without the comments that carry a time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (table, chains) in &self.tables {
            writeln!(f, "{}", Line::Table(*table))?;
            for (name, chain) in chains {
                // Of a built-in chain without a policy there is nothing to declare.
                if chain.policy.is_some() || !name.is_builtin() {
                    writeln!(f, "{}", Line::Chain(name, chain.policy))?;
                }
            }
            for (name, chain) in chains {
                for rule in &chain.rules {
                    Line::Append(name, rule).fmt(f)?;
                    f.write_str("\n")?;
                }
            }
            writeln!(f, "{}", Line::Commit)?;
        }
        Ok(())
    }
}

/// The kernel's tables, in the order in which nvactl prints them. nvactl writes to `filter` and
/// `nat`; the others are known so that a whole iptables-save can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TableName {
    Filter,
    Mangle,
    Nat,
    Raw,
    Security,
}

impl TableName {
    const ALL: [TableName; 5] = [
        TableName::Filter,
        TableName::Mangle,
        TableName::Nat,
        TableName::Raw,
        TableName::Security,
    ];

    /// The tables that nvactl has rules in.
    pub const WRITTEN: [TableName; 2] = [TableName::Filter, TableName::Nat];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            TableName::Filter => "filter",
            TableName::Mangle => "mangle",
            TableName::Nat => "nat",
            TableName::Raw => "raw",
            TableName::Security => "security",
        }
    }

    /// The chains the kernel calls by itself (iptables(8), TABLES).
    #[must_use]
    pub fn builtin_chains(self) -> &'static [ChainName] {
        use ChainName::{Forward, Input, Output, Postrouting, Prerouting};
        match self {
            TableName::Filter | TableName::Security => &[Input, Forward, Output],
            TableName::Mangle => &[Prerouting, Input, Forward, Output, Postrouting],
            TableName::Nat => &[Prerouting, Input, Output, Postrouting],
            TableName::Raw => &[Prerouting, Output],
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a table of the kernel")]
pub struct TableNameError(String);

impl FromStr for TableName {
    type Err = TableNameError;

    fn from_str(text: &str) -> Result<Self, TableNameError> {
        Self::ALL
            .into_iter()
            .find(|table| table.as_str() == text)
            .ok_or_else(|| TableNameError(text.to_owned()))
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of a chain. Ordered as iptables-save orders chains.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChainName {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
    User(Box<str>),
}

impl ChainName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            ChainName::Prerouting => "PREROUTING",
            ChainName::Input => "INPUT",
            ChainName::Forward => "FORWARD",
            ChainName::Output => "OUTPUT",
            ChainName::Postrouting => "POSTROUTING",
            ChainName::User(name) => name,
        }
    }

    #[must_use]
    pub fn is_builtin(&self) -> bool {
        !matches!(self, ChainName::User(_))
    }

    /// Whether the chain is nvactl's: its name starts with `NVACTL-`.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.as_str().starts_with("NVACTL-")
    }
}

impl From<&str> for ChainName {
    /// Any other than the five built-in names is a user-defined chain.
    fn from(name: &str) -> Self {
        use ChainName::{Forward, Input, Output, Postrouting, Prerouting};
        [Prerouting, Input, Forward, Output, Postrouting]
            .into_iter()
            .find(|builtin| builtin.as_str() == name)
            .unwrap_or_else(|| ChainName::User(name.into()))
    }
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What becomes of a packet that no rule of a built-in chain decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Policy {
    Accept,
    Drop,
}

impl Policy {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::Accept => "ACCEPT",
            Policy::Drop => "DROP",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
