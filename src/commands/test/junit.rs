//! The results of tests as `JUnit` XML, which most CI systems show.

use std::io;

use quick_xml::Writer;
use quick_xml::events::{BytesText, Event};

use super::report::{TestReport, doubt_note};
use crate::health::test_result::{OutcomeKind, TestResult};
use crate::net::printable;

/// Prints a suite with a case for each test. A test whose outcome is unknown, or that could not be opened, is an error.
///
/// # Errors
/// If the text cannot be written.
pub fn text(report: &TestReport, spec: &str) -> io::Result<String> {
    let failed = report.count(OutcomeKind::Failed).to_string();
    let unknown = report.count(OutcomeKind::Unknown) + report.count(OutcomeKind::NotOpened);
    let unknown = unknown.to_string();
    let all = report.results.len().to_string();
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.write_event(Event::Decl(quick_xml::events::BytesDecl::new(
        "1.0",
        Some("UTF-8"),
        None,
    )))?;
    let spec = printable::line(spec).to_string();
    let suite = writer.create_element("testsuite").with_attributes([
        ("name", spec.as_str()),
        ("tests", all.as_str()),
        ("failures", failed.as_str()),
        ("errors", unknown.as_str()),
    ]);
    suite.write_inner_content(|writer| {
        let mut results = report.results.iter();
        results.try_for_each(|one| case(one, writer))?;
        if !report.doubts.is_empty() {
            let notes = report.doubts.iter().map(|doubt| doubt_note(doubt));
            let notes: Vec<String> = notes.collect();
            let element = writer.create_element("system-out");
            let notes = printable::lines(notes.join("\n")).to_string();
            element.write_text_content(BytesText::new(&notes))?;
        }
        Ok(())
    })?;
    let text = String::from_utf8_lossy(&writer.into_inner()).into_owned();
    Ok(text + "\n")
}

/// Writes the case of a test. XML has no control characters, not even escaped ones, so they are made visible.
fn case(one: &TestResult, writer: &mut Writer<Vec<u8>>) -> io::Result<()> {
    let line = one.line.map(|line| line.to_string());
    let name = printable::line(&one.test).to_string();
    let file = one.file.as_ref();
    let file = file.map(|file| printable::line(file).to_string());
    let mut attributes = vec![("classname", "nvactl"), ("name", name.as_str())];
    attributes.extend(file.as_deref().map(|file| ("file", file)));
    attributes.extend(line.as_deref().map(|line| ("line", line)));
    let case = writer
        .create_element("testcase")
        .with_attributes(attributes);
    let Some(found) = &one.found else {
        case.write_empty()?;
        return Ok(());
    };
    let kind = if one.outcome == OutcomeKind::Failed {
        "failure"
    } else {
        "error"
    };
    let found = printable::line(found).to_string();
    let trace = one.trace.as_deref().unwrap_or_default();
    let trace = printable::lines(trace).to_string();
    case.write_inner_content(|writer| {
        let element = writer.create_element(kind);
        let element = element.with_attribute(("message", found.as_str()));
        element.write_text_content(BytesText::new(&trace))?;
        Ok(())
    })?;
    Ok(())
}
