//! The proof of a draft.

use super::rules::ImportedRules;
use crate::commands::error::Result;
use crate::forwards::PacketTest;
use crate::import::Draft;
use crate::proof::{Proof, ProofPlan, connections};

/// Opens connections through copies with the old rules, and through copies with the plan in their place.
pub(super) fn prove(found: &ImportedRules, draft: &Draft) -> Result<Proof> {
    let tests = connections(draft, &found.rules);
    let asked: Vec<&PacketTest> = tests.iter().collect();
    let plan = ProofPlan {
        draft,
        rules: &found.rules,
        tests: &tests,
        machines: found.machines(&asked, &draft.set)?,
        before: found.unchanged()?,
        after: found.changed(draft)?,
    };
    Ok(crate::proof::prove(plan)?)
}
