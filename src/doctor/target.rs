//! Behind the rules: the SNAT address, the way to the target, and whether it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::{Case, Check, Hop, Status};
use crate::flow::{Flow, stale};
use crate::listeners::Listeners;
use crate::net::Protocol;
use crate::probe::{Outcome, Probed};
use crate::spec::{Forward, Snat};

pub fn check(case: &Case<'_>, checks: &mut Vec<Check>) {
    checks.push(snat_address(case));
    let mut seen: BTreeSet<Ipv4Addr> = BTreeSet::new();
    for forward in &case.asked {
        if seen.insert(forward.target.address) {
            way(case, forward, checks);
        }
    }
    targets(case, checks);
    replies(case, checks);
    stale_connections(case, checks);
}

fn snat_address(case: &Case<'_>) -> Check {
    let firewall = &case.set.firewall;
    let egress = &firewall.egress;
    let Snat::Address(address) = firewall.snat else {
        return Hop::SnatAddress.ok(format!("masquerading as what {egress} has"));
    };
    match case.facts.links.owner(address) {
        Some(link) if link.name == egress.as_str() => {
            Hop::SnatAddress.ok(format!("{address} is {egress}'s"))
        }
        Some(link) => Hop::SnatAddress.warn(format!(
            "{address} is {}'s, while targets are reached by {egress}: the network may not bring \
             replies back to it",
            link.name
        )),
        None => Hop::SnatAddress
            .fail(format!(
                "{address} is no address of this machine: replies to it do not come back"
            ))
            .fix(format!(
                "correct `snat` in the spec (`masquerade` takes what {egress} has), then sudo nvactl apply"
            )),
    }
}

fn way(case: &Case<'_>, forward: &Forward, checks: &mut Vec<Check>) {
    let (to, egress) = (forward.target.address, &case.set.firewall.egress);
    let Some(route) = case.facts.routes.get(&to) else {
        return;
    };
    let route = match route {
        Ok(route) => route,
        Err(words) => {
            let fail = Hop::Route.fail(format!("there is no way to {to}: {words}"));
            let fix = format!("sudo ip route add {to}/32 via ROUTER dev {egress}");
            checks.push(fail.fix(fix).of(forward));
            return;
        }
    };
    let out = &route.interface;
    if out != egress.as_str() {
        let reason = format!(
            "the way to {to} leaves by {out}, while the spec's egress is {egress}: \
             nvactl's rules ask for that"
        );
        let fix = format!(
            "correct `egress` in the spec, or sudo ip route add {to}/32 via ROUTER dev {egress}"
        );
        checks.push(Hop::Route.fail(reason).fix(fix).of(forward));
        return;
    }
    let via = route
        .gateway
        .map_or(String::new(), |gateway| format!(" via {gateway}"));
    checks.push(
        Hop::Route
            .ok(format!("{to} is reached by {out}{via}"))
            .of(forward),
    );
    let hop = route.gateway.unwrap_or(to);
    checks.push(match route.neighbour.as_deref() {
        Some("FAILED" | "INCOMPLETE") => Hop::Neighbour
            .fail(format!(
                "{hop} does not answer on {out}: nobody there has that address"
            ))
            .fix(format!(
                "sudo ip neigh show dev {out}; is {hop} the right router, and up?"
            ))
            .of(forward),
        Some(state) => Hop::Neighbour
            .ok(format!("{hop} is known on {out} ({state})"))
            .of(forward),
        None => Hop::Neighbour
            .ok(format!("{hop} needs no hardware address on {out}"))
            .of(forward),
    });
}

fn targets(case: &Case<'_>, checks: &mut Vec<Check>) {
    // They stand in the order of the spec, all of a forward's together.
    let of_one =
        |a: &Probed<'_>, b: &Probed<'_>| std::ptr::eq(a.endpoint.forward, b.endpoint.forward);
    for probed in case.facts.probed.chunk_by(of_one) {
        let forward = probed[0].endpoint.forward;
        let tried: Vec<_> = probed
            .iter()
            .filter_map(|probed| Some((probed.endpoint.port, probed.outcome()?)))
            .collect();
        let (good, bad): (Vec<_>, Vec<_>) =
            tried.iter().partition(|(_, outcome)| outcome.is_good());
        let Some((port, outcome)) = bad.first().or(good.first()) else {
            continue;
        };
        let to = format!("{}:{port}", forward.target.address);
        let more = match bad.len().saturating_sub(1) {
            0 => String::new(),
            more => format!(" (and {more} more of its ports)"),
        };
        let mut check = judged(forward, &to, outcome, &more);
        // Of a range, not every port need be in use.
        if check.status == Status::Fail && !good.is_empty() {
            check.status = Status::Warn;
            check.reason = format!("{}; {} of its ports answer", check.reason, good.len());
        }
        checks.push(check.of(forward));
    }
}

fn judged(forward: &Forward, to: &str, outcome: &Outcome, more: &str) -> Check {
    let look = |what: &str| format!("on the target: {what}");
    match outcome {
        Outcome::Open(time) => Hop::Target.ok(format!(
            "{to} answers from here after {:.1} ms",
            time.as_secs_f64() * 1000.0
        )),
        Outcome::Unanswered => Hop::Target.ok(format!(
            "{to} did not refuse a datagram; whether it heard it is not known"
        )),
        Outcome::Refused => Hop::Target
            .fail(format!(
                "{to} refuses{more}: the target is up, but nothing listens there"
            ))
            .fix(look(match forward.protocol {
                Protocol::Tcp => "ss -ltn; is it the Service's port, or the pod's?",
                Protocol::Udp => "ss -lun; is it the Service's port, or the pod's?",
            })),
        Outcome::TimedOut => Hop::Target
            .fail(format!(
                "{to} does not answer{more}: the target, or something on the way, drops silently, \
                 or has no way back"
            ))
            .fix(look(
                "its own firewall and NetworkPolicy, and its route back to this machine",
            )),
        Outcome::Unreachable => Hop::Target
            .fail(format!(
                "{to} is unreachable, says a router on the way{more}: the target is down, or its \
                 address is wrong"
            ))
            .fix("kubectl get pods -o wide; kubectl get service: is the target's address right?"),
        Outcome::Unexpected(words) | Outcome::Failed(words) => {
            Hop::Target.unknown(format!("{to} could not be tried{more}: {words}"))
        }
    }
}

/// Connections that went through and were never answered.
fn replies(case: &Case<'_>, checks: &mut Vec<Check>) {
    let Some(flows) = &case.facts.flows else {
        let unknown = Hop::Reply.unknown("connections cannot be listed");
        checks.push(unknown.fix("sudo apt-get install conntrack"));
        return;
    };
    let listeners = Listeners::new(case.set);
    let mut led: BTreeMap<&str, (Vec<&Flow>, Vec<&Flow>)> = BTreeMap::new();
    for flow in flows {
        if let Some(leader) = flow.leader(&listeners) {
            let (replied, silent) = led.entry(leader.name.as_str()).or_default();
            if flow.replied { replied } else { silent }.push(flow);
        }
    }
    for forward in &case.asked {
        let Some((replied, silent)) = led.get(forward.name.as_str()) else {
            continue;
        };
        let check = match (replied.len(), silent.first(), forward.protocol) {
            (0, Some(flow), Protocol::Tcp) => Hop::Reply
                .fail(format!(
                    "none of {} connections was answered, such as {}'s",
                    silent.len(),
                    flow.source
                ))
                .fix("on the target: its route back to this machine, and its own firewall"),
            // Some protocols send and hear nothing.
            (0, Some(_), Protocol::Udp) => Hop::Reply.ok(format!(
                "{} senders, none of which was answered yet",
                silent.len()
            )),
            (some, ..) => Hop::Reply.ok(format!("{some} connections are answered")),
        };
        checks.push(check.of(forward));
    }
}

fn stale_connections(case: &Case<'_>, checks: &mut Vec<Check>) {
    let Some(flows) = &case.facts.flows else {
        return;
    };
    let mut found: Vec<&Flow> = stale(flows, &case.facts.once, case.set).collect();
    if case.asked.len() < case.set.forwards.len() {
        found.retain(|flow| {
            let listens = |forward: &&&Forward| {
                forward.protocol == flow.protocol
                    && forward.listen.ports.contains(flow.destination_port)
            };
            case.asked.iter().any(|forward| listens(&forward))
        });
    }
    checks.push(match found.first() {
        None => Hop::StaleConnection.ok("no connection follows an older rule"),
        Some(flow) => Hop::StaleConnection
            .fail(format!(
                "{} connections still go where no forward leads any more, such as {} {} → {}:{} → {}:{}",
                found.len(),
                flow.protocol,
                flow.source,
                flow.destination,
                flow.destination_port,
                flow.reply_source,
                flow.reply_port
            ))
            .fix("sudo nvactl apply --flush-stale"),
    });
}
