//! The outbound entries of a spec: connections from named networks that the machine routes outward.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::sync::LazyLock;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

use super::description::Description;
use super::forward::{Limits, Log, Name, Snat};
use super::sources::Nets;
use crate::net::{AZURE_HOST, Family, Interface, Port, PortRange, Protocol};

/// One entry of `outbound` in one family: new connections from its networks to its destinations are forwarded.
/// An entry with networks of both families is two entries with the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    pub name: Name,
    /// Words for reports. No rule has them.
    pub description: Option<Description>,
    pub family: Family,
    /// The interfaces on which its connections arrive, at least one.
    pub ingress: Vec<Interface>,
    pub egress: Interface,
    /// At least one network.
    pub allow_from: Nets,
    pub allow_to: Destinations,
    pub deny_from: Nets,
    pub deny_to: Nets,
    /// At least one, sorted, each once.
    pub protocols: Vec<OutboundProtocol>,
    /// The destination ports, sorted; neighbours are joined. Empty: every port. An entry with `ping` has none.
    pub ports: Vec<PortRange>,
    pub snat: Snat,
    pub limits: Option<Limits>,
    pub log: Option<Log>,
}

/// A protocol that an outbound entry may have. Others (ESP, GRE, SCTP) are never forwarded by an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutboundProtocol {
    Tcp,
    Udp,
    /// ICMP echo requests.
    Ping,
}

impl OutboundProtocol {
    pub const ALL: [OutboundProtocol; 3] = [
        OutboundProtocol::Tcp,
        OutboundProtocol::Udp,
        OutboundProtocol::Ping,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            OutboundProtocol::Tcp => "tcp",
            OutboundProtocol::Udp => "udp",
            OutboundProtocol::Ping => "ping",
        }
    }

    /// Returns the protocol with ports, if it is one.
    #[must_use]
    pub fn transport(self) -> Option<Protocol> {
        match self {
            OutboundProtocol::Tcp => Some(Protocol::Tcp),
            OutboundProtocol::Udp => Some(Protocol::Udp),
            OutboundProtocol::Ping => None,
        }
    }
}

impl From<Protocol> for OutboundProtocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => OutboundProtocol::Tcp,
            Protocol::Udp => OutboundProtocol::Udp,
        }
    }
}

/// A word that is none of [`OutboundProtocol`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not one of tcp, udp, ping")]
pub struct OutboundProtocolError;

impl FromStr for OutboundProtocol {
    type Err = OutboundProtocolError;

    fn from_str(text: &str) -> Result<Self, OutboundProtocolError> {
        let mut all = Self::ALL.into_iter();
        all.find(|one| one.as_str() == text)
            .ok_or(OutboundProtocolError)
    }
}

impl fmt::Display for OutboundProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The destinations of an outbound entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destinations {
    /// Whether every address of the IPv4 Internet is one. IPv6 has its network in `nets` instead: `2000::/3`.
    pub internet: bool,
    pub nets: Nets,
    /// The addresses of [`GUARDED`] that the entry drops: the spec does not name them exactly, and they lie in `nets`
    /// or `internet` is set.
    pub guarded: Vec<IpAddr>,
}

/// The word of a spec and of reports for [`Destinations::internet`].
pub const INTERNET: &str = "internet";

/// Azure's metadata service, which gives whoever asks the VM's identity.
pub const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

/// The addresses that an entry reaches only if `allow_to` names exactly them.
pub const GUARDED: [IpAddr; 2] = [METADATA, AZURE_HOST];

/// The network of all global unicast addresses of IPv6 (RFC 4291, 2.4).
#[must_use]
pub fn internet_v6() -> IpNet {
    let first = std::net::Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0);
    IpNet::V6(Ipv6Net::new_assert(first, 3))
}

/// Returns the IPv4 networks that are not part of the Internet: the blocks of RFC 6890 whose addresses are not
/// globally reachable, and Azure's own address. The three documentation blocks are left out: nobody uses them as
/// private networks, so nothing lies behind them that needs protection.
#[must_use]
pub fn not_internet_v4() -> &'static Nets {
    static NETS: LazyLock<Nets> = LazyLock::new(|| {
        let net = |[a, b, c, d]: [u8; 4], bits| {
            IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits))
        };
        Nets::new(vec![
            net([0, 0, 0, 0], 8),
            net([10, 0, 0, 0], 8),
            net([100, 64, 0, 0], 10),
            net([127, 0, 0, 0], 8),
            IpNet::from(AZURE_HOST),
            net([169, 254, 0, 0], 16),
            net([172, 16, 0, 0], 12),
            net([192, 0, 0, 0], 24),
            net([192, 168, 0, 0], 16),
            net([198, 18, 0, 0], 15),
            // Multicast, reserved addresses, and the broadcast address.
            net([224, 0, 0, 0], 4),
            net([240, 0, 0, 0], 4),
        ])
    });
    &NETS
}

impl Destinations {
    /// Returns the destinations of a family. `internet` and `nets` are as written, `named` are the addresses that
    /// the spec names exactly.
    #[must_use]
    pub fn new(family: Family, internet: bool, nets: Nets, named: &[IpAddr]) -> Self {
        let nets = match family {
            Family::V6 if internet => {
                let all = nets.as_slice().iter().copied();
                Nets::new(all.chain([internet_v6()]).collect())
            }
            _ => nets,
        };
        let internet = internet && family == Family::V4;
        let guards = GUARDED.into_iter();
        let guarded =
            guards.filter(|one| (internet || nets.contains(*one)) && !named.contains(one));
        Self {
            internet,
            guarded: guarded.collect(),
            nets,
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.internet && self.nets.is_empty()
    }

    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let internet = self.internet && address.is_ipv4() && !not_internet_v4().contains(address);
        (internet || self.nets.contains(address)) && !self.guarded.contains(&address)
    }

    /// Returns whether an address is in both, addresses that an entry drops included.
    #[must_use]
    pub fn overlap(&self, other: &Self) -> bool {
        let guards = |one: &Self, other: &Self| {
            let mut guarded = one.guarded.iter();
            guarded.any(|address| other.nets.contains(*address))
        };
        // A network reaches the Internet unless it lies in one that does not.
        let outside = |nets: &Nets| {
            let mut each = nets.as_slice().iter();
            each.any(|net| not_internet_v4().holding(*net).is_none())
        };
        self.internet && other.internet
            || self.nets.overlap(&other.nets)
            || self.internet && outside(&other.nets)
            || other.internet && outside(&self.nets)
            || guards(self, other)
            || guards(other, self)
    }

    /// Returns whether every address of `other` is here as well, addresses that an entry drops included.
    #[must_use]
    pub fn hold(&self, other: &Self) -> bool {
        let held = |net: &IpNet| {
            self.nets.holding(*net).is_some()
                || self.internet && !not_internet_v4().overlap(&Nets::new(vec![*net]))
                || self.guarded.iter().any(|one| IpNet::from(*one) == *net)
        };
        (self.internet || !other.internet) && other.nets.as_slice().iter().all(held)
    }
}

/// Returns whether all connections of these entries arrive and leave by one and the same interface.
pub fn share_one_nic<'o>(entries: impl IntoIterator<Item = &'o Outbound>) -> bool {
    let mut entries = entries.into_iter();
    let Some(first) = entries.next() else {
        return true;
    };
    first.has_one_nic() && entries.all(|one| one.has_one_nic() && one.egress == first.egress)
}

impl Outbound {
    /// Returns whether the entry drops some of the packets that its `allow_from` and `allow_to` select.
    #[must_use]
    pub fn drops_some(&self) -> bool {
        !self.deny_from.is_empty() || !self.deny_to.is_empty() || !self.allow_to.guarded.is_empty()
    }

    /// Returns whether packets of the entry meet only its accepting rules: no drop, no limit, no log line.
    #[must_use]
    pub fn admits_all(&self) -> bool {
        let log = self.log.as_ref();
        !self.drops_some()
            && self.limits.is_none()
            && !log.is_some_and(|log| log.connections.accepted())
    }

    /// Returns whether some packet is in the set of both entries.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let ports = |a: &[PortRange], b: &[PortRange]| {
            a.is_empty()
                || b.is_empty()
                || a.iter().any(|one| b.iter().any(|two| one.overlaps(*two)))
        };
        self.family == other.family
            && self.egress == other.egress
            && self.ingress.iter().any(|one| other.ingress.contains(one))
            && self
                .protocols
                .iter()
                .any(|one| other.protocols.contains(one))
            && ports(&self.ports, &other.ports)
            && self.allow_from.overlap(&other.allow_from)
            && self.allow_to.overlap(&other.allow_to)
    }

    /// Returns whether every packet in the set of `other` is in the set of this entry.
    #[must_use]
    pub fn takes_all_of(&self, other: &Self) -> bool {
        let within = |range: &PortRange| {
            let mut own = self.ports.iter();
            own.any(|one| one.first() <= range.first() && range.last() <= one.last())
        };
        self.family == other.family
            && self.egress == other.egress
            && other.ingress.iter().all(|one| self.ingress.contains(one))
            && other
                .protocols
                .iter()
                .all(|one| self.protocols.contains(one))
            // The ports of both are joined, so a range within several ranges is within one.
            && (self.ports.is_empty() || !other.ports.is_empty() && other.ports.iter().all(within))
            && self.allow_from.hold(&other.allow_from)
            && self.allow_to.hold(&other.allow_to)
    }

    /// Returns whether the entry decides on a connection: it accepts the connection, or drops it.
    #[must_use]
    pub fn selects(&self, protocol: Protocol, source: IpAddr, to: IpAddr, port: Port) -> bool {
        self.takes(protocol.into(), source, to, Some(port))
    }

    /// Returns whether the entry decides on a connection or, without a port, on a ping.
    #[must_use]
    pub fn takes(
        &self,
        protocol: OutboundProtocol,
        source: IpAddr,
        to: IpAddr,
        port: Option<Port>,
    ) -> bool {
        let mut ports = self.ports.iter();
        self.protocols.contains(&protocol)
            && (self.ports.is_empty()
                || ports.any(|ports| port.is_some_and(|port| ports.contains(port))))
            && self.allow_from.contains(source)
            && (self.allow_to.contains(to) || self.allow_to.guarded.contains(&to))
    }

    /// Returns whether the entry drops a connection on which it decides, its limits aside.
    #[must_use]
    pub fn refuses(&self, source: IpAddr, to: IpAddr) -> bool {
        self.allow_to.guarded.contains(&to)
            || self.deny_from.contains(source)
            || self.deny_to.contains(to)
    }

    /// Returns whether the entry accepts a connection, its limits aside.
    #[must_use]
    pub fn accepts(&self, protocol: Protocol, source: IpAddr, to: IpAddr, port: Port) -> bool {
        self.selects(protocol, source, to, port) && !self.refuses(source, to)
    }

    /// Returns whether every connection of the entry arrives and leaves by one and the same interface.
    #[must_use]
    pub fn has_one_nic(&self) -> bool {
        self.ingress.iter().all(|one| *one == self.egress)
    }

    /// Returns the key of the egress as a spec writes it.
    #[must_use]
    pub fn egress_key(&self) -> &'static str {
        if self.has_one_nic() {
            "interface"
        } else {
            "interface: {egress: …}"
        }
    }

    /// Returns the ports for a message: `443, 8000-8010`, or `all`.
    #[must_use]
    pub fn port_words(&self) -> String {
        let words: Vec<String> = self.ports.iter().map(ToString::to_string).collect();
        if words.is_empty() {
            "all".to_owned()
        } else {
            words.join(", ")
        }
    }

    /// Returns the protocols for a message: `tcp, udp, ping`.
    #[must_use]
    pub fn protocol_words(&self) -> String {
        let words: Vec<&str> = self.protocols.iter().map(|one| one.as_str()).collect();
        words.join(", ")
    }
}

/// Sorts port ranges and joins neighbours, so that lists of the same ports are equal.
#[must_use]
pub fn joined(mut ports: Vec<PortRange>) -> Vec<PortRange> {
    ports.sort_unstable_by_key(|range| (range.first(), range.last()));
    let mut joined: Vec<PortRange> = Vec::with_capacity(ports.len());
    for range in ports {
        if let Some(last) = joined.last_mut()
            && u32::from(range.first().number()) <= u32::from(last.last().number()) + 1
        {
            let end = last.last().max(range.last());
            *last = PortRange::new(last.first(), end).unwrap_or(range);
        } else {
            joined.push(range);
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Nets {
        Nets::new(
            list.iter()
                .map(|net| net.parse().expect("it is a net"))
                .collect(),
        )
    }

    fn to(internet: bool, list: &[&str]) -> Destinations {
        Destinations::new(Family::V4, internet, nets(list), &[])
    }

    #[test]
    fn the_internet_is_all_but_private_and_special_addresses() {
        for (address, is_in) in [
            ("8.8.8.8", true),
            ("192.0.2.80", true),
            ("198.51.100.1", true),
            ("203.0.113.1", true),
            ("168.63.129.15", true),
            ("168.63.129.16", false),
            ("0.1.2.3", false),
            ("10.0.0.53", false),
            ("100.63.255.255", true),
            ("100.64.0.1", false),
            ("100.127.255.255", false),
            ("100.128.0.0", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("172.15.255.255", true),
            ("172.16.0.1", false),
            ("172.32.0.0", true),
            ("192.0.0.8", false),
            ("192.168.1.1", false),
            ("198.17.255.255", true),
            ("198.18.0.1", false),
            ("198.20.0.0", true),
            ("223.255.255.255", true),
            ("224.0.0.1", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
        ] {
            let address = address.parse().expect("it is an address");
            assert_eq!(to(true, &[]).contains(address), is_in, "{address}");
        }
        let v6 = Destinations::new(Family::V6, true, Nets::default(), &[]);
        for (address, is_in) in [
            ("2001:db8::1", true),
            ("fd00::1", false),
            ("fe80::1", false),
        ] {
            let address = address.parse().expect("it is an address");
            assert_eq!(v6.contains(address), is_in, "{address}");
        }
    }

    #[test]
    fn an_address_of_the_platform_is_reached_only_if_it_is_named_exactly() {
        let wide = nets(&["169.254.0.0/16", "168.63.129.0/24"]);
        let guarded =
            |named: &[IpAddr]| Destinations::new(Family::V4, true, wide.clone(), named).guarded;
        assert_eq!(guarded(&[]), GUARDED);
        assert_eq!(guarded(&[METADATA]), [AZURE_HOST]);
        // The Internet does not have them, and they are dropped all the same.
        assert_eq!(to(true, &["10.0.0.0/8"]).guarded, GUARDED);
        assert!(to(false, &["10.0.0.0/8"]).guarded.is_empty());
        let v6 = Destinations::new(Family::V6, true, Nets::default(), &[]);
        assert!(v6.guarded.is_empty());
    }

    #[test]
    fn destinations_overlap_if_they_share_an_address() {
        for (one, other, overlap) in [
            (to(true, &[]), to(true, &[]), true),
            (to(true, &[]), to(false, &["10.0.0.0/8"]), false),
            (to(true, &[]), to(false, &["8.8.8.8/32"]), true),
            (to(true, &[]), to(false, &["8.0.0.0/6"]), true),
            (
                to(true, &["10.0.0.53/32"]),
                to(false, &["10.0.0.0/8"]),
                true,
            ),
            (
                to(false, &["10.1.0.0/16"]),
                to(false, &["10.0.0.0/16"]),
                false,
            ),
            // Dropped by the first.
            (to(true, &[]), to(false, &["169.254.169.254/32"]), true),
            (to(true, &[]), to(false, &["169.254.169.253/32"]), false),
        ] {
            assert_eq!(one.overlap(&other), overlap, "{one:?} {other:?}");
            assert_eq!(other.overlap(&one), overlap, "{other:?} {one:?}");
        }
    }

    #[test]
    fn destinations_hold_others_if_they_have_each_of_their_addresses() {
        for (one, other, held) in [
            (to(true, &[]), to(true, &[]), true),
            (to(true, &["10.0.0.0/8"]), to(true, &[]), true),
            (to(true, &[]), to(true, &["10.0.0.0/8"]), false),
            (to(false, &["8.0.0.0/6"]), to(true, &[]), false),
            (to(true, &[]), to(false, &["8.8.8.8/32"]), true),
            // 10.0.0.0/8 lies in it.
            (to(true, &[]), to(false, &["8.0.0.0/6"]), false),
            (to(true, &[]), to(false, &["169.254.169.254/32"]), true),
            (to(true, &[]), to(false, &["169.254.0.0/16"]), false),
            (
                to(false, &["10.0.0.0/8"]),
                to(false, &["10.1.0.0/16", "10.3.0.0/16"]),
                true,
            ),
            (
                to(false, &["10.1.0.0/16"]),
                to(false, &["10.1.0.0/16", "10.3.0.0/16"]),
                false,
            ),
        ] {
            assert_eq!(one.hold(&other), held, "{one:?} {other:?}");
        }
    }

    #[test]
    fn lists_of_the_same_ports_are_equal() {
        let read = |list: &[&str]| -> Vec<PortRange> {
            list.iter()
                .map(|ports| ports.parse().expect("they are ports"))
                .collect()
        };
        for (list, expected) in [
            (&["443", "80"][..], &["80", "443"][..]),
            (&["80", "81", "82-90"], &["80-90"]),
            (&["80-90", "85", "100"], &["80-90", "100"]),
            (&["65535", "65534"], &["65534-65535"]),
        ] {
            assert_eq!(joined(read(list)), read(expected), "{list:?}");
        }
    }
}
