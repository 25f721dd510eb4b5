//! A doctor without the means to make a twin says so and checks the live machine all the same, and nothing
//! of a twin outlives its doctor.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use crate::lab::{Backend, Lab, Said};
use crate::long;
use crate::namespace::wait_for;
use crate::shortage::Tasks;
use crate::traffic::serve_tcp;

const NVACTL: &str = env!("CARGO_BIN_EXE_nvactl");

const SPEC: &str = "
firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
";

const DOCTOR: [&str; 4] = ["doctor", "/run/spec.yaml", "--timeout", "0.1"];

fn lab(backend: Backend) -> Lab {
    let lab = Lab::two_nics(backend);
    lab.apply(SPEC);
    let written = lab
        .firewall
        .feed("sh", &["-c", "cat > /run/spec.yaml"], SPEC);
    assert!(written.status.success());
    lab
}

/// Checks that the packets are not known, for a reason, and that live checks were made.
fn is_unknown(said: &Said, why: &str) {
    let unknown = said
        .stdout
        .lines()
        .find(|line| line.starts_with("unknown packets "));
    assert!(unknown.is_some_and(|line| line.contains(why)), "{said:?}");
    for live in [
        "ok      interface            eth0 is up",
        "ok      snat-address ",
    ] {
        assert!(said.stdout.contains(live), "{said:?}");
    }
    assert!(!said.stderr.contains("panicked"), "{said:?}");
}

lab_test!(either packets_are_unknown_without_the_right_to_make_namespaces);
fn packets_are_unknown_without_the_right_to_make_namespaces(backend: Backend) {
    let lab = lab(backend);
    let words = [&["--bounding-set=-sys_admin", NVACTL][..], &DOCTOR].concat();
    let said = Said::from(lab.firewall.feed("setpriv", &words, ""));
    is_unknown(&said, "CAP_SYS_ADMIN");
}

lab_test!(either packets_are_unknown_without_nft);
fn packets_are_unknown_without_nft(backend: Backend) {
    let lab = lab(backend);
    // nvactl looks in the system's folders, too.
    let script = "cp -a /usr/sbin /run/sbin; rm /run/sbin/nft; mount --bind /run/sbin /usr/sbin
        exec \"$@\"";
    let words = [&["-ec", script, "sh", NVACTL][..], &DOCTOR].concat();
    let said = Said::from(lab.firewall.feed("sh", &words, ""));
    is_unknown(&said, "`nft` is not installed");
}

lab_test!(either packets_are_unknown_without_a_free_thread);
/// As `TasksMax=` of systemd limits a unit.
fn packets_are_unknown_without_a_free_thread(backend: Backend) {
    let Some(tasks) = Tasks::new() else { return };
    let lab = lab(backend);
    let mut unknown = 0;
    for most in 2..=6 {
        tasks.limit(&most.to_string());
        let said = tasks.nvactl(&lab.firewall, &DOCTOR);
        assert!(!said.stderr.contains("panicked"), "{most}: {said:?}");
        // So few that the rules cannot be read.
        if said.code == 2 {
            assert!(said.stderr.contains("could not be started"), "{said:?}");
        } else if said.stdout.contains("no thread could be started") {
            is_unknown(&said, "no thread could be started");
            unknown += 1;
        } else if said.stdout.contains("no connection was tried") {
            is_unknown(&said, "could not be started");
            unknown += 1;
        }
    }
    assert!(unknown > 0, "each had all that it needs");
}

lab_test!(either a_socket_that_cannot_be_opened_affects_only_its_forward);
/// A forward to many targets needs more sockets than there may be.
fn a_socket_that_cannot_be_opened_affects_only_its_forward(backend: Backend) {
    let lab = lab(backend);
    serve_tcp(&lab.pod, "pod", 80);
    let pods: Vec<String> = (1..=30).map(|n| format!("10.224.1.{n}:53")).collect();
    let many = format!(
        "  - {{name: many, listen: 53, protocol: udp, target: {{pod: [{}]}}}}\n",
        pods.join(", ")
    );
    let spec = format!("{SPEC}{many}");
    lab.apply(&spec);
    let script = "cat > /run/many.yaml; ulimit -n 50
        exec \"$0\" doctor /run/many.yaml --timeout 0.1 --format prometheus";
    let said = Said::from(lab.firewall.feed("sh", &["-ec", script, NVACTL], &spec));
    let sample = |forward: &str, protocol: &str| {
        format!(
            "nvactl_forward_works{{forward=\"{forward}\",protocol=\"{protocol}\",family=\"v4\"}} "
        )
    };
    assert!(
        said.stdout.contains(&(sample("web", "tcp") + "1")),
        "{said:?}"
    );
    assert!(!said.stdout.contains(&sample("many", "udp")), "{said:?}");
}

/// The number of processes with a word in their environment, programs that a doctor has started included.
fn processes(mark: &str) -> usize {
    let all = fs::read_dir("/proc").expect("it is mounted").flatten();
    let marked = all.filter(|one| {
        let environ = fs::read(one.path().join("environ")).unwrap_or_default();
        String::from_utf8_lossy(&environ).contains(mark)
    });
    marked.count()
}

lab_test!(sampled either many_doctors_leave_nothing_behind);
fn many_doctors_leave_nothing_behind(backend: Backend) {
    const SPARED: u64 = 7;
    const KILLED: u64 = 3;
    let lab = lab(backend);
    let state = || {
        let own = "grep NVACTL- | grep -v -e '-A POSTROUTING'";
        lab.firewall.shell(&format!(
            "iptables-save -c | {own}; ip6tables-save -c; ip netns; ip -o link; ip -o address
             ip rule; ip route show table all; conntrack -L 2> /dev/null | grep -c dport=49182 || true"
        ))
    };
    let mark = format!(
        "NVACTL_LAB_MARK=doctors-{}-{}",
        std::process::id(),
        backend.name()
    );
    let (name, value) = mark.split_once('=').expect("it has one");
    let doctor = || {
        let mut command = lab.firewall.command(NVACTL);
        command.args(DOCTOR).env(name, value);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().expect("it starts")
    };
    // Entries of neighbours come with the first.
    assert!(doctor().wait().expect("it ends").code().is_some());
    let before = state();
    let mut random = 7_u64;
    let mut killed = 0;
    let batches = long::count(3, 10);
    for _ in 0..batches {
        let mut doctors: Vec<Child> = (0..SPARED).map(|_| doctor()).collect();
        for _ in 0..KILLED {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            // Killed right behind its start: on a slow machine, the first of a batch have ended before the last one starts.
            let mut one = doctor();
            thread::sleep(Duration::from_millis(random >> 57));
            one.kill().expect("nobody has waited for it");
            doctors.push(one);
        }
        for mut one in doctors {
            let ended = one.wait().expect("it ends");
            killed += u64::from(ended.signal().is_some());
        }
    }
    assert!(killed >= 2 * batches, "only {killed} were killed");
    wait_for("every process of theirs is gone", || processes(&mark) == 0);
    assert_eq!(state(), before);
}

lab_test!(either without_time_for_all_interfaces_packets_are_unknown);
/// The making of a namespace for each interface takes a part of the doctor's time.
fn without_time_for_all_interfaces_packets_are_unknown(backend: Backend) {
    let lab = lab(backend);
    lab.firewall.shell(
        "for n in $(seq 125); do
            echo link add a$n type veth peer name b$n
            echo address add 10.99.$n.1/24 dev a$n
            echo link set a$n up
            echo link set b$n up
        done | ip -batch -",
    );
    let words = [&DOCTOR[..], &["--deadline", "1"]].concat();
    is_unknown(
        &lab.nvactl(&words),
        "the time limit was reached before the copy had all 252 interfaces",
    );
}
