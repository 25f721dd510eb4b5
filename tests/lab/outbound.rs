//! Connections that an outbound entry sends out, by its options. `outbound_matrix` tries all protocols, families, sources
//! and layouts.

use crate::lab::{
    Backend, CLIENT, CLIENT_V6, FIREWALL, FIREWALL_V6, Lab, OTHER, OTHER_V6, POD, POD_V6,
};
use crate::namespace::Host;
use crate::traffic::{
    Outcome, answer, ask_ping, ask_tcp, ask_udp, serve_tcp, serve_udp, serve_udp_at, socket,
};

/// A further address of the firewall, which masquerading would not choose.
pub const SNAT: &str = "10.3.0.5";
pub const SNAT_V6: &str = "fd00:3::5";
/// A host in the firewall's own subnet.
pub const NEIGHBOUR: &str = "10.3.0.99";
pub const NEIGHBOUR_V6: &str = "fd00:3::99";
/// Addresses that another program redirects to the server outside.
pub const REDIRECTED: &str = "203.0.113.9";
pub const REDIRECTED_V6: &str = "2001:db8:99::9";
pub const METADATA: &str = "169.254.169.254";
pub const HOST_AGENT: &str = "168.63.129.16";

pub fn tcp(host: &Host, address: &str, port: u16) -> Outcome {
    let to = socket(address, port);
    host.enter(move || ask_tcp(&to))
}

pub fn udp(host: &Host, address: &str, port: u16) -> Outcome {
    let to = socket(address, port);
    host.enter(move || ask_udp(&to))
}

pub fn ping(host: &Host, address: &str) -> bool {
    let to = address.to_owned();
    host.enter(move || ask_ping(&to)) != Outcome::Silence
}

/// Makes `client` a server on the Internet, to which the pods' subnet goes through the firewall by `gateway`.
pub fn outside(lab: &Lab, gateway: &str, gateway_v6: &str) {
    serve_tcp(&lab.client, "server", 80);
    serve_udp(&lab.client, "server", 53);
    lab.client.shell(
        "nft add table inet seen
         nft 'add set inet seen v4 { type ipv4_addr; flags dynamic; }'
         nft 'add set inet seen v6 { type ipv6_addr; flags dynamic; }'
         nft 'add chain inet seen input { type filter hook input priority 0; }'
         nft 'add rule inet seen input icmp type echo-request add @v4 { ip saddr }'
         nft 'add rule inet seen input icmpv6 type echo-request add @v6 { ip6 saddr }'",
    );
    let mut script = format!(
        "ip route replace default via {gateway} table 100
         ip -6 route replace default via {gateway_v6} table 100\n"
    );
    for link in ["pod", "other"] {
        for to in [CLIENT, REDIRECTED, NEIGHBOUR, METADATA, HOST_AGENT] {
            script += &format!("ip rule add iif {link} to {to} lookup 100\n");
        }
        for to in [CLIENT_V6, REDIRECTED_V6, NEIGHBOUR_V6] {
            script += &format!("ip -6 rule add iif {link} to {to} lookup 100\n");
        }
    }
    // Answers to addresses that the firewall has not rewritten go back through it.
    script += "ip route replace default via 10.3.0.4 table 101
               ip -6 route replace default via fd00:3::4 table 101\n";
    script += &format!("ip rule add iif client to {POD} lookup 101\n");
    script += &format!("ip -6 rule add iif client to {POD_V6} lookup 101\n");
    script += &format!("ip -6 route add {SNAT_V6}/128 dev fw0\n");
    lab.vnet.shell(&script);
    lab.firewall
        .ip("-4", &format!("address add {SNAT}/24 dev eth0"));
    lab.firewall.ip(
        "-6",
        &format!("address add {SNAT_V6}/128 dev eth0 preferred_lft 0"),
    );
}

/// Returns the sources of echo requests that the server has seen since the last time.
pub fn pinged_by(lab: &Lab, set: &str) -> String {
    let listed = lab.client.run(&format!("nft list set inet seen {set}"));
    lab.client.run(&format!("nft flush set inet seen {set}"));
    let elements = listed.split("elements = {").nth(1).unwrap_or_default();
    let words = elements.split('}').next().unwrap_or_default();
    words.trim().to_owned()
}

lab_test!(either a_range_of_sources_keeps_one_address_for_a_client);
fn a_range_of_sources_keeps_one_address_for_a_client(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    outside(&lab, "10.3.0.4", FIREWALL_V6);
    lab.firewall.ip("-4", "address add 10.3.0.6/24 dev eth0");
    lab.apply(&format!(
        "firewall: {{interface: eth0}}
outbound: [{{name: out, allow_from: [{POD}], snat: '{SNAT}-10.3.0.6'}}]"
    ));
    let first = tcp(&lab.pod, CLIENT, 80);
    let possible = [SNAT, "10.3.0.6"].map(|source| answer("server", source));
    assert!(possible.contains(&first), "{first:?}");
    for _ in 0..8 {
        assert_eq!(tcp(&lab.pod, CLIENT, 80), first);
    }
}

/// Makes `ilb` a host of addresses that no entry reaches unless it names them.
pub fn private_hosts(lab: &Lab) {
    serve_tcp(&lab.ilb, "private", 80);
    lab.ilb
        .ip("-6", &format!("address add {NEIGHBOUR_V6}/128 dev eth0"));
    lab.vnet
        .ip("-6", &format!("route add {NEIGHBOUR_V6}/128 dev ilb"));
    for address in [NEIGHBOUR, METADATA, HOST_AGENT] {
        lab.ilb
            .ip("-4", &format!("address add {address}/32 dev eth0"));
        lab.vnet
            .ip("-4", &format!("route add {address}/32 dev ilb"));
    }
    for address in [NEIGHBOUR, METADATA, HOST_AGENT, NEIGHBOUR_V6] {
        serve_udp_at(&lab.ilb, "private", address, 53);
    }
    // The firewall asks for its neighbour on its own line.
    lab.vnet
        .shell("echo 1 > /proc/sys/net/ipv4/conf/fw0/proxy_arp");
}

lab_test!(either only_named_destinations_are_reached);
fn only_named_destinations_are_reached(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    outside(&lab, "10.3.0.4", FIREWALL_V6);
    private_hosts(&lab);
    let apply = |options: &str| {
        lab.apply(&format!(
            "firewall: {{interface: eth0}}
outbound: [{{name: out, allow_from: [10.224.0.0/16, 10.3.0.0/24], snat: {SNAT}{options}}}]"
        ));
    };
    let seen = |to: &str| tcp(&lab.pod, to, 80) == answer("private", SNAT);
    let reached = || [NEIGHBOUR, METADATA, HOST_AGENT].map(seen);
    apply("");
    assert_eq!(tcp(&lab.pod, CLIENT, 80), answer("server", SNAT));
    assert_eq!(reached(), [false; 3]);
    // The firewall has the entry's networks too, and keeps its source.
    assert_eq!(tcp(&lab.firewall, CLIENT, 80), answer("server", FIREWALL));
    apply(&format!(
        ", allow_to: [internet, {NEIGHBOUR}, 169.254.0.0/16, 168.63.129.0/24]"
    ));
    assert_eq!(reached(), [true, false, false]);
    apply(&format!(
        ", allow_to: [{METADATA}, 169.254.0.0/16, {HOST_AGENT}], silence: [metadata-open]"
    ));
    assert_eq!(reached(), [false, true, true]);
    assert_eq!(tcp(&lab.pod, CLIENT, 80), Outcome::Silence);
}

lab_test!(the_vm_s_identity_stays_out_of_reach_whatever_the_policy_is);
fn the_vm_s_identity_stays_out_of_reach_whatever_the_policy_is(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    outside(&lab, "10.3.0.4", FIREWALL_V6);
    private_hosts(&lab);
    let apply = |options: &str| {
        lab.apply(&format!(
            "firewall: {{interface: eth0, forward_policy: keep}}
outbound: [{{name: out, allow_from: [10.224.0.0/16], snat: {SNAT}{options}}}]
silence: [policy-kept]"
        ));
    };
    let reached = || [METADATA, HOST_AGENT].map(|to| tcp(&lab.pod, to, 80));
    let passes = || [METADATA, HOST_AGENT].map(|_| answer("private", POD));
    let dropped = || [Outcome::Silence, Outcome::Silence];
    apply("");
    assert_eq!(tcp(&lab.pod, CLIENT, 80), answer("server", SNAT));
    assert_eq!(reached(), dropped());
    // The policy decides on packets that the entry's ports and protocols do not select.
    apply(", protocol: tcp, ports: [443]");
    assert_eq!(reached(), passes());
    apply(", protocol: tcp, ports: [80, 443]");
    assert_eq!(reached(), dropped());
    apply(", protocol: [udp, ping]");
    assert_eq!(reached(), passes());
}

lab_test!(either an_entry_s_ports_and_protocols_are_exact);
fn an_entry_s_ports_and_protocols_are_exact(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    outside(&lab, "10.3.0.4", FIREWALL_V6);
    // More than one rule can hold.
    let ports: Vec<u16> = (1..=16).map(|n| 7000 + 2 * n).collect();
    for port in [7001, 7002, 7003, 7032, 7033, 8000, 8005, 8010, 8011] {
        serve_tcp(&lab.client, "server", port);
    }
    lab.apply(&format!(
        "firewall: {{interface: eth0}}
outbound: [{{name: out, allow_from: [10.224.0.0/16], protocol: tcp, ports: [8000-8010, {ports}]}}]",
        ports = ports
            .iter()
            .map(u16::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    ));
    for (port, passes) in [
        (7001, false),
        (7002, true),
        (7003, false),
        (7032, true),
        (7033, false),
        (8000, true),
        (8005, true),
        (8010, true),
        (8011, false),
    ] {
        let expected = if passes {
            answer("server", FIREWALL)
        } else {
            Outcome::Silence
        };
        assert_eq!(tcp(&lab.pod, CLIENT, port), expected, "{port}");
    }
    assert_eq!(udp(&lab.pod, CLIENT, 53), Outcome::Silence);
    assert!(!ping(&lab.pod, CLIENT));
}

lab_test!(either the_first_entry_decides_its_drops_included);
fn the_first_entry_decides_its_drops_included(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    outside(&lab, "10.3.0.4", FIREWALL_V6);
    lab.apply(&format!(
        "firewall: {{interface: eth0, forward_policy: keep}}
outbound:
  - {{name: tcp, allow_from: [10.224.0.0/16], protocol: tcp, deny_from: [{OTHER}], snat: {SNAT}}}
  - {{name: denied, allow_from: [10.224.0.0/16], protocol: udp, deny_to: [{CLIENT}]}}
  - {{name: all, allow_from: [10.224.0.0/16, '{OTHER_V6}']}}
silence: [outbound-overlap, policy-kept]"
    ));
    // The policy would let all of these pass.
    assert_eq!(tcp(&lab.pod, CLIENT, 80), answer("server", SNAT));
    assert_eq!(tcp(&lab.other, CLIENT, 80), Outcome::Silence);
    assert_eq!(udp(&lab.pod, CLIENT, 53), Outcome::Silence);
    assert!(ping(&lab.other, CLIENT));
    assert_eq!(pinged_by(&lab, "v4"), FIREWALL);
    assert_eq!(
        udp(&lab.other, CLIENT_V6, 53),
        answer("server", FIREWALL_V6)
    );
}

lab_test!(either a_redirected_connection_is_no_entry_s);
fn a_redirected_connection_is_no_entry_s(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    outside(&lab, "10.3.0.4", FIREWALL_V6);
    serve_tcp(&lab.other, "other", 80);
    for layout in ["flat", "tree"] {
        // Another program redirects the pod, and so does a forward that refuses it.
        lab.firewall.run(
            "iptables -t nat -A PREROUTING -d 203.0.113.9 -p tcp -j DNAT --to-destination 198.51.100.10:80",
        );
        let spec = |allow: &str| {
            format!(
                "firewall: {{interface: eth0, snat: 10.3.0.4, layout: {layout}}}
forwards:
  - {{name: web, listen: 8080, target: {{pod: '{OTHER}:80'}}, hairpin: true, allow_from: [{allow}]}}
outbound:
  - {{name: out, allow_from: [10.224.0.0/16], allow_to: [internet, 10.224.0.0/16]}}
silence: [keeps-probes-out]"
            )
        };
        lab.apply(&spec(CLIENT));
        assert_eq!(tcp(&lab.pod, REDIRECTED, 80), Outcome::Silence, "{layout}");
        assert_eq!(tcp(&lab.pod, FIREWALL, 8080), Outcome::Silence, "{layout}");
        assert_eq!(
            tcp(&lab.pod, CLIENT, 80),
            answer("server", FIREWALL),
            "{layout}"
        );
        lab.apply(&spec("10.224.0.0/16"));
        assert_eq!(
            tcp(&lab.pod, FIREWALL, 8080),
            answer("other", FIREWALL),
            "{layout}"
        );
        lab.firewall.run("iptables -t nat -F PREROUTING");
        lab.apply("firewall: {interface: eth0}\noutbound: []");
        assert_eq!(tcp(&lab.pod, CLIENT, 80), Outcome::Silence, "{layout}");
    }
}

lab_test!(a_loaded_entry_reads_back_and_a_second_apply_changes_nothing);
fn a_loaded_entry_reads_back_and_a_second_apply_changes_nothing(backend: Backend) {
    let lab = Lab::dual_stack_two_nics(backend);
    let spec = include_str!("../cases/outbound-everything/spec.yaml");
    lab.apply(spec);
    let again = lab.nvactl_with(&["apply", "-", "--no-trial"], spec);
    assert!(again.stdout.contains("no changes"), "{again:?}");
    let same = lab.nvactl_with(&["diff", "-"], spec);
    assert_eq!(same.code, 0, "{same:?}");
    let other = spec.replace("ports: [53]", "ports: [53, 853]");
    let changed = lab.nvactl_with(&["diff", "-"], &other);
    assert_eq!(changed.stdout, "~ dns              ports 53 → 53, 853\n");
    let chain = lab.firewall.run("iptables -S NVACTL-FORWARD");
    let rule = chain.lines().find(|line| line.contains("--comment dns"));
    let rule = rule.expect("it is loaded").replacen("-A", "-D", 1);
    lab.firewall.run(&format!("iptables {rule}"));
    let drift = lab.nvactl_with(&["diff", "-"], spec);
    assert!(drift.stdout.contains("! dns "), "{drift:?}");
    let removed = lab.nvactl(&["remove"]);
    assert_eq!(removed.code, 0, "{removed:?}");
    assert!(!lab.firewall.run("iptables-save").contains("NVACTL"));
}

lab_test!(either limits_of_an_entry_reject_and_count);
fn limits_of_an_entry_reject_and_count(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    outside(&lab, "10.3.0.4", FIREWALL_V6);
    for protocol in ["tcp", "udp", "ping"] {
        let spec = format!(
            "firewall: {{interface: eth0}}
outbound:
  - {{name: out, allow_from: [10.224.0.0/16], protocol: {protocol}, log: {{connections: refused}}, limits: {{new_per_second: 1, burst: 1, reject: true}}}}"
        );
        lab.apply(&spec);
        let ask = || match protocol {
            "tcp" => tcp(&lab.pod, CLIENT, 80),
            "udp" => udp(&lab.pod, CLIENT, 53),
            _ => Outcome::Silence,
        };
        if protocol == "ping" {
            assert!(ping(&lab.pod, CLIENT));
            // Whether the refusal comes back depends on the kernel's own limit for such answers.
            for _ in 0..4 {
                ping(&lab.pod, CLIENT);
            }
        } else {
            assert_eq!(ask(), answer("server", FIREWALL), "{protocol}");
            assert_eq!(ask(), Outcome::Refused, "{protocol}");
        }
        let status = lab.nvactl_with(&["status", "-", "--format", "json"], &spec);
        let status: serde_json::Value = serde_json::from_str(&status.stdout).expect("it is JSON");
        let row = &status["outbound"][0];
        assert_eq!(row["state"], "in_sync", "{row}");
        assert!(
            row["refused"]["packets"].as_u64() >= Some(1),
            "{protocol}: {row}"
        );
    }
}
