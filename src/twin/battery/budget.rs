//! How many connections the limits of a forward or outbound entry leave to a twin.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::ask::{Ask, Wanted};
use crate::forwards::{Limits, Per};

/// The connections that limits of the spec admit at once. The kernel of the twin counts each connection.
#[derive(Debug)]
pub struct Budget {
    limits: Option<Limits>,
    most: usize,
    /// By the client, if the limits are per client.
    used: BTreeMap<Option<IpNet>, usize>,
}

impl Budget {
    /// Returns the budget under some limits. `share`: how often each connection may be opened.
    pub fn of(limits: Option<Limits>, share: usize) -> Self {
        let most = limits.map_or(usize::MAX, |limits| {
            let burst = limits.rate.map_or(u32::MAX, |rate| rate.burst);
            let most = burst.min(limits.max_connections.unwrap_or(u32::MAX));
            usize::try_from(most).unwrap_or(usize::MAX)
        });
        // An eighth is kept for connections that are repeated to find their cause.
        let most = (most - most / 8) / share;
        Self {
            limits,
            most,
            used: BTreeMap::new(),
        }
    }

    /// Takes a connection from the budget, with fewer tries if need be. Returns whether one try is left for it.
    pub fn takes(&mut self, ask: &mut Ask<'_>) -> bool {
        let Some(limits) = self.limits.filter(|_| ask.wanted == Wanted::Through) else {
            return true;
        };
        let key = match limits.per {
            Per::Total => None,
            Per::Client => Some(of_one_client(ask.client.address)),
        };
        let used = self.used.entry(key).or_default();
        // The first connection is tried under any limit.
        let left = self.most.saturating_sub(*used).max(usize::from(*used == 0));
        // The later ones are tried once, so that each has a share.
        let times = if *used == 0 { ask.times } else { 1 };
        ask.times = times.min(left);
        *used += ask.times;
        ask.times > 0
    }
}

/// Returns the network that limits count as one client.
fn of_one_client(address: IpAddr) -> IpNet {
    let length = match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 64,
    };
    IpNet::new(address, length).map_or(IpNet::from(address), |net| net.trunc())
}
