//! The plan of each family that is touched.

use super::plan;
use crate::forwards::ForwardSet;
use crate::net::Family;
use crate::net::per_family::{Families, PerFamily};
use crate::netfilter::ruleset::Ruleset;

/// What a spec plans. IPv6 without a forward in it is to hold nothing of nvactl's, not even empty
/// chains or a policy: a spec that has only IPv4 says nothing of it.
#[must_use]
pub fn planned(set: &ForwardSet, families: Families) -> PerFamily<Ruleset> {
    PerFamily::new(families, |family| {
        if family == Family::V6 && !set.has(family) {
            Ruleset::default()
        } else {
            plan(set, family)
        }
    })
}
