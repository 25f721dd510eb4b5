//! YAML text to a small tree that knows where each value stands. Nothing here knows the spec.
//!
//! Only this file and `syntax` name the YAML parser, so that it can be replaced.

use std::borrow::Cow;

use granit_parser::{Event, Parser, ScalarStyle, options};

use super::bounds::MAX_VALUES;
use super::problem::{Problem, ProblemKind, Span};
use super::syntax;

/// A value, and the bytes of the spec that it was read from.
#[derive(Debug)]
pub struct Node<'t> {
    pub span: Span,
    pub value: Value<'t>,
}

#[derive(Debug)]
pub enum Value<'t> {
    /// Nothing, or a plain `~` or `null`.
    Null,
    /// Any other scalar, quoted or not. The reader of a key decides whether it must be a number.
    Scalar(Cow<'t, str>),
    Sequence(Box<[Node<'t>]>),
    /// In the order of the text. A duplicate key is there twice.
    Mapping(Box<[(MapKey<'t>, Node<'t>)]>),
    /// An alias, which has been reported. It gets no second problem.
    Broken,
}

#[derive(Debug)]
pub struct MapKey<'t> {
    pub span: Span,
    pub text: Cow<'t, str>,
}

/// A document, and the problems after which its text could still be read.
#[derive(Debug)]
pub struct Document<'t> {
    pub root: Node<'t>,
    pub problems: Vec<Problem>,
}

/// Reads one document, whose text begins at the byte `start` of the spec. `values` counts the values of
/// all documents.
///
/// # Errors
/// If the text cannot be read to its end: it is not UTF-8, it is not YAML, it is empty, or it has too
/// many values.
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
    /// Moves the spans of the node and of all nodes in it by the bytes before their text in the spec.
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

/// Reads one document, with spans counted from its own first byte.
fn read<'t>(text: &'t [u8], values: &mut usize) -> Result<Document<'t>, Problem> {
    let bytes = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        Problem::new(at..at + 1, ProblemKind::NotUtf8)
    })?;
    syntax::refuse_control_characters(text)?;
    let mut loader = SpecLoader {
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
        let (event, span) = event.map_err(|error| syntax::problem(text, &error))?;
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
                // The problems of the first document are reported too.
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

struct SpecLoader<'t> {
    text: &'t str,
    /// The open collections, outermost first.
    open: Vec<Open<'t>>,
    /// The items of all open sequences so far, the innermost last. A sequence gets memory of its own
    /// once its length is known.
    items: Vec<Node<'t>>,
    /// The entries of all open mappings so far, likewise.
    entries: Vec<(MapKey<'t>, Node<'t>)>,
    root: Option<Node<'t>>,
    documents: usize,
    problems: Vec<Problem>,
}

struct Open<'t> {
    start: usize,
    kind: OpenKind<'t>,
}

enum OpenKind<'t> {
    /// The index of its first item.
    Sequence { from: usize },
    /// The index of its first entry, and the key whose value comes next.
    Mapping {
        from: usize,
        key: Option<MapKey<'t>>,
    },
}

impl<'t> SpecLoader<'t> {
    fn take(&mut self, event: Event<'t>, span: Span) {
        match event {
            Event::Anchor(..) => self.problems.push(Problem::new(span, ProblemKind::Alias)),
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.problems
                    .push(Problem::new(span.clone(), ProblemKind::Alias));
                self.add(span, Value::Broken);
            }
            Event::Scalar(text, style, ..) => {
                // The span of a block scalar includes the line ends after it.
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

    /// Adds a finished node to the innermost open collection.
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
                        // A key that is no scalar is reported as an unknown key, by its text.
                        _ => Cow::Borrowed(text.get(span.clone()).unwrap_or("")),
                    };
                    *key = Some(MapKey { span, text });
                }
            },
        }
    }
}
