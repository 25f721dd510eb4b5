//! `nvactl confirm`, and the question of `apply --confirm`.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use super::console::Console;
use super::error::Result;
use super::exit::Exit;
use super::host::HostAccess;
use crate::cli::Confirm;
use crate::host;
use crate::host::answer::TypedLines;
use crate::host::signals::Held;
use crate::host::ssh_connection::advice;
use crate::ops::confirm::{ConfirmReport, Standing, cancel, keep, standing};
use crate::ops::records::{Decision, Pending};
use crate::ops::state::State;
use crate::ops::waiting::{choices, told};
use crate::ops::{Error, Refusal, describe};

pub fn run(args: &Confirm, on: HostAccess<'_>, console: &mut Console) -> Result<Exit> {
    host::require_root("confirm")?;
    let state = &on.state()?;
    for notice in &state.notices {
        console.warn(notice);
    }
    if args.status {
        say_standing(state, standing(state)?, console);
        return Ok(Exit::Done);
    }
    let report = if args.cancel {
        cancel(state, args.lock_timeout.secs)
    } else {
        keep(state, args.new_session, args.lock_timeout.secs)
    };
    Ok(say(report?, console))
}

fn say_standing(state: &State, standing: Standing, console: &mut Console) {
    match standing {
        Standing::Waits(pending) => say_pending(state, &pending, console),
        Standing::Unreadable(why) => {
            let refusal = Refusal::UnreadablePending { why };
            console.say(&refusal);
            console.say(refusal.hint().unwrap_or_default());
        }
        Standing::Nothing { last } => {
            console.say("nothing is waiting for a confirmation");
            if let Some(last) = last {
                console.say(last);
            }
        }
    }
}

/// Prints the change that waits, and below it the commands that decide on it.
fn say_pending(state: &State, pending: &Pending, console: &mut Console) {
    console.say(told(state, pending));
    for choice in choices(pending) {
        console.say(choice);
    }
}

fn say(report: ConfirmReport, console: &mut Console) -> Exit {
    match report {
        ConfirmReport::Kept {
            action,
            ended,
            changed_since,
            full,
            from_itself,
            after,
        } => {
            if changed_since {
                console.warn(
                    "nvactl's rules were changed after this change was applied; \
                     to see the differences: sudo nvactl status",
                );
            }
            if from_itself {
                console.warn(
                    "this SSH connection comes from the machine itself, \
                     so it does not prove that you get in from outside",
                );
            }
            console.say(format_args!("confirmed: {action} stays"));
            if let Some(error) = full {
                console.warn(format_args!(
                    "no new file can be written in the state folder, so the next change can be neither \
                     confirmed nor rolled back: {error}"
                ));
            }
            for ended in &ended {
                console.remark(&ended.remark);
            }
            console.remarks(&after);
            if changed_since || ended.iter().any(|ended| ended.failed) {
                Exit::Uncertain
            } else {
                Exit::Done
            }
        }
        ConfirmReport::Undone { action, undone } => {
            console.say(format_args!("undone: {action}"));
            if let Some(ended) = &undone.ended {
                console.say(ended);
            }
            let whole = undone.left_v6.is_none()
                && !undone.unverified
                && undone.connections.is_none()
                && undone.left_rules.is_empty();
            if let Some(error) = undone.left_v6 {
                console.warn(format_args!(
                    "only IPv4 was undone: IPv6 rules can be neither read nor written, and stay as the change \
                     made them: {}",
                    describe(&error)
                ));
            }
            if undone.unverified {
                console.warn(
                    "the restored rules could not be read back; to check them: sudo iptables-save",
                );
            }
            for left in &undone.left_rules {
                console.warn(left);
            }
            if let Some(left) = &undone.connections {
                console.warn(format_args!("the rules are restored, but {left}"));
            }
            if let Some(error) = &undone.full {
                console.warn(format_args!(
                    "no new file can be written in the state folder, so the history does not show the undo: \
                     {error}"
                ));
            }
            if let Some(error) = &undone.unrecorded {
                console.warn(format_args!(
                    "the change is undone, but this could not be recorded: {error}"
                ));
            }
            if whole && undone.unrecorded.is_none() {
                Exit::Done
            } else {
                Exit::Uncertain
            }
        }
        ConfirmReport::Discarded { why } => {
            console.say(format_args!(
                "discarded the record of a change that waited for its confirmation: {why}"
            ));
            console.warn(
                "the rules of that change were not undone, because its record cannot be read; \
                 to see the changes that can be rolled back: sudo nvactl history",
            );
            Exit::Uncertain
        }
    }
}

/// Asks at a terminal whether to keep the change, until its time is up. Without a terminal, or if the change
/// cannot be confirmed, prints the commands.
///
/// # Errors
/// None: a failed decision is printed, and the change still waits.
pub fn ask(state: &State, pending: &Pending, console: &mut Console) -> Result<Exit> {
    if !pending.can_be_kept() {
        say_pending(state, pending, console);
        return Ok(Exit::Uncertain);
    }
    let asks = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !asks {
        say_pending(state, pending, console);
    }
    console.note(advice(pending.ssh_connection()));
    if !asks {
        return Ok(Exit::Done);
    }
    let mut answers = TypedLines::listen();
    // Ctrl-C is no answer: the change still waits.
    let held = Held::hold_ends().ok();
    loop {
        if held.as_ref().is_some_and(Held::came) {
            console.tell("\n");
            say_pending(state, pending, console);
            return Ok(Exit::Uncertain);
        }
        if let Some(decision) = state.decision(&pending.id) {
            console.tell("\n");
            let (words, exit) = match decision {
                Decision::Confirmed => {
                    ("confirmed in another session: the change stays", Exit::Done)
                }
                Decision::Cancelled => (
                    "cancelled in another session: the change is undone",
                    Exit::Differs,
                ),
                _ => ("not confirmed in time: the change is undone", Exit::Differs),
            };
            console.say(words);
            return Ok(exit);
        }
        if pending.overdue() > PATIENCE_SECS {
            console.tell("\n");
            console.say(
                "the time is up, but no undo is recorded: the change may still be loaded; \
                 to check: sudo nvactl confirm --status",
            );
            return Ok(Exit::Uncertain);
        }
        console.ask_again(format_args!(
            "keep the change? [y/N] {:>4} s ",
            pending.left()
        ));
        let Some(answer) = answers.next_within(Duration::from_secs(1)) else {
            continue;
        };
        let keeps = matches!(answer.trim().to_lowercase().as_str(), "y" | "yes");
        let report = if keeps {
            keep(state, false, LOCK_WAIT_SECS)
        } else {
            cancel(state, LOCK_WAIT_SECS)
        };
        match report {
            Ok(report) => {
                let exit = say(report, console);
                let undone = if exit == Exit::Done {
                    Exit::Differs
                } else {
                    exit
                };
                return Ok(if keeps { exit } else { undone });
            }
            // Another session has decided: the record shows how.
            Err(Error::Refusal(Refusal::NothingPending { .. })) => {}
            // The change is loaded, so the exit code must not claim that nothing has changed.
            Err(error) => {
                console.error(describe(&error));
                say_pending(state, pending, console);
                return Ok(Exit::Uncertain);
            }
        }
    }
}

const LOCK_WAIT_SECS: u64 = 30;
/// The most seconds that an undo may take after the time is up: 10,000 forwards take some time.
const PATIENCE_SECS: u64 = 90;

/// Runs the watchdog, which undoes a change unless it is confirmed.
pub fn watch(state: &State, id: &str) -> Result<Exit> {
    crate::ops::watch(state, id)?;
    Ok(Exit::Done)
}
