//! A change whose nvactl was killed: how far it came, and the clean-up after it.

use super::adopt::{are_gone, are_there, of_family};
use super::error::{Error, describe};
use super::records::Begun;
use super::remark::{Remark, Remarks};
use super::state::State;
use super::transaction::owned_digest;
use crate::net::per_family::PerFamily;
use crate::netfilter::ruleset::Ruleset;

/// How far a change came whose nvactl was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interrupted {
    NeverMade,
    Made,
    /// One family has the new rules, and the other the old ones.
    Half,
    /// The rules have changed since.
    Unknown,
}

/// Returns how far a change came, from whether each family has its old rules and its new ones. A family that
/// the change does not touch has both.
fn interrupted(families: &[(bool, bool)]) -> Interrupted {
    let all = |is: fn(&(bool, bool)) -> bool| families.iter().all(is);
    if all(|(old, _)| *old) {
        Interrupted::NeverMade
    } else if all(|(_, new)| *new) {
        Interrupted::Made
    } else if all(|(old, new)| *old || *new) {
        Interrupted::Half
    } else {
        Interrupted::Unknown
    }
}

/// A change whose nvactl was killed.
struct Killed {
    begun: Begun,
    what: Interrupted,
}

/// Finds out how far a change came that was started and not finished.
fn killed(state: &State, live: &PerFamily<&Ruleset>) -> Result<Option<Killed>, Error> {
    let Some(begun) = state.begun()? else {
        return Ok(None);
    };
    if begun.want_v6.is_some() && live.v6.is_none() {
        // The result shows once IPv6 can be read again.
        return Ok(None);
    }
    let Some(change) = state.change(begun.number)? else {
        let what = if state.numbers()?.contains(&begun.number) {
            Interrupted::Unknown
        } else {
            Interrupted::NeverMade
        };
        return Ok(Some(Killed { begun, what }));
    };
    let each: Vec<(bool, bool)> = live
        .zip(begun.wanted())
        .zip(change.owned())
        .iter()
        .map(|(family, ((live, want), before))| {
            let [adopted, returned] =
                [&change.adopted, &change.returned].map(|kept| of_family(kept, family));
            let now = owned_digest(live, before.sets_policy);
            let old = before
                .ruleset()
                .map(|old| owned_digest(&old, before.sets_policy));
            let foreign_old = are_there(live, &adopted) && are_gone(live, &returned);
            let foreign_new = are_gone(live, &adopted) && are_there(live, &returned);
            let old = old.is_ok_and(|old| old == now);
            (old && foreign_old, **want == now && foreign_new)
        })
        .collect();
    let what = interrupted(&each);
    Ok(Some(Killed { begun, what }))
}

/// Describes a change whose nvactl was killed half-way.
///
/// # Errors
/// When the records cannot be read.
pub fn name_interrupted(
    state: &State,
    live: &PerFamily<&Ruleset>,
) -> Result<Option<Remark>, Error> {
    let killed = match killed(state, live) {
        Err(Error::State(error)) if error.is_unreadable_record() => {
            let text = format!(
                "an earlier change did not finish, and its record cannot be read, so its rules may be only partly \
                 loaded: {}",
                describe(&error.into())
            );
            return Ok(Some(Remark::Warning(text)));
        }
        killed => killed?,
    };
    Ok(killed.and_then(|killed| {
        let action = &killed.begun.action;
        let text = match killed.what {
            Interrupted::Half => format!(
                "{action} was killed after it loaded one address family: IPv4 and IPv6 hold rules of different \
                 specs; the next apply, rollback or remove fixes that"
            ),
            Interrupted::Unknown => format!(
                "{action} was killed before it verified its rules: the loaded rules are neither the old ones nor \
                 the new ones; the next apply, rollback or remove replaces them"
            ),
            Interrupted::NeverMade | Interrupted::Made => return None,
        };
        Some(Remark::Warning(text))
    }))
}

/// Cleans up after a change whose nvactl was killed: a change that was never made leaves the history. The
/// caller holds the lock.
///
/// # Errors
/// When the records cannot be read or removed.
pub fn resume(
    state: &State,
    live: &PerFamily<&Ruleset>,
    remarks: &mut Remarks,
) -> Result<(), Error> {
    let found = match killed(state, live) {
        Err(Error::State(error)) if error.is_unreadable_record() => {
            remarks.0.extend(name_interrupted(state, live)?);
            state.clear_begun()?;
            return Ok(());
        }
        found => found?,
    };
    let Some(Killed { begun, what }) = found else {
        return Ok(());
    };
    match what {
        Interrupted::NeverMade => {
            state.forget(begun.number)?;
            state.clear_begun()?;
        }
        Interrupted::Made => state.clear_begun()?,
        // The next complete change ends it.
        Interrupted::Half | Interrupted::Unknown => {
            remarks.0.extend(name_interrupted(state, live)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaded_rules_show_how_far_a_killed_change_came() {
        for (families, is) in [
            (&[(true, false), (true, false)][..], Interrupted::NeverMade),
            (&[(false, true), (false, true)], Interrupted::Made),
            (&[(false, true), (true, false)], Interrupted::Half),
            (&[(false, true), (true, true)], Interrupted::Made),
            (&[(true, false), (true, true)], Interrupted::NeverMade),
            (&[(false, false), (true, false)], Interrupted::Unknown),
        ] {
            assert_eq!(interrupted(families), is, "{families:?}");
        }
    }
}
