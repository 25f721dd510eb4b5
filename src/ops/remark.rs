//! The remarks of an operation: lines, warnings and notes beside its outcome.

use std::fmt::Display;

/// The most rules that are named one by one.
const MOST_NAMED: usize = 20;

/// A remark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remark {
    /// A line of the report itself.
    Line(String),
    /// The user may expect something else.
    Warning(String),
    /// Advice.
    Note(String),
}

/// Remarks in the order of their output.
#[derive(Debug, Default)]
pub struct Remarks(pub Vec<Remark>);

impl Remarks {
    /// Starts with warnings.
    #[must_use]
    pub fn of(warnings: &[String]) -> Self {
        Self(warnings.iter().cloned().map(Remark::Warning).collect())
    }

    /// Adds a line of the report.
    pub fn line(&mut self, text: impl Display) {
        self.0.push(Remark::Line(text.to_string()));
    }

    /// Adds a warning.
    pub fn warn(&mut self, text: impl Display) {
        self.0.push(Remark::Warning(text.to_string()));
    }

    /// Adds a note.
    pub fn note(&mut self, text: impl Display) {
        self.0.push(Remark::Note(text.to_string()));
    }

    /// Adds a warning for each of these rules, and the number of further ones if there are many.
    pub fn warn_of_rules(&mut self, warnings: impl ExactSizeIterator<Item: Display>) {
        let more = warnings.len().saturating_sub(MOST_NAMED);
        for warning in warnings.take(MOST_NAMED) {
            self.warn(warning);
        }
        if more > 0 {
            self.warn(format_args!("and {more} more such rules"));
        }
    }

    /// Returns the lines and the notes.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|remark| match remark {
            Remark::Line(text) | Remark::Note(text) => Some(text.as_str()),
            Remark::Warning(_) => None,
        })
    }

    /// Returns the warnings.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|remark| match remark {
            Remark::Warning(text) => Some(text.as_str()),
            _ => None,
        })
    }
}
