//! Random specs of every form, the same in each run.

use nvactl::forwards::ForwardSet;
use nvactl::yaml;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::chance::SEED;
use crate::generate::any_spec;

/// Returns some random specs, each with its text. With `$NVACTL_SEED` they are others.
pub fn random_specs(count: usize) -> impl Iterator<Item = (String, ForwardSet)> {
    let seed = std::env::var(SEED).ok();
    let seed: u64 = seed.map_or(0, |seed| seed.parse().expect("the seed is a number"));
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed.to_le_bytes().repeat(4));
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    (0..count).map(move |_| {
        let spec = any_spec().new_tree(&mut runner).expect("it makes one");
        let text = serde_yaml::to_string(&spec.current()).expect("it can be written");
        let set = yaml::read(text.as_bytes()).expect("it is valid");
        (text, set)
    })
}
