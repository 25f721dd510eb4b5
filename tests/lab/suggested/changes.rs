//! Each change of a rule of the plan makes a suggested test fail, or there is a reason why it means the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use nvactl::forwards::{ForwardSet, PacketTest, TestName, suggested};
use nvactl::net::Family;
use nvactl::netfilter::matches::Match;
use nvactl::netfilter::names::{ChainName, Policy, TableName};
use nvactl::netfilter::rule::Rule;
use nvactl::netfilter::ruleset::Ruleset;
use nvactl::yaml;

use super::reasons::reason;
use super::{Rules, failing, planned, specs};
use crate::lab::Backend;
use crate::long;
use crate::mutate::{Field, Mutation, mutations};

/// Registers a test that `tests/long` runs at full length, and `tests/run` as a sample, or with `long` not at all. What
/// the tests see has little to do with the backend.
macro_rules! changed {
    (long $name:ident, $spec:expr, $part:expr) => {
        changed!(long, $name, $spec, $part);
    };
    ($name:ident, $spec:expr, $part:expr) => {
        changed!(sampled, $name, $spec, $part);
    };
    ($when:ident, $name:ident, $spec:expr, $part:expr) => {
        mod $name {
            mod $when {
                lab_test!(nft super::super::$name);
            }
        }
        fn $name(backend: Backend) {
            each_change_is_seen($spec, $part, backend);
        }
    };
}

changed!(lists_and_ranges, specs::LISTS_AND_RANGES, Part::All);
changed!(one_address, specs::ONE_ADDRESS, Part::All);
changed!(entries, specs::ENTRIES, Part::All);
changed!(one_interface, specs::ONE_INTERFACE, Part::All);
changed!(long limits_and_log, specs::LIMITS_AND_LOG, Part::All);
changed!(mss, specs::MSS, Part::All);
changed!(forwards_and_entries, specs::FORWARDS_AND_ENTRIES, Part::All);
changed!(several_targets, specs::SEVERAL_TARGETS, Part::All);
changed!(ranges_of_sources, specs::RANGES_OF_SOURCES, Part::All);
changed!(entrances, specs::ENTRANCES, Part::All);
changed!(long limits, specs::LIMITS, Part::Limits);
changed!(long limited_entry, specs::LIMITED_ENTRY, Part::Limits);
changed!(logs, specs::LOGS, Part::All);
changed!(tree, specs::TREE, Part::All);
changed!(long tree_of_ports, &specs::tree_of_ports(), Part::Branches);
changed!(
    long tree_of_addresses,
    &specs::tree_of_addresses(),
    Part::Branches
);
changed!(long long_lists, &specs::long_lists(), Part::Branches);

/// How many tests run before the others.
const FIRST: usize = 3;

/// How many changes of each spec `tests/run` tries.
const SAMPLE: usize = 2;

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

    /// Returns all rules of the family.
    pub fn plan(&self) -> &Ruleset {
        self.place.plan(self.rules)
    }

    /// Returns the rules of a chain of the same table.
    pub fn chain(&self, name: &ChainName) -> &[Rule] {
        let place = Place {
            chain: name.clone(),
            ..self.place.clone()
        };
        place.chain(self.rules)
    }

    /// Returns the rules of the rule's chain.
    pub fn place_chain(&self) -> &[Rule] {
        self.place.chain(self.rules)
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

/// The rules of a plan that are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    All,
    /// The first rules of each chain that lead to another one. Such a plan has hundreds of other rules, of the kinds that
    /// smaller plans have.
    Branches,
    /// The rules with limits: each test that a limit may count takes a twin of its own.
    Limits,
}

/// How many rules of a chain lead to chains of one kind, at most, if only branches are changed.
const BRANCHES: usize = 2;

/// Returns whether a rule leads to a chain with a part of the listeners, or of the networks of its own chain.
fn is_branch(place: &Place, rule: &Rule) -> bool {
    let kind = |chain: &ChainName| chain.as_str().split('-').nth(1).map(str::to_owned);
    let Some(next) = rule.leads_to().and_then(kind) else {
        return false;
    };
    matches!(next.as_str(), "DNAT" | "FWD" | "SNAT") || kind(&place.chain) == Some(next)
}

/// Returns whether a rule takes a share of the connections.
pub fn has_share(rule: &Rule) -> bool {
    let is_share = |one: &Match| matches!(one, Match::Probability(_) | Match::Cluster(_));
    rule.matches.iter().any(is_share)
}

/// Returns the changes of a plan's rules. Equal changes of equal rules are one.
pub fn changes(rules: &Rules, part: Part) -> Vec<(Place, Mutation)> {
    let mut branches: BTreeMap<(Family, TableName, ChainName), usize> = BTreeMap::new();
    let places = places(rules).into_iter().filter(|place| match part {
        Part::All => true,
        Part::Limits => {
            let is_limit = |one: &Match| matches!(one, Match::HashLimit(_) | Match::ConnLimit(_));
            place.rule(rules).matches.iter().any(is_limit)
        }
        Part::Branches => {
            let of = (place.family, place.table, place.chain.clone());
            let is_branch = is_branch(place, place.rule(rules));
            let count = branches.entry(of).or_default();
            *count += usize::from(is_branch);
            is_branch && *count <= BRANCHES
        }
    });
    let all = places.flat_map(|place| {
        let rule = place.rule(rules);
        let mutations = mutations(rule).into_iter();
        // Chance would decide whether the only packet in transit meets the rule. The last target's rule is changed.
        let is_chance = move |one: &Mutation| has_share(rule) && one.field == Field::AddressType;
        let mutations = mutations.filter(move |one| !is_chance(one));
        mutations.map(move |mutation| (place.clone(), mutation))
    });
    let mut seen = BTreeSet::new();
    let all = all.filter(|(place, mutation)| {
        let of = (place.family, place.table, place.kind());
        seen.insert(format!("{of:?} {} {mutation}", place.rule(rules)))
    });
    all.collect()
}

/// Requires that a test fails if the FORWARD policy of a family accepts packets.
fn policies_are_seen(set: &ForwardSet, tests: &[PacketTest], rules: &Rules, backend: Backend) {
    let order: Vec<usize> = (0..tests.len()).collect();
    for (place, (family, of_family)) in rules.iter().enumerate() {
        if !tests.iter().any(|test| test.family() == *family) {
            continue;
        }
        assert_eq!(of_family.forward_policy(), Policy::Drop, "{family}");
        let mut changed = rules.clone();
        let forward = changed[place]
            .1
            .chain_mut(TableName::Filter, ChainName::Forward);
        forward.policy = Some(Policy::Accept);
        let failed = failing(set, tests, (&order, tests.len()), &changed, backend);
        let is_seen = failed.is_some_and(|failed| !failed.is_empty());
        assert!(is_seen, "no test sees the policy ACCEPT of {family}");
    }
}

/// Tries all changes, or some in `tests/run`. Each makes a difference that a suggested test sees, unless there is a
/// reason, and then it makes none.
fn each_change_is_seen(spec: &str, part: Part, backend: Backend) {
    let set = yaml::read(spec.as_bytes()).expect("it is valid");
    let (tests, rules) = (suggested(&set), planned(&set));
    let mut order: Vec<usize> = (0..tests.len()).collect();
    let failed = failing(&set, &tests, (&order, tests.len()), &rules, backend);
    assert_eq!(failed, Some(Vec::new()));
    policies_are_seen(&set, &tests, &rules, backend);
    let all = changes(&rules, part);
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
        // The tests that saw the changes before come first, unless none of them will see this one.
        let reason = reason(&case);
        let first = if reason.is_none() { FIRST } else { tests.len() };
        let Some(failed) = failing(&set, &tests, (&order, first), &changed, backend) else {
            continue;
        };
        tried += 1;
        // The next change of the rule is probably seen by the same test.
        if let Some((first, _)) = failed.first() {
            order.retain(|one| one != first);
            order.insert(0, *first);
        }
        match (failed.first(), reason) {
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

pub fn places(rules: &Rules) -> Vec<Place> {
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
    pub fn kind(&self) -> String {
        let name = self.chain.as_str();
        let name =
            name.trim_end_matches(|c: char| c.is_ascii_hexdigit() && !c.is_ascii_uppercase());
        name.to_owned()
    }

    pub fn rule<'r>(&self, rules: &'r Rules) -> &'r Rule {
        &self.chain(rules)[self.number]
    }

    fn plan<'r>(&self, rules: &'r Rules) -> &'r Ruleset {
        let mut rules = rules.iter();
        let (_, rules) = rules
            .find(|(family, _)| *family == self.family)
            .expect("it is there");
        rules
    }

    fn chain<'r>(&self, rules: &'r Rules) -> &'r [Rule] {
        let chain = self
            .plan(rules)
            .chain(self.table, &self.chain)
            .expect("it is there");
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
