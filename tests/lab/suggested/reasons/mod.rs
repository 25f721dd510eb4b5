//! The reasons why no test shows a change of a rule, mostly because it means the same.
//!
//! A reason for a change that a test sees is a failure.

mod limits;
mod tree;

use ipnet::IpNet;
use nvactl::forwards::{
    Outbound, OutboundProtocol, PacketTest, Reaches, TestDestination, TestName,
};
use nvactl::net::PortRange;
use nvactl::netfilter::matches::Match;
use nvactl::netfilter::names::{ChainName, TableName};
use nvactl::netfilter::negatable::Negatable::{Is, Not};
use nvactl::netfilter::rule::Rule;
use nvactl::netfilter::target::{DnatPorts, Target};
use nvactl::netfilter::tracking::{Conntrack, CtState, CtStates, CtStatus};

use limits::{of_limit, of_log};
use tree::{comment, is_of_hairpin, is_of_tree, is_tree, of_leaf, of_tree};

use super::changes::{Case, has_share};
use crate::mutate::Change::{Gone, Narrower, Negated, Wider};
use crate::mutate::Field;

/// Returns why no test can show a change of a rule; `None` if one must fail.
pub fn reason(case: &Case<'_>) -> Option<&'static str> {
    let mut tests = case.tests.iter();
    if !tests.any(|test| test.family() == case.place.family) {
        return Some("the made-up machine has no addresses of this family");
    }
    let chain = case.place.chain.as_str();
    if matches!(chain, "OUTPUT" | "NVACTL-OUTPUT") || chain.starts_with("NVACTL-OUT-") {
        return Some("only the machine's own connections meet it, and tests have clients");
    }
    if is_of_tree(case) {
        return of_tree(case).or_else(|| of_packets(case));
    }
    if is_jump(case)
        && case
            .rule()
            .leads_to()
            .is_some_and(|chain| decides(case, chain))
    {
        return Some("the chain that it leads to decides on every packet");
    }
    of_packets(case)
        .or_else(|| of_leaf(case))
        .or_else(|| match case.place.table {
            TableName::Mangle => of_mangle(case),
            TableName::Nat => of_nat(case),
            _ => of_filter(case),
        })
}

/// Returns whether no packet returns from a chain.
fn decides(case: &Case<'_>, chain: &ChainName) -> bool {
    let Some((last, others)) = case.chain(chain).split_last() else {
        return false;
    };
    let ends = matches!(last.target, Some(Target::Accept | Target::Drop));
    let mut others = others.iter();
    let is_log = |rule: &Rule| matches!(rule.target, Some(Target::Log { .. }));
    ends && last.is_unconditional() && others.all(is_log)
}

/// Returns whether the changed rule takes packets of a later rule that asks for their network and does something else.
fn takes_later(case: &Case<'_>) -> bool {
    let Some(changed) = case.changed() else {
        return false;
    };
    let mine = networks(changed);
    let later = case.later().iter();
    // A packet that returns in `nat` keeps its source, and another rule drops it.
    let is_nat = case.place.table == TableName::Nat;
    let matters = |later: &&Rule| !is_nat || later.leads_to().is_some();
    let later = later.filter(|later| later.target != changed.target && matters(later));
    let mut later = later.flat_map(networks);
    later.any(|net| {
        let mut mine = mine.iter();
        mine.all(|one| one.contains(&net) || net.contains(one))
    })
}

fn networks(rule: &Rule) -> Vec<IpNet> {
    let nets = rule.matches.iter().filter_map(|one| match one {
        Match::Source(Is(net)) | Match::Destination(Is(net)) => Some(*net),
        _ => None,
    });
    nets.collect()
}

/// Returns the kind of a chain of networks.
fn list(chain: &ChainName) -> Option<&str> {
    chain.as_str().split('-').nth(1)
}

fn is_goto(rule: &Rule) -> bool {
    matches!(rule.target, Some(Target::Goto(_)))
}

/// Returns the reason if no test sends a packet that the change concerns.
fn of_packets(case: &Case<'_>) -> Option<&'static str> {
    let (field, change) = (case.mutation.field, case.mutation.change);
    match (field, change) {
        (Field::Flags, Gone) => Some("each test opens its connection with a SYN"),
        (Field::Icmp, Gone | Wider) => Some("each ping of a test is an echo request"),
        (Field::States, _) => of_states(case),
        _ => None,
    }
}

/// Returns the states of each condition on them, and whether they are negated.
fn states(rule: &Rule) -> Vec<(CtStates, bool)> {
    let states = rule.matches.iter().filter_map(|one| match one {
        Match::Conntrack(Conntrack { states, .. }) => states.as_ref(),
        _ => None,
    });
    let states = states.map(|states| match states {
        Is(states) => (*states, false),
        Not(states) => (*states, true),
    });
    states.collect()
}

fn of_states(case: &Case<'_>) -> Option<&'static str> {
    let (before, after) = (states(case.rule()), states(case.changed()?));
    let lost = before.iter().find(|one| !after.contains(one))?;
    let new = after.iter().find(|one| !before.contains(one));
    let added = new.map(|(new, _)| new.iter().filter(|state| !lost.0.contains(*state)));
    let added: Vec<CtState> = added.into_iter().flatten().collect();
    let is_wider = case.mutation.change == Wider;
    match (
        lost.0.contains(CtState::Established),
        lost.0.contains(CtState::New),
    ) {
        (true, _) => match (case.mutation.change, added.as_slice()) {
            (Narrower, _) if new?.0.contains(CtState::Established) => {
                Some("no test has a related packet")
            }
            (Wider, [CtState::Invalid]) => Some("tests send no invalid packets"),
            (Wider, [CtState::Dnat]) => forwards_refuse_nobody(case),
            _ => None,
        },
        (_, true) if is_wider || case.mutation.change == Gone => Some(
            "packets of known connections were accepted before, and tests send no invalid ones",
        ),
        (_, false) if is_wider && !added.contains(&CtState::New) => {
            Some("a packet that opens a connection has no other state")
        }
        (_, false) if lost.1 && case.mutation.change == Gone => {
            Some("the forwards' rules have decided about redirected packets before")
        }
        (_, false) if !lost.1 && (is_wider || case.mutation.change == Gone) => of_untouched(case),
        _ => None,
    }
}

fn forwards_refuse_nobody(case: &Case<'_>) -> Option<&'static str> {
    let mut forwards = case.set.forwards.iter();
    let all = forwards.all(|one| one.sources.allow.is_none() && one.sources.deny.is_empty());
    all.then_some("the forwards refuse nobody")
}

/// Returns the reason why packets that were not redirected may match a rule of a forward.
fn of_untouched(case: &Case<'_>) -> Option<&'static str> {
    let rule = case.rule();
    if !looks_untouched(rule) {
        return Some("a packet sent straight at the target has another original port or address");
    }
    let leads_there = |entry: &Outbound| {
        let by = Match::Egress(Is(entry.egress.clone().into()));
        rule.matches.contains(&by)
    };
    let is_nat = case.place.table == TableName::Nat;
    (is_nat && !case.set.outbound.iter().any(leads_there))
        .then_some("NVACTL-FORWARD lets no other packets pass")
}

/// Returns whether a packet that was never redirected may have the ports of one that came by the listener.
fn looks_untouched(rule: &Rule) -> bool {
    let (mut before, mut is_addressed) = (None, false);
    for one in &rule.matches {
        if let Match::Conntrack(conntrack) = one {
            before = before.or(conntrack.original_destination_port);
            is_addressed |= conntrack.original_destination.is_some();
        }
    }
    !is_addressed && ports(rule) == before.map(|(Is(ports) | Not(ports))| ports)
}

fn ports(rule: &Rule) -> Option<PortRange> {
    rule.matches.iter().find_map(|one| match one {
        Match::Tcp { destination, .. } | Match::Udp { destination, .. } => {
            destination.map(|(Is(ports) | Not(ports))| ports)
        }
        _ => None,
    })
}

fn is_redirected(rule: &Rule) -> bool {
    let mut states = states(rule).into_iter();
    states.any(|(states, negated)| !negated && states.iter().eq([CtState::Dnat]))
}

/// Returns whether the change is from `-g` to `-j`, or back.
fn is_jump(case: &Case<'_>) -> bool {
    let target = case.changed().and_then(|rule| rule.target.as_ref());
    case.mutation.field == Field::Target
        && matches!(target, Some(Target::Jump(_) | Target::Goto(_)))
}

/// Returns whether the change makes this the target of the rule.
fn becomes(case: &Case<'_>, target: &Target) -> bool {
    let changed = case.changed().and_then(|rule| rule.target.as_ref());
    case.mutation.field == Field::Target && changed == Some(target)
}

/// Returns whether a later rule has packets to the same target, and does something else.
fn is_rival(rule: &Rule, later: &Rule) -> bool {
    let is_same = net(rule) == net(later) && ports(rule) == ports(later);
    is_redirected(later) && is_same && rule.target != later.target
}

/// Returns the reason for conditions of forwards' rules behind DNAT.
fn of_redirected(case: &Case<'_>) -> Option<&'static str> {
    match (case.mutation.field, case.mutation.change) {
        (Field::Ingress, Gone) if case.later().iter().any(|one| is_rival(case.rule(), one)) => None,
        (Field::Destination | Field::Ingress | Field::Port, Gone | Wider) => {
            Some("DNAT sends the listener's connections to this target and port alone")
        }
        (Field::OriginalDestination | Field::OriginalPort, Gone | Wider) => {
            Some("DNAT sends no other connections to this target and port")
        }
        (Field::Egress, Gone) => Some("the made-up machine has one route to the target"),
        _ if is_jump(case) => Some("the rules that follow match none of its packets"),
        (Field::Target, _)
            if matches!(case.rule().target, Some(Target::Goto(_)))
                && becomes(case, &Target::Accept) =>
        {
            forwards_refuse_nobody(case)
        }
        _ => None,
    }
}

fn of_mangle(case: &Case<'_>) -> Option<&'static str> {
    let flags = |one: &Match| matches!(one, Match::Tcp { flags: Some(_), .. });
    let drops = becomes(case, &Target::Drop) && case.rule().matches.iter().any(flags);
    (!drops).then_some("the size of segments changes, and tests send small packets")
}

fn of_nat(case: &Case<'_>) -> Option<&'static str> {
    let (rule, chain) = (case.rule(), case.place.chain.as_str());
    let (field, change) = (case.mutation.field, case.mutation.change);
    if matches!(rule.target, Some(Target::Dnat { .. })) {
        return of_dnat(case);
    }
    if chain == "PREROUTING" && case.set.forwards.is_empty() {
        return Some("a spec without forwards redirects nothing");
    }
    if is_jump(case) {
        return Some("no rule that follows takes the packets that return");
    }
    if rule.target == Some(Target::Accept) {
        return Some("packets that no rule translates keep their source");
    }
    if let Some(Target::Snat { addresses, .. }) = &rule.target
        && let Some(Target::Snat {
            addresses: other, ..
        }) = case.changed().and_then(|rule| rule.target.as_ref())
        && field == Field::Target
    {
        let mut same = [other.first(), other.last()].into_iter();
        let same = same.all(|one| addresses.first() <= one && one <= addresses.last());
        return same.then_some("a client gets one of the addresses either way");
    }
    if is_redirected(rule) {
        return of_redirected(case);
    }
    if let Some(keeps) = keeps_source(case) {
        return Some(keeps);
    }
    if chain.starts_with("NVACTL-TO-") && rule.target == Some(Target::Return) {
        return of_blocks(case, "NVACTL-FORWARD lets no packet to them pass");
    }
    match (field, change) {
        (Field::Source, Gone) if !case.set.forwards.is_empty() && takes_later(case) => None,
        _ if is_goto(rule) && takes_later(case) => None,
        (
            Field::Source
            | Field::Destination
            | Field::Ingress
            | Field::Egress
            | Field::Protocol
            | Field::Port
            | Field::AddressType,
            Gone | Wider,
        ) => Some("NVACTL-FORWARD lets no other packets pass"),
        _ => None,
    }
}

/// Returns the reason for rules that lead to a chain in which packets only keep their source.
fn keeps_source(case: &Case<'_>) -> Option<&'static str> {
    let (Target::Jump(chain) | Target::Goto(chain)) = case.rule().target.as_ref()? else {
        return None;
    };
    accepts_only(case, chain).then_some("packets that no rule translates keep their source")
}

/// Returns whether a chain accepts packets or lets them return, and does nothing else.
fn accepts_only(case: &Case<'_>, chain: &ChainName) -> bool {
    case.chain(chain).iter().all(|rule| match &rule.target {
        Some(Target::Accept | Target::Return) => true,
        Some(Target::Jump(chain) | Target::Goto(chain)) => accepts_only(case, chain),
        _ => false,
    })
}

/// Returns the reason for a rule that redirects connections to one of several targets.
fn of_share(case: &Case<'_>) -> Option<&'static str> {
    let (rule, changed) = (case.rule(), case.changed());
    let forward = comment(rule);
    let target = changed.and_then(|changed| changed.target.as_ref());
    let mut others = case.place_chain().iter();
    let leads_alike = others.any(|one| comment(one) == forward && one.target.as_ref() == target);
    if case.mutation.field == Field::Target {
        return leads_alike.then_some("a test with several targets passes if some are reached");
    }
    let is_elsewhere = (case.mutation.field, case.mutation.change) == (Field::Port, Negated);
    let takes = |later: &Rule| is_elsewhere || competes(changed, later);
    let mut later = case.later().iter();
    let takes_others = later.any(|later| comment(later) != forward && takes(later));
    (has_share(rule) && !takes_others)
        .then_some("a test with several targets passes if some are reached")
}

fn of_dnat(case: &Case<'_>) -> Option<&'static str> {
    let (rule, changed) = (case.rule(), case.changed());
    let takes_others = || {
        let mut later = case.later().iter();
        // The rules for marked packets do not ask for the port that they came to.
        let is_marked = is_tree(case) && !is_of_hairpin(case, rule);
        is_marked || later.any(|one| competes(changed, one))
    };
    if let Some(why) = of_share(case) {
        return Some(why);
    }
    match (case.mutation.field, case.mutation.change) {
        (Field::Ingress, Gone) => Some("NVACTL-FORWARD drops what another interface brings"),
        (Field::Port, Gone) if net(rule).is_some() && case.set.interfaces().len() == 1 => {
            Some("tests ask other listeners at another address of the machine")
        }
        (Field::Port, Gone | Wider) if !takes_others() => {
            Some("NVACTL-FORWARD drops what came to another port")
        }
        (Field::Destination, Gone) if case.set.outbound.is_empty() && !takes_others() => {
            Some("NVACTL-FORWARD drops what came to another address, as the policy does")
        }
        (Field::Destination, Wider) if !takes_others() => {
            Some("NVACTL-FORWARD drops what came to another address")
        }
        (Field::Target, _) => {
            let target = changed.and_then(|rule| rule.target.as_ref());
            let (
                Some(Target::Dnat {
                    ports: before,
                    address,
                }),
                Some(Target::Dnat {
                    ports: after,
                    address: other,
                }),
            ) = (&rule.target, target)
            else {
                return None;
            };
            let is_kept = matches!((before, after), (DnatPorts::One(port), DnatPorts::Kept)
                if ports(rule).is_some_and(|ports| ports == PortRange::from(*port)));
            (is_kept && address == other).then_some("the target has the listener's port")
        }
        _ => None,
    }
}

/// Returns whether a changed rule takes packets of a later rule that leads elsewhere.
fn competes(changed: Option<&Rule>, later: &Rule) -> bool {
    let Some(changed) = changed else {
        return false;
    };
    let side = |rule: &Rule| {
        let sides = rule.matches.iter();
        let sides = sides.filter(|one| matches!(one.name(), "-i" | "-p"));
        sides.cloned().collect::<Vec<Match>>()
    };
    let is_one_port = match (ports(changed), ports(later)) {
        (Some(one), Some(other)) => one.overlaps(other),
        _ => true,
    };
    let is_one_address = match (net(changed), net(later)) {
        (Some(one), Some(other)) => one.contains(&other) || other.contains(&one),
        _ => true,
    };
    side(changed) == side(later) && is_one_port && is_one_address && changed.target != later.target
}

fn of_filter(case: &Case<'_>) -> Option<&'static str> {
    let (rule, chain) = (case.rule(), case.place.chain.as_str());
    let (field, change) = (case.mutation.field, case.mutation.change);
    if let Some(why) = of_limit(case).or_else(|| of_log(case)) {
        return Some(why);
    }
    let kind = chain
        .strip_prefix("NVACTL-")
        .and_then(|name| name.split('-').next());
    match kind {
        None if is_jump(case) => Some("no rule follows"),
        Some("ADMIT" | "LOG") => of_admission(case),
        Some("EXIT") if is_of_confirmed(rule) => of_admission(case),
        Some("ALLOW" | "DENY" | "NOTTO" | "FROM" | "TO")
            if rule
                .leads_to()
                .is_some_and(|next| list(next) == list(&case.place.chain))
                && matches!(field, Field::Source | Field::Destination)
                && matches!(change, Gone | Wider)
                && !takes_later(case) =>
        {
            Some("the chain that it leads to asks for its networks")
        }
        Some("DENY" | "NOTTO" | "FROM") if is_jump(case) => {
            Some("no rule that follows takes the packets that return")
        }
        Some("ALLOW") if becomes(case, &Target::Accept) => {
            (rule.target == Some(Target::Return)).then_some("an accepting rule follows")
        }
        Some("TO") => of_internet(case),
        Some("EXIT") => of_exit(case),
        Some("FORWARD" | "FWD") if is_redirected(rule) => of_redirected(case),
        Some("FORWARD") => match (field, change) {
            (Field::Ingress, Gone) if case.set.interfaces().len() == 1 => {
                Some("the made-up machine has one interface")
            }
            (Field::Egress, Gone) if !case.is_asked("another sender") => {
                Some("all destinations of the entry are behind its egress")
            }
            // Without a network, the rule has packets of all entries.
            _ if is_jump(case) => (!networks(rule).is_empty() || case.later().is_empty())
                .then_some("no rule that follows takes the packets that return"),
            (Field::Target, _) if becomes(case, &Target::Accept) => of_every_protocol(case),
            _ => None,
        },
        _ => None,
    }
}

/// Returns the reason for a jump to a chain that accepts every protocol of tests.
fn of_every_protocol(case: &Case<'_>) -> Option<&'static str> {
    let Some(Target::Jump(chain)) = &case.rule().target else {
        return None;
    };
    let accepted = case
        .chain(chain)
        .iter()
        .filter(|rule| ports(rule).is_none());
    let is_all = accepts_only(case, chain) && accepted.count() == OutboundProtocol::ALL.len();
    is_all.then_some("tests have no other protocols")
}

/// Returns whether a rule has packets of a connection whose first packet has passed.
fn is_of_confirmed(rule: &Rule) -> bool {
    let status = rule.matches.iter().find_map(|one| match one {
        Match::Conntrack(Conntrack {
            status: Some(Is(status)),
            ..
        }) => Some(*status),
        _ => None,
    });
    status == Some(CtStatus::Confirmed)
}

/// Returns the reason for rules that admit clients, by limits too.
fn of_admission(case: &Case<'_>) -> Option<&'static str> {
    let (rule, field, change) = (case.rule(), case.mutation.field, case.mutation.change);
    if is_of_confirmed(rule) {
        let returns = rule.target == Some(Target::Return);
        let is_seen = returns && field == Field::Status;
        return (!is_seen).then_some("no test sends a SYN twice");
    }
    match (field, change) {
        _ if rule.target == Some(Target::Return) => {
            Some("only packets that open no connection come here")
        }
        (Field::Protocol, Gone) => Some("the rule that leads here asks for it"),
        (Field::Egress, Gone) => Some("the made-up machine has one route to the target"),
        _ => None,
    }
}

/// Returns the reason for rules that tell the Internet from other networks.
fn of_internet(case: &Case<'_>) -> Option<&'static str> {
    let rule = case.rule();
    let guard = ["169.254.169.254", "168.63.129.16"].into_iter();
    let is_guard = guard.clone().any(|one| rule.to_string().contains(one));
    let goes = matches!(rule.target, Some(Target::Goto(_)));
    if is_jump(case) {
        return Some("no rule that follows takes the packets that return");
    }
    if goes && is_guard {
        let is_everything = matches!(
            (case.mutation.field, case.mutation.change),
            (Field::Destination, Gone | Negated)
        );
        let is_seen = is_everything || becomes(case, &Target::Accept);
        return (!is_seen).then_some("the policy drops them as well");
    }
    if goes {
        let all = case
            .set
            .outbound
            .iter()
            .all(|entry| entry.protocols.len() == 3);
        let accepts = all && becomes(case, &Target::Accept);
        return accepts.then_some("tests have no other protocols");
    }
    if becomes(case, &Target::Drop) {
        return Some("the policy drops them as well");
    }
    of_blocks(
        case,
        "nvactl's own list of networks, of which tests ask some hosts",
    )
}

/// Returns the reason for a rule of one network if no test tells the difference.
fn of_blocks(case: &Case<'_>, why: &'static str) -> Option<&'static str> {
    let before = net(case.rule())?;
    let after = match (case.mutation.field, case.mutation.change) {
        (_, Negated) | (Field::Destination, Gone) => return None,
        (Field::Destination, _) => case.changed().and_then(net),
        _ => None,
    };
    let is_nat = case.place.table == TableName::Nat;
    let holds = |net: Option<IpNet>, test: &PacketTest| match test.to {
        TestDestination::Host(host) => net.is_some_and(|net| net.contains(&host.address)),
        TestDestination::Machine(_) => false,
    };
    let is_seen = case.tests.iter().any(|test| {
        let passes = test.reaches != Reaches::Nothing;
        // With several interfaces, another rule drops its packets.
        let name = test.name.as_ref().map(TestName::to_string);
        let is_own = name.is_some_and(|name| name.ends_with("the network of this machine"));
        if is_own && case.set.interfaces().len() > 1 {
            return false;
        }
        let is_guard = test.to.to_string().starts_with("169.254.169.254")
            || test.to.to_string().starts_with("168.63.129.16");
        let (before, after) = (holds(Some(before), test), holds(after, test));
        if passes {
            after && !before
        } else {
            before && !after && !is_nat && !is_guard
        }
    });
    (!is_seen).then_some(why)
}

fn net(rule: &Rule) -> Option<IpNet> {
    rule.matches.iter().find_map(|one| match one {
        Match::Destination(Is(net)) => Some(*net),
        _ => None,
    })
}

fn of_exit(case: &Case<'_>) -> Option<&'static str> {
    let (rule, field, change) = (case.rule(), case.mutation.field, case.mutation.change);
    match (field, change) {
        _ if is_jump(case) && matches!(rule.target, Some(Target::Goto(_))) => {
            Some("no rule that follows takes the packets that return")
        }
        (Field::Target, _) if becomes(case, &Target::Return) && net(rule).is_some() => {
            Some("the policy drops them as well")
        }
        (Field::Destination, Wider) if rule.to_string().contains("169.254.169.254") => {
            Some("no packet to a neighbour comes here")
        }
        (Field::Protocol, Gone) => Some("tests have no other protocols"),
        _ => None,
    }
}
