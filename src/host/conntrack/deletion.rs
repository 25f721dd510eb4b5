//! Finds few deletions that delete given conntrack entries and no others.
//!
//! `conntrack -D` has a condition for each field of an entry, and reads the whole table. One call for each entry would
//! take minutes for 100,000 senders, or for the thousands of servers of one pod. One call for all entries of a target
//! would also delete entries that must stay, such as those of clients that the spec still admits.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::net::{Port, Protocol};
use crate::netfilter::conntrack::Flow;

/// The conditions of one `conntrack -D`, which deletes all entries that match them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    pub sources: IpNet,
    pub destinations: IpNet,
    pub shared: SharedFields,
    /// The entries that it is for.
    pub entries: BTreeSet<EntryFields>,
}

/// The fields of a conntrack entry that decide whether it stays. Entries that differ only in the source port stay or end
/// together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryFields {
    protocol: Protocol,
    source: IpAddr,
    destination: IpAddr,
    port: Port,
    /// The host that answers, and its port.
    reply: (IpAddr, Port),
    new_source: IpAddr,
}

impl From<&Flow> for EntryFields {
    fn from(flow: &Flow) -> Self {
        Self {
            protocol: flow.protocol,
            source: flow.source,
            destination: flow.destination,
            port: flow.destination_port,
            reply: (flow.reply_source, flow.reply_port),
            new_source: flow.reply_destination,
        }
    }
}

impl EntryFields {
    fn keeps_source(&self) -> bool {
        self.source == self.new_source
    }

    fn is_redirected(&self) -> bool {
        self.destination != self.reply.0
    }
}

/// The values that all entries of a deletion have. A field without a value is no condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SharedFields {
    pub protocol: Protocol,
    pub port: Option<Port>,
    pub reply_address: Option<IpAddr>,
    pub reply_port: Option<Port>,
    /// The address that replies are sent to: the new source.
    pub new_source: Option<IpAddr>,
}

impl SharedFields {
    /// Returns what entries that end together must share. `None` as the source of entries that keep theirs: then the
    /// condition would differ for each source.
    fn of(entry: &EntryFields, by: SharedPorts) -> Self {
        let port = |port| (by == SharedPorts::Same).then_some(port);
        let reply = entry.is_redirected().then_some(entry.reply);
        Self {
            protocol: entry.protocol,
            port: port(entry.port),
            reply_address: reply.map(|(address, _)| address),
            reply_port: reply.and_then(|(_, of)| port(of)),
            new_source: (!entry.keeps_source()).then_some(entry.new_source),
        }
    }

    /// Returns whether an entry meets these conditions.
    fn take(&self, entry: &EntryFields) -> bool {
        self.protocol == entry.protocol
            && self.port.is_none_or(|port| port == entry.port)
            && self.reply_address.is_none_or(|one| one == entry.reply.0)
            && self.reply_port.is_none_or(|port| port == entry.reply.1)
            && self.new_source.is_none_or(|one| one == entry.new_source)
    }

    /// Returns every value under which [`Self::of`] may have put entries that a deletion takes along with this one.
    fn that_take(entry: &EntryFields, by: SharedPorts) -> impl Iterator<Item = Self> {
        let port = |port| (by == SharedPorts::Same).then_some(port);
        let (address, of) = entry.reply;
        let replies = [(None, None), (Some(address), port(of))];
        let sources = [None, Some(entry.new_source)];
        let port = port(entry.port);
        let all = replies.into_iter().flat_map(move |reply| {
            sources
                .into_iter()
                .map(move |new_source| (reply, new_source))
        });
        let protocol = entry.protocol;
        all.map(move |((reply_address, reply_port), new_source)| Self {
            protocol,
            port,
            reply_address,
            reply_port,
            new_source,
        })
    }
}

/// Whether all entries of a deletion share the destination port as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SharedPorts {
    Same,
    /// They share only addresses.
    Any,
}

/// The number of deletions from which on fewer of them with fewer conditions are looked for. Fewer conditions take along
/// more of the connections that begin meanwhile.
const MANY: usize = 32;

/// Returns the deletions that end the connections in `doomed` and no others of `all`.
#[must_use]
pub fn deletions<'f>(doomed: impl Iterator<Item = &'f Flow>, all: &[Flow]) -> Vec<Deletion> {
    let ending: BTreeSet<EntryFields> = doomed.map(EntryFields::from).collect();
    let all: BTreeSet<EntryFields> = all.iter().map(EntryFields::from).collect();
    let staying: Vec<EntryFields> = all.difference(&ending).copied().collect();
    let ending: Vec<EntryFields> = ending.into_iter().collect();
    let of_one_port = shared_by(&ending, &staying, SharedPorts::Same);
    if of_one_port.len() <= MANY {
        return of_one_port;
    }
    let of_any_port = shared_by(&ending, &staying, SharedPorts::Any);
    if of_any_port.len() < of_one_port.len() {
        of_any_port
    } else {
        of_one_port
    }
}

fn shared_by(ending: &[EntryFields], staying: &[EntryFields], by: SharedPorts) -> Vec<Deletion> {
    let mut groups: BTreeMap<SharedFields, (Vec<EntryFields>, Vec<EntryFields>)> = BTreeMap::new();
    for entry in ending {
        let (ending, _) = groups.entry(SharedFields::of(entry, by)).or_default();
        ending.push(*entry);
    }
    for entry in staying {
        // An untranslated entry has the same values twice.
        let shared: BTreeSet<SharedFields> = SharedFields::that_take(entry, by).collect();
        for shared in shared {
            if let Some((_, staying)) = groups.get_mut(&shared) {
                staying.push(*entry);
            }
        }
    }
    let mut deletions = Vec::new();
    for (shared, (ending, staying)) in groups {
        cover_group(shared, &ending, &staying, by, &mut deletions);
    }
    deletions
}

/// Adds deletions of all entries of a group.
fn cover_group(
    shared: SharedFields,
    ending: &[EntryFields],
    staying: &[EntryFields],
    by: SharedPorts,
    deletions: &mut Vec<Deletion>,
) {
    if shared.new_source.is_some() {
        for cell in cells(ending.to_vec(), staying) {
            push(shared, &cell, staying, by, deletions);
        }
        return;
    }
    // Only a deletion for one source can have a condition that leaves out entries with a new source.
    let (kept, translated): (Vec<_>, Vec<_>) =
        staying.iter().copied().partition(EntryFields::keeps_source);
    for cell in cells(ending.to_vec(), &kept) {
        if !Area::around(&cell).holds_any(&translated) {
            push(shared, &cell, staying, by, deletions);
            continue;
        }
        let mut by_source: BTreeMap<IpAddr, Vec<EntryFields>> = BTreeMap::new();
        for entry in cell {
            by_source.entry(entry.source).or_default().push(entry);
        }
        for (source, entries) in by_source {
            let shared = SharedFields {
                new_source: Some(source),
                ..shared
            };
            push(shared, &entries, staying, by, deletions);
        }
    }
}

/// Adds the deletion of the entries of a cell. If others have the same addresses, adds one with all conditions for each.
fn push(
    shared: SharedFields,
    cell: &[EntryFields],
    staying: &[EntryFields],
    by: SharedPorts,
    deletions: &mut Vec<Deletion>,
) {
    let area = Area::around(cell);
    let mut staying_too = staying.iter().filter(|entry| shared.take(entry));
    if !staying_too.any(|entry| area.holds(entry)) {
        deletions.push(area.deletion(shared, cell));
        return;
    }
    if by == SharedPorts::Any {
        deletions.extend(shared_by(cell, staying, SharedPorts::Same));
        return;
    }
    for entry in cell {
        let shared = SharedFields {
            protocol: entry.protocol,
            port: Some(entry.port),
            reply_address: Some(entry.reply.0),
            reply_port: Some(entry.reply.1),
            new_source: Some(entry.new_source),
        };
        deletions.push(area.deletion(shared, std::slice::from_ref(entry)));
    }
}

/// The narrowest networks that hold the addresses of some entries.
#[derive(Debug, Clone, Copy)]
struct Area {
    sources: IpNet,
    destinations: IpNet,
}

impl Area {
    /// `entries` has at least one.
    fn around(entries: &[EntryFields]) -> Self {
        Self {
            sources: network(entries.iter().map(|entry| entry.source)),
            destinations: network(entries.iter().map(|entry| entry.destination)),
        }
    }

    fn holds(&self, entry: &EntryFields) -> bool {
        self.sources.contains(&entry.source) && self.destinations.contains(&entry.destination)
    }

    fn holds_any(&self, entries: &[EntryFields]) -> bool {
        entries.iter().any(|entry| self.holds(entry))
    }

    fn deletion(&self, shared: SharedFields, entries: &[EntryFields]) -> Deletion {
        Deletion {
            sources: self.sources,
            destinations: self.destinations,
            shared,
            entries: entries.iter().copied().collect(),
        }
    }
}

/// Divides entries so that the area around each part holds none of `staying`, unless it is one pair of addresses.
fn cells(ending: Vec<EntryFields>, staying: &[EntryFields]) -> Vec<Vec<EntryFields>> {
    let mut cells = Vec::new();
    let mut open = vec![(ending, staying.to_vec())];
    while let Some((ending, mut staying)) = open.pop() {
        let area = Area::around(&ending);
        staying.retain(|entry| area.holds(entry));
        let by_source = halves(&ending, area.sources, |entry| entry.source);
        let by_destination = halves(&ending, area.destinations, |entry| entry.destination);
        let left = |halves: &[Vec<EntryFields>; 2]| -> usize {
            let areas = halves.each_ref().map(|half| Area::around(half));
            let held = |area: &Area| staying.iter().filter(|entry| area.holds(entry)).count();
            areas.iter().map(held).sum()
        };
        let halves = match (by_source, by_destination) {
            _ if staying.is_empty() => None,
            (Some(one), Some(other)) if left(&other) < left(&one) => Some(other),
            (Some(halves), _) | (None, Some(halves)) => Some(halves),
            (None, None) => None,
        };
        match halves {
            Some(halves) => open.extend(halves.map(|half| (half, staying.clone()))),
            None => cells.push(ending),
        }
    }
    cells
}

/// Divides entries by the first bit after the network's prefix. `None` if the network is one address.
fn halves(
    entries: &[EntryFields],
    net: IpNet,
    address: impl Fn(&EntryFields) -> IpAddr,
) -> Option<[Vec<EntryFields>; 2]> {
    let lower = IpNet::new(net.network(), net.prefix_len() + 1).ok()?;
    let is_lower = |entry: &EntryFields| lower.contains(&address(entry));
    let (lower, upper) = entries.iter().copied().partition(is_lower);
    Some([lower, upper])
}

/// Returns the narrowest network that holds all addresses, which must be of one family. There is at least one.
fn network(addresses: impl Iterator<Item = IpAddr>) -> IpNet {
    let (mut first, mut last) = (None, None);
    for address in addresses {
        first = Some(first.map_or(address, |first: IpAddr| first.min(address)));
        last = Some(last.map_or(address, |last: IpAddr| last.max(address)));
    }
    let first = first.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
    common(first, last.unwrap_or(first))
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

    /// A connection: `10.0.0.1 > 8.8.8.8:53 as 10.3.0.4`, with `@ address:port` if it is redirected there.
    fn flow(text: &str) -> Flow {
        let (text, new) = text.split_once(" as ").unwrap_or((text, ""));
        let (text, reply) = text.split_once(" @ ").unwrap_or((text, ""));
        let (source, to) = text.split_once(" > ").expect("it has a destination");
        let (to, port) = to.rsplit_once(':').expect("it has a port");
        let (reply, reply_port) = reply.rsplit_once(':').unwrap_or((to, port));
        let new = if new.is_empty() { source } else { new };
        let line = format!(
            "udp 17 9 src={source} dst={to} sport=5 dport={port} src={reply} dst={new} sport={reply_port} dport=5"
        );
        Flow::parse(&line).expect("it is a flow")
    }

    impl Deletion {
        fn takes(&self, flow: &Flow) -> bool {
            let SharedFields {
                protocol,
                port,
                reply_address,
                reply_port,
                new_source,
            } = self.shared;
            protocol == flow.protocol
                && self.sources.contains(&flow.source)
                && self.destinations.contains(&flow.destination)
                && port.is_none_or(|port| port == flow.destination_port)
                && reply_address.is_none_or(|address| address == flow.reply_source)
                && reply_port.is_none_or(|port| port == flow.reply_port)
                && new_source.is_none_or(|source| source == flow.reply_destination)
        }
    }

    /// Returns the deletions, after it has held that they take each ending connection, and none that stays.
    fn exact(ending: &[Flow], staying: &[Flow]) -> Vec<Deletion> {
        let all = [ending, staying].concat();
        let found = deletions(ending.iter(), &all);
        let taken = |flow: &Flow| found.iter().filter(|one| one.takes(flow)).count();
        for flow in ending {
            assert!(taken(flow) > 0, "{flow:?} is not ended: {found:?}");
            let fields = EntryFields::from(flow);
            let counted = found.iter().filter(|one| one.entries.contains(&fields));
            assert_eq!(counted.count(), 1, "{flow:?} is counted once");
        }
        let ends = |flow: &Flow| {
            ending
                .iter()
                .any(|one| EntryFields::from(one) == flow.into())
        };
        for flow in staying.iter().filter(|flow| !ends(flow)) {
            assert_eq!(taken(flow), 0, "{flow:?} is ended: {found:?}");
        }
        found
    }

    fn networks(ending: &[&str], staying: &[&str]) -> String {
        let to = |address: &&str| {
            let host = if address.contains(':') {
                "fd00:3::4"
            } else {
                "10.3.0.4"
            };
            flow(&format!("{address} > {host}:53 as 10.3.0.9"))
        };
        let ending: Vec<Flow> = ending.iter().map(to).collect();
        let staying: Vec<Flow> = staying.iter().map(to).collect();
        let found = exact(&ending, &staying);
        let mut nets: Vec<IpNet> = found.iter().map(|one| one.sources).collect();
        nets.sort_unstable();
        let nets = nets.iter().map(ToString::to_string);
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

    fn flows(lines: &[&str]) -> Vec<Flow> {
        lines.iter().map(|line| flow(line)).collect()
    }

    #[test]
    fn a_connection_that_differs_in_one_field_stays() {
        for (ending, staying) in [
            ("10.0.0.1 > 8.8.8.8:53", "10.0.0.2 > 8.8.8.8:53"),
            ("10.0.0.1 > 8.8.8.8:53", "10.0.0.1 > 8.8.8.9:53"),
            ("10.0.0.1 > 8.8.8.8:53", "10.0.0.1 > 8.8.8.8:54"),
            ("10.0.0.1 > 8.8.8.8:53", "10.0.0.1 > 8.8.8.8:53 as 10.3.0.4"),
            ("10.0.0.1 > 8.8.8.8:53 as 10.3.0.4", "10.0.0.1 > 8.8.8.8:53"),
            (
                "10.0.0.1 > 8.8.8.8:53 as 10.3.0.4",
                "10.0.0.1 > 8.8.8.8:53 as 10.3.0.5",
            ),
            (
                "10.0.0.1 > 8.8.8.8:53",
                "10.0.0.1 > 8.8.8.8:53 @ 10.9.9.9:53",
            ),
            (
                "10.0.0.1 > 8.8.8.8:53 @ 10.9.9.9:53",
                "10.0.0.1 > 8.8.8.8:53 @ 10.9.9.9:54",
            ),
        ] {
            assert_eq!(exact(&flows(&[ending]), &flows(&[staying])).len(), 1);
        }
    }

    /// `snat: none` became `masquerade`: a source has old connections and new ones to one server.
    #[test]
    fn new_connections_of_a_source_with_an_old_one_stay() {
        let ending = flows(&["10.0.0.8 > 10.9.0.1:5432", "10.0.0.10 > 10.9.0.1:5432"]);
        let staying = flows(&[
            "10.0.0.8 > 10.9.0.1:5432 as 10.3.0.4",
            "10.0.0.9 > 10.9.0.1:5432 as 10.3.0.4",
        ]);
        assert_eq!(exact(&ending, &staying).len(), 2);
        assert_eq!(exact(&ending, &[]).len(), 1);
    }

    /// An outbound entry has few sources and very many servers.
    #[test]
    fn connections_to_thousands_of_servers_end_in_few_passes() {
        let at = |n: u32| IpAddr::from((0x0800_0000 + n * 7919).to_be_bytes());
        let out = |pod: u32, n: u32, port: u32, new: &str| {
            flow(&format!("10.224.0.{pod} > {}:{port}{new}", at(n)))
        };
        let seen = " as 10.3.0.4";
        let each = |port: u32, new: &str| -> Vec<Flow> {
            (0..5_000).map(|n| out(1 + n % 5, n, port, new)).collect()
        };
        let incoming = flow("198.51.100.7 > 10.3.0.4:80 @ 10.224.0.9:80 as 10.3.0.4");
        // The entry is gone.
        for new in [seen, ""] {
            let found = exact(&each(443, new), std::slice::from_ref(&incoming));
            assert_eq!(found.len(), 1, "{new}");
        }
        // The entry accepts another port, or no longer one pod.
        let staying = each(80, seen);
        assert_eq!(exact(&each(443, seen), &staying).len(), 1);
        let (ending, staying): (Vec<Flow>, Vec<Flow>) = each(443, seen)
            .into_iter()
            .partition(|flow| flow.source == IpAddr::from([10, 224, 0, 3]));
        assert_eq!(exact(&ending, &staying).len(), 1);
        // It denies a network.
        let denied: IpNet = "8.0.0.0/12".parse().expect("a network");
        let (ending, staying): (Vec<Flow>, Vec<Flow>) = each(443, seen)
            .into_iter()
            .partition(|flow| denied.contains(&flow.destination));
        assert!(ending.len() > 100 && staying.len() > 100);
        assert!(exact(&ending, &staying).len() <= 2);
        // Each connection has a port of its own.
        let ending: Vec<Flow> = (0..5_000).map(|n| out(1, n, 1_024 + n, seen)).collect();
        assert_eq!(exact(&ending, &[incoming]).len(), 1);
    }

    fn some_flow() -> impl Strategy<Value = Flow> {
        let fields = (0..8_u8, 0..8_u8, 52..54_u16, 0..3_u8, 0..3_u8);
        fields.prop_map(|(source, to, port, reply, new)| {
            let reply = match reply {
                0 => String::new(),
                n => format!(" @ 10.9.0.{n}:53"),
            };
            let new = match new {
                0 => String::new(),
                n => format!(" as 10.3.0.{n}"),
            };
            flow(&format!("10.0.0.{source} > 8.8.8.{to}:{port}{reply}{new}"))
        })
    }

    proptest! {
        /// The addresses have few bits, so that they lie close together.
        #[test]
        fn each_ending_connection_is_deleted_and_no_staying_one(
            ending in proptest::collection::vec(some_flow(), 1..60),
            staying in proptest::collection::vec(some_flow(), 0..60),
        ) {
            exact(&ending, &staying);
        }
    }
}
