//! The saved state: nvactl's own rules as they come back at boot, by its own unit.

use tracing::debug;

use super::history::last_spec;
use super::records::{KeptSpec, Owned, Saved, VERSION};
use super::state::{State, StateError, seconds_now};
use super::{Error, Machine};
use crate::diff;
use crate::host::survey::resolved;
use crate::host::sysctl;
use crate::net::Family;
use crate::per_family::PerFamily;
use crate::ruleset::{Policy, Ruleset};
use crate::status::RulesFile;

/// Saves what nvactl owns of the loaded rules. `spec`: the one that they were compared with; without
/// one, that whose plan was loaded last.
///
/// # Errors
/// When it cannot be written; what was saved before stays.
pub fn save(
    machine: &Machine,
    live: &PerFamily<&Ruleset>,
    spec: Option<&KeptSpec>,
) -> Result<(), Error> {
    let state = &machine.state;
    let owned = live.try_map(|family, live| {
        Ok::<Owned, StateError>(Owned {
            rules: diff::own(live).to_string(),
            sets_policy: live.forward_policy() == Policy::Drop && !leaves_policy(state, family)?,
        })
    })?;
    let spec = match spec {
        Some(spec) => Some(spec.clone()),
        None => last_spec(state)?,
    };
    let forwards = |family| {
        sysctl::forwards(family).unwrap_or_else(|error| {
            debug!(%error, "a switch is taken for off");
            false
        })
    };
    state.set_saved(&Saved {
        version: VERSION,
        time: seconds_now(),
        backend: resolved(&machine.iptables, live.families()),
        v4: owned.v4,
        v6: owned.v6,
        spec,
        forwards: forwards(Family::V4),
        forwards_v6: live.v6.is_some_and(Ruleset::holds_own) && forwards(Family::V6),
    })?;
    Ok(())
}

/// Whether the plan that was loaded last leaves a family's FORWARD policy to others.
fn leaves_policy(state: &State, family: Family) -> Result<bool, StateError> {
    for number in state.numbers()?.into_iter().rev() {
        let change = state
            .change(number)?
            .filter(|change| change.undone.is_none());
        if let Some(change) = change
            && let Some(owned) = change.owned().get(family)
        {
            return Ok(change.spec.is_some() && !owned.sets_policy);
        }
    }
    Ok(false)
}

/// Returns how the saved state compares with what nvactl owns of a family's loaded rules.
#[must_use]
pub fn compared(
    saved: &Result<Option<Saved>, StateError>,
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
