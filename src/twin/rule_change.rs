//! The change of rules that `nvactl apply` would make, loaded into a twin.

use std::borrow::Cow;
use std::time::Duration;

use crate::diff;
use crate::diff::families::changes;
use crate::diff::foreign::ForeignGoal;
use crate::host::child::{self, ChildError};
use crate::host::iptables::{Iptables, IptablesError};
use crate::net::Family;
use crate::net::per_family::PerFamily;
use crate::netfilter::backend::Backend;
use crate::netfilter::counters::Counters;
use crate::netfilter::ruleset::Ruleset;

/// 100,000 forwards load in a minute or two.
const LIMIT: Duration = Duration::from_mins(5);

/// The change that `nvactl apply` would make.
#[derive(Debug, Clone)]
pub struct RuleChange {
    pub iptables: Iptables,
    /// For `iptables-restore --noflush`, over the live rules; empty for a family that does not change.
    pub scripts: PerFamily<String>,
    /// All rules that nvactl owns after the change.
    pub want: PerFamily<Ruleset>,
    /// The foreign rules that the change takes out.
    pub foreign: PerFamily<ForeignGoal>,
}

impl RuleChange {
    /// Returns the change from live rules to the wanted ones, with the foreign rules as a goal says.
    #[must_use]
    pub fn from_live(
        iptables: Iptables,
        live: &PerFamily<&Ruleset>,
        want: PerFamily<Ruleset>,
        foreign: PerFamily<ForeignGoal>,
    ) -> Self {
        let none = live.map(|_, _| Counters::default());
        let changes = changes(live, &want).with_foreign(live, &foreign.as_ref());
        let scripts = changes.scripts(&none.as_ref());
        Self {
            iptables,
            scripts,
            want,
            foreign,
        }
    }

    /// Returns whether no rule changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scripts.values().all(String::is_empty)
    }

    /// Loads the change into the calling thread's namespace. Returns whether iptables-restore accepts it.
    ///
    /// `has_live_places`: whether every rule has the place there that it has on the machine. The scripts name
    /// rules by their places, so without that a script is made from the rules that are there.
    ///
    /// # Errors
    /// If a program is missing, or rules cannot be read.
    pub fn load(&self, has_live_places: bool) -> Result<bool, IptablesError> {
        let all = self.scripts.as_ref().zip(self.want.as_ref());
        for (family, (script, want)) in all.iter() {
            if script.is_empty() {
                continue;
            }
            let script = if has_live_places {
                Cow::Borrowed(script.as_str())
            } else {
                let here = self.iptables.read(family)?.ruleset;
                let foreign = self.foreign.get(family).map(|goal| goal.changes(&here));
                let changes = diff::changes(&here, want).with_foreign(foreign.unwrap_or_default());
                Cow::Owned(changes.script(&Counters::default()))
            };
            if !restore(self.iptables.backend, family, &script)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Loads a script over the rules of the calling thread's namespace. Returns whether iptables-restore accepts
/// it.
pub(super) fn restore(backend: Backend, family: Family, script: &str) -> Result<bool, ChildError> {
    let program = backend.program(family, "iptables-restore");
    // The lock of the machine's rules says nothing about the twin's.
    let args = [
        "XTABLES_LOCKFILE=/dev/null",
        &program,
        "--noflush",
        "-w",
        "5",
    ];
    let output = child::read("env", &args, script.as_bytes(), LIMIT)?;
    Ok(output.status.success())
}
