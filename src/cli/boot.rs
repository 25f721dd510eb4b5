//! The commands for the next boot.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::values::{LockTimeout, family};
use crate::net::Family;

#[derive(Debug, Subcommand)]
pub enum Sysctl {
    /// Show the current value, interfaces that differ from it, and the files that set it at boot.
    #[command(after_help = "Example:\n  nvactl sysctl status")]
    Status(Ipv6),
    /// Turn forwarding on.
    ///
    /// With IPv6 forwarding on, the kernel accepts no router advertisements and drops the routes that it has
    /// from them, unless `accept_ra` is 2 on their interface.
    #[command(after_help = "\
Examples:
  sudo nvactl sysctl enable --persist
  sudo nvactl sysctl enable --liberal --persist")]
    Enable(EnableSysctl),
    /// Turn forwarding off.
    ///
    /// --persist removes the line from /etc/sysctl.d/99-nvactl.conf, and the file with its last line about
    /// forwarding.
    #[command(after_help = "Example:\n  sudo nvactl sysctl disable")]
    Disable(SetSysctl),
}

#[derive(Debug, Args)]
pub struct EnableSysctl {
    #[command(flatten)]
    pub set: SetSysctl,

    /// Set `net.netfilter.nf_conntrack_tcp_be_liberal` too: the kernel then also translates TCP packets
    /// outside of their connection's window, so this machine does not reset the connection.
    #[arg(long)]
    pub liberal: bool,
}

#[derive(Debug, Args)]
pub struct SetSysctl {
    /// Change /etc/sysctl.d/99-nvactl.conf too, for the next boot.
    #[arg(long)]
    pub persist: bool,

    #[command(flatten)]
    pub ipv6: Ipv6,
}

#[derive(Debug, Args)]
pub struct Ipv6 {
    /// IPv6 too, even if nvactl has no IPv6 rules.
    #[arg(long)]
    pub ipv6: bool,
}

#[derive(Debug, Subcommand)]
pub enum BootAction {
    /// Save the loaded rules, and enable the unit.
    ///
    /// Shows nvactl's lines in the rules files that other programs load at boot, and removes these lines.
    #[command(after_help = "Example:\n  sudo nvactl boot enable")]
    Enable(LockTimeout),
    /// Disable the unit; the loaded rules stay until the next boot.
    #[command(after_help = "Example:\n  sudo nvactl boot disable")]
    Disable(LockTimeout),
    /// Show the unit, the saved rules, and the unit's last run.
    #[command(after_help = "\
Example:
  sudo nvactl boot status

Exit codes: 0 in order, or not enabled; 1 the next boot loads other rules; 2 an error.")]
    Status,
    /// Load the saved rules in an empty network namespace, and verify the unit.
    #[command(after_help = "\
Example:
  sudo nvactl boot test

Exit codes: 0 the saved rules load; 1 the unit is not enabled or not valid; 2 no rules are saved, or they do
not load.")]
    Test,
    /// Load the saved rules, as the unit does.
    #[command(hide = true)]
    Load(LockTimeout),
}

#[derive(Debug, Args)]
pub struct Persist {
    /// Refuse unless the live rules match this spec: a file, a folder, or - for standard input.
    ///
    /// Without a spec, nothing is compared.
    pub spec: Option<PathBuf>,

    /// Save only this family's rules.
    #[arg(long, value_name = "v4|v6", value_parser = family)]
    pub family: Option<Family>,

    /// Write to FILE instead of the file that this distribution loads. Needs --family if rules of both families
    /// are loaded.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    #[command(flatten)]
    pub lock_timeout: LockTimeout,
}
