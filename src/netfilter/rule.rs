//! One rule: its matches in the order in which iptables-save prints them, and its target.
//!
//! The same type serves planned, parsed and live rules. `Display` is the canonical spelling
//! (measured on iptables 1.8.7 to 1.8.13, nft and legacy; the lab holds each form against
//! the kernel); `parse` reads it back. What nvactl does not
//! interpret is kept word for word in the `Other` variants, so a foreign rule prints as it was read.

use super::matches::Match;
use super::names::ChainName;
use super::target::Target;
use super::token::Token;

/// A rule without the chain it stands in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule {
    pub matches: Vec<Match>,
    /// A rule without a target only counts.
    pub target: Option<Target>,
}

impl Rule {
    #[must_use]
    pub fn new(matches: impl IntoIterator<Item = Match>, target: Target) -> Self {
        Self {
            matches: matches.into_iter().collect(),
            target: Some(target),
        }
    }

    /// The unconditional rule `-j CHAIN`.
    #[must_use]
    pub fn jump(chain: ChainName) -> Self {
        Self::new([], Target::Jump(chain))
    }

    /// A rule that cannot be read, as iptables-save prints it behind the name of its chain.
    #[must_use]
    pub fn unread(text: &str) -> Self {
        Self::new([], Target::Unread(text.into()))
    }

    /// The rule that this one is with the lines that iptables prints behind it, which are no lines by
    /// themselves.
    pub(crate) fn followed_by(&self, behind: &str, line: &str) -> Self {
        Self::unread(&format!("{self}\n{behind}{line}"))
    }

    /// Whether iptables-restore reads the rule as it is printed: it reads line by line.
    #[must_use]
    pub fn is_loadable(&self) -> bool {
        let breaks = |text: &str| text.contains('\n');
        let any_breaks = |words: &[Token]| words.iter().any(|word| breaks(word.spelled()));
        let matches = self.matches.iter().any(|condition| match condition {
            Match::Comment(text) => breaks(text),
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

    /// Returns whether no packet passes the rule: it has no conditions, and its target ends the walk through
    /// its chain. The verdict of a queue ends it too (`--queue-bypass` in iptables-extensions(8)).
    #[must_use]
    pub fn stops_every_packet(&self) -> bool {
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
        self.is_unconditional() && self.target.as_ref().is_some_and(ends)
    }

    /// The chain a packet goes to when the rule matches, by `-j` or `-g`.
    #[must_use]
    pub fn leads_to(&self) -> Option<&ChainName> {
        match &self.target {
            Some(Target::Jump(chain) | Target::Goto(chain)) => Some(chain),
            _ => None,
        }
    }
}
