//! Reads single conditions of a rule.

use crate::forwards::Snat;
use crate::net::Interface;
use crate::netfilter::matches::Match;
use crate::netfilter::negatable::Negatable::Is;
use crate::netfilter::rule::Rule;
use crate::netfilter::target::Target;

/// Returns the name of the forward that a rule belongs to: the rule's comment.
#[must_use]
pub fn name_of(rule: &Rule) -> Option<&str> {
    rule.matches.iter().find_map(|condition| match condition {
        Match::Comment(text) => Some(text.as_ref()),
        _ => None,
    })
}

pub fn ingress(rule: &Rule) -> Option<Interface> {
    rule.matches.iter().find_map(|condition| match condition {
        Match::Ingress(Is(by)) => by.exact().cloned(),
        _ => None,
    })
}

pub fn egress(rule: &Rule) -> Option<Interface> {
    rule.matches.iter().find_map(|condition| match condition {
        Match::Egress(Is(by)) => by.exact().cloned(),
        _ => None,
    })
}

pub fn snat(rule: &Rule) -> Option<Snat> {
    match rule.target {
        Some(Target::Snat { addresses, .. }) => Some(Snat::Addresses(addresses)),
        Some(Target::Masquerade) => Some(Snat::Masquerade),
        Some(Target::Accept) => Some(Snat::Client),
        _ => None,
    }
}
