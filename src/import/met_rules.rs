//! The rules that packets meet from a built-in chain on, and those of them for certain connections.

use super::lookup::RedirectedLookup;
use super::redirected::Redirected;
use super::walk::Met;

/// The rules that packets meet from a built-in chain on, in order.
pub struct MetRules<'r> {
    pub all: &'r [Met<'r>],
    lookup: RedirectedLookup,
}

impl<'r> MetRules<'r> {
    pub fn new(all: &'r [Met<'r>]) -> Self {
        Self {
            all,
            lookup: RedirectedLookup::of(all.iter().map(|met| &met.conditions)),
        }
    }

    /// Returns the rules that redirected connections may meet, in order. Others are among them.
    pub fn for_redirected(&self, redirected: &Redirected<'_>) -> Vec<&'r Met<'r>> {
        let numbers = self.lookup.find(redirected).into_iter();
        numbers.map(|number| &self.all[number]).collect()
    }
}
