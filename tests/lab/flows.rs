//! Connections that are alive when the rules change.

use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use crate::lab::{Backend, CLIENT, FIREWALL, FIREWALL_V6, Lab, OTHER, POD};
use crate::namespace::Host;
use crate::nvactl;
use crate::outbound::{SNAT, outside};
use crate::traffic::{serve_tcp, serve_udp};

const SPEC: &str = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: dns, listen: 53, protocol: udp, target: {pod: 10.224.0.118:5353}}
  - {name: log, listen: 514, protocol: udp, target: {pod: 10.224.0.118:5140}}
";

/// A client that keeps its port, so that its packets stay one connection.
pub fn steady(lab: &Lab, port: u16) -> UdpSocket {
    steady_from(&lab.client, &format!("{FIREWALL}:{port}"))
}

fn steady_from(host: &Host, to: &str) -> UdpSocket {
    let to = to.to_owned();
    host.enter(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
        socket.connect(to).expect("there is a way");
        socket
            .set_read_timeout(Some(Duration::from_secs(2)))
            .expect("it is no zero");
        socket
    })
}

pub fn answer(socket: &UdpSocket) -> String {
    let mut buffer = [0; 64];
    socket.send(b"?").expect("it is sent");
    let length = socket.recv(&mut buffer).expect("it is answered");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

lab_test!(only_stale_connections_are_ended);
/// A steady sender stays on the old target until its entry is deleted; others are left alone.
fn only_stale_connections_are_ended(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_udp(&lab.pod, "pod", 5353);
    serve_udp(&lab.pod, "pod-log", 5140);
    serve_udp(&lab.other, "other", 5353);
    lab.apply(SPEC);
    let (dns, log) = (steady(&lab, 53), steady(&lab, 514));
    assert_eq!(answer(&dns), "pod 10.3.0.4");
    assert_eq!(answer(&log), "pod-log 10.3.0.4");

    let moved = SPEC.replace("10.224.0.118:5353", "10.224.0.99:5353");
    let said = lab.nvactl_with(&["apply", "-", "--no-trial"], &moved);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stderr
            .contains("1 connection that no forward would make any longer will stay"),
        "{said:?}"
    );
    assert_eq!(answer(&dns), "pod 10.3.0.4", "the kernel remembers it");

    // Later, with nothing else to change, it is shown and ended all the same.
    let said = lab.nvactl_with(&["apply", "-", "--flush-stale", "--dry-run"], &moved);
    assert_eq!(said.code, 1, "{said:?}");
    let shown = format!("udp {CLIENT} → {FIREWALL}:53 → {POD}:5353");
    assert!(
        said.stdout
            .contains("1 connection that no forward would make any longer would be ended"),
        "{said:?}"
    );
    assert!(said.stdout.contains(&shown), "{said:?}");
    assert_eq!(answer(&dns), "pod 10.3.0.4", "a dry run deletes nothing");
    let before = entries(&lab, "514");
    let said = lab.nvactl_with(&["apply", "-", "--no-trial", "--flush-stale"], &moved);
    assert!(said.stdout.contains("ended 1 connection"), "{said:?}");
    assert_eq!(answer(&dns), "other 10.3.0.4");
    assert_eq!(
        entries(&lab, "514"),
        before,
        "the entry beside it was touched"
    );
    let said = lab.nvactl_with(&["apply", "-", "--no-trial", "--flush-stale"], &moved);
    assert_eq!(
        (said.code, said.stdout.as_str(), said.stderr.as_str()),
        (0, "<stdin>: no changes\n", "")
    );

    // A forward that went.
    let gone: String = moved
        .lines()
        .filter(|line| !line.contains("dns"))
        .map(|line| format!("{line}\n"))
        .collect();
    let said = lab.nvactl_with(&["apply", "-", "--no-trial", "--flush-stale"], &gone);
    assert!(said.stdout.contains("ended 1 connection"), "{said:?}");
    assert_eq!(entries(&lab, "53"), "");
    assert_ne!(entries(&lab, "514"), "");
}

lab_test!(connections_of_a_removed_outbound_entry_are_ended);
/// A pod's steady sender is let out until its entry is deleted, whatever the rules say by then.
fn connections_of_a_removed_outbound_entry_are_ended(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    outside(&lab, "10.3.0.4", FIREWALL_V6);
    let both = format!(
        "firewall: {{interface: eth0}}
outbound:
  - {{name: pod, allow_from: [{POD}], protocol: udp}}
  - {{name: other, allow_from: [{OTHER}], protocol: udp}}
"
    );
    let one: String = both
        .lines()
        .filter(|line| !line.contains("name: pod"))
        .map(|line| format!("{line}\n"))
        .collect();
    lab.apply(&both);
    let server = format!("{CLIENT}:53");
    let [pod, other] = [&lab.pod, &lab.other].map(|host| steady_from(host, &server));
    for sender in [&pod, &other] {
        assert_eq!(answer(sender), "server 10.3.0.4");
    }
    let words = "1 connection that no forward or outbound entry would make any longer";
    let said = lab.nvactl_with(&["apply", "-", "--no-trial"], &one);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stderr.contains(&format!("{words} will stay")),
        "{said:?}"
    );
    assert_eq!(answer(&pod), "server 10.3.0.4", "the kernel remembers it");

    let said = lab.nvactl_with(&["apply", "-", "--no-trial", "--flush-stale"], &one);
    assert_eq!(said.code, 0, "{said:?}");
    let ended = format!("ended {words}: udp {POD} → {CLIENT}:53");
    assert!(said.stdout.contains(&ended), "{said:?}");
    pod.send(b"?").expect("it is sent");
    assert!(pod.recv(&mut [0; 64]).is_err(), "it is let out no more");
    assert_eq!(answer(&other), "server 10.3.0.4");
}

lab_test!(a_confirmed_change_ends_stale_connections);
/// A change on trial ends nothing; once it is kept, its `--flush-stale` holds.
fn a_confirmed_change_ends_stale_connections(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_udp(&lab.pod, "pod", 5353);
    serve_udp(&lab.other, "other", 5353);
    lab.apply(SPEC);
    let dns = steady(&lab, 53);
    assert_eq!(answer(&dns), "pod 10.3.0.4");
    let moved = SPEC.replace("10.224.0.118:5353", "10.224.0.99:5353");
    let back = SPEC;
    for (spec, flush, end) in [(moved.as_str(), true, "other"), (back, false, "other")] {
        let before = answer(&dns);
        let args = ["apply", "-", "--confirm", "600", "--flush-stale"];
        let said = lab.nvactl_with(&args[..4 + usize::from(flush)], spec);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(answer(&dns), before, "it is not kept yet");
        let said = lab.nvactl(&["confirm"]);
        assert_eq!(said.code, 0, "{said:?}");
        let told = if flush {
            said.stdout.contains("ended 1 connection")
        } else {
            said.stderr
                .contains("1 connection that no forward would make any longer will stay")
        };
        assert!(told, "{said:?}");
        assert_eq!(answer(&dns), format!("{end} 10.3.0.4"));
    }
}

lab_test!(connections_of_an_undone_change_are_ended);
/// One who came in through the machine itself by a port that the change took gets it back.
fn connections_of_an_undone_change_are_ended(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_udp(&lab.pod, "pod", 5353);
    serve_udp(&lab.firewall, "firewall", 53);
    let without: String = SPEC
        .lines()
        .filter(|line| !line.contains("dns"))
        .map(|line| format!("{line}\n"))
        .collect();
    lab.apply(&without);
    let said = lab.nvactl_with(&["apply", "-", "--no-trial", "--confirm", "600"], SPEC);
    assert_eq!(said.code, 0, "{said:?}");
    let dns = steady(&lab, 53);
    assert_eq!(answer(&dns), "pod 10.3.0.4");
    assert_eq!(lab.nvactl(&["confirm", "--cancel"]).code, 0);
    assert_eq!(answer(&dns), format!("firewall {CLIENT}"));
}

/// The connections sent to a port, without what changes by itself.
fn entries(lab: &Lab, port: &str) -> String {
    let listed = lab.firewall.shell(&format!(
        "conntrack -L -p udp --orig-port-dst {port} 2>/dev/null || true"
    ));
    let ports = listed.lines().map(|line| {
        let words = line
            .split_ascii_whitespace()
            .filter(|word| word.contains("port=") || word.contains("src="));
        words.collect::<Vec<_>>().join(" ")
    });
    ports.collect::<Vec<_>>().join("\n")
}

lab_test!(connections_that_would_break_are_reported);
/// What will be missed once FORWARD drops, as long as it is alive to be counted.
fn connections_that_would_break_are_reported(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.other, "other", 8080);
    lab.route_through_firewall(OTHER);
    assert_eq!(lab.nvactl(&["sysctl", "enable"]).code, 0);
    // The table is kept once something asks for it.
    lab.firewall
        .run("iptables -A FORWARD -m conntrack --ctstate INVALID -j LOG");
    let held = lab
        .client
        .enter(|| TcpStream::connect((OTHER, 8080)).expect("there is a way"));
    let said = lab.nvactl_with(&["apply", "-", "--dry-run"], SPEC);
    let words = format!(
        "1 connection that is forwarded now would be refused if it were opened again: tcp {CLIENT} → {OTHER}:8080"
    );
    assert!(said.stderr.contains(&words), "{said:?}");

    lab.firewall
        .run("iptables -A FORWARD -d 10.224.0.99 -p tcp --dport 8080 -j ACCEPT");
    let said = lab.nvactl_with(&["apply", "-", "--dry-run"], SPEC);
    assert!(
        !said.stderr.contains("will not be accepted again"),
        "{said:?}"
    );
    drop(held);
}

lab_test!(only_flushing_is_refused_without_conntrack);
fn only_flushing_is_refused_without_conntrack(backend: Backend) {
    let lab = Lab::one_nic(backend);
    lab.firewall.shell(
        "printf '#!/bin/sh\\nexit 127\\n' > /run/bin/conntrack; chmod +x /run/bin/conntrack",
    );
    let said = nvactl(
        &lab.firewall,
        &["apply", "-", "--no-trial", "--flush-stale"],
        SPEC,
    );
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        !lab.firewall.run("iptables-save").contains("NVACTL"),
        "it was refused before the change"
    );
    assert_eq!(
        nvactl(&lab.firewall, &["apply", "-", "--no-trial"], SPEC).code,
        0
    );
}

/// A pod's client that keeps its port.
fn outward(lab: &Lab) -> UdpSocket {
    steady_from(&lab.pod, &format!("{CLIENT}:53"))
}

fn is_silent(socket: &UdpSocket) -> bool {
    socket.send(b"?").expect("it is sent");
    socket.recv(&mut [0; 64]).is_err()
}

fn stale_check(lab: &Lab, spec: &str) -> serde_json::Value {
    let said = lab.nvactl_with(&["doctor", "-", "--format", "json"], spec);
    let report: serde_json::Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    let checks = report["checks"].as_array().expect("a list").iter();
    let mut checks = checks.filter(|check| check["code"] == "stale-connection");
    checks.next().expect("it is checked").clone()
}

fn flush(lab: &Lab, spec: &str) -> String {
    let said = lab.nvactl_with(&["apply", "-", "--no-trial", "--flush-stale"], spec);
    assert_eq!(said.code, 0, "{said:?}");
    said.stdout
}

fn entry(options: &str) -> String {
    format!(
        "firewall: {{interface: eth0}}\noutbound:\n  - {{name: out, allow_from: [10.224.0.0/16]{options}}}\n"
    )
}

lab_test!(either an_untranslated_connection_that_no_entry_accepts_any_longer_is_ended);
fn an_untranslated_connection_that_no_entry_accepts_any_longer_is_ended(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    outside(&lab, FIREWALL, FIREWALL_V6);
    let words = "1 connection that no forward or outbound entry would make any longer";
    let gone = entry(", protocol: tcp");
    let none = ", protocol: udp, snat: none";
    let denied = entry(&format!("{none}, deny_to: [{CLIENT}]"));
    for now in [gone, denied] {
        lab.apply(&entry(none));
        let client = outward(&lab);
        assert_eq!(answer(&client), format!("server {POD}"));
        let said = lab.nvactl_with(&["apply", "-", "--no-trial"], &now);
        assert!(said.stderr.contains(words), "{said:?}");
        assert_eq!(answer(&client), format!("server {POD}"));
        let check = stale_check(&lab, &now);
        assert_eq!(check["status"], "fail", "{check}");
        let said = flush(&lab, &now);
        assert!(said.contains(&format!("ended {words}")), "{said}");
        assert!(is_silent(&client), "{now}");
        assert_eq!(stale_check(&lab, &now)["status"], "ok");
    }

    // A rule of another program lets it pass as well.
    lab.apply(&entry(none));
    let client = outward(&lab);
    assert_eq!(answer(&client), format!("server {POD}"));
    lab.firewall
        .run("iptables -A FORWARD -s 10.224.0.0/16 -j ACCEPT");
    let gone = entry(", protocol: tcp");
    let before = entries(&lab, "53");
    assert!(!flush(&lab, &gone).contains("ended"));
    assert_eq!(entries(&lab, "53"), before);
    assert_eq!(stale_check(&lab, &gone)["status"], "ok");
}

lab_test!(either an_untranslated_connection_of_an_undone_change_is_ended);
fn an_untranslated_connection_of_an_undone_change_is_ended(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    outside(&lab, FIREWALL, FIREWALL_V6);
    lab.apply(&entry(", protocol: tcp"));
    let spec = entry(", snat: none");
    let said = lab.nvactl_with(&["apply", "-", "--no-trial", "--confirm", "600"], &spec);
    assert_eq!(said.code, 0, "{said:?}");
    let client = outward(&lab);
    assert_eq!(answer(&client), format!("server {POD}"));
    assert_eq!(lab.nvactl(&["confirm", "--cancel"]).code, 0);
    assert!(is_silent(&client));
}

lab_test!(either a_sender_from_before_its_entry_is_named_and_ended);
fn a_sender_from_before_its_entry_is_named_and_ended(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    outside(&lab, FIREWALL, FIREWALL_V6);
    let keep = "firewall: {interface: eth0, snat: 10.3.0.4, forward_policy: keep}
silence: [policy-kept]
forwards: [{name: web, listen: 80, target: {pod: 10.224.0.118:80}}]
";
    lab.apply(keep);
    let client = outward(&lab);
    assert_eq!(answer(&client), format!("server {POD}"));
    let spec = format!("{keep}outbound: [{{name: out, allow_from: [10.224.0.0/16]}}]\n");
    let words = format!(
        "1 UDP sender began before its outbound entry was loaded and keeps its source: udp {POD} → {CLIENT}:53 (`out`)"
    );
    for _ in 0..2 {
        let said = lab.nvactl_with(&["apply", "-", "--no-trial"], &spec);
        assert!(said.stderr.contains(&words), "{said:?}");
    }
    assert_eq!(answer(&client), format!("server {POD}"));
    let check = stale_check(&lab, &spec);
    assert_eq!(check["status"], "fail", "{check}");
    let said = flush(&lab, &spec);
    assert!(said.contains(&words), "{said}");
    assert_eq!(answer(&client), format!("server {FIREWALL}"));
    assert_eq!(stale_check(&lab, &spec)["status"], "ok");
    assert_eq!(flush(&lab, &spec), "<stdin>: no changes\n");
}

lab_test!(either a_connection_with_another_source_than_new_ones_get_is_named_and_ended);
fn a_connection_with_another_source_than_new_ones_get_is_named_and_ended(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    outside(&lab, FIREWALL, FIREWALL_V6);
    let addressed = format!(", snat: {SNAT}");
    lab.apply(&entry(""));
    let client = outward(&lab);
    let mut source = FIREWALL;
    assert_eq!(answer(&client), format!("server {source}"));
    for (options, next) in [
        (addressed.as_str(), SNAT),
        ("", FIREWALL),
        (", snat: none", POD),
    ] {
        let spec = entry(options);
        let words = format!(
            "1 connection with another source than new ones get will stay until idle: udp {POD} → {CLIENT}:53 with source {source}"
        );
        let said = lab.nvactl_with(&["apply", "-", "--no-trial"], &spec);
        assert!(said.stderr.contains(&words), "{said:?}");
        assert_eq!(answer(&client), format!("server {source}"));
        let check = stale_check(&lab, &spec);
        assert_eq!(check["status"], "fail", "{check}");
        assert!(
            flush(&lab, &spec).contains("ended 1 connection"),
            "{options}"
        );
        assert_eq!(answer(&client), format!("server {next}"));
        assert_eq!(stale_check(&lab, &spec)["status"], "ok");
        assert_eq!(flush(&lab, &spec), "<stdin>: no changes\n");
        source = next;
    }
}

lab_test!(either a_forwarded_connection_with_another_source_is_named_and_ended);
fn a_forwarded_connection_with_another_source_is_named_and_ended(backend: Backend) {
    let lab = Lab::one_nic(backend);
    lab.firewall
        .ip("-4", &format!("address add {SNAT}/24 dev eth0"));
    serve_udp(&lab.pod, "pod", 5353);
    lab.apply(SPEC);
    let dns = steady(&lab, 53);
    assert_eq!(answer(&dns), format!("pod {FIREWALL}"));
    let spec = SPEC.replace("snat: 10.3.0.4", "snat: 10.3.0.5");
    let said = lab.nvactl_with(&["apply", "-", "--no-trial"], &spec);
    let words = "with another source than new ones get";
    assert!(said.stderr.contains(words), "{said:?}");
    assert_eq!(stale_check(&lab, &spec)["status"], "fail");
    assert!(flush(&lab, &spec).contains("ended 1 connection"));
    assert_eq!(answer(&dns), format!("pod {SNAT}"));
    assert_eq!(flush(&lab, &spec), "<stdin>: no changes\n");
}
