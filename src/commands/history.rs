//! `nvactl history` and `nvactl rollback`: the states before each change, and the way back to one.

use anyhow::{Context as _, Result};

use super::{Console, Exit, Host, Refusal, confirm, counted, layout, marks, persist};
use crate::cli::Rollback;
use crate::host::state::{Before, Owned, State};
use crate::host::survey::survey;
use crate::host::transaction::Transaction;
use crate::host::{self, lock};
use crate::per_family::{Families, PerFamily, changes};
use crate::ruleset::Ruleset;

pub fn list(state: &State, console: &mut Console) -> Result<Exit> {
    let states = state.remembered()?;
    if states.is_empty() {
        console.say("nothing has been changed yet");
    }
    for (n, before) in states.iter().enumerate() {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(before.time);
        console.say(format_args!(
            "{:>3}  {}  before: {}",
            n + 1,
            humantime::format_rfc3339_seconds(time),
            before.action
        ));
    }
    Ok(Exit::Done)
}

pub fn rollback(args: &Rollback, on: Host<'_>, console: &mut Console) -> Result<Exit> {
    host::require_root("rollback")?;
    let state = &on.state()?;
    let iptables = on.iptables(args.lock_timeout);
    let lock = lock::take(&state.lock_file(), args.lock_timeout)?;
    confirm::refuse_while_pending(state)?;
    let states = state.remembered()?;
    let number = args.number;
    if number == 0 || number > states.len() {
        return Err(Refusal::NoSuchState {
            count: states.len(),
        }
        .into());
    }
    let want = state_to_restore(&states[..number])?;
    let found = iptables.read_all_counted(want.families())?;
    let live = found.map(|_, (live, _)| live);
    let surroundings = survey(&iptables, want.families())?;
    for warning in &surroundings.warnings {
        console.warn(warning);
    }
    for (family, (live, want)) in live.zip(want.as_ref()).iter() {
        layout::announce(family, live, want, console);
    }
    marks::warn(&live, &want, &surroundings, &iptables, console);
    let changes = changes(&live, &want);
    let before = &states[number - 1].action;
    if changes.is_empty() {
        console.say(format_args!(
            "no changes: what is loaded is what was loaded before {before}"
        ));
        return Ok(Exit::Done);
    }
    if args.dry_run {
        console.print(&changes.report());
        return Ok(Exit::Differs);
    }
    Transaction {
        state,
        lock: &lock,
        iptables: &iptables,
        before: &found,
        want: &want,
        action: format!("rollback {number}"),
        trial: true,
    }
    .commit()?;
    let (added, removed) = changes.rule_counts();
    console.say(format_args!(
        "back to what was loaded before {before}: {} added, {} removed",
        counted(added, "rule"),
        counted(removed, "rule")
    ));
    persist::note_until_boot(console);
    Ok(Exit::Done)
}

/// The rules of the oldest of these states, newest first; of IPv6, the oldest that knows of it, since
/// what was changed before that did not touch it. The FORWARD policy only if a change since has set
/// it.
fn state_to_restore(states: &[Before]) -> Result<PerFamily<Ruleset>> {
    let families = Families::with_v6(states.iter().any(|state| state.v6.is_some()));
    PerFamily::try_new(families, |family| {
        let known = states
            .iter()
            .filter_map(|state| state.owned().get(family).copied());
        let known: Vec<&Owned> = known.collect();
        let oldest = known.last().context("there is a state")?;
        let owned = Owned {
            rules: oldest.rules.clone(),
            sets_policy: known.iter().any(|owned| owned.sets_policy),
        };
        let want = owned.ruleset();
        want.context("the state that was kept is damaged")
    })
}
