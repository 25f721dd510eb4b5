//! Tests of `nvactl diff` against files.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use crate::{BOTH, BROKEN, SOUND, folder, nvactl, said};

const OLD: &str = "\
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
  - {name: api, listen: 443, target: {pod: 10.224.0.7:80}}
  - {name: old, listen: 444, target: {ilb: 10.224.0.7}}
";

const NEW: &str = "\
firewall: {interface: eth0, snat: masquerade}
forwards:
  - {name: new, listen: 10.3.0.4:53, protocol: udp, target: {ilb: 10.224.0.7}}
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
  - {name: api, listen: 8443, target: {pod: 10.224.0.9:80}}
";

/// Runs a diff of `new.yaml` against `old.yaml` with these options.
fn diff(options: &[&str]) -> String {
    let folder = folder();
    fs::write(folder.path().join("old.yaml"), OLD).unwrap();
    fs::write(folder.path().join("new.yaml"), NEW).unwrap();
    let args = [&["diff", "new.yaml", "--against", "old.yaml"], options].concat();
    said(nvactl(folder.path()).args(args))
}

#[test]
fn changes_are_listed_by_forward() {
    insta::assert_snapshot!(diff(&[]));
}

#[test]
fn rules_are_listed_on_request() {
    insta::assert_snapshot!(diff(&["--rules"]));
}

#[test]
fn json_has_every_field() {
    insta::assert_snapshot!(diff(&["--format", "json"]));
}

#[test]
fn markdown_has_a_table_and_the_rules() {
    insta::assert_snapshot!(diff(&["--format", "markdown", "--rules"]));
}

/// No rule has a description, so only two specs can be compared by it.
#[test]
fn descriptions_and_the_listeners_of_a_list_are_compared() {
    let folder = folder();
    let spec = |own: &str, web: &str, listen: &str| {
        format!(
            "description: {own}\nfirewall: {{interface: eth0, snat: 10.3.0.4}}\nforwards:\n\
             - {{name: web, {web}listen: {listen}, protocol: [tcp, udp], target: {{ilb: 10.224.0.222}}}}\n\
             - {{name: api, listen: [81, 82], target: {{pod: 10.224.0.118:80}}}}\n"
        )
    };
    let before = spec("one", "", "[80, 443]");
    let described = spec("two", "description: \"a | b\", ", "[443, 80]");
    let narrowed = described.replace("[443, 80]", "80");
    let many = described.replace("[443, 80]", "[80, 443, 444, 445, 446-450, 10.3.0.4:80]");
    let many = many.replace("10.3.0.4:80", "10.3.0.4:8443");
    let more = many.replace("444, 445", "445, 10.3.0.5:444");
    let new = format!(
        "{before}- {{name: new, description: new here, listen: [90, 10.3.0.4:91], target: {{pod: 10.224.0.7}}}}\n"
    );
    let mut all = String::new();
    for (old, new, format) in [
        (&before, &described, "text"),
        (&before, &described, "json"),
        (&before, &described, "markdown"),
        (&described, &before, "text"),
        (&described, &narrowed, "text"),
        (&narrowed, &many, "text"),
        (&many, &more, "text"),
        (&before, &new, "text"),
        (&before, &new, "markdown"),
        (&new, &before, "text"),
    ] {
        fs::write(folder.path().join("old.yaml"), old).unwrap();
        fs::write(folder.path().join("new.yaml"), new).unwrap();
        let args = [
            "diff",
            "new.yaml",
            "--against",
            "old.yaml",
            "--format",
            format,
        ];
        all += &said(nvactl(folder.path()).args(args));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn equal_rules_in_any_form_exit_with_0() {
    let folder = folder();
    fs::write(folder.path().join("spec.yaml"), SOUND).unwrap();
    let rules = nvactl(folder.path())
        .args(["render", "spec.yaml"])
        .output()
        .unwrap()
        .stdout;
    // Counters, comments, the order of tables and foreign rules do not count.
    let rules = String::from_utf8(rules).unwrap().replace("[0:0]", "[7:42]");
    let (filter, nat) = rules.split_once("*nat").unwrap();
    let foreign = "-A INPUT -p icmp -j ACCEPT\nCOMMIT\n";
    let text = format!("# saved\n*nat{nat}{}", filter.replace("COMMIT\n", foreign));
    fs::write(folder.path().join("rules.v4"), text).unwrap();
    for against in ["spec.yaml", "rules.v4"] {
        let run = said(nvactl(folder.path()).args(["diff", "spec.yaml", "--against", against]));
        assert_eq!(
            run,
            format!("exit 0\n--- stdout\nspec.yaml: the same as {against}\n")
        );
        for format in ["json", "markdown"] {
            let args = [
                "diff",
                "spec.yaml",
                "--against",
                against,
                "--format",
                format,
            ];
            let run = said(nvactl(folder.path()).args(args));
            assert!(run.starts_with("exit 0\n"), "{run}");
        }
    }
}

#[test]
fn rules_added_and_removed_by_hand_are_drift() {
    let folder = folder();
    fs::write(folder.path().join("spec.yaml"), OLD).unwrap();
    let rules = nvactl(folder.path())
        .args(["render", "spec.yaml"])
        .output()
        .unwrap()
        .stdout;
    let rules = String::from_utf8(rules).unwrap();
    let lines: Vec<&str> = rules
        .lines()
        // The ACCEPT of `web` and the jump in POSTROUTING are removed.
        .filter(|line| !(line.contains("comment web -j ACCEPT") || line.contains("-j NVACTL-POST")))
        .flat_map(|line| match line {
            "-A FORWARD -j NVACTL-FORWARD" => vec!["-A FORWARD -s 192.0.2.1/32 -j DROP", line],
            line if line.contains("RELATED,ESTABLISHED") => {
                vec![line, "-A NVACTL-FORWARD -s 192.0.2.7/32 -j ACCEPT"]
            }
            line => vec![line],
        })
        .collect();
    fs::write(folder.path().join("rules.v4"), lines.join("\n") + "\n").unwrap();
    let args = ["diff", "spec.yaml", "--against", "rules.v4"];
    insta::assert_snapshot!(said(nvactl(folder.path()).args(args)));
}

#[test]
fn an_unreadable_side_exits_with_2() {
    let folder = folder();
    fs::write(folder.path().join("spec.yaml"), SOUND).unwrap();
    fs::write(folder.path().join("broken.yaml"), BROKEN).unwrap();
    fs::write(
        folder.path().join("cut.v4"),
        "*filter\n:INPUT ACCEPT [0:0]\n",
    )
    .unwrap();
    for (args, words) in [
        (
            ["diff", "spec.yaml", "--against", "broken.yaml"],
            "broken.yaml:6:13",
        ),
        (
            ["diff", "broken.yaml", "--against", "spec.yaml"],
            "broken.yaml:6:13",
        ),
        (["diff", "spec.yaml", "--against", "cut.v4"], "COMMIT"),
        (
            ["diff", "spec.yaml", "--against", "none.v4"],
            "cannot read `none.v4`: No such file",
        ),
    ] {
        let run = said(nvactl(folder.path()).args(args));
        assert!(run.starts_with("exit 2\n--- stderr\n"), "{run}");
        assert!(run.contains(words), "{run}");
    }
}

#[test]
fn a_pipe_may_bring_rules_of_both_families_or_a_spec() {
    let folder = folder();
    fs::write(folder.path().join("spec.yaml"), BOTH).unwrap();
    let saved = |family, program| {
        let args = ["render", "spec.yaml", "--family", family];
        let rules = nvactl(folder.path()).args(args).output().unwrap().stdout;
        let rules = String::from_utf8(rules).unwrap();
        format!("# Generated by {program} v1.8.9 on Mon Nov 30 10:59:41 2026\n{rules}# Completed\n")
    };
    let (v4, v6) = (saved("v4", "iptables-save"), saved("v6", "ip6tables-save"));
    let diff = |input: &str, more: &[&str]| {
        let args = [&["diff", "spec.yaml", "--against", "-"], more].concat();
        said(nvactl(folder.path()).args(args).write_stdin(input))
    };
    let same = "exit 0\n--- stdout\nspec.yaml: the same as <stdin>\n";
    assert_eq!(diff(BOTH, &[]), same);
    for both in [format!("{v4}{v6}"), format!("{v6}{v4}")] {
        assert_eq!(diff(&both, &[]), same);
        assert_eq!(diff(&both, &["--family", "v6"]), same);
    }
    let moved = v6.replace("::118", "::119");
    let run = diff(&format!("{v4}{moved}"), &[]);
    let line = "~ web6             target [fd00:224::119]:80 → [fd00:224::118]:80\n";
    assert_eq!(run, format!("exit 1\n--- stdout\n{line}"));
    assert_eq!(diff(&format!("{v4}{moved}"), &["--family", "v4"]), same);
    // The lines of the second text keep their numbers in the stream.
    let broken = v6.replace("COMMIT", "COMMAND");
    let run = diff(&format!("{v4}{broken}"), &[]);
    let line = (v4.clone() + &broken)
        .lines()
        .position(|line| line == "COMMAND");
    let named = format!("`<stdin>`: line {}: ", line.unwrap() + 1);
    assert!(run.starts_with("exit 2\n") && run.contains(&named), "{run}");
    // The other program has printed nothing, so that machine has no such rules.
    let run = diff(&v6, &[]);
    assert!(
        run.starts_with("exit 1\n") && run.contains("\n+ web "),
        "{run}"
    );
    assert!(
        run.ends_with(
            "note: <stdin> has IPv6 rules alone, so there are no IPv4 rules; to compare IPv6 alone, add: --family v6\n"
        ),
        "{run}"
    );
    assert_eq!(diff(&v6, &["--family", "v6"]), same);
    let run = diff(&v6, &["--family", "v4"]);
    assert_eq!(
        run,
        "exit 2\n--- stderr\nerror: cannot read the rules in `<stdin>`: the text has IPv6 rules, and --family asks for IPv4\n\
         hint: use --family v6, or leave it out\n"
    );
    // A file of this name still has one.
    fs::write(folder.path().join("-"), BOTH).unwrap();
    let args = ["diff", "spec.yaml", "--against", "./-"];
    assert!(said(nvactl(folder.path()).args(args)).starts_with("exit 0\n"));
}

#[test]
fn rules_of_both_families_without_their_names_get_a_hint() {
    let folder = folder();
    fs::write(folder.path().join("spec.yaml"), BOTH).unwrap();
    let rendered = |family| {
        let args = ["render", "spec.yaml", "--family", family];
        let rules = nvactl(folder.path()).args(args).output().unwrap().stdout;
        String::from_utf8(rules).unwrap()
    };
    let (v4, v6) = (rendered("v4"), rendered("v6"));
    let diff = |input: &str| {
        let args = ["diff", "spec.yaml", "--against", "-"];
        said(nvactl(folder.path()).args(args).write_stdin(input))
    };
    let run = diff(&format!("{v4}{v6}"));
    assert!(run.starts_with("exit 2\n"), "{run}");
    let hint = "\nhint: if the text has the rules of both families, the line `# Generated by iptables-save` must stand \
                above those of IPv4, and `# Generated by ip6tables-save` above those of IPv6\n";
    assert!(run.ends_with(hint), "{run}");
    let names: Vec<&str> = hint.split('`').skip(1).step_by(2).collect();
    let run = diff(&format!("{}\n{v4}{}\n{v6}", names[0], names[1]));
    assert!(run.starts_with("exit 0\n"), "{run}");
}

#[test]
fn the_line_ends_of_a_terminal_get_a_hint_if_they_come_by_a_pipe() {
    let folder = folder();
    fs::write(folder.path().join("spec.yaml"), SOUND).unwrap();
    let rules = "*filter\r\n:FORWARD ACCEPT [0:0]\r\nCOMMIT\r\n";
    let args = ["diff", "spec.yaml", "--against", "-"];
    let run = said(nvactl(folder.path()).args(args).write_stdin(rules));
    assert!(
        run.starts_with("exit 2\n") && run.contains("takes no carriage return"),
        "{run}"
    );
    let hint = "\nhint: if they come by ssh, leave out its option -t: a terminal adds a carriage return to each line\n";
    assert!(run.ends_with(hint), "{run}");
    // No terminal wrote a file.
    fs::write(folder.path().join("rules"), rules).unwrap();
    let args = ["diff", "spec.yaml", "--against", "rules"];
    let run = said(nvactl(folder.path()).args(args));
    assert!(!run.contains("hint"), "{run}");
}

/// A pipe hides the exit code of the command before it.
#[test]
fn a_pipe_that_brings_nothing_is_an_error_and_no_difference() {
    let folder = folder();
    fs::write(folder.path().join("spec.yaml"), SOUND).unwrap();
    for input in ["", "\n"] {
        let args = ["diff", "spec.yaml", "--against", "-"];
        let run = said(nvactl(folder.path()).args(args).write_stdin(input));
        assert_eq!(
            run,
            "exit 2\n--- stderr\n\
             error: standard input is empty: the command before the pipe printed nothing\n\
             hint: run that command alone to see its error; iptables-save prints nothing either on a machine that has no table\n"
        );
    }
    // A machine without nvactl's rules prints its built-in chains.
    let empty = "*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n";
    let args = ["diff", "spec.yaml", "--against", "-"];
    let run = said(nvactl(folder.path()).args(args).write_stdin(empty));
    assert!(
        run.starts_with("exit 1\n") && run.contains("+ web "),
        "{run}"
    );
}

#[test]
fn standard_input_cannot_be_both_sides() {
    let folder = folder();
    let args = ["diff", "-", "--against", "-"];
    let run = said(nvactl(folder.path()).args(args).write_stdin(SOUND));
    assert_eq!(
        run,
        "exit 2\n--- stderr\nerror: the spec and --against cannot both be standard input\nhint: write one of the two to a file\n"
    );
    let args = ["diff", "--against", "-"];
    let named = said(
        nvactl(folder.path())
            .args(args)
            .env("NVACTL_SPEC", "-")
            .write_stdin(SOUND),
    );
    assert_eq!(named, run);
}

const THREE: &str = "\
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 80, target: {pod: 10.224.0.1:80}}
  - {name: api, listen: 81, target: {pod: 10.224.0.2:80}}
  - {name: db, listen: 82, target: {pod: 10.224.0.3:80}}
";

/// Returns the lines of a diff of `spec` against the rules of THREE after `tamper` has changed them.
fn after(tamper: impl Fn(&str) -> Vec<String>, spec: &str) -> Vec<String> {
    let folder = folder();
    let rules = nvactl(folder.path())
        .args(["render", "-"])
        .write_stdin(THREE)
        .output()
        .unwrap()
        .stdout;
    let rules = String::from_utf8(rules).unwrap();
    let lines: Vec<String> = rules.lines().flat_map(tamper).collect();
    fs::write(folder.path().join("rules.v4"), lines.join("\n") + "\n").unwrap();
    let args = ["diff", "-", "--against", "rules.v4"];
    let run = nvactl(folder.path())
        .args(args)
        .write_stdin(spec)
        .output()
        .unwrap();
    assert_eq!(run.stderr, b"");
    let lines = String::from_utf8(run.stdout).unwrap();
    lines.lines().map(str::to_owned).collect()
}

fn same(line: &str) -> Vec<String> {
    vec![line.to_owned()]
}

#[test]
fn a_first_spec_without_a_forward_is_no_other_order() {
    let folder = folder();
    let spec = "firewall: {interface: eth0, snat: 10.3.0.4}\nforwards: []\n";
    fs::write(folder.path().join("spec.yaml"), spec).unwrap();
    let rules = "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n";
    fs::write(folder.path().join("rules.v4"), rules).unwrap();
    let run = |options: &[&str]| {
        let args = ["diff", "spec.yaml", "--against", "rules.v4"];
        said(nvactl(folder.path()).args(args).args(options))
    };
    let text = run(&[]);
    assert!(
        text.contains("+ (rules)          the rules that every spec has\n"),
        "{text}"
    );
    let markdown = run(&["--format", "markdown"]);
    assert!(
        markdown.contains("| the rules that every spec has |"),
        "{markdown}"
    );
    for run in [text, markdown] {
        assert!(!run.contains("order"), "{run}");
    }
}

#[test]
fn a_rule_that_occurs_twice_is_drift() {
    let twice = |line: &str| {
        let times = if line.contains("comment web -j DNAT") {
            2
        } else {
            1
        };
        vec![line.to_owned(); times]
    };
    let lines = after(twice, THREE);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].starts_with("! web              added by others, nat: -A NVACTL-PREROUTING"),
        "{lines:?}"
    );
}

/// A forward may set its own `snat`, so a tampered source reads as a change of that option.
#[test]
fn a_tampered_source_is_a_change_of_its_forward() {
    let masquerading = |line: &str| {
        let line = if line.contains("comment web -j SNAT") {
            line.replace("SNAT --to-source 10.3.0.4", "MASQUERADE")
        } else {
            line.to_owned()
        };
        vec![line]
    };
    let lines = after(masquerading, THREE);
    assert_eq!(lines, ["~ web              snat masquerade → 10.3.0.4"]);
}

#[test]
fn a_tampered_rule_does_not_affect_other_forwards() {
    for (tamper, from, to) in [
        ("comment web -j DNAT", "-i eth0", "-i eth9"),
        ("comment web -j DNAT", "10.224.0.1:80", "10.9.9.9:80"),
        ("comment web -j ACCEPT", "--dport 80", "--dport 8080"),
    ] {
        let replaced = |line: &str| {
            let line = if line.contains(tamper) {
                line.replace(from, to)
            } else {
                line.to_owned()
            };
            vec![line]
        };
        let lines = after(replaced, THREE);
        assert_eq!(lines.len(), 2, "{tamper}: {lines:?}");
        assert!(
            lines[0].starts_with("! web              added by others"),
            "{tamper}: {lines:?}"
        );
        assert!(
            lines[1].starts_with("! web              missing"),
            "{tamper}: {lines:?}"
        );
    }
}

/// A rule of `db` is missing, and then the spec changes as well.
#[test]
fn drift_and_a_change_of_the_spec_are_reported_separately() {
    let without = |line: &str| {
        if line.contains("comment db -j SNAT") {
            vec![]
        } else {
            same(line)
        }
    };
    let gone = "! db               missing, nat: -A NVACTL-POSTROUTING -d 10.224.0.3/32";
    let lines = after(without, THREE);
    assert!(lines.len() == 1 && lines[0].starts_with(gone), "{lines:?}");

    let dropped = THREE
        .lines()
        .filter(|line| !line.contains("db"))
        .collect::<Vec<_>>()
        .join("\n");
    let lines = after(without, &dropped);
    assert_eq!(
        lines[0], "- db               tcp 82 → 10.224.0.3:80",
        "{lines:?}"
    );
    assert!(lines.len() == 2 && lines[1].starts_with(gone), "{lines:?}");

    let lines = after(without, &THREE.replace("10.224.0.3:80", "10.224.0.9:80"));
    assert_eq!(
        lines[0], "~ db               target 10.224.0.3:80 → 10.224.0.9:80",
        "{lines:?}"
    );
    assert!(lines.len() == 2 && lines[1].starts_with(gone), "{lines:?}");
}

#[test]
fn every_rule_before_the_jump_is_named() {
    let in_front = |line: &str| match line {
        "-A FORWARD -j NVACTL-FORWARD" => {
            ["-s 192.0.2.1/32 -j DROP", "-j DROP", "-j NVACTL-FORWARD"]
                .map(|rule| format!("-A FORWARD {rule}"))
                .to_vec()
        }
        line => same(line),
    };
    let lines = after(in_front, THREE);
    assert_eq!(
        lines,
        [
            "! (in front)       is before nvactl's jump, filter: -A FORWARD -s 192.0.2.1/32 -j DROP",
            "! (no forward)     drops every packet before nvactl's jump, filter: -A FORWARD -j DROP",
        ]
    );
}

#[test]
fn another_limit_on_segments_is_a_change_of_the_firewall() {
    let folder = folder();
    let with = |mss: &str| THREE.replace("10.3.0.4}", &format!("10.3.0.4{mss}}}"));
    let specs = [
        ("none", ""),
        ("clamp", ", mss: clamp"),
        ("1360", ", mss: 1360"),
    ];
    for (name, mss) in specs {
        fs::write(folder.path().join(format!("{name}.yaml")), with(mss)).unwrap();
        let rules = said(nvactl(folder.path()).args(["render", &format!("{name}.yaml")]));
        let (_, rules) = rules.split_once("--- stdout\n").expect("it prints rules");
        fs::write(folder.path().join(format!("{name}.v4")), rules).unwrap();
    }
    for (from, _) in specs {
        for (to, _) in specs {
            let change = format!("~ (firewall)       mss {from} → {to}\n");
            let spec = format!("{to}.yaml");
            for against in [format!("{from}.yaml"), format!("{from}.v4")] {
                let run = if from == to {
                    format!("exit 0\n--- stdout\n{spec}: the same as {against}\n")
                } else {
                    format!("exit 1\n--- stdout\n{change}")
                };
                let args = ["diff", &spec, "--against", &against];
                assert_eq!(said(nvactl(folder.path()).args(args)), run, "{args:?}");
            }
        }
    }
}

#[test]
fn a_spec_that_stops_dropping_is_a_change() {
    let folder = folder();
    let keep = THREE.replace(
        "10.3.0.4}",
        "10.3.0.4, forward_policy: keep}\nsilence: [policy-kept]",
    );
    for (name, text) in [("drop.yaml", THREE), ("keep.yaml", &keep)] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    for (spec, against, words) in [
        ("keep.yaml", "drop.yaml", "drop → keep"),
        ("drop.yaml", "keep.yaml", "keep → drop"),
    ] {
        let run = said(nvactl(folder.path()).args(["diff", spec, "--against", against]));
        assert_eq!(
            run,
            format!("exit 1\n--- stdout\n~ (firewall)       forward_policy {words}\n")
        );
    }
    // Against rules it is no change: `apply` would not set the policy either.
    fs::write(
        folder.path().join("rules.v4"),
        "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n",
    )
    .unwrap();
    let run =
        said(nvactl(folder.path()).args(["diff", "keep.yaml", "--against", "rules.v4", "--rules"]));
    assert!(!run.contains(":FORWARD"), "{run}");
}

#[test]
fn an_empty_rules_file_is_a_valid_side() {
    for text in ["", "# Generated by iptables-save\n"] {
        let folder = folder();
        fs::write(folder.path().join("rules.v4"), text).unwrap();
        let args = ["diff", "-", "--against", "rules.v4"];
        let run = said(nvactl(folder.path()).args(args).write_stdin(SOUND));
        assert!(run.starts_with("exit 1\n--- stdout\n"), "{text:?}: {run}");
        assert!(run.contains("\n+ web "), "{text:?}: {run}");
    }
    let args = ["diff", "-", "--against", "/dev/zero"];
    let run = said(nvactl(folder().path()).args(args).write_stdin(SOUND));
    assert!(run.starts_with("exit 2\n"), "{run}");
    assert!(run.contains("is larger than 256 MiB"), "{run}");
}

/// As root, nvactl asks iptables-restore. As another user, it parses the text.
#[test]
fn rules_that_iptables_restore_refuses_are_an_error() {
    let folder = folder();
    fs::write(folder.path().join("spec.yaml"), SOUND).unwrap();
    let rendered = nvactl(folder.path()).args(["render", "spec.yaml"]).output();
    let good = String::from_utf8(rendered.unwrap().stdout).unwrap();
    for (bad, line) in [
        (good.replace('\n', "\r\n"), 1),
        (format!("\u{feff}{good}"), 1),
        (format!("{good}  # mine\n"), good.lines().count() + 1),
        (format!("{good} \n"), good.lines().count() + 1),
        (
            format!("{}COMMIT \n", good.strip_suffix("COMMIT\n").unwrap()),
            good.lines().count(),
        ),
    ] {
        let path = folder.path().join("rules.v4");
        fs::write(&path, &bad).unwrap();
        // A file that other users can write to is not given to iptables-restore.
        for mode in [0o600, 0o666] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let args = ["diff", "spec.yaml", "--against", "rules.v4"];
            let run = said(nvactl(folder.path()).args(args));
            assert!(run.starts_with("exit 2\n--- stderr\n"), "{run}");
            assert!(run.contains(&format!("line {line}")), "{run}");
        }
    }
}

/// Comments and file names may hold any text.
#[test]
fn markdown_escapes_comments_and_file_names() {
    let folder = folder();
    let rules = "*filter\n:NVACTL-FORWARD - [0:0]\n-A NVACTL-FORWARD -m comment --comment \"x` | <img src=x> @you \\\\| ```\" -j ACCEPT\nCOMMIT\n";
    let name = "a`|<b>@c.v4";
    fs::write(folder.path().join(name), rules).unwrap();
    let args = [
        "diff",
        "-",
        "--against",
        name,
        "--format",
        "markdown",
        "--rules",
    ];
    let run = said(nvactl(folder.path()).args(args).write_stdin(SOUND));
    let (table, rules) = run.split_once("<details>").expect("it has rules");
    assert!(
        !table.contains(['@', '`']) && !table.contains("<img") && !table.contains("<b>"),
        "{table}"
    );
    for row in table.lines().filter(|line| line.starts_with('|')) {
        assert_eq!(row.matches('|').count(), 4, "{row}");
    }
    assert!(
        rules.contains("\n````diff\n") && rules.contains("\n````\n"),
        "{rules}"
    );
}

#[test]
fn a_spec_is_compared_in_both_families_and_a_rules_file_in_one() {
    let folder = folder();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let new = BOTH
        .replace("118:80", "119:80")
        .replace("::118]:80", "::119]:80");
    write("old.yaml", BOTH);
    write("new.yaml", &new);
    for family in ["v4", "v6"] {
        let file = format!("rules.{family}");
        let args = ["render", "old.yaml", "--family", family, "-o", &file];
        assert_eq!(said(nvactl(folder.path()).args(args)), "exit 0\n");
    }
    let diff = |against: &str, more: &[&str]| {
        let args = [&["diff", "new.yaml", "--against", against], more].concat();
        said(nvactl(folder.path()).args(args))
    };
    insta::assert_snapshot!(diff("old.yaml", &["--rules"]));
    insta::assert_snapshot!(diff("rules.v4", &[]));
    insta::assert_snapshot!(diff("rules.v6", &[]));
    insta::assert_snapshot!(diff("rules.v6", &["--family", "v6"]));
    insta::assert_snapshot!(diff("old.yaml", &["--family", "v4", "--format", "json"]));
}

/// Returns the output of a diff of one spec against another.
fn between(old: &str, new: &str, options: &[&str]) -> String {
    let folder = folder();
    fs::write(folder.path().join("old.yaml"), old).unwrap();
    let args = [&["diff", "-", "--against", "old.yaml"], options].concat();
    said(nvactl(folder.path()).args(args).write_stdin(new))
}

#[test]
fn a_change_of_layout_is_listed_for_each_family() {
    let [flat, tree] = ["flat", "tree"].map(|layout| {
        let snat = "snat: {";
        BOTH.replace(snat, &format!("layout: {layout}, {snat}"))
    });
    assert_eq!(
        between(&tree, &flat, &[]),
        "exit 1\n--- stdout\n\
         ~ (firewall)       layout tree → flat\n\
         ~ (firewall)       IPv6 layout tree → flat\n"
    );
    let markdown = between(&tree, &flat, &["--format", "markdown"]);
    assert!(markdown.contains(">IPv6 layout tree → flat<"), "{markdown}");
    let json = between(&tree, &flat, &["--format", "json"]);
    assert!(json.contains("\"field\": \"layout\""), "{json}");
    assert!(json.contains("\"field\": \"IPv6 layout\""), "{json}");
}

/// A spec's own plan has no drift.
#[test]
fn two_specs_without_a_forward_differ_only_in_the_firewall() {
    let empty = |snat: &str, layout: &str| {
        format!("firewall: {{interface: eth0, snat: {snat}, layout: {layout}}}\nforwards: []\n")
    };
    let tree = empty("10.3.0.4", "tree");
    for (new, words) in [
        (empty("10.3.0.5", "tree"), "snat 10.3.0.4 → 10.3.0.5"),
        (empty("10.3.0.4", "flat"), "layout tree → flat"),
    ] {
        assert_eq!(
            between(&tree, &new, &[]),
            format!("exit 1\n--- stdout\n~ (firewall)       {words}\n")
        );
    }
}

/// No forward here is common, so only the rules for marked packets name the firewall's own interfaces.
#[test]
fn a_tree_without_its_rules_for_marked_packets_gets_the_interfaces_of_its_forwards() {
    let folder = folder();
    let spec = "\
firewall: {interface: eth0, snat: 10.3.0.4, layout: tree}
forwards:
  - {name: web, listen: 80, target: {pod: 10.224.0.1:80}, snat: masquerade}
";
    let args = ["render", "-"];
    let rendered = nvactl(folder.path()).args(args).write_stdin(spec).output();
    let rules = String::from_utf8(rendered.unwrap().stdout).unwrap();
    let marked = |line: &&str| line.contains("-m connmark") && line.ends_with("-j ACCEPT");
    let (gone, left): (Vec<&str>, Vec<&str>) = rules.lines().partition(marked);
    fs::write(folder.path().join("rules.v4"), left.join("\n") + "\n").unwrap();
    let args = ["diff", "-", "--against", "rules.v4"];
    assert_eq!(
        said(nvactl(folder.path()).args(args).write_stdin(spec)),
        format!(
            "exit 1\n--- stdout\n! (no forward)     missing, filter: {}\n",
            gone[0]
        )
    );
}
