//! The golden cases under `tests/cases/`, a folder each: `spec.yaml` and its expected results.
//!
//! The files of networks that the spec names lie beside it. Some have `suggested.yaml`, the tests that nvactl suggests. A valid spec has `rules.v4`, the text that `render` prints. If `check` reports problems, `problems.txt`
//! has its output. Targets are compared with `objects.json`, if it is there. To accept new results after reading them: `NVACTL_BLESS=1 cargo test --test cases`.

mod options;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nvactl::forwards::suggested;
use nvactl::kubernetes;
use nvactl::net::Family;
use nvactl::netfilter::text::parse::parse;
use nvactl::plan::plan;
use nvactl::yaml::places::Places;
use nvactl::yaml::{self, Code, FileFault, NetworkFile, Reading, Severity, page};
use options::options;

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

/// Compares a result with its golden file, or writes the file.
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

/// A file of networks: the path that the spec has, and the content.
type ReadFile = (String, Result<Vec<u8>, FileFault>);

/// Reads the files of networks that a case names.
fn network_files(case: &Path, text: &[u8]) -> Vec<ReadFile> {
    let paths = yaml::network_paths(&[text]).into_iter();
    let read = paths.map(|path| {
        let content = match path.as_str() {
            outside if outside.starts_with("../") => Err(FileFault::Outside),
            path => Ok(fs::read(case.join(path)).expect("the file is there")),
        };
        (path, content)
    });
    read.collect()
}

/// Checks the spec of a case, against objects of Kubernetes if it has some.
fn examine(case: &Path, text: &[u8], files: &[ReadFile]) -> Reading {
    let files = files.iter().map(|(path, content)| NetworkFile {
        path,
        content: content.as_deref().map_err(Clone::clone),
    });
    let objects = fs::read(case.join("objects.json")).ok();
    let objects = objects.map(|text| kubernetes::read(&text).expect("it is valid"));
    yaml::examine_against(&[text], &files.collect::<Vec<_>>(), objects.as_ref())
}

/// Returns the code of a case that shows one problem.
fn named_for(case: &Path) -> Option<Code> {
    let name = case.file_name().expect("it has a name").to_string_lossy();
    let code = name.strip_prefix("problem-")?;
    Some(
        code.parse()
            .unwrap_or_else(|error| panic!("{}: {error}", case.display())),
    )
}

#[test]
fn each_case_has_its_expected_rules_and_problems() {
    for case in cases() {
        let text = fs::read(case.join("spec.yaml")).expect("each case has a spec");
        let files = network_files(&case, &text);
        let Reading {
            set, mut problems, ..
        } = examine(&case, &text, &files);
        // Nearly every forward has a note: only the cases of notes compare them.
        let about = named_for(&case).map(Code::severity);
        let notes = about == Some(Severity::Note);
        problems.retain(|problem| notes || problem.severity() != Severity::Note);
        let networks = files.iter().map(|(path, content)| {
            let bytes = content.as_deref().unwrap_or_default();
            (path.as_str(), bytes)
        });
        if let Some(set) = set
            .as_ref()
            .filter(|_| case.join("suggested.yaml").exists())
        {
            compare(&case, "suggested.yaml", &yaml::tests_text(&suggested(set)));
        }
        let places = Places::new([("spec.yaml", text.as_slice())].into_iter().chain(networks));
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

/// A new option belongs into this case: it shows the rules of the option, set in the defaults and overridden
/// by a forward.
#[test]
fn one_case_sets_and_overrides_every_option() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let spec = fs::read_to_string(root.join("defaults-of-every-option/spec.yaml"));
    let spec = spec.expect("the case is there");
    for key in options() {
        let count = spec.matches(&format!(" {key}: ")).count();
        assert!(count >= 2, "{key}: {count} times");
    }
}

/// A case whose name starts with `problem-` has exactly the problem that it is named for, and the problem's
/// example.
#[test]
fn each_problem_has_a_case_of_its_own() {
    let mut covered = BTreeSet::new();
    for case in cases() {
        let Some(code) = named_for(&case) else {
            continue;
        };
        let text = fs::read(case.join("spec.yaml")).expect("each case has a spec");
        let problems = examine(&case, &text, &network_files(&case, &text)).problems;
        let codes = problems.iter().map(|problem| problem.kind.code());
        // The case is about its most severe problem: every pod has a note about its address.
        let worst = codes.clone().map(Code::severity).min();
        let mut codes: Vec<Code> = codes
            .filter(|code| Some(code.severity()) == worst)
            .collect();
        codes.dedup();
        assert_eq!(codes, [code]);
        let text = String::from_utf8_lossy(&text);
        for part in code.example().split('`').skip(1).step_by(2) {
            assert!(text.contains(part), "{code}: {part}");
        }
        covered.insert(code);
    }
    // Its spec has megabytes, so tests/hostile.rs writes the spec and compares the report.
    covered.insert(Code::TooManyValues);
    let all: BTreeSet<Code> = Code::ALL.into_iter().collect();
    assert_eq!(covered, all);
}
