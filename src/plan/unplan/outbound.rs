//! Reads outbound entries back from nvactl's rules in a ruleset.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::guards::{Guards, Lists, everybody};
use super::parts::{egress, ingress, name_of, snat};
use crate::forwards::{
    Destinations, GUARDED, Name, Nets, Outbound, OutboundProtocol, Snat, joined,
};
use crate::net::{Family, PortRange};
use crate::netfilter::matches::Match;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::negatable::Negatable::Is;
use crate::netfilter::protocol::IpProtocol;
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::Target;
use crate::plan::{EXIT, FROM, Hook, NOT_TO, TO};

/// Returns whether a rule belongs to an outbound entry: it is in a chain of one, or leads to one.
#[must_use]
pub fn is_outbound(chain: &ChainName, rule: &Rule) -> bool {
    of_entry(chain) || rule.leads_to().is_some_and(of_entry)
}

fn of_entry(chain: &ChainName) -> bool {
    let name = chain.as_str();
    [EXIT, FROM, TO, NOT_TO]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Returns the outbound entries in the order of their rules.
pub fn held(ruleset: &Ruleset) -> Vec<Outbound> {
    let mut found: Vec<Outbound> = Vec::new();
    // The place of each entry in `found`.
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let leaving = leaving(ruleset);
    let mut lists = Family::ALL.map(|family| Lists::new(ruleset, family));
    let own = ChainName::from(Hook::Passing.own());
    for (chain, rule) in Hook::Passing.rules(ruleset) {
        let first = rule.leads_to().filter(|first| of_entry(first));
        let (Some(first), Some(name), true) = (first, name_of(rule), *chain == own) else {
            continue;
        };
        let Some(by) = ingress(rule) else { continue };
        if let Some(place) = places.get(name) {
            let known = &mut found[*place];
            if !known.ingress.contains(&by) {
                known.ingress.push(by);
            }
            continue;
        }
        let Ok(parsed) = name.parse::<Name>() else {
            continue;
        };
        let snat = source(ruleset, leaving.get(name).copied());
        let entry = HeldEntry::read(ruleset, rule, first);
        let entry = entry.and_then(|entry| entry.into_outbound(&mut lists, parsed, rule, snat));
        if let Some(entry) = entry {
            places.insert(name, found.len());
            found.push(entry);
        }
    }
    found
}

/// Returns the first rule of each entry in NVACTL-POSTROUTING.
fn leaving(ruleset: &Ruleset) -> BTreeMap<&str, &Rule> {
    let mut leaving = BTreeMap::new();
    for (_, rule) in Hook::Leaving.rules(ruleset) {
        if let Some(name) = name_of(rule).filter(|_| rule.leads_to().is_some_and(of_entry)) {
            leaving.entry(name).or_insert(rule);
        }
    }
    leaving
}

/// The chains of one entry in the filter table, as far as they have been read.
#[derive(Default)]
struct HeldEntry<'r> {
    from: Vec<IpNet>,
    to: Vec<IpNet>,
    internet: bool,
    exit: &'r [Rule],
}

impl<'r> HeldEntry<'r> {
    /// Reads the chains that a rule of NVACTL-FORWARD leads to.
    fn read(ruleset: &'r Ruleset, rule: &Rule, first: &ChainName) -> Option<Self> {
        let mut entry = Self::default();
        for condition in &rule.matches {
            match condition {
                Match::Source(Is(net)) => entry.from.push(*net),
                Match::Destination(Is(net)) => entry.to.push(*net),
                _ => {}
            }
        }
        let mut next = Some(first.clone());
        for prefix in [FROM, TO] {
            let Some(chain) = next
                .clone()
                .filter(|name| name.as_str().starts_with(prefix))
            else {
                continue;
            };
            let mut list = ListChain::default();
            list.collect(ruleset, &chain, prefix, &mut BTreeSet::new());
            match prefix {
                FROM => entry.from = list.nets,
                _ => (entry.to, entry.internet) = (list.nets, list.all),
            }
            next = list.next;
        }
        entry.exit = rules(ruleset, TableName::Filter, &next?);
        Some(entry)
    }

    fn family(&self) -> Option<Family> {
        let mut nets = self.from.iter().chain(&self.to);
        let of_nets = nets.next().map(|net| Family::of(net.addr()));
        of_nets.or(self.internet.then_some(Family::V4))
    }

    /// `rule` is the entry's first rule of NVACTL-FORWARD.
    fn into_outbound(
        self,
        lists: &mut [Lists<'r>; 2],
        name: Name,
        rule: &Rule,
        snat: Snat,
    ) -> Option<Outbound> {
        let family = self.family()?;
        let lists = match family {
            Family::V4 => &mut lists[0],
            Family::V6 => &mut lists[1],
        };
        let mut protocols = BTreeSet::new();
        let mut ports = Vec::new();
        for rule in self.exit {
            protocols.extend(protocol(rule));
            ports.extend(ports_of(rule));
        }
        let verdict = self.exit.iter().find_map(Rule::leads_to);
        let verdict = verdict.map_or(&[][..], |chain| lists.rules(chain));
        let (mut guards, mut deny_to, mut dropped) =
            (Guards::default(), Nets::default(), Vec::new());
        for rule in verdict {
            match rule
                .leads_to()
                .filter(|chain| chain.as_str().starts_with(NOT_TO))
            {
                Some(chain) => deny_to = guards.read_list(chain, lists),
                None if let Some(address) = guard(rule) => {
                    guards.read_refusal(rule, lists);
                    dropped.push(address);
                }
                None => guards.read_one(rule, lists),
            }
        }
        let (sources, limits, log) = guards.into_parts();
        let or_all = |nets: Vec<IpNet>| {
            let all = nets.is_empty().then(|| vec![everybody(family)]);
            Nets::new(all.unwrap_or(nets))
        };
        let nets = if self.internet {
            // A chain of the Internet sends the addresses that are dropped on as well.
            let is_guard = |net: &IpNet| dropped.iter().any(|one| IpNet::from(*one) == *net);
            Nets::new(self.to.into_iter().filter(|net| !is_guard(net)).collect())
        } else {
            or_all(self.to)
        };
        Some(Outbound {
            ingress: vec![ingress(rule)?],
            egress: egress(rule)?,
            allow_from: or_all(self.from),
            allow_to: Destinations {
                internet: self.internet,
                guarded: GUARDED
                    .into_iter()
                    .filter(|one| dropped.contains(one))
                    .collect(),
                nets,
            },
            deny_from: sources.deny,
            deny_to,
            protocols: protocols.into_iter().collect(),
            ports: joined(ports),
            snat,
            limits,
            log,
            description: None,
            family,
            name,
        })
    }
}

/// The networks of a list, and the chain for packets that it holds.
#[derive(Default)]
struct ListChain {
    nets: Vec<IpNet>,
    /// Whether packets of no network of the list go on as well.
    all: bool,
    next: Option<ChainName>,
}

impl ListChain {
    /// Reads each chain once, since somebody may have made the chains lead in a circle.
    fn collect(
        &mut self,
        ruleset: &Ruleset,
        chain: &ChainName,
        prefix: &str,
        seen: &mut BTreeSet<ChainName>,
    ) {
        if !seen.insert(chain.clone()) {
            return;
        }
        for rule in rules(ruleset, TableName::Filter, chain) {
            let net = rule.matches.iter().find_map(|condition| match condition {
                Match::Source(Is(net)) | Match::Destination(Is(net)) => Some(*net),
                _ => None,
            });
            match (rule.leads_to(), net) {
                (Some(further), _) if further.as_str().starts_with(prefix) => {
                    self.collect(ruleset, further, prefix, seen);
                }
                (Some(exit), net) => {
                    self.all |= net.is_none();
                    self.nets.extend(net);
                    self.next = Some(exit.clone());
                }
                (None, _) => {}
            }
        }
    }
}

fn rules<'r>(ruleset: &'r Ruleset, table: TableName, chain: &ChainName) -> &'r [Rule] {
    let chain = ruleset.chain(table, chain);
    chain.map_or(&[], |chain| chain.rules.as_slice())
}

fn protocol(rule: &Rule) -> Option<OutboundProtocol> {
    let spelled = rule.matches.iter().find_map(|condition| match condition {
        Match::Protocol(Is(protocol)) => Some(protocol),
        _ => None,
    })?;
    match spelled {
        IpProtocol::Icmp | IpProtocol::Icmp6 => Some(OutboundProtocol::Ping),
        spelled => {
            let transport = spelled.transport();
            let mut all = OutboundProtocol::ALL.into_iter();
            all.find(|one| one.transport() == transport)
        }
    }
}

fn ports_of(rule: &Rule) -> Vec<PortRange> {
    let each = rule.matches.iter().flat_map(|condition| match condition {
        // No rule of nvactl rules out flags or source ports.
        Match::Tcp {
            source: None,
            destination: Some(Is(ports)),
            flags: None | Some(Is(_)),
        }
        | Match::Udp {
            source: None,
            destination: Some(Is(ports)),
        } => vec![*ports],
        Match::Multiport {
            ports: Is(ports), ..
        } => ports.clone(),
        _ => Vec::new(),
    });
    each.collect()
}

/// Returns the address whose packets a rule of an entry drops.
fn guard(rule: &Rule) -> Option<IpAddr> {
    let net = rule.matches.iter().find_map(|condition| match condition {
        Match::Destination(Is(net)) => Some(*net),
        _ => None,
    })?;
    let drops = matches!(rule.target, Some(Target::Drop | Target::Goto(_)));
    (drops && GUARDED.contains(&net.addr())).then_some(net.addr())
}

/// Reads the source that an entry's connections get from the nat table. `leaving` is the entry's rule in
/// NVACTL-POSTROUTING.
fn source(ruleset: &Ruleset, leaving: Option<&Rule>) -> Snat {
    let mut next = leaving.and_then(|rule| rule.leads_to().cloned());
    let mut seen = BTreeSet::new();
    while let Some(chain) = next.take().filter(|chain| seen.insert(chain.clone())) {
        let rules = rules(ruleset, TableName::Nat, &chain);
        if chain.as_str().starts_with(EXIT) {
            return rules.iter().find_map(snat).unwrap_or(Snat::Masquerade);
        }
        next = rules.iter().rev().find_map(|rule| rule.leads_to().cloned());
    }
    Snat::Masquerade
}
