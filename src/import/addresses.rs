//! Sets of addresses, which rules take apart in order.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use crate::net::Family;

/// A set of addresses of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    family: Family,
    /// The last address of each range by its first one; no range touches the next.
    ranges: BTreeMap<u128, u128>,
}

impl Addresses {
    pub fn none(family: Family) -> Self {
        Self {
            family,
            ranges: BTreeMap::new(),
        }
    }

    pub fn all(family: Family) -> Self {
        let last = match family {
            Family::V4 => u128::from(u32::MAX),
            Family::V6 => u128::MAX,
        };
        Self {
            family,
            ranges: BTreeMap::from([(0, last)]),
        }
    }

    pub fn of(net: IpNet) -> Self {
        Self {
            family: Family::of(net.addr()),
            ranges: BTreeMap::from([(bits(net.network()), bits(net.broadcast()))]),
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

    /// Adds the addresses of another set.
    pub fn add(&mut self, other: &Self) {
        for (&first, &last) in &other.ranges {
            let (mut first, mut last) = (first, last);
            let before = self.ranges.range(..=first).next_back();
            if let Some((&from, &to)) = before
                && to.saturating_add(1) >= first
            {
                first = from;
                last = last.max(to);
            }
            while let Some((&from, &to)) = self.ranges.range(first..=last.saturating_add(1)).next()
            {
                self.ranges.remove(&from);
                last = last.max(to);
            }
            self.ranges.insert(first, last);
        }
    }

    /// Removes the addresses of another set.
    pub fn remove(&mut self, other: &Self) {
        for (&first, &last) in &other.ranges {
            let parts: Vec<(u128, u128)> = self.overlapping(first, last).collect();
            for (from, to) in parts {
                self.ranges.remove(&from);
                if from < first {
                    self.ranges.insert(from, first - 1);
                }
                if to > last {
                    self.ranges.insert(last + 1, to);
                }
            }
        }
    }

    /// Returns the addresses of both sets.
    pub fn with(&self, other: &Self) -> Self {
        let (mut all, more) = if self.ranges.len() < other.ranges.len() {
            (other.clone(), self)
        } else {
            (self.clone(), other)
        };
        all.add(more);
        all
    }

    /// Returns the addresses that are in this set and not in the other.
    pub fn without(&self, other: &Self) -> Self {
        let mut left = BTreeMap::new();
        for (&first, &last) in &self.ranges {
            let mut next = Some(first);
            for (from, to) in other.overlapping(first, last) {
                if let Some(next) = next.filter(|next| *next < from) {
                    left.insert(next, from - 1);
                }
                next = to.checked_add(1).filter(|next| *next <= last);
            }
            if let Some(next) = next {
                left.insert(next, last);
            }
        }
        Self {
            family: self.family,
            ranges: left,
        }
    }

    /// Returns the addresses that are in both sets.
    pub fn common(&self, other: &Self) -> Self {
        Self {
            family: self.family,
            ranges: self.shared(other).collect(),
        }
    }

    /// Returns whether some addresses are in both sets.
    pub fn meet(&self, other: &Self) -> bool {
        self.shared(other).next().is_some()
    }

    /// Returns whether all addresses are in another set, too.
    pub fn are_within(&self, other: &Self) -> bool {
        let mut ranges = self.ranges.iter();
        ranges.all(|(first, last)| {
            let around = other.ranges.range(..=first).next_back();
            around.is_some_and(|(_, to)| to >= last)
        })
    }

    /// Returns the ranges that are in both sets. The time is that of the set with fewer ranges.
    fn shared<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (u128, u128)> + use<'a> {
        let (few, many) = if self.ranges.len() < other.ranges.len() {
            (self, other)
        } else {
            (other, self)
        };
        few.ranges.iter().flat_map(|(&first, &last)| {
            let parts = many.overlapping(first, last);
            parts.map(move |(from, to)| (from.max(first), to.min(last)))
        })
    }

    /// Returns the ranges that have addresses from `first` to `last`.
    fn overlapping(
        &self,
        first: u128,
        last: u128,
    ) -> impl DoubleEndedIterator<Item = (u128, u128)> {
        let before = self.ranges.range(..first).next_back();
        let before = before.filter(|(_, to)| **to >= first);
        let all = before.into_iter().chain(self.ranges.range(first..=last));
        all.map(|(from, to)| (*from, *to))
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
