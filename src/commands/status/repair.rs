//! `nvactl status --repair`: the words of a repair.

use crate::commands::console::Console;
use crate::commands::error::Result;
use crate::commands::exit::Exit;
use crate::commands::host::HostAccess;
use crate::health::status::RepairCount;
use crate::ops::repair::{MOST_REPAIRS, RepairOutcome, repair};
use crate::ops::state::State;

/// Loads the saved rules again if nvactl's rules are gone, and reports it in one line for the journal.
pub(super) fn run(on: HostAccess<'_>, console: &mut Console) -> Result<Exit> {
    // A machine without a state folder has no saved rules, and must not get a folder.
    if on.known_state()?.is_none() {
        return Ok(Exit::Done);
    }
    // A timer runs this again soon, so it does not wait for another nvactl.
    let report = repair(&on.machine(0)?)?;
    console.remarks(&report.remarks);
    Ok(match report.outcome {
        RepairOutcome::NotNeeded => Exit::Done,
        RepairOutcome::Postponed(why) => {
            console.note(format_args!("no repair in this run: {why}"));
            Exit::Done
        }
        RepairOutcome::NothingSaved { gone } => {
            console.warn(not_saved(&gone));
            Exit::Differs
        }
        RepairOutcome::Changed { gone } => {
            console.warn(format_args!(
                "nvactl's rules are gone ({gone}) and stay so: others were changed by hand, and a repair would undo that; \
                 to see the changes: sudo nvactl diff; to load the rules of the spec: sudo nvactl apply"
            ));
            Exit::Differs
        }
        RepairOutcome::OtherBackend { saved, other } => {
            console.warn(format_args!(
                "nvactl's rules are gone from {saved} and are not loaded again, because {other} is in use or has rules of \
                 nvactl; to save the rules that are loaded: sudo nvactl boot enable; to use the saved ones, add: \
                 --backend {saved}"
            ));
            Exit::Differs
        }
        RepairOutcome::Braked { gone, wait_secs } => {
            console.warn(format_args!(
                "nvactl's rules are gone ({gone}) and stay so: there were {MOST_REPAIRS} repairs within an hour, so another \
                 program keeps removing the rules; the next repair is possible in {} min; to load the rules now: \
                 sudo nvactl apply",
                wait_secs.div_ceil(60)
            ));
            Exit::Differs
        }
        RepairOutcome::Done { gone, saved, left } => {
            console.warn(format_args!(
                "nvactl's rules were gone ({gone}): the rules saved at {saved} are loaded again"
            ));
            match left {
                Some(left) => {
                    console.warn(not_saved(&left));
                    Exit::Differs
                }
                None => Exit::Done,
            }
        }
    })
}

fn not_saved(gone: &str) -> String {
    format!(
        "nvactl's rules are gone ({gone}), and the rules that were loaded last are not saved; to load and save them: \
         sudo nvactl apply && sudo nvactl boot enable"
    )
}

/// Returns the number of repairs; `None` if its record cannot be read.
pub(super) fn count(state: Option<&State>) -> Option<RepairCount> {
    let repairs = state.map(State::repairs).transpose().ok()?;
    let repairs = repairs.unwrap_or_default();
    Some(RepairCount {
        total: repairs.total,
        braked: repairs.braked,
    })
}
