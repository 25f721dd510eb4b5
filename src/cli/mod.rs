//! The command line, as types. The doc comments are the help text; parsing has no side effects.
//!
//! Each group of commands has a file: `plan` reads a spec and changes nothing, `change` changes the rules,
//! `health` reports, `proof` tries rules in a copy, `boot` is about the next boot, `shells` prints what shells and `man`
//! read. `values` holds the values of several groups. `completion` finds the words that may follow, and `misnamed` the
//! command that a wrong word stands for.
//!
//! The room must not know how a command works.
//!
//! Start here: a new option is a field in the file of its group, and its use in the file of the same
//! command under `commands`.

mod boot;
mod change;
mod completion;
mod health;
mod import;
mod misnamed;
mod plan;
mod proof;
mod shells;
mod values;
mod version;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub use boot::{BootAction, EnableSysctl, Ipv6, Persist, SetSysctl, Sysctl};
pub use change::{Apply, ApplyFormat, Confirm, Remove, RemovedPolicy, Rollback};
pub use completion::{Completion, OfferedWord, PathKind, SpecNames, complete};
pub use health::{Doctor, DoctorFormat, Probe, ProbeFormat, StatusArgs, StatusFormat};
pub use import::{ImportArgs, ImportFormat, InitArgs};
pub use misnamed::{MEANT, meant};
pub use plan::{
    Against, CheckArgs, CheckFormat, Deny, DenyError, Diff, DiffFormat, Explain, ExplainFormat,
    Render,
};
pub use proof::{ClientArg, DestinationArg, TestArgs, TestFormat, TraceArgs, TraceFormat};
pub use shells::{CompleteArgs, CompletionsArgs, Shell};
pub use values::SpecArg;
pub use version::VERSION;

use crate::netfilter::backend::Backend;

/// Port forwarding for a Linux VM that is the firewall of a private network.
///
/// One YAML file lists the forwards, and the networks that may open connections outward. nvactl compiles the
/// file into an ordered iptables rule plan, prints the plan, loads it, removes it, and keeps it over a reboot.
/// nvactl owns the chains named NVACTL-..., one jump to each, and the FORWARD policy; it touches no other rule.
#[derive(Debug, Parser)]
#[command(
    name = "nvactl",
    version = VERSION,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
SPEC is a file, a folder whose *.yaml files are one spec, or - for standard input.
The default is $NVACTL_SPEC, else ./forward.yaml, else /etc/nvactl/forward.yaml,
else the folder /etc/nvactl/forward.d. status and doctor take the spec that was
applied last before those files.

Exit codes: 0 done, or nothing to do; 1 a difference was found, or something would
change; 2 an error, nothing was changed; 3 the host may have been changed."
)]
pub struct Cli {
    /// Log each program that is run on standard error, with its arguments and time.
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub verbose: bool,

    /// Folder of the lock and the history [default: `$NVACTL_STATE_DIR`, else /var/lib/nvactl].
    #[arg(
        long,
        global = true,
        value_name = "FOLDER",
        help_heading = "Global options"
    )]
    pub state_dir: Option<PathBuf>,

    /// The iptables to call; auto is that of the plain names on PATH.
    #[arg(
        long,
        global = true,
        default_value = "auto",
        value_name = "nft|legacy|auto",
        help_heading = "Global options"
    )]
    pub backend: Backend,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a spec and report every problem.
    ///
    /// Prints nothing for a valid spec. Needs neither root nor iptables.
    #[command(after_help = "\
Examples:
  nvactl check forward.yaml
  nvactl check forward.yaml --deny all --format github
  kubectl get services,pods --all-namespaces -o json | nvactl check forward.yaml --kubernetes -
  nvactl check --list

Exit codes: 0 valid; 1 a denied warning; 2 an error.")]
    Check(CheckArgs),
    /// Print the rule plan as iptables-restore text.
    ///
    /// The text is complete: loaded into empty tables, iptables-save prints the same lines. Needs
    /// neither root nor iptables.
    #[command(after_help = "\
Examples:
  nvactl render forward.yaml
  nvactl render forward.yaml --family v6 -o rules.v6
  sudo nvactl render forward.yaml -o /etc/iptables/rules.v4")]
    Render(Render),
    /// Load the plan into the kernel, beside other programs' rules.
    ///
    /// Writes only the differences; a second apply writes nothing. Tries the change in a copy of this
    /// machine first. Undoes a change that cannot be loaded.
    #[command(after_help = "\
Examples:
  sudo nvactl apply forward.yaml --dry-run
  sudo nvactl apply forward.yaml
  ssh fw sudo nvactl apply - < forward.yaml")]
    Apply(Apply),
    /// Show what a spec would change, by forward.
    ///
    /// Compares with the live rules, which needs root, or with a file: another spec, or iptables-save text
    /// such as a rules.v4, which may hold both families. Ignores other programs' rules.
    #[command(after_help = "\
Examples:
  sudo nvactl diff forward.yaml
  nvactl diff forward.yaml --against rules.v4 --rules
  nvactl diff forward.yaml --against old.yaml --format markdown
  ssh fw 'sudo iptables-save && sudo ip6tables-save' | nvactl diff forward.yaml --against -

Exit codes: 0 the same; 1 different; 2 an error.")]
    Diff(Diff),
    /// Explain each rule of the plan in plain words, in the order of a packet's path.
    #[command(after_help = "\
Examples:
  nvactl explain forward.yaml
  nvactl explain forward.yaml --forward web --format markdown")]
    Explain(Explain),
    /// Write a spec from iptables rules that exist already.
    ///
    /// Each rule is accounted for: taken over, not needed, left alone, or without words in a spec. Then connections are
    /// opened through a copy with the old rules and one with the spec, and differences are named. Changes no rule.
    #[command(after_help = "\
Examples:
  sudo nvactl import live -o forward.yaml
  nvactl import rules.v4 -o forward.yaml
  nvactl import commands.sh --strict --format json
  kubectl get services --all-namespaces -o json | nvactl import --kubernetes - -o forward.yaml

Exit codes: 0 done; 1 --strict, and a difference that no remark explains or a connection that was not compared; 2 an error.")]
    Import(ImportArgs),
    /// Write a first spec for this machine.
    ///
    /// Looks at the interfaces, addresses, routes and listening ports. The spec has no forward yet, and an example as a
    /// comment. Changes no rule. With root it also looks for rules that forward already, which import takes over.
    #[command(after_help = "\
Examples:
  sudo nvactl init -o forward.yaml
  nvactl init")]
    Init(InitArgs),
    /// Print the JSON Schema of a spec, for editors.
    ///
    /// An editor with a YAML language server then completes keys, explains them, and marks mistakes as they are typed. The
    /// first line of the spec names the file: `# yaml-language-server: $schema=forward.schema.json`. `nvactl check` finds
    /// more: it compares entries.
    #[command(after_help = "Example:\n  nvactl schema > forward.schema.json")]
    Schema,
    /// Open the connections of a spec's tests in a copy of a machine, where the kernel answers.
    ///
    /// The machine is made up from the spec, so that a pipeline can ask before anything is loaded. Needs iptables and
    /// iproute2; without root it makes a user namespace.
    #[command(after_help = "\
Examples:
  nvactl test --suggest forward.yaml >> forward.yaml
  nvactl test forward.yaml
  nvactl test forward.yaml --format junit > report.xml
  sudo nvactl test forward.yaml --live

Exit codes: 0 every test passed; 1 some did not; 2 an error.")]
    Test(TestArgs),
    /// Remove everything that nvactl owns, and nothing else.
    ///
    /// Leaves the FORWARD policy as it is: a router that opens silently is worse than a connection that
    /// fails.
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
    /// List the changes made so far, the newest first, and whether each was kept.
    ///
    /// A change keeps its number, which rollback takes.
    #[command(after_help = "Example:\n  sudo nvactl history")]
    History,
    /// Load the rules that were loaded before a change.
    ///
    /// The default is the last change that was not undone: a second rollback goes one step further back. A
    /// change that only repaired the rules is skipped. A rollback is a change too, and rolling back its number
    /// reverts it.
    #[command(after_help = "\
Examples:
  sudo nvactl rollback --dry-run
  sudo nvactl rollback 3")]
    Rollback(Rollback),
    /// Show the state of each forward: its rules and its connections.
    ///
    /// Counts other programs' rules before nvactl's jumps. `nvactl doctor` reports what those rules do to
    /// packets.
    ///
    /// NEW counts connections, and BYTES the bytes of their first packets, by the rules' own counters since
    /// the forward's rules were loaded. LIVE counts the connections that the kernel tracks now.
    #[command(after_help = "\
Examples:
  sudo nvactl status forward.yaml
  sudo nvactl status --check
  sudo nvactl status --format prometheus

Exit codes: 0 reported; 1 with --check, not in sync; 2 an error.")]
    Status(StatusArgs),
    /// Find out why a forward does not work, and name the first hop that fails.
    ///
    /// Opens the forward's connections in a copy of this machine, connects to the live targets, and changes
    /// nothing.
    #[command(after_help = "\
Examples:
  sudo nvactl doctor forward.yaml
  sudo nvactl doctor --forward web
  sudo nvactl doctor --format json

Exit codes: 0 nothing failed, although some checks may be unknown; 1 something failed; 2 an error.")]
    Doctor(Doctor),
    /// Connect to every target, or through the firewall to every listen port.
    ///
    /// On the firewall it connects to the targets from the SNAT address; with --via it connects from
    /// anywhere to the listen ports. A UDP port that neither answers nor refuses is reported as `unanswered`.
    #[command(after_help = "\
Examples:
  nvactl probe forward.yaml
  nvactl probe forward.yaml --via 203.0.113.7 --expect 'http 200' --count 3

Exit codes: 0 no port failed; 1 a port is refused, silent or not as expected; 2 an error.")]
    Probe(Probe),
    /// Open one connection in a copy of a machine, and show its path hook by hook.
    ///
    /// The machine is made up from the spec or from iptables-save text, or it is a copy of this machine with
    /// `live`. Shows the rules that decide, each translation, the route, the end and the reply's path. The
    /// targets of a copy answer on every port. Only `live` needs root.
    #[command(after_help = "\
Examples:
  nvactl trace forward.yaml --from 198.51.100.7 --to 443
  nvactl trace rules.v4 --from 198.51.100.7:40000 --to 10.3.0.4:53 --protocol udp
  sudo nvactl trace live --from 10.224.0.118 --to 192.0.2.80 --protocol ping

Exit codes: 0 delivered and answered; 1 not; 2 an error.")]
    Trace(TraceArgs),
    /// Show or set the kernel's forwarding: IPv4, and IPv6 if nvactl has IPv6 rules.
    #[command(after_help = "\
Examples:
  nvactl sysctl status
  sudo nvactl sysctl enable --persist
  sudo nvactl sysctl enable --ipv6")]
    Sysctl {
        #[command(subcommand)]
        action: Sysctl,
    },
    /// Load nvactl's rules at boot with nvactl's own systemd unit.
    ///
    /// The unit loads the saved state: nvactl's rules as they were loaded when `boot enable` or `persist`
    /// saved them. The unit loads the saved state again after a restart or reload of ufw, nftables or
    /// netfilter-persistent, which flush the rules.
    #[command(after_help = "\
Examples:
  sudo nvactl boot enable
  sudo nvactl boot test
  sudo nvactl boot status")]
    Boot {
        #[command(subcommand)]
        action: BootAction,
    },
    /// Save the live rules for the next boot.
    ///
    /// If the boot unit is enabled, saves nvactl's own rules in the saved state. Otherwise writes the file
    /// that this distribution loads, with every table and other programs' rules, and the IPv6 file if nvactl
    /// has IPv6 rules. Keeps the old file as .bak, and replaces it only after iptables-restore has loaded the
    /// new one in an empty network namespace, as the boot does.
    #[command(after_help = "\
Examples:
  sudo nvactl persist forward.yaml
  sudo nvactl persist --family v4 --output rules.v4")]
    Persist(Persist),
    /// Print the script by which a shell completes nvactl's commands, options, specs and names of forwards.
    ///
    /// The script asks nvactl for the words. The packages have the scripts installed.
    #[command(after_help = "\
Examples:
  mkdir -p ~/.local/share/bash-completion/completions
  nvactl completions bash > ~/.local/share/bash-completion/completions/nvactl
  mkdir -p ~/.zfunc
  nvactl completions zsh > ~/.zfunc/_nvactl
  mkdir -p ~/.config/fish/completions
  nvactl completions fish > ~/.config/fish/completions/nvactl.fish")]
    Completions(CompletionsArgs),
    /// Print the words that may follow on a command line, for the scripts of completions.
    #[command(hide = true)]
    Complete(CompleteArgs),
    /// Print the manual page, with every command and option.
    #[command(after_help = "\
Examples:
  nvactl man | man -l -
  nvactl man > nvactl.8")]
    Man,
}

impl Command {
    /// Whether the report is all that the command leaves: it changes neither the machine nor a file.
    #[must_use]
    pub fn only_reports(&self) -> bool {
        match self {
            Command::Check(_)
            | Command::Diff(_)
            | Command::Explain(_)
            | Command::Test(_)
            | Command::History
            | Command::Schema
            | Command::Status(_)
            | Command::Doctor(_)
            | Command::Probe(_)
            | Command::Trace(_)
            | Command::Completions(_)
            | Command::Complete(_)
            | Command::Man
            | Command::Sysctl {
                action: Sysctl::Status(_),
            }
            | Command::Boot {
                action: BootAction::Status | BootAction::Test,
            } => true,
            Command::Render(args) => args.output.is_none(),
            Command::Import(args) => args.output().is_none(),
            Command::Init(args) => args.output().is_none(),
            Command::Apply(args) => args.dry_run,
            Command::Remove(args) => args.dry_run,
            Command::Rollback(args) => args.dry_run,
            Command::Confirm(args) => args.status,
            Command::Watchdog { .. }
            | Command::Persist(_)
            | Command::Sysctl {
                action: Sysctl::Enable(_) | Sysctl::Disable(_),
            }
            | Command::Boot {
                action: BootAction::Enable(_) | BootAction::Disable(_) | BootAction::Load(_),
            } => false,
        }
    }
}
