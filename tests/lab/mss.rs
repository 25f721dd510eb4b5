//! The size of the TCP segments that both ends of a connection announce, as the other end sees it, and the table of
//! nvactl's rules for it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use socket2::SockRef;

use crate::firewall::{SPEC, apply, firewall, load};
use crate::lab::{
    Backend, CLIENT, CLIENT_V6, FIREWALL, FIREWALL_V6, ILB, Lab, OTHER, OTHER_V6, POD, POD_V6, save,
};
use crate::namespace::{self, Host};
use crate::nvactl;
use crate::outbound::outside;
use crate::traffic::socket;
use crate::unread::native;

const PATIENCE: Duration = Duration::from_secs(2);

/// Serves the largest segment that the client takes, until the test process ends.
fn serve(host: &Host, port: u16) {
    host.enter(move || {
        let listener = TcpListener::bind(("::", port)).expect("the port is free");
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mss = SockRef::from(&stream).tcp_mss().expect("it is connected");
                let _ = stream.write_all(mss.to_string().as_bytes());
            }
        });
    });
}

/// Opens a connection. Returns the largest segment that the server announced and the one that the client announced,
/// as they arrived.
fn announced(host: &Host, address: &str, port: u16) -> (u32, u32) {
    let to = socket(address, port);
    host.enter(move || {
        let to = to.parse().expect("an address and a port");
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).expect("it is open");
        stream.set_read_timeout(Some(PATIENCE)).expect("it can");
        let by_server = SockRef::from(&stream).tcp_mss().expect("it is connected");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        (by_server, text.parse().expect("a number"))
    })
}

/// Leaves out the timestamps, which take twelve bytes of each segment.
fn without_timestamps(lab: &Lab) {
    for host in [&lab.client, &lab.pod, &lab.other, &lab.ilb] {
        host.shell("echo 0 > /proc/sys/net/ipv4/tcp_timestamps");
    }
}

/// The segment sizes that hosts announce on a line of 1500 bytes.
const OWN: (u32, u32) = (1460, 1460);
const OWN_V6: (u32, u32) = (1440, 1440);

lab_test!(both_ends_of_a_forward_announce_no_more_than_the_spec_says);
fn both_ends_of_a_forward_announce_no_more_than_the_spec_says(backend: Backend) {
    let lab = Lab::dual_stack_two_nics(backend);
    without_timestamps(&lab);
    for host in [&lab.pod, &lab.ilb] {
        serve(host, 80);
        serve(host, 7003);
    }
    // The way to the pods is narrower than their own line.
    lab.firewall.run("ip link set eth1 mtu 1400");
    for layout in ["flat", "tree"] {
        let sizes = |mss: &str| {
            lab.apply(&format!(
                "firewall:
  interface: {{ingress: eth0, egress: eth1}}
  snat: {{v4: 10.4.0.4, v6: 'fd00:4::4'}}
  layout: {layout}{mss}
forwards:
  - {{name: web, listen: [80, 443], target: {{pod: ['{POD}:80', '{ILB}:80']}}}}
  - {{name: range, listen: 6000-6010, target: {{pod: '{POD}:7000-7010'}}, allow_from: [{CLIENT}]}}
  - {{name: web6, listen: '[{FIREWALL_V6}]:80', target: {{pod: '[{POD_V6}]:80'}}}}
silence: [keeps-probes-out]"
            ));
            [
                announced(&lab.client, FIREWALL, 80),
                announced(&lab.client, FIREWALL, 443),
                announced(&lab.client, FIREWALL, 6003),
                announced(&lab.client, FIREWALL_V6, 80),
            ]
        };
        assert_eq!(sizes(""), [OWN, OWN, OWN, OWN_V6], "{layout}");
        let number = "\n  mss: 1300";
        assert_eq!(sizes(number), [(1300, 1300); 4], "{layout}");
        // No limit makes a segment larger.
        let large = "\n  mss: 9000";
        assert_eq!(sizes(large), [OWN, OWN, OWN, OWN_V6], "{layout}");
        let (v4, v6) = ((1360, 1360), (1340, 1340));
        let clamp = "\n  mss: clamp";
        assert_eq!(sizes(clamp), [v4, v4, v4, v6], "{layout}");
    }
}

lab_test!(both_ends_of_an_outbound_connection_announce_no_more_than_the_spec_says);
fn both_ends_of_an_outbound_connection_announce_no_more_than_the_spec_says(backend: Backend) {
    let lab = Lab::dual_stack_two_nics(backend);
    outside(&lab, "10.4.0.4", "fd00:4::4");
    without_timestamps(&lab);
    serve(&lab.client, 443);
    serve(&lab.client, 8005);
    // Another program lets a host out.
    for (program, source) in [("iptables", OTHER), ("ip6tables", OTHER_V6)] {
        lab.firewall.shell(&format!(
            "{program} -A FORWARD -s {source} -j ACCEPT
             {program} -t nat -A POSTROUTING -s {source} -j MASQUERADE"
        ));
    }
    for from in [
        format!("{POD}, '{POD_V6}'"),
        format!("{POD}, 10.9.0.0/16, '{POD_V6}', 'fd00:9::/64'"),
    ] {
        for (snat, ports) in [("masquerade", "443, 8000-8010"), ("none", "443")] {
            lab.apply(&format!(
                "firewall: {{interface: {{ingress: eth0, egress: eth1}}, mss: 1300}}
outbound:
  - {{name: out, allow_from: [{from}], protocol: tcp, ports: [{ports}], snat: {snat}}}
  - {{name: rest, allow_from: [{POD}, 10.8.0.0/16], allow_to: [{CLIENT}, 10.7.0.0/16], protocol: tcp}}
silence: [outbound-overlap]"
            ));
            let case = format!("{from} {snat}");
            for (to, other) in [(CLIENT, OWN), (CLIENT_V6, OWN_V6)] {
                assert_eq!(announced(&lab.pod, to, 443), (1300, 1300), "{case} {to}");
                assert_eq!(announced(&lab.other, to, 443), other, "{case} {to}");
            }
            assert_eq!(announced(&lab.pod, CLIENT, 8005), (1300, 1300), "{case}");
        }
    }
}

lab_test!(connections_of_others_are_untouched);
/// They keep what their ends announce, also with the target or the port of a forward.
fn connections_of_others_are_untouched(backend: Backend) {
    let lab = Lab::one_nic(backend);
    without_timestamps(&lab);
    for host in [&lab.pod, &lab.other] {
        serve(host, 80);
    }
    lab.route_through_firewall(POD);
    lab.route_through_firewall("203.0.113.9");
    lab.firewall.shell(&format!(
        "iptables -A FORWARD -s {CLIENT} -j ACCEPT
         iptables -t nat -A PREROUTING -p tcp --dport 8443 -j DNAT --to-destination {POD}:80
         iptables -t nat -A PREROUTING -d 203.0.113.9 -p tcp --dport 443 -j DNAT --to-destination {OTHER}:80
         iptables -t nat -A POSTROUTING -s {CLIENT} -j MASQUERADE"
    ));
    for layout in ["flat", "tree"] {
        lab.apply(&format!(
            "firewall: {{interface: eth0, snat: 10.3.0.4, mss: 1300, layout: {layout}}}
forwards:
  - {{name: web, listen: 443, target: {{pod: '{POD}:80'}}}}
  - {{name: same, listen: 80, target: {{pod: '{POD}:80'}}}}"
        ));
        for (address, port, expected) in [
            (FIREWALL, 443, (1300, 1300)),
            (FIREWALL, 80, (1300, 1300)),
            // Routed straight to the target and its port, which is also a listen port.
            (POD, 80, OWN),
            // Redirected to the target by another rule, and to another target from the same port.
            (FIREWALL, 8443, OWN),
            ("203.0.113.9", 443, OWN),
        ] {
            let found = announced(&lab.client, address, port);
            assert_eq!(found, expected, "{layout} {address}:{port}");
        }
    }
}

/// Returns the lines of mangle, without its policies.
fn mangle(host: &Host) -> Vec<String> {
    let saved = save(host);
    let table = saved
        .split("COMMIT\n")
        .find(|table| table.starts_with("*mangle"));
    let lines = table.unwrap_or_default().lines().skip(1);
    let lines = lines.filter(|line| !line.starts_with(':') || line.starts_with(":NVACTL"));
    lines.map(str::to_owned).collect()
}

fn ok(host: &Host, args: &[&str], spec: &str) -> String {
    let said = nvactl(host, args, spec);
    assert_eq!(said.code, 0, "{args:?}: {said:?}");
    said.stdout
}

fn with(mss: &str) -> String {
    SPEC.replace("snat:", &format!("mss: {mss}, snat:"))
}

lab_test!(either mangle_is_used_only_while_the_spec_limits_segments);
fn mangle_is_used_only_while_the_spec_limits_segments(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    ok(&host, &["status", "-", "--check"], SPEC);
    nvactl(&host, &["doctor", "-"], SPEC);
    ok(&host, &["remove"], "");
    assert!(!save(&host).contains("*mangle"));
    if backend == Backend::Legacy {
        let names = host.run("cat /proc/net/ip_tables_names");
        assert!(!names.contains("mangle"), "{names}");
    }

    let foreign =
        "-A FORWARD -o wg0 -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu";
    host.run(&format!("iptables -t mangle {foreign}"));
    apply(&host, &with("1360"));
    let loaded = mangle(&host);
    assert_eq!(
        loaded,
        [
            ":NVACTL-MSS - [0:0]",
            "-A FORWARD -j NVACTL-MSS",
            foreign,
            "-A NVACTL-MSS -p tcp -m tcp ! --tcp-flags SYN,RST SYN -j RETURN",
            "-A NVACTL-MSS ! -p tcp -j RETURN",
            "-A NVACTL-MSS -d 10.224.0.118/32 -i eth0 -o eth0 -p tcp -m tcp --dport 80 --tcp-flags SYN,RST SYN \
             -m conntrack --ctstate DNAT --ctorigdstport 49182 --ctdir ORIGINAL -m comment --comment web \
             -j TCPMSS --set-mss 1360",
            "-A NVACTL-MSS -s 10.224.0.118/32 -o eth0 -p tcp -m tcp --sport 80 --tcp-flags SYN,RST SYN \
             -m conntrack --ctstate DNAT --ctorigdstport 49182 --ctdir REPLY -m comment --comment web \
             -j TCPMSS --set-mss 1360",
            "-A NVACTL-MSS -d 10.224.0.118/32 -i eth0 -o eth0 -p tcp -m tcp --dport 7000:7010 --tcp-flags SYN,RST SYN \
             -m conntrack --ctstate DNAT --ctorigdstport 6000:6010 --ctdir ORIGINAL -m comment --comment games \
             -j TCPMSS --set-mss 1360",
            "-A NVACTL-MSS -s 10.224.0.118/32 -o eth0 -p tcp -m tcp --sport 7000:7010 --tcp-flags SYN,RST SYN \
             -m conntrack --ctstate DNAT --ctorigdstport 6000:6010 --ctdir REPLY -m comment --comment games \
             -j TCPMSS --set-mss 1360",
        ]
    );
    let again = ok(&host, &["apply", "-", "--no-trial"], &with("1360"));
    assert_eq!(again, "<stdin>: no changes\n");

    // A change of the field, and both ways back.
    let changed = nvactl(&host, &["diff", "-"], &with("clamp"));
    assert_eq!(changed.stdout, "~ (firewall)       mss 1360 → clamp\n");
    let clamped = with("clamp");
    let args = ["apply", "-", "--no-trial", "--confirm", "600"];
    ok(&host, &args, &clamped);
    assert_ne!(mangle(&host), loaded);
    ok(&host, &["confirm", "--cancel"], "");
    assert_eq!(mangle(&host), loaded);
    ok(&host, &args, SPEC);
    assert_eq!(mangle(&host), [foreign]);
    ok(&host, &["confirm", "--cancel"], "");
    assert_eq!(mangle(&host), loaded);
    apply(&host, &clamped);
    ok(&host, &["rollback"], "");
    assert_eq!(mangle(&host), loaded);
    let gone = nvactl(&host, &["diff", "-"], SPEC);
    assert_eq!(gone.stdout, "~ (firewall)       mss 1360 → none\n");

    // Others' changes in the chain are drift, and `apply` repairs them.
    for (change, sign) in [
        ("-D NVACTL-MSS 3", "missing"),
        ("-I NVACTL-MSS -j LOG", "added by others"),
        ("-F NVACTL-MSS", "missing"),
        ("-D FORWARD -j NVACTL-MSS", "missing"),
    ] {
        host.run(&format!("iptables -t mangle {change}"));
        let drift = nvactl(&host, &["diff", "-"], &with("1360"));
        assert!(drift.stdout.contains(sign), "{change}: {drift:?}");
        assert!(!drift.stdout.contains("(firewall)"), "{change}: {drift:?}");
        let status = nvactl(&host, &["status", "-", "--check"], &with("1360"));
        assert_eq!(status.code, 1, "{change}: {status:?}");
        apply(&host, &with("1360"));
        assert_eq!(mangle(&host), loaded, "{change}");
    }

    // The file for the next boot has the table.
    ok(&host, &["persist", "--output", "/run/rules"], "");
    let kept = host.run("cat /run/rules");
    for line in &loaded {
        assert!(
            line.starts_with(':') || kept.contains(line),
            "{line}: {kept}"
        );
    }
    let before = save(&host);
    load(&host, &kept);
    assert_eq!(save(&host), before);

    ok(&host, &["remove"], "");
    assert_eq!(mangle(&host), [foreign]);
}

/// nvactl cannot know which of its rules such a table holds.
#[test]
fn native_rules_in_mangle_refuse_a_limit() {
    if !namespace::possible() {
        return;
    }
    let refused = "error: the table mangle holds rules that were made with `nft` and that iptables cannot show";
    let host = firewall(Backend::Nft);
    let args = ["apply", "-", "--no-trial"];
    apply(&host, &with("1360"));
    // A chain that holds something iptables does not know.
    host.run("nft add chain ip mangle other");
    host.run("nft add rule ip mangle other ct state vmap { new : accept }");
    for (args, spec) in [
        (&args[..], SPEC),
        (&["remove"], ""),
        (&["status", "-"], SPEC),
    ] {
        let said = nvactl(&host, args, spec);
        assert_eq!(said.code, 2, "{args:?}: {said:?}");
        assert!(said.stderr.contains(refused), "{args:?}: {said:?}");
    }
    host.shell("nft flush chain ip mangle other; nft delete chain ip mangle other");
    ok(&host, &["remove"], "");

    let host = firewall(Backend::Nft);
    native(&host, "mangle", "FORWARD", "forward");
    ok(&host, &args, SPEC);
    let said = nvactl(&host, &args, &with("1360"));
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains(refused), "{said:?}");
}

/// Returns the doctor's first check with a code.
fn check_of(lab: &Lab, spec: &str, code: &str) -> Option<Value> {
    let said = lab.nvactl_with(&["doctor", "-", "--format", "json"], spec);
    let report: Value =
        serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("no report: {said:?}"));
    let checks = report["checks"].as_array().expect("a list");
    checks.iter().find(|check| check["code"] == code).cloned()
}

/// Returns the fix for long packets, and whether it was tried.
fn fix_of(lab: &Lab, spec: &str) -> Option<(String, bool)> {
    let check = check_of(lab, spec, "mtu")?;
    let fix = check["fix"].as_str().unwrap_or_default().to_owned();
    Some((fix, check["tried"] == true))
}

lab_test!(the_doctor_names_the_limit_that_comes_through);
fn the_doctor_names_the_limit_that_comes_through(backend: Backend) {
    let lab = Lab::two_nics(backend);
    serve(&lab.pod, 80);
    let spec = |mss: &str| {
        format!(
            "firewall: {{interface: {{ingress: eth0, egress: eth1}}, snat: 10.4.0.4{mss}}}
forwards: [{{name: web, listen: 80, target: {{pod: '{POD}:80'}}}}]"
        )
    };
    let set = |mss: &str| {
        let apply = "then: sudo nvactl apply - < YOUR-SPEC";
        Some((
            format!("set `mss: {mss}` in `firewall` of the spec, {apply}"),
            true,
        ))
    };
    lab.apply(&spec(""));
    // Packets that are too long for the way to the clients are lost without a word.
    lab.firewall.run("iptables -A OUTPUT -p icmp -j DROP");
    lab.firewall.run("ip link set eth0 mtu 1300");
    assert_eq!(fix_of(&lab, &spec("")), set("clamp"));
    lab.apply(&spec(", mss: clamp"));
    assert_eq!(fix_of(&lab, &spec(", mss: clamp")), None);

    // The way back is a narrow one that only packets from the pods take: `clamp` does not know it.
    lab.firewall.shell(
        "ip link set eth0 mtu 1500
         echo 1 > /proc/sys/net/ipv4/ip_forward_use_pmtu
         ip route add default via 10.3.0.1 dev eth0 mtu 1200 table 77
         ip rule add iif eth1 lookup 77",
    );
    assert_eq!(fix_of(&lab, &spec(", mss: clamp")), set("1160"));
    lab.apply(&spec(", mss: 1160"));
    assert_eq!(fix_of(&lab, &spec(", mss: 1160")), None);
}

lab_test!(the_doctor_names_one_limit_for_all_connections);
/// The spec has one `mss`: a limit for one connection must not cut another.
fn the_doctor_names_one_limit_for_all_connections(backend: Backend) {
    let lab = Lab::two_nics(backend);
    for host in [&lab.pod, &lab.ilb] {
        serve(host, 80);
    }
    let spec = |mss: &str| {
        format!(
            "firewall: {{interface: {{ingress: eth0, egress: eth1}}, snat: 10.4.0.4{mss}}}
forwards:
  - {{name: web, listen: 80, target: {{pod: '{POD}:80'}}}}
  - {{name: api, listen: 81, target: {{ilb: '{ILB}:80'}}}}"
        )
    };
    let fixes = |mss: &str| -> Vec<(String, String, bool)> {
        let said = lab.nvactl_with(&["doctor", "-", "--format", "json"], &spec(mss));
        let report: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
        let checks = report["checks"].as_array().expect("a list");
        let of_mtu = checks.iter().filter(|check| check["code"] == "mtu");
        let words = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let fix = |check: &Value| words(&check["fix"]).chars().take(14).collect();
        of_mtu
            .map(|check| (words(&check["forward"]), fix(check), check["tried"] == true))
            .collect()
    };
    let set = |name: &str, mss: &str| (name.to_owned(), format!("set `mss: {mss}"), true);
    lab.apply(&spec(""));
    // Each target's replies take a narrow path of their own, which `clamp` does not know.
    lab.firewall.shell(&format!(
        "iptables -A OUTPUT -p icmp -j DROP
         echo 1 > /proc/sys/net/ipv4/ip_forward_use_pmtu
         ip route add default via 10.3.0.1 dev eth0 mtu 1200 table 77
         ip route add default via 10.3.0.1 dev eth0 mtu 1300 table 78
         ip rule add iif eth1 from {ILB} lookup 77
         ip rule add iif eth1 from {POD} lookup 78"
    ));
    let mut found = fixes("");
    found.sort();
    assert_eq!(found, [set("api", "1160"), set("web", "1160")]);
    lab.apply(&spec(", mss: 1160"));
    assert_eq!(fixes(", mss: 1160"), []);

    // With a number in the spec, `clamp` would help here and cut the others again.
    lab.firewall.shell(
        "ip rule del lookup 77; ip rule del lookup 78
         ip link set eth0 mtu 1150",
    );
    let mut found = fixes(", mss: 1160");
    found.sort();
    assert_eq!(found, [set("api", "1110"), set("web", "1110")]);
}

lab_test!(either the_doctor_names_missing_limits_and_other_ones);
fn the_doctor_names_missing_limits_and_other_ones(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve(&lab.pod, 80);
    let spec = |mss: &str| {
        format!(
            "firewall: {{interface: eth0, snat: 10.3.0.4{mss}}}
forwards: [{{name: web, listen: 80, target: {{pod: '{POD}:80'}}}}]"
        )
    };
    let limited = spec(", mss: 1360");
    let told = |spec: &str, code: &str| {
        let check = check_of(&lab, spec, code).expect("it is checked");
        let words = |key: &str| check[key].as_str().expect("a text").to_owned();
        format!("{}: {}", words("status"), words("reason"))
    };
    lab.apply(&limited);
    assert_eq!(
        told(&limited, "own-chains"),
        "ok: nobody has added a line to nvactl's chains or removed one"
    );
    assert_eq!(
        told(&spec(""), "own-chains"),
        "warn: the limit on TCP segments (`mss`) is 1360, while the spec's is none"
    );
    // Connections pass without them.
    for (change, reason) in [
        (
            "-D FORWARD -j NVACTL-MSS",
            "iptables mangle: `-A FORWARD -j NVACTL-MSS` is missing, so no packet reaches that chain",
        ),
        (
            "-F NVACTL-MSS",
            "iptables mangle: `-A FORWARD -j NVACTL-MSS` is first",
        ),
    ] {
        lab.firewall.run(&format!("iptables -t mangle {change}"));
        let said = told(&limited, "mss-rule");
        assert!(said.ends_with(reason), "{said}");
        let failed = check_of(&lab, &limited, "mss-rule").expect("it is checked");
        assert_ne!(failed["status"], "fail", "{failed:#}");
        let status = lab.nvactl_with(&["status", "-", "--format", "json"], &limited);
        let status: Value = serde_json::from_str(&status.stdout).expect("it is JSON");
        assert_eq!(status["forwards"][0]["state"], "drifted", "{status:#}");
        lab.apply(&limited);
    }
    lab.firewall.run("iptables -t mangle -D NVACTL-MSS 4");
    let said = lab.nvactl_with(&["doctor", "-"], &limited);
    let words = "web: 1 of its 2 MSS rules is not loaded";
    assert!(said.stdout.contains(words), "{said:?}");
}
