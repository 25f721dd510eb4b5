//! Drift: lines of nvactl's part that no spec can have produced, and foreign rules before nvactl's jumps.

use std::collections::BTreeMap;

use serde::Serialize;

use super::placed::ChainOwners;
use crate::diff;
use crate::net::Family;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::rule::Stop;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::line::Line;
use crate::plan::unplan::name_of;

/// A line of nvactl's part that somebody else has added or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drift {
    pub what: DriftKind,
    pub family: Family,
    pub table: &'static str,
    /// As iptables-save prints it.
    pub line: String,
    /// The forward or outbound entry that the line belongs to, if there is one alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward: Option<String>,
    /// The forwards and outbound entries that share the line's chain, if several do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shared_by: Vec<String>,
    /// The effect of a rule before nvactl's jump that stops every packet.
    #[serde(skip)]
    pub stop: Option<Stop>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftKind {
    /// Added to nvactl's part.
    PutIn,
    /// Removed from nvactl's part.
    TakenOut,
    /// A foreign rule before nvactl's jump: it matches packets first.
    InFront,
}

impl Drift {
    /// Returns the forwards and outbound entries that the line belongs to.
    pub fn owners(&self) -> impl Iterator<Item = &String> {
        self.forward.iter().chain(&self.shared_by)
    }
}

/// Returns the lines in which nvactl's part of `have` differs from `planned`.
pub fn drift(have: &Ruleset, planned: &Ruleset, family: Family) -> Vec<Drift> {
    // If no chain of nvactl is loaded, the next apply is the first, and nothing has drifted.
    if have.chains().all(|(_, name, _)| !name.is_own()) {
        return Vec::new();
    }
    let (have_own, planned_own) = (diff::own(have), diff::own(planned));
    let (loaded, wanted) = (OwnLines::of(&have_own), OwnLines::of(&planned_own));
    let mut found = loaded.surplus(DriftKind::PutIn, &wanted, family);
    found.extend(wanted.surplus(DriftKind::TakenOut, &loaded, family));
    found.extend(in_front(have, planned, family));
    found
}

/// The lines that nvactl owns.
struct OwnLines<'r> {
    own: &'r Ruleset,
    lines: BTreeMap<(TableName, String), OwnLine<'r>>,
}

/// A line's chain, the forward that it names, and how often it occurs.
struct OwnLine<'r> {
    chain: &'r ChainName,
    name: Option<&'r str>,
    times: usize,
}

impl<'r> OwnLines<'r> {
    fn of(own: &'r Ruleset) -> Self {
        let mut lines = BTreeMap::new();
        for (table, chain, body) in own.chains() {
            let line = |name, times| OwnLine { chain, name, times };
            if chain.is_own() {
                let spelled = Line::Chain(chain, None).to_string();
                lines.insert((table, spelled), line(None, 1));
            }
            for rule in &body.rules {
                let spelled = Line::Append(chain, rule).to_string();
                let known = lines.entry((table, spelled));
                known.or_insert(line(name_of(rule), 0)).times += 1;
            }
        }
        Self { own, lines }
    }

    /// Returns the lines that occur more often here than in `others`.
    fn surplus(&self, what: DriftKind, others: &Self, family: Family) -> Vec<Drift> {
        let mut found = Vec::new();
        let mut owners: Option<ChainOwners<'_>> = None;
        for (key @ (table, line), here) in &self.lines {
            let there = others.lines.get(key).map_or(0, |line| line.times);
            if here.times <= there {
                continue;
            }
            let names: Vec<String> = match here.name {
                Some(name) => vec![name.to_owned()],
                None => {
                    let owners = owners.get_or_insert_with(|| ChainOwners::of(self.own));
                    let names = owners.owners(*table, here.chain);
                    names.into_iter().map(str::to_owned).collect()
                }
            };
            let (forward, shared_by) = match <[String; 1]>::try_from(names) {
                Ok([name]) => (Some(name), Vec::new()),
                Err(names) => (None, names),
            };
            let drift = Drift {
                what,
                family,
                table: table.as_str(),
                line: line.clone(),
                forward,
                shared_by,
                stop: None,
            };
            found.extend(vec![drift; here.times - there]);
        }
        found
    }
}

/// Returns the foreign rules before nvactl's jump. They match packets first.
fn in_front(have: &Ruleset, planned: &Ruleset, family: Family) -> Vec<Drift> {
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
            family,
            table: table.as_str(),
            line: Line::Append(name, rule).to_string(),
            forward: None,
            shared_by: Vec::new(),
            stop: rule.stop(),
        }));
    }
    found
}
