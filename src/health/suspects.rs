//! Connections that may not follow the rules, and the routes that prove it.

use std::collections::{BTreeMap, BTreeSet};

use crate::forwards::Decider;
use crate::host::network::{self, Packet, Route};
use crate::netfilter::conntrack::Flow;

/// The number of packets whose routes are asked for. 10,000 take about 0.2 s.
pub const MOST_ASKED: usize = 10_000;

/// Why a connection does not follow the present rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleCause {
    /// No forward and no outbound entry would make it.
    Unmade,
    /// New connections get another source.
    Source,
}

/// A connection that does not follow the rules, if it takes one of the paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect<'f, 's> {
    pub flow: &'f Flow,
    pub cause: StaleCause,
    /// Empty if the addresses of the connection prove enough.
    pub paths: Vec<Decider<'s>>,
}

/// The proven connections, and the number of those whose routes were not asked for: [`MOST_ASKED`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined<T> {
    pub found: Vec<T>,
    pub unexamined: usize,
}

/// Returns the packets whose routes [`proven`] needs, [`MOST_ASKED`] at most.
#[must_use]
pub fn questions<'s>(suspects: &[Suspect<'_, 's>]) -> BTreeSet<Packet<'s>> {
    let mut asked = BTreeSet::new();
    for Suspect { flow, paths, .. } in suspects {
        if asked.len() + 2 * paths.len() > MOST_ASKED {
            break;
        }
        asked.extend(paths.iter().flat_map(|path| packets(flow, path)));
    }
    asked
}

/// Returns the suspects that take one of their paths, as the routes of their packets show. Only the taken path stays.
#[must_use]
pub fn proven<'f, 's>(
    suspects: Vec<Suspect<'f, 's>>,
    routes: &BTreeMap<Packet<'s>, Result<Route, String>>,
) -> Examined<Suspect<'f, 's>> {
    let is_asked = |flow: &Flow, path: &Decider<'s>| {
        let mut packets = packets(flow, path).into_iter();
        packets.all(|packet| routes.contains_key(&packet))
    };
    let takes = |flow: &Flow, path: &Decider<'s>| {
        let leaves_by = |packet| {
            let route = routes.get(&packet)?.as_ref().ok()?;
            Some(route.interface.as_str())
        };
        let [request, reply] = packets(flow, path).map(leaves_by);
        request == Some(path.entry.egress.as_str()) && reply == Some(path.ingress.as_str())
    };
    let mut unexamined = 0;
    let mut found = suspects;
    found.retain_mut(|Suspect { flow, paths, .. }| {
        if paths.is_empty() {
            return true;
        }
        if !paths.iter().all(|path| is_asked(flow, path)) {
            unexamined += 1;
            return false;
        }
        paths.retain(|path| takes(flow, path));
        !paths.is_empty()
    });
    Examined { found, unexamined }
}

/// Asks for the routes that prove or clear suspects, and returns the proven ones. It runs a program only if one is
/// needed.
#[must_use]
pub fn examine<'f, 's>(suspects: Vec<Suspect<'f, 's>>) -> Examined<Suspect<'f, 's>> {
    let routes = network::plain_routes(&questions(&suspects));
    proven(suspects, &routes)
}

/// Returns the packets of a connection on a path: the request, and the reply.
fn packets<'s>(flow: &Flow, path: &Decider<'s>) -> [Packet<'s>; 2] {
    let request = Packet {
        to: flow.destination,
        came: Some((flow.source, path.ingress)),
    };
    let reply = Packet {
        to: flow.source,
        came: Some((flow.destination, &path.entry.egress)),
    };
    [request, reply]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwards::Entries;
    use crate::yaml;

    #[test]
    fn a_connection_whose_routes_are_not_asked_for_is_left_out_and_counted() {
        let set = yaml::read(
            b"firewall: {interface: eth0}\noutbound: [{name: out, allow_from: [10.0.0.0/8]}]",
        )
        .expect("it is valid");
        let flow = |n: usize| {
            let (source, to) = (format!("10.1.{}.{}", n / 256, n % 256), "192.0.2.80");
            let line = format!(
                "udp 17 9 src={source} dst={to} sport=5 dport=53 src={to} dst={source} sport=53 dport=5"
            );
            Flow::parse(&line).expect("it is a flow")
        };
        let mut flows: Vec<Flow> = (0..MOST_ASKED / 2 + 3).map(flow).collect();
        // Another connection of a host that is asked for.
        flows.insert(0, flows[0].clone());
        let entries = Entries::new(&set);
        let suspects: Vec<Suspect<'_, '_>> = flows
            .iter()
            .map(|flow| Suspect {
                flow,
                cause: StaleCause::Source,
                paths: entries.deciders(flow),
            })
            .collect();
        let asked = questions(&suspects);
        assert_eq!(asked.len(), MOST_ASKED);
        let route = Route {
            interface: "eth0".to_owned(),
            gateway: None,
            neighbour: None,
        };
        let routes = asked.into_iter().map(|packet| (packet, Ok(route.clone())));
        let examined = proven(suspects, &routes.collect());
        assert_eq!(examined.found.len(), MOST_ASKED / 2 + 1);
        assert_eq!(examined.unexamined, 3);
    }
}
