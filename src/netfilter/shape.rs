//! The shape of a rule: the parts that the kernel checks when it loads the rule.

use std::net::IpAddr;

use ipnet::IpNet;

use super::matches::Match;
use super::negatable::Negatable;
use super::rule::Rule;
use super::target::{DnatPorts, Target};
use super::tracking::Conntrack;
use crate::net::{AddressRange, Family, Port, PortRange};

/// A rule without the values in which many forwards differ: addresses, ports, and words for people. The kernel checks
/// none of them when it loads a rule: it looks for the modules of the matches and the target, and checks limits, marks
/// and the like, which stay.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RuleShape(Rule);

impl RuleShape {
    #[must_use]
    pub fn of(rule: &Rule) -> Self {
        Self(Rule {
            matches: rule.matches.iter().cloned().map(plain_match).collect(),
            target: rule.target.clone().map(plain_target),
        })
    }
}

fn plain_match(condition: Match) -> Match {
    match condition {
        Match::Source(net) => Match::Source(net.map(any_net)),
        Match::Destination(net) => Match::Destination(net.map(any_net)),
        Match::Tcp {
            source,
            destination,
            flags,
        } => Match::Tcp {
            source: source.map(any_ports),
            destination: destination.map(any_ports),
            flags,
        },
        Match::Udp {
            source,
            destination,
        } => Match::Udp {
            source: source.map(any_ports),
            destination: destination.map(any_ports),
        },
        Match::Multiport { of, ports } => Match::Multiport {
            of,
            ports: ports.map(|ports| ports.into_iter().map(range).collect()),
        },
        Match::Conntrack(tracked) => Match::Conntrack(Conntrack {
            original_destination: tracked.original_destination.map(|net| net.map(any_net)),
            original_destination_port: tracked.original_destination_port.map(any_ports),
            ..tracked
        }),
        Match::Comment(_) => Match::Comment("".into()),
        other => other,
    }
}

fn plain_target(target: Target) -> Target {
    match target {
        Target::Dnat { address, ports } => Target::Dnat {
            address: any_address(Family::of(address)),
            ports: match ports {
                DnatPorts::Kept => DnatPorts::Kept,
                DnatPorts::One(_) => DnatPorts::One(Port::MIN),
                DnatPorts::Shifted { .. } => DnatPorts::Shifted {
                    to: PortRange::ALL,
                    base: Port::MIN,
                },
            },
        },
        Target::Snat {
            addresses,
            persistent,
        } if addresses.single().is_some() => Target::Snat {
            addresses: AddressRange::from(any_address(addresses.family())),
            persistent,
        },
        Target::Log { level, .. } => Target::Log {
            prefix: "".into(),
            level,
        },
        other => other,
    }
}

fn any_address(family: Family) -> IpAddr {
    family.everything().addr()
}

fn any_net(net: IpNet) -> IpNet {
    Family::of(net.addr()).everything()
}

fn any_ports(ports: Negatable<PortRange>) -> Negatable<PortRange> {
    ports.map(range)
}

/// A single port and a range are stored in different ways by iptables-nft.
fn range(ports: PortRange) -> PortRange {
    if ports.is_single() {
        PortRange::from(Port::MIN)
    } else {
        PortRange::ALL
    }
}
