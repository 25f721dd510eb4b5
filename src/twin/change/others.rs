//! The choice of connections for a trial, if there are too many to open all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::trial::Trying;
use crate::host::network::{self, Packet};
use crate::netfilter::conntrack::Flow;
use crate::twin::Twin;
use crate::twin::talk::{From, Question};

/// The most connections outside the forwards and outbound entries that are opened again.
const FLOWS: usize = 200;

/// Returns some of the live connections outside the forwards and outbound entries, and how many differ. Each stands once,
/// with the interface by which its client comes in.
pub fn distinct<'f>(trying: &Trying<'f>) -> (Vec<(&'f Flow, String)>, usize) {
    let mut seen = BTreeSet::new();
    let key = |flow: &Flow| {
        let Flow {
            protocol, source, ..
        } = flow;
        (*protocol, *source, flow.destination, flow.destination_port)
    };
    let distinct = trying.others.iter().filter(|flow| seen.insert(key(flow)));
    let distinct = spread(distinct.copied());
    let back = |flow: &Flow| Packet {
        to: flow.source,
        came: None,
    };
    let some = &distinct[..distinct.len().min(FLOWS)];
    let interfaces = network::interfaces(&some.iter().map(|flow| back(flow)).collect());
    let some = some
        .iter()
        .filter_map(|flow| Some((*flow, interfaces.get(&back(flow))?.clone())));
    let some: Vec<_> = some.collect();
    (some, distinct.len())
}

/// Sorts connections so that one of each source network, destination and port comes before a second one of any: many
/// clients of one server must not keep a rare connection from being tried.
fn spread<'f>(flows: impl Iterator<Item = &'f Flow>) -> Vec<&'f Flow> {
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    let mut ranked: Vec<(usize, &Flow)> = flows
        .map(|flow| {
            let to = (flow.protocol, flow.destination, flow.destination_port);
            let count = counts.entry((network_of(flow.source), to)).or_default();
            *count += 1;
            (*count, flow)
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, flow)| flow).collect()
}

/// Returns the network that probably belongs to one site.
fn network_of(address: IpAddr) -> IpNet {
    let length = match address {
        IpAddr::V4(_) => 24,
        IpAddr::V6(_) => 64,
    };
    IpNet::new(address, length).map_or(IpNet::from(address), |net| net.trunc())
}

/// Returns the questions that open live connections again.
pub fn questions<'f>(flows: Vec<(&'f Flow, String)>, twin: &Twin) -> Vec<(&'f Flow, Question)> {
    let each = flows.into_iter().filter_map(|(flow, interface)| {
        let mut worlds = twin.worlds().iter();
        let world = worlds.position(|world| world.interface == interface)?;
        let question = Question {
            protocol: flow.protocol,
            client: flow.source,
            from: From::World(world),
            to: SocketAddr::new(flow.destination, flow.destination_port.number()),
            listeners: vec![SocketAddr::new(flow.reply_source, flow.reply_port.number())],
            request: 1,
            answer: 1,
        };
        Some((flow, question))
    });
    each.collect()
}

/// Returns one item of each list, then a second one of each, until all lists are empty.
pub fn in_turn<T>(lists: Vec<Vec<T>>) -> impl Iterator<Item = T> {
    let mut lists: Vec<_> = lists.into_iter().map(Vec::into_iter).collect();
    let longest = lists.iter().map(ExactSizeIterator::len).max();
    (0..longest.unwrap_or_default()).flat_map(move |_| {
        let round: Vec<T> = lists.iter_mut().filter_map(Iterator::next).collect();
        round
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_clients_of_one_server_leave_room_for_another_connection() {
        let flow = |from: &str, to: &str| {
            let line = format!(
                "tcp 6 9 ESTABLISHED src={from} dst={to} sport=5 dport=443 src={to} dst={from} sport=443 dport=5"
            );
            Flow::parse(&line).expect("it is a flow")
        };
        let mut flows: Vec<Flow> = (1..=250)
            .map(|n| flow(&format!("10.8.0.{n}"), "10.9.0.7"))
            .collect();
        flows.push(flow("10.8.0.1", "10.9.0.8"));
        flows.push(flow("10.8.1.1", "10.9.0.7"));
        let ends = |flow: &&Flow| format!("{} {}", flow.source, flow.destination);
        let found: Vec<String> = spread(flows.iter()).iter().map(ends).collect();
        assert_eq!(found.len(), 252);
        assert_eq!(
            found[..4],
            [
                "10.8.0.1 10.9.0.7",
                "10.8.0.1 10.9.0.8",
                "10.8.1.1 10.9.0.7",
                "10.8.0.2 10.9.0.7"
            ]
        );
    }

    /// Some thousand connections of forwards leave room for outbound entries and for IPv6.
    #[test]
    fn each_list_has_its_turn() {
        let lists = vec![vec![1, 2, 3], vec![10], vec![], vec![20, 21]];
        let found: Vec<i32> = in_turn(lists).collect();
        assert_eq!(found, [1, 10, 20, 2, 21, 3]);
    }
}
