//! The results of tests, for people, for programs and for a pull request.

use serde::Serialize;

use super::super::console::Console;
use crate::health::test_result::{OutcomeKind, TestResult};
use crate::net::words::counted;
use crate::net::workflow::WorkflowCommand;

/// The results of all tests.
pub struct TestReport {
    /// The results in the order of the tests.
    pub results: Vec<TestResult>,
    /// The parts of the machine that the copy lacks and that may decide about packets.
    pub doubts: Vec<String>,
}

/// The results as JSON. docs/json.md documents the fields.
#[derive(Debug, Serialize)]
pub struct JsonReport<'r> {
    spec: &'r str,
    passed: bool,
    tests: &'r [TestResult],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    doubts: &'r [String],
}

impl TestReport {
    #[must_use]
    pub fn is_passed(&self) -> bool {
        let mut results = self.results.iter();
        results.all(|one| one.outcome == OutcomeKind::Passed)
    }

    /// Returns the number of tests with this outcome.
    #[must_use]
    pub fn count(&self, outcome: OutcomeKind) -> usize {
        let results = self.results.iter();
        results.filter(|one| one.outcome == outcome).count()
    }

    /// Prints a line for each test, and the path of each failed one.
    pub fn say(&self, spec: &str, console: &mut Console) {
        for one in &self.results {
            for line in one.lines() {
                console.say(line);
            }
        }
        for doubt in &self.doubts {
            console.note(format_args!(
                "the copy of this machine is not complete: {doubt}"
            ));
        }
        console.say(format_args!("{spec}: {}", self.summary()));
    }

    fn summary(&self) -> String {
        let all = counted(self.results.len(), "test");
        let each = OutcomeKind::ALL.map(|outcome| (self.count(outcome), outcome.as_str()));
        let each = each.iter().filter(|(count, _)| *count > 0);
        let each: Vec<String> = each
            .map(|(count, name)| format!("{count} {name}"))
            .collect();
        format!("{all}, {}", each.join(", "))
    }

    /// Prints an annotation for each test that did not pass, at its line.
    pub fn say_for_github(&self, spec: &str, console: &mut Console) {
        for one in &self.results {
            let Some(found) = &one.found else {
                continue;
            };
            let trace = one.trace.as_ref();
            let trace = trace.map_or(String::new(), |trace| format!("\n\n{trace}"));
            let command = WorkflowCommand {
                level: "error",
                file: one.file.as_deref(),
                line: one.line,
                columns: None,
                title: "test failed",
                message: &format!("{}\n{found}{trace}", one.test),
            };
            console.say(command);
        }
        console.say(format_args!("{spec}: {}", self.summary()));
    }

    #[must_use]
    pub fn json<'r>(&'r self, spec: &'r str) -> JsonReport<'r> {
        JsonReport {
            spec,
            passed: self.is_passed(),
            tests: &self.results,
            doubts: &self.doubts,
        }
    }
}
