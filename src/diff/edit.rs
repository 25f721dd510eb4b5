//! What separates two versions of one chain, in time that grows with the chain and not with its
//! square: where a layout changes, a chain of ten thousand rules may share none with what it becomes.

use std::collections::HashMap;

use crate::netfilter::rule::Rule;

/// Rules of one place exchanged for others; either side may be empty.
#[derive(Debug, PartialEq, Eq)]
pub struct Edit<'r> {
    /// The place of the first rule concerned in the chain as it is, counted from 0.
    pub at: usize,
    pub removed: &'r [Rule],
    /// The place of the first rule that comes in the chain as it will be, counted from 0.
    pub to: usize,
    pub inserted: &'r [Rule],
}

/// The fewest edits, if no rule occurs twice in a chain: as in patience sorting, the rules that stay
/// are the longest run that stands in the same order in both.
pub fn edits<'r>(have: &'r [Rule], want: &'r [Rule]) -> Vec<Edit<'r>> {
    let mut edits = Vec::new();
    let (mut at, mut to) = (0, 0);
    let end = (have.len(), want.len());
    for (stays, stands) in staying(have, want).into_iter().chain([end]) {
        if at < stays || to < stands {
            edits.push(Edit {
                at,
                removed: &have[at..stays],
                to,
                inserted: &want[to..stands],
            });
        }
        (at, to) = (stays + 1, stands + 1);
    }
    edits
}

/// The places of the rules that stay, in the chain as it is and as it will be, both rising.
fn staying(have: &[Rule], want: &[Rule]) -> Vec<(usize, usize)> {
    // Mostly nothing else is left between what both begin and what both end with.
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

/// The places of equal rules, in the order of the chain as it is. Of several that are equal the first
/// goes with the first.
fn pairs(have: &[Rule], want: &[Rule]) -> Vec<(usize, usize)> {
    let mut places: HashMap<&Rule, Vec<usize>> = HashMap::new();
    for (to, rule) in want.iter().enumerate().rev() {
        places.entry(rule).or_default().push(to);
    }
    let pair = |(at, rule): (usize, &Rule)| Some((at, places.get_mut(rule)?.pop()?));
    have.iter().enumerate().filter_map(pair).collect()
}

/// The longest choice of pairs that rises in both places, of pairs that rise in the first.
fn rising(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // For each length the pair that ends such a choice lowest, and for each pair the one before it.
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

    /// How many rules go and come.
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
        assert_eq!(made, want, "the edits lead to what is wanted");
        let sum = |of: fn(&Edit<'_>) -> usize| edits.iter().map(of).sum();
        (
            sum(|edit| edit.removed.len()),
            sum(|edit| edit.inserted.len()),
        )
    }

    #[test]
    fn no_rule_goes_that_could_stay() {
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
            // Of equal ones, one for one.
            ("aab", "ab", (1, 0)),
            ("ab", "aab", (0, 1)),
            // The first goes with the first, though one more could stay.
            ("aba", "bab", (2, 2)),
        ] {
            assert_eq!(cost(have, want), least, "{have:?} to {want:?}");
        }
    }

    /// With an algorithm whose time grows with the differences, too, this takes minutes.
    #[test]
    fn a_chain_of_ten_thousand_that_becomes_another_is_told_at_once() {
        let chain = |from: u32| -> Vec<Rule> {
            let comment = |n: u32| Match::Comment(n.to_string().into());
            let rule = |n| Rule::new([comment(n)], Target::Accept);
            (from..from + 100_000).map(rule).collect()
        };
        let (have, want) = (chain(0), chain(200_000));
        assert_eq!(edits(&have, &want).len(), 1);
        let turned: Vec<Rule> = have.iter().rev().cloned().collect();
        assert_eq!(staying(&have, &turned).len(), 1);
    }
}
