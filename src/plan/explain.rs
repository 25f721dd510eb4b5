//! The plan in plain words, in the order of a packet's way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::forwards::{Firewall, Forward, ForwardSet, Snat};
use crate::net::{Family, Host, Interface};
use crate::netfilter::limit::Whose;
use crate::netfilter::matches::Match;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::negatable::Negatable::{self, Is};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::{DnatPorts, Target};
use crate::netfilter::text::line::Line;
use crate::netfilter::tracking::Conntrack;
use crate::plan::unplan::{Key, key_of};
use crate::plan::{ALLOW, DENY, Hook, MARKED, OF_MARKED, accept_known, plan};

/// One line of the plan, and what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub table: TableName,
    /// As iptables-save prints it.
    pub line: String,
    pub note: String,
    /// The forward that the line is for, if it is for one.
    pub forward: Option<String>,
}

/// Explains every line of a spec's plan for one family.
#[must_use]
pub fn explain(set: &ForwardSet, family: Family) -> Vec<Step> {
    let planned = plan(set, family);
    let forwards = set.forwards.iter();
    let forwards: BTreeMap<Key<'_>, &Forward> = forwards
        .map(|forward| ((forward.name.as_str(), forward.protocol), forward))
        .collect();
    let mut steps = Vec::new();
    for hook in Hook::ALL {
        let (table, builtin) = (hook.table(), hook.builtin());
        for name in in_order(&planned, hook) {
            let rules = planned
                .chain(table, name)
                .map_or(&[][..], |chain| &chain.rules);
            for rule in rules {
                let forward = key_of(rule).and_then(|key| forwards.get(&key));
                let note = match forward {
                    None if name.is_builtin() => jump(&builtin).to_owned(),
                    None if *rule == accept_known() => {
                        "packets of known connections pass at once, replies included, \
                         whoever accepted the connection"
                            .to_owned()
                    }
                    None if Hook::of(name).is_some() || name.as_str() == OF_MARKED => common(rule),
                    None => of_chain(name, rule),
                    Some(forward) => note(&builtin, rule, forward),
                };
                steps.push(Step {
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
            steps.push(Step {
                table,
                line: Line::SetPolicy(&builtin, policy).to_string(),
                note: "what no rule has accepted by now, nvactl's or another's, is dropped"
                    .to_owned(),
                forward: None,
            });
        }
    }
    steps
}

/// The chains of a hook in the order in which they are led to, each once.
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

/// A rule of no forward in particular, in a chain that leads to theirs or stands in for them.
fn common(rule: &Rule) -> String {
    let words = match &rule.target {
        Some(Target::SetConnmark(mark)) if *mark == MARKED => {
            "a new connection is marked, in case a forward takes it that has no options of its own"
        }
        Some(Target::SetConnmark(_)) => "the mark ends here",
        Some(Target::Accept) if rule.matches.contains(&Match::Connmark(Is(MARKED))) => {
            "what is still marked, a forward without options of its own has sent on: it passes \
             without asking for it again"
        }
        Some(Target::Jump(chain)) if chain.as_str() == OF_MARKED => {
            "what is still marked leaves as such forwards have it"
        }
        Some(Target::Jump(_) | Target::Goto(_)) => {
            let place = sent_to(rule);
            return format!("what was sent to {place}: on to the forwards that listen there");
        }
        _ => "with the source that the firewall gives",
    };
    words.to_owned()
}

/// Where packets were sent that a rule of a tree takes further.
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

fn jump(builtin: &ChainName) -> &'static str {
    match builtin {
        ChainName::Prerouting => {
            "a packet has come in: before anybody else's rules, nvactl's see whether it is for a forward"
        }
        ChainName::Output => {
            "the firewall itself sends a packet: nvactl's rules see whether it is for a forward"
        }
        ChainName::Forward => "a packet is about to be forwarded: nvactl's rules see it first",
        _ => "a packet is about to leave: nvactl's rules see whether its source must be rewritten",
    }
}

/// A rule of a chain that forwards share.
fn of_chain(chain: &ChainName, rule: &Rule) -> String {
    let source = rule.matches.iter().find_map(|condition| match condition {
        Match::Source(Is(net)) => Some(*net),
        _ => None,
    });
    let from = source.map_or("everybody else".to_owned(), |net| net.to_string());
    match (&rule.target, chain.as_str()) {
        (Some(Target::Log { prefix, .. }), _) => {
            format!("a line in the kernel's log that begins with `{prefix}`, but not too many")
        }
        (Some(Target::Goto(next)), _) if next.as_str().starts_with(ALLOW) => {
            format!("{from}: who of these is allowed stands in a list of its own")
        }
        (Some(Target::Goto(next)), _) if next.as_str().starts_with(DENY) => {
            format!("{from}: who of these is denied stands in a list of its own")
        }
        (Some(Target::Return), _) => format!("{from} is allowed: back to the forward"),
        (_, name) if name.starts_with(ALLOW) || name.starts_with(DENY) => {
            format!("{from} is refused")
        }
        (Some(Target::Accept), _) => "it passes".to_owned(),
        _ => "it is refused".to_owned(),
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
    let ingress = rule.matches.iter().find_map(|condition| match condition {
        Match::Ingress(Is(by)) => by.exact(),
        _ => None,
    });
    let by = ingress.map_or(String::new(), |ingress| {
        format!(" that came in by {ingress}")
    });
    match (builtin, &rule.target) {
        (_, Some(Target::SetConnmark(_))) => {
            format!("{name}: it has options of its own, so the mark ends here")
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
                "{name}: a new {protocol} connection{own}{by} for port {ports} of {place} is sent on \
                 to {}:{behind}{kept}{shared}",
                Host(*address)
            )
        }
        (ChainName::Forward, Some(target)) => match admission(rule, target, egress) {
            Some(words) => format!("{name}: {words}"),
            None => format!(
                "{name}: a new {protocol} connection from {} to {}{}, if it was translated and had \
                 been sent to port {ports}",
                ingress.map_or("anywhere", |ingress| ingress.as_str()),
                destination(rule, forward),
                match target {
                    Target::Goto(_) => " goes on to be admitted".to_owned(),
                    _ => format!(" by {egress} passes"),
                }
            ),
        },
        _ => {
            let (source, answered) = match forward.snat {
                Snat::Addresses(range) => (range.to_string(), "the firewall"),
                Snat::Masquerade => (format!("{egress}'s address"), "the firewall"),
                Snat::Client => ("the client's own address".to_owned(), "the client"),
            };
            let to = destination(rule, forward);
            let target = to
                .rsplit_once(':')
                .map_or(to.as_str(), |(address, _)| address);
            let it = ingress.map_or("it".to_owned(), |by| format!("what came in by {by}"));
            format!(
                "{name}: {it} leaves by {egress} with {source} as its source, so that {target} answers \
                 {answered}"
            )
        }
    }
}

/// Which of the connections a rule takes, if it shares them with others.
fn shared(rule: &Rule) -> Option<String> {
    rule.matches.iter().find_map(|condition| match condition {
        Match::Probability(Is(share)) => Some(format!(
            "for a share of {share} of those that come to this rule"
        )),
        Match::Cluster(Is(cluster)) => Some(format!(
            "for one in {} of the clients that come to this rule, always the same ones",
            cluster.total
        )),
        _ => None,
    })
}

/// What a rule of the chain that admits does; nothing for one that leads there.
fn admission(rule: &Rule, target: &Target, egress: &Interface) -> Option<String> {
    match target {
        Target::Jump(chain) if chain.as_str().starts_with(DENY) => {
            return Some("who is denied is turned away".to_owned());
        }
        Target::Jump(_) => return Some("who is not allowed is turned away".to_owned()),
        Target::Log { prefix, .. } => {
            return Some(format!(
                "a line in the kernel's log that begins with `{prefix}`, but not too many"
            ));
        }
        Target::Accept
            if rule
                .matches
                .contains(&Match::Conntrack(Conntrack::CONFIRMED)) =>
        {
            return Some(
                "what follows a packet that passed, before any answer, passes too".to_owned(),
            );
        }
        Target::Accept if destination_of(rule).is_none() => {
            return Some(format!(
                "who has come this far passes, if it leaves by {egress}"
            ));
        }
        Target::Return => {
            return Some(
                "what is left goes on to the rules behind nvactl's, and to the policy".to_owned(),
            );
        }
        _ => {}
    }
    rule.matches.iter().find_map(|condition| match condition {
        Match::HashLimit(limit) => Some(format!(
            "more than {} new connections a second{}, {} at once, are turned away",
            limit.per_second.times(),
            of_each(limit.of != Whose::All),
            limit.burst
        )),
        Match::ConnLimit(limit) => Some(format!(
            "more than {} connections at a time{} are turned away",
            limit.most,
            of_each(limit.mask > 0)
        )),
        _ => None,
    })
}

fn of_each(client: bool) -> &'static str {
    if client { " of one client" } else { "" }
}

fn destination_of(rule: &Rule) -> Option<IpAddr> {
    rule.matches.iter().find_map(|condition| match condition {
        Match::Destination(Is(net)) => Some(net.addr()),
        _ => None,
    })
}

/// Where the packets that a rule is about are going, with their ports.
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

/// Who talks to whom, as a Mermaid flowchart.
#[must_use]
pub fn mermaid<'f>(firewall: &Firewall, forwards: impl Iterator<Item = &'f Forward>) -> String {
    let words = |snat: Snat| match snat {
        Snat::Addresses(range) => range.to_string(),
        Snat::Masquerade => format!("address of {}", firewall.egress),
        Snat::Client => "the client's address".to_owned(),
    };
    let snats = Family::ALL
        .into_iter()
        .filter_map(|family| firewall.snat.of(family));
    let mut source: Vec<String> = snats.map(words).collect();
    source.dedup();
    let source = source.join("<br>");
    let mut out =
        format!("flowchart LR\n  client([client])\n  firewall[\"firewall<br>{source}\"]\n");
    for (n, forward) in forwards.enumerate() {
        let kind = match forward.target.kind {
            crate::forwards::TargetKind::Ilb => "ILB",
            crate::forwards::TargetKind::Pod => "pod",
        };
        out.push_str(&format!(
            "  client -->|\"{} {}\"| listen{n}[\"{}\"]\n  listen{n} --> firewall\n",
            forward.protocol, forward.listen, forward.name,
        ));
        for (m, to) in forward.target.destinations.iter().enumerate() {
            let place = match m {
                0 => format!("target{n}"),
                m => format!("target{n}x{m}"),
            };
            out.push_str(&format!(
                "  firewall -->|\"{}\"| {place}[\"{kind}<br>{}\"]\n",
                forward.name,
                forward.reached(to),
            ));
        }
    }
    out
}
