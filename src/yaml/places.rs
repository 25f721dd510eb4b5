//! Where the bytes of a spec stand: in which file, on which line, in which column.
//!
//! A spec may lie in several files. A span counts through all of them, so that two places can be
//! compared wherever they stand; here is the way back.

use std::borrow::Cow;
use std::cell::OnceCell;

use super::problem::Span;
use crate::netfilter::text::parse;

/// Where a byte of a text stands, both counted from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// Each text with the place of its first byte. One lies a byte behind the end of the one before it:
/// a problem at the end of a text, or in an empty one, is not taken for one of the next.
pub(super) fn placed<'t>(
    texts: impl IntoIterator<Item = &'t [u8]>,
) -> impl Iterator<Item = (usize, &'t [u8])> {
    texts.into_iter().scan(0, |next, text| {
        let start = *next;
        *next += text.len() + 1;
        Some((start, text))
    })
}

/// A text's bytes as its problems count them: as text, without a byte order mark.
#[must_use]
pub fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    parse::text_of(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes))
}

/// One file of a spec, and where each of its lines begins: found once, if at all, asked often.
#[derive(Debug)]
pub struct File<'t> {
    pub name: &'t str,
    pub text: Cow<'t, str>,
    /// The place of its first byte.
    start: usize,
    /// Where its lines begin, counted from its own first byte.
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

    /// The bytes of the spec as bytes of this file.
    #[must_use]
    pub fn within(&self, span: &Span) -> Span {
        span.start.saturating_sub(self.start)..span.end.saturating_sub(self.start)
    }

    /// The position of the byte `at` of this file, or of its end if that comes first.
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

/// The files of a spec, in its order: at least one.
#[derive(Debug)]
pub struct Places<'t>(Vec<File<'t>>);

impl<'t> Places<'t> {
    /// The names and texts of all files that were examined together, in the same order.
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

    /// The file that the byte `at` of the spec stands in.
    #[must_use]
    pub fn file(&self, at: usize) -> &File<'t> {
        let after = self.0.partition_point(|file| file.start <= at);
        &self.0[after.saturating_sub(1)]
    }

    /// The name of the file that the byte `at` of the spec stands in, and the position there.
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
            // Behind the last line end, where YAML says that something is missing.
            (0, 5, "one", 2, 1),
            (1, 0, "two", 1, 1),
            // Counted behind the byte order mark, in characters.
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
