//! What rules have counted stays theirs, wherever a change puts them.

use crate::fake::{fake, unfake};
use crate::firewall::{SPEC, apply, firewall};
use crate::lab::Backend;
use crate::namespace::Host;
use crate::nvactl;

/// Chains, policies and rules with their counters, in no order.
fn counted(host: &Host) -> Vec<String> {
    let saved = host.run("iptables-save -c");
    let lines = saved.lines().filter(|line| !line.starts_with('#'));
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    lines.sort();
    lines
}

fn load_counted(host: &Host, text: &str) {
    let output = host.feed("iptables-restore", &["--counters"], text);
    assert!(output.status.success(), "{output:?}");
}

/// Counters of its own for each rule and each policy of iptables-save text. On legacy any change of a
/// table sets the counters of its policies back, a mere `iptables -A` does (measured, 1.8.9).
fn with_counts(backend: Backend, saved: &str) -> String {
    let policies = backend == Backend::Nft;
    let lines = saved.lines().zip(1..).map(|(line, n)| {
        if line.starts_with("-A ") {
            format!("[{n}:{n}00] {line}\n")
        } else if policies && line.starts_with(':') && !line.contains(" - ") {
            line.replace("[0:0]", &format!("[{n}:{n}0]")) + "\n"
        } else {
            format!("{line}\n")
        }
    });
    lines.collect()
}

/// The chain beside one of nvactl's.
fn other(chain: &str) -> String {
    chain.replace("NVACTL-", "NVACTL-OTHER-")
}

/// Puts the rules of one forward into a chain beside, as another layout would have it.
fn elsewhere(saved: &str) -> String {
    let mut out = String::new();
    for line in saved.lines() {
        if line.starts_with("-A NVACTL-") && line.contains("--comment web ") {
            let (chain, rest) = line["-A ".len()..].split_once(' ').expect("a rule");
            let other = other(chain);
            out += &format!("-A {chain} -j {other}\n-A {other} {rest}\n");
        } else {
            out += line;
            out.push('\n');
            if let Some((chain, "- [0:0]")) = line.split_once(' ') {
                out += &format!("{} - [0:0]\n", other(chain));
            }
        }
    }
    out
}

/// A forward of others', rules of others beside it, and rules of the firewall itself.
fn furnished(backend: Backend) -> Host {
    let host = firewall(backend);
    apply(&host, SPEC);
    host.run("iptables -A INPUT -p udp -j ACCEPT");
    host.run("iptables -A FORWARD -i eth9 -j ACCEPT");
    host.run("iptables -t nat -A POSTROUTING -o eth9 -j MASQUERADE");
    host
}

lab_test!(a_moved_rule_keeps_its_counters);
fn a_moved_rule_keeps_its_counters(backend: Backend) {
    let host = furnished(backend);
    let saved = host.run("iptables-save");
    let moved = with_counts(backend, &elsewhere(&saved));
    load_counted(&host, &moved);
    let said = apply(&host, SPEC);
    assert!(said.stdout.contains("3 rules added"), "{said:?}");
    let beside = |line: &&str| {
        line.starts_with('#')
            || line.starts_with(":NVACTL-OTHER")
            || line.contains("-j NVACTL-OTHER")
    };
    let back = |line: &str| line.replace("NVACTL-OTHER-", "NVACTL-");
    let lines = moved.lines().filter(|line| !beside(line));
    let mut left: Vec<String> = lines.map(back).collect();
    left.sort();
    assert_eq!(counted(&host), left);
}

lab_test!(an_undone_change_restores_the_counters);
/// A table that was loaded is undone as the next one fails: what had gone from it comes back as if it
/// had never gone.
fn an_undone_change_restores_the_counters(backend: Backend) {
    let host = furnished(backend);
    load_counted(&host, &with_counts(backend, &host.run("iptables-save")));
    let before = counted(&host);
    fake(
        &host,
        "iptables-restore",
        "if mkdir /run/first 2>/dev/null; then sed '/^COMMIT/q' > /run/script; real \"$@\" < /run/script; echo refused >&2; exit 1; fi; real \"$@\"",
    );
    let said = nvactl(
        &host,
        &["apply", "-", "--no-trial"],
        &SPEC.replace("10.224.0.118:80", "10.224.0.119:80"),
    );
    unfake(&host, "iptables-restore");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(host.exists("/run/first"), "{said:?}");
    assert_eq!(counted(&host), before);
}
