//! IPv6 beside IPv4: one change of both, and nothing of it where nobody asks for it.

use crate::fake::{fake, unfake};
use crate::firewall::{SPEC, apply, firewall};
use crate::lab::{Backend, CLIENT_V6, FIREWALL, FIREWALL_V6, Lab, POD_V6, save, save_v6};
use crate::namespace::{Host, wait_for};
use crate::nvactl;
use crate::persistence::load_at_boot;
use crate::traffic::{Outcome, answer, serve_tcp, serve_udp};

pub const BOTH: &str = r#"
firewall: {interface: eth0, snat: {v4: 10.3.0.4, v6: "fd00:3::4"}}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
  - {name: web6, listen: 49182, target: {pod: "[fd00:224::118]:80"}}
  - {name: dns6, listen: "[fd00:3::4]:53", protocol: udp, target: {ilb: "[fd00:224::222]:5300"}}
"#;

/// A change of both families.
fn changed() -> String {
    BOTH.replace("49182", "49183")
}

/// The same machine without IPv6 in its spec.
pub const ONLY_V4: &str = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards: [{name: web, listen: 49182, target: {pod: 10.224.0.118:80}}]
";

pub fn both(host: &Host) -> (String, String) {
    (save(host), save_v6(host))
}

pub fn pods(lab: &Lab) {
    serve_tcp(&lab.pod, "pod", 80);
    serve_udp(&lab.ilb, "ilb", 5300);
}

lab_test!(both_families_are_forwarded);
fn both_families_are_forwarded(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    pods(&lab);
    let said = lab.nvactl_with(&["apply", "-", "--no-trial"], BOTH);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stderr.contains("net.ipv6.conf.all.forwarding is 0"),
        "{said:?}"
    );
    // The rules are known of, so the switch of both is meant.
    assert_eq!(lab.nvactl(&["sysctl", "enable"]).code, 0);
    let asked = [
        lab.tcp(FIREWALL, 49182),
        lab.tcp(FIREWALL_V6, 49182),
        lab.udp(FIREWALL_V6, 53),
    ];
    assert_eq!(
        asked,
        [
            answer("pod", FIREWALL),
            answer("pod", FIREWALL_V6),
            answer("ilb", FIREWALL_V6),
        ]
    );
    // What no forward leads to is not reached: the policy drops it.
    lab.route_through_firewall_v6(POD_V6);
    assert_eq!(lab.tcp(POD_V6, 80), Outcome::Silence);

    let masquerade = BOTH.replace("\"fd00:3::4\"}", "masquerade}");
    lab.apply(&masquerade);
    assert_eq!(lab.tcp(FIREWALL_V6, 49182), answer("pod", FIREWALL_V6));
    // The client itself, where the targets' own way back leads through the firewall.
    lab.apply(&BOTH.replace("\"fd00:3::4\"}", "none}"));
    lab.pod
        .run("ip -6 route replace 2001:db8:51::10 via fd00:224::2");
    lab.vnet
        .run("ip -6 rule add iif pod to 2001:db8:51::10 lookup 100");
    assert_eq!(lab.tcp(FIREWALL_V6, 49182), answer("pod", CLIENT_V6));
}

lab_test!(the_kernel_returns_the_rules_of_both_families);
fn the_kernel_returns_the_rules_of_both_families(backend: Backend) {
    let host = firewall(backend);
    for family in ["v4", "v6"] {
        let rendered = nvactl(&host, &["render", "-", "--family", family], BOTH).stdout;
        let (restore, saved): (_, fn(&Host) -> String) = match family {
            "v4" => ("iptables-restore", save),
            _ => ("ip6tables-restore", save_v6),
        };
        assert!(host.feed(restore, &[], &rendered).status.success());
        assert_eq!(saved(&host), rendered);
    }
    let said = nvactl(&host, &["apply", "-", "--no-trial"], BOTH);
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (0, "<stdin>: no changes\n")
    );
    // That they are there is known from here on.
    apply(&host, ONLY_V4);
    assert!(!save_v6(&host).contains("NVACTL"));
}

/// Records each call of an IPv6 program, and fails.
fn forbid_v6(host: &Host) {
    for name in [
        "ip6tables",
        "ip6tables-save",
        "ip6tables-restore",
        "ip6tables-nft",
        "ip6tables-nft-save",
        "ip6tables-nft-restore",
        "ip6tables-legacy",
        "ip6tables-legacy-save",
        "ip6tables-legacy-restore",
    ] {
        host.shell(&format!(
            "rm -f /run/bin/{name}
             printf '#!/bin/sh\\necho {name} >> /run/called\\nexit 1\\n' > /run/bin/{name}
             chmod +x /run/bin/{name}"
        ));
    }
}

lab_test!(a_spec_of_ipv4_alone_never_calls_ip6tables);
fn a_spec_of_ipv4_alone_never_calls_ip6tables(backend: Backend) {
    let host = firewall(backend);
    forbid_v6(&host);
    host.feed("sh", &["-c", "cat > /run/spec.yaml"], ONLY_V4);
    for (args, code) in [
        (&["diff", "/run/spec.yaml"][..], 1),
        (&["apply", "/run/spec.yaml", "--dry-run"], 1),
        (&["apply", "/run/spec.yaml", "--flush-stale"], 0),
        (&["sysctl", "enable"], 0),
        (&["status", "/run/spec.yaml", "--check"], 0),
        (&["doctor", "/run/spec.yaml", "--timeout", "0.1"], 1),
        (&["persist", "/run/spec.yaml"], 0),
        (&["rollback"], 0),
        (&["apply", "/run/spec.yaml", "--confirm", "60"], 0),
        (&["confirm", "--cancel"], 0),
        (&["apply", "/run/spec.yaml", "--confirm", "60"], 0),
        (&["confirm"], 0),
        (&["remove"], 0),
    ] {
        let said = nvactl(&host, args, "");
        assert_eq!(said.code, code, "{args:?}: {said:?}");
        assert!(
            !host.exists("/run/called"),
            "{args:?} called {}",
            host.run("cat /run/called")
        );
    }
    assert!(!host.exists("/etc/iptables/rules.v6"));
    // The trap is set.
    let said = nvactl(&host, &["apply", "-", "--no-trial"], BOTH);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("ip6tables-save"), "{said:?}");
    assert!(host.exists("/run/called"));
    assert!(!save(&host).contains("NVACTL"), "nothing has changed");
}

lab_test!(a_change_that_ipv6_refuses_is_undone_in_both_families);
fn a_change_that_ipv6_refuses_is_undone_in_both_families(backend: Backend) {
    let host = firewall(backend);
    for before in [None, Some(BOTH)] {
        if let Some(spec) = before {
            apply(&host, spec);
        }
        let (v4, v6) = both(&host);
        fake(
            &host,
            "ip6tables-restore",
            "sed '/49183 .*comment web6 -j SNAT/s/-j SNAT --to-source/-j DNAT --to-destination/' | real \"$@\"",
        );
        for args in [
            &["apply", "-", "--no-trial"][..],
            &["apply", "-", "--no-trial"],
        ] {
            let said = nvactl(&host, args, &changed());
            assert_eq!(said.code, 2, "{said:?}");
            let tried = args.len() == 2;
            // Without a trial, legacy does not say which rule it was.
            if tried || backend == Backend::Nft {
                assert!(
                    said.stderr
                        .contains("a rule of `web6` (`-A NVACTL-POSTROUTING ")
                        || said
                            .stderr
                            .contains("a rule of `web6` (`-I NVACTL-POSTROUTING "),
                    "{said:?}"
                );
            }
            let words = if tried {
                "; nothing has changed"
            } else {
                "was not loaded, and the rest of the change was undone"
            };
            assert!(said.stderr.contains(words), "{said:?}");
            assert!(
                said.stderr
                    .contains("`ip6tables-restore --noflush -w 30` failed: "),
                "{said:?}"
            );
            assert_eq!(rules(&both(&host)), rules(&(v4.clone(), v6.clone())));
        }
        unfake(&host, "ip6tables-restore");
    }
    // What came to nothing is nothing to go back behind.
    assert_eq!(nvactl(&host, &["history"], "").stdout.lines().count(), 1);
    apply(&host, &changed());
}

/// Without the tables that are listed once somebody has looked into them.
pub fn rules((v4, v6): &(String, String)) -> Vec<&str> {
    let unused = |line: &&str| {
        !(line.starts_with('*') || line.ends_with("ACCEPT [0:0]") || *line == "COMMIT")
    };
    v4.lines().chain(v6.lines()).filter(unused).collect()
}

lab_test!(a_failed_undo_names_the_program_of_each_family);
/// Where even undoing fails, in one family or in both, each is told and can be mended by hand.
fn a_failed_undo_names_the_program_of_each_family(backend: Backend) {
    let host = firewall(backend);
    apply(&host, BOTH);
    let before = both(&host);
    // The first load of each goes through as far as it goes, nothing does after that.
    let once = |name: &str| {
        format!(
            "if mkdir /run/once-{name} 2>/dev/null; then sed '/^COMMIT/q' > /run/script-{name}; real \"$@\" < /run/script-{name}; \
             [ {name} = iptables-restore ] && exit 0; fi; echo refused >&2; exit 1"
        )
    };
    for name in ["iptables-restore", "ip6tables-restore"] {
        fake(&host, name, &once(name));
    }
    let moved = BOTH
        .replace("::118]:80", "::119]:80")
        .replace(".118:80", ".119:80");
    let said = nvactl(&host, &["apply", "-", "--no-trial"], &moved);
    for name in ["iptables-restore", "ip6tables-restore"] {
        unfake(&host, name);
    }
    assert_eq!(said.code, 3, "{said:?}");
    assert_ne!(both(&host).0, before.0);
    assert_ne!(both(&host).1, before.1);
    let hint = |purpose: &str| {
        let mut lines = said.stderr.lines();
        let command = lines.find_map(|line| line.strip_prefix(&format!("hint: {purpose}: ")));
        command.expect("there is a command")
    };
    let command = hint("to restore the old rules");
    let look = hint("to see the loaded rules");
    assert_eq!(look, "sudo iptables-save; sudo ip6tables-save");
    host.shell(&command.replace("sudo ", ""));
    assert_eq!(both(&host), before);
}

lab_test!(every_remove_names_the_policies_of_both_families);
fn every_remove_names_the_policies_of_both_families(backend: Backend) {
    let host = firewall(backend);
    apply(&host, BOTH);
    for _ in 0..2 {
        let said = nvactl(&host, &["remove"], "");
        assert_eq!(said.code, 0, "{said:?}");
        for (program, policy) in [("iptables", ""), ("ip6tables", "IPv6 ")] {
            let stays = format!(
                "the {policy}FORWARD policy stays DROP; to forward everything: sudo {program} -P FORWARD ACCEPT\n"
            );
            assert!(said.stdout.contains(&stays), "{stays}: {said:?}");
        }
    }
    let said = nvactl(&host, &["remove", "--forward-policy", "accept"], "");
    assert_eq!(said.code, 0, "{said:?}");
    // No forward was removed, and nothing is refused from now on.
    assert!(!said.stderr.contains("connections"), "{said:?}");
    for rules in [save(&host), save_v6(&host)] {
        assert!(rules.contains(":FORWARD ACCEPT"), "{rules}");
    }
    // The policy of the family whose forwards go is named.
    apply(&host, BOTH);
    let said = apply(&host, ONLY_V4);
    assert!(
        said.stderr.contains(
            "connections through the removed rules end: the IPv6 FORWARD policy DROP refuses their packets\n"
        ),
        "{said:?}"
    );
}

lab_test!(ipv6_rules_are_removed_if_the_spec_has_none);
fn ipv6_rules_are_removed_if_the_spec_has_none(backend: Backend) {
    let host = firewall(backend);
    apply(&host, BOTH);
    assert!(save_v6(&host).contains("comment web6"));
    host.run("ip6tables -A FORWARD -s fd00:9::/32 -j ACCEPT");
    let diff = nvactl(&host, &["diff", "-"], ONLY_V4);
    assert_eq!(diff.code, 1, "{diff:?}");
    assert!(
        diff.stdout
            .contains("- web6             tcp 49182 → [fd00:224::118]:80"),
        "{diff:?}"
    );

    let said = apply(&host, ONLY_V4);
    assert!(
        said.stderr.contains(
            "note: the IPv6 FORWARD policy stays DROP, as an earlier change by nvactl set it: packets that no \
             ip6tables rule accepts are not forwarded\n"
        ),
        "{said:?}"
    );
    let left = save_v6(&host);
    assert!(
        !left.contains("NVACTL") && left.contains("-s fd00:9::/32"),
        "{left}"
    );
    // From here on there is nothing to look for.
    forbid_v6(&host);
    apply(&host, &ONLY_V4.replace("49182", "49183"));
    assert!(!host.exists("/run/called"));
}

lab_test!(each_change_of_both_families_can_be_rolled_back);
fn each_change_of_both_families_can_be_rolled_back(backend: Backend) {
    let host = firewall(backend);
    apply(&host, ONLY_V4);
    apply(&host, BOTH);
    let first = both(&host);
    apply(&host, &changed());
    let second = both(&host);
    apply(&host, &ONLY_V4.replace("49182", "49184"));
    apply(&host, &ONLY_V4.replace("49182", "49185"));
    let back = |n: &str| {
        let said = nvactl(&host, &["rollback", n], "");
        assert_eq!(said.code, 0, "{said:?}");
        both(&host)
    };
    // The last one touched IPv4 alone; the one before had taken the IPv6 rules out.
    assert_eq!(back("4"), second);
    assert_eq!(back("3"), first);
    // Before the first change of both there was nothing of IPv6, and its FORWARD accepted.
    let (v4, v6) = back("2");
    assert!(
        v4.contains("comment web ") && !v6.contains("NVACTL"),
        "{v6}"
    );
    assert!(v6.contains(":FORWARD ACCEPT"), "{v6}");
}

lab_test!(both_families_return_without_an_answer);
fn both_families_return_without_an_answer(backend: Backend) {
    let host = firewall(backend);
    for before in [ONLY_V4, BOTH] {
        apply(&host, before);
        let was = both(&host);
        let said = nvactl(
            &host,
            &["apply", "-", "--no-trial", "--confirm", "4"],
            &changed(),
        );
        assert_eq!(said.code, 0, "{said:?}");
        assert!(save_v6(&host).contains("49183"));
        wait_for("the old rules are back", || {
            rules(&both(&host)) == rules(&was)
        });
        wait_for("the watchdog is done", || {
            nvactl(&host, &["confirm", "--status"], "")
                .stdout
                .contains("nothing is waiting")
        });
    }
    // One whose record of IPv4 is as it was has been made all the same.
    let v6_only = BOTH.replace("[fd00:224::118]:80", "[fd00:224::119]:80");
    let said = nvactl(
        &host,
        &["apply", "-", "--no-trial", "--confirm", "60"],
        &v6_only,
    );
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(nvactl(&host, &["confirm"], "").code, 0);
    assert!(save_v6(&host).contains("fd00:224::119"));
}

lab_test!(both_files_are_kept_for_the_boot);
fn both_files_are_kept_for_the_boot(backend: Backend) {
    let host = firewall(backend);
    load_at_boot(&host);
    apply(&host, BOTH);
    let said = nvactl(&host, &["persist", "-"], BOTH);
    assert_eq!(said.code, 0, "{said:?}");
    let file = |name: &str| host.run(&format!("cat /etc/iptables/{name}"));
    assert!(file("rules.v4").contains("comment web "));
    assert!(file("rules.v6").contains("comment web6"));
    assert!(!file("rules.v4").contains("web6"));
    assert_eq!(host.run("stat -c %a /etc/iptables/rules.v6"), "640\n");
    let old = file("rules.v6");
    apply(&host, &changed());
    let said = nvactl(&host, &["persist", "-"], BOTH);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("  IPv6\n"), "{said:?}");
    assert_eq!(nvactl(&host, &["persist"], "").code, 0);
    assert!(file("rules.v6").contains("49183"));
    assert_eq!(file("rules.v6.bak"), old);

    let said = nvactl(&host, &["persist", "--output", "/run/rules"], "");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("--family v6"), "{said:?}");
    let args = ["persist", "--output", "/run/rules", "--family", "v6"];
    assert_eq!(nvactl(&host, &args, "").code, 0);
    assert!(host.run("cat /run/rules").contains("comment web6"));

    // Rules that would come back at boot are not forgotten, though they are gone.
    let said = apply(&host, ONLY_V4);
    assert!(
        said.stderr
            .contains("the next boot loads other rules from /etc/iptables/rules.v6"),
        "{said:?}"
    );
    assert_eq!(nvactl(&host, &["persist"], "").code, 0);
    assert!(!file("rules.v6").contains("NVACTL"));
    forbid_v6(&host);
    assert_eq!(nvactl(&host, &["persist"], "").code, 0);
    assert!(!host.exists("/run/called"));
}

lab_test!(persisted_ipv6_rules_are_removed_if_no_table_is_loaded);
/// A boot that has not loaded the file leaves no IPv6 table to write another one from.
fn persisted_ipv6_rules_are_removed_if_no_table_is_loaded(backend: Backend) {
    let host = firewall(backend);
    let theirs = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
                  -A INPUT -s 2001:db8::7/128 -j DROP\nCOMMIT\n";
    let both = theirs.replace(
        "-A INPUT",
        ":NVACTL-FORWARD - [0:0]\n-A FORWARD -j NVACTL-FORWARD\n-A INPUT",
    );
    host.run("mkdir -p /etc/iptables");
    host.feed("tee", &["/etc/iptables/rules.v6"], &both);
    apply(&host, ONLY_V4);
    let said = nvactl(&host, &["persist"], "");
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(host.run("cat /etc/iptables/rules.v6"), theirs);
    assert_eq!(host.run("cat /etc/iptables/rules.v6.bak"), both);
}

lab_test!(remove_removes_both_families);
fn remove_removes_both_families(backend: Backend) {
    let host = firewall(backend);
    apply(&host, BOTH);
    let said = nvactl(&host, &["remove", "--forward-policy", "accept"], "");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stdout.contains("the IPv6 FORWARD policy changed"),
        "{said:?}"
    );
    let (v4, v6) = both(&host);
    assert!(!v4.contains("NVACTL") && !v6.contains("NVACTL"));
    assert!(v6.contains(":FORWARD ACCEPT"), "{v6}");
}

lab_test!(old_states_are_read);
/// A record from before IPv6 was known.
fn old_states_are_read(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    apply(&host, BOTH);
    host.shell(
        "cd /var/lib/nvactl/history/*
         sed -i --null-data 's/,\\n  \"v6\": {[^}]*}//' 00000002.json
         test $(grep -c '\"v6\"' 00000002.json) = 0
         grep -q sets_policy 00000002.json; ! grep -q v6 00000001.json",
    );
    let said = nvactl(&host, &["rollback"], "");
    assert_eq!(said.code, 0, "{said:?}");
    // It says nothing of IPv6, so that stays.
    assert!(save(&host).contains("dns.v2") && save_v6(&host).contains("web6"));
}

lab_test!(a_machine_without_ip6tables_forwards_ipv4);
fn a_machine_without_ip6tables_forwards_ipv4(backend: Backend) {
    let host = firewall(backend);
    host.shell(
        "multi=$(readlink /run/bin/iptables)
         cp $multi /run/multi
         rm /run/bin/ip6tables*
         for name in iptables iptables-save iptables-restore; do ln -sf /run/multi /run/bin/$name; done
         mkdir /run/empty; mount --bind /run/empty /usr/sbin",
    );
    apply(&host, ONLY_V4);
    let said = nvactl(&host, &["apply", "-", "--no-trial"], BOTH);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr.ends_with(
            "error: `ip6tables-save` is not installed, or not on PATH\n\
             hint: to install it: sudo apt-get install iptables\n"
        ),
        "{said:?}"
    );
    assert_eq!(nvactl(&host, &["apply", "-", "--dry-run"], ONLY_V4).code, 0);
}

lab_test!(a_kill_between_the_families_is_repaired);
/// Between the two loads there is a moment in which only IPv4 is new.
fn a_kill_between_the_families_is_repaired(backend: Backend) {
    let host = firewall(backend);
    apply(&host, BOTH);
    let before = both(&host);
    let kill =
        "for argument; do [ $argument = --noflush ] && kill -9 $PPID && exit 1; done; real \"$@\"";
    let killed = |more: &[&str]| {
        fake(&host, "ip6tables-restore", kill);
        let args = [&["apply", "-", "--no-trial"], more].concat();
        let output = host.feed(env!("CARGO_BIN_EXE_nvactl"), &args, &changed());
        assert_eq!(output.status.code(), None, "{output:?}");
        unfake(&host, "ip6tables-restore");
        let now = both(&host);
        assert_eq!((now.0 == before.0, now.1 == before.1), (false, true));
    };
    killed(&[]);
    apply(&host, BOTH);
    assert_eq!(both(&host), before);
    killed(&["--confirm", "2"]);
    wait_for("the watchdog has undone it", || both(&host) == before);
}
