//! Addresses of clients of the Internet that lists, rules and routes treat alike.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::networks::NamedInRules;
use crate::forwards::{ForwardSet, Nets};
use crate::net::Family;
use crate::twin::machine::{Address, Machine};

/// How many addresses are tried until one is like another.
const TRIES: usize = 256;

/// A range of addresses of the Internet.
#[derive(Debug)]
pub struct Internet {
    pub first: IpAddr,
    /// The networks around `first` that lists, rules, links and routes name: their addresses may be treated
    /// differently.
    narrower: Vec<IpNet>,
}

impl Internet {
    pub fn of(set: &ForwardSet, family: Family, machine: &Machine, named: &NamedInRules) -> Self {
        let first = unlisted(set, family);
        Self {
            first,
            narrower: narrower(set, machine, named, first),
        }
    }

    /// Returns an address by its number: one of thousands that are treated like the first. `taken` holds
    /// addresses that no client has.
    pub fn address(&self, number: usize, taken: &BTreeSet<IpAddr>) -> IpAddr {
        let contains = |address: IpAddr| move |net: &&IpNet| net.contains(&address);
        let own: Vec<&IpNet> = self.narrower.iter().filter(contains(self.first)).collect();
        let is_alike = |address: &IpAddr| {
            let mut here = self.narrower.iter().filter(contains(*address));
            here.by_ref().eq(own.iter().copied()) && !taken.contains(address)
        };
        let mut some = (number..number + TRIES).map(|number| beside(self.first, number));
        some.find(is_alike).unwrap_or(self.first)
    }
}

/// Returns the first of some addresses of the Internet for which `holds` is true.
pub fn server(family: Family, holds: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    candidates(family).find(|address| is_public(*address) && holds(*address))
}

/// Returns whether an address can be one of the Internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_private()
                || v4.is_multicast()
                || v4.octets()[0] >= 224
                || v4.octets()[0] == 0
                || v4.is_loopback())
        }
        IpAddr::V6(_) => true,
    }
}

/// Returns an address of the Internet that no list of the spec names. Addresses for documentation are avoided:
/// many rules drop them.
fn unlisted(set: &ForwardSet, family: Family) -> IpAddr {
    let lists = set.forwards.iter().flat_map(|forward| {
        let allow = forward.sources.allow.iter().flat_map(Nets::as_slice);
        allow.chain(forward.sources.deny.as_slice())
    });
    let lists: BTreeSet<&IpNet> = lists.filter(|net| net.prefix_len() > 0).collect();
    let is_free = |address: &IpAddr| !lists.iter().any(|net| net.contains(address));
    let first = candidates(family).next();
    candidates(family)
        .find(|address| is_free(address) && is_public(*address))
        .or(first)
        .unwrap_or(IpAddr::V4(Ipv4Addr::new(81, 2, 69, 142)))
}

/// Returns addresses in many networks of the Internet. None is for documentation.
fn candidates(family: Family) -> impl Iterator<Item = IpAddr> {
    (0..=255).map(move |n| match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(81_u8.wrapping_add(n), 2, 69, 142)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(
            0x2a02 + u16::from(n),
            0xcf40,
            0,
            0,
            0,
            0,
            0,
            1,
        )),
    })
}

/// Returns the network from which all addresses of a range are taken.
fn around(first: IpAddr) -> IpNet {
    let length = match first {
        IpAddr::V4(_) => 16,
        IpAddr::V6(_) => 48,
    };
    IpNet::new(first, length).map_or(IpNet::from(first), |net| net.trunc())
}

/// Returns the address with a number after the first. Each address of IPv6 is in another network of 64 bits, since
/// limits count such a network as one client.
fn beside(first: IpAddr, number: usize) -> IpAddr {
    let number = u16::try_from(number % 65_536).unwrap_or_default();
    match first {
        IpAddr::V4(address) => {
            let bits = address.to_bits();
            let low = u16::try_from(bits & 0xffff).unwrap_or_default();
            let low = low.wrapping_add(number);
            IpAddr::V4(Ipv4Addr::from_bits(bits & 0xffff_0000 | u32::from(low)))
        }
        IpAddr::V6(address) => {
            let mut segments = address.segments();
            segments[3] = segments[3].wrapping_add(number);
            IpAddr::V6(Ipv6Addr::from(segments))
        }
    }
}

/// Returns the networks around an address that lists, rules, links and routes name.
fn narrower(
    set: &ForwardSet,
    machine: &Machine,
    named: &NamedInRules,
    first: IpAddr,
) -> Vec<IpNet> {
    let lists = set.forwards.iter().flat_map(|forward| {
        let allow = forward.sources.allow.iter().flat_map(Nets::as_slice);
        allow.chain(forward.sources.deny.as_slice()).copied()
    });
    let links = machine.links.iter().flat_map(|link| &link.addresses);
    let links = links.map(Address::on_link);
    let routes = machine.routes.iter().filter_map(|(_, route)| {
        let text = route["dst"].as_str()?;
        let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
        text.parse::<IpNet>().ok().or_else(address)
    });
    let around = around(first);
    let named = named.networks.union(&named.destinations).copied();
    let all = lists.chain(links).chain(routes).chain(named);
    let within =
        all.filter(|net| net.prefix_len() > around.prefix_len() && around.contains(&net.addr()));
    within.collect::<BTreeSet<IpNet>>().into_iter().collect()
}
