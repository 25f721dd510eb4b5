//! The interface that leads to each network. The narrowest network that holds an address decides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::net::{Family, Interface};

/// Networks, each with the interface that leads to it.
#[derive(Debug, Clone, Default)]
pub struct Sides {
    by_net: BTreeMap<IpNet, Interface>,
    /// The lengths of the networks, for each family.
    lengths: BTreeSet<(Family, u8)>,
}

impl Sides {
    /// Adds a network, unless it has a side already: the first claim counts.
    pub fn claim(&mut self, net: IpNet, interface: &Interface) {
        let net = net.trunc();
        self.lengths
            .insert((Family::of(net.addr()), net.prefix_len()));
        self.by_net.entry(net).or_insert_with(|| interface.clone());
    }

    /// Returns the side of exactly this network.
    #[must_use]
    pub fn exact(&self, net: IpNet) -> Option<&Interface> {
        self.by_net.get(&net.trunc())
    }

    /// Returns the side of the narrowest network that holds an address.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> Option<&Interface> {
        let host = IpNet::from(address);
        self.exact(host).or_else(|| self.around(host))
    }

    /// Returns the side of the narrowest network that holds another one and is wider.
    #[must_use]
    pub fn around(&self, net: IpNet) -> Option<&Interface> {
        let family = Family::of(net.addr());
        let wider = (family, 0)..(family, net.prefix_len());
        let mut lengths = self.lengths.range(wider).rev();
        lengths.find_map(|(_, length)| {
            let wider = IpNet::new(net.addr(), *length).ok()?;
            self.exact(wider)
        })
    }

    /// Iterates over the networks of a family with their sides, in the order of addresses.
    pub fn of_family(&self, family: Family) -> impl Iterator<Item = (IpNet, &Interface)> {
        let all = self.by_net.iter();
        all.filter(move |(net, _)| Family::of(net.addr()) == family)
            .map(|(net, interface)| (*net, interface))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_network_decides_and_the_first_claim_counts() {
        let mut sides = Sides::default();
        for (net, interface) in [
            ("0.0.0.0/0", "eth0"),
            ("10.0.0.0/8", "eth1"),
            ("10.224.0.0/16", "eth2"),
            ("10.224.0.0/16", "eth3"),
            ("fd00::/8", "eth4"),
        ] {
            let interface = interface.parse().expect("a name");
            sides.claim(net.parse().expect("a network"), &interface);
        }
        for (address, side) in [
            ("192.0.2.1", Some("eth0")),
            ("10.1.0.1", Some("eth1")),
            ("10.224.0.1", Some("eth2")),
            ("fd00::1", Some("eth4")),
            ("2001:db8::1", None),
        ] {
            let found = sides.of(address.parse().expect("an address"));
            assert_eq!(found.map(Interface::as_str), side, "{address}");
        }
        let net: IpNet = "10.224.0.0/16".parse().expect("a network");
        assert_eq!(sides.around(net).map(Interface::as_str), Some("eth1"));
    }
}
