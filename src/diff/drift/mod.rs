//! Compares two rulesets by forward and outbound entry: those added, removed and changed, and drift, which are lines
//! that no spec can have produced.
//!
//! Foreign rules, counters, comments of the file and the order of tables do not count.

mod fields;
mod lines;
mod names;
mod order;
mod placed;

use std::collections::{BTreeMap, BTreeSet};

pub use fields::{
    FieldChange, changes as field_changes, outbound_changes as outbound_field_changes,
};
use fields::{SHARED, change, changes, outbound_changes, to_words};
use lines::drift;
pub use lines::{Drift, DriftKind};
pub use names::ForwardNames;
pub use order::{ORDER, moved};
pub use placed::{ChainOwners, PlacedRule, gone, missing_lines, outbound_rules, rules_by_key};
use serde::Serialize;

use crate::diff;
use crate::forwards::{
    Description, Forward, ForwardPolicy, ForwardSet, Layout, Name, Outbound, listeners_of,
    reached_of, rows,
};
use crate::net::{Family, Protocol};
use crate::netfilter::names::Policy;
use crate::netfilter::ruleset::Ruleset;
use crate::plan::unplan::{ForwardKey, unplan};
use crate::plan::{Hook, layout, plan};

/// The differences between two rulesets. docs/json.md documents the fields.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Whether nothing differs.
    pub same: bool,
    pub firewall: Vec<FieldChange>,
    pub added: Vec<ForwardLine>,
    pub removed: Vec<ForwardLine>,
    pub changed: Vec<ForwardChange>,
    pub drift: Vec<Drift>,
    /// Whether the rules are equal, but in another order, or only those are missing that every spec has.
    pub reordered: bool,
    /// Whether those that every spec has are missing, since no chain of nvactl's is there.
    #[serde(skip)]
    pub lacks_common: bool,
}

/// A short description of a forward, all its listeners of one protocol, or of an outbound entry.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct ForwardLine {
    pub name: String,
    /// `None` for a forward.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<LineKind>,
    /// The family of an outbound entry; `None` for a forward.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// The listener of a forward, the sources of an outbound entry.
    pub listen: String,
    /// The protocols of an outbound entry, with a comma between them.
    pub protocol: String,
    pub target: String,
    /// `None` for a forward that was read from rules: no rule has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LineKind {
    Outbound,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct ForwardChange {
    pub name: String,
    pub changes: Vec<FieldChange>,
}

/// Compares `have`, a whole ruleset of one family, with the plan of `want` for that family.
#[must_use]
pub fn compare(have: &Ruleset, want: &ForwardSet, family: Family) -> Comparison {
    compare_holding(have, || unplan(have), want, family)
}

/// Compares as [`compare`] does, but gets the forwards that the rules hold from `held`.
fn compare_holding(
    have: &Ruleset,
    held: impl FnOnce() -> Option<ForwardSet>,
    want: &ForwardSet,
    family: Family,
) -> Comparison {
    let planned = plan(want, family);
    if diff::changes(have, &planned).is_empty() {
        return Comparison {
            same: true,
            ..Comparison::default()
        };
    }
    let want = &want.of(family);
    let mut held = held();
    if let Some(held) = &mut held
        && held.firewall.mss.is_none()
        && have
            .chain(Hook::Sizing.table(), &Hook::Sizing.own().into())
            .is_some()
    {
        // Somebody has flushed the chain, and the rules that said the limit are gone.
        held.firewall.mss = want.firewall.mss;
    }
    let mut comparison = Comparison {
        firewall: policy_change(have, want, family).into_iter().collect(),
        ..Comparison::default()
    };
    // If all forwards are added or all are removed, no forward can change its layout.
    if let Some(held) = &held
        && held.has_forwards(family) == want.has_forwards(family)
    {
        let layout = layout_change(held, want, family);
        comparison.firewall.extend(layout);
    }
    let limit = held
        .as_ref()
        .and_then(|held| mss_change(held, want, family));
    comparison.firewall.extend(limit);
    let mut expected = comparison.compare_forwards(have, held.as_ref(), want, family);
    comparison.compare_outbound(have, held.as_ref(), want, &mut expected, family);
    // A tree has rules with the firewall's options only if the firewall sets `snat`.
    if let Some(held) = &held
        && (held.has_forwards(family) || held.outbound.is_empty())
        && layout(held, family) == Layout::Tree
        && held.firewall.snat.of(family).is_some()
    {
        comparison.compare_common(held, want, family);
    }
    comparison.drift = drift(have, &plan(&expected, family), family);
    if !comparison.drift.is_empty() && !comparison.added.is_empty() {
        comparison.drift = comparison.less_drift(have, expected, want, family);
    }
    let in_front = |drift: &Drift| drift.what == DriftKind::InFront;
    let is_moved = |entry: &ForwardChange| entry.changes.iter().all(|one| one.field == ORDER);
    comparison.reordered = comparison.firewall.is_empty()
        && comparison.added.is_empty()
        && comparison.removed.is_empty()
        && comparison.changed.iter().all(is_moved)
        && comparison.drift.iter().all(in_front)
        && !diff::holds_the_same(have, &planned, false);
    comparison.lacks_common =
        comparison.reordered && !have.chains().any(|(_, name, _)| name.is_own());
    comparison
}

/// Compares two specs as [`compare`] does, and also their `forward_policy` and their descriptions, which only a
/// spec records.
#[must_use]
pub fn compare_specs(old: &ForwardSet, new: &ForwardSet, family: Family) -> Comparison {
    let have = plan(old, family).with_builtin_chains();
    // Rules without a forward cannot be read back. Nobody has tampered with a spec's own plan, so the
    // spec itself is what the rules hold.
    let held = || {
        unplan(&have).or_else(|| {
            let mut held = old.of(family);
            held.firewall.layout = Some(layout(old, family));
            Some(held)
        })
    };
    let mut comparison = compare_holding(&have, held, new, family);
    let word = |set: &ForwardSet| match set.firewall.forward_policy {
        ForwardPolicy::Drop => "drop",
        ForwardPolicy::Keep => "keep",
    };
    if let Some(change) = change("forward_policy", word(old), word(new)) {
        comparison
            .firewall
            .retain(|change| ![POLICY, POLICY_V6].contains(&change.field));
        comparison.firewall.push(change);
        comparison.same = false;
        comparison.reordered = false;
    }
    comparison.compare_descriptions(old, new, family);
    comparison
}

/// The field name of a changed FORWARD policy.
pub const POLICY: &str = "FORWARD policy";
/// The field name of a changed FORWARD policy of IPv6.
pub const POLICY_V6: &str = "IPv6 FORWARD policy";
/// The field name of a changed limit on segment sizes.
pub const MSS: &str = "mss";
/// The field name of a changed layout.
pub const LAYOUT: &str = "layout";
/// The field name of a changed layout of IPv6.
pub const LAYOUT_V6: &str = "IPv6 layout";

/// Compares as [`compare`] does. If the spec has neither an IPv6 forward nor such an outbound entry, all of nvactl's
/// IPv6 rules count as surplus, as for `apply`.
#[must_use]
pub fn compare_family(have: &Ruleset, want: &ForwardSet, family: Family) -> Comparison {
    if family == Family::V4 || want.has(family) {
        return compare(have, want, family);
    }
    let nothing = Ruleset::default();
    if diff::changes(have, &nothing).is_empty() {
        return Comparison {
            same: true,
            ..Comparison::default()
        };
    }
    let mut without = want.of(family);
    // Such a spec does not set the policy of IPv6 either.
    without.firewall.forward_policy = ForwardPolicy::Keep;
    let mut comparison = compare(have, &without, family);
    if comparison.same {
        comparison.same = false;
        comparison.drift = drift(have, &nothing, family);
    }
    comparison
}

/// Merges the comparisons of both families. A firewall change that is in both is listed once.
#[must_use]
pub fn merged(each: impl IntoIterator<Item = Comparison>) -> Comparison {
    let mut all = Comparison {
        same: true,
        ..Comparison::default()
    };
    for one in each {
        all.same &= one.same;
        for change in one.firewall {
            if !all.firewall.contains(&change) {
                all.firewall.push(change);
            }
        }
        all.added.extend(one.added);
        all.removed.extend(one.removed);
        let earlier = all.changed.len();
        for forward in one.changed {
            // An outbound entry of both families has one line.
            let mut known = all.changed[..earlier].iter_mut();
            match known.find(|known| known.name == forward.name) {
                Some(known) => {
                    for change in forward.changes {
                        if !known.changes.contains(&change) {
                            known.changes.push(change);
                        }
                    }
                }
                None => all.changed.push(forward),
            }
        }
        all.drift.extend(one.drift);
        all.reordered |= one.reordered;
        all.lacks_common |= one.lacks_common;
    }
    all
}

impl Comparison {
    /// Sorts the forwards into added, removed and changed. Returns the forwards that `have` would hold if
    /// nobody had tampered with its rules.
    fn compare_forwards(
        &mut self,
        have: &Ruleset,
        held: Option<&ForwardSet>,
        want: &ForwardSet,
        family: Family,
    ) -> ForwardSet {
        let have_rules = rules_by_key(have);
        let mut expected = ForwardSet {
            description: None,
            firewall: held.map_or(&want.firewall, |held| &held.firewall).clone(),
            forwards: Vec::new(),
            outbound: Vec::new(),
            tests: Vec::new(),
        };
        // `policy_change` reports a changed policy.
        expected.firewall.forward_policy = ForwardPolicy::Keep;

        let planned = |forwards: &[Forward]| {
            let mut set = expected.clone();
            set.forwards = forwards.to_vec();
            plan(&set, family)
        };
        let held_forwards = held.map_or(&[][..], |held| &held.forwards);
        let (held_plan, want_plan) = (planned(held_forwards), planned(&want.forwards));
        let (held_rules, want_rules) = (rules_by_key(&held_plan), rules_by_key(&want_plan));
        let mut old = Old::new(held_forwards);
        let stay: BTreeSet<ForwardKey<'_>> = want.forwards.iter().map(key).collect();
        let mut changed: Vec<(&Forward, Vec<FieldChange>)> = Vec::new();
        for row in rows(&want.forwards) {
            let forward = &row[0];
            let key = key(forward);
            let have = have_rules.get(&key);
            let tampered = have.is_some() && have != held_rules.get(&key);
            let was = old.take(forward, &stay);
            // Rules that somebody has tampered with belong to the new spec or to the forward that was
            // loaded before. The version with fewer differences counts.
            let nearer = tampered
                && distance(have, want_rules.get(&key)) <= distance(have, held_rules.get(&key));
            match (was, nearer) {
                (_, true) => expected.forwards.extend_from_slice(row),
                (None, false) if tampered => {}
                (None, false) => self.added.push(ForwardLine::of(row)),
                (Some(was), false) => {
                    changed.push((forward, changes(&was, row)));
                    expected.forwards.extend(was);
                }
            }
        }
        self.firewall.splice(0..0, of_all(&mut changed, want));
        changed.retain(|(_, changes)| !changes.is_empty());
        self.changed = changed
            .into_iter()
            .map(|(forward, changes)| ForwardChange {
                name: forward.name.to_string(),
                changes,
            })
            .collect();
        // A change of both protocols of a forward is listed once.
        self.changed.dedup();
        for row in old.left() {
            self.removed.push(ForwardLine::of(&row));
            expected.forwards.extend(row);
        }
        expected
    }
}

impl Comparison {
    /// Sorts the outbound entries into added, removed and changed, as [`Comparison::compare_forwards`] does. Adds the
    /// entries that `have` would hold to `expected`.
    fn compare_outbound(
        &mut self,
        have: &Ruleset,
        held: Option<&ForwardSet>,
        want: &ForwardSet,
        expected: &mut ForwardSet,
        family: Family,
    ) {
        let planned = |entries: &[Outbound]| {
            let set = ForwardSet {
                description: None,
                firewall: expected.firewall.clone(),
                forwards: Vec::new(),
                outbound: entries.to_vec(),
                tests: Vec::new(),
            };
            plan(&set, family)
        };
        let held = held.map_or(&[][..], |held| &held.outbound);
        let (held_plan, want_plan) = (planned(held), planned(&want.outbound));
        let [have, held_rules, want_rules] = [have, &held_plan, &want_plan].map(outbound_rules);
        let mut old: BTreeMap<&str, &Outbound> =
            held.iter().map(|one| (one.name.as_str(), one)).collect();
        let mut moved = moved(held, &want.outbound);
        for entry in &want.outbound {
            let name = entry.name.as_str();
            let have = have.get(name);
            let tampered = have.is_some() && have != held_rules.get(name);
            let nearer = tampered
                && distance(have, want_rules.get(name)) <= distance(have, held_rules.get(name));
            match (old.remove(name), nearer) {
                (_, true) => expected.outbound.push(entry.clone()),
                (None, false) if tampered => {}
                (None, false) => self.added.push(ForwardLine::from(entry)),
                (Some(was), false) => {
                    let mut changes = outbound_changes(was, entry);
                    changes.extend(moved.remove(name));
                    if !changes.is_empty() {
                        let name = name.to_owned();
                        self.changed.push(ForwardChange { name, changes });
                    }
                    expected.outbound.push(was.clone());
                }
            }
        }
        for entry in held
            .iter()
            .filter(|one| old.contains_key(one.name.as_str()))
        {
            self.removed.push(ForwardLine::from(entry));
            expected.outbound.push(entry.clone());
        }
    }

    /// Returns the smaller drift: as it is, or as if the added forwards had been loaded before. If somebody
    /// has removed all rules of a forward, no rule names it any more, but the branches of a tree may still
    /// fit it.
    fn less_drift(
        &mut self,
        have: &Ruleset,
        mut expected: ForwardSet,
        want: &ForwardSet,
        family: Family,
    ) -> Vec<Drift> {
        let added: BTreeSet<&str> = self.added.iter().map(|line| line.name.as_str()).collect();
        let forwards = want.forwards.iter();
        let forwards = forwards.filter(|forward| added.contains(forward.name.as_str()));
        expected.forwards.extend(forwards.cloned());
        let entries = want.outbound.iter();
        let entries = entries.filter(|entry| added.contains(entry.name.as_str()));
        expected.outbound.extend(entries.cloned());
        let mut whole = drift(have, &plan(&expected, family), family);
        whole.retain(|drift| {
            let mut owners = drift.owners().peekable();
            owners.peek().is_none() || owners.any(|owner| !added.contains(owner.as_str()))
        });
        let without = std::mem::take(&mut self.drift);
        if whole.len() < without.len() {
            whole
        } else {
            without
        }
    }

    /// Adds the changes of descriptions, which change no rule.
    fn compare_descriptions(&mut self, old: &ForwardSet, new: &ForwardSet, family: Family) {
        let words = |one: Option<&Description>| one.map_or("none".to_owned(), ToString::to_string);
        let differ = |old: Option<&Description>, new: Option<&Description>| {
            change("description", &words(old), &words(new))
        };
        let of_spec = differ(old.description.as_ref(), new.description.as_ref());
        self.same &= of_spec.is_none();
        self.firewall.extend(of_spec);
        let before: BTreeMap<&Name, Option<&Description>> = described(old, family).collect();
        let mut after: Vec<(&Name, Option<&Description>)> = described(new, family).collect();
        // The entries of a forward are neighbours.
        after.dedup();
        for (name, description) in after {
            let Some(was) = before.get(name) else {
                continue;
            };
            let Some(change) = differ(*was, description) else {
                continue;
            };
            self.same = false;
            let name = name.to_string();
            match self.changed.iter_mut().find(|known| known.name == name) {
                Some(known) => known.changes.push(change),
                None => self.changed.push(ForwardChange {
                    name,
                    changes: vec![change],
                }),
            }
        }
    }

    /// Adds changes of the firewall's own options. A tree has rules with them even if every forward sets its
    /// own.
    fn compare_common(&mut self, held: &ForwardSet, want: &ForwardSet, family: Family) {
        for field in SHARED {
            let known = self
                .firewall
                .iter()
                .any(|change| change.field == field.name());
            let words = |set| field.of_firewall(set, family);
            if let (false, Some(from), Some(to)) = (known, words(held), words(want)) {
                self.firewall.extend(change(field.name(), &from, &to));
            }
        }
    }
}

/// Returns the descriptions of a family's forwards and outbound entries.
fn described(
    set: &ForwardSet,
    family: Family,
) -> impl Iterator<Item = (&Name, Option<&Description>)> {
    let of_family = set.described().filter(move |(own, ..)| *own == family);
    of_family.map(|(_, name, description)| (name, description))
}

fn key(forward: &Forward) -> ForwardKey<'_> {
    (forward.name.as_str(), forward.protocol)
}

/// The old forwards that no new forward has been paired with yet, by name and protocol.
struct Old(BTreeMap<(String, Protocol), Vec<Forward>>);

impl Old {
    fn new(forwards: &[Forward]) -> Self {
        let key = |forward: &Forward| (forward.name.to_string(), forward.protocol);
        let rows = rows(forwards).map(|row| (key(&row[0]), row.to_vec()));
        Self(rows.collect())
    }

    /// Removes and returns the old version of a forward: the one with the same protocol, or else the one with
    /// its name whose protocol changes to this one.
    fn take(&mut self, forward: &Forward, stay: &BTreeSet<ForwardKey<'_>>) -> Option<Vec<Forward>> {
        let key = |protocol| (forward.name.to_string(), protocol);
        if let Some(was) = self.0.remove(&key(forward.protocol)) {
            return Some(was);
        }
        let other = match forward.protocol {
            Protocol::Tcp => Protocol::Udp,
            Protocol::Udp => Protocol::Tcp,
        };
        self.0.get(&key(other))?;
        if stay.contains(&(forward.name.as_str(), other)) {
            None
        } else {
            self.0.remove(&key(other))
        }
    }

    fn left(self) -> impl Iterator<Item = Vec<Forward>> {
        self.0.into_values()
    }
}

/// Returns the number of rules that only one of the two has.
fn distance(one: Option<&Vec<PlacedRule<'_>>>, other: Option<&Vec<PlacedRule<'_>>>) -> usize {
    let (one, other) = (
        one.map_or(&[][..], Vec::as_slice),
        other.map_or(&[][..], Vec::as_slice),
    );
    let missing = |from: &[PlacedRule<'_>], of: &[PlacedRule<'_>]| {
        from.iter().filter(|rule| !of.contains(rule)).count()
    };
    missing(one, other) + missing(other, one)
}

/// Removes each field change that is the same for every forward with the firewall's value, and returns it: it
/// is a change of the firewall.
fn of_all(changed: &mut [(&Forward, Vec<FieldChange>)], want: &ForwardSet) -> Vec<FieldChange> {
    let mut found = Vec::new();
    for field in SHARED {
        let follows = |forward: &Forward| field.usual(forward, want);
        let change_of = |changes: &[FieldChange]| {
            let mut each = changes.iter();
            each.find(|change| change.field == field.name()).cloned()
        };
        let mut alike = changed
            .iter()
            .filter(|(forward, _)| follows(forward))
            .map(|(_, changes)| change_of(changes));
        let Some(Some(first)) = alike.next() else {
            continue;
        };
        if alike.all(|change| change.as_ref() == Some(&first)) {
            for (forward, changes) in changed.iter_mut() {
                if follows(forward) {
                    changes.retain(|change| change.field != field.name());
                }
            }
            found.push(first);
        }
    }
    found
}

impl ForwardLine {
    /// Returns the key of the forward's rules.
    #[must_use]
    pub fn key(&self) -> Option<ForwardKey<'_>> {
        Some((self.name.as_str(), self.protocol.parse().ok()?))
    }

    fn of(row: &[Forward]) -> Self {
        let forward = &row[0];
        Self {
            name: forward.name.to_string(),
            kind: None,
            family: None,
            listen: listeners_of(row),
            protocol: forward.protocol.to_string(),
            target: reached_of(row),
            description: forward.description.as_ref().map(ToString::to_string),
        }
    }
}

impl From<&Outbound> for ForwardLine {
    fn from(entry: &Outbound) -> Self {
        Self {
            name: entry.name.to_string(),
            kind: Some(LineKind::Outbound),
            family: Some(entry.family),
            listen: fields::list_of_nets(&entry.allow_from),
            protocol: entry.protocol_words(),
            target: to_words(entry),
            description: entry.description.as_ref().map(ToString::to_string),
        }
    }
}

fn policy_change(have: &Ruleset, want: &ForwardSet, family: Family) -> Option<FieldChange> {
    let (policy, drops) = (have.forward_policy(), want.firewall.forward_policy);
    let sets = policy != Policy::Drop && drops == ForwardPolicy::Drop;
    let name = match family {
        Family::V4 => POLICY,
        Family::V6 => POLICY_V6,
    };
    sets.then(|| change(name, policy.as_str(), Policy::Drop.as_str()))?
}

/// Returns the change of the layout. All rules move to other chains then, but their effect is the same.
fn layout_change(held: &ForwardSet, want: &ForwardSet, family: Family) -> Option<FieldChange> {
    let [from, to] = [held, want].map(|set| layout(set, family).as_str());
    let name = match family {
        Family::V4 => LAYOUT,
        Family::V6 => LAYOUT_V6,
    };
    change(name, from, to)
}

/// Returns the change of the limit on segment sizes. Only rules of TCP connections say it.
fn mss_change(held: &ForwardSet, want: &ForwardSet, family: Family) -> Option<FieldChange> {
    let words = |set: &ForwardSet| {
        let mss = set.firewall.mss;
        mss.map_or("none".to_owned(), |mss| mss.to_string())
    };
    let both = held.has_tcp(family) && want.has_tcp(family);
    both.then(|| change(MSS, &words(held), &words(want)))?
}
