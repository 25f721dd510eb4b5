//! Reads iptables-save text: the one place that reads iptables syntax.
//!
//! What nvactl does not know inside a rule is kept word for word; what is not iptables-save text at
//! all is an error with its line.

mod listed;
mod rule;

use std::borrow::Cow;
use std::collections::BTreeSet;

pub use listed::parse_listed;
pub use rule::negated;
use rule::read_rule;
use thiserror::Error;

use crate::counters::{Count, Counters};
use crate::rule::Rule;
use crate::ruleset::{ChainName, Policy, Ruleset, TableName};
use crate::token::{value, words};

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {problem}: `{text}`")]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    pub text: String,
    pub problem: ParseProblem,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseProblem {
    #[error("not a line of iptables-save text")]
    NotALine,
    #[error("a table that no kernel has")]
    UnknownTable,
    #[error("a table that the file has had already")]
    TableTwice,
    #[error("a table begins before COMMIT has ended the one before")]
    NoCommit,
    #[error("stands outside of a table")]
    OutsideTable,
    #[error("the text ends before COMMIT, as if it had been cut")]
    CutOff,
}

/// What iptables-save printed, as text. A comment may hold any bytes.
#[must_use]
pub fn text_of(saved: &[u8]) -> Cow<'_, str> {
    // It seldom does, and looking is several times cheaper than replacing.
    str::from_utf8(saved).map_or_else(|_| String::from_utf8_lossy(saved), Cow::Borrowed)
}

/// Reads a whole text into a ruleset.
///
/// # Errors
/// [`ParseError`] for the first line that iptables-save cannot have printed.
pub fn parse(text: &str) -> Result<Ruleset, ParseError> {
    Ok(parse_counted(text)?.0)
}

/// Reads what `iptables-save -c` prints: the rules, and how often each has matched.
///
/// # Errors
/// As [`parse`].
pub fn parse_counted(text: &str) -> Result<(Ruleset, Counters), ParseError> {
    let mut growing = Growing::default();
    text.lines().try_for_each(|line| growing.read(line))?;
    growing.finish()
}

/// The rules of a text that comes line by line.
#[derive(Debug, Default)]
pub struct Growing {
    reader: Reader,
    ruleset: Ruleset,
    counters: Counters,
}

impl Growing {
    /// Reads the next line, with its end or without.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn read(&mut self, line: &str) -> Result<(), ParseError> {
        match self.reader.read(line)? {
            Read::Nothing | Read::Commit => {}
            Read::Table(table) => {
                self.ruleset.tables.entry(table).or_default();
            }
            Read::Chain(table, name, policy) => {
                self.ruleset.chain_mut(table, name).policy = policy;
            }
            Read::Rule(table, name, rule) => {
                let count = count_of(line).unwrap_or_default();
                self.counters.push(table, &name, count);
                self.ruleset.chain_mut(table, name).rules.push(rule);
            }
        }
        Ok(())
    }

    /// What has been read, when there is no more.
    ///
    /// # Errors
    /// As [`Reader::finish`].
    pub fn finish(self) -> Result<(Ruleset, Counters), ParseError> {
        self.reader.finish()?;
        Ok((self.ruleset, self.counters))
    }
}

/// `[packets:bytes]`, with which a line of `iptables-save -c` begins.
fn count_of(line: &str) -> Option<Count> {
    let (count, _) = line.trim_ascii().strip_prefix('[')?.split_once(']')?;
    let (packets, bytes) = count.split_once(':')?;
    Some(Count {
        packets: packets.parse().ok()?,
        bytes: bytes.parse().ok()?,
    })
}

/// What one line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// A comment or an empty line.
    Nothing,
    Table(TableName),
    Chain(TableName, ChainName, Option<Policy>),
    Rule(TableName, ChainName, Rule),
    Commit,
}

/// Reads a text line by line, for those who must keep the lines themselves.
#[derive(Debug, Default)]
pub struct Reader {
    line: usize,
    /// The table that is open, and its user-defined chains: they tell a jump from a target.
    open: Option<(TableName, BTreeSet<ChainName>)>,
    seen: BTreeSet<TableName>,
}

impl Reader {
    /// Reads the next line, with its end or without.
    ///
    /// # Errors
    /// [`ParseError`] when it cannot stand there in iptables-save text.
    pub fn read(&mut self, text: &str) -> Result<Read, ParseError> {
        self.line += 1;
        let text = text.trim_ascii();
        self.read_line(text).map_err(|problem| ParseError {
            line: self.line,
            text: text.to_owned(),
            problem,
        })
    }

    fn read_line(&mut self, text: &str) -> Result<Read, ParseProblem> {
        if text.is_empty() || text.starts_with('#') {
            return Ok(Read::Nothing);
        }
        if let Some(table) = text.strip_prefix('*') {
            let table = table.parse().map_err(|_| ParseProblem::UnknownTable)?;
            if self.open.is_some() {
                return Err(ParseProblem::NoCommit);
            }
            if !self.seen.insert(table) {
                return Err(ParseProblem::TableTwice);
            }
            self.open = Some((table, BTreeSet::new()));
            return Ok(Read::Table(table));
        }
        let (table, chains) = self.open.as_mut().ok_or(ParseProblem::OutsideTable)?;
        if text == "COMMIT" {
            self.open = None;
            return Ok(Read::Commit);
        }
        if let Some(declaration) = text.strip_prefix(':') {
            let mut words = declaration.split_ascii_whitespace();
            let (Some(name), Some(policy)) = (words.next(), words.next()) else {
                return Err(ParseProblem::NotALine);
            };
            let name = ChainName::from(name);
            let policy = match policy {
                "-" => None,
                "ACCEPT" => Some(Policy::Accept),
                "DROP" => Some(Policy::Drop),
                _ => return Err(ParseProblem::NotALine),
            };
            if !name.is_builtin() {
                chains.insert(name.clone());
            }
            return Ok(Read::Chain(*table, name, policy));
        }
        // More than most rules have.
        let mut all = Vec::with_capacity(48);
        all.extend(words(text));
        // `iptables-save -c` puts the rule's counters first: `[packets:bytes] -A …`.
        let words = match all.as_slice() {
            [count, words @ ..] if count.starts_with('[') => words,
            words => words,
        };
        match words {
            ["-A", chain, rule @ ..] if !chain.contains(['"', '\\']) => {
                let chain = ChainName::from(*chain);
                Ok(Read::Rule(*table, chain, read_rule(rule, chains)))
            }
            _ => Err(ParseProblem::NotALine),
        }
    }

    /// To be called behind the last line.
    ///
    /// # Errors
    /// [`ParseError`] when a table is still open: then the text has been cut short.
    pub fn finish(self) -> Result<(), ParseError> {
        match self.open {
            None => Ok(()),
            Some((table, _)) => Err(ParseError {
                line: self.line,
                text: format!("*{table}"),
                problem: ParseProblem::CutOff,
            }),
        }
    }
}

/// The comment of the rule that a line brings: the name of a forward where the rule is nvactl's.
#[must_use]
pub fn comment_of(line: &str) -> Option<String> {
    let mut words = words(line).skip_while(|word| *word != "--comment");
    words.nth(1).map(|word| value(word).into_owned())
}
