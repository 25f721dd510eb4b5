//! Which forward of a set takes a packet, found without a look at all of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::forwards::{Forward, ForwardSet};
use crate::net::{Family, Port, Protocol};

/// The listeners of a set by what they ask for. Those of one family, protocol and address are apart, so the
/// one that begins last before a port is the only one that can hold it.
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

    /// The forward that takes what is sent to an address of the machine: one for this address
    /// before one for all.
    #[must_use]
    pub fn taker(&self, protocol: Protocol, address: IpAddr, port: Port) -> Option<&'s Forward> {
        let family = Family::of(address);
        [Some(address), None].into_iter().find_map(|address| {
            let key = |port| (family, protocol, address, port);
            let mut before = self.by_begin.range(key(Port::MIN)..=key(port));
            let (_, forward) = before.next_back()?;
            forward.listen.ports.contains(port).then_some(*forward)
        })
    }
}
