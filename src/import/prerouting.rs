//! The DNAT rules of PREROUTING, each without the packets that rules before it take.

use std::collections::BTreeMap;

use super::account::RuleFate;
use super::before::{TakenBefore, taken_before};
use super::lookup::Lookup;
use super::place::ImportedPlace;
use super::redirect::{Redirect, redirect};
use super::remark::ImportRemark;
use super::sides::is_dnat;
use super::walk::Met;
use crate::net::{Family, Interface};
use crate::netfilter::target::Target;

/// The redirections that DNAT rules say, in order.
#[derive(Debug, Default)]
pub struct DnatRules<'r> {
    pub redirects: Vec<Redirect<'r>>,
    /// The DNAT rules that say none.
    pub fates: BTreeMap<ImportedPlace, RuleFate>,
}

/// Reads DNAT rules of one family.
pub struct DnatReading<'a> {
    pub family: Family,
    /// The interface of the clients of rules without `-i`.
    pub entrance: &'a Interface,
}

impl DnatReading<'_> {
    /// Reads the DNAT rules, each without the packets that rules before it take.
    pub fn read<'r>(&self, prerouting: &[Met<'r>]) -> DnatRules<'r> {
        let mut found = DnatRules::default();
        let mut stops = Stops::default();
        for met in prerouting {
            if met.program.is_some() || !is_dnat(met.rule) {
                if ends_way(met) {
                    stops.push(met);
                }
                continue;
            }
            let read = redirect(met, self.family).map_err(RuleFate::NotSaid);
            match read.and_then(|one| self.without_earlier(one, met, &stops)) {
                Ok(one) => found.redirects.push(one),
                Err(fate) => {
                    found.fates.insert(met.place.clone(), fate);
                    stops.push(met);
                }
            }
        }
        found
    }

    /// Takes the packets out of a redirection that leave its way before.
    fn without_earlier<'r>(
        &self,
        mut one: Redirect<'r>,
        met: &Met<'r>,
        stops: &Stops<'_, 'r>,
    ) -> Result<Redirect<'r>, RuleFate> {
        let ingress = one.ingress_or(self.entrance);
        // Whether packets left a chain, other than a built-in one, before the exception.
        let mut some_left = false;
        let gone = met.conditions.exceptions.iter().map(|(who, earlier)| {
            let is_for_some = some_left;
            some_left |= !who.chain.is_builtin();
            (who, earlier, None, true, is_for_some)
        });
        let stopped = stops.before(&one).into_iter().map(|stop| {
            let leads_nowhere = stop.rule.target == Some(Target::Accept);
            let (who, conditions) = (&stop.place, &stop.conditions);
            (who, conditions, stop.program, leads_nowhere, false)
        });
        for (who, earlier, program, leads_nowhere, is_for_some) in stopped.chain(gone) {
            let taken = match taken_before(&one, &ingress, earlier, self.family) {
                TakenBefore::Nothing => continue,
                _ if is_for_some && earlier.is_plain() => TakenBefore::after_exception(),
                taken => taken,
            };
            match taken {
                TakenBefore::Nothing => {}
                TakenBefore::Everything => {
                    return Err(RuleFate::LeftAlone(format!(
                        "{who} takes its packets first"
                    )));
                }
                // Other hosts or ports get these clients, and a forward would drop them.
                TakenBefore::Sources(_) if !leads_nowhere => {
                    return Err(RuleFate::NotSaid(format!(
                        "{who} takes some of its clients first, and leads them elsewhere"
                    )));
                }
                TakenBefore::Sources(sources) => {
                    one.sources.remove(&sources);
                    one.remarks
                        .push((met.place.clone(), ImportRemark::OthersReachedMachine));
                }
                TakenBefore::Ports(ports) => one.leave_ports(&ports).ok_or_else(|| {
                    RuleFate::NotSaid(format!("{who} takes a part of its shifted ports first"))
                })?,
                // A program leads packets for addresses of its own elsewhere.
                TakenBefore::Part(_)
                    if program.is_some()
                        && one.listens[0].address.is_none()
                        && !earlier.destination.is_empty() => {}
                TakenBefore::Part(words) => {
                    return Err(RuleFate::NotSaid(format!(
                        "{who} takes some of its packets first, {words}"
                    )));
                }
            }
        }
        Ok(one)
    }
}

/// Returns whether a rule of nat PREROUTING ends the way of a packet.
fn ends_way(met: &Met<'_>) -> bool {
    match &met.rule.target {
        Some(Target::Accept | Target::Drop | Target::Dnat { .. }) => true,
        Some(target @ Target::Other(_)) => matches!(target.name(), "DNAT" | "REDIRECT" | "NETMAP"),
        _ => false,
    }
}

/// The rules of PREROUTING that end the way of packets before a redirection.
#[derive(Default)]
struct Stops<'a, 'r> {
    rules: Vec<&'a Met<'r>>,
    lookup: Lookup,
}

impl<'a, 'r> Stops<'a, 'r> {
    fn push(&mut self, met: &'a Met<'r>) {
        let conditions = &met.conditions;
        let ports = conditions.ports.as_deref();
        (self.lookup).add(self.rules.len(), conditions.destination_net(), ports);
        self.rules.push(met);
    }

    /// Returns the rules that may take packets of a redirection, in order.
    fn before(&self, one: &Redirect<'_>) -> Vec<&'a Met<'r>> {
        let numbers = (self.lookup).find(one.listens[0].address, &one.listen_ports());
        numbers
            .into_iter()
            .map(|number| self.rules[number])
            .collect()
    }
}
