//! The rules that packets meet from a built-in chain on, and those of them for certain connections.

use super::conditions::RuleConditions;
use super::lookup::{RedirectedLookup, SourceLookup};
use super::redirected::Redirected;
use super::walk::Met;

/// The rules that packets meet from a built-in chain on, in order.
pub struct MetRules<'r> {
    pub all: &'r [Met<'r>],
    lookup: RedirectedLookup,
    sources: SourceLookup,
}

impl<'r> MetRules<'r> {
    pub fn new(all: &'r [Met<'r>]) -> Self {
        let mut lookup = RedirectedLookup::default();
        let mut sources = SourceLookup::default();
        for (number, met) in all.iter().enumerate() {
            met.conditions.add_to(&mut lookup, number);
            sources.add(number, met.conditions.source_net());
        }
        Self {
            all,
            lookup,
            sources,
        }
    }

    /// Returns the rules that redirected connections may meet, in order. Others are among them.
    pub fn for_redirected(&self, redirected: &Redirected<'_>) -> Vec<&'r Met<'r>> {
        let numbers = redirected.find(&self.lookup).into_iter();
        numbers.map(|number| &self.all[number]).collect()
    }

    /// Returns the rules that packets with the sources of other conditions may meet, in order. Others are among them.
    pub fn from_sources_of(&self, conditions: &RuleConditions<'_>) -> Vec<&'r Met<'r>> {
        let numbers = self.sources.find(conditions.source_net()).into_iter();
        numbers.map(|number| &self.all[number]).collect()
    }
}
