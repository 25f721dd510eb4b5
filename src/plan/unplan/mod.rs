//! The inverse of the plan: reads the forwards and outbound entries back from nvactl's rules in a ruleset.
//!
//! It understands only rules that a plan can contain. `diff::drift::compare` reports all others.

mod guards;
mod outbound;
mod parts;

use std::collections::{BTreeMap, BTreeSet};

use guards::{Guards, Lists};
pub use outbound::is_outbound;
pub use parts::name_of;
use parts::{egress, ingress, snat};

use crate::forwards::{
    Balance, Destination, Firewall, Forward, ForwardPolicy, ForwardSet, ForwardTarget, Layout,
    Listen, Name, Outbound, Snat, Snats, TargetKind, TargetPorts,
};
use crate::net::{Family, Interface, Protocol};
use crate::netfilter::matches::Match;
use crate::netfilter::names::{ChainName, Policy, TableName};
use crate::netfilter::negatable::Negatable::{self, Is};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::{DnatPorts, Mss, Target};
use crate::plan::{Hook, MARKED, OF_MARKED, layout, plan, plan_in};

/// Identifies a forward's rules: the comment, and the protocol, since a forward has rules for each of its
/// protocols.
pub type ForwardKey<'r> = (&'r str, Protocol);

/// Returns the forward that a rule belongs to, if the rule names one.
#[must_use]
pub fn key_of(rule: &Rule) -> Option<ForwardKey<'_>> {
    let protocol = rule.matches.iter().find_map(|condition| match condition {
        Match::Protocol(Is(protocol)) => protocol.transport(),
        _ => None,
    });
    Some((name_of(rule)?, protocol?))
}

/// Reads the forwards and outbound entries of a ruleset, in the order of its rules. Returns `None` if it holds none:
/// then no rule names the interfaces or the SNAT address either.
///
/// No rule records whether a target was written as `ilb` or `pod`: a target with a port counts as a pod.
#[must_use]
pub fn unplan(ruleset: &Ruleset) -> Option<ForwardSet> {
    let outbound = outbound::held(ruleset);
    let mut found = translated(ruleset);
    let outward = outbound.first();
    let family = found.family().or(outward.map(|entry| entry.family))?;
    let mut lists = Lists::new(ruleset, family);
    for (_, rule) in Hook::Passing.rules(ruleset) {
        if let Some(seen) = key_of(rule).and_then(|key| found.by_key.get_mut(&key)) {
            seen.egress = seen.egress.take().or_else(|| egress(rule));
            seen.guards.read(rule, &mut lists);
        }
    }
    for (_, rule) in Hook::Leaving.rules(ruleset) {
        if let Some(seen) = key_of(rule).and_then(|key| found.by_key.get_mut(&key)) {
            seen.egress = seen.egress.take().or_else(|| egress(rule));
            seen.snat = seen.snat.or(snat(rule));
        }
    }
    for (_, rule) in Hook::Sent.rules(ruleset) {
        if let Some(seen) = key_of(rule).and_then(|key| found.by_key.get_mut(&key)) {
            seen.hairpin = true;
        }
    }
    let layout = layout_of(ruleset).or(of_marked(ruleset).map(|_| Layout::Tree));
    let usual = found.usual(ruleset);
    let usual = usual.or_else(|| Some(Usual::of_outbound(outward?, ruleset)))?;
    let forwards = found.order.iter().filter_map(|key| {
        let seen = found.by_key.remove(key)?;
        seen.into_forwards(*key, &usual)
    });
    let forwards = forwards.flatten();
    let forwards: Vec<Forward> = forwards.collect();
    let Usual {
        ingress,
        egress,
        snat,
    } = usual;
    let mut snats = Snats::default();
    // A tree has no MARKED chain if the firewall sets no `snat` of this family.
    let said = layout == Some(Layout::Flat) || of_marked(ruleset).is_some();
    match family {
        Family::V4 => snats.v4 = said.then_some(snat),
        Family::V6 => snats.v6 = said.then_some(snat),
    }
    let firewall = Firewall {
        ingress,
        egress,
        snat: snats,
        mss: mss(ruleset),
        forward_policy: match ruleset.forward_policy() {
            Policy::Drop => ForwardPolicy::Drop,
            Policy::Accept => ForwardPolicy::Keep,
        },
        layout,
    };
    Some(ForwardSet {
        description: None,
        firewall,
        forwards,
        outbound,
        tests: Vec::new(),
    })
}

/// Reads the limit on segment sizes that most of nvactl's rules set. Rules that somebody has tampered with must not
/// decide for the others.
fn mss(ruleset: &Ruleset) -> Option<Mss> {
    let chains = ruleset.tables.get(&Hook::Sizing.table()).into_iter();
    let own = chains.flatten().filter(|(name, _)| name.is_own());
    let mut votes: BTreeMap<Mss, usize> = BTreeMap::new();
    for rule in own.flat_map(|(_, chain)| &chain.rules) {
        if let Some(Target::TcpMss(mss)) = rule.target {
            *votes.entry(mss).or_default() += 1;
        }
    }
    // With equal votes the lowest value wins, so that the result is the same on every machine.
    let most = votes.into_iter().rev().max_by_key(|(_, votes)| *votes);
    most.map(|(mss, _)| mss)
}

/// The forwards that have a DNAT rule.
#[derive(Default)]
struct HeldForwards<'r> {
    /// In the order of their rules.
    order: Vec<ForwardKey<'r>>,
    by_key: BTreeMap<ForwardKey<'r>, HeldForward>,
}

/// The options of one forward, as far as its rules have been read.
struct HeldForward {
    /// At least one. Several are the pieces of a list: they share all options.
    listens: Vec<Listen>,
    destinations: Vec<Destination>,
    balance: Balance,
    /// At least one.
    ingress: Vec<Interface>,
    egress: Option<Interface>,
    snat: Option<Snat>,
    guards: Guards,
    hairpin: bool,
    /// In a tree: whether a rule removes the mark from its packets, because it is not common.
    exempt: bool,
}

/// The options that most forwards share. Rules that somebody has tampered with must not decide for the other
/// forwards.
struct Usual {
    ingress: Vec<Interface>,
    egress: Interface,
    snat: Snat,
}

impl Usual {
    /// Returns the options of a firewall that has only outbound entries.
    fn of_outbound(entry: &Outbound, ruleset: &Ruleset) -> Self {
        let leaving = of_marked(ruleset).unwrap_or_default();
        let egress = leaving.iter().find_map(egress);
        Self {
            ingress: vec![entry.egress.clone()],
            egress: egress
                .or_else(|| entry.ingress.first().cloned())
                .unwrap_or(entry.egress.clone()),
            snat: leaving.iter().find_map(snat).unwrap_or(Snat::Client),
        }
    }
}

fn translated(ruleset: &Ruleset) -> HeldForwards<'_> {
    let mut found = HeldForwards::default();
    let (mut addressed, mut open) = (Vec::new(), Vec::new());
    let mut exempt = BTreeSet::new();
    for (_, rule) in Hook::Arriving.rules(ruleset) {
        let Some(key) = key_of(rule) else { continue };
        if matches!(rule.target, Some(Target::SetConnmark(_))) {
            exempt.insert(key);
        }
        let (Some((listen, to)), Some(ingress)) = (dnat(rule), ingress(rule)) else {
            continue;
        };
        let of_kind = match listen.address {
            Some(_) => &mut addressed,
            None => &mut open,
        };
        if of_kind.last() != Some(&key) {
            of_kind.push(key);
        }
        let seen = found.by_key.entry(key).or_insert_with(|| HeldForward {
            listens: Vec::new(),
            destinations: Vec::new(),
            balance: Balance::Random,
            ingress: Vec::new(),
            egress: None,
            snat: None,
            guards: Guards::default(),
            hairpin: false,
            exempt: false,
        });
        if !seen.listens.contains(&listen) {
            seen.listens.push(listen);
        }
        if !seen.destinations.contains(&to) {
            seen.destinations.push(to);
        }
        if !seen.ingress.contains(&ingress) {
            seen.ingress.push(ingress);
        }
        let by_client = |condition: &Match| matches!(condition, Match::Cluster(Is(_)));
        if rule.matches.iter().any(by_client) {
            seen.balance = Balance::Client;
        }
    }
    for (key, seen) in &mut found.by_key {
        seen.exempt = exempt.contains(key);
    }
    found.order = in_one_order(&addressed, &open);
    found
}

/// Returns the order of the forwards: the plan of all of them has the listeners for one address in the first order
/// and those for all addresses in the second. A list may have both. The order of a tree is another one, which does
/// not depend on the order of the forwards.
fn in_one_order<'r>(addressed: &[ForwardKey<'r>], open: &[ForwardKey<'r>]) -> Vec<ForwardKey<'r>> {
    let of_open: BTreeSet<&ForwardKey<'_>> = open.iter().collect();
    let mut order = Vec::with_capacity(addressed.len() + open.len());
    let mut rest = addressed.iter().peekable();
    for key in open {
        while let Some(before) = rest.next_if(|before| !of_open.contains(before)) {
            order.push(*before);
        }
        rest.next_if_eq(&key);
        order.push(*key);
    }
    order.extend(rest);
    let mut seen = BTreeSet::new();
    order.retain(|key| seen.insert(*key));
    order
}

impl HeldForwards<'_> {
    fn family(&self) -> Option<Family> {
        let seen = self.by_key.get(self.order.first()?)?;
        let first = seen.destinations.first();
        first.map(|to| Family::of(to.address))
    }

    fn usual(&self, ruleset: &Ruleset) -> Option<Usual> {
        let most = || self.most(|_| true);
        self.most(|seen| !seen.exempt)
            .or_else(|| match said(ruleset) {
                // The rules that name the ingress interfaces are missing.
                Some(said) if said.ingress.is_empty() => Some(Usual {
                    ingress: most()?.ingress,
                    ..said
                }),
                said => said.or_else(most),
            })
    }

    /// Returns the options that most of the selected forwards share.
    fn most(&self, of: impl Fn(&HeldForward) -> bool) -> Option<Usual> {
        let mut votes: BTreeMap<(&[Interface], &Interface, Option<Snat>), usize> = BTreeMap::new();
        for seen in self.by_key.values().filter(|seen| of(seen)) {
            if let Some(egress) = &seen.egress {
                let vote = (seen.clients(), egress, seen.snat);
                *votes.entry(vote).or_default() += 1;
            }
        }
        // With equal votes the lowest value wins, so that the result is the same on every machine.
        let ((ingress, egress, snat), _) =
            votes.into_iter().rev().max_by_key(|(_, votes)| *votes)?;
        Some(Usual {
            ingress: ingress.to_vec(),
            egress: egress.clone(),
            snat: snat.unwrap_or(Snat::Client),
        })
    }
}

impl HeldForward {
    /// Returns the interfaces on which clients arrive, without the egress interface that `hairpin` adds.
    fn clients(&self) -> &[Interface] {
        match self.ingress.split_last() {
            Some((last, others))
                if self.hairpin && !others.is_empty() && self.egress.as_ref() == Some(last) =>
            {
                others
            }
            _ => &self.ingress,
        }
    }

    /// Returns the entries of a forward, one for each listener.
    fn into_forwards(
        mut self,
        (name, protocol): ForwardKey<'_>,
        usual: &Usual,
    ) -> Option<impl Iterator<Item = Forward>> {
        let name: Name = name.parse().ok()?;
        let ingress = self.clients().to_vec();
        let (sources, limits, log) = self.guards.into_parts();
        let kept = |to: &Destination| to.ports == TargetPorts::Kept;
        // Each hook has the rules for one address before those for all addresses.
        self.listens.sort_unstable();
        let last = Forward {
            listen: self.listens.pop()?,
            protocol,
            target: ForwardTarget {
                kind: if self.destinations.iter().all(kept) {
                    TargetKind::Ilb
                } else {
                    TargetKind::Pod
                },
                destinations: self.destinations,
                balance: self.balance,
            },
            ingress,
            egress: self.egress.unwrap_or_else(|| usual.egress.clone()),
            snat: self.snat.unwrap_or(usual.snat),
            sources,
            limits,
            log,
            hairpin: self.hairpin,
            description: None,
            name,
        };
        let others = self.listens.into_iter().map(|listen| Forward {
            listen,
            ..last.clone()
        });
        let others: Vec<Forward> = others.collect();
        Some(others.into_iter().chain([last]))
    }
}

/// Returns the layout of the forwards' rules in a ruleset, if it has any. Chains without such a rule do not
/// count: an undone change, or somebody who removed the rules, may have left them.
#[must_use]
pub fn layout_of(ruleset: &Ruleset) -> Option<Layout> {
    let mut found = None;
    for (_, name, chain) in ruleset.chains() {
        match Hook::of(name) {
            Some(hook) if chain.rules.iter().any(|rule| key_of(rule).is_some()) => {
                // In a tree, all rules of forwards are in chains that the hook's own chain leads to.
                if name.as_str() != hook.own() {
                    return Some(Layout::Tree);
                }
                found = Some(Layout::Flat);
            }
            _ => {}
        }
    }
    found
}

/// Returns the plan of a spec in the layout of the loaded rules, or in the spec's own layout if no forward is
/// loaded. So the plan differs from the loaded rules only if the forwards differ.
#[must_use]
pub fn plan_as(loaded: &Ruleset, set: &ForwardSet, family: Family) -> Ruleset {
    let layout = layout_of(loaded).unwrap_or_else(|| layout(set, family));
    plan_in(layout, set, family)
}

/// Returns the plan of the forwards that the loaded rules hold: the rules as nvactl would have loaded them.
/// The branches of a tree depend on the number of forwards, so only this plan shows which rules that lead
/// to the forwards are missing.
#[must_use]
pub fn replanned(loaded: &Ruleset, family: Family) -> Ruleset {
    unplan(loaded).map_or_else(Ruleset::default, |held| plan(&held, family))
}

/// Reads the options that common forwards share from a tree's rules for marked packets.
fn said(ruleset: &Ruleset) -> Option<Usual> {
    let marked = |rule: &Rule| {
        let mut matches = rule.matches.iter();
        matches.any(|condition| *condition == Match::Connmark(Is(MARKED)))
    };
    let passing = Hook::Passing.rules(ruleset).map(|(_, rule)| rule);
    let mut by: Vec<Interface> = Vec::new();
    for ingress in passing.filter(|rule| marked(rule)).filter_map(ingress) {
        if !by.contains(&ingress) {
            by.push(ingress);
        }
    }
    let leaving = of_marked(ruleset)?;
    Some(Usual {
        ingress: by,
        egress: leaving.iter().find_map(egress)?,
        snat: leaving.iter().find_map(snat)?,
    })
}

fn of_marked(ruleset: &Ruleset) -> Option<&[Rule]> {
    let chain = ruleset.chain(TableName::Nat, &ChainName::from(OF_MARKED))?;
    Some(&chain.rules)
}

/// Reads the listener and the destination of a rule in NVACTL-PREROUTING.
fn dnat(rule: &Rule) -> Option<(Listen, Destination)> {
    let (mut ports, mut address) = (None, None);
    for condition in &rule.matches {
        match condition {
            Match::Tcp { destination, .. } | Match::Udp { destination, .. } => {
                ports = destination.as_ref().and_then(Negatable::wanted).copied();
            }
            Match::Destination(Is(net)) => address = Some(net.addr()),
            _ => {}
        }
    }
    let listen = Listen {
        address,
        ports: ports?,
    };
    let Some(Target::Dnat { address, ports }) = rule.target else {
        return None;
    };
    let ports = match ports {
        DnatPorts::Kept => TargetPorts::Kept,
        DnatPorts::One(port) => TargetPorts::Range(port.into()),
        DnatPorts::Shifted { to, .. } => TargetPorts::Range(to),
    };
    Some((listen, Destination { address, ports }))
}
