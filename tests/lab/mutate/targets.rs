//! Other targets of a rule.

use std::net::IpAddr;

use nvactl::net::{AddressRange, Port};
use nvactl::netfilter::mark::Mark;
use nvactl::netfilter::target::{DnatPorts, Mss, Target};

use super::conditions::{moved, shifted};

/// Returns other targets: the opposite, or one field is another.
pub fn others(target: &Target) -> Vec<Target> {
    match target {
        Target::Accept => vec![Target::Drop, Target::Return],
        Target::Drop | Target::Masquerade => vec![Target::Accept, Target::Return],
        Target::Return => vec![Target::Accept, Target::Drop],
        Target::Reject(_) => vec![Target::Accept, Target::Return, Target::Drop],
        Target::Jump(chain) => vec![Target::Goto(chain.clone()), Target::Accept],
        Target::Goto(chain) => vec![Target::Jump(chain.clone()), Target::Accept],
        Target::Dnat { address, ports } => {
            let beside = [1, -1].map(|by| beside(*address, by)).into_iter();
            let addresses = beside.map(|address| Target::Dnat {
                address,
                ports: *ports,
            });
            let ports = other_ports(*ports).into_iter().map(|ports| Target::Dnat {
                address: *address,
                ports,
            });
            addresses.chain(ports).collect()
        }
        Target::Snat {
            addresses,
            persistent,
        } => {
            // The kernel's hash of the client would decide whether a test sees one address more.
            let next = beside(addresses.last(), 1);
            let other = AddressRange::new(next, next).expect("it is in order");
            let with = |addresses, persistent| Target::Snat {
                addresses,
                persistent,
            };
            let first = AddressRange::new(addresses.first(), addresses.first());
            let first = first.filter(|first| first != addresses);
            let one = first.map(|first| with(first, *persistent)).into_iter();
            let others = [with(other, *persistent), with(*addresses, !persistent)];
            others.into_iter().chain(one).collect()
        }
        Target::SetConnmark(mark) => going_on(Target::SetConnmark(flipped(*mark))),
        Target::TcpMss(Mss::Bytes(bytes)) => going_on(Target::TcpMss(Mss::Bytes(bytes - 1))),
        Target::TcpMss(Mss::Clamp) => going_on(Target::TcpMss(Mss::Bytes(1300))),
        Target::Log { prefix, level } => {
            let other = Target::Log {
                prefix: format!("x{prefix}").chars().take(29).collect(),
                level: *level,
            };
            let louder = Target::Log {
                prefix: prefix.clone(),
                level: level ^ 1,
            };
            [other].into_iter().chain(going_on(louder)).collect()
        }
        _ => Vec::new(),
    }
}

/// Returns other targets of a rule behind which the walk goes on: another one like it, and those that end the walk.
fn going_on(other: Target) -> Vec<Target> {
    vec![other, Target::Accept, Target::Drop, Target::Return]
}

fn flipped(mark: Mark) -> Mark {
    Mark {
        value: mark.value ^ mark.mask,
        ..mark
    }
}

fn beside(address: IpAddr, by: i8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(v4.to_bits().wrapping_add_signed(by.into()).into()),
        IpAddr::V6(v6) => IpAddr::V6(v6.to_bits().wrapping_add_signed(by.into()).into()),
    }
}

fn other_ports(ports: DnatPorts) -> Vec<DnatPorts> {
    match ports {
        DnatPorts::Kept => vec![DnatPorts::One(Port::MIN)],
        DnatPorts::One(port) => [1, -1]
            .into_iter()
            .filter_map(|by| moved(port, by))
            .map(DnatPorts::One)
            .chain([DnatPorts::Kept])
            .collect(),
        DnatPorts::Shifted { to, base } => {
            let bases = [1, -1].into_iter().filter_map(|by| moved(base, by));
            let bases = bases.map(|base| DnatPorts::Shifted { to, base });
            let shifted = DnatPorts::Shifted {
                to: shifted(to),
                base,
            };
            let others = [shifted, DnatPorts::One(to.first()), DnatPorts::Kept];
            bases.chain(others).collect()
        }
    }
}
