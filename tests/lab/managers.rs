//! Other programs that load rules at boot: what becomes of nvactl's, and advice beside them.

use serde_json::Value;

use crate::firewall::{SPEC, apply, firewall};
use crate::lab::{Backend, save};
use crate::namespace::Host;
use crate::nvactl;

/// The checks of one code, by status, reason and fix.
fn doctor(host: &Host, code: &str) -> Vec<(String, String, Option<String>)> {
    let args = [
        "doctor",
        "-",
        "--no-twin",
        "--timeout",
        "0.1",
        "--format",
        "json",
    ];
    let said = nvactl(host, &args, SPEC);
    let report: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    let checks = report["checks"].as_array().expect("a list").iter();
    let of_code = checks.filter(|check| check["code"] == code);
    let word = |value: &Value| value.as_str().map(str::to_owned);
    let all = of_code.map(|check| {
        let [status, reason, fix] = ["status", "reason", "fix"].map(|key| word(&check[key]));
        (
            status.expect("it has one"),
            reason.expect("it has one"),
            fix,
        )
    });
    all.collect()
}

fn enable(host: &Host, unit: &str) {
    host.shell(&format!(
        "mkdir -p /etc/systemd/system/multi-user.target.wants
         ln -sf /lib/none /etc/systemd/system/multi-user.target.wants/{unit}.service"
    ));
}

fn disable(host: &Host, unit: &str) {
    host.run(&format!(
        "rm /etc/systemd/system/multi-user.target.wants/{unit}.service"
    ));
}

/// There is one thing to say of the boot's order, or nothing.
fn boot_order(host: &Host) -> Option<(String, String)> {
    let mut checks = doctor(host, "boot-order");
    assert_eq!(checks.len(), 1, "{checks:?}");
    let (status, reason, fix) = checks.remove(0);
    (status != "ok").then(|| {
        assert_eq!(status, "warn", "{reason}");
        (reason, fix.unwrap_or_default())
    })
}

lab_test!(either a_flush_at_boot_is_reported_unless_nvactl_s_unit_runs_later);
fn a_flush_at_boot_is_reported_unless_nvactl_s_unit_runs_later(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let conf = |path: &str, text: &str| {
        host.shell(&format!(
            "mkdir -p $(dirname {path}); echo '{text}' > {path}"
        ));
    };
    let debian = "#!/usr/sbin/nft -f\n\nflush ruleset\n\ntable inet filter {\n}\n";
    conf("/etc/nftables.conf", debian);
    assert_eq!(boot_order(&host), None, "it is not enabled");
    enable(&host, "nftables");
    // The other backend's rules are no part of nft's ruleset.
    let flushed = backend == Backend::Nft;
    let told = boot_order(&host);
    assert_eq!(told.is_some(), flushed, "{told:?}");
    if let Some((reason, fix)) = told {
        assert!(reason.contains("/etc/nftables.conf"), "{reason}");
        assert_eq!(fix, "sudo nvactl boot enable");
    }
    let said = apply(&host, SPEC);
    assert_eq!(said.stderr.contains("flush ruleset"), flushed, "{said:?}");
    for (path, text, flushes) in [
        ("/etc/nftables.conf", "# flush ruleset", false),
        ("/etc/nftables.conf", "table ip a { }; flush ruleset", true),
        (
            "/etc/nftables.conf",
            "include \"/etc/nftables/main.nft\"",
            false,
        ),
        ("/etc/nftables/main.nft", "flush ruleset", true),
        (
            "/etc/nftables.conf",
            "include \"/etc/nftables.conf\"",
            false,
        ),
        ("/etc/sysconfig/nftables.conf", "flush ruleset", true),
    ] {
        conf(path, text);
        assert_eq!(
            boot_order(&host).is_some(),
            flushes && flushed,
            "{path}: {text}"
        );
    }
    // What is told of is what happens.
    let before = save(&host);
    host.run("nft -f /etc/sysconfig/nftables.conf");
    assert_eq!(save(&host) != before, flushed);
    apply(&host, SPEC);

    enable(&host, "nvactl");
    assert_eq!(boot_order(&host), None);
    disable(&host, "nvactl");
    host.run("ln -sf /dev/null /etc/systemd/system/nftables.service");
    assert_eq!(boot_order(&host), None, "it is masked");
    disable(&host, "nftables");

    host.shell("mkdir -p /etc/ufw; echo ENABLED=yes > /etc/ufw/ufw.conf");
    let (reason, fix) = boot_order(&host).expect("it is told");
    assert!(reason.contains("ufw manages this machine"), "{reason}");
    assert_eq!(fix, "sudo nvactl boot enable");
    enable(&host, "nvactl");
    assert_eq!(boot_order(&host), None);
}

lab_test!(either a_program_that_replaces_tables_is_reported_until_it_restores_nvactl_s);
fn a_program_that_replaces_tables_is_reported_until_it_restores_nvactl_s(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    host.shell(
        "mkdir -p /etc/shorewall /etc/shorewall6 /etc/ferm
         printf '#!/bin/sh\nexec \"$@\"\n' > /run/bin/sudo; chmod +x /run/bin/sudo",
    );
    for (unit, file) in [
        ("shorewall", "/etc/shorewall/started"),
        ("shorewall6", "/etc/shorewall6/started"),
        ("ferm", "/etc/ferm/ferm.conf"),
        (
            "firehol",
            "/etc/systemd/system/firehol.service.d/nvactl.conf",
        ),
    ] {
        enable(&host, unit);
        let (reason, fix) = boot_order(&host).expect("it is told");
        assert!(
            reason.starts_with(&format!("{unit} starts at boot")),
            "{reason}"
        );
        assert!(fix.starts_with("sudo nvactl boot enable && "), "{fix}");
        // The unit alone is not behind it.
        enable(&host, "nvactl");
        let (_, fix) = boot_order(&host).expect("it is told");
        assert!(!fix.contains("boot enable"), "{fix}");
        host.shell(&fix);
        let written = host.run(&format!("cat {file}"));
        assert!(written.contains("systemctl restart nvactl"), "{written}");
        assert_eq!(boot_order(&host), None, "{unit}");
        disable(&host, "nvactl");
        disable(&host, unit);
    }
    enable(&host, "nvactl");
    enable(&host, "foomuuri");
    let (reason, fix) = boot_order(&host).expect("it is told");
    assert!(reason.contains("drops forwarded packets"), "{reason}");
    assert!(fix.contains("ct_status dnat accept"), "{fix}");
}

lab_test!(either no_advice_uninstalls_another_manager);
/// Installing iptables-persistent beside ufw removes ufw, and every policy is ACCEPT then.
fn no_advice_uninstalls_another_manager(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    host.shell("mkdir -p /run/share && mount --bind /run/share /usr/share");
    let advice = || {
        let persist = nvactl(&host, &["persist"], "");
        assert_eq!(persist.code, 0, "{persist:?}");
        let status = nvactl(&host, &["status", "-"], SPEC);
        let (checks, mut doctor) = (doctor(&host, "persistence"), String::new());
        for (status, reason, fix) in checks {
            assert_eq!(status, "warn", "{reason}");
            assert_eq!(fix.as_deref(), Some("sudo nvactl boot enable"), "{reason}");
            doctor += &reason;
        }
        [persist.stderr, status.stdout, doctor]
    };
    for said in &advice() {
        assert!(
            said.contains("iptables-persistent is not installed"),
            "{said}"
        );
    }
    let [persist, ..] = advice();
    assert!(
        persist.contains("sudo nvactl boot enable\n  or: sudo apt-get install iptables-persistent"),
        "{persist}"
    );
    for name in ["ufw", "firewalld"] {
        // It is installed, and not enabled.
        let unit = format!("/etc/systemd/system/{name}.service");
        host.run(&format!("touch {unit}"));
        for said in &advice() {
            let why = format!("{name} is installed, and iptables-persistent conflicts with it");
            assert!(said.contains(&why), "{said}");
            assert!(!said.contains("apt-get"), "{said}");
        }
        host.run(&format!("rm {unit}"));
    }
}
