//! The commands that open connections in a copy of a machine.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values::SpecArg;

#[derive(Debug, Args)]
pub struct TestArgs {
    #[command(flatten)]
    pub spec: SpecArg,

    /// Run the tests of this file too.
    #[arg(long, value_name = "FILE")]
    pub tests: Option<PathBuf>,

    /// Open the connections in a copy of this machine with the rules that are loaded now.
    ///
    /// Without it, the machine is made up from the spec, and has only the rules of the spec.
    #[arg(long)]
    pub live: bool,

    /// Print tests that hold what the spec does now, and run none.
    #[arg(long, conflicts_with_all = ["live", "tests"])]
    pub suggest: bool,

    /// Output format.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: TestFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TestFormat {
    /// A line for each test, and the path of each failed connection.
    Text,
    /// One JSON object.
    Json,
    /// `JUnit` XML, which most CI systems show.
    Junit,
    /// Annotations of a GitHub workflow.
    Github,
}
