//! The routes and policy rules of a made-up machine.
//!
//! The main table leads to each network by the interface that the first forward or outbound entry needs. If another
//! one needs another interface, packets that come in by its ingress get a routing table of their own, and packets that
//! only their ports or sources tell apart get policy rules. Two forwards whose packets nothing tells apart cannot both
//! work on any machine: the first one does here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde_json::Value;

use super::iproute::{
    RoutingTable, Selector, by_router, rule_for_all, standard_rules, to_link, to_link_local,
};
use super::links::OnLink;
use super::outline::{Demand, End, Service};
use super::sides::Sides;
use crate::forwards::internet_v6;
use crate::net::{Family, Interface};

/// The first priority of the policy rules. The kernel's own first rule has priority 0.
const FIRST: u32 = 100;

/// The number of the routing table for the networks that the caller names.
const NAMED: u32 = 999;

/// The number of the first routing table for packets that came in by an interface.
const OF_ENTRANCE: u32 = 1000;

/// The number of the first routing table that leads everywhere by one interface.
const BY_EXIT: u32 = 2000;

/// The routes and policy rules of one family, as iproute2 lists them.
#[derive(Debug, Default)]
pub struct Paths {
    pub routes: Vec<Value>,
    pub rules: Vec<Value>,
    /// The interfaces for whose incoming packets there are routes of their own.
    pub special: Vec<Interface>,
    /// The numbers of the links that a routing table leads everywhere by.
    exits: BTreeSet<u32>,
}

/// Everything that the paths of one family depend on.
#[derive(Debug)]
pub struct PathMaker<'o> {
    pub family: Family,
    pub links: Vec<&'o OnLink<'o>>,
    /// The networks whose sides the caller names. They count before all guesses.
    pub named: &'o [(IpNet, Interface)],
    pub sides: &'o Sides,
    pub demands: Vec<&'o Demand<'o>>,
}

impl<'o> PathMaker<'o> {
    /// Makes the paths.
    #[must_use]
    pub fn paths(&self) -> Paths {
        let mut paths = Paths {
            rules: standard_rules(self.family),
            ..Paths::default()
        };
        for link in &self.links {
            paths.routes.push(to_link(link, RoutingTable::Main));
            if self.family == Family::V6 {
                paths.routes.push(to_link_local(link.interface));
            }
        }
        self.add_routes(self.sides, RoutingTable::Main, &mut paths);
        let mut entrances: BTreeMap<&Interface, Vec<&Demand<'_>>> = BTreeMap::new();
        for demand in &self.demands {
            entrances.entry(demand.came).or_default().push(demand);
        }
        let mut priority = FIRST;
        let mut special = Vec::new();
        let is_met = |demand: &&Demand<'_>| self.sides.exact(demand.to) == Some(demand.by);
        entrances.retain(|_, demands| !demands.iter().all(is_met));
        if !entrances.is_empty() {
            self.add_named(&entrances, &mut priority, &mut paths);
        }
        for (came, demands) in entrances {
            let number = OF_ENTRANCE + u32::try_from(special.len()).unwrap_or_default();
            self.add_entrance(came, &demands, (number, &mut priority), &mut paths);
            special.push(came.clone());
        }
        paths.special = special;
        paths.rules.sort_by_key(|rule| rule["priority"].as_u64());
        paths
    }

    /// Adds the routes to networks. The main table gets none that a wider one makes needless.
    fn add_routes(&self, sides: &Sides, table: RoutingTable, paths: &mut Paths) {
        let mut all = sides.clone();
        for link in &self.links {
            all.claim(link.own, link.interface);
        }
        for (net, side) in sides.of_family(self.family) {
            let is_on_link = |link: &&&OnLink<'_>| link.own.trunc() == net;
            // Detours take packets that only the default route of their table would send elsewhere.
            let is_needless = table == RoutingTable::Main && all.around(net) == Some(side);
            if is_needless || self.links.iter().any(|link| is_on_link(&link)) {
                continue;
            }
            if let Some(link) = self.link(side) {
                paths.routes.push(by_router(net, link, table));
            }
        }
    }

    fn link(&self, interface: &Interface) -> Option<&'o OnLink<'o>> {
        let mut links = self.links.iter();
        links.find(|link| link.interface == interface).copied()
    }

    /// Adds the routing table and the policy rules for the networks that the caller names. They come before the paths of
    /// all entrances. Only the packets to a target that forwards tell apart by its ports come first.
    fn add_named(
        &self,
        entrances: &BTreeMap<&'o Interface, Vec<&'o Demand<'o>>>,
        priority: &mut u32,
        paths: &mut Paths,
    ) {
        let sides = self.named_sides();
        if sides.of_family(self.family).next().is_none() {
            return;
        }
        for demands in entrances.values() {
            let demands = demands.iter().copied();
            let of_target = demands.filter(|demand| {
                let end = demand.service.map(|service| service.end);
                end == Some(End::Destination) && sides.exact(demand.to).is_some()
            });
            let of_target: Vec<&Demand<'_>> = of_target.collect();
            self.add_detours(&detours(&of_target, &sides), priority, paths);
        }
        let table = RoutingTable::Numbered(NAMED);
        for (net, side) in sides.of_family(self.family) {
            if let Some(link) = self.link(side) {
                paths.routes.push(by_router(net, link, table));
            }
        }
        paths.rules.push(rule_for_all(*priority, table));
        *priority += 1;
    }

    fn named_sides(&self) -> Sides {
        let mut sides = Sides::default();
        for (net, interface) in self.named {
            sides.claim(*net, interface);
        }
        sides
    }

    /// Adds the routing table and the policy rules for packets that come in by an interface.
    fn add_entrance(
        &self,
        came: &'o Interface,
        demands: &[&'o Demand<'o>],
        (number, priority): (u32, &mut u32),
        paths: &mut Paths,
    ) {
        let own = RoutingTable::Numbered(number);
        let mut sides = self.named_sides();
        // A route of the main table stays, if one of the demands needs it.
        for demand in demands {
            if self.sides.exact(demand.to) == Some(demand.by) {
                sides.claim(demand.to, demand.by);
            }
        }
        for demand in demands {
            sides.claim(demand.to, demand.by);
        }
        for link in &self.links {
            paths.routes.push(to_link(link, own));
        }
        self.add_routes(&sides, own, paths);
        let mut by_length: BTreeMap<Reverse<u8>, Vec<Detour<'_>>> = BTreeMap::new();
        for detour in detours(demands, &sides) {
            let to = detour.selector.to;
            let length = to.map_or(0, |net| net.prefix_len());
            let length = length.max(widest(self.family));
            by_length.entry(Reverse(length)).or_default().push(detour);
        }
        for (Reverse(length), detours) in by_length {
            // A route to a narrower network comes before a detour.
            let selector = Selector::of(came);
            if length < self.family.everything().max_prefix_len() {
                let rule = selector.narrow_rule(*priority, own, length);
                paths.rules.push(rule);
                *priority += 1;
            }
            self.add_detours(&detours, priority, paths);
        }
        paths.rules.push(Selector::of(came).rule(*priority, own));
        *priority += 1;
    }

    fn add_detours(&self, detours: &[Detour<'_>], priority: &mut u32, paths: &mut Paths) {
        for detour in detours {
            let mut links = self.links.iter();
            let Some(place) = links.position(|link| link.interface == detour.by) else {
                continue;
            };
            let exit = u32::try_from(place).unwrap_or_default();
            let table = RoutingTable::Numbered(BY_EXIT + exit);
            if paths.exits.insert(exit) {
                let everything = self.family.everything();
                let route = by_router(everything, self.links[place], table);
                paths.routes.push(route);
            }
            paths.rules.push(detour.selector.rule(*priority, table));
        }
        *priority += 1;
    }
}

/// Returns the length of the Internet's prefix. Networks as wide as that hold most addresses of others.
fn widest(family: Family) -> u8 {
    match family {
        Family::V4 => 0,
        Family::V6 => internet_v6().prefix_len(),
    }
}

/// Packets that leave by another interface than their destination says.
#[derive(Debug, Clone, Copy)]
struct Detour<'s> {
    selector: Selector<'s>,
    by: &'s Interface,
}

/// The conditions by which the packets of demands with one destination are told apart.
type Conditions = (Option<IpNet>, Option<Service>);

/// Returns the detours for the demands that `sides` does not meet, the most specific ones first.
fn detours<'s>(demands: &[&'s Demand<'s>], sides: &Sides) -> Vec<Detour<'s>> {
    let mut of_net: BTreeMap<IpNet, Vec<&Demand<'_>>> = BTreeMap::new();
    for demand in demands {
        of_net.entry(demand.to).or_default().push(demand);
    }
    let mut found = Vec::new();
    for (to, demands) in of_net {
        let (met, unmet): (Vec<&Demand<'_>>, Vec<&Demand<'_>>) = demands
            .into_iter()
            .partition(|demand| sides.exact(to) == Some(demand.by));
        // A detour that asks for no port takes the packets of other demands too.
        let is_wide = unmet.iter().any(|demand| demand.service.is_none());
        let mut taken: BTreeSet<Conditions> = BTreeSet::new();
        if !is_wide {
            taken.extend(met.iter().flat_map(|demand| conditions(demand)));
        }
        let all = met.into_iter().filter(|_| is_wide).chain(unmet);
        for demand in all {
            for (from, service) in conditions(demand) {
                if taken.insert((from, service)) {
                    found.push(Detour {
                        selector: Selector {
                            came: demand.came,
                            from,
                            to: Some(to),
                            service,
                        },
                        by: demand.by,
                    });
                }
            }
        }
    }
    found.sort_by_key(|detour| {
        let Selector { from, service, .. } = detour.selector;
        let length = from.map_or(0, |net| net.prefix_len());
        (service.is_none(), Reverse(length))
    });
    found
}

fn conditions<'s>(demand: &'s Demand<'_>) -> impl Iterator<Item = Conditions> + 's {
    let any = demand.from.is_empty().then_some(None);
    let nets = demand.from.iter().map(|net| Some(*net));
    any.into_iter()
        .chain(nets)
        .map(|from| (from, demand.service))
}
