//! Source ports that SNAT has given to live connections. One address and port serves any number of destinations, but
//! each of them only once: the limit is one of connections from one address to one destination.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use super::takers::Takers;
use crate::forwards::ForwardSet;
use crate::host::network::Links;
use crate::net::{Host, Port, Protocol};
use crate::netfilter::conntrack::Flow;

/// The ports that the kernel gives to a connection whose own port is taken: 1024 to 65535, if the own one is not below
/// (`nf_nat_l4proto_unique_tuple` in `net/netfilter/nf_nat_core.c`).
pub const SNAT_PORTS: usize = 64_512;

/// The ports in use of one source address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnatPorts {
    /// The address that SNAT gives to connections.
    pub address: IpAddr,
    /// Connections from the address to all destinations.
    pub connections: usize,
    /// Connections to the destination that has the most. Each has a port of its own.
    pub ports_used: usize,
    /// How many of these connections are finished. Their ports are in use until the kernel forgets them, or gives them
    /// to new connections, as Linux 6.18 does.
    pub ports_finished: usize,
    pub protocol: &'static str,
    pub destination: String,
}

impl SnatPorts {
    /// Returns the number of ports that no kernel gives to new connections.
    #[must_use]
    pub fn ports_busy(&self) -> usize {
        self.ports_used - self.ports_finished
    }
}

impl fmt::Display for SnatPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            connections: _,
            ports_used,
            ports_finished,
            protocol,
            destination,
        } = self;
        write!(
            f,
            "{ports_used} of {SNAT_PORTS} source ports of {address} are in use to {protocol} {destination}"
        )?;
        match ports_finished {
            0 => Ok(()),
            finished => write!(f, ", {finished} of them by finished connections"),
        }
    }
}

/// A connection as its destination sees it, without the source port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct SeenFlow {
    source: IpAddr,
    protocol: Protocol,
    destination: IpAddr,
    port: Port,
    finished: bool,
}

impl SeenFlow {
    fn end(&self) -> (IpAddr, Protocol, IpAddr, Port) {
        (self.source, self.protocol, self.destination, self.port)
    }
}

/// Returns the ports in use of each address that SNAT gives to connections of the set, sorted by address. A finished
/// connection has its port until the kernel forgets it. Other programs' connections from such an address count too.
#[must_use]
pub fn snat_ports(flows: &[Flow], set: &ForwardSet, links: &Links) -> Vec<SnatPorts> {
    let addresses = addresses(flows, set, links);
    let of_address = flows
        .iter()
        .filter(|flow| addresses.contains(&flow.reply_destination));
    let mut seen: Vec<SeenFlow> = of_address
        .map(|flow| SeenFlow {
            source: flow.reply_destination,
            protocol: flow.protocol,
            destination: flow.reply_source,
            port: flow.reply_port,
            finished: flow.finished,
        })
        .collect();
    seen.sort_unstable();
    let of_each = seen.chunk_by(|one, other| one.source == other.source);
    of_each.filter_map(fullest).collect()
}

/// Returns the source addresses of the set's connections, without those that keep their own.
fn addresses(flows: &[Flow], set: &ForwardSet, links: &Links) -> BTreeSet<IpAddr> {
    let takers = Takers::new(set, links);
    let mut addresses = BTreeSet::new();
    for flow in flows
        .iter()
        .filter(|flow| flow.source != flow.reply_destination)
    {
        if !addresses.contains(&flow.reply_destination) && takers.has(flow) {
            addresses.insert(flow.reply_destination);
        }
    }
    addresses
}

/// Summarizes the sorted connections of one source.
fn fullest(of_source: &[SeenFlow]) -> Option<SnatPorts> {
    let of_each = of_source.chunk_by(|one, other| one.end() == other.end());
    let most = of_each.max_by_key(|same| same.len())?;
    let seen = most.first()?;
    Some(SnatPorts {
        address: seen.source,
        connections: of_source.len(),
        ports_used: most.len(),
        ports_finished: most.iter().filter(|one| one.finished).count(),
        protocol: seen.protocol.as_str(),
        destination: format!("{}:{}", Host(seen.destination), seen.port),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    fn flow(protocol: &str, from: &str, to: &str, by: &str) -> Flow {
        let (destination, reply_source) = to.split_once('>').unwrap_or((to, to));
        let ends = |end: &str| {
            let (address, port) = end.rsplit_once(':').expect("it has a port");
            (address.to_owned(), port.to_owned())
        };
        let ((to, port), (back, back_port)) = (ends(destination), ends(reply_source));
        let line = format!(
            "{protocol} 6 9 src={from} dst={to} sport=5000 dport={port} src={back} dst={by} sport={back_port} dport=5000"
        );
        Flow::parse(&line).expect("it is a flow")
    }

    fn set() -> ForwardSet {
        yaml::read(
            b"firewall: {interface: eth0, snat: 10.3.0.4}
forwards: [{name: web, listen: 8080, target: {pod: 10.224.0.118:80}}]
outbound: [{name: out, allow_from: [10.224.0.0/16, 'fd00:224::/64']}]",
        )
        .expect("it is valid")
    }

    #[test]
    fn finished_connections_are_counted_among_those_that_have_a_port() {
        let mut flows = vec![flow("tcp", "10.224.0.118", "192.0.2.80:443", "10.3.0.4"); 3];
        flows[1].finished = true;
        let told = snat_ports(&flows, &set(), &Links::default());
        assert_eq!(
            (
                told[0].ports_used,
                told[0].ports_finished,
                told[0].ports_busy()
            ),
            (3, 1, 2)
        );
        assert_eq!(
            told[0].to_string(),
            "3 of 64512 source ports of 10.3.0.4 are in use to tcp 192.0.2.80:443, 1 of them by finished connections"
        );
    }

    fn used(flows: &[Flow]) -> Vec<(String, usize, usize, String)> {
        let of_each = snat_ports(flows, &set(), &Links::default()).into_iter();
        of_each
            .map(|one| {
                let to = format!("{} {}", one.protocol, one.destination);
                (one.address.to_string(), one.connections, one.ports_used, to)
            })
            .collect()
    }

    #[test]
    fn the_destination_with_the_most_connections_is_the_fullest() {
        let (pod, server) = ("10.224.0.118", "192.0.2.80:443");
        let flows = [
            flow("tcp", pod, server, "10.3.0.4"),
            flow("tcp", "10.224.0.99", server, "10.3.0.4"),
            flow("tcp", pod, "192.0.2.80:80", "10.3.0.4"),
            flow("udp", pod, server, "10.3.0.4"),
            flow("tcp", pod, "192.0.2.81:443", "10.3.0.4"),
            flow("tcp", pod, "192.0.2.81:443", "10.3.0.5"),
            flow("tcp", "fd00:224::118", "2001:db8::1:443", "fd00:3::4"),
        ];
        let expected = [
            ("10.3.0.4", 5, 2, "tcp 192.0.2.80:443"),
            ("10.3.0.5", 1, 1, "tcp 192.0.2.81:443"),
            ("fd00:3::4", 1, 1, "tcp [2001:db8::1]:443"),
        ]
        .map(|(address, all, used, to)| (address.to_owned(), all, used, to.to_owned()));
        assert_eq!(used(&flows), expected);
    }

    #[test]
    fn connections_of_forwards_and_of_the_machine_itself_take_ports_too() {
        let flows = [
            flow(
                "tcp",
                "198.51.100.7",
                "10.3.0.4:8080>10.224.0.118:80",
                "10.3.0.4",
            ),
            flow(
                "tcp",
                "198.51.100.8",
                "10.3.0.4:8080>10.224.0.118:80",
                "10.3.0.4",
            ),
            flow("tcp", "10.3.0.4", "10.224.0.118:80", "10.3.0.4"),
        ];
        let to = "tcp 10.224.0.118:80".to_owned();
        assert_eq!(used(&flows), [("10.3.0.4".to_owned(), 3, 3, to)]);
    }

    #[test]
    fn only_addresses_of_the_set_s_connections_are_listed() {
        let flows = [
            // A client on its way in, the machine itself, a source that is kept, and another program's SNAT.
            flow("tcp", "198.51.100.7", "10.3.0.4:22", "198.51.100.7"),
            flow("tcp", "10.3.0.4", "192.0.2.80:443", "10.3.0.4"),
            flow("tcp", "10.224.0.118", "192.0.2.80:443", "10.224.0.118"),
            flow("tcp", "172.17.0.2", "192.0.2.80:443", "10.3.0.9"),
        ];
        assert_eq!(used(&flows), []);
    }
}
