//! Rules that cannot be read, or cannot be loaded again: a name or a comment holds bytes that iptables-save
//! prints and iptables-restore refuses, or a rule was made with `nft` and iptables shows it as another. They
//! keep their places, and nvactl reports them.

use crate::net::printable;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::Target;
use crate::netfilter::token::shell_word;

/// A rule that is known only as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnreadRule<'r> {
    pub table: TableName,
    pub chain: &'r ChainName,
    /// Its place in the chain, counted from 1.
    pub place: usize,
    /// The text that iptables-save prints behind the name of the chain. It may hold line breaks.
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
    /// Returns a warning with the command that shows the rule. `program` is the iptables of its family and
    /// backend.
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
        let named = printable::line(chain);
        let chain = shell_word(chain.as_str());
        format!(
            "{program} {table}: rule {place} of {named} cannot be read, {becomes}: `{text}`; \
             to look: sudo {program} -t {table} -S {chain} {place}"
        )
    }
}

/// Returns the first rule that iptables-restore cannot read, and its chain.
#[must_use]
pub fn unloadable(ruleset: &Ruleset) -> Option<(&ChainName, &Rule)> {
    ruleset.chains().find_map(|(_, name, chain)| {
        let rule = chain.rules.iter().find(|rule| !rule.is_loadable())?;
        Some((name, rule))
    })
}

/// A rule of the kernel that is lost if the text of iptables-save is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misprinted {
    pub chain: String,
    /// As `nft` lists it.
    pub live: String,
    /// The rule that takes its place.
    pub loaded: Option<String>,
}

/// Returns the first rule that differs between what `nft -s list table` prints of the live rules and of
/// those that a load of iptables-save's text makes. iptables-save prints `ip saddr @s drop` as
/// `-j DROP`, and `ip saddr 192.0.2.4-192.0.2.9` as `-s 192.0.2.9/32` (measured, 1.8.9). Both listings
/// tell such rules apart without a list of the forms that each version of iptables makes.
#[must_use]
pub fn misprinted(live: &str, loaded: &str) -> Option<Misprinted> {
    let mut chain = None;
    for line in live.lines() {
        if let Some(name) = line.strip_prefix("\tchain ") {
            // The chains may come in another order.
            let (_, rules) = loaded.split_once(line).unwrap_or_default();
            chain = Some((name.trim_end_matches(" {"), rules.lines().skip(1)));
        } else if !line.starts_with("\t\t") {
            chain = None;
        } else if let Some((name, rules)) = &mut chain {
            let loaded = rules.next().filter(|rule| rule.starts_with("\t\t"));
            // The line of the chain's hook is no rule.
            if loaded != Some(line) && !line.starts_with("\t\ttype ") {
                return Some(Misprinted {
                    chain: (*name).to_owned(),
                    live: line.trim_start().to_owned(),
                    loaded: loaded.map(|rule| rule.trim_start().to_owned()),
                });
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_s_name_cannot_start_a_command() {
        let chain = ChainName::from("a\"b$(id)");
        let rule = UnreadRule {
            table: TableName::Filter,
            chain: &chain,
            place: 2,
            text: "-j \"x",
        };
        assert_eq!(
            rule.warning("iptables"),
            "iptables filter: rule 2 of a\"b$(id) cannot be read, it stays as it is: `-j \"x`; \
             to look: sudo iptables -t filter -S 'a\"b$(id)' 2"
        );
    }

    #[test]
    fn a_rule_that_a_load_would_change_is_found_in_its_chain() {
        let live = "table ip filter {\n\tset s {\n\t\ttype ipv4_addr\n\t}\n\n\
            \tchain f2b {\n\t\tip saddr 192.0.2.1 counter drop\n\t}\n\n\
            \tchain INPUT {\n\t\ttype filter hook input priority filter; policy drop;\n\
            \t\tcounter jump f2b\n\t\tip saddr @s drop\n\t}\n}\n";
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
