//! `nvactl boot`: nvactl's own unit, which loads the saved rules at boot.

use super::console::Console;
use super::error::Result;
use super::exit::Exit;
use super::host::{Host, READ_WAIT};
use crate::cli::Boot;
use crate::health::rules_file::RulesFile;
use crate::host;
use crate::host::iptables::Live;
use crate::host::{boot_unit, persistence};
use crate::net::words::with_causes;
use crate::ops::boot::{self, BootLoad, Doubled};
use crate::ops::families;
use crate::ops::history::moment;
use crate::ops::next_boot::unit_fault;
use crate::ops::records::{Brought, Saved};
use crate::ops::saved::compared;
use crate::ops::state::{State, StateError};

/// How many lines of a rules file are shown.
const MOST_SHOWN: usize = 40;

pub fn run(action: &Boot, on: Host<'_>, console: &mut Console) -> Result<Exit> {
    match action {
        Boot::Enable { lock_timeout } => {
            host::require_root("boot enable")?;
            let doubled = boot::doubled()?;
            show(&doubled, console);
            let enabled = boot::enable(&on.machine(*lock_timeout)?, &doubled)?;
            console.remarks(&enabled.remarks);
            say_removed(&doubled, console);
            if let Some(error) = enabled.failed {
                console.error(with_causes(&error));
                console.tell("hint: sudo systemctl status nvactl\n");
                return Ok(Exit::Uncertain);
            }
            say_enabled(console);
            if !enabled.running {
                console.note("systemd does not run here: the unit runs at the next boot");
            }
            Ok(Exit::Done)
        }
        Boot::Disable { lock_timeout } => {
            host::require_root("boot disable")?;
            let was = boot::disable(&on.machine(*lock_timeout)?)?;
            if !was {
                console.say("nvactl.service was not enabled");
                return Ok(Exit::Done);
            }
            console.say("nvactl.service is disabled; what is loaded stays until the next boot");
            console.note(match persistence::manager() {
                None => "nothing brings nvactl's rules back then; `sudo nvactl persist` writes a rules file",
                Some(_) => "nothing brings nvactl's rules back then; `sudo nvactl boot enable` does",
            });
            Ok(Exit::Done)
        }
        Boot::Status => {
            host::require_root("boot status")?;
            status(on, console)
        }
        Boot::Test => {
            host::require_root("boot test")?;
            test(on, console)
        }
        Boot::Load { lock_timeout } => {
            host::require_root("boot load")?;
            Ok(say_loaded(
                boot::load(on.machine(*lock_timeout), &on.iptables(*lock_timeout))?,
                console,
            ))
        }
    }
}

/// Shows the lines that are to go from the rules files.
fn show(doubled: &[Doubled], console: &mut Console) {
    for Doubled { path, split } in doubled {
        let lines = &split.own;
        console.say(format_args!(
            "{}: these lines of nvactl's go, since its own unit loads them:",
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

fn say_removed(doubled: &[Doubled], console: &mut Console) {
    for Doubled { path, .. } in doubled {
        console.say(format_args!(
            "{0}: written without them; the old one is {0}.bak",
            path.display()
        ));
    }
}

fn say_enabled(console: &mut Console) {
    console.say(
        "nvactl.service is enabled: it loads what is loaded now at each boot, before the network",
    );
    console.note("`sudo nvactl persist` saves later changes");
}

fn status(on: Host<'_>, console: &mut Console) -> Result<Exit> {
    if !boot_unit::is_enabled() {
        console.say("nvactl.service is not enabled");
        console.note("`sudo nvactl boot enable` saves what is loaded now and enables the unit");
        return Ok(Exit::Done);
    }
    console.say(format_args!(
        "unit    enabled, {}",
        boot_unit::activity().as_str()
    ));
    let Some(state) = on.known_state()? else {
        console.warn("nothing is saved; `sudo nvactl boot enable` saves what is loaded");
        return Ok(Exit::Differs);
    };
    let saved = state.saved();
    match &saved {
        Ok(Some(saved)) => console.say(format_args!("saved   {}", told(saved))),
        Ok(None) => console.warn("nothing is saved; `sudo nvactl persist` saves what is loaded"),
        Err(error) => console.warn(format_args!("the saved state cannot be read: {error}")),
    }
    if let Ok(Some(booted)) = state.booted() {
        let brought = match booted.brought {
            Brought::Saved => "the saved rules",
            Brought::Left => "nothing: the rules were as they were applied last",
            Brought::Before => "the rules saved before, since the saved ones did not load",
            Brought::Closed => "FORWARD policy DROP alone, since no saved rules loaded",
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
    } else if !any && holds_rules {
        console.warn(format_args!(
            "nothing of nvactl's is loaded now; to load what is saved: {}",
            boot_unit::RESTART
        ));
    } else if !same {
        console.warn("what is loaded now is not what is saved; `sudo nvactl persist` saves it");
    }
    Ok(if same && fault.is_none() {
        Exit::Done
    } else {
        Exit::Differs
    })
}

/// Says what is saved.
fn told(saved: &Saved) -> String {
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
        spec.unwrap_or("a spec that was not kept"),
        saved.backend
    )
}

/// Whether what is loaded now is what is saved, and whether anything of nvactl's is loaded.
fn now(
    state: &State,
    on: Host<'_>,
    saved: &Result<Option<Saved>, StateError>,
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

fn test(on: Host<'_>, console: &mut Console) -> Result<Exit> {
    let saved = boot::rehearse(&on.machine(READ_WAIT)?)?;
    console.say(format_args!("the saved rules load: {}", told(&saved)));
    match boot_unit::verify() {
        _ if !boot_unit::is_enabled() => {
            console.warn("nvactl.service is not enabled; to enable it: sudo nvactl boot enable");
            return Ok(Exit::Differs);
        }
        None => console.note("systemd-analyze is not installed, so the unit is not verified"),
        Some(Ok(())) => console.say("systemd-analyze verify has nothing against nvactl.service"),
        Some(Err(words)) => {
            console.warn(format_args!(
                "systemd-analyze verify nvactl.service: {words}"
            ));
            return Ok(Exit::Differs);
        }
    }
    Ok(Exit::Done)
}

/// Says what the unit has done, on one line for the journal.
fn say_loaded(loaded: BootLoad, console: &mut Console) -> Exit {
    console.remarks(&loaded.remarks);
    let why = loaded.why.unwrap_or_default();
    match loaded.brought {
        Brought::Left => {
            console.say("nvactl's rules are as they were applied last, and stay");
            Exit::Done
        }
        Brought::Saved => {
            console.say("the saved rules are loaded");
            Exit::Done
        }
        Brought::Before => {
            console.warn(format_args!(
                "the saved rules do not load, so those saved before are loaded: {why}"
            ));
            Exit::Done
        }
        Brought::Closed => {
            console.error(format_args!(
                "no saved rules load, so the FORWARD policy is DROP and nothing is forwarded: {why}"
            ));
            console.tell("hint: sudo nvactl apply && sudo nvactl persist\n");
            Exit::Uncertain
        }
    }
}
