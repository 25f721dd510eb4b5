//! The connections that are opened through a twin for a spec's forwards.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeFrom;

use ipnet::IpNet;

use super::clients::{Client, ClientKind, Clients, OfForward, is_public};
use super::machine::{Address, Kind, Machine};
use super::talk::{From, Question};
use super::world::World;
use crate::forwards::{Balance, Destination, Forward, Limits, Per, Sources, TargetPorts};
use crate::net::{Family, Interface, Port, Protocol};
use crate::plan::unplan::Key;

/// A short answer tells whether packets pass; a long one also meets limits on bytes, lengths and the size of
/// packets.
const REQUEST: usize = 64;
const LONG: usize = 20_000;
/// What a datagram holds that no interface cuts.
const DATAGRAM: usize = 512;
/// Several targets share connections: so many times their number is asked until each was seen.
const ROUNDS: usize = 8;

/// A connection to be opened for a forward.
#[derive(Debug, Clone)]
pub struct Ask<'f> {
    pub forward: &'f Forward,
    pub client: Client,
    /// Where the client comes in.
    pub by: &'f Interface,
    pub wanted: Wanted,
    pub question: Question,
    /// At most so many times it is asked, until each of several targets was seen.
    pub times: usize,
    /// Whether it is one of the few that every forward gets: they come before the rest of all forwards.
    pub is_brief: bool,
    /// Whether it is tried only while one of the forward's targets was not seen.
    pub is_spare: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Through,
    KeptOut,
}

/// Returns the connections for each forward: a plain one and one of a client that its lists keep out. Behind
/// those of all forwards stands, for one forward of each shape and for each of `in_doubt`, the rest.
#[must_use]
pub fn battery<'f>(
    forwards: &[&'f Forward],
    clients: &Clients,
    machine: &Machine,
    worlds: &[World],
    in_doubt: &BTreeSet<Key<'_>>,
) -> Vec<Ask<'f>> {
    let mut shapes: BTreeSet<Shape<'f>> = BTreeSet::new();
    let (mut asks, mut rest) = (Vec::new(), Vec::new());
    // Each forward has a client of the Internet of its own: none is banned for what it asked of another.
    let mut numbers = forwards.len()..;
    for (number, forward) in forwards.iter().enumerate() {
        let of_forward = clients.of_forward(forward, number);
        let building = Building {
            forward,
            machine,
            worlds,
        };
        let (mut brief, mut more) = (Vec::new(), Vec::new());
        building.brief(&of_forward, &mut brief);
        building.shares(&of_forward, clients, &mut numbers, &mut more);
        building.named_ports(&of_forward, &clients.ports, &mut more);
        let key = (forward.name.as_str(), forward.protocol);
        if shapes.insert(Shape::of(forward)) || in_doubt.contains(&key) {
            building.rest(&of_forward, &mut more);
        }
        let mut budget = Budget::of(forward, 1);
        brief.retain_mut(|ask| budget.takes(ask));
        more.retain_mut(|ask| budget.takes(ask));
        asks.append(&mut brief);
        rest.append(&mut more);
    }
    asks.append(&mut rest);
    asks
}

/// Returns a plain connection of every client that a forward admits, for each forward.
pub fn plain<'a, 'f: 'a>(
    forwards: &'a [&'f Forward],
    clients: &'a Clients,
    machine: &'a Machine,
    worlds: &'a [World],
) -> impl Iterator<Item = Ask<'f>> + 'a {
    forwards
        .iter()
        .enumerate()
        .flat_map(move |(number, forward)| {
            let building = Building {
                forward,
                machine,
                worlds,
            };
            let port = forward.listen.ports.first();
            let admitted = clients.of_forward(forward, number).allowed.into_iter();
            let asks = admitted
                .filter_map(move |(client, by)| building.ask(&client, by, port, Wanted::Through));
            // Each may be opened twice.
            let mut budget = Budget::of(forward, 2);
            asks.filter_map(move |mut ask| budget.takes(&mut ask).then_some(ask))
        })
}

/// The connections that a forward's own limits admit at once, since the kernel counts each that is tried.
#[derive(Debug)]
struct Budget {
    limits: Option<Limits>,
    most: usize,
    /// By the client where the limits are for each of them.
    used: BTreeMap<Option<IpNet>, usize>,
}

impl Budget {
    /// `share`: how often each connection may be opened.
    fn of(forward: &Forward, share: usize) -> Self {
        let most = forward.limits.map_or(usize::MAX, |limits| {
            let burst = limits.rate.map_or(u32::MAX, |rate| rate.burst);
            let most = burst.min(limits.max_connections.unwrap_or(u32::MAX));
            usize::try_from(most).unwrap_or(usize::MAX)
        });
        // Some are opened again to find out what takes them.
        let most = (most - most / 8) / share;
        Self {
            limits: forward.limits,
            most,
            used: BTreeMap::new(),
        }
    }

    /// Whether a connection fits. It is tried fewer times then, if need be.
    fn takes(&mut self, ask: &mut Ask<'_>) -> bool {
        let Some(limits) = self.limits.filter(|_| ask.wanted == Wanted::Through) else {
            return true;
        };
        let key = match limits.per {
            Per::Total => None,
            Per::Client => Some(of_one_client(ask.client.address)),
        };
        let used = self.used.entry(key).or_default();
        // The first is tried under any limit.
        let left = self.most.saturating_sub(*used).max(usize::from(*used == 0));
        // Others are to have a share as well.
        let times = if *used == 0 { ask.times } else { 1 };
        ask.times = times.min(left);
        *used += ask.times;
        ask.times > 0
    }
}

/// Returns the addresses that limits take for one client's: a network of IPv6.
fn of_one_client(address: IpAddr) -> IpNet {
    let length = match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 64,
    };
    IpNet::new(address, length).map_or(IpNet::from(address), |net| net.trunc())
}

/// Two forwards of one shape differ in their ports and targets alone.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shape<'f> {
    protocol: Protocol,
    family: Family,
    address: Option<IpAddr>,
    ingress: &'f [Interface],
    egress: &'f Interface,
    snat: crate::forwards::Snat,
    sources: &'f Sources,
    limits: Option<Limits>,
    hairpin: bool,
    targets: usize,
}

impl<'f> Shape<'f> {
    fn of(forward: &'f Forward) -> Self {
        Self {
            protocol: forward.protocol,
            family: forward.family(),
            address: forward.listen.address,
            ingress: &forward.ingress,
            egress: &forward.egress,
            snat: forward.snat,
            sources: &forward.sources,
            limits: forward.limits,
            hairpin: forward.hairpin,
            targets: forward.target.destinations.len(),
        }
    }
}

struct Building<'b, 'f> {
    forward: &'f Forward,
    machine: &'b Machine,
    worlds: &'b [World],
}

/// At most so many ports of a range are tried for the rules that name them.
const PORTS: usize = 8;

impl<'f> Building<'_, 'f> {
    /// Asks for the ports of a range that rules of others name, at the listener or at a target.
    fn named_ports(&self, clients: &OfForward<'f>, named: &BTreeSet<u16>, asks: &mut Vec<Ask<'f>>) {
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

    fn brief(&self, clients: &OfForward<'f>, asks: &mut Vec<Ask<'f>>) {
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

    fn rest(&self, clients: &OfForward<'f>, asks: &mut Vec<Ask<'f>>) {
        let forward = self.forward;
        let ports = forward.listen.ports;
        if let Some((first, by)) = clients.allowed.first() {
            // A large request, as an upload.
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
            // The same client by each other address where it comes in.
            if forward.listen.address.is_none() {
                let family = forward.family();
                let of = |name| self.machine.link(name).into_iter();
                let of = |name| of(name).flat_map(|link| link.of(family));
                let own = of(by.as_str()).filter(|address| address.scope != "link");
                // A load balancer with a floating IP sends to an address that is set on `lo`.
                let floating = of("lo").filter(|address| address.scope == "global");
                let elsewhere = self.elsewhere(by);
                let more = own.skip(1).chain(floating).chain(elsewhere).take(ROUNDS);
                for address in more {
                    let to = SocketAddr::new(address.net.addr(), ports.first().number());
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

    /// Returns the addresses of other interfaces to which clients may be sent: those that stand alone, and
    /// those of the Internet.
    fn elsewhere(&self, by: &Interface) -> impl Iterator<Item = &Address> {
        let links = self.machine.links.iter();
        let links =
            links.filter(move |link| link.name != by.as_str() && link.kind != Kind::Loopback);
        let family = self.forward.family();
        links
            .flat_map(move |link| link.of(family))
            .filter(|address| {
                let is_alone = address.net.prefix_len() == address.net.max_prefix_len();
                address.scope == "global" && (is_alone || is_public(address.net.addr()))
            })
    }

    /// Asks for clients until each target was seen, where a client's address chooses the target.
    fn shares(
        &self,
        clients: &OfForward<'f>,
        all: &Clients,
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
        let alike = all.alike(self.forward, first, numbers, count * ROUNDS);
        let alike = alike
            .iter()
            .filter_map(|client| self.ask(client, by, port, Wanted::Through));
        asks.extend(alike.map(|ask| Ask {
            is_spare: true,
            ..ask
        }));
    }

    /// A host behind the firewall, beside the target.
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
        let client = Client {
            address,
            kind: ClientKind::Near(net),
        };
        self.ask(&client, &forward.egress, port, Wanted::Through)
    }

    fn ask(
        &self,
        client: &Client,
        by: &'f Interface,
        port: Port,
        wanted: Wanted,
    ) -> Option<Ask<'f>> {
        let address = match self.forward.listen.address {
            Some(address) => address,
            None => {
                let ingress = self.forward.ingress.first()?;
                let link = self.machine.link(by.as_str());
                let family = self.forward.family();
                let own = link.and_then(|link| link.first(family));
                // Somebody behind the firewall asks for the address that clients know.
                let own = own.or_else(|| self.machine.link(ingress.as_str())?.first(family));
                own?
            }
        };
        self.ask_at(client, by, SocketAddr::new(address, port.number()), wanted)
    }

    fn ask_at(
        &self,
        client: &Client,
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
        let (request, answer) = match forward.protocol {
            Protocol::Tcp => (REQUEST, LONG),
            Protocol::Udp => (REQUEST, DATAGRAM),
        };
        let destinations = forward.target.destinations.iter();
        Some(Ask {
            forward,
            client: client.clone(),
            by,
            wanted,
            question: Question {
                protocol: forward.protocol,
                client: client.address,
                from: From::World(from),
                to,
                listeners: destinations.map(|at| reached(forward, at, port)).collect(),
                request,
                answer,
            },
            times: self.times(wanted),
            is_brief: false,
            is_spare: false,
        })
    }

    /// Returns how often a connection is tried at most, until each target was seen.
    fn times(&self, wanted: Wanted) -> usize {
        let targets = self.forward.target.destinations.len();
        let is_shared = targets > 1
            && wanted == Wanted::Through
            && self.forward.target.balance == Balance::Random;
        if is_shared { targets * ROUNDS } else { 1 }
    }
}

/// Returns the address and port at which a destination gets what is sent to a port of the listener.
pub(super) fn reached(forward: &Forward, at: &Destination, port: Port) -> SocketAddr {
    let number = match at.ports {
        TargetPorts::Kept => port.number(),
        TargetPorts::Range(ports) if ports.count() == 1 => ports.first().number(),
        TargetPorts::Range(ports) => {
            let offset = port.number() - forward.listen.ports.first().number();
            ports.first().number() + offset
        }
    };
    SocketAddr::new(at.address, number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwards::ForwardSet;
    use crate::twin::clients::Named;
    use crate::twin::machine::Link;
    use crate::yaml;

    fn set(forwards: &str) -> ForwardSet {
        let text = format!(
            "firewall: {{interface: {{ingress: eth0, egress: eth1}}, snat: 10.4.0.4}}\n\
             silence: [keeps-probes-out]\nforwards: [{forwards}]"
        );
        yaml::read(text.as_bytes()).expect("it is sound")
    }

    fn asking(set: &ForwardSet) -> (Machine, Vec<World>, Clients) {
        let machine = Machine {
            links: vec![
                Link::with("eth0", &["10.3.0.4/24"]),
                Link::with("eth1", &["10.4.0.4/24"]),
            ],
            ..Machine::default()
        };
        let worlds: Vec<World> = machine.links.iter().map(World::of).collect();
        let none = Named::default();
        let clients = Clients::of(set, Family::V4, &machine, &[], &none, |asked| {
            asked.iter().map(|one| (*one, "eth0".to_owned())).collect()
        });
        (machine, worlds, clients)
    }

    fn asked(set: &ForwardSet) -> Vec<Ask<'_>> {
        let (machine, worlds, clients) = asking(set);
        let forwards: Vec<&Forward> = set.forwards.iter().collect();
        battery(&forwards, &clients, &machine, &worlds, &BTreeSet::new())
    }

    /// Whether a rule that is not loaded is missed is seen in the forward's own connections.
    #[test]
    fn a_forward_in_doubt_has_all_its_connections() {
        let set = set(
            "{name: a, listen: 80-81, target: {pod: 10.224.0.8:80-81}}, \
             {name: b, listen: 82-83, target: {pod: 10.224.0.9:82-83}}",
        );
        let (machine, worlds, clients) = asking(&set);
        let forwards: Vec<&Forward> = set.forwards.iter().collect();
        for in_doubt in [None, Some(("b", Protocol::Tcp))] {
            let in_doubt: BTreeSet<Key<'_>> = in_doubt.into_iter().collect();
            let asks = battery(&forwards, &clients, &machine, &worlds, &in_doubt);
            let last = |ask: &Ask<'_>| ask.question.to.port() == 83;
            assert_eq!(asks.iter().any(last), !in_doubt.is_empty());
        }
    }

    #[test]
    fn an_address_of_a_load_balancer_on_the_loopback_interface_is_asked() {
        let set = set("{name: a, listen: 80, target: {pod: 10.224.0.8:80}}");
        let (mut machine, worlds, clients) = asking(&set);
        machine.links.push(Link::with("lo", &["20.10.5.6/32"]));
        let forwards: Vec<&Forward> = set.forwards.iter().collect();
        let asks = battery(&forwards, &clients, &machine, &worlds, &BTreeSet::new());
        let floating = |ask: &Ask<'_>| ask.question.to.to_string() == "20.10.5.6:80";
        assert!(asks.iter().any(floating));
    }

    /// What the time does not suffice for is the rest of a few, not all of many.
    #[test]
    fn every_forward_has_its_first_connections_before_one_has_the_rest() {
        let list = "allow_from: [198.51.100.0/24]";
        let set = set(&format!(
            "{{name: a, listen: 80-81, target: {{pod: 10.224.0.8:80-81}}, {list}}}, \
             {{name: b, listen: 82, target: {{pod: 10.224.0.9:80}}, {list}}}"
        ));
        let asks = asked(&set);
        let words =
            |ask: &Ask<'_>| format!("{} {} {:?}", ask.forward.name, ask.is_brief, ask.wanted);
        let brief: Vec<String> = asks.iter().take(4).map(words).collect();
        assert_eq!(
            brief,
            [
                "a true Through",
                "a true KeptOut",
                "b true Through",
                "b true KeptOut"
            ]
        );
        // Both are of one shape.
        let rest = &asks[4..];
        assert!(!rest.is_empty());
        assert!(
            rest.iter()
                .all(|ask| !ask.is_brief && ask.forward.name.as_str() == "a")
        );
    }

    #[test]
    fn several_targets_are_one_connection_that_is_tried_several_times() {
        let pods = "target: {pod: [10.224.0.8:80, 10.224.0.9:80]}";
        for (more, times) in [
            ("", 16),
            (", balance: client", 1),
            (", limits: {max_connections: 3}", 3),
        ] {
            let set = set(&format!("{{name: a, listen: 80, {pods}{more}}}"));
            let asks = asked(&set);
            assert_eq!((asks[0].times, asks[0].is_brief), (times, true), "{more}");
            assert!(asks[1..].iter().all(|ask| !ask.is_brief));
        }
    }

    /// The kernel counts each connection for the forward's own limit.
    #[test]
    fn limits_are_for_as_many_connections_as_they_admit() {
        let list = "198.51.100.0/24, 203.0.113.0/24, 192.0.2.0/24, 81.0.0.0/8, 10.3.0.0/24";
        for (limits, least, most) in [
            ("{new_per_second: 1, burst: 1}", 1, 1),
            ("{new_per_second: 1, burst: 3}", 3, 3),
            ("{new_per_second: 50}", 7, 50),
            ("{new_per_second: 1, burst: 1, per: client}", 5, 7),
        ] {
            let set = set(&format!(
                "{{name: a, listen: 80-81, target: {{pod: 10.224.0.8:80-81}}, \
                 allow_from: [{list}], limits: {limits}}}"
            ));
            let asks = asked(&set);
            let through = asks.iter().filter(|ask| ask.wanted == Wanted::Through);
            let times: usize = through.map(|ask| ask.times).sum();
            assert!(least <= times && times <= most, "{limits}: {times}");
        }
    }

    #[test]
    fn clients_of_a_forward_that_chooses_targets_by_them_have_many_addresses() {
        let pods = "target: {pod: [10.224.0.8:80, 10.224.0.9:80]}, balance: client";
        for (list, net) in [
            ("", "81.2.0.0/16"),
            (", allow_from: [192.0.2.0/24]", "192.0.2.0/24"),
        ] {
            let set = set(&format!("{{name: a, listen: 80, {pods}{list}}}"));
            let asks = asked(&set);
            let spare = asks.iter().filter(|ask| ask.is_spare);
            let addresses: BTreeSet<IpAddr> = spare.map(|ask| ask.client.address).collect();
            assert_eq!(addresses.len(), 16);
            let net: IpNet = net.parse().expect("a network");
            assert!(addresses.iter().all(|address| net.contains(address)));
        }
    }

    /// A rule may ban a client for what it asks of another forward.
    #[test]
    fn each_forward_has_a_client_of_its_own() {
        let forwards = (80..84)
            .map(|n| format!("{{name: f{n}, listen: {n}, target: {{pod: 10.224.0.8:80}}}}"));
        let set = set(&forwards.collect::<Vec<_>>().join(", "));
        let asks = asked(&set);
        let somebody = |ask: &&Ask<'_>| ask.client.kind == ClientKind::Somebody && ask.is_brief;
        let addresses = asks.iter().filter(somebody).map(|ask| ask.client.address);
        assert_eq!(addresses.collect::<BTreeSet<_>>().len(), 4);
    }

    #[test]
    fn an_address_that_stands_alone_on_another_interface_is_asked() {
        let set = set("{name: a, listen: 80, target: {pod: 10.224.0.8:80}}");
        let (mut machine, worlds, clients) = asking(&set);
        machine.links[1] = Link::with("eth1", &["10.4.0.4/24", "20.1.1.1/32"]);
        let forwards: Vec<&Forward> = set.forwards.iter().collect();
        let asks = battery(&forwards, &clients, &machine, &worlds, &BTreeSet::new());
        let to: BTreeSet<String> = asks.iter().map(|ask| ask.question.to.to_string()).collect();
        assert_eq!(
            to.into_iter().collect::<Vec<_>>(),
            ["10.3.0.4:80", "20.1.1.1:80"]
        );
    }

    /// With a comparison of each with each it would take minutes.
    #[test]
    fn ten_thousand_shapes_are_told_apart_in_a_moment() {
        let one = |n: u16| {
            format!(
                "{{name: f{n}, listen: {}, target: {{pod: 10.224.0.8:80}}, allow_from: [10.{}.{}.0/24]}}",
                n + 1000,
                n >> 8,
                n & 0xff
            )
        };
        let forwards: Vec<String> = (0..10_000).map(one).collect();
        let set = set(&forwards.join(", "));
        let asks = asked(&set);
        assert!(asks[..20_000].iter().all(|ask| ask.is_brief));
    }
}
