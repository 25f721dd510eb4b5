//! Finds the forward that takes a packet, without a search through all forwards.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::forward::{Destination, Forward};
use super::set::ForwardSet;
use crate::net::{Family, Port, Protocol};
use crate::netfilter::conntrack::Flow;

/// The listeners of a set, sorted. Listeners of one family, protocol and address do not overlap, so only
/// the last one that begins at or before a port can hold that port.
#[derive(Debug)]
pub struct Listeners<'s> {
    by_begin: BTreeMap<(Family, Protocol, Option<IpAddr>, Port), &'s Forward>,
}

impl<'s> Listeners<'s> {
    #[must_use]
    pub fn new(set: &'s ForwardSet) -> Self {
        let begin = |forward: &Forward| {
            let listen = forward.listen;
            let begin = listen.ports.first();
            (forward.family(), forward.protocol, listen.address, begin)
        };
        Self {
            by_begin: set.forwards.iter().map(|f| (begin(f), f)).collect(),
        }
    }

    /// Returns the forward that takes packets to this address of the machine. A listener for one address
    /// comes before a listener for all addresses.
    #[must_use]
    pub fn taker(&self, protocol: Protocol, address: IpAddr, port: Port) -> Option<&'s Forward> {
        let family = Family::of(address);
        let mut listeners = [Some(address), None].into_iter();
        listeners.find_map(|address| self.at((family, protocol, address), port))
    }

    /// Returns the forward that listens on a port at one address, or (`None`) at all addresses.
    #[must_use]
    pub fn at(
        &self,
        (family, protocol, address): (Family, Protocol, Option<IpAddr>),
        port: Port,
    ) -> Option<&'s Forward> {
        let key = |port| (family, protocol, address, port);
        let mut before = self.by_begin.range(key(Port::MIN)..=key(port));
        let (_, forward) = before.next_back()?;
        forward.listen.ports.contains(port).then_some(*forward)
    }

    /// Returns the forward that redirects a connection, if the connection was translated.
    #[must_use]
    pub fn leader(&self, flow: &Flow) -> Option<&'s Forward> {
        let forward = self.taker(flow.protocol, flow.destination, flow.destination_port)?;
        let mut destinations = forward.target.destinations.iter();
        let leads = flow.destination != flow.reply_source
            && forward.sources.admits(flow.source)
            && destinations.any(|to| goes_to(flow, forward, to));
        leads.then_some(forward)
    }
}

/// Returns whether a connection goes to the address and port that the forward would give it.
fn goes_to(flow: &Flow, forward: &Forward, to: &Destination) -> bool {
    let port = forward.port_at(to, flow.destination_port);
    (to.address, port) == (flow.reply_source, flow.reply_port)
}
