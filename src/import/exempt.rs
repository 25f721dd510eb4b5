//! Clients that the rules before a redirection leave alone.

use super::account::RuleFate;
use super::addresses::Addresses;
use super::conditions::RuleConditions;
use super::redirect::Redirect;
use super::redirected::{Fit, coverage};
use super::remark::ImportRemark;
use super::undecided::Undecided;
use super::verdict::{RuleVerdict, verdict};
use super::walk::Met;
use crate::net::{Family, Interface, PortRange};
use crate::netfilter::negatable::Negatable::{Is, Not};

/// The rules before a redirection.
pub struct Before<'a, 'r> {
    pub family: Family,
    /// The rules of PREROUTING before it.
    pub rules: &'a [Met<'r>],
    /// The interface of redirections that name none.
    pub entrance: &'a Interface,
}

impl Before<'_, '_> {
    /// Takes the clients out of a redirection that the rules before it leave alone. Rules that redirect by themselves
    /// count only if `is_read` is false for their place among the rules.
    ///
    /// # Errors
    /// What becomes of a redirection that a spec cannot say, or that no packet reaches.
    pub fn leave_out(
        &self,
        one: &mut Redirect<'_>,
        is_read: impl Fn(usize) -> bool,
    ) -> Result<(), RuleFate> {
        let mut clients = Undecided::new(one.sources.clone());
        let mut last = None;
        for (number, met) in self.rules.iter().enumerate() {
            clients.reach(number);
            let verdict = verdict(met.rule);
            if verdict == RuleVerdict::GoOn || is_read(number) {
                continue;
            }
            let conditions = &met.conditions;
            let fit = self.fit(one, conditions);
            let hit = clients.here().common(&conditions.sources(self.family));
            if fit == Fit::No || hit.is_empty() {
                continue;
            }
            let is_said = conditions.are_said() && !conditions.are_limited() && fit == Fit::Whole;
            match verdict {
                RuleVerdict::Accept if is_said => clients.decide(&hit),
                RuleVerdict::Return if is_said => clients.send_back(hit, met.resumes),
                _ => {
                    let words = match conditions.beyond_words().as_str() {
                        "" => String::new(),
                        words => format!(" by {words}"),
                    };
                    return Err(RuleFate::NotSaid(format!(
                        "{} takes some of its packets first{words}, and a spec has no words for that",
                        met.place
                    )));
                }
            }
            if is_for(one, conditions) {
                one.exempting.push(met.place.clone());
            }
            last = Some(&met.place);
        }
        clients.reach(self.rules.len());
        let left = clients.here();
        if let Some(place) = last.filter(|_| *left != one.sources) {
            if left.is_empty() {
                return Err(RuleFate::NotNeeded(format!(
                    "{place} takes its packets first"
                )));
            }
            one.remarks
                .push((place.clone(), ImportRemark::OthersReachedMachine));
            one.sources = left.clone();
        } else {
            one.exempting.clear();
        }
        Ok(())
    }

    /// Returns whether a rule is for packets to a listener, whatever their source is.
    fn fit(&self, one: &Redirect<'_>, conditions: &RuleConditions<'_>) -> Fit {
        if conditions.for_replies || conditions.redirected == Some(true) {
            return Fit::No;
        }
        let protocols = one.protocols.iter();
        let protocols = protocols.map(|protocol| {
            conditions
                .protocol
                .is_none_or(|asked| asked.holds(|one| one.transport() == Some(*protocol)))
        });
        let entrance = [self.entrance.clone()];
        let ingress = if one.ingress.is_empty() {
            entrance.as_slice()
        } else {
            &one.ingress
        };
        let arrives = ingress.iter().map(|one| conditions.arrive_on(one));
        let ports: Vec<PortRange> = one.listens.iter().map(|listen| listen.ports).collect();
        let ports = match (&conditions.ports, conditions.original_ports) {
            (_, Some(_)) => Fit::Part,
            (None, None) => Fit::Whole,
            (Some(ranges), None) => coverage(&ports, ranges),
        };
        let each = [
            all_or_part(protocols),
            all_or_part(arrives),
            ports,
            self.destination(one, conditions),
        ];
        if each.contains(&Fit::No) {
            Fit::No
        } else if each.contains(&Fit::Part) {
            Fit::Part
        } else {
            Fit::Whole
        }
    }

    /// Returns whether a rule is for the address of a listener. No rule says which addresses the machine has.
    fn destination(&self, one: &Redirect<'_>, conditions: &RuleConditions<'_>) -> Fit {
        let asked = conditions.destinations(self.family);
        if conditions.in_transit {
            return Fit::No;
        }
        match one.listens[0].address {
            Some(address) if asked.common(&Addresses::of(address.into())).is_empty() => Fit::No,
            None if !asked.are_all() => Fit::Part,
            Some(_) | None => Fit::Whole,
        }
    }
}

fn all_or_part(each: impl Iterator<Item = bool>) -> Fit {
    let each: Vec<bool> = each.collect();
    if each.iter().all(|one| *one) {
        Fit::Whole
    } else if each.contains(&true) {
        Fit::Part
    } else {
        Fit::No
    }
}

/// Returns whether a rule is for packets to a listener alone.
fn is_for(one: &Redirect<'_>, conditions: &RuleConditions<'_>) -> bool {
    let listens: Vec<PortRange> = one.listens.iter().map(|listen| listen.ports).collect();
    let ports = conditions.ports.as_ref();
    let has_its_ports = ports.is_some_and(|ports| coverage(ports, &listens) == Fit::Whole);
    let has_its_protocol = match conditions.protocol {
        Some(Is(protocol)) => protocol
            .transport()
            .is_some_and(|protocol| one.protocols.contains(&protocol)),
        Some(Not(_)) | None => false,
    };
    has_its_ports && has_its_protocol
}
