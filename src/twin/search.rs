//! The bounds of a search for causes.

use std::time::Instant;

use super::Twin;
use super::rule_change::RuleChange;
use crate::netfilter::target::Mss;

/// A search for the causes of connections in a twin.
#[derive(Debug)]
pub struct CauseSearch<'t> {
    pub twin: &'t mut Twin,
    /// The change that `nvactl apply` would make: the first cure that is tried.
    pub change: Option<&'t RuleChange>,
    /// The limit of the spec on TCP segments, which a fix would replace.
    pub limit: Option<Mss>,
    pub deadline: Instant,
}

impl CauseSearch<'_> {
    /// Returns whether the deadline has passed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Returns whether the time suffices to make the twin again.
    #[must_use]
    pub fn has_time(&self) -> bool {
        Instant::now() + self.twin.took() < self.deadline
    }
}
