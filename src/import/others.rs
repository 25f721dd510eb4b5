//! Redirections that stay in place, and need rules that entries would take over.

use std::net::IpAddr;

use super::addresses::Addresses;
use super::met_rules::MetRules;
use super::redirect::addresses_of;
use super::redirected::{Fit, Redirected};
use super::walk::Met;
use crate::net::{Family, Interface, PortRange, Protocol};
use crate::netfilter::names::TableName;
use crate::netfilter::target::{DnatPorts, Target};
use crate::netfilter::text::parse::dnat_range;

/// A redirection that no entry came of, or that another program writes.
#[derive(Debug)]
pub struct OtherRedirect {
    family: Family,
    protocols: Vec<Protocol>,
    listen_address: Option<IpAddr>,
    listen_ports: Vec<PortRange>,
    pub target: IpAddr,
    target_ports: Vec<PortRange>,
    /// The interface by which packets to the target leave, as far as rules or routes say it.
    egress: Option<Interface>,
    passed: Passed,
}

/// The chain of the table filter through which redirected packets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    Forward,
    /// They are packets of the machine itself.
    Output,
}

impl OtherRedirect {
    /// Returns the redirections of a DNAT rule, one for each of its targets.
    pub fn of<'a>(
        met: &'a Met<'_>,
        passed: Passed,
        egress: impl Fn(IpAddr) -> Option<Interface> + 'a,
    ) -> impl Iterator<Item = Self> + 'a {
        let conditions = &met.conditions;
        let family = met.place.family;
        let protocols = [Protocol::Tcp, Protocol::Udp].into_iter().filter(|one| {
            let asked = conditions.protocol;
            asked.is_none_or(|asked| asked.holds(|asked| asked.transport() == Some(*one)))
        });
        let protocols: Vec<Protocol> = protocols.collect();
        let listen_ports = conditions.ports.clone();
        let listen_ports = listen_ports.unwrap_or_else(|| vec![PortRange::ALL]);
        let listen_address = conditions.host();
        targets(met).into_iter().map(move |(target, ports)| Self {
            family,
            protocols: protocols.clone(),
            listen_address,
            target_ports: ports.map_or_else(|| listen_ports.clone(), |ports| vec![ports]),
            listen_ports: listen_ports.clone(),
            target,
            egress: egress(target),
            passed,
        })
    }

    /// Returns the rules of a chain that its connections may meet. Others are among them.
    pub fn may_meet<'r>(&self, rules: &MetRules<'r>) -> Vec<&'r Met<'r>> {
        rules.for_target(self.target, &self.target_ports, &self.listen_ports)
    }

    /// Returns whether a rule of FORWARD or POSTROUTING is for its connections.
    pub fn meets(&self, met: &Met<'_>) -> bool {
        if met.place.table == TableName::Filter && self.passed == Passed::Output {
            return false;
        }
        let sources = Addresses::all(self.family);
        let mut protocols = self.protocols.iter();
        protocols.any(|protocol| {
            let redirected = Redirected {
                family: self.family,
                protocol: *protocol,
                listen_address: self.listen_address,
                listen_ports: &self.listen_ports,
                target: self.target,
                target_ports: &self.target_ports,
                ingress: &[],
                egress: self.egress.clone(),
                sources: &sources,
            };
            redirected.fit(&met.conditions) != Fit::No
        })
    }
}

/// Returns the targets of a DNAT rule, each with its ports if the rule names them.
fn targets(met: &Met<'_>) -> Vec<(IpAddr, Option<PortRange>)> {
    match &met.rule.target {
        Some(Target::Dnat { address, ports }) => {
            let ports = match ports {
                DnatPorts::Kept => None,
                DnatPorts::One(port) => Some(PortRange::from(*port)),
                DnatPorts::Shifted { to, .. } => Some(*to),
            };
            vec![(*address, ports)]
        }
        Some(Target::Other(words)) => dnat_range(words).map_or_else(Vec::new, |range| {
            let addresses = addresses_of(range.addresses).take(MOST_TARGETS);
            addresses.map(|address| (address, range.ports)).collect()
        }),
        _ => Vec::new(),
    }
}

/// A range may be a whole network.
const MOST_TARGETS: usize = 256;
