//! Whether the distribution's rules file brings back the rules that run.

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

/// How nvactl's rules in the file for the boot compare with those that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RulesFile {
    Same,
    Different,
    Missing,
    /// It may not be read, or says something that nvactl does not read and cannot try.
    Unreadable,
    /// iptables-restore does not load it.
    Refused,
}

/// Compares nvactl's rules in the rules file with those that run, as far as the boot loads the file, and
/// says why it does not. Where that cannot be tried, the text is read.
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
            // iptables-restore refuses all of a file for one line.
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

/// The size up to which a rules file is rehearsed along the way, in bytes: beyond it that takes seconds.
const QUICK: usize = 1 << 20;

/// Compares nvactl's rules in the rules file with these, after a rehearsal or for a large file by what it
/// says. The FORWARD policy counts only where `rules` set it.
#[must_use]
pub fn compared_quickly(iptables: &Iptables, family: Family, rules: &Ruleset) -> RulesFile {
    let bytes = match file::read(Path::new(rules_file(family))) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return RulesFile::Missing,
        Err(_) => return RulesFile::Unreadable,
    };
    let rehearsed = (bytes.len() <= QUICK).then(|| iptables.rehearse(family, &bytes, &[]));
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
