//! Explains the plan in plain words, in the order in which a packet traverses it.

mod chart;
mod outbound;
mod parts;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

pub use chart::mermaid;

use outbound::outward;
use parts::{announces, destination_of, ingress, is_answer, limit_words, logs};

use crate::forwards::{Forward, ForwardSet, Outbound, Snat, rows};
use crate::net::{Family, Host, Interface};
use crate::netfilter::matches::Match;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::negatable::Negatable::{self, Is};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::{DnatPorts, Target};
use crate::netfilter::text::line::Line;
use crate::netfilter::tracking::Conntrack;
use crate::plan::unplan::{ForwardKey, is_outbound, key_of, name_of};
use crate::plan::{ALLOW, DENY, Hook, MARKED, OF_MARKED, accept_known, plan};

/// One line of the plan with its explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedLine {
    pub table: TableName,
    /// As iptables-save prints it.
    pub line: String,
    pub note: String,
    /// The forward or outbound entry that the line belongs to, if it belongs to one.
    pub forward: Option<String>,
}

/// Explains every line of a spec's plan for one family.
#[must_use]
pub fn explain(set: &ForwardSet, family: Family) -> Vec<ExplainedLine> {
    let planned = plan(set, family);
    let of_key = rows(&set.forwards).map(|row| ((row[0].name.as_str(), row[0].protocol), row));
    let of_key: BTreeMap<ForwardKey<'_>, &[Forward]> = of_key.collect();
    let entries: BTreeMap<&str, &Outbound> = set
        .outbound_of(family)
        .map(|entry| (entry.name.as_str(), entry))
        .collect();
    let mut steps = Vec::new();
    for hook in Hook::ALL {
        let (table, builtin) = (hook.table(), hook.builtin());
        for name in in_order(&planned, hook) {
            let rules = planned
                .chain(table, name)
                .map_or(&[][..], |chain| &chain.rules);
            for rule in rules {
                if is_outbound(name, rule) {
                    let entry = name_of(rule).and_then(|name| entries.get(name));
                    steps.push(ExplainedLine {
                        table,
                        line: Line::Append(name, rule).to_string(),
                        note: outward(table, name, rule, entry.copied()),
                        forward: entry.map(|entry| entry.name.to_string()),
                    });
                    continue;
                }
                let row = key_of(rule).and_then(|key| of_key.get(&key));
                let forward = row.and_then(|row| entry_of(rule, row));
                let note = match forward {
                    None if name.is_builtin() => jump(hook).to_owned(),
                    None if *rule == accept_known() => {
                        "packets of known connections are accepted at once, replies included, \
                         whichever rule accepted the connection"
                            .to_owned()
                    }
                    None if Hook::of(name).is_some() || name.as_str() == OF_MARKED => common(rule),
                    None => of_chain(name, rule),
                    Some(forward) => note(&builtin, rule, forward),
                };
                steps.push(ExplainedLine {
                    table,
                    line: Line::Append(name, rule).to_string(),
                    note,
                    forward: forward.map(|forward| forward.name.to_string()),
                });
            }
        }
        let policy = planned
            .chain(table, &builtin)
            .and_then(|chain| chain.policy);
        if let Some(policy) = policy {
            steps.push(ExplainedLine {
                table,
                line: Line::SetPolicy(&builtin, policy).to_string(),
                note:
                    "a packet that no rule has accepted by now, nvactl's or another's, is dropped"
                        .to_owned(),
                forward: None,
            });
        }
    }
    steps
}

/// Returns the entry of a row whose listener a rule names: before DNAT as the destination, later as the original
/// destination. Rules that all entries share name none, and get the first.
fn entry_of<'f>(rule: &Rule, row: &'f [Forward]) -> Option<&'f Forward> {
    let (mut address, mut ports) = (None, None);
    let mut original = None;
    for condition in &rule.matches {
        match condition {
            Match::Destination(Is(net)) => address = Some(net.addr()),
            Match::Tcp { destination, .. } | Match::Udp { destination, .. } => {
                ports = destination.as_ref().and_then(Negatable::wanted).copied();
            }
            Match::Conntrack(Conntrack {
                original_destination,
                original_destination_port: Some(Is(ports)),
                ..
            }) => {
                let net = original_destination.as_ref().and_then(Negatable::wanted);
                original = Some((net.map(IpNet::addr), *ports));
            }
            _ => {}
        }
    }
    let listen = original.or(ports.map(|ports| (address, ports)));
    let named = listen.and_then(|listen| {
        row.iter()
            .find(|one| (one.listen.address, one.listen.ports) == listen)
    });
    named.or(row.first())
}

/// Returns the chains of a hook in the order of the jumps to them, each once.
fn in_order(planned: &Ruleset, hook: Hook) -> Vec<&ChainName> {
    let Some(chains) = planned.tables.get(&hook.table()) else {
        return Vec::new();
    };
    let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
    let mut next = vec![hook.builtin()];
    while let Some(name) = next.pop() {
        if let Some((name, chain)) = chains.get_key_value(&name)
            && seen.insert(name)
        {
            order.push(name);
            let further = chain.rules.iter().rev().filter_map(Rule::leads_to);
            next.extend(further.cloned());
        }
    }
    order
}

/// Explains a rule without a forward's name: it leads to the rules of forwards, or replaces them.
fn common(rule: &Rule) -> String {
    let words = match &rule.target {
        Some(Target::SetConnmark(mark)) if *mark == MARKED => {
            "a new connection is marked, in case a forward without options of its own takes it"
        }
        Some(Target::SetConnmark(_)) => "the mark is removed",
        Some(Target::Accept) if rule.matches.contains(&Match::Connmark(Is(MARKED))) => {
            "a connection that is still marked was redirected by a forward without options of its \
             own: it is accepted without a look at that forward's rules"
        }
        Some(Target::Jump(chain)) if chain.as_str() == OF_MARKED => {
            "a connection that is still marked gets its source by the rules for all such forwards"
        }
        Some(Target::Jump(_) | Target::Goto(_)) => {
            let place = sent_to(rule);
            return format!("packets sent to {place} go to the forwards that listen there");
        }
        Some(Target::Return) => "a packet that announces no TCP segment size is left alone",
        _ => "the packet leaves with the source that the firewall's `snat` sets",
    };
    words.to_owned()
}

/// Returns the address or ports that a rule of a tree selects.
fn sent_to(rule: &Rule) -> String {
    let place = rule.matches.iter().find_map(|condition| match condition {
        Match::Destination(Is(net)) => Some(net.to_string()),
        Match::Tcp { destination, .. } | Match::Udp { destination, .. } => {
            Some(format!("the ports {}", destination.as_ref()?.wanted()?))
        }
        Match::Conntrack(Conntrack {
            original_destination: net,
            original_destination_port: ports,
            ..
        }) => {
            let net = net.as_ref().and_then(Negatable::wanted);
            let ports = ports.as_ref().and_then(Negatable::wanted);
            net.map(ToString::to_string)
                .or(ports.map(|ports| format!("the ports {ports}")))
        }
        _ => None,
    });
    place.unwrap_or_else(|| "any address".to_owned())
}

fn jump(hook: Hook) -> &'static str {
    match hook {
        Hook::Arriving => {
            "a packet has arrived: nvactl's rules check first whether it is for a forward"
        }
        Hook::Sent => {
            "the firewall itself sends a packet: nvactl's rules check whether it is for a forward"
        }
        Hook::Sizing => {
            "a packet is about to be forwarded: nvactl's rules limit the TCP segment size that it announces"
        }
        Hook::Passing => "a packet is about to be forwarded: nvactl's rules check it first",
        Hook::Leaving => {
            "a packet is about to leave: nvactl's rules decide whether its source is rewritten"
        }
    }
}

/// Explains a rule of a chain that several forwards may share.
fn of_chain(chain: &ChainName, rule: &Rule) -> String {
    let source = rule.matches.iter().find_map(|condition| match condition {
        Match::Source(Is(net)) => Some(*net),
        _ => None,
    });
    let from = source.map_or("every other client".to_owned(), |net| net.to_string());
    match (&rule.target, chain.as_str()) {
        (Some(Target::Log { prefix, .. }), _) => logs(rule, prefix),
        (Some(Target::Goto(next)), _) if next.as_str().starts_with(ALLOW) => {
            format!("{from}: a further chain lists which of these clients are allowed")
        }
        (Some(Target::Goto(next)), _) if next.as_str().starts_with(DENY) => {
            format!("{from}: a further chain lists which of these clients are denied")
        }
        (Some(Target::Return), _) => format!("{from} is allowed: back to the forward's rules"),
        (_, name) if name.starts_with(ALLOW) || name.starts_with(DENY) => {
            format!("{from} is refused")
        }
        (Some(Target::Accept), _) => "the packet is accepted".to_owned(),
        _ => "the packet is refused".to_owned(),
    }
}

fn note(builtin: &ChainName, rule: &Rule, forward: &Forward) -> String {
    let Forward {
        name,
        listen,
        protocol,
        egress,
        ..
    } = forward;
    let ports = listen.ports;
    let ingress = ingress(rule);
    let on = ingress.map_or(String::new(), |ingress| format!(" on {ingress}"));
    match (builtin, &rule.target) {
        (_, Some(Target::TcpMss(mss))) => {
            let packet = if is_answer(rule) {
                format!("the answer to a connection to port {ports}")
            } else {
                format!("a packet that opens a connection{on} to port {ports}")
            };
            format!("{name}: {packet} {}", announces(*mss))
        }
        (_, Some(Target::SetConnmark(_))) => {
            format!("{name}: the forward has options of its own, so the mark is removed")
        }
        (_, Some(Target::Dnat { address, ports: to })) => {
            let place = match listen.address {
                Some(address) => format!("{address}"),
                None => "any address of the firewall".to_owned(),
            };
            let own = match builtin {
                ChainName::Output => " of the firewall's own",
                _ => "",
            };
            let (behind, kept) = match to {
                DnatPorts::One(port) => (port.to_string(), ""),
                DnatPorts::Shifted { to, .. } => (to.to_string(), ""),
                DnatPorts::Kept if ports.is_single() => (ports.to_string(), ", the port unchanged"),
                DnatPorts::Kept => (ports.to_string(), ", each port unchanged"),
            };
            let shared = match shared(rule) {
                Some(words) => format!(", {words}"),
                None => String::new(),
            };
            format!(
                "{name}: a new {protocol} connection{own}{on} to port {ports} of {place} is redirected \
                 to {}:{behind}{kept}{shared}",
                Host(*address)
            )
        }
        (ChainName::Forward, Some(target)) => match admission(rule, target, egress) {
            Some(words) => format!("{name}: {words}"),
            None => format!(
                "{name}: a new {protocol} connection from {} to {}{}, if it was redirected from port \
                 {ports}",
                ingress.map_or("anywhere", |ingress| ingress.as_str()),
                destination(rule, forward),
                match target {
                    Target::Goto(_) => " goes on to the forward's own checks".to_owned(),
                    _ => format!(" through {egress} is accepted"),
                }
            ),
        },
        _ => {
            let (source, peer) = match forward.snat {
                Snat::Addresses(range) => (format!("gets {range}"), "the firewall"),
                Snat::Masquerade => (format!("gets {egress}'s address"), "the firewall"),
                Snat::Client => ("keeps the client's address".to_owned(), "the client"),
            };
            let to = destination(rule, forward);
            let target = to
                .rsplit_once(':')
                .map_or(to.as_str(), |(address, _)| address);
            let from = ingress.map_or(String::new(), |ingress| format!(" from {ingress}"));
            format!(
                "{name}: a redirected connection{from} through {egress} {source} as its source, so that \
                 {target} replies to {peer}"
            )
        }
    }
}

/// Describes the share of connections that a rule takes, if the forward has several destinations.
fn shared(rule: &Rule) -> Option<String> {
    rule.matches.iter().find_map(|condition| match condition {
        Match::Probability(Is(share)) => Some(format!(
            "with a probability of {share} for each connection that reaches this rule"
        )),
        Match::Cluster(Is(cluster)) => Some(format!(
            "for one in {} of the clients that reach this rule, always the same ones",
            cluster.total
        )),
        _ => None,
    })
}

/// Explains a rule of a forward's ADMIT chain. Returns `None` for the rule that leads to that chain.
fn admission(rule: &Rule, target: &Target, egress: &Interface) -> Option<String> {
    match target {
        Target::Jump(chain) if chain.as_str().starts_with(DENY) => {
            return Some("denied clients are refused".to_owned());
        }
        Target::Jump(_) => return Some("clients that are not allowed are refused".to_owned()),
        Target::Log { prefix, .. } => return Some(logs(rule, prefix)),
        Target::Accept
            if rule
                .matches
                .contains(&Match::Conntrack(Conntrack::CONFIRMED)) =>
        {
            return Some(
                "later packets of an accepted connection, before any reply, are accepted too"
                    .to_owned(),
            );
        }
        Target::Accept if destination_of(rule).is_none() => {
            return Some(format!(
                "a packet that reaches this rule is accepted, if it leaves through {egress}"
            ));
        }
        Target::Return => {
            return Some(
                "every other packet goes on to the rules after nvactl's, and to the policy"
                    .to_owned(),
            );
        }
        _ => {}
    }
    limit_words(rule)
}

/// Returns the destination of the packets that a rule matches, with its ports.
fn destination(rule: &Rule, forward: &Forward) -> String {
    let asked = destination_of(rule);
    let ports = rule.matches.iter().find_map(|condition| match condition {
        Match::Tcp { destination, .. } | Match::Udp { destination, .. } => {
            destination.as_ref()?.wanted().copied()
        }
        _ => None,
    });
    let mut destinations = forward.target.destinations.iter();
    let to =
        destinations.find(|to| asked == Some(to.address) && ports == Some(forward.ports_at(to)));
    to.map_or_else(|| forward.reaches(), |to| forward.reached(to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    #[test]
    fn the_rules_of_an_outbound_entry_are_explained() {
        let set = yaml::read(
            b"firewall: {interface: eth0}
outbound:
  - {name: dns, allow_from: [10.1.0.0/16], allow_to: [192.0.2.53], protocol: udp, ports: [53], snat: none,
     log: {connections: refused, per_minute: 7}, limits: {new_per_second: 5}}",
        )
        .expect("it is valid");
        let steps = explain(&set, Family::V4);
        let notes = |table| -> Vec<&str> {
            let steps = steps.iter().filter(|step| step.table == table);
            steps.map(|step| step.note.as_str()).collect()
        };
        let (filter, nat) = (notes(TableName::Filter), notes(TableName::Nat));
        for (notes, words) in [
            (
                &filter,
                "dns: a new connection from 10.1.0.0/16 to 192.0.2.53/32 that came in by eth0",
            ),
            (
                &filter,
                "a line that begins with `dns refused `, at most 7 a minute",
            ),
            (&nat, "dns: udp to port 53 keeps its source"),
        ] {
            assert!(
                notes.iter().any(|note| note.contains(words)),
                "{words}: {notes:#?}"
            );
        }
        assert!(
            !nat.iter()
                .any(|note| note.contains("is accepted") || note.contains("another source")),
            "{nat:#?}"
        );
    }
}
