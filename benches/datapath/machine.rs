//! The machine on which this runs: what it lacks, what it is, and the processor that is taken.

use std::process::Command;

use rustix::process::{geteuid, setpriority_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::layouts::Backend;

/// What keeps the lab from being made here.
pub fn missing() -> Vec<String> {
    if !geteuid().is_root() {
        return vec!["namespaces and iptables need root".to_owned()];
    }
    let needs = [
        ("ip", "-V"),
        ("nsenter", "--version"),
        ("conntrack", "--version"),
        ("nft", "list ruleset"),
        (Backend::Nft.program(), "iptables -t nat -S"),
        (Backend::Legacy.program(), "iptables -t nat -S"),
        (Backend::Legacy.program(), "iptables -t raw -S"),
    ];
    let mut missing = Vec::new();
    for (program, args) in needs {
        let tried = Command::new("unshare")
            .args(["--net", "--mount", program])
            .args(args.split(' '))
            .output();
        match tried {
            Err(error) => return vec![format!("`unshare` does not start: {error}")],
            Ok(output) if !output.status.success() => {
                let reason = String::from_utf8_lossy(&output.stderr);
                missing.push(format!(
                    "`{program} {args}` does not work: {}",
                    reason.trim()
                ));
            }
            Ok(_) => {}
        }
    }
    missing
}

/// Keeps to one processor from here on, before all others who want it.
pub fn pin() {
    let allowed = sched_getaffinity(None).expect("it can be asked");
    let last = (0..CpuSet::MAX_CPU).rfind(|cpu| allowed.is_set(*cpu));
    let mut one = CpuSet::new();
    one.set(last.expect("this runs on one"));
    sched_setaffinity(None, &one).expect("it is allowed");
    setpriority_process(None, -20).expect("root may");
}

/// What a reader of the numbers must know of it.
pub fn facts() -> Vec<String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, model)| model);
    vec![
        format!("Linux {}", kernel.trim()),
        said(Backend::Nft.program(), &["iptables", "--version"]),
        said(Backend::Legacy.program(), &["iptables", "--version"]),
        said("nft", &["--version"]),
        format!("{model}, one processor"),
    ]
}

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_default()
}
