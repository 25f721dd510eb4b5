//! The machine's interfaces and routes, as far as forwards need them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::net::{Family, Interface};

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    /// Whether it is switched on and has a carrier.
    pub up: bool,
    /// Whether it is switched on.
    pub enabled: bool,
    /// The bridge of which it is a port.
    pub bridge: Option<String>,
    pub addresses: Vec<IpAddr>,
    /// The addresses that came to a network in which the interface has one already. Only IPv4 has them.
    pub secondary: Vec<IpAddr>,
}

/// The route that the kernel would choose for a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub interface: String,
    /// The next router. `None` on the machine's own network.
    pub gateway: Option<IpAddr>,
    /// The neighbour state of the next hop: `REACHABLE`, `STALE`, `FAILED`, … (ip-neighbour(8)).
    pub neighbour: Option<String>,
}

/// The reverse-path filter of an interface: whether replies must leave by the same interface (`rp_filter` in
/// Documentation/networking/ip-sysctl.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReversePath {
    Off,
    Strict,
    Loose,
}

impl ReversePath {
    /// Returns the filter in force: the higher value of the interface's and `all`'s.
    #[must_use]
    pub fn of(all: u8, own: u8) -> Self {
        match all.max(own) {
            0 => ReversePath::Off,
            1 => ReversePath::Strict,
            _ => ReversePath::Loose,
        }
    }
}

/// A packet whose route the kernel is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Packet<'n> {
    pub to: IpAddr,
    /// The source address and ingress interface of a packet that arrives. `None`: the machine itself sends it.
    pub came: Option<(IpAddr, &'n Interface)>,
}

/// A packet of the machine itself that replies to a packet to one of its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplyPacket {
    pub from: IpAddr,
    pub to: IpAddr,
}

/// Returns an Internet address that no host has (RFC 5737, RFC 3849). The route to it stands for the route to
/// clients.
#[must_use]
pub fn somebody(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    }
}

/// The interfaces of a machine. It is empty if they cannot be listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links(pub Vec<Link>);

impl Links {
    #[must_use]
    pub fn get(&self, name: &Interface) -> Option<&Link> {
        self.0.iter().find(|link| link.name == name.as_str())
    }

    /// Returns the interfaces with only their addresses of one family.
    #[must_use]
    pub fn of(self, family: Family) -> Self {
        let mut links = self.0;
        for link in &mut links {
            link.addresses.retain(|one| Family::of(*one) == family);
        }
        Self(links)
    }

    /// Returns the addresses of an interface. Returns none if it does not exist.
    #[must_use]
    pub fn addresses(&self, name: &Interface) -> &[IpAddr] {
        self.get(name).map_or(&[], |link| &link.addresses)
    }

    /// Returns the interface that has an address.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&Link> {
        let has = |link: &&Link| link.addresses.contains(&address);
        self.0.iter().find(has)
    }
}
