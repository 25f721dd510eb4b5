//! The golden cases under `tests/cases/`, a folder each: `spec.yaml` and what becomes of it.
//!
//! A sound spec has `rules.v4`, the text that `render` prints; `problems.txt` are the pages that
//! `check` prints, where there are any. To accept new results after reading them: `NVACTL_BLESS=1 cargo test
//! --test cases`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nvactl::net::Family;
use nvactl::netfilter::text::parse::parse;
use nvactl::plan::plan;
use nvactl::yaml::places::Places;
use nvactl::yaml::{self, Code, Reading, Severity, page};

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<PathBuf> = fs::read_dir(root)
        .expect("tests/cases is there")
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "there are no cases");
    cases
}

/// Compares a result with its golden file, or makes the file.
fn compare(case: &Path, name: &str, result: &str) {
    let golden = case.join(name);
    if result.is_empty() {
        assert!(!golden.exists(), "{} is there", golden.display());
        return;
    }
    if std::env::var_os("NVACTL_BLESS").is_some() {
        fs::write(&golden, result).expect("the golden file can be written");
    }
    let expected =
        fs::read_to_string(&golden).unwrap_or_else(|error| panic!("{}: {error}", golden.display()));
    assert_eq!(result, expected, "{}", golden.display());
}

/// The code of a case that shows one problem.
fn named_for(case: &Path) -> Option<Code> {
    let name = case.file_name().expect("it has a name").to_string_lossy();
    let code = name.strip_prefix("problem-")?;
    Some(
        code.parse()
            .unwrap_or_else(|error| panic!("{}: {error}", case.display())),
    )
}

#[test]
fn each_case_comes_out_as_it_is_written_down() {
    for case in cases() {
        let text = fs::read(case.join("spec.yaml")).expect("each case has a spec");
        let Reading { set, mut problems } = yaml::examine(&text);
        // A note stands beside nearly every forward: it is looked at where it is the point.
        let about = named_for(&case).map(Code::severity);
        let notes = about == Some(Severity::Note);
        problems.retain(|problem| notes || problem.severity() != Severity::Note);
        let places = Places::new([("spec.yaml", text.as_slice())]);
        let pages = page::pages(&places, &problems, &page::renderer(false));
        compare(&case, "problems.txt", &pages);
        for (family, name) in [(Family::V4, "rules.v4"), (Family::V6, "rules.v6")] {
            let planned = set
                .as_ref()
                .filter(|set| set.has(family) || family == Family::V4);
            let rules = planned.map(|set| plan(set, family).with_builtin_chains().to_string());
            compare(&case, name, rules.as_deref().unwrap_or_default());
            if let Some(rules) = rules {
                assert_eq!(parse(&rules).expect("it is readable").to_string(), rules);
            }
        }
    }
}

/// A case whose name starts with `problem-` has exactly the problem that it is named for.
#[test]
fn each_problem_has_a_case_of_its_own() {
    let mut covered = BTreeSet::new();
    for case in cases() {
        let Some(code) = named_for(&case) else {
            continue;
        };
        let text = fs::read(case.join("spec.yaml")).expect("each case has a spec");
        let problems = yaml::examine(&text).problems;
        let codes = problems.iter().map(|problem| problem.kind.code());
        // The gravest is what it is about: a pod's address is worth a note everywhere.
        let gravest = codes.clone().map(Code::severity).min();
        let mut codes: Vec<Code> = codes
            .filter(|code| Some(code.severity()) == gravest)
            .collect();
        codes.dedup();
        assert_eq!(codes, [code]);
        covered.insert(code);
    }
    // One whose text would be megabytes long, so tests/hostile.rs writes it and compares its page.
    covered.insert(Code::TooManyValues);
    let all: BTreeSet<Code> = Code::ALL.into_iter().collect();
    assert_eq!(covered, all);
}
