//! Things that work now but may not after the next boot, or after the next minute.

use super::{Case, Check, Fix, Hop};
use crate::health::rules_file::RulesFile;
use crate::net::Family;

pub fn check(case: &Case<'_>, checks: &mut Vec<Check>) {
    let facts = case.facts;
    if let Some(pending) = &facts.pending {
        // One of the commands keeps a change that may be broken, so neither is a fix.
        let choices = pending.choices.iter().map(|choice| {
            let command = case.completed(choice.command);
            Fix::with_purpose(choice.purpose, command)
        });
        checks.push(Check {
            fix: choices.reduce(Fix::or),
            ..Hop::Pending.warn(pending.told.clone())
        });
    }
    checks.push(match &facts.boot.unit {
        // The unit's fault comes first: the loaded rules may be wrong, so `persist` must not save them.
        Some((words, fix)) => Hop::Persistence
            .warn(words.clone())
            .fix(case.completed(fix)),
        None => persistence(case),
    });
    let managers = &facts.boot.managers;
    checks.extend(managers.iter().map(|(words, fix)| Check {
        fix: fix.as_deref().map(|fix| case.completed(fix).into()),
        ..Hop::BootOrder.warn(words.clone())
    }));
    if managers.is_empty() {
        let words = "no other program removes nvactl's rules at boot";
        checks.push(Hop::BootOrder.ok(words));
    }
    checks.push(match &facts.boot.next.forwards {
        Some((true, by)) => Hop::SysctlAtBoot.ok(format!("{by} turns forwarding on at boot")),
        Some((false, by)) => Hop::SysctlAtBoot
            .warn(format!(
                "{by} turns forwarding off at boot, because it is read last: {} works after the next boot",
                nothing(case)
            ))
            .fix(format!("delete this line: {by}")),
        None => Hop::SysctlAtBoot
            .warn(match (case.family, &facts.boot.next.forwards_unread) {
                (_, Some(line)) => {
                    format!("forwarding is off after the next boot: systemd-sysctl does not read {line}")
                }
                (family, None) => format!(
                    "no file turns {}forwarding on at boot: {} works after the next boot",
                    ipv6(family),
                    nothing(case)
                ),
            })
            .fix(case.completed(enable(case.family))),
    });
}

/// Denies the case's forwards and outbound entries: `no IPv6 forward`.
fn nothing(case: &Case<'_>) -> String {
    case.set.of(case.family).numbers().no(ipv6(case.family))
}

/// Returns the word that names IPv6 before a noun; empty for IPv4.
fn ipv6(family: Family) -> &'static str {
    match family {
        Family::V4 => "",
        Family::V6 => "IPv6 ",
    }
}

/// Returns the command that turns a family's forwarding on.
pub fn enable(family: Family) -> &'static str {
    match family {
        Family::V4 => "sudo nvactl sysctl enable --persist",
        Family::V6 => "sudo nvactl sysctl enable --persist --ipv6",
    }
}

fn persistence(case: &Case<'_>) -> Check {
    let (boot, fix) = (&case.facts.boot.next, case.persist.as_str());
    let file = boot.place;
    match (boot.rules, boot.not_loaded()) {
        (RulesFile::Missing | RulesFile::Different, Some((why, fix))) => Hop::Persistence
            .warn(format!("nothing loads nvactl's rules at boot: {why}"))
            .fix(case.completed(fix)),
        (RulesFile::Missing, _) => Hop::Persistence
            .warn(format!(
                "{file} does not exist: {} works after the next boot",
                nothing(case)
            ))
            .fix(fix),
        (RulesFile::Different, _) => Hop::Persistence
            .warn(format!(
                "{file} differs from the loaded rules: the next boot loads other rules"
            ))
            .fix(fix),
        (RulesFile::Unreadable, _) => Hop::Persistence
            .warn(format!(
                "{file} cannot be read: the next boot may load no rules"
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
                "{file} holds the loaded rules, but nothing loads it at boot: {why}"
            ))
            .fix(case.completed(fix)),
        (RulesFile::Same, None) => Hop::Persistence.ok(format!("{file} holds the loaded rules")),
    }
}
