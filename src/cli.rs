//! The command line, as types. The doc comments are the help text; parsing has no side effects.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use thiserror::Error;

use crate::backend::Backend;
use crate::net::Family;
use crate::probe::Expect;
use crate::spec::{Code, CodeError, Severity};

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

#[derive(Debug, Args)]
pub struct Spec {
    /// The forward spec: a file, a folder whose *.yaml files are one spec, or - for standard input.
    pub spec: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    pub spec: Spec,

    /// Exit 1 if the spec has this warning, or `all` for any; may be given again.
    #[arg(long, value_name = "WARNING|all")]
    pub deny: Vec<Deny>,

    /// Show notes too.
    #[arg(long)]
    pub notes: bool,

    /// How to print what was found: text on standard error, json and github on standard output.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: CheckFormat,

    /// List every code there is, and what it means.
    #[arg(long)]
    pub list: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    /// Pages for people.
    Text,
    /// One JSON object.
    Json,
    /// Annotations of a GitHub workflow.
    Github,
}

/// What `--deny` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deny {
    All,
    Code(Code),
}

#[derive(Debug, Error)]
pub enum DenyError {
    #[error(transparent)]
    Unknown(#[from] CodeError),
    #[error("`{0}` is no warning")]
    NotAWarning(Code),
}

impl FromStr for Deny {
    type Err = DenyError;

    fn from_str(text: &str) -> Result<Self, DenyError> {
        if text == "all" {
            return Ok(Deny::All);
        }
        let code: Code = text.parse()?;
        match code.severity() {
            Severity::Warning => Ok(Deny::Code(code)),
            _ => Err(DenyError::NotAWarning(code)),
        }
    }
}

#[derive(Debug, Args)]
pub struct Render {
    #[command(flatten)]
    pub spec: Spec,

    /// Which family's rules: v4 for iptables-restore, v6 for ip6tables-restore [default: v4].
    #[arg(long, value_name = "v4|v6", value_parser = family)]
    pub family: Option<Family>,

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

    /// Undo the change after this time (60, 90s, 5m, 1h) unless `nvactl confirm` comes.
    ///
    /// At a terminal it also asks. A watchdog undoes it, whatever becomes of the terminal. Open
    /// connections outlive the change, so only a new one proves that you still get in.
    #[arg(long, value_name = "TIME", value_parser = confirm_secs)]
    pub confirm: Option<u64>,

    /// End connections that still lead to where no forward leads any more, and UDP senders from before their forward.
    #[arg(long)]
    pub flush_stale: bool,

    /// Do not try the change in a copy of this machine first.
    ///
    /// The trial opens connections through the copy, before the change and after it, and refuses a change
    /// that would cut off a forward that works now.
    #[arg(long)]
    pub no_trial: bool,

    /// How to print what was done.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: ApplyFormat,

    /// How long to wait for another nvactl that is changing the rules.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub lock_timeout: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ApplyFormat {
    /// A line for each forward, and how many rules came and went.
    Text,
    /// One JSON object.
    Json,
}

#[derive(Debug, Args)]
pub struct Confirm {
    /// Undo the change at once.
    #[arg(long, conflicts_with = "status")]
    pub cancel: bool,

    /// Say whether a change waits, and how long.
    #[arg(long)]
    pub status: bool,

    /// Keep the change only if this session came over another SSH connection than the one that
    /// applied it.
    ///
    /// Refuses where either is not known, as in tmux or at the console, and where both are the same,
    /// as they are with a shared `ControlMaster`.
    #[arg(long, conflicts_with_all = ["cancel", "status"])]
    pub new_session: bool,

    /// How long to wait for another nvactl that is changing the rules.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub lock_timeout: u64,
}

#[derive(Debug, Args)]
pub struct Rollback {
    /// The number that history shows [default: that of the last change that was not undone].
    #[arg(value_name = "N")]
    pub number: Option<u64>,

    /// Print what would change, change nothing, and exit 1 if anything would.
    #[arg(long)]
    pub dry_run: bool,

    /// How long to wait for another nvactl that is changing the rules.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub lock_timeout: u64,
}

#[derive(Debug, Args)]
pub struct Diff {
    #[command(flatten)]
    pub spec: Spec,

    /// What to compare with: `live`, another spec, or a file with iptables-save text.
    #[arg(long, value_name = "live|FILE", default_value = "live")]
    pub against: Against,

    /// Compare only one family [default: what the rules compared with are, else both].
    #[arg(long, value_name = "v4|v6", value_parser = family)]
    pub family: Option<Family>,

    /// Show the rules as a unified diff, too.
    #[arg(long)]
    pub rules: bool,

    /// How to print it.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: DiffFormat,
}

/// What `--against` names. A file called `live` is `./live`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Against {
    Live,
    File(PathBuf),
}

impl From<&str> for Against {
    fn from(text: &str) -> Self {
        match text {
            "live" => Against::Live,
            path => Against::File(PathBuf::from(path)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DiffFormat {
    /// A line for each forward.
    Text,
    /// One JSON object.
    Json,
    /// A table, fit for a comment on a pull request.
    Markdown,
}

#[derive(Debug, Args)]
pub struct Explain {
    #[command(flatten)]
    pub spec: Spec,

    /// Only the rule of this number.
    #[arg(long, value_name = "N", conflicts_with = "forward")]
    pub rule: Option<usize>,

    /// Only the rules of this forward.
    #[arg(long, value_name = "NAME")]
    pub forward: Option<String>,

    /// How to print it.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: ExplainFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExplainFormat {
    /// A rule and its note, one below the other.
    Text,
    /// A table, and a Mermaid diagram of who talks to whom.
    Markdown,
}

#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    pub spec: Spec,

    /// Exit 1 unless the live rules are what the spec says and packets reach nvactl's jumps.
    #[arg(long)]
    pub check: bool,

    /// How to print it.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: StatusFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StatusFormat {
    /// A row for each forward.
    Text,
    /// One JSON object.
    Json,
    /// For the textfile collector of `node_exporter`.
    Prometheus,
}

#[derive(Debug, Args)]
pub struct Doctor {
    #[command(flatten)]
    pub spec: Spec,

    /// Only this forward's way.
    #[arg(long, value_name = "NAME")]
    pub forward: Option<String>,

    /// How long a target may take to answer, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "4", value_parser = seconds)]
    pub timeout: f64,

    /// How long all of it may take, in seconds: what is not known by then is reported as unknown.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub deadline: f64,

    /// Try no connection in a copy of this machine, which takes network namespaces.
    #[arg(long)]
    pub no_twin: bool,

    /// How to print it.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: DoctorFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DoctorFormat {
    /// A line for each hop, and the first that fails.
    Text,
    /// One JSON object.
    Json,
    /// For the textfile collector of `node_exporter`.
    Prometheus,
}

#[derive(Debug, Args)]
pub struct Probe {
    #[command(flatten)]
    pub spec: Spec,

    /// Connect to every listen port at this address or name, instead of to the targets.
    #[arg(long, value_name = "ADDRESS")]
    pub via: Option<String>,

    /// What must come back: tcp for a connection, http for an answer below 400, 'http 200' for one
    /// of this status. Of no meaning for udp.
    #[arg(long, value_name = "WHAT", default_value = "tcp")]
    pub expect: Expect,

    /// How long each try may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    pub timeout: f64,

    /// How often each port is tried.
    #[arg(long, value_name = "N", default_value = "1")]
    pub count: NonZeroU32,

    /// How many ports are tried at once.
    #[arg(long, value_name = "N", default_value = "256")]
    pub jobs: NonZeroUsize,

    /// How to print it.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: ProbeFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProbeFormat {
    /// A line for each forward, or more where its ports differ.
    Text,
    /// One JSON object.
    Json,
}

/// A family, as `v4` or `v6`.
fn family(text: &str) -> Result<Family, String> {
    let mut all = Family::ALL.into_iter();
    all.find(|family| family.as_str() == text)
        .ok_or_else(|| "not one of v4, v6".to_owned())
}

/// Reads how long something may take, as seconds: `0.5`, `30s`, `2m`, `1h`.
fn seconds(text: &str) -> Result<f64, String> {
    let (number, unit_secs) = with_unit(text);
    match number
        .parse::<f64>()
        .map(|number| number * f64::from(unit_secs))
    {
        Ok(seconds) if (0.001..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("not a time from 0.001 seconds to 1h, such as 0.5, 30s or 2m".to_owned()),
    }
}

/// Splits a time into its number and the seconds of its unit.
fn with_unit(text: &str) -> (&str, u16) {
    let units = [('s', 1), ('m', 60), ('h', 60 * 60)];
    let mut each = units.into_iter();
    let found = each.find_map(|(unit, secs)| Some((text.strip_suffix(unit)?, secs)));
    found.unwrap_or((text, 1))
}

/// The longest time to confirm in: a day.
const MOST_CONFIRM_SECS: u64 = 24 * 60 * 60;

/// Reads a time to confirm in, as seconds: `60`, `90s`, `5m`, `1h`.
fn confirm_secs(text: &str) -> Result<u64, String> {
    let (number, unit_secs) = with_unit(text);
    // `parse` would take a `+`.
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| number.parse::<u64>().ok()).flatten();
    number
        .and_then(|number| number.checked_mul(unit_secs.into()))
        .filter(|secs| (1..=MOST_CONFIRM_SECS).contains(secs))
        .ok_or_else(|| "not a time from 1s to 24h, such as 60, 90s, 5m or 1h".to_owned())
}

#[derive(Debug, Args)]
pub struct Remove {
    /// Print what would change, change nothing, and exit 1 if anything would.
    #[arg(long)]
    pub dry_run: bool,

    /// Set the FORWARD policy as well.
    #[arg(long, value_name = "POLICY")]
    pub forward_policy: Option<RemovedPolicy>,

    /// How long to wait for another nvactl that is changing the rules.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub lock_timeout: u64,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_confirm_in_is_a_number_with_a_unit() {
        for (text, secs) in [
            ("1", 1),
            ("60", 60),
            ("090", 90),
            ("90s", 90),
            ("5m", 300),
            ("24h", 86_400),
            ("1440m", 86_400),
            ("86400", 86_400),
        ] {
            assert_eq!(confirm_secs(text), Ok(secs), "{text}");
        }
        for text in [
            "",
            "s",
            "m",
            "0",
            "0m",
            "-1",
            "+1",
            "5x",
            "5S",
            "5ms",
            "5 m",
            " 5",
            "5 ",
            "1.5m",
            "1m30s",
            "86401",
            "1441m",
            "25h",
            "5\u{661}",
            "18446744073709551615h",
            "18446744073709551616",
        ] {
            assert!(confirm_secs(text).is_err(), "{text}");
        }
    }
}
