//! IPv6 that cannot be read or written keeps nobody from forwarding IPv4.

use crate::confirm::{has_watchdog, waits};
use crate::firewall::{apply, firewall};
use crate::ipv6::{BOTH, ONLY_V4};
use crate::lab::{Backend, Said, save, save_v6};
use crate::namespace::{Host, wait_for};
use crate::nvactl;

const PROGRAMS: [&str; 9] = [
    "ip6tables",
    "ip6tables-save",
    "ip6tables-restore",
    "ip6tables-nft",
    "ip6tables-nft-save",
    "ip6tables-nft-restore",
    "ip6tables-legacy",
    "ip6tables-legacy-save",
    "ip6tables-legacy-restore",
];

/// What becomes of the IPv6 programs.
#[derive(Debug, Clone, Copy)]
enum Broken {
    /// The kernel has no IPv6 tables any more.
    Failing,
    /// They are not installed.
    Missing,
}

fn break_v6(host: &Host, how: Broken) {
    host.run("cp -a /run/bin /run/working");
    for name in PROGRAMS {
        host.shell(&format!("rm -f /run/bin/{name}"));
        if matches!(how, Broken::Failing) {
            host.shell(&format!(
                "cat > /run/bin/{name} <<'END'
#!/bin/sh
echo \"{name}: can't initialize ip6tables table \\`filter': Address family not supported by protocol\" >&2
exit 3
END
                 chmod +x /run/bin/{name}"
            ));
        }
    }
    if matches!(how, Broken::Missing) {
        // The plain names would be found in /usr/sbin, and so would the backends' own.
        host.shell(
            "mkdir /run/sbin; cp -a /usr/sbin/. /run/sbin; rm -f /run/sbin/ip6tables*
             mount --bind /run/sbin /usr/sbin",
        );
    }
}

fn repair_v6(host: &Host, how: Broken) {
    host.shell("rm -r /run/bin; mv /run/working /run/bin");
    if matches!(how, Broken::Missing) {
        host.run("umount --lazy /usr/sbin");
    }
}

/// A firewall that has forwarded both families, on which IPv6 is broken since.
fn broken(backend: Backend, how: Broken) -> Host {
    let host = firewall(backend);
    apply(&host, BOTH);
    break_v6(&host, how);
    host
}

/// Runs a command that changes IPv4: it is done, and IPv6 is reported as left. Whether that is an
/// uncertain end is for the command to say.
fn goes_on(host: &Host, args: &[&str], spec: &str) -> Said {
    let said = nvactl(host, args, spec);
    assert!([0, 3].contains(&said.code), "{args:?}: {said:?}");
    let warnings = said.stderr.lines();
    let mut warnings = warnings.filter(|line| line.starts_with("warning: "));
    assert!(
        warnings.any(|line| line.contains("IPv6") || line.contains("ip6tables")),
        "{args:?} does not say that IPv6 was left: {said:?}"
    );
    said
}

lab_test!(either ipv4_is_changed_without_ipv6);
fn ipv4_is_changed_without_ipv6(backend: Backend) {
    for how in [Broken::Failing, Broken::Missing] {
        let host = broken(backend, how);
        let first = save(&host);
        let changed = ONLY_V4.replace("49182", "49183");
        let said = goes_on(&host, &["apply", "-", "--no-trial"], &changed);
        assert_eq!(said.code, 0, "{how:?}: {said:?}");
        let second = save(&host);
        assert!(second.contains("--dport 49183"), "{how:?}: {second}");

        // The next ones as well: nothing has been forgotten.
        let said = goes_on(&host, &["apply", "-", "--no-trial"], &changed);
        assert!(said.stdout.contains("no changes"), "{how:?}: {said:?}");
        // This one has not touched IPv6, so there is nothing to warn of.
        let said = nvactl(&host, &["rollback"], "");
        assert_eq!(said.code, 0, "{how:?}: {said:?}");
        assert_eq!(save(&host), first, "{how:?}");
        goes_on(&host, &["apply", "-", "--no-trial"], &changed);
        goes_on(&host, &["remove"], "");
        assert!(!save(&host).contains("NVACTL"), "{how:?}");

        // As soon as IPv6 can be read its rules are found, and go.
        repair_v6(&host, how);
        assert!(save_v6(&host).contains("comment web6"), "{how:?}");
        apply(&host, ONLY_V4);
        assert!(!save_v6(&host).contains("NVACTL"), "{how:?}");
    }
}

lab_test!(either ipv4_is_rolled_back_without_ipv6);
/// The change that is rolled back had touched both families.
fn ipv4_is_rolled_back_without_ipv6(backend: Backend) {
    for how in [Broken::Failing, Broken::Missing] {
        let host = firewall(backend);
        apply(&host, ONLY_V4);
        let first = save(&host);
        apply(&host, &BOTH.replace("49182", "49183"));
        break_v6(&host, how);
        goes_on(&host, &["rollback"], "");
        assert_eq!(save(&host), first, "{how:?}");
        repair_v6(&host, how);
        assert!(save_v6(&host).contains("comment web6"), "{how:?}");
        // Nothing has been forgotten.
        apply(&host, ONLY_V4);
        assert!(!save_v6(&host).contains("NVACTL"), "{how:?}");
    }
}

lab_test!(either ipv4_is_reported_without_ipv6);
fn ipv4_is_reported_without_ipv6(backend: Backend) {
    for how in [Broken::Failing, Broken::Missing] {
        let host = broken(backend, how);
        goes_on(&host, &["apply", "-", "--no-trial"], ONLY_V4);
        let said = nvactl(&host, &["diff", "-"], ONLY_V4);
        assert_eq!(said.code, 0, "{how:?}: {said:?}");
        let said = nvactl(&host, &["diff", "-"], &ONLY_V4.replace("49182", "49183"));
        assert_eq!(said.code, 1, "{how:?}: {said:?}");
        let said = nvactl(&host, &["status", "-"], ONLY_V4);
        assert_eq!(said.code, 0, "{how:?}: {said:?}");
        assert!(said.stdout.contains("web"), "{how:?}: {said:?}");
        let said = nvactl(&host, &["doctor", "-", "--timeout", "0.1"], ONLY_V4);
        assert!([0, 1].contains(&said.code), "{how:?}: {said:?}");
        assert_eq!(nvactl(&host, &["history"], "").code, 0);
        // A dry run says the same as the change.
        let said = nvactl(&host, &["apply", "-", "--dry-run"], ONLY_V4);
        assert_eq!(said.code, 0, "{how:?}: {said:?}");
    }
}

lab_test!(either ipv4_is_persisted_without_ipv6);
fn ipv4_is_persisted_without_ipv6(backend: Backend) {
    for how in [Broken::Failing, Broken::Missing] {
        for args in [&["persist", "-"][..], &["persist"]] {
            let host = broken(backend, how);
            goes_on(&host, &["apply", "-", "--no-trial"], ONLY_V4);
            goes_on(&host, args, ONLY_V4);
            let kept = host.run("cat /etc/iptables/rules.v4");
            assert!(kept.contains("comment web "), "{how:?} {args:?}: {kept}");
        }
    }
}

lab_test!(either ipv4_is_confirmed_without_ipv6);
fn ipv4_is_confirmed_without_ipv6(backend: Backend) {
    for how in [Broken::Failing, Broken::Missing] {
        for (answer, kept) in [
            (Some(&["confirm"][..]), true),
            (Some(&["confirm", "--cancel"]), false),
            (None, false),
        ] {
            let host = broken(backend, how);
            let before = save(&host);
            let changed = ONLY_V4.replace("49182", "49183");
            let seconds = if answer.is_some() { "600" } else { "1" };
            goes_on(
                &host,
                &["apply", "-", "--no-trial", "--confirm", seconds],
                &changed,
            );
            if let Some(args) = answer {
                let said = nvactl(&host, args, "");
                assert_eq!(said.code, 0, "{how:?} {args:?}: {said:?}");
            }
            wait_for("the watchdog is done", || {
                !has_watchdog(&host) && !waits(&host)
            });
            assert_eq!(save(&host) != before, kept, "{how:?} {answer:?}");
        }
    }
}

lab_test!(either ipv4_is_undone_without_ipv6);
/// IPv6 went after the change was made: what IPv4 had before comes back.
fn ipv4_is_undone_without_ipv6(backend: Backend) {
    for how in [Broken::Failing, Broken::Missing] {
        for cancels in [true, false] {
            let host = firewall(backend);
            apply(&host, BOTH);
            let before = save(&host);
            let changed = BOTH.replace("49182", "49183");
            let seconds = if cancels { "600" } else { "3" };
            let said = nvactl(
                &host,
                &["apply", "-", "--no-trial", "--confirm", seconds],
                &changed,
            );
            assert_eq!(said.code, 0, "{said:?}");
            break_v6(&host, how);
            if cancels {
                goes_on(&host, &["confirm", "--cancel"], "");
            }
            wait_for("IPv4 is as it was", || save(&host) == before);
            // Once IPv6 can be written again, either the watchdog or another cancel finishes it.
            repair_v6(&host, how);
            if cancels && waits(&host) {
                assert_eq!(nvactl(&host, &["confirm", "--cancel"], "").code, 0);
            }
            wait_for("nothing waits", || !has_watchdog(&host) && !waits(&host));
            apply(&host, BOTH);
            assert_eq!(save(&host), before, "{how:?}");
        }
    }
}

lab_test!(either a_spec_with_ipv6_is_refused);
/// Where the spec has IPv6 forwards, there is nothing to go on with.
fn a_spec_with_ipv6_is_refused(backend: Backend) {
    for how in [Broken::Failing, Broken::Missing] {
        let host = broken(backend, how);
        let before = save(&host);
        let said = nvactl(
            &host,
            &["apply", "-", "--no-trial"],
            &BOTH.replace("49182", "49183"),
        );
        assert_eq!(said.code, 2, "{how:?}: {said:?}");
        assert!(said.stderr.contains("ip6tables"), "{how:?}: {said:?}");
        assert_eq!(save(&host), before, "{how:?}");
    }
}
