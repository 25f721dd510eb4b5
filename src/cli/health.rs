//! The commands that report the state of forwards.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values::{SpecArg, positive, seconds};
use crate::host::probe::Expect;

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub spec: SpecArg,

    /// Exit 1 unless the live rules are what the spec says and packets reach nvactl's jumps.
    #[arg(long)]
    pub check: bool,

    /// First load the saved rules again if nvactl's rules are gone, at most three times an hour.
    ///
    /// Rules are gone if another program has removed or emptied nvactl's chains, or removed the jumps to them. Other
    /// differences are only reported. The saved rules are those of `boot enable` and `persist`.
    #[arg(long)]
    pub repair: bool,

    /// Also write the metrics to FILE for the textfile collector of `node_exporter`, atomically.
    ///
    /// The name must end in .prom. If the folder does not exist, nothing is written. If the status cannot be read, FILE
    /// has `nvactl_up 0`.
    #[arg(long, value_name = "FILE", overrides_with = "textfile", value_parser = textfile)]
    pub textfile: Option<PathBuf>,

    /// Output format.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: StatusFormat,
}

/// Reads the path of a file that the collector reads.
fn textfile(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let is_read = path.extension().is_some_and(|end| end == "prom");
    is_read
        .then_some(path)
        .ok_or_else(|| "the collector reads only names that end in .prom".to_owned())
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
    pub spec: SpecArg,

    /// Check only this forward or outbound entry.
    #[arg(long, value_name = "NAME")]
    pub forward: Option<String>,

    /// How long a target may take to answer: `0.5`, `30s`, `1m`.
    #[arg(long, value_name = "TIME", default_value = "4", value_parser = seconds)]
    pub timeout: f64,

    /// How long the whole run may take, such as `30s` or `2m`: checks that are not done by then are reported
    /// as unknown.
    #[arg(long, value_name = "TIME", default_value = "60", value_parser = seconds)]
    pub deadline: f64,

    /// Do not open connections in a copy of this machine, which needs network namespaces.
    #[arg(long)]
    pub no_twin: bool,

    /// Output format.
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
    pub spec: SpecArg,

    /// Connect to every listen port at this address or name, instead of to the targets.
    #[arg(long, value_name = "ADDRESS")]
    pub via: Option<String>,

    /// The expected answer: tcp for a connection, http for a status below 400, 'http 200' for this status.
    /// Ignored for UDP.
    #[arg(long, value_name = "tcp|http|'http 200'", default_value = "tcp")]
    pub expect: Expect,

    /// How long each try may take: `0.5`, `30s`, `1m`.
    #[arg(long, value_name = "TIME", default_value = "2", value_parser = seconds)]
    pub timeout: f64,

    /// How often each port is tried.
    #[arg(long, value_name = "N", default_value = "1", value_parser = positive::<NonZeroU32>)]
    pub count: NonZeroU32,

    /// How many ports are tried at once.
    #[arg(long, value_name = "N", default_value = "256", value_parser = positive::<NonZeroUsize>)]
    pub jobs: NonZeroUsize,

    /// Output format.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: ProbeFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProbeFormat {
    /// A line for each forward, or more if its ports differ.
    Text,
    /// One JSON object.
    Json,
}
