//! `nvactl remove`: removes what nvactl owns.

use super::console::Console;
use super::error::Result;
use super::exit::Exit;
use super::host::Host;
use crate::cli::Remove;
use crate::host;
use crate::net::words::counted;
use crate::ops::Outcome;
use crate::ops::remove::{Request, remove};

pub fn run(args: &Remove, on: Host<'_>, console: &mut Console) -> Result<Exit> {
    host::require_root("remove")?;
    let request = Request {
        dry_run: args.dry_run,
        accept: args.forward_policy.is_some(),
    };
    let machine = on.machine_unless_dry(args.dry_run, args.lock_timeout)?;
    let report = remove(request, &machine)?;
    console.remarks(&report.remarks);
    match &report.outcome {
        Outcome::Unchanged => console.say("no changes: nothing of nvactl's is loaded"),
        Outcome::Would(difference) => console.print(&difference.lines),
        Outcome::Made { difference, .. } => {
            console.say(format_args!(
                "removed {}",
                counted(difference.removed, "rule")
            ));
        }
    }
    console.remarks(&report.after);
    Ok(match report.outcome {
        Outcome::Would(_) => Exit::Differs,
        _ if report.partly => Exit::Uncertain,
        _ => Exit::Done,
    })
}
