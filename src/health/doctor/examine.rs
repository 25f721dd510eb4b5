//! Runs the checks and sorts them.

use super::{
    Case, Check, Status, azure, boot, capacity, machine, outbound, packets, replies, route, rules,
    target,
};

/// Returns every check, in the order of the hops, and for one hop in the order of the spec. All are about the case's
/// family.
#[must_use]
pub fn examine(case: &Case<'_>) -> Vec<Check> {
    let mut checks = Vec::new();
    let astray = route::Astray::of(case);
    machine::check(case, &mut checks);
    capacity::source_ports(case, &mut checks);
    rules::check(case, &astray, &mut checks);
    route::check(case, &astray, &mut checks);
    outbound::check(case, &mut checks);
    target::check(case, &astray, &mut checks);
    replies::check(case, &mut checks);
    packets::check(case, &astray, &mut checks);
    boot::check(case, &mut checks);
    azure::check(case, &astray, &mut checks);
    for check in &mut checks {
        check.family = Some(case.family);
    }
    checks.sort_by_key(|check| (check.code, check.status != Status::Fail));
    checks
}
