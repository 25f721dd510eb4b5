//! Two rulesets by forward: what comes, goes and changes, and what no spec could have written.
//!
//! Foreign rules, counters, comments of the file and the order of tables do not count.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::diff;
use crate::line::Line;
use crate::plan::plan;
use crate::rule::Rule;
use crate::ruleset::{ChainName, Policy, Ruleset, TableName};
use crate::spec::{Firewall, Forward, ForwardPolicy, ForwardSet, Snat, TargetPorts};
use crate::unplan::{name_of, unplan};

/// What leads from one ruleset to another; README documents the fields.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Whether nothing at all is different.
    pub same: bool,
    pub firewall: Vec<FieldChange>,
    pub added: Vec<ForwardLine>,
    pub removed: Vec<ForwardLine>,
    pub changed: Vec<ForwardChange>,
    pub drift: Vec<Drift>,
    /// The same rules, in another order.
    pub reordered: bool,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    pub field: &'static str,
    pub from: String,
    pub to: String,
}

/// A forward in a few words.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct ForwardLine {
    pub name: String,
    pub listen: String,
    pub protocol: &'static str,
    pub target: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct ForwardChange {
    pub name: String,
    pub changes: Vec<FieldChange>,
}

/// A line of nvactl's that somebody else has put in or taken out.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Drift {
    pub what: DriftKind,
    pub table: &'static str,
    /// As iptables-save prints it.
    pub line: String,
    /// The forward that the line belongs to, if it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward: Option<String>,
}

impl Drift {
    /// Whether it is a rule of nvactl's own chains, and not a chain or a jump.
    #[must_use]
    pub fn is_rule(&self) -> bool {
        let mut words = self.line.split_ascii_whitespace().skip(1);
        let chain = words.next().map(ChainName::from);
        chain.is_some_and(|chain| chain.is_own()) && !self.line.starts_with(':')
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftKind {
    PutIn,
    TakenOut,
    /// Somebody else's, in front of nvactl's jump: it sees the packets first.
    InFront,
}

/// Compares `have`, a whole ruleset, with what `want` plans.
#[must_use]
pub fn compare(have: &Ruleset, want: &ForwardSet) -> Comparison {
    if diff::changes(have, &plan(want)).is_empty() {
        return Comparison {
            same: true,
            ..Comparison::default()
        };
    }
    let held = unplan(have);
    let mut comparison = Comparison {
        firewall: firewall_changes(have, held.as_ref(), want),
        ..Comparison::default()
    };
    let expected = comparison.compare_forwards(have, held.as_ref(), want);
    comparison.drift = drift(have, &expected);
    let in_front = |drift: &Drift| drift.what == DriftKind::InFront;
    comparison.reordered = comparison.firewall.is_empty()
        && comparison.added.is_empty()
        && comparison.removed.is_empty()
        && comparison.changed.is_empty()
        && comparison.drift.iter().all(in_front)
        && !diff::holds_the_same(have, &plan(want), false);
    comparison
}

/// Compares two specs: as [`compare`] does, and in what only a spec says of the FORWARD policy.
#[must_use]
pub fn compare_specs(old: &ForwardSet, new: &ForwardSet) -> Comparison {
    let mut comparison = compare(&plan(old).with_builtin_chains(), new);
    let word = |set: &ForwardSet| match set.firewall.forward_policy {
        ForwardPolicy::Drop => "drop",
        ForwardPolicy::Keep => "keep",
    };
    if let Some(change) = change("forward_policy", word(old), word(new)) {
        comparison.firewall.retain(|change| change.field != POLICY);
        comparison.firewall.push(change);
        comparison.same = false;
        comparison.reordered = false;
    }
    comparison
}

/// How a change of the FORWARD policy is named.
pub const POLICY: &str = "FORWARD policy";

impl Comparison {
    /// Sorts the forwards into what comes, goes and changes. Gives the forwards that `have` would
    /// hold if nobody had tampered with its rules.
    fn compare_forwards(
        &mut self,
        have: &Ruleset,
        held: Option<&ForwardSet>,
        want: &ForwardSet,
    ) -> ForwardSet {
        let have_rules = rules_by_name(have);
        let firewall = held.map_or(&want.firewall, |held| &held.firewall);
        let mut expected = ForwardSet {
            firewall: firewall.clone(),
            forwards: Vec::new(),
        };
        // Changes of the policy are the firewall's.
        expected.firewall.forward_policy = ForwardPolicy::Keep;

        let planned = |forwards: &[Forward]| {
            let mut set = expected.clone();
            set.forwards = forwards.to_vec();
            plan(&set)
        };
        let held_forwards = held.map_or(&[][..], |held| &held.forwards);
        let (held_plan, want_plan) = (planned(held_forwards), planned(&want.forwards));
        let (held_rules, want_rules) = (rules_by_name(&held_plan), rules_by_name(&want_plan));
        // How many of a forward's rules are as they would be if it were this one.
        let agreement = |name: &str, rules: &BTreeMap<&str, Vec<Place<'_>>>| {
            let (have, rules) = (have_rules.get(name), rules.get(name));
            let both = have.zip(rules);
            both.map_or(0, |(have, rules)| {
                rules.iter().filter(|rule| have.contains(rule)).count()
            })
        };
        let held_forwards = held_forwards.iter().cloned();
        let mut old: BTreeMap<String, Forward> = held_forwards
            .map(|forward| (forward.name.to_string(), forward))
            .collect();
        for forward in &want.forwards {
            let name = forward.name.as_str();
            let tampered =
                have_rules.contains_key(name) && have_rules.get(name) != held_rules.get(name);
            let was = old.remove(name);
            // Rules that somebody has tampered with are those of the spec, or of what was loaded
            // before it changed: whichever more of them still agree with.
            let was = match was {
                _ if tampered && agreement(name, &want_rules) > agreement(name, &held_rules) => {
                    Some(forward.clone())
                }
                was => was,
            };
            match was {
                None if tampered => {}
                None => self.added.push(ForwardLine::of(forward)),
                Some(was) => {
                    let changes = forward_changes(&was, forward);
                    if !changes.is_empty() {
                        self.changed.push(ForwardChange {
                            name: name.to_owned(),
                            changes,
                        });
                    }
                    expected.forwards.push(was);
                }
            }
        }
        for forward in old.into_values() {
            self.removed.push(ForwardLine::of(&forward));
            expected.forwards.push(forward);
        }
        expected
    }
}

impl ForwardLine {
    fn of(forward: &Forward) -> Self {
        Self {
            name: forward.name.to_string(),
            listen: forward.listen.to_string(),
            protocol: forward.protocol.as_str(),
            target: reached(forward),
        }
    }
}

/// Where packets go, with the ports even where the spec leaves them to the listener.
fn reached(forward: &Forward) -> String {
    format!("{}:{}", forward.target.address, forward.ports_behind())
}

fn forward_changes(old: &Forward, new: &Forward) -> Vec<FieldChange> {
    let kept = |forward: &Forward| match forward.target.ports {
        TargetPorts::Kept => forward.ports_behind(),
        TargetPorts::Range(ports) => ports,
    };
    let mut changes = Vec::new();
    changes.extend(change(
        "listen",
        &old.listen.to_string(),
        &new.listen.to_string(),
    ));
    changes.extend(change(
        "protocol",
        old.protocol.as_str(),
        new.protocol.as_str(),
    ));
    if old.target.address != new.target.address || kept(old) != kept(new) {
        changes.extend(change("target", &reached(old), &reached(new)));
    }
    changes
}

fn firewall_changes(
    have: &Ruleset,
    held: Option<&ForwardSet>,
    want: &ForwardSet,
) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    if let Some(ForwardSet { firewall: old, .. }) = held {
        let new = &want.firewall;
        let snat = |firewall: &Firewall| match firewall.snat {
            Snat::Address(address) => address.to_string(),
            Snat::Masquerade => "masquerade".to_owned(),
        };
        changes.extend(change(
            "ingress",
            old.ingress.as_str(),
            new.ingress.as_str(),
        ));
        changes.extend(change("egress", old.egress.as_str(), new.egress.as_str()));
        changes.extend(change("snat", &snat(old), &snat(new)));
    }
    let (policy, drops) = (have.forward_policy(), want.firewall.forward_policy);
    if policy != Policy::Drop && drops == ForwardPolicy::Drop {
        changes.extend(change(POLICY, policy.as_str(), Policy::Drop.as_str()));
    }
    changes
}

fn change(field: &'static str, from: &str, to: &str) -> Option<FieldChange> {
    (from != to).then(|| FieldChange {
        field,
        from: from.to_owned(),
        to: to.to_owned(),
    })
}

/// A rule and where it stands.
pub type Place<'r> = (TableName, &'r ChainName, &'r Rule);

/// Every rule of nvactl's chains by the forward it names.
#[must_use]
pub fn rules_by_name(ruleset: &Ruleset) -> BTreeMap<&str, Vec<Place<'_>>> {
    let mut by_name: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for (table, chain, body) in ruleset.chains().filter(|(_, name, _)| name.is_own()) {
        for rule in &body.rules {
            if let Some(name) = name_of(rule) {
                by_name.entry(name).or_default().push((table, chain, rule));
            }
        }
    }
    by_name
}

/// The lines in which nvactl's part of `have` differs from the plan of `expected`.
fn drift(have: &Ruleset, expected: &ForwardSet) -> Vec<Drift> {
    // Nothing of nvactl's is there: that is a first apply, not a drift.
    if have.chains().all(|(_, name, _)| !name.is_own()) {
        return Vec::new();
    }
    let planned = plan(expected);
    let (have_lines, planned_lines) = (counted_lines(have), counted_lines(&planned));
    let mut found = surplus(DriftKind::PutIn, &have_lines, &planned_lines);
    found.extend(surplus(DriftKind::TakenOut, &planned_lines, &have_lines));
    found.extend(in_front(have, &planned));
    found
}

/// Each line of what nvactl owns, with the forward that it names, and how often it stands there.
type Lines = BTreeMap<(TableName, String), (Option<String>, usize)>;

fn counted_lines(ruleset: &Ruleset) -> Lines {
    let own = diff::own(ruleset);
    let mut lines = Lines::new();
    for (table, name, chain) in own.chains() {
        if name.is_own() {
            lines.insert((table, Line::Chain(name, None).to_string()), (None, 1));
        }
        for rule in &chain.rules {
            let forward = name_of(rule).map(str::to_owned);
            let line = Line::Append(name, rule).to_string();
            lines.entry((table, line)).or_insert((forward, 0)).1 += 1;
        }
    }
    lines
}

/// What the first has more of than the second.
fn surplus(what: DriftKind, lines: &Lines, others: &Lines) -> Vec<Drift> {
    let mut found = Vec::new();
    for (key @ (table, line), (forward, times)) in lines {
        let others = others.get(key).map_or(0, |(_, times)| *times);
        for _ in others..*times {
            found.push(Drift {
                what,
                table: table.as_str(),
                line: line.clone(),
                forward: forward.clone(),
            });
        }
    }
    found
}

/// Rules before nvactl's jump, which see the packets first.
fn in_front(have: &Ruleset, planned: &Ruleset) -> Vec<Drift> {
    let mut found = Vec::new();
    for (table, name, chain) in planned.chains().filter(|(_, name, _)| name.is_builtin()) {
        let rules = have
            .chain(table, name)
            .map_or(&[][..], |chain| &chain.rules);
        let jump = rules
            .iter()
            .position(|rule| chain.rules.first() == Some(rule));
        found.extend(rules[..jump.unwrap_or(0)].iter().map(|rule| Drift {
            what: DriftKind::InFront,
            table: table.as_str(),
            line: Line::Append(name, rule).to_string(),
            forward: None,
        }));
    }
    found
}
