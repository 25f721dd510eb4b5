//! Rules that let hosts behind the machine open connections outward.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::account::{Part, RuleFate};
use super::addresses::Addresses;
use super::admission::egress;
use super::conditions::RuleConditions;
use super::names::{EntryNames, description};
use super::origin::{NewSource, changes_source, new_source};
use super::place::ImportedPlace;
use super::remark::ImportRemark;
use super::sides::{KnownRoutes, SaidSides, ingress_of};
use super::verdict::{RuleVerdict, verdict};
use super::walk::Met;
use crate::forwards::{
    Destinations, GUARDED, Nets, Outbound, OutboundProtocol, Snat, internet_v6, not_internet_v4,
};
use crate::net::{Family, Interface, PortRange};
use crate::netfilter::matches::Match;
use crate::netfilter::names::Policy;
use crate::netfilter::negatable::Negatable::{self, Is, Not};
use crate::netfilter::protocol::{IcmpType, IpProtocol};
use crate::netfilter::target::Target;

/// The outbound entries that some rules say.
#[derive(Debug, Default)]
pub struct OutwardEntries {
    pub entries: Vec<Outbound>,
    pub rules: BTreeSet<(ImportedPlace, Part, usize)>,
    /// The jumps on the way to these rules, each with the rule.
    pub paths: BTreeSet<(ImportedPlace, ImportedPlace)>,
    pub remarks: Vec<(usize, ImportedPlace, ImportRemark)>,
    /// The SNAT rules of which no entry came.
    pub unsaid: Vec<(ImportedPlace, RuleFate)>,
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
    pub sides: &'a SaidSides,
}

impl<'r> Outgoing<'_, 'r> {
    /// Reads the outbound entries, in the order of their source rules.
    pub fn read(&self, names: &mut EntryNames) -> OutwardEntries {
        let mut found = OutwardEntries::default();
        for (at, met) in self.postrouting.iter().enumerate() {
            if self.taken.contains(&met.place)
                || met.conditions.for_replies
                || met.conditions.redirected == Some(true)
                || met.program.is_some()
            {
                continue;
            }
            let Some(source) = new_source(met).filter(|one| one.snat != Snat::Client) else {
                continue;
            };
            if let Err(fate) = self.read_source(at, met, source, names, &mut found) {
                found.unsaid.push((met.place.clone(), fate));
            }
        }
        found
    }

    /// Reads one SNAT or MASQUERADE rule, and the accepts of its connections.
    fn read_source(
        &self,
        at: usize,
        met: &Met<'r>,
        source: NewSource,
        names: &mut EntryNames,
        found: &mut OutwardEntries,
    ) -> Result<(), RuleFate> {
        let conditions = &met.conditions;
        let not_said = |why: &str| RuleFate::NotSaid(why.to_owned());
        if !conditions.is_plain() {
            let words = conditions.beyond_words();
            return Err(not_said(&format!(
                "it asks for {words}, which a spec has no words for"
            )));
        }
        let out = egress(conditions).or_else(|| self.routes.default_side(self.family).cloned());
        let out =
            out.ok_or_else(|| not_said("it names no interface by which the packets leave"))?;
        let mut passings = Vec::new();
        for ingress in self.ingresses(&out, conditions) {
            passings.push(self.passing(&out, conditions, ingress));
        }
        let before = found.entries.len();
        for accept in merged(passings.iter().flat_map(|one| &one.accepts)) {
            self.add(at, met, source, &out, &accept, names, found)?;
        }
        if found.entries.len() > before {
            return Ok(());
        }
        Err(if passings.iter().any(|one| one.has_unsaid) {
            not_said(
                "the rules that accept its connections have conditions that a spec has no words for",
            )
        } else if passings.is_empty() && self.accepts_some(&out) {
            let nets = conditions.source.iter().find_map(|net| net.wanted());
            let nets = nets.map_or("the sources are".to_owned(), |net| format!("{net} is"));
            not_said(&format!(
                "no rule names the interface behind which {nets}; `nvactl import live` knows it by the routes"
            ))
        } else if passings.iter().all(|one| one.accepts.is_empty()) {
            RuleFate::LeftAlone(
                "FORWARD accepts no connection whose source it rewrites, but for those of forwards"
                    .to_owned(),
            )
        } else {
            not_said("no rule names the networks that the connections come from")
        })
    }

    /// Returns whether FORWARD accepts connections that leave by an interface.
    fn accepts_some(&self, out: &Interface) -> bool {
        let mut accepts = self.forward.iter().filter(|met| {
            met.rule.target == Some(Target::Accept)
                && met.conditions.leave_by(out)
                && !met.conditions.for_replies
                && met.conditions.redirected != Some(true)
                && !self.taken.contains(&met.place)
        });
        self.policy == Policy::Accept || accepts.next().is_some()
    }

    /// Adds the entry of one source rule and one accept.
    #[expect(clippy::too_many_arguments, reason = "each is one part of the entry")]
    fn add(
        &self,
        at: usize,
        met: &Met<'r>,
        source: NewSource,
        out: &Interface,
        accept: &Accept<'_>,
        names: &mut EntryNames,
        found: &mut OutwardEntries,
    ) -> Result<(), RuleFate> {
        let conditions = &met.conditions;
        let sources = accept.sources.common(&conditions.sources(self.family));
        let Some(allow_from) = self.networks(&sources, &accept.ingress[0]) else {
            return Ok(());
        };
        let Some((protocols, ports)) = accept.protocols(conditions) else {
            return Ok(());
        };
        let to = accept.destinations(self.family, conditions)?;
        let Some(to) = to else {
            return Ok(());
        };
        let number = found.entries.len();
        let mut remark = |remark| found.remarks.push((number, met.place.clone(), remark));
        if to.allow.internet || to.allow.nets.are_all() || to.is_of_negations {
            remark(ImportRemark::PrivateNetworks);
        }
        if source.chooses_ports {
            remark(ImportRemark::SourcePorts);
        }
        if accept.place.is_some() && !accept.sources.without(&sources).is_empty() {
            remark(ImportRemark::MoreSources);
        }
        for by in self.keep_source(at, met, out, &sources) {
            remark(ImportRemark::KeptSource(by));
        }
        let comment = accept.comment().or(conditions.comment);
        let refused = accept.refused.iter().copied().chain(to.deny);
        found.entries.push(Outbound {
            name: names.of_entry(comment),
            description: description(comment),
            family: self.family,
            ingress: accept.ingress.clone(),
            egress: out.clone(),
            allow_from,
            allow_to: to.allow,
            deny_from: Nets::default(),
            deny_to: Nets::new(refused.collect()),
            protocols,
            ports,
            snat: source.snat,
            limits: None,
            log: None,
        });
        let refusing = accept.refusing.iter().map(|met| (*met, Part::Refuse));
        let accepting = accept.place.iter().map(|met| (*met, Part::Accept));
        for (met, part) in refusing.chain(accepting).chain([(met, Part::Source)]) {
            found.rules.insert((met.place.clone(), part, number));
            let jumps = met.via.iter().cloned();
            found
                .paths
                .extend(jumps.map(|jump| (jump, met.place.clone())));
        }
        Ok(())
    }

    /// Returns the rules before a source rule that keep the source of some of its connections.
    fn keep_source(
        &self,
        at: usize,
        met: &Met<'r>,
        out: &Interface,
        sources: &Addresses,
    ) -> Vec<ImportedPlace> {
        let private = not_internet_v4();
        let meets = |conditions: &RuleConditions<'_>| {
            let has_public = conditions.destination.is_empty()
                || conditions.destination.iter().any(|net| match net {
                    Is(net) => net.addr().is_ipv6() || private.holding(*net).is_none(),
                    Not(_) => true,
                });
            conditions.leave_by(out)
                && !conditions.for_replies
                && conditions.redirected != Some(true)
                && has_public
                && !conditions.sources(self.family).common(sources).is_empty()
        };
        let earlier = self.postrouting[..at].iter();
        let earlier = earlier.filter(|one| {
            let keeps = new_source(one).is_some_and(|one| one.snat == Snat::Client);
            let is_unsaid =
                changes_source(one) || new_source(one).is_some() && !one.conditions.is_plain();
            (keeps || is_unsaid) && !self.taken.contains(&one.place)
        });
        let earlier = earlier.map(|one| (&one.place, &one.conditions));
        let gone = met.conditions.exceptions.iter();
        let gone = gone.map(|(place, conditions)| (place, conditions));
        let all = earlier
            .chain(gone)
            .filter(|(_, conditions)| meets(conditions));
        all.map(|(place, _)| place.clone()).collect()
    }

    /// Returns the networks of an entry: those that rules name, or those behind its ingress.
    fn networks(&self, sources: &Addresses, ingress: &Interface) -> Option<Nets> {
        if !sources.are_all() {
            return (!sources.is_empty()).then(|| Nets::new(sources.nets()));
        }
        let behind: Vec<IpNet> = self.routes.behind(ingress, self.family).collect();
        (!behind.is_empty()).then(|| Nets::new(behind))
    }

    /// Returns the interfaces by which the connections of a source rule may come in.
    fn ingresses(&self, out: &Interface, source: &RuleConditions<'_>) -> Vec<Interface> {
        let nets = source.source.iter().filter_map(|net| net.wanted());
        let sides: Vec<Option<&Interface>> = nets
            .map(|net| {
                let address = net.addr();
                self.routes
                    .side(address)
                    .or_else(|| self.sides.side(address))
            })
            .collect();
        if let Some(sides) = sides.into_iter().collect::<Option<BTreeSet<_>>>()
            && !sides.is_empty()
        {
            return sides.into_iter().cloned().collect();
        }
        let named = self.forward.iter().filter(|met| {
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
        let mut all = self.forward.iter().chain(self.postrouting);
        all.all(|met| {
            let named = [ingress_of(&met.conditions), egress(&met.conditions)];
            named.iter().flatten().all(|one| one == out)
        })
    }

    /// Follows the FORWARD chain for packets from one interface to another, with the sources of a rule.
    fn passing<'s>(
        &'s self,
        out: &Interface,
        source: &RuleConditions<'_>,
        ingress: Interface,
    ) -> Passing<'s, 'r> {
        let mut passing = Passing::default();
        let its_own = source.sources(self.family);
        let mut left = its_own.clone();
        let mut refused = Vec::new();
        let mut refusing = Vec::new();
        for met in self.forward {
            let conditions = &met.conditions;
            let is_outward = conditions.leave_by(out)
                && conditions.arrive_on(&ingress)
                && conditions.redirected != Some(true)
                && !conditions.for_replies
                && !conditions.to_machine
                && !self.taken.contains(&met.place)
                && (egress(conditions).is_some()
                    || !is_to_sources(conditions, source, self.family));
            let mut from = conditions.sources(self.family);
            if !is_outward || left.common(&from).is_empty() {
                continue;
            }
            for (_, gone) in &conditions.exceptions {
                if !gone.leave_by(out) || !gone.arrive_on(&ingress) || gone.for_replies {
                    continue;
                }
                let is_by_source = gone.is_plain()
                    && gone.exceptions.is_empty()
                    && gone.protocol.is_none()
                    && gone.destination.is_empty();
                if is_by_source {
                    from = from.without(&gone.sources(self.family));
                } else if !from.common(&gone.sources(self.family)).is_empty() {
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
                    passing.accepts.push(Accept {
                        place: is_for_outward(met, out).then_some(met),
                        conditions: conditions.clone(),
                        sources: if from == left {
                            conditions.sources(self.family)
                        } else {
                            from.clone()
                        },
                        ingress: vec![ingress.clone()],
                        refused: refused.clone(),
                        refusing: refusing.clone(),
                    });
                    if is_for_all {
                        left = left.without(&from);
                    }
                }
                _ if verdict(met.rule) == RuleVerdict::Refuse => {
                    if !conditions.is_plain() || conditions.protocol.is_some() {
                        passing.has_unsaid |= is_for_outward(met, out);
                    } else if is_for_all {
                        left = left.without(&from);
                    } else if let [Is(net)] = conditions.destination.as_slice()
                        && from == left
                    {
                        refused.push(*net);
                        if is_for_outward(met, out) {
                            refusing.push(met);
                        }
                    } else {
                        passing.has_unsaid = true;
                    }
                }
                _ => {}
            }
        }
        if self.policy == Policy::Accept && !left.is_empty() {
            passing.accepts.push(Accept {
                place: None,
                conditions: RuleConditions::default(),
                sources: left,
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

#[derive(Default)]
struct Passing<'s, 'r> {
    accepts: Vec<Accept<'s, 'r>>,
    has_unsaid: bool,
}

/// A rule that accepts outbound connections.
#[derive(Clone)]
struct Accept<'s, 'r> {
    /// `None` for the policy, and for a rule that is not for these connections alone.
    place: Option<&'s Met<'r>>,
    conditions: RuleConditions<'r>,
    sources: Addresses,
    /// At least one.
    ingress: Vec<Interface>,
    refused: Vec<IpNet>,
    refusing: Vec<&'s Met<'r>>,
}

/// Brings together what one rule accepts from several interfaces.
fn merged<'a, 's: 'a, 'r: 'a>(
    accepts: impl Iterator<Item = &'a Accept<'s, 'r>>,
) -> Vec<Accept<'s, 'r>> {
    let mut merged: Vec<Accept<'s, 'r>> = Vec::new();
    for accept in accepts {
        let place = |one: &Accept<'_, '_>| one.place.map(|met| met.place.clone());
        let same = merged.iter_mut().find(|other| {
            place(other) == place(accept)
                && other.sources == accept.sources
                && other.refused == accept.refused
                && other.conditions == accept.conditions
        });
        match same {
            Some(other) => other.ingress.extend(accept.ingress.iter().cloned()),
            None => merged.push(accept.clone()),
        }
    }
    merged
}

/// The destinations of an entry.
struct EntryDestinations {
    allow: Destinations,
    deny: Vec<IpNet>,
    /// Whether the rules name only destinations that they leave out.
    is_of_negations: bool,
}

impl Accept<'_, '_> {
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
            Some(Not(_)) => None,
        };
        let (own, other) = (of(&self.conditions)?, of(source)?);
        let both: Vec<_> = own.into_iter().filter(|one| other.contains(one)).collect();
        let ports = match (&self.conditions.ports, &source.ports) {
            (Some(own), Some(other)) => {
                let own = own.iter();
                let shared = own.flat_map(|one| other.iter().filter_map(|two| one.shared(*two)));
                let shared: Vec<PortRange> = shared.collect();
                if shared.is_empty() {
                    return None;
                }
                shared
            }
            (own, other) => own.clone().or_else(|| other.clone()).unwrap_or_default(),
        };
        (!both.is_empty()).then_some((both, ports))
    }

    /// Returns the destinations that this rule and the source rule both take; `None` if there are none.
    fn destinations(
        &self,
        family: Family,
        source: &RuleConditions<'_>,
    ) -> Result<Option<EntryDestinations>, RuleFate> {
        let (own, other) = (&self.conditions.destination, &source.destination);
        let is_public = |net: &IpNet| match net {
            IpNet::V4(_) => not_internet_v4().holding(*net).is_none(),
            IpNet::V6(_) => internet_v6().contains(&net.addr()),
        };
        let negated = |nets: &[Negatable<IpNet>]| -> Option<Vec<IpNet>> {
            let each = nets.iter().map(|net| match net {
                Not(net) => Some(*net),
                Is(_) => None,
            });
            each.collect()
        };
        if let (Some(own), Some(other)) = (negated(own), negated(other)) {
            if let Some(net) = other.iter().copied().find(is_public) {
                return Err(RuleFate::NotSaid(format!(
                    "it leaves out {net}, to which the rules accept connections with the source as it is"
                )));
            }
            return Ok(Some(EntryDestinations {
                allow: Destinations::new(family, true, Nets::default(), &[]),
                is_of_negations: !own.is_empty() || !other.is_empty(),
                deny: own.into_iter().filter(is_public).collect(),
            }));
        }
        let all = self.conditions.destinations(family);
        let all = all.common(&source.destinations(family));
        if all.is_empty() {
            return Ok(None);
        }
        let nets = all.nets();
        let exact = GUARDED
            .into_iter()
            .filter(|one| nets.contains(&IpNet::from(*one)));
        let exact: Vec<_> = exact.collect();
        Ok(Some(EntryDestinations {
            allow: Destinations::new(family, false, Nets::new(nets), &exact),
            deny: Vec::new(),
            is_of_negations: false,
        }))
    }
}

/// Returns whether a condition asks for pings.
fn is_ping(condition: &Match) -> bool {
    let request = |kind: &IcmpType| matches!(kind, IcmpType::Type(8 | 128));
    matches!(condition, Match::Icmp(Is(kind)) | Match::Icmp6(Is(kind)) if request(kind))
}
