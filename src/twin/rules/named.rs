//! The networks and ports in rules of others.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::listing::{ListedTable, words as nft_words};
use super::{PacketFilter, own, saved};
use crate::netfilter::text::parse;
use crate::netfilter::token::words;

/// The networks in rules.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// Networks that packets come from.
    pub sources: BTreeSet<IpNet>,
    /// Networks that packets go to, which may be packets of a reply.
    pub destinations: BTreeSet<IpNet>,
}

impl PacketFilter {
    /// Returns the networks that rules of others match: packets of each may meet rules that no other packet meets.
    /// For an ipset, these are the first few.
    #[must_use]
    pub fn networks(&self) -> Networks {
        let (mut found, mut sets) = (Networks::default(), Vec::new());
        for text in &self.texts {
            let text = parse::text_of(&text.bytes);
            for rule in saved::foreign_rules(&text) {
                of_iptables(&self.facts.spaced_sets.quoted(rule), &mut found, &mut sets);
            }
        }
        let text = parse::text_of(&self.sets);
        sets.sort_unstable();
        sets.dedup();
        for (set, direction) in sets {
            let nets = match direction {
                MatchedEnd::From => &mut found.sources,
                MatchedEnd::To => &mut found.destinations,
            };
            nets.extend(of_set(&text, &set).take(OF_A_SET));
            // The members of a list are sets.
            for member in members(&text, &set).take(OF_A_SET) {
                nets.extend(of_set(&text, member).take(OF_A_SET));
            }
        }
        for table in self.native.iter().chain(&self.own) {
            of_nft(table, &mut found);
        }
        found
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum MatchedEnd {
    From,
    To,
}

impl PacketFilter {
    /// Returns the destination ports that rules of others match.
    #[must_use]
    pub fn ports(&self) -> BTreeSet<u16> {
        let mut found = BTreeSet::new();
        for text in &self.texts {
            let text = parse::text_of(&text.bytes);
            for rule in saved::foreign_rules(&text) {
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

/// Returns the numbers of a list, and both ends of a range.
fn numbers(list: &str) -> impl Iterator<Item = u16> {
    let each = list.split(|one: char| !one.is_ascii_digit());
    each.filter_map(|number| number.parse().ok())
}

/// Returns the first address of a range.
fn first_of(range: &str) -> Option<IpNet> {
    net(range.split('-').next()?)
}

/// A ban list of thousands is one rule for all of them, so a few of a set's networks are enough.
const OF_A_SET: usize = 2;

/// Returns the networks of an ipset, from the text of `ipset save`.
fn of_set<'t>(text: &'t str, set: &'t str) -> impl Iterator<Item = IpNet> + 't {
    text.lines().filter_map(move |line| {
        let mut words = line.strip_prefix("add ")?.split(' ');
        if words.next()? != set {
            return None;
        }
        // The network comes first in an element of `hash:net,port` and similar types.
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

/// Reads the networks and ipsets in a rule of iptables.
fn of_iptables(rule: &str, found: &mut Networks, sets: &mut Vec<(String, MatchedEnd)>) {
    let mut words = words(rule);
    while let Some(word) = words.next() {
        match word {
            "-s" | "--src-range" | "--ctorigsrc" => {
                found.sources.extend(words.next().and_then(first_of));
            }
            "-d" | "--dst-range" | "--ctrepldst" => {
                found.destinations.extend(words.next().and_then(first_of));
            }
            "--match-set" => {
                let set = words.next().unwrap_or_default().trim_matches('"');
                let flags = words.next().unwrap_or_default();
                for (flag, direction) in [("src", MatchedEnd::From), ("dst", MatchedEnd::To)] {
                    if flags.contains(flag) {
                        sets.push((set.to_owned(), direction));
                    }
                }
            }
            "--comment" => {
                words.next();
            }
            _ => {}
        }
    }
}

fn of_nft(table: &ListedTable, found: &mut Networks) {
    let chains = table.chains.iter();
    for rule in chains
        .filter(|chain| !own::is_nvactls(&chain.name))
        .flat_map(|chain| &chain.rules)
    {
        of_nft_rule(&rule.text, found);
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
            found.sources.extend(elements(list));
        }
    }
}

/// Reads the networks in a rule of nft: `ip saddr NET`, `ip saddr { NET, NET }`, `ip saddr vmap { NET : drop }`, `ip
/// saddr . tcp dport { ADDRESS . 80 }`.
fn of_nft_rule(rule: &str, found: &mut Networks) {
    if !rule.contains("addr ") {
        return;
    }
    let words: Vec<&str> = nft_words(rule).collect();
    let (mut from, mut to) = (false, false);
    let mut at = 0;
    while let Some(word) = words.get(at) {
        at += 1;
        let nets: Vec<IpNet> = match *word {
            "saddr" => {
                from = true;
                continue;
            }
            "daddr" => {
                to = true;
                continue;
            }
            "{" => {
                let rest = &words[at..];
                let end = rest.iter().position(|word| *word == "}");
                let inside = &rest[..end.unwrap_or(rest.len())];
                at += inside.len();
                elements(&inside.join(" ")).collect()
            }
            word => match first_of(word) {
                Some(net) => vec![net],
                // The networks of a named set are in a block.
                None if word.starts_with('@') => Vec::new(),
                None => continue,
            },
        };
        if from {
            found.sources.extend(&nets);
        }
        if to {
            found.destinations.extend(&nets);
        }
        (from, to) = (false, false);
    }
}

/// Reads the networks of a list in braces. The element `ADDRESS . 80 : drop` has one.
fn elements(list: &str) -> impl Iterator<Item = IpNet> {
    let inside = list.split('}').next().unwrap_or_default();
    let keys = inside
        .split(',')
        .filter_map(|one| one.split(" : ").next())
        .flat_map(|key| key.split(" . "));
    let each = keys.filter_map(|one| one.split_whitespace().next());
    each.filter_map(first_of)
}

fn net(word: &str) -> Option<IpNet> {
    let address = |word: &str| word.parse::<IpAddr>().ok().map(IpNet::from);
    let with_mask = || {
        let (first, mask) = word.split_once('/')?;
        let mask = IpAddr::from_str(mask).ok()?;
        let net = IpNet::with_netmask(first.parse().ok()?, mask).ok();
        // A mask may have holes; then the first address is taken alone.
        net.or_else(|| address(first))
    };
    let net = word.parse::<IpNet>().ok().or_else(|| address(word));
    Some(net.or_else(with_mask)?.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::rules::listing::tables;

    #[test]
    fn the_networks_are_read_from_rules_lists_and_sets() {
        let listed = "table inet f2b-table {\n\tset addr-set {\n\t\ttype ipv4_addr\n\t\telements = { 203.0.113.7,\n\t\t\t     203.0.113.9 timeout 1h }\n\t}\n\n\tchain c {\n\t\ttype filter hook input priority filter - 1; policy accept;\n\t\tip saddr @addr-set drop\n\t\tip saddr 10.9.0.0/16 drop\n\t\tip6 saddr { fd00::/8, 2001:db8::1 } drop\n\t}\n}\n";
        let mut found = Networks::default();
        of_nft(&tables(listed)[0], &mut found);
        assert_eq!(
            named(&found.sources),
            [
                "10.9.0.0/16",
                "203.0.113.7/32",
                "203.0.113.9/32",
                "2001:db8::1/128",
                "fd00::/8",
            ]
        );
        let saved = "create bans hash:net family inet\nadd bans 203.0.113.0/24 timeout 9\nadd other 192.0.2.1\n";
        let nets: Vec<String> = of_set(saved, "bans").map(|net| net.to_string()).collect();
        assert_eq!(nets, ["203.0.113.0/24"]);
    }

    fn named(nets: &BTreeSet<IpNet>) -> Vec<String> {
        nets.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn networks_are_found_in_many_spellings() {
        for (rule, sources, destinations) in [
            (
                "FORWARD ! -s 192.0.2.0/24 -i eth0 -j DROP",
                "192.0.2.0/24",
                "",
            ),
            ("FORWARD -d 192.0.2.0/24 -j DROP", "", "192.0.2.0/24"),
            (
                "FORWARD -s 10.0.0.10/255.255.0.255 -j DROP",
                "10.0.0.10/32",
                "",
            ),
            (
                "FORWARD -s 10.0.0.10/255.255.0.0 -j DROP",
                "10.0.0.0/16",
                "",
            ),
            (
                "FORWARD -m iprange --src-range 10.0.0.7-10.0.0.9 -j DROP",
                "10.0.0.7/32",
                "",
            ),
            (
                "FORWARD -m conntrack --ctorigsrc 192.0.2.0/24 -j DROP",
                "192.0.2.0/24",
                "",
            ),
            (
                "FORWARD -m comment --comment \"-s 1.2.3.4\" -j DROP",
                "",
                "",
            ),
        ] {
            let mut found = Networks::default();
            of_iptables(rule, &mut found, &mut Vec::new());
            assert_eq!(named(&found.sources).concat(), sources, "{rule}");
            assert_eq!(named(&found.destinations).concat(), destinations, "{rule}");
        }
        for (rule, sources, destinations) in [
            ("ip daddr 192.0.2.0/24 drop", "", "192.0.2.0/24"),
            (
                "ip saddr vmap { 192.0.2.0/24 : drop, 10.0.0.1 : accept }",
                "10.0.0.1/32 192.0.2.0/24",
                "",
            ),
            (
                "ip saddr . tcp dport { 192.0.2.1 . 80, 192.0.2.2 . 81 } drop",
                "192.0.2.1/32 192.0.2.2/32",
                "",
            ),
            (
                "ip6 saddr fd00::/8 ip6 daddr { fd01::1, fd01::2-fd01::5 } drop",
                "fd00::/8",
                "fd01::1/128 fd01::2/128",
            ),
            ("ct original ip saddr != 192.0.2.1 drop", "192.0.2.1/32", ""),
            ("ip saddr @s ip daddr 192.0.2.1 drop", "", "192.0.2.1/32"),
        ] {
            let mut found = Networks::default();
            of_nft_rule(rule, &mut found);
            assert_eq!(named(&found.sources).join(" "), sources, "{rule}");
            assert_eq!(named(&found.destinations).join(" "), destinations, "{rule}");
        }
        let mut sets = Vec::new();
        let rule = "FORWARD -m set --match-set a src -m set ! --match-set \"b c\" dst,src -j DROP";
        of_iptables(rule, &mut Networks::default(), &mut sets);
        let sets: Vec<String> = sets
            .iter()
            .map(|(set, to)| format!("{set} {to:?}"))
            .collect();
        assert_eq!(sets, ["a From", "b c From", "b c To"]);
    }
}
