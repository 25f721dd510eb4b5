//! A forward with a list of listeners: real packets to each, and one row about all of them.

use std::net::TcpStream;

use serde_json::Value;

use crate::lab::{Backend, FIREWALL, FIREWALL_V6, Lab, POD};
use crate::traffic::{Outcome, answer, serve_tcp, serve_udp};

/// `edge` leads to a port that `web` has too, and admits nobody of the lab.
const KEPT: &str = "
firewall: {interface: eth0, snat: 10.3.0.4}
silence: [keeps-probes-out]
forwards:
  - {name: web, listen: [443, 80, 8000-8010, '10.3.0.4:5000'], target: {ilb: 10.224.0.222}}
  - {name: edge, listen: 8443, target: {ilb: '10.224.0.222:443'}, deny_from: [198.51.100.0/24]}
  - {name: other, listen: 8080, target: {ilb: '10.224.0.222:80'}}
";

/// Returns a spec in each layout.
fn in_each_layout(spec: &str) -> [String; 2] {
    ["flat", "tree"].map(|layout| {
        let layout = format!("{{interface: eth0, layout: {layout}, ");
        spec.replacen("{interface: eth0, ", &layout, 1)
    })
}

fn status(lab: &Lab, spec: &str) -> Value {
    let said = lab.nvactl_with(&["status", "-", "--format", "json"], spec);
    serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"))
}

lab_test!(each_listener_keeps_its_port);
fn each_listener_keeps_its_port(backend: Backend) {
    let lab = Lab::one_nic(backend);
    for port in [
        79, 80, 81, 442, 443, 444, 5000, 7999, 8000, 8005, 8010, 8011,
    ] {
        serve_tcp(&lab.ilb, format!("ilb:{port}"), port);
    }
    lab.firewall.run("ip address add 10.3.0.5/24 dev eth0");
    for spec in in_each_layout(KEPT) {
        lab.apply(&spec);
        let before = status(&lab, &spec)["forwards"][0]["new"]["packets"].as_u64();
        for port in [80, 443, 8000, 8005, 8010, 5000] {
            let found = lab.tcp(FIREWALL, port);
            assert_eq!(found, answer(&format!("ilb:{port}"), FIREWALL), "{port}");
        }
        for port in [79, 81, 442, 444, 7999, 8011] {
            assert_eq!(lab.tcp(FIREWALL, port), Outcome::Refused, "{port}");
        }
        assert_eq!(lab.tcp("10.3.0.5", 443), answer("ilb:443", FIREWALL));
        assert_eq!(lab.tcp("10.3.0.5", 5000), Outcome::Refused);
        // A rule for the ports of the list alone would accept this too.
        assert_eq!(lab.tcp(FIREWALL, 8443), Outcome::Silence);
        assert_eq!(lab.tcp(FIREWALL, 8080), answer("ilb:80", FIREWALL));
        let report = status(&lab, &spec);
        let rows = report["forwards"].as_array().expect("a list");
        assert_eq!(rows.len(), 3, "one name, one row: {report:#}");
        assert_eq!(rows[0]["listen"], "80,443,8000-8010, 10.3.0.4:5000");
        assert_eq!(rows[0]["target"], "10.224.0.222:80,443,5000,8000-8010");
        let new = rows[0]["new"]["packets"].as_u64();
        assert_eq!(new.zip(before).map(|(new, before)| new - before), Some(7));
        assert_eq!(report["in_sync"], true, "{report:#}");
    }
}

lab_test!(each_listener_goes_to_one_port);
fn each_listener_goes_to_one_port(backend: Backend) {
    const SPEC: &str = r#"
firewall: {interface: eth0, snat: {v4: 10.3.0.4, v6: "fd00:3::4"}}
forwards:
  - {name: web, listen: [8080, '10.3.0.4:8443'], protocol: [tcp, udp], target: {pod: '10.224.0.118:80'}}
  - {name: six, listen: [8080, '[fd00:3::4]:8443'], protocol: [tcp, udp], target: {pod: '[fd00:224::118]:80'}}
"#;
    let lab = Lab::dual_stack(backend);
    serve_tcp(&lab.pod, "pod", 80);
    serve_udp(&lab.pod, "pod", 80);
    for spec in in_each_layout(SPEC) {
        lab.apply(&spec);
        assert_eq!(lab.nvactl(&["sysctl", "enable"]).code, 0);
        for address in [FIREWALL, FIREWALL_V6] {
            for port in [8080, 8443] {
                let at = format!("{address} {port}");
                assert_eq!(lab.tcp(address, port), answer("pod", address), "{at}");
                assert_eq!(lab.udp(address, port), answer("pod", address), "{at}");
            }
            assert_eq!(lab.tcp(address, 80), Outcome::Refused);
        }
        let report = status(&lab, &spec);
        assert_eq!(report["forwards"].as_array().map(Vec::len), Some(4));
        assert_eq!(report["in_sync"], true, "{report:#}");
    }
}

lab_test!(either the_listeners_of_a_list_share_the_limits);
fn the_listeners_of_a_list_share_the_limits(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    let connect = |port: u16| {
        lab.client
            .enter(move || TcpStream::connect((FIREWALL, port)).expect("there is a way"))
    };
    for limits in [
        "{max_connections: 2}",
        "{new_per_second: 1, burst: 2}",
        "{max_connections: 2, per: client, reject: true}",
    ] {
        let forward = format!(
            "{{name: web, listen: [8080, 8081], target: {{pod: '10.224.0.118:80'}}, limits: {limits}}}"
        );
        let spec = format!("firewall: {{interface: eth0, snat: 10.3.0.4}}\nforwards: [{forward}]");
        for spec in in_each_layout(&spec) {
            // Each time with new rules, whose counters begin anew.
            assert_eq!(lab.nvactl(&["remove"]).code, 0);
            lab.apply(&spec);
            let held = [connect(8080), connect(8081)];
            // After a second, the rate admits one more.
            let ports: &[u16] = if limits.contains("burst") {
                &[8081]
            } else {
                &[8080, 8081]
            };
            for port in ports {
                let found = lab.tcp(FIREWALL, *port);
                let refused = matches!(found, Outcome::Silence | Outcome::Refused);
                assert!(refused, "{limits} {port}: {found:?}");
            }
            let row = &status(&lab, &spec)["forwards"][0];
            assert!(row["refused"]["packets"].as_u64() >= Some(1), "{row:#}");
            if !limits.contains("burst") {
                assert_eq!(row["connections"].as_u64(), Some(2), "{row:#}");
            }
            drop(held);
        }
    }
}

const WEB: &str = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: [80, 443], target: {pod: 10.224.0.118}}
";

lab_test!(a_changed_list_is_told_by_its_listeners_and_keeps_the_others_counters);
fn a_changed_list_is_told_by_its_listeners_and_keeps_the_others_counters(backend: Backend) {
    let lab = Lab::one_nic(backend);
    for port in [80, 443, 444] {
        serve_tcp(&lab.pod, "pod", port);
    }
    lab.apply(WEB);
    assert_eq!(lab.tcp(FIREWALL, 80), answer("pod", FIREWALL));
    let more = WEB.replace("[80, 443]", "[444, 80]");
    let said = lab.nvactl_with(&["diff", "-", "--against", "live"], &more);
    let words = "~ web              listen 80,443 → 80,444\n";
    assert_eq!((said.code, said.stdout.as_str()), (1, words), "{said:?}");
    // The order of a list has no meaning.
    let turned = WEB.replace("[80, 443]", "[443, 80]");
    let said = lab.nvactl_with(&["diff", "-"], &turned);
    assert_eq!(said.code, 0, "{said:?}");
    lab.apply(&more);
    assert_eq!(lab.tcp(FIREWALL, 444), answer("pod", FIREWALL));
    assert_eq!(lab.tcp(FIREWALL, 443), Outcome::Refused);
    let row = &status(&lab, &more)["forwards"][0];
    assert_eq!(row["new"]["packets"].as_u64(), Some(2), "{row:#}");
    assert_eq!(lab.nvactl(&["rollback"]).code, 0);
    assert_eq!(lab.tcp(FIREWALL, 443), answer("pod", FIREWALL));
    assert_eq!(lab.tcp(FIREWALL, 444), Outcome::Refused);
}

/// Returns the failed checks of a forward, each as its code and its reason.
fn failed(lab: &Lab, spec: &str) -> Vec<String> {
    let said = lab.nvactl_with(&["doctor", "-", "--format", "json"], spec);
    let report: Value =
        serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("no report: {said:?}"));
    let checks = report["checks"].as_array().expect("a list").iter();
    let failed = checks.filter(|check| check["status"] == "fail" && check["forward"] == "web");
    let words = |check: &Value| {
        format!(
            "{}: {}",
            check["code"].as_str().expect("a code"),
            check["reason"].as_str().expect("a reason")
        )
    };
    failed.map(words).collect()
}

lab_test!(either one_dead_listener_of_a_list_is_found);
fn one_dead_listener_of_a_list_is_found(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    for spec in in_each_layout(WEB) {
        lab.apply(&spec);
        let port = "target: 10.224.0.118:443 refuses connections: the target is up, but nothing listens on that port";
        assert_eq!(failed(&lab, &spec), [port]);
        let metrics = lab.nvactl_with(&["doctor", "-", "--format", "prometheus"], &spec);
        let works = "nvactl_forward_works{forward=\"web\",protocol=\"tcp\",family=\"v4\"} 0";
        assert!(metrics.stdout.contains(works), "{metrics:?}");
    }
    serve_tcp(&lab.pod, "pod", 443);
    for spec in in_each_layout(WEB) {
        lab.apply(&spec);
        assert_eq!(failed(&lab, &spec), [""; 0]);
        // Another program's rule about one of the two.
        let rule = format!("FORWARD -p tcp -d {POD} --dport 443 -j DROP");
        lab.firewall.run(&format!("iptables -t mangle -A {rule}"));
        let found = failed(&lab, &spec);
        let one = found
            .iter()
            .any(|check| check.starts_with("foreign-rule: ") && check.ends_with(" (listener 443)"));
        assert!(one, "{found:?}");
        lab.firewall.run(&format!("iptables -t mangle -D {rule}"));
        // One of nvactl's own rules.
        let lines = lab.firewall.run("iptables-save -t nat");
        let line = lines
            .lines()
            .find(|line| line.contains("--comment web -j DNAT") && line.contains("--dport 443 "));
        let line = line.expect("it is there").replacen("-A ", "-D ", 1);
        lab.firewall.run(&format!("iptables -t nat {line}"));
        let report = status(&lab, &spec);
        assert_eq!(report["forwards"][0]["state"], "drifted", "{report:#}");
        assert_eq!(report["forwards"].as_array().map(Vec::len), Some(1));
        let drift = report["drift"].as_array().expect("a list");
        assert_eq!(drift.len(), 1, "{drift:#?}");
        let rule = "dnat-rule: 1 of its 2 DNAT rules is not loaded";
        assert!(failed(&lab, &spec).contains(&rule.to_owned()));
        lab.apply(&spec);
    }
}

lab_test!(either a_probe_tries_each_listener_once);
fn a_probe_tries_each_listener_once(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    let spec = WEB.replace(
        "pod: 10.224.0.118",
        "pod: [10.224.0.118, '10.224.0.118:80']",
    );
    let said = lab.nvactl_with(&["probe", "-", "--format", "json"], &spec);
    let report: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    let probes = report["probes"].as_array().expect("a list").iter();
    let found: Vec<String> = probes
        .map(|one| {
            let result = one["result"].as_str().expect("a word");
            format!("{} {} {result}", one["forward"], one["port"])
        })
        .collect();
    assert_eq!(
        found,
        ["\"web\" 80 open", "\"web\" 443 refused", "\"web\" 80 open"]
    );
}
