//! Problems as pages: the place, the line, a caret under the value, and the edit that mends it.

use std::borrow::Cow;
use std::fmt::Write as _;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::code::Severity;
use super::problem::{Problem, Span};

/// More than this nobody reads; the rest is counted.
const MOST_SHOWN: usize = 50;

/// A longer line is shown without its text: nobody wrote it by hand.
const LONGEST_LINE: usize = 400;

/// Where a byte of a text stands, both counted from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// Where each line of a text begins: found once, asked often.
#[derive(Debug)]
pub struct LineIndex<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> LineIndex<'t> {
    #[must_use]
    pub fn new(text: &'t str) -> Self {
        let behind_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            text,
            starts: std::iter::once(0).chain(behind_newlines).collect(),
        }
    }

    /// The position of the byte `at`, or of the text's end if that comes first.
    #[must_use]
    pub fn position(&self, at: usize) -> Position {
        let at = self.text.floor_char_boundary(at.min(self.text.len()));
        let line = self.starts.partition_point(|start| *start <= at);
        Position {
            line,
            column: self.text[self.starts[line - 1]..at].chars().count() + 1,
        }
    }
}

/// A spec's bytes as its problems count them: as text, without a byte order mark.
#[must_use]
pub fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes))
}

/// All problems of one file, as a renderer makes them.
#[must_use]
pub fn pages(file: &str, text: &[u8], problems: &[Problem], renderer: &Renderer) -> String {
    let text = text_of(text);
    let lines = LineIndex::new(&text);
    let mut out = String::new();
    for problem in shown(problems) {
        let code = problem.kind.code().as_str();
        let title = problem.message();
        let hint = problem.hint();
        let level = match problem.severity() {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Note => Level::NOTE,
        };
        let title = level.primary_title(title.as_str()).id(code);
        let hint = Level::HELP.with_name("hint").message(hint.as_str());
        let group = place(Group::with_title(title), file, &lines, problem).element(hint);
        out.push_str(&renderer.render(&[group]));
        out.push_str("\n\n");
    }
    if problems.len() > MOST_SHOWN {
        let _ = writeln!(out, "and {} more\n", problems.len() - MOST_SHOWN);
    }
    out
}

/// The gravest of many, still in the order of the file.
fn shown(problems: &[Problem]) -> Vec<&Problem> {
    let mut gravest: Vec<(usize, &Problem)> = problems.iter().enumerate().collect();
    gravest.sort_by_key(|(n, problem)| (problem.severity(), *n));
    gravest.truncate(MOST_SHOWN);
    gravest.sort_by_key(|(n, _)| *n);
    gravest.into_iter().map(|(_, problem)| problem).collect()
}

/// Plain or coloured, in ASCII: it must survive a serial console.
#[must_use]
pub fn renderer(color: bool) -> Renderer {
    let renderer = if color {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    renderer.decor_style(DecorStyle::Ascii)
}

/// Adds the file, line and column, and the lines that the problem is about.
fn place<'a>(
    group: Group<'a>,
    file: &'a str,
    lines: &LineIndex<'a>,
    problem: &Problem,
) -> Group<'a> {
    let text = lines.text;
    let position = lines.position(problem.span.start);
    let other = problem.kind.other_place();
    let spans = std::iter::once(&problem.span).chain(other.as_ref().map(|(span, _)| span));
    let first = spans.clone().map(|span| span.start).min().unwrap_or(0);
    let last = spans.map(|span| span.end).max().unwrap_or(0);
    // Only the lines in question go to the renderer, which looks through all it is given.
    let start = text[..text.floor_char_boundary(first)]
        .rfind('\n')
        .map_or(0, |newline| newline + 1);
    let end = text[text.ceil_char_boundary(last.min(text.len()))..]
        .find('\n')
        .map_or(text.len(), |newline| last + newline);
    let window = &text[start..text.ceil_char_boundary(end.max(start))];
    if window.is_empty() || window.lines().any(|line| line.len() > LONGEST_LINE) {
        let origin = Origin::path(file)
            .line(position.line)
            .char_column(position.column);
        return group.element(origin);
    }
    let within = |span: &Span| {
        let from = window.floor_char_boundary(span.start.saturating_sub(start).min(window.len()));
        let to = span
            .end
            .saturating_sub(start)
            .max(from + 1)
            .min(window.len());
        from..window.ceil_char_boundary(to).max(from)
    };
    let mut snippet = Snippet::source(window)
        .path(file)
        .line_start(lines.position(start).line)
        .annotation(AnnotationKind::Primary.span(within(&problem.span)));
    if let Some((span, label)) = &other {
        snippet = snippet.annotation(AnnotationKind::Context.span(within(span)).label(*label));
    }
    group.element(snippet)
}
