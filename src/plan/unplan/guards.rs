//! Reads a forward's lists, limits and log back from its rules.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::forwards::{Limits, Log, Logged, Nets, Per, Rate, Sources};
use crate::net::Family;
use crate::netfilter::limit::Whose;
use crate::netfilter::matches::Match;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::negatable::Negatable::Is;
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::Target;
use crate::plan::{ALLOW, DENY, NOT_TO};

/// The lists, limits and log of one forward, as far as they have been read.
#[derive(Default)]
pub struct Guards {
    /// The ADMIT chain that has been read.
    read: Option<ChainName>,
    sources: Sources,
    limits: Option<Limits>,
    accepted: Option<LogRule>,
    refused: Option<LogRule>,
}

/// A rule that logs a packet before its verdict.
#[derive(Debug, Clone)]
struct LogRule {
    prefix: Box<str>,
    level: u8,
    per_minute: u32,
}

/// A chain that lists networks.
#[derive(Clone)]
struct List {
    nets: Nets,
    refused: Option<LogRule>,
}

/// The list chains of a ruleset. Each is read once, however many forwards use it.
pub struct Lists<'r> {
    ruleset: &'r Ruleset,
    family: Family,
    read: BTreeMap<&'r ChainName, List>,
}

impl<'r> Lists<'r> {
    /// Returns an empty cache for the lists of a ruleset. `family` is the family of its rules.
    pub fn new(ruleset: &'r Ruleset, family: Family) -> Self {
        Self {
            ruleset,
            family,
            read: BTreeMap::new(),
        }
    }

    pub fn rules(&self, chain: &ChainName) -> &'r [Rule] {
        let chain = self.ruleset.chain(TableName::Filter, chain);
        chain.map_or(&[], |chain| chain.rules.as_slice())
    }

    fn list(&mut self, chain: &'r ChainName) -> List {
        if let Some(known) = self.read.get(chain) {
            return known.clone();
        }
        let mut nets = Vec::new();
        let mut refused = None;
        self.collect(chain, &mut nets, &mut refused, &mut BTreeSet::new());
        let list = List {
            nets: Nets::new(nets),
            refused,
        };
        self.read.insert(chain, list.clone());
        list
    }

    /// Collects the networks of a list chain and of those that it leads to. Reads each chain once, since
    /// somebody may have made the chains lead in a circle.
    fn collect(
        &self,
        chain: &'r ChainName,
        nets: &mut Vec<IpNet>,
        refused: &mut Option<LogRule>,
        seen: &mut BTreeSet<&'r ChainName>,
    ) {
        if !seen.insert(chain) {
            return;
        }
        let allows = chain.as_str().starts_with(ALLOW);
        for rule in self.rules(chain) {
            let source = rule.matches.iter().find_map(|condition| match condition {
                Match::Source(Is(net)) | Match::Destination(Is(net)) => Some(*net),
                _ => None,
            });
            match &rule.target {
                Some(Target::Goto(next)) if is_list(next) => {
                    self.collect(next, nets, refused, seen);
                }
                Some(Target::Return) if allows => nets.extend(source),
                Some(target) if !allows || source.is_none() => {
                    if !allows {
                        // A rule without a source denies every client.
                        nets.push(source.unwrap_or_else(|| everybody(self.family)));
                    }
                    *refused = refused.take().or_else(|| self.line(target));
                }
                _ => {}
            }
        }
    }

    /// Returns the rule that logs a packet before it is refused.
    fn line(&self, target: &Target) -> Option<LogRule> {
        match target {
            Target::Goto(chain) => LogRule::of(self.rules(chain).first()?),
            _ => None,
        }
    }

    /// Returns whether a refused packet gets an answer.
    fn rejects(&self, target: &Target) -> bool {
        match target {
            Target::Reject(_) => true,
            Target::Goto(chain) => {
                let last = self
                    .rules(chain)
                    .last()
                    .and_then(|rule| rule.target.as_ref());
                matches!(last, Some(Target::Reject(_)))
            }
            _ => false,
        }
    }
}

impl LogRule {
    fn of(rule: &Rule) -> Option<Self> {
        let limit = rule.matches.iter().find_map(|condition| match condition {
            Match::Limit(limit) => Some(*limit),
            _ => None,
        })?;
        let Some(Target::Log { prefix, level }) = &rule.target else {
            return None;
        };
        let words = prefix.strip_suffix(" accepted ");
        Some(Self {
            prefix: words.or(prefix.strip_suffix(" refused "))?.into(),
            level: *level,
            per_minute: limit.per_minute(),
        })
    }
}

fn is_list(chain: &ChainName) -> bool {
    let name = chain.as_str();
    [ALLOW, DENY, NOT_TO]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

pub(super) fn everybody(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(Ipv4Net::default()),
        Family::V6 => IpNet::V6(Ipv6Net::default()),
    }
}

impl Guards {
    /// Reads the chain that one of the forward's rules in NVACTL-FORWARD leads to.
    pub fn read<'r>(&mut self, rule: &'r Rule, lists: &mut Lists<'r>) {
        let Some(Target::Goto(chain)) = &rule.target else {
            return;
        };
        // All rules of a forward in NVACTL-FORWARD lead to the same chain.
        if self.read.replace(chain.clone()).as_ref() != Some(chain) {
            for rule in lists.rules(chain) {
                self.read_one(rule, lists);
            }
        }
    }

    /// Returns the networks of a list of refused packets, and reads how they are logged.
    pub fn read_list<'r>(&mut self, chain: &'r ChainName, lists: &mut Lists<'r>) -> Nets {
        let list = lists.list(chain);
        self.refused = self.refused.take().or(list.refused);
        list.nets
    }

    /// Reads how a rule logs the packets that it refuses.
    pub fn read_refusal(&mut self, rule: &Rule, lists: &Lists<'_>) {
        let line = rule.target.as_ref().and_then(|target| lists.line(target));
        self.refused = self.refused.take().or(line);
    }

    /// Reads one rule of a forward's ADMIT chain.
    pub fn read_one<'r>(&mut self, rule: &'r Rule, lists: &mut Lists<'r>) {
        let Some(target) = &rule.target else { return };
        if let Target::Jump(chain) = target {
            let list = lists.list(chain);
            if chain.as_str().starts_with(DENY) {
                self.sources.deny = list.nets;
            } else if chain.as_str().starts_with(ALLOW) {
                self.sources.allow = Some(list.nets);
            }
            self.refused = self.refused.take().or(list.refused);
            return;
        }
        let mut limits = self.limits.unwrap_or(Limits {
            rate: None,
            max_connections: None,
            per: Per::Total,
            reject: false,
        });
        let per = |each_source| if each_source { Per::Client } else { Per::Total };
        let mut is_limit = false;
        for condition in &rule.matches {
            match condition {
                Match::HashLimit(limit) => {
                    limits.rate = Some(Rate {
                        new_per_second: limit.per_second,
                        burst: limit.burst,
                    });
                    limits.per = per(limit.of != Whose::All);
                    is_limit = true;
                }
                Match::ConnLimit(limit) => {
                    limits.max_connections = Some(limit.most);
                    limits.per = per(limit.mask > 0);
                    is_limit = true;
                }
                _ => {}
            }
        }
        if is_limit {
            limits.reject = lists.rejects(target);
            self.limits = Some(limits);
            self.refused = self.refused.take().or(lists.line(target));
        } else {
            self.accepted = self.accepted.take().or(LogRule::of(rule));
        }
    }

    pub fn into_parts(self) -> (Sources, Option<Limits>, Option<Log>) {
        let connections = match (&self.accepted, &self.refused) {
            (Some(_), Some(_)) => Logged::All,
            (Some(_), None) => Logged::Accepted,
            _ => Logged::Refused,
        };
        let log = self.accepted.or(self.refused).map(|line| Log {
            prefix: line.prefix,
            level: line.level,
            per_minute: line.per_minute,
            connections,
        });
        (self.sources, self.limits, log)
    }
}
