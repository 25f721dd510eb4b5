//! The limits of rules.

use std::collections::BTreeSet;

use super::addresses::Addresses;
use super::exceptions::LeftClients;
use super::redirected::{Fit, Redirected};
use super::verdict::{RuleVerdict, verdict};
use super::walk::Met;
use crate::forwards::{Limits, Per, Rate};
use crate::net::Family;
use crate::netfilter::limit::{ConnLimit, Limit, PerSecond, Whose};
use crate::netfilter::names::Policy;
use crate::netfilter::target::Target;
use crate::netfilter::text::parse::UpTo;

/// Returns the limit of an accept; `None` if it has none. The connections above it are those that later rules refuse.
///
/// # Errors
/// The limit in words, if a spec has no words for it.
pub fn accept_limit(met: &Met<'_>) -> Result<Option<Limits>, String> {
    let conditions = &met.conditions;
    let family = met.place.family;
    let unsaid = || Err(conditions.beyond_words());
    if conditions.hash_limit.is_some() || conditions.connections.is_some() {
        return unsaid();
    }
    match (conditions.limit, &conditions.up_to) {
        (None, None) => Ok(None),
        (Some(limit), None) => match whole_seconds(*limit) {
            Some(rate) => Ok(Some(of_rate(rate, Per::Total))),
            None => Err("`-m limit`, whose rate is no whole number a second".to_owned()),
        },
        (None, Some(UpTo::Rate(limit))) => {
            let rate = Rate {
                new_per_second: limit.per_second,
                burst: limit.burst,
            };
            per(limit.of, family).map_or_else(unsaid, |per| Ok(Some(of_rate(rate, per))))
        }
        (None, Some(UpTo::Connections(limit))) => {
            of_connections(*limit, family).map_or_else(unsaid, |limits| Ok(Some(limits)))
        }
        (Some(_), Some(_)) => unsaid(),
    }
}

fn whole_seconds(limit: Limit) -> Option<Rate> {
    let a_minute = limit.per_minute();
    let times = a_minute / 60;
    if times == 0 || !a_minute.is_multiple_of(60) {
        return None;
    }
    Some(Rate {
        new_per_second: PerSecond::new(times).ok()?,
        burst: limit.burst(),
    })
}

fn of_rate(rate: Rate, per: Per) -> Limits {
    Limits {
        rate: Some(rate),
        max_connections: None,
        per,
        reject: false,
    }
}

/// A client of IPv6 is a /64, since it has all addresses of that.
fn per(of: Whose, family: Family) -> Option<Per> {
    match (of, family) {
        (Whose::All, _) => Some(Per::Total),
        (Whose::Address, Family::V4) | (Whose::Net(64), Family::V6) => Some(Per::Client),
        _ => None,
    }
}

fn of_connections(limit: ConnLimit, family: Family) -> Option<Limits> {
    Some(Limits {
        rate: None,
        max_connections: Some(limit.most),
        per: match (limit.mask, family) {
            (0, _) => Per::Total,
            (32, Family::V4) | (64, Family::V6) => Per::Client,
            _ => return None,
        },
        reject: false,
    })
}

/// Returns the limit of a drop.
pub fn drop_limit(met: &Met<'_>) -> Option<Limits> {
    let conditions = &met.conditions;
    let family = met.place.family;
    let limits = match (conditions.hash_limit, conditions.connections) {
        (Some(limit), None) => {
            let rate = Rate {
                new_per_second: limit.per_second,
                burst: limit.burst,
            };
            of_rate(rate, per(limit.of, family)?)
        }
        (None, Some(limit)) => of_connections(*limit, family)?,
        _ => return None,
    };
    let is_alone = conditions.limit.is_none() && conditions.up_to.is_none();
    is_alone.then_some(Limits {
        reject: answers(met),
        ..limits
    })
}

fn answers(met: &Met<'_>) -> bool {
    !matches!(met.rule.target, Some(Target::Drop))
}

/// The fate of the connections above the limit of an accept.
pub enum AboveLimit<'a, 'r> {
    Refused {
        /// The rules that refuse them, but for the policy.
        rules: Vec<&'a Met<'r>>,
        reject: bool,
    },
    Accepted,
    Unclear,
}

/// Follows the rules behind the limited accept of some clients.
pub fn above_limit<'a, 'r>(
    redirected: &Redirected<'_>,
    clients: &Addresses,
    behind: &[&'a Met<'r>],
    policy: Policy,
) -> AboveLimit<'a, 'r> {
    let (mut left, mut accepted) = (clients.clone(), false);
    let mut left_way = LeftClients::new(redirected.family);
    let mut refusing: Vec<&Met<'_>> = Vec::new();
    for met in behind.iter().copied() {
        if left.is_empty() {
            break;
        }
        let fit = redirected.fit(&met.conditions);
        if fit == Fit::No {
            continue;
        }
        let hit = redirected.clients(met, &left, &mut left_way);
        if hit.as_ref().is_some_and(Addresses::is_empty) {
            continue;
        }
        let hit = hit.filter(|_| fit == Fit::Whole && met.conditions.is_plain());
        match (verdict(met.rule), hit) {
            // A refusal by conditions leaves the others to the rules behind it.
            (RuleVerdict::GoOn | RuleVerdict::Return, _) | (RuleVerdict::Refuse, None) => {}
            (RuleVerdict::Refuse, Some(hit)) => {
                left.remove(&hit);
                refusing.push(met);
            }
            (RuleVerdict::Accept, Some(hit)) => {
                left.remove(&hit);
                accepted = true;
            }
            (RuleVerdict::Accept | RuleVerdict::Other, _) => return AboveLimit::Unclear,
        }
    }
    let by_policy = !left.is_empty();
    accepted |= by_policy && policy == Policy::Accept;
    let kinds: Vec<bool> = refusing.iter().map(|met| answers(met)).collect();
    let kinds = kinds
        .into_iter()
        .chain((by_policy && policy == Policy::Drop).then_some(false));
    let kinds: BTreeSet<bool> = kinds.collect();
    match (accepted, kinds.len()) {
        (true, 0) => AboveLimit::Accepted,
        (false, 1) => AboveLimit::Refused {
            rules: refusing,
            reject: kinds.contains(&true),
        },
        _ => AboveLimit::Unclear,
    }
}

/// Returns both limits as one; `None` if a spec cannot say them together.
pub fn joined(one: Option<Limits>, other: Limits) -> Option<Limits> {
    let Some(one) = one else {
        return Some(other);
    };
    let are_apart = one.rate.is_none() != other.rate.is_none()
        && one.max_connections.is_none() != other.max_connections.is_none();
    (are_apart && one.per == other.per).then(|| Limits {
        rate: one.rate.or(other.rate),
        max_connections: one.max_connections.or(other.max_connections),
        per: one.per,
        reject: one.reject || other.reject,
    })
}
