//! A spec from iptables rules that exist already.
//!
//! Rules in, a [`Draft`] out: forwards and outbound entries that say what the rules do, and an account of each rule. The
//! draft is not checked: `yaml` writes it, reads it back and reports its problems.
//!
//! ```text
//! rules ─walk─▶ rules a packet can meet ─redirect, shares─▶ listeners and targets
//!                    └─admission (FORWARD), origin (POSTROUTING)─▶ forwards
//!                    └─outward (POSTROUTING, FORWARD)───────────▶ outbound entries
//! ```
//!
//! The reading follows the kernel's order: the first rule that decides counts. A condition that a spec has no words for
//! makes its rule "cannot be said". The room must not know YAML or the machine.

mod account;
mod addresses;
mod admission;
mod after;
mod before;
mod clients;
mod conditions;
mod earlier;
mod egress;
mod exceptions;
mod family;
mod firewall;
mod limits;
mod lookup;
mod met_rules;
mod names;
mod origin;
mod others;
mod outward;
mod outward_accept;
mod passing;
mod place;
mod prerouting;
mod redirect;
mod redirected;
mod remark;
mod rest;
mod shares;
mod sides;
mod taken;
mod treated;
mod treatment;
mod verdict;
mod walk;

pub use account::{Account, Part, Remarked, RuleFate};
pub use after::after;
pub use place::ImportedPlace;
pub use remark::{Beyond, ImportRemark};
pub use sides::KnownRoutes;

use std::collections::BTreeMap;

use family::OfFamily;
use names::EntryNames;

use crate::forwards::{Forward, ForwardSet, Layout, Name, Outbound, TargetKind};
use crate::net::Family;
use crate::netfilter::programs::is_of_shorewall;
use crate::netfilter::ruleset::Ruleset;
use crate::plan::plan;
use crate::plan::unplan::unplan;

/// A note on rules that come back after they were taken out.
const OF_SHOREWALL: &str = "Shorewall loads these rules again whenever it starts, so `nvactl apply --adopt` leaves \
                            them: delete their lines in its own files.";

/// A spec that rules became, and the account of each rule.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Not checked: forwards may break rules of a spec.
    pub set: ForwardSet,
    /// One for each rule, in the order of the families, tables and chains.
    pub accounts: Vec<Account>,
    pub remarks: Vec<Remarked>,
    /// The facts about the whole spec, in words: assumptions, and the FORWARD policy.
    pub notes: Vec<String>,
}

impl Draft {
    /// Returns the remarks on a forward or an outbound entry.
    pub fn remarks_on<'d>(&'d self, entry: &'d Name) -> impl Iterator<Item = &'d Remarked> {
        self.remarks.iter().filter(move |one| one.entry == *entry)
    }
}

/// Reads rules of one family or both. `routes` are those of the machine; without them the rules alone say which
/// interface leads where.
#[must_use]
pub fn import(rules: &[(Family, Ruleset)], routes: &KnownRoutes) -> Draft {
    let own: Vec<Option<ForwardSet>> = rules.iter().map(|(_, rules)| unplan(rules)).collect();
    let mut names = EntryNames::default();
    for set in own.iter().flatten() {
        for (_, name, _) in set.described() {
            names.take(name);
        }
    }
    let read: Vec<OfFamily> = rules
        .iter()
        .map(|(family, rules)| family::read(*family, rules, routes, &mut names))
        .collect();
    let mut notes = Vec::new();
    let firewall = firewall::firewall(rules, &own, &read, routes, &mut notes);
    let mut set = ForwardSet {
        description: None,
        firewall,
        forwards: Vec::new(),
        outbound: Vec::new(),
        tests: Vec::new(),
    };
    let (mut accounts, mut remarks) = (Vec::new(), Vec::new());
    for (own, one) in own.into_iter().zip(read) {
        if let Some(own) = own {
            let forwards = own.forwards.into_iter().map(with_kind);
            set.forwards.extend(together(forwards.collect()));
            set.outbound = beside(set.outbound, own.outbound);
        }
        set.forwards.extend(one.forwards);
        set.outbound.extend(one.outbound);
        accounts.extend(one.accounts);
        remarks.extend(one.remarks);
    }
    set.firewall.layout = layout(&set, rules);
    if rules.iter().any(|(_, rules)| is_of_shorewall(rules)) {
        notes.push(OF_SHOREWALL.to_owned());
    }
    remarks.sort_by(|a: &Remarked, b| {
        (&a.entry, &a.remark, &a.place).cmp(&(&b.entry, &b.remark, &b.place))
    });
    remarks.dedup_by(|a, b| a.entry == b.entry && a.remark == b.remark);
    Draft {
        set,
        accounts,
        remarks,
        notes,
    }
}

/// Brings the forwards of one name together, at the place of the first. A tree has those of TCP before those of UDP.
fn together(forwards: Vec<Forward>) -> Vec<Forward> {
    let mut first: BTreeMap<Name, usize> = BTreeMap::new();
    for (at, forward) in forwards.iter().enumerate() {
        first.entry(forward.name.clone()).or_insert(at);
    }
    let mut sorted = forwards;
    sorted.sort_by_key(|forward| first.get(&forward.name).copied());
    sorted
}

/// Joins the outbound entries of two families, each in its order. Those of one name become neighbours.
fn beside(one: Vec<Outbound>, other: Vec<Outbound>) -> Vec<Outbound> {
    let mut joined = Vec::with_capacity(one.len() + other.len());
    let mut other = other.into_iter().peekable();
    for entry in one {
        let name = entry.name.clone();
        if other.clone().any(|two| two.name == name) {
            while let Some(before) = other.next_if(|two| two.name != name) {
                joined.push(before);
            }
        }
        joined.push(entry);
        joined.extend(other.next_if(|two| two.name == name));
    }
    joined.extend(other);
    joined
}

/// Returns the layout with which the plan is nvactl's rules that are there; that of the firewall if there are none, or no
/// layout gives them. Few rules look alike in both.
fn layout(set: &ForwardSet, rules: &[(Family, Ruleset)]) -> Option<Layout> {
    let is_own = |(_, rules): &&(Family, Ruleset)| rules.holds_own();
    let own: Vec<_> = rules.iter().filter(is_own).collect();
    let gives_own = |layout: &Option<Layout>| {
        let mut set = set.clone();
        set.firewall.layout = *layout;
        own.iter().all(|(family, rules)| {
            let planned = plan(&set, *family);
            planned.chains().all(|(table, name, chain)| {
                !name.is_own() || rules.chain(table, name) == Some(chain)
            })
        })
    };
    [
        set.firewall.layout,
        None,
        Some(Layout::Flat),
        Some(Layout::Tree),
    ]
    .into_iter()
    .find(gives_own)
    .unwrap_or(set.firewall.layout)
}

/// A spec has several destinations only as pods. nvactl's rules do not say which kind they had.
fn with_kind(mut forward: Forward) -> Forward {
    if forward.target.destinations.len() > 1 {
        forward.target.kind = TargetKind::Pod;
    }
    forward
}
