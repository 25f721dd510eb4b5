//! Checks the rules as they are written: nvactl's own, duplicates, and marks of others. `packets` checks their
//! effect on packets.

use std::collections::BTreeMap;

use super::jump::{self, of_table};
use super::route::Astray;
use super::{Case, Check, Fix, Hop, Status};
use crate::diff::drift::{
    DriftKind, LAYOUT, LAYOUT_V6, POLICY, POLICY_V6, PlacedRule, compare, gone, rules_by_key,
};
use crate::health::counts;
use crate::health::duplicate::duplicates;
use crate::health::mark_bit::{Writer, is_used, of_nft, writers};
use crate::net::Family;
use crate::net::words::counted;
use crate::netfilter::backend::{Backend, iptables as plain};
use crate::netfilter::counters::Count;
use crate::netfilter::names::TableName;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::Target;
use crate::netfilter::text::line::Line;
use crate::plan::unplan::{ForwardKey, plan_as, replanned};

pub fn check(case: &Case<'_>, astray: &Astray, checks: &mut Vec<Check>) {
    let backend = backend(case);
    let is_elsewhere = backend.status == Status::Fail;
    checks.push(backend);
    let planned = plan_as(case.facts.live, case.set, case.family);
    let is_bare = !case.facts.live.holds_own() && planned.holds_own();
    if !is_bare {
        jump::check(case, &planned, checks);
        own_rules(case, &planned, astray, checks);
        own_chains(case, &planned, checks);
    } else if !is_elsewhere {
        checks.push(none_loaded(case));
    }
    mark_bit(case, checks);
    other_backend(case, checks);
    duplicate_rules(case, checks);
}

/// Reports once that nothing is loaded, instead of every rule.
fn none_loaded(case: &Case<'_>) -> Check {
    let words = match case.family {
        Family::V6 if !case.facts.is_bare => {
            "nvactl's IPv6 rules are not loaded: no IPv6 forward works"
        }
        Family::V4 if !case.facts.is_bare => {
            "nvactl's IPv4 rules are not loaded: no IPv4 forward works"
        }
        _ => "nvactl's rules are not loaded: no forward works",
    };
    Hop::Jump.fail(words).fix(case.apply.as_str())
}

fn backend(case: &Case<'_>) -> Check {
    let facts = case.facts;
    let own = |ruleset: &Ruleset| ruleset.holds_own();
    match &facts.other {
        Some((other, Ok(rules))) if own(rules) => Hop::Backend
            .fail(format!(
                "nvactl's rules are loaded by {}, while `{}` on this machine is {} and does not see them",
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

/// Reports for each forward and hop whether its rules are loaded.
fn own_rules(case: &Case<'_>, planned: &Ruleset, astray: &Astray, checks: &mut Vec<Check>) {
    let new = counts::new_connections(case.facts.counters, case.facts.live);
    let refused = counts::refused(case.facts.counters, case.facts.live);
    let packets = |counts: &BTreeMap<ForwardKey<'_>, Count>, key: ForwardKey<'_>| {
        counts.get(&key).map_or(0, |count| count.packets)
    };
    let (want, have) = (rules_by_key(planned), rules_by_key(case.facts.live));
    for forward in &case.asked {
        let key = (forward.name.as_str(), forward.protocol);
        let loaded = have.get(&key).map_or(&[][..], Vec::as_slice);
        // The number of rules of each hop, and the rules that are not loaded.
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
                (None, _) if count == 1 => hop.ok("the rule is loaded"),
                (None, _) => hop.ok(format!("all {count} rules are loaded")),
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
            "{place}: `{line}` is not loaded; also missing: {}",
            counted(count - 1, "more rule")
        ),
    }
}

/// Reports the connections that came to the listener, and how many the forward's lists and limits refused.
fn translated(new: u64, refused: u64, hop: Hop) -> Check {
    let connections = match new {
        1 => "1 connection".to_owned(),
        many => format!("{many} connections"),
    };
    match refused {
        0 => hop.ok(format!(
            "the rule has translated {connections} since it was loaded"
        )),
        all if all >= new && new > 0 => hop
            .warn(format!(
                "`allow_from`, `deny_from` or `limits` have refused all of {connections} since the rule was loaded"
            ))
            .fix(Fix::only_if(
                "if these clients should pass",
                "correct `allow_from`, `deny_from` or `limits` in the spec",
            )),
        some => hop.ok(format!(
            "the rule has translated {connections} since it was loaded; lists and limits have refused {some} of \
             them"
        )),
    }
}

/// Warns of rules of others that write the mark bit of a tree's short cut.
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
    checks.push(Hop::OtherBackend.unknown(unknown).fix(Fix::to_look(look)));
}

/// Reports the differences in nvactl's own chains. The forwards' rules have hops of their own.
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
    // The check `jump` reports a jump that stands twice.
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
                "somebody added a line to nvactl's chains in {}: `{}`",
                of_table(case.family, drift.table),
                drift.line
            ))
            .fix(apply),
        (None, Some(surplus), _) => Hop::OwnChains
            .warn(format!(
                "the forward `{}` is loaded, but is not in the spec",
                surplus.name
            ))
            .fix(apply),
        (None, None, Some(policy)) => Hop::OwnChains
            .warn(format!(
                "the {} is {}, while the spec says {}: packets that no rule drops are forwarded",
                policy.field, policy.from, policy.to
            ))
            .fix(apply),
        _ if comparison.reordered => Hop::OwnChains
            .warn("nvactl's rules are loaded in another order than the spec's")
            .fix(apply),
        _ => match layout {
            Some(layout) => Hop::OwnChains
                .warn(format!(
                    "the layout of nvactl's rules is {}, while the spec says {}",
                    layout.from, layout.to
                ))
                .fix(apply),
            None => Hop::OwnChains.ok("nobody has added a line to nvactl's chains or removed one"),
        },
    });
}

/// Names duplicate rules that were typed by hand. They stop no packet of a forward, but admit more than the spec.
fn duplicate_rules(case: &Case<'_>, checks: &mut Vec<Check>) {
    let mut found = duplicates(case.facts.live, case.set);
    // The rules of another program belong to that program.
    found.retain(|duplicate| duplicate.owner().is_none());
    if found.is_empty() {
        checks.push(Hop::RivalRule.ok("no other rule forwards the same ports"));
    }
    for duplicate in found {
        let name = duplicate.forwards.first().map(ToString::to_string);
        let line = duplicate.line();
        let check = match duplicate.undecided {
            None => Hop::RivalRule
                .warn(format!(
                    "a duplicate rule that nvactl did not write also forwards this port: `{line}`"
                ))
                .fix(duplicate.removal(&case.iptables)),
            Some(condition) => Hop::RivalRule
                .warn(format!(
                    "a rule that nvactl did not write may also forward this port, which depends on `{condition}`: \
                     `{line}`"
                ))
                .fix(Fix::to_look(duplicate.look(&case.iptables))),
        };
        checks.push(Check {
            forward: name,
            ..check
        });
    }
}
