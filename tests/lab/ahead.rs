//! An apply begins to read the rules before it knows its spec; nobody is to notice.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::fake::{fake, unfake};
use crate::firewall::{SPEC, apply, firewall};
use crate::lab::{Backend, save, save_v6};
use crate::namespace::{Host, wait_for};
use crate::nvactl;

const BAD: &str = "firewall: {interface: eth0, snat: 10.3.0.400}\nforwards: []\n";

/// Has every iptables-save tell its process id, and wait until it may go on.
fn hold_reading(host: &Host) {
    fake(
        host,
        "iptables-save",
        "echo $$ > /run/id; mv /run/id /run/saving; while [ ! -e /run/go ]; do sleep 0.05; done; real \"$@\"",
    );
}

fn start(host: &Host, spec: &str, set_up: impl FnOnce(&mut Command)) -> Child {
    host.feed("sh", &["-c", "cat > /run/spec.yaml"], spec);
    let mut command = host.command(env!("CARGO_BIN_EXE_nvactl"));
    command
        .args(["apply", "/run/spec.yaml"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    set_up(&mut command);
    command.spawn().expect("it starts")
}

lab_test!(either a_bad_spec_leaves_no_program_running);
fn a_bad_spec_leaves_no_program_running(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    hold_reading(&host);
    // Long enough for a program to begin while it is read, mostly.
    let forwards = (1..20_000).map(|port| {
        format!("  - {{name: f-{port}, listen: {port}, target: {{pod: 10.224.0.118:80}}}}\n")
    });
    let bad = BAD.replace(" []\n", "\n") + &forwards.collect::<String>();
    wait_for("a program has begun", || {
        let mut bad = start(&host, &bad, |_| {});
        assert_eq!(bad.wait().expect("it ends").code(), Some(2));
        host.exists("/run/saving")
    });
    let saving = host.run("cat /run/saving");
    assert!(!Path::new("/proc").join(saving.trim()).exists());
}

lab_test!(a_bad_spec_is_reported_at_once);
/// The errors go to where nobody reads them, for now.
fn a_bad_spec_is_reported_at_once(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let (unread, full) = io::pipe().expect("a pipe");
    (&full)
        .write_all(&vec![b'.'; 1 << 16])
        .expect("it has room");
    let mut bad = start(&host, BAD, |command| {
        command.stderr(full);
    });
    // Its file descriptor 2 is what it waits for (proc_pid_syscall(5)).
    wait_for("it tells its errors", || {
        let call = fs::read_to_string(format!("/proc/{}/syscall", bad.id()));
        call.is_ok_and(|call| call.split(' ').nth(1) == Some("0x2"))
    });
    let other = SPEC.replace("49182", "49183");
    let said = nvactl(&host, &["apply", "-", "--lock-timeout", "3"], &other);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(bad.try_wait().expect("it is ours").is_none());
    drop(unread);
    assert_eq!(bad.wait().expect("it ends").code(), Some(2));
}

lab_test!(ipv6_rules_added_meanwhile_are_seen);
/// What another loads while an apply waits for the lock was not there when it began.
fn ipv6_rules_added_meanwhile_are_seen(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    hold_reading(&host);
    let both = format!(
        "{}  - {{name: six, listen: 8080, target: {{pod: '[fd00:224::118]:80'}}}}\n",
        SPEC.replace("snat: 10.3.0.4", "snat: {v4: 10.3.0.4, v6: 'fd00:3::4'}")
    );
    let mut first = start(&host, &both, |_| {});
    wait_for("the first has the lock", || host.exists("/run/saving"));
    let mut second = start(&host, SPEC, |_| {});
    wait_for("the second waits for it", || {
        let open = fs::read_dir(format!("/proc/{}/fd", second.id()));
        let mut open = open.into_iter().flatten().flatten();
        open.any(|file| fs::read_link(file.path()).is_ok_and(|to| to.ends_with("lock")))
    });
    host.run("touch /run/go");
    for child in [&mut first, &mut second] {
        assert!(child.wait().expect("it ends").success());
    }
    unfake(&host, "iptables-save");
    assert!(save(&host).contains("--comment web"));
    assert!(!save_v6(&host).contains("NVACTL"));
}
