//! What an operation has to say beside what it did.

use std::fmt::Display;

/// How many rules are named one by one.
const MOST_NAMED: usize = 20;

/// Something to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remark {
    /// A line of the report itself.
    Line(String),
    /// What may not be as the user expects.
    Warning(String),
    /// What is good to know.
    Note(String),
}

/// In the order in which they are to be read.
#[derive(Debug, Default)]
pub struct Remarks(pub Vec<Remark>);

impl Remarks {
    /// Begins with warnings.
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

    /// Warns of each of these rules, or of the first and of how many more there are.
    pub fn warn_of_rules(&mut self, warnings: impl ExactSizeIterator<Item: Display>) {
        let more = warnings.len().saturating_sub(MOST_NAMED);
        for warning in warnings.take(MOST_NAMED) {
            self.warn(warning);
        }
        if more > 0 {
            self.warn(format_args!("and {more} more such rules"));
        }
    }

    /// All but the warnings.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|remark| match remark {
            Remark::Line(text) | Remark::Note(text) => Some(text.as_str()),
            Remark::Warning(_) => None,
        })
    }

    /// The warnings alone.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|remark| match remark {
            Remark::Warning(text) => Some(text.as_str()),
            _ => None,
        })
    }
}
