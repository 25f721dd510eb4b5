//! From a byte of a spec to its file, line and column.
//!
//! A span counts through all files of a spec, so that two places in different files can be compared.

use std::borrow::Cow;
use std::cell::OnceCell;

use super::problem::Span;
use crate::netfilter::text::parse;

/// A place in a file. Both numbers count from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// Returns each text with the place of its first byte in the spec. There is one byte between two texts, so
/// that a problem at the end of a text, or in an empty one, does not belong to the next.
pub(super) fn placed<'t>(
    texts: impl IntoIterator<Item = &'t [u8]>,
) -> impl Iterator<Item = (usize, &'t [u8])> {
    texts.into_iter().scan(0, |next, text| {
        let start = *next;
        *next += text.len() + 1;
        Some((start, text))
    })
}

/// Returns a file as text without its byte order mark, which spans do not count.
#[must_use]
pub fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    parse::text_of(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes))
}

/// One file of a spec. Its lines are found when a position is first asked for.
#[derive(Debug)]
pub struct File<'t> {
    pub name: &'t str,
    pub text: Cow<'t, str>,
    /// The place of its first byte in the spec.
    start: usize,
    /// The first byte of each line, counted in this file.
    lines: OnceCell<Vec<usize>>,
}

impl<'t> File<'t> {
    fn new(name: &'t str, start: usize, bytes: &'t [u8]) -> Self {
        Self {
            name,
            text: text_of(bytes),
            start,
            lines: OnceCell::new(),
        }
    }

    fn lines(&self) -> &[usize] {
        self.lines.get_or_init(|| {
            let behind_newlines = self.text.match_indices('\n').map(|(at, _)| at + 1);
            std::iter::once(0).chain(behind_newlines).collect()
        })
    }

    /// Returns a span of the spec as bytes of this file.
    #[must_use]
    pub fn within(&self, span: &Span) -> Span {
        span.start.saturating_sub(self.start)..span.end.saturating_sub(self.start)
    }

    /// Returns the position of the byte `at` of this file, or of its end if that comes first.
    #[must_use]
    pub fn position(&self, at: usize) -> Position {
        let at = self.text.floor_char_boundary(at.min(self.text.len()));
        let lines = self.lines();
        let line = lines.partition_point(|start| *start <= at);
        Position {
            line,
            column: self.text[lines[line - 1]..at].chars().count() + 1,
        }
    }
}

/// The files of a spec in their order, at least one.
#[derive(Debug)]
pub struct Places<'t>(Vec<File<'t>>);

impl<'t> Places<'t> {
    /// Takes the names and texts of all files, in the order in which they were examined.
    #[must_use]
    pub fn new(files: impl IntoIterator<Item = (&'t str, &'t [u8])>) -> Self {
        let (names, texts): (Vec<&str>, Vec<&[u8]>) = files.into_iter().unzip();
        let files = names.into_iter().zip(placed(texts));
        Self(
            files
                .map(|(name, (start, text))| File::new(name, start, text))
                .collect(),
        )
    }

    /// Returns the file that has the byte `at` of the spec.
    #[must_use]
    pub fn file(&self, at: usize) -> &File<'t> {
        let after = self.0.partition_point(|file| file.start <= at);
        &self.0[after.saturating_sub(1)]
    }

    /// Returns the name of the file that has the byte `at` of the spec, and the position there.
    #[must_use]
    pub fn find(&self, at: usize) -> (&'t str, Position) {
        let file = self.file(at);
        (file.name, file.position(at - file.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_found_in_its_own_file() {
        let texts: [&[u8]; 5] = [
            b"a: 1\n",
            b"",
            b"\xef\xbb\xbfb: \xc3\xa4x",
            b"\xff\xff",
            b"c",
        ];
        let starts: Vec<usize> = placed(texts).map(|(start, _)| start).collect();
        let places = Places::new(
            ["one", "two", "three", "four", "five"]
                .into_iter()
                .zip(texts),
        );
        for (file, at, name, line, column) in [
            (0, 0, "one", 1, 1),
            (0, 3, "one", 1, 4),
            // After the last line end, where YAML reports that something is missing.
            (0, 5, "one", 2, 1),
            (1, 0, "two", 1, 1),
            // Counted after the byte order mark, in characters.
            (2, 0, "three", 1, 1),
            (2, 5, "three", 1, 5),
            (2, 6, "three", 1, 6),
            (3, 0, "four", 1, 1),
            (4, 0, "five", 1, 1),
            (4, 1, "five", 1, 2),
            (4, 1000, "five", 1, 2),
        ] {
            let position = Position { line, column };
            assert_eq!(places.find(starts[file] + at), (name, position));
        }
    }
}
