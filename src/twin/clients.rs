//! The clients for whom connections are opened through a twin.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeFrom;

use ipnet::IpNet;

use super::machine::{Kind, Machine};
use super::rules::Filter;
use crate::forwards::Listeners;
use crate::forwards::{Forward, ForwardSet, Nets};
use crate::host::network::Packet;
use crate::net::{Family, Interface};
use crate::netfilter::conntrack::{Flow, is_of_host};

/// At most so many networks of one kind are asked for.
const MOST: usize = 8;

/// An example of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    pub address: IpAddr,
    pub kind: ClientKind,
}

/// Why a client is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientKind {
    /// Anybody of the Internet.
    Somebody,
    /// A network on the link of an ingress interface, or routed there.
    Near(IpNet),
    /// A network of a list in the spec.
    Listed(IpNet),
    /// Connected now.
    Seen,
    /// A network that another's rule, or a policy rule, names.
    Named(IpNet),
}

/// Words of others' rules for which packets are tried.
#[derive(Debug, Default)]
pub struct Named {
    pub networks: BTreeSet<IpNet>,
    /// Networks to which packets go; those of targets and of the machine itself are among them.
    pub destinations: BTreeSet<IpNet>,
    pub ports: BTreeSet<u16>,
}

impl Named {
    /// Gathers them from the packet filter and the policy rules.
    #[must_use]
    pub fn by(filter: &Filter, machine: &Machine) -> Self {
        let mut named = filter.networks();
        named.sources.extend(machine.sources());
        named.destinations.extend(machine.destinations());
        Self {
            networks: named.sources,
            destinations: named.destinations,
            ports: filter.ports(),
        }
    }
}

impl Named {
    /// Returns the networks of clients to which packets go. `taken` are addresses of no client's.
    fn of_replies(&self, taken: &BTreeSet<IpAddr>) -> BTreeSet<IpNet> {
        let others = self.destinations.difference(&self.networks);
        let is_of_client = |net: &&IpNet| !taken.iter().any(|address| net.contains(address));
        others.filter(is_of_client).copied().collect()
    }
}

/// The clients that matter to the forwards of a family.
#[derive(Debug)]
pub struct Clients {
    family: Family,
    pool: Vec<Client>,
    somebody: IpAddr,
    /// Whether a router leads to a network of clients.
    is_routed: bool,
    /// Networks within that of `somebody`: their addresses may be treated in another way.
    narrower: Vec<IpNet>,
    /// The interfaces by which replies to them leave; none where there is no route.
    back: BTreeMap<IpAddr, String>,
    /// Addresses that are no client's: nobody answers for them, or they are targets.
    taken: BTreeSet<IpAddr>,
    /// The networks of each egress interface that is no ingress of every forward.
    behind: BTreeMap<String, BTreeSet<IpNet>>,
    /// How many networks were left out for the sake of time.
    pub left_out: usize,
    /// The ports that rules of others name.
    pub ports: BTreeSet<u16>,
}

impl Clients {
    /// Gathers the clients. `back` returns the interface by which each
    /// reply leaves the live machine.
    pub fn of<'s>(
        set: &'s ForwardSet,
        family: Family,
        machine: &Machine,
        flows: &[Flow],
        named: &Named,
        back: impl Fn(&BTreeSet<Packet<'s>>) -> BTreeMap<Packet<'s>, String>,
    ) -> Self {
        let (mut pool, mut left_out) = (Vec::new(), 0);
        let own: BTreeSet<IpAddr> = machine
            .links
            .iter()
            .flat_map(|link| &link.addresses)
            .map(|address| address.net.addr())
            .collect();
        let dead = machine.neighbours.iter().filter(|one| one.failed);
        let targets = set.forwards.iter().flat_map(|one| &one.target.destinations);
        let taken: BTreeSet<IpAddr> = dead
            .map(|one| one.address)
            .chain(targets.map(|to| to.address))
            .chain(own.iter().copied())
            .collect();
        let somebody = somebody(set, family);
        pool.push(Client {
            address: somebody,
            kind: ClientKind::Somebody,
        });
        let seen = seen(set, flows, &own);
        let is_free = |client: &Client| !taken.contains(&client.address);
        pool.extend(seen.into_iter().filter(is_free));
        let mut add = |nets: BTreeSet<IpNet>, kind: fn(IpNet) -> ClientKind| {
            let nets = nets
                .into_iter()
                .filter(|net| Family::of(net.addr()) == family);
            let nets: Vec<IpNet> = nets
                .filter(|net| net.prefix_len() > 0 && is_of_hosts(*net))
                .collect();
            left_out += nets.len().saturating_sub(MOST);
            let some = nets.iter().take(MOST);
            pool.extend(some.filter_map(|net| {
                let is_free =
                    |address: IpAddr| !own.contains(&address) && !taken.contains(&address);
                let address = one_of(*net, is_free)?;
                let kind = kind(*net);
                Some(Client { address, kind })
            }));
        };
        add(near(set, machine), ClientKind::Near);
        add(named.networks.clone(), ClientKind::Named);
        add(named.of_replies(&taken), ClientKind::Named);
        let first = set
            .forwards
            .iter()
            .find(|forward| forward.family() == family);
        let reply = |address: IpAddr| {
            let forward = first?;
            let target = forward.target.destinations.first()?.address;
            Some(Packet {
                to: address,
                came: Some((target, &forward.egress)),
            })
        };
        let lists = set
            .forwards
            .iter()
            .filter(|forward| forward.family() == family);
        let listed = lists.flat_map(|forward| listed(forward, &taken));
        let listed = listed.map(|client| client.address);
        let addresses: BTreeSet<IpAddr> = pool
            .iter()
            .map(|client| client.address)
            .chain(listed)
            .collect();
        let questions = addresses.iter().flat_map(|address| {
            let plain = Packet {
                to: *address,
                came: None,
            };
            reply(*address).into_iter().chain([plain])
        });
        let answers = back(&questions.collect());
        let found = addresses.iter().filter_map(|address| {
            let plain = Packet {
                to: *address,
                came: None,
            };
            // Where the machine forwards nothing, the kernel answers for its own packets alone.
            let answer = reply(*address).and_then(|reply| answers.get(&reply));
            let interface = answer.or_else(|| answers.get(&plain))?;
            Some((*address, interface.clone()))
        });
        let egresses = set.forwards.iter().map(|forward| &forward.egress);
        let egresses: BTreeSet<&Interface> = egresses.collect();
        let behind = egresses.into_iter().map(|egress| {
            let nets = nets_of(machine, &BTreeSet::from([egress.as_str()]));
            (egress.as_str().to_owned(), nets)
        });
        Self {
            family,
            somebody,
            is_routed: is_routed(set, machine, family),
            narrower: narrower(set, machine, named, somebody),
            back: found.collect(),
            behind: behind.collect(),
            pool,
            taken,
            left_out,
            ports: named.ports.clone(),
        }
    }

    /// Returns an address of the Internet, one of thousands that lists, rules and routes treat alike.
    fn somebody(&self, number: usize) -> IpAddr {
        let contains = |address: IpAddr| move |net: &&IpNet| net.contains(&address);
        let own: Vec<&IpNet> = self
            .narrower
            .iter()
            .filter(contains(self.somebody))
            .collect();
        let is_alike = |address: &IpAddr| {
            let mut here = self.narrower.iter().filter(contains(*address));
            here.by_ref().eq(own.iter().copied()) && !self.taken.contains(address)
        };
        let mut some = (number..number + TRIES).map(|number| beside(self.somebody, number));
        some.find(is_alike).unwrap_or(self.somebody)
    }

    /// Returns other clients that a forward admits as it does this one. Those of the Internet have `numbers`.
    #[must_use]
    pub fn alike(
        &self,
        forward: &Forward,
        client: &Client,
        numbers: &mut RangeFrom<usize>,
        count: usize,
    ) -> Vec<Client> {
        let with = |address: IpAddr| Client {
            address,
            kind: client.kind.clone(),
        };
        match client.kind {
            ClientKind::Somebody => {
                let some = numbers.by_ref().take(count);
                some.map(|number| with(self.somebody(number))).collect()
            }
            ClientKind::Near(net) | ClientKind::Listed(net) | ClientKind::Named(net) => {
                let hosts = net.hosts().take(count + TRIES);
                let hosts = hosts.filter(|address| {
                    forward.sources.admits(*address) && !self.taken.contains(address)
                });
                hosts.take(count).map(with).collect()
            }
            ClientKind::Seen => Vec::new(),
        }
    }

    /// Returns the clients of a forward, each with the interface by which it comes in. The first is a plain
    /// example of one who is let in; denied are those whom the forward's lists keep out. The client of the
    /// Internet has a number.
    #[must_use]
    pub fn of_forward<'f>(&self, forward: &'f Forward, number: usize) -> OfForward<'f> {
        debug_assert_eq!(forward.family(), self.family);
        let mut found = OfForward::default();
        let listed = listed(forward, &self.taken);
        let all = self.pool.iter().cloned().chain(listed);
        for client in all {
            let back = self.back.get(&client.address).map(String::as_str);
            let natural = forward
                .ingress
                .iter()
                .find(|one| Some(one.as_str()) == back);
            let wanted = match client.kind {
                ClientKind::Near(_) => natural.is_some(),
                // There is no route for a network alone, as where it has a blackhole.
                ClientKind::Named(_) => {
                    let nowhere = back.is_none() && self.back.contains_key(&self.somebody);
                    natural.is_some() || nowhere
                }
                ClientKind::Somebody => back.is_some(),
                ClientKind::Listed(_) | ClientKind::Seen => true,
            };
            let is_behind = natural.is_none()
                && back == Some(forward.egress.as_str())
                && self.is_behind(&forward.egress, client.address);
            // A host behind the firewall comes in there, where a forward takes it at all. Who is connected now, or
            // is on a list, comes in where clients do, also if replies to it leave elsewhere.
            let comes = matches!(client.kind, ClientKind::Listed(_) | ClientKind::Seen);
            let by = if is_behind && forward.hairpin {
                Some(&forward.egress)
            } else if is_behind && !comes {
                None
            } else {
                natural.or(forward.ingress.first())
            };
            let Some(ingress) = by.filter(|_| wanted) else {
                continue;
            };
            let admitted = forward.sources.admits(client.address);
            let side = if admitted {
                &mut found.allowed
            } else {
                &mut found.denied
            };
            side.push((client, ingress));
        }
        // A client whose reply takes the way that it came by is the plainest example.
        found.allowed.sort_by_key(|(client, ingress)| {
            let natural =
                self.back.get(&client.address).map(String::as_str) == Some(ingress.as_str());
            (!natural, matches!(client.kind, ClientKind::Named(_)))
        });
        for (client, _) in found.allowed.iter_mut().chain(&mut found.denied) {
            if client.kind == ClientKind::Somebody {
                client.address = self.somebody(number);
            }
        }
        found
    }

    /// Whether a network of an interface has an address, its default route left out.
    fn is_behind(&self, interface: &Interface, address: IpAddr) -> bool {
        let nets = self.behind.get(interface.as_str());
        nets.into_iter().flatten().any(|net| net.contains(&address))
    }

    /// Whether replies leave the live machine to anybody beyond its links: to the Internet, or to a network of
    /// clients to which a route leads.
    #[must_use]
    pub fn answers_beyond_links(&self) -> bool {
        self.is_routed || self.back.contains_key(&self.somebody)
    }

    /// Returns the interface by which replies to a client leave the live machine.
    #[must_use]
    pub fn back(&self, address: IpAddr) -> Option<&str> {
        self.back.get(&address).map(String::as_str)
    }
}

/// The clients of one forward, with the interfaces by which they come in.
#[derive(Debug, Default)]
pub struct OfForward<'f> {
    pub allowed: Vec<(Client, &'f Interface)>,
    pub denied: Vec<(Client, &'f Interface)>,
}

/// Returns an address of the Internet that no list of the spec names. Addresses for documentation are not
/// taken: many rules drop them.
fn somebody(set: &ForwardSet, family: Family) -> IpAddr {
    let lists = set.forwards.iter().flat_map(|forward| {
        let allow = forward.sources.allow.iter().flat_map(Nets::as_slice);
        allow.chain(forward.sources.deny.as_slice())
    });
    let lists: BTreeSet<&IpNet> = lists.filter(|net| net.prefix_len() > 0).collect();
    let is_free = |address: &IpAddr| !lists.iter().any(|net| net.contains(address));
    let mut candidates = (0..=255).map(|n| match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(81_u8.wrapping_add(n), 2, 69, 142)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(
            0x2a02 + u16::from(n),
            0xcf40,
            0,
            0,
            0,
            0,
            0,
            1,
        )),
    });
    let first = candidates.clone().next();
    candidates
        .find(|address| is_free(address) && is_public(*address))
        .or(first)
        .unwrap_or(IpAddr::V4(Ipv4Addr::new(81, 2, 69, 142)))
}

/// So many addresses are looked at for one that is like another.
const TRIES: usize = 256;

/// The network in which clients of the Internet have their addresses.
fn around(somebody: IpAddr) -> IpNet {
    let length = match somebody {
        IpAddr::V4(_) => 16,
        IpAddr::V6(_) => 48,
    };
    IpNet::new(somebody, length).map_or(IpNet::from(somebody), |net| net.trunc())
}

/// Returns another address around one; with IPv6 in another network of 64 bits, which limits take for another
/// client's.
fn beside(somebody: IpAddr, number: usize) -> IpAddr {
    let number = u16::try_from(number % 65_536).unwrap_or_default();
    match somebody {
        IpAddr::V4(address) => {
            let bits = address.to_bits();
            let low = u16::try_from(bits & 0xffff).unwrap_or_default();
            let low = low.wrapping_add(number);
            IpAddr::V4(Ipv4Addr::from_bits(bits & 0xffff_0000 | u32::from(low)))
        }
        IpAddr::V6(address) => {
            let mut segments = address.segments();
            segments[3] = segments[3].wrapping_add(number);
            IpAddr::V6(Ipv6Addr::from(segments))
        }
    }
}

/// Returns the networks around a client of the Internet that lists, rules and routes name.
fn narrower(set: &ForwardSet, machine: &Machine, named: &Named, somebody: IpAddr) -> Vec<IpNet> {
    let lists = set.forwards.iter().flat_map(|forward| {
        let allow = forward.sources.allow.iter().flat_map(Nets::as_slice);
        allow.chain(forward.sources.deny.as_slice()).copied()
    });
    let links = machine.links.iter().flat_map(|link| &link.addresses);
    let links = links.map(super::machine::Address::on_link);
    let routes = machine.routes.iter().filter_map(|(_, route)| {
        let text = route["dst"].as_str()?;
        let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
        text.parse::<IpNet>().ok().or_else(address)
    });
    let around = around(somebody);
    let named = named.networks.union(&named.destinations).copied();
    let all = lists.chain(links).chain(routes).chain(named);
    let within =
        all.filter(|net| net.prefix_len() > around.prefix_len() && around.contains(&net.addr()));
    within.collect::<BTreeSet<IpNet>>().into_iter().collect()
}

pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_private()
                || v4.is_multicast()
                || v4.octets()[0] >= 224
                || v4.octets()[0] == 0
                || v4.is_loopback())
        }
        IpAddr::V6(_) => true,
    }
}

/// Returns one client of each forward that has some now.
fn seen(set: &ForwardSet, flows: &[Flow], own: &BTreeSet<IpAddr>) -> Vec<Client> {
    let listeners = Listeners::new(set);
    let flows = flows
        .iter()
        .filter(|flow| !own.contains(&flow.source) && is_of_host(flow.source));
    let led = flows.filter(|flow| listeners.leader(flow).is_some());
    let addresses: BTreeSet<IpAddr> = led.map(|flow| flow.source).collect();
    let some = addresses.into_iter().take(MOST);
    some.map(|address| Client {
        address,
        kind: ClientKind::Seen,
    })
    .collect()
}

/// Whether a router leads to a network of clients. A network of targets is none.
fn is_routed(set: &ForwardSet, machine: &Machine, family: Family) -> bool {
    let links = machine.links.iter().flat_map(|link| &link.addresses);
    let on_link: BTreeSet<IpNet> = links.map(super::machine::Address::on_link).collect();
    let has_target = |net: &IpNet| {
        let mut targets = set.forwards.iter().flat_map(|one| &one.target.destinations);
        targets.any(|to| net.contains(&to.address))
    };
    let near = near(set, machine);
    let mut routed = near.difference(&on_link);
    routed.any(|net| Family::of(net.addr()) == family && !has_target(net))
}

/// Returns the networks on the links of ingress interfaces, and those routed there.
fn near(set: &ForwardSet, machine: &Machine) -> BTreeSet<IpNet> {
    let ingresses = set.forwards.iter().flat_map(|forward| &forward.ingress);
    nets_of(machine, &ingresses.map(Interface::as_str).collect())
}

/// Returns the networks on the links of some interfaces, and those routed there.
fn nets_of(machine: &Machine, interfaces: &BTreeSet<&str>) -> BTreeSet<IpNet> {
    let links = machine.links.iter();
    let links =
        links.filter(|link| interfaces.contains(link.name.as_str()) && link.kind != Kind::Loopback);
    let mut nets: BTreeSet<IpNet> = links
        .flat_map(|link| &link.addresses)
        .filter(|address| address.scope != "link")
        .map(super::machine::Address::on_link)
        .filter(|net| net.prefix_len() < net.max_prefix_len())
        .collect();
    let routed = machine.routes.iter().filter_map(|(_, route)| {
        let by = route["dev"].as_str().filter(|by| interfaces.contains(by))?;
        let is_routed = !by.is_empty() && !route["gateway"].is_null() && route["table"] == "main";
        let text = route["dst"].as_str().filter(|_| is_routed)?;
        text.parse::<IpNet>().ok()
    });
    nets.extend(routed);
    nets
}

/// Returns a client of each network that a forward's lists name, as many as matter.
fn listed(forward: &Forward, taken: &BTreeSet<IpAddr>) -> Vec<Client> {
    let sources = &forward.sources;
    let is_free = |address: IpAddr| !taken.contains(&address);
    let allow = sources.allow.iter().flat_map(Nets::as_slice);
    let allow = allow.filter(|net| is_of_hosts(**net));
    let allowed = allow.filter_map(|net| {
        let address = one_of(*net, |address| sources.admits(address) && is_free(address))?;
        Some((*net, address))
    });
    let denied = sources.deny.as_slice().iter();
    let denied = denied.filter(|net| is_of_hosts(**net));
    let denied = denied.filter_map(|net| Some((*net, one_of(*net, is_free)?)));
    let allowed = allowed.take(MOST);
    let clients = allowed.chain(denied.take(MOST));
    clients
        .map(|(net, address)| Client {
            address,
            kind: ClientKind::Listed(net),
        })
        .collect()
}

/// Whether a client may come from a network through a router. The kernel refuses sockets of the others.
fn is_of_hosts(net: IpNet) -> bool {
    is_of_host(net.addr())
}

/// Returns a host of a network for which something holds, if one of its first does.
fn one_of(net: IpNet, holds: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    // The first hosts of a network are often its gateways.
    let hosts = net
        .hosts()
        .skip(usize::from(net.max_prefix_len() - net.prefix_len() > 3) * 6);
    hosts.take(256).find(|address| holds(*address))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::twin::machine::{Link, Neighbour};
    use crate::yaml;

    fn set(forward: &str) -> ForwardSet {
        let text = format!(
            "firewall: {{interface: {{ingress: eth0, egress: eth1}}, snat: 10.4.0.4}}\n\
             forwards: [{{name: web, listen: 80, target: {{pod: 10.224.0.8:80}}{forward}}}]"
        );
        yaml::read(text.as_bytes()).expect("it is sound")
    }

    /// Clients are behind eth0, 10.224.0.0/16 is behind eth1.
    fn clients(set: &ForwardSet) -> Clients {
        let route = serde_json::json!({
            "dst": "10.224.0.0/16", "gateway": "10.4.0.1", "dev": "eth1", "table": "main"
        });
        let machine = Machine {
            links: vec![
                Link::with("eth0", &["10.3.0.4/24"]),
                Link::with("eth1", &["10.4.0.4/24"]),
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
        Clients::of(set, Family::V4, &machine, &[], &Named::default(), |asked| {
            let by = |packet: &Packet<'_>| {
                if behind.contains(&packet.to) {
                    "eth1"
                } else {
                    "eth0"
                }
            };
            asked.iter().map(|one| (*one, by(one).to_owned())).collect()
        })
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

    /// Where a route for it leads nowhere, as a blackhole, replies to it are lost.
    #[test]
    fn a_client_to_whom_no_route_leads_comes_in_all_the_same() {
        let set = set("");
        let nets = ["192.0.2.0/24", "10.224.0.0/16", "203.0.113.0/24"];
        let named = Named {
            destinations: nets.map(|net| net.parse().expect("a network")).into(),
            ..Named::default()
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
    fn a_listed_client_comes_in_behind_the_firewall_by_a_hairpin_alone() {
        let list = "allow_from: [10.224.0.0/29], silence: [keeps-probes-out]";
        let with = set(&format!(", hairpin: true, {list}"));
        let [one] = &listed_clients(&with)[..] else {
            panic!("there is one network");
        };
        assert!(
            one.ends_with(" by eth1") && !one.starts_with("10.224.0.8 "),
            "{one}"
        );
        // Without it clients come in by the ingress, also if replies to them leave elsewhere.
        assert_eq!(
            listed_clients(&set(&format!(", {list}"))),
            ["10.224.0.1 by eth0"]
        );
    }

    #[test]
    fn no_client_comes_from_a_network_without_hosts() {
        let is_of_hosts = |net: &str| is_of_hosts(net.parse().expect("a network"));
        for net in [
            "0.0.0.0/8",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "224.0.0.0/4",
            "240.0.0.0/4",
            "::1/128",
            "fe80::/10",
            "ff00::/8",
        ] {
            assert!(!is_of_hosts(net), "{net}");
        }
        for net in ["10.0.0.0/8", "203.0.113.7/32", "2001:db8::/32", "fd00::/8"] {
            assert!(is_of_hosts(net), "{net}");
        }
    }
}
