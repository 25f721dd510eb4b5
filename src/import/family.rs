//! The rules of one family.

use std::collections::{BTreeMap, BTreeSet};

use super::account::{Account, Part, Remarked, RuleFate};
use super::admission::{Admission, admission};
use super::names::{EntryNames, description};
use super::origin::{Origin, origin};
use super::outward::Outgoing;
use super::place::ImportedPlace;
use super::redirect::{Redirect, redirect};
use super::redirected::Redirected;
use super::remark::ImportRemark;
use super::rest;
use super::shares::joined;
use super::sides::{KnownRoutes, entrance, is_dnat};
use super::walk::{Met, walk};
use crate::forwards::{Balance, Forward, ForwardTarget, Name, Outbound, TargetKind, TargetPorts};
use crate::net::{Family, Interface, PortRange, Protocol};
use crate::netfilter::names::{ChainName, Policy, TableName};
use crate::netfilter::ruleset::Ruleset;

/// The entries that the rules of one family became.
#[derive(Debug)]
pub struct OfFamily {
    pub forwards: Vec<Forward>,
    pub outbound: Vec<Outbound>,
    pub accounts: Vec<Account>,
    pub remarks: Vec<Remarked>,
    /// Whether no rule or route names the interface by which clients come in.
    pub is_entrance_assumed: bool,
}

/// The rules and entries of one family so far.
struct FamilyReading<'r> {
    family: Family,
    routes: &'r KnownRoutes,
    entrance: Interface,
    forward: Vec<Met<'r>>,
    postrouting: Vec<Met<'r>>,
    policy: Policy,
    forwards: Vec<Forward>,
    taken: BTreeMap<ImportedPlace, (BTreeSet<Part>, Vec<Name>)>,
    fates: BTreeMap<ImportedPlace, RuleFate>,
    /// The rules that give forwards their source, and other connections too.
    shared: BTreeSet<ImportedPlace>,
    remarks: Vec<Remarked>,
}

/// Reads the rules of one family.
pub fn read(
    family: Family,
    rules: &Ruleset,
    routes: &KnownRoutes,
    names: &mut EntryNames,
) -> OfFamily {
    let (entrance, is_known) = entrance(family, rules, routes);
    let prerouting = walk(family, rules, TableName::Nat, &ChainName::Prerouting);
    let forward = walk(family, rules, TableName::Filter, &ChainName::Forward);
    let postrouting = walk(family, rules, TableName::Nat, &ChainName::Postrouting);
    let mut fates = BTreeMap::new();
    for left in [&prerouting.left, &forward.left, &postrouting.left] {
        fates.extend(left.clone());
    }
    let mut reading = FamilyReading {
        family,
        routes,
        entrance,
        forward: forward.rules,
        postrouting: postrouting.rules,
        policy: rules.forward_policy(),
        forwards: Vec::new(),
        taken: BTreeMap::new(),
        fates,
        shared: BTreeSet::new(),
        remarks: Vec::new(),
    };
    let mut redirects = Vec::new();
    for met in prerouting.rules.iter().filter(|met| is_dnat(met.rule)) {
        match redirect(met, family) {
            Ok(one) => redirects.push(one),
            Err(why) => {
                reading
                    .fates
                    .insert(met.place.clone(), RuleFate::NotSaid(why));
            }
        }
    }
    for one in joined(redirects) {
        reading.add(&one, names);
    }
    let outbound = reading.outbound(names);
    let has_entries = !reading.forwards.is_empty() || !outbound.is_empty();
    let is_entrance_assumed = has_entries && !is_known;
    for (place, (parts, entries)) in std::mem::take(&mut reading.taken) {
        let part = parts.into_iter().next().unwrap_or(Part::Accept);
        reading
            .fates
            .insert(place, RuleFate::Taken { part, entries });
    }
    OfFamily {
        accounts: rest::accounts(family, rules, reading.fates),
        forwards: reading.forwards,
        outbound,
        remarks: reading.remarks,
        is_entrance_assumed,
    }
}

impl FamilyReading<'_> {
    /// Adds the forwards of a redirection, or says why there are none.
    fn add(&mut self, one: &Redirect<'_>, names: &mut EntryNames) {
        if let Some(fate) = self.taken_before(one) {
            self.fate_of_all(one, &fate);
            return;
        }
        let ingress = if one.ingress.is_empty() {
            vec![self.entrance.clone()]
        } else {
            one.ingress.clone()
        };
        let mut ways = Vec::new();
        for protocol in &one.protocols {
            match self.way(one, *protocol, &ingress) {
                Ok(way) => ways.push((*protocol, way)),
                Err(fate) if one.protocols.len() == 1 => {
                    self.fate_of_all(one, &fate);
                    return;
                }
                Err(_) => {}
            }
        }
        let Some((_, first)) = ways.first() else {
            let fate =
                RuleFate::LeftAlone("FORWARD drops every connection that it redirects".to_owned());
            self.fate_of_all(one, &fate);
            return;
        };
        let is_equal = |way: &AdmittedWay| {
            way.admission.sources == first.admission.sources && way.origin.snat == first.origin.snat
        };
        if !ways.iter().all(|(_, way)| is_equal(way)) {
            let fate = RuleFate::NotSaid(
                "the rules treat its TCP and UDP connections differently".to_owned(),
            );
            self.fate_of_all(one, &fate);
            return;
        }
        let protocols: Vec<Protocol> = ways.iter().map(|(protocol, _)| *protocol).collect();
        let name = names.of_forward(one.comment, &protocols, &one.listens[0]);
        self.keep(one, &ways, &name);
        let (_, first) = ways.swap_remove(0);
        if one.ingress.is_empty() {
            self.remark(
                &name,
                &one.places[0],
                ImportRemark::EveryInterface(self.entrance.clone()),
            );
        }
        let listens = one.listens.iter();
        let forwards = protocols.iter().flat_map(|protocol| {
            let way = &first;
            let (name, ingress) = (&name, &ingress);
            listens.clone().map(move |listen| Forward {
                name: name.clone(),
                description: description(one.comment),
                listen: *listen,
                protocol: *protocol,
                target: target(one),
                ingress: ingress.clone(),
                egress: way.egress.clone(),
                snat: way.origin.snat,
                sources: way.admission.sources.clone(),
                limits: way.admission.limits,
                log: way.admission.log.clone(),
                hairpin: way.origin.hairpin,
            })
        });
        let forwards: Vec<Forward> = forwards.collect();
        self.forwards.extend(forwards);
    }

    /// Returns why an earlier redirection takes the packets of this one; `None` if none does.
    fn taken_before(&self, one: &Redirect<'_>) -> Option<RuleFate> {
        let is_taken = |forward: &&Forward| {
            let is_there = one.listens.iter().any(|listen| {
                let same =
                    forward.listen.address.is_none() || forward.listen.address == listen.address;
                same && forward.listen.ports.overlaps(listen.ports)
            });
            is_there && one.protocols.contains(&forward.protocol)
        };
        let before = self.forwards.iter().find(is_taken)?;
        let shares_interface = one.ingress.is_empty()
            || one
                .ingress
                .iter()
                .any(|ingress| before.ingress.contains(ingress));
        Some(if !shares_interface {
            RuleFate::NotSaid(format!(
                "`{}` has this port by another interface; two forwards cannot share a port",
                before.name
            ))
        } else if before.sources.allow.is_none() && before.sources.deny.is_empty() {
            RuleFate::NotNeeded(format!(
                "the rules of `{}` take its packets first",
                before.name
            ))
        } else {
            RuleFate::NotSaid(format!(
                "`{}` has this port for other clients; one listener has one target for all its clients",
                before.name
            ))
        })
    }

    /// Follows the connections of a redirection by one protocol to all its targets.
    fn way(
        &self,
        one: &Redirect<'_>,
        protocol: Protocol,
        ingress: &[Interface],
    ) -> Result<AdmittedWay, RuleFate> {
        let listen_ports: Vec<PortRange> = one.listens.iter().map(|listen| listen.ports).collect();
        let mut found: Option<AdmittedWay> = None;
        for to in &one.destinations {
            let target_ports = match to.ports {
                TargetPorts::Kept => listen_ports.clone(),
                TargetPorts::Range(ports) => vec![ports],
            };
            let redirected = Redirected {
                family: self.family,
                protocol,
                listen_address: one.listens[0].address,
                listen_ports: &listen_ports,
                target: to.address,
                target_ports: &target_ports,
                ingress,
                egress: None,
                sources: &one.sources,
            };
            let way = self.way_to(redirected)?;
            match &mut found {
                None => found = Some(way),
                Some(first) => first.join(way)?,
            }
        }
        found.ok_or_else(|| RuleFate::NotSaid("it has no target".to_owned()))
    }

    fn way_to(&self, mut redirected: Redirected<'_>) -> Result<AdmittedWay, RuleFate> {
        let by_route = self.routes.side(redirected.target).cloned();
        let egress = by_route.unwrap_or_else(|| {
            let by_accept = admission(&redirected, &self.forward, self.policy).egress;
            let by_source = || origin(&redirected, &self.postrouting).egress;
            by_accept
                .or_else(by_source)
                .unwrap_or_else(|| self.entrance.clone())
        });
        redirected.egress = Some(egress.clone());
        let admission = admission(&redirected, &self.forward, self.policy);
        let origin = origin(&redirected, &self.postrouting);
        let unsaid = admission.unsaid.first().or(origin.unsaid.first());
        if !admission.admits {
            return Err(match unsaid {
                Some((place, words)) => RuleFate::NotSaid(format!(
                    "what accepts its connections ({place}) asks for {words}, which a spec has no words for"
                )),
                None => RuleFate::LeftAlone(
                    "FORWARD drops every connection that it redirects".to_owned(),
                ),
            });
        }
        if let Some((place, words)) = origin.unsaid.first() {
            return Err(RuleFate::NotSaid(format!(
                "what rewrites the source of its connections ({place}) has {words}, which a spec has no words for"
            )));
        }
        Ok(AdmittedWay {
            admission,
            origin,
            egress,
        })
    }

    /// Keeps the rules and remarks of a forward.
    fn keep(&mut self, one: &Redirect<'_>, ways: &[(Protocol, AdmittedWay)], name: &Name) {
        let mut rules: BTreeSet<(ImportedPlace, Part)> = BTreeSet::new();
        rules.extend(
            one.places
                .iter()
                .map(|place| (place.clone(), Part::Redirect)),
        );
        let mut remarks = one.remarks.clone();
        for (_, way) in ways {
            rules.extend(way.admission.rules.iter().cloned());
            rules.extend(way.origin.rules.iter().cloned());
            remarks.extend(way.admission.remarks.iter().cloned());
            remarks.extend(way.origin.remarks.iter().cloned());
            self.shared.extend(way.origin.shared.clone());
            for (place, words) in way.admission.unsaid.iter().chain(&way.origin.unsaid) {
                let fate = RuleFate::NotSaid(format!(
                    "it asks for {words}, which a spec has no words for"
                ));
                self.fates.insert(place.clone(), fate);
            }
        }
        for (place, part) in rules {
            let (parts, entries) = self.taken.entry(place).or_default();
            parts.insert(part);
            if !entries.contains(name) {
                entries.push(name.clone());
            }
        }
        for (place, remark) in remarks {
            self.remark(name, &place, remark);
        }
    }

    fn remark(&mut self, entry: &Name, place: &ImportedPlace, remark: ImportRemark) {
        self.remarks.push(Remarked {
            entry: entry.clone(),
            place: place.clone(),
            remark,
        });
    }

    fn fate_of_all(&mut self, one: &Redirect<'_>, fate: &RuleFate) {
        for place in &one.places {
            self.fates.insert(place.clone(), fate.clone());
        }
    }

    fn outbound(&mut self, names: &mut EntryNames) -> Vec<Outbound> {
        let taken: BTreeSet<ImportedPlace> = self.taken.keys().cloned().collect();
        let entrances: BTreeSet<&Interface> =
            self.forwards.iter().flat_map(|one| &one.ingress).collect();
        let entrances: Vec<Interface> = entrances
            .into_iter()
            .chain([&self.entrance])
            .cloned()
            .collect();
        let outgoing = Outgoing {
            family: self.family,
            forward: &self.forward,
            postrouting: &self.postrouting,
            policy: self.policy,
            taken: &taken,
            entrances: &entrances,
            routes: self.routes,
        };
        let found = outgoing.read(names);
        for (place, why) in found.unsaid {
            let fate = if self.shared.contains(&place) {
                RuleFate::LeftAlone(
                    "it rewrites the source of more than the forwards' connections".to_owned(),
                )
            } else {
                RuleFate::NotSaid(why)
            };
            self.fates.entry(place).or_insert(fate);
        }
        for (place, part, number) in found.rules {
            let name = found.entries[number].name.clone();
            let (parts, entries) = self.taken.entry(place).or_default();
            parts.insert(part);
            entries.push(name);
        }
        for (number, place, remark) in found.remarks {
            let name = found.entries[number].name.clone();
            self.remark(&name, &place, remark);
        }
        found.entries
    }
}

/// What the rules do with the connections of a redirection by one protocol.
#[derive(Debug)]
struct AdmittedWay {
    admission: Admission,
    origin: Origin,
    egress: Interface,
}

impl AdmittedWay {
    /// Adds what the rules do with connections to another target of the same listener.
    fn join(&mut self, other: Self) -> Result<(), RuleFate> {
        let same = self.admission.sources == other.admission.sources
            && self.origin.snat == other.origin.snat
            && self.egress == other.egress;
        if !same {
            return Err(RuleFate::NotSaid(
                "the rules treat its targets differently".to_owned(),
            ));
        }
        self.admission.rules.extend(other.admission.rules);
        self.admission.remarks.extend(other.admission.remarks);
        self.origin.rules.extend(other.origin.rules);
        self.origin.remarks.extend(other.origin.remarks);
        self.origin.hairpin |= other.origin.hairpin;
        Ok(())
    }
}

/// Returns the target of a forward. No rule says whether an address is a load balancer's: one without a port counts as
/// one.
fn target(one: &Redirect<'_>) -> ForwardTarget {
    let is_kept = one
        .destinations
        .iter()
        .all(|to| to.ports == TargetPorts::Kept);
    ForwardTarget {
        kind: if is_kept && one.destinations.len() == 1 {
            TargetKind::Ilb
        } else {
            TargetKind::Pod
        },
        destinations: one.destinations.clone(),
        balance: if one.by_client {
            Balance::Client
        } else {
            Balance::Random
        },
    }
}
