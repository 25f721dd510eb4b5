//! The workflow commands of GitHub, which show a message at a line of a pull request
//! (<https://docs.github.com/actions/reference/workflow-commands-for-github-actions>).

use std::fmt;

/// A message at a place.
#[derive(Debug, Clone, Copy)]
pub struct WorkflowCommand<'a> {
    /// `error`, `warning` or `notice`.
    pub level: &'a str,
    pub file: Option<&'a str>,
    /// Counted from 1.
    pub line: Option<usize>,
    /// The first column of the place, counted from 1, and the last one if it is on the same line.
    pub columns: Option<(usize, Option<usize>)>,
    pub title: &'a str,
    pub message: &'a str,
}

impl fmt::Display for WorkflowCommand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "::{} ", self.level)?;
        if let Some(file) = self.file {
            write!(f, "file={},", escaped_property(file))?;
        }
        if let Some(line) = self.line {
            write!(f, "line={line},")?;
        }
        if let Some((first, last)) = self.columns {
            write!(f, "col={first},")?;
            if let Some(last) = last {
                write!(f, "endColumn={last},")?;
            }
        }
        write!(
            f,
            "title={}::{}",
            escaped_property(self.title),
            escaped(self.message)
        )
    }
}

/// Escapes the characters that could end the command, or begin another one.
fn escaped(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn escaped_property(text: &str) -> String {
    escaped(text).replace(':', "%3A").replace(',', "%2C")
}
