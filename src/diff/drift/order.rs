//! The order of outbound entries, which decides: the first entry that selects a connection accepts or drops it.

use std::collections::{BTreeMap, BTreeSet};

use super::fields::{FieldChange, change};
use crate::diff::edit;
use crate::forwards::Outbound;

/// The field name of an outbound entry's changed place among the others.
pub const ORDER: &str = "order";

/// Returns the entries whose place among the others changes: as few as possible.
#[must_use]
pub fn moved<'w>(held: &[Outbound], want: &'w [Outbound]) -> BTreeMap<&'w str, FieldChange> {
    let names = |entries: &'w [Outbound]| entries.iter().map(|one| one.name.as_str());
    let wanted: BTreeSet<&str> = names(want).collect();
    let before = held.iter().map(|one| one.name.as_str());
    let before: Vec<&str> = before.filter(|name| wanted.contains(name)).collect();
    let at: BTreeMap<&str, usize> = before.iter().copied().zip(0..).collect();
    let after: Vec<(&str, usize)> = names(want)
        .filter_map(|name| Some((name, *at.get(name)?)))
        .collect();
    let pairs: Vec<(usize, usize)> = after.iter().map(|(_, at)| *at).enumerate().collect();
    let kept: BTreeSet<usize> = edit::rising(&pairs).into_iter().map(|(to, _)| to).collect();
    let place = |behind: Option<&str>| match behind {
        Some(name) => format!("after {name}"),
        None => "first".to_owned(),
    };
    let change = |(to, (name, at)): (usize, &(&'w str, usize))| {
        let was = at.checked_sub(1).map(|at| before[at]);
        let is = to.checked_sub(1).map(|to| after[to].0);
        let change = change(ORDER, &place(was), &place(is))?;
        Some((*name, change))
    };
    let each = after
        .iter()
        .enumerate()
        .filter(|(to, _)| !kept.contains(to));
    each.filter_map(change).collect()
}
