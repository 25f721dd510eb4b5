//! Whether IPv6 is looked at when nobody asks for it.

use tracing::debug;

use super::state::State;
use crate::host::persistence;
use crate::net::Family;
use crate::netfilter::ruleset::Ruleset;

/// Remembers whether nvactl's IPv6 rules are here or come back at boot, by what is known of those
/// that run; nothing is known where IPv6 was not looked at. Should that fail, they are looked for
/// once more than needed.
pub fn note_v6(state: &State, rules: Option<&Ruleset>) {
    let Some(rules) = rules else { return };
    let loaded = rules.holds_own();
    // A saved state that cannot be read may have some.
    let none_saved = || {
        let saved = state.saved();
        saved.is_ok_and(|saved| saved.is_none_or(|saved| saved.v6.is_none()))
    };
    let may = loaded || !none_saved() || persistence::holds_own(Family::V6).unwrap_or(true);
    if let Err(error) = state.set_may_hold_v6(may) {
        debug!(%error, "whether there are IPv6 rules is not recorded");
    }
}
