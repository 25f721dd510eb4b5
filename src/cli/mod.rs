//! The command line, as types. The doc comments are the help text; parsing has no side effects.
//!
//! Each group of commands has a file: `plan` reads a spec and changes nothing, `change` changes the
//! rules, `health` reports, `boot` is about the next boot. Values that several take are in `values`.
//!
//! The room must not know how a command works.
//!
//! Start here: a new option is a field in the file of its group, and its use in the file of the same
//! command under `commands`.

mod boot;
mod change;
mod health;
mod plan;
mod values;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub use boot::{Boot, EnableSysctl, Ipv6, Persist, SetSysctl, Sysctl};
pub use change::{Apply, ApplyFormat, Confirm, Remove, RemovedPolicy, Rollback};
pub use health::{Doctor, DoctorFormat, Probe, ProbeFormat, Status, StatusFormat};
pub use plan::{
    Against, Check, CheckFormat, Deny, DenyError, Diff, DiffFormat, Explain, ExplainFormat, Render,
};
pub use values::Spec;

use crate::netfilter::backend::Backend;

/// Port forwarding for a Linux VM that stands as a firewall in front of a private network.
///
/// One YAML file says what is forwarded where. nvactl compiles it into an ordered iptables rule
/// plan, prints it, loads it, takes it out again, and keeps it over a reboot. It owns the chains
/// named NVACTL-..., one jump to each, and the FORWARD policy; it touches no other rule.
#[derive(Debug, Parser)]
#[command(
    name = "nvactl",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
SPEC is a file, a folder whose *.yaml files are one spec, or - for standard input.
Left out, it is $NVACTL_SPEC, else ./forward.yaml, else /etc/nvactl/forward.yaml,
else the folder /etc/nvactl/forward.d.

Exit codes: 0 done, or nothing to do; 1 it differs, or would change; 2 an error,
nothing was changed; 3 the host may not be as it was."
)]
pub struct Cli {
    /// Log on standard error what is run, with its arguments and time.
    #[arg(short, long, global = true)]
    pub verbose: bool,

    /// Where the lock and the history are [default: `$NVACTL_STATE_DIR`, else /var/lib/nvactl].
    #[arg(long, global = true, value_name = "FOLDER")]
    pub state_dir: Option<PathBuf>,

    /// Which iptables to call: nft, legacy, or auto for what the plain names on PATH are.
    #[arg(long, global = true, default_value = "auto", value_name = "BACKEND")]
    pub backend: Backend,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say everything that is wrong with a spec.
    ///
    /// Silent when there is nothing. Needs neither root nor iptables.
    #[command(after_help = "\
Examples:
  nvactl check forward.yaml
  nvactl check forward.yaml --deny all --format github
  nvactl check --list

Exit codes: 0 sound; 1 a denied warning; 2 an error.")]
    Check(Check),
    /// Print the rule plan as iptables-restore text.
    ///
    /// The text is whole: loaded into empty tables, iptables-save prints the same lines. Needs
    /// neither root nor iptables.
    #[command(after_help = "\
Examples:
  nvactl render forward.yaml
  nvactl render forward.yaml -o /etc/iptables/rules.v4
  nvactl render forward.yaml --family v6 -o /etc/iptables/rules.v6")]
    Render(Render),
    /// Load the plan into the kernel, beside the rules of others.
    ///
    /// Only what differs is written; applied twice, the second time writes nothing. What cannot be
    /// loaded is undone.
    #[command(after_help = "\
Examples:
  sudo nvactl apply forward.yaml --dry-run
  sudo nvactl apply forward.yaml
  ssh fw sudo nvactl apply - < forward.yaml")]
    Apply(Apply),
    /// Say what a spec would change, by forward.
    ///
    /// Compares with the live rules, which takes root, or with a file: another spec, or
    /// iptables-save text such as a rules.v4. Rules of others do not count.
    #[command(after_help = "\
Examples:
  sudo nvactl diff forward.yaml
  nvactl diff forward.yaml --against /etc/iptables/rules.v4 --rules
  nvactl diff forward.yaml --against old.yaml --format markdown

Exit codes: 0 the same; 1 different; 2 an error.")]
    Diff(Diff),
    /// Explain each rule of the plan in plain words, in the order of a packet's way.
    #[command(after_help = "\
Examples:
  nvactl explain forward.yaml
  nvactl explain forward.yaml --forward web --format markdown")]
    Explain(Explain),
    /// Take out everything that nvactl owns, and nothing else.
    ///
    /// The FORWARD policy stays as it is: opening a router silently would be worse than a
    /// connection that fails.
    #[command(after_help = "\
Examples:
  sudo nvactl remove --dry-run
  sudo nvactl remove --forward-policy accept")]
    Remove(Remove),
    /// Keep a change that was applied with --confirm, or undo it at once.
    #[command(after_help = "\
Examples:
  sudo nvactl apply forward.yaml --confirm 60
  sudo nvactl confirm
  ssh -t -S none fw sudo nvactl confirm --new-session
  sudo nvactl confirm --status")]
    Confirm(Confirm),
    /// Undo a change when its time is up.
    #[command(hide = true)]
    Watchdog { id: String },
    /// List the changes made so far, the newest first, with what became of them.
    ///
    /// Each keeps its number, which rollback takes.
    #[command(after_help = "Example:\n  sudo nvactl history")]
    History,
    /// Go back to what was loaded before a change.
    ///
    /// The default is the last one that was not undone: a second rollback goes a step further
    /// back. It is a change of its own, which can be rolled back by its number.
    #[command(after_help = "\
Examples:
  sudo nvactl rollback --dry-run
  sudo nvactl rollback 3")]
    Rollback(Rollback),
    /// Say how each forward stands: its rules, and what came through.
    ///
    /// Rules of others before nvactl's jumps are counted; `nvactl doctor` reports what they do to
    /// packets.
    ///
    /// NEW counts connections and BYTES their first packets, by the rules' own counters, since the
    /// forward's rules were loaded. LIVE counts the connections that the kernel tracks now.
    #[command(after_help = "\
Examples:
  sudo nvactl status forward.yaml
  sudo nvactl status --check
  sudo nvactl status --format prometheus > /var/lib/node_exporter/nvactl.prom

Exit codes: 0 told; 1 with --check, it is not in sync; 2 an error.")]
    Status(Status),
    /// Find out why a forward does not work: try its connections in a copy of this machine, and name the first hop that fails.
    ///
    /// Connects to the targets, and changes nothing.
    #[command(after_help = "\
Examples:
  sudo nvactl doctor forward.yaml
  sudo nvactl doctor --forward web
  sudo nvactl doctor --format json

Exit codes: 0 nothing failed, `unknown` included, which cannot be told from here; 1 something failed; 2 an error.")]
    Doctor(Doctor),
    /// Connect to every target, or through the firewall to every listen port.
    ///
    /// On the firewall, to the targets, from the SNAT address. With --via, from anywhere. Of a udp
    /// port that does not answer nothing is known, unless somebody refuses.
    #[command(after_help = "\
Examples:
  nvactl probe forward.yaml
  nvactl probe forward.yaml --via 203.0.113.7 --expect 'http 200' --count 3

Exit codes: 0 nothing speaks against any; 1 some are refused, silent or not as expected; 2 an error.")]
    Probe(Probe),
    /// Show or set the kernel's forwarding: IPv4, and IPv6 where nvactl has rules of it.
    #[command(after_help = "\
Examples:
  nvactl sysctl status
  sudo nvactl sysctl enable --persist
  sudo nvactl sysctl enable --ipv6")]
    Sysctl {
        #[command(subcommand)]
        action: Sysctl,
    },
    /// Bring nvactl's rules back at boot by a systemd unit of its own.
    ///
    /// The unit loads the saved state: nvactl's rules as they were loaded when `boot enable` or `persist`
    /// saved them. It loads them again after a restart or reload of ufw, nftables or netfilter-persistent,
    /// which flush them.
    #[command(after_help = "\
Examples:
  sudo nvactl boot enable
  sudo nvactl boot test
  sudo nvactl boot status")]
    Boot {
        #[command(subcommand)]
        action: Boot,
    },
    /// Save the live rules for the next boot.
    ///
    /// With the boot unit enabled, nvactl's own rules into the saved state. Else into the file that this
    /// distribution loads: every table, other programs' rules included; IPv6 where nvactl has rules of it. The old file is
    /// kept beside it as .bak. The new one replaces it only after iptables-restore has loaded it in an
    /// empty network namespace, as the boot loads it.
    #[command(after_help = "\
Examples:
  sudo nvactl persist forward.yaml
  sudo nvactl persist --family v4 --output rules.v4")]
    Persist(Persist),
}
