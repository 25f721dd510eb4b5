//! Routes with several next hops. The kernel chooses one of them for each connection, and on the machine it may choose
//! another one than in the twin.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use super::known_path::KnownPath;
use super::machine::Machine;
use super::routes;
use crate::net::Family;
use crate::net::words::counted;

impl Machine {
    /// Returns how many next hops the route to an address has, if these are several. The routing table is not known, so
    /// it is the largest number of all tables.
    #[must_use]
    pub fn next_hops(&self, to: IpAddr) -> Option<usize> {
        let several = self.several_to(to).map(|route| hops(route).count());
        several.max().filter(|count| *count > 1)
    }

    /// Names the routes to the ends of a connection whose next hop the kernel may choose otherwise than in the twin, and
    /// whose next hops lead to different places.
    #[must_use]
    pub fn choices(&self, path: &KnownPath<'_>) -> Vec<String> {
        let family = path.family();
        let routes: Vec<&Value> = if path.reached.is_some() {
            let ends = path.destinations().chain(path.sources());
            let ends: BTreeSet<IpAddr> = ends.collect();
            ends.into_iter()
                .flat_map(|to| self.several_to(to))
                .collect()
        } else {
            // Nobody knows to which address the packet was translated before it was lost.
            let all = self.of_family(family);
            all.filter(|route| hops(route).nth(1).is_some()).collect()
        };
        let uncertain = routes
            .into_iter()
            .filter(|route| self.is_uncertain(route, family));
        let words = uncertain.map(|route| {
            format!(
                "the choice among the {} of the route to {}",
                counted(hops(route).count(), "next hop"),
                route["dst"].as_str().unwrap_or("an unknown network"),
            )
        });
        let words: BTreeSet<String> = words.collect();
        words.into_iter().collect()
    }

    /// Returns the routes with several next hops that lead to an address. A longer prefix in the same table takes
    /// precedence.
    fn several_to(&self, to: IpAddr) -> impl Iterator<Item = &Value> {
        let family = Family::of(to);
        let length = move |route: &Value| {
            let net = routes::destination(route, family)?;
            net.contains(&to).then_some(net.prefix_len())
        };
        let is_first = move |route: &Value, length_of: u8| {
            let mut same = self
                .of_family(family)
                .filter(|other| other["table"] == route["table"]);
            !same.any(|other| length(other).is_some_and(|longer| longer > length_of))
        };
        let several = self
            .of_family(family)
            .filter(|route| hops(route).nth(1).is_some());
        several.filter(move |route| length(route).is_some_and(|of| is_first(route, of)))
    }

    fn of_family(&self, family: Family) -> impl Iterator<Item = &Value> {
        let all = self.routes.iter().filter(move |(of, _)| *of == family);
        all.map(|(_, route)| route)
    }

    /// Returns whether the choice is not the same in the twin, and matters. By IPv4 the kernel chooses by the addresses
    /// alone unless it is told otherwise (`fib_multipath_hash_policy`), with a secret that all namespaces share
    /// (`fib_multipath_hash` in net/ipv4/route.c).
    fn is_uncertain(&self, route: &Value, family: Family) -> bool {
        let policy = self.switches.get("ipv4/fib_multipath_hash_policy");
        let is_resilient = route["nh_info"]["type"] == "resilient";
        let is_by_addresses = policy.is_none_or(|policy| policy == "0") && !is_resilient;
        let is_fixed = family == Family::V4 && is_by_addresses;
        let interfaces: BTreeSet<Option<&str>> =
            hops(route).map(|hop| hop["dev"].as_str()).collect();
        let is_dead = |hop: &Value| {
            let gateway = hop["gateway"].as_str().and_then(|one| one.parse().ok());
            gateway.is_some_and(|gateway| self.is_dead(gateway))
        };
        !is_fixed && (interfaces.len() > 1 || hops(route).any(is_dead))
    }
}

fn hops(route: &Value) -> impl Iterator<Item = &Value> {
    route["nexthops"].as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use serde_json::json;

    use super::*;
    use crate::twin::connection_end::Reached;
    use crate::twin::switches::Switches;

    #[test]
    fn a_choice_among_next_hops_is_named_if_it_may_differ_and_matters() {
        let several = |dst: &str, by: [&str; 2]| {
            json!({"dst": dst, "table": "main", "nexthops": [
                {"gateway": "10.3.0.7", "dev": by[0]}, {"gateway": "10.3.0.8", "dev": by[1]},
            ]})
        };
        let two = ["eth0", "eth1"];
        let one =
            json!({"dst": "10.224.0.0/16", "table": "main", "gateway": "10.4.0.1", "dev": "eth1"});
        let choices = |family: Family, routes: &[Value], policy: &str, is_reached: bool| {
            let machine = Machine {
                routes: routes.iter().map(|route| (family, route.clone())).collect(),
                switches: Switches::of([(
                    "ipv4/fib_multipath_hash_policy".to_owned(),
                    policy.to_owned(),
                )]),
                ..Machine::default()
            };
            let ends = match family {
                Family::V4 => ["198.51.100.7", "10.3.0.4", "10.224.0.118"],
                Family::V6 => ["2001:db8::7", "fd00:3::4", "fd00:224::118"],
            };
            let [client, to, target] = ends.map(|end| end.parse::<IpAddr>().expect("an address"));
            let reached = Reached {
                world: 1,
                source: SocketAddr::new(to, 40_000),
                target: SocketAddr::new(target, 80),
            };
            machine.choices(&KnownPath {
                client,
                to,
                ingress: Some("eth0"),
                reached: is_reached.then_some((reached, "eth1")),
            })
        };
        let found =
            |family: Family, routes: &[Value], policy: &str| choices(family, routes, policy, true);
        let wide = several("10.0.0.0/8", two);
        let words = "the choice among the 2 next hops of the route to 10.0.0.0/8";
        assert_eq!(found(Family::V4, std::slice::from_ref(&wide), "1"), [words]);
        // The kernel chooses the same hop in both.
        assert!(found(Family::V4, std::slice::from_ref(&wide), "0").is_empty());
        // Both hops lead to the same world.
        let same = several("10.0.0.0/8", ["eth1", "eth1"]);
        assert!(found(Family::V4, &[same], "1").is_empty());
        // The target has a route of its own; the source is the machine's own.
        let narrow = several("10.224.0.0/17", two);
        assert_eq!(found(Family::V4, &[one.clone(), narrow], "1").len(), 1);
        let narrower = several("10.224.0.0/15", two);
        assert!(found(Family::V4, &[one, narrower], "1").is_empty());
        // A lost packet may have gone anywhere.
        let elsewhere = [several("10.9.0.0/16", two)];
        assert!(found(Family::V4, &elsewhere, "1").is_empty());
        assert_eq!(choices(Family::V4, &elsewhere, "1", false).len(), 1);
        assert!(choices(Family::V4, &elsewhere, "0", false).is_empty());
        // The way back to the client.
        assert_eq!(found(Family::V4, &[several("default", two)], "1").len(), 1);
        assert_eq!(found(Family::V6, &[several("default", two)], "0").len(), 1);
    }
}
