//! Writes a change as text for `iptables-restore --noflush`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::foreign::{ChainLife, ForeignChange};
use super::{ChainChange, ChainEdit, Changes, TableChanges, own, sets_policy};
use crate::netfilter::counters::{Count, Counters};
use crate::netfilter::names::ChainName;
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::line::{Counted, Line};
use crate::plan::Hook;

/// The most chains that one transaction creates, if the others can come before it. iptables-nft searches the chains
/// that the lines of a transaction have named for the chain of each further line, one after another
/// (`cache_chain_list_insert`, 1.8.9): 10,000 chains of lists in one transaction take minutes. Legacy writes the whole
/// table for each transaction, so that many small ones take longer.
const MOST_CREATED: usize = 512;

impl Changes<'_> {
    /// Returns a script for `iptables-restore --noflush`. Each table is one transaction. If a table gets very many
    /// chains of lists, most of them are loaded in transactions before. No packet reaches them until that of the table
    /// leads to them.
    ///
    /// A new rule starts with the count that `counts` holds for its index in the new chain, if
    /// iptables-restore also gets `--counters`. The counters of other rules do not change. If the policy of
    /// a built-in chain changes, the policy's counters start at zero, with `--counters` or without (measured
    /// with nft and legacy 1.8.9).
    #[must_use]
    pub fn script(&self, counts: &Counters) -> String {
        let mut out = String::new();
        for table in &self.tables {
            table.write(counts, &mut out);
        }
        out
    }
}

/// Writes one line, with the initial count of its rule.
fn put(out: &mut String, count: Count, line: Line<'_>) {
    let _ = writeln!(out, "{}", Counted(count, line));
}

impl TableChanges<'_> {
    fn write(&self, counts: &Counters, out: &mut String) {
        let early = self.early();
        for part in early.chunks(MOST_CREATED) {
            put(out, Count::default(), Line::Table(self.table));
            for chain in part {
                put(out, Count::default(), Line::Chain(chain.name(), None));
            }
            for chain in part {
                chain.write(counts.of(self.table, chain.name()), out);
            }
            put(out, Count::default(), Line::Commit);
        }
        let early: BTreeSet<&ChainName> = early.iter().map(|chain| chain.name()).collect();
        let late = || {
            let chains = self.chains.iter();
            chains.filter(|chain| !early.contains(chain.name()))
        };
        let mut line = |line| put(out, Count::default(), line);
        line(Line::Table(self.table));
        for (chain, _, policy) in &self.policies {
            line(Line::Chain(chain, Some(*policy)));
        }
        write_foreign(&self.foreign, &mut line);
        // All new chains come before the first rule, since rules of one chain may lead to another.
        for chain in late() {
            if let Some((name, _)) = chain.refilled() {
                line(Line::Chain(name, None));
            }
        }
        // The jumps come before the rules. If the kernel refuses a rule in a chain that a hook already
        // leads to, its error names that rule. In the other order it would name the jump.
        for jump in &self.jumps {
            for rule in &jump.removed {
                line(Line::Delete(jump.chain, rule));
            }
            for (n, rule) in jump.inserted.iter().enumerate() {
                line(Line::Insert(jump.chain, n + 1, rule));
            }
        }
        for chain in late() {
            chain.write(counts.of(self.table, chain.name()), out);
        }
        self.write_deletions(out);
        put(out, Count::default(), Line::Commit);
    }

    /// Returns the created chains that are loaded in transactions of their own, each behind those that it leads to.
    fn early(&self) -> Vec<&ChainChange<'_>> {
        let created = self.chains.iter().filter_map(|chain| match chain {
            ChainChange::Create(name, rules) if Hook::of(name).is_none() => {
                Some((*name, (chain, *rules)))
            }
            _ => None,
        });
        let created: BTreeMap<&ChainName, (&ChainChange<'_>, &[Rule])> = created.collect();
        let mut early = Vec::new();
        if created.len() <= MOST_CREATED {
            return early;
        }
        let mut seen = BTreeSet::new();
        // A chain stands here twice: to look at its rules, and behind the chains that they lead to.
        let mut next: Vec<(&ChainName, bool)> =
            created.keys().rev().map(|name| (*name, false)).collect();
        while let Some((name, is_behind)) = next.pop() {
            let Some((chain, rules)) = created.get(name) else {
                continue;
            };
            if is_behind {
                early.push(*chain);
            } else if seen.insert(name) {
                next.push((name, true));
                let further = rules.iter().rev().filter_map(Rule::leads_to);
                next.extend(further.map(|name| (name, false)));
            }
        }
        // The table's own transaction creates the rest.
        early.truncate(early.len() - early.len() % MOST_CREATED);
        early
    }

    /// Empties all deleted chains before it deletes the first, since rules of one may lead to another.
    fn write_deletions(&self, out: &mut String) {
        let deleted = || {
            self.chains.iter().filter_map(|chain| match chain {
                ChainChange::Delete(name, _) => Some(*name),
                _ => None,
            })
        };
        for name in deleted() {
            put(out, Count::default(), Line::Flush(name));
        }
        for name in deleted() {
            put(out, Count::default(), Line::DeleteChain(name));
        }
    }
}

/// Writes the changes of foreign rules, which address rules by number: they come before anything else moves rules.
fn write_foreign<'c>(foreign: &'c [ForeignChange], line: &mut impl FnMut(Line<'c>)) {
    let of = |life| foreign.iter().filter(move |change| change.life == life);
    for change in of(ChainLife::Made) {
        line(Line::Chain(&change.chain, None));
    }
    for change in foreign.iter().filter(|one| one.life != ChainLife::Deleted) {
        for (at, _) in change.removed.iter().rev() {
            line(Line::DeleteAt(&change.chain, at + 1));
        }
        for (at, rule) in &change.inserted {
            line(Line::Insert(&change.chain, at + 1, rule));
        }
    }
    for change in of(ChainLife::Deleted) {
        line(Line::Flush(&change.chain));
    }
    for change in of(ChainLife::Deleted) {
        line(Line::DeleteChain(&change.chain));
    }
}

impl ChainChange<'_> {
    fn write(&self, counts: &[Count], out: &mut String) {
        let count = |to: usize| counts.get(to).copied().unwrap_or_default();
        if let Some((name, rules)) = self.refilled() {
            for (to, rule) in rules.iter().enumerate() {
                put(out, count(to), Line::Append(name, rule));
            }
        } else if let ChainChange::Edit { name, want, edits } = self {
            let growth = |edit: &ChainEdit<'_>| (edit.inserted.len(), edit.removed.len());
            let sums = edits.iter().map(growth);
            let (come, go) = sums.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
            let end = want.len() + go - come;
            // The last edit comes first, so that the indices of the earlier edits stay valid.
            for edit in edits.iter().rev() {
                for n in (0..edit.removed.len()).rev() {
                    put(out, Count::default(), Line::DeleteAt(name, edit.at + n + 1));
                }
                for (n, rule) in edit.inserted.iter().enumerate() {
                    let line = if edit.at + edit.removed.len() == end {
                        // iptables-nft reads the whole chain to insert at an index, which takes ten
                        // times as long (measured with 10,000 rules).
                        Line::Append(name, rule)
                    } else {
                        Line::Insert(name, edit.at + n + 1, rule)
                    };
                    put(out, count(edit.to + n), line);
                }
            }
        }
    }
}

/// Returns a script that sets nvactl's rules to those of `to`, whichever of `from`'s rules are still loaded. It
/// deletes no rule by its text or index, so it can be loaded any number of times. Chains that `to` does not
/// have are emptied, not deleted, because foreign rules may lead to them.
#[must_use]
pub fn refill(from: &Ruleset, to: &Ruleset) -> String {
    let mut chains = own(from);
    for (table, name, chain) in to.chains() {
        let mine = chains.chain_mut(table, name.clone());
        mine.policy = chain.policy;
        mine.rules.clone_from(&chain.rules);
        mine.rules.retain(Rule::is_loadable);
    }
    let mut out = String::new();
    for (table, names) in &chains.tables {
        let _ = writeln!(out, "{}", Line::Table(*table));
        for (name, chain) in names {
            match chain.policy {
                Some(policy) if name.is_builtin() && sets_policy(to) => {
                    let _ = writeln!(out, "{}", Line::Chain(name, Some(policy)));
                }
                None if name.is_own() => {
                    let _ = writeln!(out, "{}", Line::Chain(name, None));
                }
                _ => {}
            }
        }
        for name in names.keys().filter(|name| name.is_own()) {
            let rules = to.chain(*table, name).map_or(&[][..], |chain| &chain.rules);
            for rule in rules.iter().filter(|rule| rule.is_loadable()) {
                let _ = writeln!(out, "{}", Line::Append(name, rule));
            }
        }
        let _ = writeln!(out, "{}", Line::Commit);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::diff::{changes, refill, restorable};
    use crate::net::Family;
    use crate::netfilter::counters::Counters;
    use crate::netfilter::names::{ChainName, TableName};
    use crate::netfilter::ruleset::Ruleset;
    use crate::netfilter::text::parse::parse;
    use crate::plan::plan;

    const COMMENTED: &str = "-m comment --comment \"a\nb\" -j DROP";
    const UNREAD: &str = "-i \"x -j DROP";

    /// Returns a ruleset with these rules in FORWARD and in NVACTL-FORWARD.
    fn ruleset(forward: &[&str], own: &[&str]) -> Ruleset {
        let mut text = String::from("*filter\n:FORWARD DROP [0:0]\n:NVACTL-FORWARD - [0:0]\n");
        for (chain, rules) in [("FORWARD", forward), ("NVACTL-FORWARD", own)] {
            for rule in rules {
                text += &format!("-A {chain} {rule}\n");
            }
        }
        parse(&(text + "COMMIT\n")).expect("it is readable")
    }

    fn script(have: &Ruleset, want: &Ruleset) -> String {
        changes(have, want).script(&Counters::default())
    }

    const JUMP: &str = "-j NVACTL-FORWARD";

    /// Returns how many names iptables-nft compares to load a script, and checks that each chain exists when a rule
    /// leads to it.
    fn compared(have: &Ruleset, script: &str) -> usize {
        let have = have
            .chains()
            .map(|(table, name, _)| (table.as_str(), name.as_str()));
        let mut there: BTreeSet<(&str, &str)> = have.collect();
        let (mut table, mut named, mut steps) = ("", BTreeSet::new(), 0);
        for line in script.lines() {
            let mut words = line.split_ascii_whitespace();
            let name = match words.next().expect("a word") {
                "COMMIT" => {
                    named.clear();
                    continue;
                }
                "-A" | "-I" | "-D" | "-F" | "-X" => words.next().expect("a chain"),
                word => match word.split_at(1) {
                    ("*", of) => {
                        table = of;
                        continue;
                    }
                    (_, name) => {
                        there.insert((table, name));
                        name
                    }
                },
            };
            let to = line
                .rsplit(' ')
                .next()
                .filter(|to| to.starts_with("NVACTL-"));
            if let Some(to) = to.filter(|_| line.contains(" -g ") || line.contains(" -j ")) {
                assert!(there.contains(&(table, to)), "{line}");
            }
            steps += named.range(..name).count();
            named.insert(name);
        }
        steps
    }

    #[test]
    fn long_lists_are_loaded_in_a_time_that_grows_with_their_length() {
        let rules = |count: u32| {
            let list = |first: u32| {
                let nets = (0..count).map(|n| std::net::Ipv4Addr::from(first + n * 0x200));
                nets.map(|net| net.to_string())
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            let text = format!(
                "firewall: {{interface: eth0}}
networks: {{many: [{}], denied: [{}]}}
outbound: [{{name: out, allow_from: [many], allow_to: [internet, many], deny_from: [denied]}}]",
                list(0x0a00_0000),
                list(0x1400_0000)
            );
            let set = crate::yaml::read(text.as_bytes()).expect("it is valid");
            plan(&set, Family::V4)
        };
        let [few, some, many] = [10, 2_000, 12_000].map(rules);
        for have in [&Ruleset::default(), &few, &some] {
            let script = script(have, &many);
            let lines = script.lines().count();
            // In one transaction it would be more than a thousand.
            let each = compared(have, &script) / lines;
            assert!(each < 300, "{each} names for each of {lines} lines");
        }
        // Few chains are one transaction for each table.
        assert_eq!(script(&few, &some).matches("COMMIT").count(), 2);
    }

    #[test]
    fn rules_that_no_script_can_spell_are_deleted_by_their_index() {
        let want = ruleset(
            &[JUMP],
            &["-s 192.0.2.1/32 -j DROP", "-s 192.0.2.2/32 -j DROP"],
        );
        for broken in [COMMENTED, UNREAD] {
            // A foreign rule is left alone, and the jump comes before it.
            let own = ["-s 192.0.2.1/32 -j DROP", "-s 192.0.2.2/32 -j DROP"];
            let have = ruleset(&[JUMP, broken], &own);
            assert_eq!(script(&have, &want), "");
            let have = ruleset(&[broken, JUMP], &own);
            assert_eq!(
                script(&have, &want),
                "*filter\n-D FORWARD -j NVACTL-FORWARD\n-I FORWARD 1 -j NVACTL-FORWARD\nCOMMIT\n"
            );
            // In nvactl's chain such rules are deleted by their index.
            let have = ruleset(&[JUMP], &[own[0], broken, own[1], broken]);
            assert_eq!(
                script(&have, &want),
                "*filter\n-D NVACTL-FORWARD 4\n-D NVACTL-FORWARD 2\nCOMMIT\n"
            );
            let have = ruleset(&[JUMP], &[broken, own[1]]);
            assert_eq!(
                script(&have, &want),
                "*filter\n-D NVACTL-FORWARD 1\n-I NVACTL-FORWARD 1 -s 192.0.2.1/32 -j DROP\nCOMMIT\n"
            );
            // A report has a line for each rule.
            let report = changes(&have, &want).report();
            assert_eq!(report.lines().count(), 3, "{report}");
        }
    }

    #[test]
    fn a_rollback_leaves_out_rules_that_no_script_can_spell() {
        for broken in [COMMENTED, UNREAD] {
            let before = ruleset(&[JUMP], &[broken, "-j LOG"]);
            let after = ruleset(&[JUMP], &["-j RETURN"]);
            let own = ChainName::from("NVACTL-FORWARD");
            let length = |ruleset: &Ruleset| {
                let chain = ruleset.chain(TableName::Filter, &own);
                chain.map_or(0, |chain| chain.rules.len())
            };
            let back = restorable(&before, &after);
            assert_eq!(length(&back), 1);
            assert_eq!(
                script(&after, &back),
                "*filter\n:NVACTL-FORWARD - [0:0]\n-A NVACTL-FORWARD -j LOG\nCOMMIT\n"
            );
            // An unchanged chain needs no script.
            let same = restorable(&before, &before);
            assert_eq!(length(&same), 2);
            assert_eq!(script(&before, &same), "");
            let refilled = refill(&after, &before);
            assert!(
                refilled.contains("\n-A NVACTL-FORWARD -j LOG\nCOMMIT"),
                "{refilled}"
            );
            assert!(!refilled.contains("-j DROP"), "{refilled}");
        }
    }

    #[test]
    fn a_jump_that_no_script_can_spell_is_left_alone() {
        let jump = "-m comment --comment \"a\nb\" -j NVACTL-FORWARD";
        let want = ruleset(&[JUMP], &["-j LOG"]);
        let have = ruleset(&[jump, JUMP], &["-j LOG"]);
        assert_eq!(
            script(&have, &want),
            "*filter\n-D FORWARD -j NVACTL-FORWARD\n-I FORWARD 1 -j NVACTL-FORWARD\nCOMMIT\n"
        );
        assert_eq!(script(&ruleset(&[JUMP, jump], &["-j LOG"]), &want), "");
    }
}
