//! Invariants of any text at all. The property tests and the fuzz targets check them.

use nvactl::diff;
use nvactl::diff::drift::compare;
use nvactl::forwards::ForwardSet;
use nvactl::net::Family;
use nvactl::netfilter::text::parse::{Growing, line_len, parse, text_of};
use nvactl::netfilter::unread::unread;
use nvactl::ops::splice::without_own;
use nvactl::plan::explain::explain;
use nvactl::plan::plan;
use nvactl::plan::unplan::unplan;
use nvactl::yaml::annotation::Annotation;
use nvactl::yaml::places::Places;
use nvactl::yaml::{self, NetworkFile, Severity, page};

/// Checks the invariants of a text that may be a spec.
pub fn of_spec(text: &[u8]) {
    let yaml::Reading { set, problems, .. } = yaml::examine(text);
    let places = Places::new([("x", text)]);
    for problem in &problems {
        let annotation = Annotation::new("x", &places, problem);
        assert!(annotation.line >= 1 && annotation.column >= 1);
        assert_eq!(annotation.as_workflow_command("x").lines().count(), 1);
    }
    let pages = page::pages(&places, &problems, &page::renderer(true));
    assert_eq!(pages.is_empty(), problems.is_empty());
    // Each problem also has a position if the text is cut into two files.
    let halves = text.split_at(text.len() / 2);
    let reading = yaml::examine_all(&[halves.0, halves.1]);
    let places = Places::new([("x/1", halves.0), ("x/2", halves.1)]);
    for problem in &reading.problems {
        let annotation = Annotation::new("x", &places, problem);
        assert!(annotation.file.is_some() && annotation.end_line >= annotation.line);
    }
    let pages = page::pages(&places, &reading.problems, &page::renderer(true));
    assert_eq!(pages.is_empty(), reading.problems.is_empty());
    let Some(set) = set else {
        assert!(
            problems
                .iter()
                .any(|problem| problem.severity() == Severity::Error)
        );
        return;
    };
    for family in Family::ALL {
        of_plan(&set, family);
    }
}

/// Checks the invariants of bytes that may be a file of networks.
pub fn of_network_file(text: &[u8]) {
    const SPEC: &str = "firewall: {interface: eth0, snat: 10.3.0.4}\nnetworks: {some: {file: a.txt}}\n\
        forwards: [{name: web, listen: 80, target: {pod: 10.0.0.1:80}, deny_from: [some]}]";
    let file = NetworkFile {
        path: "a.txt",
        content: Ok(text),
    };
    let yaml::Reading { set, problems, .. } = yaml::examine_with(&[SPEC.as_bytes()], &[file]);
    let places = Places::new([("x", SPEC.as_bytes()), ("a.txt", text)]);
    let is_error = |problem: &&yaml::Problem| problem.severity() == Severity::Error;
    for problem in problems.iter().filter(is_error) {
        let Annotation { file, line, .. } = Annotation::new("x", &places, problem);
        // A list that denies everybody is a problem of the spec.
        if file == Some("a.txt") && problem.kind.code() == yaml::Code::InvalidNet {
            let shown = page::pages(
                &places,
                std::slice::from_ref(problem),
                &page::renderer(false),
            );
            assert!(shown.contains(&format!("{line} |")), "{shown}");
        }
    }
    if let Some(set) = set {
        for family in Family::ALL {
            of_plan(&set, family);
        }
    } else {
        assert!(problems.iter().any(|problem| is_error(&problem)));
    }
}

fn of_plan(set: &ForwardSet, family: Family) {
    let planned = plan(set, family);
    assert_eq!(
        parse(&planned.to_string()).expect("nvactl reads what it prints"),
        planned
    );
    let whole = planned.clone().with_builtin_chains();
    assert_eq!(
        parse(&whole.to_string()).expect("nvactl reads what it prints"),
        whole
    );
    assert!(diff::changes(&whole, &planned).is_empty());
    assert!(compare(&whole, set, family).same);
    // The forwards that are read back from the rules have the same plan.
    if let Some(held) = unplan(&whole) {
        assert_eq!(plan(&held, family), planned);
    }
    let rules: usize = planned
        .chains()
        .map(|(_, _, chain)| chain.rules.len())
        .sum();
    let policies = planned
        .chains()
        .filter(|(_, _, chain)| chain.policy.is_some())
        .count();
    assert_eq!(explain(set, family).len(), rules + policies);
}

/// Checks the invariants of a text that may be the output of iptables-save.
pub fn of_rules(text: &str) {
    let Ok(ruleset) = parse(text) else {
        return;
    };
    // The parser finds unreadable rules by the lines around them, and printing sorts those lines. So such
    // rulesets are not printed and read again.
    if unread(&ruleset).is_empty() {
        let printed = ruleset.to_string();
        let again = parse(&printed).expect("nvactl reads what it prints");
        assert_eq!(again.to_string(), printed);
    }
    // The reader of kernel output gives the same ruleset as the reader of files.
    let mut growing = Growing::of_kernel();
    let (mut rest, mut read) = (text.as_bytes(), Ok(()));
    while let Some(len) = line_len(rest, true).filter(|len| *len > 0) {
        read = read.and_then(|()| growing.read(&text_of(&rest[..len])));
        rest = &rest[len..];
    }
    let of_kernel = read.and_then(|()| growing.finish());
    assert_eq!(of_kernel.map(|saved| saved.ruleset).as_ref(), Ok(&ruleset));
    let set = yaml::read(
        b"firewall: {interface: eth0, snat: 10.3.0.4}\nforwards: [{name: web, listen: 80, target: {pod: 10.0.0.1:80}}]",
    )
    .expect("it is valid");
    let want = plan(&set, Family::V4);
    assert_eq!(
        compare(&ruleset, &set, Family::V4).same,
        diff::changes(&ruleset, &want).is_empty()
    );
    if let Ok(split) = without_own(text.as_bytes()) {
        let left = without_own(&split.others).expect("it stays readable");
        assert_eq!((left.others, left.own.as_slice()), (split.others, &[][..]));
    }
}
