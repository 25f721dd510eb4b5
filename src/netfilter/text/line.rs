//! Prints one line of iptables-restore text, or the shell command that does the same.

use std::fmt;

use crate::netfilter::counters::Count;
use crate::netfilter::names::{ChainName, Policy, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::token::{shell_word, value, words};

/// A line of iptables-restore text; `Display` prints it without the line end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'r> {
    /// `*filter`
    Table(TableName),
    /// `:NAME POLICY [0:0]`. With `--noflush` it creates or empties a user-defined chain, and sets
    /// a built-in chain's policy without emptying it (measured).
    Chain(&'r ChainName, Option<Policy>),
    Append(&'r ChainName, &'r Rule),
    /// At a place counted from 1.
    Insert(&'r ChainName, usize, &'r Rule),
    /// The rule at a place counted from 1.
    DeleteAt(&'r ChainName, usize),
    /// The first rule that is spelled like this.
    Delete(&'r ChainName, &'r Rule),
    /// Deletes all rules of a chain.
    Flush(&'r ChainName),
    /// Deletes a chain, which must be empty and unreferenced.
    DeleteChain(&'r ChainName),
    /// `-P`, only for commands: restore text sets a policy by [`Line::Chain`].
    SetPolicy(&'r ChainName, Policy),
    Commit,
}

impl Line<'_> {
    /// Returns the command that does the same, quoted for a POSIX shell. `program` is the iptables that has the
    /// table.
    #[must_use]
    pub fn as_command(&self, program: &str, table: TableName) -> String {
        let mut command = format!("sudo {program}");
        if table != TableName::Filter {
            command.push_str(" -t ");
            command.push_str(table.as_str());
        }
        for word in words(&self.to_string()) {
            command.push(' ');
            command.push_str(&shell_word(&value(word)));
        }
        command
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Table(table) => write!(f, "*{table}"),
            Line::Chain(name, policy) => {
                write!(f, ":{name} {} [0:0]", policy.map_or("-", Policy::as_str))
            }
            Line::Append(chain, rule) => write_rule(f, "-A ", chain, None, rule),
            Line::Insert(chain, at, rule) => write_rule(f, "-I ", chain, Some(*at), rule),
            Line::DeleteAt(chain, at) => write!(f, "-D {chain} {at}"),
            Line::Delete(chain, rule) => write_rule(f, "-D ", chain, None, rule),
            Line::Flush(chain) => write!(f, "-F {chain}"),
            Line::DeleteChain(chain) => write!(f, "-X {chain}"),
            Line::SetPolicy(chain, policy) => write!(f, "-P {chain} {policy}"),
            Line::Commit => f.write_str("COMMIT"),
        }
    }
}

/// Returns the command that deletes a rule, given its line of iptables-save. `program` is the iptables that has
/// the rule.
#[must_use]
pub fn deletion(program: &str, table: TableName, saved: &str) -> String {
    let mut command = format!("sudo {program} -t {table} -D");
    for word in words(saved).skip(1) {
        command.push(' ');
        command.push_str(&shell_word(&value(word)));
    }
    command
}

/// Returns the command by which the policy of a chain accepts. `program` is the iptables that has the chain.
#[must_use]
pub fn acceptance_by_policy(program: &str, table: TableName, chain: &ChainName) -> String {
    let line = Line::SetPolicy(chain, Policy::Accept);
    format!("{program} -t {table} {line}")
}

/// Returns the command that accepts `ICMPv6` before all other rules of a chain.
#[must_use]
pub fn acceptance_of_icmp_v6(program: &str, table: TableName, chain: &ChainName) -> String {
    format!("sudo {program} -t {table} -I {chain} -p ipv6-icmp -j ACCEPT")
}

/// A line that adds a rule, with the counters that it starts from: `[packets:bytes] -A …`. iptables-restore
/// ignores them without `--counters`. They may stand before `-I` as well, and work with `--noflush` (measured,
/// nft and legacy 1.8.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted<'r>(pub Count, pub Line<'r>);

impl fmt::Display for Counted<'_> {
    /// Prints no counters if they are 0.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counted(count, line) = self;
        if *count == Count::default() {
            return line.fmt(f);
        }
        write!(f, "[{}:{}] {line}", count.packets, count.bytes)
    }
}

/// Returns whether a line of a script adds a rule.
#[must_use]
pub fn brings_rule(line: &str) -> bool {
    let line = uncounted(line);
    line.starts_with("-A ") || line.starts_with("-I ")
}

/// Splits a line that adds a rule into the place, `-A CHAIN` or `-I CHAIN N`, and the rule. `None` for another line.
#[must_use]
pub fn place_and_rule(line: &str) -> Option<(&str, &str)> {
    let line = uncounted(line);
    let places = match line.get(..3)? {
        "-A " => 2,
        "-I " => 3,
        _ => return None,
    };
    let mut blanks = line.match_indices(' ').map(|(at, _)| at);
    let end = blanks.nth(places - 1).unwrap_or(line.len());
    Some((&line[..end], line[end..].trim_start()))
}

/// Returns a line without its counters.
#[must_use]
pub fn uncounted(line: &str) -> &str {
    let counted = line
        .strip_prefix('[')
        .and_then(|line| line.split_once("] "));
    counted.map_or(line, |(_, line)| line)
}

/// Returns whether a script sets the counters of a rule.
#[must_use]
pub fn says_counts(script: &str) -> bool {
    script.starts_with('[') || script.contains("\n[")
}

fn write_rule(
    f: &mut fmt::Formatter<'_>,
    command: &str,
    chain: &ChainName,
    place: Option<usize>,
    rule: &Rule,
) -> fmt::Result {
    f.write_str(command)?;
    f.write_str(chain.as_str())?;
    if let Some(place) = place {
        write!(f, " {place}")?;
    }
    // A rule without conditions and target, which only counts, prints nothing.
    if rule.matches.is_empty() && rule.target.is_none() {
        return Ok(());
    }
    f.write_str(" ")?;
    fmt::Display::fmt(rule, f)
}
