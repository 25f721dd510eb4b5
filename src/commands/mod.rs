//! The subcommands: each parses its input, runs an operation or a report, and prints the result.
//!
//! Reports go to standard output; warnings, notes and errors to standard error.
//!
//! The room gathers facts and prints findings; lower rooms judge them and make every change of the machine. Only
//! this room reads a spec's text.
//!
//! Start here:
//! - a new command: its arguments in `cli`, a file here, its line in [`run`];
//! - another hint or exit code: `error` and `exit`;
//! - the spec that a command is about: `spec`; the machine: `host`.

mod adopted;
mod apply;
mod boot;
mod check;
mod complete;
mod completions;
mod confirm;
mod console;
mod copy_source;
mod diff;
mod disabled;
mod doctor;
mod error;
mod exit;
mod explain;
mod failure;
mod families;
mod history;
mod host;
mod import;
mod init;
mod man;
mod markdown;
mod objects;
mod persist;
mod probe;
mod remove;
mod render;
mod schema;
mod spec;
mod status;
mod sysctl;
mod table;
mod test;
mod test_file;
mod trace;

pub use console::Console;
use error::Result;
pub use error::{Error, fail};
pub use exit::Exit;
pub use failure::{CommandRefusal, warn_of_emptied_output};
use host::HostAccess;

use crate::cli::{Cli, Command};
use crate::net::words::with_causes;

/// Runs one command.
///
/// # Errors
/// The reason why the command failed; [`fail`] prints it.
pub fn run(cli: Cli, console: &mut Console) -> Result<Exit> {
    let Cli {
        state_dir,
        backend,
        command,
        ..
    } = cli;
    let host = HostAccess {
        state_dir: state_dir.as_deref(),
        backend,
    };
    let reports = command.only_reports();
    let name = name(&command);
    let exit = match command {
        Command::Check(args) => check::run(&args, console),
        Command::Render(args) => render::run(&args, console),
        Command::Apply(args) => apply::run(&args, host, console),
        Command::Diff(args) => diff::run(&args, host, console),
        Command::Explain(args) => explain::run(&args, console),
        Command::Import(args) => import::run(&args, host, console),
        Command::Init(args) => init::run(&args, host, console),
        Command::Schema => schema::run(console),
        Command::Test(args) => test::run(&args, host, console),
        Command::Remove(args) => remove::run(&args, host, console),
        Command::Confirm(args) => confirm::run(&args, host, console),
        Command::Watchdog { id } => confirm::watch(&host.state()?, &id),
        Command::History => {
            crate::host::require_root("history")?;
            history::list(host.known_state()?.as_ref(), console)
        }
        Command::Rollback(args) => history::run(&args, host, console),
        Command::Sysctl { action } => sysctl::run(&action, host, console),
        Command::Status(args) => status::run(&args, host, console),
        Command::Doctor(args) => doctor::run(&args, host, console),
        Command::Probe(args) => probe::run(&args, console),
        Command::Trace(args) => trace::run(&args, host, console),
        Command::Boot { action } => boot::run(&action, host, console),
        Command::Persist(args) => persist::run(&args, host, console),
        Command::Completions(args) => Ok(completions::run(&args, console)),
        Command::Complete(args) => Ok(complete::run(&args, host, console)),
        Command::Man => man::run(console),
    }
    .map_err(|error| error.of_command(name))?;
    match console.finish() {
        Err(error) if reports => Err(Error::Output(error)),
        Err(error) => {
            // The command did its work; the exit code reports that.
            console.warn(format_args!(
                "the command is done, but its report could not be written: {}",
                with_causes(&error)
            ));
            Ok(exit)
        }
        Ok(()) => Ok(exit),
    }
}

/// Returns the name of a command that takes a spec, else an empty name.
fn name(command: &Command) -> &'static str {
    match command {
        Command::Check(_) => "check",
        Command::Render(_) => "render",
        Command::Apply(_) => "apply",
        Command::Diff(_) => "diff",
        Command::Explain(_) => "explain",
        Command::Test(_) => "test",
        Command::Status(_) => "status",
        Command::Doctor(_) => "doctor",
        Command::Probe(_) => "probe",
        Command::Trace(_) => "trace",
        Command::Persist(_) => "persist",
        Command::Remove(_)
        | Command::Confirm(_)
        | Command::Watchdog { .. }
        | Command::History
        | Command::Import(_)
        | Command::Init(_)
        | Command::Schema
        | Command::Rollback(_)
        | Command::Sysctl { .. }
        | Command::Boot { .. }
        | Command::Completions(_)
        | Command::Complete(_)
        | Command::Man => "",
    }
}
