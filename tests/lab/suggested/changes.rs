//! Each change of a rule of the plan makes a suggested test fail, or there is a reason why it means the same.

use std::collections::BTreeSet;
use std::fmt;

use nvactl::forwards::{ForwardSet, PacketTest, TestName, suggested};
use nvactl::net::Family;
use nvactl::netfilter::names::{ChainName, TableName};
use nvactl::netfilter::rule::Rule;
use nvactl::yaml;

use super::reasons::reason;
use super::{Rules, failing, planned};
use crate::lab::Backend;
use crate::long;
use crate::mutate::{Mutation, mutations};

/// Registers a test that `tests/long` runs at full length. What the tests see has little to do with the backend.
macro_rules! sampled {
    ($name:ident) => {
        mod $name {
            mod sampled {
                lab_test!(nft super::super::$name);
            }
        }
    };
}

// The plans of these specs have every kind of rule of the flat layout but those of several targets: a test with several
// targets passes if some of them are reached.

sampled!(forwards_with_lists_and_ranges);
fn forwards_with_lists_and_ranges(backend: Backend) {
    let spec = "firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 443, target: {ilb: 10.224.0.222}, allow_from: [198.51.100.0/24], deny_from: [198.51.100.64/26]}
  - {name: range, listen: 8000-8010, target: {pod: '10.224.0.118:9000-9010'}}
  - {name: list, listen: [81, 83], target: {pod: 10.224.0.118}}
  - {name: dns, listen: 53, protocol: udp, target: {pod: '10.224.0.9:53'}}";
    each_change_is_seen(spec, backend);
}

sampled!(listeners_for_one_address);
fn listeners_for_one_address(backend: Backend) {
    let spec = "firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4}
forwards:
  - {name: api, listen: '203.0.113.10:443', target: {pod: '10.224.0.118:8443'}, snat: masquerade, hairpin: true}
  - {name: kept, listen: 22022, target: {pod: '10.224.0.119:22'}, snat: none}
  - {name: v6, listen: '[2001:db8::10]:443', target: {pod: '[fd00:10::8]:443'}, snat: 'fd00:11::4'}
silence: [client-kept]";
    each_change_is_seen(spec, backend);
}

sampled!(outbound_entries);
fn outbound_entries(backend: Backend) {
    let spec = "firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4}
outbound:
  - {name: dns, allow_from: [10.224.0.0/16], allow_to: [10.0.0.53/32], protocol: [tcp, udp], ports: [53], snat: none}
  - {name: out, allow_from: [10.224.0.0/16], deny_from: [10.224.9.0/24], deny_to: [192.0.2.0/24], protocol: tcp, ports: [443, 8000-8010]}
  - {name: ping, allow_from: [10.225.0.0/16], protocol: ping, snat: 10.3.0.5}
  - {name: six, allow_from: ['2001:db8:1::/64'], snat: masquerade}";
    each_change_is_seen(spec, backend);
}

sampled!(an_outbound_entry_of_one_interface);
fn an_outbound_entry_of_one_interface(backend: Backend) {
    let spec = "firewall: {interface: eth0, snat: 10.3.0.4}
outbound:
  - {name: out, allow_from: [10.224.0.0/16]}";
    each_change_is_seen(spec, backend);
}

sampled!(a_forward_with_limits_and_a_log);
fn a_forward_with_limits_and_a_log(backend: Backend) {
    let spec = "firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4, mss: 1300}
forwards:
  - {name: limited, listen: 445, log: true, limits: {new_per_second: 100, max_connections: 50, per: client, reject: true}, target: {pod: '10.224.0.121:445'}}";
    each_change_is_seen(spec, backend);
}

sampled!(forwards_beside_outbound_entries);
fn forwards_beside_outbound_entries(backend: Backend) {
    let spec = "firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: one, listen: '203.0.113.10:443', target: {pod: '10.224.0.118:443'}}
  - {name: two, listen: '203.0.113.11:443', target: {pod: '10.224.0.119:443'}}
  - {name: any, listen: 8443, target: {pod: '10.224.0.120:8443'}}
outbound:
  - {name: out, allow_from: [10.225.0.0/16], allow_to: [internet, 10.224.0.0/24], protocol: tcp, snat: 10.3.0.9}
  - {name: kept, allow_from: [10.226.0.0/16], allow_to: [internet, 10.224.0.0/24], protocol: tcp, snat: none}
silence: [client-kept]";
    each_change_is_seen(spec, backend);
}

/// How many changes of each spec `tests/run` tries.
const SAMPLE: usize = 6;

/// One change of a rule.
pub struct Case<'r> {
    pub set: &'r ForwardSet,
    pub tests: &'r [PacketTest],
    pub rules: &'r Rules,
    pub place: Place,
    pub mutation: Mutation,
}

impl Case<'_> {
    pub fn rule(&self) -> &Rule {
        self.place.rule(self.rules)
    }

    /// Returns the rule with the change; `None` if it is gone.
    pub fn changed(&self) -> Option<&Rule> {
        self.mutation.rule.as_ref()
    }

    /// Returns the rules of a chain of the same table.
    pub fn chain(&self, name: &ChainName) -> &[Rule] {
        let place = Place {
            chain: name.clone(),
            ..self.place.clone()
        };
        place.chain(self.rules)
    }

    /// Returns the rules that follow in the chain.
    pub fn later(&self) -> &[Rule] {
        &self.place.chain(self.rules)[self.place.number + 1..]
    }

    /// Returns whether a test of the rule's family has a name that ends with these words.
    pub fn is_asked(&self, words: &str) -> bool {
        let mut tests = self.tests.iter();
        tests.any(|test| {
            let is_named = |name: &TestName| name.to_string().ends_with(words);
            test.family() == self.place.family && test.name.as_ref().is_some_and(is_named)
        })
    }
}

impl fmt::Display for Case<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place {
            family,
            table,
            chain,
            ..
        } = &self.place;
        let (rule, mutation) = (self.rule(), &self.mutation);
        write!(f, "{family} {table} {chain}: {rule}\n    {mutation}")
    }
}

/// Tries all changes, or some in `tests/run`. Each makes a difference that a suggested test sees, unless there is a
/// reason, and then it makes none.
fn each_change_is_seen(spec: &str, backend: Backend) {
    let set = yaml::read(spec.as_bytes()).expect("it is valid");
    let (tests, rules) = (suggested(&set), planned(&set));
    let mut order: Vec<usize> = (0..tests.len()).collect();
    let failed = failing(&set, &tests, &order, &rules, backend);
    assert_eq!(failed, Some(Vec::new()));
    let all = places(&rules).into_iter().flat_map(|place| {
        let mutations = mutations(place.rule(&rules)).into_iter();
        mutations.map(move |mutation| (place.clone(), mutation))
    });
    let mut seen = BTreeSet::new();
    let all = all.filter(|(place, mutation)| {
        let of = (place.family, place.table, place.kind());
        seen.insert(format!("{of:?} {} {mutation}", place.rule(&rules)))
    });
    let all: Vec<(Place, Mutation)> = all.collect();
    let step = all.len() / long::count(SAMPLE, all.len());
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for (place, mutation) in all.into_iter().step_by(step) {
        let case = Case {
            set: &set,
            tests: &tests,
            rules: &rules,
            place,
            mutation,
        };
        let changed = case.place.with(&rules, case.mutation.rule.clone());
        let Some(failed) = failing(&set, &tests, &order, &changed, backend) else {
            continue;
        };
        tried += 1;
        // The next change of the rule is probably seen by the same test.
        if let Some((first, _)) = failed.first() {
            order.retain(|one| one != first);
            order.insert(0, *first);
        }
        match (failed.first(), reason(&case)) {
            (None, None) => wrong.push(format!("no test sees {case}")),
            (Some((_, test)), Some(reason)) => {
                wrong.push(format!("{case}\n    {test} sees it, although: {reason}"));
            }
            _ => {}
        }
    }
    let lines = wrong.join("\n");
    assert!(
        wrong.is_empty(),
        "{} of {tried} changes:\n{lines}",
        wrong.len()
    );
    assert!(tried >= SAMPLE / 2, "{tried}");
}

/// The place of a rule.
#[derive(Clone)]
pub struct Place {
    pub family: Family,
    pub table: TableName,
    pub chain: ChainName,
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
    /// Returns the name of the chain without its digest.
    fn kind(&self) -> String {
        let name = self.chain.as_str();
        let name =
            name.trim_end_matches(|c: char| c.is_ascii_hexdigit() && !c.is_ascii_uppercase());
        name.to_owned()
    }

    fn rule<'r>(&self, rules: &'r Rules) -> &'r Rule {
        &self.chain(rules)[self.number]
    }

    fn chain<'r>(&self, rules: &'r Rules) -> &'r [Rule] {
        let (_, rules) = rules
            .iter()
            .find(|(family, _)| *family == self.family)
            .expect("it is there");
        let chain = rules.chain(self.table, &self.chain).expect("it is there");
        &chain.rules
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
