//! The rules of one family.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::account::{Account, Part, Remarked, RuleFate};
use super::before::{TakenBefore, taken_before};
use super::earlier::Earlier;
use super::lookup::Lookup;
use super::met_rules::MetRules;
use super::names::EntryNames;
use super::outward::Outgoing;
use super::place::ImportedPlace;
use super::redirect::{Redirect, redirect};
use super::remark::ImportRemark;
use super::rest::{self, Settled};
use super::shares::joined;
use super::sides::{KnownRoutes, SaidSides, entrance, is_dnat};
use super::treated::{Treated, alike};
use super::treatment::{TargetSide, Treatment};
use super::walk::{Met, Walk, walk};
use ipnet::IpNet;

use crate::forwards::{Forward, Name, Outbound};
use crate::net::{Family, Interface};
use crate::netfilter::names::{ChainName, Policy, TableName};
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::Target;

/// The entries that the rules of one family became.
#[derive(Debug)]
pub struct OfFamily {
    pub forwards: Vec<Forward>,
    pub outbound: Vec<Outbound>,
    pub accounts: Vec<Account>,
    pub remarks: Vec<Remarked>,
    /// Whether no rule or route names the interface by which clients come in.
    pub is_entrance_assumed: bool,
    /// The targets whose interface no rule or route names.
    pub assumed_targets: BTreeMap<IpAddr, Interface>,
}

/// The rules and entries of one family so far.
struct FamilyReading<'r> {
    family: Family,
    treatment: Treatment<'r>,
    routes: &'r KnownRoutes,
    sides: SaidSides,
    entrance: Interface,
    /// The redirections before, whatever became of them.
    earlier: Vec<Earlier>,
    /// Those by their listeners.
    earlier_lookup: Lookup,
    forwards: Vec<Forward>,
    taken: BTreeMap<ImportedPlace, (BTreeSet<Part>, Vec<Name>)>,
    paths: BTreeSet<(ImportedPlace, ImportedPlace)>,
    fates: BTreeMap<ImportedPlace, RuleFate>,
    /// The rules that give forwards their source, and other connections too.
    shared: BTreeSet<ImportedPlace>,
    /// The targets of redirections that cannot be said.
    unsaid_targets: BTreeSet<IpAddr>,
    remarks: Vec<Remarked>,
    assumed_targets: BTreeMap<IpAddr, Interface>,
}

/// Reads the rules of one family.
pub fn read(
    family: Family,
    rules: &Ruleset,
    routes: &KnownRoutes,
    names: &mut EntryNames,
) -> OfFamily {
    let prerouting = walk(family, rules, TableName::Nat, &ChainName::Prerouting);
    let forward = walk(family, rules, TableName::Filter, &ChainName::Forward);
    let postrouting = walk(family, rules, TableName::Nat, &ChainName::Postrouting);
    let mut fates = BTreeMap::new();
    let walks = [&prerouting, &forward, &postrouting];
    for walk in walks {
        fates.extend(walk.left.clone());
    }
    if let Some(why) = walks.iter().find_map(|walk| walk.why_unknown()) {
        return unknown(family, rules, fates, &walks, &why);
    }
    let sides = SaidSides::of(&[&prerouting.rules, &forward.rules, &postrouting.rules]);
    let targets = targets(&prerouting.rules, routes, &sides);
    let (entrance, is_known) = entrance(family, rules, &prerouting.rules, routes, &targets);
    let mut reading = FamilyReading {
        family,
        treatment: Treatment {
            family,
            forward: MetRules::new(&forward.rules),
            postrouting: MetRules::new(&postrouting.rules),
            policy: rules.forward_policy(),
        },
        routes,
        sides,
        entrance,
        earlier: Vec::new(),
        earlier_lookup: Lookup::default(),
        forwards: Vec::new(),
        taken: BTreeMap::new(),
        paths: BTreeSet::new(),
        fates,
        shared: BTreeSet::new(),
        unsaid_targets: BTreeSet::new(),
        remarks: Vec::new(),
        assumed_targets: BTreeMap::new(),
    };
    for one in joined(reading.redirects(&prerouting.rules)) {
        reading.add(one, names);
    }
    let outbound = reading.outbound(names);
    let has_entries = !reading.forwards.is_empty() || !outbound.is_empty();
    let is_entrance_assumed = has_entries && !is_known;
    reading.keep_refusals();
    for (place, (parts, entries)) in std::mem::take(&mut reading.taken) {
        let part = parts.into_iter().next().unwrap_or(Part::Accept);
        reading
            .fates
            .insert(place, RuleFate::Taken { part, entries });
    }
    let settled = Settled {
        fates: reading.fates,
        paths: reading.paths,
        forward: &forward.rules,
        unsaid_targets: &reading.unsaid_targets,
    };
    OfFamily {
        accounts: rest::accounts(family, rules, settled),
        forwards: reading.forwards,
        outbound,
        remarks: reading.remarks,
        is_entrance_assumed,
        assumed_targets: reading.assumed_targets,
    }
}

/// Returns no entries, for rules that are not known to their end.
fn unknown(
    family: Family,
    rules: &Ruleset,
    mut fates: BTreeMap<ImportedPlace, RuleFate>,
    walks: &[&Walk<'_>],
    why: &str,
) -> OfFamily {
    let met = walks.iter().flat_map(|walk| &walk.rules);
    for met in met.filter(|met| met.program.is_none()) {
        let fate = RuleFate::NotSaid(why.to_owned());
        fates.entry(met.place.clone()).or_insert(fate);
    }
    let settled = Settled {
        fates,
        paths: BTreeSet::new(),
        forward: &walks[1].rules,
        unsaid_targets: &BTreeSet::new(),
    };
    OfFamily {
        forwards: Vec::new(),
        outbound: Vec::new(),
        accounts: rest::accounts(family, rules, settled),
        remarks: Vec::new(),
        is_entrance_assumed: false,
        assumed_targets: BTreeMap::new(),
    }
}

/// Returns the interfaces behind which the targets of redirections are, as far as rules or routes say it.
fn targets(prerouting: &[Met<'_>], routes: &KnownRoutes, sides: &SaidSides) -> BTreeSet<Interface> {
    let targets = prerouting.iter().filter_map(|met| match met.rule.target {
        Some(Target::Dnat { address, .. }) => Some(address),
        _ => None,
    });
    let interfaces = targets.filter_map(|to| routes.side(to).or_else(|| sides.side(to)));
    interfaces.cloned().collect()
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

impl<'r> FamilyReading<'r> {
    /// Reads the DNAT rules, each without the packets that rules before it take.
    fn redirects(&mut self, prerouting: &[Met<'r>]) -> Vec<Redirect<'r>> {
        let mut redirects = Vec::new();
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
                Ok(one) => redirects.push(one),
                Err(fate) => {
                    self.fates.insert(met.place.clone(), fate);
                    if let Some(Target::Dnat { address, .. }) = met.rule.target {
                        self.unsaid_targets.insert(address);
                    }
                    stops.push(met);
                }
            }
        }
        redirects
    }

    /// Takes the packets out of a redirection that leave its way before.
    fn without_earlier(
        &self,
        mut one: Redirect<'r>,
        met: &Met<'r>,
        stops: &Stops<'_, 'r>,
    ) -> Result<Redirect<'r>, RuleFate> {
        let ingress = self.ingress(&one);
        let gone = met.conditions.exceptions.iter();
        let gone = gone.map(|(who, earlier)| (who, earlier, None, true));
        let stopped = stops.before(&one).into_iter().map(|stop| {
            let leads_nowhere = stop.rule.target == Some(Target::Accept);
            (&stop.place, &stop.conditions, stop.program, leads_nowhere)
        });
        for (who, earlier, program, leads_nowhere) in stopped.chain(gone) {
            match taken_before(&one, &ingress, earlier, self.family) {
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

    fn ingress(&self, one: &Redirect<'_>) -> Vec<Interface> {
        if one.ingress.is_empty() {
            vec![self.entrance.clone()]
        } else {
            one.ingress.clone()
        }
    }

    /// Adds the forwards of a redirection, or says why there are none.
    fn add(&mut self, mut one: Redirect<'_>, names: &mut EntryNames) {
        let mut name = None;
        let whole = one.clone();
        match self.without_taken(&mut one) {
            Ok(()) => match self.forwards_of(&one, names) {
                Ok(first) => name = Some(first),
                Err(fate) => self.fate_of_all(&one, &fate),
            },
            Err(fate) => self.fate_of_all(&one, &fate),
        }
        let address = whole.listens[0].address.map(IpNet::from);
        let ports = Some(whole.listen_ports());
        self.earlier_lookup
            .add(self.earlier.len(), address, ports.as_deref());
        self.earlier.push(Earlier {
            name,
            ingress: self.ingress(&whole),
            places: whole.places,
            listens: whole.listens,
            protocols: whole.protocols,
            sources: whole.sources,
        });
    }

    /// Takes the packets out of a redirection that earlier ones have.
    fn without_taken(&mut self, one: &mut Redirect<'_>) -> Result<(), RuleFate> {
        let ingress = self.ingress(one);
        let numbers = self
            .earlier_lookup
            .find(one.listens[0].address, &one.listen_ports());
        let mut earlier = numbers.into_iter().map(|number| &self.earlier[number]);
        let Some(held) = earlier.find_map(|before| before.take_from(one, &ingress).err()) else {
            return Ok(());
        };
        if let Some(name) = held.others_of {
            let place = one.places[0].clone();
            let remark = ImportRemark::OthersReachedTarget(place.clone());
            self.remark(&name, &place, remark);
        }
        Err(held.fate)
    }

    /// Adds a forward for each part of a redirection that the rules treat alike. Returns the name of the first one.
    fn forwards_of(
        &mut self,
        one: &Redirect<'_>,
        names: &mut EntryNames,
    ) -> Result<Name, RuleFate> {
        if one.share.is_some() {
            return Err(RuleFate::NotSaid(
                "it redirects a part of the connections only, by chance or by turns".to_owned(),
            ));
        }
        let ingress = self.ingress(one);
        let mut treated = Vec::new();
        let mut dropped = None;
        for protocol in &one.protocols {
            for interface in &ingress {
                let side = |target| self.side(target);
                let parts = self.treatment.parts(one, *protocol, interface, &side);
                for (part, way) in parts {
                    match way {
                        Ok(way) => treated.push((part, way)),
                        Err(fate @ RuleFate::LeftAlone(_)) => dropped = Some(fate),
                        Err(fate) => return Err(fate),
                    }
                }
            }
        }
        let mut first = None;
        for group in alike(treated, one) {
            let listens = &group.listens;
            let name = names.of_forward(one.comment, &group.protocols, &listens[0]);
            self.keep(one, &group, &name);
            let way = &group.ways[0];
            if way.is_egress_assumed {
                let targets = group.destinations.iter();
                let targets = targets.map(|to| (to.address, way.egress.clone()));
                self.assumed_targets.extend(targets);
            }
            if one.ingress.is_empty() {
                let remark = ImportRemark::EveryInterface(self.entrance.clone());
                self.remark(&name, &one.places[0], remark);
            }
            if dropped.is_some() && first.is_none() {
                self.remark(&name, &one.places[0], ImportRemark::SomePorts);
            }
            self.forwards.extend(group.forwards(one, &name));
            first.get_or_insert(name);
        }
        first.ok_or_else(|| {
            dropped.unwrap_or_else(|| RuleFate::NotSaid("it has no target".to_owned()))
        })
    }

    /// Returns the interface by which packets to a target leave, if rules that are not about it or routes say it.
    fn side(&self, target: IpAddr) -> TargetSide {
        TargetSide {
            by_route: self.routes.side(target).cloned(),
            by_others: self.sides.side(target).cloned(),
            else_by: self.entrance.clone(),
        }
    }

    /// Keeps the rules and remarks of a forward.
    fn keep(&mut self, one: &Redirect<'_>, group: &Treated, name: &Name) {
        let mut rules: BTreeSet<(ImportedPlace, Part)> = BTreeSet::new();
        rules.extend(
            one.places
                .iter()
                .map(|place| (place.clone(), Part::Redirect)),
        );
        let jumps = one.paths.iter().cloned();
        self.paths.extend(jumps);
        let mut remarks = one.remarks.clone();
        for way in &group.ways {
            rules.extend(way.admission.rules.iter().cloned());
            rules.extend(way.origin.rules.iter().cloned());
            self.paths.extend(way.admission.paths.iter().cloned());
            self.paths.extend(way.origin.paths.iter().cloned());
            remarks.extend(way.admission.remarks.iter().cloned());
            remarks.extend(way.origin.remarks.iter().cloned());
            self.shared.extend(way.origin.shared.clone());
            for (place, words) in &way.admission.unsaid {
                let fate = RuleFate::NotSaid(format!(
                    "it asks for {words}, which a spec has no words for"
                ));
                self.fates.entry(place.clone()).or_insert(fate);
            }
        }
        for (place, part) in rules {
            let (parts, entries) = self.taken.entry(place).or_default();
            parts.insert(part);
            // No entry of another name comes between.
            if entries.last() != Some(name) {
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
        if matches!(fate, RuleFate::NotSaid(_)) {
            let targets = one.destinations.iter().map(|to| to.address);
            self.unsaid_targets.extend(targets);
        }
        for place in &one.places {
            self.fates.insert(place.clone(), fate.clone());
        }
    }

    /// Leaves the refusals in place without which other packets would get through.
    fn keep_refusals(&mut self) {
        let goes = |met: &Met<'_>| self.taken.contains_key(&met.place);
        let accepts = |met: &Met<'_>| met.rule.target == Some(Target::Accept);
        let last_accept = self
            .treatment
            .forward
            .all
            .iter()
            .rposition(|met| accepts(met) && !met.conditions.for_replies && !goes(met));
        let stay: Vec<ImportedPlace> = self
            .treatment
            .forward
            .all
            .iter()
            .enumerate()
            .filter(|(at, met)| {
                let is_last = self.treatment.policy == Policy::Drop
                    && last_accept.is_none_or(|last| last < *at);
                let parts = self.taken.get(&met.place).map(|(parts, _)| parts);
                parts.is_some_and(|parts| parts.contains(&Part::Refuse))
                    && !is_last
                    && met.conditions.redirected != Some(true)
            })
            .map(|(_, met)| met.place.clone())
            .collect();
        for place in stay {
            self.taken.remove(&place);
            let why = "it also refuses connections that are not redirected";
            self.fates
                .insert(place, RuleFate::LeftAlone(why.to_owned()));
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
            forward: &self.treatment.forward,
            postrouting: self.treatment.postrouting.all,
            policy: self.treatment.policy,
            taken: &taken,
            entrances: &entrances,
            routes: self.routes,
            sides: &self.sides,
            targets: &self.unsaid_targets,
        };
        let found = outgoing.read(names);
        for (place, why) in found.unsaid {
            let fate = if self.shared.contains(&place) {
                RuleFate::LeftAlone(
                    "it rewrites the source of more than the forwards' connections".to_owned(),
                )
            } else {
                why
            };
            self.fates.entry(place).or_insert(fate);
        }
        self.paths.extend(found.paths);
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
