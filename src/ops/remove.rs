//! Removes nvactl's chains and jumps.

use super::adopt::{are_there, of_family};
use super::commit::commit_and_log;
use super::error::{Error, Failed};
use super::history::{self, ChangeDetails};
use super::interrupted::{name_interrupted, resume};
use super::log::ChangeEvent;
use super::look::{told, warn_of_unread_v6};
use super::machine::MachineToChange;
use super::note_v6::note_v6;
use super::outcome::{ChangeOutcome, Difference};
use super::records::Change;
use super::refusal::Refusal;
use super::remark::Remarks;
use super::transaction::{Keeping, Transaction, TrialMode};
use super::{next_boot, warn};
use crate::diff::families::changes;
use crate::health::{foreign, lost_replies};
use crate::net::Family;
use crate::net::per_family::{Families, PerFamily};
use crate::net::printable;
use crate::net::words::counted;
use crate::netfilter::backend::Backend;
use crate::netfilter::names::{ChainName, Policy, TableName};
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::line::Line;

#[derive(Debug, Clone, Copy)]
pub struct RemoveRequest {
    /// Report the changes and make none.
    pub dry_run: bool,
    /// Set the FORWARD policy to ACCEPT too.
    pub accept: bool,
}

#[derive(Debug)]
pub struct RemoveReport {
    pub remarks: Remarks,
    pub outcome: ChangeOutcome,
    /// Remarks after the outcome.
    pub after: Remarks,
    /// Whether IPv6 rules may still be loaded, because they cannot be read.
    pub partly: bool,
}

/// Removes nvactl's chains and jumps. The FORWARD policy stays unless the request sets it.
///
/// # Errors
/// When a foreign rule jumps to one of the chains, or the change is refused or fails. nvactl's rules are then
/// as before, unless the error [is uncertain](Error::is_uncertain).
pub fn remove(request: RemoveRequest, machine: &MachineToChange) -> Result<RemoveReport, Failed> {
    let mut remarks = Remarks::of(&machine.state.notices);
    match run(request, machine, &mut remarks) {
        Ok((outcome, after, partly)) => Ok(RemoveReport {
            remarks,
            outcome,
            after,
            partly,
        }),
        Err(error) => Err(Failed::new(error, remarks)),
    }
}

fn run(
    request: RemoveRequest,
    machine: &MachineToChange,
    remarks: &mut Remarks,
) -> Result<(ChangeOutcome, Remarks, bool), Error> {
    let MachineToChange {
        state, iptables, ..
    } = machine;
    let lock = machine.begin()?;
    let may_hold_v6 = super::families(None, Some(state)) == Families::Both;
    // A policy that an earlier change set stays after the rules of IPv6 are gone.
    let families = Families::with_v6(may_hold_v6 || history::has_set_policy_v6(state));
    let (counted, unread) = iptables.start_listing(families)?.finish_readable(false)?;
    let unread = unread.filter(|_| may_hold_v6);
    let partly = unread.is_some();
    warn_of_unread_v6(unread, remarks);
    let before = told(counted, iptables, remarks);
    let live = before.map(|_, (live, _)| live);
    if request.dry_run {
        remarks.0.extend(name_interrupted(state, &live)?);
    } else {
        resume(state, &live, remarks)?;
    }
    for (family, live) in live.iter() {
        if let Some((table, chain, rule)) = foreign::reference(live) {
            return Err(Refusal::StillReferenced {
                line: Line::Append(chain, rule).to_string(),
                removal: Line::Delete(chain, rule)
                    .as_command(&iptables.backend.program(family, "iptables"), table),
            }
            .into());
        }
    }
    let want = PerFamily::new(live.families(), |_| {
        let mut want = Ruleset::default();
        if request.accept {
            want.chain_mut(TableName::Filter, ChainName::Forward).policy = Some(Policy::Accept);
        }
        want
    });
    let changes = changes(&live, &want);
    let mut after = Remarks::default();
    let outcome = if changes.is_empty() {
        if !request.dry_run {
            note_v6(state, live.v6);
            state.clear_begun()?;
        }
        ChangeOutcome::Unchanged
    } else {
        let difference = Difference::from_rules(&changes, &live, &want);
        if request.dry_run {
            ChangeOutcome::Would(difference)
        } else {
            let about = ChangeDetails {
                forwards: difference.forwards.clone(),
                ..ChangeDetails::default()
            };
            let change = Change::new(state, "remove".to_owned(), &live, &want, about);
            let transaction = Transaction {
                state,
                lock: &lock,
                iptables,
                before: &before,
                want: &want,
                foreign: &PerFamily::default(),
                change: &change,
                keeping: Keeping::Attempted,
                trial: TrialMode::Nothing,
            };
            let committed = commit_and_log(&transaction, ChangeEvent::Made)?;
            warn::not_kept(committed.not_kept, &mut after);
            let held = live.iter().map(|(family, rules)| (family, *rules));
            warn::connections_end(held, request.accept, &mut after);
            ChangeOutcome::Made {
                difference,
                pending: None,
            }
        }
    };
    // The change is made: a history that cannot be read is no error any longer.
    let history = state.changes().unwrap_or_default();
    drop(lock);
    say_adopted(&history, &live, &mut after);
    for (family, live) in live.iter() {
        say_policy(family, iptables.backend, live, request, &mut after);
        say_lost_replies(family, iptables.backend, live, request, &mut after);
    }
    if !request.dry_run {
        next_boot::say(state, iptables, &want.as_ref(), &mut after);
    }
    Ok((outcome, after, partly))
}

/// Notes that rules of others which a change took out do not come back, and the command that brings them back.
fn say_adopted(history: &[(u64, Change)], live: &PerFamily<&Ruleset>, after: &mut Remarks) {
    let Some((number, count)) = history::brings_all_back(history) else {
        return;
    };
    let out = history::still_out(history, number);
    let is_there = |(family, live): (Family, &&Ruleset)| {
        let of_family = of_family(&out, family);
        !of_family.is_empty() && are_there(live, &of_family)
    };
    // A boot may have loaded them again.
    if live.iter().any(is_there) {
        return;
    }
    let rules = counted(count, "rule");
    after.note(format_args!(
        "a removal does not bring back {rules} that nvactl adopted; to go back to before change {number}, which adopted \
         them: sudo nvactl rollback {number}"
    ));
}

/// Warns of foreign accepts whose replies nvactl's rules accept until they are removed.
fn say_lost_replies(
    family: Family,
    backend: Backend,
    before: &Ruleset,
    request: RemoveRequest,
    after: &mut Remarks,
) {
    let lost = lost_replies::without_replies(before);
    if request.accept || !before.holds_own() || lost.is_empty() {
        return;
    }
    let lost = lost.iter().map(|rule| {
        let line = Line::Append(&ChainName::Forward, rule);
        format!("\n  {}", printable::line(line))
    });
    let rules: String = lost.collect();
    let known = lost_replies::for_replies();
    let command = Line::Insert(&ChainName::Forward, 1, &known);
    after.warn(format_args!(
        "without nvactl's rules nothing accepts the replies to connections that these rules accept:{rules}\n  \
         to accept them: {}",
        command.as_command(&backend.program(family, "iptables"), TableName::Filter)
    ));
}

fn say_policy(
    family: Family,
    backend: Backend,
    live: &Ruleset,
    request: RemoveRequest,
    after: &mut Remarks,
) {
    if live.forward_policy() != Policy::Drop {
        return;
    }
    let policy = warn::policy_name(family);
    match (request.accept, request.dry_run) {
        (false, _) => warn::policy_stays(family, backend, after),
        (true, false) => {
            after.line(format_args!(
                "the {policy} changed from DROP to ACCEPT: packets that no rule drops are forwarded"
            ));
        }
        (true, true) => {
            after.line(format_args!(
                "the {policy} would change from DROP to ACCEPT"
            ));
        }
    }
}
