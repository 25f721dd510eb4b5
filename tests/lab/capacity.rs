//! How full the machine is, and what passes through it: counted traffic, SNAT's ports, the connection table.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, TcpStream};

use serde_json::Value;

use crate::firewall::{SPEC, apply, firewall};
use crate::lab::{Backend, CLIENT, CLIENT_V6, FIREWALL, FIREWALL_V6, Lab, POD_V6, Said};
use crate::namespace::Host;
use crate::nvactl;
use crate::outbound::{outside, tcp};
use crate::traffic::{Outcome, answer, serve_tcp};

const ACCOUNTING: &str = "/proc/sys/net/netfilter/nf_conntrack_acct";

/// Opens a connection that lasts as long as the value.
fn held(host: &Host, address: &str, port: u16) -> TcpStream {
    let address: IpAddr = address.parse().expect("it is an address");
    host.enter(move || TcpStream::connect(SocketAddr::new(address, port)).expect("there is a way"))
}

fn json(said: &Said) -> Value {
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

fn status(lab: &Lab, spec: &str, format: &str) -> Said {
    let said = lab.nvactl_with(&["status", "-", "--format", format], spec);
    assert_eq!(said.code, 0, "{said:?}");
    said
}

/// Returns the value of a sample, if it is there.
fn sample(metrics: &str, name: &str) -> Option<u64> {
    let begin = format!("{name} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&begin));
    value.map(|value| value.parse().expect("it is a number"))
}

/// Returns the checks of a code.
fn checks(said: &Said, code: &str) -> Vec<Value> {
    let report = json(said);
    let all = report["checks"].as_array().expect("a list").clone();
    all.into_iter()
        .filter(|check| check["code"] == code)
        .collect()
}

lab_test!(either an_outbound_entry_has_its_connections_and_their_traffic);
fn an_outbound_entry_has_its_connections_and_their_traffic(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    outside(&lab, "10.3.0.4", FIREWALL_V6);
    let spec = format!(
        "firewall: {{interface: eth0}}
outbound:
  - {{name: out, allow_from: [10.224.0.0/16, '{POD_V6}'], deny_to: [203.0.113.0/24]}}
  - {{name: idle, allow_from: [10.225.0.0/16]}}"
    );
    lab.apply(&spec);
    lab.firewall.shell(&format!("echo 1 > {ACCOUNTING}"));
    assert_eq!(tcp(&lab.pod, "203.0.113.9", 80), Outcome::Silence);
    let counted = [
        held(&lab.pod, CLIENT, 80),
        held(&lab.other, CLIENT, 80),
        held(&lab.pod, CLIENT_V6, 80),
    ];
    let told = json(&status(&lab, &spec, "json"));
    let rows = told["outbound"].as_array().expect("a list");
    let shown: Vec<_> = rows
        .iter()
        .map(|row| {
            let number = |value: &Value| value.as_u64().expect("it is a number");
            (
                row["name"].as_str().expect("it is text"),
                row["family"].as_str().expect("it is text"),
                number(&row["new"]["packets"]),
                number(&row["refused"]["packets"]) > 0,
                number(&row["connections"]),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("out", "v4", 2, true, 2),
            ("idle", "v4", 0, false, 0),
            ("out", "v6", 1, false, 1)
        ],
        "{told:#}"
    );
    let snat = told["snat"].as_array().expect("a list");
    assert_eq!(snat.len(), 2, "{told:#}");
    assert_eq!(snat[0]["address"], FIREWALL);
    assert_eq!(snat[0]["connections"], 2);
    assert_eq!(snat[0]["ports_used"], 2);
    assert_eq!(snat[0]["protocol"], "tcp");
    assert_eq!(snat[0]["destination"], format!("{CLIENT}:80"));
    assert_eq!(snat[1]["destination"], format!("[{CLIENT_V6}]:80"));

    let metrics = status(&lab, &spec, "prometheus").stdout;
    let of = |name: &str, family: &str| {
        let labels = format!("{{name=\"out\",family=\"{family}\"}}");
        sample(&metrics, &format!("nvactl_outbound_{name}{labels}"))
    };
    assert_eq!(of("new_connections_total", "v4"), Some(2), "{metrics}");
    // A first packet of TCP has 60 bytes on Linux, and 80 with IPv6.
    assert_eq!(of("new_connections_bytes_total", "v6"), Some(80));
    assert!(of("refused_total", "v4") > Some(0), "{metrics}");
    assert_eq!(of("connections", "v6"), Some(1), "{metrics}");
    let packets = of("live_packets", "v4").expect("both are counted");
    let bytes = of("live_bytes", "v4").expect("both are counted");
    assert!(packets >= 6 && bytes > packets * 40, "{metrics}");
    let ports = format!("nvactl_snat_ports_used{{address=\"{FIREWALL}\"}}");
    assert_eq!(sample(&metrics, &ports), Some(2), "{metrics}");
    let page = include_str!("../../docs/metrics.md");
    let helps = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP "));
    for name in helps.filter_map(|line| line.split(' ').next()) {
        let shown = [format!("`{name}`"), format!("`{name}{{")];
        assert!(shown.iter().any(|words| page.contains(words)), "{name}");
    }

    // One that the kernel does not count leaves the sum unknown, of its family alone.
    lab.firewall.shell(&format!("echo 0 > {ACCOUNTING}"));
    let uncounted = held(&lab.pod, CLIENT, 80);
    let metrics = status(&lab, &spec, "prometheus").stdout;
    let of = |family: &str| {
        let labels = format!("{{name=\"out\",family=\"{family}\"}}");
        sample(&metrics, &format!("nvactl_outbound_live_bytes{labels}"))
    };
    assert_eq!(of("v4"), None, "{metrics}");
    assert!(of("v6").is_some(), "{metrics}");
    let said = lab.nvactl_with(&["doctor", "-", "--no-twin", "--format", "json"], &spec);
    let found = checks(&said, "snat-ports");
    let words = format!("3 of 64512 source ports of {FIREWALL} are in use to tcp {CLIENT}:80");
    assert_eq!(found[0]["status"], "ok", "{found:#?}");
    assert_eq!(found[0]["reason"], words, "{found:#?}");
    drop((counted, uncounted));
}

lab_test!(either traffic_of_a_forward_is_known_if_the_kernel_counts_all_of_it);
fn traffic_of_a_forward_is_known_if_the_kernel_counts_all_of_it(backend: Backend) {
    const SPEC: &str = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards: [{name: web, listen: 8080, target: {pod: 10.224.0.118:80}}]
";
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    lab.apply(SPEC);
    let live = |what: &str| {
        let metrics = status(&lab, SPEC, "prometheus").stdout;
        let labels = r#"forward="web",protocol="tcp",listen="8080",target="10.224.0.118:80""#;
        sample(&metrics, &format!("nvactl_forward_live_{what}{{{labels}}}"))
    };
    lab.firewall.shell(&format!("echo 0 > {ACCOUNTING}"));
    let uncounted = held(&lab.client, FIREWALL, 8080);
    assert_eq!(live("bytes"), None);
    lab.firewall.run("conntrack -F");
    drop(uncounted);
    lab.firewall.run("conntrack -F");
    lab.firewall.shell(&format!("echo 1 > {ACCOUNTING}"));
    let counted = held(&lab.client, FIREWALL, 8080);
    let (packets, bytes) = (live("packets"), live("bytes"));
    assert!(
        packets >= Some(3) && bytes > packets,
        "{packets:?} {bytes:?}"
    );
    drop(counted);
}

/// The lines of `conntrack -R` for connections from the lab's subnet to the server outside, one for each port that
/// SNAT can give.
fn full_table() -> String {
    let mut lines = String::new();
    for port in 1024..=65535 {
        let _ = writeln!(
            lines,
            "-A -t 600 -u SEEN_REPLY,ASSURED -s 10.224.9.9 -d {CLIENT} -r {CLIENT} -q {FIREWALL} -p tcp \
             --sport {port} --dport 80 --reply-port-src 80 --reply-port-dst {port} --state ESTABLISHED"
        );
    }
    lines
}

lab_test!(either a_source_without_free_ports_is_named_and_more_addresses_are_the_cure);
fn a_source_without_free_ports_is_named_and_more_addresses_are_the_cure(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    outside(&lab, "10.3.0.4", FIREWALL_V6);
    serve_tcp(&lab.client, "server", 8080);
    for last in [6, 7] {
        let address = format!("address add 10.3.0.{last}/24 dev eth0");
        lab.firewall.ip("-4", &address);
    }
    let spec = |snat: &str| {
        format!(
            "firewall: {{interface: eth0}}
outbound: [{{name: out, allow_from: [10.224.0.0/16], protocol: tcp, snat: {snat}}}]"
        )
    };
    let one = spec(FIREWALL);
    let doctor = |spec: &str| {
        let args = ["doctor", "-", "--no-twin", "--format", "json"];
        lab.nvactl_with(&args, spec)
    };
    lab.apply(&one);
    assert_eq!(tcp(&lab.pod, CLIENT, 80), answer("server", FIREWALL));
    let lost = checks(&doctor(&one), "conntrack-losses");
    assert_eq!(lost[0]["status"], "ok", "{lost:#?}");
    assert_eq!(
        lost[0]["reason"], "no new connection has been lost since boot",
        "{lost:#?}"
    );

    lab.firewall.run("conntrack -F");
    let loaded = lab.firewall.feed("conntrack", &["-R", "-"], &full_table());
    assert!(loaded.status.success(), "{loaded:?}");
    let reach = || [&lab.pod, &lab.other].map(|host| tcp(host, CLIENT, 80));
    assert_eq!(reach(), [Outcome::Silence, Outcome::Silence]);
    // Each destination has ports of its own.
    assert_eq!(tcp(&lab.pod, CLIENT, 8080), answer("server", FIREWALL));
    let said = doctor(&one);
    assert_eq!(said.code, 1, "{said:?}");
    let found = checks(&said, "snat-ports");
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0]["status"], "fail", "{found:#?}");
    let words = format!("64512 of 64512 source ports of {FIREWALL} are in use to tcp {CLIENT}:80");
    let reason = found[0]["reason"].as_str().expect("it is text");
    assert!(reason.starts_with(&words), "{reason}");
    let text = status(&lab, &one, "text").stdout;
    assert!(text.contains(&format!("\nsnat        {words}\n")), "{text}");
    // The connection that failed has been counted.
    let told = json(&status(&lab, &one, "json"));
    let count = |name: &str| told["conntrack"][name].as_u64();
    assert!(count("insert_failed") > Some(0), "{told:#}");
    assert!(count("drop") > Some(0), "{told:#}");
    assert_eq!(count("early_drop"), Some(0), "{told:#}");
    assert!(
        text.contains("; not added since boot (insert_failed): "),
        "{text}"
    );
    let lost = checks(&said, "conntrack-losses");
    let reason = lost[0]["reason"].as_str().expect("it is text");
    assert!(reason.contains("were not added because"), "{reason}");

    let fix = found[0]["fix"].as_str().expect("it has a fix");
    assert!(
        fix.starts_with("set `snat` in the spec to a range"),
        "{fix}"
    );
    lab.apply(&spec("10.3.0.4-10.3.0.7"));
    // A client has one address of the range, which may be the one without free ports.
    let reach = reach();
    assert!(
        reach.iter().any(|one| *one != Outcome::Silence),
        "{reach:?}"
    );
}

lab_test!(either the_limit_of_azure_is_named_near_it_and_only_there);
fn the_limit_of_azure_is_named_near_it_and_only_there(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    host.shell(
        "mount -t tmpfs tmpfs /sys/class; mkdir -p /sys/class/dmi/id
         echo 7783-7084-3265-9085-8269-3286-77 > /sys/class/dmi/id/chassis_asset_tag
         echo 1000000 > /run/max; echo 199999 > /run/count
         mount --bind /run/max /proc/sys/net/netfilter/nf_conntrack_max
         mount --bind /run/count /proc/sys/net/netfilter/nf_conntrack_count",
    );
    let found = || {
        let args = [
            "doctor",
            "-",
            "--no-twin",
            "--timeout",
            "0.1",
            "--format",
            "json",
        ];
        checks(&nvactl(&host, &args, SPEC), "azure-connections")
    };
    assert!(found().is_empty());
    host.shell("echo 200000 > /run/count");
    let near = found();
    assert_eq!(near.len(), 1, "{near:#?}");
    assert_eq!(near[0]["status"], "warn");
    let fix = near[0]["fix"].as_str().expect("it shows where to look");
    assert!(fix.starts_with("to look: az monitor metrics list"), "{fix}");
    host.shell("echo another > /sys/class/dmi/id/chassis_asset_tag");
    assert!(found().is_empty());
}
