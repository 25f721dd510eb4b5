//! A change as text for a trial in an empty network namespace, and the search for its refused rule.

use std::collections::{BTreeSet, HashSet};

use crate::diff::{self, Changes, TableChanges};
use crate::netfilter::names::ChainName;
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::{Ruleset, Table};
use crate::netfilter::shape::RuleShape;
use crate::netfilter::target::Target;
use crate::netfilter::text::line::{brings_rule, place_and_rule, uncounted};
use crate::netfilter::text::parse::rule_of;

/// The two texts of a trial, loaded in this order.
#[derive(Debug, PartialEq, Eq)]
pub struct LoadTrial {
    /// The foundation of the change: an outline of nvactl's part of the changed tables.
    ///
    /// The kernel has accepted the loaded rules, so they are not tried again. But the kernel accepts a new
    /// rule only for certain hooks that lead to its chain, and only if chains do not form a loop. So the
    /// outline has the jumps, and an empty chain for each chain that they lead to. In a chain where the
    /// change counts positions, every other rule is one without match and target, which loads in an eighth of
    /// the time (once measured with 30,000 rules).
    pub base: String,
    /// The change.
    pub script: String,
}

impl LoadTrial {
    #[must_use]
    pub fn new(before: &Ruleset, changes: &Changes<'_>, script: String) -> Self {
        let mut base = Ruleset::default();
        for change in &changes.tables {
            if let Some(table) = before.tables.get(&change.table) {
                let places = change.in_place();
                base.tables.insert(change.table, outline(table, &places));
            }
        }
        Self {
            base: base.to_string(),
            script,
        }
    }

    /// Returns the trial with one rule of each shape in each chain. The kernel accepts the others as well, since they
    /// differ only in values that it does not check. For 10,000 forwards, the trial is a small part of the rules.
    ///
    /// A rule without match and target takes the place of each other rule in a chain in which the script counts positions.
    #[must_use]
    pub fn of_shapes(&self, changes: &Changes<'_>) -> Self {
        let counted = changes.tables.iter().flat_map(TableChanges::in_place);
        let counted: HashSet<&str> = counted.map(ChainName::as_str).collect();
        let chains = self.text();
        let chains = chains.lines().filter_map(chain_of).map(ChainName::from);
        let chains: BTreeSet<ChainName> = chains.collect();
        let mut seen = HashSet::new();
        let mut table = "";
        let mut script = String::new();
        for line in self.script.lines() {
            if line.starts_with('*') {
                table = line;
            }
            let mut kept = line;
            if let Some((place, rule)) = place_and_rule(line) {
                let chain = place.split(' ').nth(1).unwrap_or_default();
                let shape = RuleShape::of(&rule_of(rule, &chains));
                if !seen.insert((table, chain, shape)) {
                    if !counted.contains(chain) {
                        continue;
                    }
                    kept = place;
                }
            }
            script.push_str(kept);
            script.push('\n');
        }
        Self {
            base: self.base.clone(),
            script,
        }
    }

    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.base, self.script)
    }

    /// Converts a line number of [`LoadTrial::text`] to one of the script, both from 1; `None` for a line of the
    /// base.
    #[must_use]
    pub fn line_of_script(&self, line: usize) -> Option<usize> {
        let base = self.base.lines().count();
        line.checked_sub(base).filter(|line| *line > 0)
    }

    /// Returns the trial with only the first `rules` rules of its script.
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

    /// Returns the number of rules in the script.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.script.lines().filter(|line| brings_rule(line)).count()
    }
}

/// Returns the chain that a line declares.
fn chain_of(line: &str) -> Option<&str> {
    line.strip_prefix(':')?.split(' ').next()
}

/// Returns the outline of nvactl's part of a table. The chains in which `places` count keep their length.
fn outline(table: &Table, places: &BTreeSet<&ChainName>) -> Table {
    let mut outline = Table::new();
    for (name, chain) in table {
        let rules: Vec<Rule> = if places.contains(name) {
            chain.rules.iter().map(way).collect()
        } else if name.is_builtin() {
            diff::own_jumps(chain).cloned().collect()
        } else if name.is_own() {
            let ways: BTreeSet<Rule> = chain.rules.iter().map(way).collect();
            ways.into_iter()
                .filter(|way| way.target.is_some())
                .collect()
        } else {
            continue;
        };
        for stub in rules.iter().filter_map(Rule::leads_to) {
            outline.entry(stub.clone()).or_default();
        }
        outline.entry(name.clone()).or_default().rules = rules;
    }
    outline
}

/// Returns the rule's jump without its matches, if it leads to another chain.
fn way(rule: &Rule) -> Rule {
    let leads = |target: &&Target| matches!(target, Target::Jump(_) | Target::Goto(_));
    Rule {
        matches: Vec::new(),
        target: rule.target.as_ref().filter(leads).cloned(),
    }
}

/// Returns the rule on a line of a script, counted from 1, if there is one.
#[must_use]
pub fn rule_at(script: &str, line: usize) -> Option<&str> {
    script
        .lines()
        .nth(line.checked_sub(1)?)
        .filter(|line| brings_rule(line))
        .map(uncounted)
}

/// Returns the `n`th rule of a script, counted from 1.
#[must_use]
pub fn nth_rule(script: &str, n: usize) -> Option<&str> {
    script
        .lines()
        .filter(|line| brings_rule(line))
        .nth(n.checked_sub(1)?)
        .map(uncounted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diff::foreign::{ForeignGoal, GoalChain};
    use crate::netfilter::counters::Counters;
    use crate::netfilter::names::TableName;
    use crate::netfilter::text::parse::{comment_of, parse};

    #[test]
    fn a_change_is_tried_on_an_outline_of_the_changed_tables() {
        let before = "*filter\n:FORWARD DROP [0:0]\n:MINE - [0:0]\n:NVACTL-FORWARD - [0:0]\n:NVACTL-LEAF - [0:0]\n\
            -A FORWARD -j NVACTL-FORWARD\n-A FORWARD -p udp -j ACCEPT\n-A MINE -p udp -j ACCEPT\n\
            -A NVACTL-FORWARD -p tcp -j NVACTL-LEAF\n-A NVACTL-FORWARD -p udp -j NVACTL-LEAF\n\
            -A NVACTL-FORWARD -p icmp -j ACCEPT\n\
            -A NVACTL-LEAF -p tcp -j ACCEPT\n-A NVACTL-LEAF -p udp -j MINE\n-A NVACTL-LEAF -p icmp -j ACCEPT\nCOMMIT\n\
            *nat\n:NVACTL-PREROUTING - [0:0]\n-A NVACTL-PREROUTING -j RETURN\nCOMMIT\n";
        let want = before.replacen("-A NVACTL-LEAF -p tcp -j ACCEPT\n", "", 1);
        let (before, want) = (parse(before), parse(&want));
        let (before, want) = (
            before.expect("it is readable"),
            want.expect("it is readable"),
        );
        let want = diff::own(&want);
        let changes = diff::changes(&before, &want);
        let script = changes.script(&Counters::default());
        assert_eq!(
            LoadTrial::new(&before, &changes, script).text(),
            "*filter\n:MINE - [0:0]\n:NVACTL-FORWARD - [0:0]\n:NVACTL-LEAF - [0:0]\n\
             -A FORWARD -j NVACTL-FORWARD\n-A NVACTL-FORWARD -j NVACTL-LEAF\n\
             -A NVACTL-LEAF\n-A NVACTL-LEAF -j MINE\n-A NVACTL-LEAF\nCOMMIT\n\
             *filter\n-D NVACTL-LEAF 1\nCOMMIT\n"
        );
    }

    /// Foreign rules that go have their numbers in the trial as well.
    #[test]
    fn a_chain_keeps_its_length_where_foreign_rules_go() {
        let text = "*filter\n:FORWARD DROP [0:0]\n:MINE - [0:0]\n-A FORWARD -p udp -j ACCEPT\n-A FORWARD -p tcp -j MINE\n\
            -A MINE -p tcp -j ACCEPT\nCOMMIT\n";
        let before = parse(text).expect("it is readable");
        let rules = |name: &str| {
            let chain = before.chain(TableName::Filter, &ChainName::from(name));
            chain.expect("it is there").rules.clone()
        };
        let (forward, mine) = (rules("FORWARD"), rules("MINE"));
        let mut goal = ForeignGoal::default();
        for (name, rules, absent) in [
            (
                "FORWARD",
                Some(vec![forward[0].clone()]),
                vec![forward[1].clone()],
            ),
            ("MINE", None, mine),
        ] {
            let chain = GoalChain { rules, absent };
            goal.set(TableName::Filter, ChainName::from(name), chain);
        }
        let changes = Changes::default().with_foreign(goal.changes(&before));
        let script = changes.script(&Counters::default());
        assert_eq!(
            LoadTrial::new(&before, &changes, script).text(),
            "*filter\n:MINE - [0:0]\n-A FORWARD\n-A FORWARD -j MINE\n-A MINE\nCOMMIT\n\
             *filter\n-D FORWARD 2\n-F MINE\n-X MINE\nCOMMIT\n"
        );
    }

    #[test]
    fn one_rule_of_each_shape_is_left_in_each_chain() {
        let dnat = |port: u16, more: &str| {
            format!(
                "-p tcp -m tcp --dport {port} {more}-m comment --comment f{port} -j DNAT --to-destination 10.0.0.{}:80",
                port % 200
            )
        };
        let before = format!(
            "*nat\n:NVACTL-A - [0:0]\n-A NVACTL-A {}\nCOMMIT\n",
            dnat(1, "")
        );
        let limited = "-m hashlimit --hashlimit-above 5/sec --hashlimit-name x ";
        let lines: String = [
            format!("-A NVACTL-A {}\n", dnat(2, "")),
            format!("-A NVACTL-A {}\n", dnat(3, "")),
            format!("-A NVACTL-A {}\n", dnat(1, "")),
            format!("-A NVACTL-B {}\n", dnat(4, "")),
            format!("-A NVACTL-B {}\n", dnat(5, limited)),
            format!("-A NVACTL-B {}\n", dnat(6, "")),
            "-A NVACTL-B -p tcp -j NVACTL-A\n".to_owned(),
            "-A NVACTL-B -p tcp -j NVACTL-C\n".to_owned(),
        ]
        .concat();
        let want = format!(
            "*nat\n:NVACTL-A - [0:0]\n:NVACTL-B - [0:0]\n:NVACTL-C - [0:0]\n{lines}COMMIT\n"
        );
        let before = parse(&before).expect("it is readable");
        let want = parse(&want).expect("it is readable");
        let changes = diff::changes(&before, &want);
        let script = changes.script(&Counters::default());
        let trial = LoadTrial::new(&before, &changes, script).of_shapes(&changes);
        // Places count in A alone.
        assert_eq!(
            trial.script,
            format!(
                "*nat\n:NVACTL-B - [0:0]\n:NVACTL-C - [0:0]\n-I NVACTL-A 1 {}\n-I NVACTL-A 2\n\
                 -A NVACTL-B {}\n-A NVACTL-B {}\n-A NVACTL-B -p tcp -j NVACTL-A\n\
                 -A NVACTL-B -p tcp -j NVACTL-C\nCOMMIT\n",
                dnat(2, ""),
                dnat(4, ""),
                dnat(5, limited),
            )
        );
    }

    #[test]
    fn a_script_is_cut_by_rules() {
        let trial = LoadTrial {
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
