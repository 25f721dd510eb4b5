//! The connections that limits leave room for.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use super::attempt::{About, Attempt};
use crate::forwards::forward::{Limits, Name, Per};
use crate::forwards::outbound::OutboundProtocol;

/// How many connections each limit has counted. Connections of tests come faster than a rate gives room again.
#[derive(Debug, Default)]
pub struct Room<'s> {
    counted: BTreeMap<(&'s Name, OutboundProtocol, Option<IpAddr>), u32>,
}

impl<'s> Room<'s> {
    /// Returns whether the limits admit one more connection, and counts it.
    pub fn take(&mut self, about: About<'s>, attempt: &Attempt<'_>) -> bool {
        let Some(Limits {
            rate,
            max_connections,
            per,
            reject: _,
        }) = about.limits
        else {
            return true;
        };
        let whose = match per {
            Per::Total => None,
            Per::Client => Some(client(attempt.from)),
        };
        let most = rate.map(|rate| rate.burst).into_iter();
        let most = most.chain(*max_connections).min();
        let counted = self.counted.entry((about.name, attempt.protocol, whose));
        let counted = counted.or_default();
        *counted += 1;
        most.is_none_or(|most| *counted <= most)
    }
}

/// Returns the address by which a limit knows a client: the network of 64 bits of an IPv6 client.
fn client(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}
