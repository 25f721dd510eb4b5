//! The interfaces by which packets leave, as rules name them.

use super::conditions::RuleConditions;
use super::redirected::{Fit, Redirected};
use super::verdict::{RuleVerdict, verdict};
use super::walk::Met;
use crate::net::Interface;
use crate::netfilter::negatable::Negatable::{Is, Not};

/// Returns the one interface by which a rule's packets leave.
pub fn egress(conditions: &RuleConditions<'_>) -> Option<Interface> {
    conditions.egress.iter().find_map(|pattern| match pattern {
        Is(pattern) => pattern.exact().cloned(),
        Not(_) => None,
    })
}

/// Returns the interface that the first accept of redirected connections names, if the accept names them, too.
pub fn egress_of_accepts(redirected: &Redirected<'_>, rules: &[&Met<'_>]) -> Option<Interface> {
    let mut accepts = accepts(redirected, rules).filter(|met| names(met));
    accepts.find_map(|met| egress(&met.conditions))
}

/// Returns the interface that the first accept names, if no accept names the connections. A program's accept is for
/// connections of its own.
pub fn egress_of_wide_accepts(
    redirected: &Redirected<'_>,
    rules: &[&Met<'_>],
) -> Option<Interface> {
    if accepts(redirected, rules).any(names) {
        return None;
    }
    let mut accepts = accepts(redirected, rules).filter(|met| met.program.is_none());
    accepts.find_map(|met| egress(&met.conditions))
}

fn accepts<'a, 'r>(
    redirected: &'a Redirected<'a>,
    rules: &'a [&'a Met<'r>],
) -> impl Iterator<Item = &'a Met<'r>> {
    rules.iter().copied().filter(|met| {
        let sources = met.conditions.sources(redirected.family);
        verdict(met.rule) == RuleVerdict::Accept
            && redirected.fit(&met.conditions) != Fit::No
            && sources.meet(redirected.sources)
    })
}

/// Returns whether a rule names the connections, rather than all that leave by an interface.
fn names(met: &Met<'_>) -> bool {
    let conditions = &met.conditions;
    let mut destinations = conditions.destination.iter();
    let has_destination = destinations.any(|net| matches!(net, Is(_)));
    has_destination
        || met.program.is_none()
            && (conditions.names_connections() || conditions.redirected == Some(true))
}
