//! The foreign rules that a change takes out, for people and programs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::forwards::Name;
use crate::net::Family;
use crate::net::printable;
use crate::net::words::counted;
use crate::netfilter::names::TableName;
use crate::ops::adopt::AdoptedRule;
use crate::ops::records::KeptRule;

/// An adopted rule as JSON. docs/json.md documents the fields.
#[derive(Serialize)]
pub(super) struct JsonAdopted<'r> {
    family: Family,
    table: TableName,
    chain: &'r str,
    number: usize,
    rule: String,
    entries: Vec<&'r str>,
}

impl<'r> From<&'r AdoptedRule> for JsonAdopted<'r> {
    fn from(one: &'r AdoptedRule) -> Self {
        let AdoptedRule { kept, entries } = one;
        Self {
            family: kept.family,
            table: kept.table,
            chain: kept.chain.as_str(),
            number: kept.number,
            rule: kept.line(),
            entries: entries.iter().map(Name::as_str).collect(),
        }
    }
}

/// Lists the foreign rules that are about to go, each with the entries that say the same.
pub(super) fn shown(adopted: &[AdoptedRule], dry_run: bool) -> String {
    let mut out = String::new();
    if adopted.is_empty() {
        return out;
    }
    let count = counted(adopted.len(), "rule");
    let does = if dry_run { "would adopt" } else { "adopting" };
    let _ = writeln!(out, "{does} {count}, which the spec says now:");
    for AdoptedRule { kept, entries } in adopted {
        let KeptRule {
            family,
            table,
            chain,
            number,
            rule,
            ..
        } = kept;
        let names: Vec<&str> = entries.iter().map(Name::as_str).collect();
        let of = match names.as_slice() {
            [] => "replies".to_owned(),
            names => names.join(", "),
        };
        let family = match family {
            Family::V4 => "",
            Family::V6 => "IPv6 ",
        };
        let rule = printable::line(rule);
        let _ = writeln!(
            out,
            "  {family}{table} {chain} rule {number}, of {of}: {rule}"
        );
    }
    out
}
