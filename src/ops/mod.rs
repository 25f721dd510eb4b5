//! The operations that change the machine: each takes a request and returns a report. They print
//! nothing; `commands` turns reports into text.
//!
//! ```text
//! records ◀─ state ◀─ waiting ◀─ watchdog        the folder, and what waits in it
//!    step ◀─ transaction ◀───────┘               one change, all of it or nothing
//!            apply, rollback, remove, persist, confirm
//! ```

pub mod apply;
pub mod boot;
pub mod confirm;
mod error;
pub mod flows;
pub mod history;
mod log;
mod look;
pub mod next_boot;
mod packets;
pub mod persist;
pub mod records;
mod refusal;
mod remark;
pub mod remove;
pub mod rollback;
pub mod saved;
pub mod splice;
pub mod state;
mod step;
mod transaction;
pub mod trial;
pub mod waiting;
mod warn;
mod watchdog;

pub use error::{Error, Failed, describe};
pub use look::{Ahead, families, name_interrupted};
pub use refusal::Refusal;
pub use remark::{Remark, Remarks};
pub use transaction::TransactionError;
pub use watchdog::watch;

use tracing::debug;

use crate::diff::Changes;
use crate::diff::drift::{Comparison, ForwardNames, compare_family, merged};
use crate::forwards::{Forward, ForwardSet};
use crate::host::iptables::Iptables;
use crate::host::lock::{self, Lock};
use crate::host::persistence;
use crate::net::Family;
use crate::net::per_family::PerFamily;
use crate::netfilter::ruleset::Ruleset;
use crate::plan::unplan::unplan;
use records::Pending;
use state::State;

/// The machine that an operation changes.
#[derive(Debug)]
pub struct Machine {
    pub state: State,
    pub iptables: Iptables,
    /// How long another nvactl is waited for, in seconds.
    pub lock_wait_secs: u64,
}

impl Machine {
    /// Takes the lock, for a change that may be made now, and clears what a nvactl that was killed has
    /// left half written.
    fn begin(&self) -> Result<Lock, Error> {
        let lock = lock::take(&self.state.lock_file(), self.lock_wait_secs)?;
        confirm::refuse_while_pending(&self.state)?;
        self.clear_leftovers();
        Ok(lock)
    }

    fn clear_leftovers(&self) {
        if let Err(error) = self.state.clear_leftovers() {
            debug!(
                error = describe(&error.into()),
                "files that are half written stay"
            );
        }
    }
}

/// What an operation did to the rules.
#[derive(Debug)]
pub enum Outcome {
    /// The plan is loaded already.
    Unchanged,
    /// A dry run found this.
    Would(Difference),
    Made {
        difference: Difference,
        /// The change, if it waits for its confirmation.
        pending: Option<Box<Pending>>,
    },
}

/// What separates the loaded rules from those that are wanted.
#[derive(Debug)]
pub struct Difference {
    /// The forwards that come, go and change.
    pub forwards: ForwardNames,
    /// What else there is to say of a difference from a spec.
    pub comparison: Option<Comparison>,
    /// The lines of iptables-save that come and go.
    pub lines: String,
    /// How many rules come.
    pub added: usize,
    /// How many rules go.
    pub removed: usize,
}

impl Difference {
    /// Compares the loaded rules with those of a spec.
    fn from_spec(
        changes: &PerFamily<Changes<'_>>,
        live: &PerFamily<&Ruleset>,
        set: &ForwardSet,
    ) -> Self {
        let each = live
            .iter()
            .map(|(family, live)| compare_family(live, set, family));
        let comparison = merged(each.collect::<Vec<_>>());
        let forwards = ForwardNames::from(&comparison);
        Self::new(changes, forwards, Some(comparison))
    }

    /// Compares the loaded rules with others, which need not be a spec's.
    fn from_rules(
        changes: &PerFamily<Changes<'_>>,
        live: &PerFamily<&Ruleset>,
        want: &PerFamily<Ruleset>,
    ) -> Self {
        let held = |rules: &PerFamily<&Ruleset>| -> Vec<Forward> {
            let sets = rules.values().filter_map(|rules| unplan(rules));
            sets.flat_map(|set| set.forwards).collect()
        };
        let (old, new) = (held(live), held(&want.as_ref()));
        Self::new(changes, ForwardNames::between(&old, &new), None)
    }

    fn new(
        changes: &PerFamily<Changes<'_>>,
        forwards: ForwardNames,
        comparison: Option<Comparison>,
    ) -> Self {
        let (added, removed) = changes.rule_counts();
        Self {
            forwards,
            comparison,
            lines: changes.report(),
            added,
            removed,
        }
    }
}

/// Remembers whether nvactl's IPv6 rules are here or come back at boot, by what is known of those
/// that run; nothing is known where IPv6 was not looked at. Should that fail, they are looked for
/// once more than needed.
fn note_v6(state: &State, rules: Option<&Ruleset>) {
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
