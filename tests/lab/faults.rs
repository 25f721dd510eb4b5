//! Killed programs, held locks, a flood of connections: what is loaded afterwards.

use std::fmt::Write as _;
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::confirm::has_watchdog;
use crate::fake::{fake, unfake};
use crate::firewall::{SPEC, apply, firewall};
use crate::lab::{Backend, FIREWALL, Lab, save};
use crate::long;
use crate::namespace::{Host, wait_for};
use crate::nvactl;
use crate::traffic::{Outcome, answer, serve_tcp};

const NVACTL: &str = env!("CARGO_BIN_EXE_nvactl");
/// Returns how many moments of a load are tried.
fn points() -> u32 {
    long::count(5, 20)
}

/// Many forwards, none of which is in SPEC.
pub fn many(count: u32) -> String {
    let mut spec = "firewall: {interface: eth0, snat: 10.3.0.4}\nforwards:\n".to_owned();
    for n in 0..count {
        let (port, third, fourth) = (10_000 + n, n / 250, n % 250 + 1);
        let _ = writeln!(
            spec,
            "  - {{name: f{n}, listen: {port}, target: {{pod: 10.225.{third}.{fourth}:80}}}}"
        );
    }
    spec
}

fn write_many(host: &Host, count: u32) {
    let written = host.feed("sh", &["-c", "cat > /run/many.yaml"], &many(count));
    assert!(written.status.success());
}

/// How long the kernel takes to load them, by a run without faults; the rules are SPEC's again.
fn load_time(host: &Host) -> Duration {
    fake(
        host,
        "iptables-restore",
        "date +%s%N > /run/begin; real \"$@\"; code=$?; date +%s%N > /run/end; exit $code",
    );
    let said = nvactl(host, &["apply", "/run/many.yaml", "--no-trial"], "");
    assert_eq!(said.code, 0, "{said:?}");
    let read = |file: &str| {
        host.run(&format!("cat {file}"))
            .trim()
            .parse::<u64>()
            .expect("nanoseconds")
    };
    let time = Duration::from_nanos(read("/run/end") - read("/run/begin"));
    unfake(host, "iptables-restore");
    apply(host, SPEC);
    time
}

lab_test!(sampled either a_killed_load_leaves_the_old_rules);
/// iptables-restore is killed in the middle: the tables that it had committed are undone.
fn a_killed_load_leaves_the_old_rules(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    write_many(&host, long::count(1_000, 10_000));
    let time = load_time(&host);
    let mut undone = 0;
    let points = points();
    for point in 0..points {
        let after = time
            .mul_f64(f64::from(point) / f64::from(points))
            .as_secs_f64();
        fake(
            &host,
            "iptables-restore",
            // Only the first load is killed: undoing it is let through.
            &format!(
                "if ! mkdir /run/kill{point} 2>/dev/null; then exec /run/real/iptables-restore \"$@\"; fi
                 cat > /run/script
                 /run/real/iptables-restore \"$@\" < /run/script & load=$!
                 sleep {after:.3}; kill -KILL $load 2>/dev/null
                 wait $load"
            ),
        );
        let said = nvactl(&host, &["apply", "/run/many.yaml", "--no-trial"], "");
        unfake(&host, "iptables-restore");
        // It may have been done before it was killed.
        if said.code == 0 {
            assert_eq!(
                nvactl(&host, &["diff", "/run/many.yaml"], "").code,
                0,
                "point {point}"
            );
            apply(&host, SPEC);
        } else {
            assert_eq!(said.code, 2, "point {point}: {said:?}");
            undone += 1;
        }
        assert_eq!(save(&host), before, "point {point}");
    }
    assert!(
        undone >= points / 2,
        "only {undone} loads were killed in time"
    );
}

/// How long such a run takes from its begin to its end; the rules are SPEC's again.
fn run_time(host: &Host, args: &[&str]) -> Duration {
    let begin = Instant::now();
    let said = nvactl(host, args, "");
    let time = begin.elapsed();
    assert_eq!(said.code, 0, "{said:?}");
    time
}

/// Runs nvactl and kills it in the middle: what it had started runs on.
fn kill_after(host: &Host, time: Duration, args: &[&str]) {
    let mut run = host
        .command(NVACTL)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    std::thread::sleep(time);
    run.kill().expect("it can be killed");
    run.wait().expect("it ends");
}

lab_test!(sampled either apply_converges_after_a_killed_nvactl);
/// nvactl is killed in the middle: the next apply converges, whatever is loaded.
fn apply_converges_after_a_killed_nvactl(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    write_many(&host, long::count(500, 3_000));
    let args = ["apply", "/run/many.yaml", "--no-trial"];
    let time = run_time(&host, &args);
    apply(&host, SPEC);
    let points = points();
    for point in 0..points {
        kill_after(&host, time * point / points, &args);
        apply(&host, SPEC);
        assert_eq!(save(&host), before, "point {point}");
    }
}

lab_test!(sampled either the_watchdog_outlives_a_nvactl_killed_at_any_point);
/// The same with a watchdog: nobody has to come.
fn the_watchdog_outlives_a_nvactl_killed_at_any_point(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    write_many(&host, long::count(500, 3_000));
    let args = ["apply", "/run/many.yaml", "--no-trial", "--confirm", "1"];
    // Until somebody decides: on a busy machine a second may be over before the report.
    let time = run_time(&host, &[&args[..4], &["600"]].concat());
    assert_eq!(nvactl(&host, &["confirm", "--cancel"], "").code, 0);
    let restored = || {
        wait_for("the watchdog is done", || !has_watchdog(&host));
        save(&host) == before
    };
    assert!(restored(), "without a kill");
    let points = points();
    for point in 0..points {
        kill_after(&host, time * point / points, &args);
        assert!(restored(), "point {point}");
        let said = nvactl(&host, &["apply", "-", "--dry-run"], SPEC);
        assert_eq!(
            (said.code, said.stdout.as_str()),
            (0, "<stdin>: no changes\n")
        );
    }
}

lab_test!(a_held_xtables_lock_is_waited_for_and_reported);
/// Legacy has a lock of its own, for each table.
fn a_held_xtables_lock_is_waited_for_and_reported(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    let mut holder = host
        .command("flock")
        .args([
            "--no-fork",
            "/run/xtables.lock",
            "sh",
            "-c",
            "touch /run/held; exec sleep 60",
        ])
        .spawn()
        .expect("it starts");
    wait_for("the lock is held", || host.exists("/run/held"));
    let changed = SPEC.replace("49182", "49183");
    let said = nvactl(&host, &["apply", "-", "--lock-timeout", "1"], &changed);
    match backend {
        Backend::Legacy => {
            assert_eq!(said.code, 2, "{said:?}");
            assert!(
                said.stderr
                    .contains("another program holds the xtables lock"),
                "{said:?}"
            );
            assert_eq!(save(&host), before);
        }
        // nft takes none.
        Backend::Nft => assert_eq!(said.code, 0, "{said:?}"),
    }
    holder.kill().expect("it can be killed");
    holder.wait().expect("it ends");
    apply(&host, &changed);
}

const SHARED: &str = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: shared, listen: 8080, target: {pod: 10.224.0.118:80}}
  - {name: PORT, listen: PORT, target: {pod: 10.224.0.118:81}}
";

lab_test!(sampled either no_packet_is_lost_or_let_through_while_rules_change);
/// Two specs in turn, and connections all the while: those of the shared forward all get through,
/// and none reaches what is in neither spec.
fn no_packet_is_lost_or_let_through_while_rules_change(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    serve_tcp(&lab.pod, "closed", 90);
    let specs = ["7001", "7002"].map(|port| SHARED.replace("PORT", port));
    lab.apply(&specs[0]);
    lab.route_through_firewall(crate::lab::POD);
    assert_eq!(lab.tcp(FIREWALL, 8080), answer("pod", FIREWALL));
    assert_eq!(lab.tcp(crate::lab::POD, 90), Outcome::Silence);

    let over = Arc::new(AtomicBool::new(false));
    let (asked, let_through) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let flood = {
        let (over, asked, let_through) = (
            Arc::clone(&over),
            Arc::clone(&asked),
            Arc::clone(&let_through),
        );
        lab.client.enter(move || {
            // A lost SYN is sent again after a second: one that takes this long was lost.
            let patience = Duration::from_millis(900);
            let shared = {
                let over = Arc::clone(&over);
                std::thread::spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        let to = format!("{FIREWALL}:8080").parse().expect("an address");
                        let begin = Instant::now();
                        TcpStream::connect_timeout(&to, patience).unwrap_or_else(|error| {
                            panic!("lost after {:?}: {error}", begin.elapsed())
                        });
                        asked.fetch_add(1, Ordering::Relaxed);
                        // Each takes one of the 64,000 ports of the SNAT address for two minutes.
                        std::thread::sleep(Duration::from_millis(2));
                    }
                })
            };
            let closed = std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let to = format!("{}:90", crate::lab::POD)
                        .parse()
                        .expect("an address");
                    let passed = TcpStream::connect_timeout(&to, Duration::from_millis(20)).is_ok();
                    let_through.fetch_add(usize::from(passed), Ordering::Relaxed);
                }
            });
            [shared, closed]
        })
    };
    let applies = long::count(60, 300);
    for n in 1..=applies {
        let said = lab.nvactl_with(&["apply", "-", "--no-trial"], &specs[n % 2]);
        assert_eq!(said.code, 0, "{said:?}");
    }
    over.store(true, Ordering::Relaxed);
    for thread in flood {
        thread
            .join()
            .expect("no connection of the shared forward was lost");
    }
    assert_eq!(
        let_through.load(Ordering::Relaxed),
        0,
        "connections reached a closed port"
    );
    assert!(
        asked.load(Ordering::Relaxed) > applies,
        "the flood was too thin to say anything"
    );
}
