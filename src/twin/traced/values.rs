//! A connection with its path through the machine, as values.

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::net::Port;
use crate::twin::cause::{By, DecidingRule, Taken};
use crate::twin::connection::Connection;
use crate::twin::connection_end::Reached;

/// A connection, its path and its end.
#[derive(Debug, Clone, PartialEq)]
pub struct TracedConnection {
    /// The connection, with the port that the client had.
    pub connection: Connection,
    /// The interface by which the client comes in; `None` for the machine itself.
    pub ingress: Option<String>,
    pub request: TracedPath,
    /// `None` if no answer was seen.
    pub reply: Option<TracedPath>,
    pub end: TracedEnd,
    /// Whether the kernel traced packets. Without nft, only the counters of iptables-legacy are known.
    pub is_traced: bool,
}

impl TracedConnection {
    /// Returns the port of the target that was reached, if the rest did not come through.
    #[must_use]
    pub fn stuck_at(&self) -> Option<Port> {
        match &self.end {
            TracedEnd::Stuck(arrival, _) => Port::new(arrival.reached.target.port()),
            _ => None,
        }
    }

    /// Returns the target that was reached, if any.
    #[must_use]
    pub fn reached(&self) -> Option<&Reached> {
        match &self.end {
            TracedEnd::Delivered(arrival) | TracedEnd::Stuck(arrival, _) => Some(&arrival.reached),
            TracedEnd::Machine | TracedEnd::Refused(..) | TracedEnd::Silent(_) => None,
        }
    }

    /// Returns whether another try of the connection ended at the same target, with the same source.
    #[must_use]
    pub fn ends_as(&self, other: &Self) -> bool {
        let end = |of: &Self| {
            let reached = of.reached()?;
            Some((reached.world, reached.target, reached.source.ip()))
        };
        end(self) == end(other) && self.is_delivered() == other.is_delivered()
    }

    /// Returns whether a target was reached, and its whole answer came back.
    #[must_use]
    pub fn is_delivered(&self) -> bool {
        matches!(self.end, TracedEnd::Delivered(_))
    }

    /// Returns every routing decision.
    pub(super) fn routes_mut(&mut self) -> impl Iterator<Item = &mut PathRoute> {
        let paths = [Some(&mut self.request), self.reply.as_mut()];
        let parts = paths.into_iter().flatten().flat_map(|path| &mut path.parts);
        parts.filter_map(|part| match part {
            PathPart::Route(route) => Some(route),
            PathPart::Rule(_) => None,
        })
    }

    /// Returns every rule that is named.
    pub(super) fn rules_mut(&mut self) -> impl Iterator<Item = &mut DecidingRule> {
        let taken = match &mut self.end {
            TracedEnd::Stuck(_, taken)
            | TracedEnd::Refused(_, taken)
            | TracedEnd::Silent(taken) => taken.as_mut(),
            TracedEnd::Delivered(_) | TracedEnd::Machine => None,
        };
        let taken = taken.and_then(|taken| match &mut taken.by {
            By::Rule(rule) | By::Policy(rule) => Some(rule),
            By::Kernel(_) | By::NoRule => None,
        });
        let paths = [Some(&mut self.request), self.reply.as_mut()];
        let parts = paths.into_iter().flatten().flat_map(|path| &mut path.parts);
        let rules = parts.filter_map(|part| match part {
            PathPart::Rule(rule) => Some(&mut rule.rule),
            PathPart::Route(_) => None,
        });
        rules.chain(taken)
    }
}

/// The end of a connection, with the reason if it did not come through.
#[derive(Debug, Clone, PartialEq)]
pub enum TracedEnd {
    Delivered(Arrival),
    /// A target was reached, but the rest of the request or the answer did not come through.
    Stuck(Arrival, Option<Taken>),
    /// The machine itself received it. No program listens in a copy.
    Machine,
    /// The kind of refusal is that of the client's socket.
    Refused(io::ErrorKind, Option<Taken>),
    Silent(Option<Taken>),
}

/// The place where a connection came out of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The machine's interface behind which the target is.
    pub interface: String,
    pub reached: Reached,
}

/// The path of one packet, in the order of the hooks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TracedPath {
    pub parts: Vec<PathPart>,
    /// Source and destination of the packet as it came to the machine, and as it was last seen there. The ports of a
    /// ping are 0.
    pub came: Option<(SocketAddr, SocketAddr)>,
    pub left: Option<(SocketAddr, SocketAddr)>,
    /// The interface by which it left.
    pub egress: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum PathPart {
    Rule(PathRule),
    Route(PathRoute),
}

/// A rule or a policy that decided about a packet or changed it.
#[derive(Debug, Clone, PartialEq)]
pub struct PathRule {
    pub rule: DecidingRule,
    pub effect: RuleEffect,
    /// The part of nvactl's spec to which the rule belongs.
    pub part: Option<SpecPart>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleEffect {
    Accepts,
    Drops,
    Rejects,
    /// Gives the packet to a program or to another module of the kernel.
    Diverts,
    /// Gives it this destination or source.
    Destination(SocketAddr),
    Source(SocketAddr),
    /// Changes its mark, a field of its header or its tracking.
    Changes,
}

/// The name of a forward or an outbound entry, as rules have it in their comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpecPart {
    Forward(String),
    Outbound(String),
}

/// A routing decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRoute {
    pub destination: IpAddr,
    /// How many next hops the kernel chooses from, if these are several.
    pub next_hops: Option<usize>,
    pub to: RouteTo,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteTo {
    Machine,
    Interface {
        name: String,
        /// The next router; `None` on the machine's own network.
        gateway: Option<IpAddr>,
    },
}
