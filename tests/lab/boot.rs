//! `nvactl boot`: what the unit brings back, from what, and when it leaves things alone. A boot is played
//! by taking out every rule and running the unit's own command; `tests/boot` has a real systemd do it.

use crate::fake::{fake, unfake};
use crate::firewall::{SPEC, apply, firewall, load};
use crate::lab::{Backend, FIREWALL, FIREWALL_V6, Lab, Said, save, save_v6};
use crate::namespace::{Host, wait_for};
use crate::traffic::{answer, serve_tcp};

const UNIT: &str = "/etc/systemd/system/nvactl.service";
const RULES: &str = "/etc/iptables/rules.v4";

/// Puts nvactl where a unit may run it, and systemd's folder, without links of this machine's.
pub fn install(host: &Host) {
    host.shell(&format!(
        "mkdir /run/local && cp {} /run/local/nvactl
         mount --bind /run/local /usr/local/bin
         umount /run/bin/nvactl 2> /dev/null || true
         ln -sf /usr/local/bin/nvactl /run/bin/nvactl
         rm -rf /etc/systemd/system/*.wants /etc/systemd/system/nvactl.service /etc/ufw /etc/firewalld",
        env!("CARGO_BIN_EXE_nvactl")
    ));
}

/// Runs the nvactl that is installed there.
fn nvactl(host: &Host, args: &[&str], stdin: &str) -> Said {
    Said::from(host.feed("/usr/local/bin/nvactl", args, stdin))
}

fn enable(host: &Host) -> Said {
    let said = nvactl(host, &["boot", "enable"], "");
    assert_eq!(said.code, 0, "{said:?}");
    said
}

fn flush(host: &Host) {
    host.shell(
        "for program in iptables ip6tables; do
           for table in filter nat; do $program -t $table -F; $program -t $table -X; done
           $program -P FORWARD ACCEPT
         done
         echo 0 > /proc/sys/net/ipv4/ip_forward",
    );
}

/// Runs what the unit runs.
fn run_unit(host: &Host) -> Said {
    let unit = host.run(&format!("cat {UNIT}"));
    let command = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let words: Vec<&str> = command.expect("it runs something").split(' ').collect();
    Said::from(host.feed(words[0], &words[1..], ""))
}

/// The same behind another boot: nothing of what ran before is known to be of this one.
pub fn boot(host: &Host) -> Said {
    flush(host);
    host.shell("rm -f /var/lib/nvactl/booted-*");
    run_unit(host)
}

lab_test!(saved_rules_are_loaded_at_boot);
fn saved_rules_are_loaded_at_boot(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    let host = &lab.firewall;
    serve_tcp(&lab.pod, "pod", 80);
    install(host);
    lab.apply(
        "
firewall: {interface: eth0, snat: {v4: 10.3.0.4, v6: \"fd00:3::4\"}}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
  - {name: web6, listen: 49183, target: {pod: \"[fd00:224::118]:80\"}}
",
    );
    host.run("iptables -A INPUT -s 192.0.2.1/32 -j DROP");
    enable(host);
    let link = host.run("readlink /etc/systemd/system/sysinit.target.wants/nvactl.service");
    assert_eq!(link.trim(), UNIT);
    flush(host);
    host.shell("echo 0 > /proc/sys/net/ipv6/conf/all/forwarding");
    assert_ne!(
        lab.tcp(FIREWALL, 49182),
        answer("pod", FIREWALL),
        "nothing was flushed"
    );

    let said = run_unit(host);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(lab.tcp(FIREWALL, 49182), answer("pod", FIREWALL));
    assert_eq!(lab.tcp(FIREWALL_V6, 49183), answer("pod", FIREWALL_V6));
    for saved in [save(host), save_v6(host)] {
        assert!(saved.contains(":FORWARD DROP"), "{saved}");
        assert!(!saved.contains("192.0.2.1"), "it is not nvactl's: {saved}");
    }
}

lab_test!(either only_persist_changes_the_rules_of_the_next_boot);
/// What was applied and not persisted is gone behind a boot, as with a rules file.
fn only_persist_changes_the_rules_of_the_next_boot(backend: Backend) {
    let host = firewall(backend);
    install(&host);
    apply(&host, SPEC);
    enable(&host);
    let saved = save(&host);
    let changed = SPEC.replace("49182", "49183");
    for change in ["apply", "confirm", "rollback", "remove"] {
        let said = match change {
            "apply" => nvactl(&host, &["apply", "-", "--no-trial"], &changed),
            "confirm" => {
                let said = nvactl(
                    &host,
                    &["apply", "-", "--no-trial", "--confirm", "60"],
                    &changed,
                );
                assert_eq!(said.code, 0, "{said:?}");
                nvactl(&host, &["confirm"], "")
            }
            "rollback" => {
                apply(&host, &changed);
                apply(&host, &SPEC.replace("49182", "49184"));
                nvactl(&host, &["rollback"], "")
            }
            _ => nvactl(&host, &["remove"], ""),
        };
        assert_eq!(said.code, 0, "{change}: {said:?}");
        assert!(
            said.stderr.contains(match change {
                "remove" =>
                    "loads the removed rules again; to prevent that: sudo nvactl boot disable",
                _ => "sudo nvactl persist",
            }),
            "{change} says nothing of the next boot: {said:?}"
        );
        assert_ne!(save(&host), saved, "{change}");
        let said = boot(&host);
        assert_eq!(said.code, 0, "{change}: {said:?}");
        assert_eq!(save(&host), saved, "{change}");
        // Of what is saved nothing is said.
        let said = apply(&host, SPEC);
        assert!(!said.stderr.contains("the next boot"), "{change}: {said:?}");
    }
    apply(&host, &changed);
    let new = save(&host);
    let said = nvactl(&host, &["persist", "-"], &changed);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!host.exists(RULES), "there are two ways now");
    boot(&host);
    assert_eq!(save(&host), new);
}

lab_test!(nothing_is_saved_while_a_change_waits);
fn nothing_is_saved_while_a_change_waits(backend: Backend) {
    let host = firewall(backend);
    install(&host);
    apply(&host, SPEC);
    let wait = || {
        let changed = SPEC.replace("49182", "49183");
        let said = nvactl(
            &host,
            &["apply", "-", "--no-trial", "--confirm", "300"],
            &changed,
        );
        assert_eq!(said.code, 0, "{said:?}");
    };
    wait();
    let said = nvactl(&host, &["boot", "enable"], "");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("unless you confirm it"), "{said:?}");
    assert!(!host.exists(UNIT), "the unit is there");
    assert_eq!(nvactl(&host, &["confirm", "--cancel"], "").code, 0);
    enable(&host);
    let saved = save(&host);
    wait();
    let said = nvactl(&host, &["persist"], "");
    assert_eq!(said.code, 2, "{said:?}");
    assert_eq!(nvactl(&host, &["confirm", "--cancel"], "").code, 0);
    boot(&host);
    assert_eq!(save(&host), saved);
}

/// Breaks a record of the state folder so that it is read, and its rules do not load.
fn spoil(host: &Host, name: &str) {
    host.shell(&format!(
        "sed -i 's/--dport 80 /--dport 80 -m nonsense /' /var/lib/nvactl/{name}-[0-9f]*.json
         grep -q nonsense /var/lib/nvactl/{name}-[0-9f]*.json"
    ));
}

lab_test!(a_saved_state_that_does_not_load_is_replaced_by_the_previous_one);
fn a_saved_state_that_does_not_load_is_replaced_by_the_previous_one(backend: Backend) {
    let host = firewall(backend);
    install(&host);
    apply(&host, SPEC);
    enable(&host);
    let before = save(&host);
    apply(&host, &SPEC.replace("49182", "49183"));
    assert_eq!(nvactl(&host, &["persist"], "").code, 0);
    spoil(&host, "saved");
    let said = boot(&host);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stderr
            .contains("the rules saved before them were loaded"),
        "{said:?}"
    );
    assert_eq!(save(&host), before);
    let said = nvactl(&host, &["boot", "status"], "");
    assert!(said.stdout.contains("the rules saved before"), "{said:?}");

    // Neither loads: nothing is forwarded, and who is at the machine stays.
    spoil(&host, "saved-before");
    flush(&host);
    host.run("iptables -A INPUT -p tcp --dport 22 -j ACCEPT");
    host.shell("rm -f /var/lib/nvactl/booted-*");
    let said = run_unit(&host);
    assert_eq!(said.code, 3, "{said:?}");
    assert_eq!(
        said.stderr
            .lines()
            .filter(|line| !line.starts_with("hint:"))
            .count(),
        1,
        "{said:?}"
    );
    let rules = save(&host);
    assert!(rules.contains(":FORWARD DROP"), "{rules}");
    assert!(rules.contains(":INPUT ACCEPT"), "{rules}");
    assert!(
        rules.contains("-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT"),
        "{rules}"
    );
    assert!(!rules.contains("NVACTL"), "{rules}");
    assert!(save_v6(&host).contains(":FORWARD DROP"));
    assert_eq!(host.run("cat /proc/sys/net/ipv4/ip_forward").trim(), "0");
    let said = nvactl(&host, &["status", "-"], SPEC);
    let told = "no saved rules could be loaded, so nvactl.service set the FORWARD policy to DROP";
    assert!(said.stderr.contains(told), "{said:?}");
    apply(&host, SPEC);
    assert_eq!(nvactl(&host, &["persist"], "").code, 0);
    let said = nvactl(&host, &["status", "-"], SPEC);
    assert!(!said.stderr.contains(told), "{said:?}");

    // A record that cannot be read, and none at all, are no reason to be open.
    for script in [
        "echo '{' > /var/lib/nvactl/saved-$(ls /var/lib/nvactl | sed -n 's/^saved-\\([0-9f].*\\)$/\\1/p')",
        "rm -r /var/lib/nvactl",
    ] {
        host.shell(script);
        flush(&host);
        let said = run_unit(&host);
        assert_eq!(said.code, 3, "{said:?}");
        assert!(save(&host).contains(":FORWARD DROP"));
    }
}

lab_test!(either a_reload_restores_only_flushed_rules);
/// firewalld's reload touches no rule of nvactl: what was applied last stays, persisted or not.
fn a_reload_restores_only_flushed_rules(backend: Backend) {
    let host = firewall(backend);
    install(&host);
    apply(&host, SPEC);
    enable(&host);
    let saved = save(&host);
    boot(&host);
    apply(&host, &SPEC.replace("49182", "49183"));
    let applied = save(&host);
    let said = run_unit(&host);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(save(&host), applied);
    // As ufw's stop leaves it.
    for script in ["iptables -P FORWARD ACCEPT", "iptables -F FORWARD"] {
        host.shell(script);
        let said = run_unit(&host);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(save(&host), saved, "{script}");
    }
    // A change that waits is undone, whatever came between.
    let changed = SPEC.replace("49182", "49185");
    let said = nvactl(
        &host,
        &["apply", "-", "--no-trial", "--confirm", "6"],
        &changed,
    );
    assert_eq!(said.code, 0, "{said:?}");
    flush(&host);
    assert_eq!(run_unit(&host).code, 0);
    wait_for("the watchdog is done", || {
        !host.shell("ls /var/lib/nvactl").contains("pending-")
    });
    assert_eq!(save(&host), saved);
}

lab_test!(nvactl_s_lines_are_removed_from_the_rules_file);
fn nvactl_s_lines_are_removed_from_the_rules_file(backend: Backend) {
    let host = firewall(backend);
    install(&host);
    host.run("iptables -A INPUT -s 192.0.2.7/32 -j DROP");
    apply(&host, SPEC);
    assert_eq!(nvactl(&host, &["persist"], "").code, 0);
    let old = host.run(&format!("cat {RULES}"));
    let said = enable(&host);
    for line in old.lines().filter(|line| line.contains("NVACTL-")) {
        assert!(said.stdout.contains(line), "{line} is not shown: {said:?}");
    }
    let new = host.run(&format!("cat {RULES}"));
    assert!(!new.contains("NVACTL"), "{new}");
    let theirs = old.lines().filter(|line| !line.contains("NVACTL-"));
    assert_eq!(new.lines().collect::<Vec<_>>(), theirs.collect::<Vec<_>>());
    assert_eq!(host.run(&format!("cat {RULES}.bak")), old);
    // Both together are the machine as it was.
    let whole = save(&host);
    flush(&host);
    load(&host, &new);
    host.shell("rm -f /var/lib/nvactl/booted-*");
    assert_eq!(run_unit(&host).code, 0);
    assert_eq!(save(&host), whole);

    let said = nvactl(&host, &["boot", "disable"], "");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!host.exists(UNIT));
    assert_eq!(save(&host), whole);
    assert_eq!(nvactl(&host, &["persist"], "").code, 0);
    assert!(host.run(&format!("cat {RULES}")).contains("NVACTL"));
}

lab_test!(only_the_unit_is_left_beside_another_manager);
fn only_the_unit_is_left_beside_another_manager(backend: Backend) {
    let host = firewall(backend);
    install(&host);
    apply(&host, SPEC);
    host.shell("mkdir /etc/ufw; echo ENABLED=yes > /etc/ufw/ufw.conf");
    let said = nvactl(&host, &["persist"], "");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("ufw"), "{said:?}");
    assert!(
        said.stderr
            .contains("hint: to load nvactl's rules at boot: sudo nvactl boot enable"),
        "{said:?}"
    );
    assert!(!host.exists(RULES));
    let said = nvactl(&host, &["persist", "--output", "/run/rules"], "");
    assert_eq!(said.code, 0, "a file that nobody loads at boot: {said:?}");
    host.shell(
        "rm -r /etc/ufw
         mkdir -p /run/firewalld /etc/firewalld
         echo FirewallBackend=iptables > /etc/firewalld/firewalld.conf",
    );
    let said = nvactl(&host, &["boot", "enable"], "");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("FirewallBackend=iptables"), "{said:?}");
    assert!(!host.exists(UNIT));
    host.shell("echo FirewallBackend=nftables > /etc/firewalld/firewalld.conf");
    enable(&host);
}

lab_test!(the_unit_runs_no_program_that_others_can_replace);
/// What runs as root at boot must be root's.
fn the_unit_runs_no_program_that_others_can_replace(backend: Backend) {
    let host = firewall(backend);
    install(&host);
    apply(&host, SPEC);
    host.shell("mkdir -p /run/open && mount --bind /run/open /opt && cp /run/local/nvactl /opt/nvactl && chmod 777 /opt");
    let said = Said::from(host.feed("/opt/nvactl", &["boot", "enable"], ""));
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr
            .contains("a user other than root could replace the program"),
        "{said:?}"
    );
    host.shell("cp /run/local/nvactl /run/nvactl");
    let said = Said::from(host.feed("/run/nvactl", &["boot", "enable"], ""));
    assert_eq!(said.code, 2, "{said:?}");
    let refused = "and the unit can run no program from a home folder or a temporary one; nothing was written\n\
                   hint: to install it: sudo install /run/nvactl /usr/local/bin/nvactl && ";
    assert!(said.stderr.contains(refused), "{said:?}");
    assert_eq!(said.stdout, "");
    assert!(!host.exists(UNIT));
}

lab_test!(a_switch_that_cannot_be_set_does_not_change_the_rules_that_boot_loads);
fn a_switch_that_cannot_be_set_does_not_change_the_rules_that_boot_loads(backend: Backend) {
    let host = firewall(backend);
    install(&host);
    apply(&host, SPEC);
    host.shell("echo 1 > /proc/sys/net/ipv4/ip_forward");
    enable(&host);
    let saved = save(&host);
    // How sysctl.d(5) has a file switched off.
    host.run("ln -s /dev/null /etc/sysctl.d/99-nvactl.conf");
    let said = boot(&host);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stderr.contains("be_liberal could not be set"),
        "{said:?}"
    );
    assert_eq!(save(&host), saved);
    assert_eq!(host.run("cat /proc/sys/net/ipv4/ip_forward").trim(), "1");
}

lab_test!(an_untrusted_state_leaves_nothing_open);
fn an_untrusted_state_leaves_nothing_open(backend: Backend) {
    let host = firewall(backend);
    install(&host);
    apply(&host, SPEC);
    enable(&host);
    host.run("chmod 777 /var/lib/nvactl");
    flush(&host);
    let said = run_unit(&host);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(
        said.stderr.contains("users other than root can write to"),
        "{said:?}"
    );
    for saved in [save(&host), save_v6(&host)] {
        assert!(saved.contains(":FORWARD DROP"), "{saved}");
    }
}

lab_test!(rules_flushed_by_another_program_stay_saved);
fn rules_flushed_by_another_program_stay_saved(backend: Backend) {
    let host = firewall(backend);
    install(&host);
    apply(&host, SPEC);
    enable(&host);
    let saved = save(&host);
    flush(&host);
    let said = nvactl(&host, &["persist"], "");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr.contains("sudo systemctl restart nvactl"),
        "{said:?}"
    );
    boot(&host);
    assert_eq!(save(&host), saved);

    // Removed rules are another matter; the machine stays as closed as it is.
    assert_eq!(nvactl(&host, &["remove"], "").code, 0);
    let said = nvactl(&host, &["boot", "status"], "");
    let back = "warning: the next boot loads the removed rules again; to prevent that: sudo nvactl boot disable\n";
    assert_eq!((said.code, said.stderr.as_str()), (1, back), "{said:?}");
    let said = nvactl(&host, &["persist"], "");
    assert_eq!(said.code, 0, "{said:?}");
    let said = boot(&host);
    assert_eq!(said.code, 0, "{said:?}");
    let rules = save(&host);
    assert!(
        !rules.contains("NVACTL") && rules.contains(":FORWARD DROP"),
        "{rules}"
    );
    let said = nvactl(&host, &["boot", "status"], "");
    assert!(
        said.stdout.contains("no rules: they were removed"),
        "{said:?}"
    );
    assert!(!said.stderr.contains("systemctl restart"), "{said:?}");
}

lab_test!(flushed_rules_are_not_saved);
/// `iptables -F` leaves nvactl's chains, empty. One table alone is enough to stop every forward.
fn flushed_rules_are_not_saved(backend: Backend) {
    for (flush, words) in [
        (
            "iptables -F; iptables -t nat -F",
            "nvactl's rules are not loaded, so there is nothing to save",
        ),
        (
            "iptables -t nat -F",
            " IPv4 rules that nvactl loaded last are missing; nothing was written\n\
             hint: to load them again: sudo nvactl apply\n",
        ),
        ("iptables -D FORWARD 1", "1 of the "),
    ] {
        let host = firewall(backend);
        install(&host);
        apply(&host, SPEC);
        enable(&host);
        let saved = save(&host);
        host.shell(flush);
        let said = nvactl(&host, &["persist"], "");
        assert_eq!(said.code, 2, "{flush}: {said:?}");
        assert!(said.stderr.contains(words), "{flush}: {said:?}");
        let said = nvactl(&host, &["boot", "enable"], "");
        assert_eq!(said.code, 2, "{flush}: {said:?}");
        assert_eq!(boot(&host).code, 0);
        assert_eq!(save(&host), saved, "{flush}");
        // More rules than nvactl's own are nobody's damage.
        host.run("iptables -I NVACTL-FORWARD -s 192.0.2.1/32 -j ACCEPT");
        assert_eq!(nvactl(&host, &["persist"], "").code, 0);
        assert_eq!(nvactl(&host, &["remove"], "").code, 0);
        assert_eq!(
            nvactl(&host, &["persist"], "").code,
            0,
            "none is right then"
        );
    }
}

lab_test!(an_uninstall_has_no_hint_to_start_anew);
fn an_uninstall_has_no_hint_to_start_anew(backend: Backend) {
    let host = firewall(backend);
    install(&host);
    apply(&host, SPEC);
    enable(&host);
    let disable = || {
        let said = nvactl(&host, &["boot", "disable"], "");
        assert_eq!(said.code, 0, "{said:?}");
        said
    };
    let said = disable();
    assert!(said.stderr.contains("sudo nvactl persist"), "{said:?}");
    enable(&host);
    assert_eq!(nvactl(&host, &["remove"], "").code, 0);
    let said = disable();
    assert_eq!(
        (said.stdout.as_str(), said.stderr.as_str()),
        (
            "nvactl.service is disabled; nvactl's rules are not loaded\n",
            ""
        )
    );
    let said = nvactl(&host, &["persist"], "");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!said.stderr.contains("boot enable"), "{said:?}");
}

lab_test!(one_setting_wins_at_boot);
/// The unit sets the switch after the files.
fn one_setting_wins_at_boot(backend: Backend) {
    let host = firewall(backend);
    install(&host);
    apply(&host, SPEC);
    let said = nvactl(&host, &["sysctl", "enable", "--persist"], "");
    assert_eq!(said.code, 0, "{said:?}");
    enable(&host);
    let said = nvactl(&host, &["sysctl", "status"], "");
    let wins = said.stdout.lines().filter(|line| line.contains("wins"));
    assert_eq!(
        wins.collect::<Vec<_>>(),
        ["  nvactl.service: 1  (after the files: wins)"],
        "{said:?}"
    );
    assert!(said.stdout.contains("(read last)\n"), "{said:?}");
}

lab_test!(flushed_ipv6_rules_are_not_saved);
fn flushed_ipv6_rules_are_not_saved(backend: Backend) {
    let host = firewall(backend);
    install(&host);
    apply(&host, crate::ipv6::BOTH);
    enable(&host);
    host.shell("ip6tables -t nat -F");
    let said = nvactl(&host, &["persist"], "");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr
            .contains(" IPv6 rules that nvactl loaded last are missing; nothing was written\n"),
        "{said:?}"
    );
}

lab_test!(rules_loaded_by_the_unit_count_as_loaded_last);
/// Behind a boot the last change in the history is not what is loaded.
fn rules_loaded_by_the_unit_count_as_loaded_last(backend: Backend) {
    let host = firewall(backend);
    install(&host);
    apply(&host, SPEC);
    enable(&host);
    let saved = save(&host);
    let open = SPEC.replace("snat: 10.3.0.4}", "snat: 10.3.0.4, forward_policy: keep}");
    apply(&host, &open.replace("49182", "49183"));
    boot(&host);
    assert_eq!(save(&host), saved);
    let said = nvactl(&host, &["status"], "");
    assert!(said.stderr.contains("nvactl.service loaded it"), "{said:?}");
    assert!(!said.stdout.contains("drifted"), "{said:?}");
    assert_eq!(nvactl(&host, &["persist"], "").code, 0);
    boot(&host);
    assert_eq!(save(&host), saved, "the policy is the saved spec's");

    assert_eq!(nvactl(&host, &["boot", "disable"], "").code, 0);
    let said = nvactl(&host, &["status"], "");
    assert!(!said.stderr.contains("no spec"), "{said:?}");
}

lab_test!(ipv6_that_cannot_be_read_stays_saved);
fn ipv6_that_cannot_be_read_stays_saved(backend: Backend) {
    let host = firewall(backend);
    host.run("ip -6 address add fd00:3::4/64 dev eth0 nodad");
    install(&host);
    let both = "
firewall: {interface: eth0, snat: {v4: 10.3.0.4, v6: \"fd00:3::4\"}}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
  - {name: web6, listen: 49183, target: {pod: \"[fd00:224::118]:80\"}}
";
    apply(&host, both);
    enable(&host);
    let saved = save_v6(&host);
    fake(&host, "ip6tables-save", "exit 1");
    let said = nvactl(&host, &["persist"], "");
    assert_eq!(said.code, 3, "{said:?}");
    unfake(&host, "ip6tables-save");
    boot(&host);
    assert_eq!(save_v6(&host), saved);
}
