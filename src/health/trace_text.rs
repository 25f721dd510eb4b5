//! A trace as lines for people.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;

use crate::net::printable;
use crate::netfilter::backend::Backend;
use crate::twin::cause::{By, DecidingRule, Direction, Fate, Holder, Taken};
use crate::twin::traced::{
    Arrival, PathPart, PathRoute, PathRule, RouteTo, RuleEffect, SpecPart, TracedConnection,
    TracedEnd, TracedPath,
};

/// The longest line.
const WIDTH: usize = 100;
/// The widths of the hook and the table, and the places at which the effect and the rule's name begin.
const HOOK_WIDTH: usize = 13;
const TABLE_WIDTH: usize = 9;
const EFFECT: usize = HOOK_WIDTH + TABLE_WIDTH;
const PLACE: usize = 52;

/// The remark about rules that are known by their counters.
const COUNTED: &str = "\
(iptables-legacy counts packets of both directions: a rule above whose text fits both may have met
the reply alone)
";

/// Returns whether a part is a rule of another program that iptables-legacy counted, and that translates nothing.
fn is_counted(part: &PathPart) -> bool {
    let PathPart::Rule(PathRule { rule, effect, .. }) = part else {
        return false;
    };
    let is_legacy = matches!(
        rule.holder,
        Holder::Iptables {
            backend: Backend::Legacy,
            ..
        }
    );
    let is_translation = matches!(effect, RuleEffect::Destination(_) | RuleEffect::Source(_));
    is_legacy && !rule.is_nvactls() && !is_translation
}

/// Returns the trace.
#[must_use]
pub fn text(traced: &TracedConnection) -> String {
    let by = match &traced.ingress {
        Some(interface) => format!("in by {}", printable::line(interface)),
        None => "sent by the machine itself".to_owned(),
    };
    let mut text = format!("{}, {by}\n\n", traced.connection);
    path(&mut text, &traced.request);
    if !traced.is_traced {
        text.push_str(
            "(nft is not installed: rules are known by their counters, and routes are not shown)\n",
        );
    }
    if traced.reply.is_some() && traced.request.parts.iter().any(is_counted) {
        text.push_str(COUNTED);
    }
    match &traced.end {
        TracedEnd::Delivered(arrival) => {
            let _ = writeln!(text, "delivered: {}", sees(arrival));
            if let Some(reply) = &traced.reply {
                text.push_str(&replied(reply));
            }
            if arrival.reached.source.ip() == traced.connection.client && traced.ingress.is_some() {
                let target = arrival.reached.target.ip();
                let _ = writeln!(
                    text,
                    "           (only if {target} routes it through this machine: it sees the client's own address)"
                );
            }
        }
        TracedEnd::Stuck(arrival, taken) => {
            let _ = writeln!(text, "reached: {}", sees(arrival));
            if let Some(reply) = &traced.reply {
                text.push_str("\nthe reply:\n");
                path(&mut text, reply);
            }
            let _ = writeln!(text, "not answered: {}", why(taken.as_ref(), &traced.end));
        }
        TracedEnd::Machine => {
            text.push_str(if traced.connection.port.is_some() {
                "not forwarded: the packet ends at the machine itself, where a copy has no programs\n"
            } else {
                "not forwarded: the ping ends at the machine itself\n"
            });
        }
        TracedEnd::Refused(kind, taken) => {
            let word = match kind {
                io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
                io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
                io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
                io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
                io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
                io::ErrorKind::TimedOut => "timed out".to_owned(),
                io::ErrorKind::InvalidInput => "invalid argument".to_owned(),
                io::ErrorKind::AddrNotAvailable => "address not available".to_owned(),
                io::ErrorKind::NetworkDown => "network is down".to_owned(),
                // The library has no name for EMSGSIZE.
                _ => "message too long".to_owned(),
            };
            let why = why(taken.as_ref(), &traced.end);
            let _ = writeln!(text, "not delivered: {why}\nthe client is told: {word}");
        }
        TracedEnd::Silent(taken) => {
            let _ = writeln!(text, "not delivered: {}", why(taken.as_ref(), &traced.end));
        }
    }
    text
}

/// Prints an address and port; a ping has no port.
#[must_use]
pub fn end(at: SocketAddr) -> String {
    if at.port() == 0 {
        at.ip().to_string()
    } else {
        at.to_string()
    }
}

fn sees(arrival: &Arrival) -> String {
    let Arrival { interface, reached } = arrival;
    let interface = printable::line(interface);
    format!(
        "{} behind {interface} sees {}",
        end(reached.target),
        end(reached.source)
    )
}

/// Returns the sentence about the reply of a connection that came through.
fn replied(reply: &TracedPath) -> String {
    let ends = |ends: Option<(SocketAddr, SocketAddr)>| {
        ends.map(|(from, to)| format!("{} -> {}", end(from), end(to)))
    };
    let (came, left) = (ends(reply.came), ends(reply.left));
    let Some(came) = came else {
        return String::new();
    };
    let changed = left.filter(|left| *left != came);
    let egress = reply.egress.as_deref().map(printable::line);
    match (changed, egress) {
        (Some(left), Some(egress)) => {
            format!("reply:     {came}\n           leaves as {left} by {egress}\n")
        }
        (None, Some(egress)) => format!("reply:     {came}, leaves by {egress}\n"),
        // The machine itself is the client.
        (Some(left), None) => {
            format!("reply:     {came}\n           ends at the machine as {left}\n")
        }
        (None, None) => format!("reply:     {came}, ends at the machine\n"),
    }
}

/// Adds the parts of a path, a line each.
fn path(text: &mut String, path: &TracedPath) {
    for part in &path.parts {
        match part {
            PathPart::Rule(rule) => rule_line(text, rule),
            PathPart::Route(route) => route_line(text, route),
        }
    }
    if !path.parts.is_empty() {
        text.push('\n');
    }
}

fn route_line(text: &mut String, route: &PathRoute) {
    let to = match &route.to {
        RouteTo::Machine => "this machine itself".to_owned(),
        RouteTo::Interface { name, gateway } => {
            let via = gateway.map_or(String::new(), |gateway| format!(" via {gateway}"));
            format!("out by {}{via}", printable::line(name))
        }
    };
    let hops = route
        .next_hops
        .map_or(String::new(), |hops| format!(" (one of {hops} next hops)"));
    let line = format!("{:EFFECT$}to {}: {to}{hops}", "routing", route.destination);
    let _ = writeln!(text, "{line}");
}

fn rule_line(text: &mut String, rule: &PathRule) {
    let PathRule { rule, effect, part } = rule;
    let hook = rule.stage.as_str();
    let (hook, table) = match &rule.holder {
        Holder::Iptables { table, .. } => (hook.to_ascii_uppercase(), table.to_string()),
        Holder::Nft(chain) => (hook.to_owned(), format!("nft {}", chain.family)),
    };
    let what = effect_words(effect);
    // `nft netdev` is as wide as the column.
    let table = format!("{table} ");
    let line = format!("{hook:HOOK_WIDTH$}{table:TABLE_WIDTH$}{what}");
    let part = match part {
        Some(SpecPart::Forward(name)) => format!("forward `{}` ", printable::line(name)),
        Some(SpecPart::Outbound(name)) => format!("outbound entry `{}` ", printable::line(name)),
        None => String::new(),
    };
    let place = format!("{part}({})", place(rule));
    let width = |line: &str| line.chars().count();
    if width(&line) < PLACE && PLACE + width(&place) <= WIDTH {
        let _ = writeln!(text, "{line:PLACE$}{place}");
    } else {
        let _ = writeln!(text, "{line}\n{:EFFECT$}{place}", "");
    }
    // The line of a policy says all of it.
    if !rule.is_nvactls() && !is_policy(rule) {
        text.push_str(&wrapped(&printable::line(&rule.text).to_string()));
    }
}

fn effect_words(effect: &RuleEffect) -> String {
    match effect {
        RuleEffect::Accepts => "accepted".to_owned(),
        RuleEffect::Drops => "dropped".to_owned(),
        RuleEffect::Rejects => "rejected".to_owned(),
        RuleEffect::Diverts => "given to a program".to_owned(),
        RuleEffect::Destination(to) => format!("DNAT to {}", end(*to)),
        // The last lines show the port, which seldom changes.
        RuleEffect::Source(to) => format!("SNAT to {}", to.ip()),
        RuleEffect::Changes => "changed".to_owned(),
    }
}

fn is_policy(rule: &DecidingRule) -> bool {
    rule.handle.is_none() && rule.place.is_none()
}

/// Names the place of a rule or a policy on the machine.
fn place(rule: &DecidingRule) -> String {
    let chain = match &rule.holder {
        Holder::Iptables { chain, .. } => chain.to_string(),
        Holder::Nft(chain) => format!("{} {} {}", chain.family, chain.table, chain.name),
    };
    let chain = printable::line(chain);
    match rule.live_place {
        Some(place) => format!("{chain} rule {place}"),
        None if is_policy(rule) => format!("policy of {chain}"),
        None => format!("a rule of {chain}"),
    }
}

/// Breaks the text of a rule into lines.
fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && EFFECT + line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(lines, "{:EFFECT$}{line}", "");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(lines, "{:EFFECT$}{line}", "");
    lines
}

/// Says why a connection did not come through.
#[must_use]
pub fn why(taken: Option<&Taken>, end: &TracedEnd) -> String {
    let Some(Taken {
        by,
        direction,
        fate,
    }) = taken
    else {
        return match end {
            TracedEnd::Refused(..) => {
                "the machine has no route for it, or refuses it itself".to_owned()
            }
            _ => "the kernel names no reason".to_owned(),
        };
    };
    let whose = match direction {
        Direction::Request => "the packet",
        Direction::Reply => "the reply",
    };
    match by {
        By::Kernel(reason) => format!("{whose} {}", reason.words()),
        By::NoRule => format!("no rule translates {whose}"),
        By::Rule(rule) | By::Policy(rule) => {
            let verb = match fate {
                Fate::Dropped => "drops",
                Fate::Rejected => "rejects",
                Fate::Diverted => return format!("{} gives {whose} to a program", named(rule)),
                Fate::Unresolved => {
                    return format!("{} drops neighbour discovery (ICMPv6)", named(rule));
                }
                _ => "changes",
            };
            format!("{} {verb} {whose}", named(rule))
        }
    }
}

/// Names a rule or a policy with its table.
fn named(rule: &DecidingRule) -> String {
    let at = place(rule);
    match &rule.holder {
        Holder::Iptables { backend, table, .. } => {
            let legacy = if *backend == Backend::Legacy {
                " of iptables-legacy"
            } else {
                ""
            };
            format!("{at} in {table}{legacy}")
        }
        Holder::Nft(_) => format!("nft {at}"),
    }
}
