//! The rules that limit the size of the TCP segments that both ends of a connection announce.
//!
//! A connection's two ends announce the largest segment that they take (MSS) in the packet that opens the connection
//! and in the answer to it. Both packets pass `NVACTL-MSS`, a chain of the mangle table. All other packets leave the
//! chain at its first two rules.
//!
//! The rules limit exactly the connections that nvactl forwards. Those of a forward match the translated connections
//! of its own listener, as its rule of `NVACTL-FORWARD` does: `--ctstate DNAT` alone would also match connections that
//! other programs redirect, and the target alone connections that are routed straight to it. Those of an outbound entry
//! match what its rule of `NVACTL-POSTROUTING` matches. `--ctdir` separates the two packets: the kernel has translated
//! both ends of the answer back but for the target of a forward. A mark of the connection would need one rule for all,
//! but it would have to stay for as long as the connection lives, and the mark of a tree is gone when a packet leaves.
//!
//! The answer to a forward's client is not asked for the interface by which it came: another one may own the `snat`
//! address. An outbound entry's is, because only the interfaces tell its connections from others between the same
//! networks.
//!
//! In a tree, the rules of forwards are divided among chains as in the other hooks.

use ipnet::IpNet;

use super::chains::{Chains, EXIT};
use super::forward::{self, of_listener};
use super::outbound::{self, lead, slotted};
use crate::forwards::{Destination, Forward, Outbound, OutboundProtocol};
use crate::net::{Interface, PortRange, Protocol};
use crate::netfilter::matches::{Match, PortsOf};
use crate::netfilter::negatable::Negatable::{self, Is, Not};
use crate::netfilter::rule::Rule;
use crate::netfilter::target::{Mss, Target};
use crate::netfilter::tcp_flags::TcpFlags;
use crate::netfilter::tracking::{Conntrack, CtDirection, CtState};

const BOTH_WAYS: [CtDirection; 2] = [CtDirection::Original, CtDirection::Reply];

/// Returns the rules for packets that announce no segment size: they leave the chain at once.
pub fn others() -> Vec<Rule> {
    let flags = Some(Not(TcpFlags::ANNOUNCING));
    let later = [
        Match::Protocol(Is(Protocol::Tcp.into())),
        of_tcp(None, None, flags),
    ];
    let other = Match::Protocol(Not(Protocol::Tcp.into()));
    vec![
        Rule::new(later, Target::Return),
        Rule::new([other], Target::Return),
    ]
}

/// Returns the rules of a forward, for each entrance and destination.
pub fn of_forward(forward: &Forward, mss: Mss) -> Vec<Rule> {
    if forward.protocol != Protocol::Tcp {
        return Vec::new();
    }
    let each = forward.entrances().flat_map(|client| {
        let destinations = forward.target.destinations.iter();
        destinations
            .flat_map(move |to| BOTH_WAYS.map(|way| of_destination(forward, client, to, way, mss)))
    });
    each.collect()
}

/// Returns the rule for one of the two packets of a connection to a destination. Its client is behind the interface
/// `client`.
fn of_destination(
    forward: &Forward,
    client: &Interface,
    to: &Destination,
    way: CtDirection,
    mss: Mss,
) -> Rule {
    let target = Is(IpNet::from(to.address));
    let (client, egress) = (client.clone().into(), forward.egress.clone().into());
    let mut matches = match way {
        CtDirection::Original => vec![
            Match::Destination(target),
            Match::Ingress(Is(client)),
            Match::Egress(Is(egress)),
        ],
        CtDirection::Reply => vec![Match::Source(target), Match::Egress(Is(client))],
    };
    let tracked = Conntrack {
        direction: Some(way),
        ..of_listener(forward)
    };
    matches.extend(announcing(way, &[forward.ports_at(to)]));
    matches.extend([Match::Conntrack(tracked), forward::comment(forward)]);
    Rule::new(matches, Target::TcpMss(mss))
}

/// Returns the rules of an outbound entry, and adds the chains that they lead to.
pub fn of_outbound(entry: &Outbound, mss: Mss, chains: &mut Chains) -> Vec<Rule> {
    if !entry.protocols.contains(&OutboundProtocol::Tcp) {
        return Vec::new();
    }
    let mut rules = Vec::new();
    for way in BOTH_WAYS {
        let exit = slotted(&entry.ports).into_iter().map(|ports| {
            let matches = announcing(way, ports).into_iter();
            Rule::new(
                matches.chain([outbound::comment(entry)]),
                Target::TcpMss(mss),
            )
        });
        let exit = chains.add(EXIT, exit.collect());
        let (ends, first) = lead(entry, way, &[], exit, chains);
        let tracked = Match::Conntrack(Conntrack {
            states: Some(Not(CtState::Dnat.into())),
            direction: Some(way),
            ..Conntrack::default()
        });
        for client in &entry.ingress {
            let (client, egress) = (client.clone().into(), entry.egress.clone().into());
            let (came, leaves) = match way {
                CtDirection::Original => (client, egress),
                CtDirection::Reply => (egress, client),
            };
            let path = [Match::Ingress(Is(came)), Match::Egress(Is(leaves))];
            let matches = ends.iter().cloned().chain(path);
            let matches = matches.chain([tracked.clone(), outbound::comment(entry)]);
            rules.push(Rule::new(matches, Target::Jump(first.clone())));
        }
    }
    rules
}

/// Returns the conditions of packets that announce a segment size, to ports of servers or from them. All ports are
/// few enough for one rule.
fn announcing(way: CtDirection, ports: &[PortRange]) -> Vec<Match> {
    let protocol = Match::Protocol(Is(Protocol::Tcp.into()));
    let flags = Some(Is(TcpFlags::ANNOUNCING));
    let one = match ports {
        [one] => Some(Is(*one)),
        _ => None,
    };
    let (tcp, of) = match way {
        CtDirection::Original => (of_tcp(None, one, flags), PortsOf::Destination),
        CtDirection::Reply => (of_tcp(one, None, flags), PortsOf::Source),
    };
    let several = (ports.len() > 1).then(|| Match::Multiport {
        of,
        ports: Is(ports.to_vec()),
    });
    [protocol, tcp].into_iter().chain(several).collect()
}

fn of_tcp(
    source: Option<Negatable<PortRange>>,
    destination: Option<Negatable<PortRange>>,
    flags: Option<Negatable<TcpFlags>>,
) -> Match {
    Match::Tcp {
        source,
        destination,
        flags,
    }
}
