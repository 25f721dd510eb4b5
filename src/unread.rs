//! Rules that cannot be read, or not written again: somebody has given a name or a comment that
//! iptables-save prints and iptables-restore does not take. They keep their places; nvactl names them.

use crate::printable;
use crate::rule::{Rule, Target};
use crate::ruleset::{ChainName, Ruleset, TableName};

/// A rule of which only the text is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnreadRule<'r> {
    pub table: TableName,
    pub chain: &'r ChainName,
    /// Its place in the chain, counted from 1.
    pub place: usize,
    /// What iptables-save prints behind the name of the chain; may hold line breaks.
    pub text: &'r str,
}

/// Returns the rules that cannot be read, in the order of the text.
#[must_use]
pub fn unread(ruleset: &Ruleset) -> Vec<UnreadRule<'_>> {
    let rules = ruleset.chains().flat_map(|(table, chain, body)| {
        let placed = (1..).zip(&body.rules);
        placed.map(move |(place, rule)| (table, chain, place, rule))
    });
    rules
        .filter_map(|(table, chain, place, rule)| match &rule.target {
            Some(Target::Unread(text)) => Some(UnreadRule {
                table,
                chain,
                place,
                text,
            }),
            _ => None,
        })
        .collect()
}

impl UnreadRule<'_> {
    /// Returns the warning of it, with the command that shows it. `program`: the iptables of its family
    /// and backend.
    #[must_use]
    pub fn warning(&self, program: &str) -> String {
        let Self {
            table,
            chain,
            place,
            text,
        } = self;
        let becomes = if chain.is_own() {
            "`nvactl apply` removes it"
        } else {
            "it stays as it is"
        };
        let text = printable::line(text);
        format!(
            "{program} {table}: rule {place} of {chain} cannot be read, {becomes}: `{text}`; \
             to look: sudo {program} -t {table} -S {chain} {place}"
        )
    }
}

/// Returns the first rule that iptables-restore would not read, and its chain.
#[must_use]
pub fn unloadable(ruleset: &Ruleset) -> Option<(&ChainName, &Rule)> {
    ruleset.chains().find_map(|(_, name, chain)| {
        let rule = chain.rules.iter().find(|rule| !rule.is_loadable())?;
        Some((name, rule))
    })
}
