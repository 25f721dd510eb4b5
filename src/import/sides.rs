//! The interfaces behind which networks are, as far as rules do not say it.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::conditions::RuleConditions;
use super::egress::egress;
use super::lookup;
use super::verdict::{RuleVerdict, verdict};
use super::walk::Met;

use crate::net::{Family, Interface};
use crate::netfilter::matches::Match;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::negatable::Negatable::{Is, Not};
use crate::netfilter::programs::owner_of;
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::{Chain, Ruleset};
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

    /// Returns the interface by which packets to an address leave, if a route names its network.
    #[must_use]
    pub fn side_of_network(&self, address: IpAddr) -> Option<&Interface> {
        let around = self.0.iter().filter(|(net, _)| net.contains(&address));
        let narrowest = around.max_by_key(|(net, _)| net.prefix_len())?;
        (narrowest.0.prefix_len() > 0).then_some(&narrowest.1)
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

/// The networks that rules place behind interfaces: `-i eth1 -s NET`, `-o eth1 -d NET`.
#[derive(Debug, Clone, Default)]
pub struct SaidSides {
    named: NetSides,
    /// The networks around named hosts, and around the machine's own addresses.
    around: NetSides,
    /// The interfaces by which networks leave, so that they are behind others.
    leaving: NetSides,
    interfaces: BTreeSet<Interface>,
}

impl SaidSides {
    /// Reads the rules that packets meet. A rule that refuses packets may be there because they come in where they do not
    /// belong, so it says nothing.
    pub fn of(rules: &[&[Met<'_>]]) -> Self {
        let mut said = Self::default();
        for met in rules.iter().copied().flatten() {
            if verdict(met.rule) == RuleVerdict::Refuse {
                continue;
            }
            let conditions = &met.conditions;
            if met.program.is_none() {
                let both = [ingress_of(conditions), egress(conditions)];
                said.interfaces.extend(both.into_iter().flatten());
            }
            if let (Some(out), TableName::Nat) = (egress(conditions), met.place.table) {
                let nets = conditions.source.iter().filter_map(|net| net.wanted());
                nets.for_each(|net| said.leaving.add(*net, &out));
            }
            let sources = (ingress_of(conditions), &conditions.source);
            let destinations = (egress(conditions), &conditions.destination);
            for (interface, nets) in [sources, destinations] {
                let Some(interface) = interface else {
                    continue;
                };
                let nets = nets.iter().filter_map(|net| net.wanted());
                for net in nets.filter(|net| net.prefix_len() > 0) {
                    said.named.add(*net, &interface);
                    if let Some(net) = around(*net) {
                        said.around.add(net, &interface);
                    }
                }
            }
            if let (Some(out), Some(Target::Snat { addresses, .. })) =
                (egress(conditions), &met.rule.target)
                && let Some(net) = around(IpNet::from(addresses.first()))
            {
                said.around.add(net, &out);
            }
        }
        said
    }

    /// Returns the interface behind which an address is, as far as rules say it and no two differ.
    pub fn side(&self, address: IpAddr) -> Option<&Interface> {
        (self.named.only_narrowest(address))
            .or_else(|| self.around.only_narrowest(address))
            .or_else(|| self.only_other(address))
    }

    /// Returns the one interface by which the network of an address does not leave.
    fn only_other(&self, address: IpAddr) -> Option<&Interface> {
        let leaving: BTreeSet<&Interface> = self.leaving.around(address).flatten().collect();
        let mut others = self.interfaces.iter().filter(|one| !leaving.contains(one));
        let only = others.next().filter(|_| !leaving.is_empty())?;
        others.next().is_none().then_some(only)
    }
}

/// The interfaces that rules give networks.
#[derive(Debug, Clone, Default)]
struct NetSides {
    by_net: HashMap<IpNet, BTreeSet<Interface>>,
    prefixes: BTreeSet<u8>,
}

impl NetSides {
    fn add(&mut self, net: IpNet, interface: &Interface) {
        self.prefixes.insert(net.prefix_len());
        let sides = self.by_net.entry(net.trunc()).or_default();
        if !sides.contains(interface) {
            sides.insert(interface.clone());
        }
    }

    /// Returns the interfaces of each network that holds an address, the narrowest first.
    fn around(&self, address: IpAddr) -> impl Iterator<Item = &BTreeSet<Interface>> {
        let nets = lookup::around(address, &self.prefixes);
        nets.filter_map(|net| self.by_net.get(&net))
    }

    /// Returns the interface of the narrowest network that holds an address, if it has one only.
    fn only_narrowest(&self, address: IpAddr) -> Option<&Interface> {
        let sides = self.around(address).next()?;
        sides.first().filter(|_| sides.len() == 1)
    }
}

/// Returns the network in which a host most probably is: a /24 of IPv4, a /64 of IPv6.
fn around(net: IpNet) -> Option<IpNet> {
    let prefix = match net {
        IpNet::V4(_) => 24,
        IpNet::V6(_) => 64,
    };
    (net.prefix_len() >= prefix)
        .then(|| IpNet::new(net.addr(), prefix).ok())?
        .map(|net| net.trunc())
}

/// Returns the one interface on which a rule's packets arrive.
pub fn ingress_of(conditions: &RuleConditions<'_>) -> Option<Interface> {
    conditions.ingress.iter().find_map(|pattern| match pattern {
        Is(pattern) => pattern.exact().cloned(),
        Not(_) => None,
    })
}

/// Returns the interface by which clients come in, and whether rules or routes name it: that of the default route, else of
/// the first DNAT rule with `-i`, else that by which networks are masqueraded, else any that a rule of the user's names
/// and behind which no target is.
pub fn entrance(
    family: Family,
    rules: &Ruleset,
    prerouting: &[Met<'_>],
    routes: &KnownRoutes,
    targets: &BTreeSet<Interface>,
) -> (Interface, bool) {
    let by_route = routes.default_side(family).cloned();
    let found = by_route.or_else(|| {
        let is_of_user = |(table, name, _): &(TableName, &ChainName, &Chain)| {
            owner_of(table.as_str(), name.as_str()).is_none()
        };
        let all = || {
            rules
                .chains()
                .filter(is_of_user)
                .flat_map(|(_, _, chain)| &chain.rules)
        };
        let is_target = |one: &&Interface| targets.contains(*one);
        let mut dnat = prerouting
            .iter()
            .filter(|met| is_dnat(met.rule) && met.program.is_none());
        let by_dnat = dnat.find_map(|met| ingress_of(&met.conditions));
        let by_source = || all().filter_map(rewritten_by).find(|one| !is_target(one));
        let by_any = || all().filter_map(ingress).find(|one| !is_target(one));
        by_dnat.or_else(|| by_source().or_else(by_any).cloned())
    });
    match found {
        Some(interface) => (interface, true),
        None => {
            let only = ONLY.parse().expect("it is the name of an interface");
            (only, false)
        }
    }
}

/// Returns the interface by which a rule rewrites the source of a network.
fn rewritten_by(rule: &Rule) -> Option<&Interface> {
    let name = rule.target.as_ref().map(Target::name);
    let has_source = rule
        .matches
        .iter()
        .any(|one| matches!(one, Match::Source(Is(_))));
    if !has_source || !matches!(name, Some("SNAT" | "MASQUERADE")) {
        return None;
    }
    rule.matches.iter().find_map(|condition| match condition {
        Match::Egress(Is(pattern)) => pattern.exact(),
        _ => None,
    })
}

pub fn is_dnat(rule: &Rule) -> bool {
    rule.target
        .as_ref()
        .is_some_and(|target| target.name() == "DNAT")
        && !matches!(rule.target, Some(Target::Jump(_)))
}

/// Returns the one interface on which the packets of a rule by itself arrive.
fn ingress(rule: &Rule) -> Option<&Interface> {
    rule.matches.iter().find_map(|condition| match condition {
        Match::Ingress(Is(pattern)) => pattern.exact().filter(|one| one.as_str() != "lo"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::{Draft, import};
    use crate::netfilter::text::parse::parse;

    fn imported(rules: &str, routes: &[(&str, &str)]) -> Draft {
        let rules = parse(rules).expect("it is readable");
        let routes = routes.iter().map(|(net, interface)| {
            let net = net.parse().expect("it is a network");
            (net, interface.parse().expect("it is a name"))
        });
        import(&[(Family::V4, rules)], &KnownRoutes(routes.collect()))
    }

    const ROUTES: [(&str, &str); 4] = [
        ("0.0.0.0/0", "wan"),
        ("10.45.0.0/24", "lan"),
        ("10.45.0.128/25", "dmz"),
        ("2001:db8::/32", "lan"),
    ];

    #[test]
    fn the_routes_of_the_machine_say_the_interfaces_of_forwards() {
        let draft = imported(
            "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -o other -j ACCEPT\n-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT\n\
             COMMIT\n*nat\n-A PREROUTING -d 192.0.2.8/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.45.0.5\n\
             -A PREROUTING -d 192.0.2.9/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.45.0.200\nCOMMIT\n",
            &ROUTES,
        );
        let sides = draft.set.forwards.iter().map(|one| {
            let ingress: Vec<&str> = one.ingress.iter().map(Interface::as_str).collect();
            (ingress.join(","), one.egress.as_str())
        });
        assert_eq!(
            sides.collect::<Vec<_>>(),
            [("wan".to_owned(), "lan"), ("wan".to_owned(), "dmz")]
        );
        assert_eq!(
            draft.notes,
            ["The FORWARD policy is DROP, and the spec sets it."]
        );
    }

    #[test]
    fn the_routes_of_the_machine_say_the_networks_of_outbound_entries() {
        let draft = imported(
            "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i lan -o wan -j ACCEPT\nCOMMIT\n\
             *nat\n-A POSTROUTING -o wan -j MASQUERADE\nCOMMIT\n",
            &ROUTES,
        );
        let [entry] = draft.set.outbound.as_slice() else {
            panic!("{draft:?}");
        };
        let net: IpNet = "10.45.0.0/24".parse().expect("it is a network");
        assert_eq!(entry.allow_from.as_slice(), [net]);
        // The interface behind which the sources are, and the way out, if the rules name neither.
        let draft = imported(
            "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -s 10.45.0.128/25 -o wan -j ACCEPT\nCOMMIT\n\
             *nat\n-A POSTROUTING -s 10.45.0.128/25 -j MASQUERADE\nCOMMIT\n",
            &ROUTES,
        );
        let [entry] = draft.set.outbound.as_slice() else {
            panic!("{draft:?}");
        };
        let sides = (entry.ingress[0].as_str(), entry.egress.as_str());
        assert_eq!(sides, ("dmz", "wan"));
    }

    #[test]
    fn the_default_route_is_no_side_of_a_network() {
        let routes = ROUTES.map(|(net, interface)| {
            let net = net.parse().expect("it is a network");
            (net, interface.parse().expect("it is a name"))
        });
        let routes = KnownRoutes(routes.to_vec());
        let address = |text: &str| text.parse::<IpAddr>().expect("it is an address");
        let name = |side: Option<&Interface>| side.map(|one| one.as_str().to_owned());
        for (asked, side, of_network) in [
            ("10.45.0.5", Some("lan"), Some("lan")),
            ("10.45.0.200", Some("dmz"), Some("dmz")),
            ("203.0.113.7", Some("wan"), None),
            ("2001:db8::1", Some("lan"), Some("lan")),
            ("2001:db9::1", None, None),
        ] {
            let side = side.map(str::to_owned);
            let of_network = of_network.map(str::to_owned);
            assert_eq!(name(routes.side(address(asked))), side, "{asked}");
            let found = name(routes.side_of_network(address(asked)));
            assert_eq!(found, of_network, "{asked}");
        }
        assert_eq!(name(routes.default_side(Family::V6)), None);
    }
}
