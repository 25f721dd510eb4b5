//! What nvactl itself costs, from a spec's text to iptables-restore text and back, in time and in
//! memory, by the number of forwards. The kernel's part is not in it.
//!
//! `cargo bench --bench control`; `max alloc` is the most that was held at once, over what the bench
//! was given.

mod forwards;

use divan::{AllocProfiler, Bencher, black_box};
use forwards::{listen, spec as text};
use nvactl::diff;
use nvactl::diff::drift;
use nvactl::forwards::ForwardSet;
use nvactl::net::Family;
use nvactl::netfilter::counters::Counters;
use nvactl::netfilter::ruleset::Ruleset;
use nvactl::netfilter::text::parse::parse;
use nvactl::plan::plan;
use nvactl::yaml;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const FORWARDS: [usize; 4] = [1, 100, 10_000, 100_000];

fn main() {
    divan::main();
}

fn read(text: &str) -> ForwardSet {
    yaml::read(text.as_bytes()).expect("it is sound")
}

fn planned(text: &str) -> Ruleset {
    plan(&read(text), Family::V4).with_builtin_chains()
}

/// Where one forward in the middle has another port.
fn changed(forwards: usize) -> String {
    let middle = format!("listen: {}\n", listen(forwards / 2, forwards));
    text(forwards).replacen(&middle, "listen: 9999\n", 1)
}

/// All that `nvactl render` does.
#[divan::bench(args = FORWARDS)]
fn render(bencher: Bencher<'_, '_>, forwards: usize) {
    let text = text(forwards);
    bencher.bench(|| planned(black_box(&text)).to_string());
}

/// `nvactl check`.
#[divan::bench(args = FORWARDS)]
fn read_spec(bencher: Bencher<'_, '_>, forwards: usize) {
    let text = text(forwards);
    bencher.bench(|| yaml::read(black_box(text.as_bytes())));
}

#[divan::bench(args = FORWARDS)]
fn plan_rules(bencher: Bencher<'_, '_>, forwards: usize) {
    let set = read(&text(forwards));
    bencher.bench(|| plan(black_box(&set), Family::V4));
}

#[divan::bench(args = FORWARDS)]
fn print_rules(bencher: Bencher<'_, '_>, forwards: usize) {
    let rules = planned(&text(forwards));
    bencher.bench(|| black_box(&rules).to_string());
}

#[divan::bench(args = FORWARDS)]
fn parse_back(bencher: Bencher<'_, '_>, forwards: usize) {
    let rules = planned(&text(forwards)).to_string();
    bencher.bench(|| parse(black_box(&rules)));
}

/// Nothing is to be changed.
#[divan::bench(args = FORWARDS)]
fn diff_of_none(bencher: Bencher<'_, '_>, forwards: usize) {
    let want = planned(&text(forwards));
    let have = parse(&want.to_string()).expect("it is readable");
    bencher.bench(|| diff::changes(black_box(&have), black_box(&want)).is_empty());
}

#[divan::bench(args = FORWARDS)]
fn diff_of_one(bencher: Bencher<'_, '_>, forwards: usize) {
    let have = planned(&text(forwards));
    let want = planned(&changed(forwards));
    let nothing = Counters::default();
    bencher.bench(|| diff::changes(black_box(&have), black_box(&want)).script(&nothing));
}

#[divan::bench(args = FORWARDS)]
fn compare_of_one(bencher: Bencher<'_, '_>, forwards: usize) {
    let have = planned(&text(forwards));
    let want = read(&changed(forwards));
    bencher.bench(|| drift::compare(black_box(&have), black_box(&want), Family::V4));
}
