//! Foreign rules that accept connections whose replies pass only because nvactl's rules accept them.

use std::ptr;

use crate::netfilter::matches::Match;
use crate::netfilter::names::{ChainName, Policy, TableName};
use crate::netfilter::negatable::Negatable::{self, Is};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::Target;
use crate::netfilter::tracking::{Conntrack, CtState, CtStates};

/// Returns the rule that accepts the replies of all connections.
#[must_use]
pub fn for_replies() -> Rule {
    let known = Conntrack::states(CtStates::from(CtState::Related).or(CtState::Established));
    Rule::new([Match::Conntrack(known)], Target::Accept)
}

/// Returns the foreign rules of FORWARD that accept new connections whose replies no foreign rule accepts. While
/// nvactl's rules are loaded, these accept the replies. A policy that accepts needs no rule for replies, and a jump to a
/// foreign chain may lead to one.
#[must_use]
pub fn without_replies(ruleset: &Ruleset) -> Vec<&Rule> {
    let chain = ruleset.chain(TableName::Filter, &ChainName::Forward);
    let all = chain.into_iter().flat_map(|chain| &chain.rules);
    let foreign = all.filter(|rule| !rule.leads_to().is_some_and(ChainName::is_own));
    let foreign: Vec<&Rule> = foreign.collect();
    if ruleset.forward_policy() == Policy::Accept
        || foreign.iter().any(|rule| rule.leads_to().is_some())
    {
        return Vec::new();
    }
    let accepts = foreign
        .iter()
        .copied()
        .filter(|rule| rule.target == Some(Target::Accept));
    let accepts: Vec<&Rule> = accepts.collect();
    let is_lost = |rule: &&Rule| {
        let is_new =
            states(rule).is_none_or(|states| states.holds(|one| one.contains(CtState::New)));
        is_new && !accepts.iter().any(|other| may_take_replies(other, rule))
    };
    accepts.iter().copied().filter(is_lost).collect()
}

fn states(rule: &Rule) -> Option<Negatable<CtStates>> {
    rule.matches.iter().find_map(|one| match one {
        Match::Conntrack(conntrack) => conntrack.states,
        Match::State(states) => Some(*states),
        _ => None,
    })
}

/// Whether an accepting rule may accept the replies of the connections that another one accepts.
fn may_take_replies(rule: &Rule, of: &Rule) -> bool {
    if let Some(states) = states(rule) {
        return states.holds(|one| one.contains(CtState::Established));
    }
    rule.matches.iter().all(|condition| {
        let mut others = of.matches.iter();
        match condition {
            // The replies go to the source, and come in where the connection goes out.
            Match::Destination(Is(to)) => others.all(|other| match other {
                Match::Source(Is(from)) => to.contains(from) || from.contains(to),
                _ => true,
            }),
            Match::Source(Is(from)) => others.all(|other| match other {
                Match::Destination(Is(to)) => to.contains(from) || from.contains(to),
                _ => true,
            }),
            Match::Ingress(Is(one)) => others.all(|other| match other {
                Match::Egress(Is(other)) => one == other,
                _ => true,
            }),
            Match::Egress(Is(one)) => others.all(|other| match other {
                Match::Ingress(Is(other)) => one == other,
                _ => true,
            }),
            // The port of a client is any.
            Match::Tcp {
                destination: Some(_),
                ..
            }
            | Match::Udp {
                destination: Some(_),
                ..
            }
            | Match::Multiport { .. } => false,
            Match::Tcp { flags, .. } => flags.is_none(),
            _ => true,
        }
    }) && (!ptr::eq(rule, of) || rule.is_unconditional() || !is_one_way(rule))
}

/// Whether a rule names a side of the machine or an address, so that it does not accept its own replies.
fn is_one_way(rule: &Rule) -> bool {
    let mut conditions = rule.matches.iter();
    conditions.any(|one| {
        matches!(
            one,
            Match::Source(_) | Match::Destination(_) | Match::Ingress(_) | Match::Egress(_)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netfilter::text::parse::parse;

    #[test]
    fn accepts_whose_replies_nothing_accepts_are_found() {
        const REPLIES: &str = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
        const WEB: &str = "-p tcp -m tcp --dport 80 -m conntrack --ctstate NEW -j ACCEPT";
        const OUT: &str = "-s 10.224.0.0/16 -o eth0 -j ACCEPT";
        const BACK: &str = "-d 10.224.0.0/16 -i eth0 -j ACCEPT";
        for (policy, rules, lost) in [
            ("DROP", &[WEB][..], &[WEB][..]),
            ("DROP", &[WEB, REPLIES], &[]),
            ("ACCEPT", &[WEB], &[]),
            ("DROP", &[OUT], &[OUT]),
            ("DROP", &[OUT, BACK], &[]),
            // The servers of `WEB` may be hosts of `OUT`.
            ("DROP", &[OUT, WEB], &[OUT]),
            ("DROP", &["-j ACCEPT", WEB], &[]),
            ("DROP", &["-j NVACTL-FORWARD", WEB], &[WEB]),
            ("DROP", &["-j MINE", WEB], &[]),
            ("DROP", &["-s 192.0.2.1/32 -j DROP", REPLIES], &[]),
        ] {
            let lines: String = rules
                .iter()
                .map(|rule| format!("-A FORWARD {rule}\n"))
                .collect();
            let text = format!(
                "*filter\n:FORWARD {policy} [0:0]\n:MINE - [0:0]\n:NVACTL-FORWARD - [0:0]\n{lines}COMMIT\n"
            );
            let ruleset = parse(&text).expect("it is a ruleset");
            let found = without_replies(&ruleset);
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, lost, "{policy} {rules:?}");
        }
    }
}
