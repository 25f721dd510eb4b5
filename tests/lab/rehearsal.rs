//! Rules files that the boot cannot load: `persist` does not write them, and whoever looks says so.
//!
//! `iptables-restore --test` takes some of them, and nvactl's reader takes others.

use crate::firewall::{SPEC, apply, firewall, load};
use crate::lab::{Backend, Said};
use crate::namespace::{self, Host};
use crate::nvactl;

const FILE: &str = "/etc/iptables/rules.v4";

fn ok(host: &Host, args: &[&str]) -> Said {
    let said = nvactl(host, args, SPEC);
    assert_eq!(said.code, 0, "{args:?}: {said:?}");
    said
}

fn write(host: &Host, text: &str) {
    let script = format!("mkdir -p /etc/iptables; umask 027; cat > {FILE}");
    let written = host.feed("sh", &["-ec", &script], text);
    assert!(written.status.success(), "{written:?}");
}

fn read(host: &Host) -> String {
    host.run(&format!("cat {FILE}"))
}

/// Asserts that `persist` refuses with these words, names a way out and leaves the files as they are.
fn is_refused(host: &Host, words: &[&str]) {
    let files = || host.shell("cd /etc/iptables 2>/dev/null && sha256sum * || true");
    let before = files();
    let said = nvactl(host, &["persist"], "");
    assert_eq!(said.code, 2, "{said:?}");
    for words in words {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
    assert!(
        said.stderr.ends_with("sudo nvactl boot enable\n"),
        "{said:?}"
    );
    assert_eq!(files(), before);
}

/// Asserts that the file holds what runs, by each command that tells.
fn holds_what_runs(host: &Host) {
    let status = ok(host, &["status", "-"]).stdout;
    assert!(
        status.contains(&format!("{FILE} holds the loaded rules")),
        "{status}"
    );
    let doctor = nvactl(
        host,
        &["doctor", "-", "--no-twin", "--timeout", "0.1"],
        SPEC,
    )
    .stdout;
    assert!(
        doctor.contains(&format!("{FILE} holds the loaded rules")),
        "{doctor}"
    );
    ok(host, &["diff", "-", "--against", FILE]);
}

/// Asserts that each command that tells of the file says that it does not load, and why.
fn does_not_load(host: &Host, why: &str) {
    let status = ok(host, &["status", "-"]).stdout;
    assert!(
        status.contains(&format!("{FILE} does not load: ")) && status.contains(why),
        "{why}: {status}"
    );
    let doctor = nvactl(
        host,
        &["doctor", "-", "--no-twin", "--timeout", "0.1"],
        SPEC,
    )
    .stdout;
    assert!(
        doctor.contains(&format!("{FILE} does not load at boot: ")) && doctor.contains(why),
        "{why}: {doctor}"
    );
    let said = nvactl(host, &["diff", "-", "--against", FILE], SPEC);
    assert_eq!(said.code, 2, "{why}: {said:?}");
    assert!(said.stderr.contains(why), "{why}: {said:?}");
}

lab_test!(a_rule_that_needs_an_ipset_is_not_persisted);
fn a_rule_that_needs_an_ipset_is_not_persisted(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    host.run("ipset create bans hash:ip");
    host.run("iptables -A INPUT -m set --match-set bans src -j DROP");
    is_refused(
        &host,
        &[
            "`-A INPUT -m set --match-set bans src -j DROP`",
            "the ipset `bans` does not exist when the boot loads the file",
        ],
    );
    // Somebody else has kept it.
    host.shell("mkdir /etc/iptables; umask 027; iptables-save > /etc/iptables/rules.v4");
    let status = ok(&host, &["status", "-"]).stdout;
    assert!(
        status.contains("the ipset `bans` does not exist when the boot loads the file"),
        "{status}"
    );
    // The file of another machine is compared all the same.
    let said = ok(&host, &["diff", "-", "--against", FILE]);
    assert!(said.stderr.contains("the ipset `bans`"), "{said:?}");

    // Where ipset-persistent is installed, the boot loads the sets first.
    host.shell(
        "mkdir -p /run/share && mount --bind /run/share /usr/share
         mkdir -p /usr/share/netfilter-persistent/plugins.d
         touch /usr/share/netfilter-persistent/plugins.d/10-ipset
         ipset save > /etc/iptables/ipsets",
    );
    holds_what_runs(&host);
    ok(&host, &["persist"]);
    assert!(read(&host).contains("--match-set bans"));
    host.run("ipset create other hash:ip");
    host.run("iptables -A INPUT -m set --match-set other src -j DROP");
    is_refused(
        &host,
        &["the ipset `other` does not exist when the boot loads the file"],
    );
}

lab_test!(a_jump_to_a_missing_chain_does_not_load);
fn a_jump_to_a_missing_chain_does_not_load(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    ok(&host, &["persist"]);
    let good = read(&host);
    let bad = good.replacen("-A INPUT", "-A INPUT -j NOPE\n-A INPUT", 1);
    let bad = bad.replacen("-A FORWARD", "-A FORWARD -j NOPE\n-A FORWARD", 1);
    let line = bad.lines().position(|line| line.ends_with("-j NOPE"));
    let line = line.expect("it is there") + 1;
    let told = format!("line {line}, `-A FORWARD -j NOPE`: ");

    write(&host, &bad);
    does_not_load(&host, &told);
    write(&host, &good);
    host.shell("mv /run/bin/iptables-save /run/save; cp /etc/iptables/rules.v4 /run/rules");
    host.feed("sh", &["-c", "cat > /run/rules"], &bad);
    host.shell(
        "printf '#!/bin/sh\\nif [ \"$(readlink /proc/self/ns/net)\" = \"$(cat /run/net)\" ]; then cat /run/rules; else exec /run/save; fi\\n' \
         > /run/bin/iptables-save
         readlink /proc/self/ns/net > /run/net; chmod +x /run/bin/iptables-save",
    );
    is_refused(&host, &[&told]);
    assert_eq!(read(&host), good);
}

lab_test!(neither_file_is_written_if_one_does_not_load);
/// One table's refusal keeps the other family's file as it is, too.
fn neither_file_is_written_if_one_does_not_load(backend: Backend) {
    let host = firewall(backend);
    let both = format!(
        "{SPEC}  - {{name: web6, listen: 80, target: {{pod: '[fd00::118]:80'}}, snat: masquerade}}\n"
    );
    apply(&host, &both);
    ok(&host, &["persist"]);
    let old = host.shell("cat /etc/iptables/rules.v4 /etc/iptables/rules.v6");
    apply(&host, &both.replace("49182", "49183"));
    host.run("ipset create bans6 hash:ip family inet6");
    host.run("ip6tables -A INPUT -m set --match-set bans6 src -j DROP");
    is_refused(
        &host,
        &[
            "`/etc/iptables/rules.v6` would not load at boot, so it was not written: ip6tables-restore refuses line ",
            "the ipset `bans6`",
        ],
    );
    assert_eq!(
        host.shell("cat /etc/iptables/rules.v4 /etc/iptables/rules.v6"),
        old
    );
}

lab_test!(a_file_that_iptables_refuses_is_not_equal_to_the_live_rules);
fn a_file_that_iptables_refuses_is_not_equal_to_the_live_rules(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    ok(&host, &["persist"]);
    let good = read(&host);
    holds_what_runs(&host);
    let before = |line: &str| {
        let mut lines = good.lines();
        lines.position(|one| one == line).expect("it is there") + 1
    };
    let (commit, filter) = (before("COMMIT"), before("*filter"));
    for (bad, line) in [
        (good.replace('\n', "\r\n"), 2),
        (good.replacen("COMMIT\n", "COMMIT \n", 1), commit),
        (
            good.replacen("*filter\n", "*filter\n  # mine\n", 1),
            filter + 1,
        ),
        (good.replacen("*filter\n", "*filter\n   \n", 1), filter + 1),
    ] {
        write(&host, &bad);
        does_not_load(&host, &format!("iptables-restore refuses line {line}, `"));
        let alone = host.feed("unshare", &["--net", "iptables-restore"], &bad);
        assert!(!alone.status.success(), "iptables takes it: {bad}");
    }
    // Only legacy asks for a line end behind the last COMMIT.
    let cut = good[..good.rfind("# Completed").expect("it is the last")].trim_end();
    write(&host, cut);
    match backend {
        Backend::Nft => holds_what_runs(&host),
        Backend::Legacy => does_not_load(&host, "`COMMIT`: Bad argument `COMMIT'"),
    }
}

lab_test!(a_file_with_commands_is_equal_to_the_live_rules);
/// A file as a person writes it loads, though iptables-save prints none like it.
fn a_file_with_commands_is_equal_to_the_live_rules(backend: Backend) {
    let host = firewall(backend);
    load(&host, "*filter\n-P INPUT DROP\nCOMMIT\n");
    apply(&host, SPEC);
    ok(&host, &["persist"]);
    let mut file = read(&host).replacen(":INPUT DROP", ":INPUT ACCEPT", 1);
    for (saved, typed) in [
        ("*filter\n", "*filter\n-P INPUT DROP\n"),
        (":NVACTL-FORWARD - [0:0]\n", "-N NVACTL-FORWARD\n"),
        (
            "-A FORWARD -j NVACTL-FORWARD\n",
            "-I FORWARD 1 --jump NVACTL-FORWARD\n",
        ),
        ("-p tcp -m tcp --dport", "--protocol 6 --dport"),
    ] {
        assert!(file.contains(saved), "{saved}: {file}");
        file = file.replace(saved, typed);
    }
    write(&host, &file);
    // The chain of a command comes behind those of lines, so a table may be in another order.
    holds_what_runs(&host);
    write(&host, &file.replacen("--dport 49182", "--dport 49183", 1));
    let status = ok(&host, &["status", "-"]).stdout;
    assert!(status.contains("differs from the loaded rules"), "{status}");
    let said = nvactl(&host, &["diff", "-", "--against", FILE], SPEC);
    assert_eq!(said.code, 1, "{said:?}");
}

lab_test!(the_text_is_compared_without_a_namespace);
/// Root without the right to make a namespace, as in many containers.
fn the_text_is_compared_without_a_namespace(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let confined = |args: &[&str]| {
        let program = ["--bounding-set=-sys_admin", env!("CARGO_BIN_EXE_nvactl")];
        Said::from(host.feed("setpriv", &[&program, args].concat(), SPEC))
    };
    let said = confined(&["persist"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stderr
            .contains("iptables-restore only checked the syntax of"),
        "{said:?}"
    );
    let good = read(&host);
    let told = |words: &str, code: i32| {
        let status = confined(&["status", "-"]).stdout;
        assert!(status.contains(&format!("{FILE} {words}")), "{status}");
        let said = confined(&["diff", "-", "--against", FILE]);
        assert_eq!(said.code, code, "{said:?}");
    };
    told("holds the loaded rules", 0);
    write(&host, &good.replacen("COMMIT\n", "COMMIT \n", 1));
    told("does not load: line ", 2);
    write(&host, &good.replace('\n', "\r\n"));
    told(
        "does not load: line 2: iptables-restore takes no carriage return",
        2,
    );
}

lab_test!(a_file_that_others_wrote_is_only_read);
/// A file of others may name a program for root to run, so it is only read.
fn a_file_that_others_wrote_is_only_read(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    ok(&host, &["persist"]);
    host.shell(
        "printf '#!/bin/sh\\necho called >> /run/called\\nexec /run/restore \"$@\"\\n' > /run/fake
         chmod +x /run/fake; mv /run/bin/iptables-restore /run/restore; mv /run/fake /run/bin/iptables-restore
         cp /etc/iptables/rules.v4 /run/rules",
    );
    for (owner, mode) in [("1000", "600"), ("root", "620"), ("root", "602")] {
        host.shell(&format!(
            "chown {owner} /run/rules; chmod {mode} /run/rules"
        ));
        ok(&host, &["diff", "-", "--against", "/run/rules"]);
        assert!(!host.exists("/run/called"), "{owner} {mode}");
    }
    host.shell("chmod 644 /run/rules");
    ok(&host, &["diff", "-", "--against", "/run/rules"]);
    assert!(host.exists("/run/called"));
}

/// iptables-save prints each of these rules as a wider one, or as another.
#[test]
fn a_native_rule_in_a_table_of_iptables_is_not_kept() {
    if !namespace::possible() {
        return;
    }
    let host = firewall(Backend::Nft);
    apply(&host, SPEC);
    host.run(
        "iptables -A INPUT -p tcp -m multiport --dports 80,443 -m comment --comment mine -j ACCEPT",
    );
    host.run("iptables -A INPUT -m limit --limit 3/min -j LOG --log-prefix x");
    ok(&host, &["persist"]);
    host.feed("nft", &["add set ip filter s { type ipv4_addr; }"], "");
    for (rule, printed) in [
        ("ip saddr @s drop", "-A INPUT -j DROP\n"),
        (
            "tcp dport { 443, 8443 } counter drop",
            "-A INPUT -p tcp -j DROP\n",
        ),
        ("tcp dport vmap { 22 : accept }", "-A INPUT -p tcp\n"),
        (
            "ip saddr 192.0.2.4-192.0.2.9 counter drop",
            "-A INPUT -s 192.0.2.9/32 -j DROP\n",
        ),
        ("tcp dport 22 accept", "--dport 22 -j ACCEPT\n"),
    ] {
        let added = host.feed("nft", &[&format!("add rule ip filter INPUT {rule}")], "");
        assert!(added.status.success(), "{added:?}");
        assert!(host.run("iptables-save").contains(printed), "{rule}");
        is_refused(&host, &[&format!("filter INPUT has `{rule}`")]);
        host.run("iptables -D INPUT 3");
    }
    ok(&host, &["persist"]);
    // What iptables shows as it is can be kept.
    host.feed(
        "nft",
        &["add rule ip filter INPUT tcp dport 22 counter accept"],
        "",
    );
    ok(&host, &["persist"]);
    assert!(read(&host).contains("--dport 22 -j ACCEPT"));
}
