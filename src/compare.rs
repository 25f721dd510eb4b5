//! Two rulesets by forward: what comes, goes and changes, and what no spec could have written.
//!
//! Foreign rules, counters, comments of the file and the order of tables do not count.

use std::collections::{BTreeMap, BTreeSet};

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
    let want_rules = plan(want);
    let differs = !diff::changes(have, &want_rules).is_empty();
    if !differs {
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
    let broken = comparison.compare_forwards(have, held.as_ref(), want);
    comparison.drift = drift(have, held.as_ref(), want, &broken);
    comparison.reordered = comparison.firewall.is_empty()
        && comparison.added.is_empty()
        && comparison.removed.is_empty()
        && comparison.changed.is_empty()
        && comparison.drift.is_empty();
    comparison
}

impl Comparison {
    /// Sorts the forwards into what comes, goes and changes. Gives the names of those whose rules
    /// are not what a forward has: they have drifted, not changed.
    fn compare_forwards(
        &mut self,
        have: &Ruleset,
        held: Option<&ForwardSet>,
        want: &ForwardSet,
    ) -> BTreeSet<String> {
        let by_name = |set: &ForwardSet| -> BTreeMap<String, Forward> {
            let forwards = set.forwards.iter().cloned();
            forwards
                .map(|forward| (forward.name.to_string(), forward))
                .collect()
        };
        // What a spec says is compared as its rules say it: `ilb` or `pod` is not in them.
        let wanted = by_name(want);
        let sound = held.map(plan).unwrap_or_default();
        let (have_rules, sound_rules) = (rules_by_name(have), rules_by_name(&sound));
        let held = held.map(by_name).unwrap_or_default();
        let mut broken = BTreeSet::new();
        for (name, rules) in &have_rules {
            if sound_rules.get(name) != Some(rules) {
                broken.insert((*name).to_owned());
            }
        }
        for forward in &want.forwards {
            let name = forward.name.as_str();
            match held.get(name) {
                _ if broken.contains(name) => {}
                None => self.added.push(ForwardLine::of(forward)),
                Some(old) => {
                    let changes = forward_changes(old, forward);
                    if !changes.is_empty() {
                        self.changed.push(ForwardChange {
                            name: name.to_owned(),
                            changes,
                        });
                    }
                }
            }
        }
        for (name, forward) in &held {
            if !wanted.contains_key(name) && !broken.contains(name) {
                self.removed.push(ForwardLine::of(forward));
            }
        }
        broken
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
        changes.extend(change(
            "FORWARD policy",
            policy.as_str(),
            Policy::Drop.as_str(),
        ));
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

/// Every rule of nvactl's chains by the forward it names, with its place.
fn rules_by_name(ruleset: &Ruleset) -> BTreeMap<&str, Vec<(TableName, &ChainName, &Rule)>> {
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

/// The lines in which `have` differs from what its own sound forwards, and the wanted form of its
/// broken ones, would plan.
fn drift(
    have: &Ruleset,
    held: Option<&ForwardSet>,
    want: &ForwardSet,
    broken: &BTreeSet<String>,
) -> Vec<Drift> {
    // Nothing of nvactl's is there: that is a first apply, not a drift.
    if have.chains().all(|(_, name, _)| !name.is_own()) {
        return Vec::new();
    }
    let mut sound = ForwardSet {
        firewall: held.map_or(&want.firewall, |held| &held.firewall).clone(),
        forwards: Vec::new(),
    };
    // Changes of the policy are the firewall's, above.
    sound.firewall.forward_policy = ForwardPolicy::Keep;
    let is_broken = |forward: &&Forward| broken.contains(forward.name.as_str());
    let held_sound = held.into_iter().flat_map(|held| &held.forwards);
    sound
        .forwards
        .extend(held_sound.filter(|f| !is_broken(f)).cloned());
    sound
        .forwards
        .extend(want.forwards.iter().filter(is_broken).cloned());

    let planned = plan(&sound);
    let lines = |ruleset: &Ruleset| -> BTreeMap<(TableName, String), Option<String>> {
        let own = diff::own(ruleset);
        let mut lines = BTreeMap::new();
        for (table, name, chain) in own.chains() {
            if name.is_own() {
                lines.insert((table, Line::Chain(name, None).to_string()), None);
            }
            for rule in &chain.rules {
                let line = Line::Append(name, rule).to_string();
                lines.insert((table, line), name_of(rule).map(str::to_owned));
            }
        }
        lines
    };
    let (have_lines, planned_lines) = (lines(have), lines(&planned));
    let drifted = |what, from: &BTreeMap<_, Option<String>>, than: &BTreeMap<_, _>| {
        let only = from.iter().filter(|(key, _)| !than.contains_key(*key));
        let drift = only.map(
            |((table, line), forward): (&(TableName, String), _)| Drift {
                what,
                table: table.as_str(),
                line: line.clone(),
                forward: forward.clone(),
            },
        );
        drift.collect::<Vec<_>>()
    };
    let mut found = drifted(DriftKind::PutIn, &have_lines, &planned_lines);
    found.extend(drifted(DriftKind::TakenOut, &planned_lines, &have_lines));
    found.extend(misplaced_jumps(have, &planned));
    found
}

/// Jumps that are there, but not first or more than once: a rule before one takes its packets.
fn misplaced_jumps(have: &Ruleset, planned: &Ruleset) -> Vec<Drift> {
    let mut found = Vec::new();
    for (table, name, chain) in planned.chains().filter(|(_, name, _)| name.is_builtin()) {
        let Some(jump) = chain.rules.first() else {
            continue;
        };
        let rules = have
            .chain(table, name)
            .map_or(&[][..], |chain| &chain.rules);
        let places = rules.iter().filter(|rule| *rule == jump).count();
        let in_front = rules.first().filter(|first| places > 0 && *first != jump);
        let twice = (places > 1).then_some(jump);
        let drift = |what, rule| Drift {
            what,
            table: table.as_str(),
            line: Line::Append(name, rule).to_string(),
            forward: None,
        };
        found.extend(in_front.map(|rule| drift(DriftKind::InFront, rule)));
        found.extend(twice.map(|rule| drift(DriftKind::PutIn, rule)));
    }
    found
}
