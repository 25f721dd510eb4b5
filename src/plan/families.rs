//! The plan of each family that a command works on.

use super::plan;
use crate::forwards::ForwardSet;
use crate::net::Family;
use crate::net::per_family::{Families, PerFamily};
use crate::netfilter::ruleset::Ruleset;

/// Returns the plan of each family. The plan of IPv6 is empty if the spec has neither an IPv6 forward nor an
/// outbound entry with IPv6 sources and destinations: such a spec says nothing about IPv6, so nvactl adds neither empty
/// chains nor a policy there.
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
