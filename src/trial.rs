//! A change as text that can be tried in an empty network namespace, and whose rule it was when it
//! fails.

use std::collections::BTreeSet;

use crate::diff;
use crate::line::{brings_rule, uncounted};
use crate::ruleset::{ChainName, Ruleset, TableName};

/// What to load to try a change, one text behind the other.
#[derive(Debug, PartialEq, Eq)]
pub struct Trial {
    /// What the change builds on: nvactl's part as it is, with an empty stub for each chain that its
    /// rules lead to.
    pub base: String,
    /// The change.
    pub script: String,
}

impl Trial {
    #[must_use]
    pub fn new(before: &Ruleset, script: String) -> Self {
        let mut base = diff::own(before);
        let stubs: BTreeSet<(TableName, ChainName)> = base
            .chains()
            .flat_map(|(table, _, chain)| chain.rules.iter().map(move |rule| (table, rule)))
            .filter_map(|(table, rule)| Some((table, rule.leads_to()?.clone())))
            .collect();
        for (table, chain) in stubs {
            base.chain_mut(table, chain);
        }
        Self {
            base: base.to_string(),
            script,
        }
    }

    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.base, self.script)
    }

    /// The line of the script that a line of [`Trial::text`] is, both counted from 1; `None` where
    /// it belongs to the base.
    #[must_use]
    pub fn line_of_script(&self, line: usize) -> Option<usize> {
        let base = self.base.lines().count();
        line.checked_sub(base).filter(|line| *line > 0)
    }

    /// The same with only the first `rules` rules of its script.
    #[must_use]
    pub fn with_rules(&self, rules: usize) -> Self {
        let mut left = rules;
        let lines = self.script.lines().filter(|line| {
            let kept = !brings_rule(line) || left > 0;
            left -= usize::from(brings_rule(line) && left > 0);
            kept
        });
        Self {
            base: self.base.clone(),
            script: lines.map(|line| format!("{line}\n")).collect(),
        }
    }

    /// How many rules the script brings.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.script.lines().filter(|line| brings_rule(line)).count()
    }
}

/// The rule on a line of a script, counted from 1, if one is there.
#[must_use]
pub fn rule_at(script: &str, line: usize) -> Option<&str> {
    script
        .lines()
        .nth(line.checked_sub(1)?)
        .filter(|line| brings_rule(line))
        .map(uncounted)
}

/// The `n`th rule of a script, counted from 1.
#[must_use]
pub fn nth_rule(script: &str, n: usize) -> Option<&str> {
    script
        .lines()
        .filter(|line| brings_rule(line))
        .nth(n.checked_sub(1)?)
        .map(uncounted)
}

/// The line that iptables-restore complains of: `Error occurred at line: 7`, `line 7: RULE_APPEND
/// failed`, `iptables-restore: line 7 failed` (measured, 1.8.9).
#[must_use]
pub fn line_named(words: &str) -> Option<usize> {
    let number = |text: &str| -> Option<usize> {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    words
        .match_indices("line")
        .find_map(|(at, word)| number(words[at + word.len()..].trim_start_matches([':', ' '])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::comment_of;

    #[test]
    fn the_line_is_read_from_each_form_of_complaint() {
        for (words, line) in [
            (
                "iptables-restore v1.8.9 (nf_tables): unknown option\nError occurred at line: 7",
                Some(7),
            ),
            (
                "iptables-restore v1.8.9 (nf_tables): \nline 12: RULE_APPEND failed (Invalid argument): rule in chain X",
                Some(12),
            ),
            ("iptables-restore: line 3 failed", Some(3)),
            ("Stopped waiting after 10s.", None),
        ] {
            assert_eq!(line_named(words), line, "{words}");
        }
    }

    #[test]
    fn a_script_is_cut_by_rules() {
        let trial = Trial {
            base: "*nat\nCOMMIT\n".into(),
            script: "*nat\n:X - [0:0]\n-A X -m comment --comment a -j RETURN\n-A X -m comment --comment \"b.c\" -j RETURN\nCOMMIT\n".into(),
        };
        assert_eq!(trial.rules(), 2);
        assert_eq!(trial.with_rules(2), trial);
        let one = trial.with_rules(1);
        assert_eq!(one.rules(), 1);
        assert!(one.script.ends_with("COMMIT\n"));
        assert_eq!(trial.line_of_script(2), None);
        assert_eq!(trial.line_of_script(6), Some(4));
        assert_eq!(
            comment_of(rule_at(&trial.script, 4).unwrap()).as_deref(),
            Some("b.c")
        );
        assert_eq!(rule_at(&trial.script, 5), None);
    }
}
