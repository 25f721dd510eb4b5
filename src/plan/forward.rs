//! The rules of one forward.

use ipnet::IpNet;

use super::chains::{ADMIT, Chains, log_line};
use crate::forwards::{Balance, Destination, Forward, Limits, Name, Per, Snat, TargetPorts};
use crate::net::{Family, Interface, PortRange, Protocol};
use crate::netfilter::limit::{ConnLimit, HashLimit, Whose};
use crate::netfilter::matches::{AddressType, Cluster, Match, Probability, Side};
use crate::netfilter::negatable::Negatable::{Is, Not};
use crate::netfilter::rule::Rule;
use crate::netfilter::target::{DnatPorts, RejectWith, Target};
use crate::netfilter::tcp_flags::TcpFlags;
use crate::netfilter::tracking::{Conntrack, CtState};

/// Hash seed for `balance: client`, shared by all forwards so that a client gets the same pod index in
/// each.
const SEED: u32 = 0x6e76_6163;

/// Returns the DNAT rules for packets that arrive, one for each entrance and destination.
pub fn translate(forward: &Forward) -> impl Iterator<Item = Rule> {
    let entrances = forward.entrances();
    entrances.flat_map(move |ingress| {
        let by = move || Match::Ingress(Is(ingress.clone().into()));
        each_destination(forward).map(move |(n, to)| dnat(forward, [by()], n, to))
    })
}

/// Returns the DNAT rules for packets that the firewall itself sends. They exclude its loopback addresses:
/// a packet with a loopback source cannot leave the machine.
pub fn translate_own(forward: &Forward) -> impl Iterator<Item = Rule> {
    let all = forward.listen.address.is_none();
    let apart = move || all.then(|| Match::Destination(Not(forward.family().loopback())));
    let each = forward.hairpin.then(|| each_destination(forward));
    let each = each.into_iter().flatten();
    each.map(move |(n, to)| dnat(forward, apart(), n, to))
}

fn each_destination(forward: &Forward) -> impl Iterator<Item = (usize, &Destination)> {
    forward.target.destinations.iter().enumerate()
}

/// Returns the conditions of packets to the forward's listener, for each entrance.
pub fn arrivals(forward: &Forward) -> impl Iterator<Item = Vec<Match>> {
    let by = |ingress: &Interface| Match::Ingress(Is(ingress.clone().into()));
    forward.entrances().map(move |ingress| {
        let sent = sent(forward, [by(ingress)]);
        sent.chain([comment(forward)]).collect()
    })
}

/// Returns the conditions of packets to the forward's listener, with `apart` before the port.
fn sent(forward: &Forward, apart: impl IntoIterator<Item = Match>) -> impl Iterator<Item = Match> {
    let listen = forward.listen;
    let on_address = listen
        .address
        .map(|ip| Match::Destination(Is(IpNet::from(ip))));
    // The kernel tries a rule's matches in order, and `addrtype` costs a route look-up. So it comes
    // after the port, which nearly no packet matches.
    let on_any = listen.address.is_none().then_some(Match::AddressType {
        of: Side::Destination,
        kind: Is(AddressType::Local),
    });
    on_address
        .into_iter()
        .chain(apart)
        .chain(transport(forward.protocol, listen.ports, false))
        .chain(on_any)
}

fn dnat(
    forward: &Forward,
    apart: impl IntoIterator<Item = Match>,
    n: usize,
    to: &Destination,
) -> Rule {
    let listen = forward.listen;
    let matches = sent(forward, apart)
        .chain(share(forward, n))
        .chain([comment(forward)]);
    let ports = match to.ports {
        TargetPorts::Range(one) if one.is_single() => DnatPorts::One(one.first()),
        TargetPorts::Range(range) if range != listen.ports => DnatPorts::Shifted {
            to: range,
            base: listen.ports.first(),
        },
        TargetPorts::Range(_) | TargetPorts::Kept => DnatPorts::Kept,
    };
    let address = to.address;
    Rule::new(matches, Target::Dnat { address, ports })
}

/// Returns the condition that selects the share of the `n`th destination among the connections that no
/// earlier destination took. The last destination takes all that are left, without a condition.
fn share(forward: &Forward, n: usize) -> Option<Match> {
    let n = as_u32(n);
    let left = as_u32(forward.target.destinations.len()) - n;
    (left > 1).then(|| match forward.target.balance {
        Balance::Random => Match::Probability(Is(Probability::one_of(left))),
        // Node 0 of those that are left, with a hash seed for each: in the spelling of iptables-save,
        // iptables accepts only the first six nodes (`--cluster-local-nodemask` up to 32,
        // extensions/libxt_cluster.c).
        Balance::Client => Match::Cluster(Is(Cluster {
            total: left,
            node: 0,
            seed: SEED + n,
        })),
    })
}

/// Converts a number of destinations, which is at most [`Cluster::MOST`].
fn as_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Returns the forward's rules of `NVACTL-FORWARD`. They accept the forward's connections, or send them to
/// a chain of its own that checks clients and limits. They match only connections of this forward,
/// because other forwards may redirect to the same port.
pub fn admit<'f>(forward: &'f Forward, chains: &mut Chains) -> impl Iterator<Item = Rule> + 'f {
    let target = if forward.admits_all() {
        Target::Accept
    } else {
        let rules = admission(forward, chains);
        Target::Goto(chains.add(ADMIT, rules))
    };
    forward.entrances().flat_map(move |ingress| {
        let target = target.clone();
        let each = forward.target.destinations.iter();
        each.map(move |to| take_new(forward, ingress, to, target.clone()))
    })
}

/// The packets that a rule of a forward's ADMIT chain matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packets {
    /// All packets. With the policy `keep`, a packet that opens no connection, or that leaves by another
    /// interface, reaches the target unless a rule refuses it.
    All,
    /// Packets that open a connection. Other packets must not use up the limits.
    Opening,
    /// Packets that open a connection and leave by the forward's egress interface.
    Leaving,
}

/// Returns the rules of a forward's ADMIT chain. Clients are checked before limits, so that refused clients
/// do not use up the limits of others. Packets that are neither refused nor accepted return to the rules
/// after nvactl's.
fn admission(forward: &Forward, chains: &mut Chains) -> Vec<Rule> {
    use Packets::{All, Leaving, Opening};
    let (sources, log) = (&forward.sources, forward.log.as_ref());
    let mut rules = Vec::new();
    let mut rule = |packets: Packets, condition: Option<Match>, target: Target| {
        let mut matches = Vec::new();
        if packets == Leaving {
            matches.push(Match::Egress(Is(forward.egress.clone().into())));
        }
        matches.push(Match::Protocol(Is(forward.protocol.into())));
        matches.extend(opens(forward.protocol).filter(|_| packets != All));
        matches.extend(condition);
        matches.push(comment(forward));
        rules.push(Rule::new(matches, target));
    };
    if !sources.deny.is_empty() {
        let refused = chains.refuse(Target::Drop, log);
        let denied = chains.denied(&sources.deny, &refused);
        rule(All, None, Target::Jump(denied));
    }
    if let Some(allow) = &sources.allow {
        let refused = chains.refuse(Target::Drop, log);
        let allowed = chains.allowed(allow, &refused);
        rule(All, None, Target::Jump(allowed));
    }
    let logged = log.filter(|log| log.connections.accepted());
    // Every packet of a connection is NEW until a reply comes. Only the first packet is counted.
    if forward.limits.is_some() || logged.is_some() {
        rule(
            Leaving,
            Some(Match::Conntrack(Conntrack::CONFIRMED)),
            Target::Accept,
        );
        rule(
            All,
            Some(Match::Conntrack(Conntrack::CONFIRMED)),
            Target::Return,
        );
    }
    if let Some(limits) = &forward.limits {
        let target = match (limits.reject, forward.protocol, forward.family()) {
            (false, ..) => Target::Drop,
            (true, Protocol::Tcp, _) => Target::Reject(RejectWith::TcpReset),
            (true, Protocol::Udp, Family::V4) => Target::Reject(RejectWith::IcmpPortUnreachable),
            (true, Protocol::Udp, Family::V6) => Target::Reject(RejectWith::Icmp6PortUnreachable),
        };
        let refused = chains.refuse(target, log);
        let protocol = forward.protocol.as_str();
        for limit in limit_matches(&forward.name, protocol, forward.family(), limits) {
            rule(Opening, Some(limit), refused.clone());
        }
    }
    if let Some(log) = logged {
        let (limit, line) = log_line(log, "accepted");
        rule(Opening, Some(limit), line);
    }
    rule(Leaving, None, Target::Accept);
    // Counts packets that were neither refused nor accepted.
    rule(All, None, Target::Return);
    rules
}

/// Returns the conditions that packets beyond the limits match. The name and the protocol tell the limits of
/// different forwards apart.
pub(super) fn limit_matches(
    name: &Name,
    protocol: &str,
    family: Family,
    limits: &Limits,
) -> impl Iterator<Item = Match> {
    let (of, per, mask) = match (limits.per, family) {
        (Per::Total, _) => (Whose::All, "total", 0),
        (Per::Client, Family::V4) => (Whose::Address, "client", 32),
        // One client can use every address of its network of 64 bits (RFC 4291, 2.5.1).
        (Per::Client, Family::V6) => (Whose::Net(64), "client", 64),
    };
    let rate = limits.rate.map(|rate| {
        let (times, burst) = (rate.new_per_second.times(), rate.burst);
        Match::HashLimit(HashLimit {
            per_second: rate.new_per_second,
            burst,
            expire: burst.div_ceil(times),
            of,
            name: format!("{name}-{protocol}-{times}-{burst}-{per}").into(),
        })
    });
    let most = limits.max_connections;
    let most = most.map(|most| Match::ConnLimit(ConnLimit { most, mask }));
    rate.into_iter().chain(most)
}

fn take_new(forward: &Forward, ingress: &Interface, to: &Destination, target: Target) -> Rule {
    let accepts = target == Target::Accept;
    let mut matches = vec![
        Match::Destination(Is(IpNet::from(to.address))),
        Match::Ingress(Is(ingress.clone().into())),
    ];
    if accepts {
        matches.push(Match::Egress(Is(forward.egress.clone().into())));
    }
    matches.extend(transport(forward.protocol, forward.ports_at(to), accepts));
    let new = Match::Conntrack(Conntrack::states(CtState::New.into()));
    matches.extend([new, came_by_listener(forward), comment(forward)]);
    Rule::new(matches, target)
}

/// Returns the rules that give a connection its source. With `by_entrance`, they match the interfaces on
/// which the forward's clients arrive, because [another forward](crate::forwards::need_ingress_match) has
/// packets that look the same.
pub fn leave(forward: &Forward, by_entrance: bool) -> Vec<Rule> {
    let mut rules = Vec::new();
    if by_entrance {
        for ingress in forward.entrances() {
            leave_from(forward, Some(ingress), &mut rules);
        }
    } else {
        leave_from(forward, None, &mut rules);
    }
    rules
}

/// Adds the rules that give a connection its source if it arrived on `ingress`. `None` means any interface
/// and also the firewall's own packets, which arrived on none and match no `-i`.
pub fn leave_from(forward: &Forward, ingress: Option<&Interface>, rules: &mut Vec<Rule>) {
    for to in &forward.target.destinations {
        let mut matches = vec![Match::Destination(Is(IpNet::from(to.address)))];
        matches.extend(ingress.map(|by| Match::Ingress(Is(by.clone().into()))));
        matches.push(Match::Egress(Is(forward.egress.clone().into())));
        matches.extend(transport(forward.protocol, forward.ports_at(to), false));
        matches.extend([came_by_listener(forward), comment(forward)]);
        rules.push(Rule::new(matches, source(forward.snat)));
    }
}

/// Returns the target that gives a connection its source.
pub(super) fn source(snat: Snat) -> Target {
    match snat {
        Snat::Addresses(addresses) => Target::Snat {
            addresses,
            // If not persistent, the kernel hashes the destination as well (`find_best_ips_proto` in
            // net/netfilter/nf_nat_core.c): each pod would see another address for one client.
            persistent: addresses.single().is_none(),
        },
        Snat::Masquerade => Target::Masquerade,
        // ACCEPT ends the nat chain. A later rule of another program that masquerades all packets
        // leaving the machine would hide the client.
        Snat::Client => Target::Accept,
    }
}

/// Returns the conditions for a protocol and its destination ports.
///
/// `syn` excludes TCP packets of no known connection that do not open one: conntrack calls them NEW too
/// (`tcp_loose` in nf_conntrack-sysctl.rst). UDP has no such flag.
pub(super) fn transport(protocol: Protocol, ports: PortRange, syn: bool) -> [Match; 2] {
    let (source, destination) = (None, Some(Is(ports)));
    let module = match protocol {
        Protocol::Tcp => Match::Tcp {
            source,
            destination,
            flags: syn.then_some(Is(TcpFlags::OPENING)),
        },
        Protocol::Udp => Match::Udp {
            source,
            destination,
        },
    };
    [Match::Protocol(Is(protocol.into())), module]
}

/// Returns the condition that a packet opens a connection, if the protocol has a flag for that. Conntrack
/// calls any TCP packet of no known connection NEW.
pub(super) fn opens(protocol: Protocol) -> Option<Match> {
    (protocol == Protocol::Tcp).then_some(Match::Tcp {
        source: None,
        destination: None,
        flags: Some(Is(TcpFlags::OPENING)),
    })
}

/// Returns the condition that a connection was translated and its first packet was sent to this forward's
/// listener.
fn came_by_listener(forward: &Forward) -> Match {
    Match::Conntrack(of_listener(forward))
}

/// Returns the conditions of [`came_by_listener`].
pub(super) fn of_listener(forward: &Forward) -> Conntrack {
    Conntrack {
        states: Some(Is(CtState::Dnat.into())),
        original_destination: forward.listen.address.map(|ip| Is(IpNet::from(ip))),
        original_destination_port: Some(Is(forward.listen.ports)),
        ..Conntrack::default()
    }
}

pub(super) fn comment(forward: &Forward) -> Match {
    Match::Comment(forward.name.as_str().into())
}
