//! Counts and lists the rules of others before nvactl's jumps, and evaluates no conditions. A jump after a rule that
//! stops every packet is drift. `nvactl doctor` reports the effect of the other rules on packets.

use serde::Serialize;

use crate::diff::drift::{Drift, DriftKind};
use crate::net::Family;
use crate::netfilter::names::ChainName;
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::line::Line;
use crate::plan::Hook;

/// The number of rules that are listed, because a chain may hold thousands of bans.
const MOST_RULES: usize = 10;

/// The rules of others before nvactl's jump in one built-in chain.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct BeforeJump {
    pub family: Family,
    pub table: &'static str,
    pub chain: String,
    pub count: usize,
    /// The first [`MOST_RULES`] of them, as iptables-save prints them.
    pub rules: Vec<String>,
    /// The first of them that stops every packet, as a line of the drift.
    #[serde(skip)]
    pub stop: Option<Drift>,
}

/// Lists the rules of others before nvactl's jumps, for each built-in chain that has such rules.
#[must_use]
pub fn before_jumps(live: &Ruleset, family: Family) -> Vec<BeforeJump> {
    let each = Hook::ALL.into_iter().filter_map(|hook| {
        let rules = before(live, hook).filter(|rules| !rules.is_empty())?;
        let chain = hook.builtin();
        let spelled = |rule: &&Rule| Line::Append(&chain, rule).to_string();
        let table = hook.table().as_str();
        let stop = rules.iter().find_map(|rule| {
            Some(Drift {
                what: DriftKind::InFront,
                family,
                table,
                line: spelled(rule),
                forward: None,
                shared_by: Vec::new(),
                stop: Some(rule.stop()?),
            })
        });
        Some(BeforeJump {
            family,
            table,
            chain: chain.to_string(),
            count: rules.len(),
            rules: rules.iter().take(MOST_RULES).map(spelled).collect(),
            stop,
        })
    });
    each.collect()
}

/// Returns the hooks where `planned` has a jump that no packet reaches: the jump is missing, or a rule before it
/// stops every packet.
pub fn unreached(live: &Ruleset, planned: &Ruleset) -> Vec<Hook> {
    let is_planned = |hook: &Hook| before(planned, *hook).is_some();
    let is_unreached = |hook: &Hook| {
        before(live, *hook).is_none_or(|rules| rules.into_iter().any(Rule::stops_every_packet))
    };
    let planned = Hook::ALL.into_iter().filter(is_planned);
    planned.filter(is_unreached).collect()
}

/// Returns the rules of others before nvactl's first jump; `None` if there is no such jump.
fn before(ruleset: &Ruleset, hook: Hook) -> Option<Vec<&Rule>> {
    let jump = Rule::jump(ChainName::from(hook.own()));
    let rules = &ruleset.chain(hook.table(), &hook.builtin())?.rules;
    let place = rules.iter().position(|rule| *rule == jump)?;
    // A second jump, such as one with conditions, is drift by itself.
    let is_foreign = |rule: &&Rule| !rule.leads_to().is_some_and(ChainName::is_own);
    Some(rules[..place].iter().filter(is_foreign).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netfilter::rule::Stop;
    use crate::netfilter::text::parse::parse;

    /// Returns the filter table with nvactl's jump after these lines.
    fn filter(lines: &str) -> Ruleset {
        let text = format!(
            "*filter\n:MY - [0:0]\n:NVACTL-FORWARD - [0:0]\n{lines}-A FORWARD -j NVACTL-FORWARD\n\
             -A FORWARD -j DROP\nCOMMIT\n"
        );
        parse(&text).expect("it is readable")
    }

    #[test]
    fn only_rules_of_others_before_the_jump_are_counted() {
        for (lines, count) in [
            ("", None),
            ("-A FORWARD -s 192.0.2.1/32 -j DROP\n", Some(1)),
            ("-A FORWARD -j MY\n-A FORWARD -j LOG\n", Some(2)),
            ("-A MY -j DROP\n", None),
            ("-A FORWARD -p tcp -j NVACTL-FORWARD\n", None),
        ] {
            let live = filter(lines);
            let found = before_jumps(&live, Family::V4);
            assert_eq!(found.first().map(|one| one.count), count, "{lines}");
            assert_eq!(found.len(), usize::from(count.is_some()), "{lines}");
        }
        let other = parse("*filter\n-A FORWARD -j DROP\nCOMMIT\n").expect("it is readable");
        assert_eq!(before_jumps(&other, Family::V4), []);
    }

    #[test]
    fn ten_rules_are_listed_and_all_are_counted() {
        let line = |n: usize| format!("-A FORWARD -s 192.0.2.{n}/32 -j DROP");
        let lines: String = (1..=12).map(|n| line(n) + "\n").collect();
        let expected = BeforeJump {
            family: Family::V6,
            table: "filter",
            chain: "FORWARD".to_owned(),
            count: 12,
            rules: (1..=10).map(line).collect(),
            stop: None,
        };
        assert_eq!(before_jumps(&filter(&lines), Family::V6), [expected]);
    }

    #[test]
    fn a_jump_is_unreached_after_a_rule_that_stops_every_packet() {
        let planned = filter("");
        for (lines, stop) in [
            (
                "-A FORWARD -j DROP\n",
                Some(("-A FORWARD -j DROP", Stop::Drops)),
            ),
            (
                "-A FORWARD -j ACCEPT\n",
                Some(("-A FORWARD -j ACCEPT", Stop::Accepts)),
            ),
            (
                "-A FORWARD -j RETURN\n",
                Some(("-A FORWARD -j RETURN", Stop::Decides)),
            ),
            (
                "-A FORWARD -m comment --comment \"-j ACCEPT\" -j DROP\n",
                Some((
                    "-A FORWARD -m comment --comment \"-j ACCEPT\" -j DROP",
                    Stop::Drops,
                )),
            ),
            (
                "-A FORWARD -g MY\n",
                Some(("-A FORWARD -g MY", Stop::Decides)),
            ),
            (
                "-A FORWARD -j NFQUEUE --queue-num 0\n",
                Some(("-A FORWARD -j NFQUEUE --queue-num 0", Stop::Decides)),
            ),
            (
                "-A FORWARD -s 192.0.2.1/32 -j DROP\n-A FORWARD -m comment --comment all -j REJECT --reject-with icmp-port-unreachable\n",
                Some((
                    "-A FORWARD -m comment --comment all -j REJECT --reject-with icmp-port-unreachable",
                    Stop::Decides,
                )),
            ),
            ("-A FORWARD -p tcp -j DROP\n", None),
            ("-A FORWARD -i eth0 -g MY\n", None),
            ("-A FORWARD -j MY\n-A MY -j DROP\n", None),
            ("-A FORWARD -j LOG\n-A FORWARD\n", None),
            ("-A FORWARD -g NVACTL-FORWARD\n", None),
        ] {
            let live = filter(lines);
            let found = before_jumps(&live, Family::V4);
            let drift = found.first().and_then(|one| one.stop.as_ref());
            let drift = drift.and_then(|drift| Some((drift.line.as_str(), drift.stop?)));
            assert_eq!(drift, stop, "{lines}");
            let hooks: &[Hook] = if stop.is_some() {
                &[Hook::Passing]
            } else {
                &[]
            };
            assert_eq!(unreached(&live, &planned), hooks, "{lines}");
        }
    }

    #[test]
    fn a_planned_jump_that_is_missing_is_unreached() {
        let none = parse("*filter\n:NVACTL-FORWARD - [0:0]\nCOMMIT\n").expect("it is readable");
        assert_eq!(unreached(&none, &filter("")), [Hook::Passing]);
        assert_eq!(unreached(&filter(""), &none), []);
    }
}
