//! The rules: nvactl's own, and those of others in their way.

use std::net::Ipv4Addr;

use super::{Case, Check, Hop};
use crate::compare::{DriftKind, compare, rules_by_name};
use crate::foreign;
use crate::line::Line;
use crate::native::Fate;
use crate::packet::Packet;
use crate::plan::plan;
use crate::rival::rivals;
use crate::rule::{Match, Rule, Target};
use crate::ruleset::{ChainName, Ruleset, TableName};
use crate::shadow::{Shadow, shadows};
use crate::spec::Forward;

const APPLY: &str = "sudo nvactl apply";

pub fn check(case: &Case<'_>, checks: &mut Vec<Check>) {
    checks.push(backend(case));
    let planned = plan(case.set);
    jumps(case, &planned, checks);
    own_rules(case, &planned, checks);
    foreign_rules(case, checks);
    other_backend(case, checks);
    native(case, checks);
    checks.push(own_chains(case));
    rival_rules(case, checks);
}

fn backend(case: &Case<'_>) -> Check {
    let facts = case.facts;
    let own = |ruleset: &Ruleset| ruleset.chains().any(|(_, name, _)| name.is_own());
    match &facts.other {
        Some((other, rules)) if own(rules) => Hop::Backend
            .fail(format!(
                "nvactl's rules are loaded by iptables-{other}, while `iptables` is {} here",
                facts.backend
            ))
            .fix(format!(
                "sudo nvactl doctor --backend {other}, or sudo nvactl remove --backend {other} \
                 and then {APPLY}"
            )),
        _ => Hop::Backend.ok(format!("`iptables` is {}", facts.backend)),
    }
}

/// The jumps from the built-in chains: whether each is there. What stands before it is told where it
/// takes packets.
fn jumps(case: &Case<'_>, planned: &Ruleset, checks: &mut Vec<Check>) {
    for (table, name, chain) in planned.chains().filter(|(_, name, _)| name.is_builtin()) {
        for jump in &chain.rules {
            let live = case.facts.live.chain(table, name);
            let rules = live.map_or(&[][..], |chain| chain.rules.as_slice());
            let words = Line::Append(name, jump);
            checks.push(match rules.iter().position(|rule| rule == jump) {
                Some(0) => Hop::Jump.ok(format!("{table}: {words} stands first")),
                Some(before) => {
                    Hop::Jump.ok(format!("{table}: {words} stands behind {before} others"))
                }
                None => Hop::Jump
                    .fail(format!("{table}: {words} is missing: {}", without(name)))
                    .fix(APPLY),
            });
        }
    }
}

fn without(chain: &ChainName) -> &'static str {
    match chain {
        ChainName::Prerouting => "nothing is sent on to a target",
        ChainName::Forward => "what is sent on is not accepted",
        _ => "targets see the client's own address, and answer past this machine",
    }
}

/// The three rules of each forward.
fn own_rules(case: &Case<'_>, planned: &Ruleset, checks: &mut Vec<Check>) {
    let new = case.facts.counters.new_connections(case.facts.live);
    let (want, have) = (rules_by_name(planned), rules_by_name(case.facts.live));
    for forward in &case.asked {
        let name = forward.name.as_str();
        for place in want.get(name).into_iter().flatten() {
            let (table, chain, rule) = *place;
            let hop = match (table, &rule.target) {
                (TableName::Filter, _) => Hop::ForwardRule,
                (_, Some(Target::Dnat { .. })) => Hop::DnatRule,
                _ => Hop::SnatRule,
            };
            let loaded = have.get(name).is_some_and(|places| places.contains(place));
            let check = match (loaded, hop) {
                (true, Hop::DnatRule) => {
                    let count = new.get(name).copied().unwrap_or_default().packets;
                    hop.ok(format!(
                        "it has translated {count} connections since it was loaded"
                    ))
                }
                (true, _) => hop.ok("it is loaded"),
                (false, _) => hop
                    .fail(missing(case, forward, chain, rule, hop))
                    .fix(APPLY),
            };
            checks.push(check.of(forward));
        }
    }
}

fn missing(case: &Case<'_>, forward: &Forward, chain: &ChainName, rule: &Rule, hop: Hop) -> String {
    let line = Line::Append(chain, rule);
    let so = match hop {
        Hop::DnatRule => "its packets are not sent on to the target",
        Hop::ForwardRule => "its packets are not accepted on their way to the target",
        _ => "the target sees the client's own address, and answers past this machine",
    };
    let mistaken = match hop {
        Hop::ForwardRule => accepts_the_listen_port(case.facts.live, forward),
        _ => None,
    };
    match mistaken {
        Some(mistaken) => format!(
            "{so}: `{line}` is not loaded, and `{mistaken}` asks for the port that they had before DNAT"
        ),
        None => format!("{so}: `{line}` is not loaded"),
    }
}

/// A rule that accepts what carries the listen port, which nothing does behind PREROUTING.
fn accepts_the_listen_port(live: &Ruleset, forward: &Forward) -> Option<String> {
    if forward.ports_behind() == forward.listen.ports {
        return None;
    }
    let asks = |rule: &Rule| {
        rule.matches.iter().any(|condition| match condition {
            Match::Tcp { destination, .. } | Match::Udp { destination, .. } => {
                *destination == Some(forward.listen.ports)
            }
            _ => false,
        })
    };
    let mut rules = live
        .chains()
        .filter(|(table, name, _)| {
            *table == TableName::Filter && (name.is_own() || **name == ChainName::Forward)
        })
        .flat_map(|(_, name, chain)| chain.rules.iter().map(move |rule| (name, rule)));
    let (name, rule) = rules.find(|(_, rule)| rule.target == Some(Target::Accept) && asks(rule))?;
    Some(Line::Append(name, rule).to_string())
}

fn own_addresses<'c>(case: &'c Case<'_>) -> &'c [Ipv4Addr] {
    case.facts.links.addresses(&case.set.firewall.ingress)
}

fn foreign_rules(case: &Case<'_>, checks: &mut Vec<Check>) {
    for forward in &case.asked {
        // Where nvactl's jump is missing, the policy is no foreign rule but what that leads to.
        let found = shadows(
            case.facts.live,
            forward,
            &case.set.firewall,
            own_addresses(case),
        );
        let found: Vec<&Shadow<'_>> = found
            .iter()
            .filter(|shadow| !shadow.is_forward_policy())
            .collect();
        let check = match worst(&found) {
            None => Hop::ForeignRule.ok("no foreign rule stands in its way"),
            Some(shadow) => in_the_way(Hop::ForeignRule, shadow, "").fix(shadow.removal()),
        };
        checks.push(check.of(forward));
    }
}

fn worst<'s, 'r>(shadows: &[&'s Shadow<'r>]) -> Option<&'s Shadow<'r>> {
    let mut all = shadows.iter().copied();
    let certain = all.find(|shadow| shadow.certain);
    certain.or(shadows.first().copied())
}

fn in_the_way(hop: Hop, shadow: &Shadow<'_>, whose: &str) -> Check {
    let (table, line, does) = (shadow.table, shadow.line(), shadow.does());
    let program = shadow.program().map(|name| format!("{name}'s "));
    let program = program.unwrap_or_default();
    let some = if shadow.certain {
        ""
    } else {
        "may, as far as it can be told: it "
    };
    let reason = format!(
        "{whose}{program}rule in {table}, `{line}`, {some}{does} its packets before nvactl's see them"
    );
    if shadow.certain {
        hop.fail(reason)
    } else {
        hop.warn(reason)
    }
}

fn other_backend(case: &Case<'_>, checks: &mut Vec<Check>) {
    let Some((other, rules)) = &case.facts.other else {
        return;
    };
    if foreign::rule_count(rules) == 0 && rules.forward_policy() == crate::ruleset::Policy::Accept {
        checks.push(Hop::OtherBackend.ok(format!("iptables-{other} holds no rules")));
        return;
    }
    for forward in &case.asked {
        let found = shadows(rules, forward, &case.set.firewall, own_addresses(case));
        let found: Vec<&Shadow<'_>> = found.iter().collect();
        let check = match worst(&found) {
            None => Hop::OtherBackend.ok(format!("iptables-{other} lets its packets through")),
            Some(shadow) => {
                let fix = shadow
                    .removal()
                    .replacen("iptables", &format!("iptables-{other}"), 1);
                in_the_way(Hop::OtherBackend, shadow, &format!("iptables-{other}: ")).fix(fix)
            }
        };
        checks.push(check.of(forward));
    }
}

fn native(case: &Case<'_>, checks: &mut Vec<Check>) {
    let Some(chains) = &case.facts.native else {
        let unknown = Hop::NativeNft.unknown("whether nft chains drop packets is not known");
        checks.push(unknown.fix("sudo apt-get install nftables"));
        return;
    };
    let firewall = &case.set.firewall;
    for forward in &case.asked {
        let to = [forward.target.address];
        let listen = forward.listen.address.map(|address| [address]);
        let listen = listen
            .as_ref()
            .map_or(own_addresses(case), |one| one.as_slice());
        let packet = Packet {
            protocol: forward.protocol,
            source: None,
            destinations: &to,
            ports: forward.ports_behind(),
            ingress: Some(&firewall.ingress),
            egress: Some(&firewall.egress),
            local: Some(false),
            translated_from: Some((listen, forward.listen.ports)),
        };
        let fates = chains.iter().map(|chain| (chain, chain.fate(&packet)));
        let mut fates: Vec<_> = fates.filter(|(_, fate)| *fate != Fate::Passes).collect();
        fates.sort_by_key(|(_, fate)| *fate != Fate::Dropped);
        let check = match fates.first() {
            None => Hop::NativeNft.ok("no nft chain beside iptables drops its packets"),
            Some((chain, fate)) => {
                let named = chain.named();
                let check = match fate {
                    Fate::Dropped => Hop::NativeNft.fail(format!(
                        "the nft chain {named} drops its packets, whatever iptables accepts"
                    )),
                    _ => Hop::NativeNft.warn(format!(
                        "the nft chain {named} may drop its packets, whatever iptables accepts"
                    )),
                };
                check.fix(format!(
                    "sudo nft list chain {named}, and accept them there"
                ))
            }
        };
        checks.push(check.of(forward));
    }
}

fn own_chains(case: &Case<'_>) -> Check {
    let comparison = compare(case.facts.live, case.set);
    let put_in = |kind: &DriftKind| matches!(kind, DriftKind::PutIn);
    match comparison.drift.iter().find(|drift| put_in(&drift.what)) {
        Some(drift) => Hop::OwnChains
            .warn(format!(
                "somebody has put a line into nvactl's own part of {}: {}",
                drift.table, drift.line
            ))
            .fix(APPLY),
        None if comparison.reordered => Hop::OwnChains
            .warn("nvactl's rules stand in another order than the spec's")
            .fix(APPLY),
        None => Hop::OwnChains.ok("nothing has been put into nvactl's chains"),
    }
}

/// Behind nvactl's they take nothing from it, but open what it does not mean to.
fn rival_rules(case: &Case<'_>, checks: &mut Vec<Check>) {
    let found = rivals(case.facts.live, case.set);
    if found.is_empty() {
        checks.push(Hop::RivalRule.ok("no other rule forwards the same ports"));
    }
    for rival in found {
        let name = rival.forwards.first().map(ToString::to_string);
        let check = Hop::RivalRule
            .warn(format!(
                "a rule that is not nvactl's forwards for it too, as typed by hand: {}",
                rival.line()
            ))
            .fix(format!("sudo {}", rival.removal()));
        checks.push(Check {
            forward: name,
            ..check
        });
    }
}
