//! The spec: what the user wants forwarded, read from YAML and checked whole.
//!
//! [`read`] turns text into a [`ForwardSet`], or into every [`Problem`] the text has. A `ForwardSet`
//! is sound by construction: whoever holds one need not check it again.

pub mod annotation;
mod check;
mod code;
mod decode;
mod fields;
mod forward;
mod hint;
mod options;
pub mod page;
mod problem;
mod sources;
mod warn;
mod yaml;

use std::collections::BTreeSet;

pub use code::{Code, CodeError, Severity};
pub use forward::{
    Balance, Destination, Firewall, Forward, ForwardPolicy, ForwardSet, Limits, Listen, Log,
    Logged, Name, Per, Rate, Snat, Snats, Target, TargetKind, TargetPorts,
};
pub use hint::nearest;
pub use problem::{Problem, ProblemKind, Span};
pub use sources::{Nets, Sources};

/// The longest spec that is read, in bytes. 100,000 forwards are about 10 MB.
pub const MAX_BYTES: usize = 32 << 20;

/// No more values than this are read from a text: 100,000 forwards have 1.3 million.
pub const MAX_VALUES: usize = 2_000_000;

/// After so many problems reading ends: a text with more of them is not a spec at all, and hearing
/// of each would cost more memory than the text.
pub const MAX_PROBLEMS: usize = 10_000;

/// What reading a text came to.
#[derive(Debug)]
pub struct Reading {
    /// There if no problem is an error.
    pub set: Option<ForwardSet>,
    /// Errors, warnings and notes in the order of the file, without those that the spec silences.
    pub problems: Vec<Problem>,
}

/// Reads a text and says everything that there is to say of it.
#[must_use]
pub fn examine(text: &[u8]) -> Reading {
    let document = match yaml::load(text) {
        Ok(document) => document,
        Err(problem) => {
            return Reading {
                set: None,
                problems: vec![problem],
            };
        }
    };
    let mut problems = document.problems;
    let written = decode::decode(&document.root, &mut problems);
    warn::warn(&written, &mut problems);
    let set = check::check(written, &mut problems);
    problems.sort_by_key(|problem| problem.span.start);
    // What is wrong with a default is wrong with every forward that has it, and said once.
    let mut said = BTreeSet::new();
    problems.retain(|problem| {
        let Problem { span, .. } = problem;
        said.insert((span.start, span.end, problem.message()))
    });
    let broken = problems
        .iter()
        .any(|problem| problem.severity() == Severity::Error);
    Reading {
        set: set.filter(|_| !broken),
        problems,
    }
}

/// Reads a spec.
///
/// # Errors
/// Every error of the text, in the order of the file.
pub fn read(text: &[u8]) -> Result<ForwardSet, Vec<Problem>> {
    let Reading { set, mut problems } = examine(text);
    set.ok_or_else(|| {
        problems.retain(|problem| problem.severity() == Severity::Error);
        problems
    })
}
