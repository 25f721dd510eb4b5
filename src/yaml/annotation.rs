//! Problems for programs: JSON, and the workflow commands of GitHub.

use serde::Serialize;

use super::places::{Places, Position};
use super::problem::{Problem, Words};
use crate::net::workflow::WorkflowCommand;

/// A spec's problems as `check --format json` prints them. docs/json.md documents the fields.
#[derive(Debug, Serialize)]
pub struct ProblemReport<'a> {
    /// The spec: a file or a folder.
    pub file: &'a str,
    /// Whether the spec has no error.
    pub sound: bool,
    pub problems: Vec<Annotation<'a>>,
}

#[derive(Debug, Serialize)]
pub struct Annotation<'a> {
    pub code: &'static str,
    pub severity: &'static str,
    pub message: String,
    pub hint: String,
    /// The file of a folder, or a file of networks; `None` for the spec itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<&'a str>,
    /// Lines and columns count from 1, columns in characters. The end is after the last character.
    pub line: usize,
    pub column: usize,
    pub end_line: usize,
    pub end_column: usize,
    /// The second place that the problem is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<Other<'a>>,
}

#[derive(Debug, Serialize)]
pub struct Other<'a> {
    /// As in [`Annotation`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<&'a str>,
    pub line: usize,
    pub column: usize,
    pub label: &'static str,
}

impl<'a> Annotation<'a> {
    /// `spec` is the name of the whole spec.
    #[must_use]
    pub fn new(spec: &str, places: &Places<'a>, problem: &Problem) -> Self {
        let code = problem.kind.code();
        let Words { text, hint, other } = problem.words();
        let of_folder = |file: &'a str| (file != spec).then_some(file);
        let file = places.file(problem.span.start);
        let span = file.within(&problem.span);
        let (start, end) = (file.position(span.start), file.position(span.end));
        Self {
            code: code.as_str(),
            severity: code.severity().as_str(),
            message: text,
            hint,
            file: of_folder(file.name),
            line: start.line,
            column: start.column,
            end_line: end.line,
            end_column: end.column,
            other: other.map(|(span, label)| {
                let (file, Position { line, column }) = places.find(span.start);
                Other {
                    file: of_folder(file),
                    line,
                    column,
                    label,
                }
            }),
        }
    }

    /// Returns the workflow command that shows the problem at its line in a pull request
    /// (<https://docs.github.com/actions/reference/workflow-commands-for-github-actions>).
    #[must_use]
    pub fn as_workflow_command(&self, spec: &str) -> String {
        let level = match self.severity {
            "note" => "notice",
            severity => severity,
        };
        // GitHub reads the end column only if the end is on the same line.
        let is_one_line = self.end_line == self.line && self.end_column > self.column;
        WorkflowCommand {
            level,
            file: Some(self.file.unwrap_or(spec)),
            line: Some(self.line),
            columns: Some((self.column, is_one_line.then(|| self.end_column - 1))),
            title: self.code,
            message: &format!("{}\nhint: {}", self.message, self.hint),
        }
        .to_string()
    }
}
