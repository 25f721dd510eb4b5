//! Tests in rounds, each for a twin of its own, so that no limit counts the connections of two tests.

use std::collections::BTreeMap;

use crate::forwards::{Forward, ForwardSet, Limits, Name, Outbound, PacketTest};
use crate::net::Family;

/// A test in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedTest {
    /// The place of the test in the list of all tests.
    pub number: usize,
    /// How many of its connections the limits admit at once.
    pub most: usize,
}

/// Divides tests into rounds. Tests whose connections the same limit of a spec may count are in different rounds. `sets`:
/// the specs whose rules the twin has.
#[must_use]
pub fn by_limits(tests: &[&PacketTest], sets: &[&ForwardSet]) -> Vec<Vec<PlannedTest>> {
    let limited = Limited::of(sets);
    let mut next: BTreeMap<Counter<'_>, usize> = BTreeMap::new();
    let mut rounds: Vec<Vec<PlannedTest>> = Vec::new();
    for (number, test) in tests.iter().enumerate() {
        let counters = limited.counters(test);
        let after = counters.iter().filter_map(|(counter, _)| next.get(counter));
        let round = after.copied().max().unwrap_or_default();
        let most = counters.iter().map(|(_, limits)| most(limits)).min();
        next.extend(
            counters
                .into_iter()
                .map(|(counter, _)| (counter, round + 1)),
        );
        if rounds.len() == round {
            rounds.push(Vec::new());
        }
        rounds[round].push(PlannedTest {
            number,
            most: most.unwrap_or(usize::MAX),
        });
    }
    rounds
}

/// Gives each test a round of its own.
#[must_use]
pub fn one_by_one(tests: &[&PacketTest], sets: &[&ForwardSet]) -> Vec<Vec<PlannedTest>> {
    let rounds = by_limits(tests, sets).into_iter().flatten();
    let mut rounds: Vec<Vec<PlannedTest>> = rounds.map(|one| vec![one]).collect();
    rounds.sort_by_key(|round| round[0].number);
    rounds
}

/// The part of a spec whose limits count a connection. Forwards of one name and protocol share theirs; those of two
/// protocols are counted as one here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Counter<'s> {
    Forward(&'s Name),
    Outbound(&'s Name),
}

/// The forwards and outbound entries that have limits.
#[derive(Debug)]
struct Limited<'s> {
    forwards: Vec<(&'s Forward, Limits)>,
    entries: Vec<(&'s Outbound, Limits)>,
}

impl<'s> Limited<'s> {
    fn of(sets: &[&'s ForwardSet]) -> Self {
        let forwards = sets.iter().flat_map(|set| &set.forwards);
        let entries = sets.iter().flat_map(|set| &set.outbound);
        Self {
            forwards: forwards
                .filter_map(|one| Some((one, one.limits?)))
                .collect(),
            entries: entries.filter_map(|one| Some((one, one.limits?))).collect(),
        }
    }

    /// Returns every part whose limits may count the connections of a test: more than those that do, since other rules
    /// may keep the packets away.
    fn counters(&self, test: &PacketTest) -> Vec<(Counter<'s>, Limits)> {
        let port = test.to.port();
        let is_led = |one: &Forward| {
            port.is_some_and(|port| one.listens(test.protocol.transport(), test.family(), port))
        };
        let forwards = self.forwards.iter().filter(|(one, _)| is_led(one));
        let is_let_out = |entry: &Outbound| {
            entry.family == Family::of(test.from)
                && entry.protocols.contains(&test.protocol)
                && entry.allow_from.contains(test.from)
        };
        let entries = self.entries.iter().filter(|(one, _)| is_let_out(one));
        let forwards = forwards.map(|(one, limits)| (Counter::Forward(&one.name), *limits));
        let entries = entries.map(|(one, limits)| (Counter::Outbound(&one.name), *limits));
        forwards.chain(entries).collect()
    }
}

/// Returns how many connections limits admit at once.
fn most(limits: &Limits) -> usize {
    let burst = limits.rate.map_or(u32::MAX, |rate| rate.burst);
    let most = burst.min(limits.max_connections.unwrap_or(u32::MAX));
    usize::try_from(most).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    fn rounds(
        spec: &str,
        of: fn(&[&PacketTest], &[&ForwardSet]) -> Vec<Vec<PlannedTest>>,
    ) -> String {
        let text = format!("firewall: {{interface: eth0, snat: 10.3.0.4}}\n{spec}");
        let set = yaml::read(text.as_bytes()).expect("the spec is valid");
        let tests: Vec<&PacketTest> = set.tests.iter().collect();
        let shown = |one: &PlannedTest| match one.most {
            usize::MAX => one.number.to_string(),
            most => format!("{} at most {most}", one.number),
        };
        let rounds = of(&tests, &[&set]);
        let shown = rounds.iter().map(|round| {
            let each: Vec<String> = round.iter().map(shown).collect();
            each.join(", ")
        });
        shown.collect::<Vec<_>>().join(" | ")
    }

    const SPEC: &str = "
forwards:
  - {name: web, listen: [80, 90-99], target: {pod: '10.224.0.118:80'}, limits: {new_per_second: 2, burst: 3}}
  - {name: api, listen: 443, target: {pod: '10.224.0.118:443'}}
outbound:
  - {name: out, allow_from: [10.224.0.0/16], limits: {max_connections: 5}, silence: [outbound-overlap]}
tests:
  - {from: 198.51.100.7, to: 443, reaches: nothing}
  - {from: 198.51.100.7, to: 80, reaches: nothing}
  - {from: 198.51.100.7, to: 443, reaches: nothing}
  - {from: 198.51.100.8, to: 95, reaches: nothing}
  - {from: 198.51.100.8, to: 80, protocol: udp, reaches: nothing}
  - {from: 10.224.0.118, to: '192.0.2.80:80', reaches: nothing}
  - {from: 10.224.0.118, to: 192.0.2.80, protocol: ping, reaches: nothing}
";

    #[test]
    fn tests_that_one_limit_may_count_are_in_different_rounds() {
        assert_eq!(
            rounds(SPEC, by_limits),
            "0, 1 at most 3, 2, 4 | 3 at most 3 | 5 at most 3 | 6 at most 5"
        );
        assert_eq!(
            rounds(SPEC, one_by_one),
            "0 | 1 at most 3 | 2 | 3 at most 3 | 4 | 5 at most 3 | 6 at most 5"
        );
    }

    #[test]
    fn without_limits_there_is_one_round() {
        let spec = SPEC.replace(", limits: {new_per_second: 2, burst: 3}", "");
        let spec = spec.replace(", limits: {max_connections: 5}", "");
        assert_eq!(rounds(&spec, by_limits), "0, 1, 2, 3, 4, 5, 6");
    }
}
