//! The targets of rules: the action on a packet that meets all conditions.

use std::fmt;
use std::net::IpAddr;

use super::mark::{BitShift, Mark, MarkCopy};
use super::names::ChainName;
use super::token::Token;
use crate::net::{AddressRange, Port, PortRange};

/// The action of a rule on a packet that it matches.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    Accept,
    Drop,
    Return,
    /// `-j` to a chain of the table; the walk comes back.
    Jump(ChainName),
    /// `-g` to a chain of the table; the walk does not come back here.
    Goto(ChainName),
    Dnat {
        address: IpAddr,
        ports: DnatPorts,
    },
    Snat {
        addresses: AddressRange,
        /// `--persistent`: a client gets the same one of several addresses for every destination.
        persistent: bool,
    },
    Masquerade,
    /// Writes a line to the kernel's log; the walk goes on.
    Log {
        /// At most 29 bytes; more are cut (measured).
        prefix: Box<str>,
        /// As in syslog(2): 0 is an emergency, 7 for debugging.
        level: u8,
    },
    /// Drops the packet and sends an answer to its sender.
    Reject(RejectWith),
    /// `MARK --set-xmark`: clears the bits of the mask in the packet's mark and toggles those of the value
    /// (`net/netfilter/xt_mark.c`); the walk goes on.
    SetMark(Mark),
    /// `CONNMARK --set-xmark`: does the same with the connection's mark.
    SetConnmark(Mark),
    /// `CONNMARK --set-xmark` that then moves all bits of the connection's mark; the walk goes on.
    SetShiftedConnmark {
        mark: Mark,
        shift: BitShift,
    },
    /// `CONNMARK --save-mark`: copies the packet's mark to the connection; the walk goes on.
    SaveMark(MarkCopy),
    /// `CONNMARK --restore-mark`: copies the connection's mark to the packet; the walk goes on.
    RestoreMark(MarkCopy),
    /// `TCPMSS`: lowers the maximum segment size (MSS) that a packet which opens a TCP connection announces; the walk
    /// goes on.
    TcpMss(Mss),
    /// A target without a type: its name, then its options, word for word.
    Other(Vec<Token>),
    /// The whole text of a rule that cannot be split into words, conditions included. Which packets it
    /// concerns and what it does is not known. It keeps its place in the chain, so that the places of the
    /// other rules are right, and is never written: [`super::rule::Rule::is_loadable`].
    Unread(Box<str>),
}

impl Target {
    /// Returns the name behind `-j` or `-g`; an empty one if that is not known.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Target::Accept => "ACCEPT",
            Target::Drop => "DROP",
            Target::Return => "RETURN",
            Target::Jump(chain) | Target::Goto(chain) => chain.as_str(),
            Target::Dnat { .. } => "DNAT",
            Target::Snat { .. } => "SNAT",
            Target::Masquerade => "MASQUERADE",
            Target::Log { .. } => "LOG",
            Target::Reject(_) => "REJECT",
            Target::SetMark(_) => "MARK",
            Target::SetConnmark(_)
            | Target::SetShiftedConnmark { .. }
            | Target::SaveMark(_)
            | Target::RestoreMark(_) => "CONNMARK",
            Target::TcpMss(_) => "TCPMSS",
            Target::Other(words) => words.first().map_or("", Token::spelled),
            Target::Unread(_) => "",
        }
    }
}

/// The largest segment that the ends of a TCP connection may announce. The kernel never raises a smaller one
/// (`net/netfilter/xt_TCPMSS.c`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mss {
    /// `--clamp-mss-to-pmtu`: as much as the machine's own routes to both ends carry.
    Clamp,
    /// `--set-mss`, in bytes.
    Bytes(u16),
}

impl fmt::Display for Mss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mss::Clamp => f.write_str("clamp"),
            Mss::Bytes(bytes) => bytes.fmt(f),
        }
    }
}

/// The answer to the sender of a refused packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectWith {
    TcpReset,
    /// For IPv4.
    IcmpPortUnreachable,
    /// For IPv6.
    Icmp6PortUnreachable,
}

impl RejectWith {
    pub(crate) const ALL: [(RejectWith, &'static str); 3] = [
        (RejectWith::TcpReset, "tcp-reset"),
        (RejectWith::IcmpPortUnreachable, "icmp-port-unreachable"),
        (RejectWith::Icmp6PortUnreachable, "icmp6-port-unreachable"),
    ];
}

/// The level that iptables-save leaves out.
pub(crate) const DEFAULT_LEVEL: u8 = 4;

/// The change of the destination port by DNAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DnatPorts {
    /// The packet keeps its port.
    Kept,
    /// Every port becomes this one.
    One(Port),
    /// The port `base + n` becomes the range's port number `n`. Without `/base` every packet went to the range's
    /// first port (measured).
    Shifted { to: PortRange, base: Port },
}
