//! Random machines with the plans of random specs, and random connections through them.
//!
//! Routes, clients and addresses are random as well, so many connections do not end as the spec wants. Specs have no
//! limits here: these count the connections that came before.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;
use nvactl::forwards::{Balance, ForwardSet, Nets, OutboundProtocol, Snat};
use nvactl::net::{AddressRange, Family, Port, PortRange, Protocol, not_a_host};
use nvactl::netfilter::conntrack::is_of_host;
use nvactl::plan::plan;
use nvactl::twin::connection::Connection;
use nvactl::twin::talk::From;

use crate::chance::Chance;
use crate::lab::Backend;
use crate::sides::{Sides, link_address, router_address};

/// A machine with the plan of a spec, and everything from which connections are chosen.
pub struct RandomMachine {
    set: ForwardSet,
    pub sides: Sides,
    pub names: Vec<String>,
    /// The addresses of the firewall.
    own: BTreeSet<IpAddr>,
    /// The clients with their sides.
    clients: Vec<(IpAddr, usize)>,
    /// Addresses to which connections go directly.
    servers: Vec<IpAddr>,
    chance: Chance,
}

impl RandomMachine {
    /// Returns how many ends a connection may have by chance: the forwards of its port choose among several targets.
    pub fn ends(&self, connection: &Connection) -> usize {
        let forwards = self.set.forwards.iter().filter(|forward| {
            connection.protocol.transport() == Some(forward.protocol)
                && forward.family() == Family::of(connection.to)
                && connection
                    .port
                    .is_some_and(|port| forward.listen.ports.contains(port))
                && forward.target.balance == Balance::Random
        });
        let targets = forwards.map(|forward| forward.target.destinations.len());
        targets.sum::<usize>().max(1)
    }

    /// Makes the machine, and clients and servers behind each interface.
    pub fn new(mut set: ForwardSet, mut chance: Chance, backend: Backend) -> Self {
        for forward in &mut set.forwards {
            forward.limits = None;
        }
        for entry in &mut set.outbound {
            entry.limits = None;
        }
        let names: Vec<String> = set.interfaces().iter().map(ToString::to_string).collect();
        let sides = Sides::new(backend, &names);
        let (own, addresses) = addresses(&set, &names);
        let servers = servers(&set, &own);
        let clients = clients(&set, &names, (&own, &servers), &mut chance);
        for side in 0..names.len() {
            let here = clients.iter().filter(|(_, of)| *of == side);
            let here: Vec<IpAddr> = here.map(|(address, _)| *address).collect();
            sides.add_clients(side, &here);
        }
        let mut machine = Self {
            set,
            sides,
            names,
            own,
            clients,
            servers,
            chance,
        };
        machine.configure(&addresses);
        machine
    }

    /// Gives the firewall its addresses, routes and rules.
    fn configure(&mut self, addresses: &str) {
        for (family, option) in [(Family::V4, "-4"), (Family::V6, "-6")] {
            let addresses: String = addresses
                .lines()
                .filter(|line| line.contains(':') == (family == Family::V6))
                .map(|line| format!("{line}\n"))
                .collect();
            let routes = self.routes(family);
            self.sides.firewall.ip(option, &(addresses + &routes));
            let program = match family {
                Family::V4 => "iptables-restore",
                Family::V6 => "ip6tables-restore",
            };
            let text = plan(&self.set, family).to_string();
            let loaded = self.sides.firewall.feed(program, &[], &text);
            assert!(loaded.status.success(), "{loaded:?}\n{text}");
        }
        if self.chance.below(4) == 0 {
            let script = "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $f; done";
            self.sides.firewall.shell(script);
        }
    }

    /// Returns routes to targets and clients. Most lead where the spec wants them.
    fn routes(&mut self, family: Family) -> String {
        let mut by: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for forward in &self.set.forwards {
            let side = number(&self.names, forward.egress.as_str());
            for to in &forward.target.destinations {
                by.entry(to.address).or_insert(side);
            }
        }
        for (client, side) in &self.clients {
            by.insert(*client, *side);
        }
        let mut text = String::new();
        let everything = self.chance.index(self.names.len());
        let mut add = |to: &str, side: usize| {
            let (router, name) = (router_address(family, side), &self.names[side]);
            let _ = writeln!(text, "route add {to} via {router} dev {name}");
        };
        add("default", everything);
        for (address, side) in by {
            if Family::of(address) != family || self.own.contains(&address) {
                continue;
            }
            let side = if self.chance.below(12) == 0 {
                self.chance.index(self.names.len())
            } else {
                side
            };
            add(&address.to_string(), side);
        }
        text
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.chance.index(of.len())])
    }

    /// Returns a random connection.
    pub fn connection(&mut self) -> Option<Connection> {
        let (mut protocol, from, to, port) = match self.chance.below(12) {
            0..7 => self.ends_at_listener()?,
            7 => self.ends_at_target()?,
            8..11 => self.ends_of_entry()?,
            _ => self.ends_anywhere()?,
        };
        if self.chance.below(10) == 0 {
            protocol = match self.chance.below(3) {
                0 => OutboundProtocol::Tcp,
                1 => OutboundProtocol::Udp,
                _ => OutboundProtocol::Ping,
            };
        }
        let bytes = match protocol {
            OutboundProtocol::Tcp => [64, 5000][self.chance.index(2)],
            OutboundProtocol::Udp | OutboundProtocol::Ping => 64,
        };
        let (client, side) = from;
        Some(Connection {
            protocol,
            client,
            client_port: None,
            from: From::World(side),
            to,
            port: Some(port).filter(|_| protocol != OutboundProtocol::Ping),
            bytes,
        })
    }

    fn client(&mut self, family: Family) -> Option<(IpAddr, usize)> {
        let clients: Vec<_> = self.clients.clone();
        let of_family = clients
            .into_iter()
            .filter(|(one, _)| Family::of(*one) == family);
        self.one(&of_family.collect::<Vec<_>>())
    }

    /// Returns a client that a forward or an entry admits, more often than another one.
    fn admitted(
        &mut self,
        family: Family,
        admits: impl Fn((IpAddr, usize)) -> bool,
    ) -> Option<(IpAddr, usize)> {
        for _ in 0..self.chance.below(40) {
            let client = self.client(family)?;
            if admits(client) {
                return Some(client);
            }
        }
        self.client(family)
    }

    fn ends_at_listener(&mut self) -> Option<Ends> {
        let forward = &self.set.forwards.clone();
        let forward = &forward[self.index(forward.len())?];
        let family = forward.family();
        let names = self.names.clone();
        let client = self.admitted(family, |(client, side)| {
            let mut entrances = forward.entrances();
            entrances.any(|one| one.as_str() == names[side]) && forward.sources.admits(client)
        })?;
        let own = self.own.iter().filter(|one| Family::of(**one) == family);
        let own: Vec<IpAddr> = own.copied().collect();
        let address = match forward.listen.address {
            Some(address) if self.chance.below(8) > 0 => address,
            _ if self.chance.below(3) > 0 => link_address(family, client.1),
            _ => self.one(&own)?,
        };
        let port = self.port(forward.listen.ports);
        Some((forward.protocol.into(), client, address, port))
    }

    fn ends_at_target(&mut self) -> Option<Ends> {
        let forward = &self.set.forwards.clone();
        let forward = &forward[self.index(forward.len())?];
        let client = self.client(forward.family())?;
        let to = self.one(&forward.target.destinations)?;
        let port = self.port(forward.ports_at(&to));
        Some((forward.protocol.into(), client, to.address, port))
    }

    fn ends_of_entry(&mut self) -> Option<Ends> {
        let entries = self.set.outbound.clone();
        let entry = &entries[self.index(entries.len())?];
        let names = self.names.clone();
        let client = self.admitted(entry.family, |(client, side)| {
            let mut entrances = entry.ingress.iter();
            entrances.any(|one| one.as_str() == names[side]) && entry.allow_from.contains(client)
        })?;
        let servers: Vec<IpAddr> = self.servers.clone();
        let servers = servers
            .into_iter()
            .filter(|one| Family::of(*one) == entry.family);
        let to = self.one(&servers.collect::<Vec<_>>())?;
        let port = match self.one(&entry.ports) {
            Some(ports) => self.port(ports),
            None => self.any_port(),
        };
        Some((self.one(&entry.protocols)?, client, to, port))
    }

    fn ends_anywhere(&mut self) -> Option<Ends> {
        let family = [Family::V4, Family::V6][self.chance.index(2)];
        let client = self.client(family)?;
        let servers: Vec<IpAddr> = self.servers.iter().chain(&self.own).copied().collect();
        let servers = servers.into_iter().filter(|one| Family::of(*one) == family);
        let to = self.one(&servers.collect::<Vec<_>>())?;
        Some((Protocol::Tcp.into(), client, to, self.any_port()))
    }

    fn index(&mut self, length: usize) -> Option<usize> {
        (length > 0).then(|| self.chance.index(length))
    }

    fn any_port(&mut self) -> Port {
        let number = 1 + self.chance.below(u64::from(u16::MAX) - 1);
        u16::try_from(number)
            .ok()
            .and_then(Port::new)
            .unwrap_or(Port::MIN)
    }

    /// Returns a port of a range, or sometimes one beside it.
    fn port(&mut self, ports: PortRange) -> Port {
        let more = self.chance.below(u64::from(ports.count()) + 1);
        let first = u64::from(ports.first().number());
        let number = match self.chance.below(12) {
            0 => first - 1,
            _ => first + more.min(u64::from(ports.count()) - u64::from(self.chance.below(10) > 0)),
        };
        u16::try_from(number)
            .ok()
            .and_then(Port::new)
            .unwrap_or(Port::MIN)
    }

    /// Returns the source that a host saw; for an address of a `snat` range the first one, because the kernel chooses one
    /// by a number of its own.
    pub fn source(&self, seen: IpAddr) -> IpAddr {
        let ranges = ranges(&self.set);
        let range = ranges.iter().find(|range| {
            Family::of(seen) == range.family() && (range.first()..=range.last()).contains(&seen)
        });
        range.map_or(seen, |range| range.first())
    }

    /// Returns the number of the side behind an interface.
    pub fn side(&self, name: &str) -> usize {
        number(&self.names, name)
    }

    /// Describes a connection for people.
    pub fn words(&self, connection: &Connection) -> String {
        let From::World(side) = connection.from else {
            return connection.to_string();
        };
        format!("{connection} in by {}", self.names[side])
    }
}

/// The protocol, client, address and port of a connection.
type Ends = (OutboundProtocol, (IpAddr, usize), IpAddr, Port);

fn number(names: &[String], name: &str) -> usize {
    let found = names.iter().position(|one| one == name);
    found.expect("the spec names the interface")
}

/// Returns the ranges of `snat`, those that overlap as one.
fn ranges(set: &ForwardSet) -> Vec<AddressRange> {
    let of_forwards = set.forwards.iter().map(|one| one.snat);
    let all = of_forwards.chain(set.outbound.iter().map(|one| one.snat));
    let ranges = all.filter_map(|snat| match snat {
        Snat::Addresses(range) => Some(range),
        Snat::Masquerade | Snat::Client => None,
    });
    let mut ranges: Vec<AddressRange> = ranges.collect();
    ranges.sort_by_key(|range| range.first());
    let mut joined: Vec<AddressRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.first() <= last.last() => {
                let end = last.last().max(range.last());
                *last = AddressRange::new(last.first(), end).expect("both are of one family");
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// Returns the firewall's addresses, and the words of `ip` that add those of listeners and `snat`.
fn addresses(set: &ForwardSet, names: &[String]) -> (BTreeSet<IpAddr>, String) {
    let mut all = BTreeSet::new();
    let mut text = String::new();
    for side in 0..names.len() {
        all.extend(Family::ALL.map(|family| link_address(family, side)));
    }
    let mut add = |address: IpAddr, interface: &str| {
        if all.insert(address) {
            let _ = writeln!(text, "address add {address} dev {interface}");
        }
    };
    let of_forwards = set.forwards.iter().map(|one| (one.snat, &one.egress));
    let of_entries = set.outbound.iter().map(|one| (one.snat, &one.egress));
    for (snat, egress) in of_forwards.chain(of_entries) {
        if let Snat::Addresses(range) = snat {
            add(range.first(), egress.as_str());
            add(range.last(), egress.as_str());
        }
    }
    for forward in &set.forwards {
        if let (Some(address), Some(by)) = (forward.listen.address, forward.ingress.first()) {
            add(address, by.as_str());
        }
    }
    (all, text)
}

fn is_host(address: IpAddr) -> bool {
    is_of_host(address) && not_a_host(address).is_none()
}

/// Returns the addresses to which connections go.
fn servers(set: &ForwardSet, own: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
    let fixed = [
        "81.2.69.142",
        "192.0.2.80",
        "10.224.0.250",
        "10.0.0.53",
        "169.254.169.254",
        "168.63.129.16",
        "2a02:cf40::1",
        "2001:db8:80::80",
        "fd00:224::250",
    ];
    let fixed = fixed
        .into_iter()
        .map(|one| one.parse().expect("an address"));
    let targets = set.forwards.iter().flat_map(|one| &one.target.destinations);
    let targets = targets.map(|to| to.address);
    let listed = set.outbound.iter().flat_map(|entry| {
        let nets = entry.allow_to.nets.as_slice().iter().take(6);
        nets.chain(entry.deny_to.as_slice().iter().take(3))
    });
    let listed = listed
        .filter_map(|net| host_of(*net))
        .filter(|one| is_host(*one));
    let all: BTreeSet<IpAddr> = fixed.chain(targets).chain(listed).collect();
    all.difference(own).copied().collect()
}

/// Returns a host of a network.
fn host_of(net: IpNet) -> Option<IpAddr> {
    net.hosts().nth(6).or_else(|| net.hosts().next())
}

/// Returns clients on each side: of everywhere, and of the networks that the spec names.
fn clients(
    set: &ForwardSet,
    names: &[String],
    (own, servers): (&BTreeSet<IpAddr>, &[IpAddr]),
    chance: &mut Chance,
) -> Vec<(IpAddr, usize)> {
    let mut found: BTreeMap<IpAddr, usize> = BTreeMap::new();
    let mut add = |address: IpAddr, side: usize| {
        if is_host(address) && !own.contains(&address) && !servers.contains(&address) {
            found.entry(address).or_insert(side);
        }
    };
    for side in 0..names.len() {
        for client in [
            format!("198.51.100.{}", side + 7),
            format!("10.224.{side}.251"),
            format!("2001:db8:51::{:x}", side + 7),
            format!("fd00:224::{side:x}:251"),
        ] {
            add(client.parse().expect("an address"), side);
        }
    }
    let of_forwards = set.forwards.iter().flat_map(|one| {
        let allowed = one.sources.allow.iter().flat_map(Nets::as_slice);
        let nets = allowed
            .take(4)
            .chain(one.sources.deny.as_slice().iter().take(2));
        nets.map(|net| (*net, &one.ingress))
    });
    let of_entries = set.outbound.iter().flat_map(|one| {
        let nets = one.allow_from.as_slice().iter().take(4);
        let nets = nets.chain(one.deny_from.as_slice().iter().take(2));
        nets.map(|net| (*net, &one.ingress))
    });
    for (net, ingress) in of_forwards.chain(of_entries) {
        let by = ingress[chance.index(ingress.len())].as_str();
        if let Some(host) = host_of(net) {
            add(host, number(names, by));
        }
    }
    found.into_iter().collect()
}
