//! By which interface, and to which address, a forward is reached.

use crate::lab::{Backend, FIREWALL, FIREWALL_EGRESS, Lab, save};
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

lab_test!(a_forward_is_open_at_its_listen_addresses_only);
fn a_forward_is_open_at_its_listen_addresses_only(backend: Backend) {
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

lab_test!(a_hairpin_is_reached_from_the_targets_and_from_the_firewall);
/// What is behind the firewall, and the firewall itself, come in by the same address as clients.
fn a_hairpin_is_reached_from_the_targets_and_from_the_firewall(backend: Backend) {
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

lab_test!(a_floating_ip_is_no_address_of_the_machine);
/// The frontend's address arrives as the destination, and is none of the machine's.
fn a_floating_ip_is_no_address_of_the_machine(backend: Backend) {
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

/// Two forwards to one target by one listen port, for clients of two interfaces.
fn siblings(layout: &str, partner: &str) -> String {
    format!(
        "firewall: {{interface: {{ingress: eth0, egress: eth1}}, snat: 10.4.0.4, layout: {layout}}}
silence: [address-beside-all, client-kept]
forwards:
  - {{name: all, listen: 8080, target: {{pod: 10.224.0.118:80}}, hairpin: true}}
  - {{name: partner, listen: 10.3.0.4:8080, target: {{pod: 10.224.0.118:80}}, interface: {{ingress: eth2}}, {partner}}}"
    )
}

lab_test!(each_forward_to_a_shared_target_has_its_own_source);
fn each_forward_to_a_shared_target_has_its_own_source(backend: Backend) {
    const SECOND: &str = "10.4.0.9";
    const PARTNER: &str = "10.5.0.9";
    let lab = Lab::two_nics(backend);
    let partner = second_ingress(&lab);
    serve_tcp(&lab.pod, "pod", 80);
    lab.firewall.run("ip address add 10.4.0.9/24 dev eth1");
    // What keeps its address is answered through the firewall.
    lab.vnet.run("ip route add 10.5.0.9/32 via 10.4.0.4");
    let to = format!("{FIREWALL}:8080");
    for layout in ["flat", "tree"] {
        for (options, source, own) in [
            ("snat: none", PARTNER, FIREWALL_EGRESS),
            ("snat: 10.4.0.9", SECOND, FIREWALL_EGRESS),
            ("snat: 10.4.0.9, hairpin: true", SECOND, SECOND),
        ] {
            let spec = siblings(layout, options);
            lab.apply(&spec);
            assert_eq!(
                ask(&partner, &to),
                answer("pod", source),
                "{layout}, {options}"
            );
            let by_all = answer("pod", FIREWALL_EGRESS);
            assert_eq!(lab.tcp(FIREWALL, 8080), by_all, "{layout}, {options}");
            assert_eq!(
                ask(&lab.firewall, &to),
                answer("pod", own),
                "{layout}, {options}"
            );
            assert_eq!(
                ask(&lab.firewall, "10.5.0.4:8080"),
                by_all,
                "{layout}, {options}"
            );
            let said = lab.nvactl_with(&["status", "-", "--check"], &spec);
            assert_eq!(said.code, 0, "{said:?}");
        }
    }
}

lab_test!(an_old_kernel_that_cannot_distinguish_forwards_gets_none_of_them);
/// A kernel before 5.5, as far as it says so.
fn an_old_kernel_that_cannot_distinguish_forwards_gets_none_of_them(backend: Backend) {
    let lab = Lab::two_nics(backend);
    lab.firewall.shell(
        "echo 5.4.0-150-generic > /run/osrelease
         mount --bind /run/osrelease /proc/sys/kernel/osrelease",
    );
    let before = save(&lab.firewall);
    for options in [&["apply", "-"][..], &["apply", "-", "--dry-run"]] {
        let said = lab.nvactl_with(options, &siblings("flat", "snat: none"));
        assert_eq!(said.code, 2, "{said:?}");
        assert!(
            said.stderr.contains("`partner` and another forward"),
            "{said:?}"
        );
        assert!(
            said.stderr
                .contains("needs Linux 5.5, and Linux 5.4 is running"),
            "{said:?}"
        );
        assert!(
            said.stderr
                .contains("hint: in the spec, give both forwards the same `snat`"),
            "{said:?}"
        );
    }
    assert_eq!(save(&lab.firewall), before);
    lab.apply(&siblings("flat", "snat: 10.4.0.4"));
}
