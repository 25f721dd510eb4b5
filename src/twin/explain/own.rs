//! The machine's own connections to targets.

use std::time::Instant;

use super::repeat::taken;
use crate::twin::cause::Taken;
use crate::twin::talk::{Outcome, Question};
use crate::twin::{Twin, TwinError};

/// What becomes of a connection of the machine itself to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeptIn {
    /// It does not reach the target in the twin, where every target answers: its own rules keep it in. The
    /// rule, where the kernel names it.
    By(Option<Taken>),
    /// It could not be tried, for this reason.
    Failed(String),
    /// The time was over before.
    NotAsked,
}

/// Opens connections from the copy of the machine itself, and returns the numbers of those of which it is not
/// known that they reach their targets.
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
    if matches!(outcome, Outcome::Answered(_)) {
        return Ok(None);
    }
    Ok(Some(KeptIn::By(taken(twin, question)?)))
}
