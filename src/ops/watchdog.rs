//! The watchdog of a change that must be confirmed: a process or a systemd timer that undoes the change in
//! time.
//!
//! The watchdog starts before the change and shares nothing with the process that makes it: no terminal, no
//! session, no pipe. Whichever process ends, the change is confirmed or undone.

use std::thread;
use std::time::Duration;

use tracing::debug;

use super::adopt::{LeftRule, WhyLeft, put_back_all};
use super::error::{Error, describe};
use super::history::log;
use super::log::ChangeEvent;
use super::look::Readable;
use super::records::{Change, Decision, KeptRule, LastDecision, Pending};
use super::state::{State, StateError};
use super::transaction::{Keeping, Transaction, TransactionError, TrialMode};
use super::undone_flows;
use super::waiting::{LOCK_WAIT_SECS, note_ended, note_left, pending, settle};
use crate::diff;
use crate::diff::families::changes;
use crate::host::detached::{self, DetachedError};
use crate::host::file;
use crate::host::file::FileError;
use crate::host::iptables::{IptablesError, Live};
use crate::host::lock::{self, Lock};
use crate::net::Family;
use crate::net::per_family::PerFamily;
use crate::netfilter::counters::Counters;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::parse;

/// How often the watchdog looks for a decision.
const TICK: Duration = Duration::from_millis(100);
/// How often an undo looks for the places of adopted rules.
const MOST_TRIES: u32 = 5;
/// The longest wait before the next try to undo.
const PAUSE: Duration = Duration::from_secs(10);

/// Records the change and starts its watchdog: a detached process, and with systemd a timer too. Returns when
/// the watchdog is ready.
///
/// # Errors
/// When the watchdog cannot start: then the change must not be made.
pub fn guard(state: &State, pending: &Pending, seconds: u64) -> Result<(), Error> {
    // First, so that a watchdog of the change before sees that its change has a decision.
    let recorded = state
        .set_decision(&LastDecision(pending.id.clone(), Decision::Waiting))
        .and_then(|_| state.set_pending(pending));
    recorded.map_err(TransactionError::NotKept)?;
    let started = start(state, pending, seconds);
    if started.is_err() {
        let settled = settle(state, pending, Decision::NotMade);
        if let Err(error) = settled {
            debug!(%error, "the record of the change was not removed");
        }
    }
    Ok(started?)
}

/// Starts the process and the timer. The process can undo without the state folder; the timer runs even if
/// the process is killed with its session. The first of them leaves nothing to undo for the other.
fn start(state: &State, pending: &Pending, seconds: u64) -> Result<(), DetachedError> {
    let folder = state.folder().to_string_lossy();
    let args = ["--state-dir", &folder, "watchdog", &pending.id];
    detached::start(&args)?;
    if detached::runs_under_systemd() {
        detached::start_timer(&pending.timer(), seconds, &args)?;
    }
    Ok(())
}

/// Waits for a decision on the change. If none comes in time, undoes the change, and retries until that
/// works.
///
/// # Errors
/// When the change cannot be read at the start.
pub fn watch(state: &State, id: &str) -> Result<(), Error> {
    let Some(mut known) = pending(state)?.filter(|pending| pending.id == id) else {
        detached::settle_in();
        return Ok(());
    };
    detached::settle_in();
    let mut pause = TICK;
    let mut version = None;
    loop {
        if is_decided(state, id) {
            return Ok(());
        }
        let now = state.pending_version();
        if now != version {
            version = now;
            // A missing or damaged record is no decision: the values read before are enough.
            if let Ok(Some(now)) = state.pending()
                && now.id == id
            {
                known = now;
            }
        }
        if known.left() == 0 {
            let due = |now: &Pending| now.left() == 0;
            match undo_if(state, &known, Decision::TimedOut, LOCK_WAIT_SECS, due) {
                Ok(Undoing::Undone(undone)) => {
                    let left_v6 = undone.left_v6.as_ref().map(|error| {
                        format!("{id} is undone, except for IPv6: {}\n", describe(error))
                    });
                    let connections = undone.connections.as_ref();
                    let connections =
                        connections.map(|left| format!("{id} is undone, but {left}\n"));
                    let rules = undone.left_rules.iter();
                    let rules = rules.map(|left| format!("{id} is undone, but {left}\n"));
                    let words = left_v6.into_iter().chain(connections).chain(rules);
                    let words: String = words.collect();
                    if !words.is_empty() {
                        let _ = file::replace(&state.log_file(), words.as_bytes(), 0o600);
                    }
                    return Ok(());
                }
                // The change was confirmed, or got more time, while this process waited for the lock.
                Ok(Undoing::NotDue) => {}
                Err(error) => {
                    let words = format!("{id} is not undone yet: {}\n", describe(&error));
                    // The folder itself may be the cause.
                    let _ = file::replace(&state.log_file(), words.as_bytes(), 0o600);
                    pause = (pause * 2).min(PAUSE);
                }
            }
        }
        thread::sleep(pause);
    }
}

/// Whether there is a decision on a change, or a later change, which starts only after a decision on this
/// one. An unreadable record is no decision.
fn is_decided(state: &State, id: &str) -> bool {
    state
        .decided()
        .is_some_and(|LastDecision(of, decision)| of != id || decision != Decision::Waiting)
}

/// The result of an undo.
#[derive(Debug)]
pub enum Undoing {
    /// The change has a decision, or its time is not up.
    NotDue,
    Undone(Box<UndoReport>),
}

/// The parts of an undo that failed or could not be checked.
#[derive(Debug, Default)]
pub struct UndoReport {
    /// Whether the rules were written unread, and could not be read back.
    pub unverified: bool,
    /// Why IPv6 still has the change's rules.
    pub left_v6: Option<Error>,
    /// Why no new file can be written in the state folder.
    pub full: Option<FileError>,
    /// Why the decision is not recorded.
    pub unrecorded: Option<StateError>,
    /// The connections of the change that were ended, in words.
    pub ended: Option<String>,
    /// The connections of the change that are still there, and why, in words.
    pub connections: Option<String>,
    /// The adopted rules that did not come back, each with the reason and the command that adds it.
    pub left_rules: Vec<String>,
}

/// Undoes the change if it still waits.
///
/// # Errors
/// When the undo fails: the change still waits.
pub fn undo(state: &State, known: &Pending, lock_wait_secs: u64) -> Result<Undoing, Error> {
    undo_if(state, known, Decision::Cancelled, lock_wait_secs, |_| true)
}

/// Undoes the change if `still` holds for its record under the lock. A missing or unreadable record counts as
/// unchanged.
fn undo_if(
    state: &State,
    known: &Pending,
    decision: Decision,
    lock_wait_secs: u64,
    still: impl Fn(&Pending) -> bool,
) -> Result<Undoing, Error> {
    // The folder may be gone; an error shows when the lock is opened.
    let _ = state.make();
    let lock = lock::take_to_undo(&state.lock_file(), lock_wait_secs)?;
    if is_decided(state, &known.id) {
        return Ok(Undoing::NotDue);
    }
    let pending = match state.pending() {
        Ok(Some(now)) if now.id == known.id => now,
        _ => known.clone(),
    };
    if !still(&pending) {
        return Ok(Undoing::NotDue);
    }
    let mut undone = restore(state, &lock, &pending)?;
    let event = match decision {
        Decision::TimedOut => ChangeEvent::TimedOut,
        _ => ChangeEvent::Cancelled,
    };
    log(&pending.before, event);
    // The change is undone, even if this cannot be recorded.
    match settle(state, &pending, decision) {
        Ok(full) => undone.full = full,
        Err(error) => undone.unrecorded = Some(error),
    }
    if !undone.left_rules.is_empty() {
        note_left(state, &pending, &undone.left_rules);
    }
    // Last, since it can take a minute: until the decision is recorded, the change counts as loaded.
    drop(lock);
    let flows = undone_flows::end(&pending);
    if flows.ended > 0 {
        note_ended(state, &pending, flows.ended);
    }
    (undone.ended, undone.connections) = (flows.told, flows.left);
    Ok(Undoing::Undone(Box::new(undone)))
}

/// Loads the rules from before the change. IPv6 that can be neither read nor written does not stop the undo
/// of IPv4.
fn restore(state: &State, lock: &Lock, pending: &Pending) -> Result<UndoReport, Error> {
    let (iptables, mut want) = (pending.iptables(), pending.rules()?);
    let mut tries = 0;
    let (undone, unread) = loop {
        let listing = iptables.start_listing(pending.families());
        let read = listing.and_then(|listing| listing.finish_readable(false));
        let (live, unread) = match read.and_then(|read| shown(read, &want)) {
            Ok(read) => read,
            Err(error) => break (Err(error.into()), None),
        };
        let before = with_counters(live);
        if before.v6.is_none() {
            want.v6 = None;
        }
        tries += 1;
        match load(state, lock, pending, &before, &want) {
            // Another program is changing its rules: their places are read again.
            Err(Error::Transaction(TransactionError::ForeignMoved { .. }))
                if tries < MOST_TRIES => {}
            undone => break (undone, unread.map(Error::from)),
        }
    };
    let (families, error, left_rules) = match (undone, unread) {
        (Ok(left), None) => {
            return Ok(UndoReport {
                left_rules: words(&left, pending),
                ..UndoReport::default()
            });
        }
        // The rules cannot be read, but may still be written.
        (Ok(left), Some(unread)) => (&[Family::V6][..], unread, Some(left)),
        // Another program added rules that iptables cannot show, or that jump to a chain that must be
        // removed.
        (Err(error), _) => (pending.families().as_slice(), error, None),
    };
    // The chains of the change are known, and can be emptied anyway.
    debug!(error = describe(&error), "undone without reading the rules");
    let refused = refill(lock, pending, families)?;
    let left = |family| refused.contains(&family);
    if left(Family::V4) {
        return Err(error);
    }
    // A program that reports success may have loaded nothing.
    let listing = iptables.start_listing(pending.families())?;
    let unverified = match listing.finish_readable(false) {
        Ok((live, unread)) => {
            let both = live.as_ref().zip(want.as_ref());
            let mut each = both.iter().filter(|(family, _)| !left(*family));
            if !each.all(|(_, (live, want))| holds_rules_of(&live.ruleset, want)) {
                return Err(error);
            }
            unread.is_some() && !left(Family::V6)
        }
        Err(_) => true,
    };
    let left_rules = match left_rules {
        Some(left) => left,
        None => put_back_alone(state, lock, pending)?,
    };
    Ok(UndoReport {
        unverified,
        left_v6: left(Family::V6).then_some(error),
        left_rules: words(&left_rules, pending),
        ..UndoReport::default()
    })
}

/// Puts adopted rules back after nvactl's own were loaded without them. Returns those that do not come back.
fn put_back_alone(state: &State, lock: &Lock, pending: &Pending) -> Result<Vec<LeftRule>, Error> {
    if pending.before.adopted.is_empty() {
        return Ok(Vec::new());
    }
    let (iptables, old) = (pending.iptables(), pending.rules()?);
    for _ in 0..MOST_TRIES {
        let listing = iptables.start_listing(pending.families());
        let read = listing.and_then(|listing| listing.finish_readable(false));
        let Ok((live, _)) = read.and_then(|read| shown(read, &old)) else {
            return left_alone(pending, WhyLeft::NotRead);
        };
        let before = with_counters(live);
        // nvactl's rules stay as they are now.
        let own = before.map(|_, (live, _)| diff::own(live).without_forward_policy());
        match load(state, lock, pending, &before, &own) {
            Ok(left) => return Ok(left),
            Err(Error::Transaction(TransactionError::ForeignMoved { .. })) => {}
            Err(error) => {
                debug!(error = describe(&error), "adopted rules are not put back");
                break;
            }
        }
    }
    left_alone(pending, WhyLeft::Refused)
}

fn with_counters(live: PerFamily<Live>) -> PerFamily<(Ruleset, Counters)> {
    PerFamily {
        v4: (live.v4.ruleset, live.v4.counters),
        v6: live.v6.map(|live| (live.ruleset, live.counters)),
    }
}

/// Returns the adopted rules of a change, none of which comes back. Jumps that the change added stay, so the rules behind
/// them have higher numbers than before the change.
fn left_alone(pending: &Pending, why: WhyLeft) -> Result<Vec<LeftRule>, Error> {
    let before = pending.rules()?;
    let made = pending.wanted().try_map(|_, text| parse::parse(text))?;
    let jumps = |rules: &PerFamily<Ruleset>, rule: &KeptRule| {
        let rules = rules.get(rule.family);
        let chain = rules.and_then(|rules| rules.chain(rule.table, &rule.chain));
        chain.map_or(0, |chain| diff::own_jumps(chain).count())
    };
    let adopted = pending.before.adopted.iter();
    let left = adopted.map(|rule| {
        let added = jumps(&made, rule).saturating_sub(jumps(&before, rule));
        LeftRule::moved(rule, added, why)
    });
    Ok(left.collect())
}

/// Describes the adopted rules that did not come back.
fn words(left: &[LeftRule], pending: &Pending) -> Vec<String> {
    let left = left.iter();
    left.map(|one| one.words(pending.backend)).collect()
}

/// Returns the rules that were read, if they show all tables of the wanted ones.
fn shown(
    (live, unread): Readable<Live>,
    want: &PerFamily<Ruleset>,
) -> Result<Readable<Live>, IptablesError> {
    for (_, (live, want)) in live.as_ref().zip(want.as_ref()).iter() {
        live.shows(want)?;
    }
    Ok((live, unread))
}

/// Loads the old rules and puts adopted rules back. Returns those that do not come back.
fn load(
    state: &State,
    lock: &Lock,
    pending: &Pending,
    before: &PerFamily<(Ruleset, Counters)>,
    want: &PerFamily<Ruleset>,
) -> Result<Vec<LeftRule>, Error> {
    let live = before.map(|_, (live, _)| live);
    let back = put_back_all(&live, &pending.before.adopted);
    let left = back.values().flat_map(|back| &back.left);
    // A change that was not fully made may not have taken them out.
    let left = left.filter(|one| pending.made || one.why != WhyLeft::ThereAgain);
    let left: Vec<LeftRule> = left.cloned().collect();
    let foreign = back.map(|_, back| back.shift.clone());
    let goal = foreign.map(|_, shift| &shift.new);
    if changes(&live, want).with_foreign(&live, &goal).is_empty() {
        return Ok(left);
    }
    let transaction = Transaction {
        state,
        lock,
        iptables: &pending.iptables(),
        before,
        want,
        foreign: &foreign,
        change: &Change {
            action: format!("undo {}", pending.before.action),
            ..pending.before.clone()
        },
        keeping: Keeping::Done,
        trial: TrialMode::Nothing,
    };
    transaction.commit()?;
    Ok(left)
}

/// Whether nvactl's chains hold exactly the wanted rules. Empty chains and jumps to them stay if foreign
/// rules jump to them.
fn holds_rules_of(live: &Ruleset, want: &Ruleset) -> bool {
    let rules = |ruleset: &Ruleset| -> Vec<(TableName, ChainName, Vec<Rule>)> {
        let own = ruleset.chains().filter(|(_, name, _)| name.is_own());
        let filled = own.filter(|(_, _, chain)| !chain.rules.is_empty());
        filled
            .map(|(table, name, chain)| (table, name.clone(), chain.rules.clone()))
            .collect()
    };
    rules(live) == rules(want)
}

/// Replaces the rules of the change by the rules from before it, without reading the current ones. Returns
/// the families that fail: one family does not stop the other.
fn refill(lock: &Lock, pending: &Pending, families: &[Family]) -> Result<Vec<Family>, Error> {
    let (iptables, want) = (pending.iptables(), pending.rules()?);
    let made = pending.wanted().try_map(|_, text| parse::parse(text))?;
    let both = made.as_ref().zip(want.as_ref());
    let meant = both.iter().filter(|(family, _)| families.contains(family));
    let mut refused = Vec::new();
    for (family, (made, want)) in meant {
        if let Err(error) = iptables.load(family, &diff::refill(made, want), lock) {
            debug!(%error, "not loaded");
            refused.push(family);
        }
    }
    Ok(refused)
}
