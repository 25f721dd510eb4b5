//! Reads the counters of watched rules. Only chains that hold one are listed.

use std::collections::BTreeMap;

use super::edit::{COMMENT, SHADOW};
use super::filter::Copied;
use super::listing::{ListedChain, words};
use super::own;
use super::place::{At, RulePlace};
use super::programs::{FilterError, iptables};
use crate::host::iptables::nft_family;
use crate::netfilter::token;

/// The packets that each watched rule has counted, by its key.
#[derive(Debug, Default)]
struct Counts {
    by_comment: BTreeMap<usize, u64>,
    by_handle: BTreeMap<u64, u64>,
}

impl Copied {
    /// Returns the indexes of watched rules that have counted a packet since the last call, in the calling thread's
    /// namespace.
    ///
    /// # Errors
    /// As [`Copied::packets`].
    pub fn counted(&mut self) -> Result<Vec<usize>, FilterError> {
        let packets = self.packets()?;
        let mut counted = Vec::new();
        for (index, (watched, packets)) in self.watched.iter_mut().zip(packets).enumerate() {
            if packets > watched.packets {
                counted.push(index);
            }
            watched.packets = packets;
        }
        Ok(counted)
    }

    /// Returns the packets that each watched rule has counted, in the calling thread's namespace.
    ///
    /// # Errors
    /// If a chain that holds one cannot be listed.
    pub fn packets(&self) -> Result<Vec<u64>, FilterError> {
        let mut chains: BTreeMap<(String, bool), Vec<usize>> = BTreeMap::new();
        for (index, watched) in self.watched.iter().enumerate() {
            let by_handle = matches!(watched.at, At::Handle(_));
            let key = (watched.place.to_string(), by_handle);
            chains.entry(key).or_default().push(index);
        }
        let mut packets = vec![0; self.watched.len()];
        for indexes in chains.into_values() {
            let first = &self.watched[indexes[0]];
            let counts = counts(&first.place, first.at)?;
            for index in indexes {
                let counted = match self.watched[index].at {
                    At::Comment => counts.by_comment.get(&index),
                    At::Handle(handle) => counts.by_handle.get(&handle),
                };
                packets[index] = counted.copied().unwrap_or_default();
            }
        }
        Ok(packets)
    }
}

fn counts(place: &RulePlace, at: At) -> Result<Counts, FilterError> {
    match (place, at) {
        (
            RulePlace::Iptables {
                backend,
                family,
                table,
                chain,
            },
            At::Comment,
        ) => {
            let output = iptables(*backend, *family, &["-t", table, "-v", "-S", chain])?;
            if !output.status.success() {
                let program = backend.program(*family, "iptables");
                return Err(FilterError::failed(&program, &output.stderr));
            }
            Ok(of_iptables(&String::from_utf8_lossy(&output.stdout)))
        }
        (
            RulePlace::Iptables {
                family,
                table,
                chain,
                ..
            },
            At::Handle(_),
        ) => of_nft(nft_family(*family), table, chain),
        (
            RulePlace::Nft {
                family,
                table,
                chain,
            },
            _,
        ) => of_nft(family, table, chain),
        (RulePlace::Ipset, _) => Ok(Counts::default()),
    }
}

fn of_nft(family: &str, table: &str, chain: &str) -> Result<Counts, FilterError> {
    Ok(of_chain(&own::list_chain(family, table, chain)?))
}

fn of_chain(chain: &ListedChain) -> Counts {
    let mut counts = Counts::default();
    for rule in &chain.rules {
        let packets = rule.packets().unwrap_or_default();
        if let Some(handle) = rule.handle {
            counts.by_handle.insert(handle, packets);
        }
        let comment = words(&rule.text).last().map(|word| word.trim_matches('"'));
        if let Some(index) = comment.and_then(index_of) {
            counts.by_comment.insert(index, packets);
        }
    }
    counts
}

/// Reads `iptables -v -S`: `-A CHAIN … -m comment --comment nvactl-twin-0 -c PACKETS BYTES`.
fn of_iptables(text: &str) -> Counts {
    let mut counts = Counts::default();
    for line in text.lines().filter(|line| line.contains(COMMENT)) {
        let words: Vec<&str> = token::words(line).collect();
        let after = |option: &str| {
            let at = words.iter().rposition(|word| *word == option)?;
            words.get(at + 1).copied()
        };
        let packets = after("-c").and_then(|packets| packets.parse().ok());
        if let (Some(index), Some(packets)) = (after("--comment").and_then(index_of), packets) {
            counts.by_comment.insert(index, packets);
        }
    }
    counts
}

fn index_of(comment: &str) -> Option<usize> {
    let counted = comment.strip_prefix(SHADOW);
    counted
        .or_else(|| comment.strip_prefix(COMMENT))?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::rules::listing::tables;

    #[test]
    fn counters_are_found_by_comment_and_by_handle() {
        let tables = tables(
            "table ip filter {\n\tchain FORWARD { # handle 1\n\
             \t\ttcp dport 1 counter packets 3 bytes 0 comment \"nvactl-twin-before-7\" # handle 6\n\
             \t\ttcp dport 2 counter packets 4 bytes 0 # handle 8\n\t}\n}\n",
        );
        let counts = of_chain(&tables[0].chains[0]);
        assert_eq!(counts.by_comment, BTreeMap::from([(7, 3)]));
        assert_eq!(counts.by_handle, BTreeMap::from([(6, 3), (8, 4)]));
        let counts = of_iptables(
            "-P FORWARD ACCEPT -c 9 9\n\
             -A FORWARD -m comment --comment nvactl-twin-2 -c 5 60\n\
             -A FORWARD -m comment --comment nvactl-twin-x -c 6 60 -j DROP\n",
        );
        assert_eq!(counts.by_comment, BTreeMap::from([(2, 5)]));
    }
}
