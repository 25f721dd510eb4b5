//! Changes of a rule as a whole: it is gone, or does something else.

use std::net::IpAddr;

use nvactl::net::{AddressRange, Port, PortRange};
use nvactl::netfilter::rule::Rule;
use nvactl::netfilter::target::{DnatPorts, Target};

/// A change of a rule. `rule` is `None` if the rule is gone.
#[derive(Debug, Clone)]
pub struct Mutation {
    pub what: &'static str,
    pub rule: Option<Rule>,
}

/// Returns the changes of a rule, without those of log lines, which no packet sees.
pub fn mutations(rule: &Rule) -> Vec<Mutation> {
    let gone = Mutation {
        what: "the rule is gone",
        rule: None,
    };
    let others = rule.target.iter().flat_map(other_targets);
    let others = others.map(|(what, target)| Mutation {
        what,
        rule: Some(Rule {
            target: Some(target),
            ..rule.clone()
        }),
    });
    [gone].into_iter().chain(others).collect()
}

/// Returns the range one port higher, or lower at the upper end.
fn shifted(ports: PortRange) -> PortRange {
    let by = |port: Port, step: i32| {
        let moved = i32::from(port.number()) + step;
        Port::new(u16::try_from(moved).expect("it is a port")).expect("it is a port")
    };
    let step = if ports.last().number() == u16::MAX {
        -1
    } else {
        1
    };
    PortRange::new(by(ports.first(), step), by(ports.last(), step)).expect("it is in order")
}

/// Returns other targets, in words.
fn other_targets(target: &Target) -> Vec<(&'static str, Target)> {
    let named = |what: &'static str, target: Target| (what, target);
    match target {
        Target::Accept => vec![named("drops instead of accepting", Target::Drop)],
        Target::Drop => vec![named("accepts instead of dropping", Target::Accept)],
        Target::Dnat { address, ports } => {
            let mut all = vec![named(
                "leads to another address",
                Target::Dnat {
                    address: next(*address),
                    ports: *ports,
                },
            )];
            all.extend(other_dnat_ports(*ports).into_iter().map(|ports| {
                named(
                    "leads to another port",
                    Target::Dnat {
                        address: *address,
                        ports,
                    },
                )
            }));
            all
        }
        Target::Snat {
            addresses,
            persistent,
        } => {
            let other = AddressRange::new(next(addresses.last()), next(addresses.last()));
            vec![named(
                "gives another source",
                Target::Snat {
                    addresses: other.expect("it is a range"),
                    persistent: *persistent,
                },
            )]
        }
        _ => Vec::new(),
    }
}

fn next(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address) + 1).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) + 1).into()),
    }
}

fn other_dnat_ports(ports: DnatPorts) -> Vec<DnatPorts> {
    let moved = |port: Port| Port::new(port.number() ^ 1).unwrap_or(Port::MIN);
    match ports {
        DnatPorts::Kept => vec![DnatPorts::One(Port::MIN)],
        // A kept port may be the same one.
        DnatPorts::One(port) => vec![DnatPorts::One(moved(port))],
        DnatPorts::Shifted { to, base } => vec![
            DnatPorts::Shifted {
                to: shifted(to),
                base,
            },
            DnatPorts::Shifted {
                to,
                base: moved(base),
            },
            DnatPorts::One(to.first()),
        ],
    }
}
