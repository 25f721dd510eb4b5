//! Addresses of a network, and beside one, by their numbers.

use std::net::IpAddr;

use ipnet::IpNet;

/// How many hosts of a network are looked at.
const MOST: i64 = 64;

/// The first hosts of a network are often its gateways.
const GATEWAYS: i64 = 7;

/// Returns the address with a number after another one, or before it; `None` beyond the last.
pub fn shifted(address: IpAddr, by: i64) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => {
            let bits = i64::from(v4.to_bits()).checked_add(by)?;
            let bits = u32::try_from(bits).ok()?;
            Some(IpAddr::V4(bits.into()))
        }
        IpAddr::V6(v6) => {
            let bits = v6.to_bits().checked_add_signed(by.into())?;
            Some(IpAddr::V6(bits.into()))
        }
    }
}

/// Returns some hosts of a network, without the first ones if it has others.
pub fn within(net: IpNet) -> impl Iterator<Item = IpAddr> {
    let first = net.network();
    let free = net.max_prefix_len() - net.prefix_len();
    let begin = match free {
        0 | 1 => 0,
        2 | 3 => 1,
        _ => GATEWAYS,
    };
    let last = match net {
        // The last address of a network of IPv4 is for all its hosts.
        IpNet::V4(_) if free > 1 => shifted(net.broadcast(), -1),
        _ => Some(net.broadcast()),
    };
    let all = (begin..begin + MOST).filter_map(move |number| shifted(first, number));
    all.take_while(move |address| last.is_some_and(|last| *address <= last))
}

/// Returns addresses right behind a network and right before it.
pub fn beside(net: IpNet) -> impl Iterator<Item = IpAddr> {
    let (first, last) = (net.network(), net.broadcast());
    // The first one behind may be the address of the next network itself.
    let behind = [2, 1, 3, 4].map(|by| shifted(last, by));
    let before = [-2, -1, -3, -4].map(|by| shifted(first, by));
    behind.into_iter().chain(before).flatten()
}

/// The hosts right next to an address of the machine may be routers: a link may have four addresses, or two.
const ROUTERS: i64 = 16;

/// Returns addresses near one of the machine, in the same network if that has 256 addresses.
pub fn near_own(own: IpAddr) -> impl Iterator<Item = IpAddr> {
    let numbers = (ROUTERS..ROUTERS + MOST).flat_map(|by| [by, -by]);
    numbers.filter_map(move |by| shifted(own, by))
}

/// Returns addresses next to a host.
pub fn next_to(host: IpAddr) -> impl Iterator<Item = IpAddr> {
    let numbers = (1..=MOST).flat_map(|by| [by, -by]);
    numbers.filter_map(move |by| shifted(host, by))
}
