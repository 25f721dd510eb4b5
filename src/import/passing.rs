//! The FORWARD chain for connections that go outward.

use std::collections::BTreeSet;

use super::addresses::Addresses;
use super::conditions::RuleConditions;
use super::egress::egress;
use super::outward::Outgoing;
use super::outward_accept::OutwardAccept;
use super::place::ImportedPlace;
use super::sides::ingress_of;
use super::verdict::{RuleVerdict, verdict};
use super::walk::Met;
use crate::net::{Family, Interface};
use crate::netfilter::matches::Match;
use crate::netfilter::names::Policy;
use crate::netfilter::negatable::Negatable::Is;
use crate::netfilter::protocol::IcmpType;
use crate::netfilter::target::Target;

/// The rules that accept outbound connections by one interface.
#[derive(Default)]
pub struct Passing<'s, 'r> {
    pub accepts: Vec<OutwardAccept<'s, 'r>>,
    /// Whether some rule has conditions that a spec has no words for.
    pub has_unsaid: bool,
    /// The first rule that refuses some of the connections that a later one accepts, in a way that a spec has no words for.
    pub refuses_some: Option<ImportedPlace>,
}

impl<'r> Outgoing<'_, 'r> {
    /// Returns the interfaces by which the connections of a source rule may come in.
    pub fn ingresses(&self, out: &Interface, source: &RuleConditions<'_>) -> Vec<Interface> {
        let nets = source.source.iter().filter_map(|net| net.wanted());
        let sides: Vec<Option<&Interface>> = nets
            .map(|net| {
                let address = net.addr();
                self.routes
                    .side_of_network(address)
                    .or_else(|| self.sides.side(address))
            })
            .collect();
        if let Some(sides) = sides.into_iter().collect::<Option<BTreeSet<_>>>()
            && !sides.is_empty()
        {
            return sides.into_iter().cloned().collect();
        }
        let named = self.forward.all.iter().filter(|met| {
            met.rule.target == Some(Target::Accept)
                && met.conditions.leave_by(out)
                && !met.conditions.for_replies
                && met.conditions.redirected != Some(true)
        });
        let named: BTreeSet<Interface> = named
            .filter_map(|met| {
                let interface = ingress_of(&met.conditions)?;
                let is_one_nic = egress(&met.conditions).as_ref() == Some(&interface);
                (interface != *out || is_one_nic).then_some(interface)
            })
            .collect();
        if !named.is_empty() {
            return named.into_iter().collect();
        }
        // On a machine with one interface everything comes in there.
        if self.entrances == std::slice::from_ref(out) && self.has_one_side(out) {
            return vec![out.clone()];
        }
        Vec::new()
    }

    /// Returns whether no rule names another interface.
    fn has_one_side(&self, out: &Interface) -> bool {
        let mut all = self.forward.all.iter().chain(self.postrouting);
        all.all(|met| {
            let named = [ingress_of(&met.conditions), egress(&met.conditions)];
            named.iter().flatten().all(|one| one == out)
        })
    }

    /// Follows the FORWARD chain for packets from one interface to another, with the sources of a rule.
    pub fn passing<'s>(
        &'s self,
        out: &Interface,
        source: &RuleConditions<'_>,
        ingress: Interface,
    ) -> Passing<'s, 'r> {
        let mut passing = Passing::default();
        let its_own = source.sources(self.family);
        let mut left = its_own.clone();
        let mut kept_out = Addresses::none(self.family);
        let mut refused = Vec::new();
        let mut refusing = Vec::new();
        let mut obstacles: Vec<&Met<'r>> = Vec::new();
        let refused_by = |obstacles: &[&Met<'r>], accepted: &RuleConditions<'_>| {
            let mut all = obstacles.iter();
            let first = all.find(|one| one.conditions.meet_some_of(accepted, self.family));
            first.map(|one| one.place.clone())
        };
        for met in self.forward.from_sources_of(source) {
            let conditions = &met.conditions;
            let is_outward = conditions.leave_by(out)
                && conditions.arrive_on(&ingress)
                && conditions.redirected != Some(true)
                && !conditions.for_replies
                && conditions.to_machine != Some(true)
                && !self.taken.contains(&met.place)
                && (egress(conditions).is_some()
                    || !is_to_sources(conditions, source, self.family));
            let mut from = conditions.sources(self.family);
            if !is_outward || !left.meet(&from) {
                continue;
            }
            for (at, (_, gone)) in conditions.exceptions.iter().enumerate() {
                if !gone.leave_by(out) || !gone.arrive_on(&ingress) || gone.for_replies {
                    continue;
                }
                let is_by_source = at == 0
                    && gone.is_plain()
                    && gone.protocol.is_none()
                    && gone.destination.is_empty();
                let sources = gone.sources(self.family);
                if is_by_source {
                    from.remove(&sources);
                } else if from.meet(&sources) {
                    passing.has_unsaid = true;
                    from = Addresses::none(self.family);
                }
            }
            let from = left.common(&from);
            if from.is_empty() {
                continue;
            }
            let is_for_all = conditions.protocol.is_none()
                && conditions.ports.is_none()
                && conditions.destination.is_empty();
            match &met.rule.target {
                Some(Target::Accept) => {
                    if !conditions.beyond.iter().all(|one| is_ping(one))
                        || conditions.limit.is_some()
                        || conditions.share.is_some()
                    {
                        passing.has_unsaid = true;
                        continue;
                    }
                    // nvactl's rules would accept before the refusal.
                    if let Some(by) = refused_by(&obstacles, conditions) {
                        passing.has_unsaid = true;
                        passing.refuses_some.get_or_insert(by);
                        if is_for_all {
                            left.remove(&from);
                        }
                        continue;
                    }
                    let goes =
                        is_for_outward(met, out) && is_covered(conditions, source, self.family);
                    passing.accepts.push(OutwardAccept {
                        place: goes.then_some(met),
                        conditions: conditions.clone(),
                        sources: if from == left {
                            conditions.sources(self.family).without(&kept_out)
                        } else {
                            from.clone()
                        },
                        kept_out: kept_out.clone(),
                        ingress: vec![ingress.clone()],
                        refused: refused.clone(),
                        refusing: refusing.clone(),
                    });
                    if is_for_all {
                        left.remove(&from);
                    }
                }
                _ if verdict(met.rule) == RuleVerdict::Refuse => {
                    if !conditions.is_plain() || conditions.protocol.is_some() {
                        passing.has_unsaid |= is_for_outward(met, out);
                        obstacles.push(met);
                    } else if is_for_all {
                        left.remove(&from);
                        kept_out.add(&from);
                    } else if let [Is(net)] = conditions.destination.as_slice()
                        && from == left
                    {
                        refused.push(*net);
                        if is_for_outward(met, out) {
                            refusing.push(met);
                        }
                    } else {
                        passing.has_unsaid = true;
                        obstacles.push(met);
                    }
                }
                _ => {}
            }
        }
        let by_policy = self.policy == Policy::Accept && !left.is_empty();
        if by_policy && let Some(by) = refused_by(&obstacles, source) {
            passing.has_unsaid = true;
            passing.refuses_some.get_or_insert(by);
        } else if by_policy {
            passing.accepts.push(OutwardAccept {
                place: None,
                conditions: RuleConditions::default(),
                sources: left,
                kept_out,
                ingress: vec![ingress],
                refused,
                refusing,
            });
        }
        passing
    }
}

/// Returns whether a rule is for connections that leave by an interface alone, and the user's.
fn is_for_outward(met: &Met<'_>, out: &Interface) -> bool {
    let conditions = &met.conditions;
    let names_sources = !conditions.source.is_empty() || ingress_of(conditions).is_some();
    met.program.is_none() && names_sources && egress(conditions).as_ref() == Some(out)
}

/// Returns whether a source rule is for all protocols, ports and destinations of an accept. Without the accept, nothing would
/// accept the others.
fn is_covered(accept: &RuleConditions<'_>, source: &RuleConditions<'_>, family: Family) -> bool {
    let has_protocol = source.protocol.is_none() || source.protocol == accept.protocol;
    let has_ports = source.ports.is_none() || source.ports == accept.ports;
    let destinations = accept.destinations(family);
    has_protocol && has_ports && destinations.are_within(&source.destinations(family))
}

/// Returns whether a rule is for packets to the hosts that a source rule is for.
fn is_to_sources(
    conditions: &RuleConditions<'_>,
    source: &RuleConditions<'_>,
    family: Family,
) -> bool {
    let to = conditions.destinations(family);
    let from = source.sources(family);
    !to.are_all() && !from.are_all() && !to.common(&from).is_empty()
}

/// Returns whether a condition asks for pings.
fn is_ping(condition: &Match) -> bool {
    let request = |kind: &IcmpType| matches!(kind, IcmpType::Type(8 | 128));
    matches!(condition, Match::Icmp(Is(kind)) | Match::Icmp6(Is(kind)) if request(kind))
}
