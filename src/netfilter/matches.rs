//! The conditions of a rule.

use std::fmt;

use ipnet::IpNet;

use super::interface::InterfacePattern;
use super::limit::{ConnLimit, HashLimit, Limit};
use super::mark::Mark;
use super::negatable::Negatable;
use super::protocol::{IcmpType, IpProtocol};
use super::tcp_flags::TcpFlags;
use super::token::{self, Token};
use super::tracking::{Conntrack, CtStates};
use crate::net::PortRange;

/// One condition of a rule, or all those of one `-m`.
///
/// A value that iptables can negate is a [`Negatable`]. Limits have no `!`: their opposite is another option.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Match {
    /// `-s`
    Source(Negatable<IpNet>),
    /// `-d`
    Destination(Negatable<IpNet>),
    /// `-i`
    Ingress(Negatable<InterfacePattern>),
    /// `-o`
    Egress(Negatable<InterfacePattern>),
    /// `-p`
    Protocol(Negatable<IpProtocol>),
    /// `-m tcp`
    Tcp {
        source: Option<Negatable<PortRange>>,
        destination: Option<Negatable<PortRange>>,
        flags: Option<Negatable<TcpFlags>>,
    },
    /// `-m udp`
    Udp {
        source: Option<Negatable<PortRange>>,
        destination: Option<Negatable<PortRange>>,
    },
    /// `-m multiport`
    Multiport {
        of: PortsOf,
        ports: Negatable<Vec<PortRange>>,
    },
    /// `-m icmp`
    Icmp(Negatable<IcmpType>),
    /// `-m icmp6`
    Icmp6(Negatable<IcmpType>),
    /// `-m conntrack`
    Conntrack(Conntrack),
    /// `-m state`: the older spelling of `-m conntrack --ctstate`.
    State(Negatable<CtStates>),
    /// `-m addrtype`
    AddressType {
        of: Side,
        kind: Negatable<AddressType>,
    },
    /// `-m statistic --mode random`: each packet by itself, with this probability.
    Probability(Negatable<Probability>),
    /// `-m cluster`
    Cluster(Negatable<Cluster>),
    /// `-m hashlimit --hashlimit-above`
    HashLimit(HashLimit),
    /// `-m connlimit --connlimit-above`
    ConnLimit(ConnLimit),
    /// `-m limit`
    Limit(Limit),
    /// `-m mark`: the mark of the packet.
    Mark(Negatable<Mark>),
    /// `-m connmark`: the mark of the connection.
    Connmark(Negatable<Mark>),
    /// `-m set`
    Set(Negatable<Box<InSet>>),
    /// `-m comment`; the kernel keeps at most 255 bytes.
    Comment(Box<str>),
    /// A condition without a type, word for word.
    Other(Vec<Token>),
}

impl Match {
    /// Returns the name behind `-m`, or the option that needs no `-m`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Match::Source(_) => "-s",
            Match::Destination(_) => "-d",
            Match::Ingress(_) => "-i",
            Match::Egress(_) => "-o",
            Match::Protocol(_) => "-p",
            Match::Tcp { .. } => "tcp",
            Match::Udp { .. } => "udp",
            Match::Multiport { .. } => "multiport",
            Match::Icmp(_) => "icmp",
            Match::Icmp6(_) => "icmp6",
            Match::Conntrack(_) => "conntrack",
            Match::State(_) => "state",
            Match::AddressType { .. } => "addrtype",
            Match::Probability(_) => "statistic",
            Match::Cluster(_) => "cluster",
            Match::HashLimit(_) => "hashlimit",
            Match::ConnLimit(_) => "connlimit",
            Match::Limit(_) => "limit",
            Match::Mark(_) => "mark",
            Match::Connmark(_) => "connmark",
            Match::Set(_) => "set",
            Match::Comment(_) => "comment",
            Match::Other(words) => {
                let mut words = words.iter().map(Token::spelled);
                let name = words.find(|word| !matches!(*word, "!" | "-m"));
                name.unwrap_or_default()
            }
        }
    }

    /// Returns whether the match looks at the protocol or its ports. A match without a type does so too.
    #[must_use]
    pub fn is_of_ports(&self) -> bool {
        let name = self.name();
        matches!(name, "-p" | "tcp" | "udp" | "sctp" | "multiport")
    }
}

/// The source or the destination of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    Source,
    Destination,
}

/// The ports that `-m multiport` looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortsOf {
    Source,
    Destination,
    /// One of the two is enough.
    Either,
}

/// The kind of an address by the kernel's routes (`rtm_type` in rtnetlink(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressType {
    Unicast,
    /// An address of this machine.
    Local,
    Broadcast,
    Anycast,
    Multicast,
}

impl AddressType {
    pub(super) const ALL: [(AddressType, &'static str); 5] = [
        (AddressType::Unicast, "UNICAST"),
        (AddressType::Local, "LOCAL"),
        (AddressType::Broadcast, "BROADCAST"),
        (AddressType::Anycast, "ANYCAST"),
        (AddressType::Multicast, "MULTICAST"),
    ];
}

/// The packet is in an ipset.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InSet {
    /// May be in quotes: see [`InSet::name`].
    pub spelled: Token,
    /// The addresses or ports that are looked up, one for each dimension of the set.
    pub sides: Box<[Side]>,
    /// Further options, word for word.
    pub further: Box<[Token]>,
}

impl InSet {
    /// Returns the name of the set.
    #[must_use]
    pub fn name(&self) -> std::borrow::Cow<'_, str> {
        token::value(self.spelled.spelled())
    }
}

/// A probability as the kernel holds it: in parts of 2^31.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Probability(u32);

impl Probability {
    const ALL: u32 = 1 << 31;

    /// Returns one in `n`; certain for 0 and 1.
    #[must_use]
    pub fn one_of(n: u32) -> Self {
        let n = n.max(1);
        // Rounded to the nearest, as iptables does (`lround` in extensions/libxt_statistic.c).
        Self((Self::ALL + n / 2) / n)
    }

    /// Reads a decimal number from 0 to 1 as iptables does.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let share: f64 = text.parse().ok()?;
        let parts = (share * f64::from(Self::ALL)).round();
        let known = (0.0..=f64::from(Self::ALL)).contains(&parts);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is a whole number from 0 to 2^31"
        )]
        known.then_some(Self(parts as u32))
    }
}

impl fmt::Display for Probability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.11}", f64::from(self.0) / f64::from(Self::ALL))
    }
}

/// A share of all clients. A client is in the same share every time: the kernel hashes the connection's
/// source address (`net/netfilter/xt_cluster.c`) and keeps no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cluster {
    /// The number of shares, at most [`Cluster::MOST`].
    pub total: u32,
    /// The number of this share, counted from 0.
    pub node: u32,
    pub seed: u32,
}

impl Cluster {
    /// `XT_CLUSTER_NODES_MAX` in `linux/netfilter/xt_cluster.h`.
    pub const MOST: u32 = 32;
}
