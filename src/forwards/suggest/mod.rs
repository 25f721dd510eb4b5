//! Tests that pin what a spec does now.
//!
//! `of_forward`, `of_entry` and `crossing` choose connections, `hosts` their ends. `judge` says what the whole spec does
//! with a connection, so that a test is right even if another forward or entry takes it. A connection whose end the spec alone
//! does not tell is left out: it depends on the machine's addresses, its routes or its FORWARD policy.

mod attempt;
mod claims;
mod crossing;
mod hosts;
mod judge;
mod numbered;
mod of_entry;
mod of_forward;
mod room;
mod routes;
mod suggestion;

use routes::Routes;
use suggestion::Suggestion;

use super::packet_test::PacketTest;
use super::set::ForwardSet;

/// Returns tests that pin what the spec does now: about a dozen for each listener and each outbound entry, and some for
/// each network of their lists. Each has a name, and is true of the spec.
#[must_use]
pub fn suggested(set: &ForwardSet) -> Vec<PacketTest> {
    let routes = Routes::of(set);
    let mut suggestion = Suggestion::new(set, &routes);
    for forward in &set.forwards {
        of_forward::suggest(forward, &mut suggestion);
    }
    for entry in &set.outbound {
        of_entry::suggest(entry, &mut suggestion);
    }
    suggestion.into_tests()
}
