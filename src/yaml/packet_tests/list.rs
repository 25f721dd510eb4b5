//! The place of the list `tests` in a spec.

use crate::forwards::TestPlace;
use crate::yaml::places::Places;

/// The list `tests` of a spec, the last one of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestList {
    /// The place of its key.
    pub place: TestPlace,
    /// The spaces in front of each entry. `None` if the list is empty or in brackets, so that no line can be added.
    pub indent: Option<usize>,
}

impl TestList {
    /// Finds the list. `key` is the first byte of its key, and `tests` are the first bytes of all tests of the spec.
    #[must_use]
    pub fn find(key: usize, tests: &[usize], places: &Places<'_>) -> Self {
        let (file, position) = places.find(key);
        let last = tests.last().filter(|start| **start > key);
        Self {
            place: TestPlace {
                file: file.into(),
                line: position.line,
            },
            indent: last.and_then(|start| indent(*start, places)),
        }
    }
}

/// Returns the number of spaces in front of the entry that begins there, if it has lines of its own.
fn indent(start: usize, places: &Places<'_>) -> Option<usize> {
    let (_, position) = places.find(start);
    let line = places.file(start).text.lines().nth(position.line - 1)?;
    let entry = line.trim_start_matches(' ');
    entry.starts_with("- ").then(|| line.len() - entry.len())
}
