//! UDP senders that a forward's rules do not reach: the kernel has a conntrack entry from before the rules, and it
//! decides NAT only for a connection's first packet.
//!
//! TCP has no such case: a TCP client opens a new connection.

use std::collections::{BTreeMap, BTreeSet};

use super::suspects::{Examined, MOST_ASKED};
use crate::forwards::{Forward, ForwardSet, Listeners};
use crate::host::network::{self, Links, ReplyPacket};
use crate::net::words::few;
use crate::net::{Host, Protocol};
use crate::netfilter::conntrack::Flow;

/// A UDP connection to a forward's listener that is not translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender<'s> {
    pub flow: &'s Flow,
    /// The forward that would take a new connection.
    pub forward: &'s Forward,
}

/// The number of senders that are shown one by one.
const MOST_SHOWN: usize = 3;

/// Returns the UDP senders that the forwards of `now` do not reach. It runs a program only if there are any.
#[must_use]
pub fn look<'s>(flows: &'s [Flow], now: &'s ForwardSet, links: &Links) -> Examined<Sender<'s>> {
    let routes = network::answer_routes(&questions(flows, now, links));
    senders(flows, now, links, &routes)
}

/// Returns the replies whose route [`senders`] needs, [`MOST_ASKED`] at most.
#[must_use]
pub fn questions(flows: &[Flow], now: &ForwardSet, links: &Links) -> BTreeSet<ReplyPacket> {
    let listeners = Listeners::new(now);
    let mut asked = BTreeSet::new();
    for sender in candidates(flows, &listeners, links) {
        if asked.len() == MOST_ASKED {
            break;
        }
        asked.insert(answer(sender.flow));
    }
    asked
}

/// Returns the senders that the forwards of `now` do not reach. `routes` has the interface by which each reply of
/// [`questions`] leaves, if it has a route.
///
/// A conntrack entry names no interface, so addresses show by which interface its packets come in: the destination
/// is the listen address or an address of an ingress interface, and the reply to the source leaves by such an
/// interface.
#[must_use]
pub fn senders<'s>(
    flows: &'s [Flow],
    now: &'s ForwardSet,
    links: &Links,
    routes: &BTreeMap<ReplyPacket, String>,
) -> Examined<Sender<'s>> {
    let listeners = Listeners::new(now);
    let asked = questions(flows, now, links);
    let comes_in = |sender: &Sender<'_>| {
        let back = routes.get(&answer(sender.flow));
        let mut entrances = sender.forward.entrances();
        back.is_none_or(|back| entrances.any(|one| one.as_str() == back))
    };
    let candidates = candidates(flows, &listeners, links);
    let (examined, others): (Vec<_>, Vec<_>) =
        candidates.partition(|sender| asked.contains(&answer(sender.flow)));
    Examined {
        found: examined.into_iter().filter(comes_in).collect(),
        unexamined: others.len(),
    }
}

/// Returns the senders that their addresses show.
fn candidates<'s>(
    flows: &'s [Flow],
    listeners: &Listeners<'s>,
    links: &Links,
) -> impl Iterator<Item = Sender<'s>> {
    let untranslated = flows
        .iter()
        .filter(|flow| flow.protocol == Protocol::Udp && !flow.is_translated());
    untranslated.filter_map(|flow| {
        let forward = listeners.taker(flow.protocol, flow.destination, flow.destination_port)?;
        let is_listened_on = match forward.listen.address {
            // The lookup of the listener has compared this address.
            Some(_) => true,
            None => forward
                .entrances()
                .any(|entrance| links.addresses(entrance).contains(&flow.destination)),
        };
        // If the machine's addresses are unknown, the sender may be the machine itself.
        let is_elsewhere = !links.0.is_empty() && links.owner(flow.source).is_none();
        let is_one = is_listened_on && is_elsewhere && forward.sources.admits(flow.source);
        is_one.then_some(Sender { flow, forward })
    })
}

fn answer(flow: &Flow) -> ReplyPacket {
    ReplyPacket {
        from: flow.destination,
        to: flow.source,
    }
}

/// Describes the senders: their number, why their forwards do not reach them, and some of them. `None` if there are
/// none.
#[must_use]
pub fn told(senders: &[Sender<'_>]) -> Option<String> {
    let shown = senders.iter().map(|Sender { flow, forward }| {
        let (protocol, source, port) = (flow.protocol, flow.source, flow.destination_port);
        let destination = Host(flow.destination);
        let name = &forward.name;
        format!("{protocol} {source} → {destination}:{port} (`{name}`)")
    });
    let shown = few(shown, MOST_SHOWN);
    match senders.len() {
        0 => None,
        1 => Some(format!(
            "1 UDP sender began before its forward was loaded and is not forwarded: {shown}"
        )),
        many => Some(format!(
            "{many} UDP senders began before their forwards were loaded and are not forwarded: {shown}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::network::Link;
    use crate::yaml;

    fn set(forwards: &str) -> ForwardSet {
        let text = format!(
            "firewall: {{interface: {{ingress: eth0, egress: eth1}}, snat: 10.4.0.4}}\nforwards: [{forwards}]"
        );
        yaml::read(text.as_bytes()).expect("it is valid")
    }

    fn links() -> Links {
        let link = |name: &str, addresses: &[&str]| Link {
            name: name.to_owned(),
            up: true,
            addresses: addresses
                .iter()
                .map(|address| address.parse().expect("an address"))
                .collect(),
            ..Link::default()
        };
        Links(vec![
            link("lo", &["127.0.0.1"]),
            link("eth0", &["10.3.0.4", "10.3.0.5"]),
            link("eth1", &["10.4.0.4"]),
        ])
    }

    const DNS: &str = "{name: dns, listen: 53, protocol: udp, target: {pod: 10.224.0.118:5353}}";

    fn found(forwards: &str, line: &str, routes: &BTreeMap<ReplyPacket, String>) -> usize {
        let flows = [Flow::parse(line).expect("it is a flow")];
        senders(&flows, &set(forwards), &links(), routes)
            .found
            .len()
    }

    fn untranslated(from: &str, to: &str, port: u16) -> String {
        format!(
            "udp 17 29 src={from} dst={to} sport=5000 dport={port} [UNREPLIED] src={to} dst={from} sport={port} dport=5000"
        )
    }

    #[test]
    fn a_sender_from_before_the_forward_is_found_by_its_addresses() {
        let none = BTreeMap::new();
        let client = "198.51.100.10";
        for (line, is_one) in [
            (untranslated(client, "10.3.0.4", 53), true),
            (untranslated(client, "10.3.0.5", 53), true),
            (untranslated(client, "10.3.0.4", 54), false),
            // A local service has answered, and still gets the packets.
            (
                untranslated(client, "10.3.0.4", 53).replace("[UNREPLIED] ", ""),
                true,
            ),
            (
                untranslated(client, "10.3.0.4", 53).replace("udp 17 29", "tcp 6 29 SYN_SENT"),
                false,
            ),
            // The machine itself, and its own questions to others.
            (untranslated("10.3.0.4", "10.3.0.4", 53), false),
            (untranslated("127.0.0.1", "127.0.0.1", 53), false),
            (untranslated("10.3.0.4", "8.8.8.8", 53), false),
            // Another interface's address, and a packet that only passes.
            (untranslated(client, "10.4.0.4", 53), false),
            (untranslated(client, "10.9.0.9", 53), false),
            // Forwarded already, or translated by another.
            (
                format!(
                    "udp 17 29 src={client} dst=10.3.0.4 sport=5 dport=53 src=10.224.0.118 dst=10.4.0.4 sport=5353 dport=5"
                ),
                false,
            ),
            (
                format!(
                    "udp 17 29 src={client} dst=10.3.0.4 sport=5 dport=53 src=10.3.0.4 dst={client} sport=5300 dport=5"
                ),
                false,
            ),
        ] {
            assert_eq!(found(DNS, &line, &none), usize::from(is_one), "{line}");
        }
    }

    #[test]
    fn the_listen_address_the_lists_and_a_hairpin_decide_whom_a_forward_takes() {
        let none = BTreeMap::new();
        let client = "198.51.100.10";
        let one = DNS.replace("listen: 53", "listen: 10.3.0.4:53");
        // Azure's floating IP is no address of the machine.
        let floating = DNS.replace("listen: 53", "listen: 203.0.113.10:53");
        let denied = DNS.replace("}}", "}, deny_from: [198.51.100.0/24]}");
        let hairpin = DNS.replace("}}", "}, hairpin: true}");
        for (forwards, to, is_one) in [
            (&one, "10.3.0.4", true),
            (&one, "10.3.0.5", false),
            (&floating, "203.0.113.10", true),
            (&denied, "10.3.0.4", false),
            (&hairpin, "10.4.0.4", true),
        ] {
            let line = untranslated(client, to, 53);
            assert_eq!(
                found(forwards, &line, &none),
                usize::from(is_one),
                "{forwards} {to}"
            );
        }
    }

    #[test]
    fn a_sender_whose_answers_leave_by_another_interface_came_in_by_that() {
        let flow = untranslated("10.224.0.99", "10.3.0.4", 53);
        let asked = ReplyPacket {
            from: "10.3.0.4".parse().expect("an address"),
            to: "10.224.0.99".parse().expect("an address"),
        };
        let flows = [Flow::parse(&flow).expect("it is a flow")];
        let set = set(DNS);
        assert_eq!(questions(&flows, &set, &links()), BTreeSet::from([asked]));
        for (back, is_one) in [("eth0", true), ("eth1", false)] {
            let routes = BTreeMap::from([(asked, back.to_owned())]);
            assert_eq!(found(DNS, &flow, &routes), usize::from(is_one), "{back}");
        }
    }

    #[test]
    fn nobody_is_named_where_the_machine_s_addresses_are_not_known() {
        let one = DNS.replace("listen: 53", "listen: 10.3.0.4:53");
        let flows = [Flow::parse(&untranslated("10.3.0.4", "10.3.0.4", 53)).expect("it is a flow")];
        let set = set(&one);
        let found = senders(&flows, &set, &Links::default(), &BTreeMap::new());
        assert_eq!((found.found.len(), found.unexamined), (0, 0));
    }

    #[test]
    fn some_senders_are_shown_with_their_forwards() {
        let lines: Vec<Flow> = (1..=5)
            .map(|n| untranslated(&format!("198.51.100.{n}"), "10.3.0.4", 53))
            .map(|line| Flow::parse(&line).expect("it is a flow"))
            .collect();
        let set = set(DNS);
        let found = senders(&lines, &set, &links(), &BTreeMap::new()).found;
        assert_eq!(told(&found[..0]), None);
        assert_eq!(
            told(&found[..1]).as_deref(),
            Some(
                "1 UDP sender began before its forward was loaded and is not forwarded: udp 198.51.100.1 → 10.3.0.4:53 (`dns`)"
            )
        );
        let all = told(&found).expect("there are some");
        assert!(all.starts_with("5 UDP senders began"), "{all}");
        assert!(all.ends_with("10.3.0.4:53 (`dns`) and 2 more"), "{all}");
    }

    #[test]
    fn a_sender_whose_route_is_not_asked_for_is_left_out_and_counted() {
        let flow = |n: usize| {
            let source = format!("198.{}.{}.{}", 18 + n / 65536, n / 256 % 256, n % 256);
            Flow::parse(&untranslated(&source, "10.3.0.4", 53)).expect("it is a flow")
        };
        let mut flows: Vec<Flow> = (0..MOST_ASKED + 3).map(flow).collect();
        // Another sender of a host that is asked for.
        flows.push(flows[0].clone());
        let set = set(DNS);
        assert_eq!(questions(&flows, &set, &links()).len(), MOST_ASKED);
        let senders = senders(&flows, &set, &links(), &BTreeMap::new());
        assert_eq!(senders.found.len(), MOST_ASKED + 1);
        assert_eq!(senders.unexamined, 3);
    }
}
