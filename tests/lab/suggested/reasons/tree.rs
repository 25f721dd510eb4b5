//! Reasons for rules that only the tree layout has, and for those that its rules for marked packets make needless.

use std::net::IpAddr;

use nvactl::forwards::Forward;
use nvactl::net::PortRange;
use nvactl::netfilter::matches::Match;
use nvactl::netfilter::names::{ChainName, TableName};
use nvactl::netfilter::negatable::Negatable::{self, Is, Not};
use nvactl::netfilter::rule::Rule;
use nvactl::netfilter::target::Target;
use nvactl::netfilter::tracking::Conntrack;

use super::{Case, becomes, is_jump, is_redirected, looks_untouched};
use crate::mutate::Change::{Gone, Wider};
use crate::mutate::Field;

const MARKED: &str = "NVACTL-MARKED";

/// Returns whether only a tree has such a rule.
pub fn is_of_tree(case: &Case<'_>) -> bool {
    let rule = case.rule();
    let is_for_marks = asks_mark(rule) || matches!(rule.target, Some(Target::SetConnmark(_)));
    let leads_on = rule.leads_to().is_some_and(is_branch);
    is_tree(case) && (is_for_marks || leads_on || case.place.chain.as_str() == MARKED)
}

/// Returns the reason for a rule that only a tree has.
pub fn of_tree(case: &Case<'_>) -> Option<&'static str> {
    let rule = case.rule();
    if matches!(rule.target, Some(Target::SetConnmark(_))) {
        of_marking(case)
    } else if asks_mark(rule) || case.place.chain.as_str() == MARKED {
        of_marked(case)
    } else {
        of_branch(case)
    }
}

/// Returns the reason for a forward's own rule in a tree.
pub fn of_leaf(case: &Case<'_>) -> Option<&'static str> {
    let rule = case.rule();
    if !is_tree(case) || !rule.matches.iter().any(is_comment) {
        return None;
    }
    let is_wider = matches!(case.mutation.change, Gone | Wider);
    if case.place.chain.as_str().starts_with("NVACTL-DNAT-")
        && (case.mutation.field, is_wider) == (Field::Destination, true)
    {
        return Some("the rule that leads here asks for it");
    }
    let asks_less = !case.changed().is_none_or(is_redirected);
    let is_of_untouched =
        case.mutation.field == Field::States && asks_less && looks_untouched(rule);
    let passes_others = case.place.table == TableName::Filter || !case.set.outbound.is_empty();
    let is_same = is_redirected(rule) && is_spared(case, rule);
    (is_same && !(is_of_untouched && passes_others))
        .then_some("the rules for marked packets take them before")
}

pub fn is_tree(case: &Case<'_>) -> bool {
    let marked = ChainName::from(MARKED);
    case.plan().chain(TableName::Nat, &marked).is_some()
}

fn is_branch(chain: &ChainName) -> bool {
    let stems = ["NVACTL-DNAT-", "NVACTL-FWD-", "NVACTL-SNAT-"];
    stems.iter().any(|stem| chain.as_str().starts_with(stem))
}

fn is_comment(one: &Match) -> bool {
    matches!(one, Match::Comment(_))
}

fn asks_mark(rule: &Rule) -> bool {
    let mut matches = rule.matches.iter();
    matches.any(|one| matches!(one, Match::Connmark(_)))
}

/// Returns the reason for a rule that sets or removes the mark.
fn of_marking(case: &Case<'_>) -> Option<&'static str> {
    let (rule, changed) = (case.rule(), case.changed());
    let changed = changed.and_then(|rule| rule.target.as_ref());
    let ends = changed.is_some_and(|target| !matches!(target, Target::SetConnmark(_)));
    if case.place.chain.as_str() == MARKED {
        return match ends {
            true if becomes(case, &Target::Return) => {
                Some("the forward's own rules give it the same source")
            }
            true => None,
            false => Some("later packets are accepted as those of a known connection"),
        };
    }
    let is_last = case.later().is_empty();
    match (rule.matches.is_empty(), ends) {
        (true, _) if is_last => Some("the rules for marked packets take redirected ones alone"),
        (true, false) => Some("packets without a mark meet the forward's own rules"),
        (false, false)
            if matches!(case.mutation.change, Gone | Wider) && case.changed().is_some() =>
        {
            Some("packets without a mark meet the forward's own rules")
        }
        _ => None,
    }
}

/// Returns the reason for a rule for marked packets.
fn of_marked(case: &Case<'_>) -> Option<&'static str> {
    let rule = case.rule();
    match case.mutation.field {
        Field::Target if case.place.chain.as_str() == MARKED && becomes(case, &Target::Return) => {
            Some("the forward's own rules give it the same source")
        }
        Field::Target if is_jump(case) => {
            Some("no rule that follows takes the packets that return")
        }
        Field::Target if is_persistent(rule, case.changed()) => {
            Some("a client gets one of the addresses either way")
        }
        Field::Target => {
            let mut forwards = case.set.forwards.iter();
            let none = forwards.all(|one| is_unmarked(case, one.name.as_str()));
            none.then_some("no packet keeps the mark")
        }
        Field::Mark if case.place.table == TableName::Nat => None,
        Field::Mark => {
            let mut unmarked = case
                .set
                .forwards
                .iter()
                .filter(|one| is_unmarked(case, one.name.as_str()) && asks_protocol(rule, one));
            let all =
                unmarked.all(|one| one.sources.allow.is_none() && one.sources.deny.is_empty());
            all.then_some("the other forwards refuse nobody")
        }
        _ => Some("the forward's own rules do the same"),
    }
}

/// Returns whether the only change is that a client keeps its address, or does not.
fn is_persistent(rule: &Rule, changed: Option<&Rule>) -> bool {
    let addresses = |rule: &Rule| match &rule.target {
        Some(Target::Snat { addresses, .. }) => Some(*addresses),
        _ => None,
    };
    let before = addresses(rule);
    before.is_some() && before == changed.and_then(addresses)
}

fn asks_protocol(rule: &Rule, forward: &Forward) -> bool {
    let mut matches = rule.matches.iter();
    matches.any(|one| matches!(one, Match::Protocol(Is(of)) if *of == forward.protocol.into()))
}

/// Returns whether a rule removes the mark from the packets of a forward.
fn is_unmarked(case: &Case<'_>, name: &str) -> bool {
    let chains = case.plan().tables[&TableName::Nat].values();
    let mut rules = chains.flat_map(|chain| &chain.rules);
    rules.any(|rule| {
        let unmarks = matches!(rule.target, Some(Target::SetConnmark(_)));
        unmarks && comment(rule) == Some(name)
    })
}

/// Returns the name of the forward or entry that a rule belongs to.
pub fn comment(rule: &Rule) -> Option<&str> {
    rule.matches.iter().find_map(|one| match one {
        Match::Comment(name) => Some(&**name),
        _ => None,
    })
}

/// Returns whether a rule has packets that come in by the interface of the targets. The rules for marked packets have
/// none of them.
pub fn is_of_hairpin(case: &Case<'_>, rule: &Rule) -> bool {
    rule.matches.iter().any(|one| {
        let Match::Ingress(Is(by)) = one else {
            return false;
        };
        let mut ingress = case.set.firewall.ingress.iter();
        !ingress.any(|one| *by == one.clone().into())
    })
}

/// Returns whether rules for marked packets take the packets of a forward's rule before it.
fn is_spared(case: &Case<'_>, rule: &Rule) -> bool {
    let is_hairpin = is_of_hairpin(case, rule) && case.place.table == TableName::Filter;
    let is_unmarked = comment(rule).is_none_or(|name| is_unmarked(case, name));
    is_tree(case) && !is_hairpin && !is_unmarked
}

/// Returns the reason for a rule that leads to another chain of the tree: every listener's packets go where they went.
fn of_branch(case: &Case<'_>) -> Option<&'static str> {
    let (rule, changed) = (case.rule(), case.changed());
    let below = rule.leads_to().map(|chain| leaves(case, chain))?;
    let is_before_dnat = case.place.chain.as_str().starts_with("NVACTL-DNAT-")
        || case.place.chain.as_str() == "NVACTL-PREROUTING";
    let is_needless = |leaf: &&Rule| !is_before_dnat && is_spared(case, leaf);
    let target = changed.and_then(|rule| rule.target.as_ref());
    let later = case.later().iter().filter_map(Rule::leads_to);
    let later: Vec<&Rule> = later.flat_map(|chain| leaves(case, chain)).collect();
    let ends = matches!(target, Some(Target::Goto(_) | Target::Accept));
    let machine = case.set.forwards.iter().find_map(|one| one.listen.address);
    let takes = |leaf: &&Rule| changed.is_some_and(|rule| takes(rule, leaf, machine));
    // Packets of other listeners do not come to their rules any more.
    let hidden: Vec<&Rule> = later
        .into_iter()
        .filter(|leaf| ends && takes(leaf))
        .collect();
    if becomes(case, &Target::Accept) {
        let is_same = |leaf: &&Rule| match case.place.table {
            TableName::Filter => leaf.target == Some(Target::Accept),
            _ => is_needless(leaf),
        };
        let asks_address = Listener::of(rule).address.is_some();
        let is_nat = case.place.table == TableName::Nat;
        let mut both = below.iter().chain(&hidden);
        let all = (is_nat || asks_address) && both.all(is_same);
        return all.then_some("its packets are accepted either way");
    }
    let mut lost = below.iter().filter(|leaf| !takes(leaf));
    if !lost.all(&is_needless) {
        return None;
    }
    hidden
        .iter()
        .all(is_needless)
        .then_some("each listener's packets go to the same rule")
}

/// Returns the forwards' rules in a chain and in those that it leads to.
fn leaves<'c>(case: &'c Case<'_>, chain: &ChainName) -> Vec<&'c Rule> {
    let rules = case.chain(chain).iter();
    let each = rules.flat_map(|rule| match rule.leads_to() {
        Some(next) if is_branch(next) => leaves(case, next),
        _ => vec![rule],
    });
    each.collect()
}

/// The conditions on the listener of a connection.
#[derive(Debug, Default)]
struct Listener {
    address: Option<Negatable<ipnet::IpNet>>,
    ports: Option<Negatable<PortRange>>,
    protocol: Option<Match>,
}

impl Listener {
    fn of(rule: &Rule) -> Self {
        let mut listener = Self::default();
        let (mut now, mut before) = (None, None);
        for one in &rule.matches {
            match one {
                Match::Destination(net) => now = Some(*net),
                Match::Protocol(_) => listener.protocol = Some(one.clone()),
                Match::Tcp { destination, .. } | Match::Udp { destination, .. } => {
                    listener.ports = listener.ports.or(*destination);
                }
                Match::Conntrack(Conntrack {
                    original_destination,
                    original_destination_port,
                    ..
                }) => {
                    before = before.or(*original_destination);
                    listener.ports = original_destination_port.or(listener.ports);
                }
                _ => {}
            }
        }
        // Behind DNAT, `-d` is the target.
        listener.address = before.or(now.filter(|_| !is_redirected(rule)));
        listener
    }
}

/// Returns whether a rule takes packets of the listener that another rule asks for. Tests ask a listener for all addresses
/// at the `machine`'s first one.
fn takes(rule: &Rule, leaf: &Rule, machine: Option<IpAddr>) -> bool {
    let (rule, leaf) = (Listener::of(rule), Listener::of(leaf));
    let address = match leaf.address {
        Some(Is(net)) => Some(net.addr()),
        _ => machine,
    };
    let has_address = |net: Negatable<ipnet::IpNet>, address: IpAddr| match net {
        Is(net) => net.contains(&address),
        Not(net) => !net.contains(&address),
    };
    let is_there = match (rule.address, address) {
        (None, _) => true,
        (Some(net), Some(address)) => has_address(net, address),
        (Some(_), None) => false,
    };
    let ports = leaf.ports.map(|(Is(ports) | Not(ports))| ports);
    let is_port = match (rule.ports, ports) {
        (Some(Is(range)), Some(ports)) => range.overlaps(ports),
        (Some(Not(range)), Some(ports)) => !range.overlaps(ports),
        _ => true,
    };
    let is_protocol = match (&rule.protocol, &leaf.protocol) {
        (Some(Match::Protocol(Is(one))), Some(Match::Protocol(Is(other)))) => one == other,
        (Some(Match::Protocol(Not(one))), Some(Match::Protocol(Is(other)))) => one != other,
        _ => true,
    };
    is_there && is_port && is_protocol
}
