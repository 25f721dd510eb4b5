//! The system log: what a change leaves there, and that nvactl never waits for it.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::firewall::{SPEC, firewall};
use crate::lab::{Backend, save};
use crate::namespace::Host;
use crate::nvactl;

/// A system log of the host's own: its socket, at `/dev/log` in a `/dev` that no other host sees.
fn log_of(host: &Host) -> UnixDatagram {
    host.shell(
        "mkdir /run/dev
         mount -t tmpfs tmpfs /run/dev
         for name in null zero random urandom tty; do
           touch /run/dev/$name
           mount --bind /dev/$name /run/dev/$name
         done
         ln -s /proc/self/fd /run/dev/fd
         mount --rbind /run/dev /dev",
    );
    let path = format!("/proc/{}/root/dev/log", host.pid());
    let socket = UnixDatagram::bind(path).expect("it can be bound");
    let limit = Some(Duration::from_secs(10));
    socket.set_read_timeout(limit).expect("a limit can be set");
    socket
}

fn next(log: &UnixDatagram) -> String {
    let mut line = [0; 4096];
    let length = log.recv(&mut line).expect("a line comes");
    String::from_utf8(line[..length].to_vec()).expect("it is text")
}

/// A line without the process's number, and without the connection of whoever runs the tests by ssh.
fn normal(line: &str) -> String {
    let (start, rest) = line.split_once('[').expect("a number");
    let (number, rest) = rest.split_once("]: ").expect("a number");
    assert!(number.parse::<u32>().is_ok(), "{line}");
    let (before, behind) = match rest.split_once(" ssh_connection=\"") {
        Some((before, rest)) => (before, rest.split_once('"').expect("it is quoted").1),
        None => (rest, ""),
    };
    format!("{start} {before}{behind}")
}

lab_test!(each_change_and_decision_is_logged);
fn each_change_and_decision_is_logged(backend: Backend) {
    let host = firewall(backend);
    let log = log_of(&host);
    let run = |args: &[&str], spec: &str, sudo_user: &str| {
        // Whoever runs the tests may have used sudo as well.
        let sudo_user = format!("SUDO_USER={sudo_user}");
        let words = [&[&sudo_user, env!("CARGO_BIN_EXE_nvactl")], args].concat();
        let output = host.feed("env", &words, spec);
        assert!(output.status.success(), "{output:?}");
    };
    let changed = SPEC
        .replace("games", "play")
        .replace("49182", "49183")
        .replace("10.3.0.4:53", "10.3.0.4:54");
    let spec_of = |line: &str| {
        let (_, rest) = line.split_once(" spec=").expect(line);
        rest.split(' ').next().expect(line).to_owned()
    };

    run(&["apply", "-", "--no-trial"], SPEC, "");
    let line = next(&log);
    let first = spec_of(&line);
    assert_eq!(
        normal(&line),
        format!(
            "<85>nvactl change made: \"apply <stdin>\" user=\"root\" spec={first} \
             added=\"web, dns.v2, games\""
        )
    );
    run(
        &["apply", "-", "--no-trial", "--confirm", "10m"],
        &changed,
        "alice\n<0>x[1]: y",
    );
    let line = next(&log);
    let second = spec_of(&line);
    assert_ne!(first, second);
    let what = format!(
        "\"apply <stdin>\" user=\"root\" sudo_user=\"alice\\n<0>x[1]: y\" spec={second} \
         added=\"play\" changed=\"web, dns.v2\" removed=\"games\""
    );
    assert_eq!(
        normal(&line),
        format!("<85>nvactl change made, undone unless confirmed in 600 s: {what}")
    );
    // Who decides is named, and what is decided on.
    let by = |name: &str| what.replace("alice\\n<0>x[1]: y", name);
    run(&["confirm", "--cancel"], "", "bob");
    assert_eq!(
        normal(&next(&log)),
        format!("<85>nvactl change cancelled and undone: {}", by("bob"))
    );
    run(
        &["apply", "-", "--no-trial", "--confirm", "10m"],
        &changed,
        "alice",
    );
    next(&log);
    run(&["confirm"], "", "bob");
    assert_eq!(
        normal(&next(&log)),
        format!("<85>nvactl change confirmed: {}", by("bob"))
    );
    run(
        &["apply", "-", "--no-trial", "--confirm", "1"],
        SPEC,
        "alice",
    );
    next(&log);
    // Nobody decides: the one who made the change is named.
    assert_eq!(
        normal(&next(&log)),
        format!(
            "<84>nvactl change not confirmed in time and undone: \"apply <stdin>\" user=\"root\" \
             sudo_user=\"alice\" spec={first} \
             added=\"games\" changed=\"web, dns.v2\" removed=\"play\""
        )
    );
    // What changes nothing is no line.
    run(&["apply", "-", "--no-trial"], &changed, "alice");
    log.set_nonblocking(true).expect("it can be set");
    let mut nothing = [0; 1];
    assert!(log.recv(&mut nothing).is_err());
}

lab_test!(a_blocked_log_does_not_delay_a_change);
fn a_blocked_log_does_not_delay_a_change(backend: Backend) {
    let host = firewall(backend);
    let log = log_of(&host);
    let path = format!("/proc/{}/root/dev/log", host.pid());
    let sender = UnixDatagram::unbound().expect("it can be made");
    sender.set_nonblocking(true).expect("it can be set");
    // Nobody reads it, and it takes no more.
    while sender.send_to(b"full", &path).is_ok() {}
    let apply = ["20", env!("CARGO_BIN_EXE_nvactl"), "apply", "-"];
    let output = host.feed("timeout", &apply, SPEC);
    assert!(output.status.success(), "{output:?}");
    assert!(save(&host).contains("49182"));
    // Its program has ended.
    drop(log);
    let removed = nvactl(&host, &["remove"], "");
    assert_eq!(removed.code, 0, "{removed:?}");
    assert!(!save(&host).contains("49182"));
}
