//! `nvactl sysctl`: the kernel's switch, the files that set it, and what contradicts it.

use crate::lab::{Backend, Said};
use crate::lifecycle::{SPEC, apply, firewall};
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

pub fn it_is_turned_on_and_off(backend: Backend) {
    let host = firewall(backend);
    assert_eq!(running(&host), "0\n");
    let said = sysctl(&host, &["status"]);
    assert_eq!(
        said.stdout,
        "net.ipv4.ip_forward = 0\nat boot:\n  no file sets it: 0, the kernel's default\n"
    );
    let said = sysctl(&host, &["enable"]);
    assert!(
        said.stderr.contains("holds until the next boot"),
        "{said:?}"
    );
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

    sysctl(&host, &["disable", "--persist"]);
    assert_eq!(running(&host), "0\n");
    let said = sysctl(&host, &["status"]);
    assert!(
        said.stdout.ends_with(
            "  /etc/sysctl.d/99-nvactl.conf:2: net.ipv4.ip_forward = 0  (read last: wins)\n"
        ),
        "{said:?}"
    );
}

pub fn the_file_that_wins_is_the_one_read_last(backend: Backend) {
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
        .filter_map(|l| l.strip_prefix("  "))
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

pub fn an_interface_that_contradicts_is_named(backend: Backend) {
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

pub fn enable_warns_of_a_router_for_everybody(backend: Backend) {
    let host = firewall(backend);
    let said = sysctl(&host, &["enable"]);
    assert!(
        said.stderr.contains("FORWARD lets everything through"),
        "{said:?}"
    );
    host.run("iptables -A FORWARD -j REJECT");
    let said = sysctl(&host, &["enable"]);
    assert!(
        !said.stderr.contains("FORWARD lets everything through"),
        "{said:?}"
    );
    host.run("iptables -F FORWARD");
    apply(&host, SPEC);
    let said = sysctl(&host, &["enable"]);
    assert!(
        !said.stderr.contains("FORWARD lets everything through"),
        "{said:?}"
    );
}

pub fn apply_says_what_keeps_packets_from_being_forwarded(backend: Backend) {
    let host = firewall(backend);
    let said = apply(&host, SPEC);
    assert!(
        said.stderr.contains("nvactl sysctl enable --persist"),
        "{said:?}"
    );
    sysctl(&host, &["enable"]);
    let said = apply(&host, SPEC);
    assert!(!said.stderr.contains("sysctl"), "{said:?}");
    let said = apply(
        &host,
        &SPEC.replace(
            "interface: eth0",
            "interface: {ingress: eth0, egress: ens7}",
        ),
    );
    assert!(said.stderr.contains("no interface ens7"), "{said:?}");
}

/// systemd-sysctl reads /etc/sysctl.conf only by a link; a folder is no file; ufw comes behind.
pub fn every_reader_of_the_files_is_thought_of(backend: Backend) {
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
    assert!(
        said.stdout
            .contains("systemd-sysctl, /etc/sysctl.d/zz-router.conf wins"),
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
        said.stderr.contains("`--persist` changes that too"),
        "{said:?}"
    );
}

/// Whatever can be known before is tried before the switch changes.
pub fn what_cannot_be_kept_is_not_set(backend: Backend) {
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

    sysctl(&host, &["enable"]);
    let said = nvactl(&host, &["sysctl", "disable", "--persist"], "");
    assert_eq!(said.code, 2, "{said:?}");
    assert_eq!(running(&host), "1\n");
}

/// A file that something is mounted on is the last thing to refuse.
pub fn what_is_only_half_done_is_told(backend: Backend) {
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
                "error: net.ipv4.ip_forward is {on} now, and not everything is done: \
                 cannot write `/etc/sysctl.d/99-nvactl.conf`"
            )),
            "{said:?}"
        );
        let hint = said
            .stderr
            .lines()
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

pub fn a_switch_that_cannot_be_set_leaves_the_other_alone(backend: Backend) {
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

/// Rules of IPv6 that nvactl once loaded do not keep IPv4 from being forwarded.
pub fn a_kernel_without_ipv6_forwards_ipv4(backend: Backend) {
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
