//! Networks that clients may come from: those on the machine's links, those that its routes lead to, and those
//! that rules name.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::forwards::ForwardSet;
use crate::net::{Family, Interface};
use crate::netfilter::conntrack::is_of_host;
use crate::twin::machine::{Address, LinkKind, Machine};
use crate::twin::rules::PacketFilter;

/// Networks and ports in rules that are not nvactl's. Packets of each may meet rules that no others meet.
#[derive(Debug, Default)]
pub struct NamedInRules {
    pub networks: BTreeSet<IpNet>,
    /// Networks that packets go to. Networks of targets and of the machine itself are among them.
    pub destinations: BTreeSet<IpNet>,
    pub ports: BTreeSet<u16>,
}

impl NamedInRules {
    /// Gathers them from the packet filter and the policy rules.
    #[must_use]
    pub fn by(filter: &PacketFilter, machine: &Machine) -> Self {
        let mut named = filter.networks();
        named.sources.extend(machine.sources());
        named.destinations.extend(machine.destinations());
        Self {
            networks: named.sources,
            destinations: named.destinations,
            ports: filter.ports(),
        }
    }

    /// Returns the networks of clients that replies go to. `taken` holds addresses that no client has.
    pub(super) fn of_replies(&self, taken: &BTreeSet<IpAddr>) -> BTreeSet<IpNet> {
        let others = self.destinations.difference(&self.networks);
        let is_of_client = |net: &&IpNet| !taken.iter().any(|address| net.contains(address));
        others.filter(is_of_client).copied().collect()
    }
}

/// Returns whether a router leads to a network of clients. A network of targets does not count.
pub fn is_routed(set: &ForwardSet, machine: &Machine, family: Family) -> bool {
    let links = machine.links.iter().flat_map(|link| &link.addresses);
    let on_link: BTreeSet<IpNet> = links.map(Address::on_link).collect();
    let has_target = |net: &IpNet| {
        let mut targets = set.forwards.iter().flat_map(|one| &one.target.destinations);
        targets.any(|to| net.contains(&to.address))
    };
    let near = near(set, machine);
    let mut routed = near.difference(&on_link);
    routed.any(|net| Family::of(net.addr()) == family && !has_target(net))
}

/// Returns the networks on the links of ingress interfaces, and those that a router there leads to.
pub fn near(set: &ForwardSet, machine: &Machine) -> BTreeSet<IpNet> {
    let ingresses = set.forwards.iter().flat_map(|forward| &forward.ingress);
    of_interfaces(machine, &ingresses.map(Interface::as_str).collect())
}

/// Returns the networks on the links of some interfaces, and those that a router there leads to. The default
/// route does not count.
pub fn of_interfaces(machine: &Machine, interfaces: &BTreeSet<&str>) -> BTreeSet<IpNet> {
    let links = machine.links.iter();
    let links = links
        .filter(|link| interfaces.contains(link.name.as_str()) && link.kind != LinkKind::Loopback);
    let mut nets: BTreeSet<IpNet> = links
        .flat_map(|link| &link.addresses)
        .filter(|address| address.scope != "link")
        .map(Address::on_link)
        .filter(|net| net.prefix_len() < net.max_prefix_len())
        .collect();
    let routed = machine.routes.iter().filter_map(|(_, route)| {
        let by = route["dev"].as_str().filter(|by| interfaces.contains(by))?;
        let is_routed = !by.is_empty() && !route["gateway"].is_null() && route["table"] == "main";
        let text = route["dst"].as_str().filter(|_| is_routed)?;
        text.parse::<IpNet>().ok()
    });
    nets.extend(routed);
    nets
}

/// Returns whether a client may come from a network through a router. The kernel refuses to bind sockets to
/// addresses of other networks.
pub fn is_of_hosts(net: IpNet) -> bool {
    is_of_host(net.addr())
}

/// Iterates over the addresses of a network that a host can have. The IPv6 address without any host's bits is that of all
/// routers (RFC 4291, 2.6.1), but not on links between routers (RFC 6164).
pub fn hosts(net: IpNet) -> impl Iterator<Item = IpAddr> {
    let of_routers = net.network();
    let has_one = of_routers.is_ipv6() && net.prefix_len() < 127;
    net.hosts()
        .filter(move |address| !(has_one && *address == of_routers))
}

/// Returns the first of some hosts of a network for which `holds` is true.
pub fn host_of(net: IpNet, holds: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    // The first hosts of a network are often its gateways.
    let is_large = net.max_prefix_len() - net.prefix_len() > 3;
    let first = match net {
        IpNet::V4(_) => 6,
        IpNet::V6(_) => 5,
    };
    let mut hosts = hosts(net).skip(usize::from(is_large) * first).take(256);
    hosts.find(|address| holds(*address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_host_has_the_address_of_all_routers() {
        for (net, host) in [
            ("fd00::/125", "fd00::1"),
            ("fd00::/127", "fd00::"),
            ("fd00::/64", "fd00::6"),
            ("fd00::8/128", "fd00::8"),
            ("10.3.0.0/29", "10.3.0.1"),
        ] {
            let found = host_of(net.parse().expect("a network"), |_| true);
            assert_eq!(found.map(|one| one.to_string()).as_deref(), Some(host));
        }
    }

    #[test]
    fn no_client_comes_from_a_network_without_hosts() {
        let is_of_hosts = |net: &str| is_of_hosts(net.parse().expect("a network"));
        for net in [
            "0.0.0.0/8",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "224.0.0.0/4",
            "240.0.0.0/4",
            "::1/128",
            "fe80::/10",
            "ff00::/8",
        ] {
            assert!(!is_of_hosts(net), "{net}");
        }
        for net in ["10.0.0.0/8", "203.0.113.7/32", "2001:db8::/32", "fd00::/8"] {
            assert!(is_of_hosts(net), "{net}");
        }
    }
}
