//! The commands that change the rules.

use clap::{Args, ValueEnum};

use super::values::{LockTimeout, SpecArg, number, with_unit};

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    pub spec: SpecArg,

    /// Print what would change, change nothing, and exit 1 if anything would.
    #[arg(long)]
    pub dry_run: bool,

    /// Undo the change after this time (60, 90s, 5m, 1h) unless `nvactl confirm` is run.
    ///
    /// Also asks at a terminal. A watchdog undoes the change even if the terminal dies. Open connections
    /// outlive the change, so only a new connection proves that you still get in.
    #[arg(long, value_name = "TIME", value_parser = confirm_secs)]
    pub confirm: Option<u64>,

    /// End connections that follow an older spec, and UDP senders older than their forward or outbound entry.
    #[arg(long)]
    pub flush_stale: bool,

    /// Do not try the change in a copy of this machine first.
    ///
    /// The trial opens connections through the copy, before and after the change, and refuses a change that
    /// would cut off a forward that works now, or with which a test of the spec fails.
    #[arg(long)]
    pub no_trial: bool,

    /// Take out the rules of others that the spec says as well, in the same step.
    ///
    /// A rule goes if every forward and outbound entry that it serves is in the spec with equal meaning. Rules of other
    /// programs, and rules that a file adds again at boot, stay. `rollback` and an undo put the rules back. To see them
    /// first, add `--dry-run`.
    #[arg(long)]
    pub adopt: bool,

    /// Output format.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: ApplyFormat,

    #[command(flatten)]
    pub lock_timeout: LockTimeout,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ApplyFormat {
    /// A line for each forward, and the numbers of added and removed rules.
    Text,
    /// One JSON object.
    Json,
}

#[derive(Debug, Args)]
pub struct Confirm {
    /// Undo the change at once.
    #[arg(long, conflicts_with = "status")]
    pub cancel: bool,

    /// Show whether a change waits for confirmation, and how long.
    #[arg(long)]
    pub status: bool,

    /// Keep the change only if this session came over another SSH connection than the one that
    /// applied it.
    ///
    /// Refuses if either connection is unknown, as in tmux or at the console, and if both are the same, as
    /// with a shared `ControlMaster`.
    #[arg(long, conflicts_with_all = ["cancel", "status"])]
    pub new_session: bool,

    #[command(flatten)]
    pub lock_timeout: LockTimeout,
}

#[derive(Debug, Args)]
pub struct Rollback {
    /// The number that history shows [default: that of the last change that was not undone].
    #[arg(value_name = "N", value_parser = number::<u64>)]
    pub number: Option<u64>,

    /// Print what would change, change nothing, and exit 1 if anything would.
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    pub lock_timeout: LockTimeout,
}

/// The longest time for a confirmation: a day.
const MOST_CONFIRM_SECS: u64 = 24 * 60 * 60;

/// Reads the time for a confirmation as seconds: `60`, `90s`, `5m`, `1h`.
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

    #[command(flatten)]
    pub lock_timeout: LockTimeout,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RemovedPolicy {
    /// Forward everything that no other rule drops.
    Accept,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_for_a_confirmation_is_a_number_with_a_unit() {
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
