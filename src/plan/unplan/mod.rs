//! The plan backwards: the forwards that a ruleset holds, read from nvactl's rules in it.
//!
//! Only rules that the plan could have are understood; the rest is for `compare` to name.

mod guards;

use std::collections::{BTreeMap, BTreeSet};

use guards::{Guards, Lists};

use crate::forwards::{
    Balance, Destination, Firewall, Forward, ForwardPolicy, ForwardSet, Layout, Listen, Name, Snat,
    Snats, Target, TargetKind, TargetPorts,
};
use crate::net::{Family, Interface, Protocol};
use crate::netfilter::matches::Match;
use crate::netfilter::names::{ChainName, Policy, TableName};
use crate::netfilter::negatable::Negatable::{self, Is};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::{DnatPorts, Target as RuleTarget};
use crate::plan::{Hook, MARKED, OF_MARKED, layout, plan, plan_in};

/// What tells a forward's rules from others: the comment, and the protocol, since a forward has
/// rules for each of its own.
pub type Key<'r> = (&'r str, Protocol);

/// The forward that a rule belongs to, if it says so.
#[must_use]
pub fn key_of(rule: &Rule) -> Option<Key<'_>> {
    let protocol = rule.matches.iter().find_map(|condition| match condition {
        Match::Protocol(Is(protocol)) => protocol.transport(),
        _ => None,
    });
    Some((name_of(rule)?, protocol?))
}

/// The name of the forward that a rule belongs to: its comment.
#[must_use]
pub fn name_of(rule: &Rule) -> Option<&str> {
    rule.matches.iter().find_map(|condition| match condition {
        Match::Comment(text) => Some(text.as_ref()),
        _ => None,
    })
}

/// Reads the forwards out of a ruleset, in the order of its rules. `None` when it holds none: then
/// nothing in it tells the interfaces or the SNAT address either.
///
/// Whether a target was written as `ilb` or `pod` is in no rule: one with a port counts as a pod.
#[must_use]
pub fn unplan(ruleset: &Ruleset) -> Option<ForwardSet> {
    let mut found = translated(ruleset);
    let family = found.family()?;
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
    let layout = layout_of(ruleset);
    let usual = found.usual(ruleset)?;
    let forwards = found.order.iter().filter_map(|key| {
        let seen = found.by_key.remove(key)?;
        seen.into_forward(*key, &usual)
    });
    let forwards: Vec<Forward> = forwards.collect();
    let Usual {
        ingress,
        egress,
        snat,
    } = usual;
    let mut snats = Snats::default();
    // In a tree the chain is missing where the firewall has none of this family.
    let said = layout == Some(Layout::Flat) || of_marked(ruleset).is_some();
    match family {
        Family::V4 => snats.v4 = said.then_some(snat),
        Family::V6 => snats.v6 = said.then_some(snat),
    }
    let firewall = Firewall {
        ingress,
        egress,
        snat: snats,
        forward_policy: match ruleset.forward_policy() {
            Policy::Drop => ForwardPolicy::Drop,
            Policy::Accept => ForwardPolicy::Keep,
        },
        layout,
    };
    Some(ForwardSet { firewall, forwards })
}

/// The forwards that something is translated for.
#[derive(Default)]
struct Found<'r> {
    /// In the order of their rules.
    order: Vec<Key<'r>>,
    by_key: BTreeMap<Key<'r>, Seen>,
}

/// What a forward's rules say, as far as they have been read.
struct Seen {
    listen: Listen,
    destinations: Vec<Destination>,
    balance: Balance,
    /// At least one.
    ingress: Vec<Interface>,
    egress: Option<Interface>,
    snat: Option<Snat>,
    guards: Guards,
    hairpin: bool,
    /// In a tree: whether it is not like most.
    exempt: bool,
}

/// What most forwards have: rules that somebody has tampered with must not speak for the others.
struct Usual {
    ingress: Vec<Interface>,
    egress: Interface,
    snat: Snat,
}

fn translated(ruleset: &Ruleset) -> Found<'_> {
    let mut found = Found::default();
    let mut exempt = BTreeSet::new();
    for (_, rule) in Hook::Arriving.rules(ruleset) {
        let Some(key) = key_of(rule) else { continue };
        if matches!(rule.target, Some(RuleTarget::SetConnmark(_))) {
            exempt.insert(key);
        }
        let (Some((listen, to)), Some(ingress)) = (dnat(rule), ingress(rule)) else {
            continue;
        };
        let seen = found.by_key.entry(key).or_insert_with(|| {
            found.order.push(key);
            Seen {
                listen,
                destinations: Vec::new(),
                balance: Balance::Random,
                ingress: Vec::new(),
                egress: None,
                snat: None,
                guards: Guards::default(),
                hairpin: false,
                exempt: false,
            }
        });
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
    found
}

impl Found<'_> {
    fn family(&self) -> Option<Family> {
        let seen = self.by_key.get(self.order.first()?)?;
        let first = seen.destinations.first();
        first.map(|to| Family::of(to.address))
    }

    fn usual(&self, ruleset: &Ruleset) -> Option<Usual> {
        let most = || self.most(|_| true);
        self.most(|seen| !seen.exempt)
            .or_else(|| match said(ruleset) {
                // The rules that name them are gone.
                Some(said) if said.ingress.is_empty() => Some(Usual {
                    ingress: most()?.ingress,
                    ..said
                }),
                said => said.or_else(most),
            })
    }

    /// What most of these have.
    fn most(&self, of: impl Fn(&Seen) -> bool) -> Option<Usual> {
        let mut votes: BTreeMap<(&[Interface], &Interface, Option<Snat>), usize> = BTreeMap::new();
        for seen in self.by_key.values().filter(|seen| of(seen)) {
            if let Some(egress) = &seen.egress {
                let vote = (seen.clients(), egress, seen.snat);
                *votes.entry(vote).or_default() += 1;
            }
        }
        // The lowest of equals, on every machine the same.
        let ((ingress, egress, snat), _) =
            votes.into_iter().rev().max_by_key(|(_, votes)| *votes)?;
        Some(Usual {
            ingress: ingress.to_vec(),
            egress: egress.clone(),
            snat: snat.unwrap_or(Snat::Client),
        })
    }
}

impl Seen {
    /// Where clients come in; what is behind the firewall is the hairpin's affair.
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

    fn into_forward(self, (name, protocol): Key<'_>, usual: &Usual) -> Option<Forward> {
        let name: Name = name.parse().ok()?;
        let ingress = self.clients().to_vec();
        let (sources, limits, log) = self.guards.into_parts();
        let kept = |to: &Destination| to.ports == TargetPorts::Kept;
        Some(Forward {
            listen: self.listen,
            protocol,
            target: Target {
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
            name,
        })
    }
}

/// How the rules of forwards stand in a ruleset, if it has any. Chains without such a rule say
/// nothing: a change that was undone may have left them behind, or one who took out the rules.
#[must_use]
pub fn layout_of(ruleset: &Ruleset) -> Option<Layout> {
    let mut found = None;
    for (_, name, chain) in ruleset.chains() {
        match Hook::of(name) {
            Some(hook) if chain.rules.iter().any(|rule| key_of(rule).is_some()) => {
                // In a tree they all stand in the chains that a hook's own leads to.
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

/// The plan of a spec in the layout in which forwards are loaded, or else in its own: what it differs in
/// from what is loaded, the forwards differ in.
#[must_use]
pub fn plan_as(loaded: &Ruleset, set: &ForwardSet, family: Family) -> Ruleset {
    let layout = layout_of(loaded).unwrap_or_else(|| layout(set, family));
    plan_in(layout, set, family)
}

/// What is loaded as nvactl would have loaded it: the plan of the forwards that the rules hold. Where a
/// tree branches depends on how many there are, so it is this that tells which rules are missing
/// between those of the forwards.
#[must_use]
pub fn replanned(loaded: &Ruleset, family: Family) -> Ruleset {
    unplan(loaded).map_or_else(Ruleset::default, |held| plan(&held, family))
}

/// What a tree's rules for marked packets say of the forwards that have them.
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

fn ingress(rule: &Rule) -> Option<Interface> {
    rule.matches.iter().find_map(|condition| match condition {
        Match::Ingress(Is(by)) => by.exact().cloned(),
        _ => None,
    })
}

fn egress(rule: &Rule) -> Option<Interface> {
    rule.matches.iter().find_map(|condition| match condition {
        Match::Egress(Is(by)) => by.exact().cloned(),
        _ => None,
    })
}

fn snat(rule: &Rule) -> Option<Snat> {
    match rule.target {
        Some(RuleTarget::Snat { addresses, .. }) => Some(Snat::Addresses(addresses)),
        Some(RuleTarget::Masquerade) => Some(Snat::Masquerade),
        Some(RuleTarget::Accept) => Some(Snat::Client),
        _ => None,
    }
}

/// Where a rule of NVACTL-PREROUTING listens, and where it sends what arrives.
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
    let Some(RuleTarget::Dnat { address, ports }) = rule.target else {
        return None;
    };
    let ports = match ports {
        DnatPorts::Kept => TargetPorts::Kept,
        DnatPorts::One(port) => TargetPorts::Range(port.into()),
        DnatPorts::Shifted { to, .. } => TargetPorts::Range(to),
    };
    Some((listen, Destination { address, ports }))
}
