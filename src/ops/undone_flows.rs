//! The connections that only an undone change makes: their end, and those of them that are older than the change.

use std::collections::BTreeSet;
use std::ptr;

use super::ending::connections_left;
use super::flows::{described, forwards_of};
use super::records::{FlowEnds, Pending};
use crate::forwards::ForwardSet;
use crate::health::connections::{FlowFacts, made_by};
use crate::health::suspects::examine;
use crate::host::{conntrack, network};
use crate::net::per_family::PerFamily;
use crate::net::words::counted;
use crate::netfilter::conntrack::Flow;
use crate::netfilter::ruleset::Ruleset;

/// The end of the connections that only an undone change made.
#[derive(Debug, Default)]
pub struct UndoneFlows {
    /// How many were ended.
    pub ended: usize,
    /// The connections that were ended, in words; `None` if none was.
    pub told: Option<String>,
    /// The connections that are still there, and why, in words.
    pub left: Option<String>,
}

/// The forwards and outbound entries of one family before a change and after it.
struct ChangedSets {
    before: ForwardSet,
    after: ForwardSet,
}

/// Reads what the change makes and what the rules from before it make.
fn changed_sets(pending: &Pending) -> Vec<ChangedSets> {
    let both = pending.wanted().zip(pending.before.owned());
    let each = both.values().filter_map(|(want, before)| {
        let after = forwards_of(want)?;
        let before = forwards_of(&before.rules).unwrap_or_else(|| ForwardSet {
            forwards: Vec::new(),
            outbound: Vec::new(),
            ..after.clone()
        });
        Some(ChangedSets { before, after })
    });
    each.collect()
}

/// Returns the connections that an undo of the change would end, although they are there before it: an earlier set of
/// rules made them. `live` are the rules from before the change.
#[must_use]
pub fn older(pending: &Pending, flows: &[Flow], live: &PerFamily<&Ruleset>) -> Vec<FlowEnds> {
    let links = network::links();
    let facts = FlowFacts::new(&links, live.iter().map(|(family, live)| (family, *live)));
    let mut ends = BTreeSet::new();
    for ChangedSets { before, after } in changed_sets(pending) {
        let made = made_by(flows, &[after], &before, &facts);
        ends.extend(made.iter().map(|one| FlowEnds::from(one.flow)));
    }
    ends.into_iter().collect()
}

/// Ends connections that only the undone change forwarded, or to which it gave another source: a client would stay cut
/// off for as long as it keeps sending, or get through although the restored rules refuse it. Those from before the
/// change stay.
#[must_use]
pub fn end(pending: &Pending) -> UndoneFlows {
    let links = network::links();
    let listing = pending.iptables().start_listing(pending.families());
    let live = listing.and_then(|listing| listing.finish_readable(false));
    let live = live.ok().map(|(live, _)| live);
    let live = live.as_ref().map(|live| live.map(|_, live| &live.ruleset));
    let live = live.iter().flat_map(PerFamily::iter);
    let facts = FlowFacts::new(&links, live.map(|(family, live)| (family, *live)));
    let families = pending.families();
    // No connection is ended if `conntrack` is missing.
    let flows = families
        .as_slice()
        .iter()
        .map(|family| conntrack::flows(*family));
    let flows: Vec<Flow> = flows.flat_map(Result::unwrap_or_default).collect();
    let older: BTreeSet<&FlowEnds> = pending.older.iter().collect();
    let mut doomed: Vec<&Flow> = Vec::new();
    for ChangedSets { before, after } in changed_sets(pending) {
        let found = examine(made_by(&flows, &[after], &before, &facts)).found;
        let found = found.iter().map(|one| one.flow);
        doomed.extend(found.filter(|flow| !older.contains(&FlowEnds::from(*flow))));
    }
    let left = conntrack::delete(doomed.iter().copied(), conntrack::deadline());
    let is_left: BTreeSet<*const Flow> =
        left.flows.iter().map(|flow| ptr::from_ref(*flow)).collect();
    doomed.retain(|flow| !is_left.contains(&ptr::from_ref(*flow)));
    UndoneFlows {
        ended: doomed.len(),
        told: (!doomed.is_empty()).then(|| {
            format!(
                "ended {} that only the undone change made: {}",
                counted(doomed.len(), "connection"),
                described(&doomed)
            )
        }),
        left: (!left.flows.is_empty())
            .then(|| connections_left(left.flows.len(), left.error.as_ref())),
    }
}
