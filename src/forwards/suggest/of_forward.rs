//! The tests of one listener of a forward.

use std::net::IpAddr;

use super::attempt::{About, Attempt};
use super::crossing;
use super::hosts::clients;
use super::numbered::{NetEnd, beside, near_own, next_to, spread, within};
use super::suggestion::Suggestion;
use crate::forwards::forward::{Balance, Forward};
use crate::forwards::packet_test::{TestDestination, TestHost};
use crate::forwards::sources::Nets;
use crate::net::{Family, Interface, Port, Protocol};

/// The most targets that get a test each.
const MOST: usize = 8;

/// The most clients that share the pods of a forward. With four for each of three pods, all pods are asked nearly always.
const MOST_SHARERS: usize = 16;

/// Adds the tests of a listener.
pub fn suggest<'s>(forward: &'s Forward, suggestion: &mut Suggestion<'s>) {
    suggestion.begin();
    let mut tests = ListenerTests {
        about: About {
            name: &forward.name,
            limits: forward.limits.as_ref(),
        },
        forward,
        suggestion,
    };
    let Some(by) = forward.ingress.first() else {
        return;
    };
    let client = tests.clients(by);
    tests.entrances(by);
    tests.refused_clients(by);
    tests.beside_lists(by);
    tests.refused_elsewhere(by);
    // A connection that the forward does not take may come from anybody.
    if let Some(client) = client.or_else(|| tests.anybody(by)) {
        tests.other_ports(client, by);
        tests.other_hosts(client, by);
    }
    crossing::suggest(forward, by, suggestion);
}

struct ListenerTests<'t, 's> {
    about: About<'s>,
    forward: &'s Forward,
    suggestion: &'t mut Suggestion<'s>,
}

impl<'s> ListenerTests<'_, 's> {
    /// Adds both ends of the ports, and clients of both ends of each allowed network. Returns the first client.
    fn clients(&mut self, by: &'s Interface) -> Option<IpAddr> {
        let ports = self.forward.listen.ports;
        let nets = self.forward.sources.allow.as_ref().map(Nets::as_slice);
        let nets = spread(nets.unwrap_or_default());
        let first = self.any_allowed(by)?;
        for port in [ports.first(), ports.last()] {
            self.passes(first, by, port, &format!("port {port}"));
        }
        for net in nets {
            for end in NetEnd::ALL {
                if let Some(client) = self.allowed(by, within(*net, end)) {
                    let words = format!("clients of {}", end.of(*net));
                    self.passes(client, by, ports.first(), &words);
                }
            }
        }
        self.sharers(first, by);
        Some(first)
    }

    /// Adds further clients of a forward whose clients each keep a pod, so that most pods are asked.
    fn sharers(&mut self, first: IpAddr, by: &'s Interface) {
        let forward = self.forward;
        let count = forward.target.destinations.len();
        if forward.target.balance != Balance::Client || count < 2 {
            return;
        }
        let mut seen = vec![first];
        for _ in 1..(4 * count).min(MOST_SHARERS) {
            let nets = forward.sources.allow.as_ref().map(Nets::as_slice);
            let nets = spread(nets.unwrap_or_default());
            let some = nets.flat_map(|net| within(*net, NetEnd::First));
            let some = some.chain(clients(self.family()));
            let fits = |address| !seen.contains(&address) && forward.sources.admits(address);
            let Some(client) = self.suggestion.hosts.client(by, some, fits) else {
                return;
            };
            let port = forward.listen.ports.first();
            self.passes(client, by, port, &format!("from {client}"));
            seen.push(client);
        }
    }

    /// Adds a client by each other interface of arrival, and one by an interface that is none.
    fn entrances(&mut self, first: &'s Interface) {
        let forward = self.forward;
        let port = forward.listen.ports.first();
        for by in forward.ingress.iter().filter(|by| *by != first) {
            if let Some(client) = self.any_allowed(by) {
                self.passes(client, by, port, &format!("in by {by}"));
            }
        }
        if forward.hairpin {
            let by = &forward.egress;
            let beside = forward.target.destinations.iter();
            let beside = beside.flat_map(|to| next_to(to.address));
            let admits = |address| forward.sources.admits(address);
            if let Some(client) = self.suggestion.hosts.client(by, beside, admits) {
                self.passes(client, by, port, &format!("hairpin in by {by}"));
            }
        }
        let interfaces = &self.suggestion.routes.interfaces;
        let mut others = interfaces.iter().copied();
        let other = others.find(|by| !forward.entrances().any(|one| one == *by));
        if let Some(by) = other
            && let Some(client) = self.any_allowed(by)
        {
            self.ends(client, by, self.at(port), &format!("not in by {by}"));
            // A listener for all addresses may take it there.
            self.passes(client, by, port, &format!("another listener, in by {by}"));
        }
    }

    /// Adds a refused client by each interface of arrival other than the first.
    fn refused_elsewhere(&mut self, first: &'s Interface) {
        let others = self.forward.entrances().filter(|by| *by != first);
        for by in others {
            self.refused_by(by);
        }
    }

    fn refused_by(&mut self, by: &'s Interface) {
        let sources = &self.forward.sources;
        if sources.allow.is_none() && sources.deny.is_empty() {
            return;
        }
        let denied = spread(sources.deny.as_slice());
        let denied = denied.flat_map(|net| within(*net, NetEnd::Last));
        let some = denied.chain(clients(self.family()));
        let refuses = |address| !sources.admits(address);
        if let Some(client) = self.suggestion.hosts.client(by, some, refuses) {
            let port = self.forward.listen.ports.first();
            self.ends(client, by, self.at(port), &format!("refused by {by}"));
        }
    }

    /// Adds clients that `deny_from` refuses, of both ends of each network.
    fn refused_clients(&mut self, by: &'s Interface) {
        let sources = &self.forward.sources;
        let port = self.forward.listen.ports.first();
        let nets = spread(sources.deny.as_slice());
        for (net, end) in nets.flat_map(|net| NetEnd::ALL.map(|end| (*net, end))) {
            let allowed = |address| {
                let allow = sources.allow.as_ref();
                allow.is_none_or(|nets| nets.contains(address))
            };
            let hosts = &mut self.suggestion.hosts;
            // Both lists have the first one, so that only the denial refuses it.
            let client = hosts.client(by, within(net, end), allowed);
            let client = client.or_else(|| hosts.client(by, within(net, end), |_| true));
            if let Some(client) = client {
                self.ends(
                    client,
                    by,
                    self.at(port),
                    &format!("denied {}", end.of(net)),
                );
            }
        }
    }

    /// Adds clients right beside the networks of the lists.
    fn beside_lists(&mut self, by: &'s Interface) {
        let sources = &self.forward.sources;
        let port = self.forward.listen.ports.first();
        for net in spread(sources.deny.as_slice()) {
            if let Some(client) = self.allowed(by, beside(*net)) {
                self.passes(client, by, port, &format!("beside the denied {net}"));
            }
        }
        let Some(allow) = &sources.allow else {
            return;
        };
        let outside = |address| !allow.contains(address) && !sources.deny.contains(address);
        let mut is_added = false;
        for net in spread(allow.as_slice()) {
            if let Some(client) = self.suggestion.hosts.client(by, beside(*net), outside) {
                self.ends(client, by, self.at(port), &format!("beside {net}"));
                is_added = true;
            }
        }
        let others = clients(self.family());
        if !is_added && let Some(client) = self.suggestion.hosts.client(by, others, outside) {
            self.ends(client, by, self.at(port), "a client that is not allowed");
        }
    }

    /// Adds the ports beside the listener's, and the other protocol.
    fn other_ports(&mut self, client: IpAddr, by: &'s Interface) {
        let ports = self.forward.listen.ports;
        let below = ports.first().number().checked_sub(1);
        let above = ports.last().number().checked_add(1);
        for port in [below, above].into_iter().flatten().filter_map(Port::new) {
            let words = format!("port {port} is not forwarded");
            self.ends(client, by, self.at(port), &words);
        }
        let mut others = Protocol::ALL.into_iter();
        if let Some(other) = others.find(|other| *other != self.forward.protocol) {
            let attempt = Attempt {
                from: client,
                ingress: by,
                to: self.at(ports.first()),
                protocol: other.into(),
            };
            let words = format!("no {other}");
            self.suggestion.ends(self.about, attempt, &words);
        }
    }

    /// Adds connections past the listener: to a target, to a host beside it, and to another address of the machine.
    fn other_hosts(&mut self, client: IpAddr, by: &'s Interface) {
        let forward = self.forward;
        let port = forward.listen.ports.first();
        for to in forward.target.destinations.iter().take(MOST) {
            let at = host(to.address, forward.port_at(to, port));
            self.ends(client, by, at, &format!("{at} asked directly"));
        }
        if let Some(to) = forward.target.destinations.first() {
            let neighbour = self.suggestion.hosts.server(next_to(to.address), |_| true);
            for port in [port, forward.port_at(to, port)] {
                if let Some(address) = neighbour {
                    let at = host(address, port);
                    self.ends(client, by, at, &format!("transit to {at}"));
                }
            }
        }
        if let Some(listen) = forward.listen.address {
            let own = self.suggestion.routes.own(forward.family());
            let own: Vec<IpAddr> = own.filter(|own| *own != listen).collect();
            let beside = self.suggestion.hosts.server(near_own(listen), |_| true);
            for address in own.into_iter().take(1).chain(beside) {
                let at = host(address, port);
                self.ends(client, by, at, &format!("{at} does not listen"));
            }
        }
    }

    /// Returns the first of some addresses that a client can have and that the forward admits.
    fn allowed(
        &mut self,
        by: &'s Interface,
        some: impl IntoIterator<Item = IpAddr>,
    ) -> Option<IpAddr> {
        let sources = &self.forward.sources;
        let admits = |address| sources.admits(address);
        self.suggestion.hosts.client(by, some, admits)
    }

    /// Returns a client of any network that the forward admits.
    fn any_allowed(&mut self, by: &'s Interface) -> Option<IpAddr> {
        let Some(nets) = &self.forward.sources.allow else {
            return self.allowed(by, clients(self.family()));
        };
        let mut nets = spread(nets.as_slice());
        nets.find_map(|net| self.allowed(by, within(*net, NetEnd::First)))
    }

    fn anybody(&mut self, by: &'s Interface) -> Option<IpAddr> {
        let some = clients(self.family());
        self.suggestion.hosts.client(by, some, |_| true)
    }

    fn passes(&mut self, from: IpAddr, ingress: &'s Interface, port: Port, words: &str) {
        let (attempt, words) = self.attempt(from, ingress, self.at(port), words);
        self.suggestion.passes(self.about, attempt, &words);
    }

    fn ends(&mut self, from: IpAddr, ingress: &'s Interface, to: TestDestination, words: &str) {
        let (attempt, words) = self.attempt(from, ingress, to, words);
        self.suggestion.ends(self.about, attempt, &words);
    }

    /// Returns a connection of the forward's protocol. A forward may have both, so its words name UDP.
    fn attempt(
        &self,
        from: IpAddr,
        ingress: &'s Interface,
        to: TestDestination,
        words: &str,
    ) -> (Attempt<'s>, String) {
        let attempt = Attempt {
            from,
            ingress,
            to,
            protocol: self.forward.protocol.into(),
        };
        let words = match self.forward.protocol {
            Protocol::Tcp => words.to_owned(),
            Protocol::Udp => format!("{words}, udp"),
        };
        (attempt, words)
    }

    /// Returns a port at the address of the listener.
    fn at(&self, port: Port) -> TestDestination {
        let (family, protocol) = (self.family(), self.forward.protocol);
        let Suggestion { judge, routes, .. } = &*self.suggestion;
        let of_listener = self.forward.listen.address;
        let address = of_listener.or_else(|| {
            // A listener for one address of the machine may take the port at some addresses.
            let is_taken = judge.is_addressed(family, protocol, port);
            let mut own = routes.own(family).filter(|_| is_taken);
            own.find(|address| !routes.is_listener(*address))
        });
        address.map_or(TestDestination::Machine(port), |address| {
            host(address, port)
        })
    }

    fn family(&self) -> Family {
        self.forward.family()
    }
}

fn host(address: IpAddr, port: Port) -> TestDestination {
    TestDestination::Host(TestHost {
        address,
        port: Some(port),
    })
}
