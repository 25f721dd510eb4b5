//! The firewall machine, and one forward.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use thiserror::Error;

use super::description::Description;
use super::sources::Sources;
use crate::net::{AddressRange, Family, Host, Interface, Port, PortRange, Protocol};
use crate::netfilter::limit::PerSecond;
use crate::netfilter::target::Mss;

impl Forward {
    /// Returns the key of the egress as a spec writes it.
    #[must_use]
    pub fn egress_key(&self) -> &'static str {
        if self.ingress.iter().all(|ingress| *ingress == self.egress) {
            "interface"
        } else {
            "interface: {egress: …}"
        }
    }
}

/// The machine that forwards, and the values of each forward that does not set its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    /// The interfaces on which clients arrive, at least one.
    pub ingress: Vec<Interface>,
    /// The interface to the targets. It equals `ingress` on a machine with one NIC.
    pub egress: Interface,
    pub snat: Snats,
    /// The largest TCP segment that both ends of a connection may announce, for forwards and outbound entries. `None`:
    /// what they announce is not changed.
    pub mss: Option<Mss>,
    pub forward_policy: ForwardPolicy,
    /// `None`: the number of rules decides.
    pub layout: Option<Layout>,
}

impl Firewall {
    /// The numbers that `mss` takes. Every host takes segments of 536 bytes (RFC 9293, 3.7.1). ip6tables takes 65,535
    /// less the header of IPv6 (`extensions/libxt_TCPMSS.c`).
    pub const MSS: RangeInclusive<u16> = 536..=65_495;
}

/// How the plan divides its rules into chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One chain for each hook. A new connection traverses it in order.
    Flat,
    /// Many chains. A new connection traverses only a few of them.
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

/// The source address that targets see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Snat {
    /// One address of this range. Replies come back to the firewall.
    Addresses(AddressRange),
    /// The address that the egress interface has when a connection begins.
    Masquerade,
    /// The client's own address. Replies come back only if the target routes them through the
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

/// The `snat` of each family, if the spec sets one.
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
    /// Sets it to DROP: only packets that a rule accepts are forwarded.
    Drop,
    /// Does not change it.
    Keep,
}

/// One forward, for one of its protocols and one of its listeners: connections to `listen` are redirected to
/// `target`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    pub name: Name,
    /// Words for reports. No rule has them.
    pub description: Option<Description>,
    pub listen: Listen,
    pub protocol: Protocol,
    pub target: ForwardTarget,
    /// The interfaces on which clients arrive, at least one. It holds the egress interface only if
    /// the spec names it: `hairpin` does not add it here.
    pub ingress: Vec<Interface>,
    pub egress: Interface,
    pub snat: Snat,
    pub sources: Sources,
    pub limits: Option<Limits>,
    pub log: Option<Log>,
    /// Whether hosts behind the firewall, and the firewall itself, reach the listener too.
    pub hairpin: bool,
}

/// The ports that a forward listens on, at one of the machine's addresses or (`None`) at all of them. It is one
/// piece of a `listen` list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listen {
    pub address: Option<IpAddr>,
    pub ports: PortRange,
}

/// The hosts that a forward leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardTarget {
    pub kind: TargetKind,
    /// At least one, all of one family. Several destinations share the connections.
    pub destinations: Vec<Destination>,
    pub balance: Balance,
}

/// One address and its ports that a forward redirects connections to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    pub address: IpAddr,
    pub ports: TargetPorts,
}

/// How connections are shared among several destinations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Balance {
    /// Each connection goes to a random destination, all with the same probability.
    #[default]
    Random,
    /// All connections of a client go to the same destination.
    Client,
}

impl Forward {
    #[must_use]
    pub fn family(&self) -> Family {
        self.target.family()
    }

    /// Returns whether the forward accepts every client without a limit and logs no accepted connection.
    #[must_use]
    pub fn admits_all(&self) -> bool {
        // Without `..`, a new option does not compile until somebody has decided about it.
        let Self {
            sources,
            limits,
            log,
            // No rule has it.
            description: _,
            // These decide where a connection comes from and goes to.
            name: _,
            listen: _,
            protocol: _,
            target: _,
            ingress: _,
            egress: _,
            snat: _,
            hairpin: _,
        } = self;
        let log = log.as_ref();
        *sources == Sources::default()
            && limits.is_none()
            && !log.is_some_and(|log| log.connections.accepted())
    }

    /// Returns the interfaces on which clients may arrive. With `hairpin`, the egress interface is one.
    pub fn entrances(&self) -> impl Iterator<Item = &Interface> {
        let behind = self.hairpin && !self.ingress.contains(&self.egress);
        self.ingress.iter().chain(behind.then_some(&self.egress))
    }

    /// Returns the destination ports of translated packets to this destination.
    #[must_use]
    pub fn ports_at(&self, to: &Destination) -> PortRange {
        match to.ports {
            TargetPorts::Kept => self.listen.ports,
            TargetPorts::Range(ports) => ports,
        }
    }

    /// Returns whether the forward listens for connections of this kind at a port, whatever their address is. `protocol` is `None`
    /// for a ping.
    #[must_use]
    pub fn listens(&self, protocol: Option<Protocol>, family: Family, port: Port) -> bool {
        protocol == Some(self.protocol)
            && self.family() == family
            && self.listen.ports.contains(port)
    }

    /// Returns the destination port of packets to a port of the listener behind the translation to this destination.
    #[must_use]
    pub fn port_at(&self, to: &Destination, port: Port) -> Port {
        match to.ports {
            TargetPorts::Kept => port,
            TargetPorts::Range(one) if one.is_single() => one.first(),
            TargetPorts::Range(range) => {
                let first = self.listen.ports.first().number();
                let offset = port.number().saturating_sub(first);
                let number = range.first().number().checked_add(offset);
                number.and_then(Port::new).unwrap_or(port)
            }
        }
    }

    /// Returns all destinations for a message, with ports even if the spec gives none.
    #[must_use]
    pub fn reaches(&self) -> String {
        let each = self.target.destinations.iter().map(|to| self.reached(to));
        each.collect::<Vec<_>>().join(", ")
    }

    /// Returns one destination for a message, with its ports: `10.224.0.118:80`.
    #[must_use]
    pub fn reached(&self, to: &Destination) -> String {
        format!("{}:{}", Host(to.address), self.ports_at(to))
    }
}

impl ForwardTarget {
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
    /// One or more pods, without a load balancer in front.
    Pod,
}

/// The ports of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetPorts {
    /// The spec gives none: packets keep their destination port.
    Kept,
    /// One port receives the connections of all listen ports. A range has the length of the listener's
    /// range, and each port keeps its offset.
    Range(PortRange),
}

/// How many connections a forward accepts. Further connections are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limits {
    /// New connections a second.
    pub rate: Option<Rate>,
    /// Connections at the same time.
    pub max_connections: Option<u32>,
    pub per: Per,
    /// Whether a refused client gets an answer. If not, its packet is dropped.
    pub reject: bool,
}

/// How fast connections may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate {
    pub new_per_second: PerSecond,
    /// How many connections may begin at once after a pause.
    pub burst: u32,
}

/// The clients that share a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Per {
    /// All clients together.
    Total,
    /// Each client address has its own.
    Client,
}

/// Which of a forward's connections the kernel logs, each with its first packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The beginning of each line, before `accepted` or `refused`.
    pub prefix: Box<str>,
    /// As in syslog(2).
    pub level: u8,
    /// The most lines of each kind in a minute.
    pub per_minute: u32,
    pub connections: Logged,
}

impl Log {
    /// The kernel cuts a line's prefix at 29 bytes, and ` accepted ` takes ten of them.
    pub const LONGEST_PREFIX: usize = 19;

    /// The names of the levels, in the order of syslog(2).
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
        let valid = text.len() <= Self::MAX_BYTES
            && text.bytes().all(allowed)
            && text
                .as_bytes()
                .first()
                .is_some_and(u8::is_ascii_alphanumeric);
        if valid {
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

impl fmt::Display for ForwardTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, to) in self.destinations.iter().enumerate() {
            write!(f, "{}{to}", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
