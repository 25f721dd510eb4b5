//! Rules that accept outbound connections, and what an entry says of them.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::account::RuleFate;
use super::addresses::Addresses;
use super::conditions::RuleConditions;
use super::place::ImportedPlace;
use super::walk::Met;
use crate::forwards::{
    Destinations, GUARDED, Nets, OutboundProtocol, internet_v6, not_internet_v4,
};
use crate::net::{Family, Interface, PortRange};
use crate::netfilter::negatable::Negatable::{self, Is, Not};
use crate::netfilter::protocol::IpProtocol;

/// A rule that accepts outbound connections.
#[derive(Clone)]
pub struct OutwardAccept<'s, 'r> {
    /// `None` for the policy, and for a rule that is not for these connections alone.
    pub place: Option<&'s Met<'r>>,
    pub conditions: RuleConditions<'r>,
    pub sources: Addresses,
    /// The sources that are refused before.
    pub kept_out: Addresses,
    /// At least one.
    pub ingress: Vec<Interface>,
    pub refused: Vec<IpNet>,
    pub refusing: Vec<&'s Met<'r>>,
}

/// Brings together what one rule accepts from several interfaces.
pub fn merged<'a, 's: 'a, 'r: 'a>(
    accepts: impl Iterator<Item = &'a OutwardAccept<'s, 'r>>,
) -> Vec<OutwardAccept<'s, 'r>> {
    let mut merged: Vec<OutwardAccept<'s, 'r>> = Vec::new();
    let mut numbers: BTreeMap<Option<&ImportedPlace>, Vec<usize>> = BTreeMap::new();
    for accept in accepts {
        let numbers = numbers
            .entry(accept.place.map(|met| &met.place))
            .or_default();
        let same = numbers.iter().copied().find(|number| {
            let other = &merged[*number];
            other.sources == accept.sources
                && other.kept_out == accept.kept_out
                && other.refused == accept.refused
                && other.conditions == accept.conditions
        });
        match same {
            Some(number) => merged[number]
                .ingress
                .extend(accept.ingress.iter().cloned()),
            None => {
                numbers.push(merged.len());
                merged.push(accept.clone());
            }
        }
    }
    merged
}

/// The destinations of an entry.
pub struct EntryDestinations {
    pub allow: Destinations,
    pub deny: Vec<IpNet>,
    /// Whether the entry is for the Internet, and the rules are for all networks but some.
    pub is_internet: bool,
}

impl OutwardAccept<'_, '_> {
    pub fn comment(&self) -> Option<&str> {
        self.conditions.comment
    }

    /// Returns the protocols and ports that this rule and the source rule both take; `None` if a spec cannot say them.
    pub fn protocols(
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
    pub fn destinations(
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
            if let Some(net) = other.into_iter().find(is_public) {
                return Err(RuleFate::NotSaid(format!(
                    "it leaves out {net}, to which the rules accept connections with the source as it is"
                )));
            }
            return Ok(Some(EntryDestinations {
                allow: Destinations::new(family, true, Nets::default(), &[]),
                is_internet: true,
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
            is_internet: false,
        }))
    }
}
