//! The effect of FORWARD and POSTROUTING on each part of a redirection.

use std::collections::HashSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::slice;

use super::account::RuleFate;
use super::admission::{Admission, admission};
use super::conditions::RuleConditions;
use super::egress::{egress_of_accepts, egress_of_wide_accepts};
use super::met_rules::MetRules;
use super::origin::{Origin, origin};
use super::place::ImportedPlace;
use super::redirect::Redirect;
use super::redirected::{Fit, Redirected};
use crate::forwards::{Listen, Snat, TargetPorts};
use crate::net::{Family, Interface, Port, PortRange, Protocol};
use crate::netfilter::names::Policy;

/// The rules that redirected connections meet.
pub struct Treatment<'r> {
    pub family: Family,
    pub forward: MetRules<'r>,
    pub postrouting: MetRules<'r>,
    pub policy: Policy,
}

/// The rules that decide about redirected connections.
#[derive(Debug)]
pub struct RedirectedWay {
    pub admission: Admission,
    pub origin: Origin,
    pub egress: Interface,
    /// Whether no rule or route names the interface by which the packets leave.
    pub is_egress_assumed: bool,
}

/// The connections of a redirection by one protocol, one interface, and some ports of one listener.
#[derive(Debug, Clone)]
pub struct RedirectPart {
    pub protocol: Protocol,
    pub ingress: Interface,
    pub listen: Listen,
    pub ports: PortRange,
}

/// The interfaces by which packets to a target may leave, the most certain first.
pub struct TargetSide {
    pub by_route: Option<Interface>,
    /// As rules say of its network.
    pub by_others: Option<Interface>,
    pub else_by: Interface,
}

impl<'r> Treatment<'r> {
    /// Follows each part of a redirection by one protocol and interface.
    pub fn parts(
        &self,
        one: &Redirect<'_>,
        protocol: Protocol,
        ingress: &Interface,
        side: &impl Fn(IpAddr) -> TargetSide,
    ) -> Vec<(RedirectPart, Result<RedirectedWay, RuleFate>)> {
        let mut parts = Vec::new();
        for listen in &one.listens {
            let whole = RedirectPart {
                protocol,
                ingress: ingress.clone(),
                listen: *listen,
                ports: listen.ports,
            };
            let cuts = self.cuts(one, &whole);
            for ports in cut(listen.ports, &cuts) {
                let part = RedirectPart {
                    ports,
                    ..whole.clone()
                };
                let way = self.way(one, &part, side);
                parts.push((part, way));
            }
        }
        parts
    }

    /// Returns the ports at which a rule's ports begin, or behind which they end.
    fn cuts(&self, one: &Redirect<'_>, part: &RedirectPart) -> Vec<u32> {
        let ports = part.ports;
        if ports.is_single() {
            return Vec::new();
        }
        let mut cuts = Vec::new();
        for to in &one.destinations {
            let target_ports = one.target_ports(part.listen, ports);
            let redirected = self.redirected((one, part), to.address, &target_ports);
            // Ports at the target count from the first one of the listener.
            let back = match to.ports {
                TargetPorts::Kept => Some(0),
                TargetPorts::Range(range) if range.is_single() => None,
                TargetPorts::Range(range) => Some(
                    i64::from(part.listen.ports.first().number())
                        - i64::from(range.first().number()),
                ),
            };
            for conditions in self.conditions_for(&redirected) {
                if redirected.fit(conditions) != Fit::Part {
                    continue;
                }
                let original = conditions.original_ports.iter();
                cuts.extend(original.flat_map(|range| ends(*range, 0)));
                let own = conditions.ports.iter().flatten();
                cuts.extend(
                    own.filter_map(|range| back.map(|back| ends(*range, back)))
                        .flatten(),
                );
            }
        }
        cuts
    }

    /// Returns the conditions of rules that redirected connections may meet, and of the exceptions before those rules.
    fn conditions_for<'a>(&'a self, redirected: &Redirected<'_>) -> Vec<&'a RuleConditions<'r>> {
        let mut all = Vec::new();
        let mut seen = HashSet::new();
        for met in [&self.forward, &self.postrouting]
            .into_iter()
            .flat_map(|rules| rules.for_redirected(redirected))
        {
            all.push(&met.conditions);
            for chain in met.conditions.exceptions.chains() {
                if seen.insert(Rc::as_ptr(chain)) {
                    let numbers = redirected.find(&chain.lookup).into_iter();
                    all.extend(numbers.map(|number| &chain.rules[number].1));
                }
            }
        }
        all
    }

    /// Returns the connections of a part of a redirection to one of its targets.
    fn redirected<'f>(
        &self,
        (one, part): (&'f Redirect<'_>, &'f RedirectPart),
        target: IpAddr,
        target_ports: &'f [PortRange],
    ) -> Redirected<'f> {
        Redirected {
            family: self.family,
            protocol: part.protocol,
            listen_address: part.listen.address,
            listen_ports: slice::from_ref(&part.ports),
            target,
            target_ports,
            ingress: slice::from_ref(&part.ingress),
            egress: None,
            sources: &one.sources,
        }
    }

    /// Follows a part of a redirection to all its targets.
    fn way(
        &self,
        one: &Redirect<'_>,
        part: &RedirectPart,
        side: &impl Fn(IpAddr) -> TargetSide,
    ) -> Result<RedirectedWay, RuleFate> {
        let destinations = one.of_ports(part.listen, part.ports).unwrap_or_default();
        let mut found: Option<RedirectedWay> = None;
        for to in destinations {
            let target_ports = [match to.ports {
                TargetPorts::Kept => part.ports,
                TargetPorts::Range(ports) => ports,
            }];
            let redirected = self.redirected((one, part), to.address, &target_ports);
            let way = self.way_to(redirected, side(to.address))?;
            match &mut found {
                None => found = Some(way),
                Some(first) => first.join(way)?,
            }
        }
        found.ok_or_else(|| {
            RuleFate::NotSaid("its ports are shifted in a way that a forward cannot say".to_owned())
        })
    }

    fn way_to(
        &self,
        mut redirected: Redirected<'_>,
        side: TargetSide,
    ) -> Result<RedirectedWay, RuleFate> {
        let forward = self.forward.for_redirected(&redirected);
        let postrouting = self.postrouting.for_redirected(&redirected);
        let named = side.by_route.or_else(|| {
            let by_wide = || egress_of_wide_accepts(&redirected, &forward);
            let by_source = || origin(&redirected, &postrouting).egress;
            egress_of_accepts(&redirected, &forward)
                .or(side.by_others)
                .or_else(by_wide)
                .or_else(by_source)
        });
        let is_egress_assumed = named.is_none();
        let egress = named.unwrap_or(side.else_by);
        redirected.egress = Some(egress.clone());
        let admission = admission(&redirected, &forward, self.policy);
        if admission.clients.is_empty() {
            let obstacle = admission.obstacle.filter(|_| admission.gives_away);
            if let Some((place, does)) = obstacle {
                return Err(obstructed(&place, &does));
            }
            return Err(match admission.unsaid.first() {
                Some((place, words)) => RuleFate::NotSaid(format!(
                    "{place} accepts its connections by {words}, which a spec has no words for"
                )),
                None => RuleFate::LeftAlone(
                    "FORWARD drops every connection that it redirects".to_owned(),
                ),
            });
        }
        let admitted = Redirected {
            sources: &admission.clients,
            ..redirected
        };
        let origin = origin(&admitted, &postrouting);
        if origin.hairpin && origin.snat == Snat::Client {
            return Err(RuleFate::NotSaid(
                "hosts behind the firewall get a source address of the firewall, and other clients keep theirs; a forward \
                 with `hairpin` has one `snat` for both"
                    .to_owned(),
            ));
        }
        if let Some((place, does)) = admission.obstacle.as_ref().or(origin.obstacle.as_ref()) {
            return Err(obstructed(place, does));
        }
        Ok(RedirectedWay {
            admission,
            origin,
            egress,
            is_egress_assumed,
        })
    }
}

fn obstructed(place: &ImportedPlace, does: &str) -> RuleFate {
    RuleFate::NotSaid(format!("{place} {does}, which a spec has no words for"))
}

impl RedirectedWay {
    /// Returns whether one forward can say both.
    pub fn means_the_same(&self, other: &Self) -> bool {
        self.admission.sources == other.admission.sources
            && self.admission.limits == other.admission.limits
            && self.admission.log == other.admission.log
            && self.origin.snat == other.origin.snat
            && self.origin.hairpin == other.origin.hairpin
            && self.egress == other.egress
    }

    /// Adds what the rules do with connections to another target of the same listener.
    fn join(&mut self, other: Self) -> Result<(), RuleFate> {
        if !self.means_the_same(&other) {
            return Err(RuleFate::NotSaid(
                "the rules treat its targets differently".to_owned(),
            ));
        }
        self.admission.rules.extend(other.admission.rules);
        self.admission.ways.extend(other.admission.ways);
        self.admission.remarks.extend(other.admission.remarks);
        self.origin.rules.extend(other.origin.rules);
        self.origin.ways.extend(other.origin.ways);
        self.origin.remarks.extend(other.origin.remarks);
        Ok(())
    }
}

/// Returns the first port of a range and the one behind it, moved.
fn ends(range: PortRange, by: i64) -> [u32; 2] {
    let at = |number: u32| u32::try_from(i64::from(number) + by).unwrap_or_default();
    [
        at(range.first().number().into()),
        at(u32::from(range.last().number()) + 1),
    ]
}

/// Cuts a range before ports.
fn cut(range: PortRange, before: &[u32]) -> Vec<PortRange> {
    let (first, last) = (
        u32::from(range.first().number()),
        u32::from(range.last().number()),
    );
    let mut starts: Vec<u32> = before
        .iter()
        .copied()
        .filter(|at| (first + 1..=last).contains(at))
        .collect();
    starts.push(first);
    starts.sort_unstable();
    starts.dedup();
    let lasts = starts.iter().skip(1).map(|next| next - 1).chain([last]);
    let port = |number: u32| Port::new(u16::try_from(number).ok()?);
    let all = starts.iter().zip(lasts);
    all.filter_map(|(from, to)| PortRange::new(port(*from)?, port(to)?).ok())
        .collect()
}
