//! The FORWARD chain for connections that go outward.

use std::collections::BTreeSet;

use ipnet::IpNet;

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
        let mut way = WayThrough::of(self.family, source.sources(self.family), ingress);
        for met in self.forward.of_sources(source) {
            let conditions = &met.conditions;
            let is_outward = conditions.leave_by(out)
                && conditions.arrive_on(&way.ingress)
                && conditions.redirected != Some(true)
                && !conditions.for_replies
                && conditions.to_machine != Some(true)
                && !self.taken.contains(&met.place)
                && (egress(conditions).is_some()
                    || !is_to_sources(conditions, source, self.family));
            let mut from = conditions.sources(self.family);
            if !is_outward || !way.left.meet(&from) {
                continue;
            }
            for (at, (_, gone)) in conditions.exceptions.iter().enumerate() {
                if !gone.leave_by(out) || !gone.arrive_on(&way.ingress) || gone.for_replies {
                    continue;
                }
                // Some of those that meet a further exception left before.
                let is_by_source = at == 0
                    && gone.is_plain()
                    && gone.protocol.is_none()
                    && gone.destination.is_empty();
                let sources = gone.sources(self.family);
                if is_by_source {
                    from.remove(&sources);
                } else if from.meet(&sources) {
                    way.found.has_unsaid = true;
                    from = Addresses::none(self.family);
                }
            }
            let from = way.left.common(&from);
            if from.is_empty() {
                continue;
            }
            match &met.rule.target {
                Some(Target::Accept) => {
                    let goes =
                        is_for_outward(met, out) && is_covered(conditions, source, self.family);
                    way.accept(met, goes, &from);
                }
                _ if verdict(met.rule) == RuleVerdict::Refuse => {
                    way.refuse(met, is_for_outward(met, out), &from);
                }
                _ => {}
            }
        }
        way.end(self.policy, source)
    }
}

/// The sources of a rule on their way through FORWARD.
struct WayThrough<'s, 'r> {
    family: Family,
    ingress: Interface,
    /// The sources about which no rule has decided.
    left: Addresses,
    kept_out: Addresses,
    refused: Vec<IpNet>,
    refusing: Vec<&'s Met<'r>>,
    /// The rules that refuse some connections in a way that a spec has no words for.
    obstacles: Vec<&'s Met<'r>>,
    found: Passing<'s, 'r>,
}

impl<'s, 'r> WayThrough<'s, 'r> {
    fn of(family: Family, sources: Addresses, ingress: Interface) -> Self {
        Self {
            family,
            ingress,
            left: sources,
            kept_out: Addresses::none(family),
            refused: Vec::new(),
            refusing: Vec::new(),
            obstacles: Vec::new(),
            found: Passing::default(),
        }
    }

    /// Returns whether a rule before refuses some of the accepted connections. nvactl's rules would accept them first.
    fn is_restricted(&mut self, accepted: &RuleConditions<'_>) -> bool {
        let mut all = self.obstacles.iter();
        let first = all.find(|one| one.conditions.meet_some_of(accepted, self.family));
        let Some(by) = first else { return false };
        self.found.has_unsaid = true;
        self.found.refuses_some.get_or_insert(by.place.clone());
        true
    }

    /// `goes`: whether the rule is for no other connections.
    fn accept(&mut self, met: &'s Met<'r>, goes: bool, from: &Addresses) {
        let conditions = &met.conditions;
        if !conditions.beyond.iter().all(|one| is_ping(one))
            || conditions.limit.is_some()
            || conditions.share.is_some()
        {
            self.found.has_unsaid = true;
            return;
        }
        if !self.is_restricted(conditions) {
            let sources = if *from == self.left {
                conditions.sources(self.family).without(&self.kept_out)
            } else {
                from.clone()
            };
            self.add(goes.then_some(met), conditions.clone(), sources);
        }
        if is_for_all(conditions) {
            self.left.remove(from);
        }
    }

    /// `goes`: whether the rule is for no other connections.
    fn refuse(&mut self, met: &'s Met<'r>, goes: bool, from: &Addresses) {
        let conditions = &met.conditions;
        if !conditions.is_plain() || conditions.protocol.is_some() {
            self.found.has_unsaid |= goes;
            self.obstacles.push(met);
        } else if is_for_all(conditions) {
            self.left.remove(from);
            self.kept_out.add(from);
        } else if let [Is(net)] = conditions.destination.as_slice()
            && *from == self.left
        {
            self.refused.push(*net);
            if goes {
                self.refusing.push(met);
            }
        } else {
            self.found.has_unsaid = true;
            self.obstacles.push(met);
        }
    }

    fn add(
        &mut self,
        place: Option<&'s Met<'r>>,
        conditions: RuleConditions<'r>,
        sources: Addresses,
    ) {
        self.found.accepts.push(OutwardAccept {
            place,
            conditions,
            sources,
            kept_out: self.kept_out.clone(),
            ingress: vec![self.ingress.clone()],
            refused: self.refused.clone(),
            refusing: self.refusing.clone(),
        });
    }

    fn end(mut self, policy: Policy, source: &RuleConditions<'_>) -> Passing<'s, 'r> {
        let is_accepted = policy == Policy::Accept && !self.left.is_empty();
        if is_accepted && !self.is_restricted(source) {
            let left = self.left.clone();
            self.add(None, RuleConditions::default(), left);
        }
        self.found
    }
}

/// Returns whether conditions are for all protocols, ports and destinations.
fn is_for_all(conditions: &RuleConditions<'_>) -> bool {
    conditions.protocol.is_none() && conditions.ports.is_none() && conditions.destination.is_empty()
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
