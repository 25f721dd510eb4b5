//! What a change reports by forward, for people and for programs, and what later commands know of it.

use serde_json::Value;

use crate::fake::{fake, unfake};
use crate::firewall::{SPEC, apply, firewall};
use crate::ipv6::{BOTH, both};
use crate::lab::{Backend, save};
use crate::namespace::Host;
use crate::nvactl;

fn changed() -> String {
    SPEC.replace("49182", "49183").replace("games", "play")
}

/// The lines of a report that begin with a sign and a forward's name.
fn by_forward(stdout: &str) -> Vec<String> {
    let lines = stdout.lines().map(|line| {
        let mut words = line.split_whitespace();
        (words.next(), words.next(), line)
    });
    let forwards = lines.filter(|(sign, name, _)| {
        matches!(sign, Some("+" | "-" | "~"))
            && name.is_some_and(|name| !name.starts_with(['-', ':', '*']))
    });
    forwards.map(|(_, _, line)| line.to_owned()).collect()
}

lab_test!(either a_change_is_reported_by_forward);
fn a_change_is_reported_by_forward(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let compared = nvactl(&host, &["diff", "-"], &changed());
    let dry = nvactl(&host, &["apply", "-", "--dry-run"], &changed());
    assert_eq!(dry.code, 1, "{dry:?}");
    let made = apply(&host, &changed());
    let words = by_forward(&compared.stdout);
    assert_eq!(words.len(), 3, "{compared:?}");
    assert_eq!(by_forward(&dry.stdout), words, "{dry:?}");
    assert_eq!(by_forward(&made.stdout), words, "{made:?}");
    assert!(
        made.stdout
            .contains("changed 2 of 3 forwards, removed 1 forward: 6 rules added"),
        "{made:?}"
    );
}

fn json(host: &Host, args: &[&str], spec: &str, code: i32) -> Value {
    let args = [args, &["--format", "json"]].concat();
    let said = nvactl(host, &args, spec);
    assert_eq!(said.code, code, "{said:?}");
    assert_eq!(said.stderr, "", "{said:?}");
    serde_json::from_str(&said.stdout).expect("it is JSON")
}

lab_test!(either the_report_of_a_change_is_json_on_request);
fn the_report_of_a_change_is_json_on_request(backend: Backend) {
    let host = firewall(backend);
    let first = json(&host, &["apply", "-", "--no-trial"], SPEC, 0);
    assert_eq!(
        (&first["changed"], &first["dry_run"]),
        (&true.into(), &false.into())
    );
    let warnings = first["warnings"].as_array().expect("a list");
    let names_switch = |warning: &Value| {
        warning
            .as_str()
            .is_some_and(|text| text.contains("ip_forward"))
    };
    assert!(warnings.iter().any(names_switch), "{first:#}");

    let before = save(&host);
    let would = json(&host, &["apply", "-", "--dry-run"], &changed(), 1);
    assert_eq!(save(&host), before);
    let made = json(
        &host,
        &["apply", "-", "--no-trial", "--confirm", "600"],
        &changed(),
        0,
    );
    for (key, names) in [("added", "play"), ("removed", "games"), ("changed", "web")] {
        assert_eq!(would["forwards"][key][0]["name"], names, "{would:#}");
        assert_eq!(made["forwards"][key][0]["name"], names, "{made:#}");
    }
    assert_eq!(made["rules"]["added"], 6, "{made:#}");
    assert!(
        made["confirm_within_secs"]
            .as_u64()
            .is_some_and(|left| left > 500),
        "{made:#}"
    );
    assert_eq!(nvactl(&host, &["confirm"], "").code, 0);

    let again = json(&host, &["apply", "-", "--no-trial"], &changed(), 0);
    assert_eq!(again["changed"], false, "{again:#}");
    assert_eq!(
        again["forwards"]["added"],
        Value::Array(Vec::new()),
        "{again:#}"
    );
}

lab_test!(either a_description_is_shown_and_recorded_without_a_change_of_rules);
fn a_description_is_shown_and_recorded_without_a_change_of_rules(backend: Backend) {
    let host = firewall(backend);
    let spec = |own: &str, web: &str| {
        format!(
            "description: {own}\nfirewall: {{interface: eth0, snat: 10.3.0.4}}\nforwards:\n\
             - {{name: web, description: \"{web}\", listen: [80, 443], protocol: [tcp, udp], target: {{ilb: 10.224.0.222}}}}\n\
             - {{name: api, listen: 81, target: {{ilb: 10.224.0.222}}}}\n"
        )
    };
    let write = |spec: &str| {
        let written = host.feed("sh", &["-c", "cat > /etc/forward.yaml"], spec);
        assert!(written.status.success());
    };
    let apply = || nvactl(&host, &["apply", "/etc/forward.yaml"], "");
    write(&spec("NVA one", "storefront, NET-12"));
    assert_eq!(apply().code, 0);
    let rules = save(&host);
    assert!(
        !rules.contains("NET-12") && !rules.contains("NVA one"),
        "{rules}"
    );
    let said = nvactl(&host, &["status"], "");
    assert!(said.stdout.starts_with("description NVA one\n"), "{said:?}");
    let lines: Vec<&str> = said.stdout.lines().collect();
    let of = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
    let ends = |line: &&str| line.ends_with("  storefront, NET-12");
    assert_eq!(
        (
            of("web "),
            lines.iter().copied().filter(|line| ends(line)).count()
        ),
        (2, 2)
    );
    let header = lines.iter().find(|line| line.starts_with("NAME"));
    assert!(
        header.is_some_and(|line| line.ends_with("LIVE  DESCRIPTION")),
        "{said:?}"
    );
    // The text alone changes.
    write(&spec("NVA two", "checkout"));
    let said = apply();
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (0, "/etc/forward.yaml: no changes\n"),
        "{said:?}"
    );
    assert_eq!(save(&host), rules);
    let said = nvactl(&host, &["status", "--format", "json"], "");
    assert!(!said.stderr.contains("has changed since"), "{said:?}");
    let told: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    assert_eq!(told["description"], "NVA two");
    assert_eq!(told["forwards"][0]["description"], "checkout");
    assert_eq!(told["forwards"][2].get("description"), None);
    let said = nvactl(&host, &["history"], "");
    assert_eq!(said.stdout.matches("apply").count(), 1, "{said:?}");
    assert_eq!(nvactl(&host, &["rollback"], "").code, 0);
    assert!(!save(&host).contains("NVACTL"));
}

lab_test!(either the_last_applied_spec_is_the_default);
/// A spec that was changed or removed since is no measure of what is loaded.
fn the_last_applied_spec_is_the_default(backend: Backend) {
    let host = firewall(backend);
    let write = |spec: &str| {
        let written = host.feed(
            "sh",
            &["-c", "mkdir -p /etc/nvactl; cat > /etc/nvactl/forward.yaml"],
            spec,
        );
        assert!(written.status.success());
    };
    write(SPEC);
    assert_eq!(nvactl(&host, &["apply"], "").code, 0);
    let note = "note: the spec is /etc/nvactl/forward.yaml as it was applied last";
    let said = nvactl(&host, &["status"], "");
    assert!(said.stderr.contains(&format!("{note}\n")), "{said:?}");
    write(&changed());
    for command in ["status", "doctor"] {
        let said = nvactl(&host, &[command], "");
        let note = format!("{note}; the file has changed since\n");
        assert!(said.stderr.contains(&note), "{said:?}");
        assert!(!said.stdout.contains("play"), "{said:?}");
    }
    let said = nvactl(&host, &["status", "--check"], "");
    assert_eq!(said.code, 0, "{said:?}");
    // The one that is named counts before it.
    let said = nvactl(
        &host,
        &["status", "--check", "/etc/nvactl/forward.yaml"],
        "",
    );
    assert_eq!(said.code, 1, "{said:?}");
    // A rollback goes back to the spec of before as well.
    apply(&host, &changed());
    assert_eq!(nvactl(&host, &["rollback"], "").code, 0);
    let said = nvactl(&host, &["status", "--check"], "");
    assert_eq!(said.code, 0, "{said:?}");
    // Nothing is loaded any more: the one that is found counts.
    assert_eq!(nvactl(&host, &["remove"], "").code, 0);
    let said = nvactl(&host, &["status"], "");
    assert!(said.stdout.contains("play"), "{said:?}");
}

lab_test!(either a_kill_between_the_families_is_named);
/// Killed between the families: whoever reads the rules says so, and every change goes on from there.
fn a_kill_between_the_families_is_named(backend: Backend) {
    let kill =
        "for argument; do [ $argument = --noflush ] && kill -9 $PPID && exit 1; done; real \"$@\"";
    for args in [
        &["apply", "-", "--no-trial"][..],
        &["rollback"],
        &["remove"],
    ] {
        let host = firewall(backend);
        let empty = both(&host);
        apply(&host, BOTH);
        let before = both(&host);
        fake(&host, "ip6tables-restore", kill);
        let spec = BOTH.replace("49182", "49183");
        let output = host.feed(
            env!("CARGO_BIN_EXE_nvactl"),
            &["apply", "-", "--no-trial"],
            &spec,
        );
        assert_eq!(output.status.code(), None, "{output:?}");
        unfake(&host, "ip6tables-restore");
        let half = both(&host);
        assert!(half.0 != before.0 && half.1 == before.1);
        for looks in [
            &["status", "-"][..],
            &["diff", "-"],
            &["remove", "--dry-run"],
        ] {
            let said = nvactl(&host, looks, &spec);
            assert!(
                said.stderr
                    .contains("killed after it loaded one address family"),
                "{looks:?}: {said:?}"
            );
        }
        let said = nvactl(&host, args, &spec);
        assert_eq!(said.code, 0, "{args:?}: {said:?}");
        assert!(
            said.stderr
                .contains("killed after it loaded one address family"),
            "{args:?}: {said:?}"
        );
        let now = both(&host);
        match args {
            ["apply", ..] => assert!(now.0 == half.0 && now.1 != before.1, "{said:?}"),
            ["rollback"] => assert_eq!(now, before),
            _ => assert!(
                !now.0.contains("NVACTL") && !now.1.contains("NVACTL"),
                "{empty:?}"
            ),
        }
        let said = nvactl(&host, &["diff", "-"], &spec);
        assert!(!said.stderr.contains("killed"), "it is over: {said:?}");
    }
}

lab_test!(either a_rollback_skips_entries_without_changes);
/// A change that moved nothing of nvactl's own, as putting its jump first again, is no step back.
fn a_rollback_skips_entries_without_changes(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let first = save(&host);
    apply(&host, &changed());
    host.run("iptables -I FORWARD -s 198.51.100.99 -j DROP");
    apply(&host, &changed());
    assert_eq!(nvactl(&host, &["rollback"], "").code, 0);
    let saved = save(&host);
    assert_eq!(
        saved.replace("-A FORWARD -s 198.51.100.99/32 -j DROP\n", ""),
        first
    );
}

lab_test!(either neither_rules_file_is_written_without_the_other);
/// One file that cannot be written leaves the other as it is.
fn neither_rules_file_is_written_without_the_other(backend: Backend) {
    let host = firewall(backend);
    apply(&host, BOTH);
    host.shell("mkdir -p /etc/iptables/rules.v6; echo '# before' > /etc/iptables/rules.v4");
    let said = nvactl(&host, &["persist"], "");
    assert_eq!(said.code, 2, "{said:?}");
    assert_eq!(host.run("cat /etc/iptables/rules.v4"), "# before\n");
    assert!(!host.shell("ls -A /etc/iptables").contains(".nvactl-"));
}
