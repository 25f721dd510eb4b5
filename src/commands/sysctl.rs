//! `nvactl sysctl`: the kernel's IPv4 forwarding, now and at boot.

use anyhow::Result;

use super::{Console, Exit};
use crate::cli::Sysctl;
use crate::foreign;
use crate::host::{self, iptables, sysctl};
use crate::sysctl::Assignment;

pub fn run(action: &Sysctl, console: &mut Console) -> Result<Exit> {
    match action {
        Sysctl::Status => status(console)?,
        Sysctl::Enable(args) => {
            host::require_root("sysctl enable")?;
            warn_if_open(console)?;
            set(true, args.persist, console)?;
        }
        Sysctl::Disable(args) => {
            host::require_root("sysctl disable")?;
            set(false, args.persist, console)?;
        }
    }
    Ok(Exit::Done)
}

fn status(console: &mut Console) -> Result<()> {
    let on = sysctl::ip_forward()?;
    writeln!(console.out, "net.ipv4.ip_forward = {}", u8::from(on))?;
    for name in sysctl::contradicting_interfaces()? {
        writeln!(
            console.out,
            "net.ipv4.conf.{name}.forwarding = {}",
            u8::from(!on)
        )?;
    }
    let assignments = sysctl::boot_assignments()?;
    writeln!(console.out, "at boot:")?;
    let Some((last, before)) = assignments.split_last() else {
        writeln!(console.out, "  no file sets it: 0, the kernel's default")?;
        return Ok(());
    };
    for assignment in before {
        writeln!(console.out, "  {}", spelled(assignment))?;
    }
    writeln!(console.out, "  {}  (read last: wins)", spelled(last))?;
    Ok(())
}

fn set(on: bool, persist: bool, console: &mut Console) -> Result<()> {
    if persist {
        sysctl::persist_ip_forward(on)?;
        writeln!(console.out, "{}: written", sysctl::OWN_FILE)?;
    }
    sysctl::set_ip_forward(on)?;
    let value = u8::from(on);
    writeln!(console.out, "net.ipv4.ip_forward = {value}")?;
    for name in sysctl::contradicting_interfaces()? {
        console.warn(format_args!(
            "net.ipv4.conf.{name}.forwarding is {}; to change it: sysctl -w net.ipv4.conf.{}.forwarding={value}",
            u8::from(!on),
            name.replace('.', "/")
        ))?;
    }
    let last = sysctl::boot_assignments()?.pop();
    match last {
        Some(last) if last.on != on => console.warn(format_args!(
            "{} wins at boot: then it is {}; remove or change that line",
            spelled(&last),
            u8::from(!on)
        ))?,
        None if on => console.note("this holds until the next boot; `--persist` keeps it")?,
        _ => {}
    }
    Ok(())
}

/// A machine that forwards and whose FORWARD chain lets everything through is a router for anybody
/// who can reach it.
fn warn_if_open(console: &mut Console) -> Result<()> {
    match iptables::read() {
        Ok(live) if foreign::forwards_everything(&live.ruleset) => console.warn(
            "FORWARD lets everything through: this machine now routes for anybody who can reach it; \
             `nvactl apply` closes it but for the spec's forwards",
        )?,
        Ok(_) => {}
        Err(error) => console.warn(format_args!(
            "whether FORWARD lets everything through is not known: {error}"
        ))?,
    }
    Ok(())
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
