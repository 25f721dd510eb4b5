//! That an import costs no more for each rule when there are more of them: twice the rules take at most three times as
//! long, whatever the rules are.
//!
//! `cargo bench --bench import`; ends with 1 when any ratio is above the limit.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

const NVACTL: &str = env!("CARGO_BIN_EXE_nvactl");

const FEW: usize = 5_000;
const ROUNDS: usize = 5;
const MOST_TIMES: f64 = 3.0;

/// Writes the rules of a number of hosts: those of the table nat, and those of the table filter.
type Rules = fn(usize, &mut String, &mut String);

const KINDS: [(&str, Rules); 9] = [
    ("forwards of three rules", |hosts, nat, filter| {
        for host in 0..hosts {
            let (listen, to) = (address("10.200", host), address("10.1", host));
            add(
                nat,
                &format!(
                    "PREROUTING -d {listen} -i eth0 -p tcp -m tcp --dport 80 -j DNAT --to-destination {to}:80"
                ),
            );
            add(
                nat,
                &format!("POSTROUTING -d {to} -o eth1 -p tcp -m tcp --dport 80 -j MASQUERADE"),
            );
            add(
                filter,
                &format!("FORWARD -d {to} -o eth1 -p tcp -m tcp --dport 80 -j ACCEPT"),
            );
        }
    }),
    ("ports of one target", |ports, nat, filter| {
        for port in 1000..1000 + ports {
            add(
                nat,
                &format!(
                    "PREROUTING -i eth0 -p tcp -m tcp --dport {port} -j DNAT --to-destination {TARGET}"
                ),
            );
            add(
                nat,
                &format!(
                    "POSTROUTING -d {TARGET} -o eth1 -p tcp -m tcp --dport {port} -j MASQUERADE"
                ),
            );
            add(
                filter,
                &format!("FORWARD -d {TARGET} -o eth1 -p tcp -m tcp --dport {port} -j ACCEPT"),
            );
        }
    }),
    ("refused sources", |sources, nat, filter| {
        each_source(sources, |from| {
            add(filter, &format!("FORWARD -s {from} -j DROP"));
        });
        one_forward(nat, filter);
    }),
    ("accepted sources", |sources, nat, filter| {
        add(nat, ONE_DNAT);
        each_source(sources, |from| {
            add(
                filter,
                &format!("FORWARD -s {from} -d {TARGET} -p tcp -m tcp --dport 80 -j ACCEPT"),
            );
        });
    }),
    ("sources that return", |sources, nat, filter| {
        filter.push_str(":LIST - [0:0]\n-A FORWARD -i eth0 -j LIST\n");
        each_source(sources, |from| {
            add(filter, &format!("LIST -s {from} -j RETURN"));
        });
        add(filter, "LIST -j DROP");
        one_forward(nat, filter);
    }),
    (
        "sources that return and that do not",
        |sources, nat, filter| {
            filter.push_str(":LIST - [0:0]\n:ELSE - [0:0]\n-A FORWARD -i eth0 -j LIST\n");
            let mut targets = ["-j RETURN", "-j DROP", "-g ELSE"].into_iter().cycle();
            each_source(sources, |from| {
                let target = targets.next().unwrap_or_default();
                add(filter, &format!("LIST -s {from} {target}"));
            });
            one_forward(nat, filter);
        },
    ),
    ("redirected sources", |sources, nat, filter| {
        each_source(sources, |from| {
            add(
                nat,
                &format!(
                    "PREROUTING -s {from} -d 10.0.0.4 -p tcp -m tcp --dport 2000 -j DNAT --to-destination {TARGET}:80"
                ),
            );
        });
        one_forward(nat, filter);
    }),
    ("sources that are not redirected", |sources, nat, filter| {
        each_source(sources, |from| {
            add(nat, &format!("PREROUTING -s {from} -j RETURN"));
        });
        one_forward(nat, filter);
    }),
    (
        "outbound hosts, each with its address",
        |hosts, nat, filter| {
            for host in 0..hosts {
                let (from, own) = (address("10.1", host), address("203.0", host));
                add(
                    nat,
                    &format!("POSTROUTING -s {from} -o eth0 -j SNAT --to-source {own}"),
                );
                add(
                    filter,
                    &format!("FORWARD -s {from} -i eth1 -o eth0 -j ACCEPT"),
                );
            }
        },
    ),
];

const TARGET: &str = "10.1.0.5";
const ONE_DNAT: &str =
    "PREROUTING -d 10.0.0.4 -i eth0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.1.0.5:80";

fn one_forward(nat: &mut String, filter: &mut String) {
    add(nat, ONE_DNAT);
    add(
        filter,
        &format!("FORWARD -d {TARGET} -o eth1 -p tcp -m tcp --dport 80 -j ACCEPT"),
    );
}

fn add(rules: &mut String, rule: &str) {
    writeln!(rules, "-A {rule}").expect("a string takes all");
}

fn address(net: &str, host: usize) -> String {
    format!("{net}.{}.{}", host / 250, host % 250 + 1)
}

/// No two of the sources are neighbours, so each is a network of its own.
fn each_source(sources: usize, mut each: impl FnMut(&str)) {
    for source in 0..sources {
        each(&format!(
            "198.{}.{}.{}",
            18 + source / 25_000,
            source / 100 % 250,
            source % 100 * 2
        ));
    }
}

fn main() -> ExitCode {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let mut sound = true;
    println!("{} rules, times the time of {FEW}:", 2 * FEW);
    for (what, rules) in KINDS {
        let [few, many] = [FEW, 2 * FEW].map(|count| {
            let path = folder.path().join(count.to_string());
            std::fs::write(&path, text(rules, count)).expect("the rules can be written");
            path
        });
        // In turn, so that a machine whose speed drifts drifts under both.
        let mut ratios: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let few = timed(&few);
                timed(&many) / few
            })
            .collect();
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ROUNDS / 2];
        let holds = median <= MOST_TIMES;
        let verdict = if holds { "" } else { ": TOO MUCH" };
        println!("  {what:<40} {median:>6.2}, at most {MOST_TIMES}{verdict}");
        sound &= holds;
    }
    if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn text(rules: Rules, count: usize) -> String {
    let (mut nat, mut filter) = (String::new(), String::new());
    rules(count, &mut nat, &mut filter);
    format!(
        "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n{nat}COMMIT\n*filter\n:FORWARD DROP [0:0]\n{filter}COMMIT\n"
    )
}

/// Returns the seconds of an import.
fn timed(rules: &Path) -> f64 {
    let start = Instant::now();
    let status = Command::new(NVACTL)
        .args(["import", "--no-proof"])
        .arg(rules)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(status.expect("it starts").success());
    start.elapsed().as_secs_f64()
}
