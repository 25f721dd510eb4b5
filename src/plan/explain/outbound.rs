//! The explanations of an outbound entry's rules.

use ipnet::IpNet;

use super::parts::{announces, destination_of, egress, ingress, is_answer, limit_words, logs};
use crate::forwards::{GUARDED, Outbound, Snat};
use crate::net::Interface;
use crate::netfilter::matches::{Match, PortsOf};
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::negatable::Negatable::{self, Is};
use crate::netfilter::rule::Rule;
use crate::netfilter::target::Target;
use crate::netfilter::tracking::Conntrack;
use crate::plan::{DENY, EXIT, FROM, Hook, NOT_TO, TO};

/// Explains a rule of an outbound entry, or of a list of one.
pub fn outward(
    table: TableName,
    chain: &ChainName,
    rule: &Rule,
    entry: Option<&Outbound>,
) -> String {
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
            let source = match entry.snat {
                Snat::Client => "keeps its source if the next checks select it",
                Snat::Masquerade | Snat::Addresses(_) => "may get another source",
            };
            format!(
                "a connection{addresses} that {by} and leaves by {}, and that no rule has redirected, {source}",
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
