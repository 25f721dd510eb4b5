//! What works now and may not after the next boot, or the next minute.

use super::{Case, Check, Hop};
use crate::net::Family;
use crate::status::RulesFile;

pub fn check(case: &Case<'_>, checks: &mut Vec<Check>) {
    let facts = case.facts;
    if let Some((told, fix)) = &facts.pending {
        checks.push(Hop::Pending.warn(told.clone()).fix(*fix));
    }
    checks.push(persistence(case));
    checks.push(match facts.boot.managers.first() {
        Some(words) => Hop::BootOrder.warn(words.clone()),
        None => Hop::BootOrder.ok("no other program that manages the firewall starts at boot"),
    });
    checks.push(match &facts.boot.ip_forward {
        Some((true, by)) => Hop::SysctlAtBoot.ok(format!("{by} turns forwarding on at boot")),
        Some((false, by)) => Hop::SysctlAtBoot
            .warn(format!(
                "{by} turns forwarding off at boot: it is read last, and wins"
            ))
            .fix("remove or change that line"),
        None => Hop::SysctlAtBoot
            .warn(match case.family {
                Family::V4 => "no file turns forwarding on at boot",
                Family::V6 => "no file turns IPv6 forwarding on at boot",
            })
            .fix(enable(case.family)),
    });
}

/// The command that turns a family's forwarding on.
pub fn enable(family: Family) -> &'static str {
    match family {
        Family::V4 => "sudo nvactl sysctl enable --persist",
        Family::V6 => "sudo nvactl sysctl enable --persist --ipv6",
    }
}

fn persistence(case: &Case<'_>) -> Check {
    let (boot, fix) = (&case.facts.boot, case.persist.as_str());
    let file = boot.rules_file;
    match (boot.rules, boot.not_loaded) {
        (RulesFile::Missing, _) => Hop::Persistence
            .warn(format!(
                "{file} is not there: nothing is forwarded after the next boot"
            ))
            .fix(fix),
        (RulesFile::Different, _) => Hop::Persistence
            .warn(format!(
                "{file} is older than what runs: the next boot brings other rules"
            ))
            .fix(fix),
        (RulesFile::Unreadable, _) => Hop::Persistence
            .warn(format!(
                "{file} cannot be read: the next boot may bring no rules"
            ))
            .fix(fix),
        (RulesFile::Refused, _) => Hop::Persistence
            .warn(format!(
                "{file} does not load at boot: {}",
                boot.refused.as_deref().unwrap_or_default()
            ))
            .fix(fix),
        (RulesFile::Same, Some((why, fix))) => Hop::Persistence
            .warn(format!(
                "{file} holds what runs, but is not loaded at boot: {why}"
            ))
            .fix(fix),
        (RulesFile::Same, None) => Hop::Persistence.ok(format!("{file} holds what runs")),
    }
}
