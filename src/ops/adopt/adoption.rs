//! The foreign rules that an apply takes out.

use super::choose::{AdoptedRule, OtherMeaning};
use super::put_back::of_family;
use super::{ReadRules, choose, removal, say, say_of_other_backend};
use crate::diff::foreign::{ForeignGoal, ForeignShift};
use crate::forwards::ForwardSet;
use crate::host::boot_text::boot_texts;
use crate::net::per_family::PerFamily;
use crate::ops::error::Error;
use crate::ops::look::Situation;
use crate::ops::records::KeptRule;
use crate::ops::refusal::Refusal;
use crate::ops::remark::Remarks;

/// The foreign rules that a change takes out.
#[derive(Debug, Default)]
pub struct Adoption {
    pub rules: Vec<AdoptedRule>,
    /// The rules among which they were found.
    pub loaded: Option<ReadRules>,
    pub shift: PerFamily<ForeignShift>,
}

impl Adoption {
    /// Finds the rules that the spec says as well.
    ///
    /// # Errors
    /// When rules and the spec differ in meaning, or the routes cannot be read.
    pub fn find(
        set: &ForwardSet,
        found: &Situation<'_>,
        remarks: &mut Remarks,
    ) -> Result<Self, Error> {
        let live = found.before.map(|_, (live, _)| live);
        let loaded = ReadRules::read(&live).map_err(Error::Routes)?;
        let chosen = choose(&loaded.draft, &live, set, &boot_texts());
        if !chosen.mismatches.is_empty() {
            return Err(Refusal::DiffersFromRules {
                lines: chosen
                    .mismatches
                    .iter()
                    .flat_map(OtherMeaning::lines)
                    .collect(),
            }
            .into());
        }
        say(&chosen, remarks);
        say_of_other_backend(set, &found.surroundings, remarks).map_err(Error::Routes)?;
        let kept: Vec<KeptRule> = chosen.adopted.iter().map(|one| one.kept.clone()).collect();
        let shift = live.map(|family, live| removal(live, &of_family(&kept, family)));
        Ok(Self {
            rules: chosen.adopted,
            loaded: Some(loaded),
            shift,
        })
    }

    /// Returns the foreign rules as they should be after the change.
    #[must_use]
    pub fn goal(&self) -> PerFamily<&ForeignGoal> {
        self.shift.map(|_, shift| &shift.new)
    }

    /// Returns the rules for the record of the change.
    #[must_use]
    pub fn kept(&self) -> Vec<KeptRule> {
        self.rules.iter().map(|one| one.kept.clone()).collect()
    }
}
