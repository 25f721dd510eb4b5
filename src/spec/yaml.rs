//! YAML text to a small tree that knows where each value stands. Nothing here knows the spec.
//!
//! The only file that names the YAML parser, so that it can be exchanged.

use granit_parser::{Event, Parser, ScalarStyle, options};

use super::MAX_VALUES;
use super::problem::{Problem, ProblemKind, Span};

/// A value and the bytes of the text it was read from.
#[derive(Debug)]
pub struct Node {
    pub span: Span,
    pub value: Value,
}

#[derive(Debug)]
pub enum Value {
    /// Nothing, or a plain `~` or `null`.
    Null,
    /// Any other scalar, quoted or not: whether it is a number is for the reader of a key to say.
    Scalar(String),
    Sequence(Vec<Node>),
    /// In the order of the text, a key that stands twice included.
    Mapping(Vec<(Key, Node)>),
    /// Was not understood and has been reported: not worth a second complaint.
    Broken,
}

#[derive(Debug)]
pub struct Key {
    pub span: Span,
    pub text: String,
}

/// A document, and what was wrong with it without making the rest unreadable.
#[derive(Debug)]
pub struct Document {
    pub root: Node,
    pub problems: Vec<Problem>,
}

/// Reads one document.
///
/// # Errors
/// What keeps the text from being read to its end: bytes that are not UTF-8, YAML's own syntax,
/// nothing at all, a second document.
pub fn load(text: &[u8]) -> Result<Document, Problem> {
    let text = std::str::from_utf8(text).map_err(|error| {
        let at = error.valid_up_to();
        Problem::new(at..at + 1, ProblemKind::NotUtf8)
    })?;
    // YAML allows no control character but tab and line ends (YAML 1.2.2, section 5.1), and
    // parsers differ in what they make of them.
    if let Some((at, found)) = text
        .char_indices()
        .find(|(_, c)| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}'))
    {
        let span = at..at + found.len_utf8();
        return Err(Problem::new(span, ProblemKind::ControlCharacter { found }));
    }
    let mut loader = Loader {
        text,
        stack: Vec::new(),
        root: None,
        documents: 0,
        values: 0,
        problems: Vec::new(),
    };
    // Nesting is bounded by the parser: 255 levels, flow and block each.
    let options = options! { emit_anchor_events: true, disallow_directives: true };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| {
            let at = error.marker().byte_offset().unwrap_or(text.len());
            let reason = error.kind().to_string();
            Problem::new(at..at + 1, ProblemKind::Syntax { reason })
        })?;
        loader.values += 1;
        if loader.values > MAX_VALUES {
            let span = span.byte_range().unwrap_or(0..0);
            return Err(Problem::new(span, ProblemKind::TooManyValues));
        }
        let tag = span.tag_span().and_then(|span| span.byte_range());
        loader
            .problems
            .extend(tag.map(|span| Problem::new(span, ProblemKind::Tag)));
        loader.take(event, span.byte_range().unwrap_or(0..0))?;
    }
    match loader.root {
        Some(root) if !matches!(root.value, Value::Null) => Ok(Document {
            root,
            problems: loader.problems,
        }),
        _ => Err(Problem::new(0..0, ProblemKind::Empty)),
    }
}

struct Loader<'t> {
    text: &'t str,
    /// The collections that are open, outermost first.
    stack: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    values: usize,
    problems: Vec<Problem>,
}

enum Open {
    Sequence {
        start: usize,
        items: Vec<Node>,
    },
    Mapping {
        start: usize,
        entries: Vec<(Key, Node)>,
        key: Option<Node>,
    },
}

impl Loader<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(Problem::new(span, ProblemKind::SeveralDocuments));
                }
            }
            Event::Anchor(..) => self.problems.push(Problem::new(span, ProblemKind::Alias)),
            Event::Alias(_) => {
                self.problems
                    .push(Problem::new(span.clone(), ProblemKind::Alias));
                self.add(span, Value::Broken);
            }
            Event::Scalar(text, style, ..) => {
                let plain = style == ScalarStyle::Plain;
                let value = match text.as_ref() {
                    "" | "~" | "null" if plain => Value::Null,
                    _ => Value::Scalar(text.into_owned()),
                };
                self.add(span, value);
            }
            Event::SequenceStart(..) => {
                self.stack.push(Open::Sequence {
                    start: span.start,
                    items: Vec::new(),
                });
            }
            Event::MappingStart(..) => {
                self.stack.push(Open::Mapping {
                    start: span.start,
                    entries: Vec::new(),
                    key: None,
                });
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(Open::Sequence { start, items }) => {
                    self.add(start..span.end.max(start), Value::Sequence(items));
                }
                Some(Open::Mapping { start, entries, .. }) => {
                    self.add(start..span.end.max(start), Value::Mapping(entries));
                }
                None => {}
            },
            _ => {}
        }
        Ok(())
    }

    /// Puts a finished node where it belongs: into the innermost open collection.
    fn add(&mut self, span: Span, value: Value) {
        let node = Node { span, value };
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open::Sequence { items, .. }) => items.push(node),
            Some(Open::Mapping { entries, key, .. }) => match key.take() {
                None => *key = Some(node),
                Some(Node { span, value }) => {
                    let text = match value {
                        Value::Scalar(text) => text,
                        // Reported as an unknown key, by what stands there.
                        _ => self.text.get(span.clone()).unwrap_or("").to_owned(),
                    };
                    entries.push((Key { span, text }, node));
                }
            },
        }
    }
}
