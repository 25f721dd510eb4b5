//! Rules that let hosts behind the machine open connections outward.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::account::Part;
use super::addresses::Addresses;
use super::admission::egress;
use super::conditions::RuleConditions;
use super::names::{EntryNames, description};
use super::origin::snat_of;
use super::place::ImportedPlace;
use super::remark::ImportRemark;
use super::sides::KnownRoutes;
use super::walk::Met;
use crate::forwards::{Destinations, GUARDED, Nets, Outbound, OutboundProtocol, Snat};
use crate::net::{Family, Interface, PortRange};
use crate::netfilter::matches::Match;
use crate::netfilter::names::Policy;
use crate::netfilter::negatable::Negatable::{Is, Not};
use crate::netfilter::protocol::{IcmpType, IpProtocol};
use crate::netfilter::target::Target;

/// The outbound entries that some rules say.
#[derive(Debug, Default)]
pub struct OutwardEntries {
    pub entries: Vec<Outbound>,
    pub rules: BTreeSet<(ImportedPlace, Part, usize)>,
    pub remarks: Vec<(usize, ImportedPlace, ImportRemark)>,
    /// The SNAT rules that a spec cannot say, with the reason.
    pub unsaid: Vec<(ImportedPlace, String)>,
}

/// The rules of one family that an outbound entry may come of.
pub struct Outgoing<'a, 'r> {
    pub family: Family,
    pub forward: &'a [Met<'r>],
    pub postrouting: &'a [Met<'r>],
    pub policy: Policy,
    /// The places that belong to forwards already.
    pub taken: &'a BTreeSet<ImportedPlace>,
    /// The interfaces by which clients of forwards come in.
    pub entrances: &'a [Interface],
    pub routes: &'a KnownRoutes,
}

impl Outgoing<'_, '_> {
    /// Reads the outbound entries, in the order of their source rules.
    pub fn read(&self, names: &mut EntryNames) -> OutwardEntries {
        let mut found = OutwardEntries::default();
        for met in self.postrouting {
            if self.taken.contains(&met.place) || met.conditions.for_replies {
                continue;
            }
            let Some(snat) = snat_of(met).filter(|snat| *snat != Snat::Client) else {
                continue;
            };
            self.read_source(met, snat, names, &mut found);
        }
        found
    }

    /// Reads one SNAT or MASQUERADE rule, and the accepts of its connections.
    fn read_source(
        &self,
        met: &Met<'_>,
        snat: Snat,
        names: &mut EntryNames,
        found: &mut OutwardEntries,
    ) {
        let conditions = &met.conditions;
        let Some(out) =
            egress(conditions).or_else(|| self.routes.default_side(self.family).cloned())
        else {
            let why = "it names no interface by which the packets leave";
            found.unsaid.push((met.place.clone(), why.to_owned()));
            return;
        };
        if !conditions.beyond.is_empty() || conditions.redirected == Some(true) {
            if conditions.redirected != Some(true) {
                let why = format!(
                    "it asks for {}, which a spec has no words for",
                    conditions.beyond_words()
                );
                found.unsaid.push((met.place.clone(), why));
            }
            return;
        }
        let passing = self.passing(&out, conditions);
        let before = found.entries.len();
        for accept in &passing.accepts {
            let its_own = accept.conditions.sources(self.family);
            let sources = its_own.common(&conditions.sources(self.family));
            let allow_from = self.networks(&sources, accept.ingress.as_ref());
            let (Some(allow_from), Some(ingress)) = (allow_from, accept.ingress.clone()) else {
                continue;
            };
            let Some((protocols, ports)) = accept.protocols(conditions) else {
                continue;
            };
            let number = found.entries.len();
            let allow_to = accept.destinations(self.family, conditions);
            if allow_to.internet || allow_to.nets.are_all() {
                found
                    .remarks
                    .push((number, met.place.clone(), ImportRemark::PrivateNetworks));
            }
            let comment = accept.comment().or(conditions.comment);
            found.entries.push(Outbound {
                name: names.of_entry(comment),
                description: description(comment),
                family: self.family,
                ingress: vec![ingress],
                egress: out.clone(),
                allow_from,
                allow_to,
                deny_from: Nets::default(),
                deny_to: accept.refused.clone(),
                protocols,
                ports,
                snat,
                limits: None,
                log: None,
            });
            found
                .rules
                .insert((met.place.clone(), Part::Source, number));
            if let Some(place) = &accept.place {
                found.rules.insert((place.clone(), Part::Accept, number));
            }
            for place in &accept.refusing {
                found.rules.insert((place.clone(), Part::Refuse, number));
            }
        }
        if found.entries.len() == before {
            found
                .unsaid
                .push((met.place.clone(), passing.reason(conditions)));
        }
    }

    /// Returns the networks of an entry: those that rules name, or those behind its ingress.
    fn networks(&self, sources: &Addresses, ingress: Option<&Interface>) -> Option<Nets> {
        if !sources.are_all() {
            return (!sources.is_empty()).then(|| Nets::new(sources.nets()));
        }
        let behind: Vec<IpNet> = self.routes.behind(ingress?, self.family).collect();
        (!behind.is_empty()).then(|| Nets::new(behind))
    }

    /// Follows the FORWARD chain for packets that leave by an interface with the sources of a rule.
    fn passing<'s>(&'s self, out: &Interface, source: &RuleConditions<'_>) -> Passing<'s> {
        let mut passing = Passing::default();
        let all = source.sources(self.family);
        let mut left = all.clone();
        for met in self.forward {
            let conditions = &met.conditions;
            let is_outward = conditions.leave_by(out)
                && conditions.redirected != Some(true)
                && !conditions.for_replies
                && !conditions.to_machine
                && !self.taken.contains(&met.place);
            let from = conditions.sources(self.family);
            if !is_outward || left.common(&from).is_empty() {
                continue;
            }
            let ingress = self.ingress(conditions, out, &from);
            match &met.rule.target {
                Some(Target::Accept) => {
                    if !conditions.beyond.iter().all(|one| is_ping(one))
                        || conditions.limit.is_some()
                    {
                        passing.has_unsaid = true;
                        continue;
                    }
                    passing.accepts.push(Accept {
                        place: is_of_sources(conditions).then(|| met.place.clone()),
                        conditions: conditions.clone(),
                        ingress,
                        refused: Nets::new(passing.refused.clone()),
                        refusing: passing.refusing.clone(),
                    });
                    if conditions.protocol.is_none()
                        && conditions.ports.is_none()
                        && conditions.destination.is_empty()
                    {
                        left = left.without(&from);
                    }
                }
                Some(Target::Drop | Target::Reject(_)) => {
                    if let ([Is(net)], None, true) = (
                        conditions.destination.as_slice(),
                        conditions.protocol,
                        conditions.beyond.is_empty(),
                    ) {
                        passing.refused.push(*net);
                        if is_of_sources(conditions) {
                            passing.refusing.push(met.place.clone());
                        }
                    } else if conditions.protocol.is_none()
                        && conditions.destination.is_empty()
                        && conditions.beyond.is_empty()
                    {
                        left = left.without(&from);
                    } else {
                        passing.has_unsaid = true;
                    }
                }
                _ => {}
            }
        }
        if self.policy == Policy::Accept && !left.is_empty() {
            let conditions = RuleConditions::default();
            passing.accepts.push(Accept {
                place: None,
                ingress: self.ingress(&conditions, out, &left),
                conditions,
                refused: Nets::new(passing.refused.clone()),
                refusing: passing.refusing.clone(),
            });
        }
        passing
    }

    /// Returns the interface on which the packets of a rule arrive.
    fn ingress(
        &self,
        conditions: &RuleConditions<'_>,
        out: &Interface,
        from: &Addresses,
    ) -> Option<Interface> {
        let named = conditions.ingress.iter().find_map(|pattern| match pattern {
            Is(pattern) => pattern.exact().cloned(),
            Not(_) => None,
        });
        let by_route = || {
            let first = from.nets().first().map(IpNet::addr)?;
            self.routes.side(first).filter(|_| !from.are_all()).cloned()
        };
        named.or_else(by_route).or_else(|| {
            // On a machine with one interface everything comes in there.
            (self.entrances == [out.clone()]).then(|| out.clone())
        })
    }
}

/// Returns whether a rule names the sources or the interfaces of outbound connections.
fn is_of_sources(conditions: &RuleConditions<'_>) -> bool {
    !conditions.source.is_empty() || !conditions.ingress.is_empty()
}

#[derive(Default)]
struct Passing<'r> {
    accepts: Vec<Accept<'r>>,
    refused: Vec<IpNet>,
    refusing: Vec<ImportedPlace>,
    has_unsaid: bool,
}

impl Passing<'_> {
    fn reason(&self, source: &RuleConditions<'_>) -> String {
        if self.has_unsaid {
            "the rules that accept its connections have conditions that a spec has no words for"
                .to_owned()
        } else if self.accepts.is_empty() {
            "FORWARD accepts no connection that it is for, but those of forwards".to_owned()
        } else if source.source.is_empty() {
            "no rule names the networks that the connections come from".to_owned()
        } else {
            "no rule names the interface by which the connections come in".to_owned()
        }
    }
}

/// A rule that accepts outbound connections.
struct Accept<'r> {
    /// `None` for the policy, and for a rule that is not for these connections alone.
    place: Option<ImportedPlace>,
    conditions: RuleConditions<'r>,
    ingress: Option<Interface>,
    refused: Nets,
    refusing: Vec<ImportedPlace>,
}

impl Accept<'_> {
    fn comment(&self) -> Option<&str> {
        self.conditions.comment
    }

    /// Returns the protocols and ports that this rule and the source rule both take; `None` if a spec cannot say them.
    fn protocols(
        &self,
        source: &RuleConditions<'_>,
    ) -> Option<(Vec<OutboundProtocol>, Vec<PortRange>)> {
        let of = |conditions: &RuleConditions<'_>| match conditions.protocol {
            None => Some(OutboundProtocol::ALL.to_vec()),
            Some(Is(protocol)) => Some(vec![match protocol {
                IpProtocol::Icmp | IpProtocol::Icmp6 => OutboundProtocol::Ping,
                other => other.transport()?.into(),
            }]),
            Some(_) => None,
        };
        let (own, other) = (of(&self.conditions)?, of(source)?);
        let both: Vec<_> = own.into_iter().filter(|one| other.contains(one)).collect();
        let ports = self
            .conditions
            .ports
            .clone()
            .or_else(|| source.ports.clone());
        (!both.is_empty()).then(|| (both, ports.unwrap_or_default()))
    }

    fn destinations(&self, family: Family, source: &RuleConditions<'_>) -> Destinations {
        let all = self.conditions.destinations(family);
        let all = all.common(&source.destinations(family));
        if all.are_all() {
            return Destinations::new(family, true, Nets::default(), &[]);
        }
        let nets = all.nets();
        let exact = GUARDED
            .into_iter()
            .filter(|one| nets.contains(&IpNet::from(*one)));
        let exact: Vec<_> = exact.collect();
        Destinations::new(family, false, Nets::new(nets), &exact)
    }
}

/// Returns whether a condition asks for pings.
fn is_ping(condition: &Match) -> bool {
    let request = |kind: &IcmpType| matches!(kind, IcmpType::Type(8 | 128));
    matches!(condition, Match::Icmp(Is(kind)) | Match::Icmp6(Is(kind)) if request(kind))
}
