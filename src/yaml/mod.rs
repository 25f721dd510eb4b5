//! The text of a spec to the checked model: YAML in, a [`ForwardSet`] or every [`Problem`] out.
//!
//! A `ForwardSet` that [`read`] returns is valid and need not be checked again. A spec in several files is
//! read by [`examine_all`] as if it were one.
//!
//! The room must not know rules or the machine. Only commands import it (and `cli`, for the codes of
//! `--deny`): `host::spec_source` reads the files, and all other rooms work with [`crate::forwards`].
//!
//! ```text
//! text ─load─▶ tree ─decode, options─▶ written values ─check, warn─▶ problems
//!                                             └────────resolve─────▶ ForwardSet
//! ```
//!
//! Start here:
//! - a new option of a forward: its key in `options` and in [`form`]; its limits in `check`; advice in `warn`; its
//!   value in `resolve`;
//! - a new problem: an entry in `problem/table.rs`;
//! - the layout of a report: [`page`] for people, [`annotation`] for programs.

pub mod annotation;
mod bounds;
mod check;
mod cluster;
mod decode;
mod description;
mod endpoint;
mod fields;
pub mod form;
mod load;
mod nets;
mod network_file;
mod networks;
mod options;
mod outbound;
mod packet_tests;
pub mod page;
pub mod places;
mod problem;
mod resolve;
mod silence;
mod spec_text;
mod syntax;
mod test_file;
mod warn;
mod written;

use std::collections::BTreeSet;

use crate::forwards::{ForwardSet, Name};
use crate::kubernetes::KubeObjects;
pub use bounds::{MAX_PROBLEMS, MAX_VALUES};
pub use network_file::{FileFault, NetworkFile};
use networks::NetworkNames;
pub use packet_tests::{TestList, test_lines, tests_text};
use places::Places;
pub use problem::{Code, CodeError, Problem, ProblemKind, Severity, Span, Words, nearest};
pub use spec_text::{CommentedOut, Comments, spec_text};
pub use test_file::{TestFile, TestReading, examine_tests};

/// The result of reading a spec.
#[derive(Debug)]
pub struct Reading {
    /// `None` if a problem is an error.
    pub set: Option<ForwardSet>,
    /// The forwards with `enabled: false`, which are not part of `set`.
    pub disabled: Vec<Name>,
    /// Errors, warnings and notes in the order of the spec, without the silenced ones.
    pub problems: Vec<Problem>,
    /// The first byte of each test of `set`.
    starts: Vec<usize>,
    /// The first byte of the last key `tests`.
    tests_key: Option<usize>,
}

impl Reading {
    /// Adds its file and line to each test. `places` holds the files that were examined.
    pub fn locate_tests(&mut self, places: &Places<'_>) {
        if let Some(set) = &mut self.set {
            packet_tests::locate(&mut set.tests, &self.starts, places);
        }
    }

    /// Returns the place of the list `tests`, if the spec has one. `places` holds the files that were examined.
    #[must_use]
    pub fn test_list(&self, places: &Places<'_>) -> Option<TestList> {
        let key = self.tests_key?;
        Some(TestList::find(key, &self.starts, places))
    }

    /// Returns the spec if it has no error.
    ///
    /// # Errors
    /// Every error, in the order of the spec.
    pub fn sound(self) -> Result<ForwardSet, Vec<Problem>> {
        let Self {
            set, mut problems, ..
        } = self;
        set.ok_or_else(|| {
            problems.retain(|problem| problem.severity() == Severity::Error);
            problems
        })
    }
}

/// Checks a spec and reports every problem.
#[must_use]
pub fn examine(text: &[u8]) -> Reading {
    examine_all(&[text])
}

/// Returns the paths of the files of networks that a spec names, each once, for [`examine_with`].
#[must_use]
pub fn network_paths(texts: &[&[u8]]) -> BTreeSet<String> {
    // A second reading of 100,000 forwards costs time, and most specs name no file.
    let key = b"file";
    let names_one = texts
        .iter()
        .filter(|text| text.windows(key.len()).any(|some| some == key));
    let documents = names_one.filter_map(|text| load::load(text, 0, &mut 0).ok());
    documents
        .flat_map(|document| decode::network_paths(&document.root))
        .collect()
}

/// Checks a spec of several texts as if they were one, and reports every problem. [`places::Places`] has
/// the file and line of each.
#[must_use]
pub fn examine_all(texts: &[&[u8]]) -> Reading {
    examine_with(texts, &[])
}

/// Checks a spec as [`examine_all`] does, together with the files of networks that it names. Their problems are
/// placed after those of all texts, in the order of the files.
#[must_use]
pub fn examine_with(texts: &[&[u8]], files: &[NetworkFile<'_>]) -> Reading {
    examine_against(texts, files, None)
}

/// Checks a spec as [`examine_with`] does, and its targets against objects of Kubernetes.
#[must_use]
pub fn examine_against(
    texts: &[&[u8]],
    files: &[NetworkFile<'_>],
    objects: Option<&KubeObjects>,
) -> Reading {
    let mut problems = Vec::new();
    let mut roots = Vec::with_capacity(texts.len());
    let mut values = 0;
    let all = texts
        .iter()
        .copied()
        .chain(files.iter().map(NetworkFile::bytes));
    let all: Vec<(usize, &[u8])> = places::placed(all).collect();
    let (of_spec, of_networks) = all.split_at(texts.len());
    for (start, text) in of_spec.iter().copied() {
        match load::load(text, start, &mut values) {
            Ok(document) => {
                problems.extend(document.problems);
                roots.push(document.root);
            }
            Err(mut problem) => {
                if problem.kind == ProblemKind::Empty && texts.len() > 1 {
                    problem.kind = ProblemKind::EmptyInFolder;
                }
                problems.push(problem);
            }
        }
        if values > MAX_VALUES || problems.len() >= MAX_PROBLEMS {
            break;
        }
    }
    let (mut set, mut disabled, mut of_tests) = (None, Vec::new(), Vec::new());
    let mut tests_key = None;
    if !roots.is_empty() {
        let whole = roots.len() == texts.len();
        let starts = of_networks.iter().map(|(start, _)| *start);
        let networks = NetworkNames::new(starts.zip(files), values, whole);
        let written = decode::decode(&roots, whole, networks, &mut problems);
        // The values take as much memory as the trees, which are not needed any more.
        drop(roots);
        warn::warn(&written, &mut problems);
        if let Some(objects) = objects {
            cluster::warn(&written, objects, &mut problems);
        }
        check::check(&written, &mut problems);
        disabled = written.disabled().cloned().collect();
        of_tests = written.tests.iter().map(|test| test.span.start).collect();
        tests_key = written.tests_key;
        set = resolve::resolve(written, &mut problems);
    }
    let has_error = problem::in_order(&mut problems);
    Reading {
        set: set.filter(|_| !has_error),
        disabled,
        problems,
        starts: of_tests,
        tests_key,
    }
}

/// Reads a spec.
///
/// # Errors
/// Every error of the text, in its order.
pub fn read(text: &[u8]) -> Result<ForwardSet, Vec<Problem>> {
    examine(text).sound()
}
