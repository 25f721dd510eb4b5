//! What the FORWARD chain does with the connections of a redirection.

use std::collections::BTreeSet;

use super::account::Part;
use super::addresses::Addresses;
use super::clients::client_lists;
use super::conditions::RuleConditions;
use super::limits::{accept_limit, drop_limit, joined};
use super::place::ImportedPlace;
use super::redirected::{Fit, Redirected};
use super::remark::ImportRemark;
use super::undecided::Undecided;
use super::verdict::{RuleVerdict, verdict};
use super::walk::Met;
use crate::forwards::{Limits, Log, Logged, Sources};
use crate::net::Interface;
use crate::netfilter::names::Policy;
use crate::netfilter::negatable::Negatable::{Is, Not};
use crate::netfilter::target::Target;

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
    /// The accepts that would matter if a spec had words for them, each with its conditions in words.
    pub unsaid: Vec<(ImportedPlace, String)>,
    /// The first rule that keeps connections from being accepted in a way that a spec cannot say, and what it does.
    pub obstacle: Option<(ImportedPlace, String)>,
    /// The interfaces that the accepting rules name.
    pub egress: Option<Interface>,
}

/// Follows the FORWARD chain for redirected connections.
pub fn admission(redirected: &Redirected<'_>, rules: &[Met<'_>], policy: Policy) -> Admission {
    let mut admitting = Admitting {
        redirected,
        clients: Undecided::new(redirected.sources.clone()),
        accepted: Addresses::none(redirected.family),
        refused: Addresses::none(redirected.family),
        left_out: Vec::new(),
        has_named_egress: false,
        found: Admission {
            sources: Sources::default(),
            admits: false,
            limits: None,
            log: None,
            rules: BTreeSet::new(),
            remarks: Vec::new(),
            unsaid: Vec::new(),
            obstacle: None,
            egress: None,
        },
    };
    for (number, met) in rules.iter().enumerate() {
        admitting.clients.reach(number);
        admitting.meet(met);
    }
    admitting.clients.reach(rules.len());
    admitting.end(policy)
}

/// The clients whose connections the rules have decided about so far.
struct Admitting<'a> {
    redirected: &'a Redirected<'a>,
    clients: Undecided,
    accepted: Addresses,
    refused: Addresses,
    /// The clients of accepts that a spec cannot say.
    left_out: Vec<(ImportedPlace, Addresses)>,
    has_named_egress: bool,
    found: Admission,
}

impl Admitting<'_> {
    fn meet(&mut self, met: &Met<'_>) {
        let conditions = &met.conditions;
        let fit = self.redirected.fit(conditions);
        let sources = conditions.sources(self.redirected.family);
        let hit = self.clients.here().common(&sources);
        if fit == Fit::No || hit.is_empty() {
            return;
        }
        match verdict(met.rule) {
            RuleVerdict::Accept if is_said_accept(conditions) => self.accept(met, fit, &hit),
            RuleVerdict::Accept => {
                self.left_out.push((met.place.clone(), hit));
                let words = conditions.beyond_words();
                self.found.unsaid.push((met.place.clone(), words));
            }
            RuleVerdict::Refuse if conditions.are_said() => self.refuse(met, fit, &hit),
            RuleVerdict::Refuse => self.obstruct(met, "refuses"),
            RuleVerdict::Return
                if conditions.are_said() && !conditions.are_limited() && fit == Fit::Whole =>
            {
                self.clients.send_back(hit, met.resumes);
            }
            RuleVerdict::Return => self.obstruct(met, "returns"),
            RuleVerdict::Other => {
                let target = met.rule.target.as_ref().map_or("", Target::name);
                let found = format!("gives its connections to `{target}`");
                self.found
                    .obstacle
                    .get_or_insert((met.place.clone(), found));
            }
            RuleVerdict::GoOn if conditions.are_said() => self.log(met, fit),
            RuleVerdict::GoOn => {}
        }
    }

    fn accept(&mut self, met: &Met<'_>, fit: Fit, hit: &Addresses) {
        let conditions = &met.conditions;
        let is_named = conditions.names_connections();
        if let Some(limit) = conditions.limit {
            self.take(met, fit, Part::Limit);
            self.remark(met, ImportRemark::LimitCounts);
            self.found.limits = self.found.limits.or(accept_limit(*limit));
        } else {
            self.take(met, fit, Part::Accept);
        }
        if is_named && !only_redirected(conditions) {
            self.remark(met, ImportRemark::AcceptsMore);
        }
        // A rule that names the connections knows better than one for all that pass.
        if self.found.egress.is_none() || is_named && !self.has_named_egress {
            self.found.egress = egress(conditions).or(self.found.egress.take());
            self.has_named_egress = is_named && self.found.egress.is_some();
        }
        self.accepted = self.accepted.with(hit);
        self.clients.decide(hit);
    }

    fn refuse(&mut self, met: &Met<'_>, fit: Fit, hit: &Addresses) {
        let conditions = &met.conditions;
        if conditions.are_limited() {
            // The limit of a forward is for all its clients.
            let limits = drop_limit(met).filter(|_| hit == self.clients.here());
            match limits {
                Some(limits) => {
                    self.take(met, fit, Part::Limit);
                    self.found.limits = Some(joined(self.found.limits, limits));
                }
                None => self.obstruct(met, "refuses"),
            }
            return;
        }
        self.take(met, fit, Part::Refuse);
        if conditions.names_connections() && matches!(met.rule.target, Some(Target::Reject(_))) {
            self.remark(met, ImportRemark::Answered);
        }
        self.refused = self.refused.with(hit);
        self.clients.decide(hit);
    }

    fn log(&mut self, met: &Met<'_>, fit: Fit) {
        let conditions = &met.conditions;
        let Some(Target::Log { prefix, level }) = &met.rule.target else {
            return;
        };
        if !conditions.names_connections() {
            return;
        }
        self.take(met, fit, Part::Log);
        self.remark(met, ImportRemark::LogWords);
        let per_minute = conditions.limit.map_or(60, |limit| limit.per_minute());
        self.found.log.get_or_insert(Log {
            prefix: prefix_of(prefix),
            level: *level,
            per_minute: per_minute.clamp(1, 600),
            connections: Logged::Accepted,
        });
    }

    /// Takes a rule over if it is for these connections by name.
    fn take(&mut self, met: &Met<'_>, fit: Fit, part: Part) {
        if !met.conditions.names_connections() {
            return;
        }
        self.found.rules.insert((met.place.clone(), part));
        if fit == Fit::Part {
            self.remark(met, ImportRemark::SomePorts);
        }
    }

    fn remark(&mut self, met: &Met<'_>, remark: ImportRemark) {
        self.found.remarks.push((met.place.clone(), remark));
    }

    /// Keeps a rule that a forward must not pass over, since it accepts less than the forward would.
    fn obstruct(&mut self, met: &Met<'_>, does: &str) {
        let found = partly(does, &met.conditions);
        self.found
            .obstacle
            .get_or_insert((met.place.clone(), found));
    }

    /// Applies the policy to the clients that no rule has decided about.
    fn end(mut self, policy: Policy) -> Admission {
        let rest = self.clients.here();
        if policy == Policy::Accept {
            self.accepted = self.accepted.with(rest);
        } else {
            self.refused = self.refused.with(rest);
        }
        for (place, clients) in self.left_out {
            if !clients.common(&self.refused).is_empty() {
                let remark = (place, ImportRemark::AcceptLeftOut);
                self.found.remarks.push(remark);
            }
        }
        self.found.admits = !self.accepted.is_empty();
        self.found.sources = client_lists(self.redirected.family, &self.accepted, &self.refused);
        self.found
    }
}

/// Says that a rule does something with a part of a forward's connections: `refuses some of its connections by -m mark`.
pub fn partly(does: &str, conditions: &RuleConditions<'_>) -> String {
    match conditions.beyond_words().as_str() {
        "" => format!("{does} some of its connections"),
        words => format!("{does} some of its connections by {words}"),
    }
}

/// Returns whether a spec has words for the conditions of an accept.
fn is_said_accept(conditions: &RuleConditions<'_>) -> bool {
    let mut limit = conditions.limit.into_iter();
    conditions.are_said()
        && conditions.hash_limit.is_none()
        && conditions.connections.is_none()
        && limit.all(|limit| accept_limit(*limit).is_some())
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
