//! How IPv6 forwards fare: what `status`, `doctor`, `probe` and `sysctl` make of them.

use std::net::UdpSocket;
use std::time::Duration;

use serde_json::Value;

use crate::firewall::firewall;
use crate::ipv6::{BOTH, pods};
use crate::lab::{Backend, FIREWALL, FIREWALL_V6, ILB_V6, Lab, POD_V6, Said};
use crate::nvactl;
use crate::traffic::{answer, serve_udp, socket};

/// Applied, kept, switched on, and used.
fn sound(backend: Backend) -> Lab {
    let lab = Lab::dual_stack(backend);
    pods(&lab);
    lab.apply(BOTH);
    for args in [&["persist", "-"][..], &["sysctl", "enable", "--persist"]] {
        let said = lab.nvactl_with(args, BOTH);
        assert_eq!(said.code, 0, "{said:?}");
    }
    lab.firewall.shell(
        "mkdir -p /etc/systemd/system/multi-user.target.wants
         ln -s /dev/null /etc/systemd/system/multi-user.target.wants/netfilter-persistent.service
         mkdir -p /run/plugins; touch /run/plugins/15-ip4tables /run/plugins/25-ip6tables
         if [ -d /usr/share ]; then
           mkdir -p /run/share; mount --bind /run/share /usr/share
           mkdir -p /usr/share/netfilter-persistent
           cp -r /run/plugins /usr/share/netfilter-persistent/plugins.d
         fi",
    );
    assert_eq!(lab.tcp(FIREWALL, 49182), answer("pod", FIREWALL));
    assert_eq!(lab.tcp(FIREWALL_V6, 49182), answer("pod", FIREWALL_V6));
    assert_eq!(lab.udp(FIREWALL_V6, 53), answer("ilb", FIREWALL_V6));
    lab
}

fn status(lab: &Lab, spec: &str) -> Value {
    let said = lab.nvactl_with(&["status", "-", "--format", "json"], spec);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:?}");
    serde_json::from_str(&said.stdout).expect("it is JSON")
}

fn states(status: &Value) -> Vec<(&str, &str)> {
    let rows = status["forwards"].as_array().expect("a list").iter();
    rows.map(|row| {
        let word = |key: &str| row[key].as_str().expect("it is a word");
        (word("name"), word("state"))
    })
    .collect()
}

lab_test!(status_judges_forwards_of_both_families);
fn status_judges_forwards_of_both_families(backend: Backend) {
    let lab = sound(backend);
    let told = status(&lab, BOTH);
    assert_eq!(
        states(&told),
        [("web", "in_sync"), ("web6", "in_sync"), ("dns6", "in_sync")]
    );
    // The connection to the one is over, the datagrams to the other may go on.
    let (web6, dns6) = (&told["forwards"][1], &told["forwards"][2]);
    assert_eq!(
        (
            &web6["new"]["packets"],
            &web6["connections"],
            &dns6["connections"]
        ),
        (&1.into(), &0.into(), &1.into()),
        "{told:#}"
    );
    let ipv6 = &told["ipv6"];
    assert_eq!(
        (
            &told["in_sync"],
            &ipv6["ip_forward"],
            &ipv6["forward_policy"]
        ),
        (&true.into(), &true.into(), &"DROP".into())
    );
    assert_eq!(
        (&ipv6["at_boot"]["rules"], &ipv6["at_boot"]["ip_forward"]),
        (&"same".into(), &true.into())
    );
    let metrics = lab.nvactl_with(&["status", "-", "--format", "prometheus"], BOTH);
    for line in ["nvactl_ipv6_forward 1", "nvactl_boot_ipv6_rules_same 1"] {
        assert!(metrics.stdout.lines().any(|one| one == line), "{line}");
    }

    lab.firewall.shell(
        "ip6tables -I FORWARD -p udp -j DROP
         ip6tables -D NVACTL-FORWARD 3",
    );
    let told = status(&lab, BOTH);
    assert_eq!(
        states(&told),
        [("web", "in_sync"), ("web6", "drifted"), ("dns6", "in_sync")]
    );
    let before = &told["before_jumps"][0];
    assert_eq!(
        (&before["family"], &before["count"], &before["rules"][0]),
        (&"v6".into(), &1.into(), &"-A FORWARD -p udp -j DROP".into()),
        "{told:#}"
    );
    let metrics = lab.nvactl_with(&["status", "-", "--format", "prometheus"], BOTH);
    for (family, count) in [("v4", 0), ("v6", 1)] {
        let labels = format!("{{family=\"{family}\",table=\"filter\"}}");
        let line = format!("nvactl_foreign_rules_before_jump{labels} {count}");
        assert!(metrics.stdout.lines().any(|one| one == line), "{line}");
    }
    let text = lab.nvactl_with(&["status", "-", "--check"], BOTH);
    assert_eq!(text.code, 1, "{text:?}");
    let before = "another program's rule is before nvactl's jump in ip6tables filter FORWARD;";
    assert!(text.stdout.contains(before), "{}", text.stdout);
    assert!(
        text.stdout
            .contains("  removed, ip6tables filter: -A NVACTL-FORWARD -d fd00:224::118/128"),
        "{}",
        text.stdout
    );

    // The rules of a spec that had IPv6 are too much for one that has none.
    let only = "firewall: {interface: eth0, snat: 10.3.0.4}
forwards: [{name: web, listen: 49182, target: {pod: 10.224.0.118:80}}]
";
    let told = status(&lab, only);
    assert!(states(&told).contains(&("dns6", "surplus")), "{told:#}");
}

fn findings(said: &Said) -> Vec<(String, String, String)> {
    let report: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    let checks = report["checks"].as_array().expect("a list").iter();
    let bad = checks.filter(|check| check["status"] != "ok");
    let word = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    bad.map(|check| {
        (
            word(check, "code"),
            word(check, "status"),
            word(check, "reason"),
        )
    })
    .collect()
}

lab_test!(either doctor_walks_the_path_of_both_families);
fn doctor_walks_the_path_of_both_families(backend: Backend) {
    let lab = sound(backend);
    let ask = |more: &[&str]| {
        let args = ["doctor", "-", "--timeout", "1", "--format", "json"];
        findings(&lab.nvactl_with(&[&args[..], more].concat(), BOTH))
    };
    assert_eq!(ask(&[]), []);
    for (break_it, mend_it, code, words) in [
        (
            "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding",
            "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
            "ip-forward",
            "net.ipv6.conf.all.forwarding is 0",
        ),
        (
            "ip -6 route add unreachable fd00:224::118",
            "ip -6 route del unreachable fd00:224::118",
            "route",
            "this machine has no route to fd00:224::118",
        ),
        (
            "ip -6 address del fd00:3::4/128 dev eth0; ip -6 address add fd00:3::5/128 dev eth0",
            "ip -6 address del fd00:3::5/128 dev eth0; ip -6 address add fd00:3::4/128 dev eth0",
            "listen-address",
            "fd00:3::4 is not an address of this machine",
        ),
        (
            "ip6tables -I FORWARD -p tcp --dport 80 -j DROP",
            "ip6tables -D FORWARD -p tcp --dport 80 -j DROP",
            "foreign-rule",
            "--dport 80 -j DROP",
        ),
    ] {
        lab.firewall.shell(break_it);
        let found = ask(&[]);
        lab.firewall.shell(mend_it);
        let first = found.first().expect("something is found");
        assert_eq!(first.0, code, "{break_it}: {found:#?}");
        assert!(first.2.contains(words), "{break_it}: {found:#?}");
    }
    lab.pod
        .run("ip6tables -A INPUT -p tcp --dport 80 -j REJECT --reject-with tcp-reset");
    let found = ask(&["--forward", "web6"]);
    let first = found.first().expect("something is found");
    assert_eq!(first.0, "target", "{found:#?}");
    assert!(first.2.contains("[fd00:224::118]:80 refuses"), "{found:#?}");
    // The other's way is its own.
    assert_eq!(ask(&["--forward", "web"]), []);
}

lab_test!(targets_of_both_families_are_probed);
fn targets_of_both_families_are_probed(backend: Backend) {
    let lab = sound(backend);
    // Nearer to the target: the kernel would take it for a source by itself.
    lab.firewall
        .run("ip -6 address add fd00:224::9/128 dev eth0");
    lab.firewall.shell("conntrack -F 2>/dev/null");
    let ask = |args: &[&str]| lab.nvactl_with(&[&["probe", "-"], args].concat(), BOTH);
    let said = ask(&[]);
    assert_eq!(said.code, 0, "{said:?}");
    let note = "note: the targets were asked from this machine, and forwarding was not tested";
    assert!(said.stderr.starts_with(note), "{said:?}");
    let target = format!("[{POD_V6}]:80 ");
    let row = said.stdout.lines().find(|row| row.contains(&target));
    assert!(row.is_some_and(|row| row.contains(" open ")), "{said:?}");
    // The peer that the target saw is the SNAT address.
    let flows = lab.firewall.run("conntrack -L -f ipv6");
    assert!(
        flows.contains(&format!("src={FIREWALL_V6} dst={POD_V6}")),
        "{flows}"
    );
    let said = Said::from(lab.client.feed(
        env!("CARGO_BIN_EXE_nvactl"),
        &["probe", "-", "--via", FIREWALL_V6, "--timeout", "1"],
        BOTH,
    ));
    assert_eq!(said.code, 0, "{said:?}");
}

lab_test!(stale_connections_of_ipv6_are_ended);
fn stale_connections_of_ipv6_are_ended(backend: Backend) {
    let lab = sound(backend);
    serve_udp(&lab.pod, "pod", 5300);
    let to = socket(FIREWALL_V6, 53);
    let steady = lab.client.enter(move || {
        let socket = UdpSocket::bind("[::]:0").expect("a port is free");
        socket.connect(to).expect("there is a way");
        let patience = Some(Duration::from_secs(2));
        socket.set_read_timeout(patience).expect("it is no zero");
        socket
    });
    let ask = || {
        let mut buffer = [0; 64];
        steady.send(b"?").expect("it is sent");
        let length = steady.recv(&mut buffer).expect("it is answered");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert_eq!(ask(), format!("ilb {FIREWALL_V6}"));
    let moved = BOTH.replace(ILB_V6, POD_V6);
    let said = lab.nvactl_with(&["apply", "-"], &moved);
    assert!(
        said.stderr.contains(&format!(
            "udp 2001:db8:51::10 → [{FIREWALL_V6}]:53 → [{ILB_V6}]:5300"
        )),
        "{said:?}"
    );
    assert_eq!(ask(), format!("ilb {FIREWALL_V6}"));
    let said = lab.nvactl_with(&["apply", "-", "--flush-stale"], &moved);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(ask(), format!("pod {FIREWALL_V6}"));
}

lab_test!(the_ipv6_switch_is_set_only_on_request);
fn the_ipv6_switch_is_set_only_on_request(backend: Backend) {
    let host = firewall(backend);
    let running = || host.run("cat /proc/sys/net/ipv6/conf/all/forwarding");
    let sysctl = |args: &[&str]| {
        let said = nvactl(&host, &[&["sysctl"], args].concat(), "");
        assert_eq!(said.code, 0, "{said:?}");
        said
    };
    sysctl(&["enable"]);
    assert_eq!(running(), "0\n");

    // Whoever loses a route is told before.
    host.shell(
        "ip -6 address add fd00:3::4/64 dev eth0
         echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_ra
         ip -6 route add default via fd00:3::1 dev eth0 proto ra",
    );
    let said = sysctl(&["enable", "--ipv6", "--persist"]);
    assert!(
        said.stderr
            .contains("sysctl -w net.ipv6.conf.eth0.accept_ra=2"),
        "{said:?}"
    );
    assert_eq!(running(), "1\n");
    let file = || host.run("cat /etc/sysctl.d/99-nvactl.conf");
    let both = "net.ipv4.ip_forward = 1\nnet.ipv6.conf.all.forwarding = 1\n";
    assert!(file().ends_with(both), "{}", file());
    // Twice, there is nothing to lose any more.
    let said = sysctl(&["enable", "--ipv6", "--persist"]);
    assert!(!said.stderr.contains("accept_ra"), "{said:?}");

    let said = sysctl(&["status", "--ipv6"]);
    assert!(
        said.stdout.contains(
            "net.ipv6.conf.all.forwarding = 1\nat boot:\n  \
             /etc/sysctl.d/99-nvactl.conf:3: net.ipv6.conf.all.forwarding = 1  (read last: wins)\n"
        ),
        "{said:?}"
    );
    // What is said of IPv6 stays where only IPv4 is meant.
    sysctl(&["disable", "--persist"]);
    assert_eq!(running(), "1\n");
    assert_eq!(
        file(),
        "# Written by `nvactl sysctl`.\nnet.ipv6.conf.all.forwarding = 1\n"
    );
    // Where rules of it are loaded, it is meant.
    assert_eq!(nvactl(&host, &["apply", "-"], BOTH).code, 0);
    sysctl(&["disable", "--persist"]);
    assert_eq!(running(), "0\n");
    assert!(!host.exists("/etc/sysctl.d/99-nvactl.conf"));
}
