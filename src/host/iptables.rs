//! Reads the kernel's rules with iptables-save and loads rules with iptables-restore, or with ip6tables-save
//! and ip6tables-restore.
//!
//! If no backend is named, nvactl runs the plain names on PATH, as the user's own commands do.

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

/// The iptables programs, and how long they wait for the xtables lock. Without `-w`, iptables 1.8.9 legacy
/// waits for ever (measured).
#[derive(Debug, Clone, Copy)]
pub struct Iptables {
    pub backend: Backend,
    /// In seconds, at least one: for legacy 0 means for ever.
    pub lock_wait: u64,
}

/// The time limit of one call. 100,000 forwards load in one or two minutes if one chain holds them.
pub(super) const LIMIT: Duration = Duration::from_mins(5);

/// The hint if a file of all rules cannot be saved.
pub const OWN_ALONE: &str = "to keep only nvactl's rules: sudo nvactl boot enable";

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
        "the table {table} holds rules that were made with `nft` and that iptables cannot show, so nvactl cannot know which rules are loaded"
    )]
    Incompatible { family: Family, table: TableName },
    #[error(
        "the table {table} holds rules that were made with `nft` and that iptables cannot show, so a file of all rules would lose them at the next boot"
    )]
    Unshown { family: Family, table: TableName },
    #[error(
        "iptables-restore cannot read a loaded rule, so a file of all rules would not load at the next boot: `{line}`"
    )]
    Unloadable { line: String },
    #[error("cannot parse the output of {program}")]
    Unreadable { program: String, source: ParseError },
}

impl IptablesError {
    /// Returns the fix, if there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            IptablesError::Child(ChildError::NotFound(_)) => {
                Some("to install it: sudo apt-get install iptables".to_owned())
            }
            IptablesError::Failed { words, .. } if words.contains("Stopped waiting") => Some(
                "another program holds the xtables lock: `fuser -v /run/xtables.lock` shows which"
                    .to_owned(),
            ),
            IptablesError::Failed { words, .. } if words.contains("Message too long") => Some(
                "in a user namespace, iptables-nft loads at most about 200 forwards at once: run nvactl as real root"
                    .to_owned(),
            ),
            IptablesError::Incompatible { family, table } => Some(format!(
                "move these rules to another table; to list them: sudo nft list table {} {table}",
                nft_family(*family)
            )),
            IptablesError::Unshown { .. } | IptablesError::Unloadable { .. } => {
                Some(OWN_ALONE.to_owned())
            }
            _ => None,
        }
    }
}

/// Returns nft's name of the family of the tables that iptables-nft uses.
#[must_use]
pub fn nft_family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn said(words: &str, code: Option<i32>) -> String {
    match (words, code) {
        ("", Some(code)) => format!("exit code {code}, without a message"),
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
    /// The counters of the rules, if they were requested.
    pub counters: Counters,
    /// The tables whose rules iptables-nft-save did not print, since they were made with `nft`. nvactl has no rules in
    /// them.
    pub unshown: Vec<TableName>,
}

impl Live {
    /// Returns how many packets reached the policy of each built-in chain, if counters were requested.
    #[must_use]
    pub fn policy_packets(&self) -> BTreeMap<(TableName, ChainName), u64> {
        parse::policy_packets(&parse::text_of(&self.text))
    }

    /// Checks that every table of `want` is shown, so that the read rules say what to change.
    ///
    /// # Errors
    /// [`IptablesError::Incompatible`] if one is not.
    pub fn shows(&self, want: &Ruleset) -> Result<(), IptablesError> {
        match self
            .unshown
            .iter()
            .find(|table| want.tables.contains_key(table))
        {
            Some(table) => Err(IptablesError::Incompatible {
                family: self.family,
                table: *table,
            }),
            None => Ok(()),
        }
    }

    /// Returns a warning for each table that is not shown and each rule that cannot be read. `iptables` are the
    /// programs that have read the rules.
    #[must_use]
    pub fn warnings(&self, iptables: &Iptables) -> Vec<String> {
        let program = iptables.backend.program(self.family, "iptables");
        let unshown = self.unshown.iter().map(|table| {
            format!(
                "the table {table} holds rules that were made with `nft` and that {program} cannot show: \
                 it is not known whether they obstruct forwards; to list them: sudo nft list table {} {table}",
                nft_family(self.family)
            )
        });
        let unread = unread(&self.ruleset);
        let unread = unread.iter().map(|rule| rule.warning(&program));
        unshown.chain(unread).collect()
    }

    /// Returns all rules as iptables-save printed them, for iptables-restore to load. A comment may hold any
    /// bytes.
    ///
    /// # Errors
    /// [`IptablesError::Unshown`] if the text is not complete, [`IptablesError::Unloadable`] if it would not load.
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

/// A reason why a trial did not succeed.
#[derive(Debug, Error)]
pub enum LoadTrialError {
    /// No namespace can be made here. The rules may be valid.
    #[error("no network namespace can be made: {0}")]
    Impossible(String),
    #[error(transparent)]
    Refused(IptablesError),
}

impl Iptables {
    /// Reads the live rules of every table.
    ///
    /// # Errors
    /// If iptables is missing, the user may not read the rules, or the output cannot be parsed.
    pub fn read(&self, family: Family) -> Result<Live, IptablesError> {
        self.save(family, &[])?.finish()
    }

    /// Reads the live rules of these families.
    ///
    /// # Errors
    /// As [`Iptables::read`].
    pub fn read_all(&self, families: Families) -> Result<PerFamily<Live>, IptablesError> {
        finish_all(PerFamily::try_new(families, |family| {
            self.save(family, &[])
        })?)
    }

    /// Reads the live rules with their counters. This takes at most a tenth longer (measured with 30,000 rules).
    ///
    /// # Errors
    /// As [`Iptables::read`].
    pub fn read_counted(&self, family: Family) -> Result<Live, IptablesError> {
        self.save(family, &["-c"])?.finish()
    }

    /// Reads the live rules of these families with their counters.
    ///
    /// # Errors
    /// As [`Iptables::read`].
    pub fn read_all_counted(
        &self,
        families: Families,
    ) -> Result<PerFamily<(Ruleset, Counters)>, IptablesError> {
        self.start_listing(families)?.finish()
    }

    /// Starts to read the live rules of these families with their counters.
    ///
    /// # Errors
    /// If iptables is missing. A missing ip6tables is an error of [`Listing::finish`].
    pub fn start_listing(&self, families: Families) -> Result<Listing, IptablesError> {
        self.start(families, &["-c"])
    }

    /// Starts to read the live rules of these families without counters, as for a rules file.
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

    /// Reads single chains. `known` holds nvactl's chains that their rules may lead to.
    ///
    /// # Errors
    /// As [`Iptables::read`], and if one of the chains does not exist.
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

    /// Loads a script, which changes only the chains and rules that it names. The load is atomic for each table,
    /// not across tables (iptables-restore(8); measured). A rule with a count in the script continues from that
    /// count.
    ///
    /// iptables-restore also holds the lock: if nvactl is killed, it finishes alone.
    ///
    /// # Errors
    /// If iptables-restore refuses the script. Tables that it has committed before stay changed.
    pub fn load(&self, family: Family, script: &str, lock: &Lock) -> Result<(), IptablesError> {
        self.load_within(family, script, Some(lock))
    }

    /// Loads a script as [`Iptables::load`] does. The lock is optional.
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

    /// Loads a text into an empty network namespace that ends with the trial. `--test` would not find rules that
    /// only the kernel refuses (measured).
    ///
    /// # Errors
    /// If it does not load, or no trial is possible.
    pub fn try_out(&self, family: Family, text: &str) -> Result<(), LoadTrialError> {
        let restore = self.backend.program(family, "iptables-restore");
        let wait = self.lock_wait.max(1).to_string();
        // The trial needs no xtables lock, since nobody else can change rules in its namespace.
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
            Err(error) => return Err(LoadTrialError::Impossible(error.to_string())),
        };
        if output.status.success() {
            return Ok(());
        }
        if output.stderr.starts_with("unshare:") {
            return Err(LoadTrialError::Impossible(output.stderr));
        }
        Err(LoadTrialError::Refused(IptablesError::Failed {
            program: args[4..].join(" "),
            code: output.status.code(),
            words: output.stderr,
        }))
    }

    /// Lets iptables-restore parse the text of a whole file, without loading it.
    ///
    /// # Errors
    /// If iptables-restore refuses the text.
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

/// Returns the output of a program.
///
/// # Errors
/// If the program failed.
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

/// Parses the output of iptables-save line by line while it comes. On a second core, this ends together with
/// iptables-save.
fn read_saved(pipe: &mut dyn io::Read) -> Printed {
    let mut pipe = BufReader::new(pipe);
    let (mut text, mut growing) = (Vec::new(), Growing::of_kernel());
    let (mut read, mut begun) = (Ok(()), 0);
    loop {
        let from = text.len();
        // Bytes that were read before an error are still valid output.
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

/// The running programs that read the rules of some families. Both families are read at once, since their
/// programs and tables are independent. The programs are ended if this value is dropped.
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

    /// Waits for the end. If IPv6 cannot be read and is not needed, returns the reason in place of its rules.
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

/// The output of iptables-save, and the parsed rules.
type Printed = (Vec<u8>, Result<Saved, ParseError>);

/// A running iptables-save.
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
        let needed = |table: &&TableName| match **table {
            // Few machines have nvactl's rules there.
            TableName::Mangle => hides_own(family, **table),
            table => TableName::WRITTEN.contains(&table),
        };
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

/// Returns the chains and rules of each table as `nft` lists them, without counts. Returns empty listings if
/// `nft` is not installed.
#[must_use]
pub fn nft_listing(family: Family, tables: &[TableName]) -> Vec<String> {
    let listing = |table: &TableName| {
        let args = ["-s", "list", "table", nft_family(family), table.as_str()];
        let listed = child::read("nft", &args, b"", LIMIT).map(|output| output.stdout);
        String::from_utf8_lossy(&listed.unwrap_or_default()).into_owned()
    };
    tables.iter().map(listing).collect()
}

/// Returns whether a table that iptables cannot show has a chain of nvactl.
fn hides_own(family: Family, table: TableName) -> bool {
    let is_own = |line: &str| line.trim_start().starts_with("chain NVACTL-");
    let listed = nft_listing(family, &[table]);
    listed.iter().any(|text| text.lines().any(is_own))
}
