//! Redirected connections, and the rules that are for them.

use std::net::IpAddr;

use super::addresses::Addresses;
use super::conditions::RuleConditions;
use super::exceptions::{Leaving, LeftClients};
use super::lookup::RedirectedLookup;
use super::walk::Met;
use crate::net::{Family, Interface, PortRange, Protocol};

/// The redirected connections to one target, as a later chain sees them.
#[derive(Debug, Clone)]
pub struct Redirected<'f> {
    pub family: Family,
    pub protocol: Protocol,
    pub listen_address: Option<IpAddr>,
    pub listen_ports: &'f [PortRange],
    pub target: IpAddr,
    pub target_ports: &'f [PortRange],
    /// Empty: every interface.
    pub ingress: &'f [Interface],
    /// `None` until a rule or a route says it.
    pub egress: Option<Interface>,
    /// The clients that are redirected.
    pub sources: &'f Addresses,
}

/// Whether a rule is for redirected connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    No,
    /// For a part of the ports or interfaces.
    Part,
    Whole,
}

impl Redirected<'_> {
    /// Returns whether clients may come in by the interface behind which the target is.
    pub fn is_one_sided(&self) -> bool {
        let mut ingress = self.ingress.iter();
        ingress.any(|one| self.egress.as_ref().is_none_or(|egress| one == egress))
    }

    /// Returns the clients that meet a rule, of some; `None` if that cannot be said, since some left its way before. `left`
    /// are those that left the way to the rules before.
    pub fn clients<'r>(
        &self,
        met: &Met<'r>,
        of: &Addresses,
        left: &mut LeftClients<RuleConditions<'r>>,
    ) -> Option<Addresses> {
        let hit = of.common(&met.conditions.sources(self.family));
        left.without(
            &met.conditions.exceptions,
            hit,
            |chain| self.find(&chain.lookup),
            |gone| match self.fit(gone) {
                Fit::No => Leaving::Nothing,
                Fit::Whole if gone.is_plain() => Leaving::Sources(gone.sources(self.family)),
                Fit::Whole | Fit::Part => Leaving::PartOf(gone.sources(self.family)),
            },
        )
    }

    /// Returns the numbers of the rules that they may meet, in order. Others are among them.
    pub fn find(&self, lookup: &RedirectedLookup) -> Vec<usize> {
        lookup.find(self.target, self.target_ports, self.listen_ports)
    }

    /// Returns whether a rule is for these connections, whatever their source is.
    pub fn fit(&self, conditions: &RuleConditions<'_>) -> Fit {
        let is_protocol = match conditions.protocol {
            None => true,
            Some(protocol) => protocol.holds(|one| one.transport() == Some(self.protocol)),
        };
        let is_redirected = conditions.redirected != Some(false);
        let mut destinations = conditions.destination.iter();
        let reaches = destinations.all(|net| net.holds(|net| net.contains(&self.target)));
        let leaves = self
            .egress
            .as_ref()
            .is_none_or(|egress| conditions.leave_by(egress));
        let listens = conditions.original_destination.is_none_or(|net| {
            self.listen_address
                .is_none_or(|address| net.contains(&address))
        });
        if !(is_protocol && is_redirected && reaches && leaves && listens) || conditions.for_replies
        {
            return Fit::No;
        }
        if conditions.to_machine == Some(true) {
            // The target is another host.
            return Fit::No;
        }
        let arrivals = self
            .ingress
            .iter()
            .filter(|one| conditions.arrive_on(one))
            .count();
        let arrives = match (self.ingress.len(), arrivals) {
            (0, _) => Fit::Whole,
            (_, 0) => Fit::No,
            (all, some) if all == some => Fit::Whole,
            _ => Fit::Part,
        };
        let ports = match &conditions.ports {
            None => Fit::Whole,
            Some(ranges) => coverage(self.target_ports, ranges),
        };
        let original = match conditions.original_ports {
            None => Fit::Whole,
            Some(range) => coverage(self.listen_ports, &[range]),
        };
        let all = [arrives, ports, original];
        if all.contains(&Fit::No) {
            Fit::No
        } else if all.contains(&Fit::Part) {
            Fit::Part
        } else {
            Fit::Whole
        }
    }
}

/// Returns how much of some ports lies in others.
fn coverage(ports: &[PortRange], within: &[PortRange]) -> Fit {
    let is_in = |one: &PortRange| {
        let mut next = u32::from(one.first().number());
        let last = u32::from(one.last().number());
        let mut sorted: Vec<(u32, u32)> = within
            .iter()
            .map(|range| (range.first().number().into(), range.last().number().into()))
            .collect();
        sorted.sort_unstable();
        for (from, to) in sorted {
            if from <= next && to >= next {
                next = to + 1;
            }
        }
        next > last
    };
    if ports.iter().all(is_in) {
        Fit::Whole
    } else if ports
        .iter()
        .any(|one| within.iter().any(|range| one.overlaps(*range)))
    {
        Fit::Part
    } else {
        Fit::No
    }
}
