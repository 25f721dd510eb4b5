//! What a rule does with a packet that meets its matches.

use std::net::IpAddr;

use super::matches::Mark;
use super::names::ChainName;
use super::token::Token;
use crate::net::{AddressRange, Port, PortRange};

/// What happens to a packet that a rule matches.
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
        /// `--persistent`: a client gets the same of several addresses whatever its destination is.
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
    /// Drops the packet and says so to its sender.
    Reject(RejectWith),
    /// `CONNMARK`: gives the connection this mark, its other bits unchanged; the walk goes on.
    SetConnmark(Mark),
    /// What nvactl does not interpret: the target's name, then its options, word for word.
    Other(Vec<Token>),
    /// The whole of a rule that is no sequence of words, conditions included, as it is printed. Whom it
    /// concerns and what it does is not known. It has its place in the chain, so that the places of the
    /// other rules are right, and is never written: [`super::rule::Rule::is_loadable`].
    Unread(Box<str>),
}

impl Target {
    /// The name behind `-j` or `-g`; none where that is not known.
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
            Target::SetConnmark(_) => "CONNMARK",
            Target::Other(words) => words.first().map_or("", Token::spelled),
            Target::Unread(_) => "",
        }
    }
}

/// What the sender of a refused packet is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectWith {
    TcpReset,
    /// IPv4's word for it.
    IcmpPortUnreachable,
    /// IPv6's.
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

/// What DNAT does to the destination port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DnatPorts {
    /// The packet keeps its port.
    Kept,
    /// Every port becomes this one.
    One(Port),
    /// The port `base + n` becomes the range's port number `n`. Needs the `/base`: without it
    /// every packet went to the range's first port (measured).
    Shifted { to: PortRange, base: Port },
}
