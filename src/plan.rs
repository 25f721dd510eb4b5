//! The plan: a spec's forwards as rules, and the reasons for their order.
//!
//! [`plan`] says only what nvactl owns: its chains, one jump to each, and the FORWARD policy.
//! [`Ruleset::with_builtin_chains`] makes a whole file of it.
//!
//! A packet meets the plan in this order, and each rule asks only what the ones before left open:
//!
//! 1. `NVACTL-PREROUTING` (nat): a connection's first packet, sent to a listen port on an address
//!    of the machine, gets the target as its destination. Without the address it would take the
//!    packets that are only in transit through the machine.
//! 2. `NVACTL-FORWARD` (filter): known connections first, so that an established packet costs one
//!    rule however many forwards there are; then a new connection passes only if it came in by its
//!    own forward's listen port. The port alone does not say that: where listen and target port are
//!    equal, `--ctorigdstport` also matches a packet routed straight at the target. So the
//!    connection must be translated as well (`--ctstate DNAT`).
//! 3. `NVACTL-POSTROUTING` (nat): the same connection leaves with the firewall's own address, so
//!    that the reply comes back through the firewall.
//!
//! The same order of forwards holds in all three: listeners for one address stand before those for
//! all addresses, which would take their packets; otherwise the file's order.

use ipnet::Ipv4Net;

use crate::net::{PortRange, Protocol};
use crate::rule::{Conntrack, CtState, DnatPorts, Match, Rule, Target};
use crate::ruleset::{ChainName, Policy, Ruleset, TableName};
use crate::spec::{Firewall, Forward, ForwardPolicy, ForwardSet, Snat, TargetPorts};

pub const FORWARD: &str = "NVACTL-FORWARD";
pub const PREROUTING: &str = "NVACTL-PREROUTING";
pub const POSTROUTING: &str = "NVACTL-POSTROUTING";

/// The chains that nvactl fills, the table each is in, and the built-in chain that jumps to it.
const CHAINS: [(TableName, ChainName, &str); 3] = [
    (TableName::Filter, ChainName::Forward, FORWARD),
    (TableName::Nat, ChainName::Prerouting, PREROUTING),
    (TableName::Nat, ChainName::Postrouting, POSTROUTING),
];

/// Whether nvactl's jumps stand in this chain, so that every jump from there to a chain of its own
/// is one that it has made, or that stands in its place.
#[must_use]
pub fn jumps_from(table: TableName, chain: &ChainName) -> bool {
    CHAINS
        .iter()
        .any(|(in_table, builtin, _)| (*in_table, builtin) == (table, chain))
}

/// Compiles a spec. Same spec, same plan; the cost is linear in the forwards.
#[must_use]
pub fn plan(set: &ForwardSet) -> Ruleset {
    let firewall = &set.firewall;
    let (addressed, open): (Vec<&Forward>, Vec<&Forward>) = set
        .forwards
        .iter()
        .partition(|forward| forward.listen.address.is_some());
    let forwards = || addressed.iter().chain(&open).copied();
    let bodies = [
        std::iter::once(accept_known())
            .chain(forwards().map(|forward| accept_new(firewall, forward)))
            .collect(),
        forwards()
            .map(|forward| translate(firewall, forward))
            .collect(),
        forwards()
            .map(|forward| hide_client(firewall, forward))
            .collect(),
    ];

    let mut ruleset = Ruleset::default();
    for ((table, builtin, own), rules) in CHAINS.into_iter().zip(bodies) {
        let own = ChainName::from(own);
        ruleset
            .chain_mut(table, builtin)
            .rules
            .push(Rule::jump(own.clone()));
        ruleset.chain_mut(table, own).rules = rules;
    }
    if firewall.forward_policy == ForwardPolicy::Drop {
        ruleset
            .chain_mut(TableName::Filter, ChainName::Forward)
            .policy = Some(Policy::Drop);
    }
    ruleset
}

/// Not narrowed to nvactl's own connections: those that are alive when it is applied go on.
fn accept_known() -> Rule {
    let known = Conntrack::states([CtState::Related, CtState::Established]);
    Rule::new([Match::Conntrack(known)], Target::Accept)
}

fn translate(firewall: &Firewall, forward: &Forward) -> Rule {
    let listen = forward.listen;
    let on_address = listen
        .address
        .map(|ip| Match::Destination(Ipv4Net::from(ip)));
    // A rule's matches are tried in order, and `addrtype` costs a route look-up: it stands behind
    // the port, which turns nearly every packet away.
    let on_any = listen
        .address
        .is_none()
        .then_some(Match::DestinationIsLocal);
    let matches = on_address
        .into_iter()
        .chain([Match::Ingress(firewall.ingress.clone())])
        .chain(transport(forward.protocol, listen.ports, false))
        .chain(on_any)
        .chain([comment(forward)]);
    let ports = match forward.target.ports {
        TargetPorts::Range(one) if one.is_single() => DnatPorts::One(one.first()),
        TargetPorts::Range(range) if range != listen.ports => DnatPorts::Shifted {
            to: range,
            base: listen.ports.first(),
        },
        TargetPorts::Range(_) | TargetPorts::Kept => DnatPorts::Kept,
    };
    Rule::new(
        matches,
        Target::Dnat {
            address: forward.target.address,
            ports,
        },
    )
}

fn accept_new(firewall: &Firewall, forward: &Forward) -> Rule {
    let way = [
        Match::Destination(Ipv4Net::from(forward.target.address)),
        Match::Ingress(firewall.ingress.clone()),
        Match::Egress(firewall.egress.clone()),
    ];
    let matches = way
        .into_iter()
        .chain(transport(forward.protocol, forward.ports_behind(), true))
        .chain([Match::Conntrack(Conntrack::states([CtState::New]))])
        .chain([came_by_listener(forward), comment(forward)]);
    Rule::new(matches, Target::Accept)
}

fn hide_client(firewall: &Firewall, forward: &Forward) -> Rule {
    let way = [
        Match::Destination(Ipv4Net::from(forward.target.address)),
        Match::Egress(firewall.egress.clone()),
    ];
    let matches = way
        .into_iter()
        .chain(transport(forward.protocol, forward.ports_behind(), false))
        .chain([came_by_listener(forward), comment(forward)]);
    let target = match firewall.snat {
        Snat::Address(address) => Target::Snat(address),
        Snat::Masquerade => Target::Masquerade,
    };
    Rule::new(matches, target)
}

/// `syn` keeps out a TCP packet without a known connection that does not open one: conntrack calls
/// it NEW too (`tcp_loose` in nf_conntrack-sysctl.rst). UDP has no such flag.
fn transport(protocol: Protocol, ports: PortRange, syn: bool) -> [Match; 2] {
    let (source, destination) = (None, Some(ports));
    let module = match protocol {
        Protocol::Tcp => Match::Tcp {
            source,
            destination,
            syn,
        },
        Protocol::Udp => Match::Udp {
            source,
            destination,
        },
    };
    [Match::Protocol(protocol), module]
}

/// The connection was translated, and its first packet was sent to this forward's listener.
fn came_by_listener(forward: &Forward) -> Match {
    Match::Conntrack(Conntrack {
        states: vec![CtState::Dnat],
        original_destination: forward.listen.address,
        original_destination_port: Some(forward.listen.ports),
    })
}

fn comment(forward: &Forward) -> Match {
    Match::Comment(forward.name.as_str().into())
}
