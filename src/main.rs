//! Parses the arguments, sets up logging on standard error, runs, prints the error.

use std::process::ExitCode;

use clap::Parser as _;
use nvactl::cli::Cli;
use nvactl::commands::{self, Console};
use tracing_subscriber::filter::LevelFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = if cli.verbose {
        LevelFilter::DEBUG
    } else {
        LevelFilter::WARN
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(level)
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .init();
    let mut console = Console {
        out: Box::new(anstream::stdout()),
        err: Box::new(anstream::stderr()),
    };
    let code = match commands::run(cli.command, &mut console) {
        Ok(exit) => exit.code(),
        Err(error) => console.fail(&error),
    };
    ExitCode::from(code)
}
