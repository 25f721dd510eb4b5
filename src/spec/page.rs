//! Problems as pages: the place, the line, a caret under the value, and the edit that mends it.

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

impl Position {
    /// The position of the byte `at` in `text`, or of its end if that comes first.
    #[must_use]
    pub fn of(text: &str, at: usize) -> Self {
        let before = &text[..text.floor_char_boundary(at.min(text.len()))];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// All problems of one file, ready to be printed to a terminal; `color` decides on escapes.
#[must_use]
pub fn pages(file: &str, text: &[u8], problems: &[Problem], renderer: &Renderer) -> String {
    let text = String::from_utf8_lossy(text);
    let mut out = String::new();
    for problem in problems.iter().take(MOST_SHOWN) {
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
        let group = place(Group::with_title(title), file, &text, problem).element(hint);
        out.push_str(&renderer.render(&[group]));
        out.push_str("\n\n");
    }
    if problems.len() > MOST_SHOWN {
        let _ = writeln!(out, "and {} more\n", problems.len() - MOST_SHOWN);
    }
    out
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
fn place<'a>(group: Group<'a>, file: &'a str, text: &'a str, problem: &Problem) -> Group<'a> {
    let position = Position::of(text, problem.span.start);
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
        .line_start(Position::of(text, start).line)
        .annotation(AnnotationKind::Primary.span(within(&problem.span)));
    if let Some((span, label)) = &other {
        snippet = snippet.annotation(AnnotationKind::Context.span(within(span)).label(*label));
    }
    group.element(snippet)
}
