//! What an operation found and did, for `commands` to print.

use super::records::Pending;
use crate::diff::Changes;
use crate::diff::drift::{Comparison, ForwardNames, compare_family, merged};
use crate::forwards::{Forward, ForwardSet};
use crate::net::per_family::PerFamily;
use crate::netfilter::ruleset::Ruleset;
use crate::plan::unplan::unplan;

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
    pub(super) fn from_spec(
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
    pub(super) fn from_rules(
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
