//! Sets of addresses, which rules take apart in order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use crate::net::Family;

/// A set of addresses of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    family: Family,
    /// Sorted; none touches the next.
    ranges: Vec<(u128, u128)>,
}

impl Addresses {
    pub fn none(family: Family) -> Self {
        Self {
            family,
            ranges: Vec::new(),
        }
    }

    pub fn all(family: Family) -> Self {
        let last = match family {
            Family::V4 => u128::from(u32::MAX),
            Family::V6 => u128::MAX,
        };
        Self {
            family,
            ranges: vec![(0, last)],
        }
    }

    pub fn of(net: IpNet) -> Self {
        Self {
            family: Family::of(net.addr()),
            ranges: vec![(bits(net.network()), bits(net.broadcast()))],
        }
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub fn are_all(&self) -> bool {
        *self == Self::all(self.family)
    }

    /// Returns the number of addresses, but for one if they are all of IPv6.
    pub fn count(&self) -> u128 {
        let each = self.ranges.iter().map(|(first, last)| last - first);
        each.fold(0, |all, one| all.saturating_add(one).saturating_add(1))
    }

    /// Returns the addresses of both sets.
    pub fn with(&self, other: &Self) -> Self {
        let mut ranges = [self.ranges.as_slice(), &other.ranges].concat();
        ranges.sort_unstable();
        let mut joined: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match joined.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => joined.push((first, last)),
            }
        }
        Self {
            family: self.family,
            ranges: joined,
        }
    }

    /// Returns the addresses that are in this set and not in the other.
    pub fn without(&self, other: &Self) -> Self {
        let mut left = self.ranges.clone();
        for &(first, last) in &other.ranges {
            left = left
                .into_iter()
                .flat_map(|(from, to)| {
                    let below = (from < first).then(|| (from, to.min(first.saturating_sub(1))));
                    let above = (to > last).then(|| (from.max(last.saturating_add(1)), to));
                    [below, above].into_iter().flatten()
                })
                .collect();
        }
        Self {
            family: self.family,
            ranges: left,
        }
    }

    /// Returns the addresses that are in both sets.
    pub fn common(&self, other: &Self) -> Self {
        self.without(&self.without(other))
    }

    /// Returns the fewest networks that have exactly these addresses.
    pub fn nets(&self) -> Vec<IpNet> {
        let ranges = self.ranges.iter();
        let nets = ranges.flat_map(|(first, last)| match self.family {
            Family::V4 => {
                let address = |bits: u128| Ipv4Addr::from(u32::try_from(bits).unwrap_or(u32::MAX));
                let subnets = Ipv4Subnets::new(address(*first), address(*last), 0);
                subnets.map(IpNet::V4).collect::<Vec<_>>()
            }
            Family::V6 => {
                let subnets = Ipv6Subnets::new(Ipv6Addr::from(*first), Ipv6Addr::from(*last), 0);
                subnets.map(IpNet::V6).collect()
            }
        });
        nets.collect()
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(nets: &[&str]) -> Addresses {
        let nets: Vec<IpNet> = nets.iter().map(|net| net.parse().expect("a net")).collect();
        let each = nets.iter().map(|net| Addresses::of(*net));
        each.fold(Addresses::none(Family::V4), |all, one| all.with(&one))
    }

    #[test]
    fn sets_are_joined_and_taken_apart() {
        let all = Addresses::all(Family::V4);
        let office = set(&["198.51.100.0/24"]);
        let half = set(&["198.51.100.128/25"]);
        assert_eq!(office.without(&half), set(&["198.51.100.0/25"]));
        assert_eq!(office.common(&half), half);
        assert_eq!(half.with(&set(&["198.51.100.0/25"])), office);
        assert!(half.without(&office).is_empty());
        assert!(all.without(&office).with(&office).are_all());
        assert_eq!(
            all.without(&all.without(&office)).nets(),
            ["198.51.100.0/24".parse::<IpNet>().expect("a net")]
        );
        let ends = set(&["0.0.0.0/32", "255.255.255.255/32"]);
        assert_eq!(all.without(&all.without(&ends)), ends);
        let v6 = Addresses::all(Family::V6);
        let one = Addresses::of("2001:db8::/32".parse().expect("a net"));
        assert!(v6.without(&one).with(&one).are_all());
        assert_eq!(one.nets().len(), 1);
    }
}
