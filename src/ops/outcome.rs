//! The result of an operation, for `commands` to print.

use super::records::Pending;
use crate::diff::Changes;
use crate::diff::drift::{Comparison, ForwardNames, compare_family, merged};
use crate::forwards::{ForwardPolicy, ForwardSet};
use crate::net::per_family::PerFamily;
use crate::netfilter::ruleset::Ruleset;
use crate::plan::unplan::unplan;

/// The effect of an operation on the rules.
#[derive(Debug)]
pub enum ChangeOutcome {
    /// The plan is already loaded.
    Unchanged,
    /// The changes that a dry run found.
    Would(Difference),
    Made {
        difference: Difference,
        /// The change, if it waits for its confirmation.
        pending: Option<Box<Pending>>,
    },
}

/// The difference between the loaded rules and the wanted ones.
#[derive(Debug)]
pub struct Difference {
    /// The added, removed and changed forwards.
    pub forwards: ForwardNames,
    /// The comparison with a spec, field by field.
    pub comparison: Option<Comparison>,
    /// The added and removed lines of iptables-save.
    pub lines: String,
    /// The number of added rules.
    pub added: usize,
    /// The number of removed rules.
    pub removed: usize,
}

impl Difference {
    /// Compares the loaded rules with a spec's.
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

    /// Compares the loaded rules with rules that need not be a spec's.
    pub(super) fn from_rules(
        changes: &PerFamily<Changes<'_>>,
        live: &PerFamily<&Ruleset>,
        want: &PerFamily<Ruleset>,
    ) -> Self {
        let held = |rules: &PerFamily<&Ruleset>| -> Vec<ForwardSet> {
            rules.values().filter_map(|rules| unplan(rules)).collect()
        };
        let (old, new) = (held(live), held(&want.as_ref()));
        Self::new(changes, ForwardNames::between(&old, &new), None)
    }

    /// Adds the comparison, field by field, with rules that need not be a spec's.
    pub(super) fn with_fields(
        mut self,
        live: &PerFamily<&Ruleset>,
        want: &PerFamily<Ruleset>,
    ) -> Self {
        let both = live.zip(want.as_ref());
        let each = both.iter().filter_map(|(family, (live, want))| {
            let mut set = unplan(want).or_else(|| {
                // No forward stays.
                Some(ForwardSet {
                    forwards: Vec::new(),
                    outbound: Vec::new(),
                    ..unplan(live)?
                })
            })?;
            // A remark announces a change of the policy.
            set.firewall.forward_policy = ForwardPolicy::Keep;
            Some(compare_family(live, &set, family))
        });
        self.comparison = Some(merged(each.collect::<Vec<_>>()));
        self
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
