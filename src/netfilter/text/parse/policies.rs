//! Reads the counters of policies.

use std::collections::BTreeMap;

use crate::netfilter::names::{ChainName, TableName};

/// Reads the packets of each `:CHAIN POLICY [packets:bytes]` line.
#[must_use]
pub fn policy_packets(saved: &str) -> BTreeMap<(TableName, ChainName), u64> {
    let (mut found, mut table) = (BTreeMap::new(), None);
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.parse::<TableName>().ok();
        }
        let words: Vec<&str> = line.split(' ').collect();
        if let (Some(table), [name, _, counts]) = (table, &words[..])
            && let Some(name) = name.strip_prefix(':')
            && let Some((packets, _)) = counts.trim_start_matches('[').split_once(':')
            && let Ok(packets) = packets.parse()
        {
            found.insert((table, ChainName::from(name)), packets);
        }
    }
    found
}
