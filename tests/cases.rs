//! The golden cases under `tests/cases/`, a folder each: `spec.yaml` and what becomes of it.
//!
//! A sound spec has `rules.v4`, the text that `render` prints; a broken one has `problems.txt`, the
//! pages that `check` prints. To accept new results after reading them: `NVACTL_BLESS=1 cargo test
//! --test cases`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nvactl::parse::parse;
use nvactl::plan::plan;
use nvactl::spec::{self, ProblemKind, page};

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
    if std::env::var_os("NVACTL_BLESS").is_some() {
        fs::write(&golden, result).expect("the golden file can be written");
    }
    let expected =
        fs::read_to_string(&golden).unwrap_or_else(|error| panic!("{}: {error}", golden.display()));
    assert_eq!(result, expected, "{}", golden.display());
}

#[test]
fn each_case_comes_out_as_it_is_written_down() {
    for case in cases() {
        let text = fs::read(case.join("spec.yaml")).expect("each case has a spec");
        let other = match spec::read(&text) {
            Ok(set) => {
                let rules = plan(&set).with_builtin_chains().to_string();
                compare(&case, "rules.v4", &rules);
                assert_eq!(parse(&rules).expect("it is readable").to_string(), rules);
                "problems.txt"
            }
            Err(problems) => {
                let pages = page::pages("spec.yaml", &text, &problems, &page::renderer(false));
                compare(&case, "problems.txt", &pages);
                "rules.v4"
            }
        };
        assert!(!case.join(other).exists(), "{} has both", case.display());
    }
}

/// A case whose name starts with `problem-` has exactly the problem that it is named for.
#[test]
fn each_problem_has_a_case_of_its_own() {
    let mut covered = BTreeSet::new();
    for case in cases() {
        let name = case
            .file_name()
            .expect("it has a name")
            .to_string_lossy()
            .into_owned();
        let Some(code) = name.strip_prefix("problem-") else {
            continue;
        };
        let text = fs::read(case.join("spec.yaml")).expect("each case has a spec");
        let problems = spec::read(&text).expect_err(&name);
        let codes: Vec<&str> = problems.iter().map(|problem| problem.kind.code()).collect();
        assert_eq!(codes, [code]);
        covered.insert(code.to_owned());
    }
    // One whose text would be megabytes long, so `limits` in tests/hostile.rs writes it.
    covered.insert("too-many-values".to_owned());
    let all: BTreeSet<String> = ProblemKind::CODES
        .iter()
        .map(|code| (*code).to_owned())
        .collect();
    assert_eq!(covered, all);
}
