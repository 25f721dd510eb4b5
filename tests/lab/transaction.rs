//! A change is made whole or not at all, and what was there before can be had back.

use std::process::Stdio;

use crate::fake::{fake, unfake};
use crate::firewall::{SPEC, apply, firewall, load};
use crate::lab::{Backend, Said, save};
use crate::namespace::{Host, wait_for};
use crate::nvactl;

/// `-j DNAT` in POSTROUTING: `--test` lets it pass, and the kernel refuses it.
const REFUSED_BY_THE_KERNEL: &str = "sed '/49183 .*comment web -j SNAT/s/-j SNAT --to-source/-j DNAT --to-destination/' | real \"$@\"";

lab_test!(a_rule_that_the_kernel_refuses_is_named_with_its_forward);
fn a_rule_that_the_kernel_refuses_is_named_with_its_forward(backend: Backend) {
    let host = firewall(backend);
    let changed = SPEC.replace("49182", "49183").replace("games", "play");
    for before in [None, Some(SPEC)] {
        if let Some(spec) = before {
            apply(&host, spec);
        }
        let saved = save(&host);
        fake(&host, "iptables-restore", REFUSED_BY_THE_KERNEL);
        for args in [&["apply", "-"][..], &["apply", "-", "--no-trial"]] {
            let said = nvactl(&host, args, &changed);
            assert_eq!(said.code, 2, "{said:?}");
            let tried = args.len() == 2;
            assert_eq!(
                said.stderr.contains("the kernel refuses"),
                tried,
                "{said:?}"
            );
            // Without a trial, legacy does not say which rule it was.
            if tried || backend == Backend::Nft {
                assert!(said.stderr.contains("a rule of `web`"), "{said:?}");
                assert!(said.stderr.contains("--dport 80 -m conntrack"), "{said:?}");
            }
            assert!(
                said.stderr
                    .contains("`iptables-restore --noflush -w 30` failed: "),
                "{said:?}"
            );
            assert_eq!(rules(&save(&host)), rules(&saved));
        }
        unfake(&host, "iptables-restore");
    }
    apply(&host, &changed);
}

/// Without the tables that are listed once somebody has looked into them.
fn rules(saved: &str) -> Vec<&str> {
    let unused = |line: &&str| {
        !(line.starts_with('*') || line.ends_with("ACCEPT [0:0]") || *line == "COMMIT")
    };
    saved.lines().filter(unused).collect()
}

lab_test!(unchanged_rules_are_not_tried);
/// A line of others that does not load in the trial is no reason to refuse the change.
fn unchanged_rules_are_not_tried(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    host.run("iptables -N MINE");
    host.run("iptables -I NVACTL-FORWARD 1 -j MINE");
    let said = nvactl(&host, &["apply", "-"], &SPEC.replace("49182", "49183"));
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!save(&host).contains("-j MINE"), "drift is mended");
}

lab_test!(only_changed_rules_are_read_back);
/// Where others have many rules, a look at everything would take longer than the change.
fn only_changed_rules_are_read_back(backend: Backend) {
    let host = firewall(backend);
    let foreign: String = (1..200)
        .map(|n| format!("-A INPUT -s 192.0.2.{n}/32 -j ACCEPT\n"))
        .collect();
    load(&host, &format!("*filter\n{foreign}COMMIT\n"));
    let looks = |said: &Said| {
        let ran = said
            .stderr
            .lines()
            .filter(|line| line.starts_with("DEBUG ran"));
        let looks = ran.filter(|line| line.contains("\"iptables-save\""));
        let lists = said.stderr.matches("\"-S\"").count();
        (looks.count(), lists)
    };
    let changed = |port: &str| SPEC.replace("49182", port);

    // Three chains of nvactl, and those that lead to them.
    let said = nvactl(&host, &["-v", "apply", "-"], SPEC);
    assert_eq!((said.code, looks(&said)), (0, (1, 6)), "{said:?}");
    let said = nvactl(&host, &["-v", "apply", "-"], &changed("49183"));
    assert_eq!((said.code, looks(&said)), (0, (1, 6)), "{said:?}");

    // What did not take is undone.
    let before = save(&host);
    fake(
        &host,
        "iptables-restore",
        "if mkdir /run/first 2>/dev/null; then sed '/web -j SNAT/d'; else cat; fi | real \"$@\"",
    );
    let said = nvactl(
        &host,
        &["-v", "apply", "-", "--no-trial"],
        &changed("49184"),
    );
    assert_eq!((said.code, looks(&said)), (2, (3, 6)), "{said:?}");
    assert!(
        said.stderr
            .contains("are not the new ones; the old rules are loaded:\n"),
        "{said:?}"
    );
    unfake(&host, "iptables-restore");
    assert_eq!(save(&host), before);

    // Where a chain cannot be listed everything is looked at.
    fake(
        &host,
        "iptables",
        "case \"$*\" in *-S*) exit 1;; esac; real \"$@\"",
    );
    let said = nvactl(&host, &["-v", "apply", "-"], &changed("49185"));
    assert_eq!((said.code, looks(&said)), (0, (2, 1)), "{said:?}");
}

lab_test!(each_change_can_be_rolled_back);
fn each_change_can_be_rolled_back(backend: Backend) {
    let host = firewall(backend);
    let empty = save(&host);
    let states: Vec<String> = ["49182", "49183", "49184"]
        .map(|port| {
            apply(&host, &SPEC.replace("49182", port));
            save(&host)
        })
        .to_vec();
    // Nothing to do is nothing to remember.
    apply(&host, &SPEC.replace("49182", "49184"));
    let history = |host: &Host| nvactl(host, &["history"], "").stdout;
    let numbers = |text: &str| -> Vec<u64> {
        let first = |line: &str| line.split_whitespace().next()?.parse().ok();
        text.lines().filter_map(first).collect()
    };
    assert_eq!(numbers(&history(&host)), [3, 2, 1]);

    let said = nvactl(&host, &["rollback", "--dry-run"], "");
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(save(&host), states[2]);
    let rollback = |n: &str| {
        let said = nvactl(&host, &["rollback", n], "");
        assert_eq!(said.code, 0, "{said:?}");
        // With nothing loaded and nothing saved the next boot brings the same.
        assert_eq!(
            said.stderr.contains("are lost at the next boot"),
            save(&host).contains("NVACTL"),
            "{said:?}"
        );
    };
    rollback("3");
    assert_eq!(save(&host), states[1]);
    // The way back is a change, which can be taken back.
    assert!(
        history(&host)
            .lines()
            .next()
            .is_some_and(|line| line.contains("rollback 3"))
    );
    rollback("4");
    assert_eq!(save(&host), states[2]);
    rollback("2");
    assert_eq!(save(&host), states[0]);
    // Before the first one there was nothing of nvactl, and FORWARD accepted.
    rollback("1");
    assert_eq!(rules(&save(&host)), rules(&empty));
    for n in ["0", "99"] {
        let said = nvactl(&host, &["rollback", n], "");
        assert_eq!(said.code, 2, "{said:?}");
    }
    assert_eq!(host.run("stat -c %a /var/lib/nvactl"), "700\n");
}

lab_test!(rollback_leaves_a_policy_that_nvactl_never_set);
/// A policy that no change has set is not set back.
fn rollback_leaves_a_policy_that_nvactl_never_set(backend: Backend) {
    let host = firewall(backend);
    let keep = SPEC.replace("10.3.0.4}", "10.3.0.4, forward_policy: keep}");
    apply(&host, &keep);
    apply(&host, &keep.replace("49182", "49183"));
    host.run("iptables -P FORWARD DROP");
    assert_eq!(nvactl(&host, &["rollback", "1"], "").code, 0);
    let saved = save(&host);
    assert!(
        saved.contains(":FORWARD DROP") && !saved.contains("NVACTL"),
        "{saved}"
    );
}

lab_test!(a_failed_change_is_not_recorded);
/// What was refused is nothing to go back behind.
fn a_failed_change_is_not_recorded(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    fake(&host, "iptables-restore", "exit 1");
    let said = nvactl(&host, &["apply", "-"], &SPEC.replace("49182", "49183"));
    assert_eq!(said.code, 2, "{said:?}");
    unfake(&host, "iptables-restore");
    assert_eq!(nvactl(&host, &["rollback"], "").code, 0);
    assert!(!save(&host).contains("NVACTL"));
}

lab_test!(the_last_twenty_states_are_kept);
fn the_last_twenty_states_are_kept(backend: Backend) {
    let host = firewall(backend);
    for n in 0..23 {
        let said = nvactl(
            &host,
            &["apply", "-", "--no-trial"],
            &SPEC.replace("49182", &format!("{}", 50000 + n)),
        );
        assert_eq!(said.code, 0, "{said:?}");
    }
    assert_eq!(nvactl(&host, &["history"], "").stdout.lines().count(), 20);
    assert_eq!(
        host.shell("ls /var/lib/nvactl/history/*").lines().count(),
        20
    );
}

lab_test!(the_record_of_another_namespace_is_ignored);
fn the_record_of_another_namespace_is_ignored(backend: Backend) {
    let (host, other) = (firewall(backend), firewall(backend));
    apply(&host, SPEC);
    // The other one's folder is this one's, as where two namespaces share a machine's disk.
    other.shell(&format!(
        "mkdir -p /var/lib/nvactl; cp -a /proc/{}/root/var/lib/nvactl/. /var/lib/nvactl",
        host.pid()
    ));
    let said = nvactl(&other, &["history"], "");
    let mut lines = said.stdout.lines();
    assert_eq!(lines.next(), Some("no changes yet"));
    let stranger = lines.next().unwrap_or_default();
    assert!(stranger.contains("another network namespace"), "{said:?}");
    assert_eq!(nvactl(&other, &["rollback"], "").code, 2);
}

lab_test!(a_damaged_state_does_not_hide_the_others);
fn a_damaged_state_does_not_hide_the_others(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    apply(&host, &SPEC.replace("49182", "49183"));
    host.shell(
        "for file in /var/lib/nvactl/history/*/00000001.json; do echo garbage > $file; done",
    );
    let said = nvactl(&host, &["history"], "");
    assert_eq!((said.code, said.stdout.lines().count()), (0, 1), "{said:?}");
    assert!(
        said.stderr
            .contains("change 1 cannot be read and is skipped"),
        "{said:?}"
    );
    assert_eq!(nvactl(&host, &["rollback"], "").code, 0);
    assert!(save(&host).contains("49182"));
}

lab_test!(nothing_is_changed_if_history_cannot_be_written);
/// The state before must be on disk before the change is made.
fn nothing_is_changed_if_history_cannot_be_written(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    let changed = SPEC.replace("49182", "49183");
    for (make, words) in [
        (
            "mount -t tmpfs -o size=8k,mode=700 tmpfs /var/lib/nvactl; head -c 100000 /dev/zero > /var/lib/nvactl/x || true",
            "No space left",
        ),
        (
            "mount -o remount,ro /var/lib/nvactl",
            "Read-only file system",
        ),
    ] {
        host.shell(make);
        let said = nvactl(&host, &["apply", "-"], &changed);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.stderr.contains(words), "{said:?}");
        assert_eq!(save(&host), before);
    }
    // Another folder will do.
    let said = nvactl(
        &host,
        &["--state-dir", "/run/state", "apply", "-"],
        &changed,
    );
    assert_eq!(said.code, 0, "{said:?}");
}

lab_test!(the_holder_of_the_lock_is_named);
fn the_holder_of_the_lock_is_named(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    fake(
        &host,
        "iptables-restore",
        "touch /run/loading; while [ ! -e /run/go ]; do sleep 0.05; done; real \"$@\"",
    );
    let mut first = host
        .command(env!("CARGO_BIN_EXE_nvactl"))
        .args(["remove"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    wait_for("the first is loading", || host.exists("/run/loading"));
    let said = nvactl(
        &host,
        &["apply", "-", "--lock-timeout", "1"],
        &SPEC.replace("49182", "49183"),
    );
    assert_eq!(said.code, 2, "{said:?}");
    let holder = format!("another nvactl (process {}, nvactl remove)", first.id());
    assert!(said.stderr.contains(&holder), "{said:?}");
    assert_eq!(save(&host), before);
    host.run("touch /run/go");
    assert!(first.wait().expect("it ends").success());
    assert!(!save(&host).contains("NVACTL"));
}

lab_test!(a_signal_leaves_the_old_or_the_new_state);
/// A signal in the middle: the change is carried through.
fn a_signal_leaves_the_old_or_the_new_state(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    for signal in ["INT", "TERM", "HUP"] {
        let port = format!(
            "{}",
            50000 + signal.len() * 100 + usize::from(signal.as_bytes()[0])
        );
        host.shell("rm -f /run/loading /run/go");
        fake(
            &host,
            "iptables-restore",
            "touch /run/loading; while [ ! -e /run/go ]; do sleep 0.05; done; real \"$@\"",
        );
        host.feed(
            "sh",
            &["-c", "cat > /run/spec.yaml"],
            &SPEC.replace("49182", &port),
        );
        let run = host
            .command(env!("CARGO_BIN_EXE_nvactl"))
            .args(["apply", "/run/spec.yaml", "--no-trial"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        wait_for("it is loading", || host.exists("/run/loading"));
        host.run(&format!("kill -{signal} {}", run.id()));
        host.run("touch /run/go");
        let said = Said::from(run.wait_with_output().expect("it ends"));
        assert_eq!(said.code, 0, "{signal}: {said:?}");
        unfake(&host, "iptables-restore");
        assert!(save(&host).contains(&format!("--dport {port}")), "{signal}");
        assert_eq!(
            nvactl(&host, &["apply", "--dry-run", "/run/spec.yaml"], "").code,
            0,
            "{signal}"
        );
    }
}

lab_test!(a_failed_undo_leaves_a_script_that_restores_the_rules);
/// What is loaded now and how to mend it, when even undoing fails.
fn a_failed_undo_leaves_a_script_that_restores_the_rules(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    // Every table but the last is loaded, and then it says that it failed: twice.
    fake(
        &host,
        "iptables-restore",
        "sed '/^COMMIT/q' > /run/script; real \"$@\" < /run/script; echo refused >&2; exit 1",
    );
    let said = nvactl(
        &host,
        &["apply", "-", "--no-trial"],
        &SPEC.replace("10.224.0.118:80", "10.224.0.119:80"),
    );
    unfake(&host, "iptables-restore");
    // The first table of the undo was loaded as well, so this one ends well.
    assert_eq!((said.code, save(&host) == before), (2, true), "{said:?}");

    fake(
        &host,
        "iptables-restore",
        "if mkdir /run/first 2>/dev/null; then sed '/^COMMIT/q' > /run/script; real \"$@\" < /run/script; fi; echo refused >&2; exit 1",
    );
    let said = nvactl(
        &host,
        &["apply", "-", "--no-trial"],
        &SPEC.replace("10.224.0.118:80", "10.224.0.119:80"),
    );
    unfake(&host, "iptables-restore");
    assert_eq!(said.code, 3, "{said:?}");
    assert_ne!(save(&host), before, "it is the truth");
    assert!(
        said.stderr
            .contains("- -A NVACTL-FORWARD -d 10.224.0.119/32"),
        "{said:?}"
    );
    let hint = said
        .stderr
        .lines()
        .find_map(|line| line.strip_prefix("hint: to restore the old rules: sudo "));
    host.shell(hint.expect("there is a command"));
    assert_eq!(save(&host), before);
}
