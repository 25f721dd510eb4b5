//! Networks, and the interfaces to which a spec assigns them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::net::{Family, Interface};

/// Networks, each with the interfaces that parts of the spec have it behind.
#[derive(Debug, Default)]
pub struct Claims<'s> {
    by_net: BTreeMap<IpNet, Vec<&'s Interface>>,
    lengths: BTreeSet<(Family, u8)>,
}

impl<'s> Claims<'s> {
    pub fn add(&mut self, net: IpNet, by: &'s Interface) {
        let net = net.trunc();
        self.lengths
            .insert((Family::of(net.addr()), net.prefix_len()));
        let of_net = self.by_net.entry(net).or_default();
        if !of_net.contains(&by) {
            of_net.push(by);
        }
    }

    /// Returns the interfaces of the narrowest network that holds an address, and the length of its prefix.
    pub fn narrowest(&self, to: IpAddr) -> Option<(u8, &[&'s Interface])> {
        self.around(to).next()
    }

    /// Iterates over the interfaces of the networks that hold an address, the narrowest network first.
    pub fn around(&self, to: IpAddr) -> impl Iterator<Item = (u8, &[&'s Interface])> {
        let family = Family::of(to);
        let lengths = self.lengths.range((family, 0)..=(family, u8::MAX)).rev();
        lengths.filter_map(move |(_, length)| {
            let net = IpNet::new(to, *length).ok()?;
            Some((*length, self.by_net.get(&net.trunc())?.as_slice()))
        })
    }
}
