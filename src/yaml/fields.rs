//! The values of a mapping whose keys are known, each read as what it should be.

use super::hint;
use super::limits::MAX_PROBLEMS;
use super::load::{Key, Node, Value};
use super::problem::{Problem, ProblemKind, Span};

/// A value and where it was written.
#[derive(Debug, Clone)]
pub struct Placed<T> {
    pub value: T,
    pub span: Span,
}

/// The entries of a mapping whose keys are known.
pub struct Fields<'n> {
    place: &'static str,
    /// Where the mapping begins: its first key.
    span: Span,
    entries: Vec<Entry<'n>>,
}

struct Entry<'n> {
    /// The known key.
    name: &'static str,
    /// As it is written.
    key: &'n Key<'n>,
    value: &'n Node<'n>,
}

impl<'n> Fields<'n> {
    /// The entries of `node`, or `None` when it is no mapping. `key` is what it stands under.
    pub fn of(
        node: &'n Node<'n>,
        key: &'static str,
        place: &'static str,
        known: &'static [&'static str],
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let Value::Mapping(written) = &node.value else {
            wrong_type(node, key, "a mapping of keys to values", problems);
            return None;
        };
        let mut entries: Vec<Entry<'_>> = Vec::with_capacity(known.len());
        let mut misspelled: Vec<Entry<'_>> = Vec::new();
        for (key, value) in written {
            if problems.len() >= MAX_PROBLEMS {
                break;
            }
            let name = known.iter().copied().find(|name| *name == key.text);
            let first = entries.iter().find(|entry| Some(entry.name) == name);
            let kind = match (name, first) {
                (Some(name), None) => {
                    entries.push(Entry { name, key, value });
                    continue;
                }
                (Some(_), Some(first)) => ProblemKind::DuplicateKey {
                    key: key.text.to_string(),
                    first: first.key.span.clone(),
                },
                (None, _) => {
                    let meant = hint::nearest(&key.text, known);
                    misspelled.extend(meant.map(|name| Entry { name, key, value }));
                    ProblemKind::UnknownKey {
                        key: key.text.to_string(),
                        place,
                        known,
                    }
                }
            };
            problems.push(Problem::new(key.span.clone(), kind));
        }
        // The value of a misspelled key is read as what it was meant to be: it may be wrong too.
        for entry in misspelled {
            if entries.iter().all(|known| known.name != entry.name) {
                entries.push(entry);
            }
        }
        let span = match written.first() {
            Some((key, _)) => key.span.clone(),
            None => node.span.clone(),
        };
        Some(Self {
            place,
            span,
            entries,
        })
    }

    fn entry(&self, name: &str) -> Option<&Entry<'n>> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    pub fn key(&self, name: &str) -> Option<&'n Key<'n>> {
        self.entry(name).map(|entry| entry.key)
    }

    pub fn get(&self, name: &str) -> Option<&'n Node<'n>> {
        self.entry(name).map(|entry| entry.value)
    }

    /// The value of a key that must be there.
    pub fn required(&self, key: &'static str, problems: &mut Vec<Problem>) -> Option<&'n Node<'n>> {
        let node = self.get(key);
        if node.is_none() {
            let kind = ProblemKind::MissingKey {
                key,
                place: self.place,
            };
            problems.push(Problem::new(self.span.clone(), kind));
        }
        node
    }

    pub fn scalar(
        &self,
        key: &'static str,
        expected: &'static str,
        problems: &mut Vec<Problem>,
    ) -> Option<Placed<&'n str>> {
        scalar(self.get(key)?, key, expected, problems)
    }

    pub fn parsed<T>(
        &self,
        key: &'static str,
        expected: &'static str,
        problems: &mut Vec<Problem>,
        read: impl FnOnce(&str) -> Result<T, ProblemKind>,
    ) -> Option<Placed<T>> {
        parsed(self.get(key)?, key, expected, problems, read)
    }
}

pub fn parsed<T>(
    node: &Node<'_>,
    key: &'static str,
    expected: &'static str,
    problems: &mut Vec<Problem>,
    read: impl FnOnce(&str) -> Result<T, ProblemKind>,
) -> Option<Placed<T>> {
    let Placed { value: text, span } = scalar(node, key, expected, problems)?;
    match read(text) {
        Ok(value) => Some(Placed { value, span }),
        Err(kind) => {
            problems.push(Problem::new(span, kind));
            None
        }
    }
}

fn scalar<'n>(
    node: &'n Node<'n>,
    key: &'static str,
    expected: &'static str,
    problems: &mut Vec<Problem>,
) -> Option<Placed<&'n str>> {
    match &node.value {
        Value::Scalar(text) => Some(Placed {
            value: text,
            span: node.span.clone(),
        }),
        _ => {
            wrong_type(node, key, expected, problems);
            None
        }
    }
}

pub fn sequence<'n>(
    node: &'n Node<'n>,
    key: &'static str,
    problems: &mut Vec<Problem>,
) -> Option<&'n [Node<'n>]> {
    match &node.value {
        Value::Sequence(items) => Some(items),
        _ => {
            wrong_type(node, key, "a list", problems);
            None
        }
    }
}

fn wrong_type(
    node: &Node<'_>,
    key: &'static str,
    expected: &'static str,
    problems: &mut Vec<Problem>,
) {
    let found = match &node.value {
        Value::Null => "nothing",
        Value::Scalar(_) => "a single value",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Broken => return,
    };
    let kind = ProblemKind::WrongType {
        key,
        expected,
        found,
    };
    problems.push(Problem::new(node.span.clone(), kind));
}
