//! How each forward stands: whether its rules are loaded as the spec has them, what could take its
//! packets, and what came through.

mod prometheus;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::compare::{Comparison, Drift, DriftKind, FieldChange, PlacedRule, gone, rules_by_key};
use crate::counters::{Count, Counters};
use crate::flow::Flow;
use crate::listeners::Listeners;
use crate::net::Family;
use crate::network::Links;
use crate::plan::{Hook, accept_known};
use crate::rule::Rule;
use crate::ruleset::{ChainName, Ruleset, TableName};
use crate::shadow::{Shadow, inside, shadows};
use crate::spec::ForwardSet;
use crate::unplan::{Key, plan_as, replanned};

/// All that `nvactl status` tells; README documents the fields.
#[derive(Debug, PartialEq, Serialize)]
pub struct Status {
    /// Whether the live rules are what the spec says, and nothing takes the packets of a forward.
    pub in_sync: bool,
    /// Of IPv4.
    #[serde(flatten)]
    pub machine: Machine,
    /// Where IPv6 is touched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Machine>,
    /// A change that waits for its confirmation, in words.
    pub pending: Option<String>,
    pub conntrack: Option<Tracked>,
    /// What went through the rule for known connections, of all forwards together.
    pub established: Count,
    pub forwards: Vec<Row>,
    /// What is loaded for all forwards and is not as the spec has it: the FORWARD policy, for one.
    pub firewall: Vec<FieldChange>,
    pub drift: Vec<Drift>,
    pub in_the_way: Vec<InTheWay>,
}

/// How the machine treats the packets of one family.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    pub backend: String,
    pub forward_policy: &'static str,
    /// Whether the kernel forwards them.
    pub ip_forward: bool,
    pub at_boot: AtBoot,
}

/// What the next boot will bring.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct AtBoot {
    #[serde(skip)]
    pub rules_file: &'static str,
    pub rules: RulesFile,
    /// Why iptables-restore does not load the rules file, in words.
    pub refused: Option<String>,
    /// Whether, and by what, the rules file is loaded, in words.
    pub loaded: &'static str,
    /// The value that the sysctl files set; none sets it where there is none.
    pub ip_forward: Option<bool>,
    /// The line that decides, as `file:line`.
    pub ip_forward_by: Option<String>,
}

/// How nvactl's rules in the file for the boot compare with those that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RulesFile {
    Same,
    Different,
    Missing,
    /// It may not be read, or says something that nvactl does not read and cannot try.
    Unreadable,
    /// iptables-restore does not load it.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tracked {
    pub entries: u64,
    pub limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    InSync,
    Missing,
    Drifted,
    Shadowed,
    /// It is loaded, but the spec does not have it.
    Surplus,
}

impl State {
    pub const ALL: [State; 5] = [
        State::InSync,
        State::Missing,
        State::Drifted,
        State::Shadowed,
        State::Surplus,
    ];

    /// As reports for programs name it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            State::InSync => "in_sync",
            State::Missing => "missing",
            State::Drifted => "drifted",
            State::Shadowed => "shadowed",
            State::Surplus => "surplus",
        }
    }
}

/// One forward.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    pub name: String,
    pub protocol: &'static str,
    pub listen: String,
    pub target: String,
    pub state: State,
    /// The foreign rule that takes its packets.
    pub shadowed_by: Option<String>,
    /// First packets of connections, since the forward's rules were loaded.
    pub new: Count,
    /// First packets that the forward's lists and limits have turned away since then.
    pub refused: Count,
    /// Connections that the kernel tracks now, if that is known.
    pub connections: Option<usize>,
}

/// A foreign rule that takes packets of forwards, or may.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct InTheWay {
    pub family: Family,
    pub table: &'static str,
    pub line: String,
    pub does: &'static str,
    /// Whether it takes every packet of these forwards.
    pub certain: bool,
    pub program: Option<&'static str>,
    /// Whether applying again is enough, which puts nvactl's jump before it, or takes it out.
    pub jump_first: bool,
    /// Whether it stands in a chain of nvactl's, which applying takes it out of.
    #[serde(skip)]
    pub inside: bool,
    pub removal: String,
    pub forwards: Vec<String>,
}

/// What is live.
#[derive(Debug)]
pub struct Live<'l> {
    pub ruleset: &'l Ruleset,
    pub counters: &'l Counters,
    /// `None` where they cannot be listed.
    pub flows: Option<&'l [Flow]>,
    /// The interfaces, with the addresses where clients come in.
    pub links: &'l Links,
}

/// A row for each forward of the spec, then one for each that is loaded without being in it; and
/// the rules that stand in their way. `comparison` is of what is live with the spec.
#[must_use]
pub fn rows(
    live: &Live<'_>,
    set: &ForwardSet,
    family: Family,
    comparison: &Comparison,
) -> (Vec<Row>, Vec<InTheWay>) {
    let planned = plan_as(live.ruleset, set, family);
    let (want, have) = (rules_by_key(&planned), rules_by_key(live.ruleset));
    let new = live.counters.new_connections(live.ruleset);
    let count = |key| new.get(&key).copied().unwrap_or_default();
    let refused = live.counters.refused(live.ruleset);
    let refused = |key| refused.get(&key).copied().unwrap_or_default();
    let listeners = Listeners::new(set);
    let mut connections: BTreeMap<Key<'_>, usize> = BTreeMap::new();
    let alive = live.flows.unwrap_or_default().iter();
    for flow in alive.filter(|flow| !flow.finished) {
        if let Some(forward) = flow.leader(&listeners) {
            let key = (forward.name.as_str(), forward.protocol);
            *connections.entry(key).or_default() += 1;
        }
    }
    let tampered = comparison
        .drift
        .iter()
        .any(|drift| drift.what == DriftKind::PutIn);
    let replanned = replanned(live.ruleset, family);
    let gone = gone(live.ruleset, &replanned);
    let replies_gone = gone.iter().any(|place| *place.rule == accept_known());
    let cut_off = reached(&replanned, gone.iter().copied());
    let is_cut_off = |places: Option<&Vec<PlacedRule<'_>>>| {
        let mut places = places.into_iter().flatten();
        places.any(|place| cut_off.contains(place.chain))
    };
    let changed = changed_chains(live.ruleset, &planned);
    let (mut rows, mut in_the_way) = (
        Vec::new(),
        Found {
            family,
            rules: Vec::new(),
            places: BTreeMap::new(),
        },
    );
    let mine = set.forwards.iter();
    for forward in mine.filter(|forward| forward.family() == family) {
        let name = forward.name.as_str();
        let key = (name, forward.protocol);
        let mut shadows = shadows(live.ruleset, forward, live.links);
        // Where nvactl's own jump is missing, the policy is no foreign rule.
        shadows.retain(|shadow| !shadow.is_forward_policy());
        if tampered {
            shadows.extend(inside(live.ruleset, &planned, forward, live.links));
        }
        let certain = shadows.iter().find(|shadow| shadow.certain);
        let state = match (have.get(&key), want.get(&key)) {
            (None, _) => State::Missing,
            (have, want) if have != want || replies_gone => State::Drifted,
            (have, _) if is_cut_off(have) => State::Drifted,
            (have, _) if leads_to_any(have, &planned, &changed) => State::Drifted,
            _ if certain.is_some() => State::Shadowed,
            _ => State::InSync,
        };
        rows.push(Row {
            name: name.to_owned(),
            protocol: forward.protocol.as_str(),
            listen: forward.listen.to_string(),
            target: forward.reaches(),
            state,
            shadowed_by: certain.map(Shadow::line),
            new: count(key),
            refused: refused(key),
            connections: live
                .flows
                .map(|_| connections.get(&key).copied().unwrap_or_default()),
        });
        for shadow in &shadows {
            in_the_way.add(shadow, name);
        }
    }
    for removed in &comparison.removed {
        rows.push(Row {
            state: State::Surplus,
            shadowed_by: None,
            new: removed.key().map_or_else(Count::default, count),
            refused: removed.key().map_or_else(Count::default, refused),
            connections: None,
            name: removed.name.clone(),
            protocol: removed.protocol,
            listen: removed.listen.clone(),
            target: removed.target.clone(),
        });
    }
    (rows, in_the_way.rules)
}

/// The chains of lists and logs that somebody has changed.
fn changed_chains<'p>(live: &Ruleset, planned: &'p Ruleset) -> BTreeSet<&'p ChainName> {
    let own = planned.chains().filter(|(_, name, _)| name.is_own());
    let changed = own.filter(|(table, name, chain)| {
        Hook::of(name).is_none() && live.chain(*table, name) != Some(chain)
    });
    changed.map(|(_, name, _)| name).collect()
}

/// The chains of a tree that these rules lead to, and those behind.
fn reached<'p>(
    planned: &'p Ruleset,
    rules: impl Iterator<Item = PlacedRule<'p>>,
) -> BTreeSet<&'p ChainName> {
    let leads = |place: PlacedRule<'p>| Some((place.table, place.rule.leads_to()?));
    let mut next: Vec<(TableName, &ChainName)> = rules.filter_map(leads).collect();
    let mut reached = BTreeSet::new();
    while let Some((table, name)) = next.pop() {
        if Hook::of(name).is_some() && reached.insert(name) {
            let rules = planned
                .chain(table, name)
                .map_or(&[][..], |chain| &chain.rules);
            next.extend(
                rules
                    .iter()
                    .filter_map(|rule| Some((table, rule.leads_to()?))),
            );
        }
    }
    reached
}

/// Whether a forward's rules lead to one of these chains, by whatever others.
fn leads_to_any(
    places: Option<&Vec<PlacedRule<'_>>>,
    planned: &Ruleset,
    chains: &BTreeSet<&ChainName>,
) -> bool {
    if chains.is_empty() {
        return false;
    }
    let rules = places.into_iter().flatten().map(|place| place.rule);
    let mut next: Vec<&ChainName> = rules.filter_map(Rule::leads_to).collect();
    let mut seen = BTreeSet::new();
    while let Some(name) = next.pop() {
        if chains.contains(name) {
            return true;
        }
        if seen.insert(name) {
            let chain = planned.chain(TableName::Filter, name);
            next.extend(
                chain
                    .into_iter()
                    .flat_map(|chain| &chain.rules)
                    .filter_map(Rule::leads_to),
            );
        }
    }
    false
}

/// The foreign rules found so far, each once.
struct Found<'r> {
    family: Family,
    rules: Vec<InTheWay>,
    /// Where a rule, or a chain's policy, stands among them.
    places: BTreeMap<(TableName, &'r ChainName, Option<*const Rule>), usize>,
}

impl<'r> Found<'r> {
    fn add(&mut self, shadow: &Shadow<'r>, forward: &str) {
        let key = (
            shadow.table,
            shadow.chain,
            shadow.rule.map(std::ptr::from_ref),
        );
        let place = *self.places.entry(key).or_insert(self.rules.len());
        if place == self.rules.len() {
            self.rules.push(InTheWay {
                family: self.family,
                table: shadow.table.as_str(),
                line: shadow.line(),
                does: shadow.does(),
                certain: shadow.certain,
                program: shadow.program(),
                jump_first: shadow.ends_with_the_jump_first(),
                inside: shadow.chain.is_own(),
                removal: shadow.removal(self.family),
                forwards: Vec::new(),
            });
        }
        let rule = &mut self.rules[place];
        rule.certain &= shadow.certain;
        // Its first packets and its replies may be taken by the same one.
        if rule.forwards.last().is_none_or(|last| last != forward) {
            rule.forwards.push(forward.to_owned());
        }
    }
}

/// Whether all is as the spec has it; what of it is not, for all forwards together; and the lines
/// of nvactl's that somebody has put in or taken out.
#[must_use]
pub fn drift(comparison: Comparison, rows: &[Row]) -> (bool, Vec<FieldChange>, Vec<Drift>) {
    let rows = rows.iter().all(|row| row.state == State::InSync);
    let mut drift = comparison.drift;
    // What only stands in front is told of where it takes packets.
    drift.retain(|drift| drift.what != DriftKind::InFront);
    let mut firewall = comparison.firewall;
    if comparison.reordered {
        firewall.push(FieldChange {
            field: "order",
            from: "another".to_owned(),
            to: "the spec's".to_owned(),
        });
    }
    (
        rows && drift.is_empty() && firewall.is_empty(),
        firewall,
        drift,
    )
}
