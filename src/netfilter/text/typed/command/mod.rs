//! One command of `iptables`: its action and the words of its rule. [`options`] and [`reader`] read them from the
//! command's words as `getopt_long(3)` does.

mod action;
mod loading;
mod options;
mod reader;
mod words;

pub(super) use reader::read_command;

use super::extensions::Extension;
use crate::net::Family;
use crate::netfilter::names::{ChainName, Policy, TableName};

/// A command without the name of its program.
#[derive(Debug)]
pub(super) struct TypedCommand {
    pub table: TableName,
    /// Whether `-t` names the table.
    pub names_table: bool,
    /// `-4` or `-6`: in iptables-save text, the family whose program takes the line.
    pub of: Option<Family>,
    pub action: Action,
    pub rule: TypedRule,
}

/// The change that a command makes. Places are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Append(ChainName),
    Insert(ChainName, usize),
    Replace(ChainName, usize),
    Delete(ChainName),
    DeleteAt(ChainName, usize),
    /// Deletes the rules of a chain, or of all.
    Flush(Option<ChainName>),
    New(ChainName),
    /// Deletes a chain, or all that can be deleted.
    DeleteChain(Option<ChainName>),
    Rename(ChainName, ChainName),
    SetPolicy(ChainName, Policy),
    /// Lists, checks or counts.
    Nothing,
}

/// The words of a rule, each where it belongs.
#[derive(Debug, Default)]
pub(super) struct TypedRule {
    pub source: Option<Typed>,
    pub destination: Option<Typed>,
    pub ingress: Option<Typed>,
    pub egress: Option<Typed>,
    pub protocol: Option<Typed>,
    /// `-f`, and whether it is not negated.
    pub fragments: Option<bool>,
    /// In the order in which iptables loads them.
    pub matches: Vec<Loaded>,
    pub target: Option<TypedTarget>,
}

/// A value, and whether `!` stands with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Typed {
    pub is_negated: bool,
    pub value: String,
}

/// A target by name.
#[derive(Debug)]
pub(super) struct TypedTarget {
    pub name: String,
    /// `-g`
    pub is_goto: bool,
    /// `None` for a verdict or a chain.
    pub loaded: Option<Loaded>,
}

/// A match or a target, and the options that are given.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub extension: Extension,
    pub given: Vec<Given>,
}

/// An option of an extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    /// Its name and place in the order of iptables-save.
    pub name: &'static str,
    pub at: usize,
    pub is_negated: bool,
    pub values: Vec<String>,
}

impl Loaded {
    pub fn given(&self, name: &str) -> Option<&Given> {
        self.given.iter().find(|given| given.name == name)
    }

    /// Returns the only value of an option.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.given(name)?.values.first().map(String::as_str)
    }
}

impl TypedRule {
    /// Returns whether the command has no words of a rule.
    pub fn is_empty(&self) -> bool {
        let general = [
            &self.source,
            &self.destination,
            &self.ingress,
            &self.egress,
            &self.protocol,
        ];
        general.iter().all(|one| one.is_none())
            && self.fragments.is_none()
            && self.matches.is_empty()
            && self.target.is_none()
    }
}
