//! The problems that a spec can have: `table` has all of them, with their words.

mod code;
mod entry;
mod hint;
mod table;

pub use code::CodeError;
pub use entry::{Severity, Span, Words};
pub use hint::{TargetEdit, nearest};
pub use table::{Code, ProblemKind};

use std::collections::BTreeSet;

use crate::net::printable::{self, is_hidden};

/// Longer texts and hints are cut.
const LONGEST: usize = 300;

/// One problem of a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The value that is wrong.
    pub span: Span,
    pub kind: ProblemKind,
}

impl Problem {
    #[must_use]
    pub fn new(span: Span, kind: ProblemKind) -> Self {
        Self { span, kind }
    }

    /// Returns the words of a report: text and hint have one line each, of bounded length.
    #[must_use]
    pub fn words(&self) -> Words {
        let Words { text, hint, other } = self.kind.words();
        Words {
            text: clipped(text),
            hint: clipped(hint),
            other,
        }
    }

    /// Returns the problem of a file of tests for that of a spec.
    #[must_use]
    pub fn in_test_file(mut self) -> Self {
        if self.kind == ProblemKind::Empty {
            self.kind = ProblemKind::EmptyTestFile;
        }
        self
    }

    #[must_use]
    pub fn severity(&self) -> Severity {
        self.kind.code().severity()
    }
}

/// Sorts the problems of a spec by their places, and returns whether one is an error.
pub fn in_order(problems: &mut Vec<Problem>) -> bool {
    problems.sort_by_key(|problem| problem.span.start);
    // A problem of a default is found in every forward that takes it, and reported once.
    let at_one_place = problems
        .windows(2)
        .filter(|two| two[0].span.start == two[1].span.start);
    let crowded: BTreeSet<usize> = at_one_place.map(|two| two[0].span.start).collect();
    let mut seen = BTreeSet::new();
    problems.retain(|problem| {
        let Problem { span, .. } = problem;
        !crowded.contains(&span.start) || seen.insert((span.start, span.end, problem.words().text))
    });
    let mut all = problems.iter();
    all.any(|problem| problem.severity() == Severity::Error)
}

fn clipped(text: String) -> String {
    // A line end in a name must not begin a line of the report.
    let mut text = if text.contains(is_hidden) {
        printable::line(text).to_string()
    } else {
        text
    };
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push('…');
    }
    text
}
