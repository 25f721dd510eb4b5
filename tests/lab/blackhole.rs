//! An operator's own session that goes dark, by a real sshd.

use std::process::Stdio;

use crate::firewall::{SPEC, apply};
use crate::lab::{Backend, Lab, save};
use crate::namespace::wait_for;
use crate::ssh::{self, Running};

const NVACTL: &str = env!("CARGO_BIN_EXE_nvactl");

lab_test!(either the_change_of_a_broken_session_is_undone);
/// No packet of the session comes through any more, and none says that it has ended.
fn the_change_of_a_broken_session_is_undone(backend: Backend) {
    let lab = Lab::one_nic(backend);
    let _sshd = ssh::serve(&lab.firewall);
    apply(&lab.firewall, SPEC);
    let before = save(&lab.firewall);
    let changed = SPEC.replace("49182", "49183");
    let written = lab
        .firewall
        .feed("sh", &["-c", "cat > /run/spec.yaml"], &changed);
    assert!(written.status.success());

    let command = format!(
        "PATH=/run/bin:/usr/sbin:/usr/bin:/sbin:/bin {NVACTL} apply /run/spec.yaml --confirm 5"
    );
    let line = ssh::line(&lab, "root", "-tt", &command);
    let mut ssh_command = lab.client.command("sh");
    ssh_command
        .args(["-c", &format!("exec {line} > /run/seen 2>&1")])
        .stdin(Stdio::piped());
    let mut session = Running(ssh_command.spawn().expect("it starts"));
    wait_for("it asks", || {
        lab.client
            .shell("cat /run/seen 2>/dev/null || true")
            .contains("keep the change? [y/N]")
    });
    assert_ne!(save(&lab.firewall), before);
    lab.client.run("ip link set eth0 down");
    wait_for("the old rules are back", || save(&lab.firewall) == before);
    // Neither side knows that nobody is there any more.
    assert!(session.0.try_wait().expect("it can be asked").is_none());
    assert!(
        lab.firewall
            .run("ss -Htn state established sport = 22")
            .contains(crate::lab::CLIENT)
    );

    lab.client.run("ip link set eth0 up");
    lab.client
        .shell("ip route replace 198.51.100.1 dev eth0; ip route replace default via 198.51.100.1");
    let status = format!("{NVACTL} confirm --status");
    let said = lab.client.shell(&ssh::line(&lab, "root", "-tt", &status));
    assert!(
        said.starts_with("nothing is waiting for a confirmation"),
        "{said}"
    );
    assert!(said.contains("nobody confirmed it in time"), "{said}");
}
