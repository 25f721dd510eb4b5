//! Things of the machine that a twin lacks and that may decide about a packet: programs at interfaces, encryption
//! policies, routes that cannot be copied, and rules that do not load. The verdict about a connection that may meet
//! one is not certain.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde_json::Value;

use super::batch::{RefusedCommand, STOPPED};
use super::battery::Ask;
use super::known_path::KnownPath;
use super::machine::Machine;
use super::rules::LeftOut;
use crate::forwards::Snat;
use crate::net::printable;
use crate::net::{Family, Interface};

/// A thing of the machine that the twin lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    words: String,
    scope: Scope,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    /// All packets of an interface.
    Interface(String),
    /// Packets from one network to another.
    Selector { source: IpNet, destination: IpNet },
    /// Packets to or from a network.
    Net(IpNet),
    /// All packets of a family; with `None`, of both.
    Family(Option<Family>),
    /// All packets, if the kernel has tables that nobody can list here. It is not known whether it has some.
    Kernel,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl Doubt {
    /// Returns whether the thing may give a connection another end.
    #[must_use]
    pub fn concerns(&self, path: &KnownPath<'_>) -> bool {
        let is_reached = path.reached.is_some();
        match &self.scope {
            Scope::Interface(name) => path.passes(name),
            Scope::Kernel => false,
            Scope::Family(family) => family.is_none_or(|family| family == path.family()),
            // A packet that reached nothing may have been translated before it met the route that is missing.
            Scope::Net(net) if !is_reached => Family::of(net.addr()) == path.family(),
            Scope::Net(net) => {
                let mut ends = path.sources().chain(path.destinations());
                ends.any(|end| net.contains(&end))
            }
            // Encryption takes packets that would be delivered, and delivers none that a rule takes.
            Scope::Selector {
                source,
                destination,
            } => {
                let holds = |one: &IpNet, other: &IpNet| {
                    path.sources().any(|end| one.contains(&end))
                        && path.destinations().any(|end| other.contains(&end))
                };
                is_reached && (holds(source, destination) || holds(destination, source))
            }
        }
    }

    /// Returns whether packets of a connection may meet the thing.
    #[must_use]
    pub fn holds(&self, ask: &Ask<'_>) -> bool {
        let client = ask.client.address;
        let targets = || ask.question.listeners.iter().map(SocketAddr::ip);
        match &self.scope {
            Scope::Interface(name) => [ask.by, ask.of.egress()]
                .map(Interface::as_str)
                .contains(&name.as_str()),
            Scope::Kernel => true,
            Scope::Family(family) => family.is_none_or(|family| family == ask.of.family()),
            Scope::Net(net) => net.contains(&client) || targets().any(|at| net.contains(&at)),
            Scope::Selector {
                source,
                destination,
            } => {
                let source_at_target = |net: &IpNet| match ask.of.snat() {
                    Snat::Addresses(range) => {
                        net.contains(&range.first()) || net.contains(&range.last())
                    }
                    Snat::Client => net.contains(&client),
                    // Any address of the machine; it changes with the machine.
                    Snat::Masquerade => true,
                };
                let of_client = |net: &IpNet| net.contains(&client) || source_at_target(net);
                let of_server = |net: &IpNet| {
                    net.contains(&ask.question.to.ip()) || targets().any(|at| net.contains(&at))
                };
                of_client(source) && of_server(destination)
                    || of_server(source) && of_client(destination)
            }
        }
    }
}

/// Returns the doubt about all packets for a kernel with tables that no program here can list.
#[must_use]
pub fn without_nft() -> Doubt {
    Doubt {
        words: "the kernel's own tables of nft: `nft` is not installed".to_owned(),
        scope: Scope::Kernel,
    }
}

/// Returns the doubt about all packets that a rule, set or table may concern.
#[must_use]
pub fn without(left_out: &LeftOut) -> Doubt {
    Doubt {
        words: printable::line(&left_out.to_string()).to_string(),
        scope: Scope::Family(left_out.place.family()),
    }
}

/// Returns the doubts about a twin. `refused` holds the commands that failed while it was made.
#[must_use]
pub fn doubts(machine: &Machine, refused: &[RefusedCommand]) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    let programs = machine.links.iter().filter(|link| link.xdp);
    let programs = programs.map(|link| (link.name.as_str(), "an XDP program"));
    let filters = machine.filtered.iter();
    let filters = filters.map(|name| (name.as_str(), "a filter of tc"));
    for (name, what) in programs.chain(filters) {
        let master = machine.link(name).and_then(|link| link.master.as_deref());
        for interface in [Some(name), master].into_iter().flatten() {
            doubts.push(Doubt {
                words: format!("{what} on {name}, which sees packets beside all rules"),
                scope: Scope::Interface(interface.to_owned()),
            });
        }
    }
    for name in &machine.unnamable {
        doubts.push(Doubt {
            words: format!(
                "the interface {}: iproute2 takes no such name",
                printable::line(name)
            ),
            scope: Scope::Interface(name.clone()),
        });
    }
    for (source, destination) in &machine.policies {
        doubts.push(Doubt {
            words: format!("the IPsec policy from {source} to {destination} (ip xfrm policy)"),
            scope: Scope::Selector {
                source: *source,
                destination: *destination,
            },
        });
    }
    doubts.extend(refused.iter().filter_map(of_refused));
    doubts
}

fn of_refused(refused: &RefusedCommand) -> Option<Doubt> {
    let command = refused.command.as_str();
    let net = if command.starts_with('{') {
        let listed: Value = serde_json::from_str(command).ok()?;
        of_listed(&listed)
    } else if let Some(route) = command.strip_prefix("route append ") {
        // A route may begin with its type.
        route.split(' ').take(2).find_map(net)
    } else if let Some(rule) = command.strip_prefix("rule add ") {
        rule.split(' ').find_map(net)
    } else if command == STOPPED {
        None
    } else {
        return None;
    };
    Some(Doubt {
        words: format!(
            "the route or rule `{}` ({})",
            printable::line(command),
            printable::line(&refused.why)
        ),
        scope: net.map_or(Scope::Family(refused.family), Scope::Net),
    })
}

/// Returns the destination of a listed route, or the source of a listed rule.
fn of_listed(listed: &Value) -> Option<IpNet> {
    let with = |address: &str, length: &str| {
        let found = net(listed[address].as_str()?)?;
        let length = listed[length]
            .as_u64()
            .and_then(|length| u8::try_from(length).ok());
        match length {
            Some(length) => IpNet::new(found.addr(), length).ok().map(|net| net.trunc()),
            None => Some(found),
        }
    };
    with("dst", "dstlen").or_else(|| with("src", "srclen"))
}

fn net(word: &str) -> Option<IpNet> {
    let address = || word.parse::<IpAddr>().ok().map(IpNet::from);
    word.parse::<IpNet>().ok().or_else(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::connection_end::Reached;
    use crate::twin::machine::MachineLink;

    #[test]
    fn a_thing_that_the_twin_lacks_is_a_doubt_about_packets_that_may_meet_it() {
        let enslaved = MachineLink {
            master: Some("eth0".to_owned()),
            xdp: true,
            ..MachineLink::with("enP1", &[])
        };
        let machine = Machine {
            links: vec![MachineLink::with("eth0", &[]), enslaved],
            filtered: vec!["eth1".to_owned()],
            policies: vec![(
                "10.4.0.0/16".parse().expect("a network"),
                "10.224.0.0/16".parse().expect("a network"),
            )],
            ..Machine::default()
        };
        let refused = |command: &str| RefusedCommand {
            family: Some(Family::V4),
            command: command.to_owned(),
            why: "`encap` is not known".to_owned(),
        };
        let refused = [
            refused(r#"{"dst":"10.9.0.0/16","encap":"mpls","dev":"eth0"}"#),
            refused(r#"{"priority":5,"src":"10.8.0.0","srclen":16,"tun_id":"7"}"#),
            refused("route append default via 10.3.0.1 dev eth0"),
            refused("address add 10.3.0.4/24 dev eth0"),
            refused(STOPPED),
        ];
        let doubts = doubts(&machine, &refused);
        let found: Vec<String> = doubts
            .iter()
            .map(|doubt| match &doubt.scope {
                Scope::Interface(name) => format!("{name}: {doubt}"),
                Scope::Net(net) => format!("{net}: {doubt}"),
                Scope::Family(family) => format!("{family:?}: {doubt}"),
                Scope::Kernel => format!("kernel: {doubt}"),
                Scope::Selector { .. } => format!("selector: {doubt}"),
            })
            .collect();
        assert_eq!(
            found,
            [
                "enP1: an XDP program on enP1, which sees packets beside all rules",
                "eth0: an XDP program on enP1, which sees packets beside all rules",
                "eth1: a filter of tc on eth1, which sees packets beside all rules",
                "selector: the IPsec policy from 10.4.0.0/16 to 10.224.0.0/16 (ip xfrm policy)",
                "10.9.0.0/16: the route or rule `{\"dst\":\"10.9.0.0/16\",\"encap\":\"mpls\",\"dev\":\"eth0\"}` (`encap` is not known)",
                "10.8.0.0/16: the route or rule `{\"priority\":5,\"src\":\"10.8.0.0\",\"srclen\":16,\"tun_id\":\"7\"}` (`encap` is not known)",
                "Some(V4): the route or rule `route append default via 10.3.0.1 dev eth0` (`encap` is not known)",
                "Some(V4): the route or rule `the rest of the commands` (`encap` is not known)",
            ]
        );
    }

    #[test]
    fn a_doubt_concerns_the_packets_before_and_after_translation() {
        let net = |text: &str| text.parse::<IpNet>().expect("a network");
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address and port");
        let path = |is_reached: bool| KnownPath {
            client: "198.51.100.7".parse().expect("an address"),
            to: "10.3.0.4".parse().expect("an address"),
            ingress: Some("eth0"),
            reached: is_reached.then(|| {
                let reached = Reached {
                    world: 1,
                    source: at("10.4.0.4:40000"),
                    target: at("10.224.0.118:80"),
                };
                (reached, "eth1")
            }),
        };
        let selector = |source: &str, destination: &str| Scope::Selector {
            source: net(source),
            destination: net(destination),
        };
        for (scope, reached, unreached) in [
            (Scope::Interface("eth0".to_owned()), true, true),
            (Scope::Interface("eth1".to_owned()), true, false),
            (Scope::Interface("eth2".to_owned()), false, false),
            (Scope::Net(net("10.224.0.0/16")), true, true),
            (Scope::Net(net("10.225.0.0/16")), false, true),
            (Scope::Net(net("fd00::/8")), false, false),
            (Scope::Family(Some(Family::V4)), true, true),
            (Scope::Family(Some(Family::V6)), false, false),
            (Scope::Family(None), true, true),
            (Scope::Kernel, false, false),
            (selector("10.4.0.4/32", "10.224.0.0/16"), true, false),
            (selector("10.224.0.0/16", "198.51.100.0/24"), true, false),
            (selector("198.51.100.0/24", "10.3.0.4/32"), true, false),
            (selector("10.9.0.0/16", "10.224.0.0/16"), false, false),
        ] {
            let doubt = Doubt {
                words: format!("{scope:?}"),
                scope,
            };
            let found = [true, false].map(|is_reached| doubt.concerns(&path(is_reached)));
            assert_eq!(found, [reached, unreached], "{doubt}");
        }
    }
}
