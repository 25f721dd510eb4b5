//! The article's two scenarios, and the packets that its rules should not let through.

use crate::lab::{Backend, CLIENT, FIREWALL, FIREWALL_EGRESS, ILB, Lab, OTHER, POD, example};
use crate::traffic::{Outcome, answer, serve_tcp, serve_udp};

lab_test!(through_an_ilb);
fn through_an_ilb(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.ilb, "ilb", 49180);
    lab.apply(&example("ilb.yaml"));
    assert_eq!(lab.curl(FIREWALL, 49181), "ilb 10.3.0.4");
    assert_eq!(
        lab.tcp(FIREWALL, 49182),
        Outcome::Refused,
        "the firewall's own answer"
    );
    // The Service's port is the target's, not the listener's.
    assert_eq!(lab.tcp(FIREWALL, 49180), Outcome::Refused);
}

lab_test!(straight_to_a_pod);
fn straight_to_a_pod(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    serve_tcp(&lab.pod, "pod", 81);
    lab.route_through_firewall(POD);
    // There is a way to the pod, until nvactl closes it.
    assert_eq!(lab.nvactl(&["sysctl", "enable"]).code, 0);
    assert_eq!(lab.tcp(POD, 80), answer("pod", CLIENT));
    lab.apply(&example("pod.yaml"));
    assert_eq!(lab.curl(FIREWALL, 49182), "pod 10.3.0.4");
    // Routed straight at the pod, untranslated: the article's rules let this one through.
    assert_eq!(lab.tcp(POD, 80), Outcome::Silence);
    assert_eq!(lab.tcp(POD, 81), Outcome::Silence);
}

lab_test!(two_nics);
fn two_nics(backend: Backend) {
    let lab = Lab::two_nics(backend);
    serve_tcp(&lab.pod, "pod", 80);
    serve_tcp(&lab.ilb, "ilb", 443);
    lab.apply(&example("two-nic.yaml"));
    assert_eq!(lab.curl(FIREWALL, 8080), format!("pod {FIREWALL_EGRESS}"));
    assert_eq!(lab.curl(FIREWALL, 443), format!("ilb {FIREWALL_EGRESS}"));
}

/// A router with Docker and a hardening guide: what each of its namespaces would begin with.
const ROUTER: &str = "
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
for scope in all default; do
  cd /proc/sys/net/ipv4/conf/$scope
  for switch in rp_filter=1 log_martians=1 send_redirects=0 accept_redirects=0 arp_ignore=2; do
    echo ${switch#*=} > ${switch%=*}
  done
done
cd /
";

lab_test!(the_lab_is_the_same_on_a_machine_that_routes);
/// The lab's firewall forwards once it is told to, and takes packets that it would answer by another
/// interface, whatever the machine does that the lab runs on.
fn the_lab_is_the_same_on_a_machine_that_routes(backend: Backend) {
    let lab = Lab::two_nics_on_a_machine_with(ROUTER, backend);
    serve_tcp(&lab.pod, "pod", 80);
    lab.route_through_firewall(POD);
    assert_eq!(lab.tcp(POD, 80), Outcome::Silence, "nobody forwards yet");
    let said = lab.nvactl(&["sysctl", "status", "--ipv6"]);
    assert!(!said.stdout.contains("= 1"), "{said:?}");
    lab.apply(&example("two-nic.yaml"));
    lab.firewall
        .run("ip route add 198.51.100.0/24 via 10.4.0.1");
    assert_eq!(lab.curl(FIREWALL, 8080), format!("pod {FIREWALL_EGRESS}"));
    let links = lab.firewall.run("ip -6 address show dev eth0");
    assert!(links.contains("inet6 fe80::"), "{links}");
}

const TRANSIT: &str = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 49181, target: {pod: 10.224.0.118:80}}
  - {name: dns, listen: 53, protocol: udp, target: {pod: 10.224.0.118:5353}}
";

lab_test!(udp_is_forwarded);
fn udp_is_forwarded(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_udp(&lab.pod, "pod", 5353);
    lab.apply(TRANSIT);
    assert_eq!(lab.udp(FIREWALL, 53), answer("pod", FIREWALL));
    lab.route_through_firewall(POD);
    assert_eq!(lab.udp(POD, 5353), Outcome::Silence);
}

lab_test!(transit_is_not_hijacked);
fn transit_is_not_hijacked(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    serve_tcp(&lab.other, "other", 49181);
    serve_udp(&lab.other, "other", 53);
    // The user's own rule for what is routed through the machine.
    lab.firewall
        .run("iptables -A FORWARD -d 10.224.0.99 -j ACCEPT");
    lab.apply(TRANSIT);
    lab.route_through_firewall(OTHER);
    assert_eq!(lab.tcp(OTHER, 49181), answer("other", CLIENT));
    assert_eq!(lab.udp(OTHER, 53), answer("other", CLIENT));
    assert_eq!(lab.tcp(FIREWALL, 49181), answer("pod", FIREWALL));
}

lab_test!(equal_ports_do_not_open_the_target);
/// Where both ports are equal, the port a connection was first sent to does not tell a translated
/// one from one that is routed straight at the target.
fn equal_ports_do_not_open_the_target(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 8080);
    serve_tcp(&lab.ilb, "ilb", 8443);
    lab.route_through_firewall(POD);
    lab.route_through_firewall(ILB);
    assert_eq!(lab.nvactl(&["sysctl", "enable"]).code, 0);
    assert_eq!(lab.tcp(POD, 8080), answer("pod", CLIENT));
    assert_eq!(lab.tcp(ILB, 8443), answer("ilb", CLIENT));
    lab.apply(
        "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: pod, listen: 8080, target: {pod: 10.224.0.118:8080}}
  - {name: ilb, listen: 8443, target: {ilb: 10.224.0.222}}
",
    );
    assert_eq!(lab.tcp(FIREWALL, 8080), answer("pod", FIREWALL));
    assert_eq!(lab.tcp(FIREWALL, 8443), answer("ilb", FIREWALL));
    assert_eq!(lab.tcp(POD, 8080), Outcome::Silence);
    assert_eq!(lab.tcp(ILB, 8443), Outcome::Silence);
}

lab_test!(ranges);
/// One port takes a whole range; a range keeps each port's place in it.
fn ranges(backend: Backend) {
    let lab = Lab::one_nic(backend);
    for (name, port) in [("kept", 5003), ("shifted", 7003), ("one", 9000)] {
        serve_tcp(&lab.pod, name, port);
        serve_udp(&lab.pod, name, port);
    }
    let mut spec = "firewall: {interface: eth0, snat: 10.3.0.4}\nforwards:\n".to_owned();
    for protocol in ["tcp", "udp"] {
        for (name, listen, target) in [
            ("kept", "5000-5010", "ilb: 10.224.0.118"),
            ("same", "5020-5030", "ilb: 10.224.0.118:5020-5030"),
            ("shifted", "6000-6010", "pod: 10.224.0.118:7000-7010"),
            ("one", "8000-8010", "pod: 10.224.0.118:9000"),
        ] {
            spec += &format!(
                "  - {{name: {name}-{protocol}, listen: {listen}, protocol: {protocol}, target: {{{target}}}}}\n"
            );
        }
    }
    serve_tcp(&lab.pod, "same", 5025);
    serve_udp(&lab.pod, "same", 5025);
    lab.apply(&spec);
    for (listen, name) in [
        (5003, "kept"),
        (5025, "same"),
        (6003, "shifted"),
        (8007, "one"),
    ] {
        assert_eq!(lab.tcp(FIREWALL, listen), answer(name, FIREWALL));
        assert_eq!(lab.udp(FIREWALL, listen), answer(name, FIREWALL));
    }
    assert_eq!(
        lab.tcp(FIREWALL, 6011),
        Outcome::Refused,
        "next to the range"
    );
    assert_eq!(
        lab.tcp(FIREWALL, 5999),
        Outcome::Refused,
        "next to the range"
    );
}

lab_test!(masquerade_hides_the_client);
fn masquerade_hides_the_client(backend: Backend) {
    let lab = Lab::two_nics(backend);
    serve_tcp(&lab.pod, "pod", 80);
    lab.apply(
        "
firewall: {interface: {ingress: eth0, egress: eth1}, snat: masquerade}
forwards: [{name: web, listen: 80, target: {pod: 10.224.0.118:80}}]
",
    );
    assert_eq!(lab.tcp(FIREWALL, 80), answer("pod", FIREWALL_EGRESS));
}

lab_test!(a_listen_address_takes_precedence);
/// A listener for one address goes before one for all, wherever it stands in the file.
fn a_listen_address_takes_precedence(backend: Backend) {
    let lab = Lab::one_nic(backend);
    lab.firewall.run("ip address add 10.3.0.5/24 dev eth0");
    serve_tcp(&lab.pod, "pod", 80);
    serve_tcp(&lab.ilb, "ilb", 80);
    lab.apply(
        "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: all, listen: 80, target: {pod: 10.224.0.118:80}}
  - {name: one, listen: 10.3.0.5:80, target: {ilb: 10.224.0.222:80}}
",
    );
    assert_eq!(lab.tcp(FIREWALL, 80), answer("pod", FIREWALL));
    assert_eq!(lab.tcp("10.3.0.5", 80), answer("ilb", FIREWALL));
}

lab_test!(the_snat_address_is_the_one_given);
/// An address that masquerading would not have chosen.
fn the_snat_address_is_the_one_given(backend: Backend) {
    let lab = Lab::two_nics(backend);
    lab.firewall.run("ip address add 10.4.0.5/24 dev eth1");
    serve_tcp(&lab.pod, "pod", 80);
    lab.apply(
        "
firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.5}
forwards: [{name: web, listen: 80, target: {pod: 10.224.0.118:80}}]
",
    );
    assert_eq!(lab.tcp(FIREWALL, 80), answer("pod", "10.4.0.5"));
}

lab_test!(the_example_of_everything_is_loaded_as_it_is_planned);
fn the_example_of_everything_is_loaded_as_it_is_planned(backend: Backend) {
    let lab = Lab::one_nic(backend);
    lab.apply(&example("everything.yaml"));
    // The tests of the example are for a machine with all its interfaces.
    let again = lab.nvactl_with(&["apply", "-", "--no-trial"], &example("everything.yaml"));
    assert!(again.stdout.contains("no changes"), "{again:?}");
    let removed = lab.nvactl(&["remove"]);
    assert!(removed.stderr.contains("rules end"), "{removed:?}");
}

lab_test!(defaults_apply_unless_a_forward_overrides_them);
/// Both protocols of one listener, a source of a range, and what is switched off.
fn defaults_apply_unless_a_forward_overrides_them(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 53);
    serve_udp(&lab.pod, "pod", 53);
    lab.vnet.run("ip route add 10.3.9.0/30 via 10.3.0.4");
    for address in ["10.3.9.0", "10.3.9.1", "10.3.9.2", "10.3.9.3"] {
        lab.firewall
            .run(&format!("ip address add {address}/32 dev eth0"));
    }
    lab.apply(
        "firewall: {interface: eth0, snat: 10.3.0.4}
defaults: {protocol: [tcp, udp], snat: 10.3.9.0-10.3.9.3}
forwards:
  - {name: both, listen: 53, target: {pod: 10.224.0.118:53}}
  - {name: plain, listen: 54, protocol: tcp, snat: 10.3.0.4, target: {pod: 10.224.0.118:53}}
  - {name: off, enabled: false, listen: 55, target: {pod: 10.224.0.118:53}}",
    );
    let range = ["10.3.9.0", "10.3.9.1", "10.3.9.2", "10.3.9.3"].map(|peer| answer("pod", peer));
    let (tcp, udp) = (lab.tcp(FIREWALL, 53), lab.udp(FIREWALL, 53));
    assert!(range.contains(&tcp), "{tcp:?}");
    assert!(range.contains(&udp), "{udp:?}");
    assert_eq!(lab.tcp(FIREWALL, 54), answer("pod", FIREWALL));
    assert_eq!(lab.udp(FIREWALL, 54), Outcome::Refused);
    assert_eq!(lab.tcp(FIREWALL, 55), Outcome::Refused);
}
