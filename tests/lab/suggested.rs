//! The tests that `nvactl test --suggest` writes: they pass with the plan, and one fails without each rule of it.

use std::time::{Duration, Instant};

use nvactl::forwards::{ForwardSet, PacketTest, suggested};
use nvactl::net::Family;
use nvactl::netfilter::names::{ChainName, TableName};
use nvactl::netfilter::rule::Rule;
use nvactl::netfilter::ruleset::Ruleset;
use nvactl::plan::plan;
use nvactl::twin::made_up::MadeUp;
use nvactl::twin::packet_tests::run_tests;
use nvactl::twin::rules::PacketFilter;
use nvactl::twin::{Twin, netns};
use nvactl::yaml;

use crate::asked::{cases, set_of};
use crate::lab::Backend;
use crate::long;
use crate::made_up::programs;
use crate::mutate::{Mutation, mutations};
use crate::random_specs::random_specs;

/// Each twin takes less than a second.
const LIMIT: Duration = Duration::from_mins(2);

/// The rules of a spec in each family.
type Rules = Vec<(Family, Ruleset)>;

fn planned(set: &ForwardSet) -> Rules {
    Family::ALL.map(|family| (family, plan(set, family))).into()
}

/// Runs tests on a made-up machine with some rules. Returns those that do not pass, in words; `None` if the rules do
/// not load.
fn failing(
    set: &ForwardSet,
    tests: &[PacketTest],
    rules: &Rules,
    backend: Backend,
) -> Option<Vec<String>> {
    let printed: Vec<(Family, String)> = rules
        .iter()
        .map(|(family, rules)| (*family, rules.to_string()))
        .collect();
    let printed = printed
        .iter()
        .map(|(family, text)| (*family, text.as_bytes()));
    let filter =
        PacketFilter::of_texts(programs(backend), printed).expect("it is nvactl's own text");
    let sides: Vec<_> = tests
        .iter()
        .filter_map(|test| Some((test.from.into(), test.ingress.clone()?)))
        .collect();
    let made_up = MadeUp::of_spec(set, &sides);
    let work = || {
        let mut twin = Twin::make(made_up.machine, &filter, None).expect("it can be made");
        if !twin.left_out().is_empty() {
            return None;
        }
        let tests: Vec<&PacketTest> = tests.iter().collect();
        let tested =
            run_tests(&mut twin, &tests, &[set], Instant::now() + LIMIT).expect("they run");
        let failed = tested.iter().filter(|one| !one.is_passed());
        Some(
            failed
                .map(|one| format!("{}: {:?}", one.test, one.outcome))
                .collect(),
        )
    };
    netns::aside(work).expect("there is a thread")
}

lab_test!(either suggested_tests_pass);
fn suggested_tests_pass(backend: Backend) {
    let (mut count, mut wrong) = (0, Vec::new());
    let cases = cases().into_iter().filter_map(|case| {
        let name = case.file_name()?.display().to_string();
        Some((name, set_of(&case)?))
    });
    for (name, set) in cases.chain(random_specs(long::count(15, 300))) {
        let tests = suggested(&set);
        count += tests.len();
        match failing(&set, &tests, &planned(&set), backend) {
            Some(failed) if failed.is_empty() => {}
            failed => wrong.push(format!(
                "{name}:\n{}",
                failed.unwrap_or_default().join("\n")
            )),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 500, "{count}");
}

/// Specs whose plans have every kind of rule.
const SPECS: [&str; 4] = [
    "firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 443, target: {ilb: 10.224.0.222}, allow_from: [198.51.100.0/24], deny_from: [198.51.100.128/25]}
  - {name: range, listen: 8000-8010, target: {pod: '10.224.0.118:9000-9010'}}
  - {name: list, listen: [81, 82], target: {pod: 10.224.0.118}}
  - {name: dns, listen: 53, protocol: udp, target: {pod: '10.224.0.9:53'}}",
    "firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4}
forwards:
  - {name: api, listen: '203.0.113.10:443', target: {pod: '10.224.0.118:8443'}, snat: masquerade, hairpin: true}
  - {name: kept, listen: 22022, target: {pod: '10.224.0.119:22'}, snat: none}
  - {name: v6, listen: '[2001:db8::10]:443', target: {pod: '[fd00:10::8]:443'}, snat: 'fd00:11::4'}
silence: [client-kept]",
    "firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4}
outbound:
  - {name: dns, allow_from: [10.224.0.0/16], allow_to: [10.0.0.53/32], protocol: [tcp, udp], ports: [53], snat: none}
  - {name: out, allow_from: [10.224.0.0/16], deny_from: [10.224.9.0/24], deny_to: [192.0.2.0/24], protocol: tcp, ports: [443, 8000-8010]}
  - {name: ping, allow_from: [10.225.0.0/16], protocol: ping, snat: 10.3.0.5}",
    "firewall: {interface: eth0, snat: 10.3.0.4}
outbound:
  - {name: out, allow_from: [10.224.0.0/16]}",
];

/// Returns why no test can show a change of a rule; `None` if one must fail.
fn reason(place: &Place, rule: &Rule, tests: &[PacketTest]) -> Option<&'static str> {
    let chain = place.chain.as_str();
    let text = rule.to_string();
    if !tests.iter().any(|test| test.family() == place.family) {
        return Some("the spec has no connection of this family");
    }
    if chain == "NVACTL-OUTPUT" || text.ends_with("-j NVACTL-OUTPUT") {
        return Some("only the machine's own connections meet it, and tests have clients");
    }
    if text.ends_with("-j NVACTL-PREROUTING") {
        return Some("a spec without forwards redirects nothing");
    }
    if chain.starts_with("NVACTL-ADMIT") && text.ends_with("-j RETURN") {
        return Some("the packets return at the end of the chain as well");
    }
    // The entry `dns` and the forward `kept` have `snat: none`.
    let keeps = text.ends_with("-j ACCEPT") || text.contains("--comment dns ");
    if place.table == TableName::Nat && keeps {
        return Some("packets that no rule translates keep their source");
    }
    let mut guarded = ["169.254.169.254", "168.63.129.16"].into_iter();
    let is_guard = guarded.any(|address| text.contains(address));
    if chain.starts_with("NVACTL-TO-") && is_guard {
        return Some("the policy drops them as well");
    }
    if chain.starts_with("NVACTL-TO-") && text.contains("-j RETURN") {
        return Some("of the networks outside the Internet, tests ask some");
    }
    None
}

/// Each rule makes a difference that a suggested test sees.
fn without_each_rule_a_suggested_test_fails(backend: Backend) {
    let (mut survivors, mut tried) = (Vec::new(), 0);
    for (number, spec) in SPECS.iter().enumerate() {
        let set = yaml::read(spec.as_bytes()).expect("it is valid");
        let tests = suggested(&set);
        let rules = planned(&set);
        assert_eq!(failing(&set, &tests, &rules, backend), Some(Vec::new()));
        for place in places(&rules) {
            let rule = place.rule(&rules);
            if reason(&place, rule, &tests).is_some() {
                continue;
            }
            for Mutation { what, rule: other } in mutations(rule) {
                let changed = place.with(&rules, other);
                let Some(failed) = failing(&set, &tests, &changed, backend) else {
                    continue;
                };
                tried += 1;
                if failed.is_empty() {
                    let chain = &place.chain;
                    survivors.push(format!("spec {number}: {chain}: {what}: {rule}"));
                }
            }
        }
    }
    let lines = survivors.join("\n");
    assert!(survivors.is_empty(), "of {tried} changes:\n{lines}");
    assert!(tried > 60, "{tried}");
}

/// `tests/run` leaves it to `tests/long`.
mod without_each_rule {
    mod long {
        lab_test!(both super::super::without_each_rule_a_suggested_test_fails);
    }
}

/// The place of a rule.
struct Place {
    family: Family,
    table: TableName,
    chain: ChainName,
    number: usize,
}

fn places(rules: &Rules) -> Vec<Place> {
    let mut all = Vec::new();
    for (family, rules) in rules {
        for (table, chain, content) in rules.chains() {
            all.extend((0..content.rules.len()).map(|number| Place {
                family: *family,
                table,
                chain: chain.clone(),
                number,
            }));
        }
    }
    all
}

impl Place {
    fn rule<'r>(&self, rules: &'r Rules) -> &'r Rule {
        let (_, rules) = rules
            .iter()
            .find(|(family, _)| *family == self.family)
            .expect("it is there");
        let chain = rules.chain(self.table, &self.chain).expect("it is there");
        &chain.rules[self.number]
    }

    /// Returns the rules with another one in this place, or none.
    fn with(&self, rules: &Rules, rule: Option<Rule>) -> Rules {
        let mut rules = rules.clone();
        let (_, changed) = rules
            .iter_mut()
            .find(|(family, _)| *family == self.family)
            .expect("it is there");
        let chain = changed.chain_mut(self.table, self.chain.clone());
        match rule {
            Some(rule) => chain.rules[self.number] = rule,
            None => {
                chain.rules.remove(self.number);
            }
        }
        rules
    }
}
