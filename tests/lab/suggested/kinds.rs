//! The specs whose rules are changed have every kind of rule that a plan may have.

use std::collections::BTreeMap;

use nvactl::netfilter::matches::Match;
use nvactl::netfilter::names::TableName;
use nvactl::netfilter::target::Target;
use nvactl::yaml;

use super::changes::{Part, Place, changes, places};
use super::{Rules, planned, specs};
use crate::asked::{cases, set_of};
use crate::long;
use crate::mutate::mutations;
use crate::random_specs::random_specs;

/// The kind of a change: that of the chain, of the target, and the part of the rule that is changed. Each has a rule as
/// an example.
type Kinds = BTreeMap<String, String>;

/// Adds the kinds of the changes of a plan's rules that packets of tests may meet. No test has packets of the machine
/// itself, and none sees the size of segments, which is all that rules of `mangle` change.
fn add(kinds: &mut Kinds, rules: &Rules, part: Part) {
    for (place, mutation) in changes(rules, part) {
        let (rule, chain) = (place.rule(rules), chain_kind(place.chain.as_str()));
        if place.table == TableName::Mangle || matches!(chain, "OUTPUT" | "NVACTL-OUTPUT") {
            continue;
        }
        let name = rule.target.as_ref().map_or("", Target::name);
        let mut add = |kind: String| {
            kinds.entry(kind).or_insert_with(|| rule.to_string());
        };
        add(format!("{} to {}", place.table, chain_kind(name)));
        let target = target_kind(&place, name);
        add(format!(
            "{} {chain} {:?} to {target}",
            place.table, mutation.field
        ));
    }
}

/// Returns the name of a chain without its digest, protocol and ports. The rules of forwards are the same ones in a
/// tree.
fn chain_kind(name: &str) -> &str {
    let mut words = name.match_indices('-').map(|(place, _)| place);
    let own = &name[..words.nth(1).unwrap_or(name.len())];
    match own {
        "NVACTL-DNAT" => "NVACTL-PREROUTING",
        "NVACTL-OUT" => "NVACTL-OUTPUT",
        "NVACTL-FWD" => "NVACTL-FORWARD",
        "NVACTL-SNAT" => "NVACTL-POSTROUTING",
        own => own,
    }
}

/// Returns what a target does to a packet, for a test.
fn target_kind<'n>(place: &Place, name: &'n str) -> &'n str {
    match chain_kind(name) {
        // Nothing is reached either way.
        "REJECT" | "NVACTL-LOG" => "DROP",
        // A source, or the same one.
        "MASQUERADE" | "ACCEPT" if place.table == TableName::Nat => "SNAT",
        // An entry's first chain.
        "NVACTL-FROM" | "NVACTL-TO" if place.chain.as_str().ends_with("ING") => "NVACTL-EXIT",
        "NVACTL-FROM" | "NVACTL-TO" if place.chain.as_str().ends_with("FORWARD") => "NVACTL-EXIT",
        kind => kind,
    }
}

mod sampled {
    #[test]
    fn the_changed_specs_have_every_kind_of_rule() {
        super::the_changed_specs_have_every_kind_of_rule();
    }
}

fn the_changed_specs_have_every_kind_of_rule() {
    let mut tried = Kinds::new();
    for (spec, part) in specs::all() {
        let set = yaml::read(spec.as_bytes()).expect("it is valid");
        add(&mut tried, &planned(&set), part);
    }
    let mut printed = Kinds::new();
    let sets = cases().into_iter().filter_map(|case| set_of(&case));
    let random = random_specs(long::count(20, 1000)).map(|(_, set)| set);
    for set in sets.chain(random) {
        add(&mut printed, &planned(&set), Part::All);
    }
    printed.retain(|kind, _| !tried.contains_key(kind));
    let lines = printed.iter().map(|(kind, rule)| format!("{kind}: {rule}"));
    let lines: Vec<String> = lines.collect();
    assert!(lines.is_empty(), "not tried:\n{}", lines.join("\n"));
}

#[test]
fn each_condition_has_changes() {
    for (spec, _) in specs::all() {
        let set = yaml::read(spec.as_bytes()).expect("it is valid");
        let rules = planned(&set);
        for place in places(&rules) {
            let rule = place.rule(&rules);
            let (whole, target) = (mutations(rule), rule.target.as_ref());
            let is_other = |one: &crate::mutate::Mutation| {
                let changed = one.rule.as_ref();
                changed.is_some_and(|rule| rule.target.as_ref() != target)
            };
            assert!(whole.iter().any(is_other), "the target of {rule}");
            let is_icmp = |one: &Match| matches!(one, Match::Icmp(_) | Match::Icmp6(_));
            let protocol_is_needed = rule.matches.iter().any(is_icmp);
            for condition in &rule.matches {
                let is_changed = |one: &crate::mutate::Mutation| {
                    let changed = one.rule.as_ref();
                    changed.is_some_and(|rule| !rule.matches.contains(condition))
                };
                let is_kept = match condition {
                    Match::Comment(_) => true,
                    Match::Protocol(_) => protocol_is_needed,
                    _ => false,
                };
                assert!(is_kept || whole.iter().any(is_changed), "{rule}");
            }
        }
    }
}
