//! `nvactl status --textfile`: the file that the collector of `node_exporter` reads.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::fake::{fake, unfake};
use crate::firewall::{SPEC, apply, firewall};
use crate::lab::{Backend, Said};
use crate::namespace::Host;
use crate::nvactl;

const FILE: &str = "/run/collector/nvactl.prom";

fn status(host: &Host) -> Said {
    nvactl(host, &["status", "--check", "--textfile", FILE], "")
}

/// The samples of a text, without the counters that change by themselves.
fn samples(text: &str) -> Vec<&str> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let stays = |line: &&str| !line.contains("_packets") && !line.contains("_bytes");
    samples.filter(stays).collect()
}

lab_test!(either the_file_has_the_metrics_and_its_old_content_is_replaced);
fn the_file_has_the_metrics_and_its_old_content_is_replaced(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    // The check is all there is if the folder is missing.
    let said = status(&host);
    assert_eq!(said.code, 0, "{said:?}");
    let told = "note: the folder of `/run/collector/nvactl.prom` does not exist, so no metrics are written\n";
    assert!(said.stderr.contains(told), "{said:?}");
    assert!(!host.exists("/run/collector"));

    // The collector has a user of its own; root's umask must not keep it out.
    host.shell("install -d -o 65534 /run/collector");
    let script = format!(
        "umask 077; exec {} status --check --textfile {FILE}",
        env!("CARGO_BIN_EXE_nvactl")
    );
    let said = Said::from(host.feed("sh", &["-ec", &script], ""));
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(host.run(&format!("stat -c %a:%U {FILE}")), "644:root\n");
    assert!(
        said.stdout.contains("in sync"),
        "the report is there too: {said:?}"
    );
    let printed = nvactl(&host, &["status", "--format", "prometheus"], "").stdout;
    let first = host.run(&format!("cat {FILE}"));
    assert_eq!(samples(&first), samples(&printed));
    for line in ["nvactl_up 1", "nvactl_in_sync 1", "nvactl_repairs_total 0"] {
        assert!(first.lines().any(|one| one == line), "{line}: {first}");
    }

    // Not in sync is a metric and an exit code.
    let version = || host.run(&format!("stat -c %i {FILE}"));
    let before = version();
    host.run("iptables -F NVACTL-FORWARD");
    let said = status(&host);
    assert_eq!(said.code, 1, "{said:?}");
    let text = host.run(&format!("cat {FILE}"));
    assert!(text.contains("\nnvactl_in_sync 0\n"), "{text}");
    assert_ne!(version(), before, "it was written in place");
    assert_eq!(host.run("ls -A /run/collector"), "nvactl.prom\n");
}

lab_test!(either a_status_that_cannot_be_read_leaves_no_old_metrics);
fn a_status_that_cannot_be_read_leaves_no_old_metrics(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    host.run("mkdir /run/collector");
    for (break_it, mend) in [
        (
            &(|| fake(&host, "iptables-save", "exit 1")) as &dyn Fn(),
            &(|| unfake(&host, "iptables-save")) as &dyn Fn(),
        ),
        (
            &|| drop(host.run("mv /var/lib/nvactl /var/lib/other")),
            &|| drop(host.run("mv /var/lib/other /var/lib/nvactl")),
        ),
    ] {
        assert_eq!(status(&host).code, 0);
        break_it();
        let said = status(&host);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.stderr.contains("error: "), "{said:?}");
        let text = host.run(&format!("cat {FILE}"));
        assert_eq!(
            samples(&text),
            [
                "nvactl_up 0",
                "nvactl_repairs_total 0",
                "nvactl_repair_braked 0"
            ]
        );
        mend();
    }
    assert_eq!(status(&host).code, 0);
    assert!(host.run(&format!("cat {FILE}")).contains("nvactl_up 1"));
}

lab_test!(either a_place_that_cannot_be_written_is_an_error_and_the_report_is_there);
fn a_place_that_cannot_be_written_is_an_error_and_the_report_is_there(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    host.shell(&format!("mkdir -p {FILE}"));
    let said = status(&host);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr
            .contains("`/run/collector/nvactl.prom` is not a regular file"),
        "{said:?}"
    );
    assert!(said.stdout.contains("in sync"), "{said:?}");

    // The owner of the folder must not choose a file for root to write.
    host.shell(&format!(
        "rmdir {FILE}
         echo precious > /run/precious
         ln -s /run/precious {FILE}"
    ));
    assert_eq!(status(&host).code, 0);
    assert_eq!(host.run("cat /run/precious"), "precious\n");
    assert_eq!(host.run(&format!("stat -c %F {FILE}")), "regular file\n");

    for name in [
        "/run/collector/nvactl",
        "/run/collector/.prom",
        "nvactl.prom.txt",
    ] {
        let said = nvactl(&host, &["status", "--textfile", name], "");
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.stderr.contains("names that end in .prom"), "{said:?}");
    }
    assert_eq!(host.run("ls -A /run/collector"), "nvactl.prom\n");
}

lab_test!(either a_reader_never_sees_half_a_file);
fn a_reader_never_sees_half_a_file(backend: Backend) {
    let host = firewall(backend);
    let forwards = (1..=400).map(|n| {
        format!(
            "  - {{name: f{n}, listen: {}, target: {{pod: \"10.224.0.118:80\"}}}}\n",
            10_000 + n
        )
    });
    let forwards: String = forwards.collect();
    let spec = format!("firewall: {{interface: eth0, snat: 10.3.0.4}}\nforwards:\n{forwards}");
    apply(&host, &spec);
    host.run("mkdir /run/collector");
    assert_eq!(status(&host).code, 0);
    let path = host.path(FILE);
    let over = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&over);
    let reader = thread::spawn(move || {
        let mut reads = 0;
        while !stop.load(Ordering::Relaxed) {
            let text = fs::read_to_string(&path).expect("it is there all the time");
            let last = text.lines().last().expect("it is not empty");
            let is_whole = last.starts_with("nvactl_forward_connections")
                || last.starts_with("nvactl_forward_live");
            assert!(is_whole && text.ends_with('\n'), "{last}");
            reads += 1;
        }
        reads
    });
    for _ in 0..5 {
        assert_eq!(status(&host).code, 0);
    }
    over.store(true, Ordering::Relaxed);
    assert!(reader.join().expect("it saw whole files alone") > 5);
}
