//! The source that the POSTROUTING chain gives redirected connections.

use std::collections::BTreeSet;

use super::account::Part;
use super::addresses::Addresses;
use super::admission::{egress, partly};
use super::place::ImportedPlace;
use super::redirected::{Fit, Redirected};
use super::remark::ImportRemark;
use super::verdict::{RuleVerdict, verdict};
use super::walk::Met;
use crate::forwards::Snat;
use crate::net::Interface;
use crate::netfilter::target::Target;

/// The source of redirected connections, and the rules that say it.
#[derive(Debug)]
pub struct Origin {
    pub snat: Snat,
    /// The interface that the deciding rule names.
    pub egress: Option<Interface>,
    /// Whether a rule gives hosts behind the firewall, which ask for the listener, another source.
    pub hairpin: bool,
    pub rules: BTreeSet<(ImportedPlace, Part)>,
    /// The deciding rule, if it is for more than these connections.
    pub shared: Option<ImportedPlace>,
    pub remarks: Vec<(ImportedPlace, ImportRemark)>,
    /// The first rule that decides in a way that a spec cannot say, and what it does.
    pub obstacle: Option<(ImportedPlace, String)>,
}

/// Follows the POSTROUTING chain for redirected connections.
pub fn origin(redirected: &Redirected<'_>, rules: &[Met<'_>]) -> Origin {
    let mut found = Origin {
        snat: Snat::Client,
        egress: None,
        hairpin: false,
        rules: BTreeSet::new(),
        shared: None,
        remarks: Vec::new(),
        obstacle: None,
    };
    let inside = Addresses::of(redirected.target.into());
    let mut next = 0;
    while let Some(met) = rules.get(next) {
        next += 1;
        let conditions = &met.conditions;
        let fit = redirected.fit(conditions);
        let sources = conditions.sources(redirected.family);
        let verdict = verdict(met.rule);
        if fit == Fit::No || verdict == RuleVerdict::GoOn {
            continue;
        }
        let is_exempt = matches!(verdict, RuleVerdict::Accept | RuleVerdict::Return);
        let is_named = conditions.names_connections();
        if !sources.are_all() && !sources.common(&inside).is_empty() {
            if is_exempt && redirected.is_one_sided() {
                let remark = (met.place.clone(), ImportRemark::InsideSource);
                found.remarks.push(remark);
            } else if !is_exempt && is_named {
                found.hairpin = true;
                found.take(met, fit, Part::Hairpin);
            }
            continue;
        }
        if sources.common(redirected.sources).is_empty() {
            continue;
        }
        let snat = snat_of(met);
        let is_for_all = redirected.sources.without(&sources).is_empty();
        let is_said = conditions.are_said() && !conditions.are_limited();
        if !is_for_all || !is_said || is_exempt && fit == Fit::Part {
            let does = if is_exempt {
                "keeps the source of"
            } else {
                "rewrites the source of"
            };
            found.obstacle = Some((met.place.clone(), partly(does, conditions)));
            break;
        }
        if verdict == RuleVerdict::Return {
            next = next.max(met.resumes);
            continue;
        }
        let Some(snat) = snat else {
            let target = met.rule.target.as_ref().map_or("", Target::name);
            let does = format!("rewrites its connections with a form of `{target}`");
            found.obstacle = Some((met.place.clone(), does));
            break;
        };
        found.take(met, fit, Part::Source);
        if is_named && conditions.redirected != Some(true) && conditions.original_ports.is_none() {
            let remark = (met.place.clone(), ImportRemark::RewritesMore);
            found.remarks.push(remark);
        }
        if !is_named {
            found.shared = Some(met.place.clone());
        }
        found.snat = snat;
        found.egress = egress(conditions);
        break;
    }
    found
}

impl Origin {
    /// Takes a rule over if it is for these connections by name.
    fn take(&mut self, met: &Met<'_>, fit: Fit, part: Part) {
        if !met.conditions.names_connections() {
            return;
        }
        self.rules.insert((met.place.clone(), part));
        if fit == Fit::Part {
            self.remarks
                .push((met.place.clone(), ImportRemark::SomePorts));
        }
    }
}

/// Returns the source that a rule gives; none for a rule that gives none.
pub fn snat_of(met: &Met<'_>) -> Option<Snat> {
    match &met.rule.target {
        Some(Target::Snat { addresses, .. }) => Some(Snat::Addresses(*addresses)),
        Some(Target::Masquerade) => Some(Snat::Masquerade),
        Some(Target::Accept) => Some(Snat::Client),
        _ => None,
    }
}
