//! The tests of one outbound entry.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::attempt::{About, Attempt};
use super::hosts::{clients, servers};
use super::numbered::{beside, near_own, within};
use super::suggestion::Suggestion;
use crate::forwards::outbound::{GUARDED, Outbound, OutboundProtocol, internet_v6};
use crate::forwards::packet_test::{TestDestination, TestHost};
use crate::net::{Family, Interface, Port};

/// The most networks of a list that get a test each.
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
    tests.entrances(plain);
    tests.refused_senders(plain);
    tests.refused_servers(plain, port);
}

struct EntryTests<'t, 's> {
    about: About<'s>,
    entry: &'s Outbound,
    suggestion: &'t mut Suggestion<'s>,
}

impl<'s> EntryTests<'_, 's> {
    /// Returns a host of each network that the entry lets out, with words.
    fn senders(&mut self, by: &'s Interface) -> Vec<(String, IpAddr)> {
        let nets = self.entry.allow_from.as_slice().iter().take(MOST);
        let mut senders = Vec::new();
        for net in nets {
            if let Some(sender) = self.sender(by, within(*net)) {
                senders.push((format!("from {net}"), sender));
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
        for net in nets.into_iter().take(MOST) {
            let server = hosts.server(within(net), is_meant);
            found.extend(server.map(|server| (format!("to {net}"), server)));
        }
        found
    }

    /// Returns the ends of the entry's ports for each of its protocols.
    fn ports(&self) -> Vec<(OutboundProtocol, Option<Port>)> {
        let ports = &self.entry.ports;
        let ends = ports.first().zip(ports.last());
        let ends = ends.map(|(first, last)| [first.first(), last.last()]);
        let mut found = Vec::new();
        for protocol in &self.entry.protocols {
            if protocol.transport().is_none() {
                found.push((*protocol, None));
                continue;
            }
            let ends = ends.map_or_else(|| Port::new(HTTPS).into_iter().collect(), Vec::from);
            found.extend(ends.into_iter().map(|port| (*protocol, Some(port))));
        }
        found
    }

    /// Adds each protocol with both ends of the ports, the ports beside them, and the protocols that are not named.
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
        let ports = &self.entry.ports;
        let below = ports
            .first()
            .and_then(|ports| ports.first().number().checked_sub(1));
        let above = ports
            .last()
            .and_then(|ports| ports.last().number().checked_add(1));
        for port in [below, above].into_iter().flatten().filter_map(Port::new) {
            let attempt = Attempt {
                to: at(to, Some(port)),
                ..plain
            };
            self.ends(attempt, &format!("port {port} is not named"));
        }
        let named = &self.entry.protocols;
        let others = OutboundProtocol::ALL.into_iter();
        for protocol in others.filter(|protocol| !named.contains(protocol)) {
            let port = match plain.to {
                TestDestination::Host(host) => host.port,
                TestDestination::Machine(port) => Some(port),
            };
            let port = port
                .or(Port::new(HTTPS))
                .filter(|_| protocol.transport().is_some());
            let attempt = Attempt {
                to: at(to, port),
                protocol,
                ..plain
            };
            self.ends(attempt, &format!("no {protocol}"));
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
        let nets = self.entry.allow_from.as_slice().iter().take(MOST);
        let some: Vec<IpAddr> = nets.flat_map(|net| within(*net)).collect();
        self.sender(by, some)
    }

    /// Adds senders that the lists refuse.
    fn refused_senders(&mut self, plain: Attempt<'s>) {
        let Outbound {
            allow_from,
            deny_from,
            family,
            ..
        } = self.entry;
        let by = plain.ingress;
        for net in deny_from.as_slice().iter().take(MOST) {
            let hosts = &mut self.suggestion.hosts;
            let from = hosts.client(by, within(*net), |address| allow_from.contains(address));
            if let Some(from) = from {
                self.ends(Attempt { from, ..plain }, &format!("denied source {net}"));
            }
        }
        let near = allow_from.as_slice().iter().take(MOST);
        let near = near.flat_map(|net| beside(*net)).chain(clients(*family));
        let outside = |address| !allow_from.contains(address) && !deny_from.contains(address);
        if let Some(from) = self.suggestion.hosts.client(by, near, outside) {
            self.ends(Attempt { from, ..plain }, "a source that is not named");
        }
    }

    /// Adds destinations that the lists refuse.
    fn refused_servers(&mut self, plain: Attempt<'s>, port: Option<Port>) {
        let Outbound {
            allow_to,
            deny_to,
            family,
            ..
        } = self.entry;
        for net in deny_to.as_slice().iter().take(MOST) {
            let hosts = &mut self.suggestion.hosts;
            let to = hosts.server(within(*net), |address| allow_to.contains(address));
            if let Some(to) = to {
                let to = at(to, port);
                self.ends(
                    Attempt { to, ..plain },
                    &format!("denied destination {net}"),
                );
            }
        }
        let outside = |address| {
            !allow_to.contains(address) && !deny_to.contains(address) && !GUARDED.contains(&address)
        };
        // The machine's own network trusts the machine's address.
        let own: Vec<IpAddr> = self.suggestion.routes.own(*family).collect();
        let own = own.into_iter().flat_map(near_own);
        let to = self.suggestion.hosts.server(own, outside);
        if let Some(to) = to {
            let to = at(to, port);
            self.ends(Attempt { to, ..plain }, "the network of this machine");
        }
        let near = allow_to.nets.as_slice().iter().take(MOST);
        let near = near.flat_map(|net| beside(*net));
        let some = near.chain(private(*family)).chain(servers(*family));
        if let Some(to) = self.suggestion.hosts.server(some, outside) {
            let to = at(to, port);
            self.ends(Attempt { to, ..plain }, "a destination that is not named");
        }
        let guarded = GUARDED.into_iter();
        for to in guarded.filter(|to| Family::of(*to) == *family) {
            let to_port = at(to, port);
            self.ends(
                Attempt {
                    to: to_port,
                    ..plain
                },
                &format!("no {to}"),
            );
        }
    }

    fn passes(&mut self, attempt: Attempt<'s>, words: &str) {
        self.suggestion.passes(self.about, attempt, words);
    }

    fn ends(&mut self, attempt: Attempt<'s>, words: &str) {
        self.suggestion.ends(self.about, attempt, words);
    }
}

fn at(address: IpAddr, port: Option<Port>) -> TestDestination {
    TestDestination::Host(TestHost { address, port })
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
