//! Describes the rules that refuse packets of forwards and outbound entries until nvactl's jump is before them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use ipnet::IpNet;

use crate::net::words::{counted, quoted};
use crate::net::{Family, printable};
use crate::twin::battery::{Ask, Subject};
use crate::twin::change::Opened;
use crate::twin::clients::ClientKind;

/// The most rules that are shown one by one.
const MOST_RULES: usize = 20;

/// A warning about rules that refuse packets of forwards or outbound entries until nvactl's jump is before them.
#[derive(Debug)]
pub struct Overtaken {
    /// The warning before the change is loaded.
    pub planned: String,
    /// The warning after it.
    pub done: String,
}

/// Describes the rules that refuse packets of forwards or entries until nvactl's jump is before them, with the edit of
/// the spec that refuses the same on its last line.
pub fn opened(opened: &[Opened<'_>], family: Family) -> Option<Overtaken> {
    let of_family = opened.iter().filter(|one| one.ask.of.family() == family);
    let mut rules: Vec<(&str, Vec<&Opened<'_>>)> = Vec::new();
    for one in of_family {
        let text = one.rule.text.as_str();
        match rules.iter_mut().find(|(known, _)| *known == text) {
            Some((_, all)) => all.push(one),
            None => rules.push((text, vec![one])),
        }
    }
    let kind = match family {
        Family::V4 => "rule",
        Family::V6 => "ip6tables rule",
    };
    let refuse = match rules.len() {
        0 => return None,
        1 => "refuses",
        _ => "refuse",
    };
    let count = counted(rules.len(), kind);
    let whose = subjects(rules.iter().flat_map(|(_, all)| all));
    let planned = format!(
        "nvactl's jump will come before {count} that {refuse} packets of {whose}, so those packets will be accepted:"
    );
    let done = format!(
        "nvactl's jump is now before {count} that used to refuse packets of {whose}; these packets are accepted now:"
    );
    let mut text = String::new();
    for (rule, all) in rules.iter().take(MOST_RULES) {
        let mut names: Vec<&str> = Vec::new();
        for one in all {
            let name = one.ask.of.name().as_str();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let names = quoted(names);
        let _ = write!(text, "\n  {} ({names})", printable::line(rule));
    }
    match rules.len().saturating_sub(MOST_RULES) {
        0 => {}
        more => {
            let _ = write!(text, "\n  and {more} more such rules");
        }
    }
    let _ = write!(text, "\nhint: {}", edit(&rules));
    Some(Overtaken {
        planned: planned + &text,
        done: done + &text,
    })
}

/// Returns the words for the parts of the spec to which packets belong.
fn subjects<'a>(all: impl Iterator<Item = &'a &'a Opened<'a>>) -> &'static str {
    let of: BTreeSet<bool> = all.map(|one| is_outward(&one.ask)).collect();
    match (of.contains(&false), of.contains(&true)) {
        (_, false) => "forwards",
        (false, true) => "outbound entries",
        (true, true) => "forwards and outbound entries",
    }
}

fn is_outward(ask: &Ask<'_>) -> bool {
    matches!(ask.of, Subject::Outbound(_))
}

/// Returns the edit of the spec that refuses the same packets.
fn edit(rules: &[(&str, Vec<&Opened<'_>>)]) -> String {
    let refuses_all = |all: &&(&str, Vec<&Opened<'_>>)| {
        let mut asks = all.1.iter().map(|one| &one.ask);
        asks.any(|ask| match ask.client.kind {
            ClientKind::Somebody => true,
            ClientKind::Listed(_) => is_outward(ask),
            _ => false,
        })
    };
    let mut asks = rules.iter().flat_map(|(_, all)| all).map(|one| &one.ask);
    let has_entries = asks.any(is_outward);
    let all = if has_entries {
        "to refuse all packets of a forward or an outbound entry, write in the spec: enabled: false"
    } else {
        "to refuse all packets of a forward, write in the spec: enabled: false"
    };
    if rules.iter().all(|one| refuses_all(&one)) {
        return all.to_owned();
    }
    let by_client = rules.iter().filter(|one| !refuses_all(one));
    let nets: BTreeSet<IpNet> = by_client
        .flat_map(|(_, all)| all)
        .map(|one| network_of(&one.ask))
        .collect();
    let nets = nets.iter().take(MOST_RULES).map(|net| match net {
        IpNet::V4(net) => net.to_string(),
        // YAML reads a colon as the end of a key.
        IpNet::V6(net) => format!("\"{net}\""),
    });
    let nets = nets.collect::<Vec<_>>().join(", ");
    let place = if has_entries {
        "for each of these forwards and outbound entries"
    } else {
        "for a forward or in `defaults`"
    };
    let some = format!("to refuse these clients, write in the spec, {place}: deny_from: [{nets}]");
    if rules.iter().any(|one| refuses_all(&one)) {
        format!("{some}\nhint: {all}")
    } else {
        some
    }
}

fn network_of(ask: &Ask<'_>) -> IpNet {
    match ask.client.kind {
        ClientKind::Near(net) | ClientKind::Listed(net) | ClientKind::Named(net) => net,
        ClientKind::Somebody | ClientKind::Seen => IpNet::from(ask.client.address),
    }
}
