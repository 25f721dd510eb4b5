//! Finds the outbound entries that may decide on a connection.

use std::collections::BTreeMap;

use super::outbound::Outbound;
use super::set::ForwardSet;
use crate::net::Interface;
use crate::netfilter::conntrack::Flow;

/// The outbound entries of a set by their interfaces.
///
/// A conntrack entry names no interface. On each pair of interfaces the first entry that selects a connection decides
/// on it, so each of these entries may be the one.
#[derive(Debug)]
pub struct Entries<'s> {
    by_path: BTreeMap<(&'s Interface, &'s Interface), Vec<&'s Outbound>>,
}

/// An outbound entry that decides on a connection, if that arrives on the interface and leaves by the entry's egress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decider<'s> {
    pub ingress: &'s Interface,
    pub entry: &'s Outbound,
}

impl<'s> Entries<'s> {
    #[must_use]
    pub fn new(set: &'s ForwardSet) -> Self {
        let mut by_path: BTreeMap<_, Vec<&Outbound>> = BTreeMap::new();
        for entry in &set.outbound {
            for ingress in &entry.ingress {
                let path = by_path.entry((ingress, &entry.egress));
                path.or_default().push(entry);
            }
        }
        Self { by_path }
    }

    /// Returns the entries that may decide on a connection which no rule redirects: one at most for each pair of
    /// interfaces.
    #[must_use]
    pub fn deciders(&self, flow: &Flow) -> Vec<Decider<'s>> {
        let (from, to, port) = (flow.source, flow.destination, flow.destination_port);
        let each = self.by_path.iter();
        let deciders = each.filter_map(|((ingress, _), path)| {
            let mut path = path.iter();
            let entry = path.find(|entry| entry.selects(flow.protocol, from, to, port))?;
            Some(Decider { ingress, entry })
        });
        deciders.collect()
    }
}
