//! The source that the POSTROUTING chain gives redirected connections.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::account::Part;
use super::addresses::Addresses;
use super::admission::beyond;
use super::conditions::RuleConditions;
use super::egress::egress;
use super::exceptions::LeftClients;
use super::place::{ImportedPlace, RuleWay};
use super::redirected::{Fit, Redirected};
use super::remark::ImportRemark;
use super::walk::Met;
use crate::forwards::Snat;
use crate::net::Interface;
use crate::netfilter::target::Target;
use crate::netfilter::text::parse::snat_range;

/// The most networks that a rule's remarks name.
const MOST_NETS: usize = 4;

/// The source of redirected connections, and the rules that say it.
#[derive(Debug)]
pub struct Origin {
    pub snat: Snat,
    /// The interface that the deciding rule names.
    pub egress: Option<Interface>,
    /// Whether a rule gives hosts behind the firewall, which ask for the listener, another source.
    pub hairpin: bool,
    pub rules: BTreeSet<(ImportedPlace, Part)>,
    /// The ways to these rules.
    pub ways: BTreeSet<RuleWay>,
    /// The deciding rule, if it is for more than these connections.
    pub shared: Option<ImportedPlace>,
    pub remarks: Vec<(ImportedPlace, ImportRemark)>,
    /// The first rule that decides in a way that a spec cannot say, and what it does.
    pub obstacle: Option<(ImportedPlace, String)>,
}

/// Follows the POSTROUTING chain for redirected connections.
pub fn origin(redirected: &Redirected<'_>, rules: &[&Met<'_>]) -> Origin {
    let mut following = Following {
        redirected,
        left: redirected.sources.clone(),
        left_way: LeftClients::new(redirected.family),
        parts: Vec::new(),
        found: Origin {
            snat: Snat::Client,
            egress: None,
            hairpin: false,
            rules: BTreeSet::new(),
            ways: BTreeSet::new(),
            shared: None,
            remarks: Vec::new(),
            obstacle: None,
        },
    };
    for met in rules {
        following.meet(met);
    }
    following.end()
}

/// The clients whose source the rules have decided about so far.
struct Following<'a, 'r> {
    redirected: &'a Redirected<'a>,
    left: Addresses,
    left_way: LeftClients<RuleConditions<'r>>,
    /// The rules that give a part of the clients a source, each with the part.
    parts: Vec<(&'a Met<'r>, NewSource, Addresses)>,
    found: Origin,
}

impl<'a, 'r> Following<'a, 'r> {
    fn meet(&mut self, met: &'a Met<'r>) {
        let conditions = &met.conditions;
        if self.left.is_empty() || self.redirected.fit(conditions) == Fit::No {
            return;
        }
        let Some(source) = new_source(met) else {
            if changes_source(met) {
                let target = met.rule.target.as_ref().map_or("", Target::name);
                self.obstruct(
                    met,
                    &format!("rewrites its connections by a form of `{target}`"),
                );
            }
            return;
        };
        let sources = conditions.sources(self.redirected.family);
        let is_from_inside = sources.nets().into_iter().any(|net| self.is_inside(net));
        if is_from_inside && conditions.names_connections() && source.snat != Snat::Client {
            self.found.hairpin = true;
            self.take(met, Part::Hairpin);
        }
        if is_from_inside {
            if source.snat == Snat::Client && self.redirected.is_one_sided() {
                self.remark(met, ImportRemark::InsideSource);
            }
            return;
        }
        let clients = (self.redirected).clients(met, &self.left, &mut self.left_way);
        let Some(hit) = clients else {
            if met.program.is_some() {
                return;
            }
            self.obstruct(
                met,
                "is for a part of its connections, by `-j RETURN` or `-g` before it",
            );
            return;
        };
        if hit.is_empty() {
            return;
        }
        // Programs mark their own connections, and rewrite the source of those.
        if !conditions.is_plain() && met.program.is_some() {
            return;
        }
        if !conditions.is_plain() {
            let does = match source.snat {
                Snat::Client => "keeps the source of",
                _ => "rewrites the source of",
            };
            let words = conditions.beyond_words();
            self.obstruct(met, &format!("{does} some of its connections by {words}"));
            return;
        }
        self.left.remove(&hit);
        self.parts.push((met, source, hit));
    }

    /// Lets the source of most clients count.
    fn end(mut self) -> Origin {
        let parts = std::mem::take(&mut self.parts);
        let largest = parts.iter().max_by_key(|(.., clients)| clients.count());
        let largest = largest.filter(|(.., clients)| clients.count() >= self.left.count());
        let snat = largest.map_or(Snat::Client, |(_, source, _)| source.snat);
        let rest = (Snat::Client, self.left.clone());
        let all = parts
            .iter()
            .map(|(_, source, part)| (source.snat, part.clone()));
        let others: Vec<Addresses> = all
            .chain([rest])
            .filter(|(other, part)| *other != snat && !part.is_empty())
            .map(|(_, part)| part)
            .collect();
        self.found.snat = snat;
        let Some((met, source, _)) = largest else {
            // The few whom a rule gives a source do not count.
            for (met, ..) in &parts {
                self.other_sources(met, &others);
            }
            return self.found;
        };
        let conditions = &met.conditions;
        self.other_sources(met, &others);
        self.take(met, Part::Source);
        let is_taken = met.is_to_take();
        if is_taken && conditions.redirected != Some(true) && conditions.original_ports.is_none() {
            self.remark(met, ImportRemark::RewritesMore(beyond(conditions)));
        }
        if source.chooses_ports {
            self.remark(met, ImportRemark::SourcePorts);
        }
        if !is_taken {
            self.found.shared = Some(met.place.clone());
        }
        self.found.egress = egress(conditions);
        self.found
    }

    /// Returns whether a network is that of the target. A wider one has clients, too.
    fn is_inside(&self, net: IpNet) -> bool {
        let narrowest = match net {
            IpNet::V4(_) => 16,
            IpNet::V6(_) => 48,
        };
        net.contains(&self.redirected.target) && net.prefix_len() >= narrowest
    }

    /// Remarks on clients that get another source than most. Hosts behind the target's interface are clients only if others
    /// come in there, too.
    fn other_sources(&mut self, met: &Met<'_>, others: &[Addresses]) {
        for net in others.iter().flat_map(Addresses::nets).take(MOST_NETS) {
            if !self.is_inside(net) {
                self.remark(met, ImportRemark::OtherSources(net));
            } else if self.redirected.is_one_sided() {
                self.remark(met, ImportRemark::InsideSource);
            }
        }
    }

    fn take(&mut self, met: &Met<'_>, part: Part) {
        if met.is_to_take() {
            self.found.rules.insert((met.place.clone(), part));
            self.found.ways.insert(met.way());
        }
    }

    fn remark(&mut self, met: &Met<'_>, remark: ImportRemark) {
        self.found.remarks.push((met.place.clone(), remark));
    }

    fn obstruct(&mut self, met: &Met<'_>, does: &str) {
        self.found
            .obstacle
            .get_or_insert((met.place.clone(), does.to_owned()));
    }
}

/// The source that a rule gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewSource {
    /// `Snat::Client` for a rule that keeps the source.
    pub snat: Snat,
    /// Whether the rule chooses the source ports.
    pub chooses_ports: bool,
}

/// Returns the source that a rule of POSTROUTING gives; `None` for a rule that decides nothing, or in a form that is not
/// read.
pub fn new_source(met: &Met<'_>) -> Option<NewSource> {
    let plain = |snat| NewSource {
        snat,
        chooses_ports: false,
    };
    match met.rule.target.as_ref()? {
        Target::Snat { addresses, .. } => Some(plain(Snat::Addresses(*addresses))),
        Target::Masquerade => Some(plain(Snat::Masquerade)),
        Target::Accept => Some(plain(Snat::Client)),
        Target::Other(words) => snat_range(words).map(|range| NewSource {
            snat: range.addresses.map_or(Snat::Masquerade, Snat::Addresses),
            chooses_ports: range.chooses_ports,
        }),
        _ => None,
    }
}

/// Returns whether a rule changes the source in a form that is not read.
pub fn changes_source(met: &Met<'_>) -> bool {
    let name = met.rule.target.as_ref().map(Target::name);
    matches!(name, Some("SNAT" | "NETMAP")) && new_source(met).is_none()
}
