//! A draft becomes a spec that `check` accepts.

use std::collections::BTreeSet;

use crate::forwards::{ForwardSet, Name};
use crate::import::{Draft, RuleFate};
use crate::yaml::{self, Comments, Problem, Severity, spec_text};

/// Takes the entries out of a draft that a spec cannot have, and says so in the accounts of their rules.
pub(super) fn check(draft: &mut Draft) {
    for name in names(&draft.set) {
        let alone = only(&draft.set, &[name.clone()].into());
        if let Some(problem) = first_error(&alone) {
            drop_entry(draft, &name, &problem);
        }
    }
    if first_error(&draft.set).is_none() {
        return;
    }
    // Entries that cannot stand beside one that comes first.
    let mut kept: BTreeSet<Name> = BTreeSet::new();
    for name in names(&draft.set) {
        kept.insert(name.clone());
        if let Some(problem) = first_error(&only(&draft.set, &kept)) {
            kept.remove(&name);
            drop_entry(draft, &name, &problem);
        }
    }
}

/// Returns the names of the entries, each once, in the order of the spec.
fn names(set: &ForwardSet) -> Vec<Name> {
    let mut seen = BTreeSet::new();
    let all = set.described().map(|(_, name, _)| name.clone());
    all.filter(|name| seen.insert(name.clone())).collect()
}

fn only(set: &ForwardSet, names: &BTreeSet<Name>) -> ForwardSet {
    let mut some = set.clone();
    some.forwards.retain(|one| names.contains(&one.name));
    some.outbound.retain(|one| names.contains(&one.name));
    some
}

fn first_error(set: &ForwardSet) -> Option<Problem> {
    let text = spec_text(set, &Comments::default());
    let problems = yaml::examine(text.as_bytes()).problems.into_iter();
    let mut errors = problems.filter(|one| one.severity() == Severity::Error);
    errors.next()
}

fn drop_entry(draft: &mut Draft, name: &Name, problem: &Problem) {
    draft.set.forwards.retain(|one| one.name != *name);
    draft.set.outbound.retain(|one| one.name != *name);
    draft.remarks.retain(|one| one.entry != *name);
    let why = problem.words().text;
    for account in &mut draft.accounts {
        let RuleFate::Taken { entries, .. } = &mut account.fate else {
            continue;
        };
        if entries.contains(name) {
            entries.retain(|one| one != name);
            if entries.is_empty() {
                account.fate = RuleFate::NotSaid(format!("a spec refuses it: {why}"));
            }
        }
    }
}
