//! A draft becomes a spec that `check` accepts.

use std::collections::{BTreeMap, BTreeSet};

use crate::forwards::{ForwardSet, Name};
use crate::import::{Draft, RuleFate};
use crate::yaml::{self, Comments, Severity, spec_text};

/// The most entries that are taken out one by one since they cannot stand beside others. Each takes several readings of the
/// spec.
const MOST_CONFLICTS: usize = 100;

/// Takes the entries out of a draft that a spec cannot have, and says so in the accounts of their rules.
pub(super) fn check(draft: &mut Draft) {
    if first_error(&draft.set).is_none() {
        return;
    }
    let mut refused = Refused {
        entries: EntriesByName::of(&draft.set),
        why: BTreeMap::new(),
    };
    let names = names(&draft.set);
    refused.find_alone(&names);
    let names: Vec<Name> = names
        .into_iter()
        .filter(|name| !refused.why.contains_key(name))
        .collect();
    refused.find_beside(&mut BTreeSet::new(), &names);
    let why = refused.why;
    drop_entries(draft, &why);
}

/// The entries that a spec refuses, each with the words of the error.
struct Refused<'d> {
    entries: EntriesByName<'d>,
    why: BTreeMap<Name, String>,
}

impl Refused<'_> {
    /// Finds the entries that a spec refuses even alone. Some without an error are read once.
    fn find_alone(&mut self, some: &[Name]) {
        let Some(error) = self.error_of(some.iter()) else {
            return;
        };
        match some {
            [] => {}
            [one] => {
                self.why.insert(one.clone(), error);
            }
            _ => {
                let (first, second) = some.split_at(some.len() / 2);
                self.find_alone(first);
                self.find_alone(second);
            }
        }
    }

    /// Finds the entries that cannot stand beside those before them. The others are added to `kept`.
    fn find_beside(&mut self, kept: &mut BTreeSet<Name>, some: &[Name]) {
        let Some(error) = self.error_of(kept.iter().chain(some)) else {
            kept.extend(some.iter().cloned());
            return;
        };
        if some.len() > 1 && self.why.len() < MOST_CONFLICTS {
            let (first, second) = some.split_at(some.len() / 2);
            self.find_beside(kept, first);
            self.find_beside(kept, second);
            return;
        }
        let why = match some {
            [_] => error,
            _ => format!("{error} (in this entry, or in one beside it)"),
        };
        self.why
            .extend(some.iter().map(|name| (name.clone(), why.clone())));
    }

    fn error_of<'n>(&self, names: impl Iterator<Item = &'n Name>) -> Option<String> {
        first_error(&self.entries.only(names))
    }
}

/// The forwards and outbound entries of a set by name.
struct EntriesByName<'d> {
    set: &'d ForwardSet,
    forwards: BTreeMap<&'d Name, Vec<usize>>,
    outbound: BTreeMap<&'d Name, Vec<usize>>,
}

impl<'d> EntriesByName<'d> {
    fn of(set: &'d ForwardSet) -> Self {
        let mut entries = Self {
            set,
            forwards: BTreeMap::new(),
            outbound: BTreeMap::new(),
        };
        for (at, one) in set.forwards.iter().enumerate() {
            entries.forwards.entry(&one.name).or_default().push(at);
        }
        for (at, one) in set.outbound.iter().enumerate() {
            entries.outbound.entry(&one.name).or_default().push(at);
        }
        entries
    }

    /// Returns the set with the entries of some names only, in its order.
    fn only<'n>(&self, names: impl Iterator<Item = &'n Name>) -> ForwardSet {
        let (mut forwards, mut outbound) = (BTreeSet::new(), BTreeSet::new());
        for name in names {
            forwards.extend(self.forwards.get(name).into_iter().flatten());
            outbound.extend(self.outbound.get(name).into_iter().flatten());
        }
        let forwards = forwards.into_iter();
        let outbound = outbound.into_iter();
        ForwardSet {
            description: self.set.description.clone(),
            firewall: self.set.firewall.clone(),
            forwards: forwards
                .map(|at: usize| self.set.forwards[at].clone())
                .collect(),
            outbound: outbound
                .map(|at: usize| self.set.outbound[at].clone())
                .collect(),
            tests: self.set.tests.clone(),
        }
    }
}

/// Returns the names of the entries, each once, in the order of the spec.
fn names(set: &ForwardSet) -> Vec<Name> {
    let mut seen = BTreeSet::new();
    let all = set.described().map(|(_, name, _)| name.clone());
    all.filter(|name| seen.insert(name.clone())).collect()
}

/// Returns the words of the first error of a spec.
fn first_error(set: &ForwardSet) -> Option<String> {
    let text = spec_text(set, &Comments::default());
    let problems = yaml::examine(text.as_bytes()).problems.into_iter();
    let mut errors = problems.filter(|one| one.severity() == Severity::Error);
    errors.next().map(|problem| problem.words().text)
}

fn drop_entries(draft: &mut Draft, refused: &BTreeMap<Name, String>) {
    draft
        .set
        .forwards
        .retain(|one| !refused.contains_key(&one.name));
    draft
        .set
        .outbound
        .retain(|one| !refused.contains_key(&one.name));
    draft
        .remarks
        .retain(|one| !refused.contains_key(&one.entry));
    for account in &mut draft.accounts {
        let RuleFate::Taken { entries, .. } = &mut account.fate else {
            continue;
        };
        let last = entries.iter().rev().find_map(|name| refused.get(name));
        let Some(why) = last else {
            continue;
        };
        entries.retain(|name| !refused.contains_key(name));
        if entries.is_empty() {
            account.fate = RuleFate::NotSaid(format!("a spec refuses it: {why}"));
        }
    }
}
