//! `nvactl doctor` on outbound entries whose connections another program, a route or an `ip rule` takes.

use serde_json::Value;

use crate::lab::{Backend, CLIENT, FIREWALL};
use crate::outbound::tcp;
use crate::outbound_twin::{ALIVE, DEAD_V4, DEAD_V6, Fault, Nics, findings, lab, missed, spec};
use crate::traffic::{Outcome, answer, serve_tcp};

/// Asserts that the doctor finds each fault.
fn each_is_found(backend: Backend, faults: &[Fault<'_>]) {
    let lab = lab(Nics::Two, backend);
    let wrong: Vec<String> = faults
        .iter()
        .filter_map(|fault| missed(&lab, fault))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

lab_test!(doctor_names_a_rule_that_gives_an_address_which_the_machine_lacks);
fn doctor_names_a_rule_that_gives_an_address_which_the_machine_lacks(backend: Backend) {
    let says: &[(&str, &str, &str)] = &[(
        "fail",
        "foreign-rule",
        "-j SNAT --to-source 10.3.0.99` in nat gives the packets the source 10.3.0.99",
    )];
    let make = "iptables -t nat -I POSTROUTING -o eth0 -j SNAT --to-source 10.3.0.99";
    let undo = "iptables -t nat -D POSTROUTING -o eth0 -j SNAT --to-source 10.3.0.99";
    let of = |options| Fault {
        make,
        undo,
        options,
        seen: DEAD_V4,
        says,
    };
    let v6 = Fault {
        make: "ip6tables -t nat -I POSTROUTING -o eth0 -j SNAT --to-source fd00:3::99",
        undo: "ip6tables -t nat -D POSTROUTING -o eth0 -j SNAT --to-source fd00:3::99",
        options: "",
        seen: DEAD_V6,
        says: &[("fail", "foreign-rule", "the source fd00:3::99")],
    };
    let range = of(", snat: {v4: 10.3.0.4-10.3.0.5, v6: 'fd00:3::4'}");
    each_is_found(backend, &[of(""), range, v6]);
}

lab_test!(either doctor_names_bans_of_destinations_and_ports);
fn doctor_names_bans_of_destinations_and_ports(backend: Backend) {
    each_is_found(
        backend,
        &[
            Fault {
                make: "iptables -I FORWARD -s 10.224.0.0/16 -d 8.8.8.8 -j DROP",
                undo: "iptables -D FORWARD -s 10.224.0.0/16 -d 8.8.8.8 -j DROP",
                options: "",
                seen: ALIVE,
                says: &[(
                    "warn",
                    "foreign-rule",
                    "drops the packets; affected: connections to 8.8.8.8/32",
                )],
            },
            Fault {
                make: "ip rule add from 10.224.0.0/16 to 8.8.0.0/16 prohibit",
                undo: "ip rule del from 10.224.0.0/16 to 8.8.0.0/16 prohibit",
                options: "",
                seen: ALIVE,
                says: &[(
                    "warn",
                    "route",
                    "meets a prohibit route or rule; affected: connections to 8.8.0.0/16",
                )],
            },
            Fault {
                make: "ip6tables -t mangle -A FORWARD -i eth1 -p tcp --dport 8080 -j DROP",
                undo: "ip6tables -t mangle -D FORWARD -i eth1 -p tcp --dport 8080 -j DROP",
                options: "",
                seen: ALIVE,
                says: &[(
                    "warn",
                    "foreign-rule",
                    "drops the packets; affected: connections to tcp port 8080",
                )],
            },
            // The spec names the port, so the ban is not meant.
            Fault {
                make: "iptables -t mangle -A FORWARD -i eth1 -p tcp --dport 8005 -j DROP",
                undo: "iptables -t mangle -D FORWARD -i eth1 -p tcp --dport 8005 -j DROP",
                options: ", protocol: tcp, ports: [80, 8000-8010]",
                seen: ALIVE,
                says: &[(
                    "fail",
                    "foreign-rule",
                    "--dport 8005 -j DROP` in mangle drops",
                )],
            },
            // A rule of another program about other hosts and ports.
            Fault {
                make: "iptables -I INPUT -p tcp --dport 22 -s 10.9.0.0/16 -d 10.4.0.4 -j ACCEPT",
                undo: "iptables -D INPUT -p tcp --dport 22 -s 10.9.0.0/16 -d 10.4.0.4 -j ACCEPT",
                options: ", allow_to: [internet, 10.0.0.0/8]",
                seen: ALIVE,
                says: &[],
            },
        ],
    );
}

lab_test!(either a_fix_for_an_entry_of_all_ports_has_no_port);
fn a_fix_for_an_entry_of_all_ports_has_no_port(backend: Backend) {
    let lab = lab(Nics::Two, backend);
    let spec = spec(Nics::Two, "");
    lab.apply(&spec);
    lab.firewall.shell(
        "nft 'table ip q { chain c { type filter hook forward priority 10; policy drop; ct state established,related accept; }; }'",
    );
    let told = lab.nvactl_with(&["doctor", "-"], &spec).stdout;
    let fix = "sudo nft insert rule ip q c iifname \"eth1\" ip saddr 10.224.0.0/16 accept\n";
    assert!(told.contains(&format!("(tried: works): {fix}")), "{told}");
    assert_eq!(tcp(&lab.pod, CLIENT, 80), Outcome::Silence);
    lab.firewall.shell(fix.trim_start_matches("sudo "));
    assert_eq!(tcp(&lab.pod, CLIENT, 80), answer("server", FIREWALL));
}

lab_test!(either the_fix_for_a_wrong_route_of_an_entry_names_the_route_and_the_spec);
fn the_fix_for_a_wrong_route_of_an_entry_names_the_route_and_the_spec(backend: Backend) {
    let lab = lab(Nics::Two, backend);
    let spec = spec(Nics::Two, "");
    lab.apply(&spec);
    let edit = "fix, if the spec is wrong: correct `interface` of `pods-out` in the spec, then: sudo nvactl apply";
    for (make, undo, route) in [
        (
            "ip route del 10.224.0.0/16
             echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter
             echo 0 > /proc/sys/net/ipv4/conf/eth1/rp_filter",
            "ip route add 10.224.0.0/16 via 10.4.0.1",
            "fix, if the route to these sources is wrong or missing (ROUTER: the next hop on eth1): \
             sudo ip route replace 10.224.0.0/16 via ROUTER dev eth1\n",
        ),
        (
            "ip -6 route replace default via fd00:4::1",
            "ip -6 route replace default via fd00:3::1",
            "ssh among them (ROUTER: the next hop on eth0): \
             sudo ip -6 route replace default via ROUTER dev eth0\n",
        ),
    ] {
        lab.firewall.shell(make);
        let told = lab.nvactl_with(&["doctor", "-"], &spec);
        assert_eq!(told.code, 1, "{told:?}");
        for line in [route, edit] {
            assert!(told.stdout.contains(line), "{line}: {told:?}");
        }
        lab.firewall.shell(undo);
    }
}

lab_test!(either doctor_is_asked_about_one_entry);
fn doctor_is_asked_about_one_entry(backend: Backend) {
    let lab = lab(Nics::Two, backend);
    let both = spec(Nics::Two, "").replace(
        "eth1}}\n",
        "eth1}, snat: masquerade}\nforwards: [{name: web, listen: 8080, target: {pod: 10.224.0.118:80}}]\n",
    );
    lab.apply(&both);
    let asked = |more: &[&str]| {
        let args = ["doctor", "-", "--forward", "pods-out"];
        lab.nvactl_with(&[&args, more].concat(), &both)
    };
    let told = asked(&[]);
    assert!(
        told.stdout.contains("pods-out (IPv6): the rules handle "),
        "{told:?}"
    );
    assert!(!told.stdout.contains("web"), "{told:?}");
    let pings = "unknown packets              pings are not tried in a copy of this machine: \
                 it is not known whether those of `pods-out` pass\n";
    assert!(told.stdout.contains(pings), "{told:?}");
    let metrics = asked(&["--format", "prometheus"]).stdout;
    let works = |family: &str, value: &str| {
        format!("nvactl_outbound_works{{name=\"pods-out\",family=\"{family}\"}} {value}\n")
    };
    for family in ["v4", "v6"] {
        assert!(metrics.contains(&works(family, "1")), "{metrics}");
    }
    lab.firewall.run("ip -6 route del default");
    let told = asked(&["--format", "json"]);
    let report: Value = serde_json::from_str(&told.stdout).expect("it is JSON");
    let checks = report["checks"].as_array().expect("a list");
    let fails = checks.iter().filter(|check| check["status"] == "fail");
    let fails: Vec<&Value> = fails.map(|check| &check["family"]).collect();
    assert!(!fails.is_empty(), "{report:#}");
    assert!(fails.iter().all(|family| *family == "v6"), "{report:#}");
    let metrics = asked(&["--format", "prometheus"]).stdout;
    assert!(metrics.contains(&works("v4", "1")), "{metrics}");
    assert!(metrics.contains(&works("v6", "0")), "{metrics}");
    let told = asked(&[]).stdout;
    assert!(told.contains("fail    route                pods-out (IPv6): this machine has no route to the Internet"), "{told}");
    let args = ["doctor", "-", "--forward", "pods"];
    assert_eq!(lab.nvactl_with(&args, &both).code, 2);
}

lab_test!(a_rule_takes_requests_of_entries_and_replies_of_forwards);
fn a_rule_takes_requests_of_entries_and_replies_of_forwards(backend: Backend) {
    let lab = lab(Nics::Two, backend);
    let both = spec(Nics::Two, ", protocol: tcp, ports: [80]").replace(
        "eth1}}\n",
        "eth1}, snat: masquerade}\nforwards: [{name: web, listen: 8080, target: {pod: 10.224.0.118:80}}]\n",
    );
    serve_tcp(&lab.pod, "pod", 80);
    lab.apply(&both);
    lab.firewall
        .run("iptables -t mangle -A POSTROUTING -o eth0 -m length --length 1251:65535 -j DROP");
    let found = findings(&lab, &both);
    for (name, words) in [
        ("web", "in mangle drops the replies"),
        ("pods-out", "in mangle drops the packets"),
    ] {
        let mut of_name = found
            .iter()
            .filter(|one| one.forward.as_deref() == Some(name));
        let is_said = of_name.clone().count() == 1 && of_name.all(|one| one.reason.contains(words));
        assert!(is_said, "{name}: {found:?}");
    }
}
