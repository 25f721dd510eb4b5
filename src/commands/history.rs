//! `nvactl history` and `nvactl rollback`: lists the changes, and goes back to before one.

use super::apply::say_forwards;
use super::console::Console;
use super::error::Result;
use super::exit::Exit;
use super::host::HostAccess;
use crate::cli::Rollback;
use crate::diff::drift::ForwardNames;
use crate::host;
use crate::net::words::{counted, names};
use crate::ops::ChangeOutcome;
use crate::ops::history::{is_repair, moment, undone_words, unreadable};
use crate::ops::records::Change;
use crate::ops::rollback::{RollbackRequest, rollback};
use crate::ops::state::State;

pub fn list(state: Option<&State>, console: &mut Console) -> Result<Exit> {
    let Some(state) = state else {
        console.say("no changes yet");
        return Ok(Exit::Done);
    };
    for notice in &state.notices {
        console.warn(notice);
    }
    let changes = state.changes()?;
    if changes.is_empty() {
        console.say("no changes yet");
    }
    for (n, (number, change)) in changes.iter().enumerate() {
        console.say(line(*number, change, is_repair(&changes[n..])));
    }
    for line in unreadable(state, &changes)? {
        console.warn(line);
    }
    for other in state.others()? {
        console.say(format_args!(
            "the history of another network namespace ({other}) is in {}",
            state.folder().join("history").join(&other).display()
        ));
    }
    Ok(Exit::Done)
}

fn line(number: u64, change: &Change, is_repair: bool) -> String {
    let mut line = format!("{number:>3}  {}  {}", moment(change.time), change.action);
    // Records of 0.1.0 name no forwards.
    let is_known = change.loaded.is_some();
    match (is_repair, change.forwards.is_empty()) {
        (true, true) => line.push_str(": repaired"),
        (true, false) => line.push_str(&format!(": repaired ({})", moved(&change.forwards))),
        (false, true) if is_known => line.push_str(": ~ (firewall)"),
        (false, true) => {}
        (false, false) => line.push_str(&format!(": {}", moved(&change.forwards))),
    }
    if let Some(who) = &change.who {
        line.push_str(&format!("; by {who}"));
    }
    if let Some(undone) = &change.undone {
        line.push_str(&format!("; {}", undone_words(undone)));
    }
    line
}

/// Names the added, changed and removed forwards.
pub fn moved(forwards: &ForwardNames) -> String {
    let signed = [
        ('+', &forwards.added),
        ('~', &forwards.changed),
        ('-', &forwards.removed),
    ];
    let some = signed.iter().filter(|(_, list)| !list.is_empty());
    let each =
        some.map(|(sign, list)| format!("{sign} {}", names(list.iter().map(String::as_str))));
    each.collect::<Vec<_>>().join("; ")
}

pub fn run(args: &Rollback, on: HostAccess<'_>, console: &mut Console) -> Result<Exit> {
    host::require_root("rollback")?;
    let request = RollbackRequest {
        before: args.number,
        dry_run: args.dry_run,
    };
    let machine = on.machine_unless_dry(args.dry_run, args.lock_timeout.secs)?;
    let report = rollback(request, &machine)?;
    console.remarks(&report.remarks);
    let (number, action) = &report.undone;
    let partly = if report.partly {
        Exit::Uncertain
    } else {
        Exit::Done
    };
    let difference = match &report.outcome {
        ChangeOutcome::Unchanged => {
            console.say(format_args!(
                "no changes: the rules from before change {number} ({action}) are loaded already"
            ));
            console.remarks(&report.after);
            return Ok(partly);
        }
        ChangeOutcome::Would(difference) | ChangeOutcome::Made { difference, .. } => difference,
    };
    say_forwards(difference, console);
    if args.dry_run {
        console.print(&difference.lines);
        console.remarks(&report.after);
        return Ok(Exit::Differs);
    }
    console.say(format_args!(
        "restored the rules from before change {number} ({action}): {} added, {} removed",
        counted(difference.added, "rule"),
        counted(difference.removed, "rule")
    ));
    console.remarks(&report.after);
    Ok(partly)
}
