//! Rules that iptables-save prints and nobody can read back, and tables that it cannot print: nvactl names
//! them, counts them where places count, and goes on.

use nvactl::netfilter::text::parse::parse;

use crate::firewall::{SPEC, apply, firewall};
use crate::lab::{Backend, Said, save};
use crate::namespace::{self, Host};
use crate::nvactl;

/// A rule whose comment holds line breaks, one of which looks like a rule's line, behind `command`.
fn commented(host: &Host, command: &str) {
    host.shell(&format!(
        "{command} -m comment --comment \"$(printf 'one\\n-A FORWARD -j DROP\\n\"two\"')\" -s 192.0.2.7 -j ACCEPT"
    ));
}

const COMMENTED: &str = "-s 192.0.2.7/32 -m comment --comment \"one
-A FORWARD -j DROP
\\\"two\\\"\" -j ACCEPT";

/// A rule whose interface's name holds a line break: iptables prints it without quotes.
fn named(host: &Host, command: &str) {
    host.shell(&format!("{command} -i \"$(printf 'e\\nx')\" -j RETURN"));
}

const NAMED: &str = "-i e\nx -j RETURN";

fn ok(host: &Host, args: &[&str], spec: &str) -> Said {
    let said = nvactl(host, args, spec);
    assert_eq!(said.code, 0, "{args:?}: {said:?}");
    said
}

/// Every command that changes nvactl's own chains, or looks at them, from nothing to nothing.
fn go_through(host: &Host) {
    let other = SPEC.replace("49182", "49183");
    let foreign = save(host);
    ok(host, &["apply", "-", "--no-trial"], SPEC);
    let said = ok(host, &["apply", "-", "--no-trial"], SPEC);
    assert_eq!(said.stdout, "<stdin>: no changes\n");
    ok(host, &["diff", "-"], SPEC);
    let said = ok(host, &["status", "-", "--check"], SPEC);
    assert!(said.stdout.contains("in sync"), "{said:?}");
    let applied = save(host);
    ok(
        host,
        &["apply", "-", "--no-trial", "--confirm", "600"],
        &other,
    );
    ok(host, &["confirm"], "");
    assert!(save(host).contains("--dport 49183"));
    ok(host, &["rollback"], "");
    assert_eq!(save(host), applied);
    ok(
        host,
        &["apply", "-", "--no-trial", "--confirm", "600"],
        &other,
    );
    ok(host, &["confirm", "--cancel"], "");
    assert_eq!(save(host), applied);
    ok(host, &["remove"], "");
    host.run("iptables -P FORWARD ACCEPT");
    let chains = |saved: &str| saved.contains("NVACTL");
    assert!(!chains(&save(host)));
    // On legacy a table that was looked at is listed from then on.
    for line in foreign.lines() {
        assert!(save(host).contains(line), "{line} is gone");
    }
}

lab_test!(a_comment_with_a_line_break_stops_nothing);
fn a_comment_with_a_line_break_stops_nothing(backend: Backend) {
    let host = firewall(backend);
    host.run("iptables -A FORWARD -s 192.0.2.1 -j DROP");
    commented(&host, "iptables -A FORWARD");
    commented(&host, "iptables -t nat -A PREROUTING");
    commented(&host, "iptables -A INPUT");
    host.run("iptables -A FORWARD -s 192.0.2.2 -j DROP");
    let forward = host.run("iptables -S FORWARD");
    go_through(&host);
    assert_eq!(host.run("iptables -S FORWARD"), forward);
    // It is read, so there is nothing to be said of it.
    apply(&host, SPEC);
    let said = ok(&host, &["status", "-"], SPEC);
    assert!(!said.stderr.contains("cannot be read"), "{said:?}");
}

lab_test!(a_rule_that_cannot_be_read_stops_nothing);
fn a_rule_that_cannot_be_read_stops_nothing(backend: Backend) {
    let host = firewall(backend);
    host.run("iptables -A FORWARD -s 192.0.2.1 -j DROP");
    named(&host, "iptables -A FORWARD");
    host.run("iptables -A FORWARD -s 192.0.2.2 -j DROP");
    named(&host, "iptables -t nat -A PREROUTING -d 192.0.2.9");
    let forward = host.run("iptables -S FORWARD");
    go_through(&host);
    assert_eq!(host.run("iptables -S FORWARD"), forward);

    // Behind the jump and before it.
    apply(&host, SPEC);
    named(&host, "iptables -I FORWARD");
    for args in [&["status", "-"][..], &["diff", "-"]] {
        let said = nvactl(&host, args, SPEC);
        for place in [1, 4] {
            let look = format!("sudo iptables -t filter -S FORWARD {place}");
            let line = format!(
                "warning: iptables filter: rule {place} of FORWARD cannot be read, it stays as it is: \
                 `-i e\\nx -j RETURN`; to look: {look}\n"
            );
            assert!(said.stderr.contains(&line), "{said:?}");
            let shown = host.run(look.trim_start_matches("sudo "));
            assert!(shown.contains(NAMED), "{shown}");
        }
    }
    let said = nvactl(&host, &["status", "-"], SPEC);
    assert!(
        said.stdout
            .contains("another program's rule is before nvactl's jump in filter FORWARD;"),
        "{said:?}"
    );
    apply(&host, SPEC);
    let rules = host.run("iptables -S FORWARD");
    let jump = rules.find("NVACTL-FORWARD").expect("it is there");
    assert!(jump < rules.find(NAMED).expect("it is there"), "{rules}");
    assert_eq!(rules.matches(NAMED).count(), 2, "{rules}");
}

lab_test!(an_unreadable_rule_in_nvactl_s_own_chain_is_drift);
/// There nobody but nvactl has anything to put in.
fn an_unreadable_rule_in_nvactl_s_own_chain_is_drift(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let applied = save(&host);
    for (put_in, line) in [
        (commented as fn(&Host, &str), COMMENTED),
        (named as fn(&Host, &str), NAMED),
    ] {
        for place in [1, 3] {
            put_in(&host, &format!("iptables -I NVACTL-FORWARD {place}"));
            let line = line.replace('\n', "\\n");
            for args in [&["status", "-", "--check"][..], &["diff", "-"]] {
                let said = nvactl(&host, args, SPEC);
                assert_eq!(said.code, 1, "{said:?}");
                let told = format!("filter: -A NVACTL-FORWARD {line}");
                assert!(said.stdout.contains(&told), "{said:?}");
            }
            apply(&host, SPEC);
            assert_eq!(save(&host), applied);
        }
    }
}

lab_test!(rules_that_would_not_load_are_not_persisted);
/// iptables-restore would not load a file that has such a rule, and nothing would be there at boot.
fn rules_that_would_not_load_are_not_persisted(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    ok(&host, &["persist"], "");
    let file = host.run("cat /etc/iptables/rules.v4");
    for put_in in [commented as fn(&Host, &str), named as fn(&Host, &str)] {
        put_in(&host, "iptables -A INPUT");
        let said = nvactl(&host, &["persist"], "");
        assert_eq!(said.code, 2, "{said:?}");
        assert!(
            said.stderr
                .contains("iptables-restore cannot read a loaded rule")
                && said.stderr.contains("`-A INPUT -")
                && said.stderr.contains("\\n"),
            "{said:?}"
        );
        assert!(
            said.stderr.ends_with("sudo nvactl boot enable\n"),
            "{said:?}"
        );
        assert_eq!(host.run("cat /etc/iptables/rules.v4"), file);
        host.run("iptables -D INPUT 1");
    }
    // Somebody else has kept it all the same.
    let status = || nvactl(&host, &["status", "-"], SPEC).stdout;
    assert!(status().contains("rules.v4 holds the loaded rules"));
    commented(&host, "iptables -A INPUT");
    host.shell("iptables-save > /etc/iptables/rules.v4");
    let status = status();
    assert!(
        status.contains("rules.v4 does not load: iptables-restore refuses line "),
        "{status}"
    );
}

lab_test!(a_rate_is_read_as_the_kernel_rounds_it);
fn a_rate_is_read_as_the_kernel_rounds_it(backend: Backend) {
    let host = firewall(backend);
    for (n, rate) in ["50000/sec", "10001/sec", "1000000/sec", "7/min", "3/hour"]
        .iter()
        .enumerate()
    {
        host.run(&format!(
            "iptables -A FORWARD -m hashlimit --hashlimit-above {rate} --hashlimit-mode srcip \
             --hashlimit-name h{n} -j DROP"
        ));
    }
    for rate in ["10000/sec", "3000/sec", "7/min", "3/hour"] {
        host.run(&format!(
            "iptables -A FORWARD -m limit --limit {rate} -j DROP"
        ));
    }
    let saved = save(&host);
    let ruleset = parse(&saved).expect("it is readable");
    assert_eq!(ruleset.with_builtin_chains().to_string(), saved);
    assert!(saved.contains("--hashlimit-above 50000/sec"), "{saved}");

    // Put into nvactl's chain, it is told by its own value.
    apply(&host, SPEC);
    host.run(
        "iptables -I NVACTL-FORWARD -m hashlimit --hashlimit-above 50000/sec --hashlimit-mode srcip \
         --hashlimit-name h -j DROP",
    );
    let said = nvactl(&host, &["diff", "-"], SPEC);
    assert!(
        said.stdout.contains("--hashlimit-above 50000/sec"),
        "{said:?}"
    );
}

/// A rule made with `nft` in a table of iptables', which iptables-nft-save then does not print. Only the
/// nft backend shares its tables with `nft`: iptables-legacy has others.
pub fn native(host: &Host, table: &str, chain: &str, hook: &str) {
    host.run(&format!("nft add table ip {table}"));
    host.feed(
        "nft",
        &[&format!(
            "add chain ip {table} {chain} {{ type filter hook {hook} priority {table}; }}"
        )],
        "",
    );
    host.run(&format!(
        "nft add rule ip {table} {chain} ct state vmap {{ new : accept }}"
    ));
    let says = format!("# Table `{table}' is incompatible, use 'nft' tool.");
    assert!(host.run("iptables-save").contains(&says));
}

#[test]
fn native_rules_in_tables_that_nvactl_does_not_use_stop_nothing() {
    if !namespace::possible() {
        return;
    }
    for (table, chain, hook) in [
        ("raw", "PREROUTING", "prerouting"),
        ("mangle", "FORWARD", "forward"),
    ] {
        let host = firewall(Backend::Nft);
        host.run("iptables -A FORWARD -s 192.0.2.1 -j DROP");
        native(&host, table, chain, hook);
        let listed = host.run(&format!("nft list table ip {table}"));
        go_through(&host);
        apply(&host, SPEC);
        let said = ok(&host, &["status", "-"], SPEC);
        let warning = format!(
            "warning: the table {table} holds rules that were made with `nft` and that iptables cannot show"
        );
        assert!(said.stderr.contains(&warning), "{said:?}");
        // A file without them would lose them at boot.
        let said = nvactl(&host, &["persist"], "");
        assert_eq!(said.code, 2, "{said:?}");
        assert!(
            said.stderr
                .contains(&format!("the table {table} holds rules"))
                && said.stderr.ends_with("sudo nvactl boot enable\n"),
            "{said:?}"
        );
        assert!(!host.exists("/etc/iptables/rules.v4"));
        assert_eq!(host.run(&format!("nft list table ip {table}")), listed);
    }
}

#[test]
fn native_rules_in_tables_that_nvactl_uses_are_a_reason_to_refuse() {
    if !namespace::possible() {
        return;
    }
    let host = firewall(Backend::Nft);
    native(&host, "filter", "FORWARD", "forward");
    for args in [
        &["apply", "-", "--no-trial"][..],
        &["diff", "-"],
        &["status", "-"],
        &["remove"],
        &["persist"],
    ] {
        let said = nvactl(&host, args, SPEC);
        assert_eq!(said.code, 2, "{args:?}: {said:?}");
        assert!(
            said.stderr.contains("the table filter holds rules"),
            "{said:?}"
        );
    }
}
