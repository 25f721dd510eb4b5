//! Broken labs, one fault each: what `nvactl doctor` names first.

use std::net::UdpSocket;
use std::time::Duration;

use serde_json::Value;

use crate::foreign::FOREIGN;
use crate::lab::{Backend, FIREWALL, Lab, Said};
use crate::long;
use crate::traffic::{Outcome, answer, serve_tcp, serve_udp};

const PAGE: &str = include_str!("../../docs/doctor.md");

const SPEC: &str = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
  - {name: dns, listen: 53, protocol: udp, target: {pod: 10.224.0.118:5353}}
";

fn two_nics() -> String {
    SPEC.replace("eth0", "{ingress: eth0, egress: eth1}")
        .replace("10.3.0.4", "10.4.0.4")
}

/// What is broken, how, and what the doctor says of it: the hop, its status, and words of its reason.
struct Case {
    fault: &'static str,
    /// Breaks a sound lab, and gives the spec that the doctor is asked with.
    make: fn(&Lab, Backend) -> String,
    says: (&'static str, &'static str, &'static str),
}

fn on_firewall(lab: &Lab, script: &str) -> String {
    lab.firewall.shell(script);
    SPEC.to_owned()
}

fn applied(lab: &Lab, spec: String) -> String {
    let said = lab.nvactl_with(&["apply", "-", "--no-trial"], &spec);
    assert_eq!(said.code, 0, "{said:?}");
    let said = lab.nvactl(&["persist"]);
    assert_eq!(said.code, 0, "{said:?}");
    spec
}

const CASES: [Case; 38] = [
    Case {
        fault: "ip_forward 0",
        says: ("ip-forward", "fail", "forwards no packet"),
        make: |lab, _| on_firewall(lab, "echo 0 > /proc/sys/net/ipv4/ip_forward"),
    },
    Case {
        fault: "eth0.forwarding 0",
        says: ("interface-forwarding", "fail", "arrive on eth0"),
        make: |lab, _| on_firewall(lab, "echo 0 > /proc/sys/net/ipv4/conf/eth0/forwarding"),
    },
    Case {
        fault: "FORWARD on the pre-DNAT port",
        says: ("forward-rule", "fail", "its accept rule is not loaded"),
        make: |lab, _| {
            on_firewall(
                lab,
                "iptables -D NVACTL-FORWARD 2
                 iptables -A NVACTL-FORWARD -p tcp --dport 49182 -j ACCEPT",
            )
        },
    },
    Case {
        fault: "SNAT rule gone",
        says: ("snat-rule", "fail", "its SNAT rule is not loaded"),
        make: |lab, _| on_firewall(lab, "iptables -t nat -D NVACTL-POSTROUTING 1"),
    },
    Case {
        fault: "SNAT address not on the machine",
        says: ("snat-address", "fail", "10.3.0.9 is not an address"),
        make: |lab, _| applied(lab, SPEC.replace("10.3.0.4", "10.3.0.9")),
    },
    Case {
        fault: "no return route and no SNAT",
        says: (
            "jump",
            "fail",
            "nat: `-A POSTROUTING -j NVACTL-POSTROUTING` is missing",
        ),
        make: |lab, _| {
            lab.pod.run("ip route del default");
            on_firewall(lab, "iptables -t nat -D POSTROUTING -j NVACTL-POSTROUTING")
        },
    },
    Case {
        fault: "target down",
        says: ("target", "fail", "unreachable"),
        make: |lab, _| {
            lab.pod.run("ip address flush dev eth0");
            lab.vnet.run("ip neigh flush all");
            SPEC.to_owned()
        },
    },
    Case {
        fault: "target port closed",
        says: ("target", "fail", "10.224.0.118:81 refuses"),
        make: |lab, _| applied(lab, SPEC.replace(":80", ":81")),
    },
    Case {
        fault: "some of a range's ports closed",
        says: (
            "target",
            "warn",
            "nothing listens on that port; 1 other port answers",
        ),
        make: |lab, _| {
            serve_tcp(&lab.pod, "games", 7000);
            let spec = applied(
                lab,
                format!(
                    "{SPEC}  - {{name: games, listen: 6000-6001, target: {{pod: \
                   10.224.0.118:7000-7001}}}}\n"
                ),
            );
            assert_eq!(lab.tcp(FIREWALL, 6000), answer("games", FIREWALL));
            spec
        },
    },
    Case {
        fault: "some of a udp range's ports closed",
        says: ("target", "warn", "1 other port does not refuse"),
        make: |lab, _| {
            serve_udp(&lab.pod, "games", 7000);
            let spec = applied(
                lab,
                format!(
                    "{SPEC}  - {{name: games, protocol: udp, listen: 6000-6001, target: {{pod: \
                   10.224.0.118:7000-7001}}}}\n"
                ),
            );
            assert_eq!(lab.udp(FIREWALL, 6000), answer("games", FIREWALL));
            spec
        },
    },
    Case {
        fault: "target drops silently",
        says: ("target", "fail", "does not answer"),
        make: |lab, _| {
            lab.pod.run("iptables -A INPUT -p tcp --dport 80 -j DROP");
            SPEC.to_owned()
        },
    },
    Case {
        fault: "wrong interface name",
        says: (
            "interface",
            "fail",
            "no interface eth9, so no packet passes through it; it has lo, eth0",
        ),
        make: |lab, _| applied(lab, SPEC.replace("eth0", "eth9")),
    },
    Case {
        fault: "a foreign DROP before the jump",
        says: (
            "foreign-rule",
            "fail",
            "-A FORWARD -p tcp -m tcp --dport 80 -j DROP",
        ),
        make: |lab, _| on_firewall(lab, "iptables -I FORWARD -p tcp --dport 80 -j DROP"),
    },
    Case {
        fault: "a native nft forward drop",
        says: ("native-nft", "fail", "inet mine blocks"),
        make: |lab, _| {
            on_firewall(
                lab,
                "nft add table inet mine
                 nft 'add chain inet mine blocks { type filter hook forward priority 0; \
                   policy accept; }'
                 nft add rule inet mine blocks tcp dport 80 drop",
            )
        },
    },
    Case {
        fault: "a native nft policy",
        says: ("native-nft", "fail", "inet mine blocks"),
        make: |lab, _| {
            on_firewall(
                lab,
                "nft add table inet mine
                 nft 'add chain inet mine blocks { type filter hook forward priority 10; \
                   policy drop; }'
                 nft add rule inet mine blocks ct state established,related accept",
            )
        },
    },
    Case {
        fault: "rules in the other backend",
        says: ("other-backend", "fail", "--dport 80 -j DROP"),
        make: |lab, backend| {
            on_firewall(
                lab,
                &format!(
                    "iptables-{} -A FORWARD -p tcp --dport 80 -j DROP",
                    backend.other().name()
                ),
            )
        },
    },
    Case {
        fault: "nvactl's rules in the other backend",
        says: ("backend", "fail", "nvactl's rules are loaded by iptables-"),
        make: |lab, backend| {
            lab.nvactl(&["remove"]);
            let said = lab.nvactl_with(&["--backend", backend.other().name(), "apply", "-"], SPEC);
            assert_eq!(said.code, 0, "{said:?}");
            SPEC.to_owned()
        },
    },
    Case {
        fault: "Docker's policy, in the other backend",
        says: (
            "other-backend",
            "fail",
            "policy of FORWARD in filter drops the packets",
        ),
        make: |lab, backend| {
            let text = FOREIGN[0].1;
            let loaded = lab.firewall.feed(
                &format!("iptables-{}-restore", backend.other().name()),
                &[],
                text,
            );
            assert!(loaded.status.success(), "{loaded:?}");
            SPEC.to_owned()
        },
    },
    Case {
        fault: "Docker's chains, made anew before the jump",
        says: (
            "foreign-rule",
            "fail",
            "rule `-A DOCKER-USER -i eth0 -j DROP` in filter",
        ),
        make: |lab, _| {
            let loaded = lab
                .firewall
                .feed("iptables-restore", &["--noflush"], FOREIGN[0].1);
            assert!(loaded.status.success(), "{loaded:?}");
            on_firewall(
                lab,
                "iptables -I DOCKER-USER -i eth0 -j DROP
                 iptables -I FORWARD -j DOCKER-USER",
            )
        },
    },
    Case {
        fault: "strict rp_filter with two NICs",
        says: ("rp-filter", "fail", "fails the reverse path check"),
        make: |lab, _| {
            on_firewall(
                lab,
                "echo 1 > /proc/sys/net/ipv4/conf/eth0/rp_filter
                 ip route replace default via 10.4.0.1",
            );
            two_nics()
        },
    },
    Case {
        fault: "listen port taken by another DNAT",
        says: (
            "foreign-rule",
            "fail",
            "sends the packets to 10.224.0.99:80 instead of the target",
        ),
        make: |lab, _| {
            on_firewall(
                lab,
                "iptables -t nat -I PREROUTING -p tcp --dport 49182 -j DNAT --to-destination \
                   10.224.0.99:80",
            )
        },
    },
    Case {
        fault: "stale udp entry",
        says: (
            "stale-connection",
            "fail",
            "10.3.0.4:53 → 10.224.0.118:5353",
        ),
        make: |lab, _| {
            serve_udp(&lab.other, "other", 5353);
            send_steadily(lab, 53);
            applied(lab, SPEC.replace("118:5353", "99:5353"))
        },
    },
    Case {
        fault: "the article's hand-typed rules",
        says: ("rival-rule", "warn", "also forwards this port"),
        make: |lab, _| {
            on_firewall(
                lab,
                "iptables -A FORWARD -p tcp --syn --dport 80 -m conntrack --ctstate NEW -j \
                   ACCEPT
                 iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
                 iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 49182 -j DNAT \
                   --to-destination 10.224.0.118:80
                 iptables -t nat -A POSTROUTING -o eth0 -p tcp --dport 80 -d 10.224.0.118 -j \
                   SNAT --to-source 10.3.0.4",
            )
        },
    },
    Case {
        fault: "rules.v4 older than what runs",
        says: ("persistence", "warn", "the next boot loads other rules"),
        make: |lab, _| on_firewall(lab, "sed -i 's/49182/49183/' /etc/iptables/rules.v4"),
    },
    Case {
        fault: "sysctl.conf undoing the drop-in",
        says: (
            "sysctl-at-boot",
            "warn",
            "/etc/sysctl.conf:1 turns forwarding off",
        ),
        make: |lab, _| on_firewall(lab, "echo net.ipv4.ip_forward=0 > /etc/sysctl.conf"),
    },
    // Faults that operators met.
    Case {
        fault: "the rule for replies gone",
        says: (
            "own-chains",
            "fail",
            "--ctstate RELATED,ESTABLISHED -j ACCEPT` is not loaded",
        ),
        make: |lab, _| on_firewall(lab, "iptables -D NVACTL-FORWARD 1"),
    },
    Case {
        fault: "a DROP in nvactl's own chain",
        says: (
            "own-chains",
            "fail",
            "rule `-A NVACTL-FORWARD -j DROP` in filter drops the packets",
        ),
        make: |lab, _| on_firewall(lab, "iptables -I NVACTL-FORWARD -j DROP"),
    },
    Case {
        fault: "a RETURN before the jump",
        says: ("foreign-rule", "fail", "makes the packets skip NAT"),
        make: |lab, _| {
            on_firewall(
                lab,
                "iptables -t nat -I PREROUTING -p tcp --dport 49182 -j RETURN",
            )
        },
    },
    Case {
        fault: "replies dropped before the jump",
        says: ("foreign-rule", "fail", "drops the replies"),
        make: |lab, _| {
            on_firewall(
                lab,
                "iptables -I FORWARD -m conntrack --ctstate ESTABLISHED -j DROP",
            )
        },
    },
    Case {
        fault: "replies dropped in mangle",
        says: (
            "foreign-rule",
            "fail",
            "-A FORWARD -s 10.224.0.118/32 -j DROP",
        ),
        make: |lab, _| on_firewall(lab, "iptables -t mangle -A FORWARD -s 10.224.0.118 -j DROP"),
    },
    Case {
        fault: "a native nft drop before translation",
        says: ("native-nft", "fail", "inet mine blocks"),
        make: |lab, _| {
            on_firewall(
                lab,
                "nft add table inet mine
                 nft 'add chain inet mine blocks { type filter hook prerouting priority -300; \
                   }'
                 nft add rule inet mine blocks tcp dport '{ 22, 49182 }' drop",
            )
        },
    },
    Case {
        fault: "an interface without an address",
        says: ("interface", "fail", "eth0 has no IPv4 address"),
        make: |lab, _| on_firewall(lab, "ip address flush dev eth0"),
    },
    Case {
        fault: "a udp sender from before the forward",
        says: ("stale-connection", "fail", "10.3.0.4:514 → 10.3.0.4:514"),
        make: |lab, _| {
            serve_udp(&lab.firewall, "firewall", 514);
            serve_udp(&lab.pod, "log", 514);
            send_steadily(lab, 514);
            let spec = applied(
                lab,
                format!(
                    "{SPEC}  - {{name: log, listen: 514, protocol: udp, target: {{pod: \
                   10.224.0.118:514}}}}\n"
                ),
            );
            assert_eq!(lab.udp(FIREWALL, 514), answer("log", FIREWALL));
            spec
        },
    },
    Case {
        fault: "a policy rule without a way",
        says: ("route", "fail", "no route to 10.224.0.118"),
        make: |lab, _| {
            on_firewall(
                lab,
                "ip rule add iif eth0 to 10.224.0.0/16 table 99
                 ip route add unreachable default table 99",
            )
        },
    },
    Case {
        fault: "a forward that is no more in the spec",
        says: (
            "own-chains",
            "warn",
            "`old` is loaded, but is not in the spec",
        ),
        make: |lab, _| {
            applied(
                lab,
                format!(
                    "{SPEC}  - {{name: old, listen: 8080, target: {{pod: 10.224.0.118:80}}}}\n"
                ),
            );
            SPEC.to_owned()
        },
    },
    Case {
        fault: "the interface's own switch off at boot",
        says: (
            "sysctl-at-boot",
            "warn",
            "/etc/sysctl.d/99-zz.conf:1 turns forwarding off",
        ),
        make: |lab, _| {
            on_firewall(
                lab,
                "echo net.ipv4.conf.eth0.forwarding=0 > /etc/sysctl.d/99-zz.conf",
            )
        },
    },
    // The connection that the doctor makes is kept in; what is forwarded is not.
    Case {
        fault: "the machine's own OUTPUT closed",
        says: (
            "target",
            "unknown",
            "policy of OUTPUT in filter stops this machine's own packets",
        ),
        make: |lab, _| on_firewall(lab, "iptables -P OUTPUT DROP"),
    },
    // The limit is the whole machine's, so only what nvactl reads of it is changed.
    Case {
        fault: "a full conntrack table",
        says: (
            "conntrack-table",
            "fail",
            "the kernel drops new connections",
        ),
        make: |lab, _| {
            on_firewall(
                lab,
                "echo 1 > /run/max
                 mount --bind /run/max /proc/sys/net/netfilter/nf_conntrack_max",
            )
        },
    },
];

/// A client that keeps its port, so that its entry stays alive.
fn send_steadily(lab: &Lab, port: u16) {
    let to = format!("{FIREWALL}:{port}");
    lab.client.enter(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
        let patience = Some(Duration::from_secs(2));
        socket.set_read_timeout(patience).expect("it is no zero");
        socket.send_to(b"?", &to).expect("it is sent");
        socket.recv(&mut [0; 64]).expect("it is answered");
    });
}

/// A lab in which all is well, now and at the next boot, and both forwards have been used.
fn sound(backend: Backend, case: Option<&Case>) -> Lab {
    let two = case.is_some_and(|case| case.says.0 == "rp-filter");
    let (lab, spec) = if two {
        (Lab::two_nics(backend), two_nics())
    } else {
        (Lab::one_nic(backend), SPEC.to_owned())
    };
    serve_tcp(&lab.pod, "pod", 80);
    serve_udp(&lab.pod, "pod", 5353);
    lab.firewall.shell(
        "mount -t tmpfs tmpfs /sys/class; mkdir -p /sys/class/dmi/id
         echo 7783-7084-3265-9085-8269-3286-77 > /sys/class/dmi/id/chassis_asset_tag
         mkdir -p /run/share/netfilter-persistent/plugins.d /etc/systemd/system/multi-user.target.wants
         touch /run/share/netfilter-persistent/plugins.d/15-ip4tables
         mount --bind /run/share /usr/share
         ln -s /lib/none /etc/systemd/system/multi-user.target.wants/netfilter-persistent.service",
    );
    lab.apply(&spec);
    for args in [&["sysctl", "enable", "--persist"][..], &["persist"]] {
        let said = lab.nvactl(args);
        assert_eq!(said.code, 0, "{said:?}");
    }
    let snat = if two { "10.4.0.4" } else { FIREWALL };
    assert_eq!(lab.tcp(FIREWALL, 49182), answer("pod", snat));
    assert_eq!(lab.udp(FIREWALL, 53), answer("pod", snat));
    lab
}

fn ask(lab: &Lab, spec: &str, more: &[&str]) -> Said {
    lab.nvactl_with(&[&["doctor", "-"], more].concat(), spec)
}

/// The checks that did not come out well.
fn findings(said: &Said) -> Vec<Value> {
    let report: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    let checks = report["checks"].as_array().expect("a list").clone();
    let bad = checks.into_iter().filter(|check| check["status"] != "ok");
    bad.collect()
}

lab_test!(sampled each_fault_is_named_first);
fn each_fault_is_named_first(backend: Backend) {
    let cases = long::cases(&CASES, |case| (case.says.0, case.says.1));
    let turns = cases.into_iter().enumerate();
    let turns = turns.filter(|(n, _)| long::is_turn(*n, backend));
    let wrong: Vec<String> = turns
        .filter_map(|(_, case)| misnamed(case, backend))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong with the doctor's answer to a case, if something is.
fn misnamed(case: &Case, backend: Backend) -> Option<String> {
    let lab = sound(backend, Some(case));
    let spec = (case.make)(&lab, backend);
    let before = lab.firewall.run("iptables-save");
    let said = ask(&lab, &spec, &["--format", "json"]);
    let found = findings(&said);
    let (code, status, words) = case.says;
    let wrong = |what: &str| Some(format!("{}: {what}: {found:#?}", case.fault));
    let Some(first) = found.first() else {
        return wrong("nothing is found");
    };
    let reason = first["reason"].as_str().unwrap_or_default();
    if (first["code"].as_str(), first["status"].as_str()) != (Some(code), Some(status)) {
        return wrong("another hop comes first");
    }
    if !reason.contains(words) {
        return wrong("the words differ");
    }
    if !first["fix"].is_string() {
        return wrong("there is no fix");
    }
    if said.code != i32::from(status == "fail") {
        return wrong("another exit code");
    }
    for check in &found {
        let code = check["code"].as_str().expect("it has a code");
        if !PAGE.contains(&format!("`{code}`")) {
            return wrong("docs/doctor.md does not have the code");
        }
    }
    // What is meant for Azure is said only where nothing here explains it.
    let azure = found.iter().any(|check| {
        let code = check["code"].as_str().unwrap_or_default();
        code.starts_with("azure-")
    });
    if azure != matches!(words, "does not answer" | "unreachable") {
        return wrong("Azure");
    }
    // The text names the same.
    if status == "fail" {
        let said = ask(&lab, &spec, &["--timeout", "1"]);
        let last = said.stdout.lines().next_back().unwrap_or_default();
        if !last.starts_with(&format!("the first hop that fails: {code}: ")) {
            return wrong(&said.stdout);
        }
    }
    let rules = |saved: &str| -> Vec<String> {
        let rules = saved.lines().filter(|line| line.starts_with('-'));
        rules.map(str::to_owned).collect()
    };
    if rules(&lab.firewall.run("iptables-save")) != rules(&before) {
        return wrong("something was changed");
    }
    None
}

lab_test!(the_fix_of_a_duplicate_rule_removes_both);
/// Each of the two drops the packets; a fix that takes only one away is none.
fn the_fix_of_a_duplicate_rule_removes_both(backend: Backend) {
    let lab = sound(backend, None);
    let rule = "iptables -t mangle -A FORWARD -d 10.224.0.118 -j DROP";
    lab.firewall.shell(&format!("{rule}; {rule}"));
    let said = ask(&lab, SPEC, &["--format", "json"]);
    let first = &findings(&said)[0];
    assert_eq!(first["tried"], true, "{said:?}");
    let fix = first["fix"].as_str().expect("there is one");
    let (_, command) = fix.split_once(": ").expect("it has a condition");
    lab.firewall.shell(&command.replace("sudo ", ""));
    assert_eq!(lab.tcp(FIREWALL, 49182), answer("pod", FIREWALL));
}

/// The rules that `nvactl apply` is not told about: a guide's, for web.
const TYPED_BY_HAND: &str = "\
    iptables -A FORWARD -p tcp --syn --dport 80 -m conntrack --ctstate NEW -j ACCEPT
    iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
    iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 49182 -j DNAT --to-destination 10.224.0.118:80
    iptables -t nat -A POSTROUTING -o eth0 -p tcp --dport 80 -d 10.224.0.118 -j SNAT --to-source 10.3.0.4";

/// The failing checks: code, forward and reason.
fn failures(lab: &Lab, spec: &str) -> Vec<(String, String, String)> {
    let said = ask(lab, spec, &["--format", "json", "--timeout", "1"]);
    let failed = findings(&said);
    let failed = failed.iter().filter(|check| check["status"] == "fail");
    let word = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    failed
        .map(|check| {
            let [code, forward, reason] = ["code", "forward", "reason"].map(|key| word(check, key));
            (code, forward, reason)
        })
        .collect()
}

lab_test!(either one_cause_of_missing_rules_is_reported_once);
fn one_cause_of_missing_rules_is_reported_once(backend: Backend) {
    let lab = sound(backend, None);
    let other = "the loaded rules are not those of this spec";
    let failed =
        |code: &str, forward: &str, reason: String| (code.to_owned(), forward.to_owned(), reason);
    let edited = SPEC.replace("49182", "49183");
    assert_eq!(
        failures(&lab, &edited),
        [failed("dnat-rule", "web", other.to_owned())]
    );
    // The cause that `apply` would refuse comes first.
    let edited = SPEC.replace("10.3.0.4}", "10.3.0.99}");
    let [first, second] = &failures(&lab, &edited)[..] else {
        panic!("{:?}", failures(&lab, &edited));
    };
    assert_eq!(first.0, "snat-address");
    assert_eq!(
        *second,
        failed(
            "snat-rule",
            "",
            format!("{other}, which differs for dns, web")
        )
    );
    lab.firewall.shell("iptables -F; iptables -t nat -F");
    let none = "nvactl's IPv4 rules are not loaded: no IPv4 forward works";
    assert_eq!(failures(&lab, SPEC), [failed("jump", "", none.to_owned())]);
}

lab_test!(hand_typed_rules_forward_while_nvactl_s_are_not_loaded);
fn hand_typed_rules_forward_while_nvactl_s_are_not_loaded(backend: Backend) {
    let lab = sound(backend, None);
    let said = ask(&lab, SPEC, &[]);
    assert!(
        said.stdout.contains("web: 1 connection has replies"),
        "{said:?}"
    );
    assert_eq!(lab.nvactl(&["remove"]).code, 0);
    // The entries of the connections are still there.
    let said = ask(&lab, SPEC, &[]);
    assert!(!said.stdout.contains("replies"), "{said:?}");
    lab.firewall.shell(TYPED_BY_HAND);
    assert_eq!(lab.tcp(FIREWALL, 49182), answer("pod", FIREWALL));
    let said = ask(&lab, SPEC, &[]);
    for words in [
        "nvactl's rules are not loaded; another program's rules forward web (see `rival-rule`)\n",
        "fix, after `apply`: sudo iptables -t nat -D PREROUTING -i eth0 ",
    ] {
        assert!(said.stdout.contains(words), "{words}: {said:?}");
    }
}

lab_test!(a_dnat_that_takes_a_forward_s_packets_is_named_before_the_policy_behind_it);
/// The policy FORWARD drops the packets at the address to which the DNAT sends them. With several targets as well, the
/// DNAT is the cause.
fn a_dnat_that_takes_a_forward_s_packets_is_named_before_the_policy_behind_it(backend: Backend) {
    let lab = Lab::two_nics(backend);
    let spec = two_nics().replace(
        "pod: 10.224.0.118:80",
        "pod: [10.224.0.118:80, 10.224.0.99:80]",
    );
    serve_tcp(&lab.pod, "pod", 80);
    serve_tcp(&lab.other, "other", 80);
    lab.apply(&spec);
    let dnat = "PREROUTING -p tcp ! --dport 22 -j DNAT --to-destination 10.9.9.9";
    lab.firewall.run(&format!("iptables -t nat -I {dnat}"));
    assert_eq!(lab.tcp(FIREWALL, 49182), Outcome::Silence);
    let said = ask(&lab, &spec, &["--format", "json"]);
    let found = findings(&said);
    let rule = "-A PREROUTING -p tcp -m tcp ! --dport 22 -j DNAT --to-destination 10.9.9.9";
    assert_eq!(found[0]["code"], "foreign-rule", "{found:#?}");
    let reason = found[0]["reason"].as_str().expect("there is one");
    let sends = "sends the packets to 10.9.9.9:49182 instead of the target";
    assert!(reason.contains(rule) && reason.ends_with(sends), "{reason}");
    let rival = found.iter().find(|check| check["code"] == "rival-rule");
    let fix = &rival.expect("it is named")["fix"];
    let removal = rule
        .replace("-A", "sudo iptables -t nat -D")
        .replace(" ! ", " '!' ");
    assert_eq!(*fix, removal, "{found:#?}");
    lab.firewall.shell(&removal.replace("sudo ", ""));
    let answered = lab.tcp(FIREWALL, 49182);
    let answers = ["pod", "other"].map(|name| answer(name, "10.4.0.4"));
    assert!(answers.contains(&answered), "{answered:?}");
}

lab_test!(either a_missing_route_to_the_internet_is_reported);
fn a_missing_route_to_the_internet_is_reported(backend: Backend) {
    let lab = sound(backend, None);
    lab.firewall.run("ip route del default");
    lab.firewall.run("ip route add 10.224.0.0/16 via 10.3.0.1");
    assert_eq!(lab.tcp(FIREWALL, 49182), Outcome::Silence);
    let said = ask(&lab, SPEC, &[]);
    let words = "no route to clients of the Internet";
    assert!(said.stdout.contains(words), "{said:?}");
    let closed = SPEC.replace(
        "forwards:",
        "defaults: {allow_from: [10.3.0.0/24]}\nforwards:",
    );
    lab.apply(&closed);
    let said = ask(&lab, &closed, &[]);
    assert!(!said.stdout.contains(words), "{said:?}");
}

lab_test!(an_ipv6_spec_needs_no_ipv4_address);
fn an_ipv6_spec_needs_no_ipv4_address(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    serve_tcp(&lab.pod, "pod", 80);
    let spec = "firewall: {interface: eth0, snat: \"fd00:3::4\"}
forwards:
  - {name: web, listen: 49182, target: {pod: \"[fd00:224::118]:80\"}}
";
    lab.apply(spec);
    lab.firewall.run("ip -4 address flush dev eth0");
    let said = ask(&lab, spec, &["--format", "json"]);
    let found = findings(&said);
    assert!(
        found.iter().all(|check| check["status"] != "fail"),
        "{found:#?}"
    );
}

lab_test!(either silent_targets_leave_time_for_the_twin);
/// The targets whose turn does not come are unknown, and the copy has its time.
fn silent_targets_leave_time_for_the_twin(backend: Backend) {
    let lab = Lab::one_nic(backend);
    lab.pod
        .run("iptables -A INPUT -p tcp --dport 20000:20999 -j DROP");
    let forwards: String = (0..700)
        .map(|n| {
            let (listen, target) = (5000 + n, 20_000 + n);
            format!(
                "  - {{name: f{n}, listen: {listen}, target: {{pod: 10.224.0.118:{target}}}}}\n"
            )
        })
        .collect();
    let spec = format!("firewall: {{interface: eth0, snat: 10.3.0.4}}\nforwards:\n{forwards}");
    lab.apply(&spec);
    let said = ask(&lab, &spec, &["--format", "json", "--deadline", "10"]);
    let report: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    let checks = report["checks"].as_array().expect("a list");
    let count = |code: &str, status: &str, words: &str| {
        let these = checks.iter().filter(|check| {
            let reason = check["reason"].as_str().unwrap_or_default();
            check["code"] == code && check["status"] == status && reason.contains(words)
        });
        these.count()
    };
    let late = count("target", "unknown", "the time limit was reached first");
    let silent = count("target", "fail", "does not answer");
    assert!(late > 0 && silent > 0, "{late} {silent}: {said:?}");
    assert!(
        count("packets", "ok", "in a copy of this machine") > 0,
        "{said:?}"
    );
}

lab_test!(doctor_names_nothing_in_a_healthy_lab);
fn doctor_names_nothing_in_a_healthy_lab(backend: Backend) {
    let lab = sound(backend, None);
    let said = ask(&lab, SPEC, &["--format", "json"]);
    assert_eq!(findings(&said), Vec::<Value>::new());
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    // The page has a line for each.
    let report: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    let checks = report["checks"].as_array().expect("a list");
    assert!(checks.len() > 20, "{report:#}");
    for check in checks {
        let code = check["code"].as_str().expect("it has a code");
        assert!(PAGE.contains(&format!("`{code}`")), "{code}");
    }
    let said = ask(&lab, SPEC, &[]);
    assert!(
        said.stdout
            .ends_with("\n\nnothing is wrong with 2 forwards\n"),
        "{said:?}"
    );

    // What is no fault: Docker's masquerading made anew in front, a closed connection to an old
    // target, a router for the clients' network alone.
    lab.firewall.shell(
        "iptables -t nat -I POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
         iptables -I FORWARD -p icmp -j DROP
         ip route add 198.51.100.0/24 via 10.3.0.1
         ip route add 10.224.0.0/16 via 10.3.0.1
         ip route del default",
    );
    serve_tcp(&lab.other, "other", 80);
    let moved = applied(&lab, SPEC.replace("118:80", "99:80"));
    assert_eq!(lab.tcp(FIREWALL, 49182), answer("other", FIREWALL));
    let said = ask(&lab, &moved, &["--format", "json"]);
    assert_eq!(findings(&said), Vec::<Value>::new());

    // Two NICs whose ways are not the same: without the strict filter it works here, and may not
    // everywhere.
    let rp_filter = CASES.iter().find(|case| case.says.0 == "rp-filter");
    let lab = sound(backend, rp_filter);
    let said = ask(&lab, &two_nics(), &["--format", "json"]);
    assert_eq!(findings(&said), Vec::<Value>::new());
    lab.firewall.run("ip route replace default via 10.4.0.1");
    let said = ask(&lab, &two_nics(), &["--format", "json"]);
    let mut found = findings(&said);
    assert_eq!((found.len(), said.code), (3, 0), "{found:#?}");
    // This is a virtual machine of Azure.
    let probes = found.pop().expect("there are three");
    assert_eq!(
        (&probes["code"], &probes["status"]),
        (&"route".into(), &"warn".into())
    );
    let reason = probes["reason"].as_str().expect("it is text");
    assert!(
        reason.contains("(168.63.129.16) leave through eth1"),
        "{reason}"
    );
    for found in &found {
        assert_eq!(
            (&found["code"], &found["status"]),
            (&"rp-filter".into(), &"warn".into())
        );
    }
}

lab_test!(an_unreached_forward_is_a_question_for_azure);
/// Nothing has come to it yet: then the fault may lie where this machine cannot see.
fn an_unreached_forward_is_a_question_for_azure(backend: Backend) {
    let lab = sound(backend, None);
    let spec = format!("{SPEC}  - {{name: new, listen: 8080, target: {{pod: 10.224.0.118:80}}}}\n");
    let spec = applied(&lab, spec);
    let said = ask(&lab, &spec, &["--format", "json"]);
    let found = findings(&said);
    assert_eq!(said.code, 0, "{found:#?}");
    assert_eq!(found[0]["code"], "azure-nsg");
    assert!(
        found
            .iter()
            .all(|check| check["status"] == "unknown" && check["forward"] == "new")
    );
    let said = ask(&lab, &spec, &["--format", "json", "--forward", "web"]);
    assert_eq!(findings(&said), Vec::<Value>::new());
    // On another machine there is nobody to ask.
    lab.firewall.run("rm /sys/class/dmi/id/chassis_asset_tag");
    let said = ask(&lab, &spec, &["--format", "json"]);
    assert_eq!(findings(&said), Vec::<Value>::new());
    let said = ask(&lab, &spec, &["--forward", "wbe"]);
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("did you mean `web`?"), "{said:?}");
}

lab_test!(either a_dead_router_of_several_forwards_is_reported_once);
fn a_dead_router_of_several_forwards_is_reported_once(backend: Backend) {
    let lab = Lab::two_nics(backend);
    let spec = applied(&lab, two_nics());
    lab.firewall.shell(
        "echo 1 > /proc/sys/net/ipv4/ip_forward; ip route replace 10.224.0.0/16 via 10.4.0.99",
    );
    let said = lab.nvactl_with(
        &["doctor", "-", "--timeout", "1", "--format", "json"],
        &spec,
    );
    let report: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    let checks = report["checks"].as_array().expect("a list").iter();
    let failed = checks.filter(|check| check["code"] == "neighbour" && check["status"] != "ok");
    let reasons: Vec<&Value> = failed.map(|check| &check["reason"]).collect();
    assert_eq!(
        reasons,
        [
            "10.4.0.99, to which the packets of `web`, `dns` go, does not answer on eth1: no machine there has that address"
        ]
    );
}
