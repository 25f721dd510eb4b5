//! The results of tests as `JUnit` XML, which most CI systems show.

use std::io;

use quick_xml::Writer;
use quick_xml::events::{BytesText, Event};

use super::report::TestReport;
use crate::twin::packet_tests::TestOutcome;

/// Prints a suite with a case for each test. A test whose outcome is unknown, or that could not be opened, is an error.
///
/// # Errors
/// If the text cannot be written.
pub fn text(report: &TestReport<'_>, spec: &str) -> io::Result<String> {
    let number = |is: fn(&TestOutcome) -> bool| {
        let some = report.tested.iter().filter(|one| is(&one.outcome));
        some.count().to_string()
    };
    let failed = number(|outcome| matches!(outcome, TestOutcome::Failed(_)));
    let unknown =
        number(|outcome| matches!(outcome, TestOutcome::Unknown(_) | TestOutcome::NotOpened(_)));
    let all = report.tested.len().to_string();
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.write_event(Event::Decl(quick_xml::events::BytesDecl::new(
        "1.0",
        Some("UTF-8"),
        None,
    )))?;
    let suite = writer.create_element("testsuite").with_attributes([
        ("name", spec),
        ("tests", all.as_str()),
        ("failures", failed.as_str()),
        ("errors", unknown.as_str()),
    ]);
    suite.write_inner_content(|writer| {
        for (number, one) in report.tested.iter().enumerate() {
            case(
                report,
                number,
                one.test.to_string().as_str(),
                &one.outcome,
                writer,
            )?;
        }
        Ok(())
    })?;
    let text = String::from_utf8_lossy(&writer.into_inner()).into_owned();
    Ok(text + "\n")
}

fn case(
    report: &TestReport<'_>,
    number: usize,
    name: &str,
    outcome: &TestOutcome,
    writer: &mut Writer<Vec<u8>>,
) -> io::Result<()> {
    let place = report.tested[number].test.place.as_ref();
    let line = place.map(|place| place.line.to_string());
    let mut attributes = vec![("classname", "nvactl"), ("name", name)];
    attributes.extend(place.map(|place| ("file", &*place.file)));
    attributes.extend(line.as_deref().map(|line| ("line", line)));
    let case = writer
        .create_element("testcase")
        .with_attributes(attributes);
    let Some(found) = report.found(outcome) else {
        case.write_empty()?;
        return Ok(());
    };
    let kind = match outcome {
        TestOutcome::Failed(_) => "failure",
        _ => "error",
    };
    let trace = report.traces.get(&number).map_or("", String::as_str);
    case.write_inner_content(|writer| {
        let element = writer.create_element(kind);
        let element = element.with_attribute(("message", found.as_str()));
        element.write_text_content(BytesText::new(trace))?;
        Ok(())
    })?;
    Ok(())
}
