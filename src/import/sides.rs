//! The interfaces behind which networks are, as far as rules do not say it.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::net::{Family, Interface};
use crate::netfilter::matches::Match;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::negatable::Negatable::Is;
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::Target;

/// The interface of a machine whose rules name none.
const ONLY: &str = "eth0";

/// The networks behind each interface, from the routes of the machine; empty if only rules are known.
#[derive(Debug, Clone, Default)]
pub struct KnownRoutes(pub Vec<(IpNet, Interface)>);

impl KnownRoutes {
    /// Returns the interface by which packets to an address leave.
    #[must_use]
    pub fn side(&self, address: IpAddr) -> Option<&Interface> {
        let around = self.0.iter().filter(|(net, _)| net.contains(&address));
        let narrowest = around.max_by_key(|(net, _)| net.prefix_len())?;
        Some(&narrowest.1)
    }

    /// Returns the interface of the default route.
    #[must_use]
    pub fn default_side(&self, family: Family) -> Option<&Interface> {
        let mut all = self.0.iter();
        let is_default = |net: &IpNet| net.prefix_len() == 0 && Family::of(net.addr()) == family;
        all.find(|(net, _)| is_default(net))
            .map(|(_, interface)| interface)
    }

    /// Returns the networks behind an interface, without the default route.
    pub fn behind(&self, interface: &Interface, family: Family) -> impl Iterator<Item = IpNet> {
        let all = self.0.iter().filter(move |(net, side)| {
            side == interface && net.prefix_len() > 0 && Family::of(net.addr()) == family
        });
        all.map(|(net, _)| *net)
    }
}

/// Returns the interface by which clients come in: that of the default route, else of the first DNAT rule with `-i`,
/// else any that a rule names. The second value says whether rules or routes name it.
pub fn entrance(family: Family, rules: &Ruleset, routes: &KnownRoutes) -> (Interface, bool) {
    let by_route = routes.default_side(family).cloned();
    let found = by_route.or_else(|| {
        let chain = rules.chain(TableName::Nat, &ChainName::Prerouting);
        let chain = chain.into_iter().flat_map(|chain| &chain.rules);
        let dnat = chain.clone().filter(|rule| is_dnat(rule));
        dnat.chain(rules.chains().flat_map(|(_, _, chain)| &chain.rules))
            .find_map(ingress)
            .cloned()
    });
    match found {
        Some(interface) => (interface, true),
        None => {
            let only = ONLY.parse().expect("it is the name of an interface");
            (only, false)
        }
    }
}

pub fn is_dnat(rule: &Rule) -> bool {
    rule.target
        .as_ref()
        .is_some_and(|target| target.name() == "DNAT")
        && !matches!(rule.target, Some(Target::Jump(_)))
}

/// Returns the one interface on which a rule's packets arrive.
fn ingress(rule: &Rule) -> Option<&Interface> {
    rule.matches.iter().find_map(|condition| match condition {
        Match::Ingress(Is(pattern)) => pattern.exact().filter(|one| one.as_str() != "lo"),
        _ => None,
    })
}
