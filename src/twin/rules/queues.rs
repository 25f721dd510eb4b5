//! The nfqueues on which programs of the machine listen.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// The numbers of the queues with a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queues(BTreeSet<u16>);

impl Queues {
    /// Reads `/proc/net/netfilter/nfnetlink_queue`. It has a line for each queue, which begins with the queue's
    /// number (`seq_show` in `net/netfilter/nfnetlink_queue.c`).
    #[must_use]
    pub fn read(text: &str) -> Self {
        let number = |line: &str| line.split_whitespace().next()?.parse().ok();
        Self(text.lines().filter_map(number).collect())
    }

    /// Returns whether a program listens on a queue in a range. The kernel itself decides if there is no listener, in the
    /// twin as on the machine.
    #[must_use]
    pub fn listens(&self, range: RangeInclusive<u16>) -> bool {
        !range.is_empty() && self.0.range(range).next().is_some()
    }
}

/// Reads `3`, `3-5` or `3:5`.
#[must_use]
pub fn range(word: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = word.split_once(['-', ':']).unwrap_or((word, word));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_in_a_range() {
        let queues = Queues::read("    4  31621     0 2 65531     0     0        0  1\n");
        for (word, listens) in [("4", true), ("3", false), ("3-5", true), ("0:3", false)] {
            let range = range(word).expect("a range");
            assert_eq!(queues.listens(range), listens, "{word}");
        }
        assert_eq!(range("a"), None);
    }
}
