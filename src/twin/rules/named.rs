//! The source networks that rules of others name.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::listing::Table;
use super::{Filter, own};
use crate::netfilter::text::parse;
use crate::netfilter::token::words;

impl Filter {
    /// Returns the source networks that the rules of others ask for: each of them may meet rules that nobody
    /// else meets. Of an ipset the first few count.
    #[must_use]
    pub fn sources(&self) -> BTreeSet<IpNet> {
        let (mut found, mut sets) = (BTreeSet::new(), BTreeSet::new());
        for text in &self.texts {
            let text = parse::text_of(&text.bytes);
            let rules = text.lines().filter_map(|line| line.strip_prefix("-A "));
            let foreign = rules.filter(|rule| {
                let chain = rule.split(' ').next().unwrap_or_default();
                !own::is_nvactls(chain)
            });
            for rule in foreign {
                if rule.contains("--src-range ") {
                    let mut words = words(rule).skip_while(|word| *word != "--src-range");
                    found.extend(words.nth(1).and_then(first_of));
                }
                if rule.contains("-s ") {
                    found.extend(of_iptables(rule));
                }
                if rule.contains("--match-set ") {
                    sets.extend(set_of(rule).map(str::to_owned));
                }
            }
        }
        let text = parse::text_of(&self.sets);
        for set in sets {
            found.extend(of_set(&text, &set).take(OF_A_SET));
            // The members of a list are sets.
            for member in members(&text, &set).take(OF_A_SET) {
                found.extend(of_set(&text, member).take(OF_A_SET));
            }
        }
        for table in &self.native {
            of_nft(table, &mut found);
        }
        found
    }
}

impl Filter {
    /// Returns the destination ports that the rules of others ask for.
    #[must_use]
    pub fn ports(&self) -> BTreeSet<u16> {
        let mut found = BTreeSet::new();
        for text in &self.texts {
            let text = parse::text_of(&text.bytes);
            let rules = text.lines().filter_map(|line| line.strip_prefix("-A "));
            for rule in rules.filter(|rule| !own::is_nvactls(rule)) {
                let mut words = words(rule);
                while let Some(word) = words.next() {
                    if matches!(word, "--dport" | "--dports" | "--ctorigdstport") {
                        found.extend(words.next().into_iter().flat_map(numbers));
                    }
                }
            }
        }
        let rules = self.native.iter().flat_map(|table| &table.chains);
        for rule in rules.flat_map(|chain| &chain.rules) {
            for (_, rest) in rule
                .text
                .match_indices("dport ")
                .map(|(at, word)| rule.text.split_at(at + word.len()))
            {
                let rest = rest.trim_start_matches("!= ");
                let list = rest
                    .strip_prefix("{ ")
                    .and_then(|list| list.split('}').next());
                let list = list.or_else(|| rest.split(' ').next());
                found.extend(list.into_iter().flat_map(numbers));
            }
        }
        found
    }
}

/// Returns the numbers of a list; of a range its ends.
fn numbers(list: &str) -> impl Iterator<Item = u16> {
    let each = list.split(|one: char| !one.is_ascii_digit());
    each.filter_map(|number| number.parse().ok())
}

/// Returns the first address of a range.
fn first_of(range: &str) -> Option<IpNet> {
    net(range.split('-').next()?)
}

/// A ban list of thousands is one rule for all of them.
const OF_A_SET: usize = 2;

/// Returns the ipset that a rule asks for.
fn set_of(rule: &str) -> Option<&str> {
    let mut words = words(rule).skip_while(|word| *word != "--match-set");
    words.nth(1)
}

/// Returns the networks of an ipset, from the text of `ipset save`.
fn of_set<'t>(text: &'t str, set: &'t str) -> impl Iterator<Item = IpNet> + 't {
    text.lines().filter_map(move |line| {
        let mut words = line.strip_prefix("add ")?.split(' ');
        if words.next()? != set {
            return None;
        }
        // Of `hash:net,port` and its like, the network comes first.
        net(words.next()?.split(',').next()?)
    })
}

/// Returns the names of an ipset's members.
fn members<'t>(text: &'t str, set: &'t str) -> impl Iterator<Item = &'t str> {
    text.lines().filter_map(move |line| {
        let mut words = line.strip_prefix("add ")?.split(' ');
        (words.next()? == set).then(|| words.next()).flatten()
    })
}

fn of_iptables(rule: &str) -> Option<IpNet> {
    let mut words = words(rule).skip_while(|word| *word != "-s");
    net(words.nth(1)?)
}

fn of_nft(table: &Table, found: &mut BTreeSet<IpNet>) {
    let rules = table.chains.iter().flat_map(|chain| &chain.rules);
    for rule in rules.filter(|rule| rule.text.contains("saddr ")) {
        let (_, rest) = rule.text.split_once("saddr ").unwrap_or_default();
        let rest = rest.trim_start_matches("!= ");
        match rest.strip_prefix("{ ") {
            Some(list) => found.extend(elements(list)),
            None => found.extend(rest.split(' ').next().and_then(net)),
        }
    }
    for block in table
        .blocks
        .iter()
        .filter(|block| block.kind != "flowtable")
    {
        let elements_of = |line: &String| line.trim_start().starts_with("elements");
        let lines = block.lines.iter().skip_while(|line| !elements_of(line));
        let text: Vec<&str> = lines.map(String::as_str).collect();
        let text = text.join(" ");
        if let Some((_, list)) = text.split_once("{ ") {
            found.extend(elements(list));
        }
    }
}

/// Reads the networks of a list in braces.
fn elements(list: &str) -> impl Iterator<Item = IpNet> {
    let inside = list.split('}').next().unwrap_or_default();
    let each = inside
        .split(',')
        .filter_map(|one| one.split_whitespace().next());
    each.filter_map(first_of)
}

fn net(word: &str) -> Option<IpNet> {
    let address = || Some(IpNet::from(word.parse::<IpAddr>().ok()?));
    let net = word.parse::<IpNet>().ok().or_else(address)?;
    Some(net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::rules::listing::tables;

    #[test]
    fn the_networks_are_read_from_rules_lists_and_sets() {
        let listed = "table inet f2b-table {\n\tset addr-set {\n\t\ttype ipv4_addr\n\t\telements = { 203.0.113.7,\n\t\t\t     203.0.113.9 timeout 1h }\n\t}\n\n\tchain c {\n\t\ttype filter hook input priority filter - 1; policy accept;\n\t\tip saddr @addr-set drop\n\t\tip saddr 10.9.0.0/16 drop\n\t\tip6 saddr { fd00::/8, 2001:db8::1 } drop\n\t}\n}\n";
        let mut found = BTreeSet::new();
        of_nft(&tables(listed)[0], &mut found);
        let words: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "10.9.0.0/16",
                "203.0.113.7/32",
                "203.0.113.9/32",
                "2001:db8::1/128",
                "fd00::/8",
            ]
        );
        let rule = "FORWARD ! -s 192.0.2.0/24 -i eth0 -j DROP";
        assert_eq!(
            of_iptables(rule).map(|net| net.to_string()).as_deref(),
            Some("192.0.2.0/24")
        );
        let rule = "FORWARD -m set --match-set bans src -j DROP";
        assert_eq!(set_of(rule), Some("bans"));
        let saved = "create bans hash:net family inet\nadd bans 203.0.113.0/24 timeout 9\nadd other 192.0.2.1\n";
        let nets: Vec<String> = of_set(saved, "bans").map(|net| net.to_string()).collect();
        assert_eq!(nets, ["203.0.113.0/24"]);
        assert_eq!(
            of_iptables("FORWARD -m comment --comment \"-s 1.2.3.4\" -j DROP"),
            None
        );
    }
}
