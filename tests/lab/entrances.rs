//! By which interface, and to which address, a forward is reached.

use crate::lab::{Backend, FIREWALL, FIREWALL_EGRESS, Lab};
use crate::namespace::Host;
use crate::traffic::{self, Outcome, answer, serve_tcp};

fn ask(host: &Host, to: &str) -> Outcome {
    let to = to.to_owned();
    host.enter(move || traffic::ask_tcp(&to))
}

/// A third interface of the firewall, with a client behind it: that of the other network.
fn second_ingress(lab: &Lab) -> Host {
    let partner = Host::new();
    let (here, there) = (lab.firewall.pid(), partner.pid());
    lab.firewall.run(&format!(
        "ip link add eth2 netns {here} type veth peer name eth0 netns {there}"
    ));
    lab.firewall.run("ip address add 10.5.0.4/24 dev eth2");
    lab.firewall.run("ip link set eth2 up");
    partner.run("ip address add 10.5.0.9/24 dev eth0");
    partner.run("ip link set eth0 up");
    partner.run("ip route add default via 10.5.0.4");
    partner
}

pub fn a_forward_is_open_where_it_says(backend: Backend) {
    let lab = Lab::two_nics(backend);
    let partner = second_ingress(&lab);
    serve_tcp(&lab.pod, "pod", 80);
    lab.apply(
        "firewall: {interface: {ingress: eth0, egress: eth1}, snat: masquerade}
forwards:
  - {name: both, listen: 8080, target: {pod: 10.224.0.118:80}, interface: {ingress: [eth0, eth2]}}
  - {name: partner, listen: 8081, target: {pod: 10.224.0.118:80}, interface: {ingress: eth2}}
  - {name: clients, listen: 8082, target: {pod: 10.224.0.118:80}}",
    );
    let there = || answer("pod", FIREWALL_EGRESS);
    for (port, by_client, by_partner) in [
        (8080, there(), there()),
        (8081, Outcome::Refused, there()),
        (8082, there(), Outcome::Refused),
    ] {
        assert_eq!(lab.tcp(FIREWALL, port), by_client, "{port}");
        assert_eq!(
            ask(&partner, &format!("10.5.0.4:{port}")),
            by_partner,
            "{port}"
        );
    }
}

/// What is behind the firewall, and the firewall itself, come in by the same address as clients.
pub fn a_hairpin_is_reached_from_behind_and_from_the_firewall(backend: Backend) {
    let lab = Lab::two_nics(backend);
    serve_tcp(&lab.pod, "pod", 80);
    let forward = |hairpin: bool| {
        format!(
            "firewall: {{interface: {{ingress: eth0, egress: eth1}}, snat: 10.4.0.4}}
forwards: [{{name: web, listen: 8080, target: {{pod: 10.224.0.118:80}}, hairpin: {hairpin}}}]"
        )
    };
    // Behind the firewall the way to its address leads to its inner side.
    lab.vnet.run("ip route replace 10.3.0.4/32 via 10.4.0.4");
    lab.apply(&forward(false));
    let to = format!("{FIREWALL}:8080");
    for host in [&lab.other, &lab.pod, &lab.firewall] {
        assert_eq!(ask(host, &to), Outcome::Refused);
    }
    lab.apply(&forward(true));
    for host in [&lab.other, &lab.pod, &lab.firewall] {
        assert_eq!(ask(host, &to), answer("pod", FIREWALL_EGRESS));
    }
    // Its own loopback address is another matter.
    assert_eq!(ask(&lab.firewall, "127.0.0.1:8080"), Outcome::Refused);
    let save = crate::lab::save(&lab.firewall);
    assert!(save.contains("-A OUTPUT -j NVACTL-OUTPUT"), "{save}");
    lab.apply(&forward(false));
    let save = crate::lab::save(&lab.firewall);
    assert!(!save.contains("NVACTL-OUTPUT"), "{save}");
}

/// The frontend's address arrives as the destination, and is none of the machine's.
pub fn a_floating_ip_is_no_address_of_the_machine(backend: Backend) {
    const FRONTEND: &str = "203.0.113.10";
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    lab.vnet
        .run(&format!("ip route add {FRONTEND}/32 via 10.3.0.4"));
    lab.apply(
        "firewall: {interface: eth0, snat: 10.3.0.4}
forwards: [{name: web, listen: 203.0.113.10:443, target: {pod: 10.224.0.118:80}}]",
    );
    assert_eq!(lab.tcp(FRONTEND, 443), answer("pod", FIREWALL));
    assert_eq!(lab.tcp(FIREWALL, 443), Outcome::Refused);
}
