//! UDP senders that an outbound entry accepts and whose source it does not rewrite: the kernel has a conntrack entry
//! from before the rules, and it decides NAT only for a connection's first packet.

use super::connections::{FlowFacts, astray};
use super::suspects::{StaleCause, Suspect};
use crate::forwards::ForwardSet;
use crate::net::words::few;
use crate::net::{Host, Protocol};
use crate::netfilter::conntrack::Flow;

/// The number of senders that are shown one by one.
const MOST_SHOWN: usize = 3;

/// Returns the senders that an entry would rewrite, if they take its path.
#[must_use]
pub fn suspects<'f, 's>(
    flows: &'f [Flow],
    now: &'s ForwardSet,
    facts: &FlowFacts<'_>,
) -> Vec<Suspect<'f, 's>> {
    let is_sender = |suspect: &Suspect<'_, '_>| {
        let flow = suspect.flow;
        suspect.cause == StaleCause::Source
            && flow.protocol == Protocol::Udp
            && flow.keeps_source()
            && !flow.is_translated()
    };
    astray(flows, now, facts).filter(is_sender).collect()
}

/// Describes the senders: their number, why they keep their source, and some of them. `None` if there are none.
#[must_use]
pub fn told(senders: &[Suspect<'_, '_>]) -> Option<String> {
    let shown = senders.iter().map(|Suspect { flow, paths, .. }| {
        let (protocol, source, port) = (flow.protocol, flow.source, flow.destination_port);
        let destination = Host(flow.destination);
        let entry = paths.first().map(|path| path.entry.name.to_string());
        let name = entry.unwrap_or_default();
        format!("{protocol} {source} → {destination}:{port} (`{name}`)")
    });
    let shown = few(shown, MOST_SHOWN);
    match senders.len() {
        0 => None,
        1 => Some(format!(
            "1 UDP sender began before its outbound entry was loaded and keeps its source: {shown}"
        )),
        many => Some(format!(
            "{many} UDP senders began before their outbound entries were loaded and keep their source: {shown}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::suspects::{proven, questions};
    use crate::host::network::{Link, Links, Packet, Route};
    use crate::yaml;

    fn links() -> Links {
        let link = |name: &str, address: &str| Link {
            name: name.to_owned(),
            addresses: vec![address.parse().expect("an address")],
            ..Link::default()
        };
        Links(vec![link("eth0", "10.3.0.4"), link("eth1", "10.4.0.4")])
    }

    fn udp(source: &str, to: &str, port: u16, answered_to: &str) -> Flow {
        let line = format!(
            "udp 17 25 src={source} dst={to} sport=9 dport={port} src={to} dst={answered_to} sport={port} dport=9 mark=0 use=1"
        );
        Flow::parse(&line).expect("it is a flow")
    }

    #[test]
    fn a_sender_that_an_entry_would_rewrite_is_found_if_it_takes_the_entry_s_path() {
        let set = |entry: &str| {
            let text = format!(
                "firewall: {{interface: {{ingress: eth0, egress: eth1}}}}\noutbound: [{{name: out, allow_from: [10.224.0.0/16]{entry}}}]"
            );
            yaml::read(text.as_bytes()).expect("it is valid")
        };
        let pod = "10.224.0.118";
        let straight = ["eth1", "eth0"];
        for (flow, entry, [back, out], is_one) in [
            (udp(pod, "8.8.8.8", 53, pod), "", straight, true),
            (udp(pod, "8.8.8.8", 53, "10.3.0.4"), "", straight, false),
            (
                udp(pod, "8.8.8.8", 53, pod),
                ", snat: none",
                straight,
                false,
            ),
            (
                udp(pod, "8.8.8.8", 53, pod),
                ", deny_to: [8.8.8.8]",
                straight,
                false,
            ),
            (
                udp(pod, "8.8.8.8", 53, pod),
                ", protocol: tcp",
                straight,
                false,
            ),
            (
                udp(pod, "10.3.0.4", 53, pod),
                ", allow_to: [10.0.0.0/8]",
                straight,
                false,
            ),
            (
                udp("10.225.0.1", "8.8.8.8", 53, "10.225.0.1"),
                "",
                straight,
                false,
            ),
            (udp(pod, "8.8.8.8", 53, pod), "", ["eth1", "wg0"], false),
            (udp(pod, "8.8.8.8", 53, pod), "", ["docker0", "eth0"], false),
        ] {
            let (flows, set, links) = ([flow], set(entry), links());
            let suspects = suspects(&flows, &set, &FlowFacts::new(&links, []));
            let asked = questions(&suspects);
            let route = |packet: &Packet<'_>| Route {
                interface: if packet.to == flows[0].source {
                    back
                } else {
                    out
                }
                .to_owned(),
                gateway: None,
                neighbour: None,
            };
            let routes = asked.iter().map(|packet| (*packet, Ok(route(packet))));
            let found = proven(suspects, &routes.collect()).found;
            assert_eq!(
                found.len(),
                usize::from(is_one),
                "{flows:?} {entry} {back} {out}"
            );
        }
    }
}
