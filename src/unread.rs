//! Rules that cannot be read, or not written again: somebody has given a name or a comment that
//! iptables-save prints and iptables-restore does not take, or has made a rule with `nft` that iptables
//! shows as another. They keep their places; nvactl names them.

use std::collections::BTreeMap;

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

/// A rule that the kernel has and a load of what iptables-save prints does not bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misprinted {
    pub table: String,
    pub chain: String,
    /// As `nft` lists it.
    pub live: String,
    /// The rule that comes in its place.
    pub loaded: Option<String>,
}

/// Returns the first rule that differs, chain by chain, between `nft -s list table` of the live rules and
/// of those that a load of iptables-save's text makes. iptables-save prints `ip saddr @s drop` as
/// `-j DROP`, and `ip saddr 192.0.2.4-192.0.2.9` as `-s 192.0.2.9/32` (measured, 1.8.9). To compare both listings finds these
/// without a list of the forms that each version of iptables makes.
#[must_use]
pub fn misprinted(live: &str, loaded: &str) -> Option<Misprinted> {
    let (live, loaded) = (listed(live), listed(loaded));
    live.iter().find_map(|(&(table, chain), rules)| {
        let others = loaded.get(&(table, chain)).map_or(&[][..], Vec::as_slice);
        let at = (0..rules.len()).find(|at| others.get(*at) != Some(&rules[*at]))?;
        Some(Misprinted {
            table: table.to_owned(),
            chain: chain.to_owned(),
            live: rules[at].to_owned(),
            loaded: others.get(at).map(|rule| (*rule).to_owned()),
        })
    })
}

type Listed<'t> = BTreeMap<(&'t str, &'t str), Vec<&'t str>>;

/// Returns the lines of each chain's rules in what `nft list table` prints.
fn listed(text: &str) -> Listed<'_> {
    let mut listed = Listed::new();
    let (mut table, mut chain) = ("", None);
    for line in text.lines() {
        // `-a` puts a handle behind each.
        let line = line
            .rsplit_once(" # handle ")
            .map_or(line, |(line, _)| line);
        if let Some(rule) = line.strip_prefix("\t\t") {
            // How the chain is hooked in is no rule.
            if let Some(chain) = chain.filter(|_| !rule.starts_with("type ")) {
                listed.entry((table, chain)).or_default().push(rule);
            }
        } else if let Some(name) = line.strip_suffix(" {") {
            let chain_name = name.strip_prefix("\tchain ");
            if chain_name.is_none() && !name.starts_with('\t') {
                table = name.rsplit(' ').next().unwrap_or_default();
            }
            chain = chain_name;
        }
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_a_load_would_change_is_found_in_its_chain() {
        let live = "table ip filter { # handle 1\n\tset s { # handle 2\n\t\ttype ipv4_addr\n\t}\n\n\
            \tchain f2b { # handle 4\n\t\tip saddr 192.0.2.1 counter drop # handle 5\n\t}\n\n\
            \tchain INPUT { # handle 3\n\t\ttype filter hook input priority filter; policy drop;\n\
            \t\tcounter jump f2b # handle 6\n\t\tip saddr @s drop # handle 7\n\t}\n}\n";
        // The chains in another order, and other handles.
        let loaded = |rule: &str| {
            format!(
                "table ip filter {{\n\tchain INPUT {{\n\
                 \t\ttype filter hook input priority filter; policy accept;\n\
                 \t\tcounter jump f2b\n{rule}\t}}\n\n\
                 \tchain f2b {{\n\t\tip saddr 192.0.2.1 counter drop\n\t}}\n}}\n"
            )
        };
        let found = |other: Option<&str>| {
            Some(Misprinted {
                table: "filter".to_owned(),
                chain: "INPUT".to_owned(),
                live: "ip saddr @s drop".to_owned(),
                loaded: other.map(str::to_owned),
            })
        };
        assert_eq!(
            misprinted(live, &loaded("\t\tcounter drop\n")),
            found(Some("counter drop"))
        );
        assert_eq!(misprinted(live, &loaded("")), found(None));
        assert_eq!(misprinted(live, &loaded("\t\tip saddr @s drop\n")), None);
        assert_eq!(misprinted("", ""), None);
    }
}
