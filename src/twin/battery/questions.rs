//! The connections of one forward.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeFrom;

use super::ask::{Ask, Subject, Wanted, reached};
use crate::forwards::{Balance, Forward};
use crate::net::{Interface, Port, Protocol};
use crate::twin::clients::{ClientKind, Clients, OfForward, SampleClient, is_public};
use crate::twin::machine::{Address, LinkKind, Machine};
use crate::twin::talk::{From, Question};
use crate::twin::world::World;

/// The bytes of a plain request.
pub(super) const REQUEST: usize = 64;
/// The bytes of a long request or answer, which also meets limits on bytes, lengths and the size of packets.
pub(super) const LONG: usize = 20_000;
/// The bytes of an answer by UDP that no interface fragments.
const DATAGRAM: usize = 512;
/// How many connections are opened for each target until all of several targets were seen.
const ROUNDS: usize = 8;
/// The most ports of a range that are tried because rules name them.
pub(super) const PORTS: usize = 8;

/// Returns the bytes of an answer.
pub(super) fn plain_answer(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Tcp => LONG,
        Protocol::Udp => DATAGRAM,
    }
}

/// A forward with everything that its connections depend on.
pub struct ForwardQuestions<'b, 'f> {
    pub forward: &'f Forward,
    pub machine: &'b Machine,
    pub clients: &'b Clients,
    pub worlds: &'b [World],
}

impl<'f> ForwardQuestions<'_, 'f> {
    /// Adds a connection for each port of a range that rules of others name, at the listener or at a target.
    pub fn named_ports(
        &self,
        clients: &OfForward<'f>,
        named: &BTreeSet<u16>,
        asks: &mut Vec<Ask<'f>>,
    ) {
        let (forward, ports) = (self.forward, self.forward.listen.ports);
        let Some((client, by)) = clients.allowed.first().filter(|_| ports.count() > 1) else {
            return;
        };
        let is_named = |port: &Port| {
            let at_targets = forward.target.destinations.iter();
            let mut at_targets = at_targets.map(|at| reached(forward, at, *port).port());
            named.contains(&port.number()) || at_targets.any(|at| named.contains(&at))
        };
        let all = (ports.first().number()..=ports.last().number()).filter_map(Port::new);
        let some = all.filter(is_named).take(PORTS);
        asks.extend(some.filter_map(|port| self.ask(client, by, port, Wanted::Through)));
    }

    /// Adds a plain connection, and one of a client that the forward keeps out.
    pub fn brief(&self, clients: &OfForward<'f>, asks: &mut Vec<Ask<'f>>) {
        let first = self.forward.listen.ports.first();
        let allowed = clients.allowed.first().map(|one| (one, Wanted::Through));
        let denied = clients.denied.first().map(|one| (one, Wanted::KeptOut));
        for ((client, by), wanted) in allowed.into_iter().chain(denied) {
            let ask = self.ask(client, by, first, wanted);
            asks.extend(ask.map(|ask| Ask {
                is_brief: true,
                ..ask
            }));
        }
    }

    /// Adds all other connections: a large request, the last port, each client, each address, the hairpin.
    pub fn rest(&self, clients: &OfForward<'f>, asks: &mut Vec<Ask<'f>>) {
        let forward = self.forward;
        let ports = forward.listen.ports;
        if let Some((first, by)) = clients.allowed.first() {
            // A large request, such as an upload.
            if forward.protocol == Protocol::Tcp {
                let plain = self.ask(first, by, ports.first(), Wanted::Through);
                asks.extend(plain.map(|mut ask| {
                    ask.question.request = LONG;
                    ask.times = 1;
                    ask
                }));
            }
            if ports.count() > 1 {
                asks.extend(self.ask(first, by, ports.last(), Wanted::Through));
            }
            for (client, by) in clients.allowed.iter().skip(1) {
                asks.extend(self.ask(client, by, ports.first(), Wanted::Through));
            }
            // The same client asks for each other address of its interface, and of other interfaces.
            if forward.listen.address.is_none() {
                let family = forward.family();
                let of = |name| self.machine.link(name).into_iter();
                let of = |name| of(name).flat_map(|link| link.of(family));
                let own = of(by.as_str()).filter(|address| address.scope != "link");
                // A load balancer with floating IP sends to an address that is set on `lo`.
                let floating = of("lo").filter(|address| address.scope == "global");
                let elsewhere = self.elsewhere(by);
                let asked = self.address(by, ports.first());
                let all = own.chain(floating).chain(elsewhere);
                let all = all.map(|address| address.net.addr());
                let reach = |to: &IpAddr| self.clients.reach(forward, *to, ports.first());
                let more = all.filter(|to| Some(*to) != asked && reach(to));
                for address in more.take(ROUNDS) {
                    let to = SocketAddr::new(address, ports.first().number());
                    asks.extend(self.ask_at(first, by, to, Wanted::Through));
                }
            }
            if forward.hairpin {
                asks.extend(self.hairpin(ports.first()));
            }
        }
        for (client, by) in clients.denied.iter().skip(1) {
            asks.extend(self.ask(client, by, ports.first(), Wanted::KeptOut));
        }
    }

    /// Returns the addresses of other interfaces to which clients may be sent: those with a network of their own
    /// alone, and public ones.
    fn elsewhere(&self, by: &Interface) -> impl Iterator<Item = &Address> {
        let links = self.machine.links.iter();
        let links =
            links.filter(move |link| link.name != by.as_str() && link.kind != LinkKind::Loopback);
        let family = self.forward.family();
        links
            .flat_map(move |link| link.of(family))
            .filter(|address| {
                let is_alone = address.net.prefix_len() == address.net.max_prefix_len();
                address.scope == "global" && (is_alone || is_public(address.net.addr()))
            })
    }

    /// Adds connections of more clients until each target was seen, if a client's address chooses the target.
    pub fn shares(
        &self,
        clients: &OfForward<'f>,
        numbers: &mut RangeFrom<usize>,
        asks: &mut Vec<Ask<'f>>,
    ) {
        let target = &self.forward.target;
        let (count, port) = (target.destinations.len(), self.forward.listen.ports.first());
        let Some((first, by)) = clients.allowed.first() else {
            return;
        };
        if count < 2 || target.balance != Balance::Client {
            return;
        }
        let alike = self
            .clients
            .alike(self.forward, first, numbers, count * ROUNDS);
        let alike = alike
            .iter()
            .filter_map(|client| self.ask(client, by, port, Wanted::Through));
        asks.extend(alike.map(|ask| Ask {
            is_spare: true,
            ..ask
        }));
    }

    /// Returns a connection of a host behind the firewall, next to the target.
    fn hairpin(&self, port: Port) -> Option<Ask<'f>> {
        let forward = self.forward;
        let link = self.machine.link(forward.egress.as_str())?;
        let family = forward.family();
        let mut nets = link.of(family).filter(|address| address.scope != "link");
        let net = nets.next()?.on_link();
        let targets = &forward.target.destinations;
        let mut hosts = net.hosts().skip(8).take(256);
        let address = hosts.find(|host| {
            link.addresses.iter().all(|own| own.net.addr() != *host)
                && !self.machine.is_dead(*host)
                && targets.iter().all(|to| to.address != *host)
                && forward.sources.admits(*host)
        })?;
        let client = SampleClient {
            address,
            kind: ClientKind::Near(net),
        };
        self.ask(&client, &forward.egress, port, Wanted::Through)
    }

    /// Returns a connection to a port of the listener; `None` if the machine has no address there.
    pub fn ask(
        &self,
        client: &SampleClient,
        by: &'f Interface,
        port: Port,
        wanted: Wanted,
    ) -> Option<Ask<'f>> {
        let address = self.address(by, port)?;
        self.ask_at(client, by, SocketAddr::new(address, port.number()), wanted)
    }

    /// Returns the address that a client asks for; `None` if the machine has none there that another forward does not
    /// take.
    fn address(&self, by: &Interface, port: Port) -> Option<IpAddr> {
        if let Some(address) = self.forward.listen.address {
            return Some(address);
        }
        let family = self.forward.family();
        // A host behind the firewall asks for the address that clients know.
        let interfaces = [Some(by), self.forward.ingress.first()].into_iter();
        let links = interfaces.filter_map(|name| self.machine.link(name?.as_str()));
        let own = links.flat_map(|link| link.of(family));
        let own = own.filter(|address| address.scope != "link");
        let mut own = own.map(|address| address.net.addr());
        own.find(|own| self.clients.reach(self.forward, *own, port))
    }

    /// Returns a connection to an address and port; `None` if the interface has no world.
    fn ask_at(
        &self,
        client: &SampleClient,
        by: &'f Interface,
        to: SocketAddr,
        wanted: Wanted,
    ) -> Option<Ask<'f>> {
        let forward = self.forward;
        let port = Port::new(to.port())?;
        let from = self
            .worlds
            .iter()
            .position(|world| world.interface == by.as_str())?;
        let destinations = forward.target.destinations.iter();
        Some(Ask {
            of: Subject::Forward(forward),
            client: client.clone(),
            by,
            wanted,
            question: Question {
                protocol: forward.protocol,
                client: client.address,
                from: From::World(from),
                to,
                listeners: destinations.map(|at| reached(forward, at, port)).collect(),
                request: REQUEST,
                answer: plain_answer(forward.protocol),
            },
            times: self.times(wanted),
            is_brief: false,
            is_spare: false,
            named: None,
        })
    }

    /// Returns how often a connection is tried at most until each target was seen.
    fn times(&self, wanted: Wanted) -> usize {
        let targets = self.forward.target.destinations.len();
        let is_shared = targets > 1
            && wanted == Wanted::Through
            && self.forward.target.balance == Balance::Random;
        if is_shared { targets * ROUNDS } else { 1 }
    }
}
