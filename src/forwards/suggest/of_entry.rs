//! The tests of one outbound entry.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::attempt::{About, Attempt};
use super::hosts::{clients, servers};
use super::numbered::{NetEnd, beside, near_own, spread, within};
use super::suggestion::Suggestion;
use crate::forwards::outbound::{
    GUARDED, Outbound, OutboundProtocol, internet_v6, not_internet_v4,
};
use crate::forwards::packet_test::{TestDestination, TestHost};
use crate::net::{Family, Interface, Port};

/// The most ranges of ports that get tests.
const MOST: usize = 8;

/// The port of a test if the entry names none.
const HTTPS: u16 = 443;

/// Adds the tests of an entry.
pub fn suggest<'s>(entry: &'s Outbound, suggestion: &mut Suggestion<'s>) {
    suggestion.begin();
    let mut tests = EntryTests {
        about: About {
            name: &entry.name,
            limits: entry.limits.as_ref(),
        },
        entry,
        suggestion,
    };
    let Some(by) = entry.ingress.first() else {
        return;
    };
    let (senders, mut servers) = (tests.senders(by), tests.servers(Some(by)));
    if servers.is_empty() {
        servers = tests.servers(None);
    }
    let (Some((_, from)), Some((_, to))) = (senders.first(), servers.first()) else {
        return;
    };
    let Some((protocol, port)) = tests.ports().first().copied() else {
        return;
    };
    let plain = Attempt {
        from: *from,
        ingress: by,
        to: at(*to, port),
        protocol,
    };
    tests.ends_of_ports(plain, *to);
    for (words, from) in senders.iter().skip(1) {
        let attempt = Attempt {
            from: *from,
            ..plain
        };
        tests.passes(attempt, words);
    }
    for (words, to) in servers.iter().skip(1) {
        let attempt = Attempt {
            to: at(*to, port),
            ..plain
        };
        tests.passes(attempt, words);
    }
    tests.refused_services(plain, &senders, &servers);
    tests.entrances(plain);
    tests.refused_senders(plain);
    tests.refused_servers(plain, port);
    tests.other_servers(plain, port);
}

struct EntryTests<'t, 's> {
    about: About<'s>,
    entry: &'s Outbound,
    suggestion: &'t mut Suggestion<'s>,
}

impl<'s> EntryTests<'_, 's> {
    /// Returns hosts of both ends of each network that the entry lets out, with words.
    fn senders(&mut self, by: &'s Interface) -> Vec<(String, IpAddr)> {
        let nets = spread(self.entry.allow_from.as_slice());
        let mut senders = Vec::new();
        for (net, end) in ends_of(nets) {
            if let Some(sender) = self.sender(by, within(net, end)) {
                senders.push((format!("from {}", end.of(net)), sender));
            }
        }
        senders
    }

    /// Returns the first of some addresses that the entry lets out.
    fn sender(
        &mut self,
        by: &'s Interface,
        some: impl IntoIterator<Item = IpAddr>,
    ) -> Option<IpAddr> {
        let Outbound {
            allow_from,
            deny_from,
            ..
        } = self.entry;
        let is_let_out = |address| allow_from.contains(address) && !deny_from.contains(address);
        self.suggestion.hosts.client(by, some, is_let_out)
    }

    /// Returns an address of each network that the entry leads to, with words. With an ingress, the spec tells that
    /// packets from there leave by the entry's interface.
    fn servers(&mut self, from: Option<&Interface>) -> Vec<(String, IpAddr)> {
        let (entry, routes) = (self.entry, self.suggestion.routes);
        let (to, denied) = (&entry.allow_to, &entry.deny_to);
        let leaves = |address, by| routes.egress(by, address) == Some(&entry.egress);
        let is_meant = |address| {
            to.contains(address)
                && !denied.contains(address)
                && from.is_none_or(|by| leaves(address, by))
        };
        let nets = to.nets.as_slice().iter().copied();
        let (everything, nets): (Vec<_>, Vec<_>) = nets.partition(|net| *net == internet_v6());
        let hosts = &mut self.suggestion.hosts;
        let mut found = Vec::new();
        if to.internet || !everything.is_empty() {
            let server = hosts.server(servers(entry.family), is_meant);
            found.extend(server.map(|server| ("to the Internet".to_owned(), server)));
        }
        for net in everything {
            let server = hosts.server(within(net, NetEnd::Last), is_meant);
            found.extend(server.map(|server| (format!("to {}", NetEnd::Last.of(net)), server)));
        }
        for (net, end) in ends_of(spread(&nets)) {
            let server = hosts.server(within(net, end), is_meant);
            found.extend(server.map(|server| (format!("to {}", end.of(net)), server)));
        }
        found
    }

    /// Returns the ends of the entry's ports for each of its protocols.
    fn ports(&self) -> Vec<(OutboundProtocol, Option<Port>)> {
        let ranges = self.entry.ports.iter().take(MOST);
        let ends = ranges.flat_map(|ports| [ports.first(), ports.last()]);
        let mut ends: Vec<Port> = ends.collect();
        if ends.is_empty() {
            ends.extend(Port::new(HTTPS));
        }
        let mut found = Vec::new();
        for protocol in &self.entry.protocols {
            if protocol.transport().is_none() {
                found.push((*protocol, None));
                continue;
            }
            found.extend(ends.iter().map(|port| (*protocol, Some(*port))));
        }
        found
    }

    /// Returns the ports right beside the entry's.
    fn ports_beside(&self) -> Vec<Port> {
        let ranges = self.entry.ports.iter().take(MOST);
        let beside = ranges.flat_map(|ports| {
            let below = ports.first().number().checked_sub(1);
            let above = ports.last().number().checked_add(1);
            [below, above].into_iter().flatten()
        });
        beside.filter_map(Port::new).collect()
    }

    /// Adds each protocol with the ends of the ports, the ports beside them, and the protocols that are not named.
    fn ends_of_ports(&mut self, plain: Attempt<'s>, to: IpAddr) {
        for (protocol, port) in self.ports() {
            let attempt = Attempt {
                to: at(to, port),
                protocol,
                ..plain
            };
            let words = match port {
                Some(port) => format!("{protocol} to port {port}"),
                None => protocol.to_string(),
            };
            self.passes(attempt, &words);
        }
        for protocol in self.entry.protocols.iter().copied() {
            for port in self.ports_beside() {
                let attempt = Attempt {
                    to: at(to, Some(port)),
                    protocol,
                    ..plain
                };
                self.ends(attempt, &format!("{protocol} port {port} is not named"));
            }
        }
        let named = &self.entry.protocols;
        let others = OutboundProtocol::ALL.into_iter();
        for protocol in others.filter(|protocol| !named.contains(protocol)) {
            let port = port_for(protocol, plain.to);
            let attempt = Attempt {
                to: at(to, port),
                protocol,
                ..plain
            };
            self.ends(attempt, &format!("no {protocol}"));
        }
    }

    /// Adds a protocol or a port that the entry does not name, for each of its networks, sources too, but the first.
    fn refused_services(
        &mut self,
        plain: Attempt<'s>,
        senders: &[(String, IpAddr)],
        servers: &[(String, IpAddr)],
    ) {
        let named = &self.entry.protocols;
        let mut others = OutboundProtocol::ALL.into_iter();
        let other = others.find(|protocol| !named.contains(protocol));
        let (protocol, port) = match (other, self.ports_beside().first()) {
            (Some(other), _) => (other, port_for(other, plain.to)),
            (None, Some(beside)) => (plain.protocol, Some(*beside)),
            (None, None) => return,
        };
        let TestDestination::Host(first) = plain.to else {
            return;
        };
        let to = servers.iter().skip(1);
        let to = to.map(|(words, to)| (words, plain.from, *to));
        let nets = spread(self.entry.allow_from.as_slice()).skip(1);
        let from = nets.filter_map(|net| senders.iter().find(|(_, from)| net.contains(from)));
        let from = from.map(|(words, from)| (words, *from, first.address));
        for (words, from, to) in to.chain(from) {
            let attempt = Attempt {
                from,
                to: at(to, port),
                protocol,
                ..plain
            };
            let words = match port {
                Some(port) => format!("no {protocol} to port {port}, {words}"),
                None => format!("no {protocol} {words}"),
            };
            self.ends(attempt, &words);
        }
    }

    /// Adds a sender by each other interface of arrival, and one by an interface that is none.
    fn entrances(&mut self, plain: Attempt<'s>) {
        let entry = self.entry;
        for by in entry.ingress.iter().filter(|by| *by != plain.ingress) {
            if let Some(from) = self.any_sender(by) {
                let attempt = Attempt {
                    from,
                    ingress: by,
                    ..plain
                };
                self.passes(attempt, &format!("in by {by}"));
            }
        }
        let mut interfaces = self.suggestion.routes.interfaces.iter().copied();
        let other = interfaces.find(|by| !entry.ingress.contains(by));
        if let Some(by) = other
            && let Some(from) = self.any_sender(by)
        {
            let attempt = Attempt {
                from,
                ingress: by,
                ..plain
            };
            self.ends(attempt, &format!("not in by {by}"));
        }
    }

    fn any_sender(&mut self, by: &'s Interface) -> Option<IpAddr> {
        let nets = spread(self.entry.allow_from.as_slice());
        let some: Vec<IpAddr> = nets.flat_map(|net| within(*net, NetEnd::First)).collect();
        self.sender(by, some)
    }

    /// Adds senders that the lists refuse, and those right beside the denied networks.
    fn refused_senders(&mut self, plain: Attempt<'s>) {
        let Outbound {
            allow_from,
            deny_from,
            family,
            ..
        } = self.entry;
        let by = plain.ingress;
        for (net, end) in ends_of(spread(deny_from.as_slice())) {
            let hosts = &mut self.suggestion.hosts;
            let some = within(net, end);
            let from = hosts.client(by, some, |address| allow_from.contains(address));
            if let Some(from) = from {
                let words = format!("denied source {}", end.of(net));
                self.ends(Attempt { from, ..plain }, &words);
            }
        }
        for net in spread(deny_from.as_slice()) {
            if let Some(from) = self.sender(by, beside(*net)) {
                let words = format!("from beside the denied {net}");
                self.passes(Attempt { from, ..plain }, &words);
            }
        }
        let outside = |address| !allow_from.contains(address) && !deny_from.contains(address);
        let mut is_added = false;
        for net in spread(allow_from.as_slice()) {
            if let Some(from) = self.suggestion.hosts.client(by, beside(*net), outside) {
                self.ends(Attempt { from, ..plain }, &format!("from beside {net}"));
                is_added = true;
            }
        }
        let others = clients(*family);
        if !is_added && let Some(from) = self.suggestion.hosts.client(by, others, outside) {
            self.ends(Attempt { from, ..plain }, "a source that is not named");
        }
    }

    /// Adds destinations that the entry denies, and those right beside the denied networks.
    fn refused_servers(&mut self, plain: Attempt<'s>, port: Option<Port>) {
        let Outbound {
            allow_to, deny_to, ..
        } = self.entry;
        for (net, end) in ends_of(spread(deny_to.as_slice())) {
            let hosts = &mut self.suggestion.hosts;
            let some = within(net, end);
            if let Some(to) = hosts.server(some, |address| allow_to.contains(address)) {
                let to = at(to, port);
                let words = format!("denied destination {}", end.of(net));
                self.ends(Attempt { to, ..plain }, &words);
            }
        }
        for net in spread(deny_to.as_slice()) {
            let allowed = |address| allow_to.contains(address) && !deny_to.contains(address);
            if let Some(to) = self.suggestion.hosts.server(beside(*net), allowed) {
                let to = at(to, port);
                let words = format!("to beside the denied {net}");
                self.passes(Attempt { to, ..plain }, &words);
            }
        }
        self.guarded(plain, port);
    }

    /// Adds the addresses that an entry reaches only if it names them, with each protocol.
    fn guarded(&mut self, plain: Attempt<'s>, port: Option<Port>) {
        let family = self.entry.family;
        let guarded = GUARDED.into_iter();
        for address in guarded.filter(|address| Family::of(*address) == family) {
            for protocol in self.entry.protocols.iter().copied() {
                let to = at(address, port.filter(|_| protocol.transport().is_some()));
                let attempt = Attempt {
                    to,
                    protocol,
                    ..plain
                };
                self.ends(attempt, &format!("no {protocol} to {address}"));
            }
            let allow_to = &self.entry.allow_to;
            let beside = beside(address.into());
            let fits = |to| allow_to.contains(to) && !self.entry.deny_to.contains(to);
            if let Some(to) = self.suggestion.hosts.server(beside, fits) {
                let to = at(to, port);
                self.passes(Attempt { to, ..plain }, &format!("to beside {address}"));
            }
        }
    }

    /// Adds destinations that the entry does not name.
    fn other_servers(&mut self, plain: Attempt<'s>, port: Option<Port>) {
        let Outbound {
            allow_from,
            allow_to,
            deny_to,
            family,
            ..
        } = self.entry;
        let outside = |address| {
            !allow_to.contains(address) && !deny_to.contains(address) && !GUARDED.contains(&address)
        };
        // The machine's own network trusts the machine's address.
        let own: Vec<IpAddr> = self.suggestion.routes.own(*family).collect();
        let own = own.into_iter().flat_map(near_own);
        let own = self.suggestion.hosts.server(own, outside);
        if let Some(to) = own {
            let to = at(to, port);
            self.ends(Attempt { to, ..plain }, "the network of this machine");
        }
        let mut found = Vec::new();
        for net in spread(allow_to.nets.as_slice()) {
            let server = self.suggestion.hosts.server(beside(*net), outside);
            found.extend(server.map(|to| (format!("to beside {net}"), to)));
        }
        if allow_to.internet {
            let is_only = self.suggestion.routes.interfaces.len() == 1;
            for net in not_internet_v4().as_slice() {
                // The machine's own network may be behind another interface than the entry's.
                let is_asked = is_only && own.is_some_and(|own| net.contains(&own));
                let some = within(*net, NetEnd::Last).filter(|_| !is_asked);
                let server = self.suggestion.hosts.server(some, outside);
                found.extend(server.map(|to| (format!("{net} is not the Internet"), to)));
            }
        }
        if found.is_empty() {
            let some = private(*family).into_iter().chain(servers(*family));
            let server = self.suggestion.hosts.server(some, outside);
            found.extend(server.map(|to| ("a destination that is not named".to_owned(), to)));
        }
        for (words, to) in found {
            let to = at(to, port);
            self.ends(Attempt { to, ..plain }, &words);
        }
        let nets = spread(allow_from.as_slice());
        let some = nets.flat_map(|net| within(*net, NetEnd::Last));
        let allowed = |address| allow_to.contains(address) && !deny_to.contains(address);
        if let Some(to) = self.suggestion.hosts.server(some, allowed) {
            let to = at(to, port);
            self.ends(Attempt { to, ..plain }, "another sender");
        }
    }

    fn passes(&mut self, attempt: Attempt<'s>, words: &str) {
        self.suggestion.passes(self.about, attempt, words);
    }

    fn ends(&mut self, attempt: Attempt<'s>, words: &str) {
        self.suggestion.ends(self.about, attempt, words);
    }
}

/// Returns the port of another connection for a protocol that the entry does not name. A ping has none.
fn port_for(protocol: OutboundProtocol, to: TestDestination) -> Option<Port> {
    let port = match to {
        TestDestination::Host(host) => host.port,
        TestDestination::Machine(port) => Some(port),
    };
    let port = port.or(Port::new(HTTPS));
    port.filter(|_| protocol.transport().is_some())
}

fn at(address: IpAddr, port: Option<Port>) -> TestDestination {
    TestDestination::Host(TestHost { address, port })
}

/// Returns both ends of each network.
fn ends_of<'n>(nets: impl IntoIterator<Item = &'n IpNet>) -> impl Iterator<Item = (IpNet, NetEnd)> {
    let nets = nets.into_iter();
    nets.flat_map(|net| NetEnd::ALL.map(|end| (*net, end)))
}

/// Returns addresses of private networks.
fn private(family: Family) -> Vec<IpAddr> {
    match family {
        Family::V4 => [[10, 255, 255], [172, 31, 255], [192, 168, 255]]
            .map(|[a, b, c]| IpAddr::V4(Ipv4Addr::new(a, b, c, 7)))
            .to_vec(),
        Family::V6 => vec![IpAddr::V6(Ipv6Addr::new(0xfdff, 0xffff, 0, 0, 0, 0, 0, 7))],
    }
}
