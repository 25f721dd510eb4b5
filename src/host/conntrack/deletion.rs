//! Finds few deletions that delete given conntrack entries and no others.
//!
//! `conntrack -D` has a condition for each field of an entry. One call for each entry would take minutes for
//! 100,000 senders. One call for all entries of a target would also delete entries that must stay, such as
//! those of clients that the spec still admits.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::net::{Port, Protocol};
use crate::netfilter::conntrack::Flow;

/// The conditions of one `conntrack -D`, which deletes all entries that match them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    pub sources: IpNet,
    pub to: FlowDestination,
}

/// The destination of a connection before and after translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowDestination {
    pub protocol: Protocol,
    pub address: IpAddr,
    pub port: Port,
    pub reply_address: IpAddr,
    pub reply_port: Port,
    /// The address that the source was translated to. `None` if it was not: then the condition would differ for each
    /// source.
    pub new_source: Option<IpAddr>,
}

impl FlowDestination {
    fn of(flow: &Flow) -> Self {
        Self {
            protocol: flow.protocol,
            address: flow.destination,
            port: flow.destination_port,
            reply_address: flow.reply_source,
            reply_port: flow.reply_port,
            new_source: (!flow.keeps_source()).then_some(flow.reply_destination),
        }
    }
}

/// Returns the deletions that end the connections in `doomed` and no others of `all`. Connections of one
/// source to one destination end together if they have the same new source, or if one that ends has none.
#[must_use]
pub fn deletions<'f>(doomed: impl Iterator<Item = &'f Flow>, all: &[Flow]) -> Vec<Deletion> {
    let mut ending: BTreeMap<FlowDestination, BTreeSet<IpAddr>> = BTreeMap::new();
    for flow in doomed {
        let sources = ending.entry(FlowDestination::of(flow)).or_default();
        sources.insert(flow.source);
    }
    let mut staying: BTreeMap<FlowDestination, BTreeSet<IpAddr>> = BTreeMap::new();
    for flow in all {
        let to = FlowDestination::of(flow);
        // A deletion without a condition on the new source takes the flows with one as well.
        let any_source = FlowDestination {
            new_source: None,
            ..to
        };
        for to in [to, any_source] {
            let ending = ending.get(&to);
            if ending.is_some_and(|ending| !ending.contains(&flow.source)) {
                staying.entry(to).or_default().insert(flow.source);
            }
        }
    }
    let none = BTreeSet::new();
    let mut deletions = Vec::new();
    for (to, ending) in ending {
        let ending: Vec<IpAddr> = ending.into_iter().collect();
        let staying = staying.get(&to).unwrap_or(&none);
        let mut networks = Vec::new();
        cover(&ending, staying, &mut networks);
        deletions.extend(networks.into_iter().map(|sources| Deletion { sources, to }));
    }
    deletions
}

/// Adds the fewest networks that hold all addresses of `ending`, which is sorted, and none of `staying`. Each
/// network is as narrow as its addresses allow.
fn cover(ending: &[IpAddr], staying: &BTreeSet<IpAddr>, networks: &mut Vec<IpNet>) {
    let [first, .., last] = ending else {
        networks.extend(ending.iter().copied().map(IpNet::from));
        return;
    };
    let net = common(*first, *last);
    if staying
        .range(net.network()..=net.broadcast())
        .next()
        .is_none()
    {
        networks.push(net);
        return;
    }
    // The halves differ in the first bit after the network's prefix.
    let lower = IpNet::new(net.network(), net.prefix_len() + 1);
    let is_lower = |address: &IpAddr| lower.as_ref().is_ok_and(|lower| lower.contains(address));
    let (lower, upper) = ending.split_at(ending.partition_point(is_lower));
    cover(lower, staying, networks);
    cover(upper, staying, networks);
}

/// Returns the narrowest network that holds both addresses. They must be of one family.
fn common(first: IpAddr, last: IpAddr) -> IpNet {
    let bits = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => (first.to_bits() ^ last.to_bits()).leading_zeros(),
        (IpAddr::V6(first), IpAddr::V6(last)) => (first.to_bits() ^ last.to_bits()).leading_zeros(),
        _ => 0,
    };
    let bits = u8::try_from(bits).unwrap_or_default();
    IpNet::new(first, bits).map_or(first.into(), |net| net.trunc())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flow(source: IpAddr, port: u16) -> Flow {
        let address = match source {
            IpAddr::V4(_) => "10.3.0.4",
            IpAddr::V6(_) => "fd00:3::4",
        };
        let line = format!(
            "udp 17 9 src={source} dst={address} sport=5 dport={port} src={address} dst={source} sport={port} dport=5"
        );
        Flow::parse(&line).expect("it is a flow")
    }

    fn networks(ending: &[&str], staying: &[&str]) -> String {
        let flows = |addresses: &[&str]| -> Vec<Flow> {
            let address = |text: &&str| flow(text.parse().expect("an address"), 53);
            addresses.iter().map(address).collect()
        };
        let ending = flows(ending);
        let all = [ending.clone(), flows(staying)].concat();
        let found = deletions(ending.iter(), &all);
        let nets = found.iter().map(|one| one.sources.to_string());
        nets.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn networks_hold_all_ending_sources_and_no_staying_one() {
        for (ending, staying, found) in [
            (&["198.51.100.7"][..], &[][..], "198.51.100.7/32"),
            (&["198.51.100.7"], &["198.51.100.6"], "198.51.100.7/32"),
            (&["10.0.0.4", "10.0.0.5", "10.0.0.7"], &[], "10.0.0.4/30"),
            (
                &["10.0.0.4", "10.0.0.5", "10.0.0.7"],
                &["10.0.0.6", "10.0.0.8"],
                "10.0.0.4/31 10.0.0.7/32",
            ),
            (&["1.0.0.1", "200.0.0.1"], &[], "0.0.0.0/0"),
            (
                &["1.0.0.1", "200.0.0.1"],
                &["10.3.0.4"],
                "1.0.0.1/32 200.0.0.1/32",
            ),
            (
                &["fd00::1", "fd00::2"],
                &["fd00::3"],
                "fd00::1/128 fd00::2/128",
            ),
            (&["fd00::1", "fd00::2"], &["fd00::4"], "fd00::/126"),
        ] {
            assert_eq!(networks(ending, staying), found, "{ending:?} {staying:?}");
        }
    }

    #[test]
    fn a_connection_with_another_new_source_stays() {
        let source: IpAddr = "198.51.100.7".parse().expect("an address");
        let with = |new: &str| Flow {
            reply_destination: new.parse().expect("an address"),
            ..flow(source, 53)
        };
        let (ending, staying) = (with("10.3.0.4"), with("10.3.0.5"));
        let found = deletions([&ending].into_iter(), &[ending.clone(), staying]);
        let new: Vec<Option<IpAddr>> = found.iter().map(|one| one.to.new_source).collect();
        assert_eq!(new, [Some(ending.reply_destination)]);
    }

    #[test]
    fn a_translated_connection_between_untranslated_ones_stays() {
        let at = |last| flow(IpAddr::from([198, 51, 100, last]), 53);
        let ending = [at(8), at(10)];
        let staying = Flow {
            reply_destination: IpAddr::from([10, 3, 0, 4]),
            ..at(9)
        };
        let all = [&ending[..], std::slice::from_ref(&staying)].concat();
        let found = deletions(ending.iter(), &all);
        let takes = |one: &Deletion| one.sources.contains(&staying.source);
        assert!(!found.is_empty() && !found.iter().any(takes), "{found:?}");
    }

    #[test]
    fn each_destination_has_its_own_deletion() {
        let source: IpAddr = "198.51.100.7".parse().expect("an address");
        let (ending, staying) = (flow(source, 53), flow(source, 54));
        let found = deletions([&ending].into_iter(), &[ending.clone(), staying]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].to.port.number(), 53);
    }

    proptest! {
        /// The addresses have few bits, so that they lie close together.
        #[test]
        fn each_ending_source_is_deleted_once_and_no_staying_one(
            ending in proptest::collection::btree_set(0_u8..64, 1..20),
            staying in proptest::collection::btree_set(0_u8..64, 0..20),
        ) {
            let address = |last: &u8| IpAddr::from([10, 0, 0, *last]);
            let doomed: Vec<Flow> = ending.iter().map(|last| flow(address(last), 53)).collect();
            let others = staying.iter().map(|last| flow(address(last), 53));
            let all: Vec<Flow> = doomed.iter().cloned().chain(others).collect();
            let found = deletions(doomed.iter(), &all);
            for last in 0..64 {
                let taken = found.iter().filter(|one| one.sources.contains(&address(&last))).count();
                if ending.contains(&last) {
                    prop_assert_eq!(taken, 1);
                } else if staying.contains(&last) {
                    prop_assert_eq!(taken, 0);
                }
            }
            prop_assert!(found.len() <= ending.len());
        }
    }
}
