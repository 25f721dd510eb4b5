//! What an apply says of the connections that are alive, and which of them it ends.

use anyhow::Result;

use super::{Console, Exit, counted};
use crate::flow::{Flow, astray, stale};
use crate::host::pending::Pending;
use crate::host::state::State;
use crate::host::{conntrack, network};
use crate::listeners::Listeners;
use crate::net::{Family, Host};
use crate::parse;
use crate::per_family::{Families, PerFamily};
use crate::ruleset::{ChainName, Policy, Ruleset, TableName};
use crate::spec::ForwardSet;
use crate::unplan::unplan;

/// The connections of the machine. Without the program for it nothing is said of them, unless some
/// are to be deleted.
pub fn read(families: Families, needed: bool) -> Result<Vec<Flow>> {
    let flows = PerFamily::try_new(families, conntrack::flows);
    match flows {
        Err(error) if needed => Err(error.into()),
        Err(_) => Ok(Vec::new()),
        Ok(flows) => Ok(flows
            .v4
            .into_iter()
            .chain(flows.v6.into_iter().flatten())
            .collect()),
    }
}

/// How many connections are shown one by one.
const MOST_FLOWS: usize = 3;

/// Connections go on when FORWARD begins to drop, and are missed only when they are made again.
pub fn warn_of_cut(
    family: Family,
    flows: &[Flow],
    live: &Ruleset,
    set: &ForwardSet,
    console: &mut Console,
) {
    let own = network::links();
    let is_own = |address| own.owner(address).is_some();
    let forwarded = |flow: &&Flow| {
        Family::of(flow.source) == family && !is_own(flow.source) && !is_own(flow.reply_source)
    };
    let mut closed = live.clone();
    closed
        .chain_mut(TableName::Filter, ChainName::Forward)
        .policy = Some(Policy::Drop);
    let listeners = Listeners::new(set);
    let cut: Vec<&Flow> = flows
        .iter()
        .filter(forwarded)
        .filter(|flow| flow.leader(&listeners).is_none() && !flow.could_pass(&closed))
        .collect();
    if !cut.is_empty() {
        console.warn(format_args!(
            "{} that {} forwarded now will not be accepted again once it ends: {}",
            counted(cut.len(), "connection"),
            if cut.len() == 1 { "is" } else { "are" },
            described(&cut)
        ));
    }
}

fn described(flows: &[&Flow]) -> String {
    let shown = flows.iter().take(MOST_FLOWS).map(|flow| {
        let Flow {
            protocol,
            source,
            destination,
            destination_port,
            reply_source,
            reply_port,
            ..
        } = flow;
        let translated = if destination == reply_source {
            String::new()
        } else {
            format!(" → {}:{reply_port}", Host(*reply_source))
        };
        let destination = Host(*destination);
        format!("{protocol} {source} → {destination}:{destination_port}{translated}")
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    match flows.len().saturating_sub(MOST_FLOWS) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The connections that some forward has led, and none of `now` leads any more.
///
/// Mostly none goes astray at all, and the states before, of which 20 can hold 10,000 forwards each,
/// need not be read.
pub fn outdated<'f>(
    flows: &'f [Flow],
    now: &ForwardSet,
    state: &State,
    live: &PerFamily<&Ruleset>,
) -> Result<Vec<&'f Flow>> {
    if astray(flows, now).next().is_none() {
        return Ok(Vec::new());
    }
    let once = once_led(Some(state), live.values().copied())?;
    Ok(stale(flows, &once, now).collect())
}

/// The forwards of the live rules and of the states before: what may have led a connection.
pub fn once_led<'r>(
    state: Option<&State>,
    live: impl IntoIterator<Item = &'r Ruleset>,
) -> Result<Vec<ForwardSet>> {
    let mut once: Vec<ForwardSet> = live.into_iter().filter_map(unplan).collect();
    let remembered = state.map_or(Ok(Vec::new()), State::remembered)?;
    for before in &remembered {
        let owned = before.owned();
        once.extend(owned.iter().filter_map(|(_, owned)| led(&owned.rules)));
    }
    Ok(once)
}

/// The forwards of a text that was kept. One that cannot be read has led nothing that can be told.
fn led(rules: &str) -> Option<ForwardSet> {
    unplan(&parse::parse(rules).ok()?)
}

pub fn announce(stale: &[&Flow], flush: bool, console: &mut Console) {
    if !stale.is_empty() {
        let would = if flush {
            "would be deleted"
        } else {
            "would stay; to delete them: --flush-stale"
        };
        console.say(format_args!(
            "{} to where no forward leads any more {would}: {}",
            counted(stale.len(), "connection"),
            described(stale)
        ));
    }
}

/// Once a change has been decided on: those that lead to where the rules that stay lead no more.
pub fn end_stale(state: &State, decided: &Pending, console: &mut Console) -> Result<Exit> {
    let families = decided.families();
    let flows = read(families, decided.flush_stale)?;
    let live = decided.iptables().read_all(families)?;
    let live = live.map(|_, live| &live.ruleset);
    let mut once = once_led(Some(state), live.values().copied())?;
    once.extend(decided.wanted().iter().filter_map(|(_, rules)| led(rules)));
    // The forwards that stay, of both families.
    let staying = live.iter().filter_map(|(_, live)| unplan(live));
    let forwards = staying.flat_map(|set| set.forwards).collect();
    let Some(now) = once.first().map(|set| ForwardSet {
        forwards,
        ..set.clone()
    }) else {
        return Ok(Exit::Done);
    };
    let outdated: Vec<&Flow> = stale(&flows, &once, &now).collect();
    Ok(flush(&outdated, decided.flush_stale, console))
}

/// Connections stay on their old target for as long as the kernel remembers them.
///
/// The rules are loaded by then, so a failure is no reason to say that nothing has changed.
pub fn flush(stale: &[&Flow], flush: bool, console: &mut Console) -> Exit {
    if stale.is_empty() {
        return Exit::Done;
    }
    let (count, shown) = (counted(stale.len(), "connection"), described(stale));
    if !flush {
        console.note(format_args!(
            "{count} to where no forward leads any more will stay until idle: {shown}; \
             to end them: nvactl apply --flush-stale"
        ));
        return Exit::Done;
    }
    match conntrack::delete(stale.iter().copied()) {
        Ok(()) => {
            console.say(format_args!(
                "deleted {count} to where no forward leads any more: {shown}"
            ));
            Exit::Done
        }
        Err(error) => {
            let error = anyhow::Error::from(error);
            console.warn(format_args!(
                "the rules are as they should be, but {count} could not be ended: {error:#}"
            ));
            Exit::Uncertain
        }
    }
}
