//! Bridges. The copy of a bridge has one port, to a world that has all hosts behind the bridge.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::known_path::KnownPath;
use super::machine::{Address, LinkKind, Machine, MachineLink};
use crate::net::Family;

/// Returns the ports of a bridge that carry packets.
pub fn ports<'m>(machine: &'m Machine, bridge: &str) -> impl Iterator<Item = &'m MachineLink> {
    let links = machine.links.iter();
    links.filter(move |link| link.master.as_deref() == Some(bridge) && link.carrier)
}

/// Returns the port that the copy of a bridge has.
#[must_use]
pub fn port<'m>(machine: &'m Machine, bridge: &str) -> Option<&'m MachineLink> {
    ports(machine, bridge).next()
}

/// Returns whether packets from one port to another pass the rules of iptables (`bridge-nf-call-iptables` in
/// Documentation/networking/ip-sysctl.rst).
#[must_use]
pub fn passes_rules(machine: &Machine, family: Family) -> bool {
    let name = match family {
        Family::V4 => "bridge/bridge-nf-call-iptables",
        Family::V6 => "bridge/bridge-nf-call-ip6tables",
    };
    machine.switches.get(name) == Some("1")
}

/// Returns the commands of `ip` that join a port to the copy of a bridge. With `bridge-nf-call-iptables`, a packet that a
/// rule redirects to another host behind the bridge goes from port to port, so the one port of the copy also sends what
/// it received. It sends no questions of the world's back, because the world answers all of them.
#[must_use]
pub fn join(machine: &Machine, port: &str, bridge: &str) -> String {
    let has_several = ports(machine, bridge).nth(1).is_some();
    let mut passes = Family::ALL
        .into_iter()
        .map(|family| passes_rules(machine, family));
    let sends_back = machine.link(port).is_some_and(|link| link.hairpin);
    let hairpin = if sends_back || has_several && passes.any(|one| one) {
        format!(
            "link set dev {port} type bridge_slave hairpin on bcast_flood off mcast_flood off\n"
        )
    } else {
        String::new()
    };
    format!("link set dev {port} master {bridge}\n{hairpin}link set dev {port} up\n")
}

/// A bridge with several ports, and the packets from port to port that its copy may not treat as it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgePorts {
    name: String,
    count: usize,
    /// The families whose packets from port to port pass the rules.
    families: Vec<Family>,
    on_link: Vec<IpNet>,
    /// The machine's own addresses.
    own: BTreeSet<IpAddr>,
    /// The port of each host that is known.
    hosts: BTreeMap<IpAddr, String>,
    /// The ports that send a packet back by which it came.
    hairpins: BTreeSet<String>,
}

impl BridgePorts {
    /// Returns the machine's bridges with several ports.
    #[must_use]
    pub fn all(machine: &Machine) -> Vec<Self> {
        let bridges = machine.links.iter().filter(|link| {
            link.kind == LinkKind::Bridge && ports(machine, &link.name).nth(1).is_some()
        });
        let all = bridges.map(|link| {
            let ports: Vec<&MachineLink> = ports(machine, &link.name).collect();
            let neighbours = machine.neighbours.iter();
            let here = neighbours.filter(|one| one.interface == link.name);
            let hosts = here.filter_map(|one| Some((one.address, one.bridge_port.clone()?)));
            let hairpins = ports.iter().filter(|port| port.hairpin);
            Self {
                name: link.name.clone(),
                count: ports.len(),
                families: Family::ALL
                    .into_iter()
                    .filter(|family| passes_rules(machine, *family))
                    .collect(),
                on_link: link.addresses.iter().map(Address::on_link).collect(),
                own: machine.addresses(),
                hosts: hosts.collect(),
                hairpins: hairpins.map(|port| port.name.clone()).collect(),
            }
        });
        all.collect()
    }

    /// Names the ports that the copy lacks.
    #[must_use]
    pub fn words(&self) -> String {
        format!(
            "the other ports of the bridge {}, which has {}",
            self.name, self.count
        )
    }

    /// Returns whether a connection may go from port to port and end otherwise than in the copy.
    #[must_use]
    pub fn may_change(&self, path: &KnownPath<'_>) -> bool {
        if path.ingress != Some(self.name.as_str()) {
            return false;
        }
        match &path.reached {
            Some((reached, by)) => {
                let source = reached.source.ip();
                *by == self.name
                    && self.may_stop(path.client, self.own.contains(&source), reached.target.ip())
            }
            // The hosts behind the bridge reach each other without the machine.
            None => {
                let mut near = self.on_link.iter();
                near.any(|net| net.contains(&path.to)) && !self.own.contains(&path.to)
            }
        }
    }

    /// Returns whether the bridge may not take a packet from a client to a target behind it, or the reply back. A bridge
    /// sends no packet back by the port by which it came. `is_hidden`: the target sees an address of the machine's.
    #[must_use]
    pub fn may_stop(&self, client: IpAddr, is_hidden: bool, target: IpAddr) -> bool {
        let ports = self.hosts.get(&client).zip(self.hosts.get(&target));
        let is_taken = ports.is_some_and(|(from, to)| from != to || self.hairpins.contains(from));
        // The reply to the client's own address does not pass the machine's routing.
        self.families.contains(&Family::of(client)) && !(is_hidden && is_taken)
    }

    /// Returns whether the name is the bridge's.
    #[must_use]
    pub fn is(&self, interface: &str) -> bool {
        self.name == interface
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::twin::connection_end::Reached;
    use crate::twin::machine::Neighbour;
    use crate::twin::switches::Switches;

    fn machine(passes_rules: &str, hairpin: bool) -> Machine {
        let port = |name: &str| MachineLink {
            master: Some("br0".to_owned()),
            hairpin,
            ..MachineLink::with(name, &[])
        };
        let bridge = MachineLink {
            kind: LinkKind::Bridge,
            ..MachineLink::with("br0", &["172.17.0.1/16"])
        };
        let host = |address: &str, port: &str| Neighbour {
            address: address.parse().expect("an address"),
            interface: "br0".to_owned(),
            permanent: false,
            failed: false,
            bridge_port: Some(port.to_owned()),
        };
        Machine {
            links: vec![
                bridge,
                port("a"),
                port("b"),
                MachineLink::with("eth0", &["10.3.0.4/24"]),
            ],
            neighbours: vec![
                host("172.17.0.2", "a"),
                host("172.17.0.3", "b"),
                host("172.17.0.4", "b"),
            ],
            switches: Switches::of([(
                "bridge/bridge-nf-call-iptables".to_owned(),
                passes_rules.to_owned(),
            )]),
            ..Machine::default()
        }
    }

    #[test]
    fn a_connection_from_port_to_port_is_uncertain_unless_both_ports_are_known() {
        let may_change =
            |machine: &Machine, client: &str, to: &str, reached: Option<(&str, &str, &str)>| {
                let address = |text: &str| text.parse::<IpAddr>().expect("an address");
                let path = KnownPath {
                    client: address(client),
                    to: address(to),
                    ingress: Some("br0"),
                    reached: reached.map(|(source, target, by)| {
                        let reached = Reached {
                            world: 0,
                            source: SocketAddr::new(address(source), 40_000),
                            target: SocketAddr::new(address(target), 80),
                        };
                        (reached, by)
                    }),
                };
                let bridges = BridgePorts::all(machine);
                assert_eq!(bridges.len(), 1);
                bridges[0].may_change(&path)
            };
        let (own, outer) = ("172.17.0.1", "10.3.0.4");
        let with_rules = machine("1", false);
        for (client, source, target, by, is_uncertain) in [
            ("172.17.0.2", own, "172.17.0.3", "br0", false),
            ("172.17.0.2", "172.17.0.2", "172.17.0.3", "br0", true),
            ("172.17.0.4", own, "172.17.0.3", "br0", true),
            ("172.17.0.3", own, "172.17.0.3", "br0", true),
            ("172.17.0.9", own, "172.17.0.3", "br0", true),
            ("172.17.0.2", own, "172.17.0.9", "br0", true),
            ("172.17.0.9", outer, "192.0.2.7", "eth0", false),
        ] {
            let reached = Some((source, target, by));
            let found = may_change(&with_rules, client, outer, reached);
            assert_eq!(found, is_uncertain, "{client} {source} {target}");
            assert!(!may_change(&machine("0", false), client, outer, reached));
        }
        let back = Some((own, "172.17.0.3", "br0"));
        assert!(!may_change(&machine("1", true), "172.17.0.4", outer, back));
        for passes_rules in ["0", "1"] {
            let machine = machine(passes_rules, false);
            assert!(may_change(&machine, "172.17.0.2", "172.17.0.3", None));
            assert!(!may_change(&machine, "172.17.0.2", own, None));
            assert!(!may_change(&machine, "172.17.0.2", "192.0.2.7", None));
        }
    }
}
