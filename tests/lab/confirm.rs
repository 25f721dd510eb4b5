//! `apply --confirm`: what is loaded when nobody answers, whoever dies in between.

use std::fs;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use crate::fake::{fake, unfake};
use crate::firewall::{SPEC, apply, firewall};
use crate::lab::{Backend, Said, save};
use crate::namespace::{Host, wait_for};
use crate::nvactl;

const NVACTL: &str = env!("CARGO_BIN_EXE_nvactl");

pub fn changed() -> String {
    SPEC.replace("49182", "49183").replace("games", "play")
}

/// Applies the changed spec for so many seconds.
pub fn apply_for(host: &Host, seconds: &str) -> Said {
    let args = ["apply", "-", "--no-trial", "--confirm", seconds];
    let said = nvactl(host, &args, &changed());
    assert_eq!(said.code, 0, "{said:?}");
    said
}

/// Whether a watchdog runs on this host: processes are seen from all hosts of the lab.
pub fn has_watchdog(host: &Host) -> bool {
    !watchdogs(host).is_empty()
}

pub fn watchdogs(host: &Host) -> Vec<String> {
    let net = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let here = net(&host.pid());
    let processes = fs::read_dir("/proc").expect("it can be listed").flatten();
    let names = processes.map(|process| process.file_name().to_string_lossy().into_owned());
    names
        .filter(|process| net(process).is_some_and(|net| here.as_ref() == Some(&net)))
        .filter(|process| {
            let words = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            words
                .split(|byte| *byte == 0)
                .any(|word| word == b"watchdog")
        })
        .collect()
}

/// Whether a change is recorded as waiting.
pub fn waits(host: &Host) -> bool {
    let files = fs::read_dir(host.path("/var/lib/nvactl")).expect("nvactl has run before");
    let mut names = files.flatten().map(|file| file.file_name());
    names.any(|name| name.to_string_lossy().contains("pending-"))
}

pub fn comes_back(host: &Host, before: &str) {
    wait_for("the old rules are back", || save(host) == before);
    wait_for("the watchdog is done", || !waits(host));
}

lab_test!(either the_old_rules_return_without_an_answer);
fn the_old_rules_return_without_an_answer(backend: Backend) {
    let host = firewall(backend);
    let empty = save(&host);
    for spec in [None, Some(SPEC)] {
        if let Some(spec) = spec {
            apply(&host, spec);
        }
        let before = save(&host);
        let said = apply_for(&host, "3");
        assert!(
            said.stdout
                .contains(" s unless you confirm it\nto keep the change: sudo nvactl confirm\n"),
            "{said:?}"
        );
        wait_for("the old rules are back", || {
            let now = save(&host);
            // What was never in use is listed afterwards, empty.
            now == before
                || (spec.is_none() && !now.contains("NVACTL") && now.contains(":FORWARD ACCEPT"))
        });
        wait_for("the watchdog is done", || !waits(&host));
    }
    assert!(!empty.contains("NVACTL"));
    let said = nvactl(&host, &["confirm"], "");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr.contains("nobody confirmed it in time"),
        "{said:?}"
    );
}

lab_test!(either an_answer_from_any_session_keeps_the_change);
fn an_answer_from_any_session_keeps_the_change(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    apply_for(&host, "6");
    let after = save(&host);
    let said = nvactl(&host, &["confirm", "--status"], "");
    assert!(
        said.stdout
            .starts_with("change 2 (apply <stdin>) is loaded, and is undone in "),
        "{said:?}"
    );
    let said = nvactl(&host, &["confirm"], "");
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (0, "confirmed: apply <stdin> stays\n")
    );
    // The watchdog sees it, and its time passes.
    wait_for("no watchdog is left", || !has_watchdog(&host));
    host.run("sleep 6");
    assert_eq!(save(&host), after, "its time has passed");
    let said = nvactl(&host, &["confirm", "--status"], "");
    assert_eq!(said.stdout, "nothing is waiting for a confirmation\n");
}

lab_test!(either a_waiting_change_can_be_cancelled);
fn a_waiting_change_can_be_cancelled(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    apply_for(&host, "600");
    let said = nvactl(&host, &["confirm", "--cancel"], "");
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (0, "undone: apply <stdin>\n")
    );
    assert_eq!(save(&host), before);
    // The history says so, and going back leads to before the change before it.
    let said = nvactl(&host, &["history"], "");
    let newest = said.stdout.lines().next().unwrap_or_default();
    assert!(newest.contains("undone at"), "{said:?}");
    assert!(newest.contains("it was cancelled"), "{said:?}");
    assert_eq!(nvactl(&host, &["rollback"], "").code, 0);
    assert!(!save(&host).contains("NVACTL"));
}

lab_test!(either no_other_change_is_made_while_one_waits);
/// Who comes in between is told, and changes nothing.
fn no_other_change_is_made_while_one_waits(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    apply_for(&host, "600");
    let waiting = save(&host);
    for args in [
        &["apply", "-"][..],
        &["remove"],
        &["rollback"],
        &["persist"],
        &["persist", "-"],
        &["sysctl", "enable", "--persist"],
        &["sysctl", "disable"],
    ] {
        let said = nvactl(&host, args, SPEC);
        assert_eq!(said.code, 2, "{args:?}: {said:?}");
        assert!(
            said.stderr.contains(
                " s unless you confirm it; nothing else can change until it is confirmed or undone\n"
            ),
            "{args:?}: {said:?}"
        );
    }
    assert_eq!(save(&host), waiting);
    assert!(
        !host.exists("/etc/iptables/rules.v4"),
        "a reboot comes back with the old rules"
    );
    let said = nvactl(&host, &["diff", "-"], &changed());
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("unless you confirm it"), "{said:?}");
    assert_eq!(nvactl(&host, &["confirm"], "").code, 0);
    assert_eq!(nvactl(&host, &["persist"], "").code, 0);
}

lab_test!(either a_failed_change_leaves_nothing_to_confirm);
/// What is refused is not waited for.
fn a_failed_change_leaves_nothing_to_confirm(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    fake(&host, "iptables-restore", "exit 1");
    let said = nvactl(&host, &["apply", "-", "--confirm", "600"], &changed());
    assert_eq!(said.code, 2, "{said:?}");
    unfake(&host, "iptables-restore");
    assert_eq!(save(&host), before);
    let said = nvactl(&host, &["confirm", "--status"], "");
    assert_eq!(said.stdout, "nothing is waiting for a confirmation\n");
    let said = nvactl(&host, &["apply", "-", "--confirm", "600"], SPEC);
    assert_eq!(said.stdout, "<stdin>: no changes\n");
    assert!(!waits(&host));
}

/// Starts nvactl and leaves it running.
fn start(host: &Host, program: &str, args: &[&str]) -> Child {
    host.command(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts")
}

fn write_changed(host: &Host) {
    let written = host.feed("sh", &["-c", "cat > /run/spec.yaml"], &changed());
    assert!(written.status.success());
}

/// Applies the changed spec by an iptables-restore that does `script`, and kills nvactl as soon as
/// there is a file.
fn apply_and_kill(host: &Host, seconds: &str, script: &str, file: &str) {
    write_changed(host);
    fake(host, "iptables-restore", script);
    let args = [
        "apply",
        "/run/spec.yaml",
        "--confirm",
        seconds,
        "--no-trial",
    ];
    let mut run = start(host, NVACTL, &args);
    wait_for("it has come so far", || host.exists(file));
    run.kill().expect("it can be killed");
    run.wait().expect("it ends");
}

/// Applies the changed spec at a terminal, and does `script` once it asks; what that prints is typed.
fn apply_at_a_terminal(host: &Host, seconds: &str, script: &str) -> Output {
    write_changed(host);
    // `script` takes $SHELL or sh, and a sh that stays in between would itself end on Ctrl-C.
    let command = format!("exec {NVACTL} apply /run/spec.yaml --confirm {seconds}");
    let line = format!(
        "(for n in $(seq 400); do
           grep -q 'keep the change' /run/typescript 2>/dev/null && break; sleep 0.05
         done; {script}) | \
         script --quiet --return --flush --command '{command}' /run/typescript"
    );
    host.feed("sh", &["-c", &line], "")
}

lab_test!(either the_watchdog_outlives_apply);
/// The applying process is killed while the rules are being loaded.
fn the_watchdog_outlives_apply(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    write_changed(&host);
    fake(
        &host,
        "iptables-restore",
        "real \"$@\"; touch /run/loaded; sleep 1",
    );
    let args = ["apply", "/run/spec.yaml", "--confirm", "2", "--no-trial"];
    let mut run = start(&host, NVACTL, &args);
    wait_for("the rules are loaded", || host.exists("/run/loaded"));
    assert_ne!(save(&host), before);
    run.kill().expect("it can be killed");
    run.wait().expect("it ends");
    comes_back(&host, &before);
}

lab_test!(either the_watchdog_outlives_the_terminal);
/// A real terminal is hung up, as a closed ssh connection does it.
fn the_watchdog_outlives_the_terminal(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    write_changed(&host);
    let command = format!("{NVACTL} apply /run/spec.yaml --confirm 3");
    let mut terminal = start(
        &host,
        "script",
        &[
            "--quiet",
            "--flush",
            "--command",
            &command,
            "/run/typescript",
        ],
    );
    wait_for("it asks", || {
        let shown = host.shell("cat /run/typescript 2>/dev/null || true");
        shown.contains("keep the change? [y/N]")
    });
    assert_ne!(save(&host), before);
    // The end of the program that has the other side of the terminal is a hang-up.
    terminal.kill().expect("it can be killed");
    terminal.wait().expect("it ends");
    comes_back(&host, &before);
}

lab_test!(either apply_asks_at_a_terminal);
/// At a terminal the answer is typed.
fn apply_asks_at_a_terminal(backend: Backend) {
    for (answer, kept) in [
        ("y\n", true),
        ("YES\n", true),
        ("n\n", false),
        ("\n", false),
    ] {
        let host = firewall(backend);
        apply(&host, SPEC);
        let before = save(&host);
        let said = apply_at_a_terminal(&host, "600", &format!("printf '{answer}'; sleep 1"));
        assert_eq!(said.status.code(), Some(i32::from(!kept)), "{said:?}");
        assert_eq!(save(&host) != before, kept, "{answer:?}: {said:?}");
        assert!(!waits(&host));
    }
}

lab_test!(either ctrl_c_is_no_answer);
/// The change still waits, and the commands that decide on it are shown.
fn ctrl_c_is_no_answer(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let said = apply_at_a_terminal(&host, "600", "printf '\\003'; sleep 3");
    assert_eq!(said.status.code(), Some(3), "{said:?}");
    let shown = String::from_utf8_lossy(&said.stdout).replace('\r', "");
    let (_, after) = shown.split_once("[y/N]").expect("it asks");
    assert!(
        after.contains(" s unless you confirm it\nto keep the change: sudo nvactl confirm\n")
            && after.contains("\nto undo it now: sudo nvactl confirm --cancel\n"),
        "{shown}"
    );
    assert!(waits(&host));
    assert_eq!(nvactl(&host, &["confirm"], "").code, 0);
}

lab_test!(either systemd_is_a_second_watchdog);
/// Where systemd runs in nvactl's own namespaces, a transient timer is the watchdog.
fn systemd_is_a_second_watchdog(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    write_changed(&host);
    host.shell(
        "mkdir -p /run/systemd/system
         printf '#!/bin/sh\\nprintf \"%%s\\\\n\" \"$@\" > /run/asked\\n' > /run/bin/systemd-run
         chmod +x /run/bin/systemd-run",
    );
    // Process 1 of this namespace is the shell, in the same network and mounts.
    let pid1 = |command: &str| {
        let args = ["--pid", "--fork", "--mount-proc", "sh", "-c", command];
        host.feed("unshare", &args, "")
    };
    let said = pid1(&format!("{NVACTL} apply /run/spec.yaml --confirm 1; true"));
    assert!(said.status.success(), "{said:?}");
    assert_ne!(save(&host), before, "{said:?}");
    let asked = host.run("cat /run/asked");
    let words: Vec<&str> = asked.lines().collect();
    let unit = words
        .iter()
        .find_map(|word| word.strip_prefix("--unit=nvactl-confirm-"));
    assert!(words.contains(&"--on-active=1"), "{words:?}");
    assert_eq!(
        words[words.len() - 4..],
        [
            "--state-dir",
            "/var/lib/nvactl",
            "watchdog",
            unit.expect("it has a name")
        ]
    );
    // The timer fires.
    let start = words
        .iter()
        .position(|word| *word == "--")
        .expect("a command follows")
        + 1;
    let said = pid1(&words[start..].join(" "));
    assert!(said.status.success(), "{said:?}");
    comes_back(&host, &before);

    // A systemd that refuses is no watchdog: then there is no change.
    host.shell("printf '#!/bin/sh\\necho no >&2; exit 1\\n' > /run/bin/systemd-run");
    let said = pid1(&format!(
        "{NVACTL} apply /run/spec.yaml --confirm 1; echo $?"
    ));
    let shown = String::from_utf8_lossy(&said.stdout);
    assert!(shown.ends_with("2\n"), "{said:?}");
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(
        words.contains("could not be started by systemd"),
        "{said:?}"
    );
    assert_eq!(save(&host), before);
    assert!(!waits(&host));

    // A timer that has nothing to do any more is ended.
    host.shell(
        "printf '#!/bin/sh\\nprintf \"%%s\\\\n\" \"$@\" > /run/asked\\n' > /run/bin/systemd-run
         printf '#!/bin/sh\\necho \"$@\" > /run/ended\\n' > /run/bin/systemctl
         chmod +x /run/bin/systemctl",
    );
    let said = pid1(&format!(
        "{NVACTL} apply /run/spec.yaml --confirm 600; {NVACTL} confirm"
    ));
    assert!(said.status.success(), "{said:?}");
    let unit = host.shell("grep -o 'nvactl-confirm-.*' /run/asked");
    assert_eq!(
        host.run("cat /run/ended"),
        format!("stop --no-block {}.timer\n", unit.trim())
    );
}

lab_test!(either the_watchdog_does_not_need_a_valid_state_folder);
/// Nothing that becomes of the state folder keeps the change from being undone.
fn the_watchdog_does_not_need_a_valid_state_folder(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    for spoil in [
        "for file in /var/lib/nvactl/pending-*; do : > $file; done",
        "rm -r /var/lib/nvactl",
        "mount -t tmpfs tmpfs /var/lib",
        "mount -o remount,ro /var/lib",
    ] {
        let said = apply_for(&host, "2");
        assert!(said.stdout.contains("undone in 2 s"), "{said:?}");
        host.shell(spoil);
        wait_for("the old rules are back", || save(&host) == before);
        wait_for("no watchdog is left", || !has_watchdog(&host));
        let said = nvactl(&host, &["confirm"], "");
        assert_eq!(said.code, 2, "what is undone cannot be kept: {said:?}");
        host.shell("mount -o remount,rw /var/lib; rm -f /var/lib/nvactl/pending-*");
        // Over-mounted, it is the one below that holds the record.
        host.shell("umount /var/lib; mount -t tmpfs tmpfs /var/lib");
    }
}

lab_test!(either a_slow_load_does_not_shorten_the_time_to_answer);
/// The time runs from when the change is loaded, however long that took.
fn a_slow_load_does_not_shorten_the_time_to_answer(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    fake(&host, "iptables-restore", "sleep 6; real \"$@\"");
    let said = nvactl(
        &host,
        &["apply", "-", "--no-trial", "--confirm", "5"],
        &changed(),
    );
    assert_eq!(said.code, 0, "{said:?}");
    unfake(&host, "iptables-restore");
    let said = nvactl(&host, &["confirm"], "");
    assert_eq!(said.code, 0, "{said:?}");
}

lab_test!(either a_change_is_undone_by_the_backend_that_loaded_it);
/// What was loaded by one backend is undone there, whoever comes from wherever.
fn a_change_is_undone_by_the_backend_that_loaded_it(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    apply_for(&host, "600");
    // For the one who cancels, the plain names are the other backend.
    let other = match backend {
        Backend::Nft => "/usr/sbin/xtables-legacy-multi",
        Backend::Legacy => "/usr/sbin/xtables-nft-multi",
    };
    let names = ["iptables", "iptables-save", "iptables-restore"];
    for name in names {
        host.run(&format!("mv /run/bin/{name} /run/bin/{name}.was"));
        host.run(&format!("ln -s {other} /run/bin/{name}"));
    }
    assert_eq!(nvactl(&host, &["confirm", "--cancel"], "").code, 0);
    assert!(
        !save(&host).contains("NVACTL"),
        "the other backend was written to"
    );
    for name in names {
        host.run(&format!("mv /run/bin/{name}.was /run/bin/{name}"));
    }
    assert_eq!(save(&host), before);
}

lab_test!(either the_watchdog_waits_for_an_orphaned_load);
/// A load that outlives the one who started it holds the lock, so that nobody undoes too early.
fn the_watchdog_waits_for_an_orphaned_load(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    let slowly = "touch /run/loading; sleep 3; real \"$@\"; touch /run/loaded";
    apply_and_kill(&host, "1", slowly, "/run/loading");
    wait_for("the orphan has loaded", || host.exists("/run/loaded"));
    comes_back(&host, &before);
}

lab_test!(either a_change_without_its_watchdog_is_reported);
/// One whose watchdog was killed is told of, and can still be undone.
fn a_change_without_its_watchdog_is_reported(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    apply_for(&host, "5");
    host.run(&format!("kill -KILL {}", watchdogs(&host).join(" ")));
    let gone = "its watchdog is gone: nothing undoes the change in time";
    for args in [&["status", "-"][..], &["confirm", "--status"]] {
        let said = nvactl(&host, args, SPEC);
        assert!(said.stdout.contains(gone), "{args:?}: {said:?}");
        assert!(!said.stdout.contains("is undone in"), "{args:?}: {said:?}");
    }
    wait_for("its time is up", || {
        nvactl(&host, &["confirm", "--status"], "")
            .stdout
            .contains("is not undone yet")
    });
    let said = nvactl(&host, &["apply", "-"], SPEC);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr
            .ends_with("hint: to undo the change now: sudo nvactl confirm --cancel\n"),
        "{said:?}"
    );
    assert_eq!(nvactl(&host, &["confirm", "--cancel"], "").code, 0);
    assert_eq!(save(&host), before);
}

lab_test!(either a_change_that_cannot_be_recorded_changes_nothing);
/// With a confirmation as without one.
fn a_change_that_cannot_be_recorded_changes_nothing(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    host.shell(
        "mount -t tmpfs -o size=64k,mode=755 tmpfs /var/lib/nvactl
         head -c 1M /dev/zero > /var/lib/nvactl/full || true",
    );
    for confirm in [&[][..], &["--confirm", "600"]] {
        let args = [&["apply", "-", "--no-trial"], confirm].concat();
        let said = nvactl(&host, &args, &changed());
        assert_eq!(said.code, 2, "{args:?}: {said:?}");
        let words = "cannot be recorded, so nothing has changed";
        assert!(said.stderr.contains(words), "{args:?}: {said:?}");
        assert_eq!(save(&host), before, "{args:?}");
    }
}

lab_test!(either a_change_that_was_never_made_does_not_wait);
/// Killed between the record and the change: whoever comes next finds nothing to wait for.
fn a_change_that_was_never_made_does_not_wait(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    apply_for(&host, "600");
    host.run(&format!("kill -KILL {}", watchdogs(&host).join(" ")));
    let record = host.shell("cat /var/lib/nvactl/pending-*");
    // It is made, and waits.
    assert_eq!(nvactl(&host, &["apply", "-"], SPEC).code, 2);
    assert_eq!(nvactl(&host, &["confirm", "--cancel"], "").code, 0);
    let name = format!("pending-{}.json", {
        let link = fs::read_link(format!("/proc/{}/ns/net", host.pid())).expect("it is a link");
        let digits = |c: &char| c.is_ascii_digit();
        link.to_string_lossy()
            .chars()
            .filter(digits)
            .collect::<String>()
    });
    let written = host.feed(
        "sh",
        &["-c", &format!("cat > /var/lib/nvactl/{name}")],
        &record,
    );
    assert!(written.status.success() && waits(&host));
    let said = nvactl(&host, &["apply", "-"], SPEC);
    assert_eq!(said.stdout, "<stdin>: no changes\n", "{said:?}");
    assert!(!waits(&host));
}

lab_test!(either a_stopped_apply_does_not_keep_the_lock);
/// Stopped with the lock in its hand, by Ctrl-Z or SIGSTOP, it would keep everybody from undoing.
fn a_stopped_apply_does_not_keep_the_lock(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    write_changed(&host);
    fake(
        &host,
        "iptables-restore",
        "real \"$@\"; touch /run/loaded; while [ ! -e /run/go ]; do sleep 0.05; done",
    );
    let args = ["apply", "/run/spec.yaml", "--confirm", "1", "--no-trial"];
    let mut run = start(&host, NVACTL, &args);
    wait_for("the rules are loaded", || host.exists("/run/loaded"));
    assert_ne!(save(&host), before);
    host.run(&format!("kill -STOP {}", run.id()));
    host.run("touch /run/go");
    unfake(&host, "iptables-restore");
    comes_back(&host, &before);
    run.wait().expect("it was ended");
}

lab_test!(either a_change_is_undone_even_if_the_rules_cannot_be_read);
/// Rules that iptables cannot show came in between: what the change made is known all the same.
fn a_change_is_undone_even_if_the_rules_cannot_be_read(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    apply_for(&host, "5");
    assert_ne!(save(&host), before);
    fake(&host, "iptables-save", "exit 1");
    // The watchdog calls the backend by its own name.
    let name = match backend {
        Backend::Nft => "iptables-nft-save",
        Backend::Legacy => "iptables-legacy-save",
    };
    host.run(&format!("cp -P /run/bin/iptables-save /run/bin/{name}"));
    wait_for("the watchdog is done", || !waits(&host));
    host.run(&format!("rm /run/bin/{name}"));
    unfake(&host, "iptables-save");
    assert_eq!(save(&host), before);
}

lab_test!(either a_partial_change_cannot_be_confirmed);
/// Before the change is made whole there is nothing to keep.
fn a_partial_change_cannot_be_confirmed(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    let slowly = "real \"$@\"; touch /run/loaded; sleep 1";
    apply_and_kill(&host, "600", slowly, "/run/loaded");
    unfake(&host, "iptables-restore");
    // Nobody offers a confirmation that would be refused.
    let said = nvactl(&host, &["confirm", "--status"], "");
    assert!(
        said.stdout
            .contains(" cannot be confirmed, and is undone in ")
            && said
                .stdout
                .ends_with(" s\nto undo it now: sudo nvactl confirm --cancel\n"),
        "{said:?}"
    );
    let said = nvactl(&host, &["apply", "-"], SPEC);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr
            .ends_with("hint: to undo the change now: sudo nvactl confirm --cancel\n"),
        "{said:?}"
    );
    for report in ["diff", "status", "doctor"] {
        let said = nvactl(&host, &[report, "-"], SPEC);
        let all = said.stdout + &said.stderr;
        assert!(all.contains(" cannot be confirmed, "), "{report}: {all}");
        assert!(!all.contains("sudo nvactl confirm\n"), "{report}: {all}");
    }
    let said = nvactl(&host, &["confirm"], "");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("was not fully applied"), "{said:?}");
    assert_eq!(nvactl(&host, &["confirm", "--cancel"], "").code, 0);
    assert_eq!(save(&host), before);
}

lab_test!(either the_terminal_shows_a_decision_made_elsewhere);
/// Who is asked learns what became of it.
fn the_terminal_shows_a_decision_made_elsewhere(backend: Backend) {
    for (seconds, decide, words, code) in [
        (
            "1",
            "true",
            "not confirmed in time: the change is undone",
            1,
        ),
        (
            "600",
            "confirm",
            "confirmed in another session: the change stays",
            0,
        ),
        ("600", "confirm --cancel", "cancelled in another session", 1),
    ] {
        let host = firewall(backend);
        let decide = decide.replace("confirm", &format!("{NVACTL} confirm"));
        let decide = format!("{decide} > /dev/null; sleep 4");
        let said = apply_at_a_terminal(&host, seconds, &decide);
        let shown = String::from_utf8_lossy(&said.stdout);
        assert!(shown.contains(words), "{shown}");
        assert_eq!(said.status.code(), Some(code), "{shown}");
    }
}

lab_test!(either a_foreign_reference_does_not_prevent_the_undo);
/// Somebody leads a packet to a chain that should go: it is emptied all the same.
fn a_foreign_reference_does_not_prevent_the_undo(backend: Backend) {
    let host = firewall(backend);
    let said = nvactl(&host, &["apply", "-", "--confirm", "5"], SPEC);
    assert_eq!(said.code, 0, "{said:?}");
    host.run("iptables -A INPUT -s 192.0.2.1 -j NVACTL-FORWARD");
    wait_for("the watchdog is done", || !waits(&host));
    let saved = save(&host);
    assert!(saved.contains(":FORWARD ACCEPT"), "{saved}");
    assert!(!saved.contains("-A NVACTL"), "{saved}");
    assert!(
        saved.contains("-A INPUT -s 192.0.2.1/32 -j NVACTL-FORWARD"),
        "{saved}"
    );
}

lab_test!(either an_old_watchdog_does_not_undo_a_later_change);
/// A change whose watchdog slept through its end is none of a later one's.
fn an_old_watchdog_does_not_undo_a_later_change(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    // Long enough for a slow machine to stop the watchdog before it acts.
    apply_for(&host, "8");
    let due = Instant::now() + Duration::from_secs(8);
    let old = watchdogs(&host).join(" ");
    host.run(&format!("kill -STOP {old}"));
    assert_eq!(nvactl(&host, &["confirm", "--cancel"], "").code, 0);
    let later = SPEC.replace("49182", "49199");
    let said = nvactl(&host, &["apply", "-", "--confirm", "600"], &later);
    assert_eq!(said.code, 0, "{said:?}");
    let after = save(&host);
    wait_for("the old change is due", || Instant::now() >= due);
    host.run(&format!("kill -CONT {old}"));
    wait_for("the old one is gone", || {
        watchdogs(&host).join(" ") != old && watchdogs(&host).len() == 1
    });
    assert_eq!(save(&host), after);
    assert_eq!(nvactl(&host, &["confirm"], "").code, 0);
    assert_eq!(save(&host), after);
}
