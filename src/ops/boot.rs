//! Enables, disables, runs and tests nvactl's boot unit.

use std::path::PathBuf;

use tracing::debug;

use super::commit::commit_and_log;
use super::error::{Error, Failed, describe};
use super::history::{ChangeDetails, LastLoaded, last_loaded};
use super::interrupted::resume;
use super::log::ChangeEvent;
use super::look::{families, read, warn_of_unread_v6};
use super::machine::MachineToChange;
use super::note_v6::note_v6;
use super::persist::refuse_flushed;
use super::records::{Booted, Brought, Change, SavedState, VERSION};
use super::refusal::Refusal;
use super::remark::Remarks;
use super::saved;
use super::state::{State, StateError, seconds_now};
use super::transaction::{Keeping, Transaction, TrialMode, owned_digest};
use super::waiting::refuse_while_pending;
use crate::diff;
use crate::host::boot_unit::{self, UnitError};
use crate::host::file::{self, FileError, Prepared};
use crate::host::iptables::{Iptables, Live, LoadTrialError};
use crate::host::lock::{self, Lock};
use crate::host::sysctl::settings::Switch;
use crate::host::{namespace, persistence, sysctl};
use crate::net::Family;
use crate::net::per_family::{Families, PerFamily};
use crate::net::printable;
use crate::netfilter::counters::Counters;
use crate::netfilter::names::{ChainName, Policy, TableName};
use crate::netfilter::ruleset::Ruleset;
use crate::ops::splice::{self, Split};

/// nvactl's lines in a file that another program loads at boot.
#[derive(Debug, PartialEq, Eq)]
pub struct Doubled {
    pub path: PathBuf,
    pub split: Split,
}

/// Returns nvactl's lines in the rules files, which would be loaded at boot too.
///
/// # Errors
/// When a file cannot be read or edited.
fn doubled() -> Result<Vec<Doubled>, Error> {
    let mut found = Vec::new();
    for family in Family::ALL {
        let path = PathBuf::from(persistence::rules_file(family));
        let Some(bytes) = file::read(&path)? else {
            continue;
        };
        let split = splice::without_own(&bytes).map_err(|error| Refusal::Uneditable {
            file: path.display().to_string(),
            reason: error.to_string(),
        })?;
        // A jump in another spelling would lead to a missing chain, and the file would not load.
        let rest = String::from_utf8_lossy(&split.others);
        let named = |line: &&str| line.contains("NVACTL-") && !line.starts_with('#');
        if let Some(line) = rest.lines().find(named) {
            return Err(Refusal::Uneditable {
                file: path.display().to_string(),
                reason: format!(
                    "nvactl cannot read this line, which names one of its chains: {}",
                    printable::line(line)
                ),
            }
            .into());
        }
        if !split.own.is_empty() {
            found.push(Doubled { path, split });
        }
    }
    Ok(found)
}

/// The result of [`enable`].
#[derive(Debug)]
pub struct Enabled {
    pub remarks: Remarks,
    /// nvactl's lines that were removed from files that other programs load.
    pub doubled: Vec<Doubled>,
    /// Whether systemd runs here; if not, the unit runs at the next boot.
    pub running: bool,
    /// Why systemd could not start the enabled unit.
    pub failed: Option<UnitError>,
}

/// Saves nvactl's part of the loaded rules, enables the unit, and removes nvactl's lines from files that
/// other programs load.
///
/// # Errors
/// When a change waits for its confirmation, nvactl's rules are not loaded, or the unit cannot be enabled.
pub fn enable(machine: &MachineToChange) -> Result<Enabled, Failed> {
    let mut remarks = Remarks::of(&machine.state.notices);
    let doubled = match set_up(machine, &mut remarks) {
        Ok(doubled) => doubled,
        Err(error) => return Err(Failed::new(error, remarks)),
    };
    // The unit takes the lock, which is free by now.
    let started = boot_unit::runs_here().then(boot_unit::start);
    Ok(Enabled {
        remarks,
        doubled,
        running: started.is_some(),
        failed: started.and_then(Result::err),
    })
}

fn set_up(machine: &MachineToChange, remarks: &mut Remarks) -> Result<Vec<Doubled>, Error> {
    let state = &machine.state;
    let _lock = machine.begin()?;
    let unit = boot_unit::prepare(state.folder())?;
    let families = families(None, Some(state));
    let (live, unread) = read(&machine.iptables, families, false)?;
    let unread_v6 = unread.is_some();
    warn_of_unread_v6(unread, remarks);
    let rules = live.map(|_, live| &live.ruleset);
    resume(state, &rules, remarks)?;
    if !rules.values().any(|rules| rules.holds_own()) {
        return Err(Refusal::NothingToSave { saved: false }.into());
    }
    refuse_flushed(state, &rules, None)?;
    let doubled = doubled()?;
    let files = doubled.iter().map(Doubled::prepare);
    let files = files.collect::<Result<Vec<_>, FileError>>()?;
    saved::save(machine, &rules, unread_v6, None, remarks)?;
    unit.enable()?;
    // Last: until then, both load the rules, which does no harm.
    for prepared in files.into_iter().flatten() {
        prepared.commit()?;
    }
    note_v6(state, rules.v6);
    Ok(doubled)
}

impl Doubled {
    /// Prepares the file without nvactl's lines, and a backup of the old file.
    fn prepare(&self) -> Result<[Prepared; 2], FileError> {
        let old = file::read(&self.path)?.unwrap_or_default();
        Ok([
            file::prepare(&file::backup_of(&self.path), &old, file::RULES_MODE)?,
            file::prepare(&self.path, &self.split.others, file::RULES_MODE)?,
        ])
    }
}

/// The result of [`disable`].
#[derive(Debug)]
pub struct Disabled {
    /// Whether the unit was enabled.
    pub was_enabled: bool,
    /// Whether nvactl's rules are loaded; if they cannot be read, they may be.
    pub holds_own: bool,
}

/// Disables the unit and deletes the saved state; the loaded rules stay.
///
/// # Errors
/// When the unit or the state folder cannot be changed.
pub fn disable(machine: &MachineToChange) -> Result<Disabled, Error> {
    let state = &machine.state;
    let _lock = lock::take(&state.lock_file(), machine.lock_wait_secs)?;
    let was_enabled = boot_unit::disable()?;
    state.clear_saved()?;
    let read = read(&machine.iptables, families(None, Some(state)), false);
    let holds = |(live, unread): (PerFamily<Live>, Option<_>)| {
        unread.is_some() || live.values().any(|live| live.ruleset.holds_own())
    };
    Ok(Disabled {
        was_enabled,
        holds_own: read.map_or(true, holds),
    })
}

/// The result of one run of the unit.
#[derive(Debug)]
pub struct BootLoad {
    pub remarks: Remarks,
    pub brought: Brought,
    /// Why the saved state was not loaded.
    pub why: Option<String>,
}

/// Loads the saved state beside the loaded rules, and then turns forwarding on if it was on when the rules
/// were saved.
///
/// Later in the same boot, after another program restarts or reloads, rules that are still as applied last
/// stay: only flushed rules are loaded from the saved state.
///
/// If the saved state does not load, the state saved before it is loaded; if that does not load either, the
/// FORWARD policies become DROP. INPUT and OUTPUT are not touched.
///
/// # Errors
/// When neither the policy nor the forwarding switch can be set.
pub fn load(
    machine: Result<MachineToChange, StateError>,
    iptables: &Iptables,
) -> Result<BootLoad, Error> {
    let machine = match machine {
        Ok(machine) => machine,
        Err(error) => return close(iptables, None, describe(&error.into())),
    };
    let state = &machine.state;
    let lock = match lock::take(&state.lock_file(), machine.lock_wait_secs) {
        Ok(lock) => lock,
        // A process that holds the lock for so long may have loaded its rules before the flush.
        Err(error) => return close(iptables, None, describe(&error.into())),
    };
    let mut remarks = Remarks::default();
    if is_as_applied(&machine) {
        record(state, Brought::Left, None);
        return Ok(BootLoad {
            remarks,
            brought: Brought::Left,
            why: None,
        });
    }
    let mut whys = Vec::new();
    for (brought, kept) in [
        (Brought::Saved, state.saved()),
        (Brought::Before, state.saved_before()),
    ] {
        let loaded = match kept {
            Ok(Some(kept)) => {
                let closes_v6 = !whys.is_empty();
                bring(&machine, &lock, &kept, closes_v6, &mut remarks)
            }
            Ok(None) if brought == Brought::Saved => Err(Refusal::NothingSaved.into()),
            Ok(None) => continue,
            Err(error) => Err(error.into()),
        };
        match loaded {
            Ok(()) => {
                let why = whys.pop();
                record(state, brought, why.clone());
                return Ok(BootLoad {
                    remarks,
                    brought,
                    why,
                });
            }
            Err(error) => whys.push(describe(&error).replace('\n', "; ")),
        }
    }
    let why = whys.join("; and the rules saved before them: ");
    let closed = close(iptables, Some(&lock), why.clone())?;
    record(state, Brought::Closed, Some(why));
    Ok(closed)
}

/// Whether nvactl's rules are still those that it loaded last, by a change that was made or kept in this
/// boot. In doubt they are not.
fn is_as_applied(machine: &MachineToChange) -> bool {
    let asked = || -> Result<bool, Error> {
        let state = &machine.state;
        let Some(LastLoaded::Change(last)) = last_loaded(state)? else {
            return Ok(false);
        };
        if last.boot != namespace::boot().ok() {
            return Ok(false);
        }
        // The unit has no `--backend`.
        let saved = state.saved()?;
        let iptables = Iptables {
            backend: saved.map_or(machine.iptables.backend, |saved| saved.backend),
            ..machine.iptables
        };
        let (live, _) = read(&iptables, families(None, Some(state)), false)?;
        let as_loaded = |live: &Ruleset, digest: Option<_>, sets_policy, closed: bool| {
            let same = digest.map_or(!live.holds_own(), |digest| {
                owned_digest(live, sets_policy) == digest
            });
            same && (!closed || live.forward_policy() == Policy::Drop)
        };
        let v6 = live.v6.as_ref().is_none_or(|live| {
            let sets_policy = last.v6.as_ref().is_some_and(|owned| owned.sets_policy);
            let closed = last.closed_v6.unwrap_or_default();
            as_loaded(&live.ruleset, last.loaded_v6, sets_policy, closed)
        });
        let sets_policy = last.v4.sets_policy;
        let v4 = as_loaded(&live.v4.ruleset, last.loaded, sets_policy, last.closed);
        Ok(v4 && v6 && last.loaded.is_some())
    };
    asked().unwrap_or_else(|error| {
        debug!(
            error = describe(&error),
            "the loaded rules could not be compared"
        );
        false
    })
}

/// Loads a saved state. `closes_v6`: if the state has no IPv6 rules, the IPv6 FORWARD policy becomes DROP,
/// since a later state that did not load may have had some.
fn bring(
    machine: &MachineToChange,
    lock: &Lock,
    kept: &SavedState,
    closes_v6: bool,
    remarks: &mut Remarks,
) -> Result<(), Error> {
    let iptables = Iptables {
        backend: kept.backend,
        ..machine.iptables
    };
    let mut want = kept.rules()?;
    let may_hold_v6 = families(None, Some(&machine.state)) == Families::Both;
    if want.v6.is_none() && may_hold_v6 {
        let mut nothing = Ruleset::default();
        if closes_v6 {
            nothing
                .chain_mut(TableName::Filter, ChainName::Forward)
                .policy = Some(Policy::Drop);
        }
        want.v6 = Some(nothing);
    }
    let (counted, unread) = iptables
        .start_listing(want.families())?
        .finish_readable(false)?;
    let open_v6 = unread.is_some() && (closes_v6 || kept.v6.is_some());
    if unread.is_some() {
        want.v6 = None;
    }
    warn_of_unread_v6(unread, remarks);
    for (_, (live, want)) in counted.as_ref().zip(want.as_ref()).iter() {
        live.shows(want)?;
    }
    let before = PerFamily {
        v4: (counted.v4.ruleset, counted.v4.counters),
        v6: counted.v6.map(|live| (live.ruleset, live.counters)),
    };
    let live = before.map(|_, (live, _)| live);
    if !crate::diff::families::changes(&live, &want).is_empty() {
        let about = ChangeDetails {
            spec: kept.spec.clone(),
            ..ChangeDetails::default()
        };
        let change = Change::new(&machine.state, "boot load".to_owned(), &live, &want, about);
        let transaction = Transaction {
            state: &machine.state,
            lock,
            iptables: &iptables,
            before: &before,
            want: &want,
            foreign: &PerFamily::default(),
            change: &change,
            // A load at boot is no step for a rollback.
            keeping: Keeping::Done,
            trial: TrialMode::Nothing,
        };
        commit_and_log(&transaction, ChangeEvent::Made)?;
    }
    let v6 = Switch::Forwarding(Family::V6);
    if open_v6 && sysctl::has(v6) && sysctl::value(v6)? {
        sysctl::change(&[v6], false, false)?;
        remarks.warn("IPv6 rules cannot be loaded, so IPv6 forwarding was turned off");
    }
    // The rules are loaded: a failure from here on is no reason to load other rules.
    let on = [
        (Family::V4, kept.forwards),
        (Family::V6, kept.forwards_v6 && want.v6.is_some()),
    ];
    for (family, on) in on {
        let switch = Switch::Forwarding(family);
        if on
            && sysctl::has(switch)
            && let Err(error) = sysctl::change(&[switch], true, false)
        {
            remarks.warn(format_args!(
                "{} could not be turned on: {}",
                switch.key(),
                describe(&error.into())
            ));
        }
    }
    if let Err(error) = sysctl::set_kept_liberal() {
        remarks.warn(format_args!(
            "{} could not be set: {}",
            Switch::Liberal.key(),
            describe(&error.into())
        ));
    }
    Ok(())
}

/// Sets the FORWARD policies to DROP; if iptables fails, turns forwarding off.
fn close(iptables: &Iptables, lock: Option<&Lock>, why: String) -> Result<BootLoad, Error> {
    let mut closed = Ruleset::default();
    closed
        .chain_mut(TableName::Filter, ChainName::Forward)
        .policy = Some(Policy::Drop);
    let nothing = Ruleset::default();
    let script = diff::changes(&nothing, &closed).script(&Counters::default());
    let mut done = Ok(());
    for family in Family::ALL {
        if let Err(error) = iptables.load_within(family, &script, lock) {
            debug!(%error, %family, "the FORWARD policy is not set");
            let switch = Switch::Forwarding(family);
            if sysctl::has(switch) {
                done = done.and(sysctl::change(&[switch], false, false).map(drop));
            }
        }
    }
    done?;
    Ok(BootLoad {
        remarks: Remarks::default(),
        brought: Brought::Closed,
        why: Some(why),
    })
}

/// Records the unit's run for `status`; the rules do not depend on the record.
fn record(state: &State, brought: Brought, why: Option<String>) {
    let recorded = namespace::boot().map_err(Into::into).and_then(|boot| {
        state.set_booted(&Booted {
            version: VERSION,
            boot,
            time: seconds_now(),
            after: state
                .numbers()
                .ok()
                .and_then(|numbers| numbers.last().copied()),
            brought,
            why,
        })
    });
    if let Err(error) = recorded {
        debug!(%error, "the unit's run was not recorded");
    }
}

/// Loads the saved state in a network namespace, as the unit would on a machine without rules.
///
/// # Errors
/// When there is no saved state, it is damaged or does not load, or no network namespace can be made.
pub fn rehearse(machine: &MachineToChange) -> Result<SavedState, Error> {
    refuse_while_pending(&machine.state)?;
    let kept = machine.state.saved()?.ok_or(Refusal::NothingSaved)?;
    let iptables = Iptables {
        backend: kept.backend,
        ..machine.iptables
    };
    let nothing = Ruleset::default();
    for (family, rules) in kept.rules()?.iter() {
        let script = diff::changes(&nothing, rules).script(&Counters::default());
        if script.is_empty() {
            continue;
        }
        iptables
            .try_out(family, &script)
            .map_err(|error| match error {
                LoadTrialError::Refused(error) => Error::from(error),
                LoadTrialError::Impossible(reason) => Refusal::NoNamespace { reason }.into(),
            })?;
    }
    Ok(kept)
}
