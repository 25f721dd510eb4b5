//! What an apply must know of the machine, asked all at once: to read the rules takes longest of what
//! comes before a change, and nothing of the rest needs to know them.

use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};

use anyhow::Result;

use super::{Host, connections, families};
use crate::counters::Counters;
use crate::flow::Flow;
use crate::host;
use crate::host::iptables::{Iptables, IptablesError};
use crate::host::lock::{self, Lock};
use crate::host::survey::survey;
use crate::per_family::{Families, PerFamily, planned};
use crate::ruleset::Ruleset;
use crate::spec::ForwardSet;

/// The live rules as they are being read, and the lock under which nobody else changes nvactl's.
pub struct LiveRules {
    pub families: Families,
    pub lock: Lock,
    pub rules: Rules,
}

type Rules = JoinHandle<Result<PerFamily<(Ruleset, Counters)>, IptablesError>>;

impl LiveRules {
    /// Begins to read before the spec is known, if for that nothing has to be made and nobody to be
    /// waited for: a spec that has an error is to leave everything as it is.
    pub fn ahead(on: Host<'_>, iptables: Iptables) -> Option<Self> {
        host::require_root("apply").ok()?;
        let state = on.known_state().ok()??;
        let lock = lock::take_if_free(&state)?;
        Some(Self::of(families(None, Some(&state)), iptables, lock))
    }

    pub fn of(families: Families, iptables: Iptables, lock: Lock) -> Self {
        Self {
            families,
            lock,
            rules: thread::spawn(move || iptables.read_all_counted(families)),
        }
    }
}

/// What is here and what is wanted.
pub struct Found {
    pub before: PerFamily<(Ruleset, Counters)>,
    pub want: PerFamily<Ruleset>,
    pub surroundings: Vec<String>,
    pub flows: Vec<Flow>,
}

/// Waits for the rules, and meanwhile plans and looks around.
pub fn look(
    rules: Rules,
    iptables: &Iptables,
    set: &ForwardSet,
    families: Families,
    flush_stale: bool,
) -> Result<Found> {
    thread::scope(|scope| {
        let want = scope.spawn(|| planned(set, families));
        let surroundings = survey(iptables, families);
        let flows = connections::read(families, flush_stale);
        Ok(Found {
            before: joined(rules.join())?,
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
