//! The interfaces of a made-up machine with their addresses, and the routers on their links.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::outline::Outline;
use super::sides::Sides;
use crate::net::{Family, Interface};
use crate::twin::machine::{Address, LinkKind, MachineLink};

/// The most hosts of a network that are looked at for a router.
const MOST_TRIED: usize = 64;

/// One family of an interface.
#[derive(Debug)]
pub struct OnLink<'o> {
    pub interface: &'o Interface,
    /// The first address with the network of the link.
    pub own: IpNet,
    /// The router behind which everything else is.
    pub router: IpAddr,
    /// Whether no fact names an address, so that it is made up.
    pub is_made_up: bool,
}

impl OnLink<'_> {
    /// Returns whether the router is in the link's network.
    #[must_use]
    pub fn has_router(&self) -> bool {
        self.own.contains(&self.router)
    }
}

/// Decides about the addresses of all interfaces. `sides` has the networks whose interfaces are known.
#[must_use]
pub fn on_links<'o>(outline: &'o Outline<'_>, sides: &Sides) -> Vec<OnLink<'o>> {
    let owners = owners(outline);
    let mut found: Vec<OnLink<'_>> = Vec::new();
    for family in &outline.families {
        for (number, interface) in (0_u16..).zip(&outline.interfaces) {
            if is_loopback(interface) {
                continue;
            }
            let is_in = |list: &[(Family, Interface)]| {
                let mut list = list.iter();
                list.any(|(of, one)| of == family && one == interface)
            };
            let mut named = own(outline, &owners, interface, *family);
            let named = named.next().filter(|_| !is_in(&outline.further));
            let own = named.unwrap_or_else(|| made_up(*family, (number, interface), sides));
            let is_free = |net: IpNet| {
                let mut others = found.iter().filter(|one| one.interface != interface);
                if is_in(&outline.alone) {
                    return false;
                }
                let is_apart = others.all(|one| !overlap(one.own, net));
                let mut owners = owners.iter();
                let holds_other =
                    owners.any(|(address, owner)| *owner != interface && net.contains(address));
                let claimed = sides.exact(net);
                is_apart && !holds_other && claimed.is_none_or(|side| side == interface)
            };
            let own = narrowed(own, is_free);
            found.push(OnLink {
                interface,
                own,
                router: router(own, number, |address| {
                    !owners.contains_key(&address) && sides.exact(IpNet::from(address)).is_none()
                }),
                is_made_up: named.is_none(),
            });
        }
    }
    found
}

/// Returns the interfaces, the loopback interface first.
#[must_use]
pub fn links(outline: &Outline<'_>, on_links: &[OnLink<'_>]) -> Vec<MachineLink> {
    let owners = owners(outline);
    let mut links = vec![loopback()];
    for (number, interface) in (0_u16..).zip(&outline.interfaces) {
        if is_loopback(interface) {
            continue;
        }
        let mut addresses = Vec::new();
        for first in on_links.iter().filter(|one| one.interface == interface) {
            let family = Family::of(first.own.addr());
            addresses.push(address(first.own));
            let more = own(outline, &owners, interface, family);
            let more = more.filter(|one| *one != first.own.addr());
            addresses.extend(more.map(|one| {
                // An address of another network stands alone, as one of a load balancer does.
                let length = first.own.prefix_len();
                let net = if first.own.contains(&one) {
                    IpNet::new(one, length).unwrap_or(IpNet::from(one))
                } else {
                    IpNet::from(one)
                };
                address(net)
            }));
            if family == Family::V6 {
                addresses.push(link_local(number));
            }
        }
        let [high, low] = number.to_be_bytes();
        links.push(MachineLink {
            addresses,
            mac: Some(format!("02:00:00:01:{high:02x}:{low:02x}")),
            ..link(interface.as_str(), LinkKind::Other)
        });
    }
    links
}

fn is_loopback(interface: &Interface) -> bool {
    interface.as_str() == "lo"
}

/// Returns the interface that has each address: the first one that claims it.
fn owners<'o>(outline: &'o Outline<'_>) -> BTreeMap<IpAddr, &'o Interface> {
    let mut owners = BTreeMap::new();
    for (interface, address) in &outline.addresses {
        owners.entry(*address).or_insert(interface);
    }
    owners
}

/// Returns the addresses of one family that an interface has, each once.
fn own<'o>(
    outline: &'o Outline<'_>,
    owners: &'o BTreeMap<IpAddr, &'o Interface>,
    interface: &'o Interface,
    family: Family,
) -> impl Iterator<Item = IpAddr> {
    let mut seen = BTreeSet::new();
    let all = outline.addresses.iter();
    let here = all.filter(move |(of, address)| {
        of == interface
            && Family::of(*address) == family
            && owners.get(address) == Some(&interface)
            && seen.insert(*address)
    });
    here.map(|(_, address)| *address)
}

/// Returns an address of a network that nothing else is in: of 198.18.0.0/15, which is for tests of network devices
/// (RFC 2544), or of `fd00:198:18::/48`.
fn made_up(family: Family, (number, interface): (u16, &Interface), sides: &Sides) -> IpAddr {
    let numbered = |n: u16| match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(198, 18, low(n), 4)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, 0x198, 0x18, n, 0, 0, 0, 4)),
    };
    let is_free = |address: &IpAddr| {
        let net = IpNet::new(*address, shortest(family)).unwrap_or(IpNet::from(*address));
        let mut inside = sides.of_family(family).filter(|(one, _)| net.contains(one));
        // A host behind the interface may be on its link.
        inside.all(|(one, side)| side == interface && one.addr() != *address)
    };
    // Each interface has numbers of its own.
    let mut numbers = (number..256).step_by(32).map(numbered);
    numbers.find(is_free).unwrap_or_else(|| numbered(number))
}

/// Returns the part of a number that fits into an address.
fn low(number: u16) -> u8 {
    number.to_be_bytes()[1]
}

fn shortest(family: Family) -> u8 {
    match family {
        Family::V4 => 24,
        Family::V6 => 64,
    }
}

/// Returns an address with the widest network for which `is_free` is true.
fn narrowed(own: IpAddr, is_free: impl Fn(IpNet) -> bool) -> IpNet {
    let host = IpNet::from(own);
    let lengths = shortest(Family::of(own))..host.max_prefix_len();
    let mut nets = lengths.filter_map(|length| IpNet::new(own, length).ok());
    nets.find(|net| is_free(net.trunc())).unwrap_or(host)
}

fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// Returns the address of the router on a link: the first free one of its network. A network without one has a router
/// with an address of its own.
fn router(own: IpNet, number: u16, is_free: impl Fn(IpAddr) -> bool) -> IpAddr {
    // The first address of an IPv6 network is that of all its routers (RFC 4291, 2.6.1).
    let mut hosts = own.hosts().take(MOST_TRIED);
    let host = hosts.find(|host| ![own.addr(), own.network()].contains(host) && is_free(*host));
    host.unwrap_or(match own {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::new(198, 19, low(number), 1)),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::new(0xfd00, 0x198, 0x19, number, 0, 0, 0, 1)),
    })
}

fn address(net: IpNet) -> Address {
    let broadcast = match net {
        IpNet::V4(v4) if v4.prefix_len() < 31 => Some(IpAddr::V4(v4.broadcast())),
        _ => None,
    };
    Address {
        net,
        peer: None,
        broadcast,
        scope: "global".to_owned(),
        deprecated: false,
    }
}

/// Returns the link-local address with which the kernel asks for neighbours.
fn link_local(number: u16) -> Address {
    let local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, number, 4);
    Address {
        scope: "link".to_owned(),
        ..address(IpNet::V6(ipnet::Ipv6Net::new_assert(local, 64)))
    }
}

fn link(name: &str, kind: LinkKind) -> MachineLink {
    MachineLink {
        name: name.to_owned(),
        kind,
        mac: None,
        mtu: 1500,
        up: true,
        carrier: true,
        master: None,
        group: None,
        addresses: Vec::new(),
        xdp: false,
    }
}

fn loopback() -> MachineLink {
    let host = |own: IpAddr, length| Address {
        scope: "host".to_owned(),
        ..address(IpNet::new_assert(own, length))
    };
    MachineLink {
        addresses: vec![
            host(IpAddr::V4(Ipv4Addr::LOCALHOST), 8),
            host(IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
        ],
        mtu: 65_536,
        ..link("lo", LinkKind::Loopback)
    }
}
