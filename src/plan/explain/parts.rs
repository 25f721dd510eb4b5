//! Conditions and targets that rules of forwards and of outbound entries share, in words.

use std::net::IpAddr;

use crate::net::Interface;
use crate::netfilter::limit::Whose;
use crate::netfilter::matches::Match;
use crate::netfilter::negatable::Negatable::Is;
use crate::netfilter::rule::Rule;
use crate::netfilter::target::Mss;
use crate::netfilter::tracking::CtDirection;

/// Describes the effect of a limit on segment sizes, with the packet as the subject.
pub fn announces(mss: Mss) -> String {
    match mss {
        Mss::Clamp => {
            "announces no larger TCP segment than this machine's routes to both ends carry"
                .to_owned()
        }
        Mss::Bytes(bytes) => format!("announces TCP segments of at most {bytes} bytes"),
    }
}

/// Returns whether a rule matches the answers of connections alone.
pub fn is_answer(rule: &Rule) -> bool {
    let answers = |condition: &Match| matches!(condition, Match::Conntrack(tracked) if tracked.direction == Some(CtDirection::Reply));
    rule.matches.iter().any(answers)
}

pub fn egress(rule: &Rule) -> Option<&Interface> {
    rule.matches.iter().find_map(|condition| match condition {
        Match::Egress(Is(by)) => by.exact(),
        _ => None,
    })
}

pub fn ingress(rule: &Rule) -> Option<&Interface> {
    rule.matches.iter().find_map(|condition| match condition {
        Match::Ingress(Is(by)) => by.exact(),
        _ => None,
    })
}

pub fn logs(rule: &Rule, prefix: &str) -> String {
    let most = rule.matches.iter().find_map(|condition| match condition {
        Match::Limit(limit) => Some(format!(", at most {} a minute", limit.per_minute())),
        _ => None,
    });
    let most = most.unwrap_or_default();
    format!("the kernel logs a line that begins with `{prefix}`{most}")
}

/// Explains a rule with a limit.
pub fn limit_words(rule: &Rule) -> Option<String> {
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

pub fn destination_of(rule: &Rule) -> Option<IpAddr> {
    rule.matches.iter().find_map(|condition| match condition {
        Match::Destination(Is(net)) => Some(net.addr()),
        _ => None,
    })
}
