//! What nvactl itself costs, from a spec's text to iptables-restore text and back, by the number of
//! forwards. The kernel's part is not in it.
//!
//! `cargo bench --bench control`

use std::fmt::Write as _;

use divan::{Bencher, black_box};
use nvactl::counters::Counters;
use nvactl::diff;
use nvactl::net::Family;
use nvactl::parse::parse;
use nvactl::plan::plan;
use nvactl::spec;

const FORWARDS: [usize; 3] = [1, 100, 10_000];

fn main() {
    divan::main();
}

/// A spec of so many forwards, each with a port of its own.
fn text(forwards: usize) -> String {
    let mut text = "firewall:\n  interface: eth0\n  snat: 10.3.0.4\nforwards:\n".to_owned();
    for n in 0..forwards {
        let (port, third, fourth) = (10_000 + n, n / 250 % 250, n % 250 + 1);
        let _ = write!(
            text,
            "  - name: forward-{n}\n    listen: {port}\n    target:\n      pod: 10.224.{third}.{fourth}:80\n"
        );
    }
    text
}

fn whole(text: &str) -> String {
    let set = spec::read(text.as_bytes()).expect("it is sound");
    plan(&set, Family::V4).with_builtin_chains().to_string()
}

/// All that `nvactl render` does.
#[divan::bench(args = FORWARDS)]
fn render(bencher: Bencher<'_, '_>, forwards: usize) {
    let text = text(forwards);
    bencher.bench(|| whole(black_box(&text)));
}

#[divan::bench(args = FORWARDS)]
fn read_spec(bencher: Bencher<'_, '_>, forwards: usize) {
    let text = text(forwards);
    bencher.bench(|| spec::read(black_box(text.as_bytes())));
}

#[divan::bench(args = FORWARDS)]
fn plan_rules(bencher: Bencher<'_, '_>, forwards: usize) {
    let set = spec::read(text(forwards).as_bytes()).expect("it is sound");
    bencher.bench(|| plan(black_box(&set), Family::V4));
}

#[divan::bench(args = FORWARDS)]
fn parse_back(bencher: Bencher<'_, '_>, forwards: usize) {
    let rules = whole(&text(forwards));
    bencher.bench(|| parse(black_box(&rules)));
}

/// One forward in the middle has another port.
#[divan::bench(args = FORWARDS)]
fn diff_of_one(bencher: Bencher<'_, '_>, forwards: usize) {
    let text = text(forwards);
    let middle = format!("listen: {}\n", 10_000 + forwards / 2);
    let have = parse(&whole(&text)).expect("it is readable");
    let nothing = Counters::default();
    let other = text.replacen(&middle, "listen: 9999\n", 1);
    let want = plan(
        &spec::read(other.as_bytes()).expect("it is sound"),
        Family::V4,
    );
    bencher.bench(|| diff::changes(black_box(&have), black_box(&want)).script(&nothing));
}
