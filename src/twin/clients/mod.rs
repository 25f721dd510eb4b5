//! The clients for which connections are opened through a twin, and the choice among them for each forward and
//! outbound entry.

mod internet;
mod networks;
mod outbound;
mod sample;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeFrom;

use ipnet::IpNet;

pub(super) use internet::is_public;
pub use networks::NamedInRules;
pub use outbound::OfEntry;
pub use sample::{ClientKind, SampleClient};

use super::machine::Machine;
use crate::forwards::{Forward, ForwardPolicy, ForwardSet, Listeners, Nets, Outbound};
use crate::host::network::Packet;
use crate::net::{Family, Interface, Port, PortRange, Protocol};
use crate::netfilter::conntrack::{Flow, is_of_host};
use internet::Internet;
use networks::{host_of, hosts, is_of_hosts, is_routed, near, of_interfaces};
use outbound::Outward;
use sample::MOST;

/// How many hosts of a network are looked at beyond those that are wanted.
const SPARE: usize = 256;

/// The clients that matter to the forwards and outbound entries of a family.
#[derive(Debug)]
pub struct Clients {
    family: Family,
    pool: Vec<SampleClient>,
    internet: Internet,
    /// Whether a router leads to a network of clients.
    is_routed: bool,
    /// The interface by which replies to each address leave; an address without a route is missing.
    back: BTreeMap<IpAddr, String>,
    /// Addresses that no client has: the machine's own, those of targets, and those that do not answer.
    taken: BTreeSet<IpAddr>,
    /// The networks behind each egress interface.
    behind: BTreeMap<String, BTreeSet<IpNet>>,
    outward: Outward,
    /// Whether the spec lets no connection pass that no rule accepts.
    pub is_closed: bool,
    /// How many networks were left out to save time.
    pub left_out: usize,
    /// The ports that rules of others name.
    pub ports: BTreeSet<u16>,
    /// The ports of listeners for single addresses.
    single: BTreeMap<(IpAddr, Protocol), Vec<PortRange>>,
}

impl Clients {
    /// Gathers the clients. `back` returns the interface by which each reply leaves the machine.
    pub fn of<'s>(
        set: &'s ForwardSet,
        family: Family,
        machine: &Machine,
        flows: &[Flow],
        named: &NamedInRules,
        back: impl Fn(&BTreeSet<Packet<'s>>) -> BTreeMap<Packet<'s>, String>,
    ) -> Self {
        let unusable = unusable(machine);
        let taken = taken(set, &unusable);
        let internet = Internet::of(set, family, machine, named);
        let mut pool = vec![SampleClient {
            address: internet.first,
            kind: ClientKind::Somebody,
        }];
        let seen = seen(set, flows, &machine.addresses()).into_iter();
        pool.extend(seen.filter(|client| !taken.contains(&client.address)));
        let mut left_out = 0;
        let near = (
            near(set, machine),
            ClientKind::Near as fn(IpNet) -> ClientKind,
        );
        let named_sources = (named.networks.clone(), ClientKind::Named as _);
        let named_destinations = (named.of_replies(&taken), ClientKind::Named as _);
        for (mut nets, kind) in [near, named_sources, named_destinations] {
            nets.retain(|net| {
                Family::of(net.addr()) == family && net.prefix_len() > 0 && is_of_hosts(*net)
            });
            left_out += nets.len().saturating_sub(MOST);
            pool.extend(nets.iter().take(MOST).filter_map(|net| {
                let address = host_of(*net, |address| !taken.contains(&address))?;
                let kind = kind(*net);
                Some(SampleClient { address, kind })
            }));
        }
        let egresses: BTreeSet<&str> = set.forwards.iter().map(|one| one.egress.as_str()).collect();
        let behind = egresses.into_iter().map(|egress| {
            let nets = of_interfaces(machine, &BTreeSet::from([egress]));
            (egress.to_owned(), nets)
        });
        let of_family = set.forwards.iter().filter(|one| one.family() == family);
        let listed = of_family.flat_map(|forward| listed(forward, &taken));
        let listed = listed.map(|client| client.address);
        let addresses = pool.iter().map(|client| client.address).chain(listed);
        Self {
            outward: Outward::of(set, family, machine, unusable, named, &back),
            is_closed: set.firewall.forward_policy == ForwardPolicy::Drop,
            family,
            is_routed: is_routed(set, machine, family),
            back: interfaces_back(set, family, &addresses.collect(), back),
            behind: behind.collect(),
            internet,
            pool,
            taken,
            left_out,
            ports: named.ports.clone(),
            single: single(set),
        }
    }

    /// Returns whether connections to an address and port go to a forward that listens on all addresses. A listener for
    /// the one address comes first.
    #[must_use]
    pub fn reach(&self, forward: &Forward, to: IpAddr, port: Port) -> bool {
        let single = self.single.get(&(to, forward.protocol));
        let mut single = single.into_iter().flatten();
        !single.any(|ports| ports.contains(port))
    }

    /// Returns other clients that a forward treats like this one. Clients of the Internet take their addresses
    /// from `numbers`.
    #[must_use]
    pub fn alike(
        &self,
        forward: &Forward,
        client: &SampleClient,
        numbers: &mut RangeFrom<usize>,
        count: usize,
    ) -> Vec<SampleClient> {
        let with = |address: IpAddr| SampleClient {
            address,
            kind: client.kind.clone(),
        };
        match client.kind {
            ClientKind::Somebody => {
                let some = numbers.by_ref().take(count);
                some.map(|number| with(self.internet.address(number, &self.taken)))
                    .collect()
            }
            ClientKind::Near(net) | ClientKind::Listed(net) | ClientKind::Named(net) => {
                let hosts = hosts(net).take(count + SPARE);
                let hosts = hosts.filter(|address| {
                    forward.sources.admits(*address) && !self.taken.contains(address)
                });
                hosts.take(count).map(with).collect()
            }
            ClientKind::Seen => Vec::new(),
        }
    }

    /// Returns the clients of a forward, each with the interface by which it comes in. The first of the allowed
    /// ones is the plainest example. The client of the Internet has the address with this number.
    #[must_use]
    pub fn of_forward<'f>(&self, forward: &'f Forward, number: usize) -> OfForward<'f> {
        debug_assert_eq!(forward.family(), self.family);
        let mut found = OfForward::default();
        let listed = listed(forward, &self.taken);
        for client in self.pool.iter().cloned().chain(listed) {
            let Some(ingress) = self.ingress(forward, &client) else {
                continue;
            };
            let side = if forward.sources.admits(client.address) {
                &mut found.allowed
            } else {
                &mut found.denied
            };
            side.push((client, ingress));
        }
        found.allowed.sort_by_key(|(client, ingress)| {
            let leaves_as_it_came = self.back(client.address) == Some(ingress.as_str());
            (
                !leaves_as_it_came,
                matches!(client.kind, ClientKind::Named(_)),
            )
        });
        for (client, _) in found.allowed.iter_mut().chain(&mut found.denied) {
            if client.kind == ClientKind::Somebody {
                client.address = self.internet.address(number, &self.taken);
            }
        }
        found
    }

    /// Returns the ends of an outbound entry's connections. The first ones are the plainest.
    #[must_use]
    pub fn of_entry<'f>(&self, entry: &'f Outbound) -> OfEntry<'f> {
        debug_assert_eq!(entry.family, self.family);
        self.outward.of_entry(entry)
    }

    /// Returns the interface by which a client comes in; `None` if the forward cannot have this client.
    fn ingress<'f>(&self, forward: &'f Forward, client: &SampleClient) -> Option<&'f Interface> {
        let back = self.back(client.address);
        let mut ingresses = forward.ingress.iter();
        // The interface by which replies leave, if clients come in there.
        let natural = ingresses.find(|one| Some(one.as_str()) == back);
        let is_possible = match client.kind {
            ClientKind::Near(_) => natural.is_some(),
            // The network has no route although the Internet has one: its route may be a blackhole. Its clients come
            // in, and replies to them are lost.
            ClientKind::Named(_) => {
                natural.is_some() || back.is_none() && self.back(self.internet.first).is_some()
            }
            ClientKind::Somebody => back.is_some(),
            ClientKind::Listed(_) | ClientKind::Seen => true,
        };
        let is_behind = natural.is_none()
            && back == Some(forward.egress.as_str())
            && self.is_behind(&forward.egress, client.address);
        // A host behind the firewall comes in there, if the forward has a hairpin. A client that is connected now,
        // or that a list names, comes in by an ingress interface even if replies to it leave elsewhere.
        let is_certain = matches!(client.kind, ClientKind::Listed(_) | ClientKind::Seen);
        let by = if is_behind && forward.hairpin {
            Some(&forward.egress)
        } else if is_behind && !is_certain {
            None
        } else {
            natural.or(forward.ingress.first())
        };
        by.filter(|_| is_possible)
    }

    /// Returns whether an address is in one of the networks behind an interface.
    fn is_behind(&self, interface: &Interface, address: IpAddr) -> bool {
        let nets = self.behind.get(interface.as_str());
        nets.into_iter().flatten().any(|net| net.contains(&address))
    }

    /// Returns whether replies to clients beyond the machine's links have a route: to the Internet, or to a network
    /// of clients.
    #[must_use]
    pub fn answers_beyond_links(&self) -> bool {
        self.is_routed || self.back(self.internet.first).is_some()
    }

    /// Returns the interface by which replies to a client leave the machine.
    fn back(&self, address: IpAddr) -> Option<&str> {
        self.back.get(&address).map(String::as_str)
    }
}

/// The clients of one forward, with the interfaces by which they come in.
#[derive(Debug, Default)]
pub struct OfForward<'f> {
    pub allowed: Vec<(SampleClient, &'f Interface)>,
    /// Clients that the forward's lists keep out.
    pub denied: Vec<(SampleClient, &'f Interface)>,
}

/// Returns the ports of listeners for single addresses.
fn single(set: &ForwardSet) -> BTreeMap<(IpAddr, Protocol), Vec<PortRange>> {
    let mut single: BTreeMap<_, Vec<PortRange>> = BTreeMap::new();
    for forward in &set.forwards {
        if let Some(address) = forward.listen.address {
            let ports = single.entry((address, forward.protocol)).or_default();
            ports.push(forward.listen.ports);
        }
    }
    single
}

/// Returns the machine's own addresses, and those that do not answer.
fn unusable(machine: &Machine) -> BTreeSet<IpAddr> {
    let dead = machine.neighbours.iter().filter(|one| one.failed);
    let mut unusable = machine.addresses();
    unusable.extend(dead.map(|one| one.address));
    unusable
}

/// Returns the addresses that no client of a forward has.
fn taken(set: &ForwardSet, unusable: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
    let targets = set.forwards.iter().flat_map(|one| &one.target.destinations);
    let targets = targets.map(|to| to.address);
    unusable.iter().copied().chain(targets).collect()
}

/// Returns the interface by which replies to each address leave the machine.
fn interfaces_back<'s>(
    set: &'s ForwardSet,
    family: Family,
    addresses: &BTreeSet<IpAddr>,
    back: impl Fn(&BTreeSet<Packet<'s>>) -> BTreeMap<Packet<'s>, String>,
) -> BTreeMap<IpAddr, String> {
    let mut of_family = set.forwards.iter().filter(|one| one.family() == family);
    let first = of_family.next();
    let own = |to: IpAddr| Packet { to, came: None };
    let reply = |to: IpAddr| {
        let forward = first?;
        let target = forward.target.destinations.first()?.address;
        Some(Packet {
            to,
            came: Some((target, &forward.egress)),
        })
    };
    let packets = addresses
        .iter()
        .flat_map(|address| reply(*address).into_iter().chain([own(*address)]));
    let answers = back(&packets.collect());
    let found = addresses.iter().filter_map(|address| {
        // A machine that does not forward gets an answer for packets of its own alone.
        let answer = reply(*address).and_then(|reply| answers.get(&reply));
        let interface = answer.or_else(|| answers.get(&own(*address)))?;
        Some((*address, interface.clone()))
    });
    found.collect()
}

/// Returns clients that have a live connection through one of the forwards.
fn seen(set: &ForwardSet, flows: &[Flow], own: &BTreeSet<IpAddr>) -> Vec<SampleClient> {
    let listeners = Listeners::new(set);
    let flows = flows
        .iter()
        .filter(|flow| !own.contains(&flow.source) && is_of_host(flow.source));
    let led = flows.filter(|flow| listeners.leader(flow).is_some());
    let addresses: BTreeSet<IpAddr> = led.map(|flow| flow.source).collect();
    let some = addresses.into_iter().take(MOST);
    some.map(|address| SampleClient {
        address,
        kind: ClientKind::Seen,
    })
    .collect()
}

/// Returns a client of each of the first networks in a forward's lists.
fn listed(forward: &Forward, taken: &BTreeSet<IpAddr>) -> Vec<SampleClient> {
    let sources = &forward.sources;
    let is_free = |address: IpAddr| !taken.contains(&address);
    let allow = sources.allow.iter().flat_map(Nets::as_slice);
    let allow = allow.filter(|net| is_of_hosts(**net));
    let allowed = allow.filter_map(|net| {
        let address = host_of(*net, |address| sources.admits(address) && is_free(address))?;
        Some((*net, address))
    });
    let denied = sources.deny.as_slice().iter();
    let denied = denied.filter(|net| is_of_hosts(**net));
    let denied = denied.filter_map(|net| Some((*net, host_of(*net, is_free)?)));
    let allowed = allowed.take(MOST);
    let clients = allowed.chain(denied.take(MOST));
    clients
        .map(|(net, address)| SampleClient {
            address,
            kind: ClientKind::Listed(net),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::twin::machine::{MachineLink, Neighbour};
    use crate::yaml;

    fn set(forward: &str) -> ForwardSet {
        let text = format!(
            "firewall: {{interface: {{ingress: eth0, egress: eth1}}, snat: 10.4.0.4}}\n\
             forwards: [{{name: web, listen: 80, target: {{pod: 10.224.0.8:80}}{forward}}}]"
        );
        yaml::read(text.as_bytes()).expect("the spec is valid")
    }

    /// Gathers the clients of a machine that has clients behind eth0, and 10.224.0.0/16 behind eth1.
    fn clients(set: &ForwardSet) -> Clients {
        let route = serde_json::json!({
            "dst": "10.224.0.0/16", "gateway": "10.4.0.1", "dev": "eth1", "table": "main"
        });
        let machine = Machine {
            links: vec![
                MachineLink::with("eth0", &["10.3.0.4/24"]),
                MachineLink::with("eth1", &["10.4.0.4/24"]),
            ],
            routes: vec![(Family::V4, route)],
            neighbours: vec![Neighbour {
                address: "10.3.0.7".parse().expect("an address"),
                interface: "eth0".to_owned(),
                permanent: false,
                failed: true,
            }],
            ..Machine::default()
        };
        let behind: IpNet = "10.224.0.0/16".parse().expect("a network");
        Clients::of(
            set,
            Family::V4,
            &machine,
            &[],
            &NamedInRules::default(),
            |asked| {
                let by = |packet: &Packet<'_>| {
                    if behind.contains(&packet.to) {
                        "eth1"
                    } else {
                        "eth0"
                    }
                };
                asked.iter().map(|one| (*one, by(one).to_owned())).collect()
            },
        )
    }

    fn listed_clients(set: &ForwardSet) -> Vec<String> {
        let clients = clients(set);
        let found = clients.of_forward(&set.forwards[0], 0);
        let listed = found
            .allowed
            .iter()
            .filter(|(client, _)| matches!(client.kind, ClientKind::Listed(_)));
        listed
            .map(|(client, by)| format!("{} by {by}", client.address))
            .collect()
    }

    /// A neighbour that does not answer on the machine would not either in the twin, and a target is a
    /// listener there.
    #[test]
    fn no_client_is_dead_or_a_target() {
        let near = set("");
        let near = clients(&near)
            .of_forward(&near.forwards[0], 0)
            .allowed
            .iter()
            .map(|(client, _)| client.address.to_string())
            .collect::<Vec<_>>();
        assert_eq!(near, ["81.2.69.142", "10.3.0.8"]);
        for (list, listed) in [
            ("10.3.0.0/24", &["10.3.0.8 by eth0"][..]),
            ("10.3.0.7", &[]),
            ("10.3.0.6/31", &["10.3.0.6 by eth0"]),
        ] {
            let set = set(&format!(
                ", allow_from: [{list}], silence: [keeps-probes-out]"
            ));
            assert_eq!(listed_clients(&set), listed, "{list}");
        }
    }

    /// A blackhole route, for example, loses the replies to such a client.
    #[test]
    fn a_client_without_a_route_back_is_tried() {
        let set = set("");
        let nets = ["192.0.2.0/24", "10.224.0.0/16", "203.0.113.0/24"];
        let named = NamedInRules {
            destinations: nets.map(|net| net.parse().expect("a network")).into(),
            ..NamedInRules::default()
        };
        let nowhere: IpNet = "192.0.2.0/24".parse().expect("a network");
        let clients = Clients::of(
            &set,
            Family::V4,
            &Machine::default(),
            &[],
            &named,
            |asked| {
                let routed = asked.iter().filter(|one| !nowhere.contains(&one.to));
                routed.map(|one| (*one, "eth0".to_owned())).collect()
            },
        );
        let found = clients.of_forward(&set.forwards[0], 0);
        let named = found
            .allowed
            .iter()
            .filter_map(|(client, by)| match client.kind {
                ClientKind::Named(net) => Some(format!("{net} by {by}")),
                _ => None,
            });
        // The target is in the other network.
        let named: Vec<String> = named.collect();
        assert_eq!(named, ["203.0.113.0/24 by eth0", "192.0.2.0/24 by eth0"]);
    }

    #[test]
    fn a_listed_client_behind_the_firewall_comes_in_there_only_with_a_hairpin() {
        let list = "allow_from: [10.224.0.0/29], silence: [keeps-probes-out]";
        let with = set(&format!(", hairpin: true, {list}"));
        let [one] = &listed_clients(&with)[..] else {
            panic!("there is one network");
        };
        assert!(
            one.ends_with(" by eth1") && !one.starts_with("10.224.0.8 "),
            "{one}"
        );
        // If the forward has no hairpin, clients come in by the ingress even if replies to them leave elsewhere.
        assert_eq!(
            listed_clients(&set(&format!(", {list}"))),
            ["10.224.0.1 by eth0"]
        );
    }
}
