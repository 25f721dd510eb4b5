//! Rules that become a spec: each folder of tests/imports has `rules`, the `spec.yaml` that they become, and the
//! `report` with the account of each rule.
//!
//! `NVACTL_BLESS=1` writes the files anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;

fn folders() -> Vec<PathBuf> {
    let all = fs::read_dir("tests/imports").expect("the folder is there");
    let mut all: Vec<PathBuf> = all
        .map(|entry| entry.expect("it is readable").path())
        .collect();
    all.sort();
    all
}

fn nvactl(folder: &Path, args: &[&str]) -> (String, String, Option<i32>) {
    let output = Command::cargo_bin("nvactl")
        .expect("it is built")
        .current_dir(folder)
        .args(args)
        .output()
        .expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
    (
        text(output.stdout),
        text(output.stderr),
        output.status.code(),
    )
}

fn compare(path: &Path, text: &str, wrong: &mut Vec<String>) {
    if std::env::var_os("NVACTL_BLESS").is_some() {
        fs::write(path, text).expect("it can be written");
        return;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    if expected != text {
        wrong.push(format!("{}:\n{text}", path.display()));
    }
}

/// The cases whose rules cannot be read.
fn is_refused(folder: &Path) -> bool {
    !folder.join("spec.yaml").exists() && folder.join("report").exists()
}

#[test]
fn rules_become_a_spec_and_each_is_accounted_for() {
    let mut wrong = Vec::new();
    let folders = folders();
    assert!(folders.len() >= 40, "{}", folders.len());
    for folder in folders {
        let (spec, report, code) = nvactl(&folder, &["import", "rules"]);
        compare(&folder.join("report"), &report, &mut wrong);
        if is_refused(&folder) {
            assert_eq!(
                (spec.as_str(), code),
                ("", Some(2)),
                "{}: {report}",
                folder.display()
            );
            continue;
        }
        assert_eq!(code, Some(0), "{}: {report}", folder.display());
        compare(&folder.join("spec.yaml"), &spec, &mut wrong);
        let (_, pages, code) = nvactl(&folder, &["check", "spec.yaml"]);
        assert_eq!(code, Some(0), "{}: {pages}", folder.display());
        let (json, _, _) = nvactl(
            &folder,
            &["import", "rules", "--no-proof", "--format", "json"],
        );
        one_account_each(&folder, &json);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each rule has one account: the accounts of a chain count its rules from 1, and each names its own line or shares it with
/// the rules that one command makes.
fn one_account_each(folder: &Path, json: &str) {
    let json: Value = serde_json::from_str(json).expect("it is JSON");
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for rule in json["rules"].as_array().expect("they are there") {
        let chain = format!("{} {} {}", rule["family"], rule["table"], rule["chain"]);
        let count = counts.entry(chain).or_default();
        *count += 1;
        assert_eq!(
            rule["number"].as_u64(),
            Some(*count),
            "{}: {rule}",
            folder.display()
        );
        assert!(rule["line"].is_u64(), "{}: {rule}", folder.display());
    }
    let text = fs::read_to_string(folder.join("rules")).expect("it is there");
    if text.lines().any(|line| line.starts_with('*')) {
        let is_rule = |line: &&str| line.starts_with("-A ") || line.starts_with('[');
        let rules = text.lines().filter(is_rule).count();
        let accounts: u64 = counts.values().sum();
        assert_eq!(
            u64::try_from(rules).ok(),
            Some(accounts),
            "{}",
            folder.display()
        );
    }
}

/// Nothing is compared if no copy of the machine can be made, and the reports say so.
#[test]
fn each_difference_has_its_remark() {
    let mut wrong = Vec::new();
    for folder in folders().iter().filter(|folder| !is_refused(folder)) {
        let (_, report, code) = nvactl(folder, &["import", "rules", "--strict"]);
        if code != Some(0) {
            wrong.push(format!("{}: {code:?}\n{report}", folder.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The entries of nvactl's own rules keep their names, and others get names beside them.
#[test]
fn rules_beside_those_of_nvactl_get_names_of_their_own() {
    let folder = tempfile::tempdir().expect("it can be made");
    let spec = "firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.54.0.1, mss: clamp}\n\
                forwards:\n- {name: web, listen: 80, protocol: [tcp, udp], target: {pod: ['10.54.0.5:80', '10.54.0.6:80']}}\n\
                outbound:\n- {name: out, allow_from: [10.54.0.0/24]}\n";
    fs::write(folder.path().join("spec.yaml"), spec).expect("it can be written");
    let (rules, said, code) = nvactl(folder.path(), &["render", "spec.yaml"]);
    assert_eq!(code, Some(0), "{said}");
    let typed = "-A PREROUTING -i eth0 -p tcp -m tcp --dport 81 -m comment --comment web -j DNAT --to-destination 10.54.0.9\n";
    let (before, nat) = rules.split_once("*nat\n").expect("it has the table");
    let (nat, rest) = nat.split_once("COMMIT\n").expect("it has an end");
    let jump = "-A FORWARD -j NVACTL-FORWARD\n";
    let accept = "-A FORWARD -d 10.54.0.9/32 -o eth1 -p tcp -m tcp --dport 81 -j ACCEPT\n";
    let before = before.replace(jump, &format!("{jump}{accept}"));
    let rules = format!("{before}*nat\n{nat}{typed}COMMIT\n{rest}");
    fs::write(folder.path().join("rules"), rules).expect("it can be written");
    let (spec, report, code) = nvactl(folder.path(), &["import", "rules", "--no-proof"]);
    assert_eq!(code, Some(0), "{report}");
    let said: Vec<&str> = spec
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    assert_eq!(said.join("\n"), BESIDE_OWN, "{report}");
}

const BESIDE_OWN: &str = r"
firewall:
  interface:
    ingress: eth0
    egress: eth1
  snat: 10.54.0.1
  mss: clamp
  layout: flat

forwards:
  - name: web
    listen: 80
    protocol:
    - tcp
    - udp
    target:
      pod:
      - 10.54.0.5:80
      - 10.54.0.6:80
  - name: web-2
    listen: 81
    target:
      ilb: 10.54.0.9
    snat: none

outbound:
  - name: out
    allow_from:
    - 10.54.0.0/24";
