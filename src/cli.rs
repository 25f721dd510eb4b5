//! The command line, as types. The doc comments are the help text; parsing has no side effects.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
SPEC is a path, or - for standard input. Left out, it is $NVACTL_SPEC, else
./forward.yaml, else /etc/nvactl/forward.yaml.

Exit codes: 0 done, or nothing to do; 1 something would change (--dry-run);
2 an error, nothing was changed; 3 the host may not be as it was."
)]
pub struct Cli {
    /// Log on standard error what is run, with its arguments and time.
    #[arg(short, long, global = true)]
    pub verbose: bool,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say everything that is wrong with a spec.
    ///
    /// Silent when there is nothing. Needs neither root nor iptables.
    #[command(after_help = "Example:\n  nvactl check forward.yaml")]
    Check(Spec),
    /// Print the rule plan as iptables-restore text.
    ///
    /// The text is whole: loaded into empty tables, iptables-save prints the same lines. Needs
    /// neither root nor iptables.
    #[command(after_help = "\
Examples:
  nvactl render forward.yaml
  nvactl render forward.yaml -o /etc/iptables/rules.v4")]
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
    /// Take out everything that nvactl owns, and nothing else.
    ///
    /// The FORWARD policy stays as it is: opening a router silently would be worse than a
    /// connection that fails.
    #[command(after_help = "\
Examples:
  sudo nvactl remove --dry-run
  sudo nvactl remove --forward-policy accept")]
    Remove(Remove),
    /// Show or set the kernel's IPv4 forwarding.
    #[command(after_help = "\
Examples:
  nvactl sysctl status
  sudo nvactl sysctl enable --persist")]
    Sysctl {
        #[command(subcommand)]
        action: Sysctl,
    },
    /// Write the live IPv4 rules to the file that iptables-persistent loads at boot.
    ///
    /// Every table, other programs' rules included. The old file is kept beside it as .bak, and the
    /// new one replaces it only after iptables-restore has accepted it.
    #[command(after_help = "\
Examples:
  sudo nvactl persist forward.yaml
  sudo nvactl persist --own")]
    Persist(Persist),
}

#[derive(Debug, Args)]
pub struct Spec {
    /// The forward spec: a path, or - for standard input.
    pub spec: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Render {
    #[command(flatten)]
    pub spec: Spec,

    /// Write to FILE instead, atomically and with mode 0640.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Replace FILE even if it holds rules that are not nvactl's.
    #[arg(long, requires = "output")]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    pub spec: Spec,

    /// Print what would change, change nothing, and exit 1 if anything would.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct Remove {
    /// Print what would change, change nothing, and exit 1 if anything would.
    #[arg(long)]
    pub dry_run: bool,

    /// Set the FORWARD policy as well.
    #[arg(long, value_name = "POLICY")]
    pub forward_policy: Option<RemovedPolicy>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RemovedPolicy {
    /// Forward everything that no other rule drops.
    Accept,
}

#[derive(Debug, Subcommand)]
pub enum Sysctl {
    /// Show the running value, interfaces that contradict it, and the files that set it at boot.
    #[command(after_help = "Example:\n  nvactl sysctl status")]
    Status,
    /// Turn IPv4 forwarding on.
    #[command(after_help = "Example:\n  sudo nvactl sysctl enable --persist")]
    Enable(SetSysctl),
    /// Turn IPv4 forwarding off.
    #[command(after_help = "Example:\n  sudo nvactl sysctl disable")]
    Disable(SetSysctl),
}

#[derive(Debug, Args)]
pub struct SetSysctl {
    /// Keep it over a reboot, in /etc/sysctl.d/99-nvactl.conf.
    #[arg(long)]
    pub persist: bool,
}

#[derive(Debug, Args)]
pub struct Persist {
    /// Refuse unless the live rules are what this spec says: a path, or - for standard input.
    ///
    /// Left out, nothing is compared.
    pub spec: Option<PathBuf>,

    /// Write to FILE instead of /etc/iptables/rules.v4.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Put only nvactl's rules into the file, and leave its other lines alone.
    #[arg(long)]
    pub own: bool,
}
