//! The source that the POSTROUTING chain gives redirected connections.

use std::collections::BTreeSet;

use super::account::Part;
use super::addresses::Addresses;
use super::admission::egress;
use super::place::ImportedPlace;
use super::redirected::{Fit, Redirected};
use super::remark::ImportRemark;
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
    /// The rules that would matter if a spec had words for them, each with its conditions in words.
    pub unsaid: Vec<(ImportedPlace, String)>,
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
        unsaid: Vec::new(),
    };
    let inside = Addresses::of(redirected.target.into());
    for met in rules {
        let conditions = &met.conditions;
        let fit = redirected.fit(conditions);
        let sources = conditions.sources(redirected.family);
        let is_from_inside = !sources.are_all() && !sources.common(&inside).is_empty();
        if fit == Fit::No {
            continue;
        }
        let is_named = conditions.names_connections();
        let take = |part, found: &mut Origin| {
            if is_named {
                found.rules.insert((met.place.clone(), part));
                if fit == Fit::Part {
                    found
                        .remarks
                        .push((met.place.clone(), ImportRemark::SomePorts));
                }
            }
        };
        let Some(snat) = snat_of(met) else {
            if matches!(&met.rule.target, Some(Target::Other(words)) if words.first().is_some_and(|word| word.spelled() == "SNAT"))
            {
                found
                    .unsaid
                    .push((met.place.clone(), "the form of its SNAT".to_owned()));
            }
            continue;
        };
        if is_from_inside && is_named {
            found.hairpin = true;
            take(Part::Hairpin, &mut found);
            continue;
        }
        if sources.common(redirected.sources).is_empty() || is_from_inside {
            continue;
        }
        if !conditions.beyond.is_empty() || conditions.share.is_some() || conditions.limit.is_some()
        {
            found
                .unsaid
                .push((met.place.clone(), conditions.beyond_words()));
            continue;
        }
        if !redirected.sources.without(&sources).is_empty() {
            found.unsaid.push((
                met.place.clone(),
                "a source address for a part of the clients only".to_owned(),
            ));
            continue;
        }
        take(Part::Source, &mut found);
        if is_named && conditions.redirected != Some(true) && conditions.original_ports.is_none() {
            found
                .remarks
                .push((met.place.clone(), ImportRemark::RewritesMore));
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

/// Returns the source that a rule gives; none for a rule that gives none.
pub fn snat_of(met: &Met<'_>) -> Option<Snat> {
    match &met.rule.target {
        Some(Target::Snat { addresses, .. }) => Some(Snat::Addresses(*addresses)),
        Some(Target::Masquerade) => Some(Snat::Masquerade),
        Some(Target::Accept) => Some(Snat::Client),
        _ => None,
    }
}
