//! `nvactl confirm`, and the asking behind `apply --confirm`.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::{Console, Exit, Refusal, connections};
use crate::cli::Confirm;
use crate::host::file;
use crate::host::pending::{self, Pending};
use crate::host::state::State;
use crate::host::{self, lock};

pub fn run(args: &Confirm, state: &State, console: &mut Console) -> Result<Exit> {
    host::require_root("confirm")?;
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
        cancel(state, &pending, console)
    } else {
        keep(state, &pending, args.lock_timeout, console)
    }
}

/// A change that waits, in a line.
pub fn told(pending: &Pending) -> String {
    if pending.left() == 0 {
        return format!(
            "{} was not confirmed in time and has not been undone: its watchdog does not answer; \
             `nvactl confirm --cancel` undoes it",
            pending.before.action
        );
    }
    format!(
        "{} waits for its confirmation: undone in {} s unless `nvactl confirm` comes; \
         `nvactl confirm --cancel` undoes it at once",
        pending.before.action,
        pending.left()
    )
}

/// A further change would leave nobody knowing what to undo. To be asked under the lock.
pub fn refuse_while_pending(state: &State) -> Result<()> {
    match pending::pending_in_earnest(state)? {
        Some(pending) => Err(Refusal::Pending {
            told: told(&pending),
        }
        .into()),
        None => Ok(()),
    }
}

fn keep(state: &State, pending: &Pending, timeout: u64, console: &mut Console) -> Result<Exit> {
    let _lock = lock::take(state, timeout)?;
    // The watchdog may have been faster to the lock.
    let still = pending::pending(state)?.is_some_and(|now| now.id == pending.id);
    if !still {
        return Err(Refusal::NothingPending.into());
    }
    state.clear_pending()?;
    pending::end_timer(&pending.id);
    console.say(format_args!("confirmed: {} stays", pending.before.action));
    connections::end_stale(state, pending, console)?;
    Ok(Exit::Done)
}

fn cancel(state: &State, pending: &Pending, console: &mut Console) -> Result<Exit> {
    if !pending::undo(state, pending)? {
        return Err(Refusal::NothingPending.into());
    }
    pending::end_timer(&pending.id);
    console.say(format_args!("undone: {}", pending.before.action));
    Ok(Exit::Done)
}

/// Asks at a terminal whether to keep the change, while the time runs; elsewhere tells how to.
pub fn ask(state: &State, pending: &Pending, console: &mut Console) -> Result<Exit> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        console.say(told(pending));
        return Ok(Exit::Done);
    }
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
        let waiting = pending::pending(state)?.filter(|now| now.id == pending.id);
        let Some(now) = waiting else {
            console.tell("\n");
            console.say("it has been decided elsewhere: see `nvactl history`");
            return Ok(Exit::Differs);
        };
        console.tell(format_args!("\rkeep it? [y/N] {:>4} s ", now.left()));
        match answers.recv_timeout(Duration::from_secs(1)) {
            Ok(answer) if matches!(answer.trim(), "y" | "yes") => {
                return keep(state, pending, LOCK_TIMEOUT, console);
            }
            Ok(_) => {
                cancel(state, pending, console)?;
                return Ok(Exit::Differs);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_secs(1)),
        }
    }
}

const LOCK_TIMEOUT: u64 = 30;

/// The process that undoes a change if nobody confirms it.
pub fn watchdog(state: &State, id: &str) -> Result<Exit> {
    if let Err(error) = pending::watch(state, id) {
        let error = anyhow::Error::from(error);
        let words = format!("the change {id} could not be undone: {error:#}\n");
        file::replace(&pending::log_file(state), words.as_bytes(), 0o600)?;
        return Err(error);
    }
    Ok(Exit::Done)
}
