//! The results of tests, for people, for programs and for a pull request.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::console::Console;
use crate::net::words::counted;
use crate::net::workflow::WorkflowCommand;
use crate::twin::packet_tests::{TestOutcome, TestedPacket};

/// The results of all tests.
pub struct TestReport<'t> {
    pub tested: Vec<TestedPacket<'t>>,
    /// The watched rules of the copy, in words.
    pub watched: Vec<String>,
    /// The parts of the machine that the copy lacks and that may decide about packets.
    pub doubts: Vec<String>,
    /// The paths of failed connections, by the number of the test.
    pub traces: BTreeMap<usize, String>,
}

/// The results as JSON. docs/json.md documents the fields.
#[derive(Debug, Serialize)]
pub struct JsonReport<'r> {
    spec: &'r str,
    passed: bool,
    tests: Vec<JsonTest<'r>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    doubts: &'r [String],
}

#[derive(Debug, Serialize)]
struct JsonTest<'r> {
    test: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    outcome: &'static str,
    /// The end that the connection had instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<&'r str>,
}

impl TestReport<'_> {
    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.tested.iter().all(TestedPacket::is_passed)
    }

    /// Prints a line for each test, and the path of each failed one.
    pub fn say(&self, spec: &str, console: &mut Console) {
        for (number, one) in self.tested.iter().enumerate() {
            console.say(format_args!("{:<11} {}", word(&one.outcome), one.test));
            let Some(found) = self.found(&one.outcome) else {
                continue;
            };
            let place = one.test.place.as_ref();
            let place = place.map_or(String::new(), |place| format!("{place}: "));
            console.say(format_args!("            {place}{found}"));
            for line in self
                .traces
                .get(&number)
                .into_iter()
                .flat_map(|text| text.lines())
            {
                console.say(format_args!("            {line}").to_string().trim_end());
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
        let count = |name: &str| {
            let of_name = self.tested.iter().filter(|one| word(&one.outcome) == name);
            of_name.count()
        };
        let all = counted(self.tested.len(), "test");
        let each = ["passed", "failed", "unknown", "not opened"];
        let each = each.map(|name| (count(name), name));
        let each = each.iter().filter(|(count, _)| *count > 0);
        let each: Vec<String> = each
            .map(|(count, name)| format!("{count} {name}"))
            .collect();
        format!("{all}, {}", each.join(", "))
    }

    /// Prints an annotation for each test that did not pass, at its line.
    pub fn say_for_github(&self, spec: &str, console: &mut Console) {
        for (number, one) in self.tested.iter().enumerate() {
            let Some(found) = self.found(&one.outcome) else {
                continue;
            };
            let trace = self.traces.get(&number);
            let trace = trace.map_or(String::new(), |trace| format!("\n\n{trace}"));
            let command = WorkflowCommand {
                level: "error",
                file: one.test.place.as_ref().map(|place| &*place.file),
                line: one.test.place.as_ref().map(|place| place.line),
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
        let test = |(number, one): (usize, &'r TestedPacket<'_>)| JsonTest {
            test: one.test.to_string(),
            name: one.test.name.as_ref().map(ToString::to_string),
            file: one.test.place.as_ref().map(|place| &*place.file),
            line: one.test.place.as_ref().map(|place| place.line),
            outcome: word(&one.outcome),
            found: self.found(&one.outcome),
            trace: self.traces.get(&number).map(String::as_str),
        };
        JsonReport {
            spec,
            passed: self.is_passed(),
            tests: self.tested.iter().enumerate().map(test).collect(),
            doubts: &self.doubts,
        }
    }

    /// Returns the end that the connection of a test had instead; `None` if the test passed.
    #[must_use]
    pub fn found(&self, outcome: &TestOutcome) -> Option<String> {
        outcome.found(&self.watched)
    }
}

/// Returns the word for an outcome in all reports.
#[must_use]
pub fn word(outcome: &TestOutcome) -> &'static str {
    match outcome {
        TestOutcome::Passed => "passed",
        TestOutcome::Failed(_) => "failed",
        TestOutcome::Unknown(_) => "unknown",
        TestOutcome::NotOpened(_) => "not opened",
    }
}
