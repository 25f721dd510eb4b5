//! `nvactl confirm`, and the asking behind `apply --confirm`.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::{Console, Exit, Host, Refusal, connections};
use crate::cli::Confirm;
use crate::host::pending::{self, Decision, Pending};
use crate::host::state::State;
use crate::host::{self, lock, watchdog};

pub fn run(args: &Confirm, on: Host<'_>, console: &mut Console) -> Result<Exit> {
    host::require_root("confirm")?;
    let state = &on.state()?;
    let waiting = pending::pending(state)?;
    if args.status {
        match waiting {
            Some(pending) => console.say(told(&pending)),
            None => console.say("nothing is waiting for a confirmation"),
        }
        return Ok(Exit::Done);
    }
    let Some(pending) = waiting else {
        return Err(Refusal::NothingPending.into());
    };
    if args.cancel {
        cancel(state, &pending, args.lock_timeout, console)
    } else {
        keep(state, &pending, args.lock_timeout, console)
    }
}

/// A change that waits, in a line.
pub fn told(pending: &Pending) -> String {
    let action = &pending.before.action;
    if pending.left() == 0 {
        return format!(
            "{action} was not confirmed in time and is not undone yet; \
             `nvactl confirm --cancel` undoes it now"
        );
    }
    format!(
        "{action} waits for its confirmation: undone in {} s unless `nvactl confirm` comes; \
         `nvactl confirm --cancel` undoes it at once",
        pending.left()
    )
}

/// The change that waits here, in a line; nothing is known of any where there is no state folder.
pub fn told_of(state: Option<&State>) -> Result<Option<String>> {
    let pending = state.map_or(Ok(None), pending::pending)?;
    Ok(pending.as_ref().map(told))
}

/// A further change would leave nobody knowing what to undo. To be asked under the lock.
pub fn refuse_while_pending(state: &State) -> Result<()> {
    refuse(pending::pending_in_earnest(state)?)
}

/// What is changed beside the rules would not be undone with them.
pub fn refuse_beside_a_change(state: &State) -> Result<()> {
    refuse(pending::pending(state)?)
}

fn refuse(waiting: Option<Pending>) -> Result<()> {
    match waiting {
        Some(pending) => Err(Refusal::Pending {
            told: told(&pending),
            overdue: pending.left() == 0,
        }
        .into()),
        None => Ok(()),
    }
}

fn keep(state: &State, pending: &Pending, timeout: u64, console: &mut Console) -> Result<Exit> {
    let lock = lock::take(state, timeout)?;
    // The watchdog may have been faster to the lock.
    let now = pending::pending_in_earnest(state)?.filter(|now| now.id == pending.id);
    match now {
        None => return Err(Refusal::NothingPending.into()),
        Some(now) if !now.made => return Err(Refusal::NotMade.into()),
        Some(_) => pending::settle(state, pending, Decision::Confirmed)?,
    }
    drop(lock);
    console.say(format_args!("confirmed: {} stays", pending.before.action));
    connections::end_stale(state, pending, console)
}

fn cancel(state: &State, pending: &Pending, timeout: u64, console: &mut Console) -> Result<Exit> {
    if !watchdog::undo(state, pending, timeout)? {
        return Err(Refusal::NothingPending.into());
    }
    console.say(format_args!("undone: {}", pending.before.action));
    Ok(Exit::Done)
}

/// Asks at a terminal whether to keep the change, while the time runs; elsewhere tells how to.
pub fn ask(state: &State, pending: &Pending, console: &mut Console) -> Result<Exit> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        console.say(told(pending));
        return Ok(Exit::Done);
    }
    // What was typed before the question is no answer to it.
    let _ = rustix::termios::tcflush(io::stdin(), rustix::termios::QueueSelector::IFlush);
    let (send, answers) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        // At the end of the input nobody answers, and the time runs out.
        if io::stdin()
            .lock()
            .read_line(&mut line)
            .is_ok_and(|read| read > 0)
        {
            let _ = send.send(line);
        }
    });
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
        if pending.overdue() > PATIENCE {
            console.tell("\n");
            console.say("its time is up, and nobody says that it is undone: see `nvactl status`");
            return Ok(Exit::Uncertain);
        }
        console.ask_again(format_args!("keep it? [y/N] {:>4} s ", pending.left()));
        match answers.recv_timeout(Duration::from_secs(1)) {
            Ok(answer) if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") => {
                return keep(state, pending, LOCK_TIMEOUT, console);
            }
            Ok(_) => {
                cancel(state, pending, LOCK_TIMEOUT, console)?;
                return Ok(Exit::Differs);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_secs(1)),
        }
    }
}

const LOCK_TIMEOUT: u64 = 30;
/// How many seconds after its time is up a change may take to be undone: 10,000 forwards take some.
const PATIENCE: u64 = 90;

/// The process that undoes a change if nobody confirms it.
pub fn watch(state: &State, id: &str) -> Result<Exit> {
    watchdog::watch(state, id)?;
    Ok(Exit::Done)
}
