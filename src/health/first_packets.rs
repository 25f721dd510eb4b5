//! The first packets of a forward's connections at a chain of the nat table, and the conditions that they meet.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::forwards::{Forward, Snat};
use crate::net::{Interface, PortRange, Protocol};
use crate::netfilter::matches::{AddressType, Match, PortsOf, Side};
use crate::netfilter::negatable::Negatable::{self, Is, Not};
use crate::netfilter::rule::Rule;
use crate::netfilter::tracking::{Conntrack, CtDirection, CtState, CtStates, CtStatus};

/// The first packets of a forward's connections. The nat table sees only these.
#[derive(Debug, Clone)]
pub struct FirstPackets<'f> {
    pub forward: &'f Forward,
    /// The first condition that nvactl cannot decide, of those that were taken to hold.
    pub undecided: Option<&'f Match>,
    /// Whether nvactl's DNAT has sent them to a target.
    is_translated: bool,
    /// `None` if it may be any address of the machine.
    destination: Option<IpAddr>,
    ports: Vec<PortRange>,
    ingress: Vec<&'f Interface>,
}

/// Whether some of the packets meet a condition. The worst answer is the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Yes,
    /// It depends on something that neither the spec nor the rules say.
    Unknown,
    No,
}

impl From<bool> for Answer {
    fn from(holds: bool) -> Self {
        if holds { Answer::Yes } else { Answer::No }
    }
}

impl<'f> FirstPackets<'f> {
    /// Returns a forward's packets as PREROUTING sees them.
    #[must_use]
    pub fn arriving(forward: &'f Forward) -> Self {
        Self {
            forward,
            undecided: None,
            is_translated: false,
            destination: listen_address(forward),
            ports: vec![forward.listen.ports],
            ingress: forward.entrances().collect(),
        }
    }

    /// Returns a forward's packets to each of its destinations, as POSTROUTING sees them.
    pub fn leaving(forward: &'f Forward) -> impl Iterator<Item = Self> {
        let each = forward.target.destinations.iter();
        each.map(|to| Self {
            is_translated: true,
            destination: Some(to.address),
            ports: vec![forward.ports_at(to)],
            ..Self::arriving(forward)
        })
    }

    /// Returns those of many packets that meet all conditions of a rule.
    #[must_use]
    pub fn all_meeting(packets: &[Self], rule: &'f Rule) -> Vec<Self> {
        // Most rules are about other ports, which costs least to find.
        let asked = rule.matches.iter().find_map(asked_ports);
        let has = |range: &PortRange| asked.into_iter().flatten().any(|one| one.overlaps(*range));
        let near = packets.iter();
        let near = near.filter(|one| asked.is_none() || one.ports.iter().any(has));
        near.filter_map(|one| one.meeting(rule)).collect()
    }

    /// Returns the packets that meet all conditions of a rule; `None` if no packet does.
    fn meeting(&self, rule: &'f Rule) -> Option<Self> {
        // Most packets are sorted out, so they are copied only if another condition keeps fewer of them.
        let mut left = Cow::Borrowed(self);
        let mut undecided = self.undecided;
        for condition in &rule.matches {
            match narrow(&mut left, condition) {
                Answer::Yes => {}
                Answer::Unknown => undecided = undecided.or(Some(condition)),
                Answer::No => return None,
            }
        }
        Some(Self {
            undecided,
            ..left.into_owned()
        })
    }

    fn is_in(&self, states: Negatable<CtStates>) -> Answer {
        let is_in = |states: &CtStates| {
            states.contains(CtState::New) || self.is_translated && states.contains(CtState::Dnat)
        };
        states.holds(is_in).into()
    }
}

/// Returns the destination ports of which a condition asks for one.
fn asked_ports(condition: &Match) -> Option<&[PortRange]> {
    match condition {
        Match::Tcp {
            destination: Some(Is(range)),
            ..
        }
        | Match::Udp {
            destination: Some(Is(range)),
            ..
        } => Some(std::slice::from_ref(range)),
        Match::Multiport {
            of: PortsOf::Destination | PortsOf::Either,
            ports: Is(ranges),
        } => Some(ranges),
        _ => None,
    }
}

/// Returns the address that clients connect to; `None` if it may be any address of the machine. With one interface,
/// the SNAT address is one that is known.
fn listen_address(forward: &Forward) -> Option<IpAddr> {
    let is_one_nic = forward.ingress.iter().all(|one| *one == forward.egress);
    match (forward.listen.address, forward.snat) {
        (Some(address), _) => Some(address),
        (None, Snat::Addresses(range)) if is_one_nic => range.single(),
        _ => None,
    }
}

/// Keeps the packets that meet a condition. The packets stay as they are if the answer is not yes.
fn narrow(left: &mut Cow<'_, FirstPackets<'_>>, condition: &Match) -> Answer {
    match condition {
        Match::Protocol(asked) => {
            let protocol = left.forward.protocol;
            asked
                .holds(|asked| asked.transport() == Some(protocol))
                .into()
        }
        Match::Source(Is(net))
            if left.is_translated && net.prefix_len() == net.max_prefix_len() =>
        {
            // A target is a client of its own forward only by a hairpin.
            let is_target = left.destination == Some(net.addr());
            (left.forward.hairpin || !is_target).into()
        }
        Match::Destination(net) => is_at(*net, left.destination),
        Match::Ingress(by) => {
            let meets = |one: &&Interface| by.holds(|by| by.covers(one));
            if !left.ingress.iter().any(meets) {
                return Answer::No;
            }
            if !left.ingress.iter().all(meets) {
                left.to_mut().ingress.retain(meets);
            }
            Answer::Yes
        }
        Match::Egress(by) => {
            let egress = Some(&left.forward.egress).filter(|_| left.is_translated);
            by.holds(|by| egress.is_some_and(|egress| by.covers(egress)))
                .into()
        }
        Match::Tcp {
            destination, flags, ..
        } => {
            let is_tcp = left.forward.protocol == Protocol::Tcp;
            let opens = flags.is_none_or(|flags| flags.holds(|flags| flags.hold_for_opening()));
            Answer::from(is_tcp && opens).max(has_port(left, *destination))
        }
        Match::Udp { destination, .. } => {
            let is_udp = left.forward.protocol == Protocol::Udp;
            Answer::from(is_udp).max(has_port(left, *destination))
        }
        Match::Multiport {
            of: PortsOf::Destination | PortsOf::Either,
            ports,
        } => has_ports(left, ports.as_ref().map(Vec::as_slice)),
        Match::Icmp(_) | Match::Icmp6(_) => Answer::No,
        Match::Conntrack(conntrack) => is_tracked(left, conntrack),
        Match::State(states) => left.is_in(*states),
        Match::AddressType { of, kind } if !left.is_translated => {
            let is = match of {
                Side::Source => AddressType::Unicast,
                Side::Destination => AddressType::Local,
            };
            kind.holds(|kind| *kind == is).into()
        }
        // They hold for some clients, or for some of a client's packets.
        Match::Source(_)
        | Match::Multiport { .. }
        | Match::Probability(_)
        | Match::Cluster(_)
        | Match::HashLimit(_)
        | Match::ConnLimit(_)
        | Match::Limit(_)
        | Match::Comment(_) => Answer::Yes,
        Match::AddressType { .. }
        | Match::Mark(_)
        | Match::Connmark(_)
        | Match::Set(_)
        | Match::Other(_) => Answer::Unknown,
    }
}

fn is_at(net: Negatable<ipnet::IpNet>, address: Option<IpAddr>) -> Answer {
    address.map_or(Answer::Unknown, |address| {
        net.holds(|net| net.contains(&address)).into()
    })
}

fn has_port(left: &mut Cow<'_, FirstPackets<'_>>, asked: Option<Negatable<PortRange>>) -> Answer {
    match asked {
        None => Answer::Yes,
        Some(Is(range)) => has_ports(left, Is(&[range])),
        Some(Not(range)) => has_ports(left, Not(&[range])),
    }
}

fn has_ports(left: &mut Cow<'_, FirstPackets<'_>>, asked: Negatable<&[PortRange]>) -> Answer {
    let ports = remaining(&left.ports, asked);
    if ports.is_empty() {
        return Answer::No;
    }
    if ports != left.ports {
        left.to_mut().ports = ports;
    }
    Answer::Yes
}

/// Returns those of the ports that a condition on ports lets through.
fn remaining(ports: &[PortRange], asked: Negatable<&[PortRange]>) -> Vec<PortRange> {
    match asked {
        Is(asked) => {
            let shared = |range: &PortRange| {
                let range = *range;
                asked.iter().filter_map(move |one| range.shared(*one))
            };
            ports.iter().flat_map(shared).collect()
        }
        Not(excluded) => excluded.iter().fold(ports.to_vec(), |ports, one| {
            let left = ports.into_iter().flat_map(|range| range.without(*one));
            left.collect()
        }),
    }
}

fn is_tracked(left: &mut Cow<'_, FirstPackets<'_>>, conntrack: &Conntrack) -> Answer {
    let Conntrack {
        states,
        original_destination,
        original_destination_port,
        status,
        direction,
    } = *conntrack;
    let listen = left.forward.listen;
    let port = match original_destination_port {
        Some(asked) if left.is_translated => {
            let asked = match &asked {
                Is(range) => Is(std::slice::from_ref(range)),
                Not(range) => Not(std::slice::from_ref(range)),
            };
            Answer::from(!remaining(&[listen.ports], asked).is_empty())
        }
        asked => has_port(left, asked),
    };
    let progress = match status {
        Some(
            Is(CtStatus::None | CtStatus::Expected) | Not(CtStatus::None | CtStatus::Expected),
        ) => Answer::Unknown,
        // The connection begins with this packet.
        Some(status) => status.holds(|_| false).into(),
        None => Answer::Yes,
    };
    let address =
        original_destination.map_or(Answer::Yes, |net| is_at(net, listen_address(left.forward)));
    let is_in = states.map_or(Answer::Yes, |states| left.is_in(states));
    let direction = Answer::from(direction != Some(CtDirection::Reply));
    is_in.max(address).max(port).max(progress).max(direction)
}
