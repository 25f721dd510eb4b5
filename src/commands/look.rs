//! What an apply must know of the machine, asked all at once: to read the rules takes longest of what
//! comes before a change, and nothing of the rest needs to know them.

use std::panic::resume_unwind;
use std::thread;

use anyhow::Result;

use super::{Host, confirm, connections, families};
use crate::counters::Counters;
use crate::flow::Flow;
use crate::host;
use crate::host::iptables::{Iptables, Listing};
use crate::host::lock::{self, Lock};
use crate::host::survey::{Surroundings, survey};
use crate::per_family::{PerFamily, planned};
use crate::ruleset::Ruleset;
use crate::spec::ForwardSet;

/// Takes the lock and begins to read the rules before the spec is known, if for that nothing has to be
/// made and nobody to be waited for.
pub fn ahead(on: Host<'_>, iptables: &Iptables) -> Option<(Lock, Listing)> {
    host::require_root("apply").ok()?;
    let state = on.known_state().ok()??;
    let lock = lock::take_if_free(&state.lock_file())?;
    // Whoever undoes a change is not to wait for what will be refused.
    confirm::refuse_while_pending(&state).ok()?;
    let families = families(None, Some(&state));
    let listing = iptables.start_listing(families).ok()?;
    Some((lock, listing))
}

/// What is here and what is wanted.
pub struct Found {
    pub before: PerFamily<(Ruleset, Counters)>,
    pub want: PerFamily<Ruleset>,
    pub surroundings: Surroundings,
    pub flows: Vec<Flow>,
}

/// Plans and looks around while the rules are being read.
pub fn look(
    listing: Listing,
    iptables: &Iptables,
    set: &ForwardSet,
    flush_stale: bool,
) -> Result<Found> {
    let families = listing.families();
    thread::scope(|scope| {
        let want = scope.spawn(|| planned(set, families));
        let around = scope.spawn(|| {
            let surroundings = survey(iptables, families);
            (surroundings, connections::read(families, flush_stale))
        });
        let before = listing.finish();
        let (surroundings, flows) = joined(around.join());
        Ok(Found {
            before: before?,
            want: joined(want.join()),
            surroundings: surroundings?,
            flows: flows?,
        })
    })
}

/// What a thread has brought; a panic goes on here.
fn joined<T>(ended: thread::Result<T>) -> T {
    ended.unwrap_or_else(|panic| resume_unwind(panic))
}
