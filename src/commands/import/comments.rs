//! The comments of an imported spec.

use std::collections::BTreeMap;

use super::rules::ImportedRules;
use crate::forwards::Name;
use crate::import::{Draft, RuleFate};
use crate::yaml::Comments;

/// Returns the comments: where the spec came from, what it assumes, and for each entry its rules and the differences.
pub(super) fn comments(draft: &Draft, found: &ImportedRules) -> Comments {
    let mut head = vec![format!(
        "Imported by nvactl from the rules of {}.",
        found.name
    )];
    head.extend(draft.notes.iter().cloned());
    let mut entries: BTreeMap<Name, Vec<String>> = BTreeMap::new();
    for account in &draft.accounts {
        if let RuleFate::Taken { entries: names, .. } = &account.fate {
            for name in names {
                let lines = entries.entry(name.clone()).or_default();
                lines.push(found.text(account));
            }
        }
    }
    for one in &draft.remarks {
        let lines = entries.entry(one.entry.clone()).or_default();
        lines.push(format!("Note: {}.", one.remark));
    }
    Comments {
        head,
        entries,
        ..Comments::default()
    }
}
