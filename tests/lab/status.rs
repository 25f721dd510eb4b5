//! `nvactl status` against what was really sent and done.

use std::net::{TcpStream, UdpSocket};

use serde_json::{Value, json};

use crate::firewall::{apply, firewall};
use crate::lab::{Backend, FIREWALL, Lab, Said, save};
use crate::namespace::Host;
use crate::nvactl;
use crate::traffic::{answer, serve_tcp, serve_udp};

const SPEC: &str = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
  - {name: dns, listen: 53, protocol: udp, target: {pod: 10.224.0.118:5353}}
  - {name: idle, listen: 8080-8090, target: {pod: 10.224.0.118:8080-8090}}
";

fn ask(host: &Host, spec: &str, more: &[&str]) -> Said {
    nvactl(host, &[&["status", "-"], more].concat(), spec)
}

fn report(host: &Host, spec: &str) -> Value {
    let said = ask(host, spec, &["--format", "json"]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:?}");
    serde_json::from_str(&said.stdout).expect("it is JSON")
}

fn row<'v>(report: &'v Value, name: &str) -> &'v Value {
    let rows = report["forwards"].as_array().expect("a list");
    let mut rows = rows.iter().filter(|row| row["name"] == name);
    rows.next()
        .unwrap_or_else(|| panic!("no {name}: {report:#}"))
}

lab_test!(counters_and_connections_match_the_packets_sent);
fn counters_and_connections_match_the_packets_sent(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    serve_udp(&lab.pod, "pod", 5353);
    lab.apply(SPEC);
    for _ in 0..7 {
        assert_eq!(lab.tcp(FIREWALL, 49182), answer("pod", FIREWALL));
    }
    // Of those that are finished no more is alive.
    let held = lab.client.enter(|| {
        let connect = || TcpStream::connect((FIREWALL, 49182)).expect("there is a way");
        [connect(), connect()]
    });
    // One sender of many datagrams is one connection.
    lab.client.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
        socket.connect((FIREWALL, 53)).expect("there is a way");
        for _ in 0..5 {
            socket.send(b"12345678").expect("it is sent");
            socket.recv(&mut [0; 64]).expect("it is answered");
        }
    });
    let told = report(&lab.firewall, SPEC);
    let web = row(&told, "web");
    assert_eq!(
        (&web["new"]["packets"], &web["connections"]),
        (&9.into(), &2.into())
    );
    // A first packet of TCP is a header of IP and one with options, 60 bytes on Linux.
    assert_eq!(web["new"]["bytes"], 9 * 60);
    let dns = row(&told, "dns");
    assert_eq!(
        (&dns["new"]["packets"], &dns["connections"]),
        (&1.into(), &1.into())
    );
    assert_eq!(dns["new"]["bytes"], 20 + 8 + 8);
    let idle = row(&told, "idle");
    assert_eq!(
        (&idle["new"]["packets"], &idle["connections"]),
        (&0.into(), &0.into())
    );
    assert!(
        told["established"]["packets"].as_u64() > Some(7 * 3),
        "{told:#}"
    );
    assert_eq!(told["in_sync"], true);

    // A change beside it keeps them, and node_exporter gets the same.
    lab.apply(&SPEC.replace("8080-8090", "8180-8190"));
    let spec = SPEC.replace("8080-8090", "8180-8190");
    let metrics = ask(&lab.firewall, &spec, &["--format", "prometheus"]).stdout;
    let labels = r#"{forward="web",protocol="tcp",listen="49182",target="10.224.0.118:80"}"#;
    for (name, value) in [
        ("nvactl_forward_new_connections_total", 9),
        ("nvactl_forward_new_connections_bytes_total", 540),
        ("nvactl_forward_connections", 2),
    ] {
        let line = format!("{name}{labels} {value}");
        assert!(metrics.lines().any(|one| one == line), "{line}: {metrics}");
    }
    let names = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP "));
    for name in names.filter_map(|line| line.split(' ').next()) {
        let page = include_str!("../../docs/metrics.md");
        let shown = [format!("`{name}`"), format!("`{name}{{")];
        assert!(shown.iter().any(|words| page.contains(words)), "{name}");
    }
    let text = ask(&lab.firewall, &spec, &[]).stdout;
    let web = text.lines().find(|line| line.starts_with("web "));
    let words: Vec<&str> = web.expect("it has a row").split_whitespace().collect();
    assert_eq!(
        words[1..],
        [
            "tcp",
            "49182",
            "10.224.0.118:80",
            "in",
            "sync",
            "9",
            "540",
            "0",
            "2"
        ]
    );
    drop(held);
}

lab_test!(either each_forward_has_its_state);
fn each_forward_has_its_state(backend: Backend) {
    let host = firewall(backend);
    let spec = SPEC;
    let check = |code: i32| {
        let said = ask(&host, spec, &["--check"]);
        assert_eq!(said.code, code, "{said:?}");
        assert_eq!(
            ask(&host, spec, &[]).code,
            0,
            "without --check it only tells"
        );
    };
    let told = report(&host, spec);
    assert_eq!(row(&told, "web")["state"], "missing");
    check(1);
    apply(&host, spec);
    check(0);

    host.run("iptables -I NVACTL-FORWARD 1 -s 192.0.2.1 -j DROP");
    host.run("iptables -t nat -D NVACTL-POSTROUTING 1");
    let told = report(&host, spec);
    let states =
        ["web", "dns", "idle"].map(|name| row(&told, name)["state"].as_str().expect("it is told"));
    assert_eq!(states, ["drifted", "in_sync", "in_sync"], "{told:#}");
    let drift = told["drift"].as_array().expect("a list");
    let kinds: Vec<&str> = drift
        .iter()
        .filter_map(|line| line["what"].as_str())
        .collect();
    assert_eq!(kinds, ["put_in", "taken_out"], "{told:#}");
    let text = ask(&host, spec, &[]).stdout;
    assert!(
        text.contains("added, filter: -A NVACTL-FORWARD -s 192.0.2.1/32 -j DROP"),
        "{text}"
    );
    assert!(
        text.contains("\n  to fix it: sudo nvactl apply -"),
        "{text}"
    );
    check(1);

    apply(&host, spec);
    host.run("iptables -P FORWARD ACCEPT");
    check(1);
    let more = format!("{spec}  - {{name: extra, listen: 99, target: {{pod: 10.224.0.118:99}}}}\n");
    apply(&host, &more);
    let told = report(&host, spec);
    assert_eq!(row(&told, "extra")["state"], "surplus");
    check(1);
}

lab_test!(foreign_rules_before_a_jump_are_listed_and_are_not_drift);
/// A rule that takes the packets of a forward and one that may take some are counted alike; `doctor`
/// reports what they do.
fn foreign_rules_before_a_jump_are_listed_and_are_not_drift(backend: Backend) {
    const TAKES: &str =
        "-A PREROUTING -p tcp -m tcp --dport 49182 -j DNAT --to-destination 10.9.9.9";
    let host = firewall(backend);
    apply(&host, SPEC);
    assert_eq!(report(&host, SPEC)["before_jumps"], json!([]));
    let before_jump = |table: &str| {
        let metrics = ask(&host, SPEC, &["--format", "prometheus"]).stdout;
        let name = format!("nvactl_foreign_rules_before_jump{{family=\"v4\",table=\"{table}\"}} ");
        let count = metrics.lines().find_map(|line| line.strip_prefix(&name));
        count.map(str::to_owned)
    };
    assert_eq!(before_jump("filter").as_deref(), Some("0"));

    host.run(&format!("iptables -t nat {}", TAKES.replace("-A", "-I")));
    host.shell("for n in $(seq 12); do iptables -I FORWARD -s 192.0.2.$n -j DROP; done");
    let told = report(&host, SPEC);
    for name in ["web", "dns", "idle"] {
        assert_eq!(row(&told, name)["state"], "in_sync", "{told:#}");
    }
    assert_eq!(
        (&told["in_sync"], &told["drift"]),
        (&true.into(), &json!([]))
    );
    let drop = |n: usize| format!("-A FORWARD -s 192.0.2.{n}/32 -j DROP");
    let drops: Vec<String> = (3..=12).rev().map(drop).collect();
    assert_eq!(
        told["before_jumps"],
        json!([
            {"family": "v4", "table": "nat", "chain": "PREROUTING", "count": 1, "rules": [TAKES]},
            {"family": "v4", "table": "filter", "chain": "FORWARD", "count": 12, "rules": drops},
        ])
    );
    let said = ask(&host, SPEC, &["--check"]);
    assert_eq!(said.code, 0, "{said:?}");
    let (_, last) = said.stdout.rsplit_once("\n\n").expect("a blank line");
    assert_eq!(
        last,
        "another program's rule is before nvactl's jump in nat PREROUTING; \
         to see the effect on packets: sudo nvactl doctor - < YOUR-SPEC\n\
         12 of other programs' rules are before nvactl's jump in filter FORWARD; \
         to see the effect on packets: sudo nvactl doctor - < YOUR-SPEC\n"
    );
    assert_eq!(before_jump("filter").as_deref(), Some("12"));
    assert_eq!(before_jump("nat").as_deref(), Some("1"));

    apply(&host, SPEC);
    assert_eq!(report(&host, SPEC)["before_jumps"], json!([]));
    assert!(host.run("iptables-save -t nat").contains(TAKES));
}

lab_test!(a_missing_duplicate_or_unreached_jump_is_drift);
fn a_missing_duplicate_or_unreached_jump_is_drift(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    for (change, state, line) in [
        (
            "iptables -D FORWARD -j NVACTL-FORWARD",
            "drifted",
            "removed, filter: -A FORWARD -j NVACTL-FORWARD",
        ),
        (
            "iptables -A FORWARD -j NVACTL-FORWARD",
            "in_sync",
            "added, filter: -A FORWARD -j NVACTL-FORWARD",
        ),
        (
            "iptables -I FORWARD -j ACCEPT",
            "drifted",
            "accepts every packet before nvactl's jump, filter: -A FORWARD -j ACCEPT",
        ),
        (
            "iptables -t nat -I POSTROUTING -j MASQUERADE",
            "drifted",
            "decides every packet before nvactl's jump, nat: -A POSTROUTING -j MASQUERADE",
        ),
    ] {
        host.run(change);
        let told = report(&host, SPEC);
        assert_eq!(row(&told, "web")["state"], state, "{change}: {told:#}");
        assert_eq!(told["in_sync"], false, "{change}");
        let said = ask(&host, SPEC, &["--check"]);
        assert_eq!(said.code, 1, "{change}: {said:?}");
        let line = format!("\n  {line}\n");
        assert!(said.stdout.contains(&line), "{change}: {said:?}");
        apply(&host, SPEC);
        assert_eq!(ask(&host, SPEC, &["--check"]).code, 0, "{change}");
    }
}

lab_test!(status_reports_what_the_next_boot_loads);
fn status_reports_what_the_next_boot_loads(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    let told = report(&host, SPEC);
    assert_eq!(
        (&told["backend"], &told["forward_policy"]),
        (&backend.name().into(), &"DROP".into())
    );
    assert_eq!(
        (&told["at_boot"]["rules"], &told["at_boot"]["ip_forward"]),
        (&"missing".into(), &Value::Null)
    );
    for args in [&["sysctl", "enable", "--persist"][..], &["persist"]] {
        assert_eq!(nvactl(&host, args, "").code, 0);
    }
    let told = report(&host, SPEC);
    assert_eq!(
        (&told["at_boot"]["rules"], &told["at_boot"]["ip_forward"]),
        (&"same".into(), &true.into())
    );
    let changed = SPEC.replace("49182", "49183");
    let said = nvactl(&host, &["apply", "-", "--confirm", "600"], &changed);
    assert_eq!(said.code, 0, "{said:?}");
    let text = ask(&host, &changed, &[]).stdout;
    for words in [
        "/etc/iptables/rules.v4 differs from the loaded rules",
        "unless you confirm it",
        "ip_forward  1; at boot 1, by /etc/sysctl.d/99-nvactl.conf:2",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(nvactl(&host, &["confirm", "--cancel"], "").code, 0);
    assert_eq!(save(&host), before);
    host.shell("echo nonsense > /etc/iptables/rules.v4");
    let at_boot = &report(&host, SPEC)["at_boot"];
    assert_eq!(
        (&at_boot["rules"], &at_boot["refused"]),
        (
            &"refused".into(),
            &"iptables-restore refuses line 1, `nonsense`: line 1 failed".into()
        )
    );
    // A line about the interface alone, read behind.
    host.shell("echo net.ipv4.conf.eth0.forwarding=0 > /etc/sysctl.d/99-zz.conf");
    let at_boot = &report(&host, SPEC)["at_boot"];
    assert_eq!(
        (&at_boot["ip_forward"], &at_boot["ip_forward_by"]),
        (&false.into(), &"/etc/sysctl.d/99-zz.conf:1".into())
    );
}

lab_test!(either commands_that_only_read_leave_no_trace);
/// They look, and leave nothing: no folder, no table of connections, no chain.
fn commands_that_only_read_leave_no_trace(backend: Backend) {
    let host = firewall(backend);
    let before = host.run("iptables-save");
    for args in [
        &["status", "-"][..],
        &["doctor", "-", "--timeout", "0.1"],
        &["diff", "-"],
    ] {
        let said = nvactl(&host, args, SPEC);
        assert!(said.code < 2, "{said:?}");
    }
    assert!(!host.exists("/var/lib/nvactl"));
    assert_eq!(host.run("iptables-save"), before);
    assert_eq!(host.run("cat /proc/sys/net/ipv4/ip_forward"), "0\n");
}
