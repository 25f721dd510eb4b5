//! Describes the tests of a spec that do not pass with a change.

use crate::twin::packet_tests::TestedPacket;

/// The most tests that are shown one by one.
const MOST_SHOWN: usize = 5;

/// Returns for each test that did not pass its words, and the end that its connection had instead. `watched` are the
/// copy's watched rules, in words.
pub fn failed_tests(failed: &[TestedPacket<'_>], watched: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    for one in failed.iter().take(MOST_SHOWN) {
        let place = one.test.place.as_ref();
        let place = place.map_or(String::new(), |place| format!("{place}: "));
        lines.push(format!("{place}{}", one.test));
        lines.extend(one.outcome.found(watched).map(|found| format!("  {found}")));
    }
    match failed.len().saturating_sub(MOST_SHOWN) {
        0 => {}
        more => lines.push(format!("and {more} more")),
    }
    lines
}
