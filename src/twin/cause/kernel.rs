//! The kernel's own reasons to discard a packet, apart from all rules, and the counters that show them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::error::CauseError;
use super::trace::Stage;
use crate::net::Family;

/// A reason for which the kernel's IP layer discards a packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KernelReason {
    /// `rp_filter`: the route back to the source uses another interface.
    ReversePath,
    NoRoute,
    Ttl,
    NeedsFragmentation,
    /// `ip_forward`, or `forwarding` of the interface, is 0.
    NotForwarded,
    /// An address that is invalid there: loopback, or a source that is the machine's own address.
    Martian,
    /// A route or a policy rule of this type, also for the next two.
    Blackhole,
    Prohibited,
    Unreachable,
    /// The next hop does not answer the question for its hardware address.
    NoNeighbour {
        address: IpAddr,
        interface: String,
    },
    /// The packet was seen at no interface. Either tc or XDP took it before the first chain, or the sender could not
    /// resolve the machine's address.
    NotSeen,
    /// The machine did not send the packet of a program of its own.
    NotSent,
    /// Nobody has the packet's destination, which is on the link of an interface.
    NoOwner {
        address: IpAddr,
        interface: String,
    },
    /// Neither a rule nor a counter nor a route shows the reason. The stage is the last that the packet reached.
    Unknown(Stage),
}

impl KernelReason {
    /// Describes the reason with the packet as the subject.
    #[must_use]
    pub fn words(&self) -> String {
        let words = match self {
            KernelReason::ReversePath => {
                "fails the reverse path check (`rp_filter`): the route back to its source uses another interface"
            }
            KernelReason::NoRoute => "has no route to its destination",
            KernelReason::Ttl => "has reached the end of its time to live (TTL)",
            KernelReason::NeedsFragmentation => {
                "is larger than the MTU of the route and must not be fragmented"
            }
            KernelReason::NotForwarded => {
                "is not forwarded: forwarding is off for the machine or for the interface"
            }
            KernelReason::Martian => {
                "is a martian: its source or destination address is invalid on this interface"
            }
            KernelReason::Blackhole => "meets a blackhole route or rule",
            KernelReason::Prohibited => "meets a prohibit route or rule",
            KernelReason::Unreachable => "meets an unreachable route or rule",
            KernelReason::NoNeighbour { address, interface } => {
                return format!(
                    "stays in the queue for {address}, which does not answer on {interface}"
                );
            }
            KernelReason::NotSeen => "does not arrive at any interface of the machine",
            KernelReason::NotSent => {
                "is not sent: the machine has no route for it, or a route or a policy rule refuses it"
            }
            KernelReason::NoOwner { address, interface } => {
                return format!(
                    "gets no further than the link of {interface}: nobody answers there for {address}, which is not an address of this machine"
                );
            }
            KernelReason::Unknown(stage) => {
                return format!(
                    "is lost at or behind the hook {}, for a reason that the kernel does not tell",
                    stage.as_str()
                );
            }
        };
        words.to_owned()
    }
}

/// The counters whose increase shows a reason. If several increased, the first in this list decides: the later ones
/// also count packets of other hosts, and answers of ICMP.
const REASONS: [(&str, KernelReason); 12] = [
    ("TcpExt:IPReversePathFilter", KernelReason::ReversePath),
    ("IpExt:InNoRoutes", KernelReason::NoRoute),
    ("Ip6InNoRoutes", KernelReason::NoRoute),
    ("Ip:InHdrErrors", KernelReason::Ttl),
    ("Ip6InHdrErrors", KernelReason::Ttl),
    ("Ip:FragFails", KernelReason::NeedsFragmentation),
    ("Ip6InTooBigErrors", KernelReason::NeedsFragmentation),
    ("Ip6FragFails", KernelReason::NeedsFragmentation),
    ("Ip:InAddrErrors", KernelReason::NotForwarded),
    ("Ip6InAddrErrors", KernelReason::NotForwarded),
    ("Ip:OutNoRoutes", KernelReason::NoRoute),
    ("Ip6OutNoRoutes", KernelReason::NoRoute),
];

/// Returns the family whose packets a counter counts. The kernel checks the reverse path for IPv4 alone.
fn family_of(counter: &str) -> Family {
    if counter.starts_with("Ip6") {
        Family::V6
    } else {
        Family::V4
    }
}

/// The counters of the calling thread's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics(BTreeMap<String, u64>);

impl Statistics {
    /// Reads the counters.
    pub fn read() -> Result<Self, CauseError> {
        let mut statistics = Self::default();
        for file in ["snmp", "netstat", "snmp6"] {
            let path = format!("/proc/thread-self/net/{file}");
            match std::fs::read_to_string(&path) {
                Ok(text) => statistics.add(&text),
                // A kernel without IPv6 has no `snmp6`.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(CauseError::Unread { path, source }),
            }
        }
        Ok(statistics)
    }

    /// Adds the counters of a text. They are pairs of lines with names and values, or one name and value a line.
    fn add(&mut self, text: &str) {
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let Some((group, names)) = line.split_once(": ") else {
                let mut words = line.split_ascii_whitespace();
                if let (Some(name), Some(value)) = (words.next(), words.next()) {
                    self.insert(name.to_owned(), value);
                }
                continue;
            };
            let values = lines.next().and_then(|line| line.split_once(": "));
            let values = values.map_or("", |(_, values)| values);
            for (name, value) in names.split(' ').zip(values.split(' ')) {
                self.insert(format!("{group}:{name}"), value);
            }
        }
    }

    fn insert(&mut self, name: String, value: &str) {
        // `Tcp:MaxConn` is -1.
        if let Ok(value) = value.parse() {
            self.0.insert(name, value);
        }
    }

    /// Returns the reasons that were counted since `before` for packets of each family, the clearest first.
    #[must_use]
    pub fn reasons_since(&self, before: &Self) -> Vec<(Family, KernelReason)> {
        let get = |of: &Self, name: &str| of.0.get(name).copied().unwrap_or_default();
        let mut reasons = Vec::new();
        for (name, reason) in &REASONS {
            let found = (family_of(name), reason.clone());
            if get(self, name) > get(before, name) && !reasons.contains(&found) {
                reasons.push(found);
            }
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(text: &str) -> Statistics {
        let mut statistics = Statistics::default();
        statistics.add(text);
        statistics
    }

    #[test]
    fn an_increase_names_its_reason() {
        let text = |no_routes: u8, filtered: u8, v6: u8| {
            format!(
                "Tcp: RtoMin MaxConn\nTcp: 200 -1\nTcpExt: SyncookiesSent IPReversePathFilter\n\
                 TcpExt: 7 {filtered}\nIpExt: InNoRoutes InOctets\nIpExt: {no_routes} 9\n\
                 Ip6InReceives                   \t77\nIp6InTooBigErrors               \t{v6}\n"
            )
        };
        let before = statistics(&text(3, 1, 0));
        for (after, reasons) in [
            (text(3, 1, 0), vec![]),
            (text(4, 1, 0), vec![(Family::V4, KernelReason::NoRoute)]),
            (
                text(4, 2, 0),
                vec![
                    (Family::V4, KernelReason::ReversePath),
                    (Family::V4, KernelReason::NoRoute),
                ],
            ),
            (
                text(3, 1, 1),
                vec![(Family::V6, KernelReason::NeedsFragmentation)],
            ),
        ] {
            assert_eq!(statistics(&after).reasons_since(&before), reasons);
        }
    }
}
