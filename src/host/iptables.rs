//! The kernel's rules, read by iptables-save and written by iptables-restore, or their namesakes for
//! IPv6.
//!
//! Unless a backend is named, the plain names on PATH decide, as they do for the user's own commands.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader};
use std::iter;
use std::time::Duration;

use thiserror::Error;

use super::child::{self, ChildError, Output, Running};
use super::lock::Lock;
use crate::net::Family;
use crate::net::per_family::{Families, PerFamily};
use crate::net::printable;
use crate::netfilter::backend::Backend;
use crate::netfilter::counters::Counters;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::line::{Line, says_counts};
use crate::netfilter::text::parse::{self, Growing, ParseError, Saved};
use crate::netfilter::unread::{unloadable, unread};

/// The iptables programs, and how long they wait for another that holds the xtables lock. Without
/// `-w` iptables 1.8.9 legacy waits for ever (measured).
#[derive(Debug, Clone, Copy)]
pub struct Iptables {
    pub backend: Backend,
    /// In seconds; at least one, since legacy takes 0 for ever.
    pub lock_wait: u64,
}

/// 100,000 forwards load in a minute or two where one chain holds them.
pub(super) const LIMIT: Duration = Duration::from_mins(5);

/// The way out where a file of all rules cannot be kept.
pub const OWN_ALONE: &str = "to keep nvactl's own rules alone: sudo nvactl boot enable";

#[derive(Debug, Error)]
pub enum IptablesError {
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error("`{program}` failed: {}", said(.words, *.code))]
    Failed {
        program: String,
        code: Option<i32>,
        words: String,
    },
    #[error(
        "the table {table} holds rules that were made with `nft` and that iptables cannot show, so what is loaded cannot be known"
    )]
    Incompatible { family: Family, table: TableName },
    #[error(
        "the table {table} holds rules that were made with `nft` and that iptables cannot show, so a file of all rules would lose them at the next boot"
    )]
    Unshown { family: Family, table: TableName },
    #[error(
        "iptables-restore cannot read a rule that is loaded, so a file of all rules would bring none of them back at the next boot: `{line}`"
    )]
    Unloadable { line: String },
    #[error("what {program} printed cannot be read")]
    Unreadable { program: String, source: ParseError },
}

impl IptablesError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            IptablesError::Child(ChildError::NotFound(_)) => {
                Some("sudo apt-get install iptables".to_owned())
            }
            IptablesError::Failed { words, .. } if words.contains("Stopped waiting") => Some(
                "another program holds the xtables lock: `fuser -v /run/xtables.lock` shows which"
                    .to_owned(),
            ),
            IptablesError::Failed { words, .. } if words.contains("Message too long") => Some(
                "iptables-nft in a user namespace takes about 200 forwards at once: run as real root"
                    .to_owned(),
            ),
            IptablesError::Incompatible { family, table } => Some(format!(
                "move them to a table of their own; to look: sudo nft list table {} {table}",
                nft_family(*family)
            )),
            IptablesError::Unshown { .. } | IptablesError::Unloadable { .. } => {
                Some(OWN_ALONE.to_owned())
            }
            _ => None,
        }
    }
}

/// As nft names the tables of a family that iptables stands on.
#[must_use]
pub fn nft_family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn said(words: &str, code: Option<i32>) -> String {
    match (words, code) {
        ("", Some(code)) => format!("it ended with {code} and said nothing"),
        ("", None) => "it was killed".to_owned(),
        (words, _) => words.to_owned(),
    }
}

/// The live rules.
#[derive(Debug)]
pub struct Live {
    family: Family,
    text: Vec<u8>,
    pub ruleset: Ruleset,
    /// How often each has matched, where that was asked.
    pub counters: Counters,
    /// The tables whose rules iptables-nft-save did not print, since they were made with `nft`. None is
    /// one that nvactl writes to.
    pub unshown: Vec<TableName>,
}

impl Live {
    /// Returns how many packets came to the policy of each built-in chain, where that was asked.
    #[must_use]
    pub fn policy_packets(&self) -> BTreeMap<(TableName, ChainName), u64> {
        policy_packets(&parse::text_of(&self.text))
    }

    /// Returns a warning for each table that is not shown and each rule that cannot be read. `iptables`:
    /// what has read them.
    #[must_use]
    pub fn warnings(&self, iptables: &Iptables) -> Vec<String> {
        let program = iptables.backend.program(self.family, "iptables");
        let unshown = self.unshown.iter().map(|table| {
            format!(
                "the table {table} holds rules that were made with `nft` and that {program} cannot show: \
                 whether they obstruct forwards is not known; to look: sudo nft list table {} {table}",
                nft_family(self.family)
            )
        });
        let unread = unread(&self.ruleset);
        let unread = unread.iter().map(|rule| rule.warning(&program));
        unshown.chain(unread).collect()
    }

    /// Returns all rules as iptables-save printed them, for iptables-restore to load; a comment may hold
    /// any bytes.
    ///
    /// # Errors
    /// [`IptablesError::Unshown`] and [`IptablesError::Unloadable`] where that is not all, or would not
    /// load.
    pub fn whole(&self) -> Result<&[u8], IptablesError> {
        if let Some(table) = self.unshown.first() {
            return Err(IptablesError::Unshown {
                family: self.family,
                table: *table,
            });
        }
        match unloadable(&self.ruleset) {
            Some((chain, rule)) => Err(IptablesError::Unloadable {
                line: printable::line(Line::Append(chain, rule)).to_string(),
            }),
            None => Ok(&self.text),
        }
    }
}

/// Why a trial did not succeed.
#[derive(Debug, Error)]
pub enum TrialError {
    /// No namespace can be made here; that says nothing of the rules.
    #[error("no network namespace can be made: {0}")]
    Impossible(String),
    #[error(transparent)]
    Refused(IptablesError),
}

impl Iptables {
    /// Reads the live rules of every table.
    ///
    /// # Errors
    /// Without iptables, without the right to read them, or when its output makes no sense.
    pub fn read(&self, family: Family) -> Result<Live, IptablesError> {
        self.save(family, &[])?.finish()
    }

    /// Reads the live rules of each family that is touched.
    ///
    /// # Errors
    /// As [`Iptables::read`].
    pub fn read_all(&self, families: Families) -> Result<PerFamily<Live>, IptablesError> {
        finish_all(PerFamily::try_new(families, |family| {
            self.save(family, &[])
        })?)
    }

    /// Reads the live rules with their counters, which takes at most a tenth longer (measured, 30,000
    /// rules).
    ///
    /// # Errors
    /// As [`Iptables::read`].
    pub fn read_counted(&self, family: Family) -> Result<Live, IptablesError> {
        self.save(family, &["-c"])?.finish()
    }

    /// Reads the live rules of each family that is touched, with their counters.
    ///
    /// # Errors
    /// As [`Iptables::read`].
    pub fn read_all_counted(
        &self,
        families: Families,
    ) -> Result<PerFamily<(Ruleset, Counters)>, IptablesError> {
        self.start_listing(families)?.finish()
    }

    /// Begins to read the live rules of some families, with their counters.
    ///
    /// # Errors
    /// When iptables is missing. A missing ip6tables is known at the end.
    pub fn start_listing(&self, families: Families) -> Result<Listing, IptablesError> {
        self.start(families, &["-c"])
    }

    /// Begins to read the live rules of some families, as a file of rules has them.
    ///
    /// # Errors
    /// As [`Iptables::start_listing`].
    pub fn start_reading(&self, families: Families) -> Result<Listing, IptablesError> {
        self.start(families, &[])
    }

    fn start(
        &self,
        families: Families,
        args: &'static [&'static str],
    ) -> Result<Listing, IptablesError> {
        Ok(Listing {
            v4: self.save(Family::V4, args)?,
            v6: (families == Families::Both).then(|| self.save(Family::V6, args)),
        })
    }

    /// Reads single chains as they are now. `known` has the chains of nvactl's that rules may lead to.
    ///
    /// # Errors
    /// As [`Iptables::read`], and where one of the chains is not there.
    pub fn read_chains(
        &self,
        family: Family,
        chains: &[(TableName, &ChainName)],
        known: &Ruleset,
    ) -> Result<Ruleset, IptablesError> {
        let wait = self.lock_wait.max(1).to_string();
        let mut read = Ruleset::default();
        for (table, name) in chains {
            let args = ["-w", &wait, "-t", table.as_str(), "-S", name.as_str()];
            let listed = self.run(family, "iptables", &args, b"")?;
            let listed = String::from_utf8_lossy(&listed);
            let chain = parse::parse_listed(&listed, *table, name, known)
                .map_err(|source| self.unreadable(family, source))?;
            *read.chain_mut(*table, (*name).clone()) = chain;
        }
        Ok(read)
    }

    fn save(&self, family: Family, args: &'static [&'static str]) -> Result<Saving, IptablesError> {
        let program = self.backend.program(family, "iptables-save");
        let running = child::start(&program, args, b"", LIMIT, read_saved)?;
        Ok(Saving {
            family,
            program,
            args,
            running,
        })
    }

    fn unreadable(&self, family: Family, source: ParseError) -> IptablesError {
        IptablesError::Unreadable {
            program: self.backend.program(family, "iptables-save"),
            source,
        }
    }

    /// Loads a script beside what is there; only what it names changes. Atomic for each table, not
    /// across tables (iptables-restore(8); measured). A rule of which the script says what it has
    /// counted counts on from there.
    ///
    /// iptables-restore holds the lock, too: if nvactl is killed, it goes on alone.
    ///
    /// # Errors
    /// When iptables-restore refuses it; tables that it had committed before stay changed.
    pub fn load(&self, family: Family, script: &str, lock: &Lock) -> Result<(), IptablesError> {
        self.load_within(family, script, Some(lock))
    }

    /// Loads a script as [`Iptables::load`] does, where there may be no lock to hold.
    ///
    /// # Errors
    /// As [`Iptables::load`].
    pub fn load_within(
        &self,
        family: Family,
        script: &str,
        lock: Option<&Lock>,
    ) -> Result<(), IptablesError> {
        let program = self.backend.program(family, "iptables-restore");
        let wait = self.lock_wait.max(1).to_string();
        let counters = says_counts(script).then_some("--counters");
        let how = iter::once("--noflush").chain(counters);
        let args: Vec<&str> = how.chain(["-w", &wait]).collect();
        let begin = || child::begin(&program, &args, script.as_bytes(), LIMIT);
        let running = match lock {
            Some(lock) => lock.lend(begin),
            None => begin(),
        }?;
        ended(&program, &args, running.finish()?).map(drop)
    }

    /// Loads a text into an empty network namespace that ends with the trial. `--test` would miss what
    /// only the kernel refuses (measured).
    ///
    /// # Errors
    /// When it does not load, or there can be no trial.
    pub fn try_out(&self, family: Family, text: &str) -> Result<(), TrialError> {
        let restore = self.backend.program(family, "iptables-restore");
        let wait = self.lock_wait.max(1).to_string();
        // A lock of its own: nobody else's rules are touched.
        let args = [
            "--net",
            "--",
            "env",
            "XTABLES_LOCKFILE=/dev/null",
            &restore,
            "--noflush",
            "-w",
            &wait,
        ];
        let output = match child::run("unshare", &args, text.as_bytes(), LIMIT) {
            Ok(output) => output,
            Err(error) => return Err(TrialError::Impossible(error.to_string())),
        };
        if output.status.success() {
            return Ok(());
        }
        if output.stderr.starts_with("unshare:") {
            return Err(TrialError::Impossible(output.stderr));
        }
        Err(TrialError::Refused(IptablesError::Failed {
            program: args[4..].join(" "),
            code: output.status.code(),
            words: output.stderr,
        }))
    }

    /// Has iptables-restore read a whole file's text, without loading it.
    ///
    /// # Errors
    /// When it would not load.
    pub fn test(&self, family: Family, text: &[u8]) -> Result<(), IptablesError> {
        let wait = self.lock_wait.max(1).to_string();
        let args = ["--test", "-w", &wait];
        self.run(family, "iptables-restore", &args, text).map(drop)
    }

    fn run(
        &self,
        family: Family,
        plain: &str,
        args: &[&str],
        stdin: &[u8],
    ) -> Result<Vec<u8>, IptablesError> {
        let program = self.backend.program(family, plain);
        ended(&program, args, child::run(&program, args, stdin, LIMIT)?)
    }
}

/// What a program has written, unless it failed.
fn ended<T>(program: &str, args: &[&str], output: Output<T>) -> Result<T, IptablesError> {
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(IptablesError::Failed {
        program: [&[program], args].concat().join(" "),
        code: output.status.code(),
        words: output.stderr,
    })
}

/// Reads what iptables-save prints line by line as it comes: on a second core that is done when
/// iptables-save is.
fn read_saved(pipe: &mut dyn io::Read) -> Printed {
    let mut pipe = BufReader::new(pipe);
    let (mut text, mut growing) = (Vec::new(), Growing::of_kernel());
    let (mut read, mut begun) = (Ok(()), 0);
    loop {
        let from = text.len();
        // What was read before an error still is what it said.
        let _ = pipe.read_until(b'\n', &mut text);
        let whole = text.len() == from;
        while begun < text.len()
            && let Some(len) = parse::line_len(&text[begun..], whole)
        {
            let line = parse::text_of(&text[begun..begun + len]);
            read = read.and_then(|()| growing.read(&line));
            begun += len;
        }
        if whole {
            break;
        }
    }
    (text, read.and_then(|()| growing.finish()))
}

/// The rules of some families, with their counters, as they are being read: both families at once,
/// since their programs and tables have nothing to do with one another. Dropped before the end no
/// program is left.
#[derive(Debug)]
pub struct Listing {
    v4: Saving,
    v6: Option<Result<Saving, IptablesError>>,
}

impl Listing {
    #[must_use]
    pub fn families(&self) -> Families {
        Families::with_v6(self.v6.is_some())
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// As [`Iptables::read`].
    pub fn finish(self) -> Result<PerFamily<(Ruleset, Counters)>, IptablesError> {
        let (live, _) = self.finish_readable(true)?;
        let counted = |live: Live| (live.ruleset, live.counters);
        Ok(PerFamily {
            v4: counted(live.v4),
            v6: live.v6.map(counted),
        })
    }

    /// Waits for the end, and leaves IPv6 out where it cannot be read, with the reason, unless it is
    /// needed.
    ///
    /// # Errors
    /// As [`Iptables::read`].
    pub fn finish_readable(
        self,
        needs_v6: bool,
    ) -> Result<(PerFamily<Live>, Option<IptablesError>), IptablesError> {
        let v4 = self.v4.finish()?;
        let v6 = self.v6.map(|saving| saving.and_then(Saving::finish));
        match v6.transpose() {
            Ok(v6) => Ok((PerFamily { v4, v6 }, None)),
            Err(error) if needs_v6 => Err(error),
            Err(error) => Ok((PerFamily { v4, v6: None }, Some(error))),
        }
    }
}

fn finish_all(saving: PerFamily<Saving>) -> Result<PerFamily<Live>, IptablesError> {
    Ok(PerFamily {
        v4: saving.v4.finish()?,
        v6: saving.v6.map(Saving::finish).transpose()?,
    })
}

/// Reads `:CHAIN POLICY [packets:bytes]` of each table.
pub(crate) fn policy_packets(saved: &str) -> BTreeMap<(TableName, ChainName), u64> {
    let (mut found, mut table) = (BTreeMap::new(), None);
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.parse::<TableName>().ok();
        }
        let words: Vec<&str> = line.split(' ').collect();
        if let (Some(table), [name, _, counts]) = (table, &words[..])
            && let Some(name) = name.strip_prefix(':')
            && let Some((packets, _)) = counts.trim_start_matches('[').split_once(':')
            && let Ok(packets) = packets.parse()
        {
            found.insert((table, ChainName::from(name)), packets);
        }
    }
    found
}

/// What iptables-save has printed, and what that means.
type Printed = (Vec<u8>, Result<Saved, ParseError>);

/// iptables-save, which has been started.
#[derive(Debug)]
struct Saving {
    family: Family,
    program: String,
    args: &'static [&'static str],
    running: Running<Printed>,
}

impl Saving {
    fn finish(self) -> Result<Live, IptablesError> {
        let family = self.family;
        let (text, read) = ended(&self.program, self.args, self.running.finish()?)?;
        let saved = read.map_err(|source| IptablesError::Unreadable {
            program: self.program,
            source,
        })?;
        let needed = |table: &&TableName| TableName::WRITTEN.contains(table);
        if let Some(table) = saved.unshown.iter().find(needed) {
            let table = *table;
            return Err(IptablesError::Incompatible { family, table });
        }
        Ok(Live {
            family,
            text,
            ruleset: saved.ruleset,
            counters: saved.counters,
            unshown: saved.unshown,
        })
    }
}
