//! `nvactl probe`: from the firewall to the targets, and through it to the listeners.

use std::io::Write as _;
use std::net::TcpListener;
use std::time::Instant;

use serde_json::Value;

use crate::lab::{Backend, FIREWALL, Lab, Said};
use crate::nvactl;
use crate::traffic::{serve_tcp, serve_udp};

const SPEC: &str = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
  - {name: closed, listen: 49183, target: {pod: 10.224.0.118:81}}
  - {name: silent, listen: 49184, target: {pod: 10.224.0.118:82}}
  - {name: games, listen: 6000-6003, target: {pod: 10.224.0.118:7000-7003}}
  - {name: dns, listen: 53, protocol: udp, target: {pod: 10.224.0.118:5353}}
  - {name: log, listen: 514, protocol: udp, target: {pod: 10.224.0.118:5140}}
  - {name: none, listen: 515, protocol: udp, target: {pod: 10.224.0.118:5150}}
";

fn lab(backend: Backend) -> Lab {
    let lab = Lab::one_nic(backend);
    for port in [80, 7000, 7001, 7003] {
        serve_tcp(&lab.pod, "pod", port);
    }
    serve_udp(&lab.pod, "pod", 5353);
    // One listens and says nothing, one drops what comes.
    lab.pod.run("iptables -A INPUT -p tcp --dport 82 -j DROP");
    lab.pod.run("iptables -A INPUT -p udp --dport 5140 -j DROP");
    lab.apply(SPEC);
    lab
}

fn results(said: &Said) -> Vec<(String, u64, String)> {
    let report: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    let probes = report["probes"].as_array().expect("a list");
    let one = |probe: &Value| {
        let word = |key: &str| probe[key].as_str().expect("it is told").to_owned();
        (
            word("address"),
            probe["port"].as_u64().expect("a number"),
            word("result"),
        )
    };
    probes.iter().map(one).collect()
}

lab_test!(either each_port_has_its_probe_result);
fn each_port_has_its_probe_result(backend: Backend) {
    let lab = lab(backend);
    let words = [
        "open",
        "refused",
        "timed_out",
        "open",
        "open",
        "refused",
        "open",
        "open",
        "unanswered",
        "refused",
    ];
    let here = lab.nvactl_with(
        &["probe", "-", "--timeout", "0.5", "--format", "json"],
        SPEC,
    );
    assert_eq!(here.code, 1, "{here:?}");
    let ports = [80, 81, 82, 7000, 7001, 7002, 7003, 5353, 5140, 5150];
    let all = |address: &str, ports: [u64; 10]| -> Vec<(String, u64, String)> {
        let each = ports.into_iter().zip(words);
        each.map(|(port, word)| (address.to_owned(), port, word.to_owned()))
            .collect()
    };
    assert_eq!(results(&here), all("10.224.0.118", ports));
    // From a client, which needs neither root's rights nor iptables for it.
    let args = [
        "probe",
        "-",
        "--via",
        FIREWALL,
        "--timeout",
        "0.5",
        "--format",
        "json",
    ];
    let there = nvactl(&lab.client, &args, SPEC);
    assert_eq!(there.code, 1, "{there:?}");
    let ports = [49182, 49183, 49184, 6000, 6001, 6002, 6003, 53, 514, 515];
    assert_eq!(results(&there), all(FIREWALL, ports));

    let said = lab.nvactl_with(&["probe", "-", "--timeout", "0.5"], SPEC);
    let rows: Vec<&str> = said
        .stdout
        .lines()
        .filter(|line| line.starts_with("games "))
        .collect();
    let expected = [("7000-7001", "open"), ("7002", "refused"), ("7003", "open")];
    assert_eq!(rows.len(), expected.len(), "{said:?}");
    for (row, (ports, word)) in rows.iter().zip(expected) {
        assert!(
            row.contains(&format!(":{ports} ")) && row.contains(word),
            "{row}"
        );
    }
    assert!(
        said.stdout
            .ends_with("10 ports tried: 5 open, 1 unanswered, 4 failed\n"),
        "{said:?}"
    );
    assert!(
        !said.stderr.contains('['),
        "no bar where there is no terminal: {said:?}"
    );
    // A target sees the SNAT address, as it does of a client.
    lab.pod
        .run("iptables -I INPUT ! -s 10.3.0.4 -p tcp --dport 80 -j REJECT");
    lab.firewall.run("ip address add 10.3.0.3/24 dev eth0");
    lab.firewall
        .run("ip route replace default via 10.3.0.1 src 10.3.0.3");
    let said = lab.nvactl_with(
        &["probe", "-", "--timeout", "0.5", "--format", "json"],
        SPEC,
    );
    assert_eq!(results(&said)[0].2, "open");
}

lab_test!(either probe_tries_the_expected_ports);
fn probe_tries_the_expected_ports(backend: Backend) {
    let lab = lab(backend);
    let spec = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards: [{name: web, listen: 49182, target: {pod: 10.224.0.118:80}}]
";
    for (expect, code, words) in [
        ("tcp", 0, "open"),
        ("http", 0, "open"),
        ("http 200", 0, "open"),
        ("http 404", 1, "HTTP status 200"),
    ] {
        let args = ["probe", "-", "--expect", expect, "--count", "3"];
        let said = lab.nvactl_with(&args, spec);
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.stdout.contains(words), "{expect}: {said:?}");
    }
    let said = lab.nvactl_with(&["probe", "-", "--count", "3", "--format", "json"], spec);
    let report: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    let probe = &report["probes"][0];
    assert_eq!((&probe["tries"], &probe["lost"]), (&3.into(), &0.into()));
    let latency = |key: &str| probe["latency_ms"][key].as_f64().expect("it is told");
    assert!(
        latency("min") > 0.0
            && latency("min") <= latency("mean")
            && latency("mean") <= latency("max")
    );
    // A server of another protocol, which talks first.
    lab.pod.enter(|| {
        let listener = TcpListener::bind(("0.0.0.0", 22)).expect("the port is free");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.write_all(b"SSH-2.0-lab\r\n");
            }
        });
    });
    let other = spec.replace(":80", ":22");
    for (expect, code) in [("tcp", 0), ("http", 1)] {
        let said = lab.nvactl_with(&["probe", "-", "--expect", expect], &other);
        assert_eq!(said.code, code, "{said:?}");
        assert!(
            code == 0 || said.stdout.contains("connected, but no HTTP answer"),
            "{said:?}"
        );
    }
    // Of three connections in a row the second is refused.
    lab.pod.run("iptables -I INPUT -p tcp --syn --dport 80 -m statistic --mode nth --every 3 --packet 1 -j REJECT --reject-with tcp-reset");
    let said = lab.nvactl_with(&["probe", "-", "--count", "3"], spec);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stdout.contains("refused, 1 of 3 tries"), "{said:?}");
    // At a terminal there is a bar.
    lab.firewall
        .shell(&format!("cat > /run/spec.yaml <<'END'{spec}END"));
    let command = format!("{} probe /run/spec.yaml", env!("CARGO_BIN_EXE_nvactl"));
    let shown = lab.firewall.shell(&format!(
        "script --quiet --return --command '{command}' /dev/null < /dev/null || true"
    ));
    assert!(shown.contains("[####################] 1 of 1"), "{shown:?}");
}

lab_test!(either many_silent_ports_are_tried_at_once);
/// One after the other they would take as many seconds as there are.
fn many_silent_ports_are_tried_at_once(backend: Backend) {
    let lab = lab(backend);
    lab.pod
        .run("iptables -A INPUT -p tcp --dport 20000:20999 -j DROP");
    let spec = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards: [{name: many, listen: 20000-20999, target: {pod: 10.224.0.118:20000-20999}}]
";
    let begin = Instant::now();
    let said = lab.nvactl_with(&["probe", "-", "--timeout", "1"], spec);
    let took = begin.elapsed().as_secs();
    assert!(
        said.stdout.contains(":20000-20999  timed out  -"),
        "{said:?}"
    );
    assert!(took * 20 < 1000, "1,000 seconds of waiting took {took}");
    // Interrupted, it tells what it knows by then.
    lab.firewall
        .shell(&format!("cat > /run/spec.yaml <<'END'{spec}END"));
    let command = format!(
        "{} probe /run/spec.yaml --timeout 1 --jobs 8",
        env!("CARGO_BIN_EXE_nvactl")
    );
    let shown = lab.firewall.shell(&format!(
        "{command} > /run/told 2>&1 & sleep 2.5; kill -INT $!; code=0; wait $! || code=$?; echo $code; cat /run/told"
    ));
    assert!(shown.starts_with("1\n"), "{shown}");
    assert!(
        shown.contains("timed out") && shown.contains("ports not tried"),
        "{shown}"
    );
    // The bound holds: two at a time, eight of half a second each.
    let few = spec.replace("20999", "20007");
    let begin = Instant::now();
    let said = lab.nvactl_with(&["probe", "-", "--timeout", "0.5", "--jobs", "2"], &few);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(begin.elapsed().as_secs_f64() >= 2.0);
}
