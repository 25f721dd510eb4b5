//! What the FORWARD chain does with the connections of a redirection.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::account::Part;
use super::addresses::Addresses;
use super::conditions::RuleConditions;
use super::place::ImportedPlace;
use super::remark::ImportRemark;
use super::walk::Met;
use crate::forwards::{Limits, Log, Logged, Nets, Per, Rate, Sources};
use crate::net::{Family, Interface, PortRange, Protocol};
use crate::netfilter::limit::Whose;
use crate::netfilter::names::Policy;
use crate::netfilter::negatable::Negatable::{Is, Not};
use crate::netfilter::target::Target;

/// The redirected connections to one target, as a later chain sees them.
#[derive(Debug, Clone)]
pub struct Redirected<'f> {
    pub family: Family,
    pub protocol: Protocol,
    pub listen_address: Option<IpAddr>,
    pub listen_ports: &'f [PortRange],
    pub target: IpAddr,
    pub target_ports: &'f [PortRange],
    /// Empty: every interface.
    pub ingress: &'f [Interface],
    /// `None` until a rule or a route says it.
    pub egress: Option<Interface>,
    /// The clients that are redirected.
    pub sources: &'f Addresses,
}

/// Whether a rule is for redirected connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    No,
    /// For a part of the ports or interfaces.
    Part,
    Whole,
}

impl Redirected<'_> {
    /// Returns whether a rule is for these connections, whatever their source is.
    pub fn fit(&self, conditions: &RuleConditions<'_>) -> Fit {
        let is_protocol = match conditions.protocol {
            None => true,
            Some(protocol) => protocol.holds(|one| one.transport() == Some(self.protocol)),
        };
        let is_redirected = conditions.redirected != Some(false);
        let target = Addresses::of(IpNet::from(self.target));
        let reaches = !conditions
            .destinations(self.family)
            .common(&target)
            .is_empty();
        let leaves = self
            .egress
            .as_ref()
            .is_none_or(|egress| conditions.leave_by(egress));
        let listens = conditions.original_destination.is_none_or(|net| {
            self.listen_address
                .is_none_or(|address| net.contains(&address))
        });
        if !(is_protocol && is_redirected && reaches && leaves && listens) || conditions.for_replies
        {
            return Fit::No;
        }
        if conditions.to_machine {
            // The target is another host.
            return Fit::No;
        }
        let arrivals = self
            .ingress
            .iter()
            .filter(|one| conditions.arrive_on(one))
            .count();
        let arrives = match (self.ingress.len(), arrivals) {
            (0, _) => Fit::Whole,
            (_, 0) => Fit::No,
            (all, some) if all == some => Fit::Whole,
            _ => Fit::Part,
        };
        let ports = match &conditions.ports {
            None => Fit::Whole,
            Some(ranges) => coverage(self.target_ports, ranges),
        };
        let original = match conditions.original_ports {
            None => Fit::Whole,
            Some(range) => coverage(self.listen_ports, &[range]),
        };
        let all = [arrives, ports, original];
        if all.contains(&Fit::No) {
            Fit::No
        } else if all.contains(&Fit::Part) {
            Fit::Part
        } else {
            Fit::Whole
        }
    }

    /// Returns whether a rule names these connections, rather than all that pass.
    pub fn is_named(&self, conditions: &RuleConditions<'_>) -> bool {
        let by_address = conditions.destination.iter().any(|net| match net {
            Is(net) => net.prefix_len() == net.max_prefix_len(),
            Not(_) => false,
        });
        by_address
            || conditions.ports.is_some()
            || conditions.original_ports.is_some()
            || conditions.original_destination.is_some()
    }
}

/// Returns how much of some ports lies in others.
fn coverage(ports: &[PortRange], within: &[PortRange]) -> Fit {
    let is_in = |one: &PortRange| {
        let mut next = u32::from(one.first().number());
        let last = u32::from(one.last().number());
        let mut sorted: Vec<(u32, u32)> = within
            .iter()
            .map(|range| (range.first().number().into(), range.last().number().into()))
            .collect();
        sorted.sort_unstable();
        for (from, to) in sorted {
            if from <= next && to >= next {
                next = to + 1;
            }
        }
        next > last
    };
    if ports.iter().all(is_in) {
        Fit::Whole
    } else if ports
        .iter()
        .any(|one| within.iter().any(|range| one.overlaps(*range)))
    {
        Fit::Part
    } else {
        Fit::No
    }
}

/// What the FORWARD chain does with redirected connections.
#[derive(Debug)]
pub struct Admission {
    pub sources: Sources,
    /// Whether some client gets through.
    pub admits: bool,
    pub limits: Option<Limits>,
    pub log: Option<Log>,
    /// The rules that are for these connections by name.
    pub rules: BTreeSet<(ImportedPlace, Part)>,
    pub remarks: Vec<(ImportedPlace, ImportRemark)>,
    /// The rules that would matter if a spec had words for them, each with its conditions in words.
    pub unsaid: Vec<(ImportedPlace, String)>,
    /// The interfaces that the accepting rules name.
    pub egress: Option<Interface>,
}

/// Follows the FORWARD chain for redirected connections.
pub fn admission(redirected: &Redirected<'_>, rules: &[Met<'_>], policy: Policy) -> Admission {
    let family = redirected.family;
    let mut found = Admission {
        sources: Sources::default(),
        admits: false,
        limits: None,
        log: None,
        rules: BTreeSet::new(),
        remarks: Vec::new(),
        unsaid: Vec::new(),
        egress: None,
    };
    let mut left = redirected.sources.clone();
    let mut accepted = Addresses::none(family);
    let mut refused = Addresses::none(family);
    let mut has_named_egress = false;
    for met in rules {
        let conditions = &met.conditions;
        let fit = redirected.fit(conditions);
        let hit = left.common(&conditions.sources(family));
        if fit == Fit::No || hit.is_empty() {
            continue;
        }
        let is_named = redirected.is_named(conditions);
        if !conditions.beyond.is_empty() || conditions.share.is_some() {
            if is_deciding(met) {
                found
                    .unsaid
                    .push((met.place.clone(), conditions.beyond_words()));
            }
            continue;
        }
        let take = |part, found: &mut Admission| {
            if is_named {
                found.rules.insert((met.place.clone(), part));
                if fit == Fit::Part {
                    found
                        .remarks
                        .push((met.place.clone(), ImportRemark::SomePorts));
                }
            }
        };
        match &met.rule.target {
            Some(Target::Accept) => {
                if let Some(limits) = accept_limit(conditions) {
                    take(Part::Limit, &mut found);
                    found.limits = found.limits.or(limits);
                    found
                        .remarks
                        .push((met.place.clone(), ImportRemark::LimitCounts));
                    if limits.is_none() {
                        found.unsaid.push((met.place.clone(), "a limit".to_owned()));
                        continue;
                    }
                } else {
                    take(Part::Accept, &mut found);
                }
                if is_named && !only_redirected(conditions) {
                    found
                        .remarks
                        .push((met.place.clone(), ImportRemark::AcceptsMore));
                }
                // A rule that names the connections knows better than one for all that pass.
                if found.egress.is_none() || is_named && !has_named_egress {
                    found.egress = egress(conditions).or(found.egress);
                    has_named_egress = is_named && found.egress.is_some();
                }
                accepted = accepted.with(&hit);
                left = left.without(&hit);
            }
            Some(Target::Drop | Target::Reject(_)) => {
                if conditions.hash_limit.is_some() || conditions.connections.is_some() {
                    take(Part::Limit, &mut found);
                    if let Some(limits) = drop_limit(met) {
                        found.limits = Some(joined(found.limits, limits));
                    } else {
                        found.unsaid.push((met.place.clone(), "a limit".to_owned()));
                    }
                    continue;
                }
                if conditions.limit.is_some() {
                    found
                        .unsaid
                        .push((met.place.clone(), "`-m limit`".to_owned()));
                    continue;
                }
                take(Part::Refuse, &mut found);
                if is_named && matches!(met.rule.target, Some(Target::Reject(_))) {
                    found
                        .remarks
                        .push((met.place.clone(), ImportRemark::Answered));
                }
                refused = refused.with(&hit);
                left = left.without(&hit);
            }
            Some(Target::Log { prefix, level }) => {
                if is_named {
                    take(Part::Log, &mut found);
                    found
                        .remarks
                        .push((met.place.clone(), ImportRemark::LogWords));
                    let per_minute = conditions.limit.map_or(60, |limit| limit.per_minute());
                    found.log.get_or_insert(Log {
                        prefix: prefix_of(prefix),
                        level: *level,
                        per_minute: per_minute.clamp(1, 600),
                        connections: Logged::Accepted,
                    });
                }
            }
            _ => {}
        }
    }
    if policy == Policy::Accept {
        accepted = accepted.with(&left);
    } else {
        refused = refused.with(&left);
    }
    found.admits = !accepted.is_empty();
    found.sources = sources(family, &accepted, &refused);
    found
}

/// Returns whether a rule decides on a packet.
fn is_deciding(met: &Met<'_>) -> bool {
    met.rule.target.as_ref().is_some_and(|target| {
        matches!(
            target,
            Target::Accept | Target::Drop | Target::Reject(_) | Target::Return | Target::Goto(_)
        ) || matches!(target.name(), "REJECT" | "QUEUE" | "NFQUEUE")
    })
}

/// Returns whether an accept is for redirected connections alone.
fn only_redirected(conditions: &RuleConditions<'_>) -> bool {
    conditions.redirected == Some(true)
        || conditions.original_ports.is_some()
        || conditions.original_destination.is_some()
}

/// Returns the one interface by which a rule's packets leave.
pub fn egress(conditions: &RuleConditions<'_>) -> Option<Interface> {
    conditions.egress.iter().find_map(|pattern| match pattern {
        Is(pattern) => pattern.exact().cloned(),
        Not(_) => None,
    })
}

/// Returns the limit of an accept: `None` without one, `Some(None)` for one that a spec cannot say.
fn accept_limit(conditions: &RuleConditions<'_>) -> Option<Option<Limits>> {
    let limit = conditions.limit?;
    // A spec has whole connections a second.
    let a_minute = limit.per_minute();
    let times = a_minute / 60;
    let rate = (times > 0 && a_minute.is_multiple_of(60))
        .then(|| crate::netfilter::limit::PerSecond::new(times).ok())
        .flatten();
    Some(rate.map(|new_per_second| Limits {
        rate: Some(Rate {
            new_per_second,
            burst: limit.burst(),
        }),
        max_connections: None,
        per: Per::Total,
        reject: false,
    }))
}

/// Returns the limit of a drop.
fn drop_limit(met: &Met<'_>) -> Option<Limits> {
    let reject = matches!(met.rule.target, Some(Target::Reject(_)));
    let conditions = &met.conditions;
    let whose = |of| match of {
        Whose::All => Some(Per::Total),
        Whose::Address => Some(Per::Client),
        Whose::Net(_) => None,
    };
    match (conditions.hash_limit, conditions.connections) {
        (Some(limit), None) => Some(Limits {
            rate: Some(Rate {
                new_per_second: limit.per_second,
                burst: limit.burst,
            }),
            max_connections: None,
            per: whose(limit.of)?,
            reject,
        }),
        (None, Some(limit)) => Some(Limits {
            rate: None,
            max_connections: Some(limit.most),
            per: match limit.mask {
                0 => Per::Total,
                32 | 64 | 128 => Per::Client,
                _ => return None,
            },
            reject,
        }),
        _ => None,
    }
}

fn joined(one: Option<Limits>, other: Limits) -> Limits {
    let Some(one) = one else {
        return other;
    };
    Limits {
        rate: one.rate.or(other.rate),
        max_connections: one.max_connections.or(other.max_connections),
        per: one.per,
        reject: one.reject || other.reject,
    }
}

/// Returns the beginning of a log line that a spec may have.
fn prefix_of(prefix: &str) -> Box<str> {
    let words = prefix.trim_end_matches([' ', ':']);
    let short: String = words
        .chars()
        .filter(char::is_ascii)
        .take(Log::LONGEST_PREFIX)
        .collect();
    short.trim_end().into()
}

/// Returns the lists that admit exactly the accepted clients. The short list is the one that people wrote.
fn sources(family: Family, accepted: &Addresses, refused: &Addresses) -> Sources {
    if accepted.are_all() {
        return Sources::default();
    }
    let outside = Addresses::all(family).without(accepted);
    // The refused part of a network that is otherwise allowed reads best as a deny list.
    let around = smallest_around(family, accepted, refused);
    match around {
        Some(allow) => Sources {
            deny: Nets::new(allow.without(accepted).nets()),
            allow: (!allow.are_all()).then(|| Nets::new(allow.nets())),
        },
        None if outside.nets().len() < accepted.nets().len() => Sources {
            allow: None,
            deny: Nets::new(outside.nets()),
        },
        None => Sources {
            allow: Some(Nets::new(accepted.nets())),
            deny: Nets::default(),
        },
    }
}

/// Returns the accepted clients together with the refused ones among them, if that takes fewer networks.
fn smallest_around(family: Family, accepted: &Addresses, refused: &Addresses) -> Option<Addresses> {
    let plain = accepted.nets().len();
    let candidates = [
        Addresses::all(family),
        accepted.with(&inner(accepted, refused)),
    ];
    let cost = |allow: &Addresses| {
        let deny = allow.without(accepted).nets().len();
        deny + if allow.are_all() {
            0
        } else {
            allow.nets().len()
        }
    };
    let best = candidates.into_iter().min_by_key(cost)?;
    (cost(&best) < plain).then_some(best)
}

/// Returns the refused networks that lie between accepted ones.
fn inner(accepted: &Addresses, refused: &Addresses) -> Addresses {
    let nets = refused.nets().into_iter().filter(|net| {
        net.supernet()
            .is_some_and(|around| !Addresses::of(around).common(accepted).is_empty())
    });
    let nets: Vec<IpNet> = nets.collect();
    nets.iter()
        .fold(accepted.clone(), |all, net| all.with(&Addresses::of(*net)))
        .without(accepted)
}
