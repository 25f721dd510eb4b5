//! The result of a test of a spec, in words.

use serde::Serialize;

use super::trace_text;
use crate::twin::packet_tests::{FailedPath, TestOutcome, TestedPacket};

/// The result of a test. Its JSON has these fields, which docs/json.md documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TestResult {
    pub test: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    pub outcome: OutcomeKind,
    /// The end that the connection had instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// The path of the connection, in lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

impl TestResult {
    /// Describes a test.
    #[must_use]
    pub fn of(tested: &TestedPacket<'_>, path: Option<&FailedPath>) -> Self {
        let test = tested.test;
        let place = test.place.as_ref();
        Self {
            test: test.to_string(),
            name: test.name.as_ref().map(ToString::to_string),
            file: place.map(|place| place.file.to_string()),
            line: place.map(|place| place.line),
            outcome: OutcomeKind::of(&tested.outcome),
            found: tested.outcome.found(),
            trace: path.map(path_text),
        }
    }

    /// Returns the test with its outcome, the end that the connection had instead, with the place of the test in
    /// front, and the path of the connection. A test that passed is one line.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let first = format!("{:<11} {}", self.outcome.as_str(), self.test);
        let Some(found) = &self.found else {
            return vec![first];
        };
        let place = match (&self.file, self.line) {
            (Some(file), Some(line)) => format!("{file}:{line}: "),
            _ => String::new(),
        };
        let trace = self.trace.iter().flat_map(|text| text.lines());
        let found = format!("{place}{found}");
        let rest = std::iter::once(found.as_str()).chain(trace);
        let rest = rest.map(|line| format!("            {line}").trim_end().to_owned());
        std::iter::once(first).chain(rest).collect()
    }
}

fn path_text(path: &FailedPath) -> String {
    match path {
        FailedPath::Same(traced) => trace_text::text(traced),
        FailedPath::OfAnother(traced) => format!(
            "the path of another try, which ended otherwise:\n{}",
            trace_text::text(traced)
        ),
        FailedPath::NotTraced(why) => format!("its path is not known: {why}\n"),
    }
}

/// The kind of a test's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeKind {
    Passed,
    Failed,
    Unknown,
    NotOpened,
}

impl OutcomeKind {
    pub const ALL: [Self; 4] = [Self::Passed, Self::Failed, Self::Unknown, Self::NotOpened];

    fn of(outcome: &TestOutcome) -> Self {
        match outcome {
            TestOutcome::Passed => Self::Passed,
            TestOutcome::Failed(_) => Self::Failed,
            TestOutcome::Unknown(_) => Self::Unknown,
            TestOutcome::NotOpened(_) => Self::NotOpened,
        }
    }

    /// Returns the words for it in reports for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::NotOpened => "not opened",
        }
    }
}
