//! The fate of each rule.

use std::fmt;

use super::place::ImportedPlace;
use super::remark::ImportRemark;
use crate::forwards::Name;

/// A rule, or the policy of a chain, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub place: ImportedPlace,
    pub fate: RuleFate,
}

/// The fate of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleFate {
    /// The spec says what it does.
    Taken {
        part: Part,
        /// The forwards or outbound entries that say it, at least one.
        entries: Vec<Name>,
    },
    /// The plan does the same by itself.
    NotNeeded(String),
    /// It stays where it is.
    LeftAlone(String),
    /// A spec has no words for it.
    NotSaid(String),
}

/// The part of an entry that a rule became.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Redirect,
    Accept,
    Refuse,
    Source,
    Hairpin,
    Limit,
    Log,
    /// A jump to rules that are all taken over.
    Jump,
    /// A rule of nvactl's own.
    Own,
}

impl Part {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Part::Redirect => "the redirection",
            Part::Accept => "the accept",
            Part::Refuse => "the refused clients",
            Part::Source => "the source address",
            Part::Hairpin => "the way back for hosts behind the firewall",
            Part::Limit => "the limit",
            Part::Log => "the log",
            Part::Jump => "the jump to rules that are taken over",
            Part::Own => "nvactl's own rule",
        }
    }
}

impl RuleFate {
    /// Returns the fate of a rule of nvactl's own.
    #[must_use]
    pub fn own() -> Self {
        RuleFate::Taken {
            part: Part::Own,
            entries: Vec::new(),
        }
    }

    /// Returns the word of reports and JSON.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            RuleFate::Taken { .. } => "taken over",
            RuleFate::NotNeeded(_) => "not needed",
            RuleFate::LeftAlone(_) => "left alone",
            RuleFate::NotSaid(_) => "cannot be said",
        }
    }
}

/// Prints what became of the rule, or why nothing did, for a line of its own.
impl fmt::Display for RuleFate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuleFate::Taken { part, entries } => {
                let names: Vec<&str> = entries.iter().map(Name::as_str).collect();
                match names.as_slice() {
                    [] => f.write_str(part.as_str()),
                    names => write!(f, "{} of {}", part.as_str(), names.join(", ")),
                }
            }
            RuleFate::NotNeeded(why) | RuleFate::LeftAlone(why) | RuleFate::NotSaid(why) => {
                f.write_str(why)
            }
        }
    }
}

/// The words of an import about a rule beside its fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remarked {
    /// The forward or outbound entry.
    pub entry: Name,
    pub place: ImportedPlace,
    pub remark: ImportRemark,
}
