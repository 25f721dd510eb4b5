//! The scripts by which a package is removed: their refusals, messages and deletions.
//! `tests/package` has dpkg run them.

use crate::confirm::{apply_for, has_watchdog, waits};
use crate::fake::{fake, unfake};
use crate::firewall::{SPEC, apply, firewall};
use crate::lab::{Backend, Said, save};
use crate::namespace::{Host, wait_for};
use crate::nvactl;
use crate::pages::root;

fn script(host: &Host, name: &str, action: &str) -> Said {
    let path = root().join("packaging/scripts").join(name);
    let path = path.to_str().expect("it is UTF-8");
    Said::from(host.feed("sh", &[path, action], ""))
}

/// A firewall on which nvactl is installed.
fn installed(backend: Backend) -> Host {
    let host = firewall(backend);
    let nvactl = env!("CARGO_BIN_EXE_nvactl");
    host.run(&format!("ln -s {nvactl} /run/bin/nvactl"));
    host
}

lab_test!(a_removal_is_refused_while_a_change_waits);
fn a_removal_is_refused_while_a_change_waits(backend: Backend) {
    let host = installed(backend);
    let said = script(&host, "prerm", "remove");
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:?}");
    assert!(!host.exists("/var/lib/nvactl"), "looking has made it");

    apply(&host, SPEC);
    apply_for(&host, "600");
    let loaded = save(&host);
    assert_eq!(script(&host, "prerm", "upgrade").code, 0);
    let said = script(&host, "prerm", "remove");
    let refused = "nvactl: not removed: change 2 (apply <stdin>) is loaded, and is undone in ";
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.starts_with(refused), "{said:?}");

    host.shell("echo garbage > /var/lib/nvactl/pending-*.json");
    let said = script(&host, "prerm", "remove");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.stderr.contains(": sudo nvactl confirm --cancel\n"),
        "{said:?}"
    );
    assert_eq!(save(&host), loaded);
    assert!(waits(&host));
    nvactl(&host, &["confirm", "--cancel"], "");
    wait_for("the watchdog is done", || !has_watchdog(&host));
}

lab_test!(a_removal_leaves_the_rules_and_says_how_to_remove_them);
fn a_removal_leaves_the_rules_and_says_how_to_remove_them(backend: Backend) {
    let host = installed(backend);
    apply(&host, SPEC);
    let loaded = save(&host);
    assert_eq!(nvactl(&host, &["persist"], "").code, 0);
    host.shell(
        "mkdir -p /etc/systemd/system/sysinit.target.wants
         ln -s /usr/lib/systemd/system/nvactl.service /etc/systemd/system/sysinit.target.wants",
    );
    let said = script(&host, "prerm", "remove");
    assert_eq!(said.code, 0, "{said:?}");
    for told in [
        "nvactl: the iptables rules of nvactl stay loaded until the next boot",
        "nvactl:   nvactl remove\n",
        "nvactl: the files in /etc/iptables hold rules of nvactl",
        "nvactl: nvactl.service was enabled: nothing loads the rules at the next boot",
    ] {
        assert!(said.stderr.contains(told), "{told}: {said:?}");
    }
    assert_eq!(save(&host), loaded);

    for broken in ["exit 127", "exec sleep 600"] {
        fake(&host, "nvactl", broken);
        // The script's own limit is some seconds.
        host.shell(
            "printf '#!/bin/sh\\nshift; exec /usr/bin/timeout 0.1 \"$@\"\\n' > /run/bin/timeout
             chmod +x /run/bin/timeout",
        );
        let said = script(&host, "prerm", "remove");
        assert_eq!(said.code, 0, "{broken}: {said:?}");
        let told = "could not find out whether a change waits for its confirmation";
        assert!(said.stderr.contains(told), "{broken}: {said:?}");
        unfake(&host, "nvactl");
    }
}

lab_test!(a_purge_deletes_all_but_the_specs);
fn a_purge_deletes_all_but_the_specs(backend: Backend) {
    let host = installed(backend);
    apply(&host, SPEC);
    let loaded = save(&host);
    assert_eq!(
        nvactl(&host, &["sysctl", "enable", "--persist"], "").code,
        0
    );
    host.shell(
        "mkdir -p /etc/nvactl /etc/systemd/system/sysinit.target.wants
         touch /etc/nvactl/forward.yaml
         ln -s /usr/lib/systemd/system/nvactl.service /etc/systemd/system/sysinit.target.wants",
    );
    let files = "find /var/lib/nvactl /etc/sysctl.d/99-nvactl.conf /etc/nvactl /etc/systemd \
                 -name '*nvactl*' -o -name forward.yaml 2>/dev/null || true";
    let before = host.shell(files);
    assert_eq!(script(&host, "postrm", "remove").code, 0);
    assert_eq!(host.shell(files), before);
    assert_eq!(script(&host, "postrm", "purge").code, 0);
    assert_eq!(host.shell(files), "/etc/nvactl\n/etc/nvactl/forward.yaml\n");
    assert_eq!(save(&host), loaded);
    host.run("rm /etc/nvactl/forward.yaml");
    assert_eq!(script(&host, "postrm", "purge").code, 0);
    assert!(!host.exists("/etc/nvactl"));
}
