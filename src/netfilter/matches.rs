//! What a rule asks of a packet.

use std::fmt;

use ipnet::IpNet;

use super::limit::{ConnLimit, HashLimit, Limit};
use super::token::Token;
use crate::net::{Interface, PortRange, Protocol};

/// One condition of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Match {
    /// `-s`
    Source(IpNet),
    /// `-d`
    Destination(IpNet),
    /// `! -d`
    NotDestination(IpNet),
    /// `-i`
    Ingress(Interface),
    /// `-o`
    Egress(Interface),
    /// `-p`
    Protocol(Protocol),
    /// `-m tcp`
    Tcp {
        source: Option<PortRange>,
        destination: Option<PortRange>,
        /// `--tcp-flags FIN,SYN,RST,ACK SYN`, which `--syn` is short for.
        syn: bool,
    },
    /// `-m udp`
    Udp {
        source: Option<PortRange>,
        destination: Option<PortRange>,
    },
    /// `-m multiport --dports`
    DestinationPorts(Vec<PortRange>),
    /// `-m conntrack`
    Conntrack(Conntrack),
    /// `-m conntrack --ctstatus CONFIRMED`: a packet of the connection has left the machine already.
    Confirmed,
    /// `-m addrtype --dst-type LOCAL`: the destination is an address of this machine.
    DestinationIsLocal,
    /// `-m statistic --mode random`: each packet by itself, so often.
    Probability(Probability),
    /// `-m cluster`
    Cluster(Cluster),
    /// `-m hashlimit --hashlimit-above`
    HashLimit(HashLimit),
    /// `-m connlimit --connlimit-above`
    ConnLimit(ConnLimit),
    /// `-m limit`
    Limit(Limit),
    /// `-m connmark`: the connection has this mark.
    Connmark(Mark),
    /// `-m comment`; the kernel keeps at most 255 bytes.
    Comment(Box<str>),
    /// What nvactl does not interpret, negations included, word for word.
    Other(Vec<Token>),
}

/// The conditions of one `-m conntrack`; all that are given must hold.
///
/// A packet's state is one of NEW, ESTABLISHED, … *and* at the same time DNAT or not, and a list
/// of states matches if any does. So two conditions take two matches (iptables-extensions(8),
/// conntrack).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conntrack {
    /// `--ctstate`, any of these; in the order of [`CtState`]. Empty: not asked.
    pub states: Vec<CtState>,
    /// `--ctorigdst`: where the connection's first packet was sent, before any DNAT. A single
    /// address is spelled without its length.
    pub original_destination: Option<IpNet>,
    /// `--ctorigdstport`: the port it was sent to, before any DNAT.
    pub original_destination_port: Option<PortRange>,
}

impl Conntrack {
    /// `--ctstate` alone.
    #[must_use]
    pub fn states(states: impl Into<Vec<CtState>>) -> Self {
        let mut states = states.into();
        states.sort_unstable();
        states.dedup();
        Self {
            states,
            ..Self::default()
        }
    }
}

/// Some of the bits of a connection's mark, and what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark {
    pub value: u32,
    /// The bits that are meant.
    pub mask: u32,
}

/// How likely something is, as the kernel holds it: in parts of 2^31.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Probability(u32);

impl Probability {
    const ALL: u32 = 1 << 31;

    /// One of `n`; certain for 0 and 1.
    #[must_use]
    pub fn one_of(n: u32) -> Self {
        let n = n.max(1);
        // Rounded to the nearest, as iptables does (`lround` in extensions/libxt_statistic.c).
        Self((Self::ALL + n / 2) / n)
    }

    /// What iptables reads of a decimal number from 0 to 1.
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

/// A share of all clients, each falling into the same one every time: the kernel hashes the
/// connection's source address (`net/netfilter/xt_cluster.c`), so nothing has to be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cluster {
    /// How many shares there are, at most [`Cluster::MOST`].
    pub total: u32,
    /// Which of them this is, counted from 0.
    pub node: u32,
    pub seed: u32,
}

impl Cluster {
    /// `XT_CLUSTER_NODES_MAX` in `linux/netfilter/xt_cluster.h`.
    pub const MOST: u32 = 32;
}

/// In the order in which iptables-save lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CtState {
    Invalid,
    New,
    Related,
    Established,
    Untracked,
    Snat,
    Dnat,
}

impl CtState {
    pub(crate) const ALL: [(CtState, &'static str); 7] = [
        (CtState::Invalid, "INVALID"),
        (CtState::New, "NEW"),
        (CtState::Related, "RELATED"),
        (CtState::Established, "ESTABLISHED"),
        (CtState::Untracked, "UNTRACKED"),
        (CtState::Snat, "SNAT"),
        (CtState::Dnat, "DNAT"),
    ];

    pub(super) fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}
