//! The key `description`, of the spec, a forward and an outbound entry.

use super::fields::parsed;
use super::load::Node;
use super::problem::{Problem, ProblemKind};
use crate::forwards::Description;

/// Reads the description of the spec or of one of its parts.
pub fn decode_description(node: &Node<'_>, problems: &mut Vec<Problem>) -> Option<Description> {
    let description = parsed(node, "description", "one line of text", problems, |text| {
        // A block scalar ends with a line end.
        text.trim_end()
            .parse()
            .map_err(|error| ProblemKind::InvalidDescription { error })
    });
    description.map(|description| description.value)
}
