//! The problems that a spec can have: `table` has all of them, with their words.

mod code;
mod entry;
mod hint;
mod table;

pub use code::CodeError;
pub use entry::{Severity, Span, Words};
pub use hint::nearest;
pub use table::{Code, ProblemKind};

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

    #[must_use]
    pub fn severity(&self) -> Severity {
        self.kind.code().severity()
    }
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
