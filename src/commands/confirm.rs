//! `nvactl confirm`, and the asking behind `apply --confirm`.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use super::console::Console;
use super::error::Result;
use super::exit::Exit;
use super::host::Host;
use crate::cli::Confirm;
use crate::host;
use crate::host::answer::Answers;
use crate::host::ssh_connection::advice;
use crate::ops::confirm::{Report, Standing, cancel, keep, standing, unreadable};
use crate::ops::records::{Decision, Pending};
use crate::ops::state::State;
use crate::ops::waiting::told;
use crate::ops::{Error, Refusal, describe};

pub fn run(args: &Confirm, on: Host<'_>, console: &mut Console) -> Result<Exit> {
    host::require_root("confirm")?;
    let state = &on.state()?;
    for notice in &state.notices {
        console.warn(notice);
    }
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
        Standing::Unreadable(why) => console.say(unreadable(&why)),
        Standing::Nothing { last } => {
            console.say("nothing is waiting for a confirmation");
            if let Some(last) = last {
                console.say(last);
            }
        }
    }
}

fn say(report: Report, console: &mut Console) -> Exit {
    match report {
        Report::Kept {
            action,
            ended,
            changed_since,
            full,
            from_itself,
            after,
        } => {
            if changed_since {
                console.warn(
                    "nvactl's rules are not those that the change made any more; \
                     to see what differs: sudo nvactl status",
                );
            }
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
            console.remarks(&after);
            if ended.failed || changed_since {
                Exit::Uncertain
            } else {
                Exit::Done
            }
        }
        Report::Undone { action, undone } => {
            console.say(format_args!("undone: {action}"));
            let whole = undone.left_v6.is_none() && !undone.unverified;
            if let Some(error) = undone.left_v6 {
                console.warn(format_args!(
                    "IPv6 rules can be neither read nor written, so they stay as the change made them: {}",
                    describe(&error)
                ));
            }
            if undone.unverified {
                console.warn("what was loaded could not be read back; to look: sudo iptables-save");
            }
            if let Some(error) = &undone.full {
                console.warn(format_args!(
                    "the state folder takes no new files, so the history does not say that it is undone: \
                     {error}"
                ));
            }
            if let Some(error) = &undone.unrecorded {
                console.warn(format_args!(
                    "that it is undone could not be recorded: {error}"
                ));
            }
            if whole && undone.unrecorded.is_none() {
                Exit::Done
            } else {
                Exit::Uncertain
            }
        }
        Report::Discarded { why } => {
            console.say(format_args!(
                "discarded the record of a change that waited for its confirmation: {why}"
            ));
            console.warn(
                "what that change loaded has not been undone, since nobody knows what it was; \
                 to see the changes that can be rolled back: sudo nvactl history",
            );
            Exit::Uncertain
        }
    }
}

/// Asks at a terminal whether to keep the change, while the time runs; elsewhere says how to.
///
/// # Errors
/// None that leaves the change undecided without a word.
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
            console.say(
                "its time is up and the undo is not recorded: the change may still be loaded; \
                 to look: sudo nvactl confirm --status",
            );
            return Ok(Exit::Uncertain);
        }
        console.ask_again(format_args!("keep it? [y/N] {:>4} s ", pending.left()));
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
            // Somebody else has decided: the record says how.
            Err(Error::Refusal(Refusal::NothingPending { .. })) => {}
            // The change is loaded, so this is no error after which nothing has changed.
            Err(error) => {
                console.error(describe(&error));
                console.say(told(pending));
                return Ok(Exit::Uncertain);
            }
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
