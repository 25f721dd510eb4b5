//! The commands that write a spec.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::kubernetes::KubeName;

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The rules: live for those of this machine, a file, or - for standard input.
    ///
    /// A file has iptables-save text of one family or both, or lines that begin with iptables or ip6tables.
    #[arg(value_name = "live|FILE|-", default_value = "live")]
    pub rules: PathBuf,

    /// Write the spec to this file, which must not exist yet, instead of standard output (-).
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Exit with 1 if the old rules and the spec treat a connection differently and no remark explains it, or a connection
    /// was not compared.
    #[arg(long, conflicts_with = "no_proof")]
    pub strict: bool,

    /// Write a forward for each port of each internal load balancer in this file, instead of rules.
    ///
    /// The file is JSON of `kubectl get services --all-namespaces -o json`, or - for standard input.
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["rules", "strict", "no_proof"])]
    pub kubernetes: Option<PathBuf>,

    /// Only this Service. May be repeated.
    #[arg(long, value_name = "NAMESPACE/NAME", requires = "kubernetes")]
    pub select: Vec<KubeName>,

    /// Open no connections through copies of the machine.
    #[arg(long)]
    pub no_proof: bool,

    /// Output format of the report.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: ImportFormat,
}

#[derive(Debug, Args)]
pub struct InitArgs {
    /// Write the spec to this file, which must not exist yet, instead of standard output (-).
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl ImportArgs {
    /// Returns the file that the spec goes to; `None` for standard output.
    #[must_use]
    pub fn output(&self) -> Option<&Path> {
        named_file(self.output.as_deref())
    }
}

impl InitArgs {
    /// Returns the file that the spec goes to; `None` for standard output.
    #[must_use]
    pub fn output(&self) -> Option<&Path> {
        named_file(self.output.as_deref())
    }
}

/// Returns a file that the user has named. `-` is standard output, as it is standard input elsewhere.
fn named_file(path: Option<&Path>) -> Option<&Path> {
    path.filter(|path| *path != Path::new("-"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImportFormat {
    /// The spec, and a table of all rules.
    Text,
    /// One JSON object, which holds the spec too.
    Json,
}
