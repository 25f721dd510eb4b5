//! The valid content of a spec: the firewall machine, its forwards, its outbound entries and its tests.

use super::description::Description;
use super::forward::{Firewall, Forward, Name};
use super::numbers::Numbers;
use super::outbound::{Outbound, OutboundProtocol};
use super::packet_test::PacketTest;
use crate::net::{Family, Interface, Protocol};

/// The valid content of a spec: names are unique, listeners do not overlap, targets are allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardSet {
    /// Words of the spec about itself. No rule has them.
    pub description: Option<Description>,
    pub firewall: Firewall,
    /// In the order of the file. A forward with two protocols or a list of listeners is several entries with the
    /// same name: first those of one protocol, in the order of the listeners.
    pub forwards: Vec<Forward>,
    /// In the order of the file, which is the order in which packets meet them. An entry of both families is two
    /// entries with the same name.
    pub outbound: Vec<Outbound>,
    /// In the order of the file. No rule has them.
    pub tests: Vec<PacketTest>,
}

impl ForwardSet {
    /// Returns a copy that holds only the forwards, outbound entries and tests of one family.
    #[must_use]
    pub fn of(&self, family: Family) -> Self {
        let of_family = |forward: &&Forward| forward.family() == family;
        Self {
            description: self.description.clone(),
            firewall: self.firewall.clone(),
            forwards: self.forwards.iter().filter(of_family).cloned().collect(),
            outbound: self.outbound_of(family).cloned().collect(),
            tests: self.tests_of(family).cloned().collect(),
        }
    }

    /// Iterates over the outbound entries of one family.
    pub fn outbound_of(&self, family: Family) -> impl Iterator<Item = &Outbound> {
        let all = self.outbound.iter();
        all.filter(move |outbound| outbound.family == family)
    }

    /// Iterates over the tests of one family.
    pub fn tests_of(&self, family: Family) -> impl Iterator<Item = &PacketTest> {
        let all = self.tests.iter();
        all.filter(move |test| test.family() == family)
    }

    /// Returns the number of outbound entries in the spec. An entry of both families counts once.
    #[must_use]
    pub fn outbound_count(&self) -> usize {
        let mut names: Vec<&Name> = self.outbound.iter().map(|entry| &entry.name).collect();
        names.sort_unstable();
        names.dedup();
        names.len()
    }

    /// Iterates over the forwards and outbound entries with their names and descriptions.
    pub fn described(&self) -> impl Iterator<Item = (Family, &Name, Option<&Description>)> {
        let forwards = self.forwards.iter();
        let forwards = forwards.map(|one| (one.family(), &one.name, one.description.as_ref()));
        let entries = self.outbound.iter();
        forwards.chain(entries.map(|one| (one.family, &one.name, one.description.as_ref())))
    }

    #[must_use]
    pub fn numbers(&self) -> Numbers {
        Numbers {
            forwards: self.forward_count(),
            entries: self.outbound_count(),
        }
    }

    /// Returns whether the spec has a forward or an outbound entry of a family.
    #[must_use]
    pub fn has(&self, family: Family) -> bool {
        self.has_forwards(family) || self.outbound_of(family).next().is_some()
    }

    /// Returns whether the spec has TCP connections of a family.
    #[must_use]
    pub fn has_tcp(&self, family: Family) -> bool {
        let mut forwards = self.forwards.iter();
        let by_tcp = |one: &Forward| one.family() == family && one.protocol == Protocol::Tcp;
        let is_tcp = |one: &Outbound| one.protocols.contains(&OutboundProtocol::Tcp);
        forwards.any(by_tcp) || self.outbound_of(family).any(is_tcp)
    }

    /// Returns whether the spec has a forward of a family.
    #[must_use]
    pub fn has_forwards(&self, family: Family) -> bool {
        let mut forwards = self.forwards.iter();
        forwards.any(|forward| forward.family() == family)
    }

    /// Returns the number of forwards in the spec. A forward with several entries counts once.
    #[must_use]
    pub fn forward_count(&self) -> usize {
        let again = self
            .forwards
            .windows(2)
            .filter(|two| two[0].name == two[1].name);
        self.forwards.len() - again.count()
    }

    /// Returns the interfaces on which packets arrive or leave, each once.
    #[must_use]
    pub fn interfaces(&self) -> Vec<&Interface> {
        let firewall = &self.firewall;
        let own = firewall.ingress.iter().chain([&firewall.egress]);
        let forwards = self.forwards.iter();
        let theirs = forwards.flat_map(|forward| forward.ingress.iter().chain([&forward.egress]));
        let outward = self.outbound.iter();
        let outward = outward.flat_map(|entry| entry.ingress.iter().chain([&entry.egress]));
        let mut found: Vec<&Interface> = Vec::new();
        for interface in own.chain(theirs).chain(outward) {
            if !found.contains(&interface) {
                found.push(interface);
            }
        }
        found
    }
}
