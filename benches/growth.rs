//! That nothing costs more for each forward when there are more of them: 100,000 take at most 12
//! times as long as 10,000, and `nvactl render` at most 40 bytes of memory for each byte of a spec.
//! And that nvactl starts quickly: `nvactl --version` takes at most three times as long as
//! `/bin/true`.
//!
//! `cargo bench --bench growth`; ends with 1 when any of it is above its limit.

mod forwards;

use std::hint::black_box;
use std::io::{self, BufWriter, Read as _, Write as _};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use forwards::{listen, spec as text};
use nvactl::diff::{self, drift};
use nvactl::forwards::ForwardSet;
use nvactl::net::Family;
use nvactl::netfilter::counters::Counters;
use nvactl::netfilter::ruleset::Ruleset;
use nvactl::netfilter::text::parse::parse;
use nvactl::plan::plan;
use nvactl::yaml;

const NVACTL: &str = env!("CARGO_BIN_EXE_nvactl");

const FEW: usize = 10_000;
const MANY: usize = 100_000;
const MOST_TIMES: f64 = 12.0;
const MOST_BYTES_FOR_A_BYTE: f64 = 40.0;
const MOST_TIMES_OF_TRUE: f64 = 3.0;

const ROUNDS: usize = 7;
const STARTS: usize = 201;

fn main() -> ExitCode {
    let all = text(MANY);
    let (few, many) = (Case::new(&first(FEW, &all), FEW), Case::new(&all, MANY));
    let mut sound = true;
    println!("{MANY} forwards, times the time of {FEW}:");
    for (what, work) in WORK {
        let (ratio, each) = median_ratio(ROUNDS, || timed(|| work(&few)), || timed(|| work(&many)));
        sound &= holds(what, ratio, MOST_TIMES, &format!("{:.0} ms", each * 1e3));
    }
    println!("what `nvactl render` holds at once, in bytes for each of the spec's:");
    for case in [&few, &many] {
        let bytes = case.text.len();
        let held = held_by_render(&case.text);
        let words = format!("{:.1} MB for {:.1} MB", mega(held), mega(bytes));
        let what = format!("{} forwards", case.forwards);
        sound &= holds(
            &what,
            real(held) / real(bytes),
            MOST_BYTES_FOR_A_BYTE,
            &words,
        );
    }
    println!("times the time of /bin/true:");
    let start = |program: &str| timed(|| run(program));
    let (ratio, each) = median_ratio(STARTS, || start("/bin/true"), || start(NVACTL));
    sound &= holds(
        "nvactl --version",
        ratio,
        MOST_TIMES_OF_TRUE,
        &format!("{:.2} ms", each * 1e3),
    );
    if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A spec, its plan, one in which a forward in the middle has another port, and one in which all
/// leave by another address.
struct Case {
    forwards: usize,
    text: String,
    rules: String,
    have: Ruleset,
    want: Ruleset,
    other: ForwardSet,
    moved: Ruleset,
}

/// The spec of the first so many of many forwards: each costs what it costs among the others.
fn first(forwards: usize, text: &str) -> String {
    let behind = format!("  - name: forward-{forwards}\n");
    let (first, _) = text.split_once(&behind).expect("there are more");
    first.to_owned()
}

impl Case {
    fn new(text: &str, forwards: usize) -> Self {
        let middle = format!("listen: {}\n", listen(forwards / 2, MANY));
        let other = read(&text.replacen(&middle, "listen: 9999\n", 1));
        let have = plan(&read(text), Family::V4).with_builtin_chains();
        let moved = read(&text.replacen("snat: 10.3.0.4", "snat: 10.3.0.9", 1));
        Self {
            forwards,
            rules: have.to_string(),
            have,
            want: plan(&other, Family::V4),
            moved: plan(&moved, Family::V4),
            text: text.to_owned(),
            other,
        }
    }
}

fn read(text: &str) -> ForwardSet {
    yaml::read(text.as_bytes()).expect("it is sound")
}

type Work = fn(&Case);

/// What is measured, and how it is called.
const WORK: [(&str, Work); 4] = [
    ("check, plan and print", |case| {
        let planned = plan(&read(&case.text), Family::V4).with_builtin_chains();
        // As `nvactl render` does: the text is nowhere whole.
        let mut out = BufWriter::new(io::sink());
        write!(out, "{planned}").expect("a sink takes all");
    }),
    ("read back, what changes", |case| {
        let have = parse(&case.rules).expect("it is readable");
        black_box(diff::changes(&have, &case.want).script(&Counters::default()));
    }),
    ("what changes, of each", |case| {
        black_box(diff::changes(&case.have, &case.moved).script(&Counters::default()));
    }),
    ("what changes, in words", |case| {
        black_box(drift::compare(&case.have, &case.other, Family::V4));
    }),
];

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// How many times as long the other takes, and how long it takes: in turn, so that a machine whose
/// speed drifts drifts under both.
fn median_ratio(rounds: usize, one: impl Fn() -> f64, other: impl Fn() -> f64) -> (f64, f64) {
    let (mut ratios, mut times) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (one, other) = (one(), other());
        ratios.push(other / one);
        times.push(other);
    }
    ratios.sort_by(f64::total_cmp);
    times.sort_by(f64::total_cmp);
    (ratios[rounds / 2], times[rounds / 2])
}

/// The most memory that the process has, its program's own included.
fn held_by_render(text: &str) -> usize {
    let path = std::env::temp_dir().join(format!("nvactl-growth-{}.yaml", std::process::id()));
    std::fs::write(&path, text).expect("the spec can be written");
    let mut render = Command::new(NVACTL)
        .args(["render".as_ref(), path.as_os_str()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut out = render.stdout.take().expect("it is piped");
    // From its first byte on there is a plan, and the process is there until the last is read.
    out.read_exact(&mut [0]).expect("it prints");
    let status = std::fs::read_to_string(format!("/proc/{}/status", render.id()));
    io::copy(&mut out, &mut io::sink()).expect("it prints on");
    let ended = render.wait().expect("it ends");
    std::fs::remove_file(&path).expect("the spec is still there");
    assert!(ended.success(), "{ended}");
    let status = status.expect("the kernel tells");
    let mut words = status.split_ascii_whitespace();
    let kibibytes = words.find(|word| *word == "VmHWM:").and(words.next());
    1024 * kibibytes
        .and_then(|number| number.parse::<usize>().ok())
        .expect("it is a number")
}

fn run(program: &str) {
    let run = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    assert!(run.expect("it starts").success());
}

/// Prints what was measured, and whether it is within its limit.
fn holds(what: &str, measured: f64, most: f64, words: &str) -> bool {
    let holds = measured <= most;
    let verdict = if holds { "" } else { ": TOO MUCH" };
    println!("  {what:<24} {measured:>6.2}, at most {most} ({words}){verdict}");
    holds
}

fn mega(bytes: usize) -> f64 {
    real(bytes) / 1e6
}

fn real(number: usize) -> f64 {
    f64::from(u32::try_from(number).expect("it is no more than 4 GB"))
}
