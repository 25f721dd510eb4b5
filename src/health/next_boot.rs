//! The rules and the forwarding switch of one family after the next boot. `ops::next_boot` finds them.

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::rules_file::RulesFile;
use crate::host::persistence::RulesAtBoot;

#[derive(Debug, PartialEq, Eq)]
pub struct NextBoot {
    /// The source of nvactl's rules at boot: a file, or the saved state in words.
    pub place: &'static str,
    /// Whether that source holds the loaded rules.
    pub rules: RulesFile,
    /// Why iptables-restore does not load the file.
    pub refused: Option<String>,
    pub by: RulesAtBoot,
    /// The forwarding switch of the spec's interfaces after a boot, and the line (`file:line`) that sets it. A line
    /// that turns forwarding off for one of the interfaces comes first.
    pub forwards: Option<(bool, String)>,
    /// A line that sets the switch only if `sysctl --system` runs after the boot.
    pub forwards_unread: Option<String>,
}

impl NextBoot {
    /// Returns why nothing loads the rules at boot, and the fix.
    #[must_use]
    pub fn not_loaded(&self) -> Option<(&'static str, &'static str)> {
        Some((self.by.why(), self.by.fix()?))
    }

    /// Returns what loads the rules at boot, or why nothing does.
    #[must_use]
    pub fn loaded(&self) -> String {
        match self.not_loaded() {
            None => self.by.why().to_owned(),
            Some((why, _)) => format!("nothing loads it: {why}"),
        }
    }

    /// Whether forwarding is on after the next boot.
    #[must_use]
    pub fn turns_forwarding_on(&self) -> bool {
        self.forwards.as_ref().is_some_and(|(on, _)| *on)
    }
}

/// `at_boot` of [`super::status::StatusReport`].
impl Serialize for NextBoot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (on, by) = self.forwards.as_ref().map(|(on, by)| (on, by)).unzip();
        let mut fields = serializer.serialize_struct("NextBoot", 5)?;
        fields.serialize_field("rules", &self.rules)?;
        fields.serialize_field("refused", &self.refused)?;
        fields.serialize_field("loaded", &self.loaded())?;
        fields.serialize_field("ip_forward", &on)?;
        fields.serialize_field("ip_forward_by", &by)?;
        fields.end()
    }
}
