//! `nvactl status --repair`: rules that others took away come back, and nothing else is touched.

use std::process::Stdio;

use crate::confirm::{apply_for, has_watchdog, waits};
use crate::fake::{fake, unfake};
use crate::firewall::{SPEC, apply, firewall};
use crate::lab::{Backend, FIREWALL, FIREWALL_V6, Lab, Said, save, save_v6};
use crate::namespace::{Host, possible, wait_for};
use crate::nvactl;
use crate::traffic::{answer, serve_tcp};
use crate::unread::native;

const BOTH: &str = "
firewall: {interface: eth0, snat: {v4: 10.3.0.4, v6: \"fd00:3::4\"}}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
  - {name: web6, listen: 49183, target: {pod: \"[fd00:224::118]:80\"}}
";

/// The record of repairs.
const RECORD: &str = "/var/lib/nvactl/repairs-*.json";

/// Saves the loaded rules for a unit that is only linked.
fn save_state(host: &Host) {
    host.shell(
        "mkdir -p /etc/systemd/system/sysinit.target.wants
         ln -sf /usr/lib/systemd/system/nvactl.service /etc/systemd/system/sysinit.target.wants/nvactl.service",
    );
    let said = nvactl(host, &["persist"], "");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        host.shell("ls /var/lib/nvactl").contains("saved-"),
        "{said:?}"
    );
}

/// A firewall with a spec whose rules are saved.
fn saved(backend: Backend, spec: &str) -> Host {
    let host = firewall(backend);
    apply(&host, spec);
    save_state(&host);
    host
}

/// A lab of both families with a pod that answers, whose rules are saved.
fn saved_lab(backend: Backend) -> Lab {
    let lab = Lab::dual_stack(backend);
    serve_tcp(&lab.pod, "pod", 80);
    lab.apply(BOTH);
    save_state(&lab.firewall);
    lab
}

fn repair(host: &Host) -> Said {
    nvactl(host, &["status", "--check", "--repair"], "")
}

/// Writes a text into the file that a pattern names.
fn write(host: &Host, pattern: &str, text: &str) {
    host.shell(&format!(
        "for file in {pattern}; do test -f $file; printf '{text}' > $file; done"
    ));
}

/// Puts a script in the place of a program by the name with which the saved state calls it.
fn fake_saved(host: &Host, backend: Backend, name: &str, script: &str) {
    let name = saved_name(backend, name);
    host.run(&format!("ln -sf /usr/sbin/{name} /run/bin/{name}"));
    fake(host, &name, script);
}

/// `iptables-nft-save` for `iptables-save`.
fn saved_name(backend: Backend, name: &str) -> String {
    let backend = match backend {
        Backend::Nft => "tables-nft-",
        Backend::Legacy => "tables-legacy-",
    };
    name.replacen("tables-", backend, 1)
}

/// Both families' rules.
fn rules(host: &Host) -> String {
    save(host) + &save_v6(host)
}

/// Lets further repairs begin, as if the last ones were an hour ago.
fn an_hour_later(host: &Host) {
    host.shell(&format!("perl -0pi -e 's/\\d{{9,}}/$& - 3600/ge' {RECORD}"));
}

/// Removes everything, as a restart of nftables does; with legacy tables, as its programs can.
fn flush_all(host: &Host, backend: Backend) {
    match backend {
        Backend::Nft => host.shell("nft flush ruleset"),
        Backend::Legacy => host.shell(
            "for program in iptables ip6tables; do
               for table in filter nat; do $program -t $table -F; $program -t $table -X; done
               $program -P FORWARD ACCEPT
             done",
        ),
    };
}

lab_test!(rules_that_are_gone_come_back_and_packets_pass_again);
fn rules_that_are_gone_come_back_and_packets_pass_again(backend: Backend) {
    let lab = saved_lab(backend);
    let host = &lab.firewall;
    let before = rules(host);
    let both_pass = || {
        lab.tcp(FIREWALL, 49182) == answer("pod", FIREWALL)
            && lab.tcp(FIREWALL_V6, 49183) == answer("pod", FIREWALL_V6)
    };
    assert!(both_pass());
    let said = repair(host);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!said.stderr.contains("gone"), "{said:?}");

    let all: &dyn Fn() = &|| flush_all(host, backend);
    let run = |line: &'static str| move || drop(host.run(line));
    let (filter, nat) = (run("iptables -F"), run("iptables -t nat -F"));
    let (jump, chain) = (
        run("iptables -F FORWARD"),
        run("iptables -t nat -F PREROUTING"),
    );
    let (v6, v6_nat) = (run("ip6tables -F"), run("ip6tables -t nat -F"));
    for (n, (spoil, gone)) in [
        (
            all,
            "IPv4 nat PREROUTING, filter FORWARD, nat POSTROUTING, IPv6 nat PREROUTING, filter FORWARD, nat POSTROUTING",
        ),
        (&filter, "IPv4 filter FORWARD"),
        (&nat, "IPv4 nat PREROUTING, nat POSTROUTING"),
        (&jump, "IPv4 filter FORWARD"),
        (&chain, "IPv4 nat PREROUTING"),
        (&v6, "IPv6 filter FORWARD"),
        (&v6_nat, "IPv6 nat PREROUTING, nat POSTROUTING"),
    ]
    .into_iter()
    .enumerate()
    {
        spoil();
        assert!(!both_pass(), "{gone}: nothing was taken away");
        let said = nvactl(host, &["status", "--check"], "");
        assert_eq!(said.code, 1, "{gone}: {said:?}");
        assert!(!both_pass(), "{gone}: a check repairs nothing");
        let said = repair(host);
        assert_eq!(said.code, 0, "{gone}: {said:?}");
        let told = format!("warning: nvactl's rules were gone ({gone}): the rules saved at ");
        assert!(said.stderr.contains(&told), "{told}: {said:?}");
        assert_eq!(rules(host), before, "{gone}");
        assert!(both_pass(), "{gone}");
        an_hour_later(host);
        let metrics = nvactl(host, &["status", "--format", "prometheus"], "").stdout;
        let total = format!("\nnvactl_repairs_total {}\n", n + 1);
        assert!(metrics.contains(&total), "{total}: {metrics}");
    }
    // A repair is no change that a rollback could undo.
    assert_eq!(nvactl(host, &["history"], "").stdout.lines().count(), 1);
}

lab_test!(the_rules_of_others_stay);
fn the_rules_of_others_stay(backend: Backend) {
    let host = saved(backend, SPEC);
    let before = save(&host);
    flush_all(&host, backend);
    host.shell(
        "iptables -N theirs
         iptables -A FORWARD -j theirs
         iptables -A theirs -s 192.0.2.1 -j DROP
         iptables -t nat -A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE",
    );
    assert_eq!(repair(&host).code, 0);
    let after = save(&host);
    for line in [
        "-A FORWARD -j theirs",
        "-A theirs -s 192.0.2.1/32 -j DROP",
        "-A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE",
    ] {
        assert!(after.contains(line), "{line}: {after}");
    }
    for line in before.lines().filter(|line| line.contains("NVACTL")) {
        assert!(after.contains(line), "{line}: {after}");
    }
}

lab_test!(either drift_is_reported_and_not_repaired);
fn drift_is_reported_and_not_repaired(backend: Backend) {
    let host = saved(backend, SPEC);
    for spoil in [
        "iptables -D NVACTL-FORWARD 2",
        "iptables -I NVACTL-FORWARD 1 -s 192.0.2.1 -j DROP",
        "iptables -t nat -R NVACTL-PREROUTING 1 -j ACCEPT",
        "iptables -P FORWARD ACCEPT",
        "iptables -I FORWARD 1 -j DROP",
    ] {
        host.run(spoil);
        let spoilt = save(&host);
        let said = repair(&host);
        assert_eq!(said.code, 1, "{spoil}: {said:?}");
        assert!(!said.stderr.contains("gone"), "{spoil}: {said:?}");
        assert_eq!(save(&host), spoilt, "{spoil}");
        host.shell("iptables -D FORWARD -j DROP 2> /dev/null || true");
        apply(&host, SPEC);
    }
    assert!(!host.shell("ls /var/lib/nvactl").contains("repairs-"));
}

lab_test!(either drift_in_the_other_family_stays);
fn drift_in_the_other_family_stays(backend: Backend) {
    let host = saved(backend, BOTH);
    host.run("ip6tables -I NVACTL-FORWARD 1 -s 2001:db8::1 -j DROP");
    let spoilt = save_v6(&host);
    host.run("iptables -F");
    let said = repair(&host);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.stderr.contains("were gone (IPv4 filter FORWARD)"),
        "{said:?}"
    );
    assert_eq!(save_v6(&host), spoilt);
    host.run("iptables -I NVACTL-FORWARD 1 -s 192.0.2.1 -j DROP");
    let spoilt = save(&host);
    host.run("ip6tables -F");
    let said = repair(&host);
    assert!(
        said.stderr.contains("were gone (IPv6 filter FORWARD)"),
        "{said:?}"
    );
    assert_eq!(save(&host), spoilt);
}

lab_test!(either rules_that_the_operator_took_away_stay_away);
fn rules_that_the_operator_took_away_stay_away(backend: Backend) {
    let host = firewall(backend);
    // nvactl was never used.
    let said = nvactl(&host, &["status", "-", "--check", "--repair"], SPEC);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(!host.exists("/var/lib/nvactl"));
    apply(&host, SPEC);
    save_state(&host);
    host.shell(
        "mkdir -p /etc/systemd/system/timers.target.wants
         ln -s /usr/lib/systemd/system/nvactl-check.timer /etc/systemd/system/timers.target.wants",
    );
    for words in [&["remove"][..], &["rollback", "1"]] {
        let said = nvactl(&host, words, "");
        assert_eq!(said.code, 0, "{said:?}");
        let told = "nvactl-check.timer still checks the rules every minute, and loads none; to stop it: \
                    sudo systemctl disable --now nvactl-check.timer\n";
        assert_eq!(said.stderr.contains(told), words == ["remove"], "{said:?}");
        let removed = save(&host);
        assert!(!removed.contains("NVACTL-FORWARD"), "{removed}");
        let said = nvactl(&host, &["status", "-", "--check", "--repair"], SPEC);
        assert_eq!(said.code, 1, "{words:?}: {said:?}");
        assert!(!said.stderr.contains("gone"), "{words:?}: {said:?}");
        assert_eq!(save(&host), removed, "{words:?}");
        apply(&host, SPEC);
    }
    // A family that a later spec no longer has is not gone either.
    apply(&host, BOTH);
    save_state(&host);
    apply(&host, SPEC);
    let before = rules(&host);
    assert_eq!(repair(&host).code, 0);
    assert_eq!(rules(&host), before);
}

lab_test!(either a_change_that_waits_is_left_to_its_watchdog);
fn a_change_that_waits_is_left_to_its_watchdog(backend: Backend) {
    let host = saved(backend, SPEC);
    let before = save(&host);
    apply_for(&host, "600");
    flush_all(&host, backend);
    let flushed = rules(&host);
    let said = repair(&host);
    assert_eq!(said.code, 1, "{said:?}");
    let told = "note: no repair in this run: change 2 (apply <stdin>) is loaded";
    assert!(said.stderr.contains(told), "{said:?}");
    assert_eq!(rules(&host), flushed);
    assert!(waits(&host));
    assert_eq!(nvactl(&host, &["confirm", "--cancel"], "").code, 0);
    assert_eq!(save(&host), before);
    // An unreadable record may be that of a change that waits.
    apply_for(&host, "600");
    write(&host, "/var/lib/nvactl/pending-*.json", "garbage");
    host.run("iptables -F");
    let said = repair(&host);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr.contains("sudo nvactl confirm --cancel\n"),
        "{said:?}"
    );
    assert!(!host.shell("ls /var/lib/nvactl").contains("repairs-"));
    nvactl(&host, &["confirm", "--cancel"], "");
    wait_for("the watchdog is done", || !has_watchdog(&host));
}

lab_test!(either a_repair_does_not_wait_for_another_nvactl);
fn a_repair_does_not_wait_for_another_nvactl(backend: Backend) {
    let host = saved(backend, SPEC);
    host.run("iptables -F");
    let flushed = save(&host);
    // An apply that holds the lock until it is let go.
    host.run("mkfifo /run/gate");
    fake(
        &host,
        "iptables-restore",
        "read -r line < /run/gate; exit 1",
    );
    let written = host.feed("sh", &["-ec", "cat > /run/spec.yaml"], SPEC);
    assert!(written.status.success(), "{written:?}");
    let mut apply = host.command(env!("CARGO_BIN_EXE_nvactl"));
    apply.args(["apply", "/run/spec.yaml", "--no-trial"]);
    apply.stdin(Stdio::null()).stdout(Stdio::null());
    let mut apply = apply.stderr(Stdio::null()).spawn().expect("it starts");
    wait_for("it loads", || {
        host.shell("cat /var/lib/nvactl/lock")
            .contains("iptables-restore")
    });
    let said = repair(&host);
    assert_eq!(said.code, 1, "{said:?}");
    let told = "note: no repair in this run: another nvactl (process ";
    assert!(said.stderr.contains(told), "{said:?}");
    assert_eq!(save(&host), flushed);
    host.shell("echo > /run/gate");
    let ended = apply.wait().expect("it ends");
    assert_eq!(ended.code(), Some(2));
    unfake(&host, "iptables-restore");
    assert_eq!(repair(&host).code, 0);
}

lab_test!(either the_fourth_repair_within_an_hour_is_braked);
fn the_fourth_repair_within_an_hour_is_braked(backend: Backend) {
    let host = saved(backend, SPEC);
    let before = save(&host);
    let braked = || {
        let metrics = nvactl(&host, &["status", "--format", "prometheus"], "").stdout;
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("nvactl_repair_braked "));
        line.expect("it is there").to_owned()
    };
    for _ in 0..3 {
        host.run("iptables -F");
        assert_eq!(repair(&host).code, 0);
        assert_eq!(save(&host), before);
        assert_eq!(braked(), "0");
    }
    host.run("iptables -F");
    let flushed = save(&host);
    for _ in 0..2 {
        let said = repair(&host);
        assert_eq!(said.code, 1, "{said:?}");
        for told in [
            "nvactl's rules are gone (IPv4 filter FORWARD) and stay so: there were 3 repairs within an hour",
            "so another program keeps removing the rules; the next repair is possible in ",
            " min; to load the rules now: sudo nvactl apply\n",
        ] {
            assert!(said.stderr.contains(told), "{told}: {said:?}");
        }
        assert_eq!(save(&host), flushed);
        assert_eq!(braked(), "1");
    }
    // The operator loads them.
    apply(&host, SPEC);
    assert_eq!(braked(), "0");
    assert_eq!(repair(&host).code, 0);
    assert_eq!(braked(), "0");
    host.run("iptables -F");
    assert_eq!(repair(&host).code, 1);
    an_hour_later(&host);
    assert_eq!(repair(&host).code, 0);
    assert_eq!(save(&host), before);
    assert_eq!(braked(), "0");
}

lab_test!(either a_repair_that_fails_changes_nothing_and_counts);
fn a_repair_that_fails_changes_nothing_and_counts(backend: Backend) {
    let host = saved(backend, SPEC);
    host.run("iptables -F");
    let flushed = save(&host);
    fake_saved(&host, backend, "iptables-restore", "echo no >&2; exit 1");
    for _ in 0..3 {
        let said = repair(&host);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(
            said.stderr.contains("none of nvactl's rules have changed"),
            "{said:?}"
        );
        // The report is there all the same.
        assert!(
            said.stdout.contains("missing") || said.stdout.contains("drifted"),
            "{said:?}"
        );
    }
    let said = repair(&host);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("3 repairs within an hour"), "{said:?}");
    unfake(&host, &saved_name(backend, "iptables-restore"));
    assert_eq!(save(&host), flushed);
    let metrics = nvactl(&host, &["status", "--format", "prometheus"], "").stdout;
    assert!(metrics.contains("\nnvactl_repairs_total 0\n"), "{metrics}");
}

lab_test!(either rules_that_were_never_saved_are_not_made_up);
fn rules_that_were_never_saved_are_not_made_up(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    flush_all(&host, backend);
    let said = repair(&host);
    assert_eq!(said.code, 1, "{said:?}");
    let told = |hooks: &str| {
        format!(
            "nvactl's rules are gone (IPv4{hooks}), and the rules that were loaded last are not saved; to load and save \
             them: sudo nvactl apply && sudo nvactl boot enable\n"
        )
    };
    assert!(said.stderr.contains(&told("")), "{said:?}");

    // Older rules could open what was closed since.
    apply(&host, SPEC);
    save_state(&host);
    apply(&host, &SPEC.replace("49182", "49183"));
    host.run("iptables -F");
    let spoilt = save(&host);
    assert_eq!(repair(&host).code, 1);
    assert_eq!(save(&host), spoilt);
    flush_all(&host, backend);
    let said = repair(&host);
    assert_eq!(said.code, 1, "{said:?}");
    let hooks = " nat PREROUTING, filter FORWARD, nat POSTROUTING";
    assert!(said.stderr.contains(&told(hooks)), "{said:?}");
    assert!(!save(&host).contains("NVACTL"), "{said:?}");
}

lab_test!(a_repair_undoes_no_refusal_of_the_operator);
/// The saved rules are whole, and a repair of one table would load them in the others as well.
fn a_repair_undoes_no_refusal_of_the_operator(backend: Backend) {
    let lab = saved_lab(backend);
    let host = &lab.firewall;
    let before = rules(host);
    let passes = || lab.tcp(FIREWALL, 49182) == answer("pod", FIREWALL);
    for chain in ["NVACTL-FORWARD", "FORWARD"] {
        let refusal = format!("{chain} -p tcp --dport 80 -j DROP");
        for flush in ["iptables -t nat -F", "ip6tables -F"] {
            host.run(&format!("iptables -I {refusal}"));
            host.run(flush);
            let spoilt = rules(host);
            let said = repair(host);
            // Drift in one family is no reason to leave the other one without rules.
            if chain == "NVACTL-FORWARD" && flush.starts_with("ip6") {
                assert!(said.stderr.contains("are loaded again"), "{said:?}");
            } else {
                let told = "and stay so: others were changed by hand, and a repair would undo that; to see the changes: \
                            sudo nvactl diff; to load the rules of the spec: sudo nvactl apply\n";
                assert!(said.stderr.contains(told), "{chain} {flush}: {said:?}");
                assert_eq!(rules(host), spoilt, "{chain} {flush}: {said:?}");
            }
            assert_eq!(said.code, 1, "{chain} {flush}: {said:?}");
            assert!(!passes(), "{chain} {flush}");
            host.run(&format!("iptables -D {refusal}"));
            assert_eq!(repair(host).code, 0, "{chain} {flush}");
            assert_eq!(rules(host), before, "{chain} {flush}");
            assert!(passes(), "{chain} {flush}");
            an_hour_later(host);
        }
    }
}

lab_test!(rules_that_are_loaded_by_the_other_backend_are_not_gone);
fn rules_that_are_loaded_by_the_other_backend_are_not_gone(backend: Backend) {
    let host = saved(backend, SPEC);
    let said = nvactl(&host, &["remove"], "");
    assert_eq!(said.code, 0, "{said:?}");
    let (named, other) = match backend {
        Backend::Nft => ("nft", "legacy"),
        Backend::Legacy => ("legacy", "nft"),
    };
    let multi = format!("xtables-{other}-multi");
    for program in ["iptables", "ip6tables"] {
        for end in ["", "-save", "-restore"] {
            host.run(&format!("ln -sf /usr/sbin/{multi} /run/bin/{program}{end}"));
        }
    }
    apply(&host, SPEC);
    let said = nvactl(&host, &["status", "--check"], "");
    assert_eq!(said.code, 0, "{said:?}");
    let said = repair(&host);
    let told = format!(
        "nvactl's rules are gone from {named} and are not loaded again, because {other} is in use or has rules of nvactl; \
         to save the rules that are loaded: sudo nvactl boot enable; to use the saved ones, add: --backend {named}\n"
    );
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains(&told), "{said:?}");
    let beside = host.run(&format!("xtables-{named}-multi iptables-save"));
    assert!(!beside.contains("NVACTL"), "{beside}");

    // A PATH that names the saved one again does not bring a second copy.
    let multi = format!("xtables-{named}-multi");
    for end in ["", "-save", "-restore"] {
        host.run(&format!("ln -sf /usr/sbin/{multi} /run/bin/iptables{end}"));
    }
    assert_ne!(repair(&host).code, 0);
    let beside = host.run("iptables-save");
    assert!(!beside.contains("NVACTL"), "{beside}");
}

lab_test!(either records_that_cannot_be_read_are_named_with_the_fix);
fn records_that_cannot_be_read_are_named_with_the_fix(backend: Backend) {
    let host = saved(backend, SPEC);
    host.run("iptables -F");
    assert_eq!(repair(&host).code, 0);
    host.run("iptables -F");
    let flushed = save(&host);
    for garbage in ["", "[", "{\"total\": -1}", "{\"version\": 99}", "\\377"] {
        write(&host, RECORD, garbage);
        let said = repair(&host);
        assert_eq!(said.code, 2, "{garbage}: {said:?}");
        assert!(
            said.stderr
                .contains("the record of earlier repairs cannot be read: "),
            "{said:?}"
        );
        assert_eq!(save(&host), flushed, "{garbage}");
        let metrics = nvactl(&host, &["status", "--format", "prometheus"], "").stdout;
        assert!(!metrics.contains("nvactl_repair"), "{metrics}");
        let fix = said
            .stderr
            .lines()
            .find_map(|line| line.strip_prefix("hint: to start a new record: sudo "));
        host.run(fix.unwrap_or_else(|| panic!("{said:?}")));
        assert_eq!(repair(&host).code, 0);
        host.run("iptables -F");
    }
    write(&host, "/var/lib/nvactl/saved-*.json", "garbage");
    let said = repair(&host);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr
            .contains("hint: to save the loaded rules: sudo nvactl persist\n"),
        "{said:?}"
    );
    assert_eq!(save(&host), flushed);
}

lab_test!(either rules_that_cannot_be_read_are_not_gone);
fn rules_that_cannot_be_read_are_not_gone(backend: Backend) {
    let host = saved(backend, BOTH);
    let before = rules(&host);
    host.run("iptables -t nat -F");
    let flushed = rules(&host);
    fake_saved(&host, backend, "iptables-save", "exit 1");
    let said = repair(&host);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(!said.stderr.contains("gone"), "{said:?}");
    unfake(&host, &saved_name(backend, "iptables-save"));
    assert_eq!(rules(&host), flushed);
    // A machine whose IPv6 cannot be read still gets its IPv4 rules.
    host.run("iptables -F");
    fake_saved(&host, backend, "ip6tables-save", "exit 1");
    let said = repair(&host);
    let told = "were gone (IPv4 nat PREROUTING, filter FORWARD, nat POSTROUTING)";
    assert!(said.stderr.contains(told), "{said:?}");
    unfake(&host, &saved_name(backend, "ip6tables-save"));
    assert_eq!(rules(&host), before);
}

#[test]
fn a_table_that_iptables_cannot_print_is_not_empty() {
    if !possible() {
        return;
    }
    for table in ["filter", "mangle"] {
        let with_mss = SPEC.replace("snat: 10.3.0.4", "snat: 10.3.0.4, mss: 1360");
        let host = saved(Backend::Nft, &with_mss);
        host.run("iptables -F");
        assert_eq!(repair(&host).code, 0);
        host.run(&format!("nft delete table ip {table}"));
        native(&host, table, "FORWARD", "forward");
        let left = || host.shell(&format!("cat {RECORD}; nft list ruleset"));
        let untouched = left();
        let said = repair(&host);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(!said.stderr.contains("gone"), "{said:?}");
        let told = format!("sudo nft list table ip {table}");
        assert!(said.stderr.contains(&told), "{said:?}");
        assert_eq!(left(), untouched, "{table}");
    }
}
