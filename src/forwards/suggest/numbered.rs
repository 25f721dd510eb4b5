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

/// The most networks of a list that get tests.
const MOST_NETS: usize = 8;

/// Returns the networks of a list that get tests: all if they are few, else some from all parts of the list, which are in
/// different chains of a plan.
pub fn spread(nets: &[IpNet]) -> impl Iterator<Item = &IpNet> {
    let count = nets.len().min(MOST_NETS);
    let last = nets.len().saturating_sub(1);
    (0..count).map(move |number| &nets[number * last / (count - 1).max(1)])
}

/// An end of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetEnd {
    First,
    Last,
}

impl NetEnd {
    pub const ALL: [NetEnd; 2] = [NetEnd::First, NetEnd::Last];

    /// Returns the words for hosts at this end of a network.
    pub fn of(self, net: IpNet) -> String {
        match self {
            NetEnd::First => net.to_string(),
            NetEnd::Last => format!("{net}, at its end"),
        }
    }
}

/// Returns some hosts of a network, those at one end first. The first hosts are left out if the network has others.
pub fn within(net: IpNet, end: NetEnd) -> impl Iterator<Item = IpAddr> {
    let free = net.max_prefix_len() - net.prefix_len();
    let begin = match free {
        0 | 1 => 0,
        2 | 3 => 1,
        _ => GATEWAYS,
    };
    let first = shifted(net.network(), begin);
    let last = match net {
        // The last address of a network of IPv4 is for all its hosts.
        IpNet::V4(_) if free > 1 => shifted(net.broadcast(), -1),
        _ => Some(net.broadcast()),
    };
    let (start, step) = match end {
        NetEnd::First => (first, 1),
        NetEnd::Last => (last, -1),
    };
    let all = (0..MOST).filter_map(move |number| shifted(start?, number * step));
    all.take_while(move |address| Some(*address) >= first && last >= Some(*address))
}

/// Returns hosts beside a network. The first ones are in the neighbour with which it forms the next wider network, so
/// that a list with that network has them.
pub fn beside(net: IpNet) -> impl Iterator<Item = IpAddr> {
    let (first, last) = (net.network(), net.broadcast());
    let halves = net.supernet().and_then(|wider| {
        let halves = wider.subnets(net.prefix_len()).ok()?;
        Some(halves.filter(move |half| *half != net))
    });
    let neighbours = halves.into_iter().flatten().flat_map(move |half| {
        let end = if half.network() > first {
            NetEnd::First
        } else {
            NetEnd::Last
        };
        within(half, end)
    });
    // The first one behind may be the address of the next network itself.
    let behind = [2, 1, 3, 4].map(|by| shifted(last, by));
    let before = [-2, -1, -3, -4].map(|by| shifted(first, by));
    neighbours.chain(behind.into_iter().chain(before).flatten())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_networks_with_tests_are_from_all_parts_of_a_list() {
        for (count, numbers) in [
            (0, vec![]),
            (1, vec![0]),
            (2, vec![0, 1]),
            (8, vec![0, 1, 2, 3, 4, 5, 6, 7]),
            (9, vec![0, 1, 2, 3, 4, 5, 6, 8]),
            (100, vec![0, 14, 28, 42, 56, 70, 84, 99]),
        ] {
            let net = |number| format!("10.{number}.0.0/16").parse().expect("a network");
            let nets: Vec<IpNet> = (0..count).map(net).collect();
            let expected: Vec<IpNet> = numbers.into_iter().map(net).collect();
            let found: Vec<IpNet> = spread(&nets).copied().collect();
            assert_eq!(found, expected, "{count}");
        }
    }
}
