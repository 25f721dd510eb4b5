//! The effect of the FORWARD chain on the connections of a redirection.

use std::collections::BTreeSet;

use super::account::Part;
use super::addresses::Addresses;
use super::clients::client_lists;
use super::conditions::RuleConditions;
use super::exceptions::LeftClients;
use super::limits::{AboveLimit, above_limit, accept_limit, drop_limit, joined};
use super::met_rules::RulesBySource;
use super::place::{ImportedPlace, RuleWay};
use super::redirected::{Fit, Redirected};
use super::remark::{Beyond, ImportRemark};
use super::verdict::{RuleVerdict, verdict};
use super::walk::Met;
use crate::forwards::{Limits, Log, Logged, Sources};
use crate::netfilter::names::Policy;
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
    /// The ways to these rules.
    pub ways: BTreeSet<RuleWay>,
    pub remarks: Vec<(ImportedPlace, ImportRemark)>,
    /// The accepts that would matter if a spec had words for them, each with its conditions in words.
    pub unsaid: Vec<(ImportedPlace, String)>,
    /// Whether a rule gives connections to a program or another chain of the kernel, which may accept them.
    pub gives_away: bool,
    /// The first rule that keeps connections from being accepted in a way that a spec cannot say, and what it does.
    pub obstacle: Option<(ImportedPlace, String)>,
}

/// Follows the FORWARD chain for redirected connections.
pub fn admission(redirected: &Redirected<'_>, rules: &[&Met<'_>], policy: Policy) -> Admission {
    let mut admitting = Admitting {
        redirected,
        rules: RulesBySource::new(rules),
        policy,
        left: redirected.sources.clone(),
        left_way: LeftClients::new(redirected.family),
        accepted: Addresses::none(redirected.family),
        refused: Addresses::none(redirected.family),
        limited: Vec::new(),
        logged: None,
        refusals: Vec::new(),
        left_out: Vec::new(),
        found: Admission {
            sources: Sources::default(),
            clients: Addresses::none(redirected.family),
            limits: None,
            log: None,
            rules: BTreeSet::new(),
            ways: BTreeSet::new(),
            remarks: Vec::new(),
            unsaid: Vec::new(),
            gives_away: false,
            obstacle: None,
        },
    };
    for (at, met) in rules.iter().enumerate() {
        admitting.meet(at, met);
    }
    admitting.end()
}

/// The clients whose connections the rules have decided about so far.
struct Admitting<'a, 'r> {
    redirected: &'a Redirected<'a>,
    rules: RulesBySource<'a, 'r>,
    policy: Policy,
    left: Addresses,
    left_way: LeftClients<RuleConditions<'r>>,
    accepted: Addresses,
    refused: Addresses,
    /// The clients of each limit.
    limited: Vec<(ImportedPlace, Addresses)>,
    /// The clients whose connections the first such rule logs, with the log.
    logged: Option<(Addresses, Log)>,
    /// The clients of each refusal, in order.
    refusals: Vec<Addresses>,
    /// The sources of accepts that a spec cannot say, each with the number of refusals before it.
    left_out: Vec<(ImportedPlace, Addresses, usize)>,
    found: Admission,
}

impl<'r> Admitting<'_, 'r> {
    fn meet(&mut self, at: usize, met: &Met<'r>) {
        if self.left.is_empty() {
            return;
        }
        let conditions = &met.conditions;
        if self.redirected.fit(conditions) == Fit::No {
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
            RuleVerdict::Accept => self.accept(at, met, &hit),
            // Such a program bans clients for a while.
            RuleVerdict::Refuse if met.program.is_some_and(bans) => {
                let program = met.program.unwrap_or_default();
                self.refuse_before(met, &format!("as {program} has banned them"));
            }
            RuleVerdict::Refuse => self.refuse(met, &hit),
            RuleVerdict::Other => {
                let target = met.rule.target.as_ref().map_or("", Target::name);
                self.found.gives_away = true;
                self.obstruct(met, &format!("gives its connections to `{target}`"));
            }
            RuleVerdict::GoOn | RuleVerdict::Return => {
                if let Some(Target::Log { prefix, level }) = &met.rule.target
                    && met.is_to_take()
                    && conditions.counts_nothing_but_packets()
                    && self.logged.is_none()
                {
                    self.log(met, hit, prefix, *level);
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
                self.found.gives_away = true;
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

    fn log(&mut self, met: &Met<'_>, hit: Addresses, prefix: &str, level: u8) {
        self.take(met, Part::Log);
        self.remark(met, ImportRemark::LogWords);
        let limit = met.conditions.limit;
        let per_minute = limit.map_or(60, |limit| limit.per_minute());
        let log = Log {
            prefix: prefix_of(prefix),
            level,
            per_minute: per_minute.clamp(1, 600),
            connections: Logged::Accepted,
        };
        self.logged = Some((hit, log));
    }

    fn accept(&mut self, at: usize, met: &Met<'_>, hit: &Addresses) {
        let conditions = &met.conditions;
        match accept_limit(met) {
            Err(words) => return self.pass_over(met, &words),
            Ok(None) => self.take(met, Part::Accept),
            Ok(Some(limits)) => {
                let behind = self.rules.behind(at, hit);
                let (limits, refusals) =
                    match above_limit(self.redirected, hit, &behind, self.policy) {
                        AboveLimit::Refused { rules, reject } => {
                            (Limits { reject, ..limits }, rules)
                        }
                        // The limit changes nothing.
                        AboveLimit::Accepted => return,
                        AboveLimit::Unclear => {
                            let words = conditions.beyond_words();
                            let words = format!("{words}, above which not all are refused");
                            return self.pass_over(met, &words);
                        }
                    };
                if !self.limit(met, hit, limits) {
                    return;
                }
                self.take(met, Part::Limit);
                for refusal in refusals {
                    self.take(refusal, Part::Refuse);
                }
            }
        }
        let is_named = conditions.names_connections() && met.program.is_none();
        if is_named && !only_redirected(conditions) {
            self.remark(met, ImportRemark::AcceptsMore(beyond(conditions)));
        }
        self.accepted.add(hit);
        self.left.remove(hit);
    }

    fn refuse(&mut self, met: &Met<'_>, hit: &Addresses) {
        let conditions = &met.conditions;
        if conditions.hash_limit.is_some() || conditions.connections.is_some() {
            // The limit of a forward is for all its clients.
            match drop_limit(met).filter(|_| *hit == self.left) {
                Some(limits) => {
                    if self.limit(met, hit, limits) {
                        self.take(met, Part::Limit);
                    }
                }
                None => self.pass_over(met, &conditions.beyond_words()),
            }
            return;
        }
        if conditions.limit.is_some() || conditions.up_to.is_some() {
            self.pass_over(met, &conditions.beyond_words());
            return;
        }
        self.take(met, Part::Refuse);
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

    /// Adds a limit for some clients, if a spec can say it beside the one before.
    fn limit(&mut self, met: &Met<'_>, clients: &Addresses, limits: Limits) -> bool {
        let before = self.found.limits;
        let Some(joined) = joined(before, limits) else {
            self.pass_over(met, "a second limit");
            return false;
        };
        if before.is_some_and(|before| before.reject != limits.reject) {
            self.remark(met, ImportRemark::LimitAnswers);
        }
        if limits.rate.is_some() && !met.conditions.for_opening {
            self.remark(met, ImportRemark::LimitCounts);
        }
        self.found.limits = Some(joined);
        self.limited.push((met.place.clone(), clients.clone()));
        true
    }

    /// Takes a rule over if it is for these connections by name.
    fn take(&mut self, met: &Met<'_>, part: Part) {
        if !met.is_to_take() {
            return;
        }
        self.found.rules.insert((met.place.clone(), part));
        self.found.ways.insert(met.way());
    }

    fn remark(&mut self, met: &Met<'_>, remark: ImportRemark) {
        self.found.remarks.push((met.place.clone(), remark));
    }

    /// Applies the policy to the clients that no rule has decided about.
    fn end(mut self) -> Admission {
        if self.policy == Policy::Accept {
            self.accepted.add(&self.left);
        } else {
            let rest = std::mem::replace(&mut self.left, Addresses::none(self.redirected.family));
            self.refuse_clients(rest);
        }
        for (place, clients) in &self.limited {
            if !self.accepted.are_within(clients) {
                let does = "limits a part of its clients only".to_owned();
                self.found.obstacle.get_or_insert((place.clone(), does));
            }
        }
        // The accept would have had the clients that are refused behind it.
        let mut behind = Addresses::none(self.redirected.family);
        for (place, sources, before) in self.left_out.into_iter().rev() {
            for clients in self.refusals.drain(before..) {
                behind.add(&clients);
            }
            if self.found.limits.is_some() || sources.meet(&behind) {
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
