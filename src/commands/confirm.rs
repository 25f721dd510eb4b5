//! `nvactl confirm`, and the asking behind `apply --confirm`.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use anyhow::Result;

use super::{Console, Exit, Host, history};
use crate::cli::Confirm;
use crate::host;
use crate::host::answer::Answers;
use crate::host::ssh_connection::advice;
use crate::ops::confirm::{Report, Standing, cancel, keep, standing, told};
use crate::ops::records::{Decision, Pending};
use crate::ops::state::State;

pub fn run(args: &Confirm, on: Host<'_>, console: &mut Console) -> Result<Exit> {
    host::require_root("confirm")?;
    let state = &on.state()?;
    if args.status {
        say_standing(standing(state)?, console);
        return Ok(Exit::Done);
    }
    let report = if args.cancel {
        cancel(state, args.lock_timeout)
    } else {
        keep(state, args.new_session, args.lock_timeout)
    };
    Ok(say(report?, console))
}

fn say_standing(standing: Standing, console: &mut Console) {
    match standing {
        Standing::Waits(pending) => console.say(told(&pending)),
        Standing::Unreadable(why) => console.say(format_args!(
            "a change waits for its confirmation, and its record says nothing to this nvactl: {why}; \
             `nvactl confirm --cancel` discards it"
        )),
        Standing::Nothing { undone } => {
            console.say("nothing is waiting for a confirmation");
            if let Some((number, action, undone)) = undone {
                console.say(format_args!(
                    "the last change, {number}, {action}, was {}",
                    history::told(&undone)
                ));
            }
        }
    }
}

fn say(report: Report, console: &mut Console) -> Exit {
    match report {
        Report::Kept {
            action,
            ended,
            full,
            from_itself,
        } => {
            if from_itself {
                console.warn(
                    "this connection comes from the machine itself, \
                     so it does not show that one from outside gets in",
                );
            }
            console.say(format_args!("confirmed: {action} stays"));
            if let Some(error) = full {
                console.warn(format_args!(
                    "the state folder takes no new files, so the next change can be neither confirmed \
                     nor rolled back: {error}"
                ));
            }
            if let Some(remark) = &ended.remark {
                console.remark(remark);
            }
            if ended.failed {
                Exit::Uncertain
            } else {
                Exit::Done
            }
        }
        Report::Undone { action, left_v6 } => {
            console.say(format_args!("undone: {action}"));
            let Some(error) = left_v6 else {
                return Exit::Done;
            };
            console.warn(format_args!(
                "IPv6 rules cannot be read or written, so they stay as the change made them: {error}"
            ));
            Exit::Uncertain
        }
        Report::Discarded { why } => {
            console.say(format_args!(
                "discarded the record of a change that waited for its confirmation: {why}"
            ));
            console.warn(
                "what that change loaded has not been undone, since nobody knows what it was; \
                 to look: sudo nvactl status; to go back behind it: sudo nvactl rollback",
            );
            Exit::Uncertain
        }
    }
}

/// Asks at a terminal whether to keep the change, while the time runs; elsewhere tells how to.
pub fn ask(state: &State, pending: &Pending, console: &mut Console) -> Result<Exit> {
    let asks = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !asks {
        console.say(told(pending));
    }
    console.note(advice(pending.ssh_connection()));
    if !asks {
        return Ok(Exit::Done);
    }
    let mut answers = Answers::listen();
    loop {
        if let Some(decision) = state.decision(&pending.id) {
            console.tell("\n");
            let (words, exit) = match decision {
                Decision::Confirmed => ("confirmed from elsewhere: it stays", Exit::Done),
                Decision::Cancelled => ("cancelled from elsewhere: it is undone", Exit::Differs),
                _ => ("nobody confirmed it in time: it is undone", Exit::Differs),
            };
            console.say(words);
            return Ok(exit);
        }
        if pending.overdue() > PATIENCE_SECS {
            console.tell("\n");
            console.say("its time is up, and nobody says that it is undone: see `nvactl status`");
            return Ok(Exit::Uncertain);
        }
        console.ask_again(format_args!("keep it? [y/N] {:>4} s ", pending.left()));
        match answers.next_within(Duration::from_secs(1)) {
            Some(answer) if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") => {
                return Ok(say(keep(state, false, LOCK_WAIT_SECS)?, console));
            }
            Some(_) => {
                say(cancel(state, LOCK_WAIT_SECS)?, console);
                return Ok(Exit::Differs);
            }
            None => {}
        }
    }
}

const LOCK_WAIT_SECS: u64 = 30;
/// How long after its time is up a change may take to be undone: 10,000 forwards take some time.
const PATIENCE_SECS: u64 = 90;

/// Runs the process that undoes a change if nobody confirms it.
pub fn watch(state: &State, id: &str) -> Result<Exit> {
    crate::ops::watch(state, id)?;
    Ok(Exit::Done)
}
