//! The firewall of a draft: the values that most of its entries have.

use std::collections::{BTreeMap, BTreeSet};

use super::family::OfFamily;
use super::sides::{KnownRoutes, entrance};
use crate::forwards::{Firewall, Forward, ForwardPolicy, ForwardSet, Layout, Snat, Snats};
use crate::net::{Family, Interface};
use crate::netfilter::names::{ChainName, Policy, TableName};
use crate::netfilter::ruleset::Ruleset;

/// Returns the firewall. If the rules hold nvactl's own, those say it.
pub fn firewall(
    rules: &[(Family, Ruleset)],
    own: &[Option<ForwardSet>],
    read: &[OfFamily],
    routes: &KnownRoutes,
    notes: &mut Vec<String>,
) -> Firewall {
    let own = || own.iter().flatten().map(|set| &set.firewall);
    // The rules of a tree say the firewall's interfaces only together with its `snat`. In the other layout each forward
    // has its own, and the firewall's are those that most have.
    let says_sides = |firewall: &&Firewall| firewall.snat.v4.or(firewall.snat.v6).is_some();
    let best = own()
        .filter(says_sides)
        .min_by_key(|firewall| firewall.layout != Some(Layout::Tree));
    if let Some(best) = best.or_else(|| own().next()) {
        let mut firewall = best.clone();
        for other in own() {
            let Firewall { snat, mss, .. } = *other;
            // Rules for pings alone have no limit on segment sizes.
            firewall.mss = firewall.mss.or(mss);
            firewall.snat.v4 = firewall.snat.v4.or(snat.v4);
            firewall.snat.v6 = firewall.snat.v6.or(snat.v6);
        }
        return firewall;
    }
    let forwards = || read.iter().flat_map(|one| &one.forwards);
    let entries = || read.iter().flat_map(|one| &one.outbound);
    let sides = most(forwards().map(|one| (one.ingress.clone(), one.egress.clone())));
    // An outbound entry looks the other way.
    let sides = sides
        .or_else(|| most(entries().map(|one| (vec![one.egress.clone()], one.ingress[0].clone()))));
    let (ingress, egress) = sides.unwrap_or_else(|| {
        let empty = Ruleset::default();
        let first = rules
            .first()
            .map_or((Family::V4, &empty), |(family, rules)| (*family, rules));
        let (only, _) = entrance(first.0, first.1, &[], routes, &BTreeSet::new());
        (vec![only.clone()], only)
    });
    if read.iter().any(|one| one.is_entrance_assumed) {
        notes.push(assumed_interface(&ingress));
    }
    for (target, interface) in read.iter().flat_map(|one| &one.assumed_targets) {
        notes.push(format!(
            "No rule names the interface to {target}: {interface} is assumed."
        ));
    }
    let of = |family| {
        let of_family = forwards().filter(|one: &&Forward| one.family() == family);
        most(of_family.map(|one| one.snat))
    };
    // A word stands for both families.
    let word = |snat: &Snat| !matches!(snat, Snat::Addresses(_));
    let (v4, mut v6) = (of(Family::V4), of(Family::V6));
    if forwards().next().is_none() && entries().next().is_none() {
        notes.push("No rule became a forward or an outbound entry.".to_owned());
        notes.push("`snat: masquerade` is assumed, for forwards to come.".to_owned());
        v6 = Some(Snat::Masquerade);
    }
    let snat = Snats {
        v4: v4.or(v6.filter(word)),
        v6: v6.or(v4.filter(word)),
    };
    let forward_policy = policy(rules, read);
    let says_policy = rules.iter().any(|(_, rules)| {
        let chain = rules.chain(TableName::Filter, &ChainName::Forward);
        chain.is_some_and(|chain| chain.policy.is_some())
    });
    notes.push(
        match (forward_policy, says_policy) {
            (ForwardPolicy::Drop, _) => "The FORWARD policy is DROP, and the spec sets it.",
            (ForwardPolicy::Keep, true) => {
                "The FORWARD policy accepts, and the spec leaves it alone (`forward_policy: keep`)."
            }
            (ForwardPolicy::Keep, false) => {
                "The rules do not say the FORWARD policy, and the spec leaves it alone (`forward_policy: keep`)."
            }
        }
        .to_owned(),
    );
    Firewall {
        ingress,
        egress,
        snat,
        mss: None,
        forward_policy,
        layout: None,
    }
}

fn assumed_interface(ingress: &[Interface]) -> String {
    let names: Vec<&str> = ingress.iter().map(Interface::as_str).collect();
    format!(
        "No rule names the interface by which clients come in: {} is assumed.",
        names.join(", ")
    )
}

/// Returns `drop` if the policy of each family that has entries drops, or of all families if none has; `keep` leaves all
/// policies as they are.
fn policy(rules: &[(Family, Ruleset)], read: &[OfFamily]) -> ForwardPolicy {
    let has_entries = |one: &OfFamily| !one.forwards.is_empty() || !one.outbound.is_empty();
    let none_has = !read.iter().any(has_entries);
    let mut used = read
        .iter()
        .zip(rules)
        .filter(|(one, _)| none_has || has_entries(one));
    if used.all(|(_, (_, rules))| rules.forward_policy() == Policy::Drop) {
        ForwardPolicy::Drop
    } else {
        ForwardPolicy::Keep
    }
}

/// Returns the value that is there most often; the smallest of several.
fn most<T: Ord>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    let most = counts.into_iter().rev().max_by_key(|(_, count)| *count);
    most.map(|(value, _)| value)
}
