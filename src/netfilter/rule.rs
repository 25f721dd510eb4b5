//! One rule: its matches in the order in which iptables-save prints them, and its target.
//!
//! Planned, parsed and live rules are one type. `Display` prints the spelling of iptables-save (measured on
//! iptables 1.8.7 to 1.8.13, nft and legacy; `tests/lab/round_trip.rs` compares each form with the kernel's),
//! and `parse` reads it back. Options without a type are kept word for word in the `Other` variants, so a
//! foreign rule prints as it was read.

use super::matches::Match;
use super::names::ChainName;
use super::negatable::Negatable::{Is, Not};
use super::target::Target;
use super::token::Token;

/// A rule without the name of its chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule {
    pub matches: Vec<Match>,
    /// A rule without a target only counts.
    pub target: Option<Target>,
}

/// What a rule does with the packets that it stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Accepts,
    Drops,
    /// Sends them elsewhere, translates them or refuses them.
    Decides,
}

impl Stop {
    /// Returns the verb for a sentence whose subject is the rule.
    #[must_use]
    pub fn verb(self) -> &'static str {
        match self {
            Stop::Accepts => "accepts",
            Stop::Drops => "drops",
            Stop::Decides => "decides",
        }
    }
}

impl Rule {
    #[must_use]
    pub fn new(matches: impl IntoIterator<Item = Match>, target: Target) -> Self {
        Self {
            matches: matches.into_iter().collect(),
            target: Some(target),
        }
    }

    /// Returns the unconditional rule `-j CHAIN`.
    #[must_use]
    pub fn jump(chain: ChainName) -> Self {
        Self::new([], Target::Jump(chain))
    }

    /// Returns a rule that cannot be read. `text` is what iptables-save prints behind the name of its chain.
    #[must_use]
    pub fn unread(text: &str) -> Self {
        Self::new([], Target::Unread(text.into()))
    }

    /// Returns the unread rule that consists of this one and lines behind it that are no lines of
    /// iptables-save.
    pub(crate) fn followed_by(&self, behind: &str, line: &str) -> Self {
        Self::unread(&format!("{self}\n{behind}{line}"))
    }

    /// Returns whether iptables-restore can read the rule as it is printed. It reads line by line, so no word
    /// may hold a line break.
    #[must_use]
    pub fn is_loadable(&self) -> bool {
        let breaks = |text: &str| text.contains('\n');
        let any_breaks = |words: &[Token]| words.iter().any(|word| breaks(word.spelled()));
        let matches = self.matches.iter().any(|condition| match condition {
            Match::Comment(text) => breaks(text),
            Match::Set(Is(set) | Not(set)) => {
                breaks(set.spelled.spelled()) || any_breaks(&set.further)
            }
            Match::Other(words) => any_breaks(words),
            _ => false,
        });
        !matches
            && match &self.target {
                Some(Target::Unread(_)) => false,
                Some(Target::Log { prefix, .. }) => !breaks(prefix),
                Some(Target::Other(words)) => !any_breaks(words),
                _ => true,
            }
    }

    /// Returns whether the rule applies to every packet: a comment is no condition.
    #[must_use]
    pub fn is_unconditional(&self) -> bool {
        let mut matches = self.matches.iter();
        matches.all(|condition| matches!(condition, Match::Comment(_)))
    }

    /// Returns what the rule does with every packet; `None` if a packet passes it. No packet passes a rule that has
    /// no conditions and whose target ends the walk through its chain. The verdict of a queue ends it too
    /// (`--queue-bypass` in iptables-extensions(8)).
    #[must_use]
    pub fn stop(&self) -> Option<Stop> {
        const ENDING: [&str; 10] = [
            "ACCEPT",
            "DROP",
            "REJECT",
            "DNAT",
            "SNAT",
            "MASQUERADE",
            "REDIRECT",
            "NETMAP",
            "QUEUE",
            "NFQUEUE",
        ];
        let ends = |target: &Target| match target {
            Target::Return | Target::Goto(_) => true,
            Target::Jump(_) => false,
            _ => ENDING.contains(&target.name()),
        };
        let target = self.target.as_ref().filter(|_| self.is_unconditional())?;
        ends(target).then_some(match target {
            Target::Accept => Stop::Accepts,
            Target::Drop => Stop::Drops,
            _ => Stop::Decides,
        })
    }

    /// Returns whether no packet passes the rule.
    #[must_use]
    pub fn stops_every_packet(&self) -> bool {
        self.stop().is_some()
    }

    /// Returns the chain that the rule sends a packet to, by `-j` or `-g`.
    #[must_use]
    pub fn leads_to(&self) -> Option<&ChainName> {
        match &self.target {
            Some(Target::Jump(chain) | Target::Goto(chain)) => Some(chain),
            _ => None,
        }
    }
}
