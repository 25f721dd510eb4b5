//! The checks in their order.

use super::{Case, Check, Status, azure, boot, machine, packets, rules, target};

/// Every check, in the order of the hops and, at one hop, of the spec.
#[must_use]
pub fn examine(case: &Case<'_>) -> Vec<Check> {
    let mut checks = Vec::new();
    let astray = target::Astray::of(case);
    machine::check(case, &mut checks);
    rules::check(case, &astray, &mut checks);
    target::check(case, &astray, &mut checks);
    packets::check(case, &astray, &mut checks);
    boot::check(case, &mut checks);
    azure::check(case, &mut checks);
    checks.sort_by_key(|check| (check.code, check.status != Status::Fail));
    checks
}
