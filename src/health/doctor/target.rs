//! Behind the rules: the SNAT address, the way to the target, and whether it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::facts::arriving;
use super::{Case, Check, Hop, Status, answers};
use crate::forwards::Listeners;
use crate::forwards::{Destination, Forward, Snat};
use crate::health::connections::stale;
use crate::health::probe::Probed;
use crate::health::sender::senders;
use crate::host::network;
use crate::host::network::{Packet, Route};
use crate::host::probe::Outcome;
use crate::net::words::counted;
use crate::net::{Host, Interface, Protocol};
use crate::netfilter::conntrack::Flow;
use crate::plan::unplan::Key;

pub fn check(case: &Case<'_>, astray: &Astray, checks: &mut Vec<Check>) {
    snat_addresses(case, astray, checks);
    let mut seen: BTreeSet<(&Interface, IpAddr, &Interface)> = BTreeSet::new();
    for forward in &case.asked {
        let mut of_forward = Vec::new();
        for (ingress, to) in ways(forward) {
            // Nothing else is said of one that strays.
            if seen.insert((ingress, to, &forward.egress)) || astray.has(forward) {
                way(case, astray, (forward, ingress, to), &mut of_forward);
            }
        }
        // Several interfaces may lead astray alike.
        of_forward.dedup();
        checks.append(&mut of_forward);
    }
    targets(case, astray, checks);
    replies(case, checks);
    stale_connections(case, checks);
}

/// Each source that targets see, once.
fn snat_addresses(case: &Case<'_>, astray: &Astray, checks: &mut Vec<Check>) {
    let seen: BTreeSet<(Snat, &Interface)> = case
        .asked
        .iter()
        .filter(|forward| !astray.has(forward))
        .map(|forward| (forward.snat, &forward.egress))
        .collect();
    for (snat, egress) in seen {
        match snat {
            Snat::Masquerade => {
                let words = format!("masquerading as what {egress} has");
                checks.push(Hop::SnatAddress.ok(words));
            }
            Snat::Client => {
                let words = "targets see the client's own address: \
                             their routes to clients must lead back through this machine";
                checks.push(Hop::SnatAddress.unknown(words).fix(
                    "on a target: ip route get CLIENT; on Azure: a route table on its subnet with \
                     this machine as the next hop",
                ));
            }
            Snat::Addresses(range) => {
                checks.push(snat_address(case, range.first(), egress));
                if range.single().is_none() {
                    checks.push(snat_address(case, range.last(), egress));
                }
            }
        }
    }
}

fn snat_address(case: &Case<'_>, address: IpAddr, egress: &Interface) -> Check {
    let fix = || {
        format!(
            "correct `snat` in the spec (`masquerade` takes what {egress} has), then {}",
            case.apply
        )
    };
    match case.facts.links.owner(address) {
        _ if case.facts.links.0.is_empty() => {
            Hop::SnatAddress.unknown("the machine's addresses cannot be listed")
        }
        Some(link) if link.name == egress.as_str() => {
            Hop::SnatAddress.ok(format!("{address} is {egress}'s"))
        }
        // The network may well route such an address here.
        Some(link) if link.name == "lo" => {
            Hop::SnatAddress.warn(format!("{address} is lo's: is it routed to this machine?"))
        }
        Some(link) => Hop::SnatAddress
            .fail(format!(
                "{address} is {}'s, while targets are reached by {egress}: replies to it go elsewhere",
                link.name
            ))
            .fix(fix()),
        None => Hop::SnatAddress
            .fail(format!(
                "{address} is no address of this machine: replies to it do not come back"
            ))
            .fix(fix()),
    }
}

/// The ingress interfaces and targets of a forward, each with each.
fn ways(forward: &Forward) -> impl Iterator<Item = (&Interface, IpAddr)> {
    let targets = &forward.target.destinations;
    let ingresses = forward.ingress.iter();
    ingresses.flat_map(move |ingress| targets.iter().map(move |to| (ingress, to.address)))
}

/// The forwards to a target of which the live route leaves by another interface than the spec's egress. Then
/// nvactl's rules cannot match, and the rest of what is found about such a forward follows from that.
#[derive(Debug, Default)]
pub struct Astray(BTreeSet<*const Forward>);

impl Astray {
    /// Finds them. A mark may lead packets to the egress all the same: then every connection passes.
    #[must_use]
    pub fn of(case: &Case<'_>) -> Self {
        let strays = |forward: &Forward| {
            ways(forward).any(|(ingress, to)| {
                let route = route(case, ingress, to).and_then(|route| route.as_ref().ok());
                route.is_some_and(|route| route.interface != forward.egress.as_str())
            })
        };
        let asked = case.asked.iter().copied();
        let found: Vec<&Forward> = asked.filter(|forward| strays(forward)).collect();
        if found.is_empty() {
            return Self::default();
        }
        let passing = answers::passing(case.facts.answers);
        let found = found.into_iter().map(std::ptr::from_ref);
        Self(found.filter(|forward| !passing.contains(forward)).collect())
    }

    #[must_use]
    pub fn has(&self, forward: &Forward) -> bool {
        self.0.contains(&std::ptr::from_ref(forward))
    }
}

/// Returns how the kernel routes a client's packet; or the machine's own, where it answers nothing for those.
fn route<'c>(
    case: &'c Case<'_>,
    ingress: &'c Interface,
    to: IpAddr,
) -> Option<&'c Result<Route, String>> {
    let facts = case.facts;
    let of = |came| facts.routes.get(&Packet { to, came });
    // Without forwarding, or for one whom rp_filter keeps out, it says no for that reason.
    let own_address = facts.links.addresses(ingress).first();
    let arrives = own_address.is_some_and(|address| {
        let packet = arriving(*address, facts.client, ingress);
        matches!(facts.routes.get(&packet), Some(Ok(_)))
    });
    let forwards = facts.ip_forward && facts.forwards_from.get(ingress) != Some(&false);
    let of_client = of(Some((facts.client.address, ingress)));
    of_client.filter(|_| arrives && forwards).or(of(None))
}

fn way(
    case: &Case<'_>,
    astray: &Astray,
    (forward, ingress, to): (&Forward, &Interface, IpAddr),
    checks: &mut Vec<Check>,
) {
    let egress = &forward.egress;
    let route = match route(case, ingress, to) {
        None => return,
        Some(Ok(route)) => route,
        Some(Err(words)) => {
            let fail = Hop::Route.fail(format!("there is no way to {to}: {words}"));
            let fix = format!("sudo ip route replace {to} via ROUTER dev {egress}");
            checks.push(fail.fix(fix).of(forward));
            return;
        }
    };
    let out = &route.interface;
    if out != egress.as_str() {
        let is_down = case.facts.links.get(egress).is_some_and(|link| !link.up);
        if !astray.has(forward) || is_down {
            return;
        }
        let reason = format!(
            "the way to {to} leaves by {out}, while the spec's egress is {egress}: \
             nvactl's rules ask for that"
        );
        let fix = format!(
            "correct `egress` in the spec, or sudo ip route replace {to} via ROUTER dev {egress}"
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
    let link = case.facts.links.get(egress);
    let is_dark = link.is_some_and(|link| link.enabled && !link.up);
    checks.push(match route.neighbour.as_deref() {
        Some("FAILED" | "INCOMPLETE") if is_dark => Hop::Neighbour
            .fail(format!("{hop} cannot be asked: {out} has no carrier"))
            .fix(format!("to look: ip -details link show {out}"))
            .of(forward),
        Some("FAILED" | "INCOMPLETE") => Hop::Neighbour
            .fail(format!(
                "{hop} does not answer on {out}: nobody there has that address"
            ))
            .fix(match route.gateway {
                Some(_) => format!("is {hop} the right router, and up? sudo ip route get {to}"),
                None => format!("is {hop} up, and on the network of {out}? sudo ip route get {to}"),
            })
            .of(forward),
        Some(state) => Hop::Neighbour
            .ok(format!("{hop} is known on {out} ({state})"))
            .of(forward),
        None => Hop::Neighbour
            .ok(format!("{hop} needs no hardware address on {out}"))
            .of(forward),
    });
}

fn targets(case: &Case<'_>, astray: &Astray, checks: &mut Vec<Check>) {
    let each = probed(case).into_iter();
    let here = each.filter(|(forward, _)| !astray.has(forward));
    checks.extend(here.map(|(forward, check)| check.of(forward)));
}

/// Returns the forwards of which a target does not answer this machine.
pub fn silent(case: &Case<'_>) -> BTreeSet<*const Forward> {
    let each = probed(case).into_iter();
    let silent = each.filter(|(_, check)| check.status == Status::Fail);
    silent
        .map(|(forward, _)| std::ptr::from_ref(forward))
        .collect()
}

/// Judges each target of each forward by the connections that this machine opened itself.
fn probed<'c>(case: &Case<'c>) -> Vec<(&'c Forward, Check)> {
    let mut checks = Vec::new();
    // They stand in the order of the spec, all of a forward's together.
    let of_one = |a: &Probed<'_>, b: &Probed<'_>| {
        std::ptr::eq(a.endpoint.forward, b.endpoint.forward) && a.endpoint.to == b.endpoint.to
    };
    for probed in case.facts.probed.chunk_by(of_one) {
        let (forward, to) = (probed[0].endpoint.forward, probed[0].endpoint.to);
        let Some(at) = to else {
            continue;
        };
        let tried: Vec<_> = probed
            .iter()
            .filter_map(|probed| Some((probed.endpoint.port, probed.outcome()?)))
            .collect();
        let (good, bad): (Vec<_>, Vec<_>) =
            tried.iter().partition(|(_, outcome)| outcome.is_good());
        let Some((port, outcome)) = bad.first().or(good.first()) else {
            continue;
        };
        let to = format!("{}:{port}", Host(at.address));
        let more = match bad.len().saturating_sub(1) {
            0 => String::new(),
            more => format!(" (and {more} more of its ports)"),
        };
        let mut check = judged(forward, &to, outcome, &more);
        let is_untried = matches!(outcome, Outcome::Failed(_));
        let kept_in = if check.status == Status::Fail || is_untried {
            kept_in(case, forward, at)
        } else {
            None
        };
        if kept_in.is_none() && is_untried {
            check = check.fix(from_a_client(case, forward));
        }
        if let Some(words) = kept_in {
            // It says nothing of the target, nor of those that are forwarded.
            check = Hop::Target
                .unknown(format!("{to}: {words}"))
                .fix(from_a_client(case, forward));
        }
        // Of a range, not every port need be in use.
        if check.status == Status::Fail && !good.is_empty() {
            check.status = Status::Warn;
            let do_so = match forward.protocol {
                Protocol::Tcp => "answer",
                Protocol::Udp => "refuse nothing",
            };
            check.reason = format!("{}; its ports that {do_so}: {}", check.reason, good.len());
        }
        checks.push((forward, check));
    }
    checks
}

/// The command that tries a forward from where its clients are.
fn from_a_client(case: &Case<'_>, forward: &Forward) -> String {
    let links = &case.facts.links;
    let mut own = forward
        .ingress
        .iter()
        .flat_map(|name| links.addresses(name));
    let address = forward.listen.address.or_else(|| own.next().copied());
    let address = address.map_or("ADDRESS".to_owned(), |address| Host(address).to_string());
    format!("from a client: nvactl probe --via {address}")
}

/// Why the machine's own connection to a target tells nothing of those that are forwarded: it takes another
/// route, or it does not come through in the copy of the machine either, where every target answers.
fn kept_in(case: &Case<'_>, forward: &Forward, to: &Destination) -> Option<String> {
    let own = network::Packet {
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
                "{hop} does not answer on {} (see neighbour)",
                route.interface
            ));
        }
        Some(Err(_)) => {
            let words = "not asked: this machine cannot reach the target itself (see above)";
            return Some(words.to_owned());
        }
        Some(Ok(route)) if route.interface == forward.egress.as_str() => {}
        _ => {
            return untried("the machine's own packets take another route than those of clients");
        }
    }
    let answers = case.facts.answers.as_ref().ok()?;
    untried(&answers.kept_in(forward, to.address)?)
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
                "{to} is unreachable{more}: the target is down, its address is wrong, or a firewall there rejects it \
                 (`administratively prohibited`)"
            ))
            .fix(
                "kubectl get pods -o wide; kubectl get service: is the target's address right? On the target: its \
                 firewall, or kubectl get networkpolicy -A",
            ),
        Outcome::Unexpected(words) => Hop::Target
            .warn(format!(
                "{to} {words}{more}: what listens there may have nothing behind it that is ready"
            ))
            .fix(look(
                "the service's own log; of a Service or load balancer: kubectl get endpointslices",
            )),
        Outcome::Failed(words) => {
            let unknown = format!("{to} could not be tried{more}: {words}");
            Hop::Target.unknown(unknown)
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
    let mut led: BTreeMap<Key<'_>, (Vec<&Flow>, Vec<&Flow>)> = BTreeMap::new();
    for flow in flows {
        if let Some(leader) = listeners.leader(flow) {
            let key = (leader.name.as_str(), leader.protocol);
            let (replied, silent) = led.entry(key).or_default();
            if flow.replied { replied } else { silent }.push(flow);
        }
    }
    for forward in &case.asked {
        let key = (forward.name.as_str(), forward.protocol);
        let Some((replied, silent)) = led.get(&key) else {
            continue;
        };
        let check = match (replied.len(), silent.first(), forward.protocol) {
            (0, Some(flow), Protocol::Tcp) => Hop::Reply
                .found(
                    unanswered(case, forward),
                    match silent.len() {
                        1 => format!(
                            "the one connection open now ({}) has had no answer",
                            flow.source
                        ),
                        all => format!(
                            "none of {all} connections open now has had an answer, such as {}'s",
                            flow.source
                        ),
                    },
                )
                .fix("on the target: its route back to this machine, and its own firewall"),
            // Some protocols send and hear nothing.
            (0, Some(_), Protocol::Udp) => Hop::Reply.ok(format!(
                "{}, none of which was answered yet",
                counted(silent.len(), "sender")
            )),
            (1, ..) => Hop::Reply.ok("1 connection is answered"),
            (some, ..) => Hop::Reply.ok(format!("{some} connections are answered")),
        };
        checks.push(check.of(forward));
    }
}

/// A target that answers from here may only just have been mended.
fn unanswered(case: &Case<'_>, forward: &Forward) -> Status {
    let mut probed = case.facts.probed.iter();
    let good =
        |probed: &Probed<'_>| std::ptr::eq(probed.endpoint.forward, forward) && probed.is_good();
    if probed.any(good) {
        Status::Warn
    } else {
        Status::Fail
    }
}

fn stale_connections(case: &Case<'_>, checks: &mut Vec<Check>) {
    let Some(flows) = &case.facts.flows else {
        return;
    };
    let listeners = Listeners::new(case.set);
    let asked = case.asked.iter();
    let asked: BTreeSet<Key<'_>> = asked
        .map(|forward| (forward.name.as_str(), forward.protocol))
        .collect();
    let taker =
        |flow: &Flow| listeners.taker(flow.protocol, flow.destination, flow.destination_port);
    let is_asked = |flow: &&Flow| match taker(flow) {
        Some(forward) => asked.contains(&(forward.name.as_str(), forward.protocol)),
        // Where no forward listens any more, it concerns none.
        None => asked.len() == case.set.forwards.len(),
    };
    let old = stale(flows, &case.facts.once, case.set);
    let facts = case.facts;
    let senders = senders(flows, case.set, &facts.links, &facts.answer_routes);
    let senders = senders.iter().map(|sender| sender.flow);
    let found: Vec<&Flow> = old.chain(senders).filter(is_asked).collect();
    // An old connection of TCP ends by itself; a sender of UDP begins no new one.
    let steady = found.iter().find(|flow| flow.protocol == Protocol::Udp);
    let Some(flow) = steady.or(found.first()) else {
        checks.push(Hop::StaleConnection.ok("no connection follows an older rule"));
        return;
    };
    let status = if steady.is_some() {
        Status::Fail
    } else {
        Status::Warn
    };
    let reason = format!(
        "{} still {} as before the rules that are loaded now, such as {} {} → {}:{} → {}:{}",
        if found.len() == 1 {
            "1 connection".to_owned()
        } else {
            format!("{} connections", found.len())
        },
        if found.len() == 1 { "goes" } else { "go" },
        flow.protocol,
        flow.source,
        flow.destination,
        flow.destination_port,
        flow.reply_source,
        flow.reply_port
    );
    let fix = format!("{} --flush-stale", case.apply);
    checks.push(Hop::StaleConnection.found(status, reason).fix(fix));
}
