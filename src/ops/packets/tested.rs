//! Describes the tests of a spec that do not pass with a change.

use crate::twin::packet_tests::{TestOutcome, TestedPacket};

/// The most tests that are shown one by one.
const MOST_SHOWN: usize = 5;

/// Returns for each test that did not pass its words and what happened instead.
pub fn failed_tests(failed: &[TestedPacket<'_>]) -> Vec<String> {
    let mut lines = Vec::new();
    for one in failed.iter().take(MOST_SHOWN) {
        let place = one.test.place.as_ref();
        let place = place.map_or(String::new(), |place| format!("{place}: "));
        lines.push(format!("{place}{}", one.test));
        lines.push(format!("  {}", found(&one.outcome)));
    }
    match failed.len().saturating_sub(MOST_SHOWN) {
        0 => {}
        more => lines.push(format!("and {more} more")),
    }
    lines
}

fn found(outcome: &TestOutcome) -> String {
    match outcome {
        TestOutcome::Passed => String::new(),
        TestOutcome::Failed(mismatch) => mismatch.to_string(),
        TestOutcome::Unknown(_) => {
            "its packets met a rule of another program whose effect a copy cannot show".to_owned()
        }
        TestOutcome::NotOpened(why) => format!("it was not opened: {why}"),
    }
}
