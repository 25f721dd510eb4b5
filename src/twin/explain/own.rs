//! The machine's own connections to targets.

use std::time::Instant;

use crate::twin::cause::Taken;
use crate::twin::connection_end::ConnectionEnd;
use crate::twin::repeat::taken;
use crate::twin::talk::Question;
use crate::twin::{Twin, TwinError};

/// The result of a connection from the machine itself to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeptIn {
    /// The connection does not reach the target in the twin, where every target answers: a rule of the machine keeps
    /// it from leaving. Holds the rule, if the kernel names it.
    By(Option<Taken>),
    /// The connection could not be opened, for this reason.
    Failed(String),
    /// The time limit was reached before.
    NotAsked,
}

/// Opens connections from the twin's machine namespace. Returns the numbers of those that do not reach their targets,
/// and of those that could not be tried.
pub fn kept_in(twin: &Twin, questions: &[Question], deadline: Instant) -> Vec<(usize, KeptIn)> {
    let mut kept = Vec::new();
    for (number, question) in questions.iter().enumerate() {
        let found = if Instant::now() >= deadline {
            Some(KeptIn::NotAsked)
        } else {
            match keeps(twin, question) {
                Ok(found) => found,
                Err(error) => Some(KeptIn::Failed(error.words())),
            }
        };
        kept.extend(found.map(|found| (number, found)));
    }
    kept
}

fn keeps(twin: &Twin, question: &Question) -> Result<Option<KeptIn>, TwinError> {
    let outcome = twin.talker()?.ask(question).map_err(TwinError::Socket)?;
    if matches!(outcome, ConnectionEnd::Delivered(_)) {
        return Ok(None);
    }
    Ok(Some(KeptIn::By(taken(twin, question)?)))
}
