//! Texts that are not YAML: characters that it forbids, and the place of a syntax error.

use granit_parser::{ErrorKind, ScanError};

use super::problem::{Problem, ProblemKind};

/// Refuses control characters other than tab and line ends: YAML forbids them (1.2.2, section 5.1), and
/// parsers differ in how they read them. A carriage return alone ends a line for YAML, but for no
/// editor.
pub(super) fn refuse_control_characters(text: &str) -> Result<(), Problem> {
    // Nearly every spec is ASCII, and its bytes are checked faster than its characters.
    let printable = |b: u8| matches!(b, b' '..=b'~' | b'\t' | b'\n');
    if text.bytes().all(printable) {
        return Ok(());
    }
    let lone = |at: usize| text.as_bytes().get(at + 1) != Some(&b'\n');
    let refused = |at: usize, c: char| match c {
        '\t' | '\n' | '\u{85}' => false,
        '\r' => lone(at),
        c => c.is_control(),
    };
    match text.char_indices().find(|(at, c)| refused(*at, *c)) {
        None => Ok(()),
        Some((at, found)) => Err(Problem::new(
            at..at + found.len_utf8(),
            ProblemKind::ControlCharacter { found },
        )),
    }
}

/// Returns an error of the parser as a problem, placed at the tab that caused it if one did.
pub(super) fn problem(text: &str, error: &ScanError) -> Problem {
    let at = error.marker().byte_offset().unwrap_or(text.len());
    let at = text.floor_char_boundary(at.min(text.len()));
    let tab = tab_at_fault(text, at, error.kind());
    let reason = match error.kind().to_string() {
        reason if tab.is_some() && !reason.contains("tab") => {
            ErrorKind::TabInIndentation.to_string()
        }
        reason => reason,
    };
    let at = tab.unwrap_or(at);
    Problem::new(at..at + 1, ProblemKind::Syntax { reason })
}

/// Returns the tab that caused an error of the parser. The parser reports such an error after the tab, or
/// before it if the value on the line before could go on; or it reads the tab as a blank, and reports that
/// lines do not fit together.
fn tab_at_fault(text: &str, at: usize, kind: &ErrorKind) -> Option<usize> {
    let reason = kind.to_string();
    let names_tab = reason.contains("tab");
    let before = at.checked_sub(1);
    let before = before.filter(|before| names_tab && text.as_bytes()[*before] == b'\t');
    if before.is_some() {
        return before;
    }
    let line = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    if names_tab {
        return indenting_tabs(text)
            .map(|(_, tab)| tab)
            .find(|tab| *tab >= line);
    }
    let outside = indenting_tabs(text).filter(|(open, _)| *open <= 0);
    let mut outside = outside.map(|(_, tab)| tab);
    if reason.contains("comment intercepting") {
        let next = at + text[at..].find('\n')? + 1;
        let end = text[next..].find('\n').map_or(text.len(), |end| next + end);
        return outside.find(|tab| (next..end).contains(tab));
    }
    let misfit = reason.contains("did not find expected");
    let end = text[line..].find('\n').map_or(text.len(), |end| line + end);
    outside.take_while(|tab| misfit && *tab < end).last()
}

/// Returns the first tab in the indentation of each line, with the number of brackets that are open at
/// the beginning of the line: inside brackets tabs are allowed.
fn indenting_tabs(text: &str) -> impl Iterator<Item = (i64, usize)> {
    let (mut start, mut open) = (0, 0);
    text.split_inclusive('\n').filter_map(move |line| {
        let (begin, brackets) = (start, open);
        start += line.len();
        let content = line.trim_ascii_start();
        if content.is_empty() || content.starts_with('#') {
            return None;
        }
        for b in content.split(" #").next().unwrap_or_default().bytes() {
            open += i64::from(matches!(b, b'{' | b'[')) - i64::from(matches!(b, b'}' | b']'));
        }
        let blanks = &line[..line.len() - content.len()];
        blanks.find('\t').map(|tab| (brackets, begin + tab))
    })
}
