//! Changes of a rule: it is gone, or one field of it is another.

mod conditions;
mod targets;

use std::fmt;

use nvactl::netfilter::matches::Match;
use nvactl::netfilter::rule::Rule;

/// A change of a rule. `rule` is `None` if the rule is gone.
#[derive(Debug, Clone)]
pub struct Mutation {
    pub field: Field,
    pub change: Change,
    pub rule: Option<Rule>,
}

/// The part of a rule that is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    Rule,
    Source,
    Destination,
    Ingress,
    Egress,
    Protocol,
    SourcePort,
    /// The ports of a packet as it is now.
    Port,
    Flags,
    Icmp,
    States,
    OriginalDestination,
    OriginalPort,
    Status,
    Direction,
    AddressType,
    /// The share of several targets.
    Share,
    Limit,
    Mark,
    Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Gone,
    Negated,
    /// One port, network or state more.
    Wider,
    /// One port, network or state less.
    Narrower,
    Other,
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.field, self.change)?;
        match &self.rule {
            Some(rule) => write!(f, ": {rule}"),
            None => Ok(()),
        }
    }
}

/// Returns the changes of a rule. Comments have none, since no packet sees them.
pub fn mutations(rule: &Rule) -> Vec<Mutation> {
    let mut all = vec![Mutation {
        field: Field::Rule,
        change: Change::Gone,
        rule: None,
    }];
    for (place, condition) in rule.matches.iter().enumerate() {
        for (field, change, changed) in conditions::changes(condition) {
            let mut with = rule.clone();
            match changed {
                Some(changed) => with.matches[place] = changed,
                None => {
                    with.matches.remove(place);
                }
            }
            all.extend(mutation(field, change, with));
        }
    }
    all.extend(conditions::other_protocol(rule).map(|rule| Mutation {
        field: Field::Protocol,
        change: Change::Other,
        rule: Some(rule),
    }));
    for target in rule.target.iter().flat_map(targets::others) {
        let with = Rule {
            target: Some(target),
            ..rule.clone()
        };
        all.extend(mutation(Field::Target, Change::Other, with));
    }
    all
}

/// Returns a change, if iptables accepts the rule: conditions on ports need their protocol.
fn mutation(field: Field, change: Change, rule: Rule) -> Option<Mutation> {
    let needs = |one: &Match| {
        let name = one.name();
        matches!(name, "tcp" | "udp" | "multiport" | "icmp" | "icmp6")
    };
    let is_refused = field == Field::Protocol && rule.matches.iter().any(needs);
    (!is_refused).then_some(Mutation {
        field,
        change,
        rule: Some(rule),
    })
}
