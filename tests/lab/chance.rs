//! Numbers for loops that try many moments. Their seed is printed, and can be given again.

use std::time::{SystemTime, UNIX_EPOCH};

/// The variable that gives the seed again.
pub const SEED: &str = "NVACTL_SEED";

#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// Starts with `$NVACTL_SEED`, else with the clock, and prints the seed for the one who has to
    /// repeat the run.
    pub fn new() -> Self {
        let given = std::env::var(SEED).ok();
        let seed = given.map_or_else(
            || {
                let since = SystemTime::now().duration_since(UNIX_EPOCH);
                u64::from(since.expect("the clock is set").subsec_nanos())
            },
            |seed| seed.parse().expect("the seed is a number"),
        );
        println!("{SEED}={seed}");
        Self::of(seed)
    }

    /// Starts with a seed.
    pub fn of(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Returns a number below `end` (xorshift64*, Vigna 2016).
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }

    /// Returns a place in a list of this length.
    pub fn index(&mut self, length: usize) -> usize {
        let length = u64::try_from(length).expect("it is short");
        usize::try_from(self.below(length)).expect("it is less")
    }
}
