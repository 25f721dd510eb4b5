//! Loads a spec's plan into the kernel, beside other rules.

use std::collections::BTreeSet;
use std::net::IpAddr;

use tracing::debug;

use super::adopt::{AdoptedRule, Adoption, compare, say_of_rules_files};
use super::commit::commit_and_log;
use super::ending::Ended;
use super::error::{Error, Failed, describe};
use super::flows::{self, Strays};
use super::history::{self, ChangeDetails};
use super::interrupted::{name_interrupted, resume};
use super::log::ChangeEvent;
use super::look::{Ahead, Situation, families, look};
use super::machine::MachineToChange;
use super::note_v6::note_v6;
use super::outcome::{ChangeOutcome, Difference};
use super::packets::{Overtaken, PacketTrial, try_packets};
use super::records::{Change, Decision, KeptSpec, Pending};
use super::refusal::{Refusal, refuse_on_old};
use super::remark::Remarks;
use super::state::State;
use super::transaction::{Committed, Keeping, Transaction, TransactionError, TrialMode};
use super::{next_boot, undone_flows, waiting, warn, watchdog};
use crate::diff::families::changes;
use crate::forwards::ForwardSet;
use crate::health::reach::{self, Fault};
use crate::host::iptables::Listing;
use crate::host::kernel;
use crate::host::lock::{self, Lock};
use crate::host::namespace::uptime_secs;
use crate::host::network::Links;
use crate::host::progress::Progress;
use crate::host::survey::resolved;
use crate::net::Family;
use crate::net::per_family::PerFamily;
use crate::netfilter::conntrack::Flow;
use crate::netfilter::names::Policy;
use crate::netfilter::ruleset::Ruleset;
use crate::twin::rule_change::RuleChange;

/// The spec to load, and the options.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of the command, and none depends on another"
)]
#[derive(Debug)]
pub struct ApplyRequest<'a> {
    pub set: &'a ForwardSet,
    /// The name of the spec in messages.
    pub name: &'a str,
    pub spec: &'a KeptSpec,
    /// Report the changes and make none.
    pub dry_run: bool,
    /// Undo the change after these seconds unless it is confirmed.
    pub confirm_secs: Option<u64>,
    /// End connections that follow an older spec.
    pub flush_stale: bool,
    /// Try the change in a copy of the machine first.
    pub trial: bool,
    /// Take out the foreign rules that the spec says as well.
    pub adopt: bool,
}

#[derive(Debug)]
pub struct ApplyReport {
    /// Remarks before the outcome.
    pub remarks: Remarks,
    pub outcome: ChangeOutcome,
    /// The foreign rules that were taken out, or would be.
    pub adopted: Vec<AdoptedRule>,
    /// Remarks after the outcome.
    pub after: Remarks,
    /// Whether connections that should have been ended are still alive; in a dry run, whether some would be
    /// ended.
    pub flows_left: bool,
}

/// Loads the missing part of the plan. `ahead` was started before the spec was checked. `show` gets the foreign rules
/// that are about to be taken out, before any rule changes; in a dry run, those that would be.
///
/// # Errors
/// When the change is refused or fails. nvactl's rules are then as before, unless the error [is
/// uncertain](Error::is_uncertain).
pub fn apply(
    request: &ApplyRequest<'_>,
    machine: &MachineToChange,
    ahead: Option<Ahead>,
    show: impl FnOnce(&[AdoptedRule]),
) -> Result<ApplyReport, Failed> {
    let mut remarks = Remarks::of(&machine.state.notices);
    let mut adoption = Adoption::default();
    match run(request, machine, ahead, &mut adoption, &mut remarks, show) {
        Ok((outcome, after, flows_left)) => Ok(ApplyReport {
            remarks,
            outcome,
            adopted: adoption.rules,
            after,
            flows_left,
        }),
        Err(error) => Err(Failed::new(error, remarks)),
    }
}

fn run(
    request: &ApplyRequest<'_>,
    machine: &MachineToChange,
    ahead: Option<Ahead>,
    adoption: &mut Adoption,
    remarks: &mut Remarks,
    show: impl FnOnce(&[AdoptedRule]),
) -> Result<(ChangeOutcome, Remarks, bool), Error> {
    let ApplyRequest { set, .. } = request;
    let MachineToChange {
        state, iptables, ..
    } = machine;
    let (lock, rules) = begin(request, machine, ahead)?;
    let found = look(rules, iptables, set, request.flush_stale, remarks)?;
    refuse_on_old(kernel::running(), &found.want)?;
    let live = found.before.map(|_, (live, _)| live);
    if request.adopt {
        *adoption = Adoption::find(set, &found, remarks)?;
    }
    let changes = changes(&live, &found.want).with_foreign(&live, &adoption.goal());
    let interrupted = if request.dry_run {
        name_interrupted(state, &live).map(|remark| remarks.0.extend(remark))
    } else {
        resume(state, &live, remarks)
    };
    interrupted?;
    say_before(request, machine, &found, adoption, remarks)?;
    // If nothing changes, only the tests are tried, which may be new.
    let is_tried = !changes.is_empty() || !set.tests.is_empty();
    let trial = if request.trial && is_tried {
        tried(request, machine, &found, adoption, remarks)?
    } else {
        (TrialMode::Nothing, Vec::new())
    };
    let (trial, overtaken) = trial;
    if request.trial {
        compare(adoption, &live, &found.want, *iptables, remarks)?;
    }
    let links = found.reach.as_ref().map(|facts| facts.links.clone());
    let links = links.unwrap_or_default();
    let strays = Strays::find(&found.flows, set, state, &live, &links)?;
    let mut after = Remarks::default();
    if request.dry_run {
        show(&adoption.rules);
        remarks.0.extend(strays.would_end(request.flush_stale));
        let would_end = request.flush_stale && !strays.is_empty();
        let outcome = if changes.is_empty() {
            ChangeOutcome::Unchanged
        } else {
            ChangeOutcome::Would(Difference::from_spec(&changes, &live, set))
        };
        return Ok((outcome, after, would_end));
    }
    if changes.is_empty() {
        note_v6(state, live.v6);
        state.clear_begun()?;
        if let Err(error) = history::record_text(state, request.spec) {
            debug!(
                error = describe(&error.into()),
                "the text of the spec was not recorded"
            );
        }
        drop(lock);
        let ended = strays.end(request.flush_stale, request.name);
        let flows_left = ended.iter().any(|ended| ended.failed);
        after.0.extend(ended.into_iter().map(|ended| ended.remark));
        next_boot::say(state, iptables, &live, &mut after);
        return Ok((ChangeOutcome::Unchanged, after, flows_left));
    }
    let difference = Difference::from_spec(&changes, &live, set);
    let making = Making {
        request,
        machine,
        lock: &lock,
        found: &found,
        adoption,
    };
    show(&adoption.rules);
    let (pending, mut after) = commit(&making, &difference, trial)?;
    drop(lock);
    say_of_rules_files(&adoption.rules, &mut after);
    for overtaken in overtaken {
        after.warn(overtaken.done);
    }
    if let (Some(before), false) = (live.v6, set.has(Family::V6)) {
        say_v6_went(state, before, &mut after);
    }
    let mut flows_left = false;
    if pending.is_none() {
        // The rules are loaded by now, so a failure must not claim that nothing has changed.
        let ended = end_outdated(request, machine, &live, &links);
        let ended = ended.unwrap_or_else(|error| vec![Ended::failed(&error)]);
        flows_left = ended.iter().any(|ended| ended.failed);
        after.0.extend(ended.into_iter().map(|ended| ended.remark));
        next_boot::say_of_change(state, iptables, &found.want.as_ref(), &mut after);
    }
    let outcome = ChangeOutcome::Made {
        difference,
        pending,
    };
    Ok((outcome, after, flows_left))
}

/// Takes the lock and starts to read the rules, unless `ahead` has done so.
fn begin(
    request: &ApplyRequest<'_>,
    machine: &MachineToChange,
    ahead: Option<Ahead>,
) -> Result<(Lock, Listing), Error> {
    let MachineToChange {
        state, iptables, ..
    } = machine;
    let (lock, rules) = match ahead {
        Some(Ahead(lock, rules)) => (lock, Some(rules)),
        None => (
            lock::take(&state.lock_file(), machine.lock_wait_secs)?,
            None,
        ),
    };
    waiting::refuse_while_pending(state)?;
    if !request.dry_run {
        machine.clear_leftovers();
    }
    // Under the lock, since another process may have loaded the first IPv6 rules.
    let families = families(Some(request.set), Some(state));
    match rules.filter(|rules| rules.families() == families) {
        Some(rules) => Ok((lock, rules)),
        None => Ok((lock, iptables.start_listing(families)?)),
    }
}

/// Tries connections through a copy of the machine with the change, if a copy can be made. Returns the rules that
/// nvactl's jump will precede, for after the change.
///
/// # Errors
/// When the change would cut off connections that work now, or tests of the spec fail or cannot be run.
fn tried(
    request: &ApplyRequest<'_>,
    machine: &MachineToChange,
    found: &Situation<'_>,
    adoption: &Adoption,
    remarks: &mut Remarks,
) -> Result<(TrialMode, Vec<Overtaken>), Error> {
    let progress = Progress::new();
    progress.step("trying…");
    let live = found.before.map(|_, (live, _)| live);
    let goal = adoption.goal().map(|_, goal| (*goal).clone());
    let change = RuleChange::from_live(machine.iptables, &live, found.want.clone(), goal);
    let changes_nothing = change.is_empty();
    let snat = || foreign_snat(request.set, found);
    let has_tests = !request.set.tests.is_empty();
    let alone = if request.dry_run {
        ""
    } else {
        "; the rules alone are tried next"
    };
    match try_packets(request.set, &live, &found.flows, change, snat, remarks) {
        PacketTrial::Passed(mut overtaken) => {
            if request.dry_run {
                for overtaken in overtaken.drain(..) {
                    remarks.warn(overtaken.planned);
                }
            }
            Ok((TrialMode::Past, overtaken))
        }
        PacketTrial::Cuts(lines) => Err(Refusal::CutsOff { lines }.into()),
        PacketTrial::TestsFail(tests) => Err(Refusal::TestsFail { tests }.into()),
        PacketTrial::NotLoaded if has_tests => Err(Refusal::NotTested {
            why: "the new rules do not load in a copy of this machine".to_owned(),
        }
        .into()),
        PacketTrial::Impossible(why) if changes_nothing => {
            remarks.warn(format_args!(
                "the tests of the spec were not run, because no copy of this machine could be made: {why}"
            ));
            Ok((TrialMode::Nothing, Vec::new()))
        }
        PacketTrial::Impossible(why) if has_tests => {
            let why = format!("no copy of this machine could be made: {why}");
            Err(Refusal::NotTested { why }.into())
        }
        PacketTrial::NotLoaded => {
            remarks.warn(format_args!(
                "connections were not tried, because the new rules do not load in the copy of this machine{alone}"
            ));
            Ok((TrialMode::Rules, Vec::new()))
        }
        PacketTrial::Impossible(why) => {
            remarks.warn(format_args!(
                "connections were not tried, because no copy of this machine could be made: {why}{alone}"
            ));
            Ok((TrialMode::Shapes, Vec::new()))
        }
    }
}

/// Returns the SNAT addresses of a spec that are not this machine's.
fn foreign_snat(set: &ForwardSet, found: &Situation<'_>) -> BTreeSet<IpAddr> {
    let facts = found.reach.iter();
    let faults = facts.flat_map(|facts| reach::faults(set, facts, &found.flows));
    let foreign = faults.filter_map(|fault| match fault {
        Fault::ForeignSnat { addresses, .. } => Some(addresses),
        _ => None,
    });
    foreign.flatten().collect()
}

/// A change that is about to be made.
struct Making<'m> {
    request: &'m ApplyRequest<'m>,
    machine: &'m MachineToChange,
    lock: &'m Lock,
    found: &'m Situation<'m>,
    adoption: &'m Adoption,
}

/// Makes the change, and returns it if it waits for its confirmation.
fn commit(
    making: &Making<'_>,
    difference: &Difference,
    trial: TrialMode,
) -> Result<(Option<Box<Pending>>, Remarks), Error> {
    let Making {
        request,
        machine,
        lock,
        found,
        adoption,
    } = *making;
    let live = found.before.map(|_, (live, _)| live);
    let about = ChangeDetails {
        spec: Some(request.spec.clone()),
        forwards: difference.forwards.clone(),
        adopted: adoption.kept(),
        ..ChangeDetails::default()
    };
    let action = format!("apply {}", request.name);
    let change = Change::new(&machine.state, action, &live, &found.want, about);
    let transaction = Transaction {
        state: &machine.state,
        lock,
        iptables: &machine.iptables,
        before: &found.before,
        want: &found.want,
        foreign: &adoption.shift,
        change: &change,
        keeping: Keeping::Required,
        trial,
    };
    let mut after = Remarks::default();
    let (committed, pending) = match request.confirm_secs {
        Some(secs) => {
            let guarded = Guarded {
                transaction: &transaction,
                flows: &found.flows,
                seconds: secs,
            };
            let (committed, pending) = commit_guarded(&guarded, request, &mut after)?;
            (committed, Some(Box::new(pending)))
        }
        None => {
            let committed = commit_and_log(&transaction, ChangeEvent::Made)?;
            (committed, None)
        }
    };
    warn::jumps(&committed.jumps, &found.want, &mut after);
    Ok((pending, after))
}

fn say_before(
    request: &ApplyRequest<'_>,
    machine: &MachineToChange,
    found: &Situation<'_>,
    adoption: &Adoption,
    remarks: &mut Remarks,
) -> Result<(), Error> {
    let ApplyRequest { set, .. } = request;
    let live = found.before.map(|_, (live, _)| live);
    let changes = changes(&live, &found.want);
    warn::policy(&changes, true, remarks);
    for warning in &found.surroundings.warnings {
        remarks.warn(warning);
    }
    warn::layout(&live, &found.want, remarks);
    for (family, live) in live.iter() {
        warn::reference(live, remarks);
        let program = machine.iptables.backend.program(family, "iptables");
        let goal = adoption.shift.get(family).map(|shift| &shift.new);
        match goal.filter(|goal| !goal.is_empty()) {
            Some(goal) => {
                let staying = goal.reached(live);
                warn::duplicates(&staying, &set.of(family), &program, remarks);
            }
            None => warn::duplicates(live, &set.of(family), &program, remarks),
        }
    }
    let around = &found.surroundings;
    warn::marks(&live, &found.want, around, &machine.iptables, remarks);
    warn::reach(set, found.reach.as_ref(), &found.flows, &live, remarks);
    warn::sysctl(set, remarks)?;
    Ok(())
}

/// Reads the connections again, since new ones may have come while the rules were being loaded.
fn end_outdated(
    request: &ApplyRequest<'_>,
    machine: &MachineToChange,
    before: &PerFamily<&Ruleset>,
    links: &Links,
) -> Result<Vec<Ended>, Error> {
    let ApplyRequest {
        set, flush_stale, ..
    } = request;
    let flows = flows::read(before.families(), *flush_stale)?;
    // Translated connections of a family without rules end without help.
    let ends = |flow: &Flow| {
        let is_translated = flow.is_translated() || !flow.keeps_source();
        let goes = Family::of(flow.destination) == Family::V6 && !set.has(Family::V6);
        goes && is_translated && !flush_stale
    };
    let strays = Strays::find(&flows, set, &machine.state, before, links)?;
    Ok(strays.without(ends).end(*flush_stale, request.name))
}

/// Adds the remarks for a spec without IPv6 forwards after one with some.
fn say_v6_went(state: &State, before: &Ruleset, after: &mut Remarks) {
    if !before.holds_own() {
        return;
    }
    if before.forward_policy() == Policy::Drop {
        let by = if history::has_set_policy_v6(state) {
            ", as an earlier change by nvactl set it"
        } else {
            ""
        };
        after.note(format_args!(
            "the {} stays DROP{by}: packets that no ip6tables rule accepts are not forwarded",
            warn::policy_name(Family::V6)
        ));
    }
    warn::connections_end([(Family::V6, before)], false, after);
}

/// A change that a watchdog undoes after some seconds unless it is confirmed.
struct Guarded<'g> {
    transaction: &'g Transaction<'g>,
    /// The connections from before the change.
    flows: &'g [Flow],
    seconds: u64,
}

/// Makes a change that a watchdog undoes unless it is confirmed.
fn commit_guarded(
    guarded: &Guarded<'_>,
    request: &ApplyRequest<'_>,
    after: &mut Remarks,
) -> Result<(Committed, Pending), Error> {
    let Guarded {
        transaction,
        flows,
        seconds,
    } = *guarded;
    let state = transaction.state;
    let mut pending = Pending::new(
        transaction.change.clone(),
        transaction.want,
        resolved(transaction.iptables, transaction.want.families()),
        seconds,
    )?;
    pending.flush_stale = request.flush_stale;
    let live = transaction.before.map(|_, (live, _)| live);
    pending.older = undone_flows::older(&pending, flows, &live);
    watchdog::guard(state, &pending, seconds)?;
    let event = ChangeEvent::MadeToConfirm { secs: seconds };
    let committed = match commit_and_log(transaction, event) {
        Ok(committed) => committed,
        Err(error) => {
            // The change was never made, or was undone already. But if the loaded rules are not known, the
            // watchdog may still restore the old ones.
            if !matches!(error, TransactionError::Uncertain { .. }) {
                let settled = waiting::settle(state, &pending, Decision::NotMade);
                if let Err(error) = settled {
                    debug!(
                        error = describe(&error.into()),
                        "the record of the change was not removed"
                    );
                }
            }
            return Err(error.into());
        }
    };
    // The time starts here, since loading took a part of it.
    let anew = Pending {
        deadline: uptime_secs() + seconds,
        made: true,
        ..pending.clone()
    };
    match state.set_pending(&anew) {
        Ok(()) => Ok((committed, anew)),
        Err(error) => {
            after.warn(format_args!(
                "the change is loaded, but this could not be recorded, so it cannot be confirmed and will be \
                 undone: {}",
                describe(&error.into())
            ));
            Ok((committed, pending))
        }
    }
}
