//! `history` says which change did what, and `rollback` goes back through them, step by step.

use crate::firewall::{SPEC, apply, firewall};
use crate::ipv6::BOTH;
use crate::lab::{Backend, Said, save, save_v6};
use crate::namespace::Host;
use crate::nvactl;

fn rollback(host: &Host) -> Said {
    let said = nvactl(host, &["rollback"], "");
    assert_eq!(said.code, 0, "{said:?}");
    said
}

fn on(port: &str) -> String {
    SPEC.replace("49182", port)
}

lab_test!(either each_rollback_goes_one_step_further);
/// Each goes one step further back; a new change is undone first.
fn each_rollback_goes_one_step_further(backend: Backend) {
    let host = firewall(backend);
    let states = ["49182", "49183", "49184"].map(|port| {
        apply(&host, &on(port));
        save(&host)
    });
    // A look is no step.
    assert_eq!(nvactl(&host, &["rollback", "--dry-run"], "").code, 1);
    rollback(&host);
    assert_eq!(save(&host), states[1], "one step back");
    rollback(&host);
    assert_eq!(save(&host), states[0], "two steps back");

    apply(&host, &on("49185"));
    rollback(&host);
    assert_eq!(save(&host), states[0], "the new change alone is undone");
    rollback(&host);
    let saved = save(&host);
    assert!(!saved.contains("NVACTL"), "before the first: {saved}");
    assert!(saved.contains(":FORWARD ACCEPT"), "{saved}");
    // There is no step before the first.
    let said = nvactl(&host, &["rollback"], "");
    assert_eq!(said.code, 2, "{said:?}");
    assert_eq!(save(&host), saved);
    // Nothing of this is lost: what was undone can be applied again.
    apply(&host, &on("49184"));
    assert_eq!(save(&host), states[2]);
}

lab_test!(either a_rollback_names_its_changes_and_the_way_back);
fn a_rollback_names_its_changes_and_the_way_back(backend: Backend) {
    let host = firewall(backend);
    let said = nvactl(&host, &["rollback"], "");
    assert_eq!(
        (said.code, said.stderr.as_str()),
        (2, "error: there is no change to roll back yet\n")
    );
    apply(&host, SPEC);
    let moved = SPEC.replace("10.224.0.118:80", "10.224.0.99:80");
    assert_ne!(moved, SPEC);
    apply(&host, &moved);
    let after = save(&host);
    let words = "target 10.224.0.99:80 → 10.224.0.118:80\n";
    let said = nvactl(&host, &["rollback", "--dry-run"], "");
    assert!(said.stdout.contains(words), "{said:?}");
    let said = rollback(&host);
    assert!(said.stdout.contains(words), "{said:?}");
    let back = "note: this is change 3; to revert it: sudo nvactl rollback 3\n";
    assert!(said.stderr.contains(back), "{said:?}");
    assert_eq!(nvactl(&host, &["rollback", "3"], "").code, 0);
    assert_eq!(save(&host), after);
    // Before the first change no forward is loaded.
    let said = nvactl(&host, &["rollback", "1"], "");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stdout.contains("- web  ") && said.stdout.contains("→ 10.224.0.99:80\n"),
        "{said:?}"
    );
    assert!(!said.stdout.contains("(drift)"), "{said:?}");
}

lab_test!(a_repair_is_no_step);
/// A rollback goes to before the last change of the rules as nvactl made them, not back to damaged ones.
fn a_repair_is_no_step(backend: Backend) {
    let host = firewall(backend);
    let states = ["49182", "49183"].map(|port| {
        apply(&host, &on(port));
        save(&host)
    });
    host.run("iptables -F");
    apply(&host, &on("49183"));
    assert_eq!(save(&host), states[1], "it is repaired");
    let said = nvactl(&host, &["history"], "");
    assert!(
        said.stdout.starts_with("  3  ") && said.stdout.contains("  apply <stdin>: repaired"),
        "{said:?}"
    );
    let said = rollback(&host);
    assert_eq!(save(&host), states[0], "{said:?}");
    let note = "note: change 3 is skipped, because it only repaired nvactl's rules; to restore the rules from \
                before it: sudo nvactl rollback 3\n";
    assert!(said.stderr.contains(note), "{said:?}");
    // A number names its change all the same.
    let said = nvactl(&host, &["rollback", "3"], "");
    assert_eq!(said.code, 0, "{said:?}");
    let warning =
        "warning: before change 3, nvactl's IPv4 rules were not as change 2 had loaded them: ";
    assert!(
        said.stderr.contains(warning) && said.stderr.contains(" were missing\n"),
        "{said:?}"
    );
    assert!(!said.stdout.contains("by hand"), "{said:?}");
}

lab_test!(either damage_before_a_change_is_named);
/// A change of damaged rules is a step, but what it restores is no work of nvactl's.
fn damage_before_a_change_is_named(backend: Backend) {
    let host = firewall(backend);
    apply(&host, &on("49182"));
    host.run("iptables -t nat -F");
    apply(&host, &on("49183"));
    let said = rollback(&host);
    assert!(
        said.stderr.contains(
            "warning: before change 2, nvactl's IPv4 rules were not as change 1 had loaded them: "
        ),
        "{said:?}"
    );
    // Undamaged rules are no matter for a warning.
    apply(&host, &on("49184"));
    let said = rollback(&host);
    assert!(!said.stderr.contains("were not as change"), "{said:?}");
}

lab_test!(either a_change_of_the_firewall_is_named);
fn a_change_of_the_firewall_is_named(backend: Backend) {
    let host = firewall(backend);
    apply(&host, &SPEC.replace("snat:", "forward_policy: keep, snat:"));
    apply(&host, SPEC);
    let said = nvactl(&host, &["history"], "");
    let newest = said.stdout.lines().next().unwrap_or_default();
    assert!(
        newest.contains("  apply <stdin>: ~ (firewall); by "),
        "{said:?}"
    );
}

lab_test!(either only_lasting_changes_are_steps);
/// A rollback that nobody confirms, and a change that is refused, are no steps.
fn only_lasting_changes_are_steps(backend: Backend) {
    let host = firewall(backend);
    let states = ["49182", "49183", "49184"].map(|port| {
        apply(&host, &on(port));
        save(&host)
    });
    rollback(&host);
    let said = nvactl(
        &host,
        &["apply", "-", "--no-trial", "--confirm", "600"],
        &on("49186"),
    );
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(nvactl(&host, &["confirm", "--cancel"], "").code, 0);
    assert_eq!(save(&host), states[1]);
    rollback(&host);
    assert_eq!(save(&host), states[0]);
}

/// The line of an entry whose action holds these words.
fn entry(host: &Host, words: &str) -> String {
    let said = nvactl(host, &["history"], "");
    assert_eq!(said.code, 0, "{said:?}");
    let mut lines = said.stdout.lines().filter(|line| line.contains(words));
    let line = lines
        .next()
        .unwrap_or_else(|| panic!("no {words}: {said:?}"));
    assert_eq!(lines.next(), None, "{words} is listed twice: {said:?}");
    line.to_owned()
}

fn number(line: &str) -> &str {
    line.split_whitespace().next().expect("it has words")
}

lab_test!(either an_entry_keeps_its_number);
/// The number of an entry is a name, whatever is changed later.
fn an_entry_keeps_its_number(backend: Backend) {
    let host = firewall(backend);
    let apply_file = |name: &str, port: &str| {
        let path = format!("/run/{name}.yaml");
        let written = host.feed("sh", &["-c", &format!("cat > {path}")], &on(port));
        assert!(written.status.success());
        let said = nvactl(&host, &["apply", &path], "");
        assert_eq!(said.code, 0, "{said:?}");
    };
    apply_file("first", "49182");
    let first = number(&entry(&host, "first.yaml")).to_owned();
    apply_file("second", "49183");
    let second = number(&entry(&host, "second.yaml")).to_owned();
    assert_ne!(first, second);
    for later in ["third", "fourth"] {
        apply_file(later, if later == "third" { "49184" } else { "49185" });
        assert_eq!(number(&entry(&host, "first.yaml")), first, "{later}");
        assert_eq!(number(&entry(&host, "second.yaml")), second, "{later}");
    }
    rollback(&host);
    assert_eq!(number(&entry(&host, "first.yaml")), first, "a rollback");
}

lab_test!(either an_entry_shows_who_changed_which_forwards);
/// Who changed which forwards, and when.
fn an_entry_shows_who_changed_which_forwards(backend: Backend) {
    let host = firewall(backend);
    let as_user = |user: &str, spec: &str| {
        let written = host.feed("sh", &["-c", "cat > /run/spec.yaml"], spec);
        assert!(written.status.success());
        let mut command = host.command(env!("CARGO_BIN_EXE_nvactl"));
        command.args(["apply", "/run/spec.yaml"]);
        command.env("SUDO_USER", user).env("SUDO_UID", "1000");
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{output:?}");
    };
    as_user("alice", SPEC);
    as_user("bob", &on("49183"));
    as_user("carol", &on("49183").replace("games", "play"));
    let listed = nvactl(&host, &["history"], "").stdout;
    let of = |user: &str| {
        let line = listed.lines().find(|line| line.contains(user));
        line.unwrap_or_else(|| panic!("{user} is not named: {listed}"))
    };
    let alice = of("alice");
    for forward in ["web", "dns.v2", "games"] {
        assert!(alice.contains(forward), "{forward}: {listed}");
    }
    let bob = of("bob");
    assert!(bob.contains("web") && !bob.contains("dns.v2"), "{listed}");
    let carol = of("carol");
    assert!(carol.contains("play") && !carol.contains("web"), "{listed}");
    // Each has a date.
    assert!(bob.contains('T') && bob.contains('Z'), "{listed}");
}

lab_test!(either a_rollback_announces_the_policy);
/// A policy that goes either way is announced, before and while it is done.
fn a_rollback_announces_the_policy(backend: Backend) {
    for (spec, policy) in [(SPEC, "FORWARD policy"), (BOTH, "IPv6 FORWARD policy")] {
        let host = firewall(backend);
        apply(&host, spec);
        let announced = |args: &[&str], code: i32, words: &str| {
            let said = nvactl(&host, args, "");
            assert_eq!(said.code, code, "{args:?}: {said:?}");
            let all = format!("{}{}", said.stdout, said.stderr);
            let words = format!("{policy} {words}");
            assert!(all.contains(&words), "{args:?}: no {words:?}: {said:?}");
        };
        announced(&["rollback", "--dry-run"], 1, "changes from DROP to ACCEPT");
        announced(&["rollback"], 0, "changes from DROP to ACCEPT");
        assert!(save(&host).contains(":FORWARD ACCEPT"));

        apply(&host, spec);
        let said = nvactl(&host, &["remove", "--forward-policy", "accept"], "");
        assert_eq!(said.code, 0, "{said:?}");
        announced(&["rollback", "--dry-run"], 1, "changes from ACCEPT to DROP");
        announced(&["rollback"], 0, "changes from ACCEPT to DROP");
        assert!(save(&host).contains(":FORWARD DROP"));
        assert!(spec != BOTH || save_v6(&host).contains(":FORWARD DROP"));

        // One that stays is no news.
        let other = spec.replace("49182", "49183");
        apply(&host, &other);
        let said = nvactl(&host, &["rollback"], "");
        assert!(!said.stdout.contains("policy changes"), "{said:?}");
    }
}
