//! Who may come, how much, and what is logged of it.

use std::io::Read as _;
use std::net::{SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{Backend, CLIENT, FIREWALL, ILB, Lab, POD};
use crate::namespace::{Host, wait_for};
use crate::traffic::{Outcome, answer, serve_tcp, serve_udp};
use crate::wire::{Arrivals, Kind, Sent, send};

fn spec(forward: &str) -> String {
    format!(
        "firewall: {{interface: eth0, snat: 10.3.0.4}}\nsilence: [keeps-probes-out]\nforwards: [{forward}]"
    )
}

/// The same under a policy that accepts.
fn kept(forward: &str) -> String {
    spec(forward).replace("10.3.0.4}", "10.3.0.4, forward_policy: keep}")
}

/// Another client beside the one of the lab.
pub fn second_client(lab: &Lab, address: &str) {
    lab.vnet
        .run(&format!("ip route add {address}/32 dev client"));
    lab.client
        .run(&format!("ip address add {address}/32 dev eth0"));
}

/// What a connection from one of the client's addresses brings back.
pub fn ask_from(lab: &Lab, from: &str, port: u16) -> String {
    let url = format!("http://{FIREWALL}:{port}/");
    let script = format!("curl --silent --interface {from} --max-time 2 {url} || echo none");
    lab.client.shell(&script).trim().to_owned()
}

fn status(lab: &Lab, spec: &str) -> serde_json::Value {
    let said = lab.nvactl_with(&["status", "-", "--format", "json"], spec);
    serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"))
}

fn packets(count: &serde_json::Value) -> Option<u32> {
    u32::try_from(count["packets"].as_u64()?).ok()
}

lab_test!(only_clients_that_are_allowed_and_not_denied_connect);
fn only_clients_that_are_allowed_and_not_denied_connect(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    // What a packet that is let back untranslated would reach.
    serve_tcp(&lab.firewall, "firewall", 8080);
    for address in ["198.51.100.20", "198.51.100.130", "203.0.113.5"] {
        second_client(&lab, address);
    }
    let spec = spec(
        "{name: web, listen: 8080, target: {pod: 10.224.0.118:80},
          allow_from: [198.51.100.0/24], deny_from: [198.51.100.128/25]}",
    );
    lab.apply(&spec);
    for (from, comes) in [
        (CLIENT, true),
        ("198.51.100.20", true),
        ("198.51.100.130", false),
        ("203.0.113.5", false),
    ] {
        let said = ask_from(&lab, from, 8080);
        assert_eq!(said, if comes { "pod 10.3.0.4" } else { "none" }, "{from}");
    }
    let status = status(&lab, &spec);
    let web = &status["forwards"][0];
    assert_eq!(status["in_sync"], true);
    let (new, refused) = (packets(&web["new"]), packets(&web["refused"]));
    let (new, refused) = new.zip(refused).expect("both are counted");
    // Who hears nothing may have asked again.
    assert!(refused >= 2, "{web}");
    assert_eq!(new - refused, 2, "{web}");
}

lab_test!(a_list_keeps_clients_out_under_each_policy);
/// Behind a FORWARD policy that accepts, too, and for packets that do not open a connection.
fn a_list_keeps_clients_out_under_each_policy(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_udp(&lab.pod, "pod", 53);
    let forward = "{name: dns, listen: 53, protocol: udp, target: {pod: 10.224.0.118:53}, allow_from: [10.0.0.0/8]}";
    let spec = kept(forward);
    lab.apply(&spec.replace("10.0.0.0/8", "198.51.100.0/24"));
    assert_eq!(lab.udp(FIREWALL, 53), answer("pod", FIREWALL));
    lab.apply(&spec);
    assert_eq!(lab.udp(FIREWALL, 53), Outcome::Silence);
}

/// One packet of each kind from the client, from a port of its own, to each of these ports; and a last
/// datagram to a port that is always open.
fn send_each(lab: &Lab, from: u16, ports: impl Iterator<Item = (u16, Kind)>) {
    let address = |text: &str| text.parse().expect("it is an address");
    let packet = |(from, (port, kind))| Sent {
        kind,
        from: SocketAddrV4::new(address(CLIENT), from),
        to: SocketAddrV4::new(address(FIREWALL), port),
    };
    let all = ports.chain([(LAST, Kind::Datagram)]);
    send(&lab.client, (from..).zip(all).map(packet).collect());
}

const LAST: u16 = 9;
const LAST_FORWARD: &str = "{name: last, listen: 9, protocol: udp, target: {pod: 10.224.0.118:9}}";

/// What has come to a port of the pod, of which kind, once the last datagram is there.
fn come(pod: &Arrivals) -> Vec<(u16, Kind)> {
    wait_for("the last datagram has come", || {
        pod.have(|packet| packet.to.port() == LAST)
    });
    let come = pod.take().into_iter();
    let mut come: Vec<(u16, Kind)> = come.map(|sent| (sent.to.port(), sent.kind)).collect();
    come.retain(|(port, _)| *port != LAST);
    come.sort_unstable();
    come
}

lab_test!(a_list_keeps_out_packets_that_no_rule_accepts);
/// A packet that opens no connection, or that leaves by another interface than the forward's, is accepted
/// by no rule of the forward's: a policy that accepts would let it pass.
fn a_list_keeps_out_packets_that_no_rule_accepts(backend: Backend) {
    const KINDS: [Kind; 3] = [Kind::Syn, Kind::Ack, Kind::Datagram];
    let lab = Lab::one_nic(backend);
    let pod = Arrivals::at(&lab.pod);
    for (egress, from) in [("eth0", 2000), ("eth9", 3000)] {
        let forward = |name: &str, port: u16, list: &str| {
            format!(
                "{{name: {name}, listen: {port}, protocol: [tcp, udp], target: {{ilb: 10.224.0.118}},
                  interface: {{egress: {egress}}}, {list}}}"
            )
        };
        let forwards = [
            forward("denied", 81, "deny_from: [198.51.100.10]"),
            forward("for-others", 82, "allow_from: [10.9.0.0/16]"),
            forward("for-clients", 83, "allow_from: [198.51.100.0/24]"),
            LAST_FORWARD.to_owned(),
        ];
        let spec = kept(&forwards.join(", "));
        lab.apply(&spec);
        let each = [81, 82, 83].into_iter();
        send_each(
            &lab,
            from,
            each.flat_map(|port| KINDS.map(|kind| (port, kind))),
        );
        assert_eq!(come(&pod), KINDS.map(|kind| (83, kind)), "{egress}");
        // The list of the third has refused nothing, whatever became of the packets behind it.
        let status = status(&lab, &spec);
        let refused = (0..6).map(|n| packets(&status["forwards"][n]["refused"]));
        let refused: Vec<_> = refused.collect();
        assert_eq!(
            refused,
            [2, 1, 2, 1, 0, 0].map(Some),
            "{egress}: {status:#}"
        );
    }
}

lab_test!(packets_that_open_no_connection_use_up_no_limit);
fn packets_that_open_no_connection_use_up_no_limit(backend: Backend) {
    let lab = Lab::one_nic(backend);
    let pod = Arrivals::at(&lab.pod);
    lab.apply(&spec(&format!(
        "{{name: web, listen: 80, target: {{pod: 10.224.0.118:80}},
          limits: {{new_per_second: 1, burst: 3}}, log: {{per_minute: 600}}}}, {LAST_FORWARD}"
    )));
    let opening = [(80, Kind::Syn); 3];
    send_each(&lab, 2000, [(80, Kind::Ack); 30].into_iter().chain(opening));
    assert_eq!(come(&pod), opening);
    assert_eq!(logged(&lab, "web accepted"), 3);
}

lab_test!(a_list_applies_to_its_own_forward_only);
/// Somebody else's translation of the same port, and a forward beside it that listens for all.
fn a_list_applies_to_its_own_forward_only(backend: Backend) {
    const ELSEWHERE: &str = "203.0.113.9";
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    serve_tcp(&lab.ilb, "ilb", 80);
    serve_tcp(&lab.other, "other", 80);
    lab.vnet
        .run(&format!("ip route add {ELSEWHERE}/32 via 10.3.0.4"));
    for rule in [
        "-t nat -A PREROUTING -d 203.0.113.9 -p tcp --dport 8080 -j DNAT --to-destination 10.224.0.99:80",
        "-t nat -A POSTROUTING -d 10.224.0.99 -j MASQUERADE",
        "-A FORWARD -d 10.224.0.99 -j ACCEPT",
    ] {
        lab.firewall.run(&format!("iptables {rule}"));
    }
    let spec = spec(
        "{name: one, listen: 10.3.0.4:8080, target: {pod: 10.224.0.118:80}, interface: {ingress: eth9},
          allow_from: [10.9.0.0/16], limits: {max_connections: 1}},
         {name: all, listen: 8080, target: {ilb: 10.224.0.222:80}},
         {name: closed, listen: 8081, target: {ilb: 10.224.0.222:80}, allow_from: [10.9.0.0/16]}",
    );
    lab.apply(&spec);
    for _ in 0..3 {
        assert_eq!(lab.tcp(ELSEWHERE, 8080), answer("other", FIREWALL));
        assert_eq!(lab.tcp(FIREWALL, 8080), answer("ilb", FIREWALL));
    }
    assert_eq!(lab.tcp(FIREWALL, 8081), Outcome::Silence);
    let status = status(&lab, &spec);
    let refused: Vec<Option<u32>> = (0..3)
        .map(|n| packets(&status["forwards"][n]["refused"]))
        .collect();
    assert_eq!(refused[..2], [Some(0), Some(0)], "{status:#}");
    assert!(refused[2] > Some(0), "{status:#}");
}

lab_test!(a_changed_list_shows_as_drift_of_its_forwards);
/// Who opens a list by hand opens it for each forward that has it.
fn a_changed_list_shows_as_drift_of_its_forwards(backend: Backend) {
    let lab = Lab::one_nic(backend);
    let spec = spec(
        "{name: web, listen: 8080, target: {pod: 10.224.0.118:80}, allow_from: [10.9.0.0/16]},
         {name: same, listen: 8081, target: {pod: 10.224.0.118:80}, allow_from: [10.9.0.0/16]},
         {name: open, listen: 8082, target: {pod: 10.224.0.118:80}}",
    );
    lab.apply(&spec);
    let save = crate::lab::save(&lab.firewall);
    let list = save
        .lines()
        .find_map(|line| line.strip_prefix(":NVACTL-ALLOW-"));
    let list = list
        .and_then(|line| line.split(' ').next())
        .expect("there is a list");
    lab.firewall.run(&format!(
        "iptables -I NVACTL-ALLOW-{list} -s {CLIENT} -j RETURN"
    ));
    let told = status(&lab, &spec);
    let states = [0, 1, 2].map(|n| told["forwards"][n]["state"].clone());
    assert_eq!(states, ["drifted", "drifted", "in_sync"]);
    lab.apply(&spec);
    assert_eq!(status(&lab, &spec)["in_sync"], true);
}

lab_test!(the_datagrams_of_one_sender_are_one_connection);
/// A sender that nobody has answered yet goes on sending.
fn the_datagrams_of_one_sender_are_one_connection(backend: Backend) {
    let lab = Lab::one_nic(backend);
    let seen = count_udp(&lab.pod, 514);
    // By the way that the forward says, and by another that the policy lets pass. The kernel keeps what a
    // limit has counted for one of the same name.
    for (egress, all) in [("eth0", 50), ("eth9", 100)] {
        lab.apply(&kept(&format!(
            "{{name: by-{egress}, listen: 514, protocol: udp, target: {{pod: 10.224.0.118:514}},
              interface: {{egress: {egress}}}, limits: {{new_per_second: 1, burst: 1}}, log: {{per_minute: 600}}}}"
        )));
        lab.client.enter(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
            for _ in 0..50 {
                let sent = socket.send_to(b"?", (FIREWALL, 514));
                assert!(sent.is_ok(), "{sent:?}");
            }
        });
        wait_for("each datagram has come", || {
            seen.load(Ordering::SeqCst) == all
        });
        assert_eq!(logged(&lab, &format!("by-{egress} accepted")), 1);
    }
}

lab_test!(either a_list_of_ten_thousand_networks_is_exact);
fn a_list_of_ten_thousand_networks_is_exact(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    let nets = (0..10_000u32).map(|n| {
        let address = std::net::Ipv4Addr::from(0x2000_0000 + n * 0x200);
        format!("{address}/24")
    });
    let nets: Vec<String> = nets.chain(["198.51.100.0/28".to_owned()]).collect();
    let spec = spec(&format!(
        "{{name: web, listen: 8080, target: {{pod: 10.224.0.118:80}}, allow_from: [{}]}}",
        nets.join(", ")
    ));
    let said = lab.nvactl_with(&["apply", "--no-trial", "-"], &spec);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(lab.nvactl(&["sysctl", "enable"]).code, 0);
    second_client(&lab, "198.51.100.16");
    // One address of the list's neighbours, and two of the list itself.
    for (address, comes) in [
        ("32.0.1.7", false),
        ("32.78.31.7", false),
        ("32.0.2.7", true),
        ("32.78.30.7", true),
    ] {
        second_client(&lab, address);
        let said = ask_from(&lab, address, 8080);
        assert_eq!(
            said,
            if comes { "pod 10.3.0.4" } else { "none" },
            "{address}"
        );
    }
    assert_eq!(ask_from(&lab, CLIENT, 8080), "pod 10.3.0.4");
    assert_eq!(ask_from(&lab, "198.51.100.16", 8080), "none");
    // One network more rewrites the chains on its way, and says which forward it is for.
    let more = spec.replace("198.51.100.0/28", "198.51.100.0/27");
    let said = lab.nvactl_with(&["apply", "--dry-run", "-"], &more);
    assert_eq!(said.code, 1);
    let lines = said
        .stdout
        .lines()
        .filter(|line| line.starts_with(['+', '-']))
        .count();
    assert!(lines < 300, "{lines} lines change");
    let said = lab.nvactl_with(&["diff", "-"], &more);
    assert!(
        said.stdout.contains("web") && said.stdout.contains("allow_from"),
        "{said:?}"
    );
}

/// Counts the datagrams that arrive, until the test process ends.
fn count_udp(host: &Host, port: u16) -> Arc<AtomicU32> {
    let count = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&count);
    host.enter(move || {
        let socket = UdpSocket::bind(("0.0.0.0", port)).expect("the port is free");
        thread::spawn(move || {
            let mut buffer = [0; 16];
            while socket.recv_from(&mut buffer).is_ok() {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
    });
    count
}

/// Sends datagrams, each of a connection of its own, as fast as it goes.
fn burst(host: &Host, from: &'static str, port: u16, datagrams: u32) {
    host.enter(move || {
        // All stay open: a port that is used again would be the connection of before.
        let mut sockets = Vec::new();
        for _ in 0..datagrams {
            let socket = UdpSocket::bind((from, 0)).expect("a port is free");
            let sent = socket.send_to(b"?", (FIREWALL, port));
            assert!(sent.is_ok(), "{sent:?}");
            sockets.push(socket);
        }
    });
}

/// More than this cannot pass of a burst.
fn most(burst: f64, rate: f64, time: Duration) -> f64 {
    // One more for the packet whose share of a credit was there already.
    burst + rate * time.as_secs_f64() + 1.0
}

lab_test!(a_burst_passes_up_to_the_limit);
fn a_burst_passes_up_to_the_limit(backend: Backend) {
    const SENT: u32 = 400;
    let lab = Lab::one_nic(backend);
    let seen = count_udp(&lab.pod, 53);
    let spec = spec(
        "{name: dns, listen: 53, protocol: udp, target: {pod: 10.224.0.118:53},
          limits: {new_per_second: 10, burst: 50}}",
    );
    lab.apply(&spec);
    let begin = Instant::now();
    burst(&lab.client, CLIENT, 53, SENT);
    let counted = || {
        let status = status(&lab, &spec);
        let forward = &status["forwards"][0];
        let number = |name: &str| packets(&forward[name]).expect("it is counted");
        (number("new"), number("refused"))
    };
    wait_for("each datagram has been seen", || {
        let (new, refused) = counted();
        new == SENT && seen.load(Ordering::SeqCst) == SENT - refused
    });
    let passed = f64::from(seen.load(Ordering::SeqCst));
    assert!(passed >= 50.0, "{passed} passed");
    assert!(
        passed <= most(50.0, 10.0, begin.elapsed()),
        "{passed} passed"
    );
}

lab_test!(each_client_has_a_limit_of_its_own);
fn each_client_has_a_limit_of_its_own(backend: Backend) {
    const SENT: u32 = 100;
    let lab = Lab::one_nic(backend);
    second_client(&lab, "198.51.100.20");
    let seen = count_udp(&lab.pod, 53);
    let spec = spec(
        "{name: dns, listen: 53, protocol: udp, target: {pod: 10.224.0.118:53},
          limits: {new_per_second: 1, burst: 20, per: client}}",
    );
    lab.apply(&spec);
    let begin = Instant::now();
    for from in [CLIENT, "198.51.100.20"] {
        burst(&lab.client, from, 53, SENT);
    }
    let refused = || packets(&status(&lab, &spec)["forwards"][0]["refused"]);
    wait_for("each datagram has been seen", || {
        refused() == Some(2 * SENT - seen.load(Ordering::SeqCst))
    });
    let passed = f64::from(seen.load(Ordering::SeqCst));
    assert!(passed >= 40.0, "{passed} passed");
    assert!(
        passed <= 2.0 * most(20.0, 1.0, begin.elapsed()),
        "{passed} passed"
    );
}

/// Takes connections and keeps them until the other side ends them.
fn keep_tcp(host: &Host, port: u16) {
    host.enter(move || {
        let listener = TcpListener::bind(("0.0.0.0", port)).expect("the port is free");
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut rest = Vec::new();
                    let _ = stream.read_to_end(&mut rest);
                });
            }
        });
    });
}

fn connect(host: &Host, port: u16) -> std::io::Result<TcpStream> {
    host.enter(move || {
        let to = format!("{FIREWALL}:{port}")
            .parse()
            .expect("an address and a port");
        TcpStream::connect_timeout(&to, Duration::from_millis(1500))
    })
}

lab_test!(no_more_connections_are_kept_than_allowed);
fn no_more_connections_are_kept_than_allowed(backend: Backend) {
    let lab = Lab::one_nic(backend);
    keep_tcp(&lab.pod, 80);
    keep_tcp(&lab.ilb, 80);
    let spec = spec(
        "{name: web, listen: 8080, target: {pod: 10.224.0.118:80}, limits: {max_connections: 5, reject: true}},
         {name: silent, listen: 8081, target: {ilb: 10.224.0.222:80}, limits: {max_connections: 2, per: client}}",
    );
    assert!(spec.contains(POD) && spec.contains(ILB));
    lab.apply(&spec);
    let mut held: Vec<TcpStream> = Vec::new();
    for _ in 0..5 {
        held.push(connect(&lab.client, 8080).expect("there is room"));
    }
    let refused = connect(&lab.client, 8080).expect_err("there is no more room");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    // One that ends makes room for another.
    drop(held.pop());
    wait_for("there is room again", || match connect(&lab.client, 8080) {
        Ok(stream) => {
            // Kept as long as the test: it is one of the five.
            std::mem::forget(stream);
            true
        }
        Err(_) => false,
    });
    assert!(connect(&lab.client, 8080).is_err());

    let _two = [connect(&lab.client, 8081), connect(&lab.client, 8081)]
        .map(|stream| stream.expect("there is room"));
    let dropped = connect(&lab.client, 8081).expect_err("there is no more room");
    assert_eq!(dropped.kind(), std::io::ErrorKind::TimedOut);
}

/// How often the LOG rules whose lines begin with `prefix` have matched: each time is a line.
fn logged(lab: &Lab, prefix: &str) -> u32 {
    let saved = lab.firewall.run("iptables-save -c");
    let lines = saved
        .lines()
        .filter(|line| line.contains(&format!("--log-prefix \"{prefix} \"")));
    let counts = lines.map(|line| {
        let (packets, _) = line[1..].split_once(':').expect("it is counted");
        packets.parse::<u32>().expect("it is a number")
    });
    counts.sum()
}

lab_test!(a_flood_writes_no_more_lines_than_the_log_allows);
fn a_flood_writes_no_more_lines_than_the_log_allows(backend: Backend) {
    // Fewer than fill a socket's buffer while its reader has no turn.
    const SENT: u32 = 120;
    let lab = Lab::one_nic(backend);
    let seen = count_udp(&lab.pod, 53);
    let spec = spec(
        "{name: taken, listen: 53, protocol: udp, target: {pod: 10.224.0.118:53}, log: {per_minute: 6}},
         {name: denied, listen: 54, protocol: udp, target: {pod: 10.224.0.118:53},
          deny_from: [198.51.100.0/24], log: {prefix: out, per_minute: 3}}",
    );
    lab.apply(&spec);
    let begin = Instant::now();
    burst(&lab.client, CLIENT, 53, SENT);
    burst(&lab.client, CLIENT, 54, SENT);
    wait_for("each datagram has been seen", || {
        let status = status(&lab, &spec);
        let refused = packets(&status["forwards"][1]["refused"]);
        seen.load(Ordering::SeqCst) == SENT && refused == Some(SENT)
    });
    let (accepted, refused) = (logged(&lab, "taken accepted"), logged(&lab, "out refused"));
    let minutes = begin.elapsed().as_secs_f64() / 60.0;
    // A limit's burst is five, or what a minute allows.
    for (lines, burst, per_minute) in [(accepted, 5.0, 6.0), (refused, 3.0, 3.0)] {
        let lines = f64::from(lines);
        assert!(lines >= 1.0, "nothing was logged");
        assert!(lines <= burst + per_minute * minutes + 1.0, "{lines} lines");
    }
    assert_eq!(logged(&lab, "out accepted"), 0);
}
