//! UDP senders that began before a forward was loaded, and that the kernel does not translate.

use std::net::{TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use crate::flows::{answer, steady};
use crate::lab::{Backend, CLIENT, FIREWALL, FIREWALL_EGRESS, FIREWALL_V6, Lab, Said};
use crate::namespace::wait_for;
use crate::traffic::{self, serve_tcp, serve_udp, socket};

const BEFORE: &str = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: dns, listen: 53, protocol: udp, target: {pod: 10.224.0.118:5353}}
";

/// The same with a forward for what already is sent.
fn with_log(spec: &str) -> String {
    format!(
        "{spec}  - {{name: log, listen: 514, protocol: udp, target: {{pod: 10.224.0.118:5140}}}}\n"
    )
}

const WORDS: &str = "began before";

fn apply(lab: &Lab, spec: &str, more: &[&str]) -> Said {
    lab.nvactl_with(&[&["apply", "-"], more].concat(), spec)
}

/// The entries of a source, by what never changes of them.
fn entries(lab: &Lab, source: &str) -> Vec<String> {
    let listed = lab.firewall.shell(&format!(
        "conntrack -L -p udp --orig-src {source} 2>/dev/null || true"
    ));
    let ports = listed.lines().map(|line| {
        let words = line.split_ascii_whitespace();
        let words = words.filter(|word| word.contains("port=") || word.contains("src="));
        words.collect::<Vec<_>>().join(" ")
    });
    ports.collect()
}

/// A process of the firewall itself that sends to its own service.
fn own_sender(lab: &Lab, to: &str) -> UdpSocket {
    let to = to.to_owned();
    lab.firewall.enter(move || {
        let socket = UdpSocket::bind((FIREWALL, 0)).expect("a port is free");
        socket.connect(to).expect("there is a way");
        let patience = Some(Duration::from_secs(2));
        socket.set_read_timeout(patience).expect("it is no zero");
        socket
    })
}

/// Answers with its address until the test process ends. Bound to the address, it answers from there
/// whatever the route back is.
fn serve_at(lab: &Lab, address: &'static str, port: u16) {
    lab.firewall.enter(move || {
        let socket = UdpSocket::bind((address, port)).expect("the port is free");
        thread::spawn(move || {
            while let Ok((_, peer)) = socket.recv_from(&mut [0; 64]) {
                let _ = socket.send_to(address.as_bytes(), peer);
            }
        });
    });
}

lab_test!(either a_sender_that_a_local_service_answers_is_named_and_ended);
/// One who was answered by a service of the firewall goes on to be, until the entry is ended.
fn a_sender_that_a_local_service_answers_is_named_and_ended(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_udp(&lab.firewall, "firewall", 514);
    serve_udp(&lab.pod, "pod", 5140);
    lab.apply(BEFORE);
    let log = steady(&lab, 514);
    assert_eq!(answer(&log), format!("firewall {CLIENT}"));
    let own = own_sender(&lab, "10.3.0.4:514");
    assert_eq!(answer(&own), format!("firewall {FIREWALL}"));
    let of_own = entries(&lab, FIREWALL);
    assert_eq!(of_own.len(), 1, "{of_own:?}");

    let spec = with_log(BEFORE);
    let shown = format!(
        "1 UDP sender began before its forward was loaded and is not forwarded: udp {CLIENT} → {FIREWALL}:514 (`log`)"
    );
    for args in [&["--dry-run"][..], &[], &[]] {
        let said = apply(&lab, &spec, args);
        assert_eq!(said.code, i32::from(!args.is_empty()), "{said:?}");
        let told = format!("{}{}", said.stdout, said.stderr);
        assert!(
            told.contains(&shown) && told.contains("--flush-stale"),
            "{said:?}"
        );
        assert_eq!(
            answer(&log),
            format!("firewall {CLIENT}"),
            "the kernel remembers it"
        );
    }
    let said = apply(&lab, &spec, &["--flush-stale", "--dry-run"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(
        answer(&log),
        format!("firewall {CLIENT}"),
        "a dry run deletes nothing"
    );

    let said = apply(&lab, &spec, &["--flush-stale"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(answer(&log), format!("pod {FIREWALL}"));
    assert_eq!(
        entries(&lab, FIREWALL),
        of_own,
        "the machine's own entry was touched"
    );
    let said = apply(&lab, &spec, &["--flush-stale"]);
    assert_eq!(
        (said.code, said.stdout.as_str(), said.stderr.as_str()),
        (0, "<stdin>: no changes\n", "")
    );
}

lab_test!(either a_sender_that_nobody_answers_reaches_the_forward_at_once);
/// Nobody listens on the firewall: the sender hears that, and sends on. One apply does all.
fn a_sender_that_nobody_answers_reaches_the_forward_at_once(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_udp(&lab.pod, "pod", 5140);
    lab.apply(BEFORE);
    let log = steady(&lab, 514);
    log.send(b"?").expect("it is sent");
    assert!(log.recv(&mut [0; 64]).is_err(), "nobody listens");
    let said = apply(&lab, &with_log(BEFORE), &["--flush-stale"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains(WORDS), "{said:?}");
    assert_eq!(answer(&log), format!("pod {FIREWALL}"));
}

lab_test!(either a_sender_of_ipv6_is_named_and_ended);
fn a_sender_of_ipv6_is_named_and_ended(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    serve_udp(&lab.firewall, "firewall", 514);
    serve_udp(&lab.pod, "pod", 5140);
    let before = r#"
firewall: {interface: eth0, snat: {v4: 10.3.0.4, v6: "fd00:3::4"}}
forwards:
  - {name: dns, listen: 53, protocol: udp, target: {pod: "[fd00:224::118]:5353"}}
"#;
    lab.apply(before);
    assert_eq!(lab.nvactl(&["sysctl", "enable", "--ipv6"]).code, 0);
    let to = socket(FIREWALL_V6, 514);
    let log = lab.client.enter(move || {
        let socket = UdpSocket::bind("[::]:0").expect("a port is free");
        socket.connect(to).expect("there is a way");
        let patience = Some(Duration::from_secs(2));
        socket.set_read_timeout(patience).expect("it is no zero");
        socket
    });
    assert_eq!(answer(&log), "firewall 2001:db8:51::10");
    let spec = format!(
        "{before}  - {{name: log, listen: 514, protocol: udp, target: {{pod: \"[fd00:224::118]:5140\"}}}}\n"
    );
    let said = apply(&lab, &spec, &[]);
    let shown = format!("udp 2001:db8:51::10 → [{FIREWALL_V6}]:514 (`log`)");
    assert!(said.stderr.contains(&shown), "{said:?}");
    let said = apply(&lab, &spec, &["--flush-stale"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(answer(&log), format!("pod {FIREWALL_V6}"));
}

lab_test!(either a_service_for_the_other_side_is_healthy);
/// A DNS server on the firewall serves the inner side and the firewall itself, by either address.
/// None of that is a forward's for clients outside, so nothing is wrong with it, and nothing is ended.
fn a_service_for_the_other_side_is_healthy(backend: Backend) {
    let lab = Lab::two_nics(backend);
    for address in [FIREWALL, FIREWALL_EGRESS] {
        serve_at(&lab, address, 53);
    }
    serve_udp(&lab.pod, "pod", 5353);
    // From behind, either address is reached by the inner side.
    lab.vnet.run("ip rule add iif other lookup 101");
    lab.vnet.run("ip route add default via 10.4.0.4 table 101");
    lab.firewall
        .shell("for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $file; done");
    let spec = BEFORE
        .replace(
            "interface: eth0",
            "interface: {ingress: eth0, egress: eth1}",
        )
        .replace("snat: 10.3.0.4", "snat: 10.4.0.4");
    lab.apply(&spec);
    let inner = |to: &str| {
        let to = to.to_owned();
        lab.other.enter(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
            socket.connect(to).expect("there is a way");
            let patience = Some(Duration::from_secs(2));
            socket.set_read_timeout(patience).expect("it is no zero");
            socket
        })
    };
    let inner = [inner("10.4.0.4:53"), inner("10.3.0.4:53")];
    let own = [
        own_sender(&lab, "10.3.0.4:53"),
        own_sender(&lab, "10.4.0.4:53"),
    ];
    for (socket, address) in
        inner
            .iter()
            .chain(&own)
            .zip([FIREWALL_EGRESS, FIREWALL, FIREWALL, FIREWALL_EGRESS])
    {
        assert_eq!(answer(socket), address);
    }
    let before = [entries(&lab, "10.224.0.99"), entries(&lab, FIREWALL)];
    assert_eq!(before.iter().map(Vec::len).sum::<usize>(), 4, "{before:?}");

    let said = lab.nvactl_with(&["doctor", "-", "--format", "json"], &spec);
    let report: serde_json::Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    let checks = report["checks"].as_array().expect("a list").iter();
    let stale: Vec<_> = checks
        .filter(|check| check["code"] == "stale-connection")
        .collect();
    assert_eq!(stale.len(), 1, "{stale:?}");
    assert_eq!(stale[0]["status"], "ok", "{stale:?}");

    for args in [&[][..], &["--flush-stale"]] {
        let said = apply(&lab, &spec, args);
        assert_eq!(
            (said.code, said.stdout.as_str(), said.stderr.as_str()),
            (0, "<stdin>: no changes\n", "")
        );
    }
    let after = [entries(&lab, "10.224.0.99"), entries(&lab, FIREWALL)];
    assert_eq!(after, before);
    // The client outside is forwarded meanwhile.
    assert_eq!(
        lab.udp(FIREWALL, 53),
        traffic::answer("pod", FIREWALL_EGRESS)
    );
}

lab_test!(either only_connections_of_denied_clients_are_ended);
/// Of one target's clients only those end whom the forward turns away now.
fn only_connections_of_denied_clients_are_ended(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_udp(&lab.pod, "pod", 5353);
    lab.client.run("ip address add 198.51.100.11/32 dev eth0");
    lab.vnet.run("ip route add 198.51.100.11/32 dev client");
    lab.apply(BEFORE);
    let from = |address: &'static str| {
        lab.client.enter(move || {
            let socket = UdpSocket::bind((address, 0)).expect("a port is free");
            socket.connect((FIREWALL, 53)).expect("there is a way");
            let patience = Some(Duration::from_secs(2));
            socket.set_read_timeout(patience).expect("it is no zero");
            socket
        })
    };
    let (denied, admitted) = (from(CLIENT), from("198.51.100.11"));
    for socket in [&denied, &admitted] {
        assert_eq!(answer(socket), "pod 10.3.0.4");
    }
    let before = entries(&lab, "198.51.100.11");
    assert_eq!(before.len(), 1, "{before:?}");
    let spec = BEFORE.replace(":5353}}", ":5353}, deny_from: [198.51.100.10/32]}");
    let said = apply(&lab, &spec, &["--flush-stale"]);
    assert!(said.stdout.contains("ended 1 connection"), "{said:?}");
    assert_eq!(entries(&lab, CLIENT), [""; 0]);
    assert_eq!(entries(&lab, "198.51.100.11"), before, "it is admitted");
    assert_eq!(answer(&admitted), "pod 10.3.0.4");
}

lab_test!(either a_finished_connection_is_not_stale);
/// `TIME_WAIT` stays for two minutes after a connection is over.
fn a_finished_connection_is_not_stale(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    let web = |pod: &str| {
        BEFORE.replace(
            "name: dns, listen: 53, protocol: udp, target: {pod: 10.224.0.118:5353}",
            &format!("name: web, listen: 49182, target: {{pod: {pod}:80}}"),
        )
    };
    lab.apply(&web("10.224.0.118"));
    assert_eq!(lab.tcp(FIREWALL, 49182), traffic::answer("pod", FIREWALL));
    let state = |state: &'static str| {
        let listed = lab
            .firewall
            .shell("conntrack -L -p tcp 2>/dev/null || true");
        listed.lines().filter(|line| line.contains(state)).count()
    };
    wait_for("the connection is over", || state("TIME_WAIT") == 1);
    let said = apply(&lab, &web("10.224.0.99"), &[]);
    assert!(
        !said
            .stderr
            .contains("that no forward would make any longer"),
        "{said:?}"
    );
    assert_eq!(state("TIME_WAIT"), 1);

    // One that is alive is told of.
    assert_eq!(apply(&lab, &web("10.224.0.118"), &[]).code, 0);
    let held = lab
        .client
        .enter(|| TcpStream::connect((FIREWALL, 49182)).expect("there is a way"));
    let said = apply(&lab, &web("10.224.0.99"), &[]);
    assert!(
        said.stderr
            .contains("1 connection that no forward would make any longer"),
        "{said:?}"
    );
    drop(held);
}
