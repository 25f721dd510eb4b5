//! The rules as they are written: nvactl's own, and duplicates and marks of others. `packets` reports what
//! becomes of packets.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::target::Astray;
use super::{Case, Check, Hop, Status};
use crate::diff::drift::{
    DriftKind, LAYOUT, LAYOUT_V6, POLICY, POLICY_V6, PlacedRule, compare, gone, rules_by_key,
};
use crate::health::counts;
use crate::health::duplicate::duplicates;
use crate::health::mark_bit::{Writer, is_used, of_nft, writers};
use crate::net::Family;
use crate::netfilter::backend::{Backend, iptables as plain};
use crate::netfilter::counters::Count;
use crate::netfilter::names::{ChainName, Policy, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::{Chain, Ruleset};
use crate::netfilter::target::Target;
use crate::netfilter::text::line::Line;
use crate::plan::unplan::{Key, plan_as, replanned};

pub fn check(case: &Case<'_>, astray: &Astray, checks: &mut Vec<Check>) {
    let backend = backend(case);
    let is_elsewhere = backend.status == Status::Fail;
    checks.push(backend);
    let planned = plan_as(case.facts.live, case.set, case.family);
    let is_bare = !case.facts.live.holds_own() && planned.holds_own();
    if !is_bare {
        jumps(case, &planned, checks);
        own_rules(case, &planned, astray, checks);
        own_chains(case, &planned, checks);
    } else if !is_elsewhere {
        checks.push(none_loaded(case));
    }
    mark_bit(case, checks);
    other_backend(case, checks);
    duplicate_rules(case, checks);
}

/// Reports once that nothing is loaded, instead of each rule.
fn none_loaded(case: &Case<'_>) -> Check {
    let words = match case.family {
        Family::V6 if !case.facts.is_bare => "nvactl's IPv6 rules are not loaded",
        Family::V4 if !case.facts.is_bare => "nvactl's IPv4 rules are not loaded",
        _ => "nvactl's rules are not loaded",
    };
    Hop::Jump.fail(words).fix(case.apply.as_str())
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
                "sudo nvactl remove --backend {other}{} && {}",
                case.folder, case.apply
            )),
        _ => Hop::Backend.ok(format!("`{}` is {}", plain(case.family), facts.backend)),
    }
}

/// Reports of each jump from a built-in chain whether it is loaded and packets reach it.
fn jumps(case: &Case<'_>, planned: &Ruleset, checks: &mut Vec<Check>) {
    for (table, name, chain) in planned.chains().filter(|(_, name, _)| name.is_builtin()) {
        for rule in &chain.rules {
            let jump = Jump {
                family: case.family,
                table,
                name,
                rule,
            };
            let check = jump.judged(case.facts.live.chain(table, name));
            let is_ok = check.status == Status::Ok;
            checks.push(if is_ok {
                check
            } else {
                check.fix(case.apply.as_str())
            });
        }
    }
}

/// A jump of nvactl's from a built-in chain.
#[derive(Clone, Copy)]
struct Jump<'j> {
    family: Family,
    table: TableName,
    name: &'j ChainName,
    rule: &'j Rule,
}

impl Jump<'_> {
    /// Judges it by the chain as it is loaded.
    fn judged(self, live: Option<&Chain>) -> Check {
        let Self {
            family,
            table,
            name,
            rule,
        } = self;
        let rules = live.map_or(&[][..], |chain| chain.rules.as_slice());
        let (place, words) = (of_table(family, table), Line::Append(name, rule));
        let Some(before) = rules.iter().position(|one| one == rule) else {
            return Hop::Jump.fail(format!("{place}: {words} is missing"));
        };
        let stops = rules[..before].iter().find(|one| one.stops_every_packet());
        if let Some(stops) = stops {
            let is_drop = live.and_then(|chain| chain.policy) == Some(Policy::Drop);
            let policy = if is_drop {
                ", and the policy DROP has no effect"
            } else {
                ""
            };
            let stops = Line::Append(name, stops);
            return Hop::Jump.warn(format!(
                "{place}: `{stops}` stands before nvactl's jump and takes every packet: nvactl's rules see none\
                 {policy}"
            ));
        }
        if rules.iter().filter(|one| *one == rule).count() > 1 {
            return Hop::Jump.warn(format!("nvactl's jump stands twice in {place} {name}"));
        }
        Hop::Jump.ok(match before {
            0 => format!("{place}: {words} stands first"),
            1 => format!("{place}: {words} stands behind 1 rule of others"),
            more => format!("{place}: {words} stands behind {more} rules of others"),
        })
    }
}

/// Names a table with its program, which differs between the families.
fn of_table(family: Family, table: impl Display) -> String {
    format!("{} {table}", plain(family))
}

/// Reports of each forward and hop whether its rules are loaded.
fn own_rules(case: &Case<'_>, planned: &Ruleset, astray: &Astray, checks: &mut Vec<Check>) {
    let new = counts::new_connections(case.facts.counters, case.facts.live);
    let refused = counts::refused(case.facts.counters, case.facts.live);
    let packets = |counts: &BTreeMap<Key<'_>, Count>, key: Key<'_>| {
        counts.get(&key).map_or(0, |count| count.packets)
    };
    let (want, have) = (rules_by_key(planned), rules_by_key(case.facts.live));
    for forward in &case.asked {
        let key = (forward.name.as_str(), forward.protocol);
        let loaded = have.get(&key).map_or(&[][..], Vec::as_slice);
        // The places of each hop, and those of them that are not loaded.
        let mut hops: BTreeMap<Hop, (usize, Vec<&PlacedRule<'_>>)> = BTreeMap::new();
        for place in want.get(&key).into_iter().flatten() {
            let (count, gone) = hops.entry(hop_of(place)).or_default();
            *count += 1;
            if !loaded.contains(place) {
                gone.push(place);
            }
        }
        for (hop, (count, gone)) in hops {
            let check = match (gone.first(), hop) {
                (Some(_), _) if astray.has(forward) => continue,
                (Some(first), _) => hop
                    .fail(not_loaded(case.family, first, gone.len()))
                    .fix(case.apply.as_str()),
                (None, Hop::DnatRule) => {
                    translated(packets(&new, key), packets(&refused, key), hop)
                }
                (None, _) if count == 1 => hop.ok("it is loaded"),
                (None, _) => hop.ok(format!("all {count} are loaded")),
            };
            checks.push(check.of(forward));
        }
    }
}

fn hop_of(place: &PlacedRule<'_>) -> Hop {
    match (place.table, &place.rule.target) {
        (TableName::Filter, _) => Hop::ForwardRule,
        (_, Some(Target::Dnat { .. } | Target::SetConnmark(_))) => Hop::DnatRule,
        _ => Hop::SnatRule,
    }
}

/// Names the first of some missing rules.
fn not_loaded(family: Family, first: &PlacedRule<'_>, count: usize) -> String {
    let line = Line::Append(first.chain, first.rule);
    let place = of_table(family, first.table);
    match count {
        1 => format!("{place}: `{line}` is not loaded"),
        _ => format!(
            "{place}: `{line}` is not loaded, nor are {} more",
            count - 1
        ),
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

/// Warns of rules of others that write the bit by which a tree knows its short cut.
fn mark_bit(case: &Case<'_>, checks: &mut Vec<Check>) {
    let live = case.facts.live;
    if !is_used(live) {
        return;
    }
    let warn = |hop: Hop, writer: Writer| hop.warn(writer.told).fix(writer.fix);
    let own = writers(live, &case.iptables);
    checks.extend(own.into_iter().map(|one| warn(Hop::ForeignRule, one)));
    if let Some((other, Ok(rules))) = &case.facts.other {
        let others = writers(rules, &other.program(case.family, "iptables"));
        checks.extend(others.into_iter().map(|one| warn(Hop::OtherBackend, one)));
    }
    let of_nft = case.facts.mark_rules.iter().map(of_nft);
    checks.extend(of_nft.map(|one| warn(Hop::NativeNft, one)));
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

/// Reports what differs in nvactl's own chains, but for the forwards' rules, which have hops of their own.
fn own_chains(case: &Case<'_>, planned: &Ruleset, checks: &mut Vec<Check>) {
    let comparison = compare(case.facts.live, case.set, case.family);
    let of = |kind: DriftKind| {
        let drift = comparison.drift.iter();
        drift.filter(move |drift| drift.what == kind)
    };
    let apply = case.apply.as_str();
    let replanned = replanned(case.facts.live, case.family);
    let gone = gone(case.facts.live, &replanned);
    if let Some(first) = gone.first() {
        let fail = Hop::OwnChains.fail(not_loaded(case.family, first, gone.len()));
        checks.push(fail.fix(apply));
        return;
    }
    // A jump that stands twice is `jump`'s.
    let builtin = planned.chains().filter(|(_, name, _)| name.is_builtin());
    let jumps: Vec<String> = builtin
        .flat_map(|(_, name, chain)| chain.rules.iter().map(move |rule| (name, rule)))
        .map(|(name, rule)| Line::Append(name, rule).to_string())
        .collect();
    let put_in = of(DriftKind::PutIn).find(|drift| !jumps.contains(&drift.line));
    let surplus = comparison.removed.first();
    let policy = comparison
        .firewall
        .iter()
        .find(|change| [POLICY, POLICY_V6].contains(&change.field));
    let mut firewall = comparison.firewall.iter();
    let layout = firewall.find(|change| [LAYOUT, LAYOUT_V6].contains(&change.field));
    checks.push(match (put_in, surplus, policy) {
        (Some(drift), ..) => Hop::OwnChains
            .warn(format!(
                "somebody has put a line into nvactl's own part of {}: {}",
                of_table(case.family, drift.table),
                drift.line
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netfilter::text::parse::parse;

    #[test]
    fn a_jump_that_packets_do_not_reach_is_named_with_its_family() {
        let jump = "-A FORWARD -j NVACTL-FORWARD";
        let one = "-A FORWARD -p tcp -j DROP";
        let all = "-A FORWARD -j ACCEPT";
        for (policy, rules, said) in [
            (
                "DROP",
                &[one][..],
                "fail: ip6tables filter: -A FORWARD -j NVACTL-FORWARD is missing",
            ),
            (
                "DROP",
                &[jump, all],
                "ok: ip6tables filter: -A FORWARD -j NVACTL-FORWARD stands first",
            ),
            (
                "DROP",
                &[one, jump],
                "ok: ip6tables filter: -A FORWARD -j NVACTL-FORWARD stands behind 1 rule of others",
            ),
            (
                "DROP",
                &[all, jump],
                "warn: ip6tables filter: `-A FORWARD -j ACCEPT` stands before nvactl's jump and takes every packet: nvactl's rules see none, and the policy DROP has no effect",
            ),
            (
                "ACCEPT",
                &[one, all, jump],
                "warn: ip6tables filter: `-A FORWARD -j ACCEPT` stands before nvactl's jump and takes every packet: nvactl's rules see none",
            ),
            (
                "ACCEPT",
                &[jump, jump],
                "warn: nvactl's jump stands twice in ip6tables filter FORWARD",
            ),
        ] {
            let rules = rules.join("\n");
            let text = format!(
                "*filter\n:FORWARD {policy} [0:0]\n:NVACTL-FORWARD - [0:0]\n{rules}\nCOMMIT\n"
            );
            let live = parse(&text).expect("it is readable");
            let planned = parse(&format!(
                "*filter\n:NVACTL-FORWARD - [0:0]\n{jump}\nCOMMIT\n"
            ));
            let planned = planned.expect("it is readable");
            let name = &ChainName::Forward;
            let chain = planned.chain(TableName::Filter, name).expect("it is there");
            let jump = Jump {
                family: Family::V6,
                table: TableName::Filter,
                name,
                rule: &chain.rules[0],
            };
            let check = jump.judged(live.chain(TableName::Filter, name));
            assert_eq!(format!("{}: {}", check.status.word(), check.reason), said);
        }
    }
}
