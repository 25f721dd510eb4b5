//! `nvactl boot`: nvactl's own unit, which loads the saved rules at boot.

use super::console::Console;
use super::error::Result;
use super::exit::Exit;
use super::host::{HostAccess, READ_WAIT};
use crate::cli::BootAction;
use crate::health::rules_file::RulesFile;
use crate::host;
use crate::host::iptables::Live;
use crate::host::{boot_unit, persistence};
use crate::net::words::with_causes;
use crate::ops::boot::{self, BootLoad, Doubled};
use crate::ops::families;
use crate::ops::history::{last_loaded, moment};
use crate::ops::next_boot::{REMOVED_COMES_BACK, unit_fault};
use crate::ops::records::{Brought, SavedState};
use crate::ops::saved::compared;
use crate::ops::state::{State, StateError};

/// The most lines of a rules file that are shown.
const MOST_SHOWN: usize = 40;

pub fn run(action: &BootAction, on: HostAccess<'_>, console: &mut Console) -> Result<Exit> {
    match action {
        BootAction::Enable(lock_timeout) => {
            host::require_root("boot enable")?;
            let enabled = boot::enable(&on.machine(lock_timeout.secs)?)?;
            console.remarks(&enabled.remarks);
            say_removed(&enabled.doubled, console);
            if let Some(error) = enabled.failed {
                console.error(with_causes(&error));
                console.tell("hint: to see why: sudo systemctl status nvactl\n");
                return Ok(Exit::Uncertain);
            }
            say_enabled(console);
            if !enabled.running {
                console.note("systemd does not run here: the unit runs at the next boot");
            }
            Ok(Exit::Done)
        }
        BootAction::Disable(lock_timeout) => {
            host::require_root("boot disable")?;
            let disabled = boot::disable(&on.machine(lock_timeout.secs)?)?;
            if let Some(command) = boot_unit::stops_checks() {
                console.note(format_args!(
                    "nvactl-check.timer still checks the rules every minute, and has no saved rules for a repair; to \
                     stop it: {command}"
                ));
            }
            if !disabled.was_enabled {
                console.say("nvactl.service was not enabled");
                return Ok(Exit::Done);
            }
            if !disabled.holds_own {
                console.say("nvactl.service is disabled; nvactl's rules are not loaded");
                return Ok(Exit::Done);
            }
            console.say("nvactl.service is disabled; the loaded rules stay until the next boot");
            console.note(match persistence::manager() {
                None => "the next boot does not load nvactl's rules; to write a rules file: sudo nvactl persist",
                Some(_) => "the next boot does not load nvactl's rules; to load them at boot: sudo nvactl boot enable",
            });
            Ok(Exit::Done)
        }
        BootAction::Status => {
            host::require_root("boot status")?;
            status(on, console)
        }
        BootAction::Test => {
            host::require_root("boot test")?;
            test(on, console)
        }
        BootAction::Load(lock_timeout) => {
            host::require_root("boot load")?;
            Ok(say_loaded(
                boot::load(
                    on.machine(lock_timeout.secs),
                    &on.iptables(lock_timeout.secs),
                )?,
                console,
            ))
        }
    }
}

/// Prints the lines that were removed from the rules files.
fn say_removed(doubled: &[Doubled], console: &mut Console) {
    for Doubled { path, split } in doubled {
        let lines = &split.own;
        console.say(format_args!(
            "{0}: nvactl's own lines were removed, because nvactl.service loads the same rules; the old file \
             is {0}.bak",
            path.display()
        ));
        for line in lines.iter().take(MOST_SHOWN) {
            console.say(format_args!("  {line}"));
        }
        if lines.len() > MOST_SHOWN {
            console.say(format_args!("  and {} more", lines.len() - MOST_SHOWN));
        }
    }
}

fn say_enabled(console: &mut Console) {
    console.say(
        "nvactl.service is enabled: at each boot, before the network, it loads the rules that are loaded now",
    );
    console.note("to save later changes: sudo nvactl persist");
}

fn status(on: HostAccess<'_>, console: &mut Console) -> Result<Exit> {
    if !boot_unit::is_enabled() {
        console.say("nvactl.service is not enabled");
        console.note("to save the loaded rules and enable the unit: sudo nvactl boot enable");
        return Ok(Exit::Done);
    }
    console.say(format_args!(
        "unit    enabled, {}",
        boot_unit::activity().as_str()
    ));
    let Some(state) = on.known_state()? else {
        console.warn("no rules are saved; to save the loaded rules: sudo nvactl boot enable");
        return Ok(Exit::Differs);
    };
    let saved = state.saved();
    match &saved {
        Ok(Some(saved)) => console.say(format_args!("saved   {}", told(saved))),
        Ok(None) => {
            console.warn("no rules are saved; to save the loaded rules: sudo nvactl persist");
        }
        Err(error) => console.warn(format_args!("the saved state cannot be read: {error}")),
    }
    if let Ok(Some(booted)) = state.booted() {
        let brought = match booted.brought {
            Brought::Saved => "the saved rules",
            Brought::Left => "nothing: the rules were still as applied last",
            Brought::Before => "the rules saved before, because the saved rules did not load",
            Brought::Closed => {
                "only the FORWARD policy DROP, because no saved rules could be loaded"
            }
        };
        let why = booted.why.map(|why| format!(": {why}"));
        console.say(format_args!(
            "loaded  {}, {brought}{}",
            moment(booted.time),
            why.unwrap_or_default()
        ));
    }
    let (same, any) = now(&state, on, &saved)?;
    let fault = unit_fault(Some(&state));
    let holds_rules = matches!(&saved, Ok(Some(saved)) if saved.holds_rules());
    if let Some((words, fix)) = &fault {
        console.warn(format_args!("{words}; to fix it: {fix}"));
    } else if !any && holds_rules && last_loaded(&state)?.is_some_and(|last| last.is_removal()) {
        console.warn(REMOVED_COMES_BACK);
    } else if !any && holds_rules {
        console.warn(format_args!(
            "nvactl's rules are not loaded now; to load the saved rules: {}",
            boot_unit::RESTART
        ));
    } else if !same {
        console.warn("the loaded rules differ from the saved rules; to save the loaded rules: sudo nvactl persist");
    }
    Ok(if same && fault.is_none() {
        Exit::Done
    } else {
        Exit::Differs
    })
}

/// Describes the saved state.
fn told(saved: &SavedState) -> String {
    if !saved.holds_rules() {
        return format!("{}, no rules: they were removed", moment(saved.time));
    }
    let spec = saved.spec.as_ref().map(|spec| spec.name.as_str());
    let families = match saved.v6 {
        Some(_) => "IPv4 and IPv6",
        None => "IPv4",
    };
    let forwards = if saved.forwards { "on" } else { "off" };
    format!(
        "{}, the rules of {}, {families}, for iptables-{}, with forwarding {forwards}",
        moment(saved.time),
        spec.unwrap_or("an unknown spec"),
        saved.backend
    )
}

/// Returns whether the loaded rules are the saved ones, and whether any rule of nvactl is loaded.
fn now(
    state: &State,
    on: HostAccess<'_>,
    saved: &Result<Option<SavedState>, StateError>,
) -> Result<(bool, bool)> {
    let mut iptables = on.iptables(READ_WAIT);
    if let Ok(Some(saved)) = saved {
        iptables.backend = saved.backend;
    }
    let listing = iptables.start_listing(families(None, Some(state)))?;
    let (live, _) = listing.finish_readable(false)?;
    let same =
        |(family, live): (_, &Live)| compared(saved, family, &live.ruleset) == RulesFile::Same;
    let any = live.values().any(|live| live.ruleset.holds_own());
    Ok((live.iter().all(same), any))
}

fn test(on: HostAccess<'_>, console: &mut Console) -> Result<Exit> {
    let saved = boot::rehearse(&on.machine(READ_WAIT)?)?;
    console.say(format_args!("the saved rules load: {}", told(&saved)));
    match boot_unit::verify() {
        _ if !boot_unit::is_enabled() => {
            console.warn("nvactl.service is not enabled; to enable it: sudo nvactl boot enable");
            return Ok(Exit::Differs);
        }
        None => console.note("systemd-analyze is not installed, so the unit is not verified"),
        Some(Ok(())) => console.say("systemd-analyze verify: nvactl.service is valid"),
        Some(Err(words)) => {
            console.warn(format_args!(
                "systemd-analyze verify nvactl.service: {words}"
            ));
            return Ok(Exit::Differs);
        }
    }
    Ok(Exit::Done)
}

/// Prints the result of the unit's run, on one line for the journal.
fn say_loaded(loaded: BootLoad, console: &mut Console) -> Exit {
    console.remarks(&loaded.remarks);
    let why = loaded.why.unwrap_or_default();
    match loaded.brought {
        Brought::Left => {
            console.say("nvactl's rules are still as applied last, so nothing was loaded");
            Exit::Done
        }
        Brought::Saved => {
            console.say("the saved rules are loaded");
            Exit::Done
        }
        Brought::Before => {
            console.warn(format_args!(
                "the saved rules did not load, so the rules saved before them were loaded: {why}"
            ));
            Exit::Done
        }
        Brought::Closed => {
            console.error(format_args!(
                "no saved rules could be loaded, so the FORWARD policy is DROP and no connection is forwarded: {why}"
            ));
            console.tell("hint: to load and save the rules again: sudo nvactl apply && sudo nvactl persist\n");
            Exit::Uncertain
        }
    }
}
