//! The first packet of a forward's connection on its path to a target, as far as the spec tells it.

use crate::net::Interface;
use crate::packet::{Packet, Tracked};
use crate::spec::{Destination, Forward};

/// One path of a forward's packets.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'s> {
    pub forward: &'s Forward,
    /// The interface that the client's packets arrive by.
    pub ingress: &'s Interface,
    pub to: &'s Destination,
}

impl Situation<'_> {
    /// Calls `work` with the packet behind DNAT, which borrows from addresses that live as long.
    pub fn with_packet<T>(&self, work: impl FnOnce(&Packet<'_>) -> T) -> T {
        let Situation {
            forward,
            ingress,
            to,
        } = *self;
        let listen = forward.listen.address.map(|address| [address]);
        let listen = listen.as_ref().map_or(&[][..], |one| one.as_slice());
        work(&Packet {
            protocol: forward.protocol,
            source: None,
            destinations: &[to.address],
            ports: forward.ports_at(to),
            source_ports: None,
            ingress: Some(ingress),
            egress: Some(&forward.egress),
            local: Some(false),
            translated_from: Some((listen, forward.listen.ports)),
            tracked: Tracked::New,
        })
    }
}
