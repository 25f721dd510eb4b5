//! Machines that are made up: from a spec, or from the text of iptables-save, without a live machine.
//!
//! Every fact that the spec or the rules do not give is guessed as the table in docs/internals.md says (section "Machines
//! that are made up"). [`MadeUp::words`] says for people which machine came of it.
//!
//! The caller may name the sides of networks. These count before all guesses: the routes to them are in a table that is
//! looked up first. Only targets that forwards tell apart by ports come before it.

mod iproute;
mod links;
mod outline;
mod paths;
pub mod saved;
mod sides;
mod spec;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::machine::Machine;
use super::switches::Switches;
use crate::forwards::ForwardSet;
use crate::net::words::few;
use crate::net::{Family, Interface};
use crate::netfilter::ruleset::Ruleset;
use links::OnLink;
use outline::Outline;
use paths::PathMaker;
use sides::Sides;

/// The most networks behind an interface that are named.
const MOST_NAMED: usize = 4;

/// A machine that is made up.
#[derive(Debug, Clone)]
pub struct MadeUp {
    pub machine: Machine,
    /// Describes the interfaces with their addresses and the networks behind them, a line each.
    pub words: Vec<String>,
    sides: Sides,
}

impl MadeUp {
    /// Makes up a machine on which a spec can work. `routes` are networks whose interfaces the caller knows: packets to
    /// them leave there. If two have one network, the first one counts. An interface that the spec does not name is
    /// added.
    #[must_use]
    pub fn of_spec(set: &ForwardSet, routes: &[(IpNet, Interface)]) -> Self {
        Self::of(spec::outline(set), routes)
    }

    /// Makes up a machine as [`MadeUp::of_spec`] does, with more interfaces than the spec names.
    #[must_use]
    pub fn with_interfaces(
        set: &ForwardSet,
        interfaces: &[Interface],
        routes: &[(IpNet, Interface)],
    ) -> Self {
        let mut outline = spec::outline(set);
        for interface in interfaces {
            outline.add_interface(interface);
        }
        Self::of(outline, routes)
    }

    /// Makes up a machine on which rules may work. `routes` are as for [`MadeUp::of_spec`].
    #[must_use]
    pub fn of_rules(rules: &[(Family, Ruleset)], routes: &[(IpNet, Interface)]) -> Self {
        Self::of(saved::outline(rules, None), routes)
    }

    /// Makes up a machine as [`MadeUp::of_rules`] does, for a connection to an address, if it is not the machine's.
    #[must_use]
    pub fn of_rules_to(
        rules: &[(Family, Ruleset)],
        to: Option<IpAddr>,
        routes: &[(IpNet, Interface)],
    ) -> Self {
        Self::of(saved::outline(rules, to), routes)
    }

    /// Returns the interface by which the machine's own packets to an address leave; `None` in a family without
    /// addresses.
    #[must_use]
    pub fn side(&self, address: IpAddr) -> Option<&Interface> {
        self.sides.of(address)
    }

    /// Returns whether the machine has an address, or a fact names a network that holds it.
    #[must_use]
    pub fn knows(&self, address: IpAddr) -> bool {
        let is_named = |net: IpNet| self.sides.exact(net).is_some();
        let host = IpNet::from(address);
        let lengths = (1..=host.max_prefix_len()).rev();
        let mut nets = lengths.filter_map(|length| IpNet::new(address, length).ok());
        nets.any(is_named) || self.machine.addresses().contains(&address)
    }

    fn of(mut outline: Outline<'_>, routes: &[(IpNet, Interface)]) -> Self {
        let mut sides = Sides::default();
        for (net, interface) in routes {
            outline.add_interface(interface);
            sides.claim(*net, interface);
        }
        for (family, interface) in &outline.default {
            sides.claim(family.everything(), interface);
        }
        for (net, interface) in &outline.behind {
            sides.claim(*net, interface);
        }
        let on_links = links::on_links(&outline, &sides);
        let mut machine = Machine {
            links: links::links(&outline, &on_links),
            switches: switches(&outline.interfaces),
            ..Machine::default()
        };
        let mut special = BTreeSet::new();
        for family in &outline.families {
            let demands = outline.demands.iter();
            let of_family = |net: IpNet| Family::of(net.addr()) == *family;
            let maker = PathMaker {
                family: *family,
                links: on_links.iter().filter(|link| of_family(link.own)).collect(),
                named: routes,
                sides: &sides,
                demands: demands.filter(|demand| of_family(demand.to)).collect(),
            };
            let paths = maker.paths();
            let routes = paths.routes.into_iter();
            machine.routes.extend(routes.map(|one| (*family, one)));
            let rules = paths.rules.into_iter();
            machine.rules.extend(rules.map(|one| (*family, one)));
            special.extend(paths.special);
        }
        for link in &on_links {
            sides.claim(link.own, link.interface);
        }
        let mut words = words(&outline, &on_links, &sides);
        words.extend(special.iter().map(|interface| {
            format!("packets that come in by {interface} have routes of their own, since forwards of the spec need them")
        }));
        // A family that the outline does not use has the kernel's own rules.
        for family in Family::ALL {
            if !outline.families.contains(&family) {
                let rules = iproute::standard_rules(family).into_iter();
                machine.rules.extend(rules.map(|one| (family, one)));
            }
        }
        Self {
            machine,
            words,
            sides,
        }
    }
}

/// Describes each interface.
fn words(outline: &Outline<'_>, on_links: &[OnLink<'_>], sides: &Sides) -> Vec<String> {
    let each = outline.interfaces.iter().filter_map(|interface| {
        let links = on_links.iter().filter(|link| link.interface == interface);
        let addresses = links.clone().map(|link| {
            let made_up = if link.is_made_up { " (made up)" } else { "" };
            format!("{}{made_up}", link.own)
        });
        let addresses: Vec<String> = addresses.collect();
        if addresses.is_empty() {
            return None;
        }
        let is_on_link = |net: IpNet| links.clone().any(|link| link.own.trunc() == net);
        let is_named = |net: IpNet| {
            net.prefix_len() == 0 || sides.around(net) != Some(interface) && !is_on_link(net)
        };
        let families = outline.families.iter();
        let here = families.flat_map(|family| sides.of_family(*family));
        let here = here.filter(|(net, side)| *side == interface && is_named(*net));
        let here = here.map(|(net, _)| net);
        let (all, some): (Vec<IpNet>, Vec<IpNet>) = here.partition(|net| net.prefix_len() == 0);
        let mut behind: Vec<String> = Vec::new();
        if !some.is_empty() {
            behind.push(few(some.into_iter().map(shown), MOST_NAMED));
        }
        if !all.is_empty() {
            behind.push("all other networks".to_owned());
        }
        let behind = if behind.is_empty() {
            String::new()
        } else {
            format!("; behind it: {}", behind.join(", "))
        };
        Some(format!(
            "{interface} has {}{behind}",
            addresses.join(" and ")
        ))
    });
    each.collect()
}

/// Returns a network as people write it.
fn shown(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

/// Returns the switches of a machine that forwards. A new namespace takes over those of IPv4 from the live machine, so
/// all that change the path of a packet are set. The values are the kernel's own but for forwarding and `rp_filter`.
fn switches(interfaces: &[Interface]) -> Switches {
    const V4: [(&str, &str); 13] = [
        ("forwarding", "1"),
        ("rp_filter", "0"),
        ("accept_local", "0"),
        ("route_localnet", "0"),
        ("src_valid_mark", "0"),
        ("accept_source_route", "0"),
        ("send_redirects", "1"),
        ("shared_media", "1"),
        ("arp_announce", "0"),
        ("arp_filter", "0"),
        ("arp_ignore", "0"),
        ("proxy_arp", "0"),
        ("ignore_routes_with_linkdown", "0"),
    ];
    const V6: [(&str, &str); 4] = [
        ("forwarding", "1"),
        ("disable_ipv6", "0"),
        ("accept_source_route", "0"),
        ("ignore_routes_with_linkdown", "0"),
    ];
    let mut all = vec![("ipv4/ip_forward".to_owned(), "1".to_owned())];
    let names = interfaces.iter().map(Interface::as_str);
    for interface in ["all", "default"].into_iter().chain(names) {
        let v4 = V4.iter().map(|one| ("ipv4", one));
        let v6 = V6.iter().map(|one| ("ipv6", one));
        all.extend(v4.chain(v6).map(|(family, (name, value))| {
            let name = format!("{family}/conf/{interface}/{name}");
            (name, (*value).to_owned())
        }));
    }
    Switches::of(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::routes;
    use crate::yaml;

    fn made_up(spec: &str, known: &[(&str, &str)]) -> MadeUp {
        let text = format!("{spec}\nsilence: [keeps-probes-out, outbound-overlap, policy-kept]");
        let set = yaml::read(text.as_bytes()).expect("the spec is valid");
        let known = known.iter().map(|(net, interface)| {
            let interface = interface.parse().expect("a name");
            (net.parse().expect("a network"), interface)
        });
        MadeUp::of_spec(&set, &known.collect::<Vec<_>>())
    }

    /// Returns the words of `ip` that make the routes of the main table by a router, and the policy rules.
    fn paths(made_up: &MadeUp) -> Vec<String> {
        let machine = &made_up.machine;
        let listed = machine.routes.iter().map(|(_, route)| route);
        let routed = listed.filter(|route| !route["gateway"].is_null());
        let route = |route| routes::route(route).expect("it has known keys");
        let rules = machine.rules.iter().map(|(_, rule)| rule);
        let own =
            rules.filter(|rule| (1..32_000).contains(&rule["priority"].as_u64().unwrap_or(0)));
        let rule = |rule| routes::rule(rule).expect("it has known keys");
        routed.map(route).chain(own.map(rule)).collect()
    }

    #[test]
    fn a_spec_says_which_addresses_and_networks_an_interface_has() {
        for (spec, words, routes) in [
            (
                "firewall: {interface: eth0, snat: 10.3.0.4}\n\
                 forwards: [{name: a, listen: 80, target: {pod: 10.224.0.8:80}}]",
                &["eth0 has 10.3.0.4/24; behind it: all other networks"][..],
                &["default via 10.3.0.1 dev eth0 proto static scope global table main"][..],
            ),
            (
                "firewall: {interface: {ingress: eth0, egress: eth1}, snat: masquerade}\n\
                 forwards:\n\
                 - {name: a, listen: '10.3.0.1:80', snat: 10.4.0.4, target: {pod: '10.224.0.8:80'}}\n\
                 - {name: b, listen: 81, snat: masquerade, target: {pod: '10.224.0.9:80'}}\n\
                 - {name: c, listen: 82, target: {pod: '[fd00:224::9]:80'}}",
                &[
                    "eth0 has 10.3.0.1/24 and fd00:198:18::4/64 (made up); behind it: all other networks",
                    "eth1 has 10.4.0.4/24 and fd00:198:18:1::4/64 (made up); \
                     behind it: 10.224.0.8, 10.224.0.9, fd00:224::9",
                ],
                &[
                    "default via 10.3.0.2 dev eth0 proto static scope global table main",
                    "10.224.0.8 via 10.4.0.1 dev eth1 proto static scope global table main",
                    "10.224.0.9 via 10.4.0.1 dev eth1 proto static scope global table main",
                    "default via fd00:198:18::1 dev eth0 metric 1024 pref medium proto static scope global table main",
                    "fd00:224::9 via fd00:198:18:1::1 dev eth1 metric 1024 pref medium proto static scope global table main",
                ],
            ),
            // Outbound entries alone: the Internet is behind the egress.
            (
                "firewall: {interface: {ingress: eth0, egress: eth1}}\n\
                 outbound: [{name: a, allow_from: [10.224.0.0/16], allow_to: [internet, 10.50.0.0/16]}]",
                &[
                    "eth0 has 198.18.0.4/24 (made up); behind it: all other networks",
                    "eth1 has 198.18.1.4/24 (made up); behind it: 10.224.0.0/16",
                ],
                &[
                    "default via 198.18.0.1 dev eth0 proto static scope global table main",
                    "10.224.0.0/16 via 198.18.1.1 dev eth1 proto static scope global table main",
                ],
            ),
        ] {
            let made_up = made_up(spec, &[]);
            assert_eq!(made_up.words, words);
            assert_eq!(paths(&made_up), routes);
        }
    }

    #[test]
    fn an_address_that_two_interfaces_claim_belongs_to_the_one_of_snat() {
        let made_up = made_up(
            "firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4}\n\
             forwards: [{name: a, listen: '10.4.0.4:80', target: {pod: 10.4.0.8:80}}]",
            &[],
        );
        assert_eq!(
            made_up.words,
            [
                "eth0 has 198.18.0.4/24 (made up); behind it: all other networks",
                "eth1 has 10.4.0.4/24"
            ]
        );
    }

    #[test]
    fn forwards_that_disagree_about_a_target_are_told_apart_by_their_ports() {
        let made_up = made_up(
            "firewall: {interface: {ingress: eth0, egress: eth1}, snat: masquerade}\n\
             forwards:\n\
             - {name: a, listen: 80, target: {pod: '10.224.0.8:80'}}\n\
             - {name: b, listen: 81, target: {pod: '10.224.0.8:81'}, interface: {egress: eth2}}",
            &[],
        );
        let paths = paths(&made_up);
        let of_port =
            "dport 81 to 10.224.0.8 iif eth0 ipproto tcp priority 100 from all lookup 2002";
        let by_port = paths.iter().find(|words| words.contains("dport"));
        assert_eq!(by_port.map(String::as_str), Some(of_port));
        let exit = "default via 198.18.2.1 dev eth2 proto static scope global table 2002";
        assert!(paths.iter().any(|words| words == exit), "{paths:#?}");
        assert!(
            made_up
                .words
                .iter()
                .any(|words| words.contains("packets that come in by eth0")),
            "{:?}",
            made_up.words
        );
    }

    #[test]
    fn a_network_that_the_caller_knows_is_behind_the_named_interface() {
        let spec = "firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4}\n\
             forwards: [{name: a, listen: 80, target: {pod: 10.224.0.8:80}}]";
        let known = [("198.51.100.7/32", "eth2"), ("10.224.0.8/32", "eth0")];
        let made_up = made_up(spec, &known);
        for (address, side) in [
            ("198.51.100.7", "eth2"),
            ("198.51.100.8", "eth0"),
            ("10.4.0.9", "eth1"),
            ("10.224.0.8", "eth0"),
        ] {
            let found = made_up.side(address.parse().expect("an address"));
            assert_eq!(found.map(Interface::as_str), Some(side), "{address}");
        }
    }

    /// A test says by which interface its client comes in. Detours for narrow networks must not lead the reply elsewhere.
    #[test]
    fn the_network_that_the_caller_knows_comes_before_all_detours() {
        let made_up = made_up(
            "firewall: {interface: {ingress: eth0, egress: eth1}, snat: masquerade}\n\
             outbound:\n\
             - {name: a, allow_from: [10.1.0.0/16], allow_to: [192.0.2.0/24]}\n\
             - {name: b, allow_from: [10.2.0.0/16], allow_to: [192.0.2.0/24], interface: {egress: eth2}}",
            &[("192.0.2.7/32", "eth3")],
        );
        let paths = paths(&made_up);
        let of_rules = paths.iter().filter(|words| words.contains("priority"));
        let rules: Vec<&String> = of_rules.collect();
        assert!(rules[0].ends_with("from all lookup 999"), "{rules:#?}");
        let is_detour = |words: &&&String| words.contains("to 192.0.2.0/24");
        assert_eq!(rules[1..].iter().filter(is_detour).count(), 2, "{rules:#?}");
    }

    /// Equal routes of two interfaces would make one of them useless.
    #[test]
    fn the_networks_of_interfaces_do_not_overlap() {
        let made_up = made_up(
            "firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.3.0.9}\n\
             forwards: [{name: a, listen: '10.3.0.4:80', target: {pod: 10.224.0.8:80}}]",
            &[],
        );
        assert_eq!(
            made_up.words,
            [
                "eth0 has 10.3.0.4/29; behind it: all other networks",
                "eth1 has 10.3.0.9/29; behind it: 10.224.0.8"
            ]
        );
    }
}
