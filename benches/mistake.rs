//! What a mistake costs: 10,000 forwards with one at the end must be read, and the mistake found and
//! shown, in at most twice the time that the sound file takes.
//!
//! `cargo bench --bench mistake`; ends with 1 when the ratio is above the limit.

mod forwards;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nvactl::yaml::places::Places;
use nvactl::yaml::{self, page};

const FORWARDS: usize = 10_000;
const ROUNDS: usize = 21;
const LIMIT: f64 = 2.0;

fn main() -> ExitCode {
    let sound = forwards::spec(FORWARDS);
    let broken = format!("{}:99999\n", sound.trim_end().trim_end_matches(":80"));
    assert!(yaml::read(sound.as_bytes()).is_ok());
    assert_eq!(
        yaml::read(broken.as_bytes())
            .expect_err("one mistake")
            .len(),
        1
    );

    // In turn, so that a machine whose speed drifts drifts under both.
    let mut ratios: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let good = timed(&sound);
            let bad = timed(&broken);
            bad.as_secs_f64() / good.as_secs_f64()
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ROUNDS / 2];
    println!(
        "one mistake at the end of {FORWARDS} forwards: {median:.2} times the sound file \
         ({:.2} to {:.2}; at most {LIMIT})",
        ratios[0],
        ratios[ROUNDS - 1]
    );
    if median <= LIMIT {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What `check` does with a text: read it, and render the pages of what is wrong.
fn timed(text: &str) -> Duration {
    let start = Instant::now();
    let mut problems = yaml::examine(black_box(text.as_bytes())).problems;
    problems.retain(|problem| problem.severity() != yaml::Severity::Note);
    black_box(page::pages(
        &Places::new([("x", text.as_bytes())]),
        &problems,
        &page::renderer(true),
    ));
    start.elapsed()
}
