//! The keys of the options.

use nvactl::yaml::{self, ProblemKind};

/// Returns the keys of the options, as the report of an unknown key names them.
pub fn options() -> &'static [&'static str] {
    let problems = yaml::examine(b"defaults: {no-such-key: 1}").problems;
    let known = problems.iter().find_map(|problem| match problem.kind {
        ProblemKind::UnknownKey { known, .. } => Some(known),
        _ => None,
    });
    known.expect("the key is unknown")
}
