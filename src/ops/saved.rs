//! The saved state: the rules that nvactl's own unit loads at boot.

use tracing::debug;

use super::error::Error;
use super::history::{LastLoaded, last_loaded};
use super::machine::MachineToChange;
use super::records::{KeptSpec, Owned, SavedState, VERSION};
use super::remark::Remarks;
use super::state::{StateError, seconds_now};
use super::warn;
use crate::diff;
use crate::health::rules_file::RulesFile;
use crate::host::survey::resolved;
use crate::host::sysctl;
use crate::net::Family;
use crate::net::per_family::PerFamily;
use crate::netfilter::names::Policy;
use crate::netfilter::ruleset::Ruleset;

/// Saves nvactl's part of the loaded rules. `spec` is the spec that they were compared with; without one, the
/// spec that was loaded last. If IPv6 could not be read, its saved rules stay.
///
/// # Errors
/// When the state cannot be written; the earlier saved state stays.
pub fn save(
    machine: &MachineToChange,
    live: &PerFamily<&Ruleset>,
    unread_v6: bool,
    spec: Option<&KeptSpec>,
    remarks: &mut Remarks,
) -> Result<(), Error> {
    let state = &machine.state;
    let last = last_loaded(state)?;
    let leaves_policy = |family| last.as_ref().is_some_and(|last| last.leaves_policy(family));
    for (family, live) in live.iter() {
        let sets = last.as_ref().is_some_and(|last| last.sets_policy(family));
        if sets && live.forward_policy() == Policy::Accept {
            remarks.warn(format_args!(
                "the {} is ACCEPT, but nvactl had set DROP, so the next boot sets ACCEPT; to go back to \
                 DROP: sudo nvactl apply && sudo nvactl persist",
                warn::policy_name(family)
            ));
        }
    }
    let owned = live.map(|family, live| Owned {
        rules: diff::own(live).to_string(),
        sets_policy: live.forward_policy() == Policy::Drop && !leaves_policy(family),
    });
    let forwards = |family| {
        sysctl::forwards(family).unwrap_or_else(|error| {
            debug!(%error, "a switch cannot be read and counts as off");
            false
        })
    };
    let before = if unread_v6 { state.saved()? } else { None };
    let (v6, forwards_v6) = match before {
        Some(before) => (before.v6, before.forwards_v6),
        None => {
            let any = live.v6.is_some_and(Ruleset::holds_own);
            (owned.v6, any && forwards(Family::V6))
        }
    };
    state.set_saved(&SavedState {
        version: VERSION,
        time: seconds_now(),
        backend: resolved(&machine.iptables, live.families()),
        v4: owned.v4,
        v6,
        spec: spec.cloned().or(last.and_then(LastLoaded::spec)),
        forwards: forwards(Family::V4),
        forwards_v6,
    })?;
    Ok(())
}

/// Compares the saved state with nvactl's part of a family's loaded rules.
#[must_use]
pub fn compared(
    saved: &Result<Option<SavedState>, StateError>,
    family: Family,
    live: &Ruleset,
) -> RulesFile {
    let saved = match saved {
        Ok(Some(saved)) => saved,
        Ok(None) => return RulesFile::Missing,
        Err(_) => return RulesFile::Unreadable,
    };
    let same = match saved.owned().get(family) {
        Some(owned) => match owned.ruleset() {
            Ok(rules) => diff::holds_the_same(&rules, live, owned.sets_policy),
            Err(_) => return RulesFile::Unreadable,
        },
        None => !live.holds_own(),
    };
    if same {
        RulesFile::Same
    } else {
        RulesFile::Different
    }
}
