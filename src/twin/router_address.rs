//! The machine as the router of the hosts behind an interface: the address that they send their packets to.

use std::net::IpAddr;

use super::machine::{Address, Machine, MachineLink};
use crate::net::Family;

/// Returns the machine's address that hosts behind an interface use as their router. An interface may have none of its
/// own, such as the one of a container with a route for its address alone. By IPv4 the kernel then answers there for the
/// addresses of its other interfaces, and by IPv6 the interface has a link-local one.
#[must_use]
pub fn router_address(machine: &Machine, link: &MachineLink, family: Family) -> Option<IpAddr> {
    let is_beside_hosts = |one: &&Address| is_near(one) && one.scope != "link";
    let with_net = link.of(family).find(is_beside_hosts);
    let on_link = with_net.map(|one| one.net.addr());
    let elsewhere = || match family {
        Family::V4 if answers_for_others(machine, link) => {
            let mut others = machine.links.iter().filter(|other| other.up);
            others.find_map(|other| other.first(family).filter(|one| !one.is_loopback()))
        }
        Family::V4 => None,
        Family::V6 => link.of(family).next().map(|one| one.net.addr()),
    };
    on_link.or_else(|| link.first(family)).or_else(elsewhere)
}

/// Returns whether there may be other hosts in the network of an address.
#[must_use]
pub fn is_near(address: &Address) -> bool {
    address.peer.is_some() || address.net.prefix_len() < address.net.max_prefix_len()
}

/// Returns whether an interface answers for the IPv4 addresses of other interfaces (`arp_ignore` in
/// Documentation/networking/ip-sysctl.rst).
fn answers_for_others(machine: &Machine, link: &MachineLink) -> bool {
    let is_zero = |interface: &str| {
        let name = format!("ipv4/conf/{interface}/arp_ignore");
        machine.switches.get(&name).is_none_or(|value| value == "0")
    };
    is_zero("all") && is_zero(&link.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::switches::Switches;

    #[test]
    fn the_router_s_address_is_on_the_link_if_there_is_one() {
        let link = |addresses: &[&str]| MachineLink::with("eth1", addresses);
        let found = |addresses: &[&str], family: Family, ignore: &str| {
            let mut link = link(addresses);
            for one in &mut link.addresses {
                if one.net.to_string().starts_with("fe80") {
                    "link".clone_into(&mut one.scope);
                }
            }
            let machine = Machine {
                links: vec![
                    MachineLink::with("lo", &["127.0.0.1/8"]),
                    link.clone(),
                    MachineLink::with("eth0", &["10.3.0.4/24", "fd00:3::4/64"]),
                ],
                switches: Switches::of([(
                    "ipv4/conf/eth1/arp_ignore".to_owned(),
                    ignore.to_owned(),
                )]),
                ..Machine::default()
            };
            let found = router_address(&machine, &link, family);
            found.map(|one| one.to_string()).unwrap_or_default()
        };
        let (v4, v6) = (Family::V4, Family::V6);
        assert_eq!(found(&["10.4.0.4/24"], v4, "0"), "10.4.0.4");
        let virtual_first = ["192.0.2.1/32", "10.4.0.4/24"];
        assert_eq!(found(&virtual_first, v4, "2"), "10.4.0.4");
        assert_eq!(found(&["192.0.2.1/32"], v4, "1"), "192.0.2.1");
        assert_eq!(found(&["fe80::5/64"], v4, "0"), "10.3.0.4");
        assert_eq!(found(&["fe80::5/64"], v4, "1"), "");
        assert_eq!(found(&["fe80::5/64"], v6, "0"), "fe80::5");
        assert_eq!(found(&["fe80::5/64", "fd00:4::4/64"], v6, "0"), "fd00:4::4");
        assert_eq!(found(&[], v6, "0"), "");
    }
}
