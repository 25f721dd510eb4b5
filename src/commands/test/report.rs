//! The results of tests, for people, for programs and for a pull request.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Serialize;

use crate::commands::console::Console;
use crate::commands::copy_source::made_up_note;
use crate::health::test_result::{OutcomeKind, TestResult};
use crate::net::words::counted;
use crate::net::workflow::WorkflowCommand;

/// The results of all tests.
pub struct TestReport {
    /// The results in the order of the tests.
    pub results: Vec<TestResult>,
    /// The interfaces with their addresses and networks, if the machine is made up.
    pub made_up: Vec<String>,
    /// The parts of the machine that the copy lacks and that may decide about packets.
    pub doubts: Vec<String>,
    /// Private addresses that tests go to, and that the spec of the made-up machine does not name.
    pub strangers: BTreeSet<IpAddr>,
}

/// The results as JSON. docs/json.md documents the fields.
#[derive(Debug, Serialize)]
pub struct JsonReport<'r> {
    spec: &'r str,
    passed: bool,
    tests: &'r [TestResult],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    made_up: &'r [String],
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
        if !self.made_up.is_empty() && !self.is_passed() {
            console.note(made_up_note(spec, &self.made_up));
        }
        for doubt in &self.doubts {
            console.note(doubt_note(doubt));
        }
        let failed = self
            .results
            .iter()
            .filter(|one| one.outcome == OutcomeKind::Failed);
        let without_path = failed.filter(|one| one.trace.is_none()).count();
        if without_path > 0 {
            let tests = counted(without_path, "more failed test");
            console.note(format_args!("the paths of {tests} are left out"));
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
                title: &format!("test {}", one.outcome.as_str()),
                message: &format!("{}\n{found}{trace}", one.test),
            };
            console.say(command);
        }
        for doubt in &self.doubts {
            console.say(WorkflowCommand {
                level: "notice",
                file: None,
                line: None,
                columns: None,
                title: "nvactl",
                message: &doubt_note(doubt),
            });
        }
        console.say(format_args!("{spec}: {}", self.summary()));
    }

    #[must_use]
    pub fn json<'r>(&'r self, spec: &'r str) -> JsonReport<'r> {
        JsonReport {
            spec,
            passed: self.is_passed(),
            tests: &self.results,
            made_up: &self.made_up,
            doubts: &self.doubts,
        }
    }
}

/// Describes a thing that the copy lacks.
pub fn doubt_note(doubt: &str) -> String {
    format!("the copy is not complete: {doubt}")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;

    use super::super::junit;
    use super::*;

    /// Text that could end an element, an attribute, a JSON string or a workflow command, or move a terminal's cursor.
    const HOSTILE: &str = "a\u{1b}[2J\u{202e}<b>&\"']]>%0A::error::x";

    /// Returns a report with a test of each outcome.
    fn report() -> TestReport {
        let result = |name: &str, outcome: OutcomeKind, found: Option<&str>| TestResult {
            test: format!("{name}: tcp from 198.51.100.7 to port 80 reaches nothing"),
            name: Some(name.to_owned()),
            file: Some("forward.yaml".to_owned()),
            line: Some(7),
            outcome,
            found: found.map(str::to_owned),
            trace: None,
        };
        let lines = format!("{HOSTILE}\n::warning::y");
        TestReport {
            results: vec![
                TestResult {
                    file: None,
                    line: None,
                    ..result("open", OutcomeKind::Passed, None)
                },
                TestResult {
                    trace: Some(lines.clone()),
                    ..result(HOSTILE, OutcomeKind::Failed, Some(&lines))
                },
                result("met", OutcomeKind::Unknown, Some("its packets met a rule")),
                result("late", OutcomeKind::NotOpened, Some("it was not opened")),
            ],
            made_up: vec![HOSTILE.to_owned()],
            doubts: vec![lines],
            strangers: BTreeSet::new(),
        }
    }

    fn printed(print: impl FnOnce(&TestReport, &mut Console)) -> String {
        let folder = tempfile::tempdir().expect("there is a place for it");
        let at = folder.path().join("printed");
        let open = || {
            let file = fs::File::options().create(true).append(true).open(&at);
            Box::new(anstream::StripStream::new(file.expect("it can be made")))
        };
        let mut console = Console::new(open(), open(), false);
        print(&report(), &mut console);
        drop(console);
        fs::read_to_string(&at).expect("it is text")
    }

    fn is_plain(text: &str) -> bool {
        !text.contains(|c: char| c != '\n' && crate::net::printable::is_hidden(c))
    }

    #[test]
    fn people_read_each_outcome_and_the_machine() {
        let text = printed(|report, console| report.say("forward.yaml", console));
        assert!(is_plain(&text), "{text}");
        let shown = "a\\u{1b}[2J\\u{202e}<b>&\"']]>%0A::error::x";
        let wanted = format!(
            "passed      open: tcp from 198.51.100.7 to port 80 reaches nothing
failed      {shown}: tcp from 198.51.100.7 to port 80 reaches nothing
            forward.yaml:7: {shown}\\n::warning::y
            {shown}
            ::warning::y
"
        );
        assert!(text.starts_with(&wanted), "{text}");
        let wanted = format!(
            "unknown     met: tcp from 198.51.100.7 to port 80 reaches nothing
            forward.yaml:7: its packets met a rule
not opened  late: tcp from 198.51.100.7 to port 80 reaches nothing
            forward.yaml:7: it was not opened
note: the machine is made up from `forward.yaml`:
  {shown}
note: the copy is not complete: {shown}
  ::warning::y
forward.yaml: 4 tests, 1 passed, 1 failed, 1 unknown, 1 not opened
"
        );
        assert!(text.ends_with(&wanted), "{text}");
    }

    #[test]
    fn a_workflow_reads_one_command_for_each_test_that_did_not_pass() {
        let text = printed(|report, console| report.say_for_github("forward.yaml", console));
        assert!(is_plain(&text), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        let begins: Vec<&str> = lines
            .iter()
            .map(|line| line.split("::").take(2).last().unwrap_or_default())
            .collect();
        let at = |outcome| format!("error file=forward.yaml,line=7,title=test {outcome}");
        let [failed, unknown, late] = ["failed", "unknown", "not opened"].map(at);
        let last = "forward.yaml: 4 tests, 1 passed, 1 failed, 1 unknown, 1 not opened";
        let wanted = [&failed, &unknown, &late, "notice title=nvactl", last];
        assert_eq!(begins, wanted, "{text}");
        assert!(lines[0].contains("]]>%250A::error::x"), "{text}");
    }

    #[test]
    fn a_program_reads_each_outcome() {
        let report = report();
        let json = serde_json::to_value(report.json("forward.yaml")).expect("it is JSON");
        let outcomes = json["tests"].as_array().expect("a list").iter();
        let outcomes: Vec<&str> = outcomes.filter_map(|one| one["outcome"].as_str()).collect();
        assert_eq!(outcomes, ["passed", "failed", "unknown", "not_opened"]);
        assert_eq!(json["passed"], false);
        assert_eq!(json["tests"][1]["name"], HOSTILE);
        assert_eq!(json["made_up"][0], HOSTILE);
        assert_eq!(json["tests"][0].get("found"), None);
    }

    /// XML allows no control character.
    #[test]
    fn a_ci_system_reads_each_outcome() -> io::Result<()> {
        let text = junit::text(&report(), "forward.yaml")?;
        assert!(is_plain(&text), "{text}");
        let shown = "a\\u{1b}[2J\\u{202e}&lt;b&gt;&amp;&quot;&apos;]]&gt;%0A::error::x";
        for part in [
            "<testsuite name=\"forward.yaml\" tests=\"4\" failures=\"1\" errors=\"2\">",
            "<testcase classname=\"nvactl\" name=\"open: tcp from 198.51.100.7 to port 80 reaches nothing\"/>",
            &format!(
                "file=\"forward.yaml\" line=\"7\">\n    <failure message=\"{shown}\\n::warning::y\">"
            ),
            "<error message=\"its packets met a rule\">",
            "<error message=\"it was not opened\">",
            "<system-out>the copy is not complete: a\\u{1b}",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        Ok(())
    }
}
