//! `nvactl apply`: the plan into the kernel, beside what is there.

use anyhow::Result;

use super::look::{Found, ahead, look};
use super::{
    Console, Exit, Host, confirm, connections, counted, families, layout, marks, names, persist,
    policy, remove, told,
};
use crate::cli::Apply;
use crate::diff::Changes;
use crate::flow::Flow;
use crate::foreign;
use crate::host::pending::{self, Decision, Pending};
use crate::host::persistence::note_v6;
use crate::host::spec_source;
use crate::host::state::State;
use crate::host::survey::resolved;
use crate::host::transaction::{Transaction, TransactionError};
use crate::host::{self, lock, sysctl, watchdog};
use crate::line::Line;
use crate::net::Family;
use crate::per_family::{PerFamily, changes};
use crate::rival;
use crate::ruleset::{Policy, Ruleset};
use crate::spec::ForwardSet;

pub fn run(args: &Apply, on: Host<'_>, console: &mut Console) -> Result<Exit> {
    let source = spec_source::read(args.spec.spec.as_deref())?;
    let iptables = on.iptables(args.lock_timeout);
    let ahead = ahead(on, &iptables);
    let reading = source.examine();
    // A spec that has an error keeps nobody waiting, however slowly its errors are read.
    let ahead = ahead.filter(|_| reading.set.is_some());
    let set = told(&source, reading, console)?;
    source.trusted()?;
    host::require_root("apply")?;
    let state = on.state()?;
    let (lock, rules) = match ahead {
        Some((lock, rules)) => (lock, Some(rules)),
        None => (lock::take(&state.lock_file(), args.lock_timeout)?, None),
    };
    confirm::refuse_while_pending(&state)?;
    // Asked under the lock: another may have loaded the first IPv6 rules meanwhile.
    let families = families(Some(&set), Some(&state));
    let rules = match rules.filter(|rules| rules.families() == families) {
        Some(rules) => rules,
        None => iptables.start_listing(families)?,
    };
    let Found {
        before,
        want,
        surroundings,
        flows,
    } = look(rules, &iptables, &set, args.flush_stale)?;
    let live = before.map(|_, (live, _)| live);
    let changes = changes(&live, &want);
    for (family, changes) in changes.iter() {
        announce_policy(family, changes, console);
    }
    for warning in &surroundings.warnings {
        console.warn(warning);
    }
    for (family, (live, want)) in live.zip(want.as_ref()).iter() {
        layout::announce(family, live, want, console);
        warn_of_reference(live, console);
        warn_of_rivals(family, live, &set.of(family), console);
    }
    marks::warn(&live, &want, &surroundings, &iptables, console);
    for (family, (live, changes)) in live.zip(changes.as_ref()).iter() {
        if changes.forward_policy().is_some() {
            connections::warn_of_cut(family, &flows, live, &set, console);
        }
    }
    let outdated = connections::outdated(&flows, &set, &state, &live)?;
    warn_of_sysctl(&set, console)?;

    let name = &source.name;
    if args.dry_run {
        connections::announce(&outdated, args.flush_stale, console);
    }
    if changes.is_empty() {
        console.say(format_args!("{name}: no changes"));
        if !args.dry_run {
            note_v6(&state, live.v6);
        }
        let would = args.dry_run && args.flush_stale && !outdated.is_empty();
        return Ok(match args.dry_run {
            true if would => Exit::Differs,
            true => Exit::Done,
            false => connections::flush(&outdated, args.flush_stale, console),
        });
    }
    let counts = counts(&changes);
    if args.dry_run {
        console.print(&changes.report());
        console.say(format_args!("{name}: would change: {counts}"));
        return Ok(Exit::Differs);
    }
    let transaction = Transaction {
        state: &state,
        lock: &lock,
        iptables: &iptables,
        before: &before,
        want: &want,
        action: format!("apply {name}"),
        trial: !args.no_trial,
    };
    let pending = match args.confirm {
        Some(seconds) => Some(commit_guarded(&transaction, seconds, args, console)?),
        None => {
            transaction.commit()?;
            None
        }
    };
    // Whoever confirms needs the lock, and a terminal that takes no words must not keep it.
    drop(lock);
    let forwards = counted(set.names(), "forward");
    console.say(format_args!("{name}: applied {forwards}: {counts}"));
    if let (Some(before), false) = (live.v6, set.has(Family::V6)) {
        say_v6_went(before, console);
    }
    if let Some(pending) = pending {
        return confirm::ask(&state, &pending, console);
    }
    let exit = flush_outdated(args, &set, &state, &live, console)?;
    persist::note_until_boot(console);
    Ok(exit)
}

fn counts(changes: &PerFamily<Changes<'_>>) -> String {
    let (added, removed) = changes.rule_counts();
    let [added, removed] = [added, removed].map(|n| counted(n, "rule"));
    format!("{added} added, {removed} removed")
}

/// Looks once more, since connections may have been made while the rules were being loaded.
fn flush_outdated(
    args: &Apply,
    set: &ForwardSet,
    state: &State,
    before: &PerFamily<&Ruleset>,
    console: &mut Console,
) -> Result<Exit> {
    let flows = connections::read(before.families(), args.flush_stale)?;
    // Those of a family whose rules are all gone end by themselves.
    let ends = |flow: &&Flow| Family::of(flow.destination) == Family::V6 && !set.has(Family::V6);
    let outdated = connections::outdated(&flows, set, state, before)?;
    let outdated: Vec<&Flow> = outdated
        .into_iter()
        .filter(|flow| args.flush_stale || !ends(flow))
        .collect();
    Ok(connections::flush(&outdated, args.flush_stale, console))
}

/// What is to be known where a spec has no IPv6 forward any more.
fn say_v6_went(before: &Ruleset, console: &mut Console) {
    if before.forward_policy() == Policy::Drop {
        remove::say_policy_stays(Family::V6, console);
    }
    if before.chains().any(|(_, name, _)| name.is_own()) {
        remove::say_connections_end(console);
    }
    remove::warn_of_rules_file(Family::V6, console);
}

/// Makes a change that a watchdog undoes unless it is confirmed.
fn commit_guarded(
    transaction: &Transaction<'_>,
    seconds: u64,
    args: &Apply,
    console: &mut Console,
) -> Result<Pending> {
    let state = transaction.state;
    let mut pending = Pending::new(
        transaction.remembered()?,
        transaction.want,
        resolved(transaction.iptables, transaction.want.families()),
        seconds,
    )?;
    pending.flush_stale = args.flush_stale;
    watchdog::guard(state, &pending, seconds)?;
    if let Err(error) = transaction.commit() {
        // What was to be undone never came, or has been undone already; but if nobody knows what
        // is loaded, the watchdog may still mend it.
        if !matches!(error, TransactionError::Uncertain { .. }) {
            pending::settle(state, &pending, Decision::NotMade)?;
        }
        return Err(error.into());
    }
    // The time runs from here: loading may have taken some of it.
    let anew = Pending {
        deadline: pending::uptime() + seconds,
        made: true,
        ..pending.clone()
    };
    match state.set_pending(&anew) {
        Ok(()) => Ok(anew),
        Err(error) => {
            let error = anyhow::Error::from(error);
            console.warn(format_args!(
                "that the change is made cannot be recorded, so it cannot be confirmed: {error:#}"
            ));
            Ok(pending)
        }
    }
}

/// The one change that can cut off what nvactl does not know of: it comes first.
fn announce_policy(family: Family, changes: &Changes<'_>, console: &mut Console) {
    if changes.forward_policy() == Some((Policy::Accept, Policy::Drop)) {
        console.say(format_args!(
            "the {} goes from ACCEPT to DROP: what no rule accepts is no longer forwarded",
            policy(family)
        ));
    }
}

fn warn_of_reference(live: &Ruleset, console: &mut Console) {
    if let Some((_, chain, rule)) = foreign::reference(live) {
        console.warn(format_args!(
            "a rule that is not nvactl's leads to one of its chains: {}",
            Line::Append(chain, rule)
        ));
    }
}

fn warn_of_rivals(family: Family, live: &Ruleset, set: &ForwardSet, console: &mut Console) {
    let rivals = rival::rivals(live, set);
    console.warn_of_rules(rivals.iter().map(|rival| {
        format!(
            "a rule that is not nvactl's forwards for {} too: {}\n  to remove it: {}",
            names(rival.forwards.iter().map(|name| name.as_str())),
            rival.line(),
            rival.removal(family)
        )
    }));
}

fn warn_of_sysctl(set: &ForwardSet, console: &mut Console) -> Result<()> {
    if set.has(Family::V6) && !sysctl::forwards(Family::V6)? {
        console.warn(
            "net.ipv6.conf.all.forwarding is 0: the kernel forwards no IPv6; \
             to turn it on: nvactl sysctl enable --persist --ipv6",
        );
    }
    if !sysctl::forwards(Family::V4)? {
        console.warn(
            "net.ipv4.ip_forward is 0: the kernel forwards nothing; \
             to turn it on: nvactl sysctl enable --persist",
        );
        return Ok(());
    }
    for interface in set.interfaces() {
        match sysctl::forwards_from(interface) {
            Some(true) => {}
            Some(false) => console.warn(format_args!(
                "packets that come in by {interface} are not forwarded; \
                 to turn it on: sysctl -w net.ipv4.conf.{}.forwarding=1",
                // sysctl(8) takes a dot in a name as a slash.
                interface.as_str().replace('.', "/")
            )),
            None => console.warn(format_args!("this machine has no interface {interface}")),
        }
    }
    Ok(())
}
