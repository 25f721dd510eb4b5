//! Turns a verdict of the twin into checks: the hop that took a connection, and the remedy that was tried.

use ipnet::IpNet;

use super::words::{rule, took};
use crate::forwards::{GUARDED, Outbound};
use crate::health::doctor::answers::Answers;
use crate::health::doctor::outbound;
use crate::health::doctor::remedy::{self, Remedy};
use crate::health::doctor::route;
use crate::health::doctor::scene::Scene;
use crate::health::doctor::{Check, Fix, Hop, Status};
use crate::net::{Family, Port};
use crate::netfilter::backend::Backend;
use crate::netfilter::names::{ChainName, TableName};
use crate::twin::battery::{Ask, Subject};
use crate::twin::cause::{By, DecidingRule, Direction, Fate, Holder, KernelReason};
use crate::twin::clients::ClientKind;
use crate::twin::verdict::{Blame, Death, Examination, Verdict};

/// Returns the checks for a verdict; none if the connection did as the spec says.
pub fn told(
    scene: &Scene<'_>,
    answers: &Answers<'_>,
    ask: &Ask<'_>,
    verdict: &Verdict,
) -> Vec<Check> {
    let said = match verdict {
        Verdict::AsWanted => return Vec::new(),
        Verdict::Dead(death) => return dead(scene, ask, death),
        Verdict::NotAsked => Hop::Packets
            .unknown("not tried: the time limit was reached first")
            .fix(more_time(scene)),
        Verdict::Failed(why) => Hop::Packets.unknown(format!(
            "not tried: the connection could not be opened in a copy of this machine: {why}"
        )),
        Verdict::Fickle(by) => fickle(scene.family, by.as_ref()),
        Verdict::Unknown(numbers) => {
            let rules: Vec<&str> = numbers
                .iter()
                .filter_map(|n| answers.watched.get(*n))
                .map(String::as_str)
                .collect();
            Hop::Packets.unknown(format!(
                "the packets reach a rule that a copy of this machine cannot evaluate: {}",
                rules.join("; ")
            ))
        }
        Verdict::Behind(interface) => behind(ask, interface),
        Verdict::Strayed(interface) => strayed(scene, ask, interface),
        Verdict::Source { seen, blame } => with_rule(
            scene,
            ask,
            blame,
            Hop::SnatRule,
            &format!(
                "the {} sees the source {seen}, while the spec says {}",
                ask.of.far_end(),
                ask.of.snat()
            ),
        ),
        Verdict::Elsewhere { at, blame } => with_rule(
            scene,
            ask,
            blame,
            Hop::DnatRule,
            &format!("the packets go to {at} instead of the {}", ask.of.far_end()),
        ),
        Verdict::LetIn(blame) => let_in(scene, ask, blame),
    };
    vec![said]
}

/// Names the interface by which packets leave, if it is not the spec's egress. Another check reports the plain
/// route to the target: here a mark or a rule of `ip rule` chose another route.
fn behind(ask: &Ask<'_>, interface: &str) -> Check {
    let (to, why) = match ask.of {
        Subject::Forward(forward) => (
            forward.reaches(),
            "a packet mark or a rule of `ip rule` routes them there, or `egress` is wrong",
        ),
        Subject::Outbound(_) => (
            ask.question.to.to_string(),
            "a route, a packet mark or a rule of `ip rule` leads there, or `interface` is wrong",
        ),
    };
    let check = Hop::Route.fail(format!(
        "packets to {to} leave through {interface}, while the spec's egress is {}: {why}",
        ask.of.egress()
    ));
    let look = ask.question.listeners.first().map(|target| {
        format!(
            "{} rule; ip route get {} from {} iif {}",
            route::ip(ask.of.family()),
            target.ip(),
            ask.client.address,
            ask.by
        )
    });
    match look {
        Some(look) => check.fix(Fix::to_look(look)),
        None => check,
    }
}

/// Names the rule that lets a client in although the lists keep it out. The client's name comes before this sentence.
fn let_in(scene: &Scene<'_>, ask: &Ask<'_>, blame: &Blame) -> Check {
    let what = match ask.of {
        Subject::Forward(forward) => {
            let is_denied = forward.sources.deny.contains(ask.client.address);
            format!("come through, although {}", of_source(is_denied))
        }
        Subject::Outbound(entry) => let_out(ask, entry),
    };
    let check = match (&blame.by, scene.put_in) {
        (Some(By::Rule(decided) | By::Policy(decided)), _) => {
            let rule = rule(scene.family, decided);
            hop_of(scene, decided).fail(format!("{what}: {rule} accepts them"))
        }
        (_, Some(line)) => {
            let words = "somebody added a line to nvactl's chains in";
            let check = Hop::OwnChains.fail(format!("{what}: {words} {line}"));
            check.fix(scene.apply)
        }
        (_, None) => Hop::Packets.fail(what),
    };
    let check = match ask.of {
        // Another program may forward these connections for its own purposes.
        Subject::Outbound(entry) if !is_guarded(ask, entry) => Check {
            status: Status::Warn,
            ..check
        },
        _ => check,
    };
    match &blame.cure {
        Some(cure) => with_remedy(check, remedy::of(scene, ask, cure, 1)),
        None => check,
    }
}

/// Names the list that keeps a source out.
fn of_source(is_denied: bool) -> &'static str {
    if is_denied {
        "`deny_from` lists them"
    } else {
        "`allow_from` does not list them"
    }
}

/// Names the destination that an outbound entry does not let a source reach, and the list that says so.
fn let_out(ask: &Ask<'_>, entry: &Outbound) -> String {
    let (from, to) = (ask.client.address, ask.question.to.ip());
    let list = if entry.deny_from.contains(from) || !entry.allow_from.contains(from) {
        of_source(entry.deny_from.contains(from))
    } else if entry.deny_to.contains(to) {
        "`deny_to` lists it"
    } else {
        "`allow_to` does not name it"
    };
    format!("reach {to}, although {list}")
}

/// Returns whether an outbound entry drops a connection whatever the policy is, or the connection leads to an address
/// of the platform.
fn is_guarded(ask: &Ask<'_>, entry: &Outbound) -> bool {
    let to = ask.question.to.ip();
    let port = Port::new(ask.question.to.port());
    let is_dropped =
        port.is_some_and(|port| entry.selects(ask.question.protocol, ask.client.address, to, port));
    is_dropped || GUARDED.contains(&to)
}

/// The command that runs the doctor again with more time.
fn more_time(scene: &Scene<'_>) -> String {
    format!("{} --deadline 120", scene.doctor)
}

fn fickle(family: Family, by: Option<&By>) -> Check {
    let words = "the same connection passes at one time and fails at another";
    Hop::Packets.unknown(match by {
        Some(By::Rule(decided) | By::Policy(decided)) => format!(
            "{words}: when it fails, {} stops the packets",
            rule(family, decided)
        ),
        Some(By::Kernel(reason)) => {
            format!("{words}: when it fails, a packet {}", reason.words())
        }
        Some(By::NoRule) | None => words.to_owned(),
    })
}

/// Names the interface by which replies leave. The fix prints no command that adds a route, because a route for
/// all clients would also move the machine's other packets.
fn strayed(scene: &Scene<'_>, ask: &Ask<'_>, interface: &str) -> Check {
    if let (Subject::Outbound(entry), Some((net, route))) = (ask.of, route_back(ask)) {
        // The spec says that these sources are behind the interface, so its route is missing.
        let words = format!(
            "replies to sources in {net}, which arrive on {}, leave through {interface}, and the network may drop them",
            ask.by
        );
        let edit = outbound::correct_interface(entry, scene.apply);
        return Hop::Route.fail(words).fix(route.or(edit));
    }
    let words = format!(
        "replies to clients that arrive on {by} leave through {interface}, and the network may drop them: the machine \
         needs a route to those clients through {by}, or a separate routing table for connections that arrive on {by}",
        by = ask.by,
    );
    let target = ask.question.listeners.first();
    let look = target.map(|target| {
        format!(
            "ip route get CLIENT from {} iif {}",
            target.ip(),
            ask.of.egress()
        )
    });
    let check = Hop::RpFilter.warn(words);
    match look {
        Some(look) => check.fix(Fix::to_look(look)),
        None => check,
    }
}

/// Returns a network of an entry's `allow_from` whose source was tried, and the fix that leads replies to it back
/// through the ingress interface. `None` for a client of a forward: its network is not in the spec.
fn route_back(ask: &Ask<'_>) -> Option<(IpNet, Fix)> {
    let (Subject::Outbound(_), ClientKind::Listed(net)) = (ask.of, &ask.client.kind) else {
        return None;
    };
    let ip = route::ip(ask.of.family());
    let command = format!("sudo {ip} route replace {net} via ROUTER dev {}", ask.by);
    let condition = "if the route to these sources is wrong or missing";
    let fix = Fix::only_if(condition, command).with_router_on(ask.by);
    Some((*net, fix))
}

/// Names the rule that changed a connection's packets.
fn with_rule(scene: &Scene<'_>, ask: &Ask<'_>, blame: &Blame, otherwise: Hop, what: &str) -> Check {
    let (hop, words, is_contested) = match &blame.by {
        Some(By::Rule(decided) | By::Policy(decided)) => (
            hop_of(scene, decided),
            format!("{what}: {} decides this", rule(scene.family, decided)),
            is_contested(scene, decided),
        ),
        _ => (otherwise, what.to_owned(), false),
    };
    let check = if is_contested {
        hop.unknown(format!("{words} {CONTESTED}"))
    } else {
        hop.fail(words)
    };
    match &blame.cure {
        Some(cure) => with_remedy(check, remedy::of(scene, ask, cure, 1)),
        None => check,
    }
}

fn with_remedy(check: Check, remedy: Remedy) -> Check {
    Check {
        tried: remedy.is_tried,
        ..check.fix(remedy.fix)
    }
}

fn dead(scene: &Scene<'_>, ask: &Ask<'_>, death: &Death) -> Vec<Check> {
    let tried = death.is_cured;
    let mut checks = Vec::new();
    if let Some(interface) = &death.behind {
        // nvactl's rules match the egress, so all other causes follow from this one.
        return vec![behind(ask, interface)];
    }
    for (n, taken) in death.causes.iter().enumerate() {
        // The same rule may stand in the chain several times.
        if n > 0 && death.causes[n - 1].by.is_same(&taken.by) {
            continue;
        }
        let times = death.causes[n..].iter();
        let times = times.take_while(|one| one.by.is_same(&taken.by)).count();
        let (hop, status) = match &taken.by {
            // One rule accepts the replies of all forwards, and only its loss leaves them to the policy.
            By::Policy(decided)
                if taken.direction == Direction::Reply
                    && hop_of(scene, decided) == Hop::ForwardRule =>
            {
                (Hop::OwnChains, Status::Fail)
            }
            By::Rule(decided) | By::Policy(decided) => {
                let status = if is_contested(scene, decided) {
                    Status::Unknown
                } else {
                    Status::Fail
                };
                (hop_of(scene, decided), status)
            }
            By::Kernel(KernelReason::NotForwarded) if scene.ip_forward => {
                (Hop::InterfaceForwarding, Status::Fail)
            }
            By::Kernel(reason) => of_kernel(reason),
            By::NoRule if matches!(taken.fate, Fate::SourceTranslated { .. }) => {
                (Hop::SnatRule, Status::Fail)
            }
            By::NoRule => (Hop::DnatRule, Status::Fail),
        };
        let mut words = took(scene.family, ask, taken);
        if let By::Rule(decided) = &taken.by
            && is_contested(scene, decided)
        {
            words = format!("{words} {CONTESTED}");
        }
        let mut check = hop.found(status, words);
        if let (Fate::Unresolved, By::Rule(decided)) = (taken.fate, &taken.by) {
            check = check.fix(remedy::discovery(decided));
        } else if let Some(cure) = death.cures.get(n).filter(|_| tried) {
            let remedy = remedy::of_taken(scene, ask, taken, cure, times);
            check = with_remedy(check, remedy);
        } else if let Some(hint) = remedy::hint(scene.family, &taken.by) {
            check = check.fix(hint);
        }
        let is_way_back = match &taken.by {
            By::Kernel(KernelReason::ReversePath) => true,
            By::Kernel(KernelReason::NoRoute) => taken.direction == Direction::Reply,
            _ => false,
        };
        if let Some((_, route)) = route_back(ask).filter(|_| is_way_back) {
            // Nobody has tried a command with a placeholder.
            check.tried = false;
            check.fix = Some(match check.fix.take() {
                Some(other) => route.or(other),
                None => route,
            });
        }
        checks.push(check);
    }
    if checks.is_empty() {
        let what = if death.is_stuck {
            "the connection opens, but its data does not come through"
        } else {
            "the connection does not come through"
        };
        checks.push(match &death.examination {
            Examination::Failed(why) => {
                Hop::Packets.fail(format!("{what}; the cause is not known: {why}"))
            }
            Examination::Done => {
                Hop::Packets.fail(format!("{what}, and the kernel does not report why"))
            }
            Examination::Pending => Hop::Packets
                .fail(format!(
                    "{what}; the cause is not known: the time limit was reached first"
                ))
                .fix(more_time(scene)),
        });
    }
    checks
}

/// The condition under which the other backend's nat table decides.
const CONTESTED: &str = "if its nat table was loaded after nvactl's, which no program reports";

/// Whether a rule decides only if its nat table comes before nvactl's. Each backend has a nat table, and the
/// kernel evaluates the one first that was loaded last.
fn is_contested(scene: &Scene<'_>, decided: &DecidingRule) -> bool {
    let translates = matches!(
        decided.holder,
        Holder::Iptables {
            table: TableName::Nat,
            ..
        }
    );
    translates && hop_of(scene, decided) == Hop::OtherBackend
}

/// Returns the hop of a rule: nvactl's own, another program's in the same iptables, the other backend's, or
/// nft's.
fn hop_of(scene: &Scene<'_>, decided: &DecidingRule) -> Hop {
    match &decided.holder {
        Holder::Iptables {
            backend,
            table,
            chain,
            ..
        } => {
            let called = match scene.backend {
                Backend::Legacy => Backend::Legacy,
                _ => Backend::Nft,
            };
            let is_called = (*backend == Backend::Legacy) == (called == Backend::Legacy);
            match (is_called, chain.is_own()) {
                (true, true) => Hop::OwnChains,
                // The policy takes a packet that no rule accepts.
                (true, false)
                    if *table == TableName::Filter
                        && *chain == ChainName::Forward
                        && decided.handle.is_none()
                        && decided.place.is_none() =>
                {
                    Hop::ForwardRule
                }
                (true, false) => Hop::ForeignRule,
                (false, _) => Hop::OtherBackend,
            }
        }
        Holder::Nft(_) => Hop::NativeNft,
    }
}

fn of_kernel(reason: &KernelReason) -> (Hop, Status) {
    match reason {
        KernelReason::ReversePath => (Hop::RpFilter, Status::Fail),
        KernelReason::NotForwarded => (Hop::IpForward, Status::Fail),
        KernelReason::NoRoute
        | KernelReason::Martian
        | KernelReason::Blackhole
        | KernelReason::Prohibited
        | KernelReason::Unreachable
        | KernelReason::NotSent
        | KernelReason::Ttl => (Hop::Route, Status::Fail),
        KernelReason::NeedsFragmentation => (Hop::Mtu, Status::Fail),
        KernelReason::NoNeighbour { .. } | KernelReason::NoOwner { .. } => {
            (Hop::Neighbour, Status::Fail)
        }
        // The cause is not known, but the connection does not come through.
        KernelReason::NotSeen | KernelReason::Unknown(_) => (Hop::Packets, Status::Fail),
    }
}
