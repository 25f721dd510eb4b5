//! Compares the distribution's rules file with the loaded rules.

use std::path::Path;

use serde::Serialize;

use tracing::debug;

use crate::diff;
use crate::host::file;
use crate::host::iptables::Iptables;
use crate::host::persistence::rules_file;
use crate::host::rehearsal::RehearsalError;
use crate::net::Family;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::parse;
use crate::netfilter::unread::unloadable;

/// Compares nvactl's rules in the rules file with the loaded rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RulesFile {
    Same,
    Different,
    Missing,
    /// nvactl may not read the file, or can neither parse nor try it.
    Unreadable,
    /// iptables-restore does not load the file.
    Refused,
}

/// Compares nvactl's rules in the rules file, as iptables-restore loads it, with the loaded rules, and returns why
/// it does not load. If that cannot be tried, nvactl parses the text.
#[must_use]
pub fn compared(
    iptables: &Iptables,
    family: Family,
    live: &Ruleset,
) -> (RulesFile, Option<String>) {
    let bytes = match file::read(Path::new(rules_file(family))) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return (RulesFile::Missing, None),
        Err(_) => return (RulesFile::Unreadable, None),
    };
    let kept = match iptables.rehearse(family, &bytes, &[]) {
        Ok(loaded) => Ok(Some(loaded.ruleset)),
        Err(RehearsalError::Refused(refused)) => Err(refused.to_string()),
        Err(RehearsalError::Impossible(reason)) => {
            debug!(reason, "the rules file cannot be tried");
            let text = parse::text_of(&bytes);
            let read = || parse::parse(&text).ok();
            // iptables-restore refuses a whole file for one line.
            let loadable = || read().filter(|kept| unloadable(kept).is_none());
            let spelled = parse::check_spelling(&text).map_err(|error| error.to_string());
            spelled.map(|()| loadable())
        }
    };
    match kept {
        Err(refused) => (RulesFile::Refused, Some(refused)),
        Ok(None) => (RulesFile::Unreadable, None),
        Ok(Some(kept)) if diff::holds_the_same(&kept, live, true) => (RulesFile::Same, None),
        Ok(Some(_)) => (RulesFile::Different, None),
    }
}

/// The size in bytes up to which a rules file is rehearsed here. The rehearsal of a larger file takes seconds.
const MOST_QUICK_BYTES: usize = 1 << 20;

/// Compares nvactl's rules in the rules file with `rules`, after a rehearsal, or by the text of a large file. The
/// FORWARD policy counts only if `rules` set it.
#[must_use]
pub fn compared_quickly(iptables: &Iptables, family: Family, rules: &Ruleset) -> RulesFile {
    let bytes = match file::read(Path::new(rules_file(family))) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return RulesFile::Missing,
        Err(_) => return RulesFile::Unreadable,
    };
    let rehearsed =
        (bytes.len() <= MOST_QUICK_BYTES).then(|| iptables.rehearse(family, &bytes, &[]));
    let kept = match rehearsed {
        Some(Ok(loaded)) => loaded.ruleset,
        Some(Err(RehearsalError::Refused(_))) => return RulesFile::Refused,
        Some(Err(RehearsalError::Impossible(_))) | None => {
            let text = parse::text_of(&bytes);
            if parse::check_spelling(&text).is_err() {
                return RulesFile::Refused;
            }
            match parse::parse(&text) {
                Ok(kept) => kept,
                Err(_) => return RulesFile::Unreadable,
            }
        }
    };
    if diff::holds_the_same(&kept, rules, diff::sets_policy(rules)) {
        RulesFile::Same
    } else {
        RulesFile::Different
    }
}
