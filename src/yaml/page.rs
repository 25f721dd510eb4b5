//! Problems as text for people: the place, the line with a caret under the value, and the hint.

use std::borrow::Cow;
use std::fmt::Write as _;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::places::{File, Places};
use super::problem::{Problem, Severity, Span, Words};
use crate::net::printable::is_hidden;

/// Further problems are only counted.
const MOST_SHOWN: usize = 50;

/// A longer line is shown without its text.
const LONGEST_LINE: usize = 400;

/// Returns the problems of a spec as text.
#[must_use]
pub fn pages(places: &Places<'_>, problems: &[Problem], renderer: &Renderer) -> String {
    let mut out = String::new();
    for problem in shown(problems) {
        let code = problem.kind.code().as_str();
        let Words { text, hint, other } = problem.words();
        let level = match problem.severity() {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Note => Level::NOTE,
        };
        let title = level.primary_title(text.as_str()).id(code);
        let hint = Level::HELP.with_name("hint").message(hint.as_str());
        let group = place(Group::with_title(title), places, &problem.span, other).element(hint);
        out.push_str(&renderer.render(&[group]));
        out.push_str("\n\n");
    }
    if problems.len() > MOST_SHOWN {
        let _ = writeln!(out, "and {} more\n", problems.len() - MOST_SHOWN);
    }
    out
}

/// Returns the most severe problems, in the order of the spec.
fn shown(problems: &[Problem]) -> Vec<&Problem> {
    let mut worst: Vec<(usize, &Problem)> = problems.iter().enumerate().collect();
    worst.sort_unstable_by_key(|(n, problem)| (problem.severity(), *n));
    worst.truncate(MOST_SHOWN);
    worst.sort_unstable_by_key(|(n, _)| *n);
    worst.into_iter().map(|(_, problem)| problem).collect()
}

/// Returns a plain or coloured renderer. It draws in ASCII, which a serial console can show.
#[must_use]
pub fn renderer(color: bool) -> Renderer {
    let renderer = if color {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    renderer.decor_style(DecorStyle::Ascii)
}

/// Bytes of a file that are underlined.
struct Underline {
    kind: AnnotationKind,
    span: Span,
    label: Option<&'static str>,
}

/// Adds the places that a problem is about, together if they are in one file.
fn place<'a>(
    group: Group<'a>,
    places: &'a Places<'_>,
    span: &Span,
    other: Option<(Span, &'static str)>,
) -> Group<'a> {
    let file = places.file(span.start);
    let mark = Underline {
        kind: AnnotationKind::Primary,
        span: file.within(span),
        label: None,
    };
    let Some((span, label)) = other else {
        return lines(group, file, &[mark]);
    };
    let other_file = places.file(span.start);
    let other = Underline {
        kind: AnnotationKind::Context,
        span: other_file.within(&span),
        label: Some(label),
    };
    if std::ptr::eq(file, other_file) {
        lines(group, file, &[mark, other])
    } else {
        lines(lines(group, file, &[mark]), other_file, &[other])
    }
}

/// Adds the position of the first mark, and the lines from the first mark to the last.
fn lines<'a>(group: Group<'a>, file: &'a File<'_>, marks: &[Underline]) -> Group<'a> {
    let text = file.text.as_ref();
    let first = marks.iter().map(|mark| mark.span.start).min().unwrap_or(0);
    let last = marks.iter().map(|mark| mark.span.end).max().unwrap_or(0);
    // The renderer reads all the text that it gets, so it gets only these lines.
    let start = text[..text.floor_char_boundary(first)]
        .rfind('\n')
        .map_or(0, |newline| newline + 1);
    let end = text[text.ceil_char_boundary(last.min(text.len()))..]
        .find('\n')
        .map_or(text.len(), |newline| last + newline);
    let window = &text[start..text.ceil_char_boundary(end.max(start))];
    // A line end of Windows.
    let window = window
        .strip_suffix('\r')
        .filter(|_| end < text.len())
        .unwrap_or(window);
    if window.is_empty() || window.lines().any(|line| line.len() > LONGEST_LINE) {
        let position = file.position(marks.first().map_or(0, |mark| mark.span.start));
        let origin = Origin::path(file.name)
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
    let annotations = marks.iter().map(|mark| {
        let Span { start, end } = within(&mark.span);
        let moved = pictured(&window[..start]).len()..pictured(&window[..end]).len();
        mark.kind.span(moved).label(mark.label)
    });
    let snippet = Snippet::source(pictured(window))
        .path(file.name)
        .line_start(file.position(start).line)
        .annotations(annotations);
    group.element(snippet)
}

/// Replaces each character that a terminal must not get by a picture of it: one by one, so that columns stay
/// the same. The renderer handles line ends and tabs.
fn pictured(text: &str) -> Cow<'_, str> {
    let hidden = |c: char| is_hidden(c) && !matches!(c, '\n' | '\r' | '\t');
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let picture = |c: char| match u32::from(c) {
        // The block Control Pictures.
        control @ ..0x20 => char::from_u32(0x2400 + control),
        0x7f => Some('\u{2421}'),
        _ => None,
    };
    let shown = |c: char| picture(c).unwrap_or(char::REPLACEMENT_CHARACTER);
    let chars = text.chars();
    chars
        .map(|c| if hidden(c) { shown(c) } else { c })
        .collect()
}
