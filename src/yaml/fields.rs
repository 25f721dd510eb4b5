//! Readers for the values of a mapping whose keys are known. Each reports a value of the wrong form.

use std::collections::BTreeSet;

use super::bounds::MAX_PROBLEMS;
use super::load::{MapKey, Node, Value};
use super::problem::{Problem, ProblemKind, Span, nearest};

/// A value and where it was written.
#[derive(Debug, Clone)]
pub struct Placed<T> {
    pub value: T,
    pub span: Span,
}

/// The entries of a mapping whose keys are known.
pub struct Fields<'n> {
    place: &'static str,
    /// The first key of the mapping.
    span: Span,
    entries: Vec<Entry<'n>>,
}

struct Entry<'n> {
    /// The known key.
    name: &'static str,
    /// As it is written.
    key: &'n MapKey<'n>,
    value: &'n Node<'n>,
}

impl<'n> Fields<'n> {
    /// Returns the entries of `node`, or `None` if it is no mapping. `key` is the key of `node` itself.
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
                    let meant = nearest(&key.text, known);
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
        // The value of a misspelled key is read as the value of the likely key, so that its problems are
        // reported in the same run.
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

    pub fn key(&self, name: &str) -> Option<&'n MapKey<'n>> {
        self.entry(name).map(|entry| entry.key)
    }

    pub fn get(&self, name: &str) -> Option<&'n Node<'n>> {
        self.entry(name).map(|entry| entry.value)
    }

    /// Returns the value of a key, and reports the key if it is missing.
    pub fn required(&self, key: &'static str, problems: &mut Vec<Problem>) -> Option<&'n Node<'n>> {
        let node = self.get(key);
        // Once reading has stopped, the key may be there unread.
        if node.is_none() && problems.len() < MAX_PROBLEMS {
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

/// Reads a scalar by a function, whose problem is placed at the scalar.
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

/// Reads an entry of a list as [`parsed`] does.
pub fn parsed_item<T>(
    node: &Node<'_>,
    key: &'static str,
    expected: &'static str,
    problems: &mut Vec<Problem>,
    read: impl FnOnce(&str) -> Result<T, ProblemKind>,
) -> Option<Placed<T>> {
    match &node.value {
        Value::Scalar(_) => parsed(node, key, expected, problems, read),
        value => {
            let kind = found(value).map(|found| ProblemKind::WrongItem {
                key,
                expected,
                found,
            });
            problems.extend(kind.map(|kind| Problem::new(node.span.clone(), kind)));
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

/// Returns the items of a list.
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

/// Reads `true` or `false`.
pub fn yes_or_no(
    node: &Node<'_>,
    key: &'static str,
    problems: &mut Vec<Problem>,
) -> Option<Placed<bool>> {
    parsed(node, key, "`true` or `false`", problems, |text| {
        one_of_words(text, &["true", "false"]).map(|word| word == "true")
    })
}

/// Reads a decimal number from 1 to `most`.
pub fn number(text: &str, most: u32) -> Result<u32, ProblemKind> {
    let decimal = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|number| *number <= most);
    number
        .filter(|_| decimal)
        .ok_or_else(|| ProblemKind::InvalidNumber {
            text: text.to_owned(),
            most,
        })
}

/// Returns the items of a list, or a value that is no list as the only item.
pub fn one_or_list<'n>(node: &'n Node<'n>) -> &'n [Node<'n>] {
    match &node.value {
        Value::Sequence(items) => items,
        _ => std::slice::from_ref(node),
    }
}

/// Reads one value or a list of them, each only once. Every item is read, so that all problems are reported.
/// Returns `None` if one is invalid or the list is empty.
pub fn distinct<T: Ord + Clone + ToString>(
    node: &Node<'_>,
    key: &'static str,
    expected: &'static str,
    problems: &mut Vec<Problem>,
    read: impl Fn(&str) -> Result<T, ProblemKind>,
) -> Option<Vec<T>> {
    let items = one_or_list(node);
    if items.is_empty() {
        problems.push(Problem::new(
            node.span.clone(),
            ProblemKind::EmptyList { key },
        ));
    }
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    let mut repeated = 0;
    for item in items {
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
        let Some(one) = parsed(item, key, expected, problems, &read) else {
            continue;
        };
        if seen.insert(one.value.clone()) {
            found.push(one.value);
        } else {
            repeated += 1;
            let text = one.value.to_string();
            problems.push(Problem::new(one.span, ProblemKind::Twice { text }));
        }
    }
    let is_whole = found.len() + repeated == items.len();
    Some(found).filter(|found| is_whole && !found.is_empty())
}

/// Returns the known word that a text is.
pub fn one_of_words(
    text: &str,
    known: &'static [&'static str],
) -> Result<&'static str, ProblemKind> {
    let mut words = known.iter().copied();
    words
        .find(|word| *word == text)
        .ok_or_else(|| unknown(text, known))
}

pub fn unknown(text: &str, known: &'static [&'static str]) -> ProblemKind {
    ProblemKind::UnknownWord {
        text: text.to_owned(),
        known,
    }
}

/// Reports a value of the wrong form.
pub fn wrong_type(
    node: &Node<'_>,
    key: &'static str,
    expected: &'static str,
    problems: &mut Vec<Problem>,
) {
    let kind = found(&node.value).map(|found| ProblemKind::WrongType {
        key,
        expected,
        found,
    });
    problems.extend(kind.map(|kind| Problem::new(node.span.clone(), kind)));
}

/// Returns the words for the form of a value; `None` for a value that has been reported.
fn found(value: &Value<'_>) -> Option<&'static str> {
    match value {
        Value::Null => Some("empty"),
        Value::Scalar(_) => Some("a single value"),
        Value::Sequence(_) => Some("a list"),
        Value::Mapping(_) => Some("a mapping"),
        Value::Broken => None,
    }
}
