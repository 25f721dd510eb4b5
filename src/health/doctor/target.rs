//! Checks whether the targets accept connections from this machine.

use std::collections::BTreeSet;

use super::route::Astray;
use super::{Case, Check, Fix, Hop, Status};
use crate::forwards::{Destination, Forward, Snat, TargetKind};
use crate::health::probe::{Endpoint, Probed};
use crate::host::network::{Packet, Route};
use crate::host::probe::ProbeOutcome;
use crate::net::words::counted;
use crate::net::{Host, Protocol};

pub fn check(case: &Case<'_>, astray: &Astray, checks: &mut Vec<Check>) {
    let each = probed(case).into_iter();
    let here = each.filter(|one| !astray.has(one.forward));
    checks.extend(here.map(|one| one.check.of(one.forward)));
}

/// Returns the forwards with a target that does not accept connections of this machine.
pub fn silent(case: &Case<'_>) -> BTreeSet<*const Forward> {
    let each = probed(case).into_iter();
    let silent = each.filter(|one| one.check.status == Status::Fail);
    silent.map(|one| std::ptr::from_ref(one.forward)).collect()
}

/// Whether a target fails because it refuses connections, which it can do only if packets reach it.
pub fn refuses(case: &Case<'_>, astray: &Astray) -> bool {
    let each = probed(case);
    let mut here = each.iter().filter(|one| !astray.has(one.forward));
    here.any(|one| one.check.status == Status::Fail && *one.outcome == ProbeOutcome::Refused)
}

/// The outcome of a target's ports, and its check.
struct TargetCheck<'c> {
    forward: &'c Forward,
    /// The first outcome that is not good, else the first one.
    outcome: &'c ProbeOutcome,
    check: Check,
}

/// Judges each target of each forward by the connections that this machine opened itself.
fn probed<'c>(case: &Case<'c>) -> Vec<TargetCheck<'c>> {
    let mut checks = Vec::new();
    // The probes are in the order of the spec, so one target's ports are neighbours.
    let of_one = |a: &Probed<'_>, b: &Probed<'_>| {
        let (a, b) = (a.endpoint, b.endpoint);
        let (one, other) = (a.forward, b.forward);
        one.name == other.name && one.protocol == other.protocol && a.to == b.to
    };
    for probed in case.facts.probed.chunk_by(of_one) {
        let Some(at) = probed[0].endpoint.to else {
            continue;
        };
        let tried: Vec<_> = probed
            .iter()
            .filter_map(|probed| Some((probed.endpoint, probed.outcome()?)))
            .collect();
        let (good, bad): (Vec<_>, Vec<_>) =
            tried.iter().partition(|(_, outcome)| outcome.is_good());
        let Some(&(endpoint, outcome)) = bad.first().or(good.first()).copied() else {
            continue;
        };
        let (forward, port) = (endpoint.forward, endpoint.port);
        let to = format!("{}:{port}", Host(at.address));
        let more = match bad.len().saturating_sub(1) {
            0 => String::new(),
            more => format!(" (and {})", counted(more, "more port")),
        };
        let mut check = judged(case, forward, &to, outcome, &more);
        let is_untried = matches!(outcome, ProbeOutcome::Failed(_));
        let kept_in = if check.status == Status::Fail || is_untried {
            kept_in(case, forward, at)
        } else {
            None
        };
        if kept_in.is_none() && is_untried {
            check = check.fix(from_a_client(case, forward));
        }
        if let Some(words) = kept_in {
            // The outcome says nothing about the target or about forwarded packets.
            check = Hop::Target
                .unknown(format!("{to} {words}"))
                .fix(from_a_client(case, forward));
        }
        // Not every port of a range need be in use, but some port of each listener.
        let is_used = |(endpoint, _): &&(Endpoint<'_>, _)| {
            let mut good = good.iter();
            good.any(|(used, _)| std::ptr::eq(used.forward, endpoint.forward))
        };
        if check.status == Status::Fail && bad.iter().all(is_used) {
            check.status = Status::Warn;
            let others = counted(good.len(), "other port");
            let do_so = match (forward.protocol, good.len()) {
                (Protocol::Tcp, 1) => "answers",
                (Protocol::Tcp, _) => "answer",
                (Protocol::Udp, 1) => "does not refuse",
                (Protocol::Udp, _) => "do not refuse",
            };
            check.reason = format!("{}; {others} {do_so}", check.reason);
        }
        checks.push(TargetCheck {
            forward,
            outcome,
            check,
        });
    }
    checks
}

/// Returns the command that tries a forward from a client.
fn from_a_client(case: &Case<'_>, forward: &Forward) -> Fix {
    let links = &case.facts.links;
    let mut own = forward
        .ingress
        .iter()
        .flat_map(|name| links.addresses(name));
    let address = forward.listen.address.or_else(|| own.next().copied());
    let address = address.map_or("ADDRESS".to_owned(), |address| Host(address).to_string());
    Fix::to_look_at("on a client", format!("nvactl probe SPEC --via {address}"))
}

/// Returns the command that shows a target's route back to the source of its packets.
pub fn route_back(case: &Case<'_>, forward: &Forward) -> String {
    let source = match forward.snat {
        Snat::Addresses(range) => Some(range.first()),
        Snat::Masquerade => case.facts.links.addresses(&forward.egress).first().copied(),
        Snat::Client => None,
    };
    let source = source.map_or("CLIENT".to_owned(), |source| source.to_string());
    format!("ip route get {source}")
}

/// Says why the machine's own connection to a target says nothing about forwarded connections: it takes another
/// route, or it does not come through in the copy of the machine either, where every target answers.
fn kept_in(case: &Case<'_>, forward: &Forward, to: &Destination) -> Option<String> {
    let own = Packet {
        to: to.address,
        came: None,
    };
    let untried = |words: &str| Some(format!("cannot be tried from here: {words}"));
    let is_dead =
        |route: &Route| matches!(route.neighbour.as_deref(), Some("FAILED" | "INCOMPLETE"));
    match case.facts.routes.get(&own) {
        Some(Ok(route)) if is_dead(route) => {
            let hop = Host(route.gateway.unwrap_or(to.address));
            return untried(&format!(
                "{hop} does not answer on {} (see `neighbour`)",
                route.interface
            ));
        }
        Some(Err(_)) => {
            let words = "was not tried: this machine has no route to it (see `route`)";
            return Some(words.to_owned());
        }
        Some(Ok(route)) if route.interface == forward.egress.as_str() => {}
        _ => {
            return untried(
                "this machine's own packets take another route than packets of clients",
            );
        }
    }
    let answers = case.facts.answers.as_ref().ok()?;
    untried(&answers.kept_in(forward, to.address)?)
}

fn timed_out(case: &Case<'_>, forward: &Forward, to: &str, more: &str) -> Check {
    let drops = "the target or a firewall on the path drops the packets";
    let look = Fix::to_look_at(
        "on the target, at its firewall, its NetworkPolicy and its route back",
        route_back(case, forward),
    );
    match forward.target.kind {
        TargetKind::Ilb => Hop::Target
            .fail(format!(
                "{to} does not answer{more}: {drops}, or the target has no route back"
            ))
            .fix(look),
        TargetKind::Pod => Hop::Target
            .fail(format!(
                "{to} does not answer{more}: {drops}, the target has no route back, or no host has this address (a \
                 replaced pod has a new one)"
            ))
            .fix(look.or(Fix::to_look_at(
                "whether a pod has this address",
                "kubectl get pods --all-namespaces -o wide",
            ))),
    }
}

fn judged(
    case: &Case<'_>,
    forward: &Forward,
    to: &str,
    outcome: &ProbeOutcome,
    more: &str,
) -> Check {
    match outcome {
        ProbeOutcome::Open(time) => Hop::Target.ok(format!(
            "{to} answered this machine after {:.1} ms",
            time.as_secs_f64() * 1000.0
        )),
        ProbeOutcome::Unanswered => Hop::Target.ok(format!(
            "{to} did not refuse a datagram, and did not answer it"
        )),
        ProbeOutcome::Refused => Hop::Target
            .fail(format!(
                "{to} refuses {}{more}: the target is up, but nothing listens on that port",
                match forward.protocol {
                    Protocol::Tcp => "connections",
                    Protocol::Udp => "datagrams",
                }
            ))
            .fix(Fix::to_look_at(
                "on the target (a pod's port may differ from its Service's)",
                match forward.protocol {
                    Protocol::Tcp => "ss -ltn",
                    Protocol::Udp => "ss -lun",
                },
            )),
        ProbeOutcome::TimedOut => timed_out(case, forward, to, more),
        ProbeOutcome::Unreachable => Hop::Target
            .fail(format!(
                "{to} is unreachable{more}: the target is down, its address is wrong, or a firewall there rejects \
                 the packets (`administratively prohibited`)"
            ))
            .fix(Fix::to_look_at(
                "at the target's firewall, its NetworkPolicy and its address",
                "kubectl get pods,services,networkpolicies --all-namespaces -o wide",
            )),
        ProbeOutcome::Unexpected(words) => Hop::Target
            .warn(format!(
                "{to} {words}{more}: the listener there may have no ready endpoint behind it"
            ))
            .fix(Fix::to_look_at(
                "at the server's log and the endpoints of a Service or load balancer",
                "kubectl get endpointslices --all-namespaces",
            )),
        ProbeOutcome::Failed(words) => {
            let unknown = format!("{to} could not be tried{more}: {words}");
            Hop::Target.unknown(unknown)
        }
    }
}
