//! The commands for what the next boot brings.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::values::family;
use crate::net::Family;

#[derive(Debug, Subcommand)]
pub enum Sysctl {
    /// Show the running value, interfaces that contradict it, and the files that set it at boot.
    #[command(after_help = "Example:\n  nvactl sysctl status")]
    Status(Ipv6),
    /// Turn forwarding on.
    ///
    /// With IPv6 forwarding on, the kernel takes no more routes from advertisements of routers, and
    /// drops those it has, unless `accept_ra` is 2 on their interface.
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

    /// Set `net.netfilter.nf_conntrack_tcp_be_liberal` too: a TCP packet outside of its connection's
    /// window is translated as the others, and no reset of this machine's ends the connection.
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
    /// IPv6 too, even where no rules of nvactl's are known of.
    #[arg(long)]
    pub ipv6: bool,
}

#[derive(Debug, Subcommand)]
pub enum Boot {
    /// Save what is loaded, and enable the unit.
    ///
    /// Removes nvactl's lines from the rules files that something else loads, after it has shown them.
    #[command(after_help = "Example:\n  sudo nvactl boot enable")]
    Enable {
        /// How long to wait for another nvactl that is changing the rules.
        #[arg(long, value_name = "SECONDS", default_value_t = 30)]
        lock_timeout: u64,
    },
    /// Disable the unit; what is loaded stays until the next boot.
    #[command(after_help = "Example:\n  sudo nvactl boot disable")]
    Disable {
        /// How long to wait for another nvactl that is changing the rules.
        #[arg(long, value_name = "SECONDS", default_value_t = 30)]
        lock_timeout: u64,
    },
    /// Show the unit, what is saved, and what the unit did when it ran last.
    #[command(after_help = "\
Example:
  sudo nvactl boot status

Exit codes: 0 in order, or not enabled; 1 the next boot brings something else than what runs; 2 an error.")]
    Status,
    /// Load what is saved in an empty network namespace, and verify the unit.
    #[command(after_help = "\
Example:
  sudo nvactl boot test

Exit codes: 0 it would load; 1 the unit is not enabled or not valid; 2 nothing is saved, or it would not
load.")]
    Test,
    /// Load what is saved, as the unit does.
    #[command(hide = true)]
    Load {
        /// How long to wait for another nvactl that is changing the rules.
        #[arg(long, value_name = "SECONDS", default_value_t = 30)]
        lock_timeout: u64,
    },
}

#[derive(Debug, Args)]
pub struct Persist {
    /// Refuse unless the live rules are what this spec says: a file, a folder, or - for standard
    /// input.
    ///
    /// Left out, nothing is compared.
    pub spec: Option<PathBuf>,

    /// Keep only this family's rules.
    #[arg(long, value_name = "v4|v6", value_parser = family)]
    pub family: Option<Family>,

    /// Write to FILE instead of /etc/iptables/rules.v4 or rules.v6; takes --family where there are
    /// rules of both.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// How long to wait for another nvactl that is changing the rules.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub lock_timeout: u64,
}
