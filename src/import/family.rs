//! The rules of one family.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::account::{Account, Part, Remarked, RuleFate};
use super::earlier::Earlier;
use super::lookup::Lookup;
use super::met_rules::MetRules;
use super::names::EntryNames;
use super::others::{OtherRedirect, Passed};
use super::outward::Outgoing;
use super::place::ImportedPlace;
use super::prerouting::DnatReading;
use super::redirect::Redirect;
use super::remark::ImportRemark;
use super::rest::{self, Settled};
use super::shares::joined;
use super::sides::{KnownRoutes, SaidSides, entrance};
use super::taken::{RulesMet, TakenRules};
use super::treated::{Treated, alike};
use super::treatment::{RedirectedWay, TargetSide, Treatment};
use super::walk::{Met, Walk, walk};
use ipnet::IpNet;

use crate::forwards::{Forward, Name, Outbound};
use crate::net::{Family, Interface};
use crate::netfilter::names::{ChainName, TableName};
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
    taken: TakenRules,
    fates: BTreeMap<ImportedPlace, RuleFate>,
    /// The rules that give forwards their source, and other connections too.
    shared: BTreeSet<ImportedPlace>,
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
    let output = walk(family, rules, TableName::Nat, &ChainName::Output);
    let walks = [&prerouting, &forward, &postrouting];
    let mut fates = BTreeMap::new();
    for walk in walks {
        fates.extend(walk.left.clone());
    }
    let mut all = walks.into_iter().chain([&output]);
    if let Some(why) = all.find_map(Walk::why_unknown) {
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
        taken: TakenRules::default(),
        fates,
        shared: BTreeSet::new(),
        remarks: Vec::new(),
        assumed_targets: BTreeMap::new(),
    };
    let dnat = DnatReading {
        family,
        entrance: &reading.entrance,
    };
    let dnat = dnat.read(&prerouting.rules);
    reading.fates.extend(dnat.fates);
    for one in joined(dnat.redirects) {
        reading.add(one, names);
    }
    let unsaid = reading.unsaid(&prerouting.rules);
    let unsaid_targets: BTreeSet<IpAddr> = unsaid.iter().map(|one| one.target).collect();
    let outbound = reading.outbound(&unsaid_targets, names);
    let has_entries = !reading.forwards.is_empty() || !outbound.is_empty();
    let others = unsaid
        .into_iter()
        .chain(reading.others(&prerouting.rules, &output.rules));
    let met = RulesMet {
        family,
        prerouting: &prerouting.rules,
        forward: &reading.treatment.forward,
        postrouting: &reading.treatment.postrouting,
        policy: reading.treatment.policy,
        others: &others.collect::<Vec<_>>(),
    };
    let entries = outbound.iter().map(|one| &one.name).collect();
    let settled = reading.taken.settle(&met, &entries);
    reading.fates.extend(settled.fates);
    for place in reading.shared {
        let why = "it rewrites the source of more than the forwards' connections";
        let fate = RuleFate::LeftAlone(why.to_owned());
        reading.fates.entry(place).or_insert(fate);
    }
    let settled = Settled {
        fates: reading.fates,
        ways: settled.ways,
        forward: &forward.rules,
        unsaid_targets: &unsaid_targets,
    };
    let accounts = rest::accounts(family, rules, settled);
    let goes = accounts.iter();
    let goes = goes.filter(|one| matches!(one.fate, RuleFate::Taken { .. }));
    let goes: BTreeSet<&ImportedPlace> = goes.map(|one| &one.place).collect();
    let mut remarks = reading.remarks;
    remarks.retain(|one| !one.remark.is_about_a_loss() || goes.contains(&one.place));
    OfFamily {
        accounts,
        forwards: reading.forwards,
        outbound,
        remarks,
        is_entrance_assumed: has_entries && !is_known,
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
        ways: BTreeSet::new(),
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

impl FamilyReading<'_> {
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
            ingress: whole.ingress_or(&self.entrance),
            places: whole.places,
            listens: whole.listens,
            protocols: whole.protocols,
            sources: whole.sources,
        });
    }

    /// Takes the packets out of a redirection that earlier ones have.
    fn without_taken(&mut self, one: &mut Redirect<'_>) -> Result<(), RuleFate> {
        let ingress = one.ingress_or(&self.entrance);
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
        if one.keeps_some_from_ssh() {
            return Err(RuleFate::NotSaid(
                "it leaves out clients, which reach ssh of the machine itself; a forward would drop them".to_owned(),
            ));
        }
        let ingress = one.ingress_or(&self.entrance);
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
        for place in &one.places {
            self.taken.take(place, Part::Redirect, name);
        }
        self.taken.add_ways(one.ways.iter().cloned());
        let mut remarks = one.remarks.clone();
        for RedirectedWay {
            admission, origin, ..
        } in &group.ways
        {
            for (place, part) in admission.rules.iter().chain(&origin.rules) {
                self.taken.take(place, *part, name);
            }
            let ways = admission.ways.iter().chain(&origin.ways);
            self.taken.add_ways(ways.cloned());
            let both = admission.remarks.iter().chain(&origin.remarks);
            remarks.extend(both.cloned());
            self.shared.extend(origin.shared.clone());
            for (place, words) in &admission.unsaid {
                let fate = RuleFate::NotSaid(format!(
                    "it asks for {words}, which a spec has no words for"
                ));
                self.fates.entry(place.clone()).or_insert(fate);
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

    /// Returns the redirections that cannot be said.
    fn unsaid(&self, prerouting: &[Met<'_>]) -> Vec<OtherRedirect> {
        let is_unsaid =
            |met: &&Met<'_>| matches!(self.fates.get(&met.place), Some(RuleFate::NotSaid(_)));
        let rules = prerouting.iter().filter(is_unsaid);
        let all =
            rules.flat_map(|met| OtherRedirect::of(met, Passed::Forward, |to| self.known_side(to)));
        all.collect()
    }

    /// Returns the redirections of other programs, and those of the machine's own connections.
    fn others(&self, prerouting: &[Met<'_>], output: &[Met<'_>]) -> Vec<OtherRedirect> {
        let programs = prerouting.iter().filter(|met| met.program.is_some());
        let programs = programs.map(|met| (met, Passed::Forward));
        let own = output.iter().map(|met| (met, Passed::Output));
        let all = programs.chain(own);
        let all =
            all.flat_map(|(met, passed)| OtherRedirect::of(met, passed, |to| self.known_side(to)));
        all.collect()
    }

    /// Returns the interface by which packets to a target leave, as far as routes or rules say it.
    fn known_side(&self, target: IpAddr) -> Option<Interface> {
        let side = self.side(target);
        side.by_route.or(side.by_others)
    }

    /// Adds the outbound entries.
    fn outbound(
        &mut self,
        unsaid_targets: &BTreeSet<IpAddr>,
        names: &mut EntryNames,
    ) -> Vec<Outbound> {
        let taken = self.taken.places();
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
            targets: unsaid_targets,
        };
        let found = outgoing.read(names);
        for (place, fate) in found.fates {
            if !self.shared.contains(&place) {
                self.fates.entry(place).or_insert(fate);
            }
        }
        self.taken.add_ways(found.ways);
        for (place, part, number) in found.rules {
            self.taken.take(&place, part, &found.entries[number].name);
        }
        for (number, place, remark) in found.remarks {
            let name = found.entries[number].name.clone();
            self.remark(&name, &place, remark);
        }
        found.entries
    }
}
