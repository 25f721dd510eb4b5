//! Describes each field of a forward in words, and compares forwards by field.

use std::fmt::Display;

use serde::Serialize;

use crate::forwards::{
    Balance, Destinations, Forward, ForwardSet, INTERNET, Limits, Listen, Log, Logged, Nets,
    Outbound, Per, Rate, listeners_of, reached_of,
};
use crate::net::Family;
use crate::netfilter::limit::PerSecond;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    pub field: &'static str,
    pub from: String,
    pub to: String,
}

/// Returns the fields that differ between two versions of a row, named by their keys in a spec.
#[must_use]
pub fn changes(old: &[Forward], new: &[Forward]) -> Vec<FieldChange> {
    let listen = listen_change(old, new).into_iter();
    // The listeners alone tell which ports of the target change, if it keeps them.
    let is_list = old.len().max(new.len()) > 1;
    let words = words(old, is_list).into_iter().zip(words(new, is_list));
    let words = words.filter_map(|((name, from), (_, to))| change(name, &from, &to));
    let words = listen.chain(words);
    let (old, new) = (&old[0].sources, &new[0].sources);
    let allow = list_change("allow_from", old.allow.as_ref(), new.allow.as_ref());
    let deny = list_change("deny_from", Some(&old.deny), Some(&new.deny));
    words.chain(allow).chain(deny).collect()
}

/// Returns the fields that differ between two versions of an outbound entry, named by their keys in a spec.
#[must_use]
pub fn outbound_changes(old: &Outbound, new: &Outbound) -> Vec<FieldChange> {
    let words = outbound_words(old).into_iter().zip(outbound_words(new));
    let words = words.filter_map(|((name, from), (_, to))| change(name, &from, &to));
    let lists = [
        list_change("allow_from", Some(&old.allow_from), Some(&new.allow_from)),
        destinations_change(&old.allow_to, &new.allow_to),
        list_change("deny_from", Some(&old.deny_from), Some(&new.deny_from)),
        list_change("deny_to", Some(&old.deny_to), Some(&new.deny_to)),
    ];
    words.chain(lists.into_iter().flatten()).collect()
}

/// Returns the fields of an outbound entry that are no lists of networks.
fn outbound_words(entry: &Outbound) -> [(&'static str, String); 7] {
    // Without `..`, so that the compiler demands a new field here.
    let Outbound {
        name: _,
        family: _,
        // No rule has it: `compare_specs` compares it.
        description: _,
        ingress,
        egress,
        // `outbound_changes` compares these lists.
        allow_from: _,
        allow_to: _,
        deny_from: _,
        deny_to: _,
        protocols: _,
        ports: _,
        snat,
        limits: most,
        log: logged,
    } = entry;
    [
        ("protocol", entry.protocol_words()),
        ("ports", entry.port_words()),
        ("ingress", list(ingress)),
        ("egress", egress.to_string()),
        ("snat", snat.to_string()),
        ("limits", most.map_or("none".to_owned(), limits)),
        ("log", logged.as_ref().map_or("none".to_owned(), log)),
    ]
}

fn destinations_change(old: &Destinations, new: &Destinations) -> Option<FieldChange> {
    if old == new {
        return None;
    }
    let (from, mut to) = (destination_words(old), destination_words(new));
    let (old, new) = (old.nets.as_slice(), new.nets.as_slice());
    if old != new && old.len().max(new.len()) > MOST_ITEMS {
        to = format!("{to}: {}", edits(old, new));
    }
    Some(FieldChange {
        field: "allow_to",
        from,
        to,
    })
}

fn destination_words(to: &Destinations) -> String {
    let mut words = Vec::new();
    if to.internet {
        words.push(INTERNET.to_owned());
    }
    if !to.nets.is_empty() {
        words.push(list_of_nets(&to.nets));
    }
    let words = words.join(", ");
    // The word for the Internet does not have them.
    let within = to.guarded.iter().filter(|one| to.nets.contains(**one));
    let without: Vec<_> = within.copied().collect();
    if without.is_empty() {
        words
    } else {
        format!("{words} without {}", list(&without))
    }
}

/// Describes the destinations of an outbound entry and their ports: `internet, ports 443, 8000-8010`.
pub fn to_words(entry: &Outbound) -> String {
    let to = destination_words(&entry.allow_to);
    let noun = if entry.ports.len() == 1 && entry.ports[0].is_single() {
        "port"
    } else {
        "ports"
    };
    if entry.ports.is_empty() {
        return to;
    }
    format!("{to}, {noun} {}", entry.port_words())
}

pub fn change(field: &'static str, from: &str, to: &str) -> Option<FieldChange> {
    (from != to).then(|| FieldChange {
        field,
        from: from.to_owned(),
        to: to.to_owned(),
    })
}

/// Compares two lists of networks. A long list is shown only by its added and removed networks.
fn list_change(field: &'static str, old: Option<&Nets>, new: Option<&Nets>) -> Option<FieldChange> {
    let words = |nets: Option<&Nets>| nets.map_or("all".to_owned(), list_of_nets);
    let (from, mut to) = (words(old), words(new));
    if old == new {
        return None;
    }
    if let (Some(old), Some(new)) = (old, new)
        && old.as_slice().len().max(new.as_slice().len()) > MOST_ITEMS
    {
        to = format!("{to}: {}", edits(old.as_slice(), new.as_slice()));
    }
    Some(FieldChange { field, from, to })
}

/// The most items of a list that one line shows.
const MOST_ITEMS: usize = 4;

/// Lists the items that only one of two sorted lists has: `+443 -8443`.
fn edits<T: Ord + Display>(old: &[T], new: &[T]) -> String {
    let gone = old.iter().filter(|item| new.binary_search(item).is_err());
    let come = new.iter().filter(|item| old.binary_search(item).is_err());
    let gone = gone.map(|item| format!("-{item}"));
    let all: Vec<String> = come.map(|item| format!("+{item}")).chain(gone).collect();
    let shown = all[..all.len().min(MOST_ITEMS)].join(" ");
    match all.len().saturating_sub(MOST_ITEMS) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Compares the listeners of two rows. A long list is shown only by its added and removed pieces.
fn listen_change(old: &[Forward], new: &[Forward]) -> Option<FieldChange> {
    let pieces = |row: &[Forward]| row.iter().map(|one| one.listen).collect::<Vec<Listen>>();
    let (before, after) = (pieces(old), pieces(new));
    if before.len().max(after.len()) <= MOST_ITEMS {
        return change("listen", &listeners_of(old), &listeners_of(new));
    }
    let words = |row: &[Forward]| match row.len() {
        few if few <= MOST_ITEMS => listeners_of(row),
        many => format!("{many} listeners"),
    };
    (before != after).then(|| FieldChange {
        field: "listen",
        from: words(old),
        to: format!("{}: {}", words(new), edits(&before, &after)),
    })
}

pub fn list_of_nets(nets: &Nets) -> String {
    match nets.as_slice() {
        [] => "none".to_owned(),
        few if few.len() <= MOST_ITEMS => list(few),
        many => format!("{} networks", many.len()),
    }
}

/// Returns the fields of a row, named by their keys in a spec. Its entries differ only in their listener.
fn words(row: &[Forward], is_list: bool) -> [(&'static str, String); 9] {
    // Without `..`, so that the compiler demands a new field here.
    let forward = &row[0];
    let Forward {
        name: _,
        // Only a spec has it: `compare_specs` compares it.
        description: _,
        // `changes` compares the listeners.
        listen: _,
        protocol,
        target,
        // `SHARED` has these three.
        ingress: _,
        egress: _,
        snat: _,
        // `changes` compares these lists.
        sources: _,
        limits: most,
        log: logged,
        hairpin,
    } = forward;
    let [ingress, egress, snat] = SHARED.map(|field| (field.name(), field.of(forward)));
    [
        ("protocol", protocol.to_string()),
        (
            "target",
            if is_list {
                target.to_string()
            } else {
                reached_of(row)
            },
        ),
        ("balance", balance(target.balance).to_owned()),
        ingress,
        egress,
        snat,
        ("limits", most.map_or("none".to_owned(), limits)),
        ("log", logged.as_ref().map_or("none".to_owned(), log)),
        ("hairpin", hairpin.to_string()),
    ]
}

/// A field that the firewall sets for every forward that does not set it.
#[derive(Debug, Clone, Copy)]
pub enum SharedField {
    Ingress,
    Egress,
    Snat,
}

pub const SHARED: [SharedField; 3] = [SharedField::Ingress, SharedField::Egress, SharedField::Snat];

impl SharedField {
    pub fn name(self) -> &'static str {
        match self {
            SharedField::Ingress => "ingress",
            SharedField::Egress => "egress",
            SharedField::Snat => "snat",
        }
    }

    fn of(self, forward: &Forward) -> String {
        match self {
            SharedField::Ingress => list(&forward.ingress),
            SharedField::Egress => forward.egress.to_string(),
            SharedField::Snat => forward.snat.to_string(),
        }
    }

    /// Returns the firewall's value of the field for a family, if it has one.
    pub fn of_firewall(self, set: &ForwardSet, family: Family) -> Option<String> {
        let firewall = &set.firewall;
        match self {
            SharedField::Ingress => Some(list(&firewall.ingress)),
            SharedField::Egress => Some(firewall.egress.to_string()),
            SharedField::Snat => firewall.snat.of(family).map(|snat| snat.to_string()),
        }
    }

    /// Returns whether a forward has the firewall's value of the field.
    pub fn usual(self, forward: &Forward, set: &ForwardSet) -> bool {
        let firewall = &set.firewall;
        match self {
            SharedField::Ingress => forward.ingress == firewall.ingress,
            SharedField::Egress => forward.egress == firewall.egress,
            SharedField::Snat => firewall.snat.of(forward.family()) == Some(forward.snat),
        }
    }
}

fn list(items: &[impl Display]) -> String {
    let words: Vec<String> = items.iter().map(ToString::to_string).collect();
    words.join(", ")
}

fn balance(balance: Balance) -> &'static str {
    match balance {
        Balance::Random => "random",
        Balance::Client => "client",
    }
}

/// Describes limits in words: `50 new a second, 100 at once, 1000 connections, of each client`.
fn limits(limits: Limits) -> String {
    let Limits {
        rate,
        max_connections,
        per,
        reject,
    } = limits;
    let mut words = Vec::new();
    if let Some(Rate {
        new_per_second,
        burst,
    }) = rate
    {
        words.push(format!("{} new a second", PerSecond::times(new_per_second)));
        words.push(format!("{burst} at once"));
    }
    words.extend(max_connections.map(|most| format!("{most} connections")));
    words.push(
        match per {
            Per::Total => "all together",
            Per::Client => "of each client",
        }
        .to_owned(),
    );
    if reject {
        words.push("rejected beyond".to_owned());
    }
    words.join(", ")
}

fn log(log: &Log) -> String {
    let which = match log.connections {
        Logged::Accepted => "accepted",
        Logged::Refused => "refused",
        Logged::All => "all",
    };
    let level = Log::LEVELS
        .get(usize::from(log.level))
        .unwrap_or(&"unknown");
    format!(
        "{which} as `{}`, {level}, {} a minute",
        log.prefix, log.per_minute
    )
}
