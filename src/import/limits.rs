//! The limits of rules.

use super::walk::Met;
use crate::forwards::{Limits, Per, Rate};
use crate::netfilter::limit::{Limit, PerSecond, Whose};
use crate::netfilter::target::Target;

/// Returns what a spec says of `-m limit` before an accept; `None` if it has no words for it.
pub fn accept_limit(limit: Limit) -> Option<Limits> {
    // A spec has whole connections a second.
    let a_minute = limit.per_minute();
    let times = a_minute / 60;
    if times == 0 || !a_minute.is_multiple_of(60) {
        return None;
    }
    Some(Limits {
        rate: Some(Rate {
            new_per_second: PerSecond::new(times).ok()?,
            burst: limit.burst(),
        }),
        max_connections: None,
        per: Per::Total,
        reject: false,
    })
}

/// Returns the limit of a drop.
pub fn drop_limit(met: &Met<'_>) -> Option<Limits> {
    let reject = !matches!(met.rule.target, Some(Target::Drop));
    let conditions = &met.conditions;
    let whose = |of| match of {
        Whose::All => Some(Per::Total),
        Whose::Address => Some(Per::Client),
        Whose::Net(_) => None,
    };
    match (conditions.hash_limit, conditions.connections) {
        (Some(limit), None) => Some(Limits {
            rate: Some(Rate {
                new_per_second: limit.per_second,
                burst: limit.burst,
            }),
            max_connections: None,
            per: whose(limit.of)?,
            reject,
        }),
        (None, Some(limit)) => Some(Limits {
            rate: None,
            max_connections: Some(limit.most),
            per: match limit.mask {
                0 => Per::Total,
                32 | 64 | 128 => Per::Client,
                _ => return None,
            },
            reject,
        }),
        _ => None,
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
