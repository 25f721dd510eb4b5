//! Specs that load and through which no packet comes: what `apply` says of them.

use crate::lab::{Backend, FIREWALL, FIREWALL_EGRESS, Lab, Said};
use crate::traffic::{Outcome, answer, serve_tcp};

const SPEC: &str = "
firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
";

fn apply(lab: &Lab, spec: &str, more: &[&str]) -> Said {
    lab.nvactl_with(&[&["apply", "-"], more].concat(), spec)
}

lab_test!(either a_forward_that_cannot_work_is_a_warning);
/// The client gets no answer, so what is wrong is told, before and with the apply.
fn a_forward_that_cannot_work_is_a_warning(backend: Backend) {
    let lab = Lab::two_nics(backend);
    serve_tcp(&lab.pod, "pod", 80);
    lab.apply(SPEC);
    assert_eq!(lab.tcp(FIREWALL, 49182), answer("pod", FIREWALL_EGRESS));
    for (spec, words) in [
        (
            SPEC.replace("ingress: eth0", "ingress: ens5"),
            &["`web` stops with this change: this machine has no interface ens5; it has lo, "][..],
        ),
        (
            SPEC.replace("egress: eth1", "egress: ens6"),
            &["no interface ens6, so no packet comes through `web`; it has lo, "],
        ),
        (
            SPEC.replace("snat: 10.4.0.4", "snat: 10.4.0.9"),
            &["10.4.0.9 is not an address of this machine: replies to `web` arrive only if"],
        ),
        (
            SPEC.replace("listen: 49182", "listen: 10.3.0.9:49182"),
            &["10.3.0.9 is not an address of this machine: packets reach `web` only if"],
        ),
        (
            SPEC.replace("{ingress: eth0, egress: eth1}", "eth0")
                .replace("10.4.0.4", "10.3.0.4"),
            &[
                "packets to 10.224.0.118 leave through eth1, while the spec's egress is eth0: the rules of `web`",
                "hint: if the spec is wrong: correct `interface` in it\n",
            ],
        ),
        (
            SPEC.replace("10.224.0.118", "10.4.0.4"),
            &["the target of `web` is this machine itself", "10.4.0.4"],
        ),
    ] {
        for args in [&["--dry-run"][..], &[]] {
            let said = apply(&lab, &spec, args);
            assert_eq!(said.code, i32::from(args.len() == 1), "{said:?}");
            for words in words {
                assert!(said.stderr.contains(words), "{words}: {said:?}");
            }
            assert_eq!(said.stderr.matches("warning: ").count(), 1, "{said:?}");
        }
        let outcome = lab.tcp(FIREWALL, 49182);
        assert!(
            matches!(outcome, Outcome::Silence | Outcome::Refused),
            "{outcome:?}"
        );
    }
    // Nothing is said where nothing is wrong, hairpins and wide listeners included.
    let whole = SPEC.replace(":80}}", ":80}, hairpin: true}");
    let said = apply(&lab, &whole, &[]);
    assert_eq!(
        (said.code, said.stderr.contains("warning: ")),
        (0, false),
        "{said:?}"
    );
    assert_eq!(lab.tcp(FIREWALL, 49182), answer("pod", FIREWALL_EGRESS));
}

lab_test!(either an_snat_address_of_another_interface_is_a_warning);
/// The lab's router knows a way back to it; another network need not.
fn an_snat_address_of_another_interface_is_a_warning(backend: Backend) {
    let lab = Lab::two_nics(backend);
    serve_tcp(&lab.pod, "pod", 80);
    let said = apply(&lab, &SPEC.replace("snat: 10.4.0.4", "snat: 10.3.0.4"), &[]);
    assert_eq!(said.code, 0, "{said:?}");
    let words = "warning: 10.3.0.4 is an address of eth0, while eth1 leads to the targets of `web`: replies come back \
                 through eth1 only if the network routes them there\n  \
                 hint: in the spec, set `snat` to an address of eth1 or to `masquerade`\n";
    assert!(said.stderr.contains(words), "{said:?}");
}

lab_test!(a_missing_interface_is_reported_without_forwarding);
/// It is said whether the kernel forwards at all or not: the one is no reason to keep the other back.
fn a_missing_interface_is_reported_without_forwarding(backend: Backend) {
    let lab = Lab::one_nic(backend);
    lab.firewall.shell("echo 0 > /proc/sys/net/ipv4/ip_forward");
    let spec = SPEC
        .replace("{ingress: eth0, egress: eth1}", "ens5")
        .replace("10.4.0.4", "10.3.0.4");
    let said = apply(&lab, &spec, &["--dry-run"]);
    for words in ["ip_forward is 0", "no interface ens5"] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
}

lab_test!(the_route_for_clients_is_the_one_that_counts);
/// A policy rule for what comes in by the ingress leads where the machine's own packets do not go.
fn the_route_for_clients_is_the_one_that_counts(backend: Backend) {
    let lab = Lab::two_nics(backend);
    serve_tcp(&lab.pod, "pod", 80);
    lab.firewall.shell(
        "ip route del 10.224.0.0/16
         ip rule add iif eth0 to 10.224.0.0/16 lookup 77
         ip route add default via 10.4.0.1 table 77
         for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $file; done",
    );
    lab.apply(SPEC);
    let said = apply(&lab, SPEC, &[]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:?}");
    assert_eq!(lab.tcp(FIREWALL, 49182), answer("pod", FIREWALL_EGRESS));
}

lab_test!(a_floating_ip_is_reported_until_packets_arrive_for_it);
/// With Azure's floating IP the address is nobody's here; packets that came for it prove it right.
fn a_floating_ip_is_reported_until_packets_arrive_for_it(backend: Backend) {
    const FRONTEND: &str = "203.0.113.10";
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    lab.vnet
        .run(&format!("ip route add {FRONTEND}/32 via 10.3.0.4"));
    let spec = "firewall: {interface: eth0, snat: 10.3.0.4}
forwards: [{name: web, listen: 203.0.113.10:443, target: {pod: 10.224.0.118:80}}]";
    let said = apply(&lab, spec, &[]);
    assert!(
        said.stderr.contains("as with Azure's floating IP"),
        "{said:?}"
    );
    assert_eq!(lab.nvactl(&["sysctl", "enable"]).code, 0);
    assert_eq!(lab.tcp(FRONTEND, 443), answer("pod", FIREWALL));
    let said = apply(&lab, spec, &[]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:?}");
    // So does a local route.
    lab.firewall.run("conntrack -F");
    assert_ne!(apply(&lab, spec, &[]).stderr, "");
    lab.firewall
        .run("ip route add local 203.0.113.10/32 dev lo");
    assert_eq!(apply(&lab, spec, &[]).stderr, "");
}

lab_test!(many_targets_start_as_few_programs_as_one);
/// Many targets are asked for by as few programs as one.
fn many_targets_start_as_few_programs_as_one(backend: Backend) {
    let lab = Lab::two_nics(backend);
    lab.apply(SPEC);
    lab.firewall.shell(
        "ip=$(command -v ip)
         printf '#!/bin/sh\\necho run >> /run/runs\\nexec %s \"$@\"\\n' $ip > /run/bin/ip
         chmod +x /run/bin/ip",
    );
    let forwards = (0..1500).map(|n| {
        let (high, low) = (n / 250, n % 250 + 1);
        format!(
            "  - {{name: f{n}, listen: {}, target: {{pod: 10.224.{high}.{low}:80}}}}\n",
            2000 + n
        )
    });
    let (head, _) = SPEC.split_once("  - ").expect("it has a forward");
    let spec = format!("{head}{}", forwards.collect::<String>());
    let said = apply(&lab, &spec, &["--dry-run", "--no-trial"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.stderr
            .contains("the routes to 500 more targets were not checked"),
        "{said:?}"
    );
    let runs = lab.firewall.run("cat /run/runs");
    assert!(runs.lines().count() <= 2, "{runs}");
}

lab_test!(one_note_lists_the_checks_left_out_without_ip);
fn one_note_lists_the_checks_left_out_without_ip(backend: Backend) {
    let lab = Lab::two_nics(backend);
    assert_eq!(lab.nvactl(&["sysctl", "enable"]).code, 0);
    lab.firewall
        .shell("printf '#!/bin/sh\\nexit 127\\n' > /run/bin/ip; chmod +x /run/bin/ip");
    let said = apply(&lab, SPEC, &["--dry-run"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(
        said.stderr.matches("are not checked").count(),
        1,
        "{said:?}"
    );
    assert!(said.stderr.contains("apt-get install iproute2"), "{said:?}");
}
