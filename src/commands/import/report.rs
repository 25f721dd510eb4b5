//! The account of all rules, for people and programs.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::rules::ImportedRules;
use crate::import::{Account, Draft, Fate};
use crate::net::printable;
use crate::net::words::counted;

/// The width of the longest outcome, and two blanks.
const OUTCOME_WIDTH: usize = "cannot be said".len() + 2;

/// The result of an import.
pub(super) struct ImportReport<'r> {
    pub(super) found: &'r ImportedRules,
    pub(super) draft: &'r Draft,
    pub(super) spec: &'r str,
    pub(super) output: Option<&'r Path>,
}

/// The result as JSON. docs/json.md documents the fields.
#[derive(Debug, Serialize)]
pub(super) struct JsonImport<'r> {
    rules_of: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    spec: &'r str,
    assumed: &'r [String],
    rules: Vec<JsonRule>,
    remarks: Vec<JsonRemark>,
}

#[derive(Debug, Serialize)]
struct JsonRule {
    family: &'static str,
    table: &'static str,
    chain: String,
    number: usize,
    rule: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    entries: Vec<String>,
    words: String,
}

#[derive(Debug, Serialize)]
struct JsonRemark {
    entry: String,
    code: &'static str,
    words: String,
}

impl ImportReport<'_> {
    /// Returns the table: the account of each rule, then the differences and the numbers.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        for account in &self.draft.accounts {
            let (word, fate) = (account.fate.word(), &account.fate);
            let rule = self.found.text(account);
            text.push_str(&format!(
                "{word:<OUTCOME_WIDTH$}{}: {fate}\n{:OUTCOME_WIDTH$}{rule}\n",
                account.place, ""
            ));
        }
        let mut text = printable::lines(text).to_string();
        for one in &self.draft.remarks {
            text.push_str(&format!("\n{}: {}", one.entry, one.remark));
        }
        if !self.draft.remarks.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("\n{}: {}\n", self.found.name, self.summary()));
        text
    }

    fn summary(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for Account { fate, .. } in &self.draft.accounts {
            *counts.entry(fate.word()).or_default() += 1;
        }
        let all = counted(self.draft.accounts.len(), "rule");
        let each = ["taken over", "not needed", "left alone", "cannot be said"];
        let each = each
            .iter()
            .filter_map(|word| Some(format!("{} {word}", counts.get(word)?)));
        let each: Vec<String> = each.collect();
        let numbers = self.draft.set.numbers().words();
        if each.is_empty() {
            format!("{all}; {numbers}")
        } else {
            format!("{all}, {}; {numbers}", each.join(", "))
        }
    }

    pub(super) fn json(&self) -> JsonImport<'_> {
        let rule = |account: &Account| JsonRule {
            family: account.place.family.as_str(),
            table: account.place.table.as_str(),
            chain: account.place.chain.to_string(),
            number: account.place.number(),
            rule: self.found.text(account),
            outcome: account.fate.word(),
            entries: match &account.fate {
                Fate::Taken { entries, .. } => entries.iter().map(ToString::to_string).collect(),
                _ => Vec::new(),
            },
            words: account.fate.to_string(),
        };
        JsonImport {
            rules_of: &self.found.name,
            output: self.output.map(|path| path.display().to_string()),
            spec: self.spec,
            assumed: &self.draft.assumed,
            rules: self.draft.accounts.iter().map(rule).collect(),
            remarks: self
                .draft
                .remarks
                .iter()
                .map(|one| JsonRemark {
                    entry: one.entry.to_string(),
                    code: one.remark.code(),
                    words: one.remark.to_string(),
                })
                .collect(),
        }
    }
}
