//! Keeps the counters of a rule that moves from one of nvactl's chains to another, or within one: for a
//! reader of counters it is the same rule.

use std::collections::{HashMap, VecDeque};

use super::{ChainChange, Changes, TableChanges};
use crate::netfilter::counters::{Count, Counters};
use crate::netfilter::names::TableName;
use crate::netfilter::rule::Rule;
use crate::plan::{ADMIT, EXIT};

impl Changes<'_> {
    /// Returns the initial counts of the added rules, by their index in the new chains. They are the counts, in
    /// `counters`, of the equal rules that are removed from the same table.
    #[must_use]
    pub fn carried(&self, counters: &Counters) -> Counters {
        let mut carried = Counters::default();
        for table in &self.tables {
            table.carry(counters, &mut carried);
        }
        carried
    }
}

impl TableChanges<'_> {
    /// Pairs equal rules in their order: the first removed with the first added. If more are removed than
    /// added, the last added rule gets the remaining counts as well, so that no packet is lost.
    fn carry(&self, counters: &Counters, carried: &mut Counters) {
        let table = self.table;
        let chains = || {
            self.chains
                .iter()
                .filter(move |chain| counts_alone(table, chain))
        };
        let mut gone: HashMap<&Rule, VecDeque<Count>> = HashMap::new();
        for chain in chains() {
            let counts = counters.of(self.table, chain.name());
            for (at, rules) in chain.removed() {
                let counts = counts.get(at..).unwrap_or_default();
                for (rule, count) in rules.iter().zip(counts) {
                    gone.entry(rule).or_default().push_back(*count);
                }
            }
        }
        gone.retain(|_, counts| counts.iter().any(|count| *count != Count::default()));
        if gone.is_empty() {
            return;
        }
        let come = || {
            chains().flat_map(|chain| {
                let each = chain.inserted().into_iter();
                each.flat_map(|(to, rules)| (to..).zip(rules))
                    .map(|(to, rule)| (chain.name(), to, rule))
            })
        };
        for (chain, to, rule) in come() {
            if let Some(count) = gone.get_mut(rule).and_then(VecDeque::pop_front) {
                carried.add_at(self.table, chain, to, count);
            }
        }
        for (chain, to, rule) in come().collect::<Vec<_>>().into_iter().rev() {
            for count in gone.remove(rule).into_iter().flatten() {
                carried.add_at(self.table, chain, to, count);
            }
        }
    }
}

/// Returns whether a rule's count in this chain has a meaning of its own. The counts of an ADMIT chain have one
/// only together ([`Counters::refused`]), and a new ADMIT chain differs from every old one. So do those of an outbound
/// entry's verdicts.
fn counts_alone(table: TableName, chain: &ChainChange<'_>) -> bool {
    let name = chain.name().as_str();
    let judges = table == TableName::Filter && name.starts_with(EXIT);
    !judges && !name.starts_with(ADMIT)
}

#[cfg(test)]
mod tests {
    use crate::diff::changes;
    use crate::netfilter::counters::Counters;
    use crate::netfilter::text::parse::{parse, parse_counted};

    /// Returns the script from one ruleset to the other, both given as the lines of the nat table.
    fn script(have: &str, want: &str) -> String {
        let text = |lines: &str| format!("*nat\n{lines}\nCOMMIT\n");
        let (have, counters) = parse_counted(&text(have)).expect("it is readable");
        let want = parse(&text(want)).expect("it is readable");
        let changes = changes(&have, &want);
        changes.script(&changes.carried(&counters))
    }

    #[test]
    fn a_rule_that_moves_to_another_chain_keeps_its_counters() {
        let have = ":NVACTL-A - [0:0]\n:NVACTL-B - [0:0]\n\
                    [1:10] -A NVACTL-A -m comment --comment one -j RETURN\n\
                    [2:20] -A NVACTL-A -m comment --comment two -j RETURN\n\
                    [3:30] -A NVACTL-A -m comment --comment three -j RETURN\n\
                    [4:40] -A NVACTL-B -m comment --comment four -j RETURN";
        let want = ":NVACTL-A - [0:0]\n:NVACTL-B - [0:0]\n:NVACTL-C - [0:0]\n\
                    -A NVACTL-A -m comment --comment one -j RETURN\n\
                    -A NVACTL-B -m comment --comment two -j RETURN\n\
                    -A NVACTL-B -m comment --comment four -j RETURN\n\
                    -A NVACTL-C -m comment --comment new -j RETURN\n\
                    -A NVACTL-C -m comment --comment three -j RETURN";
        assert_eq!(
            script(have, want),
            "*nat\n:NVACTL-C - [0:0]\n-D NVACTL-A 3\n-D NVACTL-A 2\n\
             [2:20] -I NVACTL-B 1 -m comment --comment two -j RETURN\n\
             -A NVACTL-C -m comment --comment new -j RETURN\n\
             [3:30] -A NVACTL-C -m comment --comment three -j RETURN\nCOMMIT\n"
        );
    }

    #[test]
    fn a_rule_that_moves_within_a_chain_keeps_its_counters() {
        let have = ":NVACTL-A - [0:0]\n\
                    [1:10] -A NVACTL-A -m comment --comment one -j RETURN\n\
                    [2:20] -A NVACTL-A -m comment --comment two -j RETURN";
        let want = ":NVACTL-A - [0:0]\n\
                    -A NVACTL-A -m comment --comment two -j RETURN\n\
                    -A NVACTL-A -m comment --comment one -j RETURN";
        let script = script(have, want);
        assert!(
            script.contains("\n[1:10] -A NVACTL-A ") ^ script.contains("\n[2:20] -I NVACTL-A ")
        );
    }

    #[test]
    fn the_sum_of_the_counts_of_equal_rules_is_kept() {
        let equal = "-m comment --comment one -j RETURN";
        let three = format!(
            ":NVACTL-A - [0:0]\n:NVACTL-B - [0:0]\n\
             [1:10] -A NVACTL-A {equal}\n[2:20] -A NVACTL-A {equal}\n[3:30] -A NVACTL-B {equal}"
        );
        let two = format!(
            ":NVACTL-C - [0:0]\n:NVACTL-D - [0:0]\n-A NVACTL-C {equal}\n-A NVACTL-D {equal}"
        );
        let script = script(&three, &two);
        assert!(script.contains(&format!("\n[1:10] -A NVACTL-C {equal}\n[5:50] -A NVACTL-D")));
    }

    #[test]
    fn a_different_rule_starts_at_zero() {
        for (have, want) in [
            // The target differs. (An equal rule of another table would be a different rule, too.)
            (
                ":NVACTL-A - [0:0]\n[1:10] -A NVACTL-A -m comment --comment one -j RETURN",
                ":NVACTL-B - [0:0]\n-A NVACTL-B -m comment --comment one -j ACCEPT",
            ),
            // The counts of an ADMIT chain have a meaning only together.
            (
                ":NVACTL-ADMIT-1 - [0:0]\n[1:10] -A NVACTL-ADMIT-1 -m comment --comment one -j ACCEPT",
                ":NVACTL-ADMIT-2 - [0:0]\n-A NVACTL-ADMIT-2 -j RETURN\n\
                 -A NVACTL-ADMIT-2 -m comment --comment one -j ACCEPT",
            ),
        ] {
            let script = script(have, want);
            assert!(!script.contains('[') || !script.contains("\n["), "{script}");
        }
    }

    #[test]
    fn no_counts_are_carried_if_none_were_read() {
        let have = parse("*nat\n:NVACTL-A - [0:0]\n-A NVACTL-A -j RETURN\nCOMMIT\n");
        let want = parse("*nat\n:NVACTL-B - [0:0]\n-A NVACTL-B -j RETURN\nCOMMIT\n");
        let (have, want) = (have.expect("it is readable"), want.expect("it is readable"));
        let carried = changes(&have, &want).carried(&Counters::default());
        assert_eq!(carried, Counters::default());
    }
}
