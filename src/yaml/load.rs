//! YAML text to a small tree that knows where each value stands. Nothing here knows the spec.
//!
//! The only file that names the YAML parser, so that it can be exchanged.

use std::borrow::Cow;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, options};

use super::limits::MAX_VALUES;
use super::problem::{Problem, ProblemKind, Span};

/// A value and the bytes of the text it was read from.
#[derive(Debug)]
pub struct Node<'t> {
    pub span: Span,
    pub value: Value<'t>,
}

#[derive(Debug)]
pub enum Value<'t> {
    /// Nothing, or a plain `~` or `null`.
    Null,
    /// Any other scalar, quoted or not: whether it is a number is for the reader of a key to say.
    Scalar(Cow<'t, str>),
    Sequence(Box<[Node<'t>]>),
    /// In the order of the text, a key that stands twice included.
    Mapping(Box<[(Key<'t>, Node<'t>)]>),
    /// Was not understood and has been reported: not worth a second complaint.
    Broken,
}

#[derive(Debug)]
pub struct Key<'t> {
    pub span: Span,
    pub text: Cow<'t, str>,
}

/// A document, and what was wrong with it without making the rest unreadable.
#[derive(Debug)]
pub struct Document<'t> {
    pub root: Node<'t>,
    pub problems: Vec<Problem>,
}

/// Reads one document, whose text begins at the byte `start` of the spec. `values` counts those of
/// all its documents.
///
/// # Errors
/// What keeps the text from being read to its end: bytes that are not UTF-8, YAML's own syntax,
/// nothing at all, a second document.
pub fn load<'t>(text: &'t [u8], start: usize, values: &mut usize) -> Result<Document<'t>, Problem> {
    let moved = |mut problem: Problem| {
        shift(&mut problem.span, start);
        problem
    };
    let mut document = read(text, values).map_err(moved)?;
    if start > 0 {
        document.root.shift(start);
        document.problems = document.problems.into_iter().map(moved).collect();
    }
    Ok(document)
}

fn shift(span: &mut Span, by: usize) {
    span.start += by;
    span.end += by;
}

impl Node<'_> {
    /// Moves it with everything in it: to where its text stands in the spec.
    fn shift(&mut self, by: usize) {
        shift(&mut self.span, by);
        match &mut self.value {
            Value::Sequence(items) => items.iter_mut().for_each(|item| item.shift(by)),
            Value::Mapping(entries) => {
                for (key, value) in entries {
                    shift(&mut key.span, by);
                    value.shift(by);
                }
            }
            Value::Null | Value::Scalar(_) | Value::Broken => {}
        }
    }
}

/// Reads one document, with places counted from its own first byte.
fn read<'t>(text: &'t [u8], values: &mut usize) -> Result<Document<'t>, Problem> {
    let bytes = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        Problem::new(at..at + 1, ProblemKind::NotUtf8)
    })?;
    refuse_control_characters(text)?;
    let mut loader = Loader {
        text,
        open: Vec::new(),
        items: Vec::new(),
        entries: Vec::new(),
        root: None,
        documents: 0,
        problems: Vec::new(),
    };
    let options = options! {
        disallow_directives: true,
        emit_anchor_events: true,
        emit_unresolved_aliases: true,
    };
    // Nesting is bounded by the parser: 255 levels, flow and block each.
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| syntax_problem(text, &error))?;
        let range = span.byte_range().unwrap_or(0..0);
        *values += 1;
        if *values > MAX_VALUES {
            return Err(Problem::new(range, ProblemKind::TooManyValues));
        }
        let tag = span.tag_span().and_then(|span| span.byte_range());
        loader
            .problems
            .extend(tag.map(|span| Problem::new(span, ProblemKind::Tag)));
        if let Event::DocumentStart(..) = event {
            loader.documents += 1;
            if loader.documents > 1 {
                // What is wrong with the first one is worth hearing all the same.
                loader
                    .problems
                    .push(Problem::new(range, ProblemKind::SeveralDocuments));
                break;
            }
        }
        loader.take(event, range);
    }
    match loader.root {
        Some(root) if !matches!(root.value, Value::Null) => Ok(Document {
            root,
            problems: loader.problems,
        }),
        _ => Err(Problem::new(0..0, ProblemKind::Empty)),
    }
}

/// YAML allows no control character but tab and line ends (YAML 1.2.2, section 5.1), and parsers
/// differ in what they make of them. A carriage return alone ends a line to YAML and to no editor.
fn refuse_control_characters(text: &str) -> Result<(), Problem> {
    // Of a text in ASCII, as nearly every one is, the bytes say it at once.
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

fn syntax_problem(text: &str, error: &ScanError) -> Problem {
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

/// The tab behind an error of the parser at a place. The parser has stepped over the tab, or has not
/// come to it, behind a value that could go on in the next line; or it has taken the tab for a
/// blank, and finds that lines do not fit together.
fn tab_at_fault(text: &str, at: usize, kind: &ErrorKind) -> Option<usize> {
    let reason = kind.to_string();
    let of_tab = reason.contains("tab");
    let before = at.checked_sub(1);
    let before = before.filter(|before| of_tab && text.as_bytes()[*before] == b'\t');
    if before.is_some() {
        return before;
    }
    let line = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    if of_tab {
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
    let unfitting = reason.contains("did not find expected");
    let end = text[line..].find('\n').map_or(text.len(), |end| line + end);
    outside.take_while(|tab| unfitting && *tab < end).last()
}

/// The first tab of each line that one indents, and how many brackets are open there: between those
/// tabs are allowed.
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

struct Loader<'t> {
    text: &'t str,
    /// The collections that are open, outermost first.
    open: Vec<Open<'t>>,
    /// What the open sequences hold so far, one behind the other: a node's place is taken once,
    /// when it is known how many there are.
    items: Vec<Node<'t>>,
    /// The same of the open mappings.
    entries: Vec<(Key<'t>, Node<'t>)>,
    root: Option<Node<'t>>,
    documents: usize,
    problems: Vec<Problem>,
}

struct Open<'t> {
    start: usize,
    kind: OpenKind<'t>,
}

enum OpenKind<'t> {
    /// From which of the items on they are its own.
    Sequence { from: usize },
    /// From which of the entries on they are its own, and the key that waits for its value.
    Mapping { from: usize, key: Option<Key<'t>> },
}

impl<'t> Loader<'t> {
    fn take(&mut self, event: Event<'t>, span: Span) {
        match event {
            Event::Anchor(..) => self.problems.push(Problem::new(span, ProblemKind::Alias)),
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.problems
                    .push(Problem::new(span.clone(), ProblemKind::Alias));
                self.add(span, Value::Broken);
            }
            Event::Scalar(text, style, ..) => {
                // A block scalar's span runs on over the line ends behind it.
                let written = self.text.get(span.clone()).unwrap_or_default();
                let span = span.start..span.start + written.trim_end().len().max(1);
                let plain = style == ScalarStyle::Plain;
                let value = match text.as_ref() {
                    "" | "~" | "null" if plain => Value::Null,
                    _ => Value::Scalar(text),
                };
                self.add(span, value);
            }
            Event::SequenceStart(..) => {
                let from = self.items.len();
                self.begin(&span, OpenKind::Sequence { from });
            }
            Event::MappingStart(..) => {
                let from = self.entries.len();
                self.begin(&span, OpenKind::Mapping { from, key: None });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { start, kind }) = self.open.pop() else {
                    return;
                };
                let value = match kind {
                    OpenKind::Sequence { from } => {
                        Value::Sequence(self.items.drain(from..).collect())
                    }
                    OpenKind::Mapping { from, .. } => {
                        Value::Mapping(self.entries.drain(from..).collect())
                    }
                };
                self.add(start..span.end.max(start), value);
            }
            _ => {}
        }
    }

    fn begin(&mut self, span: &Span, kind: OpenKind<'t>) {
        let start = span.start;
        self.open.push(Open { start, kind });
    }

    /// Puts a finished node where it belongs: into the innermost open collection.
    fn add(&mut self, span: Span, value: Value<'t>) {
        let text = self.text;
        let kind = self.open.last_mut().map(|open| &mut open.kind);
        match kind {
            None => self.root = Some(Node { span, value }),
            Some(OpenKind::Sequence { .. }) => self.items.push(Node { span, value }),
            Some(OpenKind::Mapping { key, .. }) => match key.take() {
                Some(key) => self.entries.push((key, Node { span, value })),
                None => {
                    let text = match value {
                        Value::Scalar(text) => text,
                        // Reported as an unknown key, by what stands there.
                        _ => Cow::Borrowed(text.get(span.clone()).unwrap_or("")),
                    };
                    *key = Some(Key { span, text });
                }
            },
        }
    }
}
