//! Rules that let hosts behind the machine open connections outward.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::account::{Part, RuleFate};
use super::addresses::Addresses;
use super::clients::client_lists;
use super::conditions::RuleConditions;
use super::egress::egress;
use super::met_rules::MetRules;
use super::names::{EntryNames, description};
use super::origin::{NewSource, changes_source, new_source};
use super::outward_accept::{OutwardAccept, merged};
use super::place::{ImportedPlace, RuleWay};
use super::remark::ImportRemark;
use super::sides::{KnownRoutes, SaidSides};
use super::walk::Met;
use crate::forwards::{Nets, Outbound, Snat, Sources, not_internet_v4};
use crate::net::{Family, Interface};
use crate::netfilter::names::Policy;
use crate::netfilter::negatable::Negatable::{Is, Not};
use crate::netfilter::target::Target;

/// The outbound entries that some rules say.
#[derive(Debug, Default)]
pub struct OutwardEntries {
    pub entries: Vec<Outbound>,
    pub rules: BTreeSet<(ImportedPlace, Part, usize)>,
    /// The ways to these rules.
    pub ways: BTreeSet<RuleWay>,
    pub remarks: Vec<(usize, ImportedPlace, ImportRemark)>,
    /// The SNAT rules that no entry takes over.
    pub fates: Vec<(ImportedPlace, RuleFate)>,
    /// The rules of POSTROUTING that keep the source of some connections.
    keeping: Vec<usize>,
}

/// The rules of one family that an outbound entry may come of.
pub struct Outgoing<'a, 'r> {
    pub family: Family,
    pub forward: &'a MetRules<'r>,
    pub postrouting: &'a [Met<'r>],
    pub policy: Policy,
    /// The places that belong to forwards already.
    pub taken: &'a BTreeSet<ImportedPlace>,
    /// The interfaces by which clients of forwards come in.
    pub entrances: &'a [Interface],
    pub routes: &'a KnownRoutes,
    pub sides: &'a SaidSides,
    /// The targets of redirections.
    pub targets: &'a BTreeSet<IpAddr>,
}

/// A SNAT or MASQUERADE rule.
struct SourceRule<'a, 'r> {
    /// The rules of POSTROUTING before it.
    at: usize,
    met: &'a Met<'r>,
    source: NewSource,
}

impl SourceRule<'_, '_> {
    /// Returns whether the rule changes the source of the machine's own connections, too. MASQUERADE gives those the address
    /// that they have.
    fn is_for_own(&self) -> bool {
        self.met.conditions.source.is_empty() && self.source.snat != Snat::Masquerade
    }
}

impl<'r> Outgoing<'_, 'r> {
    /// Reads the outbound entries, in the order of their source rules.
    pub fn read(&self, names: &mut EntryNames) -> OutwardEntries {
        let mut found = OutwardEntries {
            keeping: self.keeping(),
            ..OutwardEntries::default()
        };
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
            let rule = SourceRule { at, met, source };
            if let Err(fate) = self.read_source(&rule, names, &mut found) {
                found.fates.push((met.place.clone(), fate));
            }
        }
        found
    }

    /// Reads one SNAT or MASQUERADE rule, and the accepts of its connections.
    ///
    /// # Errors
    /// The fate of the SNAT rule, if it is not taken over.
    fn read_source(
        &self,
        rule: &SourceRule<'_, 'r>,
        names: &mut EntryNames,
        found: &mut OutwardEntries,
    ) -> Result<(), RuleFate> {
        let conditions = &rule.met.conditions;
        let not_said = |why: &str| RuleFate::NotSaid(why.to_owned());
        if !conditions.is_plain() {
            let words = conditions.beyond_words();
            return Err(not_said(&format!(
                "it asks for {words}, which a spec has no words for"
            )));
        }
        if conditions
            .host()
            .is_some_and(|host| self.targets.contains(&host))
        {
            let why = "it is for connections that the spec cannot redirect";
            return Err(RuleFate::LeftAlone(why.to_owned()));
        }
        let out = egress(conditions).or_else(|| {
            let default = self.routes.default_side(self.family);
            default.filter(|_| conditions.egress.is_empty()).cloned()
        });
        let out = out.ok_or_else(|| {
            not_said(if conditions.egress.is_empty() {
                "it names no interface by which the packets leave"
            } else {
                "its -o stands for several interfaces; an outbound entry names one"
            })
        })?;
        let (from, to) = (
            conditions.sources(self.family),
            conditions.destinations(self.family),
        );
        if !to.are_all() && to.are_within(&from) {
            let why = "its destinations are its sources";
            return Err(RuleFate::LeftAlone(why.to_owned()));
        }
        let ingresses = self.ingresses(&out, conditions);
        let has_one_exit = !conditions.egress.is_empty() || self.has_one_exit(&out, &ingresses);
        let mut passings = Vec::new();
        for ingress in ingresses {
            passings.push(self.passing(&out, conditions, ingress));
        }
        let before = found.entries.len();
        let accepts = merged(passings.iter().flat_map(|one| &one.accepts));
        for accept in &accepts {
            self.add(rule, &out, accept, names, found)?;
        }
        if found.entries.len() > before {
            let stays = passings.iter().any(|one| one.has_unsaid)
                || accepts.iter().any(|one| one.place.is_none());
            let why = if stays {
                "it rewrites the source of connections that other rules accept, too"
            } else if rule.is_for_own() {
                "it rewrites the source of the machine's own connections, too"
            } else if !has_one_exit {
                "it rewrites the source of what leaves by other interfaces, too"
            } else {
                found.ways.insert(rule.met.way());
                let entries = before..found.entries.len();
                let rules = entries.map(|entry| (rule.met.place.clone(), Part::Source, entry));
                found.rules.extend(rules);
                return Ok(());
            };
            return Err(RuleFate::LeftAlone(why.to_owned()));
        }
        let refusing = passings.iter().find_map(|one| one.refuses_some.as_ref());
        Err(if let Some(by) = refusing {
            not_said(&format!(
                "{by} refuses some of its connections first, which a spec has no words for; an entry would let them out"
            ))
        } else if passings.iter().any(|one| one.has_unsaid) {
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
                "no rule accepts the connections whose source it rewrites".to_owned(),
            )
        } else {
            not_said("no rule names the networks that the connections come from")
        })
    }

    /// Returns whether routes lead by no interface but one, and those behind which the sources are.
    fn has_one_exit(&self, out: &Interface, ingresses: &[Interface]) -> bool {
        let mut sides = self.routes.0.iter().map(|(_, side)| side);
        sides.all(|side| side == out || ingresses.contains(side))
    }

    /// Returns whether FORWARD accepts connections that leave by an interface.
    fn accepts_some(&self, out: &Interface) -> bool {
        let mut accepts = self.forward.all.iter().filter(|met| {
            met.rule.target == Some(Target::Accept)
                && met.conditions.leave_by(out)
                && !met.conditions.for_replies
                && met.conditions.redirected != Some(true)
                && !self.taken.contains(&met.place)
        });
        self.policy == Policy::Accept || accepts.next().is_some()
    }

    /// Adds the entry of one source rule and one accept.
    fn add(
        &self,
        rule: &SourceRule<'_, 'r>,
        out: &Interface,
        accept: &OutwardAccept<'_, '_>,
        names: &mut EntryNames,
        found: &mut OutwardEntries,
    ) -> Result<(), RuleFate> {
        let SourceRule { met, source, .. } = rule;
        let conditions = &met.conditions;
        let sources = accept.sources.common(&conditions.sources(self.family));
        let Some(Sources {
            allow: Some(allow_from),
            deny,
        }) = self.networks(&sources, accept)
        else {
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
        if accept.place.is_none() && !to.allow.guarded.is_empty() {
            remark(ImportRemark::Guarded);
        }
        if accept.place.is_some() && (to.is_internet || to.allow.nets.are_all()) {
            remark(ImportRemark::PrivateNetworks);
        }
        if source.chooses_ports {
            remark(ImportRemark::SourcePorts);
        }
        if accept.place.is_some() && !accept.sources.are_within(&sources) {
            remark(ImportRemark::MoreSources);
        }
        if accept.place.is_none() {
            remark(ImportRemark::OtherInterfaces);
        }
        let names_entrance = accept
            .conditions
            .ingress
            .iter()
            .any(|one| matches!(one, Is(_)));
        if accept.place.is_some() && !names_entrance {
            remark(ImportRemark::EveryEntrance);
        }
        if accept
            .refusing
            .iter()
            .any(|met| !matches!(met.rule.target, Some(Target::Drop)))
        {
            remark(ImportRemark::Answered);
        }
        let earlier = &found.keeping[..found.keeping.partition_point(|one| *one < rule.at)];
        for by in self.keep_source(earlier, rule, out, &sources) {
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
            deny_from: deny,
            deny_to: Nets::new(refused.collect()),
            protocols,
            ports,
            snat: source.snat,
            limits: None,
            log: None,
        });
        let refusing = accept.refusing.iter().map(|met| (*met, Part::Refuse));
        let accepting = accept.place.iter().map(|met| (*met, Part::Accept));
        for (met, part) in refusing.chain(accepting) {
            found.rules.insert((met.place.clone(), part, number));
            found.ways.insert(met.way());
        }
        Ok(())
    }

    /// Returns the rules of POSTROUTING that keep the source of some connections, or may.
    fn keeping(&self) -> Vec<usize> {
        let all = self.postrouting.iter().enumerate();
        let keeping = all.filter(|(_, one)| {
            let keeps = new_source(one).is_some_and(|one| one.snat == Snat::Client);
            let is_unsaid =
                changes_source(one) || new_source(one).is_some() && !one.conditions.is_plain();
            (keeps || is_unsaid) && !self.taken.contains(&one.place)
        });
        keeping.map(|(at, _)| at).collect()
    }

    /// Returns the rules before a source rule that keep the source of some of its connections. `earlier` are those before
    /// that keep the source of any.
    fn keep_source(
        &self,
        earlier: &[usize],
        rule: &SourceRule<'_, 'r>,
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
                && conditions.sources(self.family).meet(sources)
        };
        let earlier = earlier.iter().map(|at| &self.postrouting[*at]);
        let earlier = earlier.map(|one| (&one.place, &one.conditions));
        let gone = rule.met.conditions.exceptions.iter();
        let gone = gone.map(|(place, conditions)| (place, conditions));
        let all = earlier
            .chain(gone)
            .filter(|(_, conditions)| meets(conditions));
        all.map(|(place, _)| place.clone()).collect()
    }

    /// Returns the networks of an entry: those that rules name, or those behind its ingress.
    fn networks(&self, sources: &Addresses, accept: &OutwardAccept<'_, '_>) -> Option<Sources> {
        if sources.are_all() {
            let behind: Vec<IpNet> = self
                .routes
                .behind(&accept.ingress[0], self.family)
                .collect();
            return (!behind.is_empty()).then(|| Sources {
                allow: Some(Nets::new(behind)),
                deny: Nets::default(),
            });
        }
        let lists = client_lists(self.family, sources, &accept.kept_out);
        let lists = match lists.allow {
            Some(_) => lists,
            None => Sources {
                allow: Some(Nets::new(sources.nets())),
                deny: Nets::default(),
            },
        };
        (!sources.is_empty()).then_some(lists)
    }
}
