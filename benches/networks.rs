//! What a file of networks costs: 100,000 lines must be checked, and rendered for ten forwards, in at most 1.1 times
//! the time that the same list takes in the spec. And ten forwards with it must take at most 1.5 times the time
//! of one, since they share its chains.
//!
//! `cargo bench --bench networks`; ends with 1 when a ratio is above its limit.

use std::hint::black_box;
use std::io::{self, BufWriter, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use nvactl::net::Family;
use nvactl::plan::plan;
use nvactl::yaml::{self, NetworkFile, Reading};

const NETWORKS: usize = 100_000;
const ROUNDS: usize = 21;
const MOST_OF_INLINE: f64 = 1.1;
const MOST_OF_ONE: f64 = 1.5;

fn main() -> ExitCode {
    let nets: Vec<String> = (0..NETWORKS).map(net).collect();
    let (list, lines) = (nets.join(", "), nets.join("\n"));
    let inline = Case::new(&format!("[{list}]"), 10, "");
    let in_file = Case::new("{file: scanners.txt}", 10, &lines);
    let of_one = Case::new("{file: scanners.txt}", 1, &lines);
    let mut holds = true;
    for (what, one, other, work, most) in [
        (
            "check, file / inline",
            &inline,
            &in_file,
            check as Work,
            MOST_OF_INLINE,
        ),
        (
            "render, file / inline",
            &inline,
            &in_file,
            render,
            MOST_OF_INLINE,
        ),
        (
            "render, ten forwards / one",
            &of_one,
            &in_file,
            render,
            MOST_OF_ONE,
        ),
    ] {
        // In turn, so that a machine whose speed drifts drifts under both.
        let mut times: Vec<(f64, f64)> = (0..ROUNDS)
            .map(|_| (timed(work, one), timed(work, other)))
            .map(|(one, other)| (other / one, other))
            .collect();
        times.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (median, (lowest, _), (highest, _)) = (times[ROUNDS / 2], times[0], times[ROUNDS - 1]);
        let (ratio, time) = median;
        println!(
            "{what:<27} {ratio:.2} ({lowest:.2} to {highest:.2}; at most {most}; {:.0} ms)",
            time * 1e3
        );
        holds &= ratio <= most;
    }
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Returns the `n`th network. No two of them make up one.
fn net(n: usize) -> String {
    format!("{}.{}.{}.0/24", 11 + n / 32_768, n / 128 % 256, n % 128 * 2)
}

struct Case {
    spec: String,
    lines: String,
}

impl Case {
    fn new(networks: &str, forwards: usize, lines: &str) -> Self {
        let each = (0..forwards).map(|n| {
            format!("  - {{name: f{n}, listen: {}, target: {{ilb: 10.224.0.222}}, deny_from: [scanners]}}\n", 8000 + n)
        });
        let each: String = each.collect();
        Self {
            spec: format!(
                "firewall: {{interface: eth0, snat: 10.3.0.4}}\nnetworks:\n  scanners: {networks}\nforwards:\n{each}"
            ),
            lines: lines.to_owned(),
        }
    }

    /// Reads the spec as `nvactl check` does.
    fn examine(&self) -> Reading {
        let text = black_box(self.spec.as_bytes());
        let paths = yaml::network_paths(&[text]);
        let content = Ok(self.lines.as_bytes());
        let files = paths.iter().map(|path| NetworkFile {
            path,
            content: content.clone(),
        });
        yaml::examine_with(&[text], &files.collect::<Vec<_>>())
    }
}

type Work = fn(&Case);

fn check(case: &Case) {
    assert!(black_box(case.examine()).set.is_some());
}

fn render(case: &Case) {
    let set = case.examine().set.expect("it is valid");
    let rules = plan(&set, Family::V4).with_builtin_chains();
    write!(BufWriter::new(io::sink()), "{rules}").expect("a sink takes all");
}

fn timed(work: Work, case: &Case) -> f64 {
    let start = Instant::now();
    work(case);
    start.elapsed().as_secs_f64()
}
