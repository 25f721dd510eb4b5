//! What the next boot brings, where that is not what is loaded now.

use super::history::moment;
use super::remark::Remarks;
use super::saved::compared;
use super::state::State;
use crate::host::{boot_unit, persistence};
use crate::per_family::PerFamily;
use crate::ruleset::Ruleset;
use crate::status::RulesFile;

/// Says that the next boot brings other rules than these, and how they are kept; nothing where it brings the
/// same.
pub fn say(state: &State, rules: &PerFamily<&Ruleset>, remarks: &mut Remarks) {
    if boot_unit::is_enabled() {
        let saved = state.saved();
        let same =
            |(family, rules): (_, &&Ruleset)| compared(&saved, family, rules) == RulesFile::Same;
        if rules.iter().all(same) {
            return;
        }
        remarks.note(match saved {
            Ok(Some(saved)) => format!(
                "the next boot brings back the rules saved at {}; `sudo nvactl persist` saves these",
                moment(saved.time)
            ),
            _ => "the next boot brings nothing back; `sudo nvactl persist` saves these".to_owned(),
        });
        return;
    }
    for (family, rules) in rules.iter() {
        let file = persistence::rules_file(family);
        match persistence::compared_text(family, rules) {
            Some(RulesFile::Missing) if rules.holds_own() => {
                remarks.note("this holds until the next boot; `sudo nvactl persist` keeps it");
                return;
            }
            Some(RulesFile::Different) => remarks.note(format_args!(
                "{file} brings back other rules at the next boot; `sudo nvactl persist` saves these"
            )),
            // A file that is not there brings nothing, and one that cannot be read is `status`'s to try.
            _ => {}
        }
    }
}
