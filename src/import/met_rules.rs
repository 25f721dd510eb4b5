//! The rules that packets meet from a built-in chain on, and those of them for certain connections.

use std::cell::OnceCell;
use std::net::IpAddr;

use super::addresses::Addresses;
use super::conditions::RuleConditions;
use super::lookup::{NetLookup, RedirectedLookup};
use super::redirected::Redirected;
use super::walk::Met;
use crate::net::PortRange;

/// The rules that packets meet from a built-in chain on, in order.
pub struct MetRules<'r> {
    pub all: &'r [Met<'r>],
    lookup: RedirectedLookup,
    sources: NetLookup,
}

impl<'r> MetRules<'r> {
    pub fn new(all: &'r [Met<'r>]) -> Self {
        let mut lookup = RedirectedLookup::default();
        let mut sources = NetLookup::default();
        for (number, met) in all.iter().enumerate() {
            met.conditions.add_to(&mut lookup, number);
            sources.add(number, met.conditions.source_net());
        }
        Self {
            all,
            lookup,
            sources,
        }
    }

    /// Returns the rules that redirected connections may meet, in order. Others are among them.
    pub fn for_redirected(&self, redirected: &Redirected<'_>) -> Vec<&'r Met<'r>> {
        self.for_target(
            redirected.target,
            redirected.target_ports,
            redirected.listen_ports,
        )
    }

    /// Returns the rules that connections from a listener to a target may meet, in order. Others are among them.
    pub fn for_target(
        &self,
        target: IpAddr,
        target_ports: &[PortRange],
        listen_ports: &[PortRange],
    ) -> Vec<&'r Met<'r>> {
        let numbers = self.lookup.find(target, target_ports, listen_ports);
        let numbers = numbers.into_iter();
        numbers.map(|number| &self.all[number]).collect()
    }

    /// Returns the rules that packets with the sources of other conditions may meet, in order. Others are among them.
    pub fn of_sources(&self, conditions: &RuleConditions<'_>) -> Vec<&'r Met<'r>> {
        let numbers = self.sources.find(conditions.source_net()).into_iter();
        numbers.map(|number| &self.all[number]).collect()
    }
}

/// The rules that certain connections may meet in a chain, in order, by their sources.
pub struct RulesBySource<'a, 'r> {
    all: &'a [&'a Met<'r>],
    /// Few chains are asked.
    sources: OnceCell<NetLookup>,
}

impl<'a, 'r> RulesBySource<'a, 'r> {
    pub fn new(all: &'a [&'a Met<'r>]) -> Self {
        Self {
            all,
            sources: OnceCell::new(),
        }
    }

    /// Returns the rules behind one that some clients may meet, in order. Others are among them.
    pub fn behind(&self, at: usize, clients: &Addresses) -> Vec<&'a Met<'r>> {
        let sources = self.sources.get_or_init(|| {
            let mut sources = NetLookup::default();
            for (number, met) in self.all.iter().enumerate() {
                sources.add(number, met.conditions.source_net());
            }
            sources
        });
        let net = match clients.nets().as_slice() {
            [net] => Some(*net),
            _ => None,
        };
        let behind = sources.find(net).into_iter().filter(|number| *number > at);
        behind.map(|number| self.all[number]).collect()
    }
}
