//! A trace as JSON.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::traced::Traced;
use crate::health::trace_text;
use crate::twin::cause::{By, DecidingRule, Direction, Holder, Taken};
use crate::twin::traced::{
    Arrival, PathPart, PathRule, RouteTo, RuleEffect, SpecPart, TracedEnd, TracedPath,
};

/// Returns the trace as the object that docs/json.md describes.
pub fn object(traced: &Traced) -> Value {
    let Traced {
        connection: of,
        made_up,
        left_out,
        unknown,
        ..
    } = traced;
    let (end, arrival, taken) = match &of.end {
        TracedEnd::Delivered(arrival) => ("delivered", Some(arrival), None),
        TracedEnd::Stuck(arrival, taken) => ("unanswered", Some(arrival), taken.as_ref()),
        TracedEnd::Machine => ("machine", None, None),
        TracedEnd::Refused(_, taken) => ("refused", None, taken.as_ref()),
        TracedEnd::Silent(taken) => ("lost", None, taken.as_ref()),
    };
    let asked = &of.connection;
    json!({
        "protocol": asked.protocol.as_str(),
        "from": {
            "address": asked.client.to_string(),
            "port": asked.client_port.map(crate::net::Port::number),
        },
        "to": at(asked.destination()),
        "in": of.ingress,
        "delivered": of.is_delivered(),
        "end": end,
        "target": arrival.map(|one| at(one.reached.target)),
        "behind": arrival.map(|Arrival { interface, .. }| interface),
        "source": arrival.map(|one| at(one.reached.source)),
        "request": path(&of.request),
        "reply": of.reply.as_ref().map(path),
        "cause": taken.map(|taken| cause(taken, &of.end)),
        "made_up": made_up,
        "left_out": left_out,
        "unknown": unknown,
    })
}

/// Returns an address and a port; the port of a ping is null.
fn at(end: SocketAddr) -> Value {
    let port = Some(end.port()).filter(|port| *port != 0);
    json!({ "address": end.ip().to_string(), "port": port })
}

fn path(path: &TracedPath) -> Value {
    let ends = |ends: Option<(SocketAddr, SocketAddr)>| {
        ends.map(|(from, to)| json!({ "from": at(from), "to": at(to) }))
    };
    json!({
        "came": ends(path.came),
        "left": ends(path.left),
        "out": path.egress,
        "path": path.parts.iter().map(part).collect::<Vec<_>>(),
    })
}

fn part(part: &PathPart) -> Value {
    match part {
        PathPart::Route(route) => {
            let (out, via) = match &route.to {
                RouteTo::Machine => (None, None),
                RouteTo::Interface { name, gateway } => (Some(name), *gateway),
            };
            json!({
                "kind": "route",
                "destination": route.destination.to_string(),
                "out": out,
                "via": via.map(|via| via.to_string()),
                "next_hops": route.next_hops,
            })
        }
        PathPart::Rule(PathRule {
            rule: decided,
            effect,
            part,
        }) => {
            let (effect, to) = match effect {
                RuleEffect::Accepts => ("accept", None),
                RuleEffect::Drops => ("drop", None),
                RuleEffect::Rejects => ("reject", None),
                RuleEffect::Diverts => ("divert", None),
                RuleEffect::Destination(to) => ("dnat", Some(*to)),
                RuleEffect::Source(to) => ("snat", Some(*to)),
                RuleEffect::Changes => ("change", None),
            };
            let (forward, outbound) = match part {
                Some(SpecPart::Forward(name)) => (Some(name), None),
                Some(SpecPart::Outbound(name)) => (None, Some(name)),
                None => (None, None),
            };
            let mut value = rule(decided);
            value["kind"] = json!("rule");
            value["effect"] = json!(effect);
            value["to"] = json!(to.map(at));
            value["forward"] = json!(forward);
            value["outbound"] = json!(outbound);
            value
        }
    }
}

fn rule(decided: &DecidingRule) -> Value {
    let (backend, table, chain) = match &decided.holder {
        Holder::Iptables {
            backend,
            table,
            chain,
            ..
        } => (backend.to_string(), table.to_string(), chain.to_string()),
        Holder::Nft(chain) => {
            let table = format!("{} {}", chain.family, chain.table);
            ("nft".to_owned(), table, chain.name.clone())
        }
    };
    json!({
        "hook": decided.stage.as_str(),
        "backend": backend,
        "table": table,
        "chain": chain,
        "place": decided.live_place,
        "text": decided.text,
    })
}

fn cause(taken: &Taken, end: &TracedEnd) -> Value {
    let decided = match &taken.by {
        By::Rule(decided) | By::Policy(decided) => Some(rule(decided)),
        By::Kernel(_) | By::NoRule => None,
    };
    json!({
        "direction": match taken.direction {
            Direction::Request => "request",
            Direction::Reply => "reply",
        },
        "words": trace_text::why(Some(taken), end),
        "rule": decided,
    })
}
