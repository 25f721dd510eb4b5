//! The time that one side of a proof has.

use std::time::{Duration, Instant};

/// The time that is left for some work, of which only a part may run at a time.
#[derive(Debug)]
pub(super) struct TimeLeft(Duration);

impl TimeLeft {
    pub(super) fn new(limit: Duration) -> Self {
        Self(limit)
    }

    /// Returns the time at which work that begins now must end.
    pub(super) fn deadline(&self, now: Instant) -> Instant {
        now + self.0
    }

    /// Takes the time away that the work took.
    pub(super) fn spend(&mut self, begin: Instant, end: Instant) {
        let took = end.saturating_duration_since(begin);
        self.0 = self.0.saturating_sub(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_side_does_not_lose_its_time_to_the_other() {
        let second = Duration::from_secs(1);
        let (mut old, mut new) = (TimeLeft::new(3 * second), TimeLeft::new(3 * second));
        let begin = Instant::now();
        old.spend(begin, begin + 2 * second);
        let next = begin + 2 * second;
        assert_eq!(new.deadline(next), next + 3 * second);
        new.spend(next, next + 4 * second);
        // The next copies follow.
        let last = next + 4 * second;
        assert_eq!(old.deadline(last), last + second);
        assert_eq!(new.deadline(last), last);
    }
}
