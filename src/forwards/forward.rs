//! A spec without a fault: the machine, and what it forwards where.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

use super::sources::Sources;
use crate::net::{AddressRange, Family, Host, Interface, PortRange, Protocol};
use crate::netfilter::limit::PerSecond;

/// A spec without a fault: names are unique, listeners apart, targets allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardSet {
    pub firewall: Firewall,
    /// In the order of the file; one that has two protocols is two, of the same name.
    pub forwards: Vec<Forward>,
}

impl ForwardSet {
    /// The same with only the forwards of one family.
    #[must_use]
    pub fn of(&self, family: Family) -> Self {
        let of_family = |forward: &&Forward| forward.family() == family;
        Self {
            firewall: self.firewall.clone(),
            forwards: self.forwards.iter().filter(of_family).cloned().collect(),
        }
    }

    #[must_use]
    pub fn has(&self, family: Family) -> bool {
        let mut forwards = self.forwards.iter();
        forwards.any(|forward| forward.family() == family)
    }

    /// How many forwards the spec has: one with two protocols is one.
    #[must_use]
    pub fn names(&self) -> usize {
        let again = self
            .forwards
            .windows(2)
            .filter(|two| two[0].name == two[1].name);
        self.forwards.len() - again.count()
    }

    /// The interfaces that packets come in by or leave by, each once.
    #[must_use]
    pub fn interfaces(&self) -> Vec<&Interface> {
        let firewall = &self.firewall;
        let own = firewall.ingress.iter().chain([&firewall.egress]);
        let forwards = self.forwards.iter();
        let theirs = forwards.flat_map(|forward| forward.ingress.iter().chain([&forward.egress]));
        let mut found: Vec<&Interface> = Vec::new();
        for interface in own.chain(theirs) {
            if !found.contains(&interface) {
                found.push(interface);
            }
        }
        found
    }
}

/// The machine that forwards, and what its forwards have that say nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    /// Where clients come in; at least one.
    pub ingress: Vec<Interface>,
    /// Where targets are reached; the same interface on a machine with one NIC.
    pub egress: Interface,
    pub snat: Snats,
    pub forward_policy: ForwardPolicy,
    /// `None`: as many forwards as there are decide.
    pub layout: Option<Layout>,
}

/// How the plan's rules stand in chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One chain for each hook, which a new connection meets in order.
    Flat,
    /// Many chains, of which a new connection meets a few.
    Tree,
}

impl Layout {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Layout::Flat => "flat",
            Layout::Tree => "tree",
        }
    }
}

/// What targets see as their peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Snat {
    /// One of these: replies come back to the firewall.
    Addresses(AddressRange),
    /// Whatever address the egress interface has when a connection begins.
    Masquerade,
    /// The client itself. Replies come back only where the target's own routes lead through the
    /// firewall.
    Client,
}

impl fmt::Display for Snat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Snat::Addresses(range) => write!(f, "{range}"),
            Snat::Masquerade => f.write_str("masquerade"),
            Snat::Client => f.write_str("none"),
        }
    }
}

/// What is said for each family, if anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Snats {
    pub v4: Option<Snat>,
    pub v6: Option<Snat>,
}

impl Snats {
    #[must_use]
    pub fn of(self, family: Family) -> Option<Snat> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// What nvactl does with the policy of the built-in FORWARD chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardPolicy {
    /// Sets it to DROP: nothing is forwarded but what a rule accepts.
    Drop,
    /// Leaves it as it is.
    Keep,
}

/// One forward: what arrives at `listen` goes to `target`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    pub name: Name,
    pub listen: Listen,
    pub protocol: Protocol,
    pub target: Target,
    /// Where clients come in; at least one. The egress interface is among them only if `hairpin`
    /// does not say so.
    pub ingress: Vec<Interface>,
    pub egress: Interface,
    pub snat: Snat,
    pub sources: Sources,
    pub limits: Option<Limits>,
    pub log: Option<Log>,
    /// Whether what is behind the firewall, and the firewall itself, reach the listener too.
    pub hairpin: bool,
}

/// Where a forward listens: on one of the machine's addresses, or on all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    pub address: Option<IpAddr>,
    pub ports: PortRange,
}

/// Where a forward leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub kind: TargetKind,
    /// At least one, all of one family; several share the connections.
    pub destinations: Vec<Destination>,
    pub balance: Balance,
}

/// A place that packets are sent on to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    pub address: IpAddr,
    pub ports: TargetPorts,
}

/// How connections are shared among several destinations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Balance {
    /// Evenly, each connection by itself.
    #[default]
    Random,
    /// A client's connections all go to the same one.
    Client,
}

impl Forward {
    #[must_use]
    pub fn family(&self) -> Family {
        self.target.family()
    }

    /// Whether whoever comes in is let pass, as often as they like, and nothing is logged.
    #[must_use]
    pub fn admits_all(&self) -> bool {
        let logs = self.log.as_ref();
        self.sources == Sources::default()
            && self.limits.is_none()
            && !logs.is_some_and(|log| log.connections.accepted())
    }

    /// The interfaces by which clients may come in, those behind the firewall included if they may.
    pub fn entrances(&self) -> impl Iterator<Item = &Interface> {
        let behind = self.hairpin && !self.ingress.contains(&self.egress);
        self.ingress.iter().chain(behind.then_some(&self.egress))
    }

    /// The ports that packets carry once they are translated, on their way to this destination.
    #[must_use]
    pub fn ports_at(&self, to: &Destination) -> PortRange {
        match to.ports {
            TargetPorts::Kept => self.listen.ports,
            TargetPorts::Range(ports) => ports,
        }
    }

    /// Where packets go, with the ports even where the spec leaves them to the listener.
    #[must_use]
    pub fn reaches(&self) -> String {
        let each = self.target.destinations.iter().map(|to| self.reached(to));
        each.collect::<Vec<_>>().join(", ")
    }

    /// `10.224.0.118:80`: one of the destinations, with its ports.
    #[must_use]
    pub fn reached(&self, to: &Destination) -> String {
        format!("{}:{}", Host(to.address), self.ports_at(to))
    }
}

impl Target {
    #[must_use]
    pub fn family(&self) -> Family {
        let first = self.destinations.first();
        first.map_or(Family::V4, |to| Family::of(to.address))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// The frontend of an internal load balancer.
    Ilb,
    /// Pods, without a load balancer between.
    Pod,
}

/// The ports of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetPorts {
    /// None is given: packets keep the port they were sent to.
    Kept,
    /// One port takes all of the listener's; a range is as long as the listener's and keeps each
    /// port's offset.
    Range(PortRange),
}

/// How much a forward takes. What comes on top is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limits {
    /// New connections a second.
    pub rate: Option<Rate>,
    /// Connections at a time.
    pub max_connections: Option<u32>,
    pub per: Per,
    /// Whether what comes on top is told so, rather than dropped.
    pub reject: bool,
}

/// How many connections may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate {
    pub new_per_second: PerSecond,
    /// How many may begin at once after a rest.
    pub burst: u32,
}

/// Whom a limit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Per {
    /// All clients together.
    Total,
    /// Each client's address by itself.
    Client,
}

/// What of a forward's connections goes to the kernel's log, each with its first packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// What lines begin with, in front of `accepted` or `refused`.
    pub prefix: Box<str>,
    /// As in syslog(2).
    pub level: u8,
    /// At most so many lines of each kind.
    pub per_minute: u32,
    pub connections: Logged,
}

impl Log {
    /// The kernel cuts the whole at 29 bytes, of which ` accepted ` takes ten.
    pub const LONGEST_PREFIX: usize = 19;

    /// In the order of syslog(2).
    pub const LEVELS: [&'static str; 8] = [
        "emergency",
        "alert",
        "critical",
        "error",
        "warning",
        "notice",
        "info",
        "debug",
    ];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logged {
    Accepted,
    Refused,
    All,
}

impl Logged {
    #[must_use]
    pub fn accepted(self) -> bool {
        self != Logged::Refused
    }

    #[must_use]
    pub fn refused(self) -> bool {
        self != Logged::Accepted
    }
}

/// A forward's name: `[A-Za-z0-9][A-Za-z0-9_.-]*`, at most 63 bytes. It becomes the comment of the
/// forward's rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<str>);

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` is not a name: a name is 1 to 63 of A-Z a-z 0-9 _ . - and starts with a letter or digit"
)]
pub struct NameError(pub String);

impl Name {
    pub const MAX_BYTES: usize = 63;

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let sound = text.len() <= Self::MAX_BYTES
            && text.bytes().all(allowed)
            && text
                .as_bytes()
                .first()
                .is_some_and(u8::is_ascii_alphanumeric);
        if sound {
            Ok(Self(text.into()))
        } else {
            Err(NameError(text.to_owned()))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{}:{}", Host(address), self.ports),
            None => write!(f, "{}", self.ports),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ports {
            TargetPorts::Kept => write!(f, "{}", Host(self.address)),
            TargetPorts::Range(ports) => write!(f, "{}:{ports}", Host(self.address)),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, to) in self.destinations.iter().enumerate() {
            write!(f, "{}{to}", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
