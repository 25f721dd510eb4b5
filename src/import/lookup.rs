//! Rules by the addresses and ports that they ask for, so that few of many are read for one listener or target.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::net::PortRange;

/// Numbers of rules by the network and the ports that they ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lookup {
    all: PortLookup,
    /// The rules without a network.
    anywhere: PortLookup,
    by_net: HashMap<IpNet, PortLookup>,
    prefixes: BTreeSet<u8>,
}

impl Lookup {
    /// Adds the number of a rule that asks for a network and ports; `None`: for all of them.
    pub fn add(&mut self, number: usize, net: Option<IpNet>, ports: Option<&[PortRange]>) {
        self.all.add(number, ports);
        let place = match net {
            None => &mut self.anywhere,
            Some(net) => {
                self.prefixes.insert(net.prefix_len());
                self.by_net.entry(net.trunc()).or_default()
            }
        };
        place.add(number, ports);
    }

    /// Returns the numbers of the rules that may be for an address and ports, in order; `None`: for any address. Others are
    /// among them.
    pub fn find(&self, address: Option<IpAddr>, ports: &[PortRange]) -> Vec<usize> {
        let mut found = Vec::new();
        match address {
            None => self.all.find(ports, &mut found),
            Some(address) => {
                self.anywhere.find(ports, &mut found);
                for rules in around(address, &self.prefixes).filter_map(|net| self.by_net.get(&net))
                {
                    rules.find(ports, &mut found);
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// Returns the networks around an address, the narrowest first.
pub fn around(address: IpAddr, prefixes: &BTreeSet<u8>) -> impl Iterator<Item = IpNet> {
    let each = prefixes.iter().rev();
    each.filter_map(move |prefix| Some(IpNet::new(address, *prefix).ok()?.trunc()))
}

/// Numbers of rules for redirected connections, by the ports at the target or by those of the listener.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RedirectedLookup {
    pub by_target: Lookup,
    pub by_listener: Lookup,
}

impl RedirectedLookup {
    /// Returns the numbers of the rules that may be for connections from a listener to a target, in order. Others are
    /// among them.
    pub fn find(
        &self,
        target: IpAddr,
        target_ports: &[PortRange],
        listen_ports: &[PortRange],
    ) -> Vec<usize> {
        let mut found = self.by_target.find(Some(target), target_ports);
        found.extend(self.by_listener.find(Some(target), listen_ports));
        found.sort_unstable();
        found
    }
}

/// Numbers of rules by the network that their packets come from, or that they go to.
#[derive(Debug, Default)]
pub struct NetLookup {
    /// The rules for all networks.
    any: Vec<usize>,
    by_net: BTreeMap<IpNet, Vec<usize>>,
    prefixes: BTreeSet<u8>,
}

impl NetLookup {
    pub fn add(&mut self, number: usize, net: Option<IpNet>) {
        let Some(net) = net else {
            self.any.push(number);
            return;
        };
        self.prefixes.insert(net.prefix_len());
        self.by_net.entry(net.trunc()).or_default().push(number);
    }

    /// Returns the numbers of the rules that may be for packets of a network, in order; `None`: for any packets. Others
    /// are among them.
    pub fn find(&self, net: Option<IpNet>) -> Vec<usize> {
        let mut found = self.any.clone();
        match net {
            None => found.extend(self.by_net.values().flatten()),
            Some(net) => {
                let nets = around(net.network(), &self.prefixes);
                let nets = nets.filter_map(|one| self.by_net.get(&one));
                found.extend(nets.flatten());
                let [first, last] = [net.network(), net.broadcast()].map(IpNet::from);
                let within = self.by_net.range(first.min(net.trunc())..=last);
                found.extend(within.flat_map(|(_, numbers)| numbers));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// Numbers of rules by ports. A range is in at most two blocks of a power of two that is not smaller, as a network has a
/// prefix.
#[derive(Debug, Default, PartialEq, Eq)]
struct PortLookup {
    /// The rules for all ports.
    any: Vec<usize>,
    /// Each by the logarithm of the size of its block, and the place of the block among those of its size.
    blocks: BTreeMap<(u32, u32), Vec<usize>>,
}

impl PortLookup {
    fn add(&mut self, number: usize, ports: Option<&[PortRange]>) {
        let Some(ports) = ports else {
            self.any.push(number);
            return;
        };
        for (first, last) in ports.iter().copied().map(ends) {
            let size = (last - first + 1).next_power_of_two().ilog2();
            let blocks = BTreeSet::from([first >> size, last >> size]);
            for block in blocks {
                self.blocks.entry((size, block)).or_default().push(number);
            }
        }
    }

    fn find(&self, ports: &[PortRange], found: &mut Vec<usize>) {
        found.extend(&self.any);
        let Some((largest, _)) = self.blocks.last_key_value() else {
            return;
        };
        for (first, last) in ports.iter().copied().map(ends) {
            for size in 0..=largest.0 {
                let blocks = self
                    .blocks
                    .range((size, first >> size)..=(size, last >> size));
                found.extend(blocks.flat_map(|(_, numbers)| numbers));
            }
        }
    }
}

fn ends(ports: PortRange) -> (u32, u32) {
    (ports.first().number().into(), ports.last().number().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ports(text: &str) -> PortRange {
        text.parse().expect("it is a range")
    }

    fn net(text: &str) -> IpNet {
        text.parse().expect("it is a network")
    }

    #[test]
    fn rules_are_found_by_network_and_port() {
        let mut lookup = Lookup::default();
        lookup.add(0, Some(net("10.0.0.5/32")), Some(&[ports("80")]));
        lookup.add(1, Some(net("10.0.0.9/24")), None);
        lookup.add(2, None, Some(&[ports("1000-2000"), ports("80")]));
        lookup.add(3, Some(net("10.0.1.0/24")), Some(&[ports("80")]));
        let of = |address: &str, asked: &str| {
            lookup.find(Some(address.parse().expect("it is one")), &[ports(asked)])
        };
        assert_eq!(of("10.0.0.5", "80"), [0, 1, 2]);
        assert_eq!(of("10.0.0.5", "9000"), [1]);
        assert_eq!(of("10.0.0.6", "1500-1600"), [1, 2]);
        assert_eq!(of("10.0.1.6", "1-65535"), [2, 3]);
        assert_eq!(lookup.find(None, &[ports("80")]), [0, 1, 2, 3]);
        assert_eq!(lookup.find(None, &[ports("2048-65535")]), [1]);
    }

    #[test]
    fn rules_are_found_by_the_networks_around_and_within_theirs() {
        let mut lookup = NetLookup::default();
        let nets = [
            "10.0.0.0/8",
            "10.0.0.0/24",
            "10.0.0.0/32",
            "10.0.0.9/32",
            "10.0.1.0/24",
        ];
        for (number, one) in nets.iter().enumerate() {
            lookup.add(number, Some(net(one)));
        }
        lookup.add(5, None);
        lookup.add(6, Some(net("10.0.0.77/24")));
        assert_eq!(lookup.find(Some(net("10.0.0.9/32"))), [0, 1, 3, 5, 6]);
        assert_eq!(lookup.find(Some(net("10.0.0.3/24"))), [0, 1, 2, 3, 5, 6]);
        assert_eq!(lookup.find(Some(net("192.0.2.0/24"))), [5]);
        assert_eq!(lookup.find(None), [0, 1, 2, 3, 4, 5, 6]);
    }

    proptest! {
        /// A range that is missed would be a rule that is not read.
        #[test]
        fn no_range_that_overlaps_is_missed(
            one in (1_u16..=u16::MAX, 1_u16..=u16::MAX),
            other in (1_u16..=u16::MAX, 1_u16..=u16::MAX),
        ) {
            let range = |(a, b): (u16, u16)| ports(&format!("{}-{}", a.min(b), a.max(b)));
            let (one, other) = (range(one), range(other));
            let mut lookup = PortLookup::default();
            lookup.add(7, Some(&[one]));
            let mut found = Vec::new();
            lookup.find(&[other], &mut found);
            prop_assert!(!one.overlaps(other) || found.contains(&7));
        }
    }
}
