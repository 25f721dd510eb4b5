use std::net::IpAddr;

use super::facts::{MOST_TARGETS, Questions, questions};
use super::faults::LOOPBACK;
use super::{Fault, ReachFacts, faults};
use crate::forwards::ForwardSet;
use crate::host::network::Link;
use crate::host::network::{Links, Packet, Route};
use crate::netfilter::conntrack::Flow;
use crate::yaml;

fn set(firewall: &str, forwards: &str) -> ForwardSet {
    let text = format!("firewall: {{{firewall}}}\nforwards: [{forwards}]");
    yaml::read(text.as_bytes()).expect("it is valid")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// eth0 has clients, eth1 the targets; 203.0.113.0/24 is routed here.
fn surroundings<'s>(
    set: &'s ForwardSet,
    client: Option<&str>,
    own: Result<&str, &str>,
) -> ReachFacts<'s> {
    let link = |name: &str, addresses: &[&str]| Link {
        name: name.to_owned(),
        up: true,
        addresses: addresses.iter().map(|text| address(text)).collect(),
        ..Link::default()
    };
    let links = Links(vec![
        link("lo", &["127.0.0.1", "10.9.9.9"]),
        link("eth0", &["10.3.0.4"]),
        link("eth1", &["10.4.0.4", "10.4.0.5"]),
    ]);
    let Questions { packets, left_out } = questions(set, &links);
    let by = |interface: &str| Route {
        interface: interface.to_owned(),
        gateway: Some(address("10.3.0.1")),
        neighbour: None,
    };
    let answer = |packet: &Packet<'_>| match packet {
        Packet { to, .. } if to.to_string().starts_with("203.0.113.") => Ok(by(LOOPBACK)),
        Packet { came: Some(_), .. } => client.map(by).ok_or("Invalid argument".to_owned()),
        Packet { to, .. } if links.owner(*to).is_some() => Ok(by(LOOPBACK)),
        _ => own.map(by).map_err(ToOwned::to_owned),
    };
    let routes = packets
        .iter()
        .map(|packet| (*packet, answer(packet)))
        .collect();
    ReachFacts {
        links,
        routes,
        left_out,
    }
}

const TWO: &str = "interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4";
const WEB: &str = "{name: web, listen: 49182, target: {pod: 10.224.0.118:80}}";

/// The first lines of the warnings.
fn told(
    firewall: &str,
    forwards: &str,
    client: Option<&str>,
    own: Result<&str, &str>,
) -> Vec<String> {
    let set = set(firewall, forwards);
    let machine = surroundings(&set, client, own);
    let faults = faults(&set, &machine, &[]);
    let first = |fault: &Fault<'_>| fault.told().lines().next().map(ToOwned::to_owned);
    faults.iter().filter_map(first).collect()
}

#[test]
fn a_machine_that_has_everything_is_not_warned_of() {
    for (firewall, forwards) in [
        (TWO, WEB),
        (
            TWO,
            "{name: web, listen: 10.3.0.4:49182, target: {pod: 10.224.0.118:80}}",
        ),
        // An address of another interface, and one that a route makes the machine's.
        (
            TWO,
            "{name: web, listen: 10.4.0.5:49182, target: {pod: 10.224.0.118:80}}",
        ),
        (
            TWO,
            "{name: web, listen: 203.0.113.9:49182, target: {pod: 10.224.0.118:80}}",
        ),
        (
            "interface: {ingress: eth0, egress: eth1}, snat: 10.9.9.9",
            WEB,
        ),
        (
            "interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4-10.4.0.5",
            WEB,
        ),
        (
            "interface: {ingress: eth0, egress: eth1}, snat: masquerade",
            WEB,
        ),
        (
            TWO,
            "{name: web, listen: 49182, target: {pod: 10.224.0.118:80}, snat: none, silence: [client-kept]}",
        ),
        (
            "interface: {ingress: [eth0, eth1], egress: eth1}, snat: 10.4.0.4",
            WEB,
        ),
        (
            TWO,
            "{name: web, listen: 49182, target: {pod: 10.224.0.118:80}, hairpin: true}",
        ),
        (TWO, ""),
    ] {
        let none: [&str; 0] = [];
        assert_eq!(
            told(firewall, forwards, Some("eth1"), Ok("eth1")),
            none,
            "{firewall} {forwards}"
        );
    }
}

#[test]
fn a_missing_interface_address_or_route_is_named_with_its_forwards() {
    for (firewall, forwards, warning) in [
        (
            "interface: {ingress: eth9, egress: eth1}, snat: 10.4.0.4",
            WEB,
            "this machine has no interface eth9, so no packet comes through `web`; it has lo, eth0, eth1",
        ),
        (
            "interface: {ingress: eth0, egress: eth9}, snat: 10.4.0.4",
            "",
            "this machine has no interface eth9; it has lo, eth0, eth1",
        ),
        (
            "interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.9",
            WEB,
            "10.4.0.9 is not an address of this machine: replies to `web` arrive only if the network routes them here",
        ),
        (
            "interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4-10.4.0.7",
            WEB,
            "10.4.0.7 is not an address of this machine: replies to `web` arrive only if the network routes them here",
        ),
        (
            "interface: {ingress: eth0, egress: eth1}, snat: 10.3.0.4",
            WEB,
            "10.3.0.4 is an address of eth0, while eth1 leads to the targets of `web`: replies come back through eth1 only if the network routes them there",
        ),
        (
            TWO,
            "{name: web, listen: 192.0.2.77:443, protocol: [tcp, udp], target: {pod: 10.224.0.118:80}}",
            "192.0.2.77 is not an address of this machine: packets reach `web` only if the network routes them here, as with Azure's floating IP",
        ),
        (
            TWO,
            "{name: web, listen: 49182, target: {pod: 10.3.0.4:80}}",
            "the target of `web` is this machine itself, which cannot forward to itself: 10.3.0.4",
        ),
    ] {
        assert_eq!(told(firewall, forwards, None, Ok("eth1")), [warning]);
    }
}

#[test]
fn the_kernel_s_answer_for_clients_decides_where_there_is_one() {
    let elsewhere = "packets to 10.224.0.118 leave through eth0, while the spec's egress is eth1: the rules of `web` do not match them";
    let nowhere =
        "this machine has no route to 10.224.0.118, the target of `web`: Network is unreachable";
    let unreachable = Err("RTNETLINK answers: Network is unreachable");
    for (client, own, warning) in [
        (Some("eth0"), Ok("eth1"), Some(elsewhere)),
        // Policy routing matches the interface by which a packet came.
        (Some("eth1"), Ok("eth0"), None),
        (Some("eth1"), unreachable, None),
        // Without ip_forward the kernel has no answer.
        (None, Ok("eth0"), Some(elsewhere)),
        (None, Ok("eth1"), None),
        (None, unreachable, Some(nowhere)),
    ] {
        let said = told(TWO, WEB, client, own);
        assert_eq!(said, Vec::from_iter(warning), "{client:?} {own:?}");
    }
}

#[test]
fn an_egress_that_is_down_is_the_cause_of_the_missing_route() {
    let set = set(TWO, WEB);
    for (own, enabled, words) in [
        (
            Ok("eth0"),
            false,
            "eth1, the egress of `web`, is down: no packet reaches 10.224.0.118 through it\nhint: to fix it: sudo ip link set eth1 up",
        ),
        (
            Err("Network is unreachable"),
            true,
            "eth1, the egress of `web`, has no carrier: no packet reaches 10.224.0.118 through it\nhint: to look: ip -details link show eth1",
        ),
    ] {
        let mut machine = surroundings(&set, None, own);
        let egress = machine.links.0.iter_mut().find(|link| link.name == "eth1");
        let egress = egress.expect("it is there");
        (egress.up, egress.enabled) = (false, enabled);
        let said: Vec<String> = faults(&set, &machine, &[])
            .iter()
            .map(Fault::told)
            .collect();
        assert_eq!(said, [words]);
    }
}

#[test]
fn a_wrong_route_is_corrected_before_the_spec() {
    let set = set(TWO, WEB);
    let machine = surroundings(&set, None, Ok("eth0"));
    let said = faults(&set, &machine, &[])[0].told();
    let (_, hints) = said.split_once('\n').expect("it has hints");
    assert_eq!(
        hints,
        "hint: if the route is wrong or missing (ROUTER: the next hop on eth1): sudo ip route replace 10.224.0.118 via ROUTER dev eth1\nhint: if the spec is wrong: correct `interface: {egress: …}` in it"
    );
}

/// The route to a neighbour is right.
#[test]
fn no_route_command_is_given_for_a_neighbour() {
    let set = set(TWO, WEB);
    let mut machine = surroundings(&set, None, Ok("eth0"));
    for route in machine.routes.values_mut().flatten() {
        route.gateway = None;
    }
    let said = faults(&set, &machine, &[])[0].told();
    assert_eq!(
        said,
        "packets to 10.224.0.118 leave through eth0, while the spec's egress is eth1: the rules of `web` do not match them\n\
         hint: correct `interface: {egress: …}` in the spec"
    );
}

/// Its sources and its destination are in one network, as those of a rule of Docker's for a container's own port.
#[test]
fn an_outbound_entry_to_a_neighbour_of_its_sources_is_no_fault() {
    let text = format!(
        "firewall: {{{TWO}}}\noutbound: [{{name: out, allow_from: [10.4.0.0/24], allow_to: [10.4.0.9]}}]"
    );
    let set = yaml::read(text.as_bytes()).expect("it is valid");
    let said = |gateway: Option<IpAddr>| -> Vec<String> {
        let mut machine = surroundings(&set, Some("eth1"), Ok("eth1"));
        for route in machine.routes.values_mut().flatten() {
            route.gateway = gateway;
        }
        faults(&set, &machine, &[])
            .iter()
            .map(Fault::told)
            .collect()
    };
    assert_eq!(said(None), [""; 0]);
    let by_router = said(Some(address("10.4.0.1")));
    assert_eq!(by_router.len(), 1, "{by_router:?}");
    assert!(
        by_router[0].contains("sudo ip route replace 10.4.0.9 via ROUTER dev eth0"),
        "{by_router:?}"
    );
}

/// Azure's fabric delivers addresses that no interface has.
#[test]
fn an_address_that_packets_have_come_to_is_routed_here() {
    let set = set(
        "interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.9",
        "{name: web, listen: 192.0.2.77:443, target: {pod: 10.224.0.118:80}}",
    );
    let machine = surroundings(&set, None, Ok("eth1"));
    let entry = "tcp 6 9 ESTABLISHED src=198.51.100.10 dst=192.0.2.77 sport=5000 dport=443 src=10.224.0.118 dst=10.4.0.9 sport=80 dport=5000";
    let unanswered = entry.replace("src=10.224", "[UNREPLIED] src=10.224");
    let own = entry.replace("198.51.100.10", "10.3.0.4");
    for (lines, kinds) in [
        (&[][..], 2),
        (&[entry], 0),
        (&[&unanswered], 1),
        // The machine's own connection to a front end does not show that packets arrive here.
        (&[&own], 1),
    ] {
        let flows: Vec<Flow> = lines.iter().filter_map(|line| Flow::parse(line)).collect();
        assert_eq!(flows.len(), lines.len());
        assert_eq!(faults(&set, &machine, &flows).len(), kinds, "{lines:?}");
    }
}

#[test]
fn many_forwards_are_few_questions_and_few_warnings() {
    let forwards = (1..=3000).map(|n| {
        let (high, low) = (n / 250, n % 250 + 1);
        format!(
            "{{name: f{n}, listen: {}, target: {{pod: 10.9.{high}.{low}:80}}}}",
            1000 + n
        )
    });
    let forwards = forwards.collect::<Vec<_>>().join(",");
    let set = set(TWO, &forwards);
    let machine = surroundings(&set, Some("eth0"), Ok("eth0"));
    assert_eq!(machine.routes.len(), 2 * MOST_TARGETS);
    assert_eq!(machine.left_out, 3000 - MOST_TARGETS);
    let faults = faults(&set, &machine, &[]);
    let said: Vec<String> = faults.iter().map(Fault::told).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(!faults[0].is_note() && faults[1].is_note());
    assert!(
        said[0]
            .starts_with("packets to 10.9.0.2, 10.9.0.3, 10.9.0.4 and 997 more leave through eth0"),
        "{said:?}"
    );
    assert!(
        said[1].starts_with("the routes to 2000 more targets were not checked"),
        "{said:?}"
    );
}

#[test]
fn one_target_of_many_forwards_is_asked_for_once() {
    let forwards = (1..=50).map(|n| {
        format!(
            "{{name: f{n}, listen: {}, target: {{pod: 10.224.0.118:80}}}}",
            1000 + n
        )
    });
    let forwards = forwards.collect::<Vec<_>>().join(",");
    let set = set(TWO, &forwards);
    let links = surroundings(&set, None, Ok("eth1")).links;
    assert_eq!(questions(&set, &links).packets.len(), 2);
}
