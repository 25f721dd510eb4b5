//! Parses the arguments, sets up logging on standard error, runs, prints the error.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap::Parser as _;
use nvactl::cli::{self, Cli};
use nvactl::commands::{self, Console};
use nvactl::host;
use nvactl::net::printable::EscapedLog;
use tracing_subscriber::filter::LevelFilter;

fn main() -> ExitCode {
    // Only what goes to standard error has colours to be stripped.
    let out = io::stdout();
    let shown = out.is_terminal();
    let mut console = Console::new(Box::new(out), Box::new(anstream::stderr()), shown);
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        if error.use_stderr() && host::asked_to_render() {
            commands::warn_of_emptied_output(&mut console);
        }
        if let Some(message) = cli::meant(&error) {
            console.tell(message);
            std::process::exit(error.exit_code());
        }
        if error.use_stderr() && !host::arguments_are_printable() {
            // Without its colours, which could not be told from those of an argument.
            console.tell(error.render());
            std::process::exit(error.exit_code());
        }
        error.exit()
    });
    let level = if cli.verbose {
        LevelFilter::DEBUG
    } else {
        LevelFilter::WARN
    };
    tracing_subscriber::fmt()
        .with_writer(|| EscapedLog(io::stderr()))
        .with_max_level(level)
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .init();
    let code = match commands::run(cli, &mut console) {
        Ok(exit) => exit.code(),
        Err(error) => commands::fail(&error, &mut console),
    };
    ExitCode::from(code)
}
