//! The end of a connection by the whole spec.
//!
//! The order is that of the plan: the listener that takes the connection, its clients, then outbound entries, then the
//! policy. Limits are not looked at.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::attempt::{Attempt, TestEnd};
use super::routes::Routes;
use crate::forwards::forward::{Forward, ForwardPolicy};
use crate::forwards::listeners::Listeners;
use crate::forwards::outbound::{Outbound, joined};
use crate::forwards::packet_test::{TestDestination, TestHost};
use crate::forwards::set::ForwardSet;
use crate::net::{Family, Interface, Port, PortRange, Protocol};

#[derive(Debug)]
pub struct Judge<'s> {
    set: &'s ForwardSet,
    routes: &'s Routes<'s>,
    listeners: Listeners<'s>,
    /// The ports of listeners for one address.
    addressed: BTreeMap<(Family, Protocol), Vec<PortRange>>,
}

impl<'s> Judge<'s> {
    pub fn new(set: &'s ForwardSet, routes: &'s Routes<'s>) -> Self {
        let mut addressed: BTreeMap<_, Vec<PortRange>> = BTreeMap::new();
        let of_one = set.forwards.iter();
        let of_one = of_one.filter(|forward| forward.listen.address.is_some());
        for forward in of_one {
            let of = addressed.entry((forward.family(), forward.protocol));
            of.or_default().push(forward.listen.ports);
        }
        let addressed = addressed.into_iter();
        let addressed = addressed.map(|(of, ports)| (of, joined(ports)));
        Self {
            set,
            routes,
            listeners: Listeners::new(set),
            addressed: addressed.collect(),
        }
    }

    /// Returns the outbound entries of a family, in order.
    pub fn entries(&self, family: Family) -> impl Iterator<Item = &'s Outbound> {
        self.set.outbound_of(family)
    }

    /// Returns whether a listener for one address has a port.
    pub fn is_addressed(&self, family: Family, protocol: Protocol, port: Port) -> bool {
        let ports = self.addressed.get(&(family, protocol));
        let ports = ports.map_or(&[][..], Vec::as_slice);
        let begun = ports.partition_point(|ports| ports.first() <= port);
        begun
            .checked_sub(1)
            .is_some_and(|n| ports[n].contains(port))
    }

    /// Returns the end of a connection; `None` if the spec alone does not tell.
    pub fn end_of(&self, attempt: &Attempt<'_>) -> Option<TestEnd> {
        let protocol = attempt.protocol.transport();
        match (attempt.to, protocol) {
            (TestDestination::Machine(_), None) => None,
            // The machine's address there may be the one of the listener.
            (TestDestination::Machine(port), Some(protocol))
                if self.is_addressed(attempt.family(), protocol, port) =>
            {
                None
            }
            (TestDestination::Machine(port), Some(protocol)) => {
                self.at_machine(attempt, protocol, port)
            }
            (TestDestination::Host(host), _) => self.at_host(attempt, host, protocol),
        }
    }

    /// Returns the end of a connection to an address.
    fn at_host(
        &self,
        attempt: &Attempt<'_>,
        host: TestHost,
        protocol: Option<Protocol>,
    ) -> Option<TestEnd> {
        let to_port = protocol.zip(host.port);
        if let Some((protocol, port)) = to_port {
            let address = Some(host.address);
            let taker = self.taker(attempt, protocol, address, port);
            if let Some(forward) = taker {
                return self.redirected(attempt, forward, port);
            }
        }
        // The machine itself answers a ping.
        let local =
            || to_port.and_then(|(protocol, port)| self.at_machine(attempt, protocol, port));
        if self.routes.is_own(host.address) {
            local()
        } else if self.routes.is_listener(host.address) {
            // A load balancer may have the address, not the machine.
            local().filter(|local| Some(local) == self.routed(attempt, host).as_ref())
        } else {
            self.routed(attempt, host)
        }
    }

    /// Returns the end of a connection to an address of the machine that no listener for one address takes. Programs of
    /// the machine are no hosts that a test reaches.
    fn at_machine(&self, attempt: &Attempt<'_>, protocol: Protocol, port: Port) -> Option<TestEnd> {
        match self.taker(attempt, protocol, None, port) {
            Some(forward) => self.redirected(attempt, forward, port),
            None => Some(TestEnd::Nothing),
        }
    }

    fn taker(
        &self,
        attempt: &Attempt<'_>,
        protocol: Protocol,
        address: Option<IpAddr>,
        port: Port,
    ) -> Option<&'s Forward> {
        let place = (attempt.family(), protocol, address);
        let forward = self.listeners.at(place, port)?;
        let mut entrances = forward.entrances();
        entrances
            .any(|one| one == attempt.ingress)
            .then_some(forward)
    }

    /// Returns the end of a connection that a forward takes.
    fn redirected(&self, attempt: &Attempt<'_>, forward: &Forward, port: Port) -> Option<TestEnd> {
        if !forward.sources.admits(attempt.from) {
            return Some(TestEnd::Nothing);
        }
        let destinations = forward.target.destinations.iter();
        let hosts = destinations.map(|to| {
            let leaves = self.routes.lead_out(forward, attempt.ingress, to);
            let is_elsewhere = leaves && !self.routes.is_own(to.address);
            is_elsewhere.then(|| TestHost {
                address: to.address,
                port: Some(forward.port_at(to, port)),
            })
        });
        let mut hosts: Vec<TestHost> = hosts.collect::<Option<_>>()?;
        // Two destinations may have the same port of one host for a port of the listener.
        let mut seen: Vec<TestHost> = Vec::new();
        hosts.retain(|host| {
            let is_new = !seen.contains(host);
            seen.push(*host);
            is_new
        });
        Some(TestEnd::Reaches {
            hosts,
            snat: forward.snat,
        })
    }

    /// Returns the end of a connection that no forward takes and that the machine routes.
    fn routed(&self, attempt: &Attempt<'_>, host: TestHost) -> Option<TestEnd> {
        if let Some(egress) = self.routes.egress(attempt.ingress, host.address) {
            return self.routed_by(attempt, host, egress);
        }
        let interfaces = self.routes.interfaces.iter();
        let mut ends = interfaces.map(|egress| self.routed_by(attempt, host, egress));
        let is_refused = ends.all(|end| end == Some(TestEnd::Nothing));
        is_refused.then_some(TestEnd::Nothing)
    }

    fn routed_by(
        &self,
        attempt: &Attempt<'_>,
        host: TestHost,
        egress: &Interface,
    ) -> Option<TestEnd> {
        let (protocol, from, to) = (attempt.protocol, attempt.from, host.address);
        let decides = |entry: &&Outbound| {
            entry.egress == *egress
                && entry.ingress.contains(attempt.ingress)
                && entry.takes(protocol, from, to, host.port)
        };
        let mut entries = self.set.outbound_of(attempt.family());
        match (entries.find(decides), self.set.firewall.forward_policy) {
            (Some(entry), _) if entry.refuses(from, to) => Some(TestEnd::Nothing),
            (Some(entry), _) => Some(TestEnd::Reaches {
                hosts: vec![host],
                snat: entry.snat,
            }),
            (None, ForwardPolicy::Drop) => Some(TestEnd::Nothing),
            // The policy decides, and rules of other programs.
            (None, ForwardPolicy::Keep) => None,
        }
    }
}
