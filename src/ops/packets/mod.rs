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
use crate::health::takers::{Takers, accepts};
use crate::host::network::{self, Links};
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
        others: if flows.is_empty() {
            Vec::new()
        } else {
            others(flows, &network::links(), set, &loaded)
        },
        sets: &sets,
        loaded: &loaded,
        live: live.values().copied().collect(),
        flows,
        change,
        tests: &set.tests,
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

/// Returns the connections that this machine passes on and that are outside the forwards and outbound entries. Those of
/// entries that the change removes are among them. `own` are the machine's links. A connection that
/// keeps its source may belong to an entry of another interface, and is left out too.
fn others<'f>(
    flows: &'f [Flow],
    own: &Links,
    set: &ForwardSet,
    loaded: &[ForwardSet],
) -> Vec<&'f Flow> {
    let is_own = |address| own.owner(address).is_some();
    let all: Vec<Listeners<'_>> = [set]
        .into_iter()
        .chain(loaded)
        .map(Listeners::new)
        .collect();
    let is_led = |flow: &Flow| all.iter().any(|set| set.leader(flow).is_some());
    let takers = Takers::new(set, own);
    let is_let_out = |flow: &Flow| {
        let deciders = takers.deciders(flow);
        deciders.iter().any(|one| accepts(one.entry, flow))
    };
    flows
        .iter()
        .filter(|flow| flow.is_of_hosts() && !flow.finished)
        .filter(|flow| !is_own(flow.source) && !is_own(flow.reply_source))
        .filter(|flow| !is_led(flow) && !is_let_out(flow))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::network::Link;
    use crate::yaml;

    fn set(outbound: &str) -> ForwardSet {
        let text = format!(
            "firewall: {{interface: eth0, snat: 10.3.0.4}}\n\
             forwards: [{{name: web, listen: 80, target: {{pod: 10.224.0.118:80}}}}]\noutbound: [{outbound}]"
        );
        yaml::read(text.as_bytes()).expect("it is valid")
    }

    fn flow(from: &str, to: &str, back: &str) -> Flow {
        let line = format!(
            "tcp 6 9 ESTABLISHED src={from} dst={to} sport=5000 dport=443 src={back} dst={from} sport=443 dport=5000"
        );
        Flow::parse(&line).expect("it is a flow")
    }

    #[test]
    fn connections_that_an_entry_lets_out_are_not_tried_beside_it() {
        let link = Link {
            name: "eth0".to_owned(),
            addresses: vec!["10.3.0.4".parse().expect("an address")],
            ..Link::default()
        };
        let own = Links(vec![link]);
        let flows = [
            flow("10.224.0.7", "192.0.2.80", "192.0.2.80"),
            // From one spoke to another, to a denied destination, redirected by another program, and the machine's own.
            flow("10.8.0.7", "10.9.0.7", "10.9.0.7"),
            flow("10.224.0.7", "192.0.2.99", "192.0.2.99"),
            flow("10.224.0.7", "192.0.2.80", "10.9.0.8"),
            flow("10.3.0.4", "192.0.2.80", "192.0.2.80"),
        ];
        let entry = "{name: out, allow_from: [10.224.0.0/16], deny_to: [192.0.2.99]}";
        let (with, without) = (set(entry), set(""));
        let found = |set: &ForwardSet, loaded: &ForwardSet| -> Vec<usize> {
            let loaded = std::slice::from_ref(loaded);
            let others = others(&flows, &own, set, loaded);
            let at = |flow: &Flow| flows.iter().position(|one| std::ptr::eq(one, flow));
            others.into_iter().filter_map(at).collect()
        };
        assert_eq!(found(&with, &without), [1, 2, 3]);
        // The change removes the entry.
        assert_eq!(found(&without, &with), [0, 1, 2, 3]);
    }
}
