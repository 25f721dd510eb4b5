//! Long tests: `tests/run` takes a sample of their cases, and `tests/long` all of them.
//!
//! `lab_test!(sampled NAME)` registers one. `tests/long` runs exactly these.

use crate::lab::Backend;

/// `tests/long` sets this variable.
const LONG: &str = "NVACTL_LONG";

fn is_long() -> bool {
    std::env::var_os(LONG).is_some()
}

/// Returns how many cases to try: `sample`, or `all` in `tests/long`.
pub fn count<N>(sample: N, all: N) -> N {
    if is_long() { all } else { sample }
}

/// Returns the first case of each kind, or every case in `tests/long`.
pub fn cases<C, K: PartialEq>(all: &[C], kind: impl Fn(&C) -> K) -> Vec<&C> {
    let mut seen = Vec::new();
    let mut is_new = |case: &C| {
        let kind = kind(case);
        let is_new = !seen.contains(&kind);
        seen.push(kind);
        is_new
    };
    let taken = all.iter().filter(|case| is_long() || is_new(case));
    taken.collect()
}

/// Returns whether a backend tries the case of this number: in `tests/run` the two take turns.
pub fn is_turn(n: usize, backend: Backend) -> bool {
    is_long() || n.is_multiple_of(2) == (backend == Backend::Nft)
}
