//! Compares the rules and settings of the next boot with the current ones.

use super::history::moment;
use super::records::{Booted, Brought};
use super::remark::Remarks;
use super::saved::compared;
use super::state::State;
use crate::forwards::ForwardSet;
use crate::health::next_boot::NextBoot;
use crate::health::rules_file::{self, RulesFile};
use crate::host::iptables::Iptables;
use crate::host::persistence::{self, RulesAtBoot};
use crate::host::sysctl::settings::{Assignment, Switch};
use crate::host::{boot_unit, namespace, sysctl};
use crate::net::Family;
use crate::net::per_family::PerFamily;
use crate::netfilter::ruleset::Ruleset;

/// Looks up the rules and settings of the next boot. `set` names the interfaces with a switch of their own.
#[must_use]
pub fn look(
    state: Option<&State>,
    iptables: &Iptables,
    family: Family,
    live: &Ruleset,
    set: &ForwardSet,
) -> NextBoot {
    let files = sysctl::at_boot(Switch::Forwarding(family));
    let winner = files.decider(set.interfaces());
    let place = |line: &Assignment| format!("{}:{}", line.file.display(), line.line);
    let mut next = NextBoot {
        place: persistence::rules_file(family),
        rules: RulesFile::Missing,
        refused: None,
        by: persistence::at_boot(family),
        forwards: winner.map(|winner| (winner.on, place(winner))),
        forwards_unread: files.other_winner().map(place),
    };
    if next.by != RulesAtBoot::Unit {
        (next.rules, next.refused) = rules_file::compared(iptables, family, live);
        return next;
    }
    let saved = state.map_or(Ok(None), State::saved);
    next.place = "the saved state";
    next.rules = compared(&saved, family, live);
    let switch = Switch::Forwarding(family);
    if saved.ok().flatten().is_some_and(|saved| saved.sets(switch)) {
        next.forwards = Some((true, boot_unit::NAME.to_owned()));
    }
    next
}

/// Whether the boot unit turns a switch on, because it was on when the rules were saved.
#[must_use]
pub fn unit_sets(state: &State, switch: Switch) -> bool {
    let saved = || state.saved().ok().flatten();
    boot_unit::is_enabled() && saved().is_some_and(|saved| saved.sets(switch))
}

/// Returns the command that makes the next boot load nvactl's rules; `None` if it loads some already.
#[must_use]
pub fn fix_if_lost() -> Option<&'static str> {
    let fix = match persistence::at_boot(Family::V4) {
        _ if persistence::manager().is_some() => Some("sudo nvactl boot enable"),
        RulesAtBoot::NotEnabled(_) => Some("sudo nvactl boot enable"),
        by => by.fix(),
    };
    let kept = |family| !matches!(persistence::holds_own(family), Ok(false));
    match fix {
        _ if boot_unit::is_enabled() => None,
        None if !Family::ALL.into_iter().any(kept) => Some("sudo nvactl persist"),
        fix => fix,
    }
}

/// Adds a note that the new rules are lost at the next boot, if nothing loads them; else the note of [`say`].
pub fn say_of_change(
    state: &State,
    iptables: &Iptables,
    rules: &PerFamily<&Ruleset>,
    remarks: &mut Remarks,
) {
    match fix_if_lost() {
        Some(fix) if rules.values().any(|rules| rules.holds_own()) => {
            remarks.note(format_args!(
                "these rules are lost at the next boot; to keep them: {fix}"
            ));
        }
        _ => say(state, iptables, rules, remarks),
    }
}

/// The note after nvactl's rules were removed while the boot unit has saved ones.
pub const REMOVED_COMES_BACK: &str =
    "the next boot loads the removed rules again; to prevent that: sudo nvactl boot disable";

/// Adds a note if the next boot loads other rules than these, with the command that saves them.
pub fn say(state: &State, iptables: &Iptables, rules: &PerFamily<&Ruleset>, remarks: &mut Remarks) {
    if boot_unit::is_enabled() {
        let saved = state.saved();
        let same =
            |(family, rules): (_, &&Ruleset)| compared(&saved, family, rules) == RulesFile::Same;
        if !rules.iter().all(same) {
            let removed = !rules.values().any(|rules| rules.holds_own());
            remarks.note(match saved {
                Ok(Some(saved)) if removed && saved.holds_rules() => REMOVED_COMES_BACK.to_owned(),
                Ok(Some(saved)) => format!(
                    "the next boot loads the rules saved at {}; to save the rules loaded now: \
                     sudo nvactl persist",
                    moment(saved.time)
                ),
                _ => "the next boot does not load nvactl's rules; to save the rules loaded now: \
                      sudo nvactl persist"
                    .to_owned(),
            });
        }
        return;
    }
    for (family, rules) in rules.iter() {
        let file = persistence::rules_file(family);
        // Without a loader, the file has no effect.
        if !matches!(persistence::at_boot(family), RulesAtBoot::Loaded(_)) {
            continue;
        }
        match rules_file::compared_quickly(iptables, family, rules) {
            RulesFile::Different => remarks.note(format_args!(
                "the next boot loads other rules from {file}; to save the rules loaded now: \
                 sudo nvactl persist"
            )),
            RulesFile::Refused => remarks.note(format_args!(
                "{file} will not load at the next boot; to see why: sudo nvactl status"
            )),
            RulesFile::Same | RulesFile::Missing | RulesFile::Unreadable => {}
        }
    }
}

/// Returns the fault of the boot unit and its fix; none if the unit is not enabled.
#[must_use]
pub fn unit_fault(state: Option<&State>) -> Option<(String, &'static str)> {
    const ANEW: &str = "sudo nvactl apply && sudo nvactl persist";
    let own = |(words, fix): (&str, _)| (words.to_owned(), fix);
    if !boot_unit::is_enabled() {
        return None;
    }
    let booted = state.and_then(|state| {
        let booted = state.booted().ok().flatten()?;
        let here = namespace::boot().is_ok_and(|boot| boot == booted.boot);
        // A later change or save supersedes the unit's last run.
        let changed = state.numbers().ok()?.last().copied() > booted.after;
        let saved = state.saved().ok().flatten();
        let saved = saved.is_some_and(|saved| saved.time > booted.time);
        (here && !changed && !saved).then_some(booted)
    });
    let why = |booted: &Booted| booted.why.clone().unwrap_or_default();
    match booted {
        Some(booted) if booted.brought == Brought::Before => Some((
            format!(
                "the saved rules did not load, so nvactl.service loaded the rules saved before them: {}",
                why(&booted)
            ),
            ANEW,
        )),
        Some(booted) if booted.brought == Brought::Closed => Some((
            format!(
                "no saved rules could be loaded, so nvactl.service set the FORWARD policy to DROP: {}",
                why(&booted)
            ),
            ANEW,
        )),
        _ => boot_unit::fault().map(own),
    }
}
