//! The names of tables and chains, and the policies of chains.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The kernel's tables, in the order in which nvactl prints them. nvactl writes to `filter` and `nat`, and
/// to `mangle` for a spec with `mss`. It reads the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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

    /// The tables that nvactl may have rules in.
    pub const WRITTEN: [TableName; 3] = [TableName::Filter, TableName::Mangle, TableName::Nat];

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

    /// Returns the chains that the kernel itself calls (iptables(8), TABLES).
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

/// The name of a chain, in the order in which iptables-save prints chains.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
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

    /// Returns whether the chain is nvactl's: its name begins with `NVACTL-`.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.as_str().starts_with("NVACTL-")
    }
}

impl From<&str> for ChainName {
    /// Converts a name. All but the five built-in ones are names of user-defined chains.
    fn from(name: &str) -> Self {
        use ChainName::{Forward, Input, Output, Postrouting, Prerouting};
        [Prerouting, Input, Forward, Output, Postrouting]
            .into_iter()
            .find(|builtin| builtin.as_str() == name)
            .unwrap_or_else(|| ChainName::User(name.into()))
    }
}

impl From<String> for ChainName {
    fn from(name: String) -> Self {
        Self::from(name.as_str())
    }
}

impl From<ChainName> for String {
    fn from(name: ChainName) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The verdict on a packet that no rule of a built-in chain has decided on.
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
