//! What the machine has for a network, as far as forwards need it.

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
}

/// Where the kernel would send a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub interface: String,
    /// The next router; none on the machine's own network.
    pub gateway: Option<IpAddr>,
    /// What is known of the next hop's hardware address: `REACHABLE`, `STALE`, `FAILED`, …
    /// (ip-neighbour(8)).
    pub neighbour: Option<String>,
}

/// How strictly an interface asks that replies would leave by it too (`rp_filter` in
/// Documentation/networking/ip-sysctl.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReversePath {
    Off,
    Strict,
    Loose,
}

impl ReversePath {
    /// The value in force is the higher of the interface's and of `all`'s.
    #[must_use]
    pub fn of(all: u8, own: u8) -> Self {
        match all.max(own) {
            0 => ReversePath::Off,
            1 => ReversePath::Strict,
            _ => ReversePath::Loose,
        }
    }
}

/// A question to the kernel's routing: where would this packet go?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Packet<'n> {
    pub to: IpAddr,
    /// One that comes in, from this address and by this interface; else the machine's own.
    pub came: Option<(IpAddr, &'n Interface)>,
}

/// A packet of the machine itself that answers one to an address of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    pub from: IpAddr,
    pub to: IpAddr,
}

/// An address of the Internet that nobody has (RFC 5737, RFC 3849): the route to it is the route to
/// clients.
#[must_use]
pub fn somebody(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    }
}

/// The interfaces of a machine; none where they cannot be listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links(pub Vec<Link>);

impl Links {
    #[must_use]
    pub fn get(&self, name: &Interface) -> Option<&Link> {
        self.0.iter().find(|link| link.name == name.as_str())
    }

    /// The same with the addresses of one family.
    #[must_use]
    pub fn of(self, family: Family) -> Self {
        let mut links = self.0;
        for link in &mut links {
            link.addresses.retain(|one| Family::of(*one) == family);
        }
        Self(links)
    }

    /// The addresses of one interface; none if it does not exist.
    #[must_use]
    pub fn addresses(&self, name: &Interface) -> &[IpAddr] {
        self.get(name).map_or(&[], |link| &link.addresses)
    }

    /// The interface that has an address.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&Link> {
        let has = |link: &&Link| link.addresses.contains(&address);
        self.0.iter().find(has)
    }
}
