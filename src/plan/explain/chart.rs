//! A flowchart of a spec.

use ipnet::IpNet;

use crate::forwards::{
    Firewall, Forward, INTERNET, Outbound, Snat, TargetKind, listeners_of, reached, rows,
};
use crate::net::Family;

/// Draws clients, forwards, firewall and targets as a Mermaid flowchart, and the sources and destinations of outbound
/// entries.
#[must_use]
pub fn mermaid<'f>(
    firewall: &Firewall,
    forwards: &[&Forward],
    outbound: impl Iterator<Item = &'f Outbound>,
) -> String {
    let words = |snat: Snat| match snat {
        Snat::Addresses(range) => range.to_string(),
        Snat::Masquerade => format!("address of {}", firewall.egress),
        Snat::Client => "the client's address".to_owned(),
    };
    let snats = Family::ALL
        .into_iter()
        .filter_map(|family| firewall.snat.of(family));
    let mut source: Vec<String> = snats.map(words).collect();
    source.dedup();
    let source = source.join("<br>");
    let mut out =
        format!("flowchart LR\n  client([client])\n  firewall[\"firewall<br>{source}\"]\n");
    for (n, row) in rows(forwards).enumerate() {
        let forward = row[0];
        let kind = match forward.target.kind {
            TargetKind::Ilb => "ILB",
            TargetKind::Pod => "pod",
        };
        out.push_str(&format!(
            "  client -->|\"{} {}\"| listen{n}[\"{}\"]\n  listen{n} --> firewall\n",
            forward.protocol,
            listeners_of(row),
            forward.name,
        ));
        for (m, to) in forward.target.destinations.iter().enumerate() {
            let place = match m {
                0 => format!("target{n}"),
                m => format!("target{n}x{m}"),
            };
            out.push_str(&format!(
                "  firewall -->|\"{}\"| {place}[\"{kind}<br>{}\"]\n",
                forward.name,
                reached(row, to),
            ));
        }
    }
    for (n, entry) in outbound.enumerate() {
        let Outbound {
            name,
            allow_from,
            allow_to,
            ..
        } = entry;
        let internet = allow_to.internet.then(|| INTERNET.to_owned());
        let nets = Some(list(allow_to.nets.as_slice())).filter(|nets| !nets.is_empty());
        let to: Vec<String> = internet.into_iter().chain(nets).collect();
        out.push_str(&format!(
            "  from{n}[\"{}\"] -->|\"{name} {}\"| firewall\n  firewall -->|\"{name}\"| to{n}[\"{}\"]\n",
            list(allow_from.as_slice()),
            entry.protocol_words(),
            to.join("<br>"),
        ));
    }
    out
}

/// The most networks that one box of the flowchart lists.
const MOST_NETS: usize = 4;

fn list(nets: &[IpNet]) -> String {
    if nets.len() > MOST_NETS {
        return format!("{} networks", nets.len());
    }
    let words: Vec<String> = nets.iter().map(ToString::to_string).collect();
    words.join("<br>")
}
