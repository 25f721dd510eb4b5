//! Warnings before the rules change.

use std::collections::BTreeSet;

use super::error::describe;
use super::remark::Remarks;
use super::state::StateError;
use super::transaction::Jumps;
use crate::diff::Changes;
use crate::diff::drift::{LAYOUT, LAYOUT_V6, POLICY, POLICY_V6};
use crate::forwards::{Forward, ForwardSet, Name, Outbound};
use crate::health::duplicate;
use crate::health::foreign;
use crate::health::mark_bit;
use crate::health::reach::{self, Fault};
use crate::host::iptables::Iptables;
use crate::host::network::Links;
use crate::host::nft_mark::NftRule;
use crate::host::survey::Surroundings;
use crate::host::sysctl::{self, SysctlError};
use crate::net::per_family::PerFamily;
use crate::net::printable;
use crate::net::words::{names, quoted};
use crate::net::{Family, Interface};
use crate::netfilter::backend::Backend;
use crate::netfilter::conntrack::Flow;
use crate::netfilter::names::{ChainName, Policy, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::line::Line;
use crate::plan::jumps_from;
use crate::plan::unplan::{layout_of, unplan};

/// Returns the name of a family's FORWARD policy in messages.
#[must_use]
pub fn policy_name(family: Family) -> &'static str {
    match family {
        Family::V4 => POLICY,
        Family::V6 => POLICY_V6,
    }
}

/// Announces a change of the policy: it can cut off or open traffic that nvactl does not know. `by_spec`: a spec
/// sets the policy.
pub fn policy(changes: &PerFamily<Changes<'_>>, by_spec: bool, remarks: &mut Remarks) {
    for (family, changes) in changes.iter() {
        let policy = policy_name(family);
        match changes.forward_policy() {
            Some((Policy::Accept, Policy::Drop)) => remarks.warn(format_args!(
                "the {policy} changes from ACCEPT to DROP: packets that no rule accepts are no longer forwarded{}",
                if by_spec {
                    "\nhint: to let hosts behind this machine out, name their networks in an entry of `outbound`\
                     \nhint: to keep the policy, write in the spec, in `firewall`: forward_policy: keep"
                } else {
                    ""
                }
            )),
            Some((Policy::Drop, Policy::Accept)) => remarks.line(format_args!(
                "the {policy} changes from DROP to ACCEPT: packets that no rule drops are forwarded"
            )),
            _ => {}
        }
    }
}

/// Announces another layout, which explains why so many rules move for a small change of the spec. If no
/// forward is loaded or none will be, no rule moves.
pub fn layout(live: &PerFamily<&Ruleset>, want: &PerFamily<Ruleset>, remarks: &mut Remarks) {
    for (family, (live, want)) in live.zip(want.as_ref()).iter() {
        if let (Some(from), Some(to)) = (layout_of(live), layout_of(want))
            && from != to
        {
            let (layout, taken) = match family {
                Family::V4 => (LAYOUT, ""),
                // ip6tables-nft-restore 1.8.9 reads counters and ignores them.
                Family::V6 => (
                    LAYOUT_V6,
                    " if ip6tables-restore can set them (ip6tables-nft-restore 1.8.9 cannot)",
                ),
            };
            remarks.line(format_args!(
                "the {layout} changes from {} to {}: all rules move to other chains; forwards that stay \
                 keep their counters{taken}",
                from.as_str(),
                to.as_str()
            ));
        }
    }
}

/// Names foreign rules that write the mark bit of a tree's short cut.
pub fn marks(
    live: &PerFamily<&Ruleset>,
    want: &PerFamily<Ruleset>,
    around: &Surroundings,
    iptables: &Iptables,
    remarks: &mut Remarks,
) {
    let mut of_nft: Vec<&NftRule> = Vec::new();
    for (family, (live, want)) in live.zip(want.as_ref()).iter() {
        if !mark_bit::is_used(want) {
            continue;
        }
        let beside = around.beside.get(family).and_then(Option::as_ref);
        let beside = beside.map(|(backend, rules)| (*backend, rules));
        let mut found = Vec::new();
        for (backend, rules) in [(iptables.backend, *live)].into_iter().chain(beside) {
            found.extend(mark_bit::writers(
                rules,
                &backend.program(family, "iptables"),
            ));
        }
        for rule in around.mark_rules.get(family).into_iter().flatten() {
            // A rule of `inet` is in both families' lists.
            if !of_nft.contains(&rule) {
                of_nft.push(rule);
                found.push(mark_bit::of_nft(rule));
            }
        }
        let found = found.iter();
        remarks.warn_of_rules(found.map(|one| format!("{}\n  {}", one.told, one.fix)));
    }
}

/// Names a foreign rule that jumps to one of nvactl's chains.
pub fn reference(live: &Ruleset, remarks: &mut Remarks) {
    if let Some((_, chain, rule)) = foreign::reference(live) {
        remarks.warn(format_args!(
            "a rule that is not nvactl's jumps to one of nvactl's chains, so `nvactl remove` will fail: {}",
            printable::line(Line::Append(chain, rule))
        ));
    }
}

/// Names foreign rules that forward the same ports, or set the source address of their connections. `program` is the family's iptables, for the printed commands.
pub fn duplicates(live: &Ruleset, set: &ForwardSet, program: &str, remarks: &mut Remarks) {
    let found = duplicate::duplicates(live, set);
    remarks.warn_of_rules(found.iter().map(|duplicate| {
        let names = names(duplicate.forwards.iter().map(|name| name.as_str()));
        let typed = printable::line(duplicate.line());
        let is_redirection = duplicate.redirects();
        let (also, whether) = match duplicate.undecided {
            None if is_redirection => ("also forwards the port", String::new()),
            None => ("also sets the source address", String::new()),
            Some(condition) => (
                if is_redirection {
                    "may also forward the port"
                } else {
                    "may also set the source address"
                },
                format!(", which depends on `{}`", printable::line(condition)),
            ),
        };
        let nobodys = "a rule that nvactl did not write".to_owned();
        let (rule, advice) = match (duplicate.owner(), duplicate.undecided) {
            (Some(owner), _) => (
                format!("{owner} has a rule that"),
                format!(
                    "{owner} adds a removed rule again: change the port there, or `listen` in the spec"
                ),
            ),
            (None, None) => (
                nobodys,
                format!("to remove it: {}", duplicate.removal(program)),
            ),
            (None, Some(_)) => (
                nobodys,
                format!("to look: {}", duplicate.look(program)),
            ),
        };
        format!("{rule} {also} of {names}{whether}: {typed}\n  {advice}")
    }));
}

/// Names the rules that another program keeps putting before nvactl's jumps.
pub fn jumps(jumps: &Jumps, want: &PerFamily<Ruleset>, after: &mut Remarks) {
    let found = match jumps {
        Jumps::First => return,
        Jumps::Unknown => {
            after.warn(
                "another program put rules before nvactl's jump; nvactl moved its jump to the front again, \
                 but could not verify that; to check: sudo nvactl status",
            );
            return;
        }
        Jumps::Behind(found) => found,
    };
    for (_, (found, want)) in found.as_ref().zip(want.as_ref()).iter() {
        for (table, name, chain) in found.chains() {
            let jump = want
                .chain(table, name)
                .and_then(|chain| chain.rules.first());
            if !jumps_from(table, name) || jump.is_none() {
                continue;
            }
            let before = chain.rules.iter().take_while(|rule| Some(*rule) != jump);
            let before: Vec<String> = before
                .map(|rule| {
                    format!(
                        "another program keeps putting a rule before nvactl's jump, where it sees packets first: {table}: {}",
                        printable::line(Line::Append(name, rule))
                    )
                })
                .collect();
            after.warn_of_rules(before.iter());
        }
    }
}

/// Warns that the rules from before a change are not in the history.
pub fn not_kept(error: Option<StateError>, after: &mut Remarks) {
    if let Some(error) = error {
        after.warn(format_args!(
            "the rules from before this change could not be recorded, so `nvactl rollback` cannot restore them: {}",
            describe(&error.into())
        ));
    }
}

/// Notes that connections end: the kernel tracks and translates them only while a rule needs it. `before` are the
/// rules that held the forwards; `opens`: the FORWARD policy becomes ACCEPT.
pub fn connections_end<'r>(
    before: impl IntoIterator<Item = (Family, &'r Ruleset)>,
    opens: bool,
    after: &mut Remarks,
) {
    let refuses = |(_, rules): &(Family, &Ruleset)| {
        let forward = rules.chain(TableName::Filter, &ChainName::Forward);
        let mut rules_there = forward.into_iter().flat_map(|chain| &chain.rules);
        let is_own = |rule: &Rule| rule.leads_to().is_some_and(ChainName::is_own);
        !opens && rules.forward_policy() == Policy::Drop && rules_there.all(is_own)
    };
    let all = before.into_iter();
    let held: Vec<(Family, &Ruleset)> = all.filter(|(_, rules)| rules.holds_own()).collect();
    let Some((first, _)) = held.first() else {
        return;
    };
    if held.iter().all(refuses) {
        after.note(format_args!(
            "connections through the removed rules end: the {} DROP refuses their packets",
            policy_name(*first)
        ));
    } else {
        after.note(
            "connections through the removed rules end, unless rules of other programs track connections and \
             accept these",
        );
    }
}

/// Notes that the policy stays DROP without nvactl's rules.
pub fn policy_stays(family: Family, backend: Backend, after: &mut Remarks) {
    let command = Line::SetPolicy(&ChainName::Forward, Policy::Accept);
    after.line(format_args!(
        "the {} stays DROP; to forward everything: {}",
        policy_name(family),
        command.as_command(&backend.program(family, "iptables"), TableName::Filter)
    ));
}

/// Names missing interfaces, addresses and routes that forwards need.
pub fn reach(
    set: &ForwardSet,
    facts: Option<&reach::ReachFacts<'_>>,
    flows: &[Flow],
    live: &PerFamily<&Ruleset>,
    remarks: &mut Remarks,
) {
    let Some(facts) = facts else {
        remarks.note(reach::UNCHECKED);
        return;
    };
    for fault in reach::faults(set, facts, flows) {
        if fault.is_note() {
            remarks.note(fault.told());
        } else {
            remarks.warn(told(fault, set, &facts.links, live));
        }
    }
}

/// Returns the text of a fault. A missing interface is named with the forwards that it stops, and these are not
/// listed twice.
fn told(
    mut fault: Fault<'_>,
    set: &ForwardSet,
    links: &Links,
    live: &PerFamily<&Ruleset>,
) -> String {
    let Fault::NoInterface { name, forwards, .. } = &mut fault else {
        return fault.told();
    };
    let stopped = stopped(set, name, links, live);
    let verb = match stopped.len() {
        0 => return fault.told(),
        1 => "stops",
        _ => "stop",
    };
    if forwards.len() == stopped.len() {
        forwards.clear();
    }
    let stopped = quoted(stopped);
    format!("{stopped} {verb} with this change: {}", fault.told())
}

/// Returns the forwards that a missing interface stops, and whose interfaces in the loaded rules exist. Such a change
/// is not refused: a spec may move a forward to an interface that comes up later.
fn stopped<'s>(
    set: &'s ForwardSet,
    missing: &Interface,
    links: &Links,
    live: &PerFamily<&Ruleset>,
) -> BTreeSet<&'s str> {
    let is_there = |name: &Interface| links.get(name).is_some();
    let works =
        |forward: &Forward| is_there(&forward.egress) && forward.ingress.iter().any(is_there);
    let loaded: Vec<ForwardSet> = live.values().filter_map(|live| unplan(live)).collect();
    let sends = |entry: &Outbound| is_there(&entry.egress) && entry.ingress.iter().any(is_there);
    let forwards = loaded.iter().flat_map(|set| &set.forwards);
    let forwards = forwards
        .filter(|forward| works(forward))
        .map(|one| &one.name);
    let entries = loaded.iter().flat_map(|set| &set.outbound);
    let entries = entries.filter(|entry| sends(entry)).map(|one| &one.name);
    let loaded: BTreeSet<&str> = forwards.chain(entries).map(Name::as_str).collect();
    let needs = |forward: &&Forward| {
        !works(forward) && (forward.egress == *missing || forward.ingress.contains(missing))
    };
    let cannot_send = |entry: &&Outbound| {
        !sends(entry) && (entry.egress == *missing || entry.ingress.contains(missing))
    };
    let forwards = set.forwards.iter().filter(needs).map(|one| &one.name);
    let entries = set.outbound.iter().filter(cannot_send).map(|one| &one.name);
    forwards
        .chain(entries)
        .map(Name::as_str)
        .filter(|name| loaded.contains(name))
        .collect()
}

/// Names kernel switches that stop forwarding.
///
/// # Errors
/// When a switch cannot be read.
pub fn sysctl(set: &ForwardSet, remarks: &mut Remarks) -> Result<(), SysctlError> {
    if set.has(Family::V6) && !sysctl::forwards(Family::V6)? {
        remarks.warn(
            "net.ipv6.conf.all.forwarding is 0: the kernel forwards no IPv6; \
             to turn it on: sudo nvactl sysctl enable --persist --ipv6",
        );
    }
    if !sysctl::forwards(Family::V4)? {
        remarks.warn(
            "net.ipv4.ip_forward is 0: the kernel forwards nothing; \
             to turn it on: sudo nvactl sysctl enable --persist",
        );
        return Ok(());
    }
    for interface in set.interfaces() {
        match sysctl::forwards_from(interface) {
            // [`reach`] reports a missing interface.
            Some(true) | None => {}
            Some(false) => remarks.warn(format_args!(
                "the kernel forwards no packets that come in on {interface}; \
                 to turn it on: sudo sysctl -w net.ipv4.conf.{}.forwarding=1",
                sysctl::part_of_key(interface.as_str())
            )),
        }
    }
    Ok(())
}
