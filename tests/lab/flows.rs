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
    assert!(!said.stderr.contains("if it were opened again"), "{said:?}");
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

lab_test!(either an_undo_leaves_connections_that_are_older_than_its_change);
fn an_undo_leaves_connections_that_are_older_than_its_change(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    outside(&lab, FIREWALL, FIREWALL_V6);
    let with = entry(", protocol: udp");
    lab.apply(&with);
    let older = outward(&lab);
    assert_eq!(answer(&older), "server 10.3.0.4");
    let without = entry(", protocol: tcp");
    let said = lab.nvactl_with(&["apply", "-", "--no-trial"], &without);
    assert!(said.stderr.contains("1 connection"), "{said:?}");
    let said = lab.nvactl_with(&["apply", "-", "--no-trial", "--confirm", "600"], &with);
    assert_eq!(said.code, 0, "{said:?}");
    let newer = steady_from(&lab.other, &format!("{CLIENT}:53"));
    assert_eq!(answer(&newer), "server 10.3.0.4");
    let said = lab.nvactl(&["confirm", "--cancel"]);
    assert_eq!(said.code, 0, "{said:?}");
    let ended = format!(
        "undone: apply <stdin>\nended 1 connection that only the undone change made: udp {OTHER} → {CLIENT}:53\n"
    );
    assert_eq!(said.stdout, ended);
    assert_eq!(answer(&older), "server 10.3.0.4");
    assert!(is_silent(&newer));
    let history = lab.nvactl(&["history"]).stdout;
    let newest = history.lines().next().unwrap_or_default();
    assert!(
        newest.ends_with("it was cancelled; ended 1 connection that only it made"),
        "{history}"
    );
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

lab_test!(either a_connection_to_the_machine_itself_is_left_alone);
/// Packets to the machine meet no rule of an entry, so they keep their source whatever the entry says.
fn a_connection_to_the_machine_itself_is_left_alone(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    outside(&lab, FIREWALL, FIREWALL_V6);
    serve_udp(&lab.firewall, "firewall", 5300);
    serve_tcp(&lab.firewall, "firewall", 8080);
    let all = ", allow_to: [internet, 10.0.0.0/8]";
    let none = entry(&format!("{all}, snat: none"));
    let rewrites = entry(all);
    lab.apply(&none);
    let udp = steady_from(&lab.pod, &format!("{FIREWALL}:5300"));
    assert_eq!(answer(&udp), format!("firewall {POD}"));
    let held = lab
        .pod
        .enter(|| TcpStream::connect((FIREWALL, 8080)).expect("there is a way"));
    let status = lab.nvactl_with(&["status", "-", "--format", "json"], &none);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).expect("it is JSON");
    assert_eq!(status["outbound"][0]["connections"], 0, "{status}");
    for args in [&[][..], &["--flush-stale"]] {
        let args = [&["apply", "-", "--no-trial"], args].concat();
        let said = lab.nvactl_with(&args, &rewrites);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(!said.stderr.contains("another source"), "{said:?}");
        assert!(!said.stdout.contains("ended"), "{said:?}");
    }
    assert_eq!(stale_check(&lab, &rewrites)["status"], "ok");
    let listed = lab.firewall.run("conntrack -L --orig-dst 10.3.0.4");
    for port in ["dport=5300", "dport=8080"] {
        assert!(listed.contains(port), "{listed}");
    }
    drop(held);
}

lab_test!(either a_connection_of_another_program_s_masquerading_is_left_alone);
fn a_connection_of_another_program_s_masquerading_is_left_alone(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    outside(&lab, FIREWALL, FIREWALL_V6);
    lab.apply(&entry(""));
    let gone = entry(", protocol: tcp");
    lab.firewall
        .run("iptables -A FORWARD -s 10.224.0.0/16 -j ACCEPT");
    lab.firewall
        .run("iptables -t nat -A POSTROUTING -s 10.224.0.0/16 -j MASQUERADE");
    let said = lab.nvactl_with(&["apply", "-", "--no-trial"], &gone);
    assert_eq!(said.code, 0, "{said:?}");
    let client = outward(&lab);
    assert_eq!(answer(&client), format!("server {FIREWALL}"));
    let before = entries(&lab, "53");
    let said = lab.nvactl_with(&["apply", "-", "--no-trial", "--flush-stale"], &gone);
    assert_eq!(
        (said.code, said.stdout.as_str(), said.stderr.as_str()),
        (0, "<stdin>: no changes\n", "")
    );
    assert_eq!(entries(&lab, "53"), before);
    assert_eq!(stale_check(&lab, &gone)["status"], "ok");
}

lab_test!(either new_connections_of_a_source_with_an_old_one_stay);
/// After `snat: none` became masquerading, a source has connections of both kinds to one server.
fn new_connections_of_a_source_with_an_old_one_stay(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    outside(&lab, FIREWALL, FIREWALL_V6);
    lab.apply(&entry(", snat: none"));
    let old = outward(&lab);
    assert_eq!(answer(&old), format!("server {POD}"));
    lab.apply(&entry(""));
    let new = outward(&lab);
    assert_eq!(answer(&new), format!("server {FIREWALL}"));
    let count = || entries(&lab, "53").lines().count();
    assert_eq!(count(), 2);
    let said = flush(&lab, &entry(""));
    assert!(said.contains("1 UDP sender began before"), "{said}");
    assert_eq!(count(), 1);
    assert!(entries(&lab, "53").contains(&format!("src={CLIENT}")));
    let listed = lab.firewall.run("conntrack -L -p udp --orig-port-dst 53");
    assert!(listed.contains(&format!("dst={FIREWALL}")), "{listed}");
    assert_eq!(answer(&old), format!("server {FIREWALL}"));
}

/// Puts a `conntrack` in front of the real one that runs this before each deletion.
fn before_deletions(lab: &Lab, command: &str) {
    lab.firewall.shell(&format!(
        "cat > /run/bin/conntrack <<'END'
#!/bin/sh
case \"$*\" in -D*) {command} ;; esac
exec /usr/sbin/conntrack \"$@\"
END
chmod +x /run/bin/conntrack"
    ));
}

/// Adds a tracked connection of the pod to each of many servers.
fn to_many_servers(lab: &Lab, count: usize) {
    lab.firewall.shell(&format!(
        "for n in $(seq {count}); do
           server=203.0.$((n / 200)).$((n % 200 + 1))
           /usr/sbin/conntrack -I -p tcp -s {POD} -d $server --sport 5000 --dport 443 \
             -r $server -q {FIREWALL} --reply-port-src 443 --reply-port-dst 5000 \
             --state ESTABLISHED -u ASSURED -t 600 > /dev/null 2>&1
         done"
    ));
}

fn tracked(lab: &Lab, port: u16) -> usize {
    let listed = lab.firewall.shell(&format!(
        "/usr/sbin/conntrack -L -p tcp --orig-port-dst {port} 2>/dev/null || true"
    ));
    listed.lines().count()
}

lab_test!(either connections_to_many_servers_are_ended_in_few_passes);
/// Each pass reads the whole table.
fn connections_to_many_servers_are_ended_in_few_passes(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    outside(&lab, FIREWALL, FIREWALL_V6);
    lab.apply(&entry(""));
    to_many_servers(&lab, 300);
    assert_eq!(tracked(&lab, 443), 300);
    before_deletions(&lab, "echo \"$*\" >> /run/deletions");
    let said = flush(&lab, &entry(", protocol: udp"));
    assert!(said.contains("ended 300 connections"), "{said}");
    assert_eq!(tracked(&lab, 443), 0);
    let deletions = lab.firewall.run("cat /run/deletions");
    assert_eq!(deletions.lines().count(), 1, "{deletions}");
}

lab_test!(either connections_that_cannot_be_ended_are_counted);
fn connections_that_cannot_be_ended_are_counted(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    outside(&lab, FIREWALL, FIREWALL_V6);
    lab.apply(&entry(""));
    to_many_servers(&lab, 3);
    before_deletions(&lab, "echo busy >&2; exit 4");
    let gone = entry(", protocol: udp");
    let said = lab.nvactl_with(&["apply", "-", "--no-trial", "--flush-stale"], &gone);
    assert_eq!(said.code, 3, "{said:?}");
    let words = "the rules are loaded, but 3 connections that no forward or outbound entry would make any longer could not be ended:";
    assert!(said.stderr.contains(words), "{said:?}");
    assert!(said.stderr.contains("busy"), "{said:?}");
    assert!(
        said.stderr
            .contains("to end them: sudo nvactl apply - --flush-stale"),
        "{said:?}"
    );
}

lab_test!(either an_undo_is_recorded_before_connections_are_ended);
/// Ending connections can take a minute. The machine has its old rules by then, and other commands may go on.
fn an_undo_is_recorded_before_connections_are_ended(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    outside(&lab, FIREWALL, FIREWALL_V6);
    lab.apply(&entry(", protocol: udp"));
    let spec = entry("");
    let said = lab.nvactl_with(&["apply", "-", "--no-trial", "--confirm", "600"], &spec);
    assert_eq!(said.code, 0, "{said:?}");
    to_many_servers(&lab, 3);
    let status = format!(
        "{} confirm --status > /run/standing 2>&1; {} apply /run/spec --no-trial > /run/applied 2>&1",
        env!("CARGO_BIN_EXE_nvactl"),
        env!("CARGO_BIN_EXE_nvactl")
    );
    lab.firewall.shell(&format!(
        "cat > /run/spec <<'END'\n{}END\nchmod 600 /run/spec",
        entry(", protocol: udp")
    ));
    before_deletions(&lab, &status);
    let said = lab.nvactl(&["confirm", "--cancel"]);
    assert_eq!(said.code, 0, "{said:?}");
    let standing = lab.firewall.run("cat /run/standing");
    assert!(
        standing.contains("nothing is waiting for a confirmation"),
        "{standing}"
    );
    let applied = lab.firewall.run("cat /run/applied");
    assert!(applied.contains("no changes"), "{applied}");
    assert_eq!(tracked(&lab, 443), 0);
}

lab_test!(either an_undo_names_connections_that_it_could_not_end);
fn an_undo_names_connections_that_it_could_not_end(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    outside(&lab, FIREWALL, FIREWALL_V6);
    lab.apply(&entry(", protocol: udp"));
    let args = ["apply", "-", "--no-trial", "--confirm", "600"];
    let said = lab.nvactl_with(&args, &entry(""));
    assert_eq!(said.code, 0, "{said:?}");
    to_many_servers(&lab, 3);
    before_deletions(&lab, "echo busy >&2; exit 4");
    let said = lab.nvactl(&["confirm", "--cancel"]);
    assert_eq!(said.code, 3, "{said:?}");
    let words = "the rules are restored, but 3 connections that only the undone change made could not be ended:";
    assert!(said.stderr.contains(words), "{said:?}");
    let standing = lab.nvactl(&["confirm", "--status"]);
    assert!(
        standing.stdout.contains("nothing is waiting"),
        "{standing:?}"
    );
}
