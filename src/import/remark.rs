//! Differences between rules and the entry that stands for them.

use std::fmt;

use ipnet::IpNet;

use super::place::ImportedPlace;
use crate::net::Interface;

/// A difference between rules and the entry that stands for them. A connection that shows it is no surprise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImportRemark {
    /// The DNAT rule has no `-d`.
    TakesTransit,
    /// The accept is for more than the connections of the forward.
    AcceptsMore(Beyond),
    /// The SNAT rule is for more than the connections of the forward.
    RewritesMore(Beyond),
    /// The DNAT rule has no `-i`.
    EveryInterface(Interface),
    /// Clients that a rule leaves out were not redirected, so they reached the machine's own port.
    OthersReachedMachine,
    /// A later DNAT rule redirects further clients of the listener to another target.
    OthersReachedTarget(ImportedPlace),
    /// The rules give the targets unequal shares.
    UnequalShares,
    /// The rules choose a target by turns, or by the addresses of a range.
    OtherShares,
    /// A DNAT without ports redirects every protocol.
    EveryProtocol,
    /// FORWARD drops the connections to a part of the ports.
    SomePorts,
    /// The log lines read differently.
    LogWords,
    /// The limit counts differently.
    LimitCounts,
    /// One limit of the rules drops, another one answers.
    LimitAnswers,
    /// The rules let sources reach more than the Internet.
    PrivateNetworks,
    /// The accept is for more sources than the SNAT rule.
    MoreSources,
    /// The rules refuse with an answer, and the entry drops.
    Answered,
    /// A rule that stays refuses some clients before the rule that accepts the others.
    RefusedBefore { by: ImportedPlace, words: Box<str> },
    /// A rule that stays decides before the SNAT rule that some connections keep their source.
    KeptSource(ImportedPlace),
    /// Some clients get another source address.
    OtherSources(IpNet),
    /// The SNAT rule chooses the source ports.
    SourcePorts,
    /// An accept for clients that the forward refuses.
    AcceptLeftOut,
    /// The rules leave the source of hosts behind the firewall alone.
    InsideSource,
    /// The accept of an outbound entry stays, and its SNAT rule is for every interface.
    OtherInterfaces,
}

/// The packets beside redirected ones that a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Beyond {
    /// Whether it is for packets to other hosts than the target.
    pub hosts: bool,
    /// Whether it is for pings.
    pub pings: bool,
}

impl ImportRemark {
    /// Returns the word of JSON.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            ImportRemark::TakesTransit => "takes-transit",
            ImportRemark::AcceptsMore(_) => "accepts-more",
            ImportRemark::RewritesMore(_) => "rewrites-more",
            ImportRemark::EveryInterface(_) => "every-interface",
            ImportRemark::OthersReachedMachine => "others-reached-machine",
            ImportRemark::OthersReachedTarget(_) => "others-reached-target",
            ImportRemark::UnequalShares => "unequal-shares",
            ImportRemark::OtherShares => "other-shares",
            ImportRemark::EveryProtocol => "every-protocol",
            ImportRemark::SomePorts => "some-ports",
            ImportRemark::LogWords => "log-words",
            ImportRemark::LimitCounts => "limit-counts",
            ImportRemark::LimitAnswers => "limit-answers",
            ImportRemark::PrivateNetworks => "private-networks",
            ImportRemark::MoreSources => "more-sources",
            ImportRemark::Answered => "answered",
            ImportRemark::RefusedBefore { .. } => "refused-before",
            ImportRemark::KeptSource(_) => "kept-source",
            ImportRemark::OtherSources(_) => "other-sources",
            ImportRemark::SourcePorts => "source-ports",
            ImportRemark::AcceptLeftOut => "accept-left-out",
            ImportRemark::InsideSource => "inside-source",
            ImportRemark::OtherInterfaces => "other-interfaces",
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
            ImportRemark::AcceptsMore(_) => {
                "the rule also accepts connections that were not redirected; the forward accepts its own only"
            }
            ImportRemark::RewritesMore(_) => {
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
            ImportRemark::OthersReachedTarget(by) => {
                return write!(
                    f,
                    "{by} redirects further clients of this listener to another target; the forward drops them"
                );
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
                "FORWARD drops what the rule redirects by other protocols, ports or interfaces; the forward does not \
                 take that, so it reaches the machine"
            }
            ImportRemark::LogWords => "the log lines begin with other words",
            ImportRemark::LimitCounts => {
                "the rule counts packets; the forward counts connections, each with its first packet"
            }
            ImportRemark::PrivateNetworks => {
                "the rules let the sources reach private networks too; the entry allows the Internet, so name the \
                 private networks that are needed in `allow_to`"
            }
            ImportRemark::LimitAnswers => {
                "one of the limits drops and the other one answers; the forward answers above both"
            }
            ImportRemark::MoreSources => {
                "the rules accept further sources, and leave their address as it is; the entry is for those that are \
                 rewritten"
            }
            ImportRemark::Answered => "the rule refuses with an answer; the forward drops",
            ImportRemark::RefusedBefore { by, words } => {
                return write!(
                    f,
                    "{by} refuses some clients first ({words}); nvactl's rules come before it and accept them"
                );
            }
            ImportRemark::KeptSource(by) => {
                return write!(
                    f,
                    "{by} keeps the source of some connections first; nvactl's rules come before it and rewrite them"
                );
            }
            ImportRemark::OtherSources(net) => {
                return write!(
                    f,
                    "the rules give clients from {net} another source address; the forward gives all clients one"
                );
            }
            ImportRemark::AcceptLeftOut => {
                "the rule accepts connections by conditions that a spec has no words for; the forward refuses those that no \
                 other rule accepts"
            }
            ImportRemark::InsideSource => {
                "the rule leaves the source of hosts behind the firewall alone; the forward rewrites it for all clients"
            }
            ImportRemark::OtherInterfaces => {
                "the rule also rewrites the source of connections that come in by other interfaces; the entry rewrites those \
                 that come in by its own"
            }
            ImportRemark::SourcePorts => {
                "the rule chooses source ports by itself; nvactl's rules leave them to the kernel"
            }
        };
        f.write_str(words)
    }
}
