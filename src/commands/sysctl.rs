//! `nvactl sysctl`: the kernel's switches, now and at boot.

use std::path::Path;

use super::console::Console;
use super::error::Result;
use super::exit::Exit;
use super::host::{HostAccess, READ_WAIT};
use crate::cli::{Ipv6, Sysctl};
use crate::health::foreign;
use crate::host::iptables::Live;
use crate::host::sysctl::settings::{Assignment, Switch};
use crate::host::sysctl::{Own, SysctlError};
use crate::host::{self, boot_unit, network, sysctl};
use crate::net::per_family::{Families, PerFamily};
use crate::net::words::with_causes;
use crate::net::{Family, Interface};
use crate::ops::state::State;
use crate::ops::waiting::refuse_beside_a_change;
use crate::ops::{families, next_boot};

pub fn run(action: &Sysctl, on: HostAccess<'_>, console: &mut Console) -> Result<Exit> {
    match action {
        Sysctl::Status(args) => {
            // If only root may read the folder, its records are unknown.
            let state = on.known_state().unwrap_or_default();
            for family in meant(args, state.as_ref()).as_slice() {
                let switch = Switch::Forwarding(*family);
                let by_unit = state
                    .as_ref()
                    .is_some_and(|state| next_boot::unit_sets(state, switch));
                status(switch, by_unit, console)?;
                if by_unit {
                    console.say(format_args!(
                        "  {}: 1  (after the files: wins)",
                        boot_unit::NAME
                    ));
                }
            }
            // The switch exists only after conntrack is loaded.
            if sysctl::has(Switch::Liberal) {
                status(Switch::Liberal, false, console)?;
            }
        }
        Sysctl::Enable(args) => {
            host::require_root("sysctl enable")?;
            let state = on.state()?;
            for notice in &state.notices {
                console.warn(notice);
            }
            refuse_beside_a_change(&state)?;
            let (persist, liberal) = (args.set.persist, args.liberal);
            let families = changed(&args.set.ipv6, &state, console);
            // The change drops their routes.
            let routers = match families {
                Families::Both if !sysctl::forwards(Family::V6)? => network::advertised(),
                _ => Vec::new(),
            };
            let lost = |name: &Interface| sysctl::accepts_routers_until_forwarding(name);
            let lost: Vec<Interface> = routers.into_iter().filter(lost).collect();
            let mut switches = forwarding(families);
            switches.extend(liberal.then_some(Switch::Liberal));
            let done = sysctl::change(&switches, true, persist);
            if done.is_ok() {
                warn_of_routers(&lost, console);
            }
            if let Ok(_) | Err(SysctlError::Part { .. }) = done {
                warn_if_open(on, families, console);
            }
            report(&switches, true, done?, console);
            if persist {
                note_if_lost(on, families, console);
            }
            if liberal && persist && !boot_unit::is_enabled() {
                console.note(format_args!(
                    "{} can be set at boot only after nf_conntrack is loaded; to have nvactl.service set it \
                     after its rules: sudo nvactl boot enable",
                    Switch::Liberal.key()
                ));
            }
        }
        Sysctl::Disable(args) => {
            host::require_root("sysctl disable")?;
            let state = on.state()?;
            for notice in &state.notices {
                console.warn(notice);
            }
            refuse_beside_a_change(&state)?;
            let switches = forwarding(changed(&args.ipv6, &state, console));
            let own = sysctl::change(&switches, false, args.persist)?;
            report(&switches, false, own, console);
            console.warn(
                "the kernel forwards nothing now, so all forwards stop; to turn it on: sudo nvactl sysctl enable",
            );
            warn_of_unit(&state, &switches, console);
        }
    }
    Ok(Exit::Done)
}

/// Returns the families: IPv6 if the options ask for it, or nvactl has loaded IPv6 rules here.
fn meant(args: &Ipv6, state: Option<&State>) -> Families {
    Families::with_v6(args.ipv6 || families(None, state) == Families::Both)
}

fn forwarding(families: Families) -> Vec<Switch> {
    let each = families.as_slice().iter();
    each.map(|family| Switch::Forwarding(*family)).collect()
}

/// Returns the families to change. Old IPv6 rules must not keep a machine without IPv6 from forwarding IPv4.
fn changed(args: &Ipv6, state: &State, console: &mut Console) -> Families {
    let families = meant(args, Some(state));
    let [v4, v6] = [Family::V4, Family::V6].map(Switch::Forwarding);
    if families == Families::Both && !args.ipv6 && !sysctl::has(v6) {
        console.warn(format_args!(
            "this kernel has no {}: only {} is set",
            v6.key(),
            v4.key()
        ));
        return Families::with_v6(false);
    }
    families
}

/// Prints the value of a switch and the files that set it at boot. `by_unit`: nvactl's unit sets it after them.
fn status(switch: Switch, by_unit: bool, console: &mut Console) -> Result<()> {
    let on = sysctl::value(switch)?;
    console.say(format_args!("{} = {}", switch.key(), u8::from(on)));
    if switch == Switch::Forwarding(Family::V4) {
        for name in sysctl::contradicting_interfaces()? {
            console.say(format_args!(
                "net.ipv4.conf.{name}.forwarding = {}",
                u8::from(!on)
            ));
        }
    }
    let boot = sysctl::at_boot(switch);
    console.say("at boot:");
    for path in &boot.unreadable {
        console.warn(format_args!(
            "{} cannot be read: run this as root",
            path.display()
        ));
    }
    let winner = boot.winner();
    if winner.is_none() && !by_unit {
        console.say("  no file sets it: 0, the kernel's default");
    }
    for assignment in boot.all() {
        let wins = winner.is_some_and(|winner| std::ptr::eq(assignment, winner));
        let mark = match (wins, by_unit) {
            (true, false) => "  (read last: wins)",
            (true, true) => "  (read last)",
            (false, _) => "",
        };
        console.say(format_args!("  {}{mark}", spelled(assignment)));
    }
    if let Some(other) = boot.other_winner() {
        console.say(format_args!(
            "  {}  (not read at boot: systemd-sysctl reads drop-ins only; `sysctl --system` reads it)",
            spelled(other)
        ));
    }
    Ok(())
}

/// Prints the new values, and other settings that contradict them.
fn report(switches: &[Switch], on: bool, own: Own, console: &mut Console) {
    let value = u8::from(on);
    for switch in switches {
        // A switch that is only set for the next boot may not exist yet.
        if sysctl::has(*switch) {
            console.say(format_args!("{} = {value}", switch.key()));
        }
    }
    match own {
        Own::Untouched => {}
        Own::Written => console.say(format_args!("{}: written", sysctl::OWN_FILE)),
        Own::Removed => console.say(format_args!("{}: removed", sysctl::OWN_FILE)),
    }
    let contradicting = sysctl::contradicting_interfaces().unwrap_or_else(|error| {
        console.warn(format_args!(
            "the values of the interfaces could not be read: {}",
            with_causes(&error)
        ));
        Vec::new()
    });
    for name in contradicting {
        console.warn(format_args!(
            "net.ipv4.conf.{name}.forwarding is {}; to change it: sudo sysctl -w net.ipv4.conf.{}.forwarding={value}",
            u8::from(!on),
            sysctl::part_of_key(&name)
        ));
    }
    for switch in switches {
        warn_of_boot(*switch, on, console);
    }
}

/// Warns that nvactl's own unit turns forwarding on again, as when the rules were saved.
fn warn_of_unit(state: &State, switches: &[Switch], console: &mut Console) {
    for switch in switches {
        if next_boot::unit_sets(state, *switch) {
            console.warn(format_args!(
                "{} turns {} on again at boot and whenever it loads the saved rules; to save the current value: \
                 sudo nvactl persist",
                boot_unit::NAME,
                switch.key()
            ));
        }
    }
}

/// Warns if the next boot sets another value.
fn warn_of_boot(switch: Switch, on: bool, console: &mut Console) {
    let boot = sysctl::at_boot(switch);
    let contrary = boot.winner().filter(|winner| winner.on != on);
    match contrary {
        Some(own) if own.file == Path::new(sysctl::OWN_FILE) => console.note(format_args!(
            "{} sets it back to {} at boot; to change that line too, add: --persist",
            spelled(own),
            u8::from(own.on)
        )),
        Some(other) => console.warn(format_args!(
            "{} wins at boot, so it will be {} then; remove or change that line",
            spelled(other),
            u8::from(other.on)
        )),
        None if on && boot.winner().is_none() => console.note(format_args!(
            "{} = 1 is lost at the next boot; to keep it, add: --persist",
            switch.key()
        )),
        None => {}
    }
    if let Some(other) = boot.other_winner().filter(|other| other.on != on) {
        console.warn(format_args!(
            "{} wins if `sysctl --system` is run later, so it will be {} then; remove or change that line",
            spelled(other),
            u8::from(other.on)
        ));
    }
}

/// Warns of lost routes: a machine that forwards IPv6 is a router and accepts no routes from others. The
/// kernel drops the routes that it has from router advertisements, the default route too
/// (`addrconf_forward_change` and `rt6_purge_dflt_routers` in net/ipv6).
fn warn_of_routers(lost: &[Interface], console: &mut Console) {
    for interface in lost {
        let name = sysctl::part_of_key(interface.as_str());
        console.warn(format_args!(
            "the IPv6 default route through {interface} came from a router advertisement and is gone now, \
             because the kernel accepts none while it forwards\n  \
             to accept them at boot, write in a file beside {}: net.ipv6.conf.{name}.accept_ra = 2\n  \
             to accept the next one: sudo sysctl -w net.ipv6.conf.{name}.accept_ra=2",
            sysctl::OWN_FILE
        ));
    }
}

/// Warns if the machine forwards and its FORWARD chain accepts everything: then it is a router for anybody
/// who can reach it.
fn warn_if_open(on: HostAccess<'_>, families: Families, console: &mut Console) {
    let open = |live: &PerFamily<Live>| {
        let mut each = live.iter();
        each.any(|(_, live)| foreign::forwards_everything(&live.ruleset))
    };
    match on.iptables(READ_WAIT).read_all(families) {
        Ok(live) if open(&live) => console.warn(
            "FORWARD accepts everything, so this machine now routes for anybody who can reach it; \
             to let only the spec's forwards through: sudo nvactl apply",
        ),
        Ok(_) => {}
        Err(error) => console.warn(format_args!(
            "the FORWARD chain could not be read, so it may accept everything: {}",
            with_causes(&error)
        )),
    }
}

/// Notes that the next boot forwards, and loads none of the rules that nvactl has loaded.
fn note_if_lost(on: HostAccess<'_>, families: Families, console: &mut Console) {
    let Some(fix) = next_boot::fix_if_lost() else {
        return;
    };
    // Whether they could be read is reported with the FORWARD chain.
    let live = on.iptables(READ_WAIT).read_all(families);
    if live.is_ok_and(|live| live.values().any(|live| live.ruleset.holds_own())) {
        console.note(format_args!(
            "the next boot forwards without nvactl's rules; to keep them once they work: {fix}"
        ));
    }
}

fn spelled(assignment: &Assignment) -> String {
    format!(
        "{}:{}: {} = {}",
        assignment.file.display(),
        assignment.line,
        assignment.key,
        u8::from(assignment.on)
    )
}
