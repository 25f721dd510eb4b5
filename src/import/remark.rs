//! Differences between rules and the entry that stands for them.

use std::fmt;

use crate::net::Interface;

/// A difference between rules and the entry that stands for them. A connection that shows it is no surprise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImportRemark {
    /// The DNAT rule has no `-d`.
    TakesTransit,
    /// The accept is for more than the connections of the forward.
    AcceptsMore,
    /// The SNAT rule is for more than the connections of the forward.
    RewritesMore,
    /// The DNAT rule has no `-i`.
    EveryInterface(Interface),
    /// Clients outside a `-s` were not redirected, so they reached the machine's own port.
    OthersReachedMachine,
    /// The rules give the targets unequal shares.
    UnequalShares,
    /// The rules choose a target by turns, or by the addresses of a range.
    OtherShares,
    /// A DNAT without ports redirects every protocol.
    EveryProtocol,
    /// The accept holds for a part of the ports only.
    SomePorts,
    /// The log lines read differently.
    LogWords,
    /// The limit counts differently.
    LimitCounts,
    /// The rules let sources reach more than the Internet.
    PrivateNetworks,
    /// The rules refuse with an answer, and the entry drops.
    Answered,
    /// An accept for clients that the forward refuses.
    AcceptLeftOut,
    /// The rules leave the source of hosts behind the firewall alone.
    InsideSource,
}

impl ImportRemark {
    /// Returns the word of JSON.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            ImportRemark::TakesTransit => "takes-transit",
            ImportRemark::AcceptsMore => "accepts-more",
            ImportRemark::RewritesMore => "rewrites-more",
            ImportRemark::EveryInterface(_) => "every-interface",
            ImportRemark::OthersReachedMachine => "others-reached-machine",
            ImportRemark::UnequalShares => "unequal-shares",
            ImportRemark::OtherShares => "other-shares",
            ImportRemark::EveryProtocol => "every-protocol",
            ImportRemark::SomePorts => "some-ports",
            ImportRemark::LogWords => "log-words",
            ImportRemark::LimitCounts => "limit-counts",
            ImportRemark::PrivateNetworks => "private-networks",
            ImportRemark::Answered => "answered",
            ImportRemark::AcceptLeftOut => "accept-left-out",
            ImportRemark::InsideSource => "inside-source",
        }
    }
}

/// The place of a connection beside the entry that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    /// It asks for the listener.
    Listener,
    /// It asks for a target of the forward itself.
    Target,
    /// It asks for another host, or for another port.
    Other,
    /// It is of an outbound entry.
    Outward,
}

impl ImportRemark {
    /// Returns whether the difference shows in connections of a kind.
    #[must_use]
    pub fn explains(&self, aside: Aside) -> bool {
        match self {
            ImportRemark::TakesTransit => aside == Aside::Other,
            ImportRemark::AcceptsMore | ImportRemark::RewritesMore => {
                matches!(aside, Aside::Target | Aside::Other)
            }
            ImportRemark::EveryInterface(_)
            | ImportRemark::OthersReachedMachine
            | ImportRemark::UnequalShares
            | ImportRemark::OtherShares
            | ImportRemark::EveryProtocol
            | ImportRemark::LimitCounts
            | ImportRemark::AcceptLeftOut
            | ImportRemark::InsideSource => aside == Aside::Listener,
            ImportRemark::SomePorts => aside != Aside::Outward,
            ImportRemark::PrivateNetworks => aside == Aside::Outward,
            // These change no path.
            ImportRemark::LogWords | ImportRemark::Answered => false,
        }
    }
}

impl fmt::Display for ImportRemark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            ImportRemark::TakesTransit => {
                "the rule has no -d, so it also redirects packets that only pass through; the forward takes those to \
                 the machine's own addresses"
            }
            ImportRemark::AcceptsMore => {
                "the rule also accepts connections that were not redirected; the forward accepts its own only"
            }
            ImportRemark::RewritesMore => {
                "the rule also rewrites the source of connections that were not redirected; the forward rewrites its \
                 own only"
            }
            ImportRemark::EveryInterface(interface) => {
                return write!(
                    f,
                    "the rule takes packets from every interface; the forward takes those from {interface}"
                );
            }
            ImportRemark::OthersReachedMachine => {
                "clients that the rule leaves out reach the machine's own port; the forward drops them"
            }
            ImportRemark::UnequalShares => {
                "the rules give the targets unequal shares; the forward gives equal ones"
            }
            ImportRemark::OtherShares => {
                "the rules choose the target in another way; the forward chooses at random, with equal shares"
            }
            ImportRemark::EveryProtocol => {
                "the rule redirects every protocol; the forward takes TCP and UDP, so pings to the address reach the \
                 machine"
            }
            ImportRemark::SomePorts => {
                "a rule of the old ones is for a part of the ports only; the forward treats all its ports alike"
            }
            ImportRemark::LogWords => "the log lines begin with other words",
            ImportRemark::LimitCounts => {
                "the rule counts packets; the forward counts connections, each with its first packet"
            }
            ImportRemark::PrivateNetworks => {
                "the rules let the sources reach private networks too; the entry allows the Internet, so name the \
                 private networks that are needed in `allow_to`"
            }
            ImportRemark::Answered => "the rule refuses with an answer; the forward drops",
            ImportRemark::AcceptLeftOut => {
                "the rule accepts connections by conditions that a spec has no words for; the forward refuses those that no \
                 other rule accepts"
            }
            ImportRemark::InsideSource => {
                "the rule leaves the source of hosts behind the firewall alone; the forward rewrites it for all clients"
            }
        };
        f.write_str(words)
    }
}
