//! Apply, apply again, keep, lose, remove: what is in the kernel at each step.

use nvactl::netfilter::text::parse::parse;

use crate::fake::{fake, unfake};
use crate::firewall::{SPEC, apply, firewall, load};
use crate::foreign::{FOREIGN, foreign_lines};
use crate::lab::{Backend, FIREWALL, Lab, example, save};
use crate::long;
use crate::namespace::Host;
use crate::nvactl;
use crate::pages::{block, page};
use crate::traffic::{Outcome, answer, serve_tcp};

lab_test!(the_kernel_returns_the_rendered_rules);
/// What nvactl prints is what the kernel gives back: loaded whole into empty tables, and applied.
fn the_kernel_returns_the_rendered_rules(backend: Backend) {
    let specs = ["ilb.yaml", "pod.yaml", "two-nic.yaml"].map(example);
    for spec in specs.iter().map(String::as_str).chain([SPEC, KEEP, EMPTY]) {
        let host = firewall(backend);
        let rendered = nvactl(&host, &["render", "-"], spec).stdout;
        load(&host, &rendered);
        assert_eq!(save(&host), rendered);
        assert_eq!(
            parse(&rendered).expect("it is readable").to_string(),
            rendered
        );

        let said = nvactl(&host, &["apply", "-", "--dry-run"], spec);
        assert_eq!(
            (said.code, said.stdout.as_str()),
            (0, "<stdin>: no changes\n")
        );
    }
}

const KEEP: &str = "
firewall: {interface: eth0, snat: masquerade, forward_policy: keep}
forwards: [{name: web, listen: 80, target: {pod: 10.224.0.118:80}}]
";
const EMPTY: &str = "firewall: {interface: eth0, snat: 10.3.0.4}\nforwards: []\n";

lab_test!(a_folder_is_found_and_applied);
/// The last place where a spec is looked for.
fn a_folder_is_found_and_applied(backend: Backend) {
    let host = firewall(backend);
    let folder = "/etc/nvactl/forward.d";
    host.run(&format!("mkdir -p {folder}"));
    for name in ["00-firewall.yaml", "tmp-shell.yaml", "web.yaml"] {
        let text = example(&format!("forward.d/{name}"));
        let written = host.feed("sh", &["-c", &format!("cat > {folder}/{name}")], &text);
        assert!(written.status.success(), "{written:?}");
    }
    let said = nvactl(&host, &["apply"], "");
    assert_eq!(said.code, 0, "{said:?}");
    let applied = format!("\n{folder}: applied 2 forwards: ");
    assert!(said.stdout.contains(&applied), "{said:?}");
    let status = nvactl(&host, &["status", "--check"], "");
    assert_eq!(status.code, 0, "{status:?}");
    let kept = nvactl(&host, &["persist", folder], "");
    assert_eq!(kept.code, 0, "{kept:?}");
    // A hint names the folder, as it can be typed.
    host.run(&format!("sed -i s/49182/49183/ {folder}/web.yaml"));
    let refused = nvactl(&host, &["persist", folder], "");
    assert_eq!(refused.code, 2, "{refused:?}");
    let hint = format!("hint: to load the spec: sudo nvactl apply {folder}\n");
    assert!(refused.stderr.ends_with(&hint), "{refused:?}");
    // A file goes before the folder.
    host.shell("echo broken > /etc/nvactl/forward.yaml");
    let said = nvactl(&host, &["check"], "");
    assert!(
        said.stderr.contains("/etc/nvactl/forward.yaml:1:1"),
        "{said:?}"
    );
}

lab_test!(a_second_apply_writes_nothing);
fn a_second_apply_writes_nothing(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    // From here on, whoever loads rules fails.
    host.run("ln -sf /bin/false /run/bin/iptables-restore");
    let said = apply(&host, SPEC);
    assert_eq!(said.stdout, "<stdin>: no changes\n");
    let changed = SPEC.replace("49182", "49183");
    assert_eq!(
        nvactl(&host, &["apply", "-"], &changed).code,
        2,
        "the lock on loading works"
    );
}

lab_test!(a_dry_run_shows_the_changes_that_apply_makes);
fn a_dry_run_shows_the_changes_that_apply_makes(backend: Backend) {
    let host = firewall(backend);
    let before = save(&host);
    let said = nvactl(&host, &["apply", "-", "--dry-run"], SPEC);
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(save(&host), before, "a dry run changed the rules");
    let first = said.stderr.lines().next().unwrap_or_default();
    assert!(
        first.starts_with("warning: the FORWARD policy changes from ACCEPT to DROP"),
        "{first}"
    );
    let keep = "hint: to keep the policy, write in the spec, in `firewall`: forward_policy: keep\n";
    assert!(said.stderr.contains(keep), "{said:?}");

    // Each line with a plus is a line that apply brings.
    apply(&host, SPEC);
    let after = save(&host);
    for line in said
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("+ "))
        // The others are forwards.
        .filter(|line| line.starts_with(['-', ':']))
    {
        let saved = line.replace("-I FORWARD 1", "-A FORWARD");
        let saved = saved.replace("-I PREROUTING 1", "-A PREROUTING");
        let saved = saved.replace("-I POSTROUTING 1", "-A POSTROUTING");
        assert!(
            after.lines().any(|l| l == saved),
            "{saved} is not in\n{after}"
        );
    }
    assert_eq!(nvactl(&host, &["apply", "-", "--dry-run"], SPEC).code, 0);

    let said = nvactl(
        &host,
        &["apply", "-", "--dry-run"],
        &SPEC.replace("49182", "49183"),
    );
    assert_eq!(said.code, 1);
    assert!(
        !said.stdout.contains("policy"),
        "it does not change: {}",
        said.stdout
    );
    let changed = said
        .stdout
        .lines()
        .filter(|l| l.starts_with(['+', '-']))
        .count();
    assert_eq!(changed, 6, "one forward is three rules: {}", said.stdout);
}

lab_test!(foreign_rules_stay_in_their_order);
fn foreign_rules_stay_in_their_order(backend: Backend) {
    for (name, rules) in FOREIGN {
        let host = firewall(backend);
        load(&host, rules);
        let before = save(&host);
        apply(&host, SPEC);
        let applied = save(&host);
        assert_eq!(
            foreign_lines(&applied),
            foreign_lines(&before),
            "{name}: apply"
        );
        apply(
            &host,
            &SPEC.replace("49182", "49183").replace("games", "play"),
        );
        assert_eq!(
            foreign_lines(&save(&host)),
            foreign_lines(&before),
            "{name}: a change"
        );

        let said = nvactl(&host, &["remove"], "");
        assert_eq!(said.code, 0, "{said:?}");
        assert!(
            said.stdout.contains("the FORWARD policy stays DROP"),
            "{said:?}"
        );
        let removed = save(&host);
        assert_eq!(
            foreign_lines(&removed),
            foreign_lines(&before),
            "{name}: remove"
        );
        assert!(!removed.contains("NVACTL"), "{name}: {removed}");
        assert!(removed.contains(":FORWARD DROP"), "{name}: {removed}");
    }
}

lab_test!(remove_leaves_the_rules_from_before_apply);
/// Where both tables were in use before, not one byte is different afterwards.
fn remove_leaves_the_rules_from_before_apply(backend: Backend) {
    let host = firewall(backend);
    load(&host, FOREIGN[0].1);
    let before = save(&host);
    apply(&host, SPEC);
    let said = nvactl(&host, &["remove", "--dry-run"], "");
    assert_eq!(said.code, 1);
    assert!(
        said.stdout.contains("- -A FORWARD -j NVACTL-FORWARD\n"),
        "{}",
        said.stdout
    );
    let said = nvactl(&host, &["remove", "--forward-policy", "accept"], "");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stdout
            .contains("the FORWARD policy changed from DROP to ACCEPT"),
        "{said:?}"
    );
    assert_eq!(
        save(&host),
        before.replace(":FORWARD DROP", ":FORWARD ACCEPT")
    );
    let said = nvactl(&host, &["remove"], "");
    assert_eq!(said.stdout, "no changes: nvactl's rules are not loaded\n");
}

lab_test!(the_jump_is_first_and_single);
fn the_jump_is_first_and_single(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let sound = save(&host);
    for spoil in [
        "iptables -I FORWARD 1 -s 192.0.2.1 -j DROP",
        "iptables -A FORWARD -j NVACTL-FORWARD",
        "iptables -A FORWARD -i eth0 -j NVACTL-FORWARD",
        "iptables -t nat -I PREROUTING 1 -s 192.0.2.1 -j ACCEPT",
        "iptables -t nat -D POSTROUTING -j NVACTL-POSTROUTING",
        "iptables -I NVACTL-FORWARD 2 -s 192.0.2.1 -j ACCEPT",
        "iptables -D NVACTL-FORWARD 2",
        "iptables -N NVACTL-OLD",
        "iptables -P FORWARD ACCEPT",
    ] {
        host.run(spoil);
        assert_ne!(save(&host), sound, "{spoil}: it does nothing");
        apply(&host, SPEC);
        let saved = save(&host);
        for jump in [
            "-A FORWARD -j NVACTL-FORWARD",
            "-A PREROUTING -j NVACTL-PREROUTING",
            "-A POSTROUTING -j NVACTL-POSTROUTING",
        ] {
            let (chain, _) = jump.split_once(" -j").expect("it is a jump");
            let rules: Vec<&str> = saved.lines().filter(|l| l.starts_with(chain)).collect();
            assert_eq!(rules[0], jump, "{spoil}");
            let to_own = rules.iter().filter(|l| l.contains("NVACTL")).count();
            assert_eq!(to_own, 1, "{spoil}: {rules:?}");
        }
        let own = |saved: &str| -> Vec<String> {
            let lines = saved
                .lines()
                .filter(|l| l.contains("NVACTL") || l.contains(":FORWARD"));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(own(&saved), own(&sound), "{spoil}");
    }
}

lab_test!(an_unchanged_rule_keeps_its_counters);
fn an_unchanged_rule_keeps_its_counters(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    lab.firewall
        .run("iptables -A INPUT -s 198.51.100.10 -p udp -j ACCEPT");
    lab.apply(SPEC);
    assert_eq!(lab.udp(FIREWALL, 9), Outcome::Refused);
    assert_eq!(lab.tcp(FIREWALL, 49182), answer("pod", FIREWALL));
    let counted = |what: &str| -> String {
        let saved = lab.firewall.run("iptables-save -c");
        let line = saved.lines().find(|line| line.contains(what));
        line.expect("the rule is there").to_owned()
    };
    let rules = [
        "-A INPUT",
        "-A NVACTL-PREROUTING -i eth0 -p tcp -m tcp --dport 49182",
        "ESTABLISHED",
    ];
    let before = rules.map(counted);
    assert!(
        before.iter().all(|line| !line.starts_with("[0:")),
        "{before:?}"
    );
    apply(&lab.firewall, &SPEC.replace("6000-6010", "6100-6110"));
    assert_eq!(rules.map(counted), before);
    // Another forward in front of it, and one behind it gone.
    apply(
        &lab.firewall,
        &SPEC.replace("dns.v2", "dns.v3").replace("games", "play"),
    );
    assert_eq!(rules.map(counted), before);
}

lab_test!(forwards_come_back_after_a_boot);
fn forwards_come_back_after_a_boot(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    lab.apply(&example("pod.yaml"));
    let said = lab.nvactl_with(&["persist", "-"], &example("pod.yaml"));
    assert_eq!(said.code, 0, "{said:?}");
    flush(&lab.firewall);
    assert_ne!(
        lab.tcp(FIREWALL, 49182),
        answer("pod", FIREWALL),
        "nothing was flushed"
    );

    // As netfilter-persistent's plugin does it.
    lab.firewall
        .shell("iptables-restore < /etc/iptables/rules.v4");
    assert_eq!(lab.curl(FIREWALL, 49182), "pod 10.3.0.4");

    // And as the shell writes it from the spec alone.
    flush(&lab.firewall);
    let rendered = lab
        .nvactl_with(&["render", "-"], &example("pod.yaml"))
        .stdout;
    load(&lab.firewall, &rendered);
    assert_eq!(lab.curl(FIREWALL, 49182), "pod 10.3.0.4");
}

fn flush(host: &Host) {
    host.shell(
        "for table in filter nat; do iptables -t $table -F; iptables -t $table -X; done
         iptables -P FORWARD ACCEPT",
    );
}

lab_test!(rules_typed_by_hand_are_named_with_their_removal);
/// The commands that the article has its readers type, and nvactl's words about them.
fn rules_typed_by_hand_are_named_with_their_removal(backend: Backend) {
    let host = firewall(backend);
    let typed = [
        "iptables -A FORWARD -p tcp --syn --dport 80 -m conntrack --ctstate NEW -j ACCEPT",
        "iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
        "iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 49182 -j DNAT --to-destination 10.224.0.118:80",
        "iptables -t nat -A POSTROUTING -o eth0 -p tcp --dport 80 -d 10.224.0.118 -j SNAT --to-source 10.3.0.4",
        // Not this spec's business.
        "iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 50000 -j DNAT --to-destination 10.224.0.9:80",
    ];
    for command in typed {
        host.run(command);
    }
    let said = apply(&host, &example("pod.yaml"));
    let removals: Vec<&str> = said
        .stderr
        .lines()
        .filter_map(|line| line.trim().strip_prefix("to remove it: sudo "))
        .collect();
    assert_eq!(removals.len(), 2, "{}", said.stderr);
    removals.iter().for_each(|command| drop(host.run(command)));
    let said = apply(&host, &example("pod.yaml"));
    assert!(!said.stderr.contains("to remove it"), "{}", said.stderr);
    let left = save(&host);
    assert!(left.contains("--dport 50000"), "{left}");
    // Only nat's rules are named: an ACCEPT in FORWARD translates nothing. The page has the other commands.
    assert!(left.contains("-A FORWARD -p tcp"), "{left}");
    let page = page("docs/article.md");
    host.shell(&block(&page, "lab: accept rules").replace("sudo ", ""));
    let left = save(&host);
    let in_forward = left.lines().filter(|line| line.starts_with("-A FORWARD "));
    let in_forward: Vec<&str> = in_forward.collect();
    assert_eq!(in_forward, ["-A FORWARD -j NVACTL-FORWARD"]);
}

lab_test!(a_table_that_was_loaded_is_undone_when_the_next_fails);
/// nat is refused after filter was committed: filter must be as it was.
fn a_table_that_was_loaded_is_undone_when_the_next_fails(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    // The first load ends behind its first table, the second one is let through.
    fake(
        &host,
        "iptables-restore",
        "if mkdir /run/once 2>/dev/null; then
           cat > /run/script
           sed '/^COMMIT/q' /run/script | real \"$@\"
           echo 'iptables-restore: line 7 failed' >&2
           exit 1
         fi
         real \"$@\"",
    );
    let said = nvactl(
        &host,
        &["apply", "-", "--no-trial"],
        &SPEC.replace("49182", "49183"),
    );
    assert_eq!(said.code, 2, "{said:?}");
    let error = said.stderr.lines().last().unwrap_or_default();
    assert!(
        error.contains("was not loaded, and the rest of the change was undone"),
        "{error}"
    );
    assert!(
        error.ends_with(
            "`iptables-restore --noflush -w 30` failed: iptables-restore: line 7 failed"
        ),
        "{error}"
    );
    assert_eq!(save(&host), before);
    apply(&host, &SPEC.replace("49182", "49183"));
}

lab_test!(a_change_that_reads_back_different_is_undone);
/// What the kernel gives back is not what was asked for.
fn a_change_that_reads_back_different_is_undone(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    fake(
        &host,
        "iptables-restore",
        "sed '/--dport 49183 .*addrtype/d' | real \"$@\"",
    );
    let said = nvactl(&host, &["apply", "-"], &SPEC.replace("49182", "49183"));
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr
            .contains("are not the new ones; the old rules are loaded:\n"),
        "{said:?}"
    );
    assert!(
        said.stderr
            .contains("+ -A NVACTL-PREROUTING -i eth0 -p tcp -m tcp --dport 49183"),
        "{said:?}"
    );
    assert_eq!(save(&host), before);
}

lab_test!(a_change_that_cannot_be_read_back_is_undone);
/// Loaded, but nobody can say so for a while, or for good: then it is undone.
fn a_change_that_cannot_be_read_back_is_undone(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    let changed = SPEC.replace("49182", "49183");
    // The first look is the one before the change.
    for (sound, code, words) in [
        ("1|2|3|4", 0, ""),
        ("1|3|4", 0, ""),
        ("1|4", 2, "they were undone"),
        ("1", 3, "loaded but cannot be read back"),
    ] {
        fake(
            &host,
            "iptables-save",
            &format!(
                "echo >> /run/looks; case $(wc -l < /run/looks) in {sound}) real;; *) exit 1;; esac"
            ),
        );
        let said = nvactl(&host, &["apply", "-"], &changed);
        unfake(&host, "iptables-save");
        host.run("rm /run/looks");
        assert_eq!(said.code, code, "{sound}: {said:?}");
        assert!(said.stderr.contains(words), "{sound}: {said:?}");
        if code == 0 {
            apply(&host, SPEC);
        }
        assert_eq!(save(&host), before, "{sound}");
    }
}

lab_test!(an_undo_that_was_not_tried_has_not_failed);
/// A refused change is undone only from rules that can be read.
fn an_undo_that_was_not_tried_has_not_failed(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    fake(&host, "iptables-restore", "touch /run/refused; exit 1");
    fake(
        &host,
        "iptables-save",
        "[ -e /run/refused ] && exit 1; real",
    );
    let changed = SPEC.replace("49182", "49183");
    let said = nvactl(&host, &["apply", "-", "--no-trial"], &changed);
    unfake(&host, "iptables-save");
    unfake(&host, "iptables-restore");
    assert_eq!(said.code, 3, "{said:?}");
    assert!(
        said.stderr.contains("; the change was not undone: "),
        "{said:?}"
    );
    assert!(
        !said.stderr.contains("undoing the change failed"),
        "{said:?}"
    );
    assert_eq!(save(&host), before);
}

lab_test!(a_table_that_iptables_cannot_show_is_not_treated_as_empty);
/// iptables-nft leaves out a table that it cannot print, says so in a comment, and ends with 0.
fn a_table_that_iptables_cannot_show_is_not_treated_as_empty(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    fake(
        &host,
        "iptables-save",
        "echo \"# Table \\`filter' is incompatible, use 'nft' tool.\"; real -t nat",
    );
    for args in [&["apply", "-"][..], &["remove"], &["persist"]] {
        let said = nvactl(&host, args, SPEC);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(
            said.stderr.contains("the table filter holds rules"),
            "{said:?}"
        );
    }
    unfake(&host, "iptables-save");
    assert_eq!(save(&host), before);
}

lab_test!(apply_does_not_stop_if_nobody_reads_its_report);
/// A reader who goes away, or a full disk under the report, does not decide what is loaded.
fn apply_does_not_stop_if_nobody_reads_its_report(backend: Backend) {
    let host = firewall(backend);
    let run = |command: &str| {
        host.shell(&format!(
            "cat > /run/spec.yaml <<'END'{SPEC}END
             set +e
             {{ {} {command}; echo $? > /run/code; }} 2>/dev/null | true",
            env!("CARGO_BIN_EXE_nvactl")
        ));
        host.run("cat /run/code")
    };
    assert_eq!(run("apply --dry-run /run/spec.yaml"), "1\n");
    assert_eq!(run("apply /run/spec.yaml"), "0\n");
    assert!(save(&host).contains("49182"));
    // A report that is all that the command leaves must not be lost silently.
    for reports in [
        "history",
        "boot status",
        "sysctl status",
        "confirm --status",
        "apply --dry-run /run/spec.yaml",
        "remove --dry-run",
        "rollback --dry-run",
    ] {
        assert_eq!(run(&format!("{reports} > /dev/full")), "2\n", "{reports}");
    }
    assert_eq!(run("remove > /dev/full"), "0\n");
    assert!(!save(&host).contains("NVACTL"));
    assert_eq!(run("sysctl enable --persist"), "0\n");
    assert_eq!(host.run("cat /proc/sys/net/ipv4/ip_forward"), "1\n");
}

lab_test!(sampled either concurrent_applies_take_turns);
/// Four at once: the end is one of the specs, the same in both tables, and nobody fails.
fn concurrent_applies_take_turns(backend: Backend) {
    let host = firewall(backend);
    let specs: Vec<String> = (0..4)
        .map(|n| SPEC.replace("49182", &format!("4919{n}")))
        .collect();
    let ends: Vec<String> = specs
        .iter()
        .map(|spec| {
            apply(&host, spec);
            save(&host)
        })
        .collect();
    for _ in 0..long::count(5, 25) {
        std::thread::scope(|scope| {
            for spec in &specs {
                scope.spawn(|| apply(&host, spec));
            }
        });
        let end = save(&host);
        assert!(ends.contains(&end), "{end}");
    }
}

lab_test!(a_foreign_jump_to_nvactl_s_chain_is_named);
/// Only where nvactl jumps from are jumps to its chains its own.
fn a_foreign_jump_to_nvactl_s_chain_is_named(backend: Backend) {
    let host = firewall(backend);
    for (make, rule) in [
        ("iptables -N MINE", "-A MINE -p udp -j NVACTL-FORWARD"),
        ("true", "-A INPUT -s 192.0.2.1/32 -j NVACTL-FORWARD"),
    ] {
        apply(&host, SPEC);
        host.run(make);
        host.run(&format!("iptables {rule}"));
        let before = save(&host);
        let said = apply(&host, SPEC);
        assert!(said.stdout.contains("no changes"), "{said:?}");
        assert!(said.stderr.contains(rule), "{said:?}");
        let said = nvactl(&host, &["remove"], "");
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.stderr.contains(rule), "{said:?}");
        assert_eq!(save(&host), before);
        let hint = said
            .stderr
            .lines()
            .find_map(|line| line.strip_prefix("hint: to remove it: sudo "));
        // sudo would look for iptables on a path of its own.
        host.run(hint.expect("there is a hint"));
        assert_eq!(nvactl(&host, &["remove"], "").code, 0);
    }
}

lab_test!(missing_iptables_is_reported);
fn missing_iptables_is_reported(backend: Backend) {
    let host = firewall(backend);
    host.run("rm /run/bin/iptables-save");
    host.shell("mkdir /run/empty; mount --bind /run/empty /usr/sbin");
    for args in [&["apply", "-"][..], &["remove"], &["persist"]] {
        let said = nvactl(&host, args, SPEC);
        assert_eq!(said.code, 2, "{said:?}");
        assert_eq!(
            said.stderr,
            "error: `iptables-save` is not installed, or not on PATH\n\
             hint: to install it: sudo apt-get install iptables\n"
        );
    }
}

lab_test!(each_started_program_is_logged_on_request);
fn each_started_program_is_logged_on_request(backend: Backend) {
    let host = firewall(backend);
    let said = nvactl(&host, &["-v", "apply", "-"], SPEC);
    let runs: Vec<&str> = said
        .stderr
        .lines()
        .filter(|line| line.contains("DEBUG ran"))
        .collect();
    assert!(
        runs.iter().all(|run| run.contains("milliseconds=")),
        "{runs:?}"
    );
    // Read, try, load, read back; what else it asks the machine is between them.
    let mut programs = runs.iter();
    for step in [
        r#"program="iptables-save" args=["-c"]"#,
        r#"program="env" args=["XTABLES_LOCKFILE=/dev/null", "iptables-restore", "--noflush""#,
        r#"program="iptables-restore" args=["--noflush", "-w", "30"]"#,
        r#"program="iptables-save" args=[]"#,
    ] {
        assert!(programs.any(|run| run.contains(step)), "{step}: {runs:?}");
    }
}

lab_test!(progress_is_shown_at_a_terminal_only);
/// Each step has its line on a terminal, which goes again; a pipe gets none of it.
fn progress_is_shown_at_a_terminal_only(backend: Backend) {
    let host = firewall(backend);
    host.shell(&format!("cat > /run/spec.yaml <<'END'{SPEC}END"));
    let apply = format!("{} apply /run/spec.yaml", env!("CARGO_BIN_EXE_nvactl"));
    let shown = host.shell(&format!(
        "script --quiet --return --command '{apply}' /dev/null < /dev/null"
    ));
    let steps = ["trying…", "loading…", "verifying…", ""].map(|step| format!("\r\u{1b}[K{step}"));
    assert!(shown.contains(&steps.concat()), "{shown:?}");
    let piped = nvactl(&host, &["apply", "-"], &SPEC.replace("49182", "49183"));
    assert!(
        !piped.stderr.contains(['\r', '\u{1b}', '…']) && !piped.stdout.contains(['\r', '…']),
        "{piped:?}"
    );
}
