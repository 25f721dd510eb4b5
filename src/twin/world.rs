//! A world behind one interface of a twin. It owns the gateways' addresses, answers for every other address there,
//! and sends everything to the machine.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use super::batch;
use super::batch::IpError;
use super::machine::{Address, Machine, MachineLink};
use super::netns::Netns;
use super::router_address::{is_near, router_address};
use super::switches;
use crate::net::Family;

/// Returns the largest segment that hosts of the Internet accept: they do not know how small the MTU of the machine's
/// link is.
#[must_use]
pub const fn longest_segment(family: Family) -> u16 {
    match family {
        Family::V4 => 1460,
        Family::V6 => 1440,
    }
}

/// The MTU of a link of ordinary Ethernet.
const ORDINARY_MTU: u64 = 1500;

/// The routing table by which the world accepts every address as its own.
const ANY: u32 = 100;

/// The hardware address of both ends, if the machine's interface has none.
pub(super) const NO_MAC: &str = "02:00:00:00:00:01";

/// The network behind one interface.
#[derive(Debug)]
pub struct World {
    /// The machine's interface that leads to the world.
    pub interface: String,
    pub netns: Netns,
    /// The world's own interface, and the hardware address of that one.
    port: String,
    mac: String,
    /// The networks on the link between machine and world: those of the interface's addresses.
    on_link: Vec<IpNet>,
    /// The networks that the machine's routes expect on the link.
    routed: BTreeSet<IpNet>,
}

impl World {
    /// Makes the namespace of the world behind an interface. The calling thread is in the world afterwards.
    ///
    /// # Errors
    /// As [`Netns::make`].
    pub fn make(machine: &Machine, link: &MachineLink, number: usize) -> io::Result<Self> {
        let netns = Netns::make()?;
        for (name, value) in [
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv4/conf/default/accept_local", "1"),
            ("ipv4/conf/all/accept_local", "1"),
            ("ipv4/conf/all/accept_redirects", "0"),
            ("ipv4/conf/default/accept_redirects", "0"),
            ("ipv4/icmp_ratelimit", "0"),
            ("ipv4/ip_nonlocal_bind", "1"),
            ("ipv6/ip_nonlocal_bind", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/default/forwarding", "1"),
            ("ipv6/conf/all/proxy_ndp", "1"),
            ("ipv6/conf/default/proxy_ndp", "1"),
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/all/accept_redirects", "0"),
            ("ipv6/conf/default/accept_redirects", "0"),
            ("ipv6/icmp/ratelimit", "0"),
        ] {
            switches::set(name, value);
        }
        Ok(Self {
            interface: link.name.clone(),
            netns,
            port: format!("o{number}"),
            // Layer 3 devices know no hardware addresses, so both ends have the same one.
            mac: match link.mac {
                Some(_) => format!("02:00:00:{:02x}:{:02x}:fe", number >> 8, number & 0xff),
                None => NO_MAC.to_owned(),
            },
            on_link: on_link(link),
            routed: machine.routed_on_link(&link.name),
        })
    }

    /// Returns the hardware address by which the machine reaches the world.
    #[must_use]
    pub fn mac(&self) -> &str {
        &self.mac
    }

    /// Returns the name of the world's own interface.
    #[must_use]
    pub fn port(&self) -> &str {
        &self.port
    }

    /// Gives the world its addresses and routes. The calling thread is in the world.
    ///
    /// # Errors
    /// If `ip` is missing.
    pub fn settle(&self, machine: &Machine, link: &MachineLink) -> Result<(), IpError> {
        let port = &self.port;
        let mut up = String::from("link set lo up\n");
        if link.carrier {
            let _ = writeln!(up, "link set dev {port} up");
        }
        batch::run(&[], &up)?;
        // The kernel answers for other addresses at once.
        switches::set(&format!("ipv6/neigh/{port}/proxy_delay"), "0");
        let dead: BTreeSet<IpAddr> = machine
            .neighbours
            .iter()
            .filter(|one| one.interface == link.name && one.failed)
            .map(|one| one.address)
            .collect();
        let mut own = machine.gateways(&link.name);
        own.retain(|gateway| !dead.contains(gateway));
        // If the world had no address on the link, it would ask for the machine's hardware address with a source that
        // a strict rp_filter does not answer.
        if own.iter().all(IpAddr::is_ipv6) {
            let mut taken = machine.gateways(&link.name);
            taken.extend(&dead);
            own.extend(self.free_address(link, &taken));
        }
        for (family, option) in [(Family::V4, "-4"), (Family::V6, "-6")] {
            let mut text = String::new();
            for address in own.iter().filter(|one| Family::of(**one) == family) {
                let length = match address {
                    IpAddr::V4(_) => 32,
                    IpAddr::V6(address) if address.is_unicast_link_local() => 64,
                    IpAddr::V6(_) => 128,
                };
                let nodad = if address.is_ipv6() { " nodad" } else { "" };
                let _ = writeln!(text, "address add {address}/{length} dev {port}{nodad}");
            }
            let _ = writeln!(text, "rule add iif {port} lookup {ANY} priority 10");
            let _ = writeln!(text, "route add local default dev lo table {ANY}");
            for address in dead.iter().filter(|one| Family::of(**one) == family) {
                let _ = writeln!(text, "route add unreachable {address} table {ANY}");
            }
            let leads_everywhere = machine.leads_everywhere(&link.name, family);
            let longest = format!(" advmss {}", longest_segment(family));
            let beside = if leads_everywhere {
                longest.as_str()
            } else {
                ""
            };
            // Hosts behind a router do not know how small the MTU of the link is either.
            let gateways = machine.gateways(&link.name);
            let mut routers = gateways.iter().map(|one| Family::of(*one));
            let is_narrow = link.mtu < ORDINARY_MTU && routers.any(|of| of == family);
            let behind = if leads_everywhere || is_narrow {
                longest.as_str()
            } else {
                ""
            };
            for net in self
                .on_link
                .iter()
                .filter(|net| Family::of(net.addr()) == family)
            {
                let _ = writeln!(text, "route replace {net} dev {port} metric 1{beside}");
            }
            let router = router_address(machine, link, family);
            let via = router.map(|own| format!(" via {own}"));
            let onlink = if via.is_some() { " onlink" } else { "" };
            let _ = writeln!(
                text,
                "route add default{} dev {port}{onlink} metric 2{behind}",
                via.unwrap_or_default()
            );
            batch::run(&[option], &text)?;
        }
        Ok(())
    }

    /// Lets the world answer neighbour discovery for addresses on the link. IPv6 does that only for single addresses.
    /// The calling thread is in the world.
    ///
    /// # Errors
    /// If `ip` is missing.
    pub fn answer_for(&self, addresses: &BTreeSet<IpAddr>) -> Result<(), IpError> {
        let here = addresses
            .iter()
            .filter(|address| address.is_ipv6() && self.is_asked_for(**address));
        let lines: String = here
            .map(|address| format!("neigh add proxy {address} dev {}\n", self.port))
            .collect();
        if lines.is_empty() {
            return Ok(());
        }
        batch::run(&["-6"], &lines).map(drop)
    }

    /// Returns whether the machine asks on the link for the hardware address of an address.
    #[must_use]
    pub fn is_asked_for(&self, address: IpAddr) -> bool {
        self.is_on_link(address) || self.routed.iter().any(|net| net.contains(&address))
    }

    /// Returns whether an address is in a network of the interface's addresses. Hosts there reach it without the machine.
    #[must_use]
    pub fn is_on_link(&self, address: IpAddr) -> bool {
        self.on_link.iter().any(|net| net.contains(&address))
    }

    /// Returns an address of the link's networks that is neither the machine's nor one of `taken`. A neighbour that
    /// is dead on the machine must not answer here.
    fn free_address(&self, link: &MachineLink, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let nets = self.on_link.iter().chain(&self.routed);
        // A default route names no network.
        let nets = nets.filter(|net| net.addr().is_ipv4() && net.prefix_len() > 0);
        let mut hosts = nets.flat_map(IpNet::hosts);
        hosts.find(|host| {
            !taken.contains(host) && link.addresses.iter().all(|own| own.net.addr() != *host)
        })
    }
}

/// Returns the networks of an interface's addresses. A virtual address of the machine's has no other host in its network.
fn on_link(link: &MachineLink) -> Vec<IpNet> {
    let addresses = link.addresses.iter().filter(|one| is_near(one));
    addresses.map(Address::on_link).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    impl World {
        /// Returns a world without interfaces, for tests that send no packet.
        pub(crate) fn of(link: &MachineLink) -> Self {
            Self {
                interface: link.name.clone(),
                netns: Netns::current().expect("every thread is in one"),
                port: "o0".to_owned(),
                mac: NO_MAC.to_owned(),
                on_link: on_link(link),
                routed: BTreeSet::new(),
            }
        }
    }

    /// The world owns its free address, so it would answer for a dead gateway.
    #[test]
    fn a_dead_gateways_address_is_not_free() {
        let link = MachineLink::with("eth0", &["10.3.0.4/29"]);
        let world = World::of(&link);
        let taken = |addresses: &[&str]| -> BTreeSet<IpAddr> {
            let each = addresses.iter();
            each.map(|one| one.parse().expect("an address")).collect()
        };
        for (dead, free) in [
            (&[][..], "10.3.0.1"),
            (&["10.3.0.1"], "10.3.0.2"),
            (&["10.3.0.1", "10.3.0.2", "10.3.0.3"], "10.3.0.5"),
        ] {
            let found = world.free_address(&link, &taken(dead));
            assert_eq!(found.map(|one| one.to_string()).as_deref(), Some(free));
        }
    }
}
