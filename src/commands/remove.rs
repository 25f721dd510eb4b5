//! `nvactl remove`: removes nvactl's rules.

use super::console::Console;
use super::error::Result;
use super::exit::Exit;
use super::host::HostAccess;
use crate::cli::Remove;
use crate::host::{self, boot_unit};
use crate::net::words::counted;
use crate::ops::ChangeOutcome;
use crate::ops::remove::{RemoveRequest, remove};

pub fn run(args: &Remove, on: HostAccess<'_>, console: &mut Console) -> Result<Exit> {
    host::require_root("remove")?;
    let request = RemoveRequest {
        dry_run: args.dry_run,
        accept: args.forward_policy.is_some(),
    };
    let machine = on.machine_unless_dry(args.dry_run, args.lock_timeout.secs)?;
    let report = remove(request, &machine)?;
    console.remarks(&report.remarks);
    match &report.outcome {
        ChangeOutcome::Unchanged => console.say("no changes: nvactl's rules are not loaded"),
        ChangeOutcome::Would(difference) => console.print(&difference.lines),
        ChangeOutcome::Made { difference, .. } => {
            console.say(format_args!(
                "removed {}",
                counted(difference.removed, "rule")
            ));
        }
    }
    console.remarks(&report.after);
    if let ChangeOutcome::Made { .. } = report.outcome
        && let Some(command) = boot_unit::stops_checks()
    {
        console.note(format_args!(
            "nvactl-check.timer still checks the rules every minute, and loads none; to stop it: {command}"
        ));
    }
    Ok(match report.outcome {
        ChangeOutcome::Would(_) => Exit::Differs,
        _ if report.partly => Exit::Uncertain,
        _ => Exit::Done,
    })
}
