//! Rules that the twin lacks or cannot evaluate, and the reasons.

use std::fmt;

use crate::host::iptables::nft_family;
use crate::net::Family;
use crate::netfilter::backend::Backend;

/// The place of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RulePlace {
    Iptables {
        backend: Backend,
        family: Family,
        table: String,
        chain: String,
    },
    /// A rule that `nft` made, or one of its tables or blocks, for which the chain is empty.
    Nft {
        family: String,
        table: String,
        chain: String,
    },
    Ipset,
}

impl RulePlace {
    /// Returns the family whose packets meet the place; `None` for both.
    #[must_use]
    pub fn family(&self) -> Option<Family> {
        match self {
            RulePlace::Iptables { family, .. } => Some(*family),
            RulePlace::Nft { family, .. } => {
                let of_nft = |one: &Family| nft_family(*one) == family;
                Family::ALL.into_iter().find(of_nft)
            }
            RulePlace::Ipset => None,
        }
    }

    /// Returns the names of the family, the table and the chain in nft.
    #[must_use]
    pub fn in_nft(&self) -> Option<(&str, &str, &str)> {
        match self {
            RulePlace::Iptables {
                family,
                table,
                chain,
                ..
            } => Some((nft_family(*family), table, chain)),
            RulePlace::Nft {
                family,
                table,
                chain,
            } => Some((family, table, chain)),
            RulePlace::Ipset => None,
        }
    }
}

impl fmt::Display for RulePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RulePlace::Iptables {
                backend,
                family,
                table,
                chain,
            } => {
                let program = backend.program(*family, "iptables");
                let space = if chain.is_empty() { "" } else { " " };
                write!(f, "{program} -t {table}{space}{chain}")
            }
            RulePlace::Nft {
                family,
                table,
                chain,
            } => {
                let words = ["nft", family, table, chain];
                let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
                f.write_str(&words.join(" "))
            }
            RulePlace::Ipset => f.write_str("ipset"),
        }
    }
}

/// A rule, chain, table or set of the machine that the twin lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    pub place: RulePlace,
    /// The text as the machine lists it.
    pub text: String,
    pub why: Reason,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A whole table has no text.
        if self.text.is_empty() {
            return write!(f, "{}: {}", self.place, self.why);
        }
        write!(f, "{}: `{}`: {}", self.place, self.text, self.why)
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}`: {}", self.place, self.text, self.why)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The program that loads it refused it with these words.
    Refused(String),
    /// It would write to a log of the whole machine.
    WritesLog,
    /// A flowtable: packets take a faster path to the same end.
    Flowtable,
    /// A rule that iptables made in a table that only `nft` can list, and that `nft` cannot load.
    OnlyIptables,
    /// The twin lists another rule in its place, or none.
    Differs,
    /// The machine has it, but it could not be read.
    Unread(String),
    /// The program that lists it is not installed.
    NotInstalled(&'static str),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Refused(words) => write!(f, "it does not load: {words}"),
            Reason::WritesLog => f.write_str("it would write to the log of the machine"),
            Reason::Flowtable => f.write_str("a flowtable is left out"),
            Reason::OnlyIptables => {
                f.write_str("`nft` lists this rule of iptables and cannot load it")
            }
            Reason::Differs => f.write_str("the copy lists another rule in its place, or none"),
            Reason::Unread(words) => write!(f, "it cannot be read: {words}"),
            Reason::NotInstalled(program) => write!(f, "`{program}` is not installed"),
        }
    }
}

/// A rule whose effect on a packet the twin cannot know.
///
/// The twin has a rule that only counts. It stands in the place of the watched rule, or before it if the watched rule
/// keeps a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    pub place: RulePlace,
    /// The text as the machine lists it.
    pub text: String,
    pub why: Unknown,
    pub(super) at: At,
    /// The packets that it had counted at the last reading.
    pub(super) packets: u64,
}

impl Watched {
    /// Returns whether the bytes that a client sends decide, so that the rule treats the connections that are tried as
    /// on the machine.
    #[must_use]
    pub fn asks_for_bytes(&self) -> bool {
        matches!(self.why, Unknown::Payload(_))
    }
}

/// How a rule that counts is found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// By its comment.
    Comment,
    /// By nft's handle, since nft does not show the comments of iptables' rules.
    Handle(u64),
}

/// The reason for which a rule's effect is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// The state of this match is not copied: `limit`, `recent`, `quota`, …
    UsedUp(String),
    /// The rule matches this set, to which other rules add elements.
    Written(String),
    /// The rule takes some packets by chance or in turn.
    Chance,
    /// The sender's hardware address decides. In the twin a world sends every packet.
    Hardware,
    /// A program that listens on an nfqueue decides.
    Queue,
    /// A socket or a program of the machine decides. Holds the match or target that asks for it.
    LocalProgram(String),
    /// A pinned BPF program decides.
    Bpf,
    /// The bytes that a client sends decide. Holds the match that asks for them.
    Payload(String),
    /// A rule that iptables made in a chain that only `nft` can list, and `nft` cannot load all of it.
    OnlyIptables,
    /// The twin's kernel or programs refuse the rule.
    Refused(String),
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unknown::UsedUp(word) => write!(f, "it depends on what `{word}` has counted so far"),
            Unknown::Written(set) => {
                write!(f, "it depends on what rules have put into `{set}` so far")
            }
            Unknown::Chance => f.write_str("it takes some packets by chance or in turn"),
            Unknown::Hardware => f.write_str("it matches the hardware address of the sender"),
            Unknown::Queue => f.write_str("the program that listens on its queue decides"),
            Unknown::LocalProgram(word) => {
                write!(f, "`{word}` asks for a socket of the machine's programs")
            }
            Unknown::Bpf => f.write_str("a pinned BPF program decides"),
            Unknown::Payload(word) => {
                write!(f, "`{word}` asks for the bytes that a client sends")
            }
            Unknown::OnlyIptables => {
                f.write_str("`nft` lists this rule of iptables and cannot load all of it")
            }
            Unknown::Refused(words) => write!(f, "it does not load: {words}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_does_not_load_is_named_without_a_rule() {
        let left_out = |chain: &str, text: &str| LeftOut {
            place: RulePlace::Iptables {
                backend: Backend::Nft,
                family: Family::V4,
                table: "filter".to_owned(),
                chain: chain.to_owned(),
            },
            text: text.to_owned(),
            why: Reason::Refused("no".to_owned()),
        };
        assert_eq!(
            left_out("", "").to_string(),
            "iptables-nft -t filter: it does not load: no"
        );
        assert_eq!(
            left_out("FORWARD", "-A FORWARD -j DROP").to_string(),
            "iptables-nft -t filter FORWARD: `-A FORWARD -j DROP`: it does not load: no"
        );
    }
}
