//! `nvactl sysctl`: the kernel's switch, the files that set it, and what contradicts it.

use crate::boot::install;
use crate::firewall::{SPEC, apply, firewall};
use crate::lab::{Backend, Said};
use crate::namespace::Host;
use crate::nvactl;

fn sysctl(host: &Host, args: &[&str]) -> Said {
    let said = nvactl(host, &[&["sysctl"], args].concat(), "");
    assert_eq!(said.code, 0, "{said:?}");
    said
}

fn running(host: &Host) -> String {
    host.run("cat /proc/sys/net/ipv4/ip_forward")
}

lab_test!(either forwarding_is_turned_on_and_off);
fn forwarding_is_turned_on_and_off(backend: Backend) {
    let host = firewall(backend);
    assert_eq!(running(&host), "0\n");
    let said = sysctl(&host, &["status"]);
    let unset = "net.ipv4.ip_forward = 0\nat boot:\n  no file sets it: 0, the kernel's default\n";
    assert!(said.stdout.starts_with(unset), "{said:?}");
    let said = sysctl(&host, &["enable"]);
    assert!(said.stderr.contains("is lost at the next boot"), "{said:?}");
    assert_eq!(running(&host), "1\n");
    assert_eq!(host.run("ls /etc/sysctl.d"), "");

    let said = sysctl(&host, &["enable", "--persist"]);
    assert!(!said.stderr.contains("next boot"), "{said:?}");
    let file = host.run("cat /etc/sysctl.d/99-nvactl.conf");
    assert!(
        file.lines().any(|line| line == "net.ipv4.ip_forward = 1"),
        "{file}"
    );
    assert_eq!(host.run("stat -c %a /etc/sysctl.d/99-nvactl.conf"), "644\n");

    // A 0 of its own would win over what an operator writes later.
    let said = sysctl(&host, &["disable", "--persist"]);
    assert_eq!(running(&host), "0\n");
    let stops = "warning: the kernel forwards nothing now, so all forwards stop; to turn it on: sudo nvactl sysctl enable\n";
    assert!(said.stderr.contains(stops), "{said:?}");
    assert!(
        said.stdout
            .contains("/etc/sysctl.d/99-nvactl.conf: removed"),
        "{said:?}"
    );
    assert_eq!(host.run("ls -A /etc/sysctl.d"), "");
    let said = sysctl(&host, &["status"]);
    assert!(said.stdout.starts_with(unset), "{said:?}");
    let said = sysctl(&host, &["disable", "--persist"]);
    assert!(!said.stdout.contains("99-nvactl.conf"), "{said:?}");
}

lab_test!(either turning_off_removes_only_its_own_lines);
/// What an older nvactl has left, a 0 included, goes as well.
fn turning_off_removes_only_its_own_lines(backend: Backend) {
    let host = firewall(backend);
    let file = || host.run("cat /etc/sysctl.d/99-nvactl.conf");
    sysctl(&host, &["enable", "--persist", "--ipv6"]);
    let said = sysctl(&host, &["disable", "--persist"]);
    assert!(
        said.stdout
            .contains("/etc/sysctl.d/99-nvactl.conf: written"),
        "{said:?}"
    );
    assert_eq!(
        file(),
        "# Written by `nvactl sysctl`.\nnet.ipv6.conf.all.forwarding = 1\n"
    );
    assert_eq!(running(&host), "0\n");
    assert_eq!(
        host.run("cat /proc/sys/net/ipv6/conf/all/forwarding"),
        "1\n"
    );
    sysctl(&host, &["disable", "--persist", "--ipv6"]);
    assert!(!host.exists("/etc/sysctl.d/99-nvactl.conf"));

    host.shell("echo net.ipv4.ip_forward=0 > /etc/sysctl.d/99-nvactl.conf");
    sysctl(&host, &["disable", "--persist"]);
    assert!(!host.exists("/etc/sysctl.d/99-nvactl.conf"));
    assert_eq!(host.run("ls -A /etc/sysctl.d"), "");
}

lab_test!(either a_file_that_systemd_does_not_read_does_not_count);
/// systemd-sysctl reads drop-ins alone: without a link to it /etc/sysctl.conf is of no use at boot.
fn a_file_that_systemd_does_not_read_does_not_count(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    sysctl(&host, &["enable"]);
    host.shell("echo net.ipv4.ip_forward=1 > /etc/sysctl.conf");
    let told = || {
        let status = nvactl(&host, &["status", "-"], SPEC).stdout;
        let doctor = nvactl(
            &host,
            &["doctor", "-", "--no-twin", "--timeout", "0.1"],
            SPEC,
        )
        .stdout;
        let line = |text: &str, word: &str| {
            let line = text.lines().find(|line| line.contains(word));
            line.unwrap_or_else(|| panic!("no {word}: {text}"))
                .to_owned()
        };
        let sysctl = sysctl(&host, &["status"]).stdout;
        [
            line(&status, "ip_forward  "),
            line(&doctor, "sysctl-at-boot"),
            line(&sysctl, "/etc/sysctl."),
        ]
    };
    let holds = |told: &[String; 3], by: &str| {
        assert_eq!(told[0], format!("ip_forward  1; at boot 1, by {by}"));
        assert!(told[1].starts_with("ok "), "{told:?}");
        assert!(told[2].ends_with("(read last: wins)"), "{told:?}");
    };
    // Where nothing of systemd is there, sysctl(8) reads the files.
    holds(&told(), "/etc/sysctl.conf:1");

    host.run("mkdir -p /run/systemd/system");
    let told_of = told();
    assert_eq!(
        told_of[0],
        "ip_forward  1; at boot 0: systemd-sysctl does not read /etc/sysctl.conf:1"
    );
    assert!(told_of[1].starts_with("warn "), "{told_of:?}");
    assert!(told_of[1].contains("/etc/sysctl.conf:1"), "{told_of:?}");
    assert!(told_of[2].contains("(not read at boot: "), "{told_of:?}");
    let status = sysctl(&host, &["status"]).stdout;
    assert!(status.contains("no file sets it: 0"), "{status}");
    let said = sysctl(&host, &["enable"]);
    assert!(said.stderr.contains("is lost at the next boot"), "{said:?}");

    // As Debian has it until 12.
    host.run("ln -s ../sysctl.conf /etc/sysctl.d/99-sysctl.conf");
    holds(&told(), "/etc/sysctl.d/99-sysctl.conf:1");
    // The fix holds without the link.
    host.run("rm /etc/sysctl.d/99-sysctl.conf");
    sysctl(&host, &["enable", "--persist"]);
    let told_of = told();
    assert!(told_of[0].contains("99-nvactl.conf:2"), "{told_of:?}");
    assert!(told_of[1].starts_with("ok "), "{told_of:?}");
}

lab_test!(either the_file_that_is_read_last_wins);
fn the_file_that_is_read_last_wins(backend: Backend) {
    let host = firewall(backend);
    host.shell(
        "echo 'net/ipv4/ip_forward=0' > /etc/sysctl.d/10-early.conf
         mkdir -p /run/sysctl.d
         echo 'net.ipv4.ip_forward=0' > /run/sysctl.d/99-nvactl.conf
         echo '# net.ipv4.ip_forward=0' > /etc/sysctl.conf",
    );
    let said = sysctl(&host, &["enable", "--persist"]);
    assert!(
        !said.stderr.contains("wins at boot"),
        "nvactl's file is read last: {said:?}"
    );
    let said = sysctl(&host, &["status"]);
    let files: Vec<&str> = said
        .stdout
        .lines()
        .take_while(|line| !line.starts_with("net.netfilter."))
        .filter_map(|line| line.strip_prefix("  "))
        .collect();
    assert_eq!(
        files,
        [
            "/etc/sysctl.d/10-early.conf:1: net/ipv4/ip_forward = 0",
            // Its namesake in /run is hidden by it.
            "/etc/sysctl.d/99-nvactl.conf:2: net.ipv4.ip_forward = 1  (read last: wins)",
        ]
    );
    for winner in ["/etc/sysctl.d/99-z.conf", "/etc/sysctl.conf"] {
        host.shell(&format!(
            "echo 'net.ipv4.conf.all.forwarding = 0' >> {winner}"
        ));
        let said = sysctl(&host, &["enable", "--persist"]);
        assert!(
            said.stderr.contains(&format!("warning: {winner}:")),
            "{said:?}"
        );
        assert!(said.stderr.contains("wins at boot"), "{said:?}");
        let said = sysctl(&host, &["status"]);
        let wins = said.stdout.lines().find(|line| line.ends_with("wins)"));
        assert!(wins.is_some_and(|line| line.contains(winner)), "{said:?}");
    }
    // What nvactl warns of it leaves to the user.
    assert_eq!(
        host.run("cat /etc/sysctl.conf"),
        "# net.ipv4.ip_forward=0\nnet.ipv4.conf.all.forwarding = 0\n"
    );
}

lab_test!(either an_interface_that_contradicts_is_named);
fn an_interface_that_contradicts_is_named(backend: Backend) {
    let host = firewall(backend);
    sysctl(&host, &["enable"]);
    host.shell("echo 0 > /proc/sys/net/ipv4/conf/eth0/forwarding");
    let said = sysctl(&host, &["status"]);
    assert!(
        said.stdout
            .contains("\nnet.ipv4.conf.eth0.forwarding = 0\n"),
        "{said:?}"
    );
    // The kernel does nothing about it, so nvactl says what does.
    let said = sysctl(&host, &["enable"]);
    assert!(
        said.stderr
            .contains("sysctl -w net.ipv4.conf.eth0.forwarding=1"),
        "{said:?}"
    );
    let said = apply(&host, SPEC);
    assert!(
        said.stderr
            .contains("sysctl -w net.ipv4.conf.eth0.forwarding=1"),
        "{said:?}"
    );
}

lab_test!(either enable_warns_of_routing_for_everybody);
fn enable_warns_of_routing_for_everybody(backend: Backend) {
    let host = firewall(backend);
    let said = sysctl(&host, &["enable"]);
    assert!(
        said.stderr.contains("FORWARD accepts everything"),
        "{said:?}"
    );
    host.run("iptables -A FORWARD -j REJECT");
    let said = sysctl(&host, &["enable"]);
    assert!(
        !said.stderr.contains("FORWARD accepts everything"),
        "{said:?}"
    );
    host.run("iptables -F FORWARD");
    apply(&host, SPEC);
    let said = sysctl(&host, &["enable"]);
    assert!(
        !said.stderr.contains("FORWARD accepts everything"),
        "{said:?}"
    );
}

lab_test!(either forwarding_at_boot_without_rules_gets_a_note);
fn forwarding_at_boot_without_rules_gets_a_note(backend: Backend) {
    let host = firewall(backend);
    install(&host);
    let words = "note: the next boot forwards without nvactl's rules; to keep them once they work: sudo nvactl ";
    // No rules are there to be kept.
    let said = sysctl(&host, &["enable", "--persist"]);
    assert!(!said.stderr.contains(words), "{said:?}");
    apply(&host, SPEC);
    let said = sysctl(&host, &["enable", "--persist"]);
    assert!(said.stderr.contains(words), "{said:?}");
    let said = sysctl(&host, &["enable"]);
    assert!(!said.stderr.contains(words), "{said:?}");
    let said = Said::from(host.feed("/usr/local/bin/nvactl", &["boot", "enable"], ""));
    assert_eq!(said.code, 0, "{said:?}");
    let said = sysctl(&host, &["enable", "--persist"]);
    assert!(!said.stderr.contains(words), "{said:?}");
}

lab_test!(either apply_reports_what_prevents_forwarding);
fn apply_reports_what_prevents_forwarding(backend: Backend) {
    let host = firewall(backend);
    let said = apply(&host, SPEC);
    assert!(
        said.stderr.contains("nvactl sysctl enable --persist"),
        "{said:?}"
    );
    sysctl(&host, &["enable"]);
    let said = apply(&host, SPEC);
    assert!(!said.stderr.contains("sysctl"), "{said:?}");
    let elsewhere = SPEC.replace(
        "interface: eth0",
        "interface: {ingress: eth0, egress: ens7}",
    );
    // No packet leaves by it, so the forwards would not work any more.
    let said = nvactl(&host, &["apply", "-"], &elsewhere);
    assert_eq!(said.code, 2, "{said:?}");
    for words in [
        "no interface ens7",
        "would cut off connections that work now",
    ] {
        assert!(said.stderr.contains(words), "{said:?}");
    }
}

lab_test!(either every_program_that_reads_the_files_is_considered);
/// A folder is no file; ufw comes behind; `sysctl --system` may be run after a boot by systemd.
fn every_program_that_reads_the_files_is_considered(backend: Backend) {
    let host = firewall(backend);
    host.shell(
        "echo 'net.ipv4.ip_forward=1' > /etc/sysctl.d/zz-router.conf
         echo 'net.ipv4.ip_forward=0' > /etc/sysctl.conf
         mkdir /etc/sysctl.d/folder.conf
         ln -s /dev/null /etc/sysctl.d/off.conf",
    );
    let said = sysctl(&host, &["status"]);
    assert!(
        said.stdout
            .contains("/etc/sysctl.conf:1: net.ipv4.ip_forward = 0  (read last: wins)"),
        "{said:?}"
    );
    host.run("mkdir -p /run/systemd/system");
    let said = sysctl(&host, &["status"]);
    for line in [
        "zz-router.conf:1: net.ipv4.ip_forward = 1  (read last: wins)",
        "/etc/sysctl.conf:1: net.ipv4.ip_forward = 0  (not read at boot",
    ] {
        assert!(said.stdout.contains(line), "{said:?}");
    }
    let said = sysctl(&host, &["enable"]);
    assert!(
        said.stderr
            .contains("/etc/sysctl.conf:1: net.ipv4.ip_forward = 0 wins if `sysctl --system`"),
        "{said:?}"
    );
    let said = sysctl(&host, &["disable", "--persist"]);
    assert!(
        said.stderr
            .contains("zz-router.conf:1: net.ipv4.ip_forward = 1 wins at boot"),
        "{said:?}"
    );
    host.shell(
        "rm /etc/sysctl.conf /etc/sysctl.d/zz-router.conf
         mkdir -p /etc/ufw
         echo ENABLED=yes > /etc/ufw/ufw.conf
         echo net/ipv4/ip_forward=1 > /etc/ufw/sysctl.conf",
    );
    let said = sysctl(&host, &["disable", "--persist"]);
    assert!(
        said.stderr
            .contains("/etc/ufw/sysctl.conf:1: net/ipv4/ip_forward = 1 wins at boot"),
        "{said:?}"
    );

    host.shell("rm /etc/ufw/sysctl.conf");
    sysctl(&host, &["enable", "--persist"]);
    let said = sysctl(&host, &["disable"]);
    assert!(
        said.stderr
            .contains("to change that line too, add: --persist"),
        "{said:?}"
    );
}

lab_test!(either a_setting_that_cannot_be_persisted_is_not_made);
/// Whatever can be known before is tried before the switch changes.
fn a_setting_that_cannot_be_persisted_is_not_made(backend: Backend) {
    let host = firewall(backend);
    host.run("mount -t tmpfs -o ro tmpfs /etc/sysctl.d");
    let said = nvactl(&host, &["sysctl", "enable", "--persist"], "");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr
            .contains("cannot write `/etc/sysctl.d/99-nvactl.conf`"),
        "{said:?}"
    );
    assert!(!said.stderr.contains("routes for anybody"), "{said:?}");
    assert_eq!((running(&host).as_str(), said.stdout.as_str()), ("0\n", ""));

    host.run("umount /etc/sysctl.d");
    sysctl(&host, &["enable", "--persist"]);
    host.run("mount --bind -o ro /etc/sysctl.d /etc/sysctl.d");
    let said = nvactl(&host, &["sysctl", "disable", "--persist"], "");
    assert_eq!(said.code, 2, "{said:?}");
    assert_eq!(running(&host), "1\n");
    assert!(host.exists("/etc/sysctl.d/99-nvactl.conf"));
}

lab_test!(either a_partial_change_is_reported);
/// A file that something is mounted on is the last thing to refuse.
fn a_partial_change_is_reported(backend: Backend) {
    let host = firewall(backend);
    host.shell(
        "touch /run/mounted /etc/sysctl.d/99-nvactl.conf
         mount --bind /run/mounted /etc/sysctl.d/99-nvactl.conf",
    );
    for (action, on, back) in [("enable", "1", "0"), ("disable", "0", "1")] {
        let said = nvactl(&host, &["sysctl", action, "--persist"], "");
        assert_eq!(said.code, 3, "{said:?}");
        assert!(
            said.stderr.contains(&format!(
                "error: net.ipv4.ip_forward is {on} now, but the rest of the change failed: \
                 cannot write `/etc/sysctl.d/99-nvactl.conf`"
            )),
            "{said:?}"
        );
        let hint = said
            .stderr
            .lines()
            .filter(|line| line.starts_with("hint: "))
            .find_map(|line| line.split_once("sudo "));
        let (_, command) = hint.expect("there is a way back");
        assert_eq!(running(&host), format!("{on}\n"));
        host.run(command);
        assert_eq!(running(&host), format!("{back}\n"));
        assert_eq!(host.run("ls -A /etc/sysctl.d"), "99-nvactl.conf\n");
        // What it is already is no change, so nothing has been done.
        sysctl(&host, &[action]);
        let said = nvactl(&host, &["sysctl", action, "--persist"], "");
        assert_eq!(said.code, 2, "{said:?}");
    }
}

lab_test!(either a_switch_that_cannot_be_set_does_not_change_the_other);
fn a_switch_that_cannot_be_set_does_not_change_the_other(backend: Backend) {
    let host = firewall(backend);
    host.shell(
        "echo 0 > /run/switch
         mount --bind /run/switch /proc/sys/net/ipv6/conf/all/forwarding
         mount -o remount,bind,ro /proc/sys/net/ipv6/conf/all/forwarding",
    );
    let said = nvactl(&host, &["sysctl", "enable", "--ipv6", "--persist"], "");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr
            .contains("cannot set net.ipv6.conf.all.forwarding"),
        "{said:?}"
    );
    assert_eq!(running(&host), "0\n");
    assert_eq!(host.run("ls -A /etc/sysctl.d"), "");
}

lab_test!(either a_kernel_without_ipv6_forwards_ipv4);
/// Rules of IPv6 that nvactl once loaded do not keep IPv4 from being forwarded.
fn a_kernel_without_ipv6_forwards_ipv4(backend: Backend) {
    let host = firewall(backend);
    apply(
        &host,
        "firewall: {interface: eth0, snat: {v4: 10.3.0.4, v6: \"fd00:3::4\"}}\n\
         forwards: [{name: six, listen: 80, target: {pod: \"[fd00::1]:80\"}}]\n",
    );
    host.run("mount -t tmpfs tmpfs /proc/sys/net/ipv6");
    let said = sysctl(&host, &["enable", "--persist"]);
    assert!(
        said.stderr
            .contains("warning: this kernel has no net.ipv6.conf.all.forwarding"),
        "{said:?}"
    );
    assert_eq!(running(&host), "1\n");
    let said = nvactl(&host, &["sysctl", "enable", "--ipv6"], "");
    assert_eq!(said.code, 2, "{said:?}");
}
