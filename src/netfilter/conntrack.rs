//! Conntrack entries: the connections that the kernel tracks.

use std::net::IpAddr;

use super::counters::Count;
use crate::net::{Port, Protocol};

/// One conntrack entry: the addresses of the first packet, and those that its replies must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    pub protocol: Protocol,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub destination_port: Port,
    /// The host that answers: the destination, unless that was translated.
    pub reply_source: IpAddr,
    pub reply_port: Port,
    /// The address that replies are sent to: the source, unless that was translated.
    pub reply_destination: IpAddr,
    /// A reply has come.
    pub replied: bool,
    /// Both sides have ended the connection, or one has reset it: no more data passes.
    pub finished: bool,
    /// The packets of both directions; `None` if the kernel does not count them. It does for connections that began
    /// while `net.netfilter.nf_conntrack_acct` was 1.
    pub traffic: Option<Count>,
}

/// The states of a TCP connection that both sides have ended (`tcp_conntrack_names` in
/// `nf_conntrack_proto_tcp.c`). In `FIN_WAIT` and `CLOSE_WAIT` one side may go on to send.
const FINISHED: [&str; 3] = ["LAST_ACK", "TIME_WAIT", "CLOSE"];

impl Flow {
    /// Reads a line of `conntrack -L` (conntrack(8)): the words of the first direction, then the same words of
    /// the other direction. `None` for protocols without ports.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let protocol = words.next()?.parse().ok()?;
        let values: Vec<(&str, &str)> = words.filter_map(|word| word.split_once('=')).collect();
        let nth = |key: &str, n| {
            let mut values = values.iter().filter(|(of, _)| *of == key);
            values.nth(n).map(|(_, value)| *value)
        };
        Some(Self {
            protocol,
            source: nth("src", 0)?.parse().ok()?,
            destination: nth("dst", 0)?.parse().ok()?,
            destination_port: nth("dport", 0)?.parse().ok()?,
            reply_source: nth("src", 1)?.parse().ok()?,
            reply_port: nth("sport", 1)?.parse().ok()?,
            reply_destination: nth("dst", 1)?.parse().ok()?,
            replied: !line.contains("[UNREPLIED]"),
            finished: line
                .split_ascii_whitespace()
                .nth(3)
                .is_some_and(|state| FINISHED.contains(&state)),
            traffic: traffic(&values),
        })
    }

    /// Returns whether both ends are hosts that a router can lead to: neither multicast nor link-local.
    #[must_use]
    pub fn is_of_hosts(&self) -> bool {
        let mut ends = [self.source, self.destination, self.reply_source].into_iter();
        ends.all(is_of_host)
    }

    /// Returns whether the destination was translated.
    #[must_use]
    pub fn is_translated(&self) -> bool {
        (self.destination, self.destination_port) != (self.reply_source, self.reply_port)
    }

    /// Returns whether the source was not translated.
    #[must_use]
    pub fn keeps_source(&self) -> bool {
        self.source == self.reply_destination
    }
}

/// Adds the packets and bytes of both directions.
fn traffic(values: &[(&str, &str)]) -> Option<Count> {
    let both = |key: &str| {
        let of_key = values.iter().filter(|(of, _)| *of == key);
        let mut numbers = of_key.map(|(_, number)| number.parse::<u64>().ok());
        numbers.next()??.checked_add(numbers.next()??)
    };
    Some(Count {
        packets: both("packets")?,
        bytes: both("bytes")?,
    })
}

/// Returns whether a host on another link can have this address.
#[must_use]
pub fn is_of_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            !(first == 0 || first >= 224 || v4.is_loopback() || v4.is_link_local())
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || v6.to_ipv4_mapped().is_some())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "tcp      6 431999 ESTABLISHED src=198.51.100.10 dst=10.3.0.4 sport=5000 dport=49182 src=10.224.0.118 dst=10.3.0.4 sport=80 dport=5000 [ASSURED] mark=0 use=1";

    #[test]
    fn lines_of_conntrack_are_read_in_both_directions() {
        let flow = Flow::parse(WEB).expect("it is a flow");
        assert_eq!(flow.source.to_string(), "198.51.100.10");
        assert_eq!(
            (flow.destination.to_string(), flow.destination_port.number()),
            ("10.3.0.4".into(), 49182)
        );
        assert_eq!(
            (flow.reply_source.to_string(), flow.reply_port.number()),
            ("10.224.0.118".into(), 80)
        );
        assert_eq!(flow.reply_destination.to_string(), "10.3.0.4");
        let unreplied = "udp      17 25 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=53 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=53 dport=1 mark=0 use=1";
        let silent = Flow::parse(unreplied).expect("it is a flow");
        assert!(flow.replied && !silent.replied);
        assert!(flow.is_translated() && !silent.is_translated());
        let to = silent.reply_destination.to_string();
        assert_eq!(
            (to.as_str(), silent.destination.to_string()),
            ("10.0.0.1", "10.0.0.2".into())
        );
        assert_eq!((&flow.traffic, &silent.traffic), (&None, &None));
        let counted = WEB
            .replace("dport=49182", "dport=49182 packets=5 bytes=300")
            .replace("dport=5000", "dport=5000 packets=4 bytes=1700");
        let traffic = Flow::parse(&counted).and_then(|flow| flow.traffic);
        let both = Count {
            packets: 9,
            bytes: 2000,
        };
        assert_eq!(traffic, Some(both));
        for other in [
            "icmp 1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=1 src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=1",
            "",
            "tcp 6 1",
        ] {
            assert_eq!(Flow::parse(other), None, "{other}");
        }
    }
}
