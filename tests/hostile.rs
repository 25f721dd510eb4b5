//! Specs that mean harm: a clear answer in bounded time and memory, never a panic.

use nvactl::spec::{self, MAX_PROBLEMS, MAX_VALUES};

fn codes(text: &str) -> Vec<&'static str> {
    let problems = spec::read(text.as_bytes()).expect_err("it is no spec");
    problems.iter().map(|problem| problem.kind.code()).collect()
}

#[test]
fn more_values_than_any_spec_has_are_not_collected() {
    let values = "a,".repeat(MAX_VALUES);
    assert_eq!(codes(&format!("forwards: [{values}]")), ["too-many-values"]);
}

#[test]
fn more_problems_than_anybody_reads_are_not_collected() {
    let text = format!(
        "firewall: {{interface: eth0, snat: 10.3.0.4}}\nforwards: [{}]",
        "a,".repeat(100_000)
    );
    assert_eq!(codes(&text).len(), MAX_PROBLEMS);
    let keys = "key: 1\n".repeat(100_000);
    assert_eq!(
        codes(&keys).len(),
        MAX_PROBLEMS + 2,
        "and the two keys that are missing"
    );
}
