//! Connections that the kernel tracks, and where a spec's forwards would send them now.

use std::net::IpAddr;

use crate::forwards::Listeners;
use crate::forwards::{Destination, Forward, ForwardSet, TargetPorts};
use crate::net::{Port, Protocol};

/// One tracked connection, as its first packet was sent and as its replies are expected.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    pub protocol: Protocol,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub destination_port: Port,
    /// Who answers: the destination, unless that was translated.
    pub reply_source: IpAddr,
    pub reply_port: Port,
    /// Where replies are sent: the source, unless that was translated.
    pub reply_destination: IpAddr,
    /// Whether a reply has come.
    pub replied: bool,
    /// Whether both sides have ended it, or one has reset it: no more data passes.
    pub finished: bool,
}

/// The states of a TCP connection that both sides have ended (`tcp_conntrack_names` in
/// `nf_conntrack_proto_tcp.c`). In `FIN_WAIT` and `CLOSE_WAIT` one side may go on to send.
const FINISHED: [&str; 3] = ["LAST_ACK", "TIME_WAIT", "CLOSE"];

impl Flow {
    /// Reads a line of `conntrack -L` (conntrack(8)): the words of the first direction, then the
    /// same words of the other. `None` for protocols without ports.
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
        })
    }

    /// Whether both ends are hosts that a router may lead to: neither multicast nor one link's own.
    #[must_use]
    pub fn is_of_hosts(&self) -> bool {
        let mut ends = [self.source, self.destination, self.reply_source].into_iter();
        ends.all(is_of_host)
    }

    /// Whether it goes to another address or port than it was sent to.
    #[must_use]
    pub fn is_translated(&self) -> bool {
        (self.destination, self.destination_port) != (self.reply_source, self.reply_port)
    }

    /// The forward that leads this connection where it goes, if it was translated at all.
    #[must_use]
    pub fn leader<'s>(&self, listeners: &Listeners<'s>) -> Option<&'s Forward> {
        let forward = listeners.taker(self.protocol, self.destination, self.destination_port)?;
        let mut destinations = forward.target.destinations.iter();
        let leads = self.destination != self.reply_source
            && forward.sources.admits(self.source)
            && destinations.any(|to| self.goes_to(forward, to));
        leads.then_some(forward)
    }

    /// Whether it goes where the forward would send it.
    fn goes_to(&self, forward: &Forward, to: &Destination) -> bool {
        let at = self.destination_port;
        let port = match to.ports {
            TargetPorts::Kept => at,
            TargetPorts::Range(one) if one.is_single() => one.first(),
            TargetPorts::Range(range) => {
                let offset = at.number() - forward.listen.ports.first().number();
                let number = range.first().number().checked_add(offset);
                number.and_then(Port::new).unwrap_or(at)
            }
        };
        (to.address, port) == (self.reply_source, self.reply_port)
    }
}

/// Whether an address may be one of a host on another link.
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
                || v6.is_unicast_link_local())
        }
    }
}

/// Connections that were translated, and not by one of these forwards. Finished ones are left out:
/// they go nowhere any more.
pub fn astray<'f>(flows: &'f [Flow], now: &ForwardSet) -> impl Iterator<Item = &'f Flow> {
    let now = Listeners::new(now);
    flows
        .iter()
        .filter(|flow| flow.destination != flow.reply_source && !flow.finished)
        .filter(move |flow| flow.leader(&now).is_none())
}

/// Connections that a set of forwards led once and the present one does not lead there any more.
pub fn stale<'f>(
    flows: &'f [Flow],
    once: &[ForwardSet],
    now: &ForwardSet,
) -> impl Iterator<Item = &'f Flow> {
    let once: Vec<Listeners<'_>> = once.iter().map(Listeners::new).collect();
    astray(flows, now).filter(move |flow| once.iter().any(|set| flow.leader(set).is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    const WEB: &str = "tcp      6 431999 ESTABLISHED src=198.51.100.10 dst=10.3.0.4 sport=5000 dport=49182 src=10.224.0.118 dst=10.3.0.4 sport=80 dport=5000 [ASSURED] mark=0 use=1";

    fn set(forwards: &str) -> ForwardSet {
        let text = format!("firewall: {{interface: eth0, snat: 10.3.0.4}}\nforwards: [{forwards}]");
        yaml::read(text.as_bytes()).expect("it is sound")
    }

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
        for other in [
            "icmp 1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=1 src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=1",
            "",
            "tcp 6 1",
        ] {
            assert_eq!(Flow::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_finished_connection_is_not_stale() {
        let old = [set(
            "{name: web, listen: 49182, target: {pod: 10.224.0.118:80}}",
        )];
        for (state, finished) in [
            ("SYN_SENT", false),
            ("ESTABLISHED", false),
            ("FIN_WAIT", false),
            ("CLOSE_WAIT", false),
            ("LAST_ACK", true),
            ("TIME_WAIT", true),
            ("CLOSE", true),
        ] {
            let flow = Flow::parse(&WEB.replace("ESTABLISHED", state)).expect("it is a flow");
            assert_eq!(flow.finished, finished, "{state}");
            let is_stale = stale(&[flow], &old, &set("")).next().is_some();
            assert_eq!(is_stale, !finished, "{state}");
        }
    }

    #[test]
    fn a_flow_is_stale_when_its_forward_leads_elsewhere_now() {
        let flows = [Flow::parse(WEB).expect("it is a flow")];
        let old = [set(
            "{name: web, listen: 49182, target: {pod: 10.224.0.118:80}}",
        )];
        for (now, is_stale) in [
            (
                "{name: web, listen: 49182, target: {pod: 10.224.0.118:80}}",
                false,
            ),
            (
                "{name: other, listen: 49182, target: {pod: 10.224.0.118:80}}",
                false,
            ),
            (
                "{name: range, listen: 49180-49190, target: {pod: 10.224.0.118:78-88}}",
                false,
            ),
            (
                "{name: web, listen: 49182, target: {pod: 10.224.0.119:80}}",
                true,
            ),
            (
                "{name: web, listen: 49182, target: {pod: 10.224.0.118:81}}",
                true,
            ),
            (
                "{name: web, listen: 49183, target: {pod: 10.224.0.118:80}}",
                true,
            ),
            (
                "{name: web, listen: 49182, protocol: udp, target: {pod: 10.224.0.118:80}}",
                true,
            ),
            (
                "{name: all, listen: 49182, target: {pod: 10.224.0.118:80}}, {name: one, listen: 10.3.0.4:49182, target: {pod: 10.0.0.1:80}}",
                true,
            ),
            (
                "{name: web, listen: 49182, target: {pod: [10.224.0.9:80, 10.224.0.118:80]}}",
                false,
            ),
            (
                "{name: web, listen: 49182, target: {pod: 10.224.0.118:80}, deny_from: [198.51.100.0/24]}",
                true,
            ),
            ("", true),
        ] {
            assert_eq!(
                stale(&flows, &old, &set(now)).count(),
                usize::from(is_stale),
                "{now}"
            );
        }
        // Somebody else's translation is not nvactl's to judge.
        assert_eq!(stale(&flows, &[set("")], &set("")).count(), 0);
    }
}
