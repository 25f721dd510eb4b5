//! Tries the effect of a change on connections in a copy of the machine, before it is loaded.

mod failed;
mod other_flows;
mod overtaken;
mod report;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

pub use overtaken::Overtaken;
pub use report::PacketTrial;
use report::{LIMIT, told};

use super::remark::Remarks;
use crate::forwards::{ForwardSet, Listeners};
use crate::host::network;
use crate::net::Family;
use crate::net::per_family::PerFamily;
use crate::netfilter::conntrack::Flow;
use crate::netfilter::ruleset::Ruleset;
use crate::plan::unplan::unplan;
use crate::twin::change::{Trying, try_change};
use crate::twin::netns;
use crate::twin::rule_change::RuleChange;

/// Tries a change of the live rules, and adds remarks about its effect on connections.
/// `foreign_snat` returns the SNAT addresses that are not this machine's.
pub fn try_packets(
    set: &ForwardSet,
    live: &PerFamily<&Ruleset>,
    flows: &[Flow],
    change: RuleChange,
    foreign_snat: impl FnOnce() -> BTreeSet<IpAddr>,
    remarks: &mut Remarks,
) -> PacketTrial {
    let each = live.families().as_slice().iter();
    let sets: Vec<(Family, ForwardSet)> = each.map(|family| (*family, set.of(*family))).collect();
    let loaded: Vec<ForwardSet> = live.values().filter_map(|live| unplan(live)).collect();
    let trying = Trying {
        others: others(flows, set, &loaded),
        sets: &sets,
        loaded: &loaded,
        live: live.values().copied().collect(),
        flows,
        change,
        deadline: Instant::now() + LIMIT,
    };
    let work = || try_change(&trying);
    match netns::aside(work) {
        Ok(Ok(Some(tried))) => {
            let backend = trying.change.iptables.backend;
            told(&tried, backend, foreign_snat, remarks)
        }
        Ok(Ok(None)) => PacketTrial::NotLoaded,
        Ok(Err(error)) => PacketTrial::Impossible(error.words()),
        Err(error) => PacketTrial::Impossible(format!("no thread could be started: {error}")),
    }
}

/// Returns the connections outside the forwards that this machine passes on.
fn others<'f>(flows: &'f [Flow], set: &ForwardSet, loaded: &[ForwardSet]) -> Vec<&'f Flow> {
    if flows.is_empty() {
        return Vec::new();
    }
    let own = network::links();
    let is_own = |address| own.owner(address).is_some();
    let all: Vec<Listeners<'_>> = [set]
        .into_iter()
        .chain(loaded)
        .map(Listeners::new)
        .collect();
    let is_led = |flow: &Flow| all.iter().any(|set| set.leader(flow).is_some());
    flows
        .iter()
        .filter(|flow| flow.is_of_hosts() && !flow.finished)
        .filter(|flow| !is_own(flow.source) && !is_own(flow.reply_source))
        .filter(|flow| !is_led(flow))
        .collect()
}
