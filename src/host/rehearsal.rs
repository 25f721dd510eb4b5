//! Loads a rules file as the boot does: alone, into an empty network namespace that ends with the rehearsal.
//! Chains and ipsets that the file needs but does not define are missing there.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use thiserror::Error;

use super::child::{self, Output};
use super::file;
use super::iptables::{Iptables, LIMIT, nft_listing};
use super::namespace;
use crate::host::complaint::line_named;
use crate::net::Family;
use crate::netfilter::names::TableName;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::parse;

/// The plugin that loads [`SETS`] before netfilter-persistent loads any rules (`ipset-persistent` 1.0.20).
const SETS_PLUGIN: &str = "/usr/share/netfilter-persistent/plugins.d/10-ipset";
const SETS: &str = "/etc/iptables/ipsets";
const SETS_LIMIT: Duration = Duration::from_secs(30);

/// The reason why a rehearsal did not succeed.
#[derive(Debug, Error)]
pub enum RehearsalError {
    /// The rehearsal failed for a reason of the machine. The file may be valid.
    #[error("{0}")]
    Impossible(String),
    #[error(transparent)]
    Refused(RefusedLine),
}

/// A line of a rules file that iptables-restore refuses.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct RefusedLine {
    pub program: String,
    /// Counted from 1.
    pub line: usize,
    pub text: String,
    pub why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    MissingSet(String),
    /// The message of iptables-restore.
    Said(String),
}

impl fmt::Display for RefusedLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            program,
            line,
            text,
            why,
        } = self;
        write!(f, "{program} refuses line {line}")?;
        if !text.is_empty() {
            write!(f, ", `{text}`")?;
        }
        f.write_str(": ")?;
        match why {
            Why::MissingSet(set) => write!(
                f,
                "the ipset `{set}` does not exist when the boot loads the file"
            ),
            Why::Said(words) => f.write_str(words),
        }
    }
}

/// The rules that a file has loaded.
#[derive(Debug)]
pub struct Rehearsed {
    pub ruleset: Ruleset,
    pub nft: Vec<String>,
}

impl RefusedLine {
    /// Returns whether the reason is a missing ipset. Another program may create it later at boot.
    #[must_use]
    pub fn is_missing_set(&self) -> bool {
        matches!(self.why, Why::MissingSet(_))
    }
}

impl Iptables {
    /// Loads the text of a rules file as netfilter-persistent does. Returns the loaded rules, with nft's listing
    /// of the tables in `listed`.
    ///
    /// # Errors
    /// If iptables-restore refuses a line, or no namespace can be made.
    pub fn rehearse(
        &self,
        family: Family,
        text: &[u8],
        listed: &[TableName],
    ) -> Result<Rehearsed, RehearsalError> {
        let impossible = |error: &dyn fmt::Display| RehearsalError::Impossible(error.to_string());
        let rehearse = || {
            load_sets();
            self.load_alone(family, text)?;
            let loaded = self.read(family).map_err(|error| impossible(&error))?;
            Ok(Rehearsed {
                ruleset: loaded.ruleset,
                nft: nft_listing(family, listed),
            })
        };
        namespace::in_empty(rehearse).map_err(|error| impossible(&error))?
    }

    fn load_alone(&self, family: Family, text: &[u8]) -> Result<(), RehearsalError> {
        let program = self.backend.program(family, "iptables-restore");
        let wait = self.lock_wait.max(1).to_string();
        // The rehearsal needs no xtables lock, since nobody else can change rules in its namespace.
        let args = ["XTABLES_LOCKFILE=/dev/null", &program, "-w", &wait];
        match child::run("env", &args, text, LIMIT) {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(refusal(program, text, &output)),
            Err(error) => Err(RehearsalError::Impossible(error.to_string())),
        }
    }
}

/// Loads the ipsets that the boot loads. A set that fails to load is also missing after the boot.
fn load_sets() {
    if Path::new(SETS_PLUGIN).exists()
        && let Ok(Some(sets)) = file::read(Path::new(SETS))
    {
        let _ = child::run("ipset", &["restore", "-exist"], &sets, SETS_LIMIT);
    }
}

/// Reads from iptables-restore's message which line it refuses. A message without a line is about this machine:
/// no permission, no memory, a lock that another program holds, or more rules than a user namespace accepts at
/// once.
fn refusal(program: String, text: &[u8], output: &Output) -> RehearsalError {
    let words = &output.stderr;
    let named = line_named(words).filter(|_| !words.contains("Message too long"));
    let Some(named) = named else {
        return RehearsalError::Impossible(words.clone());
    };
    let said = first_of(words);
    let text = parse::text_of(text);
    // iptables-nft 1.8.9 names the line of COMMIT for a missing chain (measured).
    let chain = between(said, "Chain '", "' does not exist");
    let line = chain.and_then(|chain| parse::first_line_with(&text, chain));
    let line = line.unwrap_or(named);
    let set = between(said, "Set ", " doesn't exist.");
    RehearsalError::Refused(RefusedLine {
        program,
        line,
        text: text
            .split('\n')
            .nth(line.saturating_sub(1))
            .unwrap_or_default()
            .to_owned(),
        why: match set {
            Some(set) => Why::MissingSet(set.to_owned()),
            None => Why::Said(said.to_owned()),
        },
    })
}

/// Returns the first line of a message that gives the reason, without the program's name and version.
fn first_of(words: &str) -> &str {
    let mut lines = words.lines();
    let line = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    let mut said = line.unwrap_or(words);
    if let Some((program, rest)) = said.split_once("): ")
        && program.contains(" v")
    {
        said = rest;
    }
    match said.split_once("restore: ") {
        Some((program, rest)) if !program.contains(' ') => rest,
        _ => said,
    }
}

fn between<'t>(text: &'t str, before: &str, behind: &str) -> Option<&'t str> {
    text.strip_prefix(before)?.strip_suffix(behind)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    /// The messages are from iptables 1.8.9, nft and legacy.
    #[test]
    fn the_line_and_the_reason_are_read_from_the_message() {
        let text = b"*filter\n:INPUT DROP [0:0]\n-A INPUT -m set --match-set s src -j DROP\n-A INPUT -j NOPE\nCOMMIT\n";
        let refused = |stderr: &str| {
            let output = Output {
                status: ExitStatus::from_raw(512),
                stdout: Vec::new(),
                stderr: stderr.to_owned(),
            };
            refusal("iptables-restore".to_owned(), text, &output).to_string()
        };
        for (stderr, expected) in [
            (
                "iptables-nft-restore v1.8.9 (nf_tables): Set s doesn't exist.\n\nError occurred at line: 3\nTry `…",
                "iptables-restore refuses line 3, `-A INPUT -m set --match-set s src -j DROP`: \
                 the ipset `s` does not exist when the boot loads the file",
            ),
            (
                "# Warning: iptables-legacy tables present\niptables-nft-restore v1.8.9 (nf_tables): \
                 Chain 'NOPE' does not exist\nError occurred at line: 5",
                "iptables-restore refuses line 4, `-A INPUT -j NOPE`: Chain 'NOPE' does not exist",
            ),
            (
                "iptables-restore: line 4: RULE_APPEND failed (No such file): rule in chain INPUT",
                "iptables-restore refuses line 4, `-A INPUT -j NOPE`: line 4: \
                 RULE_APPEND failed (No such file): rule in chain INPUT",
            ),
            // These are faults of the machine, not of the file.
            (
                "Fatal: can't open lock file: Permission denied",
                "Fatal: can't open lock file: Permission denied",
            ),
            (
                "line 3: sendmsg() failed: Message too long",
                "line 3: sendmsg() failed: Message too long",
            ),
        ] {
            assert_eq!(refused(stderr), expected);
        }
    }
}
