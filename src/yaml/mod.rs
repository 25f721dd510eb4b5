//! The spec: what the user wants forwarded, read from YAML and checked whole.
//!
//! [`read`] turns text into a [`ForwardSet`], or into every [`Problem`] the text has. A `ForwardSet`
//! is sound by construction: whoever holds one need not check it again. A spec in several files is
//! read by [`examine_all`] as if it were one.
//!
//! The room must not know rules or the machine. Only commands import it: files are read by
//! `host::spec_source`, and everything behind the commands works with [`crate::forwards`].
//!
//! Start here:
//! - a new option of a forward: its key in `options` (or `decode`), its limits in `check`, advice in
//!   `warn`;
//! - a new problem: its code in `code`, its text in `problem`, its fix in `hint`;
//! - the layout of a report: [`page`] for people, [`annotation`] for programs.

pub mod annotation;
mod check;
mod code;
mod decode;
mod endpoint;
mod fields;
mod hint;
mod limits;
mod load;
mod options;
pub mod page;
pub mod places;
mod problem;
mod warn;

use std::collections::BTreeSet;

use crate::forwards::ForwardSet;
pub use code::{Code, CodeError, Severity};
pub use hint::nearest;
pub use limits::{MAX_PROBLEMS, MAX_VALUES};
pub use problem::{Problem, ProblemKind, Span};

/// What reading a spec came to.
#[derive(Debug)]
pub struct Reading {
    /// There if no problem is an error.
    pub set: Option<ForwardSet>,
    /// Errors, warnings and notes in the order of the spec, without those that it silences.
    pub problems: Vec<Problem>,
}

impl Reading {
    /// The spec, if it is without a fault.
    ///
    /// # Errors
    /// Every error, in the order of the spec.
    pub fn sound(self) -> Result<ForwardSet, Vec<Problem>> {
        let Self { set, mut problems } = self;
        set.ok_or_else(|| {
            problems.retain(|problem| problem.severity() == Severity::Error);
            problems
        })
    }
}

/// Reads a text and says everything that there is to say of it.
#[must_use]
pub fn examine(text: &[u8]) -> Reading {
    examine_all(&[text])
}

/// Reads a spec that lies in several texts, as if they were one, and says everything that there is
/// to say of it. [`places::Places`] tells where.
#[must_use]
pub fn examine_all(texts: &[&[u8]]) -> Reading {
    let mut problems = Vec::new();
    let mut roots = Vec::with_capacity(texts.len());
    let mut values = 0;
    for (start, text) in places::placed(texts.iter().copied()) {
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
    let mut set = None;
    if !roots.is_empty() {
        let whole = roots.len() == texts.len();
        let written = decode::decode(&roots, whole, &mut problems);
        // What has been read is as large as what it was read from: one of them is enough.
        drop(roots);
        warn::warn(&written, &mut problems);
        set = check::check(written, &mut problems);
    }
    problems.sort_by_key(|problem| problem.span.start);
    // What is wrong with a default is wrong with every forward that has it, and said once.
    let at_one_place = problems
        .windows(2)
        .filter(|two| two[0].span.start == two[1].span.start);
    let crowded: BTreeSet<usize> = at_one_place.map(|two| two[0].span.start).collect();
    let mut said = BTreeSet::new();
    problems.retain(|problem| {
        let Problem { span, .. } = problem;
        !crowded.contains(&span.start) || said.insert((span.start, span.end, problem.message()))
    });
    let broken = problems
        .iter()
        .any(|problem| problem.severity() == Severity::Error);
    Reading {
        set: set.filter(|_| !broken),
        problems,
    }
}

/// Reads a spec.
///
/// # Errors
/// Every error of the text, in its order.
pub fn read(text: &[u8]) -> Result<ForwardSet, Vec<Problem>> {
    examine(text).sound()
}
