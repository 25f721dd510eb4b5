//! The plan backwards: the forwards that a ruleset holds, read from nvactl's rules in it.
//!
//! Only rules that `plan.rs` could have written are understood; the rest is for `compare.rs` to
//! name.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::net::Interface;
use crate::plan::{POSTROUTING, PREROUTING};
use crate::rule::{DnatPorts, Match, Rule, Target as RuleTarget};
use crate::ruleset::{ChainName, Policy, Ruleset, TableName};
use crate::spec::{
    Firewall, Forward, ForwardPolicy, ForwardSet, Listen, Name, Snat, Target, TargetKind,
    TargetPorts,
};

/// Reads the forwards out of a ruleset, in the order of its rules. `None` when it holds none: then
/// nothing in it tells the interfaces or the SNAT address either.
///
/// Whether a target was written as `ilb` or `pod` is in no rule: one with a port counts as a pod.
#[must_use]
pub fn unplan(ruleset: &Ruleset) -> Option<ForwardSet> {
    let egress = egress_by_name(ruleset);
    let rules = own_rules(ruleset, PREROUTING);
    let forwards: Vec<Forward> = rules.iter().filter_map(forward).collect();
    // What most rules say: one that somebody has tampered with must not speak for the others.
    let mut votes: BTreeMap<(Interface, Interface, Option<Ipv4Addr>), usize> = BTreeMap::new();
    for rule in rules {
        let ingress = rule.matches.iter().find_map(|condition| match condition {
            Match::Ingress(interface) => Some(interface.clone()),
            _ => None,
        });
        let egress = name_of(rule).and_then(|name| egress.get(name));
        if let (Some(ingress), Some((egress, snat))) = (ingress, egress) {
            *votes.entry((ingress, egress.clone(), *snat)).or_default() += 1;
        }
    }
    let ((ingress, egress, snat), _) = votes.into_iter().max_by_key(|(_, votes)| *votes)?;
    let firewall = Firewall {
        ingress,
        egress,
        snat: snat.map_or(Snat::Masquerade, Snat::Address),
        forward_policy: match ruleset.forward_policy() {
            Policy::Drop => ForwardPolicy::Drop,
            Policy::Accept => ForwardPolicy::Keep,
        },
    };
    Some(ForwardSet { firewall, forwards })
}

/// The name of the forward that a rule belongs to: its comment.
#[must_use]
pub fn name_of(rule: &Rule) -> Option<&str> {
    rule.matches.iter().find_map(|condition| match condition {
        Match::Comment(text) => Some(text.as_ref()),
        _ => None,
    })
}

fn own_rules<'r>(ruleset: &'r Ruleset, chain: &str) -> &'r [Rule] {
    let chain = ruleset.chain(TableName::Nat, &ChainName::from(chain));
    chain.map_or(&[], |chain| chain.rules.as_slice())
}

/// By forward: where its packets leave, and the address they get; `None` is masquerading.
fn egress_by_name(ruleset: &Ruleset) -> BTreeMap<&str, (Interface, Option<Ipv4Addr>)> {
    let egress = |rule: &Rule| {
        rule.matches.iter().find_map(|condition| match condition {
            Match::Egress(interface) => Some(interface.clone()),
            _ => None,
        })
    };
    let snat = |rule: &Rule| match rule.target {
        Some(RuleTarget::Snat(address)) => Some(Some(address)),
        Some(RuleTarget::Masquerade) => Some(None),
        _ => None,
    };
    own_rules(ruleset, POSTROUTING)
        .iter()
        .filter_map(|rule| Some((name_of(rule)?, (egress(rule)?, snat(rule)?))))
        .collect()
}

/// The forward that a rule of NVACTL-PREROUTING translates for.
fn forward(rule: &Rule) -> Option<Forward> {
    let name: Name = name_of(rule)?.parse().ok()?;
    let (mut protocol, mut ports, mut address) = (None, None, None);
    for condition in &rule.matches {
        match condition {
            Match::Protocol(of) => protocol = Some(*of),
            Match::Tcp { destination, .. } | Match::Udp { destination, .. } => ports = *destination,
            Match::Destination(net) => address = Some(net.addr()),
            _ => {}
        }
    }
    let listen = Listen {
        address,
        ports: ports?,
    };
    let Some(RuleTarget::Dnat { address, ports }) = rule.target else {
        return None;
    };
    let ports = match ports {
        DnatPorts::Kept => TargetPorts::Kept,
        DnatPorts::One(port) => TargetPorts::Range(port.into()),
        DnatPorts::Shifted { to, .. } => TargetPorts::Range(to),
    };
    let forward = Forward {
        name,
        listen,
        protocol: protocol?,
        target: Target {
            kind: match ports {
                TargetPorts::Kept => TargetKind::Ilb,
                TargetPorts::Range(_) => TargetKind::Pod,
            },
            address,
            ports,
        },
    };
    Some(forward)
}
