//! Chains for translation at the same hook and with the same priority. The kernel asks first whichever was registered
//! last (`nf_hook_entries_grow` in net/netfilter/core.c), and no program lists that order.

use std::collections::BTreeMap;

use super::filter::{LoadOrder, PacketFilter, Text};
use super::listing::ListedTable;
use super::saved;
use crate::host::iptables::nft_family;
use crate::net::Family;
use crate::netfilter::text::parse;

/// A hook and the priority there.
type NatHook = (Family, String, String);

/// The chains of iptables' table `nat`, with the hook and the priority of each.
const BUILT_IN: [(&str, &str, &str); 4] = [
    ("PREROUTING", "prerouting", "dstnat"),
    ("INPUT", "input", "srcnat"),
    ("OUTPUT", "output", "dstnat"),
    ("POSTROUTING", "postrouting", "srcnat"),
];

impl PacketFilter {
    /// Names the chains for translation of which the kernel may ask each one first.
    #[must_use]
    pub fn rivals(&self) -> Vec<String> {
        let mut chains: BTreeMap<NatHook, Vec<String>> = BTreeMap::new();
        for text in &self.texts {
            for (hook, name) in of_text(text) {
                chains.entry(hook).or_default().push(name);
            }
        }
        for table in &self.native {
            for (hook, name) in of_table(table) {
                chains.entry(hook).or_default().push(name);
            }
        }
        let rivals = chains.into_values().filter(|names| names.len() > 1);
        let mut names: Vec<String> = Vec::new();
        for name in rivals.flatten() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Exchanges the order in which tables are loaded.
    pub fn exchange_rivals(&mut self) {
        self.order = match self.order {
            LoadOrder::ForeignLast => LoadOrder::ForeignFirst,
            LoadOrder::ForeignFirst => LoadOrder::ForeignLast,
        };
    }
}

/// Returns the chains of a text's table `nat` that have rules.
fn of_text(text: &Text) -> Vec<(NatHook, String)> {
    let printed = parse::text_of(&text.bytes);
    let tables = saved::tables(&printed);
    let rules = tables.iter().filter(|table| table.name == "nat");
    let rules: Vec<&str> = rules
        .flat_map(|table| table.rules.iter().copied())
        .collect();
    let has_rules = |chain: &str| rules.iter().any(|rule| saved::chain(rule) == chain);
    let program = text.backend.program(text.family, "iptables");
    let used = BUILT_IN.iter().filter(|(chain, ..)| has_rules(chain));
    let named = used.map(|(chain, hook, priority)| {
        let hook = (text.family, (*hook).to_owned(), (*priority).to_owned());
        (hook, format!("{program} -t nat {chain}"))
    });
    named.collect()
}

/// Returns the chains for translation of an nft table that have rules.
fn of_table(table: &ListedTable) -> Vec<(NatHook, String)> {
    let families = Family::ALL.into_iter();
    let families =
        families.filter(|family| table.family == "inet" || nft_family(*family) == table.family);
    let families: Vec<Family> = families.collect();
    let mut found = Vec::new();
    for chain in table.chains.iter().filter(|chain| !chain.rules.is_empty()) {
        let head = chain
            .heads
            .iter()
            .find_map(|head| head.strip_prefix("type nat hook "));
        let Some((hook, rest)) = head.and_then(|head| head.split_once(" priority ")) else {
            continue;
        };
        let priority = rest.split(';').next().unwrap_or(rest).trim();
        let priority = match priority {
            "-100" => "dstnat",
            "100" => "srcnat",
            other => other,
        };
        for family in &families {
            let hook = (*family, hook.to_owned(), priority.to_owned());
            found.push((hook, format!("nft {} {}", table.named(), chain.name)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netfilter::backend::Backend;
    use crate::twin::rules::listing::tables;

    #[test]
    fn chains_of_one_hook_and_priority_are_rivals() {
        let nat = "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n\
                   -A PREROUTING -j NVACTL-PREROUTING\nCOMMIT\n";
        let filter = |native: &str| PacketFilter {
            native: tables(native),
            ..PacketFilter::of_texts(Backend::Nft, [(Family::V4, nat.as_bytes())])
                .expect("it is iptables-save text")
        };
        let table = |family: &str, head: &str| {
            format!(
                "table {family} own {{\n\tchain pre {{\n\t\ttype nat hook {head}; policy accept;\n\
                 \t\ttcp dport 80 dnat to 10.0.0.1\n\t}}\n}}\n"
            )
        };
        let own = "iptables-nft -t nat PREROUTING";
        for (native, rivals) in [
            (
                table("ip", "prerouting priority dstnat"),
                Some("nft ip own pre"),
            ),
            (
                table("inet", "prerouting priority -100"),
                Some("nft inet own pre"),
            ),
            (table("ip", "prerouting priority dstnat - 5"), None),
            (table("ip6", "prerouting priority dstnat"), None),
            // No rule of iptables translates there.
            (table("ip", "postrouting priority srcnat"), None),
        ] {
            let found = filter(&native).rivals();
            let expected: Vec<&str> = rivals.into_iter().flat_map(|one| [own, one]).collect();
            assert_eq!(found, expected, "{native}");
        }
    }
}
