//! Explains the plan in plain words, in the order in which a packet traverses it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::forwards::{
    Firewall, Forward, ForwardSet, GUARDED, Outbound, Snat, listeners_of, reached, rows,
};
use crate::net::{Family, Host, Interface};
use crate::netfilter::limit::Whose;
use crate::netfilter::matches::{Match, PortsOf};
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::negatable::Negatable::{self, Is};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::{DnatPorts, Mss, Target};
use crate::netfilter::text::line::Line;
use crate::netfilter::tracking::{Conntrack, CtDirection};
use crate::plan::unplan::{ForwardKey, is_outbound, key_of, name_of};
use crate::plan::{
    ALLOW, DENY, EXIT, FROM, Hook, MARKED, NOT_TO, OF_MARKED, TO, accept_known, plan,
};

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

/// Explains a rule of an outbound entry, or of a list of one.
fn outward(table: TableName, chain: &ChainName, rule: &Rule, entry: Option<&Outbound>) -> String {
    let chain = chain.as_str();
    let Some(entry) = entry else {
        return listed(chain, rule);
    };
    let addresses = addresses(rule);
    let words = match Hook::of(&ChainName::from(chain)) {
        Some(Hook::Passing) => format!(
            "a new connection{addresses} that came in by {} and leaves by {}, and that no rule has redirected, meets the entry's checks",
            ingress(rule).map_or("any interface", Interface::as_str),
            entry.egress
        ),
        Some(Hook::Sizing) => {
            let (packet, client) = if is_answer(rule) {
                ("the answer to a connection", egress(rule))
            } else {
                ("a packet that opens a connection", ingress(rule))
            };
            format!(
                "{packet} of a source behind {}, which no rule has redirected, may announce a smaller TCP segment",
                client.map_or("any interface", Interface::as_str)
            )
        }
        Some(_) => {
            let by = match ingress(rule) {
                Some(by) => format!("came in by {by}"),
                None => "is not the firewall's own".to_owned(),
            };
            format!(
                "a connection{addresses} that {by} and leaves by {}, and that no rule has redirected, may get another source",
                entry.egress
            )
        }
        None => of_exit(table, rule, entry),
    };
    format!("{}: {words}", entry.name)
}

/// Describes the source and the destination that a rule asks for.
fn addresses(rule: &Rule) -> String {
    let each = rule.matches.iter().filter_map(|condition| match condition {
        Match::Source(Is(net)) => Some(format!(" from {net}")),
        Match::Destination(Is(net)) => Some(format!(" to {net}")),
        _ => None,
    });
    each.collect()
}

/// Explains a rule of a list of sources or destinations.
fn listed(chain: &str, rule: &Rule) -> String {
    let net = rule.matches.iter().find_map(|condition| match condition {
        Match::Source(Is(net)) | Match::Destination(Is(net)) => Some(net.to_string()),
        _ => None,
    });
    let further = rule.leads_to().map_or("", ChainName::as_str);
    // The list of networks beside the Internet comes before the addresses that are not on it.
    let all = if chain.starts_with(TO) && further.starts_with(TO) {
        "each address"
    } else {
        "every other address"
    };
    let net = net.unwrap_or(all.to_owned());
    let branches = |prefix| {
        rule.leads_to()
            .is_some_and(|next| next.as_str().starts_with(prefix))
    };
    match &rule.target {
        Some(Target::Return) => {
            format!("{net} is not on the Internet: the entry does not take the packet")
        }
        _ if chain.starts_with(FROM) && branches(FROM) => {
            format!("{net}: a further chain lists which of these are sources of the entry")
        }
        _ if chain.starts_with(TO) && branches(TO) || branches(NOT_TO) => {
            format!("{net}: a further chain lists the destinations")
        }
        _ if chain.starts_with(FROM) => {
            format!("{net} is a source of the entry: on to the next check")
        }
        _ if chain.starts_with(TO) && is_guarded(rule) => format!(
            "{net} goes on to the next check, which refuses it unless `allow_to` names exactly this address"
        ),
        _ if chain.starts_with(TO) => {
            format!("{net} is a destination of the entry: on to the next check")
        }
        _ => format!("a packet to {net} is refused"),
    }
}

/// Returns whether a rule is for one of the addresses that an entry drops unless the spec names exactly them.
fn is_guarded(rule: &Rule) -> bool {
    let exact = |condition: &Match| matches!(condition, Match::Destination(Is(net)) if GUARDED.iter().any(|one| IpNet::from(*one) == *net));
    rule.matches.iter().any(exact)
}

/// Explains a rule of an entry's protocols, ports and verdicts.
fn of_exit(table: TableName, rule: &Rule, entry: &Outbound) -> String {
    let leads = |prefix| {
        rule.leads_to()
            .is_some_and(|next| next.as_str().starts_with(prefix))
    };
    if leads(DENY) {
        return "denied sources are refused".to_owned();
    }
    if leads(NOT_TO) {
        return "packets to denied destinations are refused".to_owned();
    }
    if let Some(address) = destination_of(rule) {
        return format!(
            "a packet to {address} is refused, since `allow_to` does not name exactly this address"
        );
    }
    if let Some(limit) = limit_words(rule) {
        return limit;
    }
    let selected = selected(rule);
    match &rule.target {
        Some(Target::Goto(next)) if next.as_str().starts_with(EXIT) => {
            format!("{selected} goes on to the entry's drops, limits and log")
        }
        Some(Target::Log { prefix, .. }) => logs(rule, prefix),
        Some(Target::Accept)
            if rule
                .matches
                .contains(&Match::Conntrack(Conntrack::CONFIRMED)) =>
        {
            "later packets of an accepted connection, before any reply, are accepted too".to_owned()
        }
        Some(Target::Snat { addresses, .. }) => {
            format!("{selected} gets {addresses} as its source")
        }
        Some(Target::Masquerade) => {
            format!("{selected} gets {}'s address as its source", entry.egress)
        }
        Some(Target::TcpMss(mss)) => format!("{selected} {}", announces(*mss)),
        _ if table == TableName::Nat => format!("{selected} keeps its source"),
        _ => format!("{selected} is accepted"),
    }
}

/// Describes the packets that a rule selects by protocol and ports.
fn selected(rule: &Rule) -> String {
    let mut ports = String::new();
    let mut protocol = None;
    for condition in &rule.matches {
        match condition {
            Match::Protocol(Is(spelled)) => protocol = Some(spelled.to_string()),
            Match::Icmp(_) | Match::Icmp6(_) => protocol = Some("ping".to_owned()),
            Match::Tcp {
                source,
                destination,
                ..
            }
            | Match::Udp {
                source,
                destination,
            } => {
                let each = [("from", source), ("to", destination)].into_iter();
                for (end, range) in each {
                    if let Some(range) = range.as_ref().and_then(Negatable::wanted) {
                        ports = format!(" {end} port {range}");
                    }
                }
            }
            Match::Multiport { of, ports: Is(all) } => {
                let end = match of {
                    PortsOf::Source => "from",
                    PortsOf::Destination | PortsOf::Either => "to",
                };
                let all: Vec<String> = all.iter().map(ToString::to_string).collect();
                ports = format!(" {end} the ports {}", all.join(", "));
            }
            _ => {}
        }
    }
    match protocol {
        Some(protocol) => format!("{protocol}{ports}"),
        None => "every other packet".to_owned(),
    }
}

/// Describes the effect of a limit on segment sizes, with the packet as the subject.
fn announces(mss: Mss) -> String {
    match mss {
        Mss::Clamp => {
            "announces no larger TCP segment than this machine's routes to both ends carry"
                .to_owned()
        }
        Mss::Bytes(bytes) => format!("announces TCP segments of at most {bytes} bytes"),
    }
}

/// Returns whether a rule matches the answers of connections alone.
fn is_answer(rule: &Rule) -> bool {
    let answers = |condition: &Match| matches!(condition, Match::Conntrack(tracked) if tracked.direction == Some(CtDirection::Reply));
    rule.matches.iter().any(answers)
}

fn egress(rule: &Rule) -> Option<&Interface> {
    rule.matches.iter().find_map(|condition| match condition {
        Match::Egress(Is(by)) => by.exact(),
        _ => None,
    })
}

fn ingress(rule: &Rule) -> Option<&Interface> {
    rule.matches.iter().find_map(|condition| match condition {
        Match::Ingress(Is(by)) => by.exact(),
        _ => None,
    })
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

fn logs(rule: &Rule, prefix: &str) -> String {
    let most = rule.matches.iter().find_map(|condition| match condition {
        Match::Limit(limit) => Some(format!(", at most {} a minute", limit.per_minute())),
        _ => None,
    });
    let most = most.unwrap_or_default();
    format!("the kernel logs a line that begins with `{prefix}`{most}")
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

/// Explains a rule with a limit.
fn limit_words(rule: &Rule) -> Option<String> {
    rule.matches.iter().find_map(|condition| match condition {
        Match::HashLimit(limit) => Some(format!(
            "more than {} new connections a second{}, {} at once, are refused",
            limit.per_second.times(),
            of_each(limit.of != Whose::All),
            limit.burst
        )),
        Match::ConnLimit(limit) => Some(format!(
            "more than {} connections at the same time{} are refused",
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

/// Draws clients, forwards, firewall and targets as a Mermaid flowchart, and the sources and destinations of outbound
/// entries.
#[must_use]
pub fn mermaid<'f>(
    firewall: &Firewall,
    forwards: &[&Forward],
    outbound: impl Iterator<Item = &'f Outbound>,
) -> String {
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
    for (n, row) in rows(forwards).enumerate() {
        let forward = row[0];
        let kind = match forward.target.kind {
            crate::forwards::TargetKind::Ilb => "ILB",
            crate::forwards::TargetKind::Pod => "pod",
        };
        out.push_str(&format!(
            "  client -->|\"{} {}\"| listen{n}[\"{}\"]\n  listen{n} --> firewall\n",
            forward.protocol,
            listeners_of(row),
            forward.name,
        ));
        for (m, to) in forward.target.destinations.iter().enumerate() {
            let place = match m {
                0 => format!("target{n}"),
                m => format!("target{n}x{m}"),
            };
            out.push_str(&format!(
                "  firewall -->|\"{}\"| {place}[\"{kind}<br>{}\"]\n",
                forward.name,
                reached(row, to),
            ));
        }
    }
    for (n, entry) in outbound.enumerate() {
        let Outbound {
            name,
            allow_from,
            allow_to,
            ..
        } = entry;
        let internet = if allow_to.internet {
            "internet<br>"
        } else {
            ""
        };
        let to = format!("{internet}{}", list(allow_to.nets.as_slice()));
        out.push_str(&format!(
            "  from{n}[\"{}\"] -->|\"{name} {}\"| firewall\n  firewall -->|\"{name}\"| to{n}[\"{}\"]\n",
            list(allow_from.as_slice()),
            entry.protocol_words(),
            to.trim_end_matches("<br>"),
        ));
    }
    out
}

/// The most networks that one box of the flowchart lists.
const MOST_NETS: usize = 4;

fn list(nets: &[IpNet]) -> String {
    if nets.len() > MOST_NETS {
        return format!("{} networks", nets.len());
    }
    let words: Vec<String> = nets.iter().map(ToString::to_string).collect();
    words.join("<br>")
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
            !nat.iter().any(|note| note.contains("is accepted")),
            "{nat:#?}"
        );
    }
}
