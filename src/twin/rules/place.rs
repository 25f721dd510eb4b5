//! Rules that a twin does not have as the machine has them, and why.

use std::fmt;

use crate::host::iptables::nft_family;
use crate::net::Family;
use crate::netfilter::backend::Backend;

/// Where a rule stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Iptables {
        backend: Backend,
        family: Family,
        table: String,
        chain: String,
    },
    /// A rule that `nft` made, or a table or block of its; the chain is empty for these.
    Nft {
        family: String,
        table: String,
        chain: String,
    },
    Ipset,
}

impl Place {
    /// Returns the family whose packets come there; `None`: both.
    #[must_use]
    pub fn family(&self) -> Option<Family> {
        match self {
            Place::Iptables { family, .. } => Some(*family),
            Place::Nft { family, .. } => {
                let of_nft = |one: &Family| nft_family(*one) == family;
                Family::ALL.into_iter().find(of_nft)
            }
            Place::Ipset => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Iptables {
                backend,
                family,
                table,
                chain,
            } => {
                let program = backend.program(*family, "iptables");
                write!(f, "{program} -t {table} {chain}")
            }
            Place::Nft {
                family,
                table,
                chain,
            } => {
                let words = ["nft", family, table, chain];
                let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
                f.write_str(&words.join(" "))
            }
            Place::Ipset => f.write_str("ipset"),
        }
    }
}

/// A rule, chain, table or set of the machine that is not in the twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    pub place: Place,
    /// As the machine lists it.
    pub text: String,
    pub why: Reason,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}`: {}", self.place, self.text, self.why)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The program that loads it said so.
    Refused(String),
    /// It writes to a log of the whole machine.
    WritesLog,
    /// A flowtable: packets take a faster path to the same end.
    Flowtable,
    /// A rule that iptables made in a table which only `nft` can list, and `nft` cannot load it.
    OnlyIptables,
    /// The twin lists another rule in its place, or none.
    Differs,
    /// It was there, and could not be read.
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
            Reason::Differs => f.write_str("the twin lists another rule in its place, or none"),
            Reason::Unread(words) => write!(f, "it cannot be read: {words}"),
            Reason::NotInstalled(program) => write!(f, "`{program}` is not installed"),
        }
    }
}

/// A rule whose effect on a packet the twin cannot know.
///
/// The twin has a rule that only counts, and walks on: in the rule's place, or before it where the rule
/// is a stateful one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    pub place: Place,
    /// As the machine lists it.
    pub text: String,
    pub why: Unknown,
    pub(super) at: At,
    /// The packets that it had counted when it was last read.
    pub(super) packets: u64,
}

/// How a rule that counts is found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// By its comment.
    Comment,
    /// By nft's handle: nft does not show the comments of iptables' rules.
    Handle(u64),
}

/// Why a rule's effect is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// The state that this match keeps is not copied: `limit`, `recent`, `quota`, …
    UsedUp(String),
    /// Rules put what they see into the set by which it decides.
    Written(String),
    /// The rule takes some packets by chance or in turn, and others not.
    Chance,
    /// The hardware address of whoever sends a packet decides: in the copy a world sends all.
    Hardware,
    /// A program that listens on an nfqueue decides.
    Queue,
    /// A socket or a program of the machine decides: this match or target asks.
    LocalProgram(String),
    /// A pinned BPF program decides.
    Bpf,
    /// A rule that iptables made in a chain which only `nft` can list, and `nft` cannot load all of it.
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
            Unknown::Hardware => {
                f.write_str("it asks for the hardware address of whoever sends a packet")
            }
            Unknown::Queue => f.write_str("the program that listens on its queue decides"),
            Unknown::LocalProgram(word) => {
                write!(f, "`{word}` asks for a socket of the machine's programs")
            }
            Unknown::Bpf => f.write_str("a pinned BPF program decides"),
            Unknown::OnlyIptables => {
                f.write_str("`nft` lists this rule of iptables and cannot load all of it")
            }
            Unknown::Refused(words) => write!(f, "it does not load: {words}"),
        }
    }
}
