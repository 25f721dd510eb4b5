//! The rules of one forward.

use ipnet::IpNet;

use super::chains::{ADMIT, Chains, Refusal, log_line};
use crate::forwards::{Balance, Destination, Forward, Limits, Per, Snat, TargetPorts};
use crate::net::{Family, Interface, PortRange, Protocol};
use crate::netfilter::limit::{ConnLimit, HashLimit, Whose};
use crate::netfilter::matches::{AddressType, Cluster, Match, Probability, Side};
use crate::netfilter::negatable::Negatable::{Is, Not};
use crate::netfilter::rule::Rule;
use crate::netfilter::target::{DnatPorts, Target};
use crate::netfilter::tcp_flags::TcpFlags;
use crate::netfilter::tracking::{Conntrack, CtState};

/// Of every forward the same, so that a client has its place among the pods whichever forward it
/// comes by.
const SEED: u32 = 0x6e76_6163;

/// What is sent on to where, by the interface it came in by.
pub fn translate(forward: &Forward) -> impl Iterator<Item = Rule> {
    let entrances = forward.entrances();
    entrances.flat_map(move |ingress| {
        let by = move || Match::Ingress(Is(ingress.clone().into()));
        each_destination(forward).map(move |(n, to)| dnat(forward, [by()], n, to))
    })
}

/// The same for what the firewall itself sends. Not to its loopback addresses: what is sent from
/// there cannot leave.
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

/// What is sent to the forward's listener, by the interface it came in by.
pub fn arrivals(forward: &Forward) -> impl Iterator<Item = Vec<Match>> {
    let by = |ingress: &Interface| Match::Ingress(Is(ingress.clone().into()));
    forward.entrances().map(move |ingress| {
        let sent = sent(forward, [by(ingress)]);
        sent.chain([comment(forward)]).collect()
    })
}

/// The conditions of what is sent to the forward's listener.
fn sent(forward: &Forward, apart: impl IntoIterator<Item = Match>) -> impl Iterator<Item = Match> {
    let listen = forward.listen;
    let on_address = listen
        .address
        .map(|ip| Match::Destination(Is(IpNet::from(ip))));
    // A rule's matches are tried in order, and `addrtype` costs a route look-up: it stands behind
    // the port, which turns nearly every packet away.
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

/// Which connections go to the `n`th destination, of those that none before it took. The last takes
/// what is left.
fn share(forward: &Forward, n: usize) -> Option<Match> {
    let n = as_u32(n);
    let left = as_u32(forward.target.destinations.len()) - n;
    (left > 1).then(|| match forward.target.balance {
        Balance::Random => Match::Probability(Is(Probability::one_of(left))),
        // One of those that are left, by a hash of its own: iptables takes none but the first six
        // of the nodes in the spelling of iptables-save (`--cluster-local-nodemask` up to 32,
        // extensions/libxt_cluster.c).
        Balance::Client => Match::Cluster(Is(Cluster {
            total: left,
            node: 0,
            seed: SEED + n,
        })),
    })
}

/// A spec has at most [`Cluster::MOST`] destinations for a forward.
fn as_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The rules of `NVACTL-FORWARD`: what is this forward's passes, or goes on to a chain of its own
/// that knows whom and how much it takes. Only what is this forward's goes there: others translate
/// for the same port, too.
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

/// Which of a forward's new packets a rule of its ADMIT chain is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    /// All: with the policy `keep`, a packet that does not open a connection, or that leaves by another
    /// interface, reaches the target where no rule refuses it.
    All,
    /// The packets that open a connection: others must not use up what these may.
    Opening,
    /// Those of them that leave where the forward says.
    Leaving,
}

/// First whom the forward is not for, then what is too much, so that nobody uses up what is
/// others'; the rest passes. What is left then is for the rules behind nvactl's.
fn admission(forward: &Forward, chains: &mut Chains) -> Vec<Rule> {
    use About::{All, Leaving, Opening};
    let (sources, log) = (&forward.sources, forward.log.as_ref());
    let mut rules = Vec::new();
    let mut rule = |about: About, condition: Option<Match>, target: Target| {
        let mut matches = Vec::new();
        if about == Leaving {
            matches.push(Match::Egress(Is(forward.egress.clone().into())));
        }
        matches.push(Match::Protocol(Is(forward.protocol.into())));
        matches.extend(opens(forward.protocol).filter(|_| about != All));
        matches.extend(condition);
        matches.push(comment(forward));
        rules.push(Rule::new(matches, target));
    };
    if !sources.deny.is_empty() {
        let refused = chains.refuse(Refusal::Drop, log);
        let denied = chains.denied(&sources.deny, &refused);
        rule(All, None, Target::Jump(denied));
    }
    if let Some(allow) = &sources.allow {
        let refused = chains.refuse(Refusal::Drop, log);
        let allowed = chains.allowed(allow, &refused);
        rule(All, None, Target::Jump(allowed));
    }
    let logged = log.filter(|log| log.connections.accepted());
    // Until it is answered, every packet of a connection is NEW. Only the first is counted.
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
        let refusal = match (limits.reject, forward.protocol, forward.family()) {
            (false, ..) => Refusal::Drop,
            (true, Protocol::Tcp, _) => Refusal::Reset,
            (true, Protocol::Udp, family) => Refusal::Unreachable(family),
        };
        let refused = chains.refuse(refusal, log);
        for limit in limit_matches(forward, limits) {
            rule(Opening, Some(limit), refused.clone());
        }
    }
    if let Some(log) = logged {
        let (limit, line) = log_line(log, "accepted");
        rule(Opening, Some(limit), line);
    }
    rule(Leaving, None, Target::Accept);
    // Counts what was neither refused nor accepted.
    rule(All, None, Target::Return);
    rules
}

/// What is more than the limits allow.
fn limit_matches(forward: &Forward, limits: &Limits) -> impl Iterator<Item = Match> {
    let (of, per, mask) = match (limits.per, forward.family()) {
        (Per::Total, _) => (Whose::All, "total", 0),
        (Per::Client, Family::V4) => (Whose::Address, "client", 32),
        // A network of 64 bits is one client's to choose addresses from (RFC 4291, 2.5.1).
        (Per::Client, Family::V6) => (Whose::Net(64), "client", 64),
    };
    let rate = limits.rate.map(|rate| {
        let (times, burst) = (rate.new_per_second.times(), rate.burst);
        let (name, protocol) = (&forward.name, forward.protocol);
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

/// Returns the rules that give a connection its source. `by_entrance`: only one that came in where
/// clients of this forward do, because [another](crate::forwards::told_by_entrance) has packets that look the
/// same.
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

/// Adds the rules that give a connection its source if it came in by this interface, or by whichever: the
/// firewall's own came in by none, so no `-i` holds for it.
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

/// What gives a connection its source.
pub(super) fn source(snat: Snat) -> Target {
    match snat {
        Snat::Addresses(addresses) => Target::Snat {
            addresses,
            // Without it the kernel hashes the destination as well (`find_best_ips_proto` in
            // net/netfilter/nf_nat_core.c): each pod would see another address of the client.
            persistent: addresses.single().is_none(),
        },
        Snat::Masquerade => Target::Masquerade,
        // A rule of its own, so that no other hand's behind it, which masquerades what leaves the
        // machine, hides the client after all.
        Snat::Client => Target::Accept,
    }
}

/// `syn` keeps out a TCP packet without a known connection that does not open one: conntrack calls
/// it NEW too (`tcp_loose` in nf_conntrack-sysctl.rst). UDP has no such flag.
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

/// Returns the condition that a packet opens a connection, where the protocol has a sign for it. Conntrack
/// calls any TCP packet of no known connection NEW.
pub(super) fn opens(protocol: Protocol) -> Option<Match> {
    (protocol == Protocol::Tcp).then_some(Match::Tcp {
        source: None,
        destination: None,
        flags: Some(Is(TcpFlags::OPENING)),
    })
}

/// The connection was translated, and its first packet was sent to this forward's listener.
fn came_by_listener(forward: &Forward) -> Match {
    Match::Conntrack(Conntrack {
        states: Some(Is(CtState::Dnat.into())),
        original_destination: forward.listen.address.map(|ip| Is(IpNet::from(ip))),
        original_destination_port: Some(Is(forward.listen.ports)),
        ..Conntrack::default()
    })
}

fn comment(forward: &Forward) -> Match {
    Match::Comment(forward.name.as_str().into())
}
