//! Finds the edits between two versions of one chain. The time grows with the length of the chain, not with
//! its square: if the layout changes, a chain of ten thousand rules may share no rule with its new version.

use std::collections::HashMap;

use crate::netfilter::rule::Rule;

/// A run of rules that is replaced by another. Either run may be empty.
#[derive(Debug, PartialEq, Eq)]
pub struct ChainEdit<'r> {
    /// The index of the first replaced rule in the present chain, counted from 0.
    pub at: usize,
    pub removed: &'r [Rule],
    /// The index of the first new rule in the new chain, counted from 0.
    pub to: usize,
    pub inserted: &'r [Rule],
}

/// Returns the fewest edits, if no rule occurs twice in a chain. As in patience sorting, the kept rules are the
/// longest selection with the same order in both versions.
pub fn edits<'r>(have: &'r [Rule], want: &'r [Rule]) -> Vec<ChainEdit<'r>> {
    let mut edits = Vec::new();
    let (mut at, mut to) = (0, 0);
    let end = (have.len(), want.len());
    for (kept_at, kept_to) in kept(have, want).into_iter().chain([end]) {
        if at < kept_at || to < kept_to {
            edits.push(ChainEdit {
                at,
                removed: &have[at..kept_at],
                to,
                inserted: &want[to..kept_to],
            });
        }
        (at, to) = (kept_at + 1, kept_to + 1);
    }
    edits
}

/// Returns the indices of the kept rules in the present and in the new chain, both rising.
fn kept(have: &[Rule], want: &[Rule]) -> Vec<(usize, usize)> {
    // Mostly the two differ only in the rules between a common beginning and a common end.
    let same = |(one, other): &(&Rule, &Rule)| one == other;
    let front = have.iter().zip(want).take_while(same).count();
    let (inner_have, inner_want) = (&have[front..], &want[front..]);
    let ends = inner_have.iter().rev().zip(inner_want.iter().rev());
    let back = ends.take_while(same).count();
    let inner_have = &inner_have[..inner_have.len() - back];
    let inner_want = &inner_want[..inner_want.len() - back];

    let before = (0..front).map(|n| (n, n));
    let within = rising(&pairs(inner_have, inner_want)).into_iter();
    let within = within.map(|(at, to)| (front + at, front + to));
    let behind = (0..back).rev();
    let behind = behind.map(|n| (have.len() - 1 - n, want.len() - 1 - n));
    before.chain(within).chain(behind).collect()
}

/// Pairs the indices of equal rules, in the order of the present chain. The first of several equal rules is
/// paired with the first.
fn pairs(have: &[Rule], want: &[Rule]) -> Vec<(usize, usize)> {
    let mut places: HashMap<&Rule, Vec<usize>> = HashMap::new();
    for (to, rule) in want.iter().enumerate().rev() {
        places.entry(rule).or_default().push(to);
    }
    let pair = |(at, rule): (usize, &Rule)| Some((at, places.get_mut(rule)?.pop()?));
    have.iter().enumerate().filter_map(pair).collect()
}

/// Returns the longest selection of pairs that rises in both indices. The pairs given rise in the first.
pub fn rising(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // `ends` holds, for each length, the pair with the lowest second index that ends such a selection.
    // `before` holds, for each pair, the pair before it.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (n, (_, to)) in pairs.iter().enumerate() {
        let length = ends.partition_point(|end| pairs[*end].1 < *to);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        if length == ends.len() {
            ends.push(n);
        } else {
            ends[length] = n;
        }
    }
    let mut chosen: Vec<(usize, usize)> =
        std::iter::successors(ends.last().copied(), |n| before[*n])
            .map(|n| pairs[n])
            .collect();
    chosen.reverse();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netfilter::matches::Match;
    use crate::netfilter::target::Target;

    fn rules(names: &str) -> Vec<Rule> {
        let comment = |name: char| Match::Comment(name.to_string().into());
        let rule = |name| Rule::new([comment(name)], Target::Accept);
        names.chars().map(rule).collect()
    }

    /// Returns how many rules are removed and how many are added.
    fn cost(have: &str, want: &str) -> (usize, usize) {
        let (have, want) = (rules(have), rules(want));
        let edits = edits(&have, &want);
        let mut made = have.clone();
        for edit in edits.iter().rev() {
            let removed = edit.at..edit.at + edit.removed.len();
            assert_eq!(&have[removed.clone()], edit.removed);
            assert_eq!(&want[edit.to..edit.to + edit.inserted.len()], edit.inserted);
            made.splice(removed, edit.inserted.iter().cloned());
        }
        assert_eq!(made, want, "the edits lead to the new chain");
        let sum = |of: fn(&ChainEdit<'_>) -> usize| edits.iter().map(of).sum();
        (
            sum(|edit| edit.removed.len()),
            sum(|edit| edit.inserted.len()),
        )
    }

    #[test]
    fn the_edits_keep_as_many_rules_as_possible() {
        for (have, want, least) in [
            ("", "", (0, 0)),
            ("abc", "abc", (0, 0)),
            ("", "ab", (0, 2)),
            ("ab", "", (2, 0)),
            ("abc", "axc", (1, 1)),
            ("abc", "xabcy", (0, 2)),
            ("abcd", "dabc", (1, 1)),
            ("abcdef", "fbcdea", (2, 2)),
            ("abc", "xyz", (3, 3)),
            ("edcba", "abcde", (4, 4)),
            // Equal rules are paired one to one.
            ("aab", "ab", (1, 0)),
            ("ab", "aab", (0, 1)),
            // The first is paired with the first, though one more rule could be kept.
            ("aba", "bab", (2, 2)),
        ] {
            assert_eq!(cost(have, want), least, "{have:?} to {want:?}");
        }
    }

    /// An algorithm whose time also grows with the number of differences would take minutes.
    #[test]
    fn two_long_chains_without_a_common_rule_are_compared_fast() {
        let chain = |from: u32| -> Vec<Rule> {
            let comment = |n: u32| Match::Comment(n.to_string().into());
            let rule = |n| Rule::new([comment(n)], Target::Accept);
            (from..from + 100_000).map(rule).collect()
        };
        let (have, want) = (chain(0), chain(200_000));
        assert_eq!(edits(&have, &want).len(), 1);
        let turned: Vec<Rule> = have.iter().rev().cloned().collect();
        assert_eq!(kept(&have, &turned).len(), 1);
    }
}
