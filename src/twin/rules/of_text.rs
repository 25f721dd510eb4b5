//! A packet filter that is given as text, without a machine that has it.

use super::edit::FilterFacts;
use super::filter::{LoadOrder, PacketFilter, Text};
use super::queues::Queues;
use super::read;
use super::sets::SpacedSets;
use crate::net::Family;
use crate::netfilter::backend::Backend;
use crate::netfilter::text::parse::{self, ParseError, check_spelling};

impl PacketFilter {
    /// Returns a filter that consists of texts of iptables-save, one for a family, which the programs of a backend
    /// load. Comments and counters in the texts are left out.
    ///
    /// # Errors
    /// [`ParseError`] for the first line that iptables-restore could not read.
    pub fn of_texts<'t>(
        backend: Backend,
        texts: impl IntoIterator<Item = (Family, &'t [u8])>,
    ) -> Result<Self, ParseError> {
        let texts = texts.into_iter().map(|(family, bytes)| {
            let text = parse::text_of(bytes);
            check_spelling(&text)?;
            parse::parse(&text)?;
            Ok(Text {
                backend,
                family,
                bytes: plain(&text).into_bytes(),
            })
        });
        Ok(Self {
            texts: texts.collect::<Result<_, ParseError>>()?,
            sets: Vec::new(),
            own: Vec::new(),
            native: Vec::new(),
            unread: Vec::new(),
            // Only rules of nft itself need it, and there are none.
            has_nft: true,
            facts: FilterFacts {
                queues: Queues::default(),
                logs: read::writes_logs(),
                spaced_sets: SpacedSets::default(),
                written: std::collections::BTreeSet::new(),
            },
            order: LoadOrder::default(),
        })
    }
}

/// Returns a text without comments, and without the counters before rules.
fn plain(text: &str) -> String {
    let lines = parse::lines(text).map(|line| line.trim_start_matches([' ', '\t']));
    let lines = lines.filter(|line| !line.starts_with('#'));
    let without_counters = lines.map(|line| match line.strip_prefix('[') {
        Some(counted) => counted
            .split_once(']')
            .map_or(line, |(_, rule)| rule.trim_start()),
        None => line,
    });
    without_counters.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_counters_are_left_out() {
        let text = "# Generated\n*filter\n:FORWARD DROP [1:2]\n[3:4] -A FORWARD -m comment --comment \"a\n# b\" -j DROP\n\
                    -A FORWARD -j ACCEPT\nCOMMIT\n# Completed\n";
        assert_eq!(
            plain(text),
            "*filter\n:FORWARD DROP [1:2]\n-A FORWARD -m comment --comment \"a\n# b\" -j DROP\n\
             -A FORWARD -j ACCEPT\nCOMMIT\n"
        );
    }

    #[test]
    fn a_text_that_is_no_iptables_save_is_refused_with_its_line() {
        for (text, words) in [
            (
                "*filter\n-I FORWARD -j DROP\nCOMMIT\n",
                "line 2: not a line of iptables-save text: `-I FORWARD -j DROP`",
            ),
            (
                "firewall: {}\n",
                "line 1: stands outside of a table: `firewall: {}`",
            ),
            (
                "*filter\n-A FORWARD -j DROP\n",
                "line 2: the text ends before COMMIT, as if it had been cut: `*filter`",
            ),
        ] {
            let found = PacketFilter::of_texts(Backend::Nft, [(Family::V4, text.as_bytes())]);
            let error = found.expect_err("it is none").to_string();
            assert_eq!(error, words);
        }
    }
}
