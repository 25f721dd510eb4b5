//! A forward field by field, in words.

use std::fmt::Display;

use serde::Serialize;

use crate::forwards::{Balance, Forward, ForwardSet, Limits, Log, Logged, Nets, Per, Rate};
use crate::net::Family;
use crate::netfilter::limit::PerSecond;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    pub field: &'static str,
    pub from: String,
    pub to: String,
}

/// What changes from one forward to another, by the key of a spec that says it.
pub fn changes(old: &Forward, new: &Forward) -> Vec<FieldChange> {
    let words = words(old).into_iter().zip(words(new));
    let words = words.filter_map(|((name, from), (_, to))| change(name, &from, &to));
    let (old, new) = (&old.sources, &new.sources);
    let allow = list_change("allow_from", old.allow.as_ref(), new.allow.as_ref());
    let deny = list_change("deny_from", Some(&old.deny), Some(&new.deny));
    words.chain(allow).chain(deny).collect()
}

pub fn change(field: &'static str, from: &str, to: &str) -> Option<FieldChange> {
    (from != to).then(|| FieldChange {
        field,
        from: from.to_owned(),
        to: to.to_owned(),
    })
}

/// Of a long list only what comes and goes.
fn list_change(field: &'static str, old: Option<&Nets>, new: Option<&Nets>) -> Option<FieldChange> {
    let words = |nets: Option<&Nets>| nets.map_or("all".to_owned(), list_of_nets);
    let (from, mut to) = (words(old), words(new));
    if old == new {
        return None;
    }
    if let (Some(old), Some(new)) = (old, new)
        && old.as_slice().len().max(new.as_slice().len()) > MOST_NETS
    {
        let gone = old
            .as_slice()
            .iter()
            .filter(|net| new.as_slice().binary_search(net).is_err());
        let come = new
            .as_slice()
            .iter()
            .filter(|net| old.as_slice().binary_search(net).is_err());
        let gone = gone.map(|net| format!("-{net}"));
        let all: Vec<String> = come.map(|net| format!("+{net}")).chain(gone).collect();
        to = format!("{to}: {}", all[..all.len().min(MOST_NETS)].join(" "));
        if all.len() > MOST_NETS {
            to = format!("{to} and {} more", all.len() - MOST_NETS);
        }
    }
    Some(FieldChange { field, from, to })
}

/// As many as a line bears.
const MOST_NETS: usize = 4;

fn list_of_nets(nets: &Nets) -> String {
    match nets.as_slice() {
        [] => "none".to_owned(),
        few if few.len() <= MOST_NETS => list(few),
        many => format!("{} networks", many.len()),
    }
}

/// What a forward says, by the key of a spec that says it.
fn words(forward: &Forward) -> [(&'static str, String); 10] {
    let way = WAY.map(|field| (field.name(), field.of(forward)));
    let [ingress, egress, snat] = way;
    [
        ("listen", forward.listen.to_string()),
        ("protocol", forward.protocol.to_string()),
        ("target", forward.reaches()),
        ("balance", balance(forward.target.balance).to_owned()),
        ingress,
        egress,
        snat,
        ("limits", forward.limits.map_or("none".to_owned(), limits)),
        ("log", forward.log.as_ref().map_or("none".to_owned(), log)),
        ("hairpin", forward.hairpin.to_string()),
    ]
}

/// What the firewall says for forwards that do not.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    Ingress,
    Egress,
    Snat,
}

pub const WAY: [Way; 3] = [Way::Ingress, Way::Egress, Way::Snat];

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Way::Ingress => "ingress",
            Way::Egress => "egress",
            Way::Snat => "snat",
        }
    }

    fn of(self, forward: &Forward) -> String {
        match self {
            Way::Ingress => list(&forward.ingress),
            Way::Egress => forward.egress.to_string(),
            Way::Snat => forward.snat.to_string(),
        }
    }

    /// What the firewall has here for forwards of a family, if anything.
    pub fn of_firewall(self, set: &ForwardSet, family: Family) -> Option<String> {
        let firewall = &set.firewall;
        match self {
            Way::Ingress => Some(list(&firewall.ingress)),
            Way::Egress => Some(firewall.egress.to_string()),
            Way::Snat => firewall.snat.of(family).map(|snat| snat.to_string()),
        }
    }

    /// Whether a forward has here what the firewall says for all.
    pub fn usual(self, forward: &Forward, set: &ForwardSet) -> bool {
        let firewall = &set.firewall;
        match self {
            Way::Ingress => forward.ingress == firewall.ingress,
            Way::Egress => forward.egress == firewall.egress,
            Way::Snat => firewall.snat.of(forward.family()) == Some(forward.snat),
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

/// The same for explanations: `50 new a second, 100 at once, 1000 at a time, of each client`.
pub fn limits(limits: Limits) -> String {
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
