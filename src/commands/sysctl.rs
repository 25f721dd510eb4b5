//! `nvactl sysctl`: the kernel's IPv4 forwarding, now and at boot.

use std::path::Path;

use anyhow::Result;

use super::{Console, Exit, Host, READ_WAIT, confirm};
use crate::cli::Sysctl;
use crate::foreign;
use crate::host::{self, sysctl};
use crate::sysctl::Assignment;

pub fn run(action: &Sysctl, on: Host<'_>, console: &mut Console) -> Result<Exit> {
    match action {
        Sysctl::Status => status(console)?,
        Sysctl::Enable(args) => {
            host::require_root("sysctl enable")?;
            confirm::refuse_beside_a_change(&on.state()?)?;
            warn_if_open(on, console);
            set(true, args.persist, console)?;
        }
        Sysctl::Disable(args) => {
            host::require_root("sysctl disable")?;
            confirm::refuse_beside_a_change(&on.state()?)?;
            set(false, args.persist, console)?;
        }
    }
    Ok(Exit::Done)
}

fn status(console: &mut Console) -> Result<()> {
    let on = sysctl::ip_forward()?;
    console.say(format_args!("net.ipv4.ip_forward = {}", u8::from(on)));
    for name in sysctl::contradicting_interfaces()? {
        console.say(format_args!(
            "net.ipv4.conf.{name}.forwarding = {}",
            u8::from(!on)
        ));
    }
    let boot = sysctl::at_boot();
    console.say("at boot:");
    for path in &boot.unreadable {
        console.warn(format_args!(
            "{} cannot be read: run this as root",
            path.display()
        ));
    }
    let Some(winner) = boot.winner() else {
        console.say("  no file sets it: 0, the kernel's default");
        return Ok(());
    };
    for assignment in boot.all() {
        let wins = std::ptr::eq(assignment, winner);
        let mark = if wins { "  (read last: wins)" } else { "" };
        console.say(format_args!("  {}{mark}", spelled(assignment)));
    }
    if let Some(other) = boot.other_winner() {
        console.say(format_args!(
            "  where only drop-ins are read, as by systemd-sysctl, {} wins",
            other.file.display()
        ));
    }
    Ok(())
}

fn set(on: bool, persist: bool, console: &mut Console) -> Result<()> {
    sysctl::set_ip_forward(on)?;
    let value = u8::from(on);
    console.say(format_args!("net.ipv4.ip_forward = {value}"));
    for name in sysctl::contradicting_interfaces()? {
        console.warn(format_args!(
            "net.ipv4.conf.{name}.forwarding is {}; to change it: sysctl -w net.ipv4.conf.{}.forwarding={value}",
            u8::from(!on),
            // sysctl(8) takes a dot in a name as a slash.
            name.replace('.', "/")
        ));
    }
    if persist {
        sysctl::persist_ip_forward(on)?;
        console.say(format_args!("{}: written", sysctl::OWN_FILE));
    }
    warn_of_boot(on, console);
    Ok(())
}

/// Says when the next boot will end in another value.
fn warn_of_boot(on: bool, console: &mut Console) {
    let boot = sysctl::at_boot();
    let contrary = boot.winner().filter(|winner| winner.on != on);
    match contrary.or(boot.other_winner().filter(|winner| winner.on != on)) {
        Some(own) if own.file == Path::new(sysctl::OWN_FILE) => console.note(format_args!(
            "{} brings it back to {} at boot; `--persist` changes that too",
            spelled(own),
            u8::from(own.on)
        )),
        Some(other) => console.warn(format_args!(
            "{} wins at boot: then it is {}; remove or change that line",
            spelled(other),
            u8::from(other.on)
        )),
        None if on && boot.winner().is_none() => {
            console.note("this holds until the next boot; `--persist` keeps it");
        }
        None => {}
    }
}

/// A machine that forwards and whose FORWARD chain lets everything through is a router for anybody
/// who can reach it.
fn warn_if_open(on: Host<'_>, console: &mut Console) {
    match on.iptables(READ_WAIT).read() {
        Ok(live) if foreign::forwards_everything(&live.ruleset) => console.warn(
            "FORWARD lets everything through: this machine now routes for anybody who can reach it; \
             `nvactl apply` closes it but for the spec's forwards",
        ),
        Ok(_) => {}
        Err(error) => console.warn(format_args!(
            "whether FORWARD lets everything through is not known: {error}"
        )),
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
