//! The commands that read a spec and change nothing.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use thiserror::Error;

use super::values::{SpecArg, family, number};
use crate::net::Family;
use crate::yaml::{Code, CodeError, Severity};

#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub spec: SpecArg,

    /// Exit 1 if the spec has this warning, or `all` for any warning. May be repeated.
    #[arg(long, value_name = "WARNING|all")]
    pub deny: Vec<Deny>,

    /// Print notes as well.
    #[arg(long)]
    pub notes: bool,

    /// Warn of targets that the objects in this file do not have.
    ///
    /// The file is JSON of `kubectl get services,endpoints,pods --all-namespaces -o json`, or - for standard input.
    #[arg(long, value_name = "FILE|-")]
    pub kubernetes: Option<PathBuf>,

    /// Output format: text on standard error, json and github on standard output.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: CheckFormat,

    /// List every code and its meaning.
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

/// The value of `--deny`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deny {
    All,
    Code(Code),
}

#[derive(Debug, Error)]
pub enum DenyError {
    #[error(transparent)]
    Unknown(#[from] CodeError),
    #[error("`{0}` is not a warning")]
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
    pub spec: SpecArg,

    /// The family of the rules: v4 for iptables-restore, v6 for ip6tables-restore [default: v4].
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
pub struct Diff {
    #[command(flatten)]
    pub spec: SpecArg,

    /// Compare with `live`, or with a FILE: another spec, or text of iptables-save; - for standard input.
    #[arg(long, value_name = "live|FILE|-", default_value = "live")]
    pub against: Against,

    /// Compare only one family [default: the family of the rules file, else both].
    #[arg(long, value_name = "v4|v6", value_parser = family)]
    pub family: Option<Family>,

    /// Show the rules as a unified diff as well.
    #[arg(long)]
    pub rules: bool,

    /// Output format.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: DiffFormat,
}

/// The value of `--against`. A file called `live` is `./live`. The path `-` is standard input.
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
    pub spec: SpecArg,

    /// Only the rule with this number.
    #[arg(long, value_name = "N", value_parser = number::<usize>, conflicts_with = "forward")]
    pub rule: Option<usize>,

    /// Only the rules of this forward or outbound entry.
    #[arg(long, value_name = "NAME")]
    pub forward: Option<String>,

    /// Output format.
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
