//! The choice of addresses for both ends of a connection.
//!
//! A client has one interface in all tests, and is no server in another one: a twin has a route of its own for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::routes::Routes;
use crate::forwards::outbound::GUARDED;
use crate::net::{Family, Interface, not_a_host};
use crate::netfilter::conntrack::is_of_host;

/// The addresses so far.
#[derive(Debug)]
pub struct Hosts<'s> {
    routes: &'s Routes<'s>,
    /// The clients, each with the interface by which it comes in.
    clients: BTreeMap<IpAddr, &'s Interface>,
    servers: BTreeSet<IpAddr>,
}

impl<'s> Hosts<'s> {
    pub fn new(routes: &'s Routes<'s>) -> Self {
        Self {
            routes,
            clients: BTreeMap::new(),
            servers: BTreeSet::new(),
        }
    }

    /// Returns the first of some addresses that a client behind this interface can have.
    pub fn client(
        &mut self,
        by: &'s Interface,
        some: impl IntoIterator<Item = IpAddr>,
        fits: impl Fn(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        let mut some = some.into_iter();
        let found = some.find(|address| {
            let is_elsewhere = self.clients.get(address).is_some_and(|one| *one != by);
            !is_elsewhere
                && !self.servers.contains(address)
                && !GUARDED.contains(address)
                && is_usable(*address)
                && self.is_free(*address)
                && fits(*address)
        })?;
        self.clients.insert(found, by);
        Some(found)
    }

    /// Returns the first of some addresses that a host can have to which connections go.
    pub fn server(
        &mut self,
        some: impl IntoIterator<Item = IpAddr>,
        fits: impl Fn(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        let mut some = some.into_iter();
        let found = some.find(|address| {
            !self.clients.contains_key(address)
                && (GUARDED.contains(address) || is_usable(*address))
                && !is_first(*address)
                && self.is_free(*address)
                && fits(*address)
        })?;
        self.servers.insert(found);
        Some(found)
    }

    /// Returns whether the address is neither the machine's nor a target's.
    fn is_free(&self, address: IpAddr) -> bool {
        let routes = self.routes;
        !(routes.is_own(address) || routes.is_listener(address) || routes.is_target(address))
    }
}

/// Returns whether a host can have the address, whatever the length of its network is.
fn is_usable(address: IpAddr) -> bool {
    let is_edge = match address {
        IpAddr::V4(v4) => matches!(v4.octets(), [.., 0 | 255]),
        IpAddr::V6(_) => false,
    };
    !is_edge && is_of_host(address) && not_a_host(address).is_none()
}

/// Returns whether the address is the first host of a network, which is often a router.
fn is_first(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => matches!(v4.octets(), [.., 1]),
        IpAddr::V6(v6) => matches!(v6.segments(), [.., 0 | 1]),
    }
}

/// Returns addresses of clients of the Internet. The first ones are for documentation, so that nobody has them.
pub fn clients(family: Family) -> impl Iterator<Item = IpAddr> {
    of_internet(family, 7)
}

/// Returns addresses of servers of the Internet.
pub fn servers(family: Family) -> impl Iterator<Item = IpAddr> {
    of_internet(family, 80)
}

fn of_internet(family: Family, host: u8) -> impl Iterator<Item = IpAddr> {
    let v4 = [[198, 51, 100], [203, 0, 113], [192, 0, 2]];
    let v4 = v4.map(|[a, b, c]| IpAddr::V4(Ipv4Addr::new(a, b, c, host)));
    let v6 =
        move |first, second| IpAddr::V6(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, host.into()));
    let documented = match family {
        Family::V4 => v4.to_vec(),
        Family::V6 => vec![v6(0x2001, 0xdb8)],
    };
    let others = (0..200_u8).map(move |n| match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(20 + n, 2, 69, host)),
        Family::V6 => v6(0x2a00 + u16::from(n), 0xcf40),
    });
    documented.into_iter().chain(others)
}
