//! Other programs put rules before nvactl's own while it changes them, as Docker does: the change
//! stays, nvactl's jumps come first again, and no rule of others is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::chance::Chance;
use crate::fake::{fake, unfake};
use crate::firewall::{SPEC, apply, firewall};
use crate::lab::{Backend, save};
use crate::long;
use crate::namespace::Host;
use crate::nvactl;
use crate::state::inode;

/// The rules of a chain, in their order.
fn chain(host: &Host, name: &str) -> Vec<String> {
    let begin = format!("-A {name} ");
    let saved = save(host);
    let rules = saved.lines().filter(|line| line.starts_with(&begin));
    rules.map(str::to_owned).collect()
}

fn position(rules: &[String], rule: &str) -> usize {
    let mut places = rules.iter().enumerate().filter(|(_, one)| *one == rule);
    let (place, _) = places
        .next()
        .unwrap_or_else(|| panic!("no {rule}: {rules:?}"));
    assert_eq!(places.next(), None, "{rule} is there twice: {rules:?}");
    place
}

/// A load after which a foreign rule is put into first place; `when` tells the loads that it happens
/// after.
fn disturbed(host: &Host, when: &str, foreign: &str) -> String {
    // A trial in a namespace of its own is nobody's business.
    let here = inode(host);
    format!(
        "real \"$@\"; code=$?
         case \"$*\" in *--noflush*)
           if readlink /proc/self/ns/net | grep -q {here} && {when}; then iptables -w {foreign}; echo >> /run/disturbed; fi;;
         esac
         exit $code"
    )
}

fn disturbances(host: &Host) -> usize {
    host.shell("cat /run/disturbed 2>/dev/null || true").len()
}

const OTHERS: [(&str, &str, &str); 3] = [
    (
        "FORWARD",
        "-I FORWARD -s 192.0.2.7/32 -j ACCEPT",
        "-A FORWARD -j NVACTL-FORWARD",
    ),
    (
        "PREROUTING",
        "-t nat -I PREROUTING -s 192.0.2.7/32 -j ACCEPT",
        "-A PREROUTING -j NVACTL-PREROUTING",
    ),
    (
        "POSTROUTING",
        "-t nat -I POSTROUTING -s 192.0.2.7/32 -j ACCEPT",
        "-A POSTROUTING -j NVACTL-POSTROUTING",
    ),
];

lab_test!(the_jump_returns_to_the_first_place);
/// One rule comes between the load and the look at it.
fn the_jump_returns_to_the_first_place(backend: Backend) {
    for (name, foreign, jump) in OTHERS {
        let host = firewall(backend);
        apply(&host, SPEC);
        let changed = SPEC.replace("49182", "49183");
        fake(
            &host,
            "iptables-restore",
            &disturbed(&host, "mkdir /run/once 2>/dev/null", foreign),
        );
        let said = nvactl(&host, &["apply", "-", "--no-trial"], &changed);
        unfake(&host, "iptables-restore");
        assert_eq!(disturbances(&host), 1, "{name}");
        assert_eq!(said.code, 0, "{name}: {said:?}");
        let rules = chain(&host, name);
        assert_eq!(position(&rules, jump), 0, "{name}: {rules:?}");
        let kept = format!("-A {name} -s 192.0.2.7/32 -j ACCEPT");
        position(&rules, &kept);
        assert!(save(&host).contains("--dport 49183"), "{name}");
        let said = nvactl(&host, &["diff", "-"], &changed);
        assert_eq!(said.code, 0, "{name}: {said:?}");
    }
}

lab_test!(a_jump_that_is_moved_repeatedly_is_a_warning);
/// A rule comes after each load, for ever: the change stays, and the place of the jump is reported.
fn a_jump_that_is_moved_repeatedly_is_a_warning(backend: Backend) {
    for (name, foreign, jump) in OTHERS {
        let host = firewall(backend);
        apply(&host, SPEC);
        let changed = SPEC.replace("49182", "49183");
        fake(
            &host,
            "iptables-restore",
            &disturbed(&host, "true", foreign),
        );
        let said = nvactl(&host, &["apply", "-", "--no-trial"], &changed);
        unfake(&host, "iptables-restore");
        assert_eq!(said.code, 0, "{name}: {said:?}");
        let warnings = said
            .stderr
            .lines()
            .filter(|line| line.starts_with("warning: "));
        assert!(
            warnings.clone().any(|line| line.contains(name)),
            "{name}: {said:?}"
        );
        let rules = chain(&host, name);
        position(&rules, jump);
        let kept = format!("-A {name} -s 192.0.2.7/32 -j ACCEPT");
        let foreign = rules.iter().filter(|rule| **rule == kept).count();
        assert_eq!(foreign, disturbances(&host), "{name}: {rules:?}");
        let saved = save(&host);
        assert!(
            saved.contains("--dport 49183") && !saved.contains("--dport 49182"),
            "{name}: it was undone: {saved}"
        );
        // With nobody in its way the next one puts it right.
        apply(&host, &changed);
        assert_eq!(position(&chain(&host, name), jump), 0);
    }
}

lab_test!(other_changes_are_not_undone_either);
/// A rollback and a remove are changes as well.
fn other_changes_are_not_undone_either(backend: Backend) {
    let host = firewall(backend);
    let (name, foreign, jump) = OTHERS[0];
    apply(&host, SPEC);
    apply(&host, &SPEC.replace("49182", "49183"));
    fake(
        &host,
        "iptables-restore",
        &disturbed(&host, "true", foreign),
    );
    let said = nvactl(&host, &["rollback"], "");
    assert_eq!(said.code, 0, "{said:?}");
    position(&chain(&host, name), jump);
    assert!(save(&host).contains("--dport 49182"));
    let said = nvactl(&host, &["remove"], "");
    assert_eq!(said.code, 0, "{said:?}");
    unfake(&host, "iptables-restore");
    let saved = save(&host);
    assert!(!saved.contains("NVACTL"), "{saved}");
    assert_eq!(chain(&host, name).len(), disturbances(&host), "{saved}");
}

/// As Docker has its bridges.
const BRIDGES: usize = 4;

/// Puts rules in and takes them out until it is over, as Docker does when containers come and go,
/// and returns how many it has put in.
fn churn(host: &Host, over: &Arc<AtomicBool>) -> thread::JoinHandle<usize> {
    let mut chance = Chance::new();
    let run = |line: String| {
        let mut command = host.command("iptables");
        command.arg("-w").args(line.split(' '));
        command
    };
    let rules: Vec<[_; 2]> = (0..BRIDGES)
        .map(|n| ["-I", "-D"].map(|how| run(format!("{how} FORWARD -o br-{n} -j ACCEPT"))))
        .collect();
    let over = Arc::clone(over);
    thread::spawn(move || {
        let mut rules = rules;
        let (mut there, mut put) = ([false; BRIDGES], 0);
        let ends = |command: &mut std::process::Command| {
            let output = command.output().expect("it starts");
            assert!(
                output.status.success(),
                "a foreign rule was lost: {output:?}"
            );
        };
        while !over.load(Ordering::Relaxed) {
            let n = chance.index(BRIDGES);
            ends(&mut rules[n][usize::from(there[n])]);
            put += usize::from(!there[n]);
            there[n] = !there[n];
            thread::sleep(Duration::from_millis(chance.below(15)));
        }
        for (rules, there) in rules.iter_mut().zip(there) {
            if there {
                ends(&mut rules[1]);
            }
        }
        put
    })
}

lab_test!(sampled either every_change_during_churn_is_made);
/// Many changes beside somebody who never rests: each is made, and nothing of others is lost.
fn every_change_during_churn_is_made(backend: Backend) {
    let host = firewall(backend);
    for rule in ["-s 192.0.2.1/32 -j ACCEPT", "-s 192.0.2.2/32 -j DROP"] {
        host.run(&format!("iptables -A FORWARD {rule}"));
    }
    apply(&host, SPEC);
    let over = Arc::new(AtomicBool::new(false));
    let churn = churn(&host, &over);
    let mut failed = Vec::new();
    let applies = long::count(10, 30);
    for n in 0..applies {
        let ports = ["49183", "49184"];
        let spec = SPEC.replace("49182", ports[n % 2]);
        let said = nvactl(&host, &["apply", "-", "--no-trial"], &spec);
        let saved = save(&host);
        let made = saved.contains(&format!("--dport {}", ports[n % 2]))
            && !saved.contains(&format!("--dport {}", ports[(n + 1) % 2]));
        if said.code != 0 || !made {
            failed.push((n, said));
        }
    }
    over.store(true, Ordering::Relaxed);
    let put = churn.join().expect("no foreign rule was lost");
    assert!(
        put > applies / 2,
        "the churn was too thin to say anything: {put}"
    );
    assert!(
        failed.is_empty(),
        "{} of {applies} changes were not made: {failed:?}",
        failed.len()
    );
    apply(&host, SPEC);
    assert_eq!(
        chain(&host, "FORWARD"),
        [
            "-A FORWARD -j NVACTL-FORWARD",
            "-A FORWARD -s 192.0.2.1/32 -j ACCEPT",
            "-A FORWARD -s 192.0.2.2/32 -j DROP",
        ]
    );
}
