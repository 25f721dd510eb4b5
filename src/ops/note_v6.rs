//! The record of whether IPv6 rules may be loaded, which decides whether a command without IPv6 forwards
//! reads them.

use tracing::debug;

use super::state::State;
use crate::host::persistence;
use crate::net::Family;
use crate::netfilter::ruleset::Ruleset;

/// Records whether nvactl's IPv6 rules are loaded or will be loaded at boot. `rules` are the loaded ones;
/// `None` records nothing. If the record cannot be written, a later command reads IPv6 rules once too often.
pub fn note_v6(state: &State, rules: Option<&Ruleset>) {
    let Some(rules) = rules else { return };
    let loaded = rules.holds_own();
    // An unreadable saved state may hold IPv6 rules.
    let none_saved = || {
        let saved = state.saved();
        saved.is_ok_and(|saved| saved.is_none_or(|saved| saved.v6.is_none()))
    };
    let may = loaded || !none_saved() || persistence::holds_own(Family::V6).unwrap_or(true);
    if let Err(error) = state.set_may_hold_v6(may) {
        debug!(%error, "the record of IPv6 rules was not written");
    }
}
