//! The names of the forwards and outbound entries in a comparison, which records and log lines keep.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Comparison, Drift};
use crate::forwards::{Forward, ForwardSet, Name, Outbound, rows};
use crate::net::{Family, Protocol};

/// The names of the forwards and outbound entries that a change adds, changes and removes, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardNames {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
}

impl ForwardNames {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    /// Compares two lists of sets, one for each family.
    #[must_use]
    pub fn between(old: &[ForwardSet], new: &[ForwardSet]) -> Self {
        let (old, new) = (by_key(old), by_key(new));
        let name = |(name, ..): &Key<'_>| name.as_str().to_owned();
        let added = new.keys().filter(|key| !old.contains_key(key)).map(name);
        let removed = old.keys().filter(|key| !new.contains_key(key)).map(name);
        let changed = new
            .iter()
            .filter(|(key, named)| old.get(key).is_some_and(|before| before != *named));
        let changed = changed.map(|(key, _)| name(key));
        let [added, removed, changed] = [added.collect(), removed.collect(), changed.collect()]
            .map(|names: Vec<String>| once(names.iter()));
        Self {
            added,
            changed,
            removed,
        }
        .each_once()
    }

    /// Counts a name in two of the lists as changed: one protocol or family of it is added or changed, and not another.
    fn each_once(mut self) -> Self {
        let [added, removed, changed] = [&self.added, &self.removed, &self.changed]
            .map(|names| names.iter().cloned().collect::<BTreeSet<String>>());
        let both: Vec<&String> = added.intersection(&removed).collect();
        let both = both.into_iter().filter(|name| !changed.contains(*name));
        self.changed.extend(both.cloned());
        let changed: BTreeSet<&String> = self.changed.iter().collect();
        self.added.retain(|name| !changed.contains(name));
        self.removed.retain(|name| !changed.contains(name));
        self
    }
}

/// A row of forwards has a protocol, an outbound entry none.
type Key<'s> = (&'s Name, Option<Protocol>, Family);

#[derive(PartialEq)]
enum PlannedEntry<'s> {
    Forward(&'s [Forward]),
    Outbound(&'s Outbound),
}

fn by_key(sets: &[ForwardSet]) -> BTreeMap<Key<'_>, PlannedEntry<'_>> {
    let rows = sets.iter().flat_map(|set| rows(&set.forwards));
    let forwards = rows.map(|row| {
        let key = (&row[0].name, Some(row[0].protocol), row[0].family());
        (key, PlannedEntry::Forward(row))
    });
    let outbound = sets.iter().flat_map(|set| &set.outbound).map(|one| {
        let key = (&one.name, None, one.family);
        (key, PlannedEntry::Outbound(one))
    });
    forwards.chain(outbound).collect()
}

impl From<&Comparison> for ForwardNames {
    fn from(comparison: &Comparison) -> Self {
        let added = comparison.added.iter().map(|line| &line.name);
        let removed = comparison.removed.iter().map(|line| &line.name);
        let fields = comparison.changed.iter().map(|change| &change.name);
        // The change also corrects forwards with a line that somebody has added or removed by hand.
        let drift = comparison.drift.iter().flat_map(Drift::owners);
        Self {
            added: once(added),
            changed: once(fields.chain(drift)),
            removed: once(removed),
        }
        .each_once()
    }
}

/// Returns each name once. A forward of both protocols occurs twice with one name.
fn once<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    names.filter(|name| seen.insert(*name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diff::drift::{compare, compare_specs, merged};
    use crate::net::Family;
    use crate::netfilter::names::{ChainName, TableName};
    use crate::plan::plan;
    use crate::yaml::examine_all;

    fn set(forwards: &str) -> ForwardSet {
        let text = format!("firewall: {{interface: eth0, snat: 10.3.0.4}}\nforwards: [{forwards}]");
        examine_all(&[text.as_bytes()]).set.expect("it is valid")
    }

    const WEB: &str = "{name: web, listen: 80, target: {pod: '10.224.0.118:80'}}";
    const DNS: &str =
        "{name: dns, listen: 53, protocol: [tcp, udp], target: {pod: '10.224.0.118:53'}}";

    #[test]
    fn each_forward_is_named_once() {
        let web = WEB.replace("118:80", "118:8080");
        for (old, new, names) in [
            (
                WEB.to_owned(),
                DNS.to_owned(),
                [&["dns"][..], &[], &["web"]],
            ),
            (format!("{WEB}, {DNS}"), web, [&[], &["web"], &["dns"]]),
            (WEB.to_owned(), WEB.to_owned(), [&[], &[], &[]]),
        ] {
            let comparison = compare_specs(&set(&old), &set(&new), Family::V4);
            let found = ForwardNames::from(&comparison);
            let names = names.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
            let [added, changed, removed] = names;
            let wanted = ForwardNames {
                added,
                changed,
                removed,
            };
            assert_eq!(found, wanted, "{old} -> {new}");
        }
    }

    #[test]
    fn an_entry_of_both_families_is_named_once_and_so_is_a_moved_one() {
        let set = |entries: &str| {
            let text = format!("firewall: {{interface: eth0}}\noutbound: [{entries}]");
            examine_all(&[text.as_bytes()]).set.expect("it is valid")
        };
        let v4 = "{name: a, allow_from: [10.1.0.0/16]}, {name: b, allow_from: [10.2.0.0/16]}";
        let both = "{name: a, allow_from: [10.1.0.0/17, 'fd00::/64']}, {name: b, allow_from: [10.2.0.0/16]}";
        let turned = "{name: b, allow_from: [10.2.0.0/16]}, {name: a, allow_from: [10.1.0.0/16]}";
        let six = "{name: a, allow_from: ['fd00::/64']}, {name: b, allow_from: [10.2.0.0/16]}";
        for (old, new, changed) in [(v4, both, "a"), (v4, six, "a"), (v4, turned, "b")] {
            let each = Family::ALL.map(|family| compare_specs(&set(old), &set(new), family));
            let comparison = merged(each);
            let found = ForwardNames::from(&comparison);
            assert_eq!(found.changed, [changed], "{new}: {comparison:?}");
            assert!(
                found.added.is_empty() && found.removed.is_empty(),
                "{found:?}"
            );
            assert_eq!(comparison.reordered, new == turned);
        }
        let turned = compare_specs(&set(v4), &set(turned), Family::V4);
        let change = &turned.changed[0].changes[0];
        let words = (change.field, change.from.as_str(), change.to.as_str());
        assert_eq!(words, ("order", "after a", "first"));
        // The order is compared even if an entry is added.
        let more = format!(
            "{{name: c, allow_from: [10.3.0.0/16]}}, {}",
            "{name: b, allow_from: [10.2.0.0/16]}, {name: a, allow_from: [10.1.0.0/16]}"
        );
        let more = compare_specs(&set(v4), &set(&more), Family::V4);
        assert_eq!((more.added.len(), more.changed.len()), (1, 1), "{more:?}");
    }

    /// A list's lines name nobody. The rules that lead to the list do.
    #[test]
    fn a_line_of_a_list_belongs_to_those_who_use_it() {
        let deny = "deny_from: [192.0.2.0/24, 198.51.100.0/24]";
        let [web, dns] = [WEB, DNS].map(|one| one.replace("listen", &format!("{deny}, listen")));
        for (forwards, owner, shared) in [
            (format!("{web}, {DNS}"), Some("web"), &[][..]),
            (format!("{web}, {dns}"), None, &["dns", "web"]),
        ] {
            let set = set(&forwards);
            let mut live = plan(&set, Family::V4).with_builtin_chains();
            let chains = live.tables.get_mut(&TableName::Filter).expect("a table");
            let is_list = |name: &ChainName| name.as_str().starts_with("NVACTL-DENY-");
            let mut lists = chains.iter_mut().filter(|(name, _)| is_list(name));
            let (_, list) = lists.next().expect("a list");
            assert!(list.rules.pop().is_some() && lists.next().is_none());
            let comparison = compare(&live, &set, Family::V4);
            let drift = &comparison.drift[..];
            assert_eq!(drift.len(), 1, "{drift:?}");
            assert!(drift[0].line.ends_with("-s 198.51.100.0/24 -j DROP"));
            assert_eq!(drift[0].forward.as_deref(), owner);
            assert_eq!(drift[0].shared_by, shared);
            let names: Vec<&String> = drift[0].owners().collect();
            assert_eq!(
                ForwardNames::from(&comparison)
                    .changed
                    .iter()
                    .collect::<Vec<_>>(),
                names
            );
        }
    }

    #[test]
    fn a_forward_whose_rules_were_tampered_with_is_changed() {
        let set = set(&format!("{WEB}, {DNS}"));
        let mut live = plan(&set, Family::V4).with_builtin_chains();
        let chain = live.chain_mut(TableName::Nat, ChainName::from("NVACTL-PREROUTING"));
        assert!(chain.rules.pop().is_some());
        let found = ForwardNames::from(&compare(&live, &set, Family::V4));
        assert_eq!(found.changed, ["dns"], "{found:?}");
    }
}
