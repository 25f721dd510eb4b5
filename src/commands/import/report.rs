//! The account of all rules, for people and programs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::proof::{NotOpened, Proof, ProofDifference};
use super::rules::ImportedRules;
use crate::forwards::PacketTest;
use crate::import::{Account, Draft, RuleFate};
use crate::net::printable;
use crate::net::words::counted;

/// The width of the longest outcome, and two blanks.
const OUTCOME_WIDTH: usize = "cannot be said".len() + 2;

/// The most connections that one reason names.
const MOST_NAMED: usize = 3;

/// The result of an import.
pub(super) struct ImportReport<'r> {
    pub(super) found: &'r ImportedRules,
    pub(super) draft: &'r Draft,
    /// `None` if no connection was opened.
    pub(super) proof: Option<&'r Proof>,
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
    notes: &'r [String],
    rules: Vec<JsonRule>,
    remarks: Vec<JsonRemark>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<JsonProof<'r>>,
}

#[derive(Debug, Serialize)]
struct JsonProof<'r> {
    connections: usize,
    differences: Vec<JsonDifference>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_opened: Vec<JsonNotOpened<'r>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    doubts: &'r [String],
}

#[derive(Debug, Serialize)]
struct JsonNotOpened<'r> {
    connection: String,
    reason: &'r str,
}

#[derive(Debug, Serialize)]
struct JsonDifference {
    connection: String,
    before: String,
    after: String,
    /// The codes of the remarks that explain it.
    remarks: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct JsonRule {
    family: &'static str,
    table: &'static str,
    chain: String,
    number: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
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
                self.found.place(account),
                ""
            ));
        }
        let mut text = printable::lines(text).to_string();
        for one in &self.draft.remarks {
            text.push_str(&format!("\n{}: {}", one.entry, one.remark));
        }
        if !self.draft.remarks.is_empty() {
            text.push('\n');
        }
        if let Some(proof) = self.proof {
            text.push_str(&proof_words(proof));
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
            line: self.found.line(account),
            rule: self.found.text(account),
            outcome: account.fate.word(),
            entries: match &account.fate {
                RuleFate::Taken { entries, .. } => {
                    entries.iter().map(ToString::to_string).collect()
                }
                _ => Vec::new(),
            },
            words: account.fate.to_string(),
        };
        JsonImport {
            rules_of: &self.found.name,
            output: self.output.map(|path| path.display().to_string()),
            spec: self.spec,
            notes: &self.draft.notes,
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
            proof: self.proof.map(json_proof),
        }
    }
}

fn json_proof(proof: &Proof) -> JsonProof<'_> {
    let difference = |one: &ProofDifference| JsonDifference {
        connection: connection(&one.test),
        before: one.before.to_string(),
        after: one.after.to_string(),
        remarks: codes(one),
    };
    JsonProof {
        connections: proof.connections,
        differences: proof.differences.iter().map(difference).collect(),
        not_opened: proof.not_opened.iter().map(json_not_opened).collect(),
        doubts: &proof.doubts,
    }
}

fn json_not_opened(one: &NotOpened) -> JsonNotOpened<'_> {
    JsonNotOpened {
        connection: connection(&one.test),
        reason: &one.why,
    }
}

/// Returns the codes of the remarks that explain a difference, each once.
fn codes(difference: &ProofDifference) -> Vec<&'static str> {
    let codes = difference.remarks.iter().map(|one| one.remark.code());
    codes.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Describes the connection of a test, without what it wants.
fn connection(test: &PacketTest) -> String {
    let ingress = test.ingress.as_ref();
    let ingress = ingress.map_or(String::new(), |one| format!(" in by {one}"));
    let name = test.name.as_ref();
    let name = name.map_or(String::new(), |name| format!("{name}: "));
    format!(
        "{name}{} from {}{ingress} to {}",
        test.protocol, test.from, test.to
    )
}

/// Returns the table of differences.
fn proof_words(proof: &Proof) -> String {
    let mut text = String::new();
    for one in &proof.differences {
        let codes = codes(one);
        let reason = if codes.is_empty() {
            "no remark explains this".to_owned()
        } else {
            codes.join(", ")
        };
        text.push_str(&format!(
            "\n{}\n  before: {}\n  after:  {}\n  reason: {reason}\n",
            connection(&one.test),
            one.before,
            one.after
        ));
    }
    for doubt in &proof.doubts {
        text.push_str(&format!("\nnot shown by the copies: {doubt}\n"));
    }
    text.push_str(&not_opened_words(&proof.not_opened));
    let all = counted(proof.connections, "connection");
    let unexplained = proof.unexplained().count();
    let differences = match proof.differences.len() {
        0 => "no difference".to_owned(),
        some => format!(
            "{}, {unexplained} without a remark",
            counted(some, "difference")
        ),
    };
    let not_opened = match proof.not_opened.len() {
        0 => String::new(),
        some => format!("; {some} not opened"),
    };
    text.push_str(&format!(
        "\n{all} through both copies: {differences}{not_opened}\n"
    ));
    printable::lines(text).to_string()
}

/// Returns the connections that were not opened, the first ones of each reason.
fn not_opened_words(not_opened: &[NotOpened]) -> String {
    let mut by_reason: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for one in not_opened {
        let some = by_reason.entry(&one.why).or_default();
        some.push(connection(&one.test));
    }
    let each = by_reason.into_iter().map(|(why, some)| {
        let each = some.iter().take(MOST_NAMED);
        let mut text: String = each
            .map(|one| format!("\nnot opened: {one}\n  reason: {why}\n"))
            .collect();
        if let Some(more) = some.len().checked_sub(MOST_NAMED).filter(|more| *more > 0) {
            text.push_str(&format!("\nnot opened: {more} more for this reason\n"));
        }
        text
    });
    each.collect()
}
