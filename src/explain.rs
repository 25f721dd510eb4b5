//! The plan in plain words, in the order of a packet's way.

use crate::line::Line;
use crate::plan::{FORWARD, POSTROUTING, PREROUTING, plan};
use crate::ruleset::{ChainName, TableName};
use crate::spec::{Firewall, Forward, ForwardSet, Snat};
use crate::unplan::name_of;

/// One line of the plan, and what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub table: TableName,
    /// As iptables-save prints it.
    pub line: String,
    pub note: String,
    /// The forward that the line is for, if it is for one.
    pub forward: Option<String>,
}

/// Explains every line of a spec's plan.
#[must_use]
pub fn explain(set: &ForwardSet) -> Vec<Step> {
    let planned = plan(set);
    let mut forwards = std::collections::BTreeMap::new();
    for forward in &set.forwards {
        forwards.insert(forward.name.as_str(), forward);
    }
    let mut steps = Vec::new();
    for (table, builtin, own) in [
        (TableName::Nat, ChainName::Prerouting, PREROUTING),
        (TableName::Filter, ChainName::Forward, FORWARD),
        (TableName::Nat, ChainName::Postrouting, POSTROUTING),
    ] {
        let own = ChainName::from(own);
        for name in [&builtin, &own] {
            let rules = planned
                .chain(table, name)
                .map_or(&[][..], |chain| &chain.rules);
            for rule in rules {
                let forward = name_of(rule).and_then(|name| forwards.get(name));
                let note = match forward {
                    None if name.is_builtin() => jump(&builtin).to_owned(),
                    None => "packets of known connections pass at once, replies included, \
                             whoever accepted the connection"
                        .to_owned(),
                    Some(forward) => note(&builtin, forward, &set.firewall),
                };
                steps.push(Step {
                    table,
                    line: Line::Append(name, rule).to_string(),
                    note,
                    forward: forward.map(|forward| forward.name.to_string()),
                });
            }
        }
        let policy = planned
            .chain(table, &builtin)
            .and_then(|chain| chain.policy);
        if let Some(policy) = policy {
            steps.push(Step {
                table,
                line: Line::SetPolicy(&builtin, policy).to_string(),
                note: "what no rule has accepted by now, nvactl's or another's, is dropped"
                    .to_owned(),
                forward: None,
            });
        }
    }
    steps
}

fn jump(builtin: &ChainName) -> &'static str {
    match builtin {
        ChainName::Prerouting => {
            "a packet has come in: before anybody else's rules, nvactl's see whether it is for a forward"
        }
        ChainName::Forward => "a packet is about to be forwarded: nvactl's rules see it first",
        _ => "a packet is about to leave: nvactl's rules see whether its source must be rewritten",
    }
}

fn note(builtin: &ChainName, forward: &Forward, firewall: &Firewall) -> String {
    let (ingress, egress) = (&firewall.ingress, &firewall.egress);
    let Forward {
        name,
        listen,
        protocol,
        target,
    } = forward;
    let behind = forward.ports_behind();
    let ports = listen.ports;
    match builtin {
        ChainName::Prerouting => {
            let place = match listen.address {
                Some(address) => format!("{address}"),
                None => "any address of the firewall".to_owned(),
            };
            let kept = match behind == ports {
                true if ports.is_single() => ", the port unchanged",
                true => ", each port unchanged",
                false => "",
            };
            format!(
                "{name}: a new {protocol} connection that came in by {ingress} for port {ports} of \
                 {place} is sent on to {}:{behind}{kept}",
                target.address
            )
        }
        ChainName::Forward => format!(
            "{name}: a new {protocol} connection from {ingress} to {}:{behind} by {egress} passes, if \
             it was translated and had been sent to port {ports}",
            target.address
        ),
        _ => {
            let source = match firewall.snat {
                Snat::Address(address) => address.to_string(),
                Snat::Masquerade => format!("{egress}'s address"),
            };
            format!(
                "{name}: it leaves by {egress} with {source} as its source, so that {} answers the \
                 firewall",
                target.address
            )
        }
    }
}

/// Who talks to whom, as a Mermaid flowchart.
#[must_use]
pub fn mermaid<'f>(firewall: &Firewall, forwards: impl Iterator<Item = &'f Forward>) -> String {
    let source = match firewall.snat {
        Snat::Address(address) => address.to_string(),
        Snat::Masquerade => format!("address of {}", firewall.egress),
    };
    let mut out =
        format!("flowchart LR\n  client([client])\n  firewall[\"firewall<br>{source}\"]\n");
    for (n, forward) in forwards.enumerate() {
        let kind = match forward.target.kind {
            crate::spec::TargetKind::Ilb => "ILB",
            crate::spec::TargetKind::Pod => "pod",
        };
        out.push_str(&format!(
            "  client -->|\"{} {}\"| listen{n}[\"{}\"]\n  listen{n} --> firewall\n  \
             firewall -->|\"{}\"| target{n}[\"{kind}<br>{}:{}\"]\n",
            forward.protocol,
            forward.listen,
            forward.name,
            forward.name,
            forward.target.address,
            forward.ports_behind(),
        ));
    }
    out
}
