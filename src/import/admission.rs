//! The effect of the FORWARD chain on the connections of a redirection.

use std::collections::BTreeSet;

use super::account::Part;
use super::addresses::Addresses;
use super::clients::client_lists;
use super::conditions::RuleConditions;
use super::exceptions::LeftClients;
use super::limits::{accept_limit, drop_limit, joined};
use super::place::ImportedPlace;
use super::redirected::{Fit, Redirected};
use super::remark::{Beyond, ImportRemark};
use super::verdict::{RuleVerdict, verdict};
use super::walk::Met;
use crate::forwards::{Limits, Log, Logged, Sources};
use crate::net::Interface;
use crate::netfilter::names::Policy;
use crate::netfilter::negatable::Negatable::{Is, Not};
use crate::netfilter::target::Target;

/// The effect of the FORWARD chain on redirected connections.
#[derive(Debug)]
pub struct Admission {
    pub sources: Sources,
    /// The clients that get through.
    pub clients: Addresses,
    pub limits: Option<Limits>,
    pub log: Option<Log>,
    /// The rules that are for these connections by name.
    pub rules: BTreeSet<(ImportedPlace, Part)>,
    /// The jumps on the way to these rules, each with the rule.
    pub paths: BTreeSet<(ImportedPlace, ImportedPlace)>,
    pub remarks: Vec<(ImportedPlace, ImportRemark)>,
    /// The accepts that would matter if a spec had words for them, each with its conditions in words.
    pub unsaid: Vec<(ImportedPlace, String)>,
    /// The first rule that keeps connections from being accepted in a way that a spec cannot say, and what it does.
    pub obstacle: Option<(ImportedPlace, String)>,
    /// The interfaces that the accepting rules name.
    pub egress: Option<Interface>,
}

/// Follows the FORWARD chain for redirected connections.
pub fn admission(redirected: &Redirected<'_>, rules: &[&Met<'_>], policy: Policy) -> Admission {
    let mut admitting = Admitting {
        redirected,
        left: redirected.sources.clone(),
        left_way: LeftClients::new(redirected.family),
        accepted: Addresses::none(redirected.family),
        refused: Addresses::none(redirected.family),
        has_named_egress: false,
        logged: None,
        refusals: Vec::new(),
        left_out: Vec::new(),
        found: Admission {
            sources: Sources::default(),
            clients: Addresses::none(redirected.family),
            limits: None,
            log: None,
            rules: BTreeSet::new(),
            paths: BTreeSet::new(),
            remarks: Vec::new(),
            unsaid: Vec::new(),
            obstacle: None,
            egress: None,
        },
    };
    for met in rules {
        admitting.meet(met);
    }
    admitting.end(policy)
}

/// The clients whose connections the rules have decided about so far.
struct Admitting<'a, 'r> {
    redirected: &'a Redirected<'a>,
    left: Addresses,
    left_way: LeftClients<RuleConditions<'r>>,
    accepted: Addresses,
    refused: Addresses,
    has_named_egress: bool,
    /// The clients whose connections the first such rule logs, with the log.
    logged: Option<(Addresses, Log)>,
    /// The clients of each refusal, in order.
    refusals: Vec<Addresses>,
    /// The sources of accepts that a spec cannot say, each with the number of refusals before it.
    left_out: Vec<(ImportedPlace, Addresses, usize)>,
    found: Admission,
}

impl<'r> Admitting<'_, 'r> {
    fn meet(&mut self, met: &Met<'r>) {
        if self.left.is_empty() {
            return;
        }
        let conditions = &met.conditions;
        let fit = self.redirected.fit(conditions);
        if fit == Fit::No {
            return;
        }
        let clients = (self.redirected).clients(met, &self.left, &mut self.left_way);
        let Some(hit) = clients else {
            self.pass_over(met, "`-j RETURN` or `-g` before it");
            return;
        };
        if hit.is_empty() {
            return;
        }
        if !conditions.beyond.is_empty() || conditions.share.is_some() {
            self.pass_over(met, &conditions.beyond_words());
            return;
        }
        match verdict(met.rule) {
            RuleVerdict::Accept => self.accept(met, fit, &hit),
            // Such a program bans clients for a while.
            RuleVerdict::Refuse if met.program.is_some_and(bans) => {
                let program = met.program.unwrap_or_default();
                self.refuse_before(met, &format!("as {program} has banned them"));
            }
            RuleVerdict::Refuse => self.refuse(met, fit, &hit),
            RuleVerdict::Other => {
                let target = met.rule.target.as_ref().map_or("", Target::name);
                self.obstruct(met, &format!("gives its connections to `{target}`"));
            }
            RuleVerdict::GoOn | RuleVerdict::Return => {
                if let Some(Target::Log { prefix, level }) = &met.rule.target
                    && met.is_to_take()
                {
                    self.log(met, fit, hit, prefix, *level);
                }
            }
        }
    }

    /// Passes over a rule whose packets a spec cannot say. The forward would accept what it refuses.
    fn pass_over(&mut self, met: &Met<'_>, words: &str) {
        match (verdict(met.rule), met.program) {
            (RuleVerdict::Accept, None) => {
                let sources = met.conditions.sources(self.redirected.family);
                let left_out = (met.place.clone(), sources, self.refusals.len());
                self.left_out.push(left_out);
                self.found
                    .unsaid
                    .push((met.place.clone(), words.to_owned()));
            }
            (RuleVerdict::Refuse, Some(program)) => {
                self.refuse_before(met, &format!("{words}, by {program}"));
            }
            (RuleVerdict::Refuse, None) => {
                self.obstruct(met, &format!("refuses some of its connections by {words}"));
            }
            (RuleVerdict::Other, _) => {
                let target = met.rule.target.as_ref().map_or("", Target::name);
                self.obstruct(met, &format!("gives some of its connections to `{target}`"));
            }
            // A program marks its own connections, and accepts those.
            (RuleVerdict::Accept, Some(_)) | (RuleVerdict::GoOn | RuleVerdict::Return, _) => {}
        }
    }

    /// Keeps a rule that a forward must not pass over, since it accepts less than the forward would.
    fn obstruct(&mut self, met: &Met<'_>, does: &str) {
        self.found
            .obstacle
            .get_or_insert((met.place.clone(), does.to_owned()));
    }

    fn refuse_before(&mut self, met: &Met<'_>, words: &str) {
        let remark = ImportRemark::RefusedBefore {
            by: met.place.clone(),
            words: words.into(),
        };
        self.remark(met, remark);
    }

    fn log(&mut self, met: &Met<'_>, fit: Fit, hit: Addresses, prefix: &str, level: u8) {
        self.take(met, fit, Part::Log);
        self.remark(met, ImportRemark::LogWords);
        let limit = met.conditions.limit;
        let per_minute = limit.map_or(60, |limit| limit.per_minute());
        let log = Log {
            prefix: prefix_of(prefix),
            level,
            per_minute: per_minute.clamp(1, 600),
            connections: Logged::Accepted,
        };
        self.logged.get_or_insert((hit, log));
    }

    fn accept(&mut self, met: &Met<'_>, fit: Fit, hit: &Addresses) {
        let conditions = &met.conditions;
        let is_named = conditions.names_connections() && met.program.is_none();
        if conditions.hash_limit.is_some() || conditions.connections.is_some() {
            self.pass_over(met, &conditions.beyond_words());
            return;
        }
        if let Some(limit) = conditions.limit {
            let Some(limits) = accept_limit(*limit) else {
                self.pass_over(met, "`-m limit`");
                return;
            };
            self.take(met, fit, Part::Limit);
            self.remark(met, ImportRemark::LimitCounts);
            self.found.limits.get_or_insert(limits);
        } else {
            self.take(met, fit, Part::Accept);
        }
        if is_named && !only_redirected(conditions) {
            self.remark(met, ImportRemark::AcceptsMore(beyond(conditions)));
        }
        // A rule that names the connections knows better than one for all that pass.
        if self.found.egress.is_none() || is_named && !self.has_named_egress {
            self.found.egress = egress(conditions).or(self.found.egress.take());
            self.has_named_egress = is_named && self.found.egress.is_some();
        }
        self.accepted.add(hit);
        self.left.remove(hit);
    }

    fn refuse(&mut self, met: &Met<'_>, fit: Fit, hit: &Addresses) {
        let conditions = &met.conditions;
        if conditions.hash_limit.is_some() || conditions.connections.is_some() {
            // The limit of a forward is for all its clients.
            match drop_limit(met).filter(|_| *hit == self.left) {
                Some(limits) => {
                    self.take(met, fit, Part::Limit);
                    self.limit(met, limits);
                }
                None => self.pass_over(met, &conditions.beyond_words()),
            }
            return;
        }
        if conditions.limit.is_some() {
            self.pass_over(met, "`-m limit`");
            return;
        }
        self.take(met, fit, Part::Refuse);
        if met.is_to_take() && !matches!(met.rule.target, Some(Target::Drop)) {
            self.remark(met, ImportRemark::Answered);
        }
        self.refuse_clients(hit.clone());
        self.left.remove(hit);
    }

    fn refuse_clients(&mut self, clients: Addresses) {
        self.refused.add(&clients);
        self.refusals.push(clients);
    }

    fn limit(&mut self, met: &Met<'_>, limits: Limits) {
        let before = self.found.limits;
        match joined(before, limits) {
            Some(joined) => {
                if before.is_some_and(|before| before.reject != limits.reject) {
                    self.remark(met, ImportRemark::LimitAnswers);
                }
                self.found.limits = Some(joined);
            }
            None => self.pass_over(met, "a second limit"),
        }
    }

    /// Takes a rule over if it is for these connections by name.
    fn take(&mut self, met: &Met<'_>, fit: Fit, part: Part) {
        if !met.is_to_take() {
            return;
        }
        self.found.rules.insert((met.place.clone(), part));
        let jumps = met.via.iter().cloned();
        self.found
            .paths
            .extend(jumps.map(|jump| (jump, met.place.clone())));
        if fit == Fit::Part {
            self.remark(met, ImportRemark::SomePorts);
        }
    }

    fn remark(&mut self, met: &Met<'_>, remark: ImportRemark) {
        self.found.remarks.push((met.place.clone(), remark));
    }

    /// Applies the policy to the clients that no rule has decided about.
    fn end(mut self, policy: Policy) -> Admission {
        if policy == Policy::Accept {
            self.accepted.add(&self.left);
        } else {
            let rest = std::mem::replace(&mut self.left, Addresses::none(self.redirected.family));
            self.refuse_clients(rest);
        }
        // The accept would have had the clients that are refused behind it.
        let mut behind = Addresses::none(self.redirected.family);
        for (place, sources, before) in self.left_out.into_iter().rev() {
            for clients in self.refusals.drain(before..) {
                behind.add(&clients);
            }
            if sources.meet(&behind) {
                let remark = (place, ImportRemark::AcceptLeftOut);
                self.found.remarks.push(remark);
            }
        }
        self.found.log = self.logged.map(|(clients, log)| Log {
            connections: match (clients.meet(&self.accepted), clients.meet(&self.refused)) {
                (_, false) => Logged::Accepted,
                (false, true) => Logged::Refused,
                (true, true) => Logged::All,
            },
            ..log
        });
        self.found.sources = client_lists(self.redirected.family, &self.accepted, &self.refused);
        self.found.clients = self.accepted;
        self.found
    }
}

/// Returns whether a program refuses clients for a while only.
fn bans(program: &str) -> bool {
    matches!(program, "fail2ban" | "CrowdSec")
}

/// Returns the packets beside redirected ones that meet the conditions of a rule.
pub fn beyond(conditions: &RuleConditions<'_>) -> Beyond {
    Beyond {
        hosts: conditions.host().is_none(),
        pings: conditions.protocol.is_none() && conditions.ports.is_none(),
    }
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
