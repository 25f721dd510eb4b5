//! UDP senders that an outbound entry accepts and whose source it does not rewrite: the kernel has a conntrack entry
//! from before the rules, and it decides NAT only for a connection's first packet.

use std::collections::BTreeSet;

use super::connections::is_routed;
use crate::forwards::{ForwardSet, Outbound, Snat};
use crate::host::network::{self, Links, Packet};
use crate::net::words::few;
use crate::net::{Host, Interface, Protocol};
use crate::netfilter::conntrack::Flow;

/// A UDP connection that keeps its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboundSender<'s> {
    pub flow: &'s Flow,
    /// The entry that would rewrite the source of a new connection.
    pub entry: &'s Outbound,
}

/// The number of senders whose routes are asked for, since each costs some microseconds. Further senders are found by
/// their addresses alone.
const MOST_ASKED: usize = 1_000;
/// The number of senders that are shown one by one.
const MOST_SHOWN: usize = 3;

/// Returns the senders that keep their source. It runs a program only if there are any.
#[must_use]
pub fn look<'s>(flows: &'s [Flow], now: &'s ForwardSet, links: &Links) -> Vec<OutboundSender<'s>> {
    let routes = network::interfaces(&questions(flows, now, links));
    senders(flows, now, links, |packet| {
        routes.get(packet).map(String::as_str)
    })
}

/// Returns the packets whose egress interface [`senders`] needs.
#[must_use]
pub fn questions<'s>(flows: &[Flow], now: &'s ForwardSet, links: &Links) -> BTreeSet<Packet<'s>> {
    let mut asked = BTreeSet::new();
    for (flow, entry) in candidates(flows, now, links).take(MOST_ASKED) {
        asked.insert(reply(flow, &entry.egress));
        asked.extend(entry.ingress.iter().map(|ingress| request(flow, ingress)));
    }
    asked
}

/// Returns the senders that keep their source. `interface` has the egress interface of each packet.
///
/// A conntrack entry names no interface, so routes show which interfaces the packets take.
#[must_use]
pub fn senders<'s, 'r>(
    flows: &'s [Flow],
    now: &'s ForwardSet,
    links: &Links,
    interface: impl Fn(&Packet<'s>) -> Option<&'r str>,
) -> Vec<OutboundSender<'s>> {
    let takes_path = |flow: &Flow, entry: &'s Outbound| {
        let back = interface(&reply(flow, &entry.egress));
        let mut ingress = entry.ingress.iter();
        ingress.any(|ingress| {
            back == Some(ingress.as_str())
                && interface(&request(flow, ingress)) == Some(entry.egress.as_str())
        })
    };
    let each = candidates(flows, now, links).enumerate();
    each.filter(|(n, (flow, entry))| *n >= MOST_ASKED || takes_path(flow, entry))
        .map(|(_, (flow, entry))| OutboundSender { flow, entry })
        .collect()
}

/// Returns the senders that their addresses show.
fn candidates<'f, 's>(
    flows: &'f [Flow],
    now: &'s ForwardSet,
    links: &Links,
) -> impl Iterator<Item = (&'f Flow, &'s Outbound)> {
    let udp = flows.iter().filter(|flow| flow.protocol == Protocol::Udp);
    let routed = udp.filter(|flow| is_routed(flow, links));
    routed.filter_map(|flow| {
        let entry = now.deciding_entry(flow)?;
        let (from, to, port) = (flow.source, flow.destination, flow.destination_port);
        let rewrites = entry.snat != Snat::Client && entry.accepts(flow.protocol, from, to, port);
        rewrites.then_some((flow, entry))
    })
}

fn request<'n>(flow: &Flow, ingress: &'n Interface) -> Packet<'n> {
    Packet {
        to: flow.destination,
        came: Some((flow.source, ingress)),
    }
}

fn reply<'n>(flow: &Flow, egress: &'n Interface) -> Packet<'n> {
    Packet {
        to: flow.source,
        came: Some((flow.destination, egress)),
    }
}

/// Describes the senders: their number, why they keep their source, and some of them. `None` if there are none.
#[must_use]
pub fn told(senders: &[OutboundSender<'_>]) -> Option<String> {
    let shown = senders.iter().map(|OutboundSender { flow, entry }| {
        let (protocol, source, port) = (flow.protocol, flow.source, flow.destination_port);
        let destination = Host(flow.destination);
        let name = &entry.name;
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
    use crate::host::network::Link;
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
            let (flows, set) = ([flow], set(entry));
            let interface = |packet: &Packet<'_>| {
                let is_reply = packet.to == flows[0].source;
                Some(if is_reply { back } else { out })
            };
            let found = senders(&flows, &set, &links(), interface);
            assert_eq!(
                found.len(),
                usize::from(is_one),
                "{flows:?} {entry} {back} {out}"
            );
        }
    }
}
