//! The cost of the tests of a spec: `nvactl test` with one test, with 1,000, 4,000 and 16,000, in a copy that is made for
//! each run. A test of 16,000 must cost at most 1.5 times as much as one of 4,000: the time grows with the number of
//! tests alone. The time of 1,000 tests beyond that of one is reported.
//!
//! `cargo bench --bench packet_tests`, as root; ends with 1 if a test costs more, and with 2 where it cannot run.

#[path = "datapath/spread.rs"]
mod spread;

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use spread::{Spread, times};

const FORWARDS: u32 = 100;
const SIZES: [u32; 4] = [1, 1_000, 4_000, 16_000];
/// The most that a test of the most may cost, in terms of a test of those before.
const MOST: f64 = 1.5;
const ROUNDS: usize = 11;

fn main() -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        eprintln!("cannot run: it needs root");
        return ExitCode::from(2);
    }
    let folder = tempfile::tempdir().expect("there is a place for it");
    let mut code = ExitCode::SUCCESS;
    for backend in ["nft", "legacy"] {
        let mut seconds: [Vec<f64>; 4] = [const { Vec::new() }; 4];
        for _ in 0..ROUNDS {
            // In turn, so that a machine whose speed drifts drifts under all.
            for (tests, of_size) in SIZES.into_iter().zip(&mut seconds) {
                of_size.push(timed(folder.path(), tests, backend));
            }
        }
        let beyond = |size: usize| -> Vec<f64> {
            let each = seconds[size].iter().zip(&seconds[0]);
            each.map(|(size, one)| size - one).collect()
        };
        let each = |size: usize| -> Vec<f64> {
            let more = f64::from(SIZES[size] - 1);
            let beyond = beyond(size).into_iter();
            beyond.map(|seconds| seconds / more).collect()
        };
        let ratio = times(&each(3), &each(2));
        let [_, report, some, all] = SIZES;
        println!(
            "{backend}: one test takes {} s, and {report} take {} s more",
            Spread::of(seconds[0].clone()),
            Spread::of(beyond(1)),
        );
        println!("{backend}: a test of {all} / of {some}: {ratio}, at most {MOST}");
        if ratio.median > MOST {
            eprintln!("missed on {backend}: the time grows faster than the number of tests");
            code = ExitCode::FAILURE;
        }
    }
    code
}

/// Returns the seconds that `nvactl test` takes for a number of tests, which all pass.
fn timed(folder: &Path, tests: u32, backend: &str) -> f64 {
    let path = folder.join(format!("{tests}.yaml"));
    std::fs::write(&path, spec(tests)).expect("it can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nvactl"));
    command.args(["--backend", backend, "test"]).arg(&path);
    let start = Instant::now();
    let output = command.output().expect("it starts");
    let seconds = start.elapsed().as_secs_f64();
    assert!(output.status.success(), "{output:?}");
    seconds
}

/// Returns a spec of forwards with tests. Of four tests in turn, one is delivered by tcp, one by udp, one meets a rule
/// that drops it, and one ends at the machine.
fn spec(tests: u32) -> String {
    let mut text = String::from(
        "firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4}\nforwards:\n",
    );
    for n in 0..FORWARDS {
        let (tcp, udp) = (10_000 + n, 20_000 + n);
        let _ = writeln!(
            text,
            "  - {{name: t{n}, listen: {tcp}, target: {{pod: '10.224.0.8:{tcp}'}}, deny_from: [192.0.2.0/24]}}\n  \
             - {{name: u{n}, listen: {udp}, protocol: udp, target: {{pod: '10.224.0.8:{udp}'}}}}"
        );
    }
    text.push_str("tests:\n");
    for n in 0..tests {
        let host = n % 250 + 1;
        let (tcp, udp) = (10_000 + n % FORWARDS, 20_000 + n % FORWARDS);
        let keys = match n % 4 {
            0 => format!(
                "from: 198.51.100.{host}, to: {tcp}, reaches: '10.224.0.8:{tcp}', snat: 10.4.0.4"
            ),
            1 => format!(
                "from: 198.51.100.{host}, protocol: udp, to: {udp}, reaches: '10.224.0.8:{udp}'"
            ),
            2 => format!("from: 198.51.100.{host}, to: '10.224.0.8:{tcp}', reaches: nothing"),
            _ => format!("from: 192.0.2.{host}, to: {tcp}, reaches: nothing"),
        };
        let _ = writeln!(text, "  - {{{keys}}}");
    }
    text
}
