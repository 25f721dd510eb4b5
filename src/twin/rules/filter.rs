//! A packet filter as it was read, and the result of loading it.

use super::edit::{self, FilterFacts};
use super::listing::ListedTable;
use super::place::{LeftOut, Reason, RulePlace, Unknown, Watched};
use crate::net::Family;
use crate::netfilter::backend::Backend;

/// The machine's packet filter as text, as its own programs list it.
#[derive(Debug, Clone)]
pub struct PacketFilter {
    /// The text of iptables-save, for each backend and family that has rules.
    pub(super) texts: Vec<Text>,
    /// The text of `ipset save`.
    pub(super) sets: Vec<u8>,
    /// The tables of iptables-nft as nft lists them, to be compared with the twin's.
    pub(super) own: Vec<ListedTable>,
    /// The tables that are nft's own.
    pub(super) native: Vec<ListedTable>,
    /// Tables of nft that could not be read.
    pub(super) unread: Vec<LeftOut>,
    pub(super) has_nft: bool,
    pub(super) facts: FilterFacts,
    pub(super) order: LoadOrder,
}

/// The order in which a filter is loaded. The kernel asks the chain for translation that was loaded last first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LoadOrder {
    /// The tables without nvactl's rules come last, so that their rules show.
    #[default]
    ForeignLast,
    /// The other way round.
    ForeignFirst,
}

/// The result of loading a filter into a twin.
#[derive(Debug, Clone, Default)]
pub struct Copied {
    pub left_out: Vec<LeftOut>,
    pub watched: Vec<Watched>,
}

impl Copied {
    /// Returns whether the end of a packet may depend on a thing that was left out. It does not if a rule counts the
    /// packets in its place.
    #[must_use]
    pub fn is_uncertain_without(&self, left_out: &LeftOut) -> bool {
        let LeftOut { place, text, why } = left_out;
        match (why, place) {
            // A rule that only iptables can load decides nothing, or a rule counts in its place. If that one is
            // refused, it is named itself.
            (
                Reason::WritesLog
                | Reason::Flowtable
                | Reason::NotInstalled(_)
                | Reason::OnlyIptables,
                _,
            ) => false,
            (Reason::Refused(_), RulePlace::Iptables { .. }) => {
                let counts = |one: &Watched| {
                    one.place == *place
                        && one.text == *text
                        && matches!(one.why, Unknown::Refused(_))
                };
                !edit::decides_nothing(text) && !self.watched.iter().any(counts)
            }
            (Reason::Refused(_) | Reason::Differs | Reason::Unread(_), _) => true,
        }
    }

    /// Returns whether a rule of a chain was left out, and none counts in its place. `chain` has the names of the family,
    /// the table and the chain in nft, also for a chain of iptables.
    #[must_use]
    pub fn lacks_rules_of(&self, chain: (&str, &str, &str)) -> bool {
        let is_missing = |one: &LeftOut| {
            let counts = |watched: &Watched| watched.place == one.place && watched.text == one.text;
            matches!(
                one.why,
                Reason::Refused(_) | Reason::OnlyIptables | Reason::Differs | Reason::Unread(_)
            ) && !self.watched.iter().any(counts)
        };
        let mut left_out = self.left_out.iter();
        left_out.any(|one| one.place.in_nft() == Some(chain) && is_missing(one))
    }
}

/// The text of one backend and family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    pub backend: Backend,
    pub family: Family,
    pub bytes: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::rules::place::At;

    #[test]
    fn a_verdict_is_certain_only_without_rules_that_decide_nothing_or_are_counted() {
        let place = RulePlace::Iptables {
            backend: Backend::Nft,
            family: Family::V4,
            table: "filter".to_owned(),
            chain: "FORWARD".to_owned(),
        };
        let nft = RulePlace::Nft {
            family: "inet".to_owned(),
            table: "t".to_owned(),
            chain: "c".to_owned(),
        };
        let refused = || Reason::Refused("no".to_owned());
        let copied = Copied {
            watched: vec![Watched {
                place: place.clone(),
                text: "-A FORWARD -m odd -j DROP".to_owned(),
                why: Unknown::Refused("no".to_owned()),
                at: At::Comment,
                packets: 0,
            }],
            ..Copied::default()
        };
        for (place, text, why, uncertain) in [
            (&place, "-A FORWARD -m new -j DROP", refused(), true),
            (&place, "-A FORWARD -m odd -j DROP", refused(), false),
            (&place, "-A FORWARD -m new -j LOG", refused(), false),
            (&place, ":odd - [0:0]", refused(), true),
            (&nft, "ip saddr @s drop", refused(), true),
            (&nft, "ip saddr @s drop", Reason::Differs, true),
            (&nft, "log prefix \"a\"", Reason::WritesLog, false),
            (&RulePlace::Ipset, "add s 10.0.0.1", refused(), true),
        ] {
            let left_out = LeftOut {
                place: place.clone(),
                text: text.to_owned(),
                why,
            };
            let found = copied.is_uncertain_without(&left_out);
            assert_eq!(found, uncertain, "{left_out}");
        }
    }
}
