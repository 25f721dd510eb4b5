//! One rule: its matches in the order in which iptables-save prints them, and its target.
//!
//! The same type serves planned, parsed and live rules. `Display` is the canonical spelling
//! (measured on iptables 1.8.7 to 1.8.13, nft and legacy; the lab holds each form against
//! the kernel); `parse` reads it back. What nvactl does not
//! interpret is kept word for word in the `Other` variants, so a foreign rule prints as it was read.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::net::{AddressRange, Host, Interface, Port, PortRange, Protocol};
use crate::netfilter::limit::{ConnLimit, HashLimit, Limit};
use crate::netfilter::names::ChainName;
use crate::netfilter::token::{Quoted, Token};

/// A rule without the chain it stands in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule {
    pub matches: Vec<Match>,
    /// A rule without a target only counts.
    pub target: Option<Target>,
}

impl Rule {
    #[must_use]
    pub fn new(matches: impl IntoIterator<Item = Match>, target: Target) -> Self {
        Self {
            matches: matches.into_iter().collect(),
            target: Some(target),
        }
    }

    /// The unconditional rule `-j CHAIN`.
    #[must_use]
    pub fn jump(chain: ChainName) -> Self {
        Self::new([], Target::Jump(chain))
    }

    /// A rule that cannot be read, as iptables-save prints it behind the name of its chain.
    #[must_use]
    pub fn unread(text: &str) -> Self {
        Self::new([], Target::Unread(text.into()))
    }

    /// The rule that this one is with the lines that iptables prints behind it, which are no lines by
    /// themselves.
    pub(crate) fn followed_by(&self, behind: &str, line: &str) -> Self {
        Self::unread(&format!("{self}\n{behind}{line}"))
    }

    /// Whether iptables-restore reads the rule as it is printed: it reads line by line.
    #[must_use]
    pub fn is_loadable(&self) -> bool {
        let breaks = |text: &str| text.contains('\n');
        let any_breaks = |words: &[Token]| words.iter().any(|word| breaks(word.spelled()));
        let matches = self.matches.iter().any(|condition| match condition {
            Match::Comment(text) => breaks(text),
            Match::Other(words) => any_breaks(words),
            _ => false,
        });
        !matches
            && match &self.target {
                Some(Target::Unread(_)) => false,
                Some(Target::Log { prefix, .. }) => !breaks(prefix),
                Some(Target::Other(words)) => !any_breaks(words),
                _ => true,
            }
    }

    /// Returns whether the rule applies to every packet: a comment is no condition.
    #[must_use]
    pub fn is_unconditional(&self) -> bool {
        let mut matches = self.matches.iter();
        matches.all(|condition| matches!(condition, Match::Comment(_)))
    }

    /// Returns whether no packet passes the rule: it has no conditions, and its target ends the walk through
    /// its chain. The verdict of a queue ends it too (`--queue-bypass` in iptables-extensions(8)).
    #[must_use]
    pub fn stops_every_packet(&self) -> bool {
        const ENDING: [&str; 10] = [
            "ACCEPT",
            "DROP",
            "REJECT",
            "DNAT",
            "SNAT",
            "MASQUERADE",
            "REDIRECT",
            "NETMAP",
            "QUEUE",
            "NFQUEUE",
        ];
        let ends = |target: &Target| match target {
            Target::Return | Target::Goto(_) => true,
            Target::Jump(_) => false,
            _ => ENDING.contains(&target.name()),
        };
        self.is_unconditional() && self.target.as_ref().is_some_and(ends)
    }

    /// The chain a packet goes to when the rule matches, by `-j` or `-g`.
    #[must_use]
    pub fn leads_to(&self) -> Option<&ChainName> {
        match &self.target {
            Some(Target::Jump(chain) | Target::Goto(chain)) => Some(chain),
            _ => None,
        }
    }
}

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

    fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

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
    /// other rules are right, and is never written: [`Rule::is_loadable`].
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

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for condition in &self.matches {
            f.write_str(space)?;
            condition.fmt(f)?;
            space = " ";
        }
        match &self.target {
            Some(target) => after(f, space, target),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Match::Source(net) => after(f, "-s ", Spelled(*net)),
            Match::Destination(net) => after(f, "-d ", Spelled(*net)),
            Match::NotDestination(net) => after(f, "! -d ", Spelled(*net)),
            Match::Ingress(interface) => after(f, "-i ", interface),
            Match::Egress(interface) => after(f, "-o ", interface),
            Match::Protocol(protocol) => after(f, "-p ", protocol),
            Match::Tcp {
                source,
                destination,
                syn,
            } => {
                f.write_str("-m tcp")?;
                write_ports(f, source.as_ref(), destination.as_ref())?;
                if *syn {
                    f.write_str(" --tcp-flags FIN,SYN,RST,ACK SYN")?;
                }
                Ok(())
            }
            Match::Udp {
                source,
                destination,
            } => {
                f.write_str("-m udp")?;
                write_ports(f, source.as_ref(), destination.as_ref())
            }
            Match::DestinationPorts(ranges) => {
                f.write_str("-m multiport --dports ")?;
                for (n, range) in ranges.iter().enumerate() {
                    write!(f, "{}{}", if n == 0 { "" } else { "," }, Colon(*range))?;
                }
                Ok(())
            }
            Match::Conntrack(conntrack) => after(f, "-m conntrack", conntrack),
            Match::Confirmed => f.write_str("-m conntrack --ctstatus CONFIRMED"),
            Match::DestinationIsLocal => f.write_str("-m addrtype --dst-type LOCAL"),
            Match::Probability(share) => {
                write!(f, "-m statistic --mode random --probability {share}")
            }
            Match::Cluster(Cluster { total, node, seed }) => write!(
                f,
                "-m cluster --cluster-local-nodemask {:#010x} --cluster-total-nodes {total} --cluster-hash-seed {seed:#010x}",
                1_u32 << node
            ),
            Match::HashLimit(limit) => write!(f, "-m hashlimit {limit}"),
            Match::ConnLimit(limit) => write!(f, "-m connlimit {limit}"),
            Match::Limit(limit) => write!(f, "-m limit {limit}"),
            Match::Connmark(mark) => after(f, "-m connmark --mark ", mark),
            Match::Comment(text) => after(f, "-m comment --comment ", Quoted(text)),
            Match::Other(words) => write_words(f, words),
        }
    }
}

impl fmt::Display for Conntrack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, state) in self.states.iter().enumerate() {
            f.write_str(if n == 0 { " --ctstate " } else { "," })?;
            f.write_str(state.as_str())?;
        }
        if let Some(address) = self.original_destination {
            if address.prefix_len() == address.max_prefix_len() {
                after(f, " --ctorigdst ", address.addr())?;
            } else {
                after(f, " --ctorigdst ", address)?;
            }
        }
        if let Some(ports) = self.original_destination_port {
            after(f, " --ctorigdstport ", Colon(ports))?;
        }
        Ok(())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Goto(chain) => write!(f, "-g {chain}"),
            Target::Dnat { address, ports } => {
                f.write_str("-j DNAT --to-destination ")?;
                match ports {
                    DnatPorts::Kept => address.fmt(f),
                    ports => {
                        Host(*address).fmt(f)?;
                        ports.fmt(f)
                    }
                }
            }
            Target::Snat {
                addresses,
                persistent,
            } => {
                after(f, "-j SNAT --to-source ", addresses)?;
                f.write_str(if *persistent { " --persistent" } else { "" })
            }
            Target::Log { prefix, level } => {
                after(f, "-j LOG --log-prefix ", Quoted(prefix))?;
                match *level {
                    DEFAULT_LEVEL => Ok(()),
                    level => write!(f, " --log-level {level}"),
                }
            }
            Target::Reject(with) => {
                let (_, word) = RejectWith::ALL[*with as usize];
                write!(f, "-j REJECT --reject-with {word}")
            }
            Target::SetConnmark(mark) => write!(f, "-j CONNMARK --set-xmark {mark}"),
            Target::Other(words) => {
                f.write_str("-j ")?;
                write_words(f, words)
            }
            Target::Unread(text) => f.write_str(text),
            simple => after(f, "-j ", simple.name()),
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}/{:#x}", self.value, self.mask)
    }
}

impl fmt::Display for DnatPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DnatPorts::Kept => Ok(()),
            DnatPorts::One(port) => after(f, ":", port),
            DnatPorts::Shifted { to, base } => write!(f, ":{to}/{base}"),
        }
    }
}

/// A network as iptables-save spells it: by `inet_ntop(3)`, which has the end of an address in
/// `::/96` as IPv4 (RFC 4291, 2.5.5.1).
struct Spelled(IpNet);

impl fmt::Display for Spelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.addr() {
            IpAddr::V6(address) => match address.segments() {
                [0, 0, 0, 0, 0, 0, high, low] if high > 0 => {
                    let embedded = Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
                    write!(f, "::{embedded}/{}", self.0.prefix_len())
                }
                _ => self.0.fmt(f),
            },
            IpAddr::V4(_) => self.0.fmt(f),
        }
    }
}

/// A range as matches spell it: `5000:5010`, where DNAT spells it `5000-5010`.
struct Colon(PortRange);

impl fmt::Display for Colon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_single() {
            self.0.first().fmt(f)
        } else {
            write!(f, "{}:{}", self.0.first(), self.0.last())
        }
    }
}

/// A value behind the words that it belongs to. `write!` does the same at several times the cost,
/// which is most of what a large plan costs to print.
fn after(f: &mut fmt::Formatter<'_>, words: &str, value: impl fmt::Display) -> fmt::Result {
    f.write_str(words)?;
    value.fmt(f)
}

fn write_ports(
    f: &mut fmt::Formatter<'_>,
    source: Option<&PortRange>,
    destination: Option<&PortRange>,
) -> fmt::Result {
    if let Some(ports) = source {
        after(f, " --sport ", Colon(*ports))?;
    }
    if let Some(ports) = destination {
        after(f, " --dport ", Colon(*ports))?;
    }
    Ok(())
}

fn write_words(f: &mut fmt::Formatter<'_>, words: &[Token]) -> fmt::Result {
    for (n, word) in words.iter().enumerate() {
        write!(f, "{}{word}", if n == 0 { "" } else { " " })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each as iptables 1.8.9 gives it back.
    #[test]
    fn networks_are_spelled_as_by_inet_ntop_and_read_back() {
        for (net, spelled) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("::/96", "::/96"),
            ("::7/128", "::7/128"),
            ("::1:ffff/128", "::0.1.255.255/128"),
            ("::a03:0/112", "::10.3.0.0/112"),
            ("::ffff:a03:4/128", "::ffff:10.3.0.4/128"),
            ("::1:0:0/112", "::1:0:0/112"),
            ("64:ff9b::a03:4/128", "64:ff9b::a03:4/128"),
            ("0:0:0:80::/64", "0:0:0:80::/64"),
        ] {
            let net: IpNet = net.parse().expect("it is a network");
            assert_eq!(Spelled(net).to_string(), spelled);
            assert_eq!(spelled.parse(), Ok(net));
        }
    }
}
