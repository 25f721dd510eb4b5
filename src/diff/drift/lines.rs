//! Drift: lines of nvactl's part that no spec can have produced, and foreign rules before nvactl's jumps.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::diff;
use crate::net::Family;
use crate::netfilter::names::TableName;
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
    /// The forward that the line belongs to, if it names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward: Option<String>,
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

/// Returns the lines in which nvactl's part of `have` differs from `planned`.
pub fn drift(have: &Ruleset, planned: &Ruleset, family: Family) -> Vec<Drift> {
    // If no chain of nvactl is loaded, the next apply is the first, and nothing has drifted.
    if have.chains().all(|(_, name, _)| !name.is_own()) {
        return Vec::new();
    }
    let (have_lines, planned_lines) = (counted_lines(have), counted_lines(planned));
    let mut found = surplus(DriftKind::PutIn, &have_lines, &planned_lines, family);
    found.extend(surplus(
        DriftKind::TakenOut,
        &planned_lines,
        &have_lines,
        family,
    ));
    found.extend(in_front(have, planned, family));
    found
}

/// Each line that nvactl owns, with the forward that it names and the number of its occurrences.
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

/// Returns the lines that occur more often in the first than in the second.
fn surplus(what: DriftKind, lines: &Lines, others: &Lines, family: Family) -> Vec<Drift> {
    let mut found = Vec::new();
    for (key @ (table, line), (forward, times)) in lines {
        let others = others.get(key).map_or(0, |(_, times)| *times);
        for _ in others..*times {
            found.push(Drift {
                what,
                family,
                table: table.as_str(),
                line: line.clone(),
                forward: forward.clone(),
                stop: None,
            });
        }
    }
    found
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
            stop: rule.stop(),
        }));
    }
    found
}
