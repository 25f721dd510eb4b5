//! `nvactl diff` against files.

use std::fs;

use crate::{BROKEN, SOUND, folder, nvactl, said};

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

/// Runs diff of `new.yaml` against `old.yaml`, with the options given.
fn diff(options: &[&str]) -> String {
    let folder = folder();
    fs::write(folder.path().join("old.yaml"), OLD).unwrap();
    fs::write(folder.path().join("new.yaml"), NEW).unwrap();
    let args = [&["diff", "new.yaml", "--against", "old.yaml"], options].concat();
    said(nvactl(folder.path()).args(args))
}

#[test]
fn it_is_told_by_forward() {
    insta::assert_snapshot!(diff(&[]));
}

#[test]
fn the_rules_come_on_request() {
    insta::assert_snapshot!(diff(&["--rules"]));
}

#[test]
fn a_program_gets_json() {
    insta::assert_snapshot!(diff(&["--format", "json"]));
}

#[test]
fn a_pull_request_gets_markdown() {
    insta::assert_snapshot!(diff(&["--format", "markdown", "--rules"]));
}

#[test]
fn the_same_is_exit_0_whatever_form_it_has() {
    let folder = folder();
    fs::write(folder.path().join("spec.yaml"), SOUND).unwrap();
    let rules = nvactl(folder.path())
        .args(["render", "spec.yaml"])
        .output()
        .unwrap()
        .stdout;
    // Counters, comments, the order of tables and rules of others do not count.
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
fn rules_put_in_and_taken_out_by_hand_are_drift() {
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
        // Taken out: the ACCEPT of `web`, and the jump to the rules that hide clients.
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
fn what_cannot_be_compared_is_exit_2() {
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
        (
            ["diff", "spec.yaml", "--against", "cut.v4"],
            "the text ends before COMMIT",
        ),
        (
            ["diff", "spec.yaml", "--against", "none.v4"],
            "there is no file `none.v4`",
        ),
    ] {
        let run = said(nvactl(folder.path()).args(args));
        assert!(run.starts_with("exit 2\n--- stderr\n"), "{run}");
        assert!(run.contains(words), "{run}");
    }
}
