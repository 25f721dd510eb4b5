//! The rules: nvactl's own, and those of others in their way.

use std::collections::BTreeMap;

use super::{Case, Check, Hop, short_cut};
use crate::backend::{Backend, iptables as plain};
use crate::compare::{
    DriftKind, LAYOUT, LAYOUT_V6, POLICY, POLICY_V6, PlacedRule, compare, gone, rules_by_key,
};
use crate::counters::Count;
use crate::duplicate::duplicates;
use crate::line::Line;
use crate::marks::{Marking, marking, told_of_native, used, ways_out_of_native};
use crate::net::Protocol;
use crate::plan::{self, OF_MARKED, accept_known};
use crate::rule::{Match, Rule, Target};
use crate::ruleset::{ChainName, Ruleset, TableName};
use crate::spec::Forward;
use crate::unplan::{Key, name_of, plan_as, replanned};

pub fn check(case: &Case<'_>, checks: &mut Vec<Check>) {
    checks.push(backend(case));
    let planned = plan_as(case.facts.live, case.set, case.family);
    jumps(case, &planned, checks);
    own_rules(case, &planned, checks);
    foreign_marks(case, checks);
    other_backend(case, checks);
    own_chains(case, &planned, checks);
    duplicate_rules(case, checks);
}

fn backend(case: &Case<'_>) -> Check {
    let facts = case.facts;
    let own = |ruleset: &Ruleset| ruleset.holds_own();
    match &facts.other {
        Some((other, Ok(rules))) if own(rules) => Hop::Backend
            .fail(format!(
                "nvactl's rules are loaded by {}, while `{}` is {} here",
                other.program(case.family, "iptables"),
                plain(case.family),
                facts.backend
            ))
            .fix(format!(
                "sudo nvactl remove --backend {other}, then {}; or go on there by --backend {other}",
                case.apply
            )),
        _ => Hop::Backend.ok(format!("`{}` is {}", plain(case.family), facts.backend)),
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
                    .fix(case.apply.as_str()),
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

/// The rules of each forward.
fn own_rules(case: &Case<'_>, planned: &Ruleset, checks: &mut Vec<Check>) {
    let new = case.facts.counters.new_connections(case.facts.live);
    let refused = case.facts.counters.refused(case.facts.live);
    let packets = |counts: &BTreeMap<Key<'_>, Count>, key: Key<'_>| {
        counts.get(&key).map_or(0, |count| count.packets)
    };
    let (want, have) = (rules_by_key(planned), rules_by_key(case.facts.live));
    let short_cut = short_cut::is_whole(case.facts.live, planned);
    for forward in &case.asked {
        let key = (forward.name.as_str(), forward.protocol);
        let mut places = want.get(&key).into_iter().flatten();
        let is_spared = short_cut && !places.any(|place| short_cut::is_closed_by(place.rule));
        for place in want.get(&key).into_iter().flatten() {
            let PlacedRule { table, chain, rule } = *place;
            let hop = match (table, &rule.target) {
                (TableName::Filter, _) => Hop::ForwardRule,
                (_, Some(Target::Dnat { .. } | Target::SetConnmark(_))) => Hop::DnatRule,
                _ => Hop::SnatRule,
            };
            let loaded = have.get(&key).is_some_and(|places| places.contains(place));
            let exempts = matches!(rule.target, Some(Target::SetConnmark(_)));
            let check = match (loaded, hop) {
                (true, Hop::DnatRule) if exempts => continue,
                (true, Hop::DnatRule) => {
                    translated(packets(&new, key), packets(&refused, key), hop)
                }
                (true, _) => hop.ok("it is loaded"),
                (false, Hop::ForwardRule | Hop::SnatRule)
                    if is_spared && short_cut::is_open_to(&case.set.firewall, rule) =>
                {
                    hop.warn(spared(chain, rule, hop)).fix(case.apply.as_str())
                }
                (false, _) => hop
                    .fail(missing(case, forward, chain, rule, hop))
                    .fix(case.apply.as_str()),
            };
            checks.push(check.of(forward));
        }
    }
}

/// What came by the listener, and what the forward's own lists and limits let of it.
fn translated(new: u64, refused: u64, hop: Hop) -> Check {
    match refused {
        0 => hop.ok(format!(
            "it has translated {new} connections since it was loaded"
        )),
        all if all >= new && new > 0 => hop
            .warn(format!(
                "its lists and limits have turned away all {new} that came since it was loaded"
            ))
            .fix("if they should have passed: correct `allow_from`, `deny_from` or `limits` in the spec"),
        some => hop.ok(format!(
            "it has translated {new} connections since it was loaded; its lists and limits have \
             turned away {some} of them"
        )),
    }
}

/// A first packet that is sent again does not come to nat, where it would be marked.
fn spared(chain: &ChainName, rule: &Rule, hop: Hop) -> String {
    let line = Line::Append(chain, rule);
    let so = match hop {
        Hop::ForwardRule => {
            "only the short cut accepts its packets, and not a first one that is sent again"
        }
        _ => "only the short cut gives its packets their source",
    };
    format!("{so}: `{line}` is not loaded")
}

fn missing(case: &Case<'_>, forward: &Forward, chain: &ChainName, rule: &Rule, hop: Hop) -> String {
    let line = Line::Append(chain, rule);
    let so = match hop {
        Hop::DnatRule if matches!(rule.target, Some(Target::SetConnmark(_))) => {
            "its packets pass as those of forwards without options of their own"
        }
        Hop::DnatRule => "its packets are not sent on to the target",
        Hop::ForwardRule => "its packets are not accepted on their way to the target",
        _ => "the target sees the client's own address, and answers past this machine",
    };
    let mistaken = match hop {
        Hop::ForwardRule => accepts_the_listen_port(case, forward),
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
fn accepts_the_listen_port(case: &Case<'_>, forward: &Forward) -> Option<String> {
    let mut destinations = forward.target.destinations.iter();
    if destinations.any(|to| forward.ports_at(to) == forward.listen.ports) {
        return None;
    }
    let asks = |rule: &Rule| {
        rule.matches.iter().any(|condition| match condition {
            Match::Tcp { destination, .. } => {
                forward.protocol == Protocol::Tcp && *destination == Some(forward.listen.ports)
            }
            Match::Udp { destination, .. } => {
                forward.protocol == Protocol::Udp && *destination == Some(forward.listen.ports)
            }
            _ => false,
        })
    };
    // Another forward's own target port may be this one's listen port.
    let others = |rule: &Rule| {
        let name = name_of(rule);
        let mut names = case
            .set
            .forwards
            .iter()
            .map(|forward| forward.name.as_str());
        name.is_some_and(|name| name != forward.name.as_str() && names.any(|one| one == name))
    };
    let mut rules = case
        .facts
        .live
        .chains()
        .filter(|(table, name, _)| {
            *table == TableName::Filter && (name.is_own() || **name == ChainName::Forward)
        })
        .flat_map(|(_, name, chain)| chain.rules.iter().map(move |rule| (name, rule)));
    let (name, rule) = rules
        .find(|(_, rule)| rule.target == Some(Target::Accept) && asks(rule) && !others(rule))?;
    Some(Line::Append(name, rule).to_string())
}

/// What lets packets pass by the forwards' own rules.
fn foreign_marks(case: &Case<'_>, checks: &mut Vec<Check>) {
    let live = case.facts.live;
    checks.extend(marks(Hop::ForeignRule, live, &case.iptables, live));
    if let Some((other, Ok(rules))) = &case.facts.other {
        let program = other.program(case.family, "iptables");
        checks.extend(marks(Hop::OtherBackend, rules, &program, live));
    }
    let native = case.facts.native.iter().flatten();
    for chain in native.filter(|chain| used(live) && chain.marks()) {
        let check = Hop::NativeNft.warn(told_of_native(chain));
        checks.push(check.fix(ways_out_of_native(chain)));
    }
}

/// The rules of one iptables that do so.
fn marks(hop: Hop, rules: &Ruleset, program: &str, live: &Ruleset) -> Vec<Check> {
    let check = |marking: &Marking<'_>| {
        let told = marking.told(program);
        let check = if marking.certain {
            hop.fail(told)
        } else {
            hop.warn(told)
        };
        check.fix(marking.ways_out())
    };
    marking(rules, live).iter().map(check).collect()
}

fn other_backend(case: &Case<'_>, checks: &mut Vec<Check>) {
    let Some((other, Err(error))) = &case.facts.other else {
        return;
    };
    let program = other.program(case.family, "iptables");
    let unknown = format!("the rules of {program} cannot be read: {error}");
    let look = match other {
        Backend::Legacy => format!("sudo {program}-save"),
        _ => "sudo nft list ruleset".to_owned(),
    };
    checks.push(Hop::OtherBackend.unknown(unknown).fix(look));
}

/// What somebody has done to nvactl's own chains.
fn own_chains(case: &Case<'_>, planned: &Ruleset, checks: &mut Vec<Check>) {
    let comparison = compare(case.facts.live, case.set, case.family);
    let of = |kind: DriftKind| {
        let drift = comparison.drift.iter();
        drift.filter(move |drift| drift.what == kind)
    };
    let apply = case.apply.as_str();
    let before = checks.len();
    // The forwards' own rules have hops of their own.
    // Each such rule would be a line: the gravest is told.
    let replanned = replanned(case.facts.live, case.family);
    let gone = gone(case.facts.live, &replanned);
    let short_cut = short_cut::is_whole(case.facts.live, planned);
    let gravity = |place: &PlacedRule<'_>| gravity(place.chain, place.rule, short_cut);
    let gravest = gone.iter().min_by_key(|place| gravity(place));
    if let Some(place) = gravest {
        let line = Line::Append(place.chain, place.rule);
        let check = match gravity(place) {
            Gravity::Replies => {
                Hop::OwnChains.fail(format!("`{line}` is not loaded: replies are not accepted"))
            }
            Gravity::Way => Hop::OwnChains.fail(format!(
                "`{line}` is not loaded: the forwards behind it are not reached"
            )),
            Gravity::Mark => Hop::OwnChains.fail(format!(
                "`{line}` is not loaded: what another's rules translate may pass by nvactl's"
            )),
            Gravity::List => {
                Hop::OwnChains.fail(format!("`{line}` is not loaded, of a list in the spec"))
            }
            Gravity::Spared => Hop::OwnChains.warn(format!(
                "`{line}` is not loaded: to the forwards behind it only the short cut leads, not for a \
                 first packet that is sent again, nor for forwards with options of their own"
            )),
            Gravity::Shortcut => Hop::OwnChains.warn(format!(
                "`{line}` is not loaded, which saves new connections a longer way"
            )),
        };
        checks.push(check.fix(apply));
    }
    if checks.len() > before {
        return;
    }
    let surplus = comparison.removed.first();
    let policy = comparison
        .firewall
        .iter()
        .find(|change| [POLICY, POLICY_V6].contains(&change.field));
    let mut firewall = comparison.firewall.iter();
    let layout = firewall.find(|change| [LAYOUT, LAYOUT_V6].contains(&change.field));
    checks.push(match (of(DriftKind::PutIn).next(), surplus, policy) {
        (Some(drift), ..) => Hop::OwnChains
            .warn(format!(
                "somebody has put a line into nvactl's own part of {}: {}",
                drift.table, drift.line
            ))
            .fix(apply),
        (None, Some(surplus), _) => Hop::OwnChains
            .warn(format!(
                "the forward `{}` is loaded, and not in the spec",
                surplus.name
            ))
            .fix(apply),
        (None, None, Some(policy)) => Hop::OwnChains
            .warn(format!(
                "the {} is {}, while the spec asks for {}: what no rule drops is forwarded",
                policy.field, policy.from, policy.to
            ))
            .fix(apply),
        _ if comparison.reordered => Hop::OwnChains
            .warn("nvactl's rules stand in another order than the spec's")
            .fix(apply),
        _ => match layout {
            Some(layout) => Hop::OwnChains
                .warn(format!(
                    "nvactl's rules are laid out {}, the spec says {}",
                    layout.from, layout.to
                ))
                .fix(apply),
            None => Hop::OwnChains.ok("nothing has been put into nvactl's chains, or taken out"),
        },
    });
}

/// What is lost with a rule that is no forward's own; the gravest first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Gravity {
    Replies,
    Way,
    Mark,
    List,
    Spared,
    Shortcut,
}

fn gravity(chain: &ChainName, rule: &Rule, short_cut: bool) -> Gravity {
    let hook = plan::Hook::of(chain);
    let of_marked = |chain: &ChainName| chain.as_str() == OF_MARKED;
    match rule.leads_to() {
        _ if *rule == accept_known() => Gravity::Replies,
        _ if hook.is_none() && !of_marked(chain) => Gravity::List,
        Some(next) if !of_marked(next) => match hook {
            Some(plan::Hook::Passing | plan::Hook::Leaving) if short_cut => Gravity::Spared,
            _ => Gravity::Way,
        },
        _ if matches!(rule.target, Some(Target::SetConnmark(mark)) if mark.value == 0) => {
            Gravity::Mark
        }
        _ => Gravity::Shortcut,
    }
}

/// Names rules typed by hand: behind nvactl's they take nothing from it, but open more than it means to.
fn duplicate_rules(case: &Case<'_>, checks: &mut Vec<Check>) {
    let mut found = duplicates(case.facts.live, case.set);
    // A program's own rules are its own affair.
    found.retain(|duplicate| duplicate.owner().is_none());
    if found.is_empty() {
        checks.push(Hop::RivalRule.ok("no other rule forwards the same ports"));
    }
    for duplicate in found {
        let name = duplicate.forwards.first().map(ToString::to_string);
        let removal =
            duplicate
                .removal(case.family)
                .replacen(plain(case.family), &case.iptables, 1);
        let check = Hop::RivalRule
            .warn(format!(
                "a rule that is not nvactl's forwards for it too, as typed by hand: {}",
                duplicate.line()
            ))
            .fix(format!("sudo {removal}"));
        checks.push(Check {
            forward: name,
            ..check
        });
    }
}
